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
    from crdt_state.errors import CrdtStateError
    from crdt_state.identifiers import DocumentId, document_id
    from crdt_state.limits import DEFAULT_LIMITS, Limits
    from crdt_state.model.document import Document
    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.storage.memory import MemoryStore
    from crdt_state.storage.sqlite import SqliteStore
    from crdt_state.sync.exchange import Progress
    from crdt_state.transport.link import Link
    from crdt_state.transport.replica import Replica

__all__ = [
    "DEFAULT_LIMITS",
    "CrdtStateError",
    "Document",
    "DocumentId",
    "Limits",
    "Link",
    "MemoryStore",
    "OpenDocument",
    "Progress",
    "Replica",
    "SqliteStore",
    "document_id",
]

_HOMES = {
    "DEFAULT_LIMITS": "limits",
    "CrdtStateError": "errors",
    "Document": "model.document",
    "DocumentId": "identifiers",
    "Limits": "limits",
    "Link": "transport.link",
    "MemoryStore": "storage.memory",
    "OpenDocument": "replica.open_document",
    "Progress": "sync.exchange",
    "Replica": "transport.replica",
    "SqliteStore": "storage.sqlite",
    "document_id": "identifiers",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
