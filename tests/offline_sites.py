"""Sites that edit one document apart from one another, and hear of one another when a test says.

No store and no network: each site keeps the updates it made, and a test delivers them in whatever
order, as often as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crdt_state.clocks import HybridClock, ManualClock
from crdt_state.identifiers import ClientId, Incarnation, document_id
from crdt_state.model.document import Document
from crdt_state.model.engine import NativeDocument
from crdt_state.model.list import ListDelta, ValuesDeleted, ValuesInserted, ValuesRetained

START = 1_700_000_000_000_000


class Site:
    """One replica's opening of one document, with a clock that the test turns."""

    def __init__(
        self,
        number: int,
        *,
        client_id: int | None = None,
        wall: int = START,
        state: Iterable[bytes] = (),
    ) -> None:
        self.time = ManualClock(wall=wall)
        self.clock = HybridClock(self.time, drift_seconds_max=3600)
        self.document = Document(
            document_id("notes"),
            state,
            client_id=ClientId(client_id or 1000 + number),
            incarnation=Incarnation(number.to_bytes(16, "big")),
            clock=self.clock,
        )
        self.made: list[bytes] = []
        self.document.on_update(self._keep)

    def _keep(self, update: bytes, is_local: bool) -> None:
        if is_local:
            self.made.append(update)


class ForeignProgram:
    """A program that writes to Yjs types directly, sense or nonsense."""

    def __init__(self, client_id: int = 7) -> None:
        self.document = NativeDocument(client_id)

    def push(self, root: str, *values: Any) -> None:
        """Put values at the end of an array."""
        array = self.document.array(root)
        with self.document.transaction():
            array.insert(len(array), values)

    def put(self, root: str, values: dict[str, Any]) -> None:
        """Set keys of a map."""
        native = self.document.map(root)
        with self.document.transaction():
            for key, value in values.items():
                native.set(key, value)

    def rows(self, root: str) -> list[Any]:
        """What is in an array."""
        return self.document.array(root).values()


def meet(*sites: Site | ForeignProgram) -> None:
    """Everyone gets everything that everyone has."""
    states = [site.document.encode() for site in sites]
    for site in sites:
        for state in states:
            site.document.apply(state)


def size_of(site: Site) -> int:
    """Bytes of the document."""
    return len(site.document.encode())


def followed(values: list[Any], delta: ListDelta) -> list[Any]:
    """`values` after what `delta` says."""
    result: list[Any] = []
    at = 0
    for step in delta:
        match step:
            case ValuesRetained(count):
                result += values[at : at + count]
                at += count
            case ValuesInserted(inserted):
                result += inserted
            case ValuesDeleted(count):
                at += count
    return result + values[at:]
