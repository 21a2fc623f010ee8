"""A WebSocket client that follows rules only as far as it is told to.

It writes RFC 6455 frames itself, may stop reading, and knows the barrier (step 1, answered by
step 2).  What it receives is cut into frames and, but for what a test asks about, thrown away.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, ClassVar

from crdt_state.protocol.ywebsocket import SyncStep1, encode, encode_update

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RawPeer", "frame", "request"]

BINARY, CLOSE, PING = 2, 8, 9
STEP_2 = b"\x00\x01"


def frame(
    payload: bytes, *, opcode: int = BINARY, fin: bool = True, size: int | None = None
) -> bytes:
    """A client's frame, masked with zeros; `size` is what it claims, if that is to be a lie."""
    claimed = len(payload) if size is None else size
    first = (0x80 if fin else 0) | opcode
    if claimed < 126:
        head = struct.pack("!BB4x", first, 0x80 | claimed)
    elif claimed < 65_536:
        head = struct.pack("!BBH4x", first, 0x80 | 126, claimed)
    else:
        head = struct.pack("!BBQ4x", first, 0x80 | 127, claimed)
    return head + payload


def request(port: int, document: str, *headers: str) -> bytes:
    """The handshake's request."""
    lines = (
        f"GET /{document} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        *headers,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class RawPeer(asyncio.Protocol):
    """One connection.  `close_code` is set by a close frame; `ended` when the socket has gone."""

    transport: asyncio.Transport
    alive: ClassVar[set[RawPeer]] = set()

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.close_code: int | None = None
        self.status = b""
        self.answers = 0
        self.answer = b""
        self.bytes_received = 0
        self._opened: asyncio.Future[None] = loop.create_future()
        self._answered = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._buffer = bytearray()

    @classmethod
    async def dial(cls, port: int) -> RawPeer:
        """A socket, and nothing said yet."""
        _, peer = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return peer

    @classmethod
    async def connect(cls, port: int, document: str, *headers: str) -> RawPeer:
        """A socket at a document.  Raises `ConnectionError` where it is not let in."""
        peer = await cls.dial(port)
        peer.transport.write(request(port, document, *headers))
        await peer._opened
        return peer

    def send(self, *messages: bytes) -> None:
        """Send messages, a frame each, in one write."""
        self.write(b"".join(map(frame, messages)))

    def send_updates(self, updates: Iterable[bytes]) -> None:
        """Send updates, a message each, in one write."""
        self.write(b"".join(frame(encode_update(update)) for update in updates))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if not self.transport.is_closing():
            self.transport.write(data)

    async def written(self) -> None:
        """Return when the operating system has taken what was sent, or the connection has ended."""
        await self._either(self._writable)

    async def barrier(self, vector: bytes = b"\x00") -> bytes | None:
        """Everything sent before is durable: what `vector` lacks; None when hung up instead."""
        if self.ended.done():
            return None
        before = self.answers
        self.send(encode(SyncStep1(vector)))
        while self.answers == before and not self.ended.done():
            self._answered.clear()
            await self._either(self._answered)
        return self.answer if self.answers > before else None

    async def gone(self) -> int | None:
        """Wait for the end; the close code, if one was said."""
        await asyncio.shield(self.ended)
        return self.close_code

    def stop_reading(self) -> None:
        """Read nothing any more."""
        self.transport.pause_reading()

    def hang_up(self) -> None:
        """End without a goodbye."""
        self.transport.abort()

    @classmethod
    async def all_hang_up(cls) -> None:
        """End every connection that there is, and wait for that."""
        for peer in tuple(cls.alive):
            peer.hang_up()
            await peer.gone()

    async def _either(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([waiting, self.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.alive.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(f"not let in: {self.status!r}"))
            self._opened.exception()  # whoever only dialled does not ask
        self.alive.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        buffer = self._buffer
        buffer += data
        if not self._opened.done():
            head, separator, rest = bytes(buffer).partition(b"\r\n\r\n")
            if not separator:
                return
            self.status = head.partition(b"\r\n")[0]
            if b" 101 " not in self.status:
                self._opened.set_exception(ConnectionError(f"not let in: {self.status!r}"))
                self._opened.exception()
                return
            self._opened.set_result(None)
            buffer[:] = rest
        at = 0
        while (found := _frame_at(buffer, at)) is not None:
            start, at, opcode = found
            self._take(opcode, buffer, start, at)
        del buffer[:at]

    def _take(self, opcode: int, buffer: bytearray, start: int, end: int) -> None:
        if opcode == BINARY and buffer[start : start + 2] == STEP_2:
            at = start + 2
            while buffer[at] & 0x80:
                at += 1
            self.answer = bytes(buffer[at + 1 : end])
            self.answers += 1
            self._answered.set()
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(buffer[start : start + 2])
            self.write(frame(bytes(buffer[start:end]), opcode=CLOSE))
            self.transport.close()
        elif opcode == PING:
            self.write(frame(bytes(buffer[start:end]), opcode=0xA))


def _frame_at(buffer: bytearray, at: int) -> tuple[int, int, int] | None:
    """Where the payload of the next frame begins and ends, and its opcode."""
    if len(buffer) < at + 2:
        return None
    size, start = buffer[at + 1] & 0x7F, at + 2
    if size == 126:
        if len(buffer) < at + 4:
            return None
        size, start = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
    elif size == 127:
        if len(buffer) < at + 10:
            return None
        size, start = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
    end = start + size
    return None if len(buffer) < end else (start, end, buffer[at] & 0x0F)
