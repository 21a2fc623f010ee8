"""One connection at one document, as the server sees it: who it is, and how far behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.model.inspect import inspect
from crdt_state.replica.document_core import Delta, name_of
from crdt_state.replica.inbox import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crdt_state.limits import Limits
    from crdt_state.replica.admission import Author
    from crdt_state.transport.connection import Accepted

__all__ = ["Member"]


class Member:
    """A connection in a room.

    While `is_behind`, nothing is written to it; what it misses is kept as a state vector only,
    so that a peer that does not read costs a bounded amount of memory.  Once its buffer is empty
    it is brought up to date:

        vector = catching_up(…) ──► difference from the document's state ──► rest = caught_up()

    and what is delivered between the two goes out behind the difference, never before it: stock
    yrs loses what it is given before something of the same client that comes earlier.
    """

    def __init__(self, connection: Accepted, source: int, author: Author) -> None:
        self.connection = connection
        self.source = source
        self.author = author
        self.name = name_of(author, connection.remote_address)
        self.is_behind = False
        self.farewell: asyncio.Future[None] | None = None
        """Set when it was sent away: done when its connection is closed."""
        self._first_missed: dict[int, int] = {}
        self._has_missed_all = False
        self._held: list[Delta] | None = None
        self._held_bytes = 0

    def miss(self, deltas: Iterable[Delta], limits: Limits) -> None:
        """Note what was not sent."""
        for delta in deltas:
            if delta.source == self.source:
                continue
            if len(delta.update) > LARGE_BYTES:
                # Reading it would hold up everybody; sending all of the document does not.
                self._has_missed_all = True
            else:
                for client, start, _ in inspect(delta.update, limits, merged=True).ranges:
                    known = self._first_missed.get(client, start)
                    self._first_missed[client] = min(known, start)
            if self._held is not None:
                self._held.append(delta)
                self._held_bytes += len(delta.update)
                if self._held_bytes > limits.peer_queue_bytes_max:
                    self._held = None

    def catching_up(self, vector: Mapping[int, int]) -> dict[int, int]:
        """What the peer holds of a document whose state vector is `vector`."""
        missed, self._first_missed = self._first_missed, {}
        has_missed_all, self._has_missed_all = self._has_missed_all, False
        self._held, self._held_bytes = [], 0
        if has_missed_all:
            return {}
        return {
            client: min(counter, missed.get(client, counter)) for client, counter in vector.items()
        }

    def caught_up(self) -> list[Delta] | None:
        """What was missed since `catching_up`: sent now, nothing is missing any more.

        None where that was too much to keep: then it has to catch up again.
        """
        held, self._held = self._held, None
        if held is not None:
            self.is_behind = False
            self._first_missed.clear()
            self._has_missed_all = False
        return held

    async def drained(self, seconds_max: float) -> bool:
        """Wait until its buffer is empty; False when nothing leaves it for so long."""
        while True:
            before = self.connection.buffered_bytes
            try:
                async with asyncio.timeout(seconds_max):
                    await self.connection.drained()
            except TimeoutError:
                if self.connection.buffered_bytes >= before:
                    return False
            else:
                return True
