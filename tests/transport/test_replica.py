"""`crdt_state.transport.replica`: what an application has in its hands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from crdt_state.errors import (
    AlreadyConnected,
    CrdtStateError,
    InvalidDocumentId,
    LimitExceeded,
    StoreInUse,
    StoreUnavailable,
)
from crdt_state.sync.exchange import Progress
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from wired import (
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    connected,
    opened_replica,
    opened_server,
    text_of,
    turn,
    until,
)


async def test_a_replica_works_at_once_and_keeps_what_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Replica.open(path) as replica:
        note = await replica.document("notes/today")
        note.text("text").insert(0, "hello")
    async with Replica.open(path) as replica:
        note = await replica.document("notes/today")
        assert str(note.text("text")) == "hello"


async def test_a_second_replica_on_the_same_file_is_a_clear_error(tmp_path: Path) -> None:
    async with Replica.open(tmp_path / "notes.db"):
        with pytest.raises(StoreInUse):
            await Replica.open(tmp_path / "notes.db")


async def test_it_can_be_opened_without_a_block(tmp_path: Path) -> None:
    replica = await Replica.open(tmp_path / "notes.db")
    await replica.document("notes")
    await replica.close()
    await replica.close()
    with pytest.raises(CrdtStateError):
        await replica.document("notes")


async def test_a_document_is_the_same_object_while_it_is_open() -> None:
    async with opened_replica() as replica:
        first, second = await asyncio.gather(replica.document("notes"), replica.document("notes"))
        assert first is second
        assert await replica.document("notes") is first
        first.close()
        assert await replica.document("notes") is not first


async def test_one_who_gives_up_opening_does_not_end_it_for_others() -> None:
    store = GatedStore()
    async with opened_replica(store) as replica:
        store.reading.clear()
        gives_up = asyncio.create_task(replica.document("notes"))
        stays = asyncio.create_task(replica.document("notes"))
        await turn()
        gives_up.cancel()
        store.reading.set()
        assert await replica.document("notes") is await stays


async def test_opening_again_and_again_at_once_never_makes_two() -> None:
    store = GatedStore()
    async with opened_replica(store) as replica:
        document = await replica.document("notes")
        document.close()
        store.reading.clear()
        first = asyncio.create_task(replica.document("notes"))
        await turn()
        other = asyncio.create_task(replica.document("other"))
        await turn()
        second = asyncio.create_task(replica.document("notes"))
        await turn()
        store.reading.set()
        assert await first is await second
        await other


async def test_a_document_that_could_not_be_opened_can_be_opened_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_replica() as replica:

        async def fail(_: object) -> None:
            raise StoreUnavailable("an I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(replica.store, "read", fail)
            with pytest.raises(StoreUnavailable):
                await replica.document("notes")
        assert not (await replica.document("notes")).is_closed


async def test_open_documents_are_bounded_and_closed_ones_do_not_count() -> None:
    limits = replace(IMPATIENT, open_documents_bytes_max=1_000)
    async with opened_replica(limits=limits) as replica:
        for name in ("one", "two"):
            document = await replica.document(name)
            document.text("text").insert(0, "x" * 600)
            await document.saved()
            document.close()
        one = await replica.document("one")
        with pytest.raises(LimitExceeded, match="open_documents_bytes_max"):
            await replica.document("two")
        one.close()
        await replica.document("two")


async def test_what_is_no_document_id_and_no_address_is_refused() -> None:
    async with opened_replica() as replica:
        with pytest.raises(InvalidDocumentId):
            await replica.document("../notes")
        with pytest.raises(ValueError, match="ws://"):
            replica.connect("http://localhost")


async def test_one_link_to_a_remote_at_a_time(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server, wire)
        with pytest.raises(AlreadyConnected, match="close it first"):
            connected(replica, server, wire)
        await replica.disconnect(link)
        await replica.disconnect(link)
        connected(replica, server, wire)


async def test_to_close_a_link_is_to_disconnect_it(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server, wire)
        document = await replica.document("notes")
        document.text("text").insert(0, "a")
        await link.synced()
        await link.close()
        await link.close()
        await edit(replica, "other", "opened while nobody is connected")
        document.close()
        await replica.let_go_of_closed()
        assert replica._open == {}, "no link holds on to it"
        again = connected(replica, server, wire)
        await link.close()
        await replica.disconnect(link)
        assert replica._links == [again], "whatever is done to the old one"
        await again.synced()
        assert server.shell.store.appended(OTHER) != []


async def test_a_closed_document_is_let_go_once_it_is_in_step(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server, wire)
        document = await replica.document("notes")
        await link.synced()
        document.text("text").insert(0, "hello")
        document.close()
        await replica.let_go_of_closed()
        assert link.progress_of(NOTES) is not Progress.OFFLINE, "its last edit is under way"
        await link.synced()
        await until(lambda: link.progress_of(NOTES) is Progress.IN_SYNC)
        assert await replica.store.outbox(link.remote) == ()
        await replica.let_go_of_closed()
        assert link.progress_of(NOTES) is Progress.OFFLINE
        await turn()
        assert len(replica.core) == 0
        assert server.listener.rooms == {}
        again = await replica.document("notes")
        assert str(again.text("text")) == "hello"
        await link.synced()
        assert link.progress_of(NOTES) is Progress.IN_SYNC


async def test_a_closed_document_is_not_let_go_while_somebody_waits_for_it_to_be_synced(
    wire: Wire,
) -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server, wire)
        document = await replica.document("notes")
        await link.synced()
        await until(lambda: link.progress_of(NOTES) is Progress.IN_SYNC)
        document.close()
        waits = asyncio.create_task(link.synced())
        await turn(1)
        await replica.let_go_of_closed()
        await waits
        await until(lambda: not link.needs(NOTES))
        await replica.let_go_of_closed()
        assert link.progress_of(NOTES) is Progress.OFFLINE


async def test_an_open_document_is_not_let_go(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server, wire)
        document = await replica.document("notes")
        await link.synced()
        await replica.let_go_of_closed()
        assert link.progress_of(NOTES) is Progress.IN_SYNC
        document.close()
        again = await replica.document("notes")
        await replica.let_go_of_closed()
        assert not again.is_closed
        assert link.progress_of(NOTES) is Progress.IN_SYNC


async def test_closing_stores_what_was_edited_and_ends_every_link(wire: Wire) -> None:
    store = GatedStore()
    async with opened_server() as server:
        async with opened_replica(store) as replica:
            link = connected(replica, server, wire)
            document = await replica.document("notes")
            await link.synced()
            document.text("text").insert(0, "hello")
        assert document.is_closed
        assert store.is_closed
        assert len(store.appended()) == 1
        await turn()
        assert server.listener.traffic.connections == 0


async def test_closing_ends_while_a_document_is_being_opened() -> None:
    store = GatedStore()
    async with opened_replica(store) as replica:
        store.reading.clear()
        opening = asyncio.create_task(replica.document("notes"))
        await turn()
        await replica.close()
        with pytest.raises((asyncio.CancelledError, CrdtStateError)):
            await opening


# --- remotes that are not connected -----------------------------------------------------------


async def edit(replica: Replica, name: str, text: str) -> None:
    """Edit a document that nobody keeps open."""
    document = await replica.document(name)
    document.text("text").append(text)
    await document.saved()
    document.close()


async def outbox(replica: Replica, remote: str = "ws://server") -> list[str]:
    return [entry.document for entry in await replica.store.outbox(remote)]


async def test_what_is_edited_before_connecting_again_is_owed_after_a_restart(wire: Wire) -> None:
    store = GatedStore()
    async with opened_server() as server:
        async with opened_replica(store) as one:
            await edit(one, "notes", "one ")
            await connected(one, server, wire).synced()
        async with opened_replica(store.reopened()) as again:  # type: ignore[arg-type]
            await edit(again, "notes", "two ")
            await edit(again, "other", "new")
            assert await outbox(again) == ["notes", "other"]
            await connected(again, server, wire).synced()
            assert await outbox(again) == []
        assert text_of(server.shell.store.appended()) == "one two "
        assert text_of(server.shell.store.appended(OTHER)) == "new"


async def test_what_is_edited_between_two_links_is_owed(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server, wire)
        await link.synced()
        await one.disconnect(link)
        await edit(one, "notes", "between")
        assert await outbox(one) == ["notes"]
        await connected(one, server, wire).synced()
        assert text_of(server.shell.store.appended()) == "between"


async def test_a_forgotten_remote_is_owed_nothing_until_it_is_connected_again(wire: Wire) -> None:
    store = GatedStore()
    async with opened_server() as server:
        async with opened_replica(store) as one:
            link = connected(one, server, wire)
            await link.synced()
            with pytest.raises(AlreadyConnected, match="close it first"):
                await one.forget_remote("ws://server/")
            await one.disconnect(link)
            await edit(one, "notes", "a")
            await one.forget_remote("ws://server/")
            assert await outbox(one) == []
            await edit(one, "notes", "b")
            assert await outbox(one) == []
        async with opened_replica(store.reopened()) as again:  # type: ignore[arg-type]
            await edit(again, "notes", "c")
            assert await outbox(again) == []
            await connected(again, server, wire).synced()
        assert text_of(server.shell.store.appended()) == "abc"


async def test_remotes_are_bounded() -> None:
    async with (
        opened_server() as server,
        opened_replica(limits=replace(IMPATIENT, remotes_max=1)) as one,
    ):
        await connected(one, server, Wire.Y_WEBSOCKET).synced()
        with pytest.raises(LimitExceeded, match="remotes_max"):
            one.connect("ws://another", dial=server.dial, wire=Wire.Y_WEBSOCKET)
