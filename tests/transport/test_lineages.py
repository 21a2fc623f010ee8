"""Lives of documents between replicas: deleted, seeded, begun anew; nothing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.clocks import WallTime
from crdt_state.errors import DocumentDeleted, LineageDeleted, LineageEnded, UsageError
from crdt_state.identifiers import ReplicaId
from crdt_state.lineage import BORN
from crdt_state.model.document import Document
from crdt_state.replica.admission import ANYONE
from crdt_state.replica.open_document import OpenDocument
from crdt_state.replica.peers import Peers
from crdt_state.storage.contract import UNKNOWN, SetAside, SetLife
from crdt_state.storage.memory import MemoryStore
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from wired import (
    IMPATIENT,
    NOTES,
    GatedStore,
    Server,
    connected,
    opened_replica,
    opened_server,
    text_of,
    turn,
    typed,
    until,
)


def put(text: str):
    """What fills a seeded document."""
    return lambda document: document.text("text").insert(0, text)


def text(document: Document) -> str:
    return str(document.text("text"))


async def edited(replica: Replica, text: str, at: int = 0) -> OpenDocument:
    document = await replica.document(NOTES)
    document.text("text").insert(at, text)
    await document.saved()
    return document


async def shown(server: Server) -> str | None:
    """The text that a server holds, or None where the document is deleted."""
    stored = await server.shell.store.read(NOTES)
    assert stored is not None
    return None if stored.life.is_deleted else text_of(stored.updates())


async def lives(*places: Server | Replica) -> list[object]:
    stores = [each.shell.store if isinstance(each, Server) else each.store for each in places]
    return [None if s is None else s.life for s in [await each.read(NOTES) for each in stores]]


@asynccontextmanager
async def met(
    *edits: str, stores: Sequence[MemoryStore | None] = (None, None)
) -> AsyncIterator[tuple[Server, Replica, Replica]]:
    """A server and two replicas, ada's and bob's, that hold "common" and are offline again."""
    async with (
        opened_server() as server,
        opened_replica(stores[0], seed=11) as ada,
        opened_replica(stores[1], seed=12) as bob,
    ):
        await edited(ada, "common")
        for replica in (ada, bob):
            await meet(server, replica)
        yield server, ada, bob


async def meet(server: Server, *replicas: Replica) -> None:
    """Each is connected until it is in step, one after the other."""
    for replica in replicas:
        link = connected(replica, server)
        link.follow(NOTES)
        try:
            await link.synced()
        except LineageEnded:
            await link.synced()
        await link.close()


# --- deletion --------------------------------------------------------------------------------


async def test_a_deletion_reaches_everybody_and_wins_over_an_edit_made_meanwhile() -> None:
    async with met() as (server, ada, bob):
        theirs = await bob.document(NOTES)
        await ada.delete(NOTES)
        await edited(bob, "bob's, offline; ")
        await meet(server, ada)
        assert await shown(server) is None
        await meet(server, bob)
        assert await shown(server) is None
        with pytest.raises(DocumentDeleted) as told:
            await theirs.saved()
        assert text_of([*told.value.updates]) == ""  # builds on what was common
        assert theirs.is_closed
        for replica in (ada, bob):
            with pytest.raises(DocumentDeleted):
                await replica.document(NOTES)
        assert await lives(server, ada, bob) == [BORN.deleted()] * 3
        copy = await bob.keep_as_copy(told.value, "copy")
        assert text(copy) == "bob's, offline; common"
        assert [each async for each in bob.ended()] == []
        assert [each async for each in ada.ended()] == []


async def test_who_edited_nothing_is_offered_nothing() -> None:
    async with met() as (server, ada, bob):
        opened = await bob.document(NOTES)
        await ada.delete(NOTES)
        await meet(server, ada, bob)
        with pytest.raises(DocumentDeleted) as told:
            await opened.saved()
        assert told.value.updates == ()
        assert await bob.store.quarantine() == ()


async def test_who_has_it_open_is_told_at_once() -> None:
    async with met() as (server, ada, bob):
        links = [connected(each, server) for each in (ada, bob)]
        ours, theirs = [await each.document(NOTES) for each in (ada, bob)]
        await asyncio.gather(*(link.synced() for link in links))
        await ada.delete(NOTES)
        assert isinstance(ours.error, DocumentDeleted)
        await until(lambda: theirs.error is not None)
        assert isinstance(theirs.error, DocumentDeleted)


async def test_a_document_that_nobody_has_open_is_deleted_too() -> None:
    async with met() as (server, ada, _):
        (await ada.document(NOTES)).close()
        await ada.let_go_of_closed()
        link = connected(ada, server)
        await link.synced()
        await ada.delete(NOTES)
        await link.synced()
        assert await shown(server) is None
        assert await ada.store.outbox("ws://server") == ()
        await ada.delete(NOTES)
        assert await lives(ada) == [BORN.deleted()]


async def test_a_server_that_is_met_for_the_first_time_is_told_of_what_was_deleted_before() -> None:
    async with met() as (server, _, _), opened_replica(seed=14) as eve:
        await edited(eve, "eve's")
        await eve.delete(NOTES)
        link = connected(eve, server)
        await link.synced()
        assert await shown(server) is None


async def test_a_deleted_document_lets_nothing_in() -> None:
    async with opened_replica() as replica:
        await edited(replica, "gone")
        await replica.delete(NOTES)
        with pytest.raises(DocumentDeleted, match="recreate"):
            await replica.document(NOTES)
        stored = await replica.store.read(NOTES)
        assert stored is not None
        assert stored.updates() == []

        class Nobody:
            deliver = refused = lost = lambda *_: None

        await replica.use(NOTES, 7, Nobody())
        with pytest.raises(LineageDeleted):
            replica.receive(NOTES, 7, ANYONE, typed("back"), name="peer")


async def test_to_begin_it_anew_is_explicit_and_what_comes_late_stays_out() -> None:
    async with met() as (server, ada, bob):
        await ada.delete(NOTES)
        with pytest.raises(UsageError, match="is not deleted"):
            await bob.recreate(NOTES)
        again = await ada.recreate(NOTES)
        assert text(again) == ""
        again.text("text").insert(0, "anew")
        await edited(bob, "late; ")
        await meet(server, ada, bob, ada)
        assert await shown(server) == "anew"
        assert text(await bob.document(NOTES)) == "anew"
        assert len({str(life) for life in await lives(server, ada, bob)}) == 1


async def test_who_was_told_of_a_deletion_hears_later_that_it_was_begun_anew() -> None:
    async with met() as (server, ada, bob):
        await ada.delete(NOTES)
        await meet(server, ada, bob)
        link = connected(bob, server)
        again = await ada.recreate(NOTES)
        again.text("text").insert(0, "anew")
        await meet(server, ada)
        with pytest.raises(DocumentDeleted):
            await bob.document(NOTES)  # nobody has asked the server since
        await link.synced()
        assert text(await bob.document(NOTES)) == "anew"


async def test_who_deletes_what_they_edit_is_not_offered_what_is_not_set_aside() -> None:
    async with opened_replica(GatedStore(random=Random(7))) as replica:
        document = await edited(replica, "saved")
        replica.store.gate.clear()  # type: ignore[attr-defined]
        deleting = asyncio.create_task(replica.delete(NOTES))
        await turn(5)
        document.text("text").insert(0, "typed on; ")
        replica.store.gate.set()  # type: ignore[attr-defined]
        await deleting
        error = document.error
        assert isinstance(error, DocumentDeleted)
        assert error.updates
        assert not error.has_copy
        assert "adopt" not in str(error)
        assert [each async for each in replica.ended()] == []


# --- seeds -----------------------------------------------------------------------------------


async def test_two_that_seed_at_once_end_with_one_content_and_a_copy() -> None:
    async with met() as (server, ada, bob):
        await ada.seed(NOTES, put("ada's"))
        ada.clock.advance(1)
        bob.clock.advance(5)
        await bob.seed(NOTES, put("bob's"))
        await meet(server, ada, bob, ada)
        for replica in (ada, bob):
            assert text(await replica.document(NOTES)) == "bob's"
        assert await shown(server) == "bob's"
        assert len({str(life) for life in await lives(server, ada, bob)}) == 1


async def test_the_seed_that_nobody_had_heard_of_is_offered_as_a_copy() -> None:
    async with opened_server() as server, opened_replica(seed=3) as ada, opened_replica() as bob:
        ada.clock.advance(5)
        await ada.seed(NOTES, put("ada's"))
        await meet(server, ada)
        ours = await bob.seed(NOTES, put("bob's"))
        await meet(server, bob)
        with pytest.raises(LineageEnded) as told:
            await ours.saved()
        assert text(await bob.document(NOTES)) == "ada's"
        assert text(await bob.keep_as_copy(told.value, "bob")) == "bob's"


async def test_a_lost_server_that_is_seeded_anew_never_doubles_anything() -> None:
    async with met() as (_, ada, bob):
        before = await edited(bob, " and bob's", at=6)
        async with opened_server() as server:  # at the same address, with nothing in it
            await ada.seed(NOTES, put("Common."))
            await meet(server, ada, bob)
            assert await shown(server) == "Common."
            with pytest.raises(LineageEnded) as told:
                await before.saved()
            assert await bob.rebase(told.value) == ()
            await meet(server, bob, ada)
            assert text(await ada.document(NOTES)) == "Common and bob's."
            assert await shown(server) == "Common and bob's."
            with pytest.raises(UsageError, match="decided"):
                await bob.rebase(told.value)


async def test_a_choice_outlives_a_restart() -> None:
    kept = GatedStore(random=Random(50))
    async with met(stores=(None, kept)) as (server, ada, bob):
        await edited(bob, "bob's ")
        await ada.seed(NOTES, put("common"))
        await meet(server, ada, bob)
    async with opened_replica(kept.reopened(), seed=12) as bob:
        (told,) = [each async for each in bob.ended()]
        assert text_of(list(told.updates)) == "bob's common"
        assert await bob.rebase(told) == ()
        assert text(await bob.document(NOTES)) == "bob's common"
        assert [each async for each in bob.ended()] == []


async def test_of_a_lineage_that_was_set_aside_more_than_once_the_last_is_offered_once() -> None:
    async with met() as (server, ada, bob):
        await edited(bob, "bob's ")
        await ada.seed(NOTES, put("new"))
        await meet(server, ada, bob)
        (told,) = [each async for each in bob.ended()]
        entries = await bob.store.quarantine(NOTES)
        again = [
            SetAside(NOTES, each.update, each.code, each.reason, each.source, each.at)
            for each in entries
        ]
        await bob.store.write(again)
        (offered,) = [each async for each in bob.ended()]
        assert offered.updates == told.updates
        await bob.adopt(offered)
        assert await bob.store.quarantine(NOTES) == ()


async def test_to_adopt_is_to_let_go() -> None:
    async with met() as (server, ada, bob):
        await edited(bob, "bob's ")
        await ada.seed(NOTES, put("new"))
        await meet(server, ada, bob)
        (told,) = [each async for each in bob.ended()]
        await bob.adopt(told)
        assert text(await bob.document(NOTES)) == "new"
        assert await bob.store.quarantine() == ()
        with pytest.raises(UsageError, match="decided"):
            await bob.adopt(told)


async def test_a_copy_takes_no_name_that_is_taken() -> None:
    async with met() as (server, ada, bob):
        await edited(bob, "bob's ")
        await ada.seed(NOTES, put("new"))
        await meet(server, ada, bob)
        (told,) = [each async for each in bob.ended()]
        with pytest.raises(UsageError, match="another name"):
            await bob.keep_as_copy(told, NOTES)
        assert len([each async for each in bob.ended()]) == 1


async def test_where_it_is_not_known_what_was_common_all_is_kept_and_nothing_rebased() -> None:
    async with met() as (server, ada, bob):
        await edited(bob, "bob's ")
        store = bob.store
        for key, owed in list(store._outbox.items()):
            store._outbox[key] = owed._replace(since=UNKNOWN)
        await ada.seed(NOTES, put("common"))
        await meet(server, ada, bob)
        (told,) = [each async for each in bob.ended()]
        with pytest.raises(UsageError, match="keep_as_copy"):
            await bob.rebase(told)
        assert text(await bob.keep_as_copy(told, "copy")) == "bob's common"


async def test_who_seeds_a_document_that_everybody_had_loses_nothing_of_others() -> None:
    async with met() as (server, ada, bob):
        links = [connected(each, server) for each in (ada, bob)]
        theirs = await bob.document(NOTES)
        await asyncio.gather(*(link.synced() for link in links))
        await ada.seed(NOTES, put("new"))
        await until(lambda: theirs.is_closed)
        again = await bob.document(NOTES)
        await links[1].synced()
        again.text("text").insert(0, "bob's ")
        await links[1].synced()
        await links[0].synced()
        assert text(await ada.document(NOTES)) == "bob's new"


# --- rights, and the other wire --------------------------------------------------------------


async def test_a_tombstone_that_a_server_learned_of_is_told_to_who_comes_later() -> None:
    async with opened_server() as server, opened_replica() as ada:
        await server.shell.store.write([SetLife(NOTES, BORN.deleted(), server.shell.clock.wall())])
        document = await edited(ada, "offline")
        await meet(server, ada)
        with pytest.raises(DocumentDeleted) as told:
            await document.saved()
        assert text_of(list(told.value.updates)) == "offline"
        assert await shown(server) is None


async def test_over_y_websocket_another_lineage_is_kept_apart_in_both_directions() -> None:
    async with met() as (server, ada, bob):
        await ada.seed(NOTES, put("new"))
        link = connected(ada, server, Wire.Y_WEBSOCKET)
        await until(lambda: "4409" in (link.last_error or ""))
        assert await shown(server) == "common"
        await link.close()
        await meet(server, ada)
        await edited(bob, "bob's ")
        link = connected(bob, server, Wire.Y_WEBSOCKET)
        await until(lambda: "4409" in (link.last_error or ""))
        assert await shown(server) == "new"
        await link.close()


async def test_over_y_websocket_a_deleted_document_is_closed_with_4404() -> None:
    async with met() as (server, ada, bob):
        await ada.delete(NOTES)
        await meet(server, ada)
        await bob.document(NOTES)
        link = connected(bob, server, Wire.Y_WEBSOCKET)
        await until(lambda: "4404" in (link.last_error or ""))
        assert await shown(server) is None
        assert text(await bob.document(NOTES)) == "common", "and nobody took it away there"


# --- peers that are known, and forgotten -----------------------------------------------------


async def test_a_tombstone_stays_until_every_known_peer_has_passed_it() -> None:
    async with met() as (server, ada, bob):
        clock, peers = server.shell.clock, server.shell.peers
        await ada.delete(NOTES)
        await meet(server, ada)
        clock.advance(IMPATIENT.peer_forget_seconds * 0.9)
        await peers.met(bob.store.replica_id, clock.wall())  # here, and about other documents
        clock.advance(IMPATIENT.peer_forget_seconds * 0.9)
        assert await peers.bury(clock.wall()) == 0, "bob has not heard of it"
        await meet(server, bob)
        assert await lives(bob) == [BORN.deleted()]
        assert await peers.bury(clock.wall()) == 1
        assert await server.shell.store.read(NOTES) is None


async def test_a_forgotten_peer_that_returns_brings_nothing_back() -> None:
    async with met() as (server, ada, bob):
        clock, peers = server.shell.clock, server.shell.peers
        await ada.delete(NOTES)
        await meet(server, ada)
        clock.advance(IMPATIENT.peer_forget_seconds * 1.5)
        assert await peers.bury(clock.wall()) == 1
        assert await server.shell.store.read(NOTES) is None, "nobody remembers it"
        document = await edited(bob, "after a year: ")
        born = await bob.document("born/later")
        born.text("text").insert(0, "new")
        await meet(server, bob)
        assert await shown(server) is None, "bob has told of it once more"
        with pytest.raises(DocumentDeleted) as told:
            await document.saved()
        copy = await bob.keep_as_copy(told.value, "copy")
        assert text(copy) == "after a year: common"
        await meet(server, bob)
        assert {line.document for line in await server.shell.store.list()} == {"born/later", "copy"}


async def test_peers_are_known_after_a_restart_and_the_most_silent_go_first() -> None:
    store = MemoryStore()
    limits = replace(IMPATIENT, peers_max=2)
    peers = Peers(store, limits)
    ids = [ReplicaId(bytes([n]) * 16) for n in range(3)]
    hour = 3_600_000_000
    for n, each in enumerate(ids):
        assert not await peers.met(each, WallTime(n * 48 * hour + hour))
    again = Peers(store, limits)
    await again.load()
    assert again.names() == peers.names() == tuple(map(Peers.name_of, ids[1:]))
    assert await again.met(ids[0], WallTime(150 * hour)), "it was forgotten"


# --- any order -------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["delete", "seed", "edit", "meet"])),
        max_size=7,
    )
)
def test_whatever_was_ended_and_begun_where_all_end_alike_and_no_tag_is_doubled(
    steps: list[tuple[int, str]],
) -> None:
    async def run() -> None:
        async with met() as (server, *replicas):
            for number, (at, what) in enumerate(steps):
                replica = replicas[at]
                replica.clock.advance(1)
                try:
                    if what == "delete":
                        await replica.delete(NOTES)
                    elif what == "seed":
                        await replica.seed(NOTES, put(f"<{number}>"))
                    elif what == "edit":
                        await edited(replica, f"<{number}>")
                    else:
                        await meet(server, replica)
                except DocumentDeleted:
                    pass
            await meet(server, *replicas, *replicas)
            found = await lives(server, *replicas)
            assert len({str(life) for life in found}) == 1, found
            text = await shown(server)
            for replica in replicas:
                stored = await replica.store.read(NOTES)
                assert (text_of(stored.updates()) or "") == (text or "")
            for tag in {f"<{number}>" for number in range(len(steps))} | {"common"}:
                assert (text or "").count(tag) <= 1

    asyncio.run(run())
