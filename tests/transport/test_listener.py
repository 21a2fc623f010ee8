"""`crdt_state.transport.listener`: conversations of a server, from their beginning to their end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import StoreFull, StoreUnavailable, TokenRejected, WorkerFailed
from crdt_state.identifiers import ClientId, DocumentId
from crdt_state.model.awareness import AwarenessEntry, encode_awareness
from crdt_state.model.engine import EMPTY_VECTOR
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    Message,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
)
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.storage.contract import Append, Fold, Forget, Write
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.memory import MemoryConnection
from wired import (
    BROKEN,
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    Server,
    opened_server,
    text_of,
    turn,
    typed,
    until,
)


def entry(client: int, clock: int, text: str = '{"x":1}') -> bytes:
    return encode_awareness([AwarenessEntry(ClientId(client), clock, text)])


class Peer:
    """A stock client's end of a connection."""

    def __init__(self, end: MemoryConnection) -> None:
        self.end = end

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.end.send(encode(message))

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of a kind; others are passed over."""
        while True:
            message = decode(await self.end.receive())
            if isinstance(message, kind):
                return message

    async def text(self) -> str:
        """What the server answers to a step 1."""
        self.say(SyncStep1(EMPTY_VECTOR))
        return text_of([(await self.hear(SyncStep2)).update])

    async def ended(self) -> ConnectionEnded:
        try:
            while True:
                await self.end.receive()
        except ConnectionEnded as ended:
            return ended


class Nobody:
    """Grants nothing to anybody."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        raise TokenRejected("a token is required")


@dataclass
class Always:
    """The same grant for everybody."""

    given: Grant

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        return self.given


def granted(
    pattern: str = "**",
    access: Access = Access.WRITE,
    *,
    identity: str = "ada",
    expires_at: int | None = None,
) -> Always:
    ends = None if expires_at is None else WallTime(expires_at)
    return Always(Grant(identity, (Right(pattern, access),), ends))


def peer(server: Server, document: str = "notes") -> Peer:
    return Peer(server.visit(document))


async def test_a_step_1_is_answered_when_all_before_it_on_its_socket_is_durable() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        ada = peer(server)
        await ada.hear(SyncStep1)
        store.gate.clear()
        ada.say(Update(typed("a")), SyncStep1(EMPTY_VECTOR))
        await turn()
        assert ada.end._inbox == type(ada.end._inbox)()
        store.gate.set()
        answer = await ada.hear(SyncStep2)
        assert text_of([answer.update]) == "a"
        assert store.appended() == [typed("a")]


async def test_a_step_1_behind_what_could_not_be_stored_is_not_answered() -> None:
    async with opened_server() as server:
        ada = peer(server)
        await ada.hear(SyncStep1)
        server.shell.store.fault = StoreFull("no space left")
        ada.say(Update(typed("a")), SyncStep1(EMPTY_VECTOR))
        with pytest.raises(ConnectionEnded) as caught:
            await ada.hear(SyncStep2)
        assert caught.value.code == 1013


async def test_after_a_failed_commit_those_who_come_back_meet_in_a_living_room() -> None:
    async with opened_server() as server:
        reader, writer = peer(server), peer(server)
        await reader.hear(SyncStep1)
        await writer.hear(SyncStep1)
        server.shell.store.fault = StoreFull("no space left")
        writer.say(Update(typed("a")))
        await until(lambda: server.listener.rooms[NOTES].is_over)
        server.shell.store.fault = None
        # They are back before the old room has noticed that they had gone.
        reader, writer = peer(server), peer(server)
        await reader.hear(SyncStep1)
        await writer.hear(SyncStep1)
        writer.say(Update(typed("a")))
        assert (await reader.hear(Update)).update == typed("a")


async def test_members_hear_of_one_another() -> None:
    async with opened_server() as server:
        ada, bob = peer(server), peer(server)
        await bob.hear(SyncStep1)
        ada.say(Update(typed("hi")))
        assert (await bob.hear(Update)).update == typed("hi")
        ada.say(AwarenessUpdate(entry(1, 1)))
        assert (await bob.hear(AwarenessUpdate)).payload == entry(1, 1)
        await ada.end.close()
        assert (await bob.hear(AwarenessUpdate)).payload == entry(1, 1, "null")
        bob.say(QueryAwareness())
        assert (await bob.hear(AwarenessUpdate)).payload == b"\0"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xff", 4400),
        (b"\0\0", 4400),
        (b"\0\0\1\xff", 4422),
        (encode(PermissionDenied("no")), 4400),
        (encode(Update(BROKEN)), 4422),
        (encode(AwarenessUpdate(b"\xff")), 4400),
    ],
)
async def test_what_the_protocol_forbids_ends_that_conversation_alone(
    frame: bytes, code: int
) -> None:
    async with opened_server() as server:
        bad, good = peer(server), peer(server)
        await good.hear(SyncStep1)
        bad.end.send(frame)
        assert (await bad.ended()).code == code
        good.say(Update(typed("a", client=9)))
        assert await good.text() == "a"


