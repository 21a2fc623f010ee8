"""`crdt_state.transport.conversation`: what follows from how a conversation ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.errors import EditNotStored, EditRefused
from crdt_state.identifiers import DocumentId
from crdt_state.protocol.ywebsocket import SyncStep1, SyncStep2, Update, decode, encode
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.storage.contract import Append, Forget
from crdt_state.sync.exchange import Progress
from crdt_state.transport.link import Link, Refused, Wire
from crdt_state.transport.memory import MemoryConnection, memory_pair
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

SMALL = replace(IMPATIENT, update_bytes_max=1_000)
PASTE = "x" * 5_000
PATIENT_AFTER_NO = replace(IMPATIENT, refused_seconds=3_600.0)


async def owed(replica: Replica, link: Link) -> list[str]:
    return [entry.document for entry in await replica.store.outbox(link.remote)]


def dial_of(server: Server, name: str) -> object:
    async def dial(url: str) -> MemoryConnection:
        server.dials += 1
        return server.visit(url.removeprefix(f"ws://{name}/"))

    return dial


# --- what the remote brings ---------------------------------------------------------------------


async def test_a_state_beyond_the_bound_on_one_authors_update_comes_in_portions(wire: Wire) -> None:
    async with opened_server() as server, opened_replica() as author:
        long = await author.document("notes")
        for number in range(60):
            long.text("text").insert(0, f"{number:04} " * 20)
        link = connected(author, server, wire)
        await link.synced()
        written = str(long.text("text"))
        assert len(written) > 4 * SMALL.update_bytes_max
        async with opened_replica(limits=SMALL, seed=3) as reader:
            document = await reader.document("notes")
            await connected(reader, server, wire).synced()
            assert str(document.text("text")) == written


# --- what we bring is refused -------------------------------------------------------------------


async def test_a_refused_edit_is_handed_back_and_nothing_else_is_lost(wire: Wire) -> None:
    async with opened_server(limits=SMALL) as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "kept ")
        await link.synced()
        document.text("text").insert(5, PASTE)
        await until(lambda: document.is_closed)
        error = document.error
        assert isinstance(error, EditRefused)
        assert error.code == 4413
        assert error.remote == link.remote
        assert "open the document again" in str(error)
        with pytest.raises(EditRefused):
            await document.saved()
        assert PASTE in text_of([*server.shell.store.appended(), *error.updates])
        again = await one.document("notes")
        assert str(again.text("text")) == "kept "
        assert again.client_id != document.client_id
        again.text("text").append("and more")
        await link.synced()
        assert text_of(server.shell.store.appended()) == "kept and more"
        assert await owed(one, link) == []
        (aside,) = await one.store.quarantine(NOTES)
        assert (aside.code, aside.update) == (4413, error.updates[0])
        assert link.remote in aside.source
        assert link.refusals == (Refused("notes", 4413, error.reason, len(error.updates[0])),)


async def test_a_refusal_survives_a_restart_and_takes_back_what_the_edit_deleted(
    wire: Wire,
) -> None:
    store = GatedStore(limits=IMPATIENT, random=Random(2))
    async with opened_server(limits=SMALL) as server:
        async with opened_replica(store) as one:
            link = connected(one, server, wire)
            document = await one.document("notes")
            document.text("text").insert(0, "hello")
            await link.synced()
            with document.transaction():  # a paste over what is selected
                document.text("text").delete(0, 5)
                document.text("text").insert(0, PASTE)
            await until(lambda: document.is_closed)
        async with opened_replica(store.reopened()) as again:  # type: ignore[arg-type]
            assert str((await again.document("notes")).text("text")) == "hello"
            assert await again.store.outbox("ws://server") == ()
        assert text_of(server.shell.store.appended()) == "hello"


async def test_what_is_made_offline_and_refused_while_nobody_has_it_open_is_set_aside(
    wire: Wire,
) -> None:
    async with opened_server(limits=SMALL) as server, opened_replica() as one:
        document = await one.document("notes")
        document.text("text").insert(0, PASTE)
        await document.saved()
        document.close()
        link = connected(one, server, wire)
        await until(lambda: link.refusals != ())
        await link.synced()
        assert await owed(one, link) == []
        assert len(await one.store.quarantine(NOTES)) == 1
        assert str((await one.document("notes")).text("text")) == ""


async def test_who_waits_for_a_refused_edit_is_told(wire: Wire) -> None:
    async with opened_server(limits=SMALL) as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        await link.synced()
        document.text("text").insert(0, PASTE)
        with pytest.raises(EditRefused):
            await link.synced()


async def test_what_is_edited_while_a_refusal_is_dealt_with_is_handed_back_as_well(
    wire: Wire,
) -> None:
    store = GatedStore(limits=IMPATIENT, random=Random(2))
    async with opened_server(limits=SMALL) as server, opened_replica(store) as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        await link.synced()
        document.text("text").insert(0, PASTE)
        await document.saved()
        store.gate.clear()
        await turn(200)
        document.text("text").insert(0, "later ")
        await turn()
        store.gate.set()
        await until(lambda: document.is_closed)
        assert isinstance(document.error, EditRefused)
        assert text_of(document.error.updates) == "later " + PASTE


async def test_an_unstored_fold_does_not_bring_back_what_was_set_aside(wire: Wire) -> None:
    async with opened_server(limits=SMALL) as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "kept")
        await link.synced()
        for _ in range(600):  # enough for a fold, at once
            document.text("text").append("x" * 2_000)
        await until(lambda: document.is_closed)
        await one.compaction.fold(NOTES)
        await turn(100)
        assert str((await one.document("notes")).text("text")) == "kept"
        await link.synced()


async def test_another_remote_is_owed_what_is_left_and_not_what_was_refused() -> None:
    async with (
        opened_server(limits=SMALL) as small,
        opened_server() as large,
        opened_replica() as one,
    ):
        document = await one.document("notes")
        large_link = one.connect("ws://large", dial=dial_of(large, "large"), wire=Wire.Y_WEBSOCKET)  # type: ignore[arg-type]
        await large_link.synced()
        await one.disconnect(large_link)
        link = connected(one, small, Wire.Y_WEBSOCKET)
        document.text("text").insert(0, "kept ")
        await link.synced()
        document.text("text").append(PASTE)
        await until(lambda: document.is_closed)
        assert [entry.document for entry in await one.store.outbox("ws://large")] == [NOTES]
        large_link = one.connect("ws://large", dial=dial_of(large, "large"), wire=Wire.Y_WEBSOCKET)  # type: ignore[arg-type]
        await large_link.synced()
        assert text_of(large.shell.store.appended()) == "kept "


async def test_what_another_remote_holds_is_kept_and_offered_again_much_later() -> None:
    limits = PATIENT_AFTER_NO
    async with (
        opened_server(limits=SMALL) as small,
        opened_server() as large,
        opened_replica(limits=limits) as one,
    ):
        document = await one.document("notes")
        large_link = one.connect("ws://large", dial=dial_of(large, "large"), wire=Wire.Y_WEBSOCKET)  # type: ignore[arg-type]
        document.text("text").insert(0, PASTE)
        await large_link.synced()
        link = connected(one, small, Wire.Y_WEBSOCKET)
        await until(lambda: "ws://large holds it" in (link.last_error or ""))
        await turn(200)
        assert small.dials == 1
        assert not document.is_closed
        assert await owed(one, link) == [NOTES]
        assert await one.store.quarantine(NOTES) == ()


async def test_two_remotes_that_refuse_the_same_edit_set_it_aside_once() -> None:
    async with (
        opened_server(limits=SMALL) as server,
        opened_server(limits=SMALL) as other,
        opened_replica() as one,
    ):
        links = (
            connected(one, server, Wire.Y_WEBSOCKET),
            one.connect("ws://other", dial=dial_of(other, "other"), wire=Wire.Y_WEBSOCKET),  # type: ignore[arg-type]
        )
        document = await one.document("notes")
        for link in links:
            await link.synced()
        document.text("text").insert(0, PASTE)
        await until(lambda: document.is_closed)
        again = await one.document("notes")
        again.text("text").insert(0, "small")
        for link in links:
            await link.synced()
        assert len(await one.store.quarantine(NOTES)) == 1
        for each in (server, other):
            assert text_of(each.shell.store.appended()) == "small"


async def test_our_own_limits_hand_an_edit_back_and_the_document_can_be_opened_again(
    wire: Wire,
) -> None:
    async with opened_server() as server, opened_replica(limits=SMALL) as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "kept ")
        await document.saved()
        document.text("text").append(PASTE)
        document.text("text").append(" behind it")
        with pytest.raises(EditNotStored) as caught:
            await document.saved()
        assert len(caught.value.updates) == 2
        handed_back = text_of([*one.store.appended(), *caught.value.updates])  # type: ignore[attr-defined]
        assert handed_back == f"kept {PASTE} behind it"
        assert document.is_closed
        again = await one.document("notes")
        again.text("text").append("and more")
        await link.synced()
        assert text_of(server.shell.store.appended()) == "kept and more"


async def test_a_long_time_offline_is_not_taken_for_one_large_edit(wire: Wire) -> None:
    async with opened_server(limits=SMALL) as server, opened_replica(limits=SMALL) as one:
        document = await one.document("notes")
        for number in range(40):
            document.text("text").insert(0, f"{number % 10}" * 300)
            await document.saved()
        document.text("text").delete(0, 300)
        link = connected(one, server, wire)
        await link.synced()
        assert not document.is_closed
        assert link.refusals == ()
        assert await one.store.quarantine(NOTES) == ()
        assert text_of(server.shell.store.appended()) == str(document.text("text"))


# --- the document is unwelcome --------------------------------------------------------------------


class Refusing:
    """A remote that closes every connection with one code, after `words`."""

    def __init__(self, code: int, *, is_greeting: bool = True) -> None:
        self.code = code
        self.is_greeting = is_greeting
        self.dials = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def dial(self, url: str) -> MemoryConnection:
        self.dials += 1
        ours, theirs = memory_pair("client", url)
        self.tasks.append(asyncio.create_task(self._refuse(theirs)))
        return ours

    async def _refuse(self, end: MemoryConnection) -> None:
        if self.is_greeting:
            end.send(encode(SyncStep1(b"\0")))
        await end.receive()
        await end.close(self.code, "not here")


@pytest.mark.parametrize("code", [4404, 4423, 4430, 4413, 4422])
async def test_a_remote_that_will_not_have_a_document_is_asked_again_much_later(code: int) -> None:
    remote = Refusing(code, is_greeting=False)
    async with opened_replica(limits=PATIENT_AFTER_NO) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await document.saved()
        await until(lambda: "not here" in (link.last_error or ""))
        await turn(200)
        assert remote.dials == 1
        assert not document.is_closed
        assert await owed(one, link) == [NOTES]


@pytest.mark.parametrize("code", [4401, 4403, 1013])
async def test_what_may_be_put_right_soon_is_tried_again_and_the_edit_stays(code: int) -> None:
    remote = Refusing(code)
    async with opened_replica(limits=PATIENT_AFTER_NO) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await until(lambda: remote.dials > 3)
        assert not document.is_closed
        assert await owed(one, link) == [NOTES]
        assert "not here" in (link.last_error or "")


@pytest.mark.parametrize("code", [4401, 4403, 4404, 4423, 4429])
async def test_who_is_not_let_in_can_see_so_until_that_changes(code: int, wire: Wire) -> None:
    remote = Refusing(code, is_greeting=False)
    fates = iter([remote.dial, remote.dial, remote.dial, None, remote.dial, remote.dial])
    seen: list[Progress] = []
    limits = replace(IMPATIENT, refused_seconds=0.0)
    async with opened_server() as server, opened_replica(limits=limits) as one:

        async def dial(url: str) -> MemoryConnection:
            fate = next(fates, server.dial)
            if fate is None:
                raise OSError("nobody answers")
            return await fate(url.replace("remote", "server"))

        link = one.connect("ws://remote", dial=dial, wire=wire)
        link.watch(seen.append)
        document = await one.document("notes")
        await until(lambda: link.progress is Progress.REFUSED)
        assert "not here" in (link.last_error or "")
        await document.saved()
        await link.synced()
        # A handshake of y-websocket's says nothing yet; a greeting of ours does.
        opened = [Progress.CATCHING_UP] if wire is Wire.Y_WEBSOCKET else []
        assert seen == [
            Progress.CONNECTING,
            *opened,
            Progress.REFUSED,
            Progress.OFFLINE,
            Progress.CONNECTING,
            *opened,
            Progress.REFUSED,
            Progress.CATCHING_UP,
            Progress.IN_SYNC,
        ]


class OnlyNotes:
    """An authentication that knows of one document."""

    def grant(self, token: str | None, *, now: object) -> Grant:
        return Grant("ada", (Right("notes", Access.WRITE),))


async def test_a_link_is_refused_while_one_of_its_documents_is() -> None:
    async with (
        opened_server(authentication=OnlyNotes()) as server,
        opened_replica() as one,
    ):
        link = connected(one, server)
        notes, other = await one.document("notes"), await one.document("other")
        await until(lambda: link.progress_of(notes.id) is Progress.IN_SYNC)
        await until(lambda: link.progress is Progress.REFUSED)
        assert link.progress_of(other.id) is Progress.REFUSED


class ReadOnly:
    """An authentication that lets everybody read."""

    def grant(self, token: str | None, *, now: object) -> Grant:
        return Grant("reader", (Right("**", Access.READ),))


async def test_an_edit_without_the_right_to_write_stays_where_it_is(wire: Wire) -> None:
    async with opened_server(authentication=ReadOnly()) as server, opened_replica() as one:
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await until(lambda: "4403" in (link.last_error or ""))
        await turn(200)  # for it to be tried again, and again
        assert not document.is_closed
        assert await owed(one, link) == [NOTES]
        assert await one.store.quarantine(NOTES) == ()
        assert "4403" in (link.last_error or "")


async def test_an_edit_beyond_a_quota_stays_where_it_is_and_goes_out_once_there_is_room(
    wire: Wire,
) -> None:
    limits = replace(IMPATIENT, identity_documents_max=1, refused_seconds=0.0)
    store = GatedStore(limits=limits)
    await store.write([Append(DocumentId("old"), (typed("o"),), creator="writer")])
    async with (
        opened_server(store, limits=limits, authentication=Writer()) as server,
        opened_replica(limits=limits) as one,
    ):
        link = connected(one, server, wire)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await until(lambda: server.listener.traffic.beyond_quota > 3)
        assert not document.is_closed
        assert await owed(one, link) == [NOTES]
        assert await one.store.quarantine(NOTES) == ()
        assert "4430" in (link.last_error or "")
        assert "identity_documents_max" in (link.last_error or "")
        await store.write([Forget(DocumentId("old"))])
        server.shell.clock.advance(limits.usage_recount_seconds)
        await link.synced()
        assert await owed(one, link) == []
        assert text_of(store.appended()) == "hello"


class Writer:
    """An authentication that lets everybody write, as one identity."""

    def grant(self, token: str | None, *, now: object) -> Grant:
        return Grant("writer", (Right("**", Access.WRITE),))


# --- a remote that does not read, or does not keep ------------------------------------------------


class ByHand:
    """A remote whose every word a test says."""

    def __init__(self) -> None:
        self.ends: list[MemoryConnection] = []

    async def dial(self, url: str) -> MemoryConnection:
        ours, theirs = memory_pair("client", url)
        self.ends.append(theirs)
        return ours

    async def connection(self) -> MemoryConnection:
        await until(lambda: bool(self.ends))
        return self.ends.pop(0)


async def test_a_remote_that_does_not_read_is_hung_up_on_and_misses_nothing() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=10_000)
    remote = ByHand()
    async with opened_replica(limits=limits) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "s" * 20_000)  # a state may be larger than the bound
        await document.saved()
        end = await remote.connection()
        end.send(encode(SyncStep1(b"\0")))
        await turn()
        for _ in range(5):
            document.text("text").append("x" * 1_000)
            await document.saved()
        assert remote.ends == []
        for _ in range(20):
            document.text("text").append("x" * 1_000)
            await document.saved()
        assert sum(map(len, end._inbox)) < 20_000 + 10_000 + 2 * 1_100
        assert "does not read" in (link.last_error or "")
        end = await remote.connection()
        end.send(encode(SyncStep1(b"\0")))
        update = await heard(end, SyncStep2)
        assert text_of([update]) == "s" * 20_000 + "x" * 25_000


async def heard(end: MemoryConnection, kind: type[SyncStep2 | Update]) -> bytes:
    while True:
        message = decode(await end.receive())
        if isinstance(message, kind):
            return message.update


async def test_what_waits_behind_a_state_that_is_read_slowly_is_bounded() -> None:
    limits = replace(IMPATIENT, peer_queue_bytes_max=10_000)
    remote, store = ByHand(), GatedStore(limits=limits, random=Random(2))
    async with opened_replica(store, limits=limits) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "state ")
        await document.saved()
        end = await remote.connection()
        one.encodings.drop(NOTES)
        store.reading.clear()
        end.send(encode(SyncStep1(b"\0")))
        await turn()
        for _ in range(12):
            document.text("text").append("x" * 1_000)
            await document.saved()
        store.reading.set()
        again = await remote.connection()
        assert "while the state was read" in (link.last_error or "")
        again.send(encode(SyncStep1(b"\0")))
        assert text_of([await heard(again, SyncStep2)]) == "state " + "x" * 12_000


async def test_a_remote_that_never_confirms_is_asked_ever_more_rarely_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = replace(IMPATIENT, confirm_seconds=0.5, confirm_seconds_max=3.0)
    remote, waits = ByHand(), list[float]()
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def at_once(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__name__", "") == "_start_asking":
            waits.append(delay)
            delay = 0.0
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", at_once)
    async with opened_replica(limits=limits) as one:
        link = one.connect("ws://remote", dial=remote.dial, wire=Wire.Y_WEBSOCKET)
        document = await one.document("notes")
        document.text("text").insert(0, "a")
        await document.saved()
        end = await remote.connection()
        end.send(encode(SyncStep1(b"\0")))
        end.send(encode(SyncStep2(b"\0\0")))
        held = await heard(end, SyncStep2)
        for _ in range(5):
            await asked(end)
            end.send(encode(SyncStep2(b"\0\0")))
        await asked(end)
        end.send(encode(SyncStep2(held)))
        await until(lambda: link.progress is Progress.IN_SYNC)
        assert waits == [0.0, 1.0, 2.0, 3.0, 3.0, 3.0]
        document.text("text").append("b")
        await asked(end)
        assert waits[6:] == [0.5]


async def asked(end: MemoryConnection) -> None:
    while not isinstance(decode(await end.receive()), SyncStep1):
        pass
