"""`crdt_state.protocol.peer.conversation` and `parts`: who may say what, and within what bounds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.protocol.peer.conversation import Phase, Role, SyncProtocol
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Authenticate,
    Authenticated,
    Barrier,
    Close,
    Credit,
    Hello,
    Message,
    Open,
    Part,
    Passed,
    State,
    Updates,
    Welcome,
    decode_all,
    encode,
)
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX, PART_BYTES, Assembler

NOTES, OTHER = DocumentId("notes"), DocumentId("other")
SMALL = replace(DEFAULT_LIMITS, message_bytes_max=1_000_000, channels_max=3)
NOTHING = b"\x00"

HELLO = Hello(
    version_min=1,
    version_max=1,
    replica=ReplicaId(b"A" * 16),
    incarnation=Incarnation(b"a" * 16),
    message_bytes_max=1_000_000,
    update_bytes_max=500_000,
    credit=1_000,
)
WELCOME = Welcome(
    version=1,
    replica=ReplicaId(b"B" * 16),
    incarnation=Incarnation(b"b" * 16),
    message_bytes_max=1_000_000,
    update_bytes_max=400_000,
    credit=2_000,
)


class Pair:
    """Both ends of a conversation, and what each has heard."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.dialler = SyncProtocol(Role.DIALLER, limits)
        self.listener = SyncProtocol(Role.LISTENER, limits)
        self.heard: dict[SyncProtocol, list[Message]] = {self.dialler: [], self.listener: []}
        self.dialler.greet(HELLO)
        self.pass_on()
        self.listener.greet(WELCOME)
        self.pass_on()
        self.forget()

    def pass_on(self) -> None:
        """Let everything arrive."""
        for one, other in ((self.dialler, self.listener), (self.listener, self.dialler)) * 2:
            while frames := one.frames_to_send():
                for frame in frames:
                    assert len(frame) <= FRAME_BYTES_MAX
                    self.heard[other] += other.receive(frame)

    def forget(self) -> None:
        for heard in self.heard.values():
            heard.clear()

    def opened(self, document: DocumentId = NOTES) -> int:
        channel = self.dialler.open(document, NOTHING)
        self.pass_on()
        self.listener.answer(channel, NOTHING, 0)
        self.pass_on()
        self.forget()
        return channel


def test_a_greeting_makes_both_ready_and_gives_each_what_the_other_grants() -> None:
    pair = Pair()
    assert pair.dialler.phase is pair.listener.phase is Phase.READY
    assert (pair.dialler.credit, pair.listener.credit) == (2_000, 1_000)
    assert pair.dialler.update_bytes_max == 400_000
    assert pair.listener.update_bytes_max == 500_000


def test_a_channel_carries_updates_in_both_directions_numbered_from_one() -> None:
    pair = Pair()
    channel = pair.opened()
    assert pair.dialler.send_updates(channel, (b"one", b"two")) == 2
    assert pair.dialler.send_updates(channel, (b"three",)) == 3
    assert pair.listener.send_updates(channel, (b"four",)) == 1
    pair.pass_on()
    assert pair.heard[pair.listener] == [
        Updates(channel, 1, (b"one", b"two")),
        Updates(channel, 3, (b"three",)),
    ]
    assert pair.heard[pair.dialler] == [Updates(channel, 1, (b"four",))]
    assert pair.dialler.credit == 2_000 - 11
    pair.listener.acknowledge(channel, 3, 2)
    pair.listener.grant(11)
    pair.pass_on()
    assert pair.heard[pair.dialler][1:] == [Acknowledge(channel, 3, 2), Credit(11)]
    assert pair.dialler.credit == 2_000


def test_what_is_said_within_a_tick_shares_a_frame() -> None:
    pair = Pair()
    channel, other = pair.opened(), pair.opened(OTHER)
    for number in (channel, other):
        pair.dialler.send_updates(number, (b"update",))
    assert len(pair.dialler.frames_to_send()) == 1


