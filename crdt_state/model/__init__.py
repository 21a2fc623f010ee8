"""Documents: what is inside the bytes.  Knows nothing of the network and nothing of disks.

`Document` is where an application begins; its containers are made by it.  `engine` is the one
door to the native engine, `inspect` reads an update without it.
"""

from crdt_state.model.container import Cause, Event
from crdt_state.model.counter import Counter, CounterEvent
from crdt_state.model.document import Document
from crdt_state.model.list import List, ListEvent
from crdt_state.model.map import Map, MapEvent
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

__all__ = [
    "Document",
    "Cause",
    "Event",
    "Text",
    "TextEvent",
    "Delta",
    "Retain",
    "Insert",
    "Delete",
    "Position",
    "Side",
    "Counter",
    "CounterEvent",
    "Set",
    "SetEvent",
    "Map",
    "MapEvent",
    "List",
    "ListEvent",
    "MovableList",
    "RegisterEvent",
    "MultiValueEvent",
    "LwwRegister",
    "MultiValueRegister",
    "Codec",
    "UndoStack",
]
