"""The network of the simulation: hosts, lines between them, and what weather does to a line.

Connections are ordered and complete as long as they last, as a WebSocket's are.  What the
weather can do is what it does to TCP:

* **delay**: a message arrives later, and all behind it as well;
* **hold** (a clog, a partition, half of an open connection): what is sent waits; it arrives when
  the line is free again, or never, when the keepalive ends the connection before;
* **cut**: each side still receives some of what was under way, in order, and learns of the end
  at its own time.  So a server may hear the last words of a connection after its client has
  opened the next.

What has been given to `send` and has not been received at the other end is `buffered_bytes`: a
receiver that does not read fills its sender's buffer, as it does in TCP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.listener import Visit

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from crdt_state.simulator.trace import Trace
    from crdt_state.simulator.weather import Weather

__all__ = ["KEEPALIVE_SECONDS", "Network", "SimulatedConnection"]

KEEPALIVE_SECONDS = 20.0
"""So long a line may be silent before its ends give it up; `websockets` does it by pings."""

CONNECT_SECONDS_MAX = 3.0
CLOSE_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 400
"""More lines at once than the bounds of all replicas together allow."""

ABNORMAL = 1006


class Network:
    """Who listens where, every line there is, and which are held."""

    def __init__(self, random: Random, weather: Weather, trace: Trace) -> None:
        self.weather = weather
        self.random = random
        self.lines: dict[int, Line] = {}
        self.messages = 0
        self.message_bytes_most = 0
        self.buffered_bytes_most = 0
        """At one end of one line."""
        self._trace = trace
        self._listeners: dict[str, Callable[[SimulatedConnection, Visit], None]] = {}
        self._apart: dict[frozenset[str], int] = {}
        self._next = 0

    # --- hosts -------------------------------------------------------------------------------

    def listen(self, host: str, accept: Callable[[SimulatedConnection, Visit], None]) -> None:
        """Let others connect to `host`."""
        self._listeners[host] = accept

    def vanish(self, host: str) -> None:
        """A host is off, from one moment to the next."""
        self._listeners.pop(host, None)
        for line in self._of(host):
            line.cut(gone=host)

    async def dial(self, host: str, url: str) -> SimulatedConnection:
        """A new connection from `host` to `ws://<host>/<path>`.  Raises `OSError`."""
        there, _, path = url.removeprefix("ws://").partition("/")
        await asyncio.sleep(self.delay())
        accept = self._listeners.get(there)
        if accept is None or frozenset((host, there)) in self._apart:
            await asyncio.sleep(self.random.uniform(0.0, CONNECT_SECONDS_MAX))
            raise OSError(f"{there} does not answer")
        if len(self.lines) >= CONNECTIONS_MAX:
            raise AssertionError(f"{len(self.lines)} connections at once: somebody leaks them")
        self._next += 1
        line = Line(self, self._next, host, there)
        self.lines[self._next] = line
        self._trace.note("connected", host, there, path, self._next)
        accept(line.there, Visit(f"/{path}", None))
        return line.here

    def dial_from(self, host: str) -> Callable[[str], object]:
        """As a `Dial`, for links."""

        async def dial(url: str) -> SimulatedConnection:
            return await self.dial(host, url)

        return dial

    # --- weather -----------------------------------------------------------------------------

    def delay(self) -> float:
        """How long one message takes, in seconds."""
        weather = self.weather
        least, most = weather.delay_seconds
        if weather.spike and self.random.random() < weather.spike:
            most = weather.spike_seconds
        return self.random.uniform(least, most)

    def cut_one(self, dice: Random) -> bool:
        """End one line by force; False where there is none."""
        line = self._any(dice)
        if line is not None:
            line.cut()
        return line is not None

    def hold_one(self, dice: Random, seconds: float, *, both: bool) -> bool:
        """Hold one line, in one direction or in both; False where there is none."""
        line = self._any(dice)
        if line is None:
            return False
        ends = (line.here, line.there) if both else (dice.choice((line.here, line.there)),)
        line.hold(ends, seconds)
        return True

    def part(self, one: str, other: str, seconds: float) -> None:
        """Keep two hosts from hearing of one another for a while."""
        pair = frozenset((one, other))
        self._apart[pair] = self._apart.get(pair, 0) + 1
        for line in self._of(one):
            if other in (line.host, line.other):
                line.hold((line.here, line.there), seconds)
        asyncio.get_running_loop().call_later(seconds, self._join, pair)

    def calm_down(self, weather: Weather) -> None:
        """Hold nothing any more, and be as `weather` is."""
        self.weather = weather
        self._apart.clear()
        for line in tuple(self.lines.values()):
            line.release(everything=True)

    def _join(self, pair: frozenset[str]) -> None:
        left = self._apart.pop(pair, 0) - 1
        if left > 0:
            self._apart[pair] = left

    def _any(self, dice: Random) -> Line | None:
        return dice.choice(tuple(self.lines.values())) if self.lines else None

    def _of(self, host: str) -> list[Line]:
        return [line for line in self.lines.values() if host in (line.host, line.other)]

    # --- for lines ---------------------------------------------------------------------------

    def carried(self, line: Line, message: bytes) -> None:
        """A message has arrived."""
        self.messages += 1
        self._trace.note("message", line.number, message)

    def ended(self, line: Line) -> None:
        """Both ends of a line have learnt of its end."""
        self.lines.pop(line.number, None)


class Line:
    """Two ends of one connection."""

    def __init__(self, network: Network, number: int, host: str, other: str) -> None:
        self.network = network
        self.number = number
        self.host = host
        self.other = other
        self.here = SimulatedConnection(self, remote_address=other)
        self.there = SimulatedConnection(self, remote_address=host)
        self.here.other, self.there.other = self.there, self.here

    def hold(self, ends: tuple[SimulatedConnection, ...], seconds: float) -> None:
        """Let what `ends` send wait; where it takes too long, the line is given up."""
        loop = asyncio.get_running_loop()
        for end in ends:
            end.held += 1
        if seconds >= KEEPALIVE_SECONDS:
            loop.call_later(KEEPALIVE_SECONDS, self.cut)
        else:
            loop.call_later(seconds, self._release, ends)

    def release(self, *, everything: bool = False) -> None:
        """Let everything go on."""
        for end in (self.here, self.there):
            if everything:
                end.held = 0
            end.go_on()

    def _release(self, ends: tuple[SimulatedConnection, ...]) -> None:
        for end in ends:
            end.held = max(0, end.held - 1)
            end.go_on()

    def cut(self, *, gone: str | None = None) -> None:
        """End it by force; the side of `gone` is not there any more to learn of it."""
        random = self.network.random
        for end, host in ((self.here, self.host), (self.there, self.other)):
            end.lose(random.randint(0, end.under_way), random.uniform(0.0, KEEPALIVE_SECONDS))
            if host == gone:
                end.end(ConnectionEnded(ABNORMAL, "off"))


class SimulatedConnection:
    """One end of a line; a `Connection`."""

    def __init__(self, line: Line, *, remote_address: str) -> None:
        self.remote_address = remote_address
        self.other = self
        self.held = 0
        self._line = line
        self._under_way: deque[bytes | ConnectionEnded] = deque()
        self._overdue = 0
        self._arrives = 0.0
        self._inbox: deque[bytes] = deque()
        self._bytes = 0
        self._ended: ConnectionEnded | None = None
        self._says_no_more = False
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that the other end has not received."""
        return self._bytes

    @property
    def under_way(self) -> int:
        """How many messages have not arrived."""
        return len(self._under_way)

    async def receive(self) -> bytes:
        """The next message; what arrived before the end is still received."""
        while not self._inbox:
            if self._ended is not None:
                raise self._ended
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        self.other._left(len(message))  # noqa: SLF001 - two ends of one thing
        return message

    def holds(self, size: int) -> None:
        """Nobody counts here."""

    async def discard(self) -> None:
        """Receive, and keep nothing, until either end closes."""
        with suppress(ConnectionEnded):
            while True:
                await self.receive()

    def send(self, message: bytes) -> None:
        """Put a message on its way."""
        if self._says_no_more or self._ended is not None:
            return
        self._bytes += len(message)
        network = self._line.network
        network.message_bytes_most = max(network.message_bytes_most, len(message))
        network.buffered_bytes_most = max(network.buffered_bytes_most, self._bytes)
        self._empty.clear()
        self._put(message, network.delay())

    async def drained(self) -> None:
        """Wait until the other end has received everything, or the connection has ended."""
        await self._empty.wait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye behind what was sent; wait a while for it to arrive."""
        if self._ended is None and not self._says_no_more:
            self._says_no_more = True
            self._empty.clear()
            self._put(ConnectionEnded(code, reason), self._line.network.delay())
            try:
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await self._empty.wait()
            except TimeoutError:
                pass  # whoever does not take part in the goodbye is left
        self.end(ConnectionEnded(code, reason))

    # --- for the line ------------------------------------------------------------------------

    def lose(self, kept: int, seconds: float) -> None:
        """Only the next `kept` messages still arrive, and then the news of the end."""
        self._says_no_more = True
        self.held = 0
        while len(self._under_way) > kept:
            lost = self._under_way.pop()
            self._bytes -= 0 if isinstance(lost, ConnectionEnded) else len(lost)
        self._overdue = min(self._overdue, len(self._under_way))
        self.go_on()
        self._put(ConnectionEnded(ABNORMAL, "cut"), seconds)

    def go_on(self) -> None:
        """Let what waited arrive."""
        if self.held:
            return
        loop = asyncio.get_running_loop()
        waited, self._overdue = self._overdue, 0
        for _ in range(waited):
            self._arrives = max(self._arrives, loop.time() + self._line.network.delay())
            loop.call_at(self._arrives, self._arrive)

    def end(self, ended: ConnectionEnded) -> None:
        """Nothing more is sent or received here."""
        if self._ended is None:
            self._ended = ended
            self._says_no_more = True
            self._bytes = 0
            self._news.set()
            self._empty.set()
            if self.other._ended is not None:  # noqa: SLF001
                self._line.network.ended(self._line)

    def _put(self, message: bytes | ConnectionEnded, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._under_way.append(message)
        self._arrives = max(self._arrives, loop.time() + seconds)
        loop.call_at(self._arrives, self._arrive)

    def _arrive(self) -> None:
        if self.held:
            self._overdue += 1
            return
        if not self._under_way:
            return  # lost
        message = self._under_way.popleft()
        if isinstance(message, ConnectionEnded):
            # What had not left by now never will: who waits for room must not wait for it.
            self._bytes = 0
            self._empty.set()
            self.other.end(message)
        elif self.other._ended is None:  # noqa: SLF001
            self._line.network.carried(self._line, message)
            self.other._inbox.append(message)  # noqa: SLF001
            self.other._news.set()  # noqa: SLF001

    def _left(self, size: int) -> None:
        self._bytes = max(0, self._bytes - size)
        if not self._bytes and not self._says_no_more:
            self._empty.set()
