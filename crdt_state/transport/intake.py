"""What arrives at a server's sockets, let in a little at a time, so that nobody waits for others.

The library parses whatever a socket had to offer at once, and answers pings without end.  One
peer that sends a quarter of a megabyte of tiny frames would hold up everyone for a tenth of a
second; a hundred of them, for ten.  So each connection gets a slice per round, a round is short,
and the event loop serves others between two rounds.

1. A connection is not parsed further while it has messages that nobody has taken, or answers
   that it does not read: what it costs is bounded, and TCP slows its sender down.
2. Bytes of frames and messages that are not complete are counted over all connections; beyond
   `Limits.unfinished_bytes_max`, whoever adds to them a large part is cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.limits import Limits

__all__ = ["Intake", "MeteredConnection"]

SLICE_BYTES = 4_096
"""What is parsed of one connection in a round: some 150 of the smallest frames, 2 ms."""

ROUND_SECONDS = 0.003
"""No slice is begun later in a round.  Not a number of slices: those of a machine at half the
speed take twice as long, and so would everybody's wait."""

LARGE_PART_BYTES = 256 * 1024
"""Whoever holds less unfinished than this is not cut off for what others hold."""


class Intake:
    """Whose turn it is, over all connections of a server."""

    def __init__(self, limits: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a clock in seconds that never goes back."""
        self.limits = limits
        self.unfinished_bytes = 0
        self.cut_off = 0
        self._waiting: deque[MeteredConnection] = deque()
        self._round: asyncio.Handle | None = None
        self._now = now

    def wants_a_turn(self, connection: MeteredConnection) -> None:
        """Let a connection be parsed further when its turn comes."""
        self._waiting.append(connection)
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._go_round)

    def _go_round(self) -> None:
        self._round = None
        end = self._now() + ROUND_SECONDS
        for _ in range(len(self._waiting)):
            self._waiting.popleft().take_turn()
            if self._now() >= end:
                break
        if self._waiting and self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self._go_round)


class MeteredConnection(ServerConnection):
    """A connection that is parsed in turns; `intake` is set by the subclass of a server."""

    intake: Intake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._backlog = bytearray()
        self._has_turn_coming = False
        self._unfinished_bytes = 0
        self._kept_bytes = 0
        self._untaken_bytes = 0
        self._is_discarding = False
        super().connection_made(transport)
        self.recv_messages.resume = self._go_on

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._backlog.clear()
        self._untaken_bytes = self._kept_bytes = 0
        self._count_unfinished(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if len(data) <= SLICE_BYTES and not self._backlog and not self._has_to_wait():
            self._parse(data)
            return
        self._backlog += data
        self.transport.pause_reading()
        self._go_on()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._go_on()

    def process_event(self, event: Any) -> None:
        """Count what is complete and waits to be taken."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            if self._is_discarding:
                return
            self._untaken_bytes += len(event.data)
        super().process_event(event)

    async def recv(self, decode: bool | None = None) -> Any:
        """The next message; see the library."""
        message = await super().recv(decode)
        self._untaken_bytes = max(0, self._untaken_bytes - len(message))
        return message

    def discard_messages(self) -> None:
        """Keep nothing of what arrives from now on; pings and the closing handshake go on."""
        self._is_discarding = True
        self._go_on()

    def hold(self, size: int) -> None:
        """So many bytes are kept elsewhere of messages that came here and are not whole."""
        if size != self._kept_bytes and not self.transport.is_closing():
            self._kept_bytes = size
            self._look_at_unfinished()

    def take_turn(self) -> None:
        """Parse a slice of what has arrived."""
        self._has_turn_coming = False
        if not self._backlog or self._has_to_wait():
            return  # whatever it waits for calls `_go_on`
        part = bytes(self._backlog[:SLICE_BYTES])
        del self._backlog[:SLICE_BYTES]
        self._parse(part)
        self._go_on()

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._look_at_unfinished()

    def _look_at_unfinished(self) -> None:
        held = self._kept_bytes + len(self.protocol.reader.buffer)
        if self.recv_messages.get_in_progress:
            held += self._untaken_bytes
        self._count_unfinished(held)
        intake = self.intake
        is_too_much = intake.unfinished_bytes > intake.limits.unfinished_bytes_max
        if is_too_much and held > LARGE_PART_BYTES:
            intake.cut_off += 1
            self.transport.abort()

    def _go_on(self) -> None:
        """Ask for a turn where there is something to parse, or read on where there is not."""
        if self._has_turn_coming or self.transport.is_closing() or self._has_to_wait():
            return
        if self._backlog:
            self._has_turn_coming = True
            self.intake.wants_a_turn(self)
        else:
            self.transport.resume_reading()

    def _has_to_wait(self) -> bool:
        if self.protocol.state is State.CONNECTING:
            return False
        written = cast("asyncio.WriteTransport", self.transport).get_write_buffer_size()
        is_full = self.recv_messages.paused and not self._is_discarding
        return is_full or written > self.intake.limits.peer_queue_bytes_max

    def _count_unfinished(self, size: int) -> None:
        self.intake.unfinished_bytes += size - self._unfinished_bytes
        self._unfinished_bytes = size
