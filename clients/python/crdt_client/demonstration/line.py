"""The line between one replica and the server: real sockets, with a hand on the wire.

It counts what passes, can be cut as a cable is (no goodbye, and nobody can be reached until it is
mended), and can hold back what is sent, in order, until it is told to let it go.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.transport.websocket import WebSocketConnection, WebSocketDial

__all__ = ["Line"]


class Line:
    """A `Dial` for `Replica.connect`; all connections of one replica go through it."""

    def __init__(self, dial: WebSocketDial) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.connections = 0
        self._dial = dial
        self._urls: set[str] = set()
        self._strands: set[Strand] = set()
        self._is_cut = False
        self._is_holding = False
        self._held: deque[tuple[Strand, bytes]] = deque()
        self._taken = 0
        self._let_go = 0

    @property
    def reconnections(self) -> int:
        """Connections beyond the first to each document."""
        return self.connections - len(self._urls)

    async def __call__(self, url: str) -> Strand:
        """A new connection.  Raises `OSError` while the line is cut."""
        self._refuse_if_cut()
        strand = Strand(await self._dial(url), self)
        if self._is_cut:
            strand.tear()
        self._refuse_if_cut()
        self.connections += 1
        self._urls.add(url)
        self._strands.add(strand)
        return strand

    # --- cutting -----------------------------------------------------------------------------

    def cut(self) -> None:
        """Tear every connection; what was on its way is lost."""
        self._is_cut = True
        self._held.clear()
        for strand in tuple(self._strands):
            strand.tear()
        self._strands.clear()

    def mend(self) -> None:
        """Let connections be made again."""
        self._is_cut = False

    # --- holding back ------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep what is sent from now on, until `release`."""
        self._is_holding = True

    def mark(self) -> int:
        """The place in the queue after everything that has been sent so far."""
        return self._taken

    def release(self, mark: int) -> None:
        """Let go of everything before `mark`, in order."""
        while self._held and self._let_go < mark:
            strand, message = self._held.popleft()
            self._let_go += 1
            strand.put_on_wire(message)

    def flow(self) -> None:
        """Hold nothing back any more."""
        self._is_holding = False
        self.release(self._taken)

    # --- for its strands ---------------------------------------------------------------------

    def take(self, strand: Strand, message: bytes) -> None:
        """Send a message now, or when it is released."""
        if self._is_holding:
            self._taken += 1
            self._held.append((strand, message))
        else:
            strand.put_on_wire(message)

    def forget(self, strand: Strand) -> None:
        """A connection has ended."""
        self._strands.discard(strand)

    def _refuse_if_cut(self) -> None:
        if self._is_cut:
            raise OSError("the line is cut")


class Strand:
    """One connection on the line: a `Connection`."""

    def __init__(self, connection: WebSocketConnection, line: Line) -> None:
        self._connection = connection
        self._line = line
        self._is_torn = False

    @property
    def remote_address(self) -> str:
        """Who is at the other end."""
        return self._connection.remote_address

    @property
    def buffered_bytes(self) -> int:
        """Bytes that have not left yet; those held back are not counted."""
        return self._connection.buffered_bytes

    async def receive(self) -> bytes:
        """The next message.  Raises `ConnectionEnded`."""
        message = await self._connection.receive()
        self._line.bytes_received += len(message)
        return message

    def send(self, message: bytes) -> None:
        """Send, or stand in line."""
        self._line.take(self, message)

    async def drained(self) -> None:
        """Everything that is not held back has left."""
        await self._connection.drained()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, where there is still somebody to hear it."""
        self._line.forget(self)
        await self._connection.close(code, reason)

    def put_on_wire(self, message: bytes) -> None:
        """Send, whatever the line holds."""
        if not self._is_torn:
            self._line.bytes_sent += len(message)
            self._connection.send(message)

    def tear(self) -> None:
        """End without a goodbye."""
        self._is_torn = True
        self._connection.wire.transport.abort()
