"""`crdt_state.transport.link`: nothing lost, nothing confirmed too early, for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.errors import DocumentClosed, StoreFull
from crdt_state.identifiers import DocumentId
from crdt_state.model import engine
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    Message,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
)
from crdt_state.storage.contract import Append, ClearOutbox, OutboxEntry, Write
from crdt_state.sync.exchange import Progress
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.replica import Replica
from wired import (
    BROKEN,
    IMPATIENT,
    NOTES,
    GatedStore,
    Reports,
    Server,
    connected,
    opened_replica,
    opened_server,
    text_of,
    turn,
    typed,
    until,
)


class Remote:
    """A y-websocket server by hand: a test says every word of it."""

    def __init__(self) -> None:
        self.ends: list[MemoryConnection] = []
        self.failures: list[Exception] = []

    async def dial(self, url: str) -> MemoryConnection:
        if self.failures:
            raise self.failures.pop(0)
        ours, theirs = memory_pair("client", url)
        self.ends.append(theirs)
        return ours

    async def connection(self) -> MemoryConnection:
        """The next connection's end."""
        await until(lambda: bool(self.ends))
        return self.ends.pop(0)


async def hear(end: MemoryConnection, kind: type[Any] | None = None) -> Any:
    while True:
        message: Message = decode(await end.receive())
        if kind is None or isinstance(message, kind):
            return message


def say(end: MemoryConnection, *messages: Message) -> None:
    for message in messages:
        end.send(encode(message))


def nothing_more(end: MemoryConnection) -> bool:
    return not end._inbox


async def owed(replica: Replica, link: Link) -> list[str]:
    return [entry.document for entry in await replica.store.outbox(link.remote)]


async def greeted(end: MemoryConnection) -> None:
    """Play the first moves of an empty server, up to the first confirmation."""
    assert isinstance(await hear(end), SyncStep1)
    say(end, SyncStep1(b"\0"), SyncStep2(b"\0\0"))
    await hear(end, SyncStep2)
    await hear(end, SyncStep1)
    say(end, SyncStep2(b"\0\0"))


# --- with a real server -------------------------------------------------------------------------


async def test_an_edit_reaches_another_replica_and_the_outbox_is_cleared_by_the_answer(
    wire: Wire,
) -> None:
    async with opened_server() as server, opened_replica() as one, opened_replica(seed=3) as other:
        link, second = connected(one, server, wire), connected(other, server, wire)
        mine, theirs = await one.document("notes"), await other.document("notes")
        mine.text("text").insert(0, "hello")
        await mine.saved()
        assert await owed(one, link) == [NOTES]
        await link.synced()
        assert await owed(one, link) == []
        await second.synced()
        assert str(theirs.text("text")) == "hello"
        assert link.progress is Progress.IN_SYNC


