"""Whole scopes between two replicas: what is caught up how, and what nobody is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.errors import DocumentClosed, LimitExceeded, LineageEnded, StoreFull
from crdt_state.identifiers import DocumentId, Scope
from crdt_state.lineage import BORN
from crdt_state.merkle.messages import SendNodes, encode
from crdt_state.protocol.peer.compression import COMPRESSED, Decompressor
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import Hello, Welcome, decode_all
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX
from crdt_state.protocol.peer.scopes import (
    Answer,
    Ask,
    Brought,
    Ended,
    Exchange,
    Exchanged,
    List,
    Listed,
    News,
    Parcel,
    Root,
    ScopeMessage,
    Since,
    Subscribe,
    batches,
)
from crdt_state.replica.admission import ANYONE
from crdt_state.replica.document_core import SET_ASIDE, Delta
from crdt_state.replica.succession import held_by_nobody, succeed
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.storage.contract import (
    WATERMARKS,
    Append,
    ClearOutbox,
    Sequence,
    SetLife,
    SetMetadata,
)
from crdt_state.sync.exchange import Progress
from crdt_state.transport import scope_visit
from crdt_state.transport.channel import Channel
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.memory import MemoryConnection
from crdt_state.transport.scope_catch_up import CatchUp
from crdt_state.transport.scope_intake import parcel_for, take_parcel
from crdt_state.transport.scope_visit import _Subscription
from wired import (
    IMPATIENT,
    GatedStore,
    Server,
    Watcher,
    Witnessing,
    opened_replica,
    opened_server,
    text_of,
    turn,
    typed,
    until,
)

SCOPE = Scope("notes")


def named(number: int) -> DocumentId:
    return DocumentId(f"notes/{number}")


class Overheard:
    """Dials a server and keeps what is said of scopes, in its order."""

    def __init__(self, server: Server, token: str | None = None) -> None:
        self.server = server
        self.token = token
        self.said: list[ScopeMessage] = []
        self.heard: list[ScopeMessage] = []

    async def dial(self, url: str) -> MemoryConnection:
        connection = await self.server.dial(url)
        send, receive = connection.send, connection.receive
        outward, inward = Decompressor(FRAME_BYTES_MAX), Decompressor(FRAME_BYTES_MAX)

        def overheard_send(frame: bytes) -> None:
            self.said += of_scopes(frame, outward)
            send(frame)

        async def overheard_receive() -> bytes:
            frame = await receive()
            self.heard += of_scopes(frame, inward)
            return frame

        connection.send, connection.receive = overheard_send, overheard_receive
        return connection

    def count(self, kind: type[Any]) -> int:
        return sum(isinstance(message, kind) for message in (*self.said, *self.heard))

    def forget(self) -> None:
        self.said.clear()
        self.heard.clear()


def of_scopes(frame: bytes, stream: Decompressor) -> list[ScopeMessage]:
    messages = stream.messages(frame) if frame[0] == COMPRESSED else frame
    return [message for message in decode_all(messages) if isinstance(message, ScopeMessage)]


def follow(replica, overheard: Overheard, *, token: str | None = None) -> Link:
    dial, wire = overheard.dial, Wire.REPLICA
    return replica.connect("ws://server", dial=dial, wire=wire, scopes=["notes"], token=token)


async def put(store, *documents: DocumentId, text: str = "hello", client: int = 1) -> None:
    await store.write([Append(each, (typed(text, client=client),)) for each in documents])


async def shown(store) -> dict[str, str]:
    """The text of every document of a store."""
    found = {}
    for summary in await store.list():
        stored = await store.read(summary.document)
        if stored.updates():
            found[summary.document] = text_of(stored.updates())
    return found


async def assert_alike(one, other) -> None:
    """Both hold the same documents of the scope, down to their content."""
    for replica in (one, other):
        await replica.tries.settle(SCOPE)
    contents = [
        {n: t for n, t in (await shown(each.store)).items() if n.startswith("notes/")}
        for each in (one, other)
    ]
    assert contents[0] == contents[1]
    assert contents[0], "there must be something to compare"
    assert await one.tries.root(SCOPE) == await other.tries.root(SCOPE)


async def test_an_application_that_opens_nothing_gets_every_document_of_its_scope() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, *(named(n) for n in range(300)), DocumentId("other/1"))
        overheard = Overheard(server)
        await follow(replica, overheard).synced()
        await assert_alike(replica, server.shell)
        assert "other/1" not in await shown(replica.store), "that is of another scope"
        assert overheard.count(Root) == 1
        assert overheard.count(Exchanged) < 10, "they come in batches"


async def test_both_sides_are_brought_in_step_and_the_outbox_is_empty() -> None:
    async with opened_server() as server, opened_replica() as replica:
        there, here = server.shell.store, replica.store
        for store in (there, here):
            await put(store, *(named(n) for n in range(100)))
        await put(there, named(3), named(200), text="there", client=5)
        await put(here, named(3), named(4), named(201), text="here", client=6)
        link = follow(replica, Overheard(server))
        await link.synced()
        await assert_alike(replica, server.shell)
        assert await here.outbox(link.remote) == ()
        assert link.progress is Progress.IN_SYNC


async def test_equal_scopes_are_told_by_their_roots_alone() -> None:
    async with opened_server() as server, opened_replica() as replica:
        for store in (server.shell.store, replica.store):
            await put(store, *(named(n) for n in range(50)))
        overheard = Overheard(server)
        await follow(replica, overheard).synced()
        await turn()
        assert [type(message) for message in overheard.said] == [Subscribe]
        assert [type(message) for message in overheard.heard] == [Root]


async def test_what_changes_later_arrives_without_being_asked_for_again() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, named(1))
        await follow(replica, Overheard(server)).synced()
        async with opened_replica(seed=9) as writer:
            link = writer.connect("ws://server", dial=server.dial, wire=Wire.REPLICA)
            document = await writer.document("notes/new")
            document.text("text").insert(0, "hi")
            await link.synced()
        for _ in range(2_000):
            if (await shown(replica.store)).get("notes/new") == "hi":
                break
            await asyncio.sleep(0)
        await assert_alike(replica, server.shell)


async def test_a_short_pause_is_caught_up_by_watermark_without_a_trie() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, *(named(n) for n in range(20)))
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        await link.close()
        await put(server.shell.store, named(7), named(77), text="later", client=8)
        overheard.forget()
        await follow(replica, overheard).synced()
        assert overheard.count(Root) == overheard.count(Ask) == 0
        (news,) = (message for message in overheard.heard if isinstance(message, News))
        assert {parcel.document for parcel in news.parcels} == {named(7), named(77)}
        await assert_alike(replica, server.shell)


async def test_compaction_does_not_invalidate_a_watermark() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, *(named(n) for n in range(20)))
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        await link.close()
        later = Parcel(named(7), (typed("later", client=8),))
        assert not await take_parcel(server.shell, later, source=99, author=ANYONE, name="peer")
        assert await server.shell.compaction.fold(named(7))
        overheard.forget()
        await follow(replica, overheard).synced()
        assert overheard.count(Root) == 0
        assert overheard.count(Exchange) == 1, "its log is gone, so states are exchanged"
        await assert_alike(replica, server.shell)


async def test_a_restored_remote_is_compared_anew() -> None:
    async with opened_replica() as replica:
        store = GatedStore()
        async with opened_server(store) as server:
            await put(store, *(named(n) for n in range(20)))
            link = follow(replica, Overheard(server))
            await link.synced()
            await link.close()
            backup = store.restored(Random(4))
        backup.gate, backup.reading, backup.writes = store.gate, store.reading, []
        async with opened_server(backup) as server:
            await put(backup, named(7), text="in the second life", client=8)
            overheard = Overheard(server)
            await follow(replica, overheard).synced()
            assert overheard.count(Root) == 1
            await assert_alike(replica, server.shell)


async def test_a_document_too_large_for_a_batch_comes_through_a_channel() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, named(1), named(2), text="x" * 50_000)
        await put(server.shell.store, named(3))
        await put(replica.store, named(4), text="y" * 50_000)
        link = follow(replica, Overheard(server))
        await link.synced()
        await assert_alike(replica, server.shell)


async def test_differences_of_every_kind_are_found_whatever_they_are() -> None:
    seed = 21
    dice = Random(seed)
    for _ in range(4):
        async with opened_server() as server, opened_replica() as replica:
            for store in (server.shell.store, replica.store):
                await put(store, *(named(n) for n in range(200)))
            for store, client in ((server.shell.store, 5), (replica.store, 6)):
                for number in dice.sample(range(260), dice.randrange(60)):
                    await put(store, named(number), text="more", client=client)
            await follow(replica, Overheard(server)).synced()
            await assert_alike(replica, server.shell)


async def test_a_peer_keeps_what_it_brought_and_is_not_sent_it_again() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, named(1))
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        await turn()
        overheard.forget()
        document = await replica.document("notes/mine")
        document.text("text").insert(0, "hi")
        await link.synced()
        await turn(100)
        assert overheard.count(News) == 0
        await assert_alike(replica, server.shell)


# --- rights -----------------------------------------------------------------------------------


class Granting:
    """Grants whatever the token says: patterns, to write what begins with `+`."""

    def grant(self, token: str | None, *, now: Any) -> Grant:
        rights = [
            Right(p.removeprefix("+"), Access.WRITE if p.startswith("+") else Access.READ)
            for p in (token or "").split()
        ]
        return Grant(identity="ada", rights=tuple(rights), may_relay=True)


async def test_who_may_read_only_some_learns_nothing_of_the_others_not_even_a_hash() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        store = server.shell.store
        await put(store, *(DocumentId(f"notes/secret-{n}") for n in range(40)), text="hidden")
        await put(store, *(DocumentId(f"notes/open-{n}") for n in range(40)))
        await put(replica.store, DocumentId("notes/open-3"), text="mine", client=6)
        overheard = Overheard(server)
        link = follow(replica, overheard, token="+notes/open-*")
        await link.synced()
        texts = await shown(replica.store)
        assert {name for name in texts if "open" in name} == set(texts)
        assert len(texts) == 40
        assert texts["notes/open-3"] == (await shown(store))["notes/open-3"] != "hello"
        (root,) = (message for message in overheard.heard if isinstance(message, Root))
        assert root.root == root.node == b""
        assert overheard.count(List) == overheard.count(Listed) == 1
        assert overheard.count(Answer) == 0
        await link.close()
        overheard.forget()
        for name in ("notes/secret-1", "notes/open-1"):
            later = Parcel(DocumentId(name), (typed("later", client=8),))
            await take_parcel(server.shell, later, source=99, author=ANYONE, name="peer")
        await follow(replica, overheard, token="+notes/open-*").synced()
        assert not any("secret" in str(message) for message in overheard.heard)
        assert overheard.count(News) >= 1
        assert overheard.count(Root) == 0, "the watermark is filtered, too"
        assert "later" in (await shown(replica.store))["notes/open-1"]


async def test_other_rights_make_a_watermark_void() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        await put(server.shell.store, DocumentId("notes/a"), DocumentId("notes/b"))
        link = follow(replica, Overheard(server), token="notes/a")
        await link.synced()
        assert set(await shown(replica.store)) == {"notes/a"}
        await link.close()
        await follow(replica, Overheard(server), token="notes/**").synced()
        assert set(await shown(replica.store)) == {"notes/a", "notes/b"}


async def test_fresh_rights_begin_a_subscription_anew_on_the_same_connection() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        store, (a, b) = server.shell.store, (DocumentId("notes/a"), DocumentId("notes/b"))
        await put(store, a, b)
        overheard, rights = Overheard(server), ["notes/a"]
        link = replica.connect(
            "ws://server", dial=overheard.dial, token=lambda: rights[-1], scopes=["notes"]
        )
        await link.synced()
        assert set(await shown(replica.store)) == {a}
        for right, text in (("notes/**", "hello"), ("notes/a", "hello")):
            rights.append(right)
            overheard.forget()
            assert link._line is not None
            link._line.renew_token()
            await until(lambda: overheard.count(Root) == 1, turns=20_000)
            await link.synced()
            assert (await shown(replica.store))[b] == text
        assert server.dials == 1
        (ended,) = (message for message in overheard.heard if isinstance(message, Ended))
        assert ended.code == 1013
        overheard.forget()
        for name in (b, a):
            later = Parcel(name, (typed("later", client=8),))
            await take_parcel(server.shell, later, source=99, author=ANYONE, name="peer")
        await until(lambda: overheard.count(News) == 1, turns=20_000)
        assert not any("notes/b" in str(message) for message in overheard.heard)


async def test_a_refused_batch_changes_nothing_of_what_the_remote_was_known_to_hold() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        overheard, rights = Overheard(server), ["+notes/**"]
        link = replica.connect(
            "ws://server", dial=overheard.dial, token=lambda: rights[-1], scopes=["notes"]
        )
        await link.synced()
        document = await replica.document(named(1))
        document.text("text").insert(0, "held")
        await link.synced()
        await link.close()
        rights.append("notes/**")
        document.text("text").insert(4, "!")
        await document.commit()
        document.close()
        (owed,) = await replica.store.outbox("ws://server")
        confirmed = ClearOutbox("ws://server", named(1), owed.through)
        forgotten = SetMetadata(f"{WATERMARKS}ws://server\nnotes", None)
        await replica.store.write([confirmed, forgotten])
        overheard.forget()
        link = replica.connect(
            "ws://server", dial=overheard.dial, token=lambda: rights[-1], scopes=["notes"]
        )
        await until(lambda: overheard.count(Brought) == 1, turns=20_000)
        (brought,) = (message for message in overheard.heard if isinstance(message, Brought))
        assert [document for document, _ in brought.refused] == [named(1)]
        await until(lambda: "4403" in (link.last_error or ""), turns=20_000)
        stored = await replica.store.read(named(1))
        assert stored is not None
        assert stored.held == {}
        assert await replica.store.outbox("ws://server") == ()


async def test_what_a_parcel_says_is_held_is_on_the_disk() -> None:
    store = GatedStore()
    async with opened_server(store) as server:
        shell = server.shell
        await put(store, named(1))
        await shell.use(named(1), 1, Watcher())
        store.gate.clear()
        shell.receive(named(1), 1, ANYONE, typed("later", client=8), name="peer")
        await turn(3)
        parcel = asyncio.create_task(parcel_for(shell, named(1), b"\x00"))
        await turn(20)
        assert not parcel.done()
        store.gate.set()
        (update,) = (await parcel).updates
        assert "later" in text_of([update])


async def test_a_document_that_is_open_and_not_in_step_is_not_passed_by_a_watermark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering, answer = asyncio.Event(), Channel.answer

    async def answer_late(channel: Channel, *said: Any, **more: Any) -> None:
        await answering.wait()
        await answer(channel, *said, **more)

    monkeypatch.setattr(Channel, "answer", answer_late)
    async with opened_server() as server, opened_replica() as replica:
        key = f"{WATERMARKS}ws://server\nnotes"
        await put(server.shell.store, named(1), text="x" * 50_000)
        document = await replica.document(named(1))
        link = follow(replica, Overheard(server))
        follower = link._scopes.followers[SCOPE]
        await until(lambda: "not in step" in (follower.last_error or ""), turns=20_000)
        assert await replica.store.metadata(key) is None
        answering.set()
        await link.synced()
        assert len(document.text("text")) == 50_000
        assert await replica.store.metadata(key) is not None


async def test_a_scope_that_may_not_be_read_at_all_is_refused() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        await put(server.shell.store, named(1))
        link = follow(replica, Overheard(server), token="other/**")
        await until(lambda: link.last_error is not None)
        assert "4403" in (link.last_error or "")
        assert await shown(replica.store) == {}


async def test_a_refused_scope_does_not_hold_back_what_is_owed() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        link = follow(replica, Overheard(server), token="+other/**")
        assert link._scopes.is_catching_up(SCOPE), "until it is known what differs"
        await until(lambda: not link._scopes.is_catching_up(SCOPE))


async def test_who_may_not_write_brings_nothing_and_still_gets_all() -> None:
    async with opened_server(authentication=Granting()) as server, opened_replica() as replica:
        await put(server.shell.store, named(1))
        await put(replica.store, named(2))
        overheard = Overheard(server)
        link = follow(replica, overheard, token="notes/*")
        await until(lambda: any(isinstance(m, Since) for m in overheard.said), turns=20_000)
        assert named(1) in await shown(replica.store)
        assert named(2) not in await shown(server.shell.store)
        assert [entry.document for entry in await replica.store.outbox(link.remote)] == [named(2)]


async def test_a_peer_that_asks_past_its_rights_is_told_nothing() -> None:
    async with opened_server(authentication=Granting()) as server:
        await put(server.shell.store, DocumentId("notes/open"), DocumentId("notes/secret"))
        connection = server.visit("-/sync", token="notes/open")
        protocol = SyncProtocol(Role.DIALLER, IMPATIENT)
        protocol.greet(
            Hello(
                version_min=1,
                version_max=1,
                replica=b"r" * 16,
                incarnation=b"i" * 16,
                message_bytes_max=2**20,
                update_bytes_max=2**20,
                credit=2**20,
            )
        )
        connection.send(b"".join(protocol.frames_to_send()))
        walking = Ask(0, encode(SendNodes((0,), is_full=False)))
        prying = Exchange(1, ((DocumentId("notes/secret"), b"\0"),))
        elsewhere = Exchange(2, ((DocumentId("other/secret"), b"\0"),))
        for number, question in enumerate((walking, prying, elsewhere)):
            protocol.say_of_scope(Subscribe(number, SCOPE))
            protocol.say_of_scope(question)
        for frame in protocol.frames_to_send():
            connection.send(frame)
        heard: list[Any] = []
        while sum(isinstance(message, Ended) for message in heard) < 3:
            heard += protocol.receive(await connection.receive())
        assert {type(message) for message in heard} == {Welcome, Root, Ended}
        assert {message.code for message in heard if isinstance(message, Ended)} == {4403}
        await connection.close()


async def test_a_deletion_reaches_who_opens_nothing_at_once_and_after_an_absence() -> None:
    async with opened_server() as server, opened_replica() as there, opened_replica() as replica:
        await put(server.shell.store, *(named(n) for n in range(5)))
        deleter = follow(there, Overheard(server))
        link = follow(replica, Overheard(server))
        await asyncio.gather(link.synced(), deleter.synced())
        await there.delete(named(1))
        await deleter.synced()
        await link.synced()
        await gone(replica, named(1))
        await link.close()
        await there.delete(named(2))
        await deleter.synced()
        again = follow(replica, Overheard(server))
        await again.synced()
        await gone(replica, named(2))
        await assert_alike(replica, server.shell)


async def test_what_was_seeded_anew_replaces_what_a_subscriber_had_of_it() -> None:
    async with opened_server() as server, opened_replica() as there, opened_replica() as replica:
        await put(server.shell.store, *(named(n) for n in range(3)))
        link = follow(replica, Overheard(server))
        await link.synced()
        await link.close()
        seeder = follow(there, Overheard(server))
        await there.seed(named(1), lambda document: document.text("text").insert(0, "anew"))
        await seeder.synced()
        await follow(replica, Overheard(server)).synced()
        assert (await shown(replica.store))[named(1)] == "anew"
        await assert_alike(replica, server.shell)


async def gone(replica, document: DocumentId) -> None:
    while True:
        stored = await replica.store.read(document)
        if stored is not None and stored.life.is_deleted:
            return
        await turn()


# --- what must not happen ---------------------------------------------------------------------


class FailsOnce(GatedStore):
    """A store whose next commit with updates fails, when it is armed."""

    is_armed = False

    async def write(self, writes: Any) -> Any:
        if self.is_armed and any(isinstance(each, Append) for each in writes):
            self.is_armed = False
            raise StoreFull("no space left")
        return await super().write(writes)


async def test_no_watermark_is_kept_of_what_could_not_be_stored() -> None:
    store = FailsOnce(random=Random(78))
    async with opened_server() as server, opened_replica(store) as replica:
        await put(server.shell.store, named(1))
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        store.is_armed = True
        later = Parcel(named(2), (typed("later", client=8),))
        await take_parcel(server.shell, later, source=99, author=ANYONE, name="peer")
        await until(lambda: not store.is_armed, turns=20_000)
        await turn(200)
        await link.close()
        await follow(replica, Overheard(server)).synced()
        await assert_alike(replica, server.shell)


async def test_a_kill_in_the_middle_of_a_catch_up_loses_nothing() -> None:
    async with opened_server() as server:
        await put(server.shell.store, *(named(n) for n in range(300)))
        store = GatedStore(random=Random(77))
        async with opened_replica(store) as replica:
            overheard = Overheard(server)
            link = follow(replica, overheard)
            await until(lambda: overheard.count(Exchanged) > 0, turns=20_000)
            await link.close()
        reopened = store.reopened()
        assert len(await shown(reopened)) < 300, "it was cut off in the middle"
        async with opened_replica(reopened) as replica:
            await follow(replica, Overheard(server)).synced()
            await assert_alike(replica, server.shell)


async def test_a_remote_that_names_documents_of_another_scope_is_not_believed() -> None:
    async with opened_server() as server, opened_replica() as replica:
        await put(server.shell.store, named(1))
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        follower = link._scopes.followers[SCOPE]
        (batch,) = batches([Parcel(DocumentId("secret/1"), (typed("x"),))])
        follower.hear(News(0, 9, True, batch))
        link._scopes._heard += 1
        await until(lambda: "another scope" in str(link.last_error) or bool(follower.last_error))
        assert "secret/1" in (follower.last_error or "")
        assert "secret/1" not in await shown(replica.store)
        await link.synced()


async def test_scopes_beyond_the_bound_are_refused_at_both_ends() -> None:
    few = replace(IMPATIENT, scopes_max=1)
    async with opened_server(limits=few) as server, opened_replica() as replica:
        link = follow(replica, Overheard(server))
        link.subscribe("other")
        await until(lambda: "4429" in (link.last_error or ""), turns=20_000)
    async with opened_server() as server, opened_replica(limits=few) as replica:
        link = follow(replica, Overheard(server))
        link.subscribe("notes")
        with pytest.raises(LimitExceeded):
            link.subscribe("other")


async def test_a_link_over_y_websocket_has_no_scopes() -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = replica.connect("ws://server", dial=server.dial, wire=Wire.Y_WEBSOCKET)
        with pytest.raises(DocumentClosed, match="no scopes"):
            link.subscribe("notes")


# --- what a review found ----------------------------------------------------------------------


async def test_what_is_edited_behind_our_root_is_owed_though_the_remote_has_the_same_root() -> None:
    async with opened_server() as server, opened_replica() as replica:
        heard = asyncio.Event()

        async def dial(url: str) -> MemoryConnection:
            connection = await server.dial(url)
            receive = connection.receive

            async def late() -> bytes:
                frame = await receive()
                await heard.wait()
                return frame

            connection.receive = late
            return connection

        link = replica.connect("ws://server", dial=dial, scopes=["notes"])
        await turn(50)  # a hello and the root of an empty scope are out
        document = await replica.document("notes/new")
        document.text("text").insert(0, "precious")
        await document.saved()
        document.close()
        heard.set()
        await link.synced()
        assert (await shown(server.shell.store))["notes/new"] == "precious"


class Visiting:
    """As much of a visit as a subscription asks for."""

    last = Sequence(5)

    def is_from_peer(self, source: int) -> bool:
        return source == 7

    def take(self, message: ScopeMessage) -> None:
        raise AssertionError("nobody waits")


def test_what_others_change_is_never_taken_for_an_echo() -> None:
    subscription = _Subscription(Visiting(), 0, SCOPE)
    subscription.is_all_told()
    subscription.changed(named(1), [Delta(7, b"")])
    assert subscription.is_echo(named(1), Sequence(5))
    assert not subscription.is_echo(named(1), Sequence(6)), "somebody's lies behind it"
    subscription.changed(named(1), [Delta(1, b"")])
    assert not subscription.is_echo(named(1), Sequence(5))


def test_beyond_what_can_be_remembered_nothing_is_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope_visit, "ECHOES_MAX", 3)
    subscription = _Subscription(Visiting(), 0, SCOPE)
    subscription.is_all_told()
    for number in range(4):
        subscription.changed(named(number), [Delta(1, b"")])
    subscription.changed(named(3), [Delta(7, b"")])
    assert not subscription.is_echo(named(3), Sequence(5))


@pytest.mark.parametrize("has_a_mark", [True, False])
async def test_a_peer_that_was_forgotten_brings_nothing_back_that_was_deleted(
    has_a_mark: bool,
) -> None:
    limits = replace(IMPATIENT, peer_forget_seconds=100.0)
    async with opened_server(limits=limits) as server, opened_replica(limits=limits) as replica:
        shell = server.shell
        await put(shell.store, named(1))
        link = follow(replica, Overheard(server))
        await link.synced()
        await link.close()
        told = tuple(shell.peers.names())
        await shell.store.write([SetLife(named(1), BORN.deleted(), shell.clock.wall(), told)])
        shell.clock.advance(1_000.0)
        assert await shell.peers.bury(shell.clock.wall()) == 1
        if not has_a_mark:
            key = f"{WATERMARKS}ws://server\nnotes"
            await replica.store.write([SetMetadata(key, None)])
        await follow(replica, Overheard(server)).synced()
        await gone(replica, named(1))
        assert await shown(shell.store) == {}


async def test_what_is_read_while_the_document_is_replaced_is_left_to_a_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_replica() as replica:
        await put(replica.store, named(1), text="old")
        life = BORN.successor(replica.clock.wall(), Random(3))
        difference = replica.encodings.difference

        async def late(document: DocumentId, vector: bytes) -> bytes:
            monkeypatch.setattr(replica.encodings, "difference", difference)
            content = typed("new", client=2)
            await succeed(replica, document, life, held=held_by_nobody, content=content)
            return await difference(document, vector)

        monkeypatch.setattr(replica.encodings, "difference", late)
        parcel = await parcel_for(replica, named(1), b"\x00")
        assert parcel.is_apart
        assert parcel.updates == ()


async def test_no_watermark_passes_a_document_that_the_remote_would_not_show() -> None:
    limits = replace(IMPATIENT, refused_seconds=0.01)
    async with opened_server() as server, opened_replica(limits=limits) as replica:
        shell, key = server.shell, f"{WATERMARKS}ws://server\nnotes"
        await put(shell.store, named(1), named(2))
        await shell.tries.settle(SCOPE)
        await shell.set_aside(named(1), "a person has to look at it")
        link = follow(replica, Overheard(server))
        await link._scopes.followers[SCOPE].in_step()
        assert await shown(replica.store) == {named(2): "hello"}
        assert list(link._resting) == [named(1)]
        await put(shell.store, named(3))
        await take_parcel(
            shell, Parcel(named(3), (typed("a", client=3),)), source=99, author=ANYONE, name="peer"
        )
        await until(lambda: link._scopes.followers[SCOPE].progress is Progress.IN_SYNC)
        assert await replica.store.metadata(key) is None
        # The person has looked, and after a rest it is asked for again.
        await shell.store.write([SetMetadata(SET_ASIDE, None, named(1))])
        replica.clock.advance(1.0)
        await link.synced()
        assert (await shown(replica.store))[named(1)] == "hello"
        await link.close()
        await follow(replica, Overheard(server)).synced()
        assert await replica.store.metadata(key) is not None


async def test_two_contents_under_one_client_id_are_found_and_told_once() -> None:
    async with opened_server() as server, opened_replica() as replica:
        for store, text in ((server.shell.store, "hello"), (replica.store, "howdy")):
            await put(store, named(1), named(2))
            await put(store, named(3), text=text, client=7)
        told = replica.witness = Witnessing()
        overheard = Overheard(server)
        link = follow(replica, overheard)
        await link.synced()
        ((document, what),) = told.unsounds
        assert document == named(3)
        assert "a client id was used twice" in what
        assert overheard.count(Root) == 2, "what was edited on the way would not differ again"
        await link.close()
        overheard.forget()
        await follow(replica, overheard).synced()
        assert overheard.count(Root) == 0
        assert len(told.unsounds) == 1


async def test_a_remote_that_claims_another_difference_every_time_is_not_compared_for_ever() -> (
    None
):
    async with opened_server() as server, opened_replica() as replica:
        follower = follow(replica, Overheard(server))._scopes.followers[SCOPE]
        assert not follower.is_to_compare_again(set())
        assert follower.is_to_compare_again({named(1)})
        assert not follower.is_to_compare_again({named(2)})
        assert not follower.is_to_compare_again({named(3)})


async def test_what_differs_once_and_no_more_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_server() as server, opened_replica() as replica:
        later = typed("!", client=2)
        for store in (server.shell.store, replica.store):
            await put(store, named(1))
        await server.shell.store.write([Append(named(1), (later,))])
        told = replica.witness = Witnessing()
        ask = CatchUp._ask

        async def ask_late(self: CatchUp, documents: Any) -> None:
            """Somebody else brings it between the walk and the exchange."""
            if named(1) in documents:
                parcel = Parcel(named(1), (later,))
                await take_parcel(replica, parcel, source=99, author=ANYONE, name="peer")
            await ask(self, documents)

        monkeypatch.setattr(CatchUp, "_ask", ask_late)
        overheard = Overheard(server)
        await follow(replica, overheard).synced()
        assert overheard.count(Root) == 2
        assert told.unsounds == []
        await assert_alike(replica, server.shell)


async def test_a_receipt_is_not_fulfilled_by_who_deleted_what_it_is_for() -> None:
    async with opened_server() as server, opened_replica() as replica:
        shell = server.shell
        await put(shell.store, named(1))
        await shell.store.write([SetLife(named(1), BORN.deleted(), shell.clock.wall(), ())])
        document = await replica.document(named(1))
        document.text("text").insert(0, "mine")
        receipt = await document.commit()
        document.close()
        link = replica.connect("ws://server", dial=server.dial)
        with pytest.raises(LineageEnded):
            await receipt.reached("durable")
        await link.synced()
        assert not receipt.has_reached("durable")
        assert receipt.holders == frozenset()