def said_by_listener(*messages: Message) -> bytes:
    return b"".join(map(encode, messages))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (HELLO, "Hello is not said"),
        (WELCOME, "Welcome is not said"),
        (Authenticate("t"), "Authenticate is not said"),
        (Updates(8, 1, (b"x",)), "channel 8 is not open"),
        (Open(1, OTHER, NOTHING), "opens no channels"),
        (Credit(0), "a credit of nothing"),
        (State(0, NOTHING, 0), "State on channel 0, which is open"),
        (Updates(0, 2, (b"x",)), "where 1 is next"),
        (Updates(0, 1, ()), "where 1 is next"),
        (Acknowledge(0, 1, 0), "of 0 updates"),
        (Passed(0), "nobody asked"),
    ],
)
def test_what_may_not_be_said_now_ends_the_conversation(message: Message, why: str) -> None:
    pair = Pair()
    assert pair.opened() == 0
    with pytest.raises(RemoteProtocolError, match=why):
        pair.dialler.receive(said_by_listener(message))


def test_nothing_is_heard_before_the_greeting() -> None:
    for message in (Open(0, NOTES, NOTHING), Credit(1), Part(0, 0, b"x"), WELCOME):
        with pytest.raises(RemoteProtocolError, match="is not said to a listener"):
            SyncProtocol(Role.LISTENER, SMALL).receive(encode(message))


def test_acknowledgements_never_fall() -> None:
    for worse in (Acknowledge(0, 1, 1), Acknowledge(0, 3, 0), Acknowledge(0, 2, 3)):
        pair = Pair()
        channel = pair.opened()
        pair.dialler.send_updates(channel, (b"a", b"b", b"c"))
        pair.dialler.receive(encode(Acknowledge(channel, 2, 1)))
        with pytest.raises(RemoteProtocolError, match="acknowledgement"):
            pair.dialler.receive(encode(worse))


def test_a_close_is_answered_and_what_was_under_way_is_passed_over() -> None:
    pair = Pair()
    channel = pair.opened()
    pair.listener.close(channel, 4423, "set aside")
    pair.dialler.send_updates(channel, (b"under way",))
    pair.pass_on()
    # What was passed over is given back: nobody else would.
    assert pair.heard[pair.dialler] == [Close(channel, 4423, "set aside"), Credit(9)]
    assert pair.heard[pair.listener] == []
    assert pair.listener._channels == pair.dialler._channels == {}
    assert pair.opened() == channel + 2


def test_both_may_close_at_once() -> None:
    pair = Pair()
    channel = pair.opened()
    pair.listener.close(channel, 4423, "set aside")
    pair.dialler.close(channel, 1000, "")
    pair.pass_on()
    assert pair.heard == {pair.dialler: [], pair.listener: []}
    assert pair.listener._channels == pair.dialler._channels == {}


def test_a_channel_number_is_never_used_twice() -> None:
    pair = Pair()
    channel = pair.opened()
    pair.dialler.close(channel, 1000, "")
    pair.pass_on()
    with pytest.raises(RemoteProtocolError, match="to open"):
        pair.listener.receive(encode(Open(channel, NOTES, NOTHING)))


def test_channels_are_bounded() -> None:
    pair = Pair()
    for _ in range(3):
        pair.opened()
    pair.dialler.open(OTHER, NOTHING)
    with pytest.raises(RemoteProtocolError, match="channels_max"):
        pair.pass_on()


def test_sending_on_without_credit_ends_the_conversation() -> None:
    pair = Pair()
    channel = pair.opened()
    size = 60_000
    most = (WELCOME.credit + SMALL.message_bytes_max) // size
    for number in range(1, most + 1):
        pair.listener.receive(encode(Updates(channel, number, (b"x" * size,))))
    with pytest.raises(RemoteProtocolError, match="credit"):
        pair.listener.receive(encode(Updates(channel, most + 1, (b"x" * size,))))


def test_a_fresh_token_is_said_and_answered() -> None:
    pair = Pair()
    pair.dialler.say(Authenticate("fresh"))
    pair.pass_on()
    pair.listener.say(Authenticated(5))
    pair.pass_on()
    assert pair.heard == {
        pair.listener: [Authenticate("fresh")],
        pair.dialler: [Authenticated(5)],
    }


def test_a_barrier_is_answered_once() -> None:
    pair = Pair()
    channel = pair.opened()
    pair.dialler.say(Barrier(channel))
    pair.pass_on()
    pair.listener.say(Passed(channel))
    pair.pass_on()
    assert pair.heard[pair.dialler] == [Passed(channel)]
    with pytest.raises(RemoteProtocolError, match="nobody asked"):
        pair.dialler.receive(encode(Passed(channel)))


# --- parts --------------------------------------------------------------------------------------