async def test_what_is_edited_offline_arrives_once_when_the_server_is_back(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as one:
        server.is_down = True
        link = connected(one, server, wire)
        document = await one.document("notes")
        for letter in "abc":
            document.text("text").insert(len(document.text("text")), letter)
            await document.saved()
        await until(lambda: server.dials > 3)
        assert link.progress is not Progress.IN_SYNC
        server.is_down = False
        await link.synced()
        assert text_of(server.shell.store.appended()) == "abc"


async def test_the_outbox_of_a_document_that_nobody_opens_is_sent_after_a_restart(
    wire: Wire,
) -> None:
    async with opened_server() as server:
        store = GatedStore(random=Random(2))
        async with opened_replica(store) as one:
            server.is_down = True
            link = connected(one, server, wire)
            document = await one.document("notes")
            document.text("text").insert(0, "hello")
            await document.saved()
            assert await owed(one, link) == [NOTES]
        server.is_down = False
        async with opened_replica(store.reopened()) as again:  # type: ignore[arg-type]
            link = connected(again, server, wire)
            await link.synced()
            assert text_of(server.shell.store.appended()) == "hello"
            assert await owed(again, link) == []


async def test_a_cut_cable_and_a_failing_server_lose_nothing_and_double_nothing(wire: Wire) -> None:
    dice = Random(7)
    async with opened_server() as server, opened_replica() as one, opened_replica(seed=3) as other:
        links = connected(one, server, wire), connected(other, server, wire)
        documents = await one.document("notes"), await other.document("notes")
        ends: list[MemoryConnection] = []
        visit = server.visit

        def remember(document: str = "notes", *, address: str = "peer") -> MemoryConnection:
            ends.append(visit(document, address=address))
            return ends[-1]

        server.visit = remember  # type: ignore[method-assign]
        written = 0
        for step in range(120):
            text = dice.choice(documents).text("text")
            text.insert(dice.randint(0, len(text)), "x")
            written += 1
            await turn(dice.randint(0, 6))
            if step % 10 == 3 and ends:
                dice.choice(ends).cut()
            if step % 30 == 17:
                server.shell.store.fault = StoreFull("no space left")
            if step % 30 == 20:
                server.shell.store.fault = None
        server.shell.store.fault = None
        for link in (*links, *links):
            await link.synced()
        shown = [str(document.text("text")) for document in documents]
        assert shown[0] == shown[1] == "x" * written


async def test_progress_is_told_as_it_changes(wire: Wire) -> None:
    seen: list[Progress] = []
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server, wire)
        stop = link.watch(seen.append)
        await one.document("notes")
        await link.synced()
        assert seen == [Progress.CONNECTING, Progress.CATCHING_UP, Progress.IN_SYNC]
        stop()
        await one.disconnect(link)
        assert seen[-1] is Progress.IN_SYNC
        assert link.progress is Progress.OFFLINE


async def test_a_watcher_that_fails_does_not_end_the_link(wire: Wire) -> None:
    reports = Reports()

    def fail(_: Progress) -> None:
        raise RuntimeError("an application's mistake")

    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server, wire)
        link.watch(fail)
        document = await one.document("notes")
        document.text("text").insert(0, "a")
        await link.synced()
        assert len(reports) > 0


async def test_presence_travels_and_ends_with_its_connection(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as one, opened_replica(seed=3) as other:
        links = connected(one, server, wire), connected(other, server, wire)
        mine, theirs = await one.document("notes"), await other.document("notes")
        for link in links:
            await link.synced()
        mine.presence.show({"name": "Ada"})
        await until(lambda: theirs.presence.states != {})
        assert theirs.presence.states == {mine.client_id: {"name": "Ada"}}
        await one.disconnect(links[0])
        await until(lambda: theirs.presence.states == {})


# --- with a remote by hand ----------------------------------------------------------------------


async def test_nothing_is_confirmed_by_anything_but_an_answer_that_holds_it() -> None:
    remote = Remote()
    async with opened_replica() as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        end = await remote.connection()
        await greeted(end)
        document.text("text").insert(0, "hello")
        update = (await hear(end, Update)).update
        synced = asyncio.create_task(link.synced())
        await hear(end, SyncStep1)
        say(end, SyncStep2(b"\0\0"))
        await hear(end, SyncStep1)
        assert not synced.done()
        assert await owed(one, link) == [NOTES]
        say(end, SyncStep2(update))
        await synced
        assert await owed(one, link) == []


async def test_nothing_is_sent_before_it_is_durable() -> None:
    remote, store = Remote(), GatedStore()
    async with opened_replica(store) as one:
        one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        end = await remote.connection()
        await greeted(end)
        await turn()
        store.gate.clear()
        document.text("text").insert(0, "hello")
        await turn()
        assert nothing_more(end)
        store.gate.set()
        assert text_of([(await hear(end, Update)).update]) == "hello"


async def test_who_waits_is_not_answered_for_an_edit_that_was_not_durable_when_it_was_asked() -> (
    None
):
    remote, store = Remote(), GatedStore()
    async with opened_replica(store) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        end = await remote.connection()
        await greeted(end)
        await turn()
        store.gate.clear()
        document.text("text").insert(0, "first")
        await turn()
        early = asyncio.create_task(link.synced())  # its question waits for the commit
        await turn()
        document.text("text").insert(5, " second")
        late = asyncio.create_task(link.synced())
        await turn()
        store.let_one_through()
        first = (await hear(end, Update)).update
        await hear(end, SyncStep1)
        assert text_of([first]) == "first"
        say(end, SyncStep2(first))
        await turn()
        store.gate.set()
        await until(early.done)
        assert not late.done(), "nobody has confirmed its edit"
        answering = asyncio.create_task(answer_all(end, [first]))
        await until(late.done)
        answering.cancel()


async def answer_all(end: MemoryConnection, held: list[bytes]) -> None:
    """From now on, be a server that holds everything it is sent."""
    while True:
        match await hear(end):
            case Update(update) | SyncStep2(update):
                held.append(update)
            case SyncStep1(vector):
                say(end, SyncStep2(engine.diff(engine.merge(held), vector)))


async def test_what_becomes_durable_while_the_state_is_read_follows_behind_it() -> None:
    remote, store = Remote(), GatedStore()
    async with opened_replica(store) as one:
        one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "first")
        await document.saved()
        end = await remote.connection()
        one.encodings.drop(NOTES)
        store.reading.clear()
        say(end, SyncStep1(b"\0"))
        await turn()
        document.text("text").insert(5, " second")
        await document.saved()
        await turn()
        assert isinstance(await hear(end), SyncStep1)
        assert nothing_more(end), "not before the state that it builds on"
        store.reading.set()
        state = (await hear(end, SyncStep2)).update
        assert text_of([state, (await hear(end, Update)).update]) == "first second"


