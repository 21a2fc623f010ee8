"""Text messages over a WebSocket that was dialled: what ShareDB's wire is made of.

A binary message is a protocol error of the peer, as a text message is on the other wires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed

from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.websocket import WebSocketDial, ended_by

if TYPE_CHECKING:
    from crdt_state.transport.websocket import WebSocketConnection

__all__ = ["TextConnection", "TextDial"]


class TextConnection:
    """Ordered text messages in both directions, until one side closes."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str:
        """The next message.  Raises `ConnectionEnded`."""
        try:
            message = await self._connection.wire.recv()
        except ConnectionClosed as closed:
            raise ended_by(closed) from None
        if not isinstance(message, str):
            await self.close(codes.NOT_BINARY, "text messages only")
            raise ConnectionEnded(codes.NOT_BINARY, "the peer sent a binary message")
        return message

    def send(self, message: str) -> None:
        """Write without waiting; skipped when the connection is no longer open."""
        broadcast((self._connection.wire,), message)

    async def drained(self) -> None:
        """Return when the write buffer is below the library's low-water mark."""
        await self._connection.drained()

    async def close(self, code: int = codes.CLOSED, reason: str = "") -> None:
        """Say goodbye and end; `receive` raises from now on."""
        await self._connection.close(code, reason)


class TextDial:
    """Opens such connections, as `WebSocketDial` opens others."""

    def __init__(self, dial: WebSocketDial) -> None:
        self._dial = dial

    async def __call__(self, url: str) -> TextConnection:
        """A new connection to `url`.  Raises `OSError` or `ConnectionEnded`."""
        return TextConnection(await self._dial(url))
