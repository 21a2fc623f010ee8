"""What somebody who does not keep up has not been shown: of each client the latest entry alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.identifiers import ClientId
    from crdt_state.limits import Limits

__all__ = ["Unshown"]

ENTRY_OVERHEAD_BYTES = 16
"""Client id, clock and length of a state: no more than that, most often."""


class Entry(Protocol):
    """An awareness entry, and perhaps where it is to go."""

    @property
    def client(self) -> ClientId:
        """Whom it is about."""

    @property
    def clock(self) -> int:
        """Its clock."""

    @property
    def text(self) -> str:
        """Its state."""


AnyEntry = TypeVar("AnyEntry", bound=Entry)


class Unshown(Generic[AnyEntry]):
    """Entries by client; at most `Limits.awareness_clients_max`, beyond which the oldest goes.

    Who is shown one too late, or not at all, has it with its client's next clock.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._latest: dict[ClientId, AnyEntry] = {}

    def __len__(self) -> int:
        return len(self._latest)

    def put(self, entries: Iterable[AnyEntry]) -> None:
        """Keep these until they are taken, in the place of what was kept of their clients."""
        for entry in entries:
            kept = self._latest.pop(entry.client, entry)
            if kept.clock > entry.clock:
                entry = kept  # noqa: PLW2901 - told while the older one was being told
            if len(self._latest) >= self._limits.awareness_clients_max:
                del self._latest[next(iter(self._latest))]
            self._latest[entry.client] = entry

    def take(self, bytes_max: int) -> list[AnyEntry]:
        """The oldest of them, one at least and no more than `bytes_max`."""
        taken: list[AnyEntry] = []
        size = 0
        for entry in self._latest.values():
            size += len(entry.text) + ENTRY_OVERHEAD_BYTES
            if taken and size > bytes_max:
                break
            taken.append(entry)
        for entry in taken:
            del self._latest[entry.client]
        return taken
