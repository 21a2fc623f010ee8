"""One connection of our own protocol, at either end: what is said goes out, what is heard comes in.

    channels ──► queues ──(credit)──► SyncProtocol ──► frames ──► connection
    connection ──► frames ──► SyncProtocol ──► messages ──► channels

1. Updates go out as far as there is credit; channels take turns, none waits for another's large
   document.
2. What is written and not read is bounded: updates by credit, large messages by the pace at which
   the connection drains, awareness by waiting until it has (`showing`).
3. A peer that gives no credit for `Limits.peer_slow_seconds_max` while something waits for it is
   hung up on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, TypeAlias

from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Awareness,
    Barrier,
    Close,
    Credit,
    Held,
    Hops,
    Passed,
    State,
    Updates,
)
from crdt_state.transport import codes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from crdt_state.identifiers import ReplicaId
    from crdt_state.limits import Limits
    from crdt_state.protocol.peer.conversation import SyncProtocol
    from crdt_state.protocol.peer.messages import Message
    from crdt_state.transport.budget import Budget
    from crdt_state.transport.connection import Connection

__all__ = ["Channelled", "PeerConnection", "Said"]


MESSAGES_IN_A_ROW = 16
"""Heard of one connection before others have their turn."""

Said: TypeAlias = State | Updates | Acknowledge | Held | Awareness | Barrier | Passed | Hops
"""What a channel hears while it is open."""


class Channelled(Protocol):
    """Whoever is at a channel of a connection."""

    def hear(self, message: Said) -> None:
        """The peer said something on this channel."""

    def ended(self, code: int, reason: str) -> None:
        """The peer closed this channel, or the connection has gone (1006)."""

    def send_some(self) -> bool:
        """Send a batch of what waits; whether more waits."""


class PeerConnection:
    """A protocol and the connection it talks over; `channels` are those in use."""

    def __init__(
        self,
        connection: Connection,
        protocol: SyncProtocol,
        limits: Limits,
        *,
        received: Callable[[int, int], Awaitable[None]],
        large_answers: Budget,
    ) -> None:
        """`received` is told of each frame how many bytes and messages it was.

        It may wait before the next is read.  `large_answers` is what large states take their
        size from while they go out.
        """
        self.large_answers = large_answers
        self.connection = connection
        self.protocol = protocol
        self.channels: dict[int, Channelled] = {}
        self._limits = limits
        self._received = received
        self._ungranted: dict[int, int] = {}
        self._hungry: OrderedDict[int, None] = OrderedDict()
        self._flushing: asyncio.Handle | None = None
        self._pacing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._waiting: dict[Callable[[], None], None] = {}
        self._calling: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._is_over = False

    # --- channels ----------------------------------------------------------------------------

    def register(self, number: int, channel: Channelled) -> None:
        """Let somebody be at a channel; told soon where the connection has gone already."""
        if self._is_over:
            asyncio.get_running_loop().call_soon(channel.ended, codes.GONE, "the connection ended")
        else:
            self.channels[number] = channel

    def let_go(self, number: int) -> None:
        """Forget who was at this channel; what it owed the peer in credit is given back."""
        self.channels.pop(number, None)
        self._hungry.pop(number, None)
        owed = self._ungranted.pop(number, 0)
        if owed and not self._is_over:
            self.protocol.grant(owed)
            self.touch()

    def grant(self, number: int, size: int) -> None:
        """Give the peer credit for what of a channel has become durable."""
        self._ungranted[number] = self._ungranted.get(number, 0) - size
        self.protocol.grant(size)
        self.touch()

    async def has_room(self) -> None:
        """Wait until the peer has taken most of what is written for it."""
        while not self._is_over and not self.keeps_up:
            await self.connection.drained()
            await asyncio.sleep(0)

    def _waiting_bytes(self) -> int:
        return self.connection.buffered_bytes + self.protocol.waiting_bytes

    # --- hearing -----------------------------------------------------------------------------

    async def messages(self) -> AsyncIterator[Message]:
        """What the peer says that is no channel's own business: greetings, tokens, `Open`.

        Raises `ConnectionEnded` and `RemoteProtocolError`.
        """
        while True:
            frame = await self.connection.receive()
            heard = self.protocol.receive(frame)
            for at, message in enumerate(heard, 1):
                if not self._is_passed_on(message):
                    yield message
                if at % MESSAGES_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # others want to be heard, too
            self.touch()
            await self._received(len(frame), len(heard))

    def _is_passed_on(self, message: Message) -> bool:
        if isinstance(message, Credit):
            if self.protocol.credit > 0:
                self._be_patient()
            return True
        if not isinstance(message, Said | Close):
            return False
        channel = self.channels.get(message.channel)
        if isinstance(message, Updates):
            size = sum(map(len, message.updates))
            self._ungranted[message.channel] = self._ungranted.get(message.channel, 0) + size
        if channel is None:
            self.let_go(message.channel)  # the peer does not know yet
            return True
        if isinstance(message, Close):
            self.let_go(message.channel)
            channel.ended(message.code, message.reason)
        else:
            channel.hear(message)
        return True

    # --- saying ------------------------------------------------------------------------------

    def touch(self) -> None:
        """Write what there is to say, soon: what is said within a tick shares frames."""
        if self._flushing is None and not self._is_over:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def flush(self) -> None:
        """Write it now: what comes next may end the connection."""
        self._flush()

    def wants_to_send(self, number: int) -> None:
        """Let this channel send updates when there is credit."""
        self._hungry[number] = None
        self.touch()

    @property
    def keeps_up(self) -> bool:
        """Whether the peer has taken most of what is written for it."""
        return self._waiting_bytes() <= self._limits.peer_queue_bytes_max

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once, when the peer keeps up again."""
        self._waiting[callback] = None
        if self._calling is None and not self._is_over:
            self._calling = self._start(self._call_when_drained())

    def show(self, number: int, origin: ReplicaId, hops: int, payload: bytes) -> None:
        """Send awareness, to a peer that keeps up."""
        self.protocol.say(Awareness(number, origin, hops, payload))
        self.touch()

    def close_channel(self, number: int, code: int, reason: str) -> None:
        """End one channel from our side."""
        self.let_go(number)
        self.protocol.close(number, code, reason)
        self.touch()

    def end(self, reason: str = "the connection ended") -> None:
        """Say what is left to be said, and tell every channel; whoever calls this then closes."""
        self._flush()
        self._is_over = True
        for timer in (self._flushing, self._patience):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        for task in (self._pacing, self._draining, self._calling):
            if task is not None:
                task.cancel()
        channels, self.channels = self.channels, {}
        self._hungry.clear()
        for channel in channels.values():
            channel.ended(codes.GONE, reason)

    # --- private -----------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = None
        if self._is_over:
            return
        self._feed()
        for frame in self.protocol.frames_to_send():
            self.connection.send(frame)
        if self.protocol.waiting_bytes and self._pacing is None:
            self._pacing = self._start(self._pace())

    def _feed(self) -> None:
        """Let channels send, a batch each in turn, as long as there is credit."""
        while self._hungry and self.protocol.credit > 0:
            if not self.keeps_up:
                if self._draining is None:
                    self._draining = self._start(self._go_on_when_drained())
                break
            number, _ = self._hungry.popitem(last=False)
            if self.channels[number].send_some():
                self._hungry[number] = None
        if not self._hungry:
            self._be_patient()
        elif self._patience is None:
            seconds = self._limits.peer_slow_seconds_max
            self._patience = asyncio.get_running_loop().call_later(seconds, self._give_up)

    async def _call_when_drained(self) -> None:
        try:
            while self._waiting and not self._is_over:
                await self.has_room()
                waiting, self._waiting = self._waiting, {}
                for callback in waiting:
                    callback()
                # Before the next look: what they have said is written within the tick.
                await asyncio.sleep(0)
        finally:
            self._calling = None

    async def _go_on_when_drained(self) -> None:
        try:
            await self.has_room()
        finally:
            self._draining = None
        self._be_patient()
        self.touch()

    async def _pace(self) -> None:
        """Parts of large messages go out as fast as the connection takes them."""
        try:
            while self.protocol.waiting_bytes:
                await self.connection.drained()
                for frame in self.protocol.frames_to_send():
                    self.connection.send(frame)
                await asyncio.sleep(0)
        finally:
            self._pacing = None

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        self._start(
            self.connection.close(codes.TOO_SLOW, "this peer does not take what it asked for")
        )

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task