async def test_a_store_that_fails_at_the_confirmation_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        await link.synced()
        write, failures = one.store.write, [StoreFull("no space left")]

        async def fail_once(writes: Sequence[Write]) -> Any:
            if failures and any(isinstance(each, ClearOutbox) for each in writes):
                raise failures.pop()
            return await write(writes)

        monkeypatch.setattr(one.store, "write", fail_once)
        document.text("text").insert(0, "hello")
        await link.synced()
        assert failures == []
        assert await owed(one, link) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff",
        encode(SyncStep1(b"\xff")),
        encode(SyncStep2(BROKEN)),
        encode(SyncStep2(b"\0\0")) * 2,
        encode(AwarenessUpdate(b"\xff")),
    ],
)
async def test_whatever_a_remote_says_the_link_dials_again(frame: bytes) -> None:
    remote = Remote()
    async with opened_replica() as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        end = await remote.connection()
        await greeted_until_asked(end)
        end.send(frame)
        say(end, SyncStep2(BROKEN))
        end = await remote.connection()
        assert isinstance(await hear(end), SyncStep1)
        assert link.last_error


async def greeted_until_asked(end: MemoryConnection) -> None:
    await hear(end, SyncStep1)
    say(end, SyncStep1(b"\0"), SyncStep2(b"\0\0"))
    await hear(end, SyncStep2)
    await hear(end, SyncStep1)


@pytest.mark.parametrize(
    "failure", [OSError("nobody answers"), KeyError("no token"), DocumentClosed("odd")]
)
async def test_whatever_dialling_raises_the_link_dials_again(failure: Exception) -> None:
    reports, remote = Reports(), Remote()
    remote.failures = [failure] * 3
    async with opened_replica() as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        await one.document("notes")
        end = await remote.connection()
        assert isinstance(await hear(end), SyncStep1)
        assert link.last_error
        assert len(reports) == (3 if isinstance(failure, KeyError) else 0)


