"""The load generator: y-websocket peers that cost as little as Python allows.

It speaks RFC 6455 itself: client frames are masked with zeros, which leaves them as they are, and
server frames are cut out of the stream without copying more than once.  What it measures is
therefore the server, as long as its own share of the processors (printed) is not the whole.
"""

from __future__ import annotations

import asyncio
import functools
import os
import struct
from typing import Any

from pycrdt import Doc, Text

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.inspect import inspect
from crdt_state.protocol.ywebsocket import (
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
    encode_update,
)

__all__ = ["Peer", "masked", "typed"]


def masked(payload: bytes) -> bytes:
    """A client's binary frame."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB4x", 0x82, 0x80 | size) + payload
    if size < 65536:
        return struct.pack("!BBH4x", 0x82, 0x80 | 126, size) + payload
    return struct.pack("!BBQ4x", 0x82, 0x80 | 127, size) + payload


def typed(count: int, client: int) -> list[bytes]:
    """The updates of `count` key presses of one client, one character each."""
    document: Doc[Any] = Doc(client_id=client)
    text = document.get("text", type=Text)
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    for at in range(count):
        text.insert(at, "abcdefgh "[at % 9])
    document.unobserve(subscription)
    return updates


class Peer(asyncio.Protocol):
    """One connection at one document.

    `seen` is the end counter of the client `watched` that it has received; 0 watches nobody.
    """

    def __init__(self, watched: int) -> None:
        self.watched = watched
        self.seen = 0
        self.messages = 0
        self.bytes_received = 0
        self.has_state = asyncio.Event()
        self.changed = asyncio.Event()
        self.transport: asyncio.Transport
        self._opened = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, port: int, document: str, *, watched: int) -> Peer:
        """Connect, exchange states as a stock client does, and return once in step."""
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: cls(watched), "localhost", port)
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        peer.transport.write(
            f"GET /{document} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await peer._opened
        peer.send(encode(SyncStep1(b"\x00")))
        await peer.has_state.wait()
        return peer

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.transport.write(masked(message))

    def send_updates(self, updates: list[bytes]) -> None:
        """Send many updates, a message each, in one write."""
        self.transport.write(b"".join(masked(encode_update(update)) for update in updates))

    async def wait_until_seen(self, counter: int) -> None:
        """Return when everything below `counter` of the watched client has come."""
        while self.seen < counter:
            self.changed.clear()
            await self.changed.wait()

    def close(self) -> None:
        """Hang up."""
        self.transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionError("refused"))

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        buffer = self._buffer
        buffer += data
        if not self._opened.done():
            head, separator, rest = bytes(buffer).partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head.splitlines()[0]:
                self._opened.set_exception(ConnectionError(os.fsdecode(head)))
                return
            self._opened.set_result(None)
            buffer[:] = rest
        at = 0
        while (frame := _frame(buffer, at)) is not None:
            start, end, opcode = frame
            at = end
            if opcode == 2:
                self._take(bytes(buffer[start:end]))
            elif opcode == 9:
                self.transport.write(struct.pack("!BB4x", 0x8A, 0x80))
        del buffer[:at]

    def _take(self, frame: bytes) -> None:
        self.messages += 1
        message = decode(frame)
        if self.watched and isinstance(message, Update | SyncStep2):
            self.seen = max(self.seen, _end_of(message.update, self.watched))
            self.changed.set()
        if isinstance(message, SyncStep1):
            self.send(encode(SyncStep2(b"\x00\x00")))
        elif isinstance(message, SyncStep2):
            self.has_state.set()


@functools.lru_cache(maxsize=16)
def _end_of(update: bytes, client: int) -> int:
    """The end counter of a client in an update; all readers receive the same bytes."""
    return inspect(update, DEFAULT_LIMITS, merged=True).vector.get(client, 0)


def _frame(buffer: bytearray, at: int) -> tuple[int, int, int] | None:
    """Where the payload of the next frame begins and ends, and its opcode."""
    if len(buffer) < at + 2:
        return None
    size = buffer[at + 1] & 0x7F
    start = at + 2
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
