"""Two ends of a connection within one process: the reference adapter, and what tests use."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded

__all__ = ["MemoryConnection", "memory_pair"]


class MemoryConnection:
    """One end.  Messages wait in the other end's inbox until it receives them."""

    def __init__(self, name: str) -> None:
        self.remote_address = name
        self._inbox: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._taken.set()
        self._ended: ConnectionEnded | None = None
        self._other: MemoryConnection = self

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the other end has not received yet."""
        return sum(map(len, self._other._inbox))  # noqa: SLF001 - two ends of one thing

    async def receive(self) -> bytes:
        """The next message; what was sent before a close is still received."""
        while not self._inbox:
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        if not self._inbox:
            self._taken.set()
        return message

    def send(self, message: bytes) -> None:
        """Put a message into the other end's inbox."""
        if self._ended is None:
            self._other._accept(message)  # noqa: SLF001

    async def drained(self) -> None:
        """Wait until the other end has received everything."""
        await self._other._taken.wait()  # noqa: SLF001

    def holds(self, size: int) -> None:
        """Nobody counts here."""

    async def discard(self) -> None:
        """Receive, and keep nothing, until either end closes."""
        with suppress(ConnectionEnded):
            while True:
                await self.receive()

    async def close(self, code: int = codes.CLOSED, reason: str = "") -> None:
        """End both ends."""
        for end in (self, self._other):
            end._end(ConnectionEnded(code, reason))  # noqa: SLF001

    def cut(self) -> None:
        """End both ends as a broken cable does: what was on the way is lost."""
        for end in (self, self._other):
            end._inbox.clear()  # noqa: SLF001
            end._end(ConnectionEnded(codes.GONE, "cut"))  # noqa: SLF001

    def _accept(self, message: bytes) -> None:
        self._inbox.append(message)
        self._taken.clear()
        self._arrived.set()

    def _end(self, ended: ConnectionEnded) -> None:
        self._ended = self._ended or ended
        self._arrived.set()
        self._taken.set()


def memory_pair(
    one: str = "one", other: str = "other"
) -> tuple[MemoryConnection, MemoryConnection]:
    """Two connected ends; the first sees `other` as its remote address."""
    left, right = MemoryConnection(other), MemoryConnection(one)
    left._other, right._other = right, left  # noqa: SLF001
    return left, right