async def test_a_document_lost_while_dialling_is_taken_into_use_again() -> None:
    store, remote, gate = GatedStore(), Remote(), asyncio.Event()

    async def slow_dial(url: str) -> MemoryConnection:
        await gate.wait()
        return await remote.dial(url)

    async with opened_replica(store) as one:
        one.connect("ws://remote", dial=slow_dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        await turn()
        store.fault = StoreFull("no space left")
        document.text("text").insert(0, "lost")
        await turn()
        assert document.is_closed
        store.fault = None
        gate.set()
        end = await remote.connection()
        await greeted(end)
        again = await one.document("notes")
        again.text("text").insert(0, "kept")
        assert text_of([(await hear(end, Update)).update]) == "kept"


async def test_a_store_that_fails_hangs_up_and_begins_anew(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        await link.synced()
        one.store.fault = StoreFull("no space left")  # type: ignore[attr-defined]
        document.text("text").insert(0, "lost")
        await until(lambda: document.is_closed)
        one.store.fault = None  # type: ignore[attr-defined]
        again = await one.document("notes")
        again.text("text").insert(0, "kept")
        await link.synced()
        assert text_of(server.shell.store.appended()) == "kept"


async def test_a_closed_link_leaves_nobody_waiting_and_keeps_what_is_owed(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as one:
        server.is_down = True
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await document.saved()
        waiting = asyncio.create_task(link.synced())
        await turn()
        await one.disconnect(link)
        with pytest.raises(DocumentClosed, match="before this was in sync"):
            await waiting
        assert await owed(one, link) == [NOTES]
        with pytest.raises(DocumentClosed):
            link.follow(NOTES)


async def test_what_the_remote_brings_is_not_sent_back_to_it_and_not_owed() -> None:
    remote = Remote()
    async with opened_replica() as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        await one.document("notes")
        end = await remote.connection()
        await greeted(end)
        await turn()
        say(end, Update(typed("theirs", client=77)))
        await turn()
        assert nothing_more(end)
        assert await owed(one, link) == []
        document = await one.document("notes")
        assert str(document.text("text")) == "theirs"


async def test_what_one_remote_brings_is_owed_and_sent_to_another() -> None:
    async with opened_server() as first, opened_server() as second, opened_replica() as one:
        link = one.connect("ws://server", dial=first.dial, wire=Wire.Y_WEBSOCKET)
        relay = one.connect("ws://server:2", dial=_dial_of(second), wire=Wire.Y_WEBSOCKET)
        await one.document("notes")
        await link.synced()
        peer = first.visit()
        say(peer, Update(typed("hi", client=5)))
        await until(lambda: second.shell.store.appended() != [])
        await relay.synced()
        assert text_of(second.shell.store.appended()) == "hi"
        assert await owed(one, relay) == []


def _dial_of(server: Server) -> Any:
    async def dial(url: str) -> MemoryConnection:
        return server.visit(url.removeprefix("ws://server:2/"))

    return dial


async def test_an_outbox_entry_beyond_the_question_stays() -> None:
    store = GatedStore()
    remote = Remote()
    async with opened_replica(store) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        end = await remote.connection()
        await greeted(end)
        document.text("text").insert(0, "a")
        first = (await hear(end, Update)).update
        await hear(end, SyncStep1)
        document.text("text").insert(1, "b")
        await document.saved()
        say(end, SyncStep2(first))
        await turn()
        assert [entry.through for entry in await store.outbox(link.remote)] == [2]
        assert isinstance((await store.outbox(link.remote))[0], OutboxEntry)


# --- more documents than sockets ----------------------------------------------------------------


class CountedDial:
    """Counts the connections of a server that are open at once."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.most = 0

    async def __call__(self, url: str) -> MemoryConnection:
        connection = await self.server.dial(url)
        conversations = self.server.conversations
        conversations[:] = [each for each in conversations if not each.done()]
        self.most = max(self.most, len(conversations))
        return connection


async def edited(replica: Replica, count: int) -> None:
    """Edit many documents that nobody keeps open."""
    for number in range(count):
        await replica.store.write([Append(DocumentId(f"d/{number:05}"), (typed(f"{number}"),))])


async def drained(count: int, places: int) -> None:
    limits = replace(IMPATIENT, link_conversations_max=places)
    async with opened_server() as server, opened_replica(limits=limits) as one:
        await edited(one, count)
        open_one = await one.document("notes")
        open_one.text("text").insert(0, "open")
        dial = CountedDial(server)
        link = one.connect("ws://server", dial=dial, wire=Wire.Y_WEBSOCKET)
        seen: list[Progress] = []
        link.watch(seen.append)
        await link.synced()
        assert await owed(one, link) == []
        assert len(link._conversations) == 1
        assert Progress.IN_SYNC not in seen[:-1]
        assert dial.most <= places
        for number in (0, count // 2, count - 1):
            document = DocumentId(f"d/{number:05}")
            assert text_of(server.shell.store.appended(document)) == f"{number}"
        assert text_of(server.shell.store.appended()) == "open"


async def test_owed_documents_take_turns_in_the_places_that_open_ones_leave() -> None:
    await drained(600, places=8)


async def test_one_place_is_enough_for_all_of_them() -> None:
    await drained(20, places=2)


@pytest.mark.full
async def test_ten_thousand_owed_documents_drain() -> None:
    await drained(10_000, places=64)


async def test_an_unwelcome_document_gives_its_place_to_the_next() -> None:
    limits = replace(IMPATIENT, link_conversations_max=2, refused_seconds=3_600.0)
    async with opened_server() as server, opened_replica(limits=limits) as one:
        await edited(one, 6)

        async def dial(url: str) -> MemoryConnection:
            server.dials += 1
            if url[-1] in "024":
                raise ConnectionEnded(4423, "set aside")
            return server.visit(url.removeprefix("ws://server/"))

        link = one.connect("ws://server", dial=dial, wire=Wire.Y_WEBSOCKET)
        synced = asyncio.create_task(link.synced())
        await until(lambda: not link._conversations and len(link._resting) == 3)
        assert await owed(one, link) == ["d/00000", "d/00002", "d/00004"]
        for _ in range(5):
            link.look_again()
            await turn()
        assert server.dials == 6
        assert "set aside" in (link.last_error or "")
        assert not synced.done()
        synced.cancel()


async def test_a_document_that_is_opened_during_its_turn_stays() -> None:
    remote = Remote()
    async with opened_replica() as one:
        await edited(one, 1)
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        end = await remote.connection()
        document = await one.document("d/00000")
        answering = asyncio.create_task(answer_all(end, []))
        say(end, SyncStep1(b"\0"))
        await link.synced()
        assert link.progress_of(document.id) is Progress.IN_SYNC
        assert remote.ends == []
        answering.cancel()


async def test_a_document_that_is_opened_while_its_turn_ends_is_followed_by_one_who_waits() -> None:
    async with opened_server() as server, opened_replica() as one:
        await edited(one, 1)
        gates: list[asyncio.Event] = []

        async def dial(url: str) -> MemoryConnection:
            connection = await server.dial(url)
            close, gate = connection.close, asyncio.Event()
            gates.append(gate)

            async def close_slowly(*reason: Any) -> None:
                await gate.wait()
                await close(*reason)

            connection.close = close_slowly  # type: ignore[method-assign]
            return connection

        link = one.connect("ws://server", dial=dial, wire=Wire.Y_WEBSOCKET)
        await until(lambda: bool(link._ending))
        await turn()
        document = await one.document("d/00000")
        await turn()
        assert len(gates) == 1, "the first is still leaving"
        gates[0].set()
        await until(lambda: len(gates) == 2)
        gates[1].set()
        await link.synced()
        document.text("text").append("!")
        await link.synced()
        assert text_of(server.shell.store.appended(document.id)) == "0!"
        assert link.progress_of(document.id) is Progress.IN_SYNC


async def test_synced_waits_for_what_was_owed_and_is_opened_meanwhile() -> None:
    async with opened_server() as server, opened_replica() as replica:
        document = await replica.document("notes")
        document.text("text").insert(0, "hello")
        await document.saved()
        document.close()
        server.is_down = True
        link = connected(replica, server)
        waits = asyncio.create_task(link.synced())
        await until(lambda: server.dials > 1)
        await replica.document("notes")
        await turn(100)
        assert not waits.done(), "the server has not confirmed anything"
        server.is_down = False
        await waits
        assert await replica.store.outbox(link.remote) == ()