async def test_who_was_sent_away_is_not_listened_to_any_more() -> None:
    async with opened_server() as server:
        bad = peer(server)
        await bad.hear(SyncStep1)
        # All in one go: the refusal comes out at the end of the tick.
        bad.say(Update(BROKEN))
        await until(lambda: not server.listener.rooms or not server.listener.rooms[NOTES].members)
        received = server.listener.traffic.messages_received
        bad.end._other._accept(encode(Update(typed("late", client=3))))
        bad.end._other._accept(encode(AwarenessUpdate(entry(3, 1))))
        await turn()
        assert server.listener.traffic.messages_received <= received
        assert server.shell.store.appended() == []
        assert (await bad.ended()).code == 4422


# --- rights -------------------------------------------------------------------------------------


async def test_without_a_grant_nobody_enters() -> None:
    async with opened_server(authentication=Nobody()) as server:
        assert (await peer(server).ended()).code == 4401
        assert server.listener.rooms == {}
        assert server.listener.traffic.rejected == 1


async def test_without_the_right_to_read_nobody_enters() -> None:
    async with opened_server(authentication=granted("public/**")) as server:
        assert (await peer(server, "notes").ended()).code == 4403
        assert isinstance(await peer(server, "public/notes").hear(SyncStep1), SyncStep1)


async def test_what_is_no_document_is_not_found() -> None:
    async with opened_server() as server:
        assert (await peer(server, "a//b").ended()).code == 4404
        assert (await peer(server, "-/other").ended()).code == 4404


async def test_a_reader_may_repeat_what_is_held_and_nothing_else() -> None:
    store = GatedStore()
    async with opened_server(store, authentication=granted(access=Access.READ)) as server:
        reader = peer(server)
        await reader.hear(SyncStep1)
        server.shell.take(typed("a"))
        await server.shell.settled(NOTES)
        reader.say(SyncStep2(typed("a")))
        assert await reader.text() == "a"
        reader.say(Update(typed("b", at=1)))
        assert (await reader.ended()).code == 4403
        assert store.appended() == [typed("a")]


async def test_a_conversation_ends_with_its_grant() -> None:
    now = 1_700_000_000_000_000
    async with opened_server(authentication=granted(expires_at=now)) as server:
        ada = peer(server)
        assert (await ada.ended()).code == 4401


async def test_one_identity_has_a_bounded_number_of_connections() -> None:
    limits = replace(IMPATIENT, identity_connections_max=2)
    async with opened_server(limits=limits, authentication=granted()) as server:
        first, second = peer(server), peer(server)
        await first.hear(SyncStep1)
        await second.hear(SyncStep1)
        assert (await peer(server).ended()).code == 4429
        await first.end.close()
        await turn()
        await peer(server).hear(SyncStep1)


async def test_who_brings_too_much_is_read_later() -> None:
    waits: list[float] = []
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await gate.wait()

    limits = replace(IMPATIENT, identity_messages_per_second_max=2.0)
    async with opened_server(limits=limits, sleep=sleep) as server:
        ada = peer(server)
        await ada.hear(SyncStep1)
        for at in range(5):
            ada.say(Update(typed("a", at=at)))
        await turn()
        assert waits == [pytest.approx(0.5)]
        assert len(server.shell.store.appended()) == 3
        gate.set()
        await turn()
        assert len(server.shell.store.appended()) == 5


async def test_who_asks_and_does_not_read_is_not_answered_without_end() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=5_000, peer_slow_seconds_max=60.0)
    async with opened_server(limits=limits) as server:
        ada, greedy = peer(server), peer(server)
        ada.say(Update(typed("x" * 1_000)))
        assert await ada.text() == "x" * 1_000
        for _ in range(500):
            greedy.say(SyncStep1(EMPTY_VECTOR))
        await turn(100)
        waiting = sum(map(len, greedy.end._inbox))
        assert waiting < 5_000 + 2_000, waiting
        answers = 0
        while answers < 500:
            await greedy.hear(SyncStep2)
            answers += 1


async def test_who_asks_and_never_reads_is_sent_away() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=5_000, peer_slow_seconds_max=0.0)
    async with opened_server(limits=limits) as server:
        ada, greedy = peer(server), peer(server)
        ada.say(Update(typed("x" * 1_000)))
        assert await ada.text() == "x" * 1_000
        for _ in range(50):
            greedy.say(SyncStep1(EMPTY_VECTOR))
        await until(lambda: server.listener.traffic.dropped_as_slow == 1)
        assert (await greedy.ended()).code == 4408


# --- quotas -------------------------------------------------------------------------------------


