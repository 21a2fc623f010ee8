"""`crdt_state.transport.peer_visit`, `peer_connection`, `channel`: a replica that dials us.

The other end is a `SyncProtocol` that a test speaks through, word by word.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import StoreFull, TokenRejected
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
from crdt_state.lib0 import encode_string
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.lineage import BORN
from crdt_state.model.awareness import AwarenessEntry, decode_awareness, encode_awareness
from crdt_state.model.state import decode_state_vector, encode_state_vector
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Authenticate,
    Authenticated,
    Awareness,
    Close,
    Credit,
    Held,
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
from crdt_state.protocol.peer.messages import Barrier as BarrierMessage
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.storage.contract import Append, SetLife
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.farewell import Departure
from crdt_state.transport.memory import MemoryConnection
from hostile import SHAPES, item, section, update
from wired import (
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    Reports,
    Server,
    opened_server,
    text_of,
    turn,
    typed,
    until,
)

NOTHING = b"\x00"


class Dialler:
    """A peer that says what a test tells it to."""

    def __init__(
        self,
        server: Server,
        *,
        credit: int = 1 << 20,
        token: str = "",
        replica: bytes = b"d" * 16,
        capabilities: tuple[str, ...] = (),
    ) -> None:
        self.end: MemoryConnection = server.visit("-/sync")
        self.protocol = SyncProtocol(Role.DIALLER, DEFAULT_LIMITS)
        self.heard: list[Message] = []
        self.protocol.greet(
            Hello(
                version_min=1,
                version_max=1,
                replica=ReplicaId(replica),
                incarnation=Incarnation(b"i" * 16),
                capabilities=capabilities,
                message_bytes_max=1 << 25,
                update_bytes_max=1 << 24,
                credit=credit,
                token=token,
            )
        )
        self.send()

    def send(self) -> None:
        while frames := self.protocol.frames_to_send():
            for frame in frames:
                self.end.send(frame)

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of a kind; what comes before it is kept in `heard`."""
        while True:
            for at, message in enumerate(self.heard):
                if isinstance(message, kind):
                    return self.heard.pop(at)
            for message in self.protocol.receive(await self.end.receive()):
                if isinstance(message, BarrierMessage):
                    self.protocol.say(Passed(message.channel))
                else:
                    self.heard.append(message)
            self.send()

    async def ended(self) -> ConnectionEnded:
        while True:
            try:
                self.heard += self.protocol.receive(await self.end.receive())
            except ConnectionEnded as ended:
                return ended

    async def open(self, document: str = "notes", vector: bytes = NOTHING) -> tuple[int, State]:
        channel = self.protocol.open(DocumentId(document), vector)
        self.send()
        state: State = await self.hear(State)
        assert state.channel == channel
        return channel, state

    def bring(self, channel: int, *updates: bytes) -> int:
        number = self.protocol.send_updates(channel, updates)
        self.send()
        return number


async def test_who_greets_is_welcomed() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        welcome: Welcome = await peer.hear(Welcome)
        assert welcome.version == 1
        assert welcome.replica == server.shell.store.replica_id
        assert welcome.credit == IMPATIENT.peer_credit_bytes


async def test_a_version_that_nobody_here_speaks_is_turned_away() -> None:
    async with opened_server() as server:
        end = server.visit("-/sync")
        end.send(
            encode(
                Hello(
                    version_min=2,
                    version_max=9,
                    replica=ReplicaId(b"d" * 16),
                    incarnation=Incarnation(b"i" * 16),
                    message_bytes_max=1 << 25,
                    update_bytes_max=1 << 24,
                    credit=1,
                )
            )
        )
        with pytest.raises(ConnectionEnded, match="update the older one") as ended:
            await end.receive()
        assert ended.value.code == 4406


