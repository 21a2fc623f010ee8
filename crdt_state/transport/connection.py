"""What a link or a listener needs of a connection: four verbs and two facts.

`send` never waits: whoever fans out to many must not be held up by one.  What has been given to
`send` and has not left yet is `buffered_bytes`; the caller decides what too much means.
"""

from __future__ import annotations

from typing import Protocol

from crdt_state.transport import codes

__all__ = ["Accepted", "Connection", "ConnectionEnded", "Dial"]


class ConnectionEnded(Exception):
    """No more will be received; `code` and `reason` as in RFC 6455, section 7.4."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code}{f' ({reason})' if reason else ''}")
        self.code = code
        self.reason = reason


class Connection(Protocol):
    """Ordered messages of bytes in both directions, until one side closes."""

    @property
    def remote_address(self) -> str:
        """Who is at the other end, for logs and for bounds per address."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes given to `send` that have not left yet."""

    async def receive(self) -> bytes:
        """The next message.  Raises `ConnectionEnded`."""

    def send(self, message: bytes) -> None:
        """Give one message to the wire; nothing happens when the connection has ended."""

    async def drained(self) -> None:
        """Return when everything given to `send` has left, or the connection has ended."""

    async def close(self, code: int = codes.CLOSED, reason: str = "") -> None:
        """Say goodbye and end; `receive` raises from now on."""


class Accepted(Connection, Protocol):
    """A connection that came to us, and may have to be sent away."""

    def holds(self, size: int) -> None:
        """So many bytes are kept of what came here and is not whole: they count as its own."""

    async def discard(self) -> None:
        """Throw away whatever arrives; return when the connection has ended."""


class Dial(Protocol):
    """How a link reaches a remote."""

    async def __call__(self, url: str) -> Connection:
        """A new connection to `url`.  Raises `OSError` or `ConnectionEnded`."""