def test_a_large_update_comes_whole_in_parts_and_its_channel_stays_in_order() -> None:
    pair = Pair()
    channel, other = pair.opened(), pair.opened(OTHER)
    large = Random(1).randbytes(300_000)
    pair.dialler.send_updates(channel, (b"before", large, b"behind"))
    pair.dialler.send_updates(channel, (large, b"last"))
    pair.dialler.send_updates(other, (b"small",))
    pair.pass_on()
    heard = [message for message in pair.heard[pair.listener] if isinstance(message, Updates)]
    on_channel = [update for each in heard if each.channel == channel for update in each.updates]
    assert on_channel == [b"before", large, b"behind", large, b"last"]
    assert heard.index(Updates(other, 1, (b"small",))) < heard.index(Updates(channel, 2, (large,)))
    assert pair.dialler.waiting_bytes == 0


def test_several_large_messages_take_turns() -> None:
    pair = Pair()
    channels = [pair.opened(), pair.opened(OTHER)]
    for number in channels:
        pair.dialler.send_updates(number, (bytes(300_000),))
    frames = pair.dialler.frames_to_send()
    transfers = {part.transfer for frame in frames for part in parts_of(frame)}
    assert len(transfers) == 2
    assert pair.dialler.waiting_bytes > 0


def test_no_more_are_in_parts_at_once_than_the_other_side_puts_together() -> None:
    pair = Pair(replace(SMALL, channels_max=20))
    channels = [pair.opened(DocumentId(f"d{number}")) for number in range(12)]
    pair.listener.grant(10_000_000)
    for number in channels:
        pair.dialler.send_updates(number, (bytes(70_000),))
    pair.pass_on()
    heard = [message for message in pair.heard[pair.listener] if isinstance(message, Updates)]
    assert sorted(message.channel for message in heard) == channels


def test_together_they_are_no_larger_than_one_message_may_be() -> None:
    pair = Pair()
    channels = [pair.opened(), pair.opened(OTHER)]
    pair.listener.grant(10_000_000)
    for number in channels:
        pair.dialler.send_updates(number, (bytes(700_000),))
    pair.pass_on()
    heard = [message for message in pair.heard[pair.listener] if isinstance(message, Updates)]
    assert [message.channel for message in heard] == channels


def parts_of(frame: bytes) -> list[Part]:
    return [message for message in decode_all(frame) if isinstance(message, Part)]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([Part(0, 5, b"")], "nothing"),
        ([Part(0, 10, b"ab"), Part(0, 9, b"ab")], "had 10 bytes left"),
        ([Part(0, 1_000_000, b"a")], "message_bytes_max"),
        ([Part(0, 600_000, b"a"), Part(1, 600_000, b"a")], "message_bytes_max"),
        ([Part(number, 1, b"a") for number in range(9)], "more than 8"),
    ],
)
def test_parts_that_lie_or_are_too_many_are_refused(parts: list[Part], why: str) -> None:
    assembler = Assembler(1_000_000)
    *honest, wrong = parts
    for part in honest:
        assert assembler.take(part) is None
    with pytest.raises(RemoteProtocolError, match=why):
        assembler.take(wrong)
    assert assembler.size <= 10


def test_a_frame_beyond_the_bound_is_refused_unread() -> None:
    pair = Pair()
    with pytest.raises(RemoteProtocolError, match="in parts"):
        pair.listener.receive(bytes(FRAME_BYTES_MAX + 1))
    assert PART_BYTES < FRAME_BYTES_MAX


def test_whatever_a_peer_says_is_heard_or_a_remote_protocol_error() -> None:
    for seed in range(300):
        random = Random(seed)
        pair = Pair()
        channel = pair.opened()
        said = [
            encode(Open(2, OTHER, NOTHING)),
            encode(Updates(channel, 1, (b"x", b"y"))),
            encode(Barrier(channel)),
            encode(Close(channel, 1000, "")),
            encode(Part(0, 3, b"abc")),
            encode(Credit(7)),
        ]
        for _ in range(20):
            frame = bytearray(random.choice(said))
            if random.random() < 0.5:
                frame[random.randrange(len(frame))] = random.randrange(256)
            try:
                pair.listener.receive(bytes(frame))
            except RemoteProtocolError:
                break
            pair.listener.frames_to_send()
            assert pair.listener._assembler.size <= SMALL.message_bytes_max
            assert len(pair.listener._channels) <= SMALL.channels_max
