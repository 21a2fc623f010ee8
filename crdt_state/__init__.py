"""An offline-first sync engine: CRDT documents, durable replicas, one core for all of them.

    async with Replica.open("notes.db") as replica:
        replica.connect("ws://localhost:1234")
        note = await replica.document("notes/today")
        note.text("text").insert(0, "hello")

What is named here is the public interface; each name is loaded when it is first used, so that a
program that needs one room (a worker process, say) does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.clocks import HybridClock, ManualClock
    from crdt_state.errors import (
        AlreadyConnected,
        CrdtStateError,
        DocumentClosed,
        DocumentDeleted,
        EditNotStored,
        EditRefused,
        EngineFailed,
        IndexOutOfRange,
        LimitExceeded,
        LineageEnded,
        NotYetReplicated,
        ObserversFailed,
        RootTypeConflict,
        StoreError,
        StoreInUse,
        UpdateRefused,
        UpdateTooLarge,
        UsageError,
        ValueNotStorable,
    )
    from crdt_state.identifiers import ClientId, DocumentId, Incarnation, document_id
    from crdt_state.limits import DEFAULT_LIMITS, Limits
    from crdt_state.model.awareness import AwarenessChange
    from crdt_state.model.container import Event
    from crdt_state.model.counter import Counter, CounterEvent
    from crdt_state.model.document import Document
    from crdt_state.model.list import List, ListEvent
    from crdt_state.model.map import KeyChange, Map, MapEvent
    from crdt_state.model.movable import MovableList
    from crdt_state.model.positions import Position, Side
    from crdt_state.model.register import (
        LwwRegister,
        MultiValueEvent,
        MultiValueRegister,
        RegisterEvent,
    )
    from crdt_state.model.set import Set, SetEvent
    from crdt_state.model.text import Delete, Delta, Insert, Retain, Text, TextEvent
    from crdt_state.model.undo import UndoStack
    from crdt_state.model.values import Codec
    from crdt_state.replica.events import EventsMissed, changes
    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.replica.presence import Presence
    from crdt_state.replica.receipts import Level, Receipt, Replication
    from crdt_state.storage.memory import MemoryStore
    from crdt_state.storage.sqlite import SqliteStore
    from crdt_state.sync.exchange import Progress
    from crdt_state.transport.link import Link, Wire
    from crdt_state.transport.neighbourhood import Neighbourhood
    from crdt_state.transport.replica import Replica

__all__ = [
    "AlreadyConnected",
    "AwarenessChange",
    "ClientId",
    "Codec",
    "Counter",
    "CounterEvent",
    "CrdtStateError",
    "DEFAULT_LIMITS",
    "Delete",
    "Delta",
    "Document",
    "DocumentClosed",
    "DocumentDeleted",
    "DocumentId",
    "EditNotStored",
    "EditRefused",
    "EngineFailed",
    "Event",
    "EventsMissed",
    "HybridClock",
    "Incarnation",
    "IndexOutOfRange",
    "Insert",
    "KeyChange",
    "LimitExceeded",
    "Level",
    "Limits",
    "LineageEnded",
    "Link",
    "List",
    "ListEvent",
    "LwwRegister",
    "ManualClock",
    "Map",
    "MapEvent",
    "MemoryStore",
    "MovableList",
    "MultiValueEvent",
    "MultiValueRegister",
    "Neighbourhood",
    "NotYetReplicated",
    "ObserversFailed",
    "OpenDocument",
    "Position",
    "Presence",
    "Progress",
    "Receipt",
    "RegisterEvent",
    "Replica",
    "Replication",
    "Retain",
    "RootTypeConflict",
    "Set",
    "SetEvent",
    "Side",
    "SqliteStore",
    "StoreError",
    "StoreInUse",
    "Text",
    "TextEvent",
    "UndoStack",
    "UpdateRefused",
    "UpdateTooLarge",
    "UsageError",
    "ValueNotStorable",
    "Wire",
    "changes",
    "document_id",
]

_NAMES_OF = {
    "clocks": ["HybridClock", "ManualClock"],
    "errors": [
        "AlreadyConnected",
        "CrdtStateError",
        "DocumentClosed",
        "DocumentDeleted",
        "EditNotStored",
        "EditRefused",
        "EngineFailed",
        "IndexOutOfRange",
        "LimitExceeded",
        "LineageEnded",
        "NotYetReplicated",
        "ObserversFailed",
        "RootTypeConflict",
        "StoreError",
        "StoreInUse",
        "UpdateRefused",
        "UpdateTooLarge",
        "UsageError",
        "ValueNotStorable",
    ],
    "identifiers": ["ClientId", "DocumentId", "Incarnation", "document_id"],
    "limits": ["DEFAULT_LIMITS", "Limits"],
    "model.awareness": ["AwarenessChange"],
    "model.container": ["Event"],
    "model.counter": ["Counter", "CounterEvent"],
    "model.document": ["Document"],
    "model.list": ["List", "ListEvent"],
    "model.map": ["KeyChange", "Map", "MapEvent"],
    "model.movable": ["MovableList"],
    "model.positions": ["Position", "Side"],
    "model.register": ["LwwRegister", "MultiValueEvent", "MultiValueRegister", "RegisterEvent"],
    "model.set": ["Set", "SetEvent"],
    "model.text": ["Delete", "Delta", "Insert", "Retain", "Text", "TextEvent"],
    "model.undo": ["UndoStack"],
    "model.values": ["Codec"],
    "replica.events": ["EventsMissed", "changes"],
    "replica.open_document": ["OpenDocument"],
    "replica.presence": ["Presence"],
    "replica.receipts": ["Level", "Receipt", "Replication"],
    "storage.memory": ["MemoryStore"],
    "storage.sqlite": ["SqliteStore"],
    "sync.exchange": ["Progress"],
    "transport.link": ["Link", "Wire"],
    "transport.neighbourhood": ["Neighbourhood"],
    "transport.replica": ["Replica"],
}

_HOMES = {name: home for home, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
