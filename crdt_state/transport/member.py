"""One connection at one document, as the server sees it: who it is, and how far behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.replica.document_core import name_of
from crdt_state.transport.shortfall import Shortfall
from crdt_state.transport.unshown import Unshown

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.model.awareness import AwarenessEntry
    from crdt_state.replica.admission import Author
    from crdt_state.transport.connection import Accepted

__all__ = ["Member"]


class Member:
    """A connection in a room.

    While `is_behind`, nothing is written to it, and `shortfall` keeps what it misses, so that a
    peer that does not read costs a bounded amount of memory.  Once its buffer is empty it is
    brought up to date.
    """

    def __init__(self, connection: Accepted, source: int, author: Author, limits: Limits) -> None:
        self.connection = connection
        self.source = source
        self.author = author
        self.name = name_of(author, connection.remote_address)
        self.is_of_lineage = False
        """Whether it has shown to hold nothing of another lineage, where that is asked."""
        self.is_behind = False
        self.farewell: asyncio.Future[None] | None = None
        """Set when it was sent away: done when its connection is closed."""
        self.shortfall = Shortfall(source, limits)
        self.unshown: Unshown[AwarenessEntry] = Unshown(limits)
        """Awareness that it has not been sent; what is newer waits with it."""

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