class ByName:
    """Whose token is a name may write as that identity."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        return Grant(token, (Right("**", Access.WRITE),))


async def named(server: Server, name: str | None, document: str = "notes") -> Peer:
    """A peer of this name, whom the server has let in."""
    found = Peer(server.visit(document, token=name))
    await found.hear(SyncStep1)
    return found


async def test_a_new_document_beyond_its_creators_quota_does_not_begin() -> None:
    limits = replace(IMPATIENT, identity_documents_max=2)
    async with opened_server(limits=limits, authentication=ByName()) as server:
        for name in ("one", "two"):
            ada = await named(server, "ada", name)
            ada.say(Update(typed("a")))
            assert await ada.text() == "a"
        third = await named(server, "ada", "three")
        third.say(SyncStep2(b"\0\0"))  # what every stock client says first
        assert await third.text() == ""
        third.say(Update(typed("a")))
        ended = await third.ended()
        assert ended.code == 4430
        assert "identity_documents_max = 2" in ended.reason
        store, three = server.shell.store, DocumentId("three")
        assert await store.read(three) is None, "nothing is kept of it, in quarantine neither"
        assert server.listener.traffic.beyond_quota == 1
        ada.say(Update(typed("b", at=1)))
        assert await ada.text() == "ab", "documents that exist may grow"
        bob = await named(server, "bob", "three")
        bob.say(Update(typed("b", client=2)))
        assert await bob.text() == "b", "others are not concerned"
        assert (await store.usage("bob")).documents == 1


async def test_a_document_whose_creator_is_beyond_the_quota_grows_by_nobodys_hand() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=2 * len(typed("a")))
    async with opened_server(limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        ada.say(Update(typed("a")), Update(typed("b", client=2)))
        assert await ada.text() == "ab"
        await ada.end.close()
        bob = await named(server, "bob")
        bob.say(Update(typed("c", client=3)))
        ended = await bob.ended()
        assert ended.code == 4430
        assert "identity_stored_bytes_max" in ended.reason
        assert "ada" not in ended.reason
        bob = await named(server, "bob", "other")
        bob.say(Update(typed("c", client=3)))
        assert await bob.text() == "c", "in a document of his own he may write"
        assert len(server.shell.store.appended()) == 2
        assert await server.shell.store.quarantine() == ()


async def test_what_is_not_on_the_disk_yet_counts_as_well() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=2 * len(typed("a")))
    async with opened_server(limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        ada.say(*(Update(typed("a", client=client)) for client in (1, 2, 3)))
        assert (await ada.ended()).code == 4430
        assert len(server.shell.store.appended()) == 2


async def test_what_is_held_may_be_repeated_beyond_a_quota() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=len(typed("a")))
    async with opened_server(limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        ada.say(Update(typed("a")), SyncStep2(typed("a")), Update(typed("a")))
        assert await ada.text() == "a"
        ada.say(SyncStep2(typed("a")))
        assert await ada.text() == "a"
        assert server.listener.traffic.beyond_quota == 0
        assert len(server.shell.store.appended()) == 1


async def test_what_waits_may_be_repeated_beyond_a_quota_too() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=len(typed("b", at=1)))
    async with opened_server(limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        ada.say(Update(typed("b", at=1)), Update(typed("b", at=1)))
        assert await ada.text() == ""
        assert server.listener.traffic.beyond_quota == 0
        assert len((await server.shell.store.read(NOTES)).pending) == 1


@pytest.mark.parametrize("makes_room", ["fold", "forget"])
async def test_what_a_quota_refused_is_let_in_once_there_is_room(makes_room: str) -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=1_000)
    store = GatedStore(limits=limits)
    last = await store.write([Append(OTHER, (bytes(995),), creator="ada")])
    async with opened_server(store, limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        ada.say(Update(typed("a")))
        assert (await ada.ended()).code == 4430
        freeing: list[Write] = [Forget(OTHER)]
        if makes_room == "fold":
            freeing = [Fold(OTHER, b"state", b"head", last)]
        await store.write(freeing)
        server.shell.clock.advance(limits.usage_recount_seconds)
        ada = await named(server, "ada")
        ada.say(Update(typed("a")), Update(typed("b", at=1)))
        assert await ada.text() == "ab", "the same counters are as good as before"


async def test_a_quota_that_only_seems_reached_refuses_nothing() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=500)
    async with opened_server(limits=limits, authentication=ByName()) as server:
        ada = await named(server, "ada")
        for at in range(100):
            ada.say(Update(typed("a", at=at)))
            if at % 10 == 9:
                await server.shell.settled(NOTES)
                stored = await server.shell.store.read(NOTES)
                await turn()
                if stored is not None and stored.log:
                    await server.shell.compaction.fold(NOTES)
        assert len(await ada.text()) == 100


async def test_without_an_identity_there_is_no_quota() -> None:
    limits = replace(IMPATIENT, identity_stored_bytes_max=1, identity_documents_max=1)
    async with opened_server(limits=limits) as server:
        for name in ("one", "two"):
            anyone = peer(server, name)
            anyone.say(Update(typed("a")))
            assert await anyone.text() == "a"


# --- documents ----------------------------------------------------------------------------------


async def test_a_document_that_was_set_aside_is_closed_to_all_and_others_are_not() -> None:
    async with opened_server() as server:
        ada, bystander = peer(server), peer(server, "other")
        await ada.hear(SyncStep1)
        await bystander.hear(SyncStep1)
        await server.shell.set_aside(NOTES, "it killed a worker")
        assert (await ada.ended()).code == 4423
        assert (await peer(server).ended()).code == 4423
        assert await bystander.text() == ""
        assert list(server.listener.rooms) == ["other"]


@pytest.mark.parametrize(
    "failure", [WorkerFailed("died", "it ended"), StoreUnavailable("an I/O error")]
)
async def test_a_document_that_cannot_be_encoded_ends_the_conversation_with_a_reason(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_server() as server:
        ada = peer(server)
        await ada.hear(SyncStep1)

        async def fail(*_: object) -> bytes:
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(server.shell, "difference", fail)
            ada.say(SyncStep1(EMPTY_VECTOR))
            ended = await ada.ended()
        assert ended.code == 1013
        assert ended.reason


async def test_who_comes_together_is_let_in_together_when_the_document_is_loaded() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        store.reading.clear()
        peers = [peer(server) for _ in range(20)]
        await turn()
        store.reading.set()
        for each in peers:
            await each.hear(SyncStep1)
        assert len(server.listener.rooms[NOTES].members) == 20
        for each in peers:
            await each.end.close()
        await turn()
        assert server.listener.rooms == {}
        assert len(server.shell.core) == 0


async def test_a_document_that_cannot_be_loaded_can_be_loaded_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_server() as server:

        async def fail(_: object) -> None:
            raise StoreUnavailable("an I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(server.shell.store, "read", fail)
            peers = [peer(server) for _ in range(3)]
            assert [(await each.ended()).code for each in peers] == [1013] * 3
        await turn()
        assert server.listener.rooms == {}
        assert await peer(server).text() == ""


async def test_who_gives_up_while_the_document_is_loaded_leaves_nothing_behind() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        store.reading.clear()
        peer(server)
        await turn()
        server.conversations[0].cancel()
        await turn()
        store.reading.set()
        await turn()
        assert server.listener.rooms == {}
        assert server.shell._subscribers == {}
        assert len(server.shell.core) == 0


async def test_who_stays_is_let_in_although_another_gave_up() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        store.reading.clear()
        peer(server)
        stays = peer(server)
        await turn()
        server.conversations[0].cancel()
        await turn()
        store.reading.set()
        assert await stays.text() == ""
        peer(server).say(Update(typed("a")))
        assert (await stays.hear(Update)).update == typed("a"), "in the room that is subscribed"


async def test_a_drain_makes_everything_durable_says_goodbye_and_lets_nobody_in() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        ada = peer(server)
        await ada.hear(SyncStep1)
        store.gate.clear()
        ada.say(Update(typed("a")))
        await turn()
        draining = asyncio.create_task(server.listener.drain())
        await turn()
        assert not draining.done()
        assert (await peer(server).ended()).code == 1012
        store.gate.set()
        assert (await ada.ended()).code == 1012
        await draining
        assert store.appended() == [typed("a")]


async def test_who_was_on_the_way_in_when_the_drain_began_is_not_let_in() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        store.reading.clear()
        late = peer(server)
        await turn()
        await server.listener.drain()
        store.reading.set()
        assert (await late.ended()).code == 1012
        assert server.listener.rooms == {}


async def test_signs_of_life_come_often_enough() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async with opened_server(sleep=sleep) as server:
        ada = peer(server)
        await ada.hear(SyncStep1)
        life = asyncio.create_task(server.listener.show_life())
        await ada.hear(AwarenessUpdate)
        life.cancel()
        assert 0 < waits[0] <= 10.0


async def test_traffic_is_counted() -> None:
    async with opened_server() as server:
        ada, bob = peer(server), peer(server)
        await bob.hear(SyncStep1)
        ada.say(Update(typed("a")))
        await bob.hear(Update)
        traffic = server.listener.traffic
        assert (traffic.connections, traffic.connections_total) == (2, 2)
        assert traffic.messages_received == 1
        assert traffic.bytes_received == len(encode(Update(typed("a"))))
        assert traffic.messages_sent >= 1
        await ada.end.close()
        await bob.end.close()
        await turn()
        assert (traffic.connections, traffic.connections_total) == (0, 2)
        assert server.listener._accounts == {}
