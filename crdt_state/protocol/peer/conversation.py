"""One conversation with one peer, as a table: no socket, no clock, no task.

    dialler:   BEGINNING ── Hello sent ──► GREETED ── Welcome ──► READY
    listener:  BEGINNING ── Hello ──────► GREETED ── Welcome sent ──► READY

Within READY each document has a *channel*, numbered by whoever opened it: even by the dialler,
odd by the listener, never twice.

    opener:    Open sent ──► OPENING ── State ──► OPEN ── Close ──► gone
    answerer:  Open ───────► ANSWERING ── State sent ──► OPEN ── Close ──► gone

A `Close` is answered by a `Close`; until then the other side may still say things that it had
under way, which are passed over.  After every call, send what `frames_to_send` returns.

1. What a peer may not say now ends the conversation with `RemoteProtocolError`.
2. Updates of a channel are numbered without a gap, in both directions, from 1.
3. Nobody sends more bytes of updates than the other gave credit for (by one message at most).
4. What the peer makes us keep is bounded: channels, messages in parts, what is under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from crdt_state.errors import RemoteProtocolError
from crdt_state.lineage import BORN
from crdt_state.protocol.peer.compression import (
    COMPRESSED,
    WORTH_BYTES,
    ZSTD,
    Compressor,
    Decompressor,
)
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Authenticate,
    Authenticated,
    Awareness,
    Barrier,
    ChannelMessage,
    Close,
    Credit,
    Held,
    Hello,
    Hops,
    Member,
    Members,
    Open,
    Part,
    Passed,
    State,
    TopologyMessage,
    Updates,
    Welcome,
    decode,
    decode_all,
    encode,
)
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX, PART_BYTES, Assembler, Splitter
from crdt_state.protocol.peer.scopes import (
    Answer,
    Ask,
    Bring,
    Brought,
    Ended,
    Exchange,
    Exchanged,
    List,
    Listed,
    News,
    Root,
    ScopeMessage,
    Since,
    Subscribe,
    Unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.lineage import Life
    from crdt_state.protocol.peer.messages import Message

__all__ = [
    "CAPABILITIES",
    "HOPS_COUNTED",
    "MEMBERS_KNOWN",
    "VERSION",
    "ChannelPhase",
    "Phase",
    "Role",
    "SyncProtocol",
]

VERSION = 1

MEMBERS_KNOWN = "members"
"""That a side takes part in topologies: it answers `Member`, and takes `Members`."""

HOPS_COUNTED = "hops"
"""That a side counts how often an update has been sent on: it says `Hops`, and heeds it."""

CAPABILITIES: tuple[str, ...] = (ZSTD, MEMBERS_KNOWN, HOPS_COUNTED)
"""What this side can do beyond version 1."""

UPDATE_BYTES_MIN = 512
"""A peer that takes less at once would have a state cut into as many pieces as it has structs."""

CREDIT_MAX = 64 * 1024 * 1024
"""No peer makes us send more than this before it has said that more may come."""

BARRIERS_MAX = 64
"""On one channel, that have not been answered."""

PARTS_AT_ONCE = 4
"""Parts that go out before others have their turn."""


class Role(Enum):
    """Which end of the connection this is."""

    DIALLER = "dialler"
    LISTENER = "listener"


class Phase(Enum):
    """How far the greeting is."""

    BEGINNING = "nothing was said"
    GREETED = "a hello was said"
    READY = "both have greeted"


class ChannelPhase(Enum):
    """How far a channel is."""

    OPENING = "opening"
    ANSWERING = "answering"
    OPEN = "open"
    CLOSING = "closing"


# Who may hear what, before any channel is looked at; anything else is a protocol error.
HEARD: dict[tuple[Role, Phase], dict[type[Message], Phase]] = {
    (Role.LISTENER, Phase.BEGINNING): {Hello: Phase.GREETED},
    (Role.DIALLER, Phase.GREETED): {Welcome: Phase.READY},
    (Role.LISTENER, Phase.READY): {
        Authenticate: Phase.READY,
        Credit: Phase.READY,
        Member: Phase.READY,
        Members: Phase.READY,
    },
    (Role.DIALLER, Phase.READY): {
        Authenticated: Phase.READY,
        Credit: Phase.READY,
        Member: Phase.READY,
        Members: Phase.READY,
    },
}

# In which phase of its channel a message may be heard, and what the channel is then.
HEARD_ON_CHANNEL: dict[type[ChannelMessage], dict[ChannelPhase, ChannelPhase]] = {
    State: {ChannelPhase.OPENING: ChannelPhase.OPEN},
    Updates: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Acknowledge: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Held: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Barrier: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Passed: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Hops: {ChannelPhase.OPEN: ChannelPhase.OPEN},
    Awareness: {
        ChannelPhase.OPENING: ChannelPhase.OPENING,
        ChannelPhase.ANSWERING: ChannelPhase.ANSWERING,
        ChannelPhase.OPEN: ChannelPhase.OPEN,
    },
}

# What may be heard about whole scopes; a dialler's first word about one may come behind its `Hello`
# without a wait for the `Welcome`.
HEARD_OF_SCOPES: dict[Role, tuple[type[ScopeMessage], ...]] = {
    Role.LISTENER: (Subscribe, Ask, Since, Exchange, Bring, List, Unsubscribe),
    Role.DIALLER: (Root, Answer, News, Exchanged, Brought, Listed, Ended),
}


@dataclass(slots=True)
class _Channel:
    document: DocumentId
    phase: ChannelPhase
    sent: int = 0
    received: int = 0
    acknowledged: tuple[int, int] = (0, 0)
    barriers: int = 0
    to_pass: int = 0
    hops: int | None = None


class SyncProtocol:
    """One conversation.  `receive` what came, `send` what is to be said, both in order."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role = role
        self.phase = Phase.BEGINNING
        self.credit = 0
        """Bytes of updates that we may send now; at most one message below zero."""
        self.update_bytes_max = limits.update_bytes_max
        """What an update may take that both sides let in; known when both have greeted."""
        self.message_bytes_max = 0
        """What the peer takes as one message; known when both have greeted."""
        self._limits = limits
        self._granted = 0
        self._channels: dict[int, _Channel] = {}
        self._next_channel = 0 if role is Role.DIALLER else 1
        self._greatest_heard = -1
        self._assembler = Assembler(limits.message_bytes_max)
        self._splitter = Splitter()
        self._out: list[bytes] = []
        self._private: list[bytes] = []
        """Greetings and tokens, each a frame of its own that is never compressed."""
        self._may_compress = False
        self._counts_hops = False
        self._compressor: Compressor | None = None
        self._decompressor: Decompressor | None = None

    # --- saying ------------------------------------------------------------------------------

    def open(
        self,
        document: DocumentId,
        state_vector: bytes,
        life: Life = BORN,
        *,
        is_new: bool = False,
    ) -> int:
        """Open a channel for a document; its number."""
        channel = self._next_channel
        self._next_channel += 2
        self._channels[channel] = _Channel(document, ChannelPhase.OPENING)
        self._say(channel, encode(Open(channel, document, state_vector, life, is_new)))
        return channel

    def greet(self, greeting: Hello | Welcome) -> None:
        """Say the first word."""
        self._granted += greeting.credit
        self.phase = Phase.READY if isinstance(greeting, Welcome) else Phase.GREETED
        self._private.append(encode(greeting))
        if isinstance(greeting, Welcome):
            self._agree(greeting)

    def answer(self, channel: int, state_vector: bytes, updates: int, life: Life = BORN) -> None:
        """Answer an `Open`."""
        self._known(channel).phase = ChannelPhase.OPEN
        self._say(channel, encode(State(channel, state_vector, updates, life)))

    def send_updates(self, channel: int, updates: tuple[bytes, ...]) -> int:
        """Send updates, as one message or several; the number of the last of them.

        Only while `credit` is above zero.
        """
        known = self._known(channel)
        for part in _batches(updates):
            message = encode(Updates(channel, known.sent + 1, part))
            known.sent += len(part)
            self.credit -= sum(map(len, part))
            self._say(channel, message)
        return known.sent

    def count_hops(self, channel: int, hops: int) -> None:
        """Say how often what follows may be sent on, where that is not what was said last."""
        known = self._channels.get(channel)
        if known is not None and self._counts_hops and known.hops != hops:
            known.hops = hops
            self._say(channel, encode(Hops(channel, hops)))

    def acknowledge(self, channel: int, durable: int, applied: int) -> None:
        """Say how far the peer's updates have come here."""
        known = self._channels.get(channel)
        if known is not None and known.phase is not ChannelPhase.CLOSING:
            self._say(channel, encode(Acknowledge(channel, durable, applied)))

    def grant(self, size: int) -> None:
        """Give the peer credit."""
        self._granted += size
        self._out.append(encode(Credit(size)))

    def say(
        self,
        message: Held
        | Awareness
        | Barrier
        | Passed
        | Authenticate
        | Authenticated
        | TopologyMessage,
    ) -> None:
        """Say what changes nothing in this table."""
        encoded = encode(message)
        if isinstance(message, Authenticate | Authenticated):
            self._private.append(encoded)
        elif isinstance(message, TopologyMessage):
            self._out.append(encoded)
        elif message.channel in self._channels:
            known = self._channels[message.channel]
            if known.phase is ChannelPhase.CLOSING:
                return  # the peer may have let go of it already
            known.barriers += isinstance(message, Barrier)
            known.to_pass -= isinstance(message, Passed)
            self._say(message.channel, encoded)

    def say_of_scope(self, message: ScopeMessage) -> None:
        """Say something of a whole scope; it fits a frame."""
        self._out.append(encode(message))

    def close(self, channel: int, code: int, reason: str) -> None:
        """End a channel; whatever comes on it until the peer has answered is passed over."""
        known = self._channels.get(channel)
        if known is not None and known.phase is not ChannelPhase.CLOSING:
            known.phase = ChannelPhase.CLOSING
            self._say(channel, encode(Close(channel, code, reason)))

    @property
    def unfinished_bytes(self) -> int:
        """Bytes that are held of the peer's messages in parts."""
        return self._assembler.size

    # --- what is to be written ---------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        """Bytes of large messages that are not in a frame yet: call `frames_to_send` again."""
        return self._splitter.size

    def frames_to_send(self) -> list[bytes]:
        """What is to be written now, in order: all that is small, a few parts of what is not."""
        messages = self._out
        if self._splitter:
            messages = [*messages, *self._splitter.parts(PARTS_AT_ONCE)]
        self._out = []
        frames, self._private = self._private, []
        frames += [self._compressed(frame) for frame in _frames(messages)]
        return frames

    def _compressed(self, frame: bytes) -> bytes:
        if not self._may_compress or len(frame) < WORTH_BYTES:
            return frame
        if self._compressor is None:
            self._compressor = Compressor()  # when there is something to compress: it takes memory
        return self._compressor.frame(frame)

    def _say(self, channel: int, message: bytes) -> None:
        if len(message) > PART_BYTES or self._splitter.holds_back(channel):
            self._splitter.add(channel, message)
        else:
            self._out.append(message)

    # --- hearing -----------------------------------------------------------------------------

    def receive(self, frame: bytes) -> list[Message]:
        """What a frame says to us.  Raises `RemoteProtocolError`."""
        if len(frame) > FRAME_BYTES_MAX:
            raise RemoteProtocolError(
                f"a frame of {len(frame):,} bytes; send what is beyond {FRAME_BYTES_MAX:,} in parts"
            )
        if frame[:1] == bytes([COMPRESSED]):
            frame = self._decompressed(frame)
        heard: list[Message] = []
        for message in decode_all(frame):
            self._hear(message, heard)
        return heard

    def _decompressed(self, frame: bytes) -> bytes:
        if not self._may_compress:
            raise RemoteProtocolError("a compressed frame, where compression was not agreed on")
        if self._decompressor is None:
            self._decompressor = Decompressor(FRAME_BYTES_MAX)
        return self._decompressor.messages(frame)

    def _hear(self, message: Message, heard: list[Message]) -> None:
        if isinstance(message, Part):
            self._check_ready(message)
            whole = self._assembler.take(message)
            if whole is not None:
                self._hear_whole(decode(whole), heard)
        else:
            self._hear_whole(message, heard)

    def _hear_whole(self, message: Message, heard: list[Message]) -> None:
        following = HEARD.get((self.role, self.phase), {}).get(type(message))
        if following is not None:
            self.phase = following
            self._take(message)
            heard.append(message)
            return
        if isinstance(message, HEARD_OF_SCOPES[self.role]):
            if self.phase is not Phase.GREETED or not isinstance(message, Subscribe):
                self._check_ready(message)
            heard.append(message)
            return
        self._check_ready(message)
        if not isinstance(message, ChannelMessage):
            raise self._misplaced(message)
        if self._is_heard_on_channel(message):
            heard.append(message)

    def _check_ready(self, message: Message) -> None:
        if self.phase is not Phase.READY:
            raise self._misplaced(message)

    def _misplaced(self, message: Message) -> RemoteProtocolError:
        name = type(message).__name__
        return RemoteProtocolError(
            f"{name} is not said to a {self.role.value} when {self.phase.value}"
        )

    def _take(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self._agree(message)
        if isinstance(message, Hello | Welcome):
            self.credit = min(message.credit, CREDIT_MAX)
            if message.update_bytes_max < UPDATE_BYTES_MIN:
                raise RemoteProtocolError(
                    f"update_bytes_max = {message.update_bytes_max:,} is too little; "
                    f"{UPDATE_BYTES_MIN:,} is the least"
                )
            self.update_bytes_max = min(self.update_bytes_max, message.update_bytes_max)
            self._splitter.bytes_max = self.message_bytes_max = message.message_bytes_max
        elif isinstance(message, Credit):
            if not message.size:
                raise RemoteProtocolError("a credit of nothing")
            self.credit = min(self.credit + message.size, CREDIT_MAX)

    def _agree(self, welcome: Welcome) -> None:
        self._may_compress = ZSTD in welcome.capabilities
        self._counts_hops = HOPS_COUNTED in welcome.capabilities

    # --- channels ----------------------------------------------------------------------------

    def document_of(self, channel: int) -> DocumentId:
        """The document of a channel that is not gone."""
        return self._known(channel).document

    def _known(self, channel: int) -> _Channel:
        return self._channels[channel]

    def _is_heard_on_channel(self, message: ChannelMessage) -> bool:
        """Take a message of a channel in; False where it is to be passed over."""
        if isinstance(message, Open):
            self._hear_open(message)
            return True
        number = message.channel
        channel = self._channels.get(number)
        if channel is None:
            raise RemoteProtocolError(f"channel {number} is not open")
        if isinstance(message, Close):
            if channel.phase is ChannelPhase.CLOSING:
                del self._channels[number]
                return False
            del self._channels[number]
            self._say(number, encode(Close(number, message.code, "")))
            return True
        if isinstance(message, Updates):
            self._hear_updates(channel, message)
        if channel.phase is ChannelPhase.CLOSING:
            if isinstance(message, Updates):
                self.grant(sum(map(len, message.updates)))  # nobody else will
            return False
        following = HEARD_ON_CHANNEL[type(message)].get(channel.phase)
        if following is None:
            name = type(message).__name__
            raise RemoteProtocolError(f"{name} on channel {number}, which is {channel.phase.value}")
        channel.phase = following
        self._note(channel, message)
        return True

    def _note(self, channel: _Channel, message: ChannelMessage) -> None:
        """Keep count of what was said on a channel."""
        if isinstance(message, Acknowledge):
            self._hear_acknowledge(channel, message)
        elif isinstance(message, Barrier):
            channel.to_pass += 1
            if channel.to_pass > BARRIERS_MAX:
                raise RemoteProtocolError(f"more than {BARRIERS_MAX} barriers at once")
        elif isinstance(message, Passed):
            if not channel.barriers:
                raise RemoteProtocolError(
                    f"Passed on channel {message.channel}, where nobody asked"
                )
            channel.barriers -= 1

    def _hear_open(self, message: Open) -> None:
        number = message.channel
        if self.role is Role.DIALLER:
            raise RemoteProtocolError("in this version a listener opens no channels")
        if number % 2 or number <= self._greatest_heard:
            raise RemoteProtocolError(f"channel {number} is not the peer's to open")
        if len(self._channels) >= self._limits.channels_max:
            raise RemoteProtocolError(
                f"more than channels_max = {self._limits.channels_max} documents on one connection"
            )
        self._greatest_heard = number
        self._channels[number] = _Channel(message.document, ChannelPhase.ANSWERING)

    def _hear_updates(self, channel: _Channel, message: Updates) -> None:
        if not message.updates or message.first != channel.received + 1:
            raise RemoteProtocolError(
                f"updates of {channel.document!r} from {message.first} on, where "
                f"{channel.received + 1} is next"
            )
        channel.received += len(message.updates)
        self._granted -= sum(map(len, message.updates))
        if self._granted < -self._limits.message_bytes_max:
            raise RemoteProtocolError("more updates than there was credit for")

    def _hear_acknowledge(self, channel: _Channel, message: Acknowledge) -> None:
        durable, applied = message.durable, message.applied
        if (
            durable > channel.sent
            or applied > durable
            or (durable, applied) < channel.acknowledged
            or applied < channel.acknowledged[1]
        ):
            raise RemoteProtocolError(
                f"an acknowledgement through {durable} ({applied} applied) of {channel.sent} "
                f"updates, after one through {channel.acknowledged[0]}"
            )
        channel.acknowledged = (durable, applied)


def _batches(updates: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Updates by messages: a large one alone, small ones together as far as they fit a frame."""
    batch: list[bytes] = []
    size = 0
    for update in updates:
        if batch and size + len(update) > PART_BYTES // 2:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(update)
        size += len(update)
    if batch:
        yield tuple(batch)


def _frames(messages: list[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for message in messages:
        if batch and size + len(message) > PART_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    if batch:
        yield b"".join(batch)