async def test_an_update_is_acknowledged_when_it_is_durable_and_not_before() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        store.gate.clear()
        peer.bring(channel, typed("hello"))
        await turn(100)
        peer.protocol.say(BarrierMessage(channel))
        peer.send()
        await turn(100)
        said = [m for frame in peer.end._inbox for m in decode_all(frame)]
        assert not any(isinstance(m, Acknowledge | Passed | Credit) for m in said + peer.heard)
        store.gate.set()
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 1, 1)
        assert await peer.hear(Passed) == Passed(channel)
        assert text_of(store.appended()) == "hello"


async def test_what_waits_is_durable_and_not_applied_until_what_it_lacks_has_come() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        peer.bring(channel, typed("b", at=1))
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 1, 0)
        peer.bring(channel, typed("a"))
        acknowledged = await peer.hear(Acknowledge)
        while acknowledged != Acknowledge(channel, 2, 2):
            acknowledged = await peer.hear(Acknowledge)
        other = Dialler(server)
        bystander, _ = await other.open()
        other.bring(bystander, typed("d", client=2, at=1))
        assert await other.hear(Acknowledge) == Acknowledge(bystander, 1, 0)
        peer.bring(channel, typed("c", client=2))
        assert await other.hear(Acknowledge) == Acknowledge(bystander, 1, 1)


async def test_what_waits_in_part_is_not_applied() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        part = section(6, 1, item(4, encode_string("y"), origin=(6, 0)))
        whole = section(5, 0, item(4, encode_string("x")))
        peer.bring(channel, update(part, whole))
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 1, 0)
        await until(lambda: server.shell.core.get(NOTES).head.vector == {5: 1})  # type: ignore[union-attr]
        peer.bring(channel, typed("z", client=6))
        while await peer.hear(Acknowledge) != Acknowledge(channel, 2, 2):
            pass


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "part"])
async def test_who_brought_what_waited_and_was_given_up_is_told(is_whole: bool) -> None:
    limits = replace(IMPATIENT, update_bytes_max=1_000)
    async with opened_server(limits=limits, authentication=Tokens()) as server:
        peer, other = (Dialler(server, token="ana write **") for _ in range(2))
        channel, _ = await peer.open()
        theirs, _ = await other.open()
        waits = section(7, 5_000, item(4, encode_string("late"), origin=(7, 4_999)))
        rest = () if is_whole else (section(5, 0, item(4, encode_string("x"))),)
        peer.bring(channel, update(waits, *rest))
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 1, 0)
        other.bring(theirs, typed("x" * 5_000, client=7))
        assert (await other.hear(Close)).code == 4413
        closed = await peer.hear(Close)
        assert (closed.channel, closed.code) == (channel, 4424)
        applied = [each.applied for each in peer.heard if isinstance(each, Acknowledge)]
        assert applied == [], "nothing was ever said to be applied"


async def test_who_brought_what_waited_in_vain_is_asked_to_bring_it_again() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        peer.bring(channel, typed("b", at=1))
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 1, 0)
        server.shell.clock.advance(8 * 24 * 3600.0)  # type: ignore[attr-defined]
        peer.bring(channel, typed("c", client=2))
        closed = await peer.hear(Close)
        assert (closed.channel, closed.code) == (channel, 1013)
        assert not [each for each in peer.heard if isinstance(each, Acknowledge)]
        again, _ = await peer.open()
        peer.bring(again, typed("ab"))
        assert await peer.hear(Acknowledge) == Acknowledge(again, 1, 1)


async def test_who_opens_is_told_what_is_held_and_brought_what_it_lacks() -> None:
    async with opened_server() as server:
        writer = Dialler(server)
        channel, state = await writer.open()
        assert (state.state_vector, state.updates) == (NOTHING, 0)
        writer.bring(channel, typed("hello"))
        await writer.hear(Acknowledge)
        reader = Dialler(server)
        _, state = await reader.open()
        assert decode_state_vector(state.state_vector) == {1: 5}
        assert state.updates == 1
        brought: Updates = await reader.hear(Updates)
        assert text_of(brought.updates) == "hello"
        writer.bring(channel, typed(" you", at=5))
        brought_later: Updates = await reader.hear(Updates)
        assert text_of([*brought.updates, *brought_later.updates]) == "hello you"


