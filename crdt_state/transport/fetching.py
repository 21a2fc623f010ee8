"""Asking for all that a remote holds of one document, over a channel that brings nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.protocol.peer.messages import (
    State,
    Updates,
)
from crdt_state.transport import codes
from crdt_state.transport.peer_connection import PeerConnection

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life
    from crdt_state.transport.peer_connection import Said

__all__ = ["End", "Fetching"]


class End(NamedTuple):
    """How a channel ended."""

    code: int
    reason: str
    is_by_peer: bool


class Fetching:
    """Asks for all that a remote holds of one document, and brings nothing."""

    def __init__(self, wire: PeerConnection, document: DocumentId, life: Life) -> None:
        """All of this life of it."""
        self._wire = wire
        self._life = life
        self._number = wire.protocol.open(document, b"\x00", life)
        self._updates: list[bytes] = []
        self._expected: int | None = None
        self._done: asyncio.Future[list[bytes] | End] = asyncio.get_running_loop().create_future()
        wire.register(self._number, self)
        wire.touch()

    async def fetch(self) -> list[bytes] | End:
        """All of it, or how the connection or the channel ended before."""
        try:
            return await self._done
        finally:
            if self._number in self._wire.channels:
                self._wire.close_channel(self._number, codes.CLOSED, "")

    def hear(self, message: Said) -> None:
        """The peer said something."""
        if isinstance(message, State):
            self._expected = message.updates
            if message.life != self._life:
                self._finish(End(codes.TRY_AGAIN_LATER, f"it has {message.life} by now", True))
        elif isinstance(message, Updates):
            self._updates += message.updates
            self._wire.grant(self._number, sum(map(len, message.updates)))
        if self._expected is not None and len(self._updates) >= self._expected:
            self._finish(self._updates)

    def ended(self, code: int, reason: str) -> None:
        """It is not to be had."""
        self._finish(End(code, reason, is_by_peer=True))

    def send_some(self) -> bool:
        """Nothing is brought."""
        return False

    def _finish(self, result: list[bytes] | End) -> None:
        if not self._done.done():
            self._done.set_result(result)
