"""How a listener lets go of those it refuses: with a reason at once, and without haste.

A stock client dials again a tenth of a second after its connection has ended, however often,
because a handshake that succeeded begins its count anew.  Where coming back soon cannot help, the
connection is therefore kept a while after the reason has been given: that is the only wait which
such a client observes.

1. The reason is sent at once; only the close waits, and by `Limits.refused_close_seconds` at most.
2. Who is kept has nothing of us but the socket, which still counts against every bound; what it
   sends is thrown away.
3. A drain keeps nobody, and who hangs up first is gone at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.protocol.ywebsocket import PermissionDenied, encode
from crdt_state.transport import codes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from crdt_state.limits import Limits
    from crdt_state.transport.connection import Accepted, Connection
    from crdt_state.transport.listener import Traffic

__all__ = ["Departure", "Farewells"]


KEPT = frozenset(
    {
        codes.EXPIRED,
        codes.FORBIDDEN,
        codes.NO_DOCUMENT,
        codes.OTHER_LINEAGE,
        codes.NOT_HEAD,
        codes.SET_ASIDE,
        codes.TOO_MANY,
    }
)
"""Not the codes that refuse an edit: our own client answers those at once, by giving way.  Nor
4400 and 4408, whose peers keep to no rule that a wait could rely on."""


class Departure(NamedTuple):
    """Who was sent away from where, and why; nothing of a token is in it."""

    name: str
    """The identity, or the address where none is known."""
    path: str
    """What was asked for, without the query."""
    code: int
    reason: str

    @property
    def is_refusal(self) -> bool:
        """Whether the peer was refused, and not merely asked to come again."""
        return 4400 <= self.code < 4500


class Farewells:
    """Counts, reports and says the goodbyes of one listener."""

    def __init__(
        self,
        limits: Limits,
        traffic: Traffic,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        sent_away: Callable[[Departure], None] = lambda _: None,
    ) -> None:
        self._seconds = limits.refused_close_seconds
        self._traffic = traffic
        self._sleep = sleep
        self._sent_away = sent_away
        self._is_cut_short = asyncio.Event()

    def say(
        self, connection: Accepted, departure: Departure, *, reads_frames: bool = True
    ) -> Awaitable[None]:
        """Give the reason now; await the result for the connection to be closed in due time.

        Who `reads_frames` of y-websocket is given it in one, everybody by the close.
        """
        self.note(departure)
        if reads_frames and departure.is_refusal and departure.code != codes.MALFORMED:
            connection.send(encode(PermissionDenied(departure.reason)))
        return self._close(connection, departure)

    async def say_to_replica(self, connection: Connection, departure: Departure) -> None:
        """The same over our own protocol, whose dialler needs no wait to come back slowly."""
        self.note(departure)
        await connection.close(departure.code, departure.reason)

    def note(self, departure: Departure) -> None:
        """Count and report somebody who was sent away from a document, on a line that goes on."""
        if departure.is_refusal:
            self._traffic.rejected += 1
            self._traffic.tokens_rejected += departure.code == codes.EXPIRED
            self._sent_away(departure)

    def cut_short(self) -> None:
        """Keep nobody any more."""
        self._is_cut_short.set()

    async def _close(self, connection: Accepted, departure: Departure) -> None:
        if departure.code in KEPT and self._seconds and not self._is_cut_short.is_set():
            await self._keep(connection)
        await connection.close(departure.code, departure.reason)

    async def _keep(self, connection: Accepted) -> None:
        waits = [
            asyncio.ensure_future(self._sleep(self._seconds)),
            asyncio.create_task(connection.discard()),
            asyncio.create_task(self._is_cut_short.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