async def test_who_holds_all_is_brought_nothing() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        peer.bring(channel, typed("hello"))
        await peer.hear(Acknowledge)
        _, state = await Dialler(server).open(vector=encode_state_vector({1: 5}))
        assert state.updates == 0


async def test_what_a_peer_brings_is_not_sent_back_to_it() -> None:
    async with opened_server() as server:
        peer, other = Dialler(server), Dialler(server)
        channel, _ = await peer.open()
        await other.open()
        peer.bring(channel, typed("hello"))
        await other.hear(Updates)
        peer.protocol.say(BarrierMessage(channel))
        peer.send()
        await peer.hear(Passed)
        assert not any(isinstance(message, Updates) for message in peer.heard)


async def test_one_connection_carries_many_documents() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channels = [(await peer.open(f"d/{number}"))[0] for number in range(50)]
        for channel in channels:
            peer.bring(channel, typed(f"{channel}"))
        for _ in channels:
            await peer.hear(Acknowledge)
        for channel, number in zip(channels, range(50), strict=True):
            appended = server.shell.store.appended(DocumentId(f"d/{number}"))
            assert text_of(appended) == f"{channel}"
        assert server.listener.traffic.connections == 1


async def test_a_refused_update_ends_its_channel_and_nothing_else() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        bad, _ = await peer.open("bad")
        good, _ = await peer.open("good")
        peer.bring(bad, typed("kept"), SHAPES["a GC of no length"], typed("later", client=9))
        close: Close = await peer.hear(Close)
        assert (close.channel, close.code) == (bad, 4422)
        assert not any(
            isinstance(message, Acknowledge) and message.durable > 1 for message in peer.heard
        )
        peer.bring(good, typed("fine"))
        assert await peer.hear(Acknowledge) == Acknowledge(good, 1, 1)
        again, state = await peer.open("bad")
        assert decode_state_vector(state.state_vector)[1] == 4
        assert again > good


async def test_when_a_commit_fails_nothing_is_acknowledged_and_the_channel_ends() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        other, _ = await peer.open("other")
        store.fault = StoreFull("no space left")
        peer.bring(channel, typed("lost"))
        close: Close = await peer.hear(Close)
        assert (close.channel, close.code) == (channel, 1013)
        assert not any(isinstance(message, Acknowledge) for message in peer.heard)
        store.fault = None
        peer.bring(other, typed("kept"))
        assert await peer.hear(Acknowledge) == Acknowledge(other, 1, 1)


# --- rights -------------------------------------------------------------------------------------


