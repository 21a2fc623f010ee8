"""A peer that lies: it brings malformed and mutated updates, and true ones in the wrong order.

How it speaks, and what can be said wrongly on each wire, is `tongues`.

What it writes it writes under client ids of its own, so honest people's documents must not change
but by what it truly wrote.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.clocks import HybridClock
from crdt_state.identifiers import draw_client_id, draw_incarnation
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.document import Document
from crdt_state.model.inspect import inspect
from crdt_state.simulator.clocks import SimulatedClock
from crdt_state.simulator.tongues import tongue_for
from crdt_state.transport.connection import ConnectionEnded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from crdt_state.identifiers import DocumentId
    from crdt_state.simulator.ledger import Entry, Ledger
    from crdt_state.simulator.network import Network
    from crdt_state.simulator.tongues import Told
    from crdt_state.transport.connection import Connection
    from crdt_state.transport.link import Wire

__all__ = ["Liar"]

HOST = "liar"
PATIENCE_SECONDS = 30.0


class Liar:
    """One visit to one document of `remote`."""

    def __init__(
        self,
        network: Network,
        ledger: Ledger,
        dice: Random,
        *,
        remote: str,
        document: DocumentId,
        wire: Wire,
    ) -> None:
        self.document = document
        self.entries: list[Entry] = []
        self.remote = remote
        self.was_taken_in = False
        """Whether what came too early is known to have been stored there."""
        self.was_lied_to = False
        """Whether it was said to be integrated, before what it builds on was brought."""
        self.said_at = 0.0
        """When that began."""
        self._network = network
        self._dice = dice
        self._tongue = tongue_for(wire, dice)
        self._url = f"ws://{remote}{self._tongue.path(document)}"
        self._updates: list[bytes] = []
        now = asyncio.get_running_loop().time()
        truth = _new_document(document, dice)
        truth.on_update(lambda update, _: self._updates.append(update))
        for _ in range(2):
            tag = ledger.new_tag(HOST, "set")
            entry = ledger.wrote(document, "set", tag, host=HOST, opening=self, at=now)
            truth.set("set").add(tag)
            entry.reach = dict(inspect(self._updates[-1], DEFAULT_LIMITS).vector)
            self.entries.append(entry)
        truth.close()

    async def lie(self) -> None:
        """Bring nonsense, each piece on a connection of its own, for it may be the last there."""
        for _ in range(3):
            await self._visit(
                lambda there: self._tongue.lie(there, self.document, self._nonsense())
            )

    async def say_the_second_first(self) -> None:
        """Bring an update before the one that it builds on."""
        self.said_at = asyncio.get_running_loop().time()
        told = await self._tell(self._updates[1])
        self.was_taken_in = told is not None and told.is_durable
        # Whoever brought the first before would have been this liar.
        self.was_lied_to = told is not None and told.is_applied

    async def say_the_first(self, *, both: bool) -> bool:
        """Bring what the second has waited for, and with `both` that one once more."""
        for update in self._updates[:2] if both else self._updates[:1]:
            told = await self._tell(update)
            if told is None or not told.is_durable:
                return False
        return True

    async def _tell(self, update: bytes) -> Told | None:
        """Bring one update; None where it is not known what became of it."""
        return await self._visit(lambda there: self._tongue.tell(there, self.document, update))

    async def _visit(self, talk: Callable[[Connection], Awaitable[Told | None]]) -> Told | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                connection = await self._network.dial(HOST, self._url)
                try:
                    return await talk(connection)
                finally:
                    await connection.close()
        except (ConnectionEnded, OSError):  # a timeout among them
            return None

    def _nonsense(self) -> bytes:
        dice = self._dice
        lies = _new_document(self.document, dice)
        lies.text("liar").insert(0, "lie")
        update = bytearray(lies.encode())
        lies.close()
        match dice.randrange(4):
            case 0:
                for _ in range(dice.randint(1, 4)):
                    update[dice.randrange(len(update))] ^= 1 << dice.randrange(8)
            case 1:
                del update[dice.randrange(len(update)) :]
            case 2:
                at = dice.randrange(len(update))
                update[at:at] = dice.randbytes(dice.randint(1, 8))
            case _:
                return dice.randbytes(dice.randint(1, 40))
        return bytes(update)


def _new_document(document: DocumentId, dice: Random) -> Document:
    clock = SimulatedClock(asyncio.get_running_loop().time, skew_seconds=0.0, drift=0.0)
    return Document(
        document,
        client_id=draw_client_id(dice),
        incarnation=draw_incarnation(dice),
        clock=HybridClock(clock, drift_seconds_max=1.0),
    )
