"""Connections over WebSocket, by the library `websockets`, which only this room imports.

Messages are binary, and a text message is a protocol error of the peer (RFC 6455's code 1003),
unless text is what is spoken (`speak_text`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.intake import MeteredConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from websockets.asyncio.connection import Connection as LibraryConnection

    from crdt_state.limits import Limits

__all__ = ["WebSocketConnection", "WebSocketDial", "ended_by", "send_to_all", "text_frame"]

REFUSED_BY_STATUS = {401: codes.EXPIRED, 403: codes.FORBIDDEN, 404: codes.NO_DOCUMENT}
"""What an HTTP status in the place of a WebSocket says."""

SHARED_BYTES_MIN = 64 * 1024
"""What is smaller is cheaper to copy than to look after."""

REASON_BYTES_MAX = 123  # a close frame's payload is 125 bytes, two of them the code


class WebSocketConnection:
    """A `Connection` over one WebSocket, at either end."""

    def __init__(self, wire: LibraryConnection, limits: Limits) -> None:
        self.wire = wire
        self._close_seconds_max = limits.close_seconds_max
        self._is_text = False
        address: Any = wire.remote_address
        self.remote_address: str = str(address[0]) if address else "unknown"

    @property
    def buffered_bytes(self) -> int:
        """Bytes in the transport's write buffer; the kernel's own buffer is not counted."""
        return self.wire.transport.get_write_buffer_size()

    def speak_text(self) -> None:
        """From now on messages are text, in UTF-8; what is received may be either."""
        self._is_text = True

    async def receive(self) -> bytes:
        """The next message, which is binary or text as is spoken.  Raises `ConnectionEnded`."""
        try:
            if self._is_text:
                return await self.wire.recv(decode=False)
            message = await self.wire.recv()
        except ConnectionClosed as closed:
            raise ended_by(closed) from None
        if isinstance(message, str):
            await self.close(codes.NOT_BINARY, "binary messages only")
            raise ConnectionEnded(codes.NOT_BINARY, "the peer sent a text message")
        return message

    def send(self, message: bytes) -> None:
        """Write without waiting; skipped when the connection is no longer open."""
        if self._is_text:
            broadcast((self.wire,), message.decode())
        else:
            broadcast((self.wire,), message)

    def send_frames(self, frames: bytes) -> None:
        """Write what has been framed (`text_frame`), as `send` does."""
        wire = self.wire
        if wire.protocol.state is State.OPEN and not wire.transport.is_closing():
            wire.transport.write(frames)

    async def drained(self) -> None:
        """Return when the write buffer is below the library's low-water mark."""
        # Not a ping: its answer would wait behind whatever we have not read yet.
        with suppress(OSError):  # it is lost, and `receive` says why
            await self.wire.drain()

    def holds(self, size: int) -> None:
        """See `Accepted`; whoever holds too much of a server's memory is cut off."""
        if isinstance(self.wire, MeteredConnection):
            self.wire.hold(size)

    async def discard(self) -> None:
        """Throw away whatever arrives; return when the connection has ended."""
        if isinstance(self.wire, MeteredConnection):
            self.wire.discard_messages()
        await self.wire.wait_closed()

    async def close(self, code: int = codes.CLOSED, reason: str = "") -> None:
        """The closing handshake, cut short when the peer does not take part in it."""
        short = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        try:
            async with asyncio.timeout(self._close_seconds_max):
                await self.wire.close(code, short)
        except TimeoutError:
            self.wire.transport.abort()


def text_frame(message: str) -> bytes:
    """A text message as a server's frame, which is the same for whoever is sent it."""
    return Frame(Opcode.TEXT, message.encode()).serialize(mask=False)


def send_to_all(connections: Sequence[WebSocketConnection], message: bytes) -> None:
    """Write one message to many without waiting for any of them; for accepted connections."""
    wires = [connection.wire for connection in connections]
    if len(wires) == 1 or len(message) < SHARED_BYTES_MIN:
        broadcast(wires, message)
        return
    # The library makes a frame of its own for each, and those that nobody reads stay: 30 deaf
    # peers would hold one large message 30 times.  A server's frames are alike for everyone.
    frame = Frame(Opcode.BINARY, message).serialize(mask=False)
    for wire in wires:
        if wire.protocol.state is State.OPEN and not wire.transport.is_closing():
            wire.transport.write(frame)


class WebSocketDial:
    """Opens connections to `ws://` and `wss://` URLs."""

    def __init__(
        self,
        limits: Limits,
        *,
        token: str | Callable[[], str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`token` is brought as a bearer token; a function is asked anew for each connection."""
        self._limits = limits
        self._token = token
        self._tls = tls

    async def __call__(self, url: str) -> WebSocketConnection:
        """A new connection to `url`.

        Raises `OSError` when nobody answers, `ConnectionEnded` with code 4401 or 4403 when the
        server refuses us by HTTP status, or with 1002 when what answers is no WebSocket server.
        """
        try:
            wire = await connect(
                url,
                ssl=self._tls if url.startswith("wss:") else None,
                additional_headers=self._headers(),
                compression=None,
                open_timeout=self._limits.handshake_seconds_max,
                max_size=self._limits.message_bytes_max,
            )
        except InvalidURI as error:
            raise ConnectionEnded(codes.NOT_WEBSOCKET, str(error)) from None
        except TimeoutError as error:
            raise OSError("the handshake took too long") from error
        except ConnectionClosed as closed:
            raise OSError("the connection was lost before the handshake was over") from closed
        except InvalidHandshake as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            code = REFUSED_BY_STATUS.get(status or 0, codes.NOT_WEBSOCKET)
            raise ConnectionEnded(code, str(error)) from None
        return WebSocketConnection(wire, self._limits)

    def _headers(self) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        return {} if token is None else {"Authorization": f"Bearer {token}"}


def ended_by(closed: ConnectionClosed) -> ConnectionEnded:
    """What the library says of an end, as everybody above it is told."""
    frame = closed.rcvd or closed.sent
    return ConnectionEnded(frame.code, frame.reason) if frame else ConnectionEnded(codes.GONE)