class Tokens:
    """Tokens are written `identity access pattern [seconds]`."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        if not token:
            raise TokenRejected("a token is required")
        identity, access, pattern, *seconds = token.split()
        ends = WallTime(now + round(float(seconds[0]) * 1_000_000)) if seconds else None
        return Grant(identity, (Right(pattern, Access(access)),), expires_at=ends)


async def test_the_token_is_said_in_the_greeting() -> None:
    async with opened_server(authentication=Tokens()) as server:
        assert (await Dialler(server).ended()).code == 4401
        peer = Dialler(server, token="ana write notes")
        await peer.open("notes")
        peer.protocol.open(OTHER, NOTHING)
        peer.send()
        close: Close = await peer.hear(Close)
        assert close.code == 4403
        assert "no right to read" in close.reason


async def test_who_may_only_read_ends_no_document() -> None:
    async with opened_server(authentication=Tokens()) as server:
        writer = Dialler(server, token="ana write notes")
        channel, _ = await writer.open()
        writer.bring(channel, typed("held"))
        await writer.hear(Acknowledge)
        reader = Dialler(server, token="bob read notes")
        for life in (BORN.deleted(), BORN.successor(server.shell.clock.wall(), Random(1))):
            reader.protocol.open(NOTES, NOTHING, life)
            reader.send()
            assert (await reader.hear(Close)).code == 4403
        stored = await server.shell.store.read(NOTES)
        assert stored is not None
        assert (stored.life, text_of(stored.updates())) == (BORN, "held")


async def test_who_holds_a_lesser_life_is_told_of_the_greater_and_brings_nothing() -> None:
    async with opened_server() as server:
        life = BORN.successor(server.shell.clock.wall(), Random(1))
        await server.shell.store.write(
            [SetLife(NOTES, life, WallTime(1)), Append(NOTES, (typed("new"),))]
        )
        peer = Dialler(server)
        channel, state = await peer.open(vector=encode_state_vector({7: 3}))
        assert state == State(channel, NOTHING, 0, life)
        peer.bring(channel, typed("old", client=7))
        close: Close = await peer.hear(Close)
        assert (close.channel, close.code) == (channel, 4409)
        again = peer.protocol.open(NOTES, NOTHING, life)
        peer.send()
        assert (await peer.hear(State)).updates == 1
        peer.bring(again, typed("!", client=7))
        await peer.hear(Acknowledge)
        stored = await server.shell.store.read(NOTES)
        assert stored is not None
        assert sorted(text_of(stored.updates())) == sorted("new!")


async def test_who_may_only_read_may_repeat_what_is_held_and_nothing_else() -> None:
    async with opened_server(authentication=Tokens()) as server:
        writer = Dialler(server, token="ana write notes")
        channel, _ = await writer.open()
        writer.bring(channel, typed("held"))
        await writer.hear(Acknowledge)
        reader = Dialler(server, token="bob read notes")
        channel, _ = await reader.open()
        reader.bring(channel, typed("held"))
        assert (await reader.hear(Acknowledge)).durable == 1
        reader.bring(channel, typed("new", client=2))
        assert (await reader.hear(Close)).code == 4403
        assert text_of(server.shell.store.appended()) == "held"


async def test_a_fresh_token_changes_what_may_be_done_on_the_open_connection() -> None:
    async with opened_server(authentication=Tokens()) as server:
        peer = Dialler(server, token="ana read *")
        notes, _ = await peer.open("notes")
        other, _ = await peer.open("other")
        peer.protocol.say(Authenticate("ana write notes"))
        peer.send()
        assert await peer.hear(Authenticated) == Authenticated(0)
        close: Close = await peer.hear(Close)
        assert (close.channel, close.code) == (other, 4403)
        peer.bring(notes, typed("now"))
        assert await peer.hear(Acknowledge) == Acknowledge(notes, 1, 1)


async def test_a_token_of_somebody_else_ends_the_connection() -> None:
    async with opened_server(authentication=Tokens()) as server:
        peer = Dialler(server, token="ana read *")
        await peer.hear(Welcome)
        peer.protocol.say(Authenticate("bob read *"))
        peer.send()
        assert (await peer.ended()).code == 4401


async def test_the_connection_ends_with_its_grant() -> None:
    async with opened_server(authentication=Tokens()) as server:
        peer = Dialler(server, token="ana read * 0.02")
        assert (await peer.ended()).code == 4401


async def test_nothing_is_taken_of_a_peer_whose_grant_has_ended() -> None:
    store = GatedStore()
    async with opened_server(store, authentication=Tokens()) as server:
        peer = Dialler(server, token="ana write * 5")
        channel, _ = await peer.open()
        (visit,) = server.listener._visits
        visit._expire()
        peer.bring(channel, typed("too late"))
        assert (await peer.ended()).code == 4401
        await server.shell.flush()
        assert store.appended() == []


async def test_who_is_refused_is_reported_by_name_and_for_which_document() -> None:
    async with opened_server(authentication=Tokens()) as server:
        told: list[Departure] = []
        server.listener.farewells._sent_away = told.append
        peer = Dialler(server, token="ana read notes")
        channel, _ = await peer.open()
        peer.protocol.open(OTHER, NOTHING)
        peer.send()
        assert (await peer.hear(Close)).code == 4403
        peer.bring(channel, typed("x"))
        assert (await peer.hear(Close)).code == 4403
        peer.end.send(b"\xff")
        assert (await peer.ended()).code == 4400
        named = [(departure.name, departure.path, departure.code) for departure in told]
        assert named == [
            ("identity ana", "/other", 4403),
            ("identity ana", "/notes", 4403),
            ("identity ana", "/-/sync", 4400),
        ]
        assert server.listener.traffic.rejected == 3


async def test_the_documents_that_one_identity_has_open_are_bounded() -> None:
    limits = replace(IMPATIENT, identity_channels_max=3)
    async with opened_server(limits=limits) as server:
        peer, other = Dialler(server), Dialler(server)
        channels = [(await peer.open(name))[0] for name in ("a", "b")]
        await other.open("a")
        other.protocol.open(DocumentId("c"), NOTHING)
        other.send()
        closed = await other.hear(Close)
        assert closed.code == 4429
        peer.protocol.close(channels[0], 1000, "")
        peer.send()
        await until(lambda: sum(a.channels for a in server.listener._accounts.values()) == 2)
        await other.open("c")


async def test_large_states_wait_for_their_share_of_the_budget() -> None:
    limits = replace(IMPATIENT, large_answers_bytes_max=300_000)
    async with opened_server(limits=limits) as server:
        writer = Dialler(server)
        channel, _ = await writer.open()
        writer.bring(channel, typed("x" * 200_000))
        await writer.hear(Acknowledge)
        deaf = Dialler(server, credit=0)
        await deaf.open()
        await until(lambda: server.listener.large_answers._left <= 100_100)
        waiting = Dialler(server)
        second = waiting.protocol.open(NOTES, NOTHING)
        waiting.send()
        await turn(100)
        assert not [each for each in waiting.heard if isinstance(each, State)]
        deaf.end.cut()
        assert (await waiting.hear(State)).channel == second
        await waiting.hear(Updates)
        await until(lambda: server.listener.large_answers._left == 300_000)


async def test_who_is_said_to_hold_a_document_is_bounded() -> None:
    limits = replace(IMPATIENT, holders_max=20)
    async with opened_server(limits=limits) as server:
        writer = Dialler(server)
        theirs, _ = await writer.open()
        peer = Dialler(server, replica=b"r" * 16)
        channel, _ = await peer.open()
        writer.bring(theirs, typed("x"))
        await peer.hear(Updates)
        for number in range(100):
            peer.protocol.say(Held(channel, ReplicaId(number.to_bytes(16)), 1))
        peer.protocol.say(BarrierMessage(channel))
        peer.send()
        await peer.hear(Passed)
        assert len(server.shell.holdings.of(NOTES)._held) == 20


# --- awareness ----------------------------------------------------------------------------------


def entry(client: int, clock: int, text: str = '{"x":1}') -> bytes:
    return encode_awareness([AwarenessEntry(client, clock, text)])  # type: ignore[arg-type]


async def test_awareness_goes_to_everyone_else_and_vanishes_with_its_channel() -> None:
    async with opened_server() as server:
        one, other = Dialler(server), Dialler(server, replica=b"o" * 16)
        channel, _ = await one.open()
        theirs, _ = await other.open()
        one.protocol.say(Awareness(channel, ReplicaId(b"d" * 16), 1, entry(1, 1)))
        one.send()
        heard: Awareness = await other.hear(Awareness)
        assert heard == Awareness(theirs, ReplicaId(b"d" * 16), 0, entry(1, 1))
        late = Dialler(server, replica=b"l" * 16)
        await late.open()
        assert (await late.hear(Awareness)).payload == entry(1, 1)
        one.end.cut()
        gone: Awareness = await other.hear(Awareness)
        assert b"null" in gone.payload
        await until(lambda: len(server.listener.rooms[NOTES].seats) == 2)


async def test_a_replica_that_does_not_read_is_shown_the_latest_once_it_does() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=200_000)
    async with opened_server(limits=limits) as server:
        one, slow = Dialler(server), Dialler(server, replica=b"s" * 16)
        channel, _ = await one.open()
        await slow.open()
        for clock in range(1, 101):
            payload = entry(clock % 10, clock, f'"{"x" * 40_000}"')
            one.protocol.say(Awareness(channel, ReplicaId(b"d" * 16), 1, payload))
            one.send()
            await turn(3)
        waiting = sum(map(len, slow.end._inbox))
        assert waiting < limits.peer_queue_bytes_max + 200_000
        latest: dict[int, int] = {}
        while sorted(latest.values()) != list(range(91, 101)):
            heard: Awareness = await slow.hear(Awareness)
            latest |= {each.client: each.clock for each in decode_awareness(heard.payload)}


async def test_who_may_not_read_a_document_is_not_shown_who_is_at_it() -> None:
    async with opened_server(authentication=Tokens()) as server:
        ana = Dialler(server, token="ana read notes")
        channel, _ = await ana.open()
        ben = Dialler(server, token="ben read other", replica=b"b" * 16)
        await ben.hear(Welcome)
        ben.protocol.open(NOTES, NOTHING)
        ben.send()
        assert (await ben.hear(Close)).code == 4403
        ana.protocol.say(Awareness(channel, ReplicaId(b"d" * 16), 9, entry(1, 1)))
        ana.send()
        await until(lambda: len(server.shell.gatherings.of(NOTES)) == 1)
        await turn(50)
        assert not ben.end._inbox


# --- bounds -------------------------------------------------------------------------------------


async def test_what_waits_for_a_peer_that_gives_no_credit_is_bounded_and_made_up_for() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=2_000, peer_slow_seconds_max=60.0)
    async with opened_server(limits=limits) as server:
        reader = Dialler(server, credit=100)
        _, _ = await reader.open()
        writer = Dialler(server)
        channel, _ = await writer.open()
        text = ""
        for number in range(300):
            letters = f"{number:04} "
            writer.bring(channel, typed(letters, at=len(text)))
            text += letters
            if number % 50 == 49:
                await turn(50)
        await turn(200)
        received: list[bytes] = []
        while text_of(received) != text:
            message: Updates = await reader.hear(Updates)
            received += message.updates
            reader.protocol.grant(sum(map(len, message.updates)))
            reader.send()
        assert len(received) < 300  # what it missed came as one state


async def test_a_peer_that_gives_no_credit_for_too_long_is_hung_up_on() -> None:
    limits = replace(IMPATIENT, peer_slow_seconds_max=0.02)
    async with opened_server(limits=limits) as server:
        writer, deaf = Dialler(server), Dialler(server, credit=0)
        channel, _ = await writer.open()
        await deaf.open()
        writer.bring(channel, typed("hello"))
        assert (await deaf.ended()).code == 4408
        assert await writer.hear(Acknowledge) == Acknowledge(channel, 1, 1)


async def test_credit_is_given_back_for_what_is_durable() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        update_ = typed("hello")
        peer.bring(channel, update_)
        assert await peer.hear(Credit) == Credit(len(update_))


async def test_a_large_update_comes_in_parts_and_small_ones_of_others_go_on() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        large, _ = await peer.open("large")
        small, _ = await peer.open("small")
        text = "".join(Random(5).choices("abcdef", k=1_200_000))
        whole = update(section(1, 0, item(4, encode_string(text))))
        peer.protocol.send_updates(large, (whole,))
        for client in (11, 12):
            for frame in peer.protocol.frames_to_send():
                peer.end.send(frame)
            peer.protocol.send_updates(small, (typed("quick", client=client),))
        for frame in peer.protocol.frames_to_send():
            peer.end.send(frame)
        assert peer.protocol.waiting_bytes > 400_000
        quick = await peer.hear(Acknowledge)
        assert quick.channel == small
        peer.send()
        await until(lambda: bool(server.shell.store.appended(DocumentId("large"))))
        peer.heard = [m for m in peer.heard if getattr(m, "channel", large) == large]
        assert await peer.hear(Acknowledge) == Acknowledge(large, 1, 1)
        reader = Dialler(server)
        await reader.open("large")
        assert text_of((await reader.hear(Updates)).updates) == text


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff",
        encode(Part(0, 0, b"\xff")),
        encode(Updates(40, 1, (b"\0\0",))),
        encode(Open(1, NOTES, NOTHING)),
        bytes(200_000),
    ],
)
async def test_what_the_protocol_forbids_ends_that_connection_alone(frame: bytes) -> None:
    async with opened_server() as server:
        other = Dialler(server)
        channel, _ = await other.open()
        peer = Dialler(server)
        await peer.open()
        peer.end.send(frame)
        assert (await peer.ended()).code == 4400
        other.bring(channel, typed("fine"))
        assert await other.hear(Acknowledge) == Acknowledge(channel, 1, 1)
        await until(lambda: server.listener.traffic.connections == 1)


async def test_a_state_vector_that_is_none_ends_its_channel_alone() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        good, _ = await peer.open("good")
        peer.protocol.open(NOTES, b"\xff\xff")
        peer.send()
        assert (await peer.hear(Close)).code == 4422
        peer.bring(good, typed("fine"))
        assert await peer.hear(Acknowledge) == Acknowledge(good, 1, 1)


async def test_who_says_nothing_is_hung_up_on() -> None:
    limits = replace(IMPATIENT, handshake_seconds_max=0.02)
    async with opened_server(limits=limits) as server:
        end = server.visit("-/sync")
        with pytest.raises(ConnectionEnded, match="in time"):
            await end.receive()


async def test_when_a_peer_leaves_its_documents_fall_out_of_use() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        peer.bring(channel, typed("hello"))
        await peer.hear(Acknowledge)
        assert len(server.shell.core) == 1
        peer.protocol.close(channel, 1000, "")
        peer.send()
        await until(lambda: len(server.shell.core) == 0)
        assert server.listener.rooms == {}
        peer.end.cut()
        await until(lambda: server.listener.traffic.connections == 0)


async def test_draining_says_goodbye_to_replicas_too() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        peer.bring(channel, typed("hello"))
        await turn()
        draining = asyncio.create_task(server.listener.drain())
        assert (await peer.ended()).code == 1012
        await draining
        assert text_of(server.shell.store.appended()) == "hello"


# --- what a review found --------------------------------------------------------------------------


async def test_channels_that_are_opened_and_closed_in_one_frame_leave_nothing_behind() -> None:
    async with opened_server() as server:
        reports, peer = Reports(), Dialler(server)
        await peer.hear(Welcome)
        for number in range(100):
            channel = peer.protocol.open(DocumentId(f"d/{number}"), NOTHING)
            peer.protocol.close(channel, 1000, "")
        peer.send()
        await until(lambda: peer.end.buffered_bytes == 0)
        await until(lambda: len(server.shell.core) == 0)
        assert server.listener.rooms == {}
        assert len(reports) == 0


async def test_a_document_is_open_once_on_a_connection() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        await peer.open()
        peer.protocol.open(NOTES, NOTHING)
        peer.send()
        assert "open on this connection already" in (await peer.hear(Close)).reason


async def test_awareness_said_right_behind_the_opening_is_passed_on() -> None:
    async with opened_server() as server:
        one, other = Dialler(server), Dialler(server, replica=b"o" * 16)
        await other.open()
        await one.hear(Welcome)
        channel = one.protocol.open(NOTES, NOTHING)
        one.protocol.say(Awareness(channel, ReplicaId(b"d" * 16), 1, entry(1, 1)))
        one.send()
        assert (await other.hear(Awareness)).payload == entry(1, 1)


async def test_awareness_that_is_none_ends_its_channel_alone() -> None:
    async with opened_server() as server:
        peer = Dialler(server)
        bad, _ = await peer.open("bad")
        good, _ = await peer.open("good")
        peer.protocol.say(Awareness(bad, ReplicaId(b"d" * 16), 0, b"\xff"))
        peer.send()
        assert (await peer.hear(Close)).channel == bad
        peer.bring(good, typed("fine"))
        assert await peer.hear(Acknowledge) == Acknowledge(good, 1, 1)


async def test_credit_for_what_is_refused_is_given_back() -> None:
    async with opened_server(authentication=Tokens()) as server:
        peer = Dialler(server, token="ana read *")
        channel, _ = await peer.open()
        granted = peer.protocol.credit
        peer.bring(channel, typed("x" * 50_000))
        assert (await peer.hear(Close)).code == 4403
        await peer.hear(Credit)
        assert peer.protocol.credit == granted


async def test_who_loses_a_right_while_a_document_is_loaded_hears_nothing_of_it() -> None:
    store = GatedStore()
    async with opened_server(store, authentication=Tokens()) as server:
        ana = Dialler(server, token="ana read *")
        await ana.hear(Welcome)
        store.reading.clear()
        channel = ana.protocol.open(NOTES, NOTHING)
        ana.send()
        await turn(50)
        ana.protocol.say(Authenticate("ana read other"))
        ana.send()
        await ana.hear(Authenticated)
        store.reading.set()
        assert (await ana.hear(Close)).channel == channel
        ben = Dialler(server, token="ben write *")
        theirs, _ = await ben.open()
        ben.protocol.say(Awareness(theirs, ReplicaId(b"b" * 16), 0, entry(9, 1)))
        ben.send()
        await turn(100)
        assert ana.end._inbox == type(ana.end._inbox)()
        ben.end.cut()
        await until(lambda: server.listener.rooms == {})
        await until(lambda: len(server.shell.core) == 0)


async def test_nobody_is_said_to_hold_what_waits_at_the_relay() -> None:
    async with opened_server() as server:
        peer, other = Dialler(server), Dialler(server, replica=b"r" * 16)
        channel, _ = await peer.open()
        theirs, _ = await other.open()
        peer.bring(channel, typed("x", client=5), typed("b", at=1))
        assert await peer.hear(Acknowledge) == Acknowledge(channel, 2, 1)
        sent: Updates = await other.hear(Updates)
        assert len(sent.updates) == 1
        other.protocol.acknowledge(theirs, sent.first, sent.first)
        other.send()
        assert await peer.hear(Held) == Held(channel, ReplicaId(b"r" * 16), 1)


async def test_barriers_are_bounded() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        peer = Dialler(server)
        channel, _ = await peer.open()
        store.gate.clear()
        peer.bring(channel, typed("a"))
        for _ in range(100):
            peer.protocol.say(BarrierMessage(channel))
        peer.send()
        assert (await peer.ended()).code == 4400
        store.gate.set()


async def test_a_state_vector_beyond_its_bound_is_not_even_read() -> None:
    limits = replace(IMPATIENT, state_vector_bytes_max=1_000)
    async with opened_server(limits=limits) as server:
        peer = Dialler(server)
        await peer.hear(Welcome)
        peer.protocol.open(NOTES, b"\xff" * 2_000)
        peer.send()
        assert (await peer.hear(Close)).code == 4413


async def test_compression_is_agreed_on_until_it_takes_too_much_memory() -> None:
    limits = replace(DEFAULT_LIMITS, compressed_connections_max=2)
    async with opened_server(limits=limits) as server:
        peers = [
            Dialler(server, replica=bytes([number]) * 16, capabilities=("zstd", "else"))
            for number in range(3)
        ]
        welcomes = [await peer.hear(Welcome) for peer in peers]
        assert [welcome.capabilities for welcome in welcomes] == [("zstd",), ("zstd",), ()]
        await peers[0].end.close()
        await until(lambda: server.listener.compressed == 1)
        again = Dialler(server, replica=b"a" * 16, capabilities=("zstd",))
        assert (await again.hear(Welcome)).capabilities == ("zstd",)
