"""`crdt_state.replica.attachment`: one order of revisions, in the commits that change the text."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.bridge import Accepted, Repeated, decode, epoch_of
from crdt_state.errors import (
    DocumentClosed,
    DocumentSetAside,
    EngineFailed,
    LineageDeleted,
    LineageEnded,
    StoreFull,
    UsageError,
    WorkerFailed,
)
from crdt_state.lib0 import encode_string
from crdt_state.lineage import BORN
from crdt_state.ot import EMPTY, Insert, Operation, Retain, apply
from crdt_state.ot.formats import TEXT_UNICODE
from crdt_state.protocol.sharedb import text_types
from crdt_state.replica import attachment as attaching
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.attachment import TYPE, Attachment, Submission
from crdt_state.replica.document_core import LOCAL
from crdt_state.replica.succession import held_by_anybody, succeed
from crdt_state.replica.workers import InProcess, WorkerProcesses
from crdt_state.storage.contract import Append, KeepText, Revise, SetMetadata
from hostile import item, section, string, update
from wired import (
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    Reports,
    Shell,
    Watcher,
    opened_shell,
    text_of,
    turn,
    typed,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from crdt_state.bridge import Decision, Revision
    from crdt_state.replica.text_sessions import TextSession
    from crdt_state.storage.contract import StoredRevisions, Write

UNICODE = text_types.TEXT_UNICODE.uri
SMILE = "a\N{GRINNING FACE}b"


@dataclass
class Following:
    """A follower that keeps what it is told, and what was decided of what it submitted."""

    attachment: Attachment
    source: int
    told: list[Revision] = field(default_factory=list)
    decided: list[Decision | None] = field(default_factory=list)
    error: Exception | None = None

    def published(self, revisions: Sequence[Revision]) -> None:
        self.told += revisions

    def detached(self, error: Exception) -> None:
        assert self.error is None, "told once"
        self.error = error

    @property
    def head(self) -> int:
        return self.attachment.revisions.head

    @property
    def shown(self) -> str:
        return in_plain(self.attachment.revisions.published_document)

    def submit(
        self,
        operation: Operation,
        sequence: int = 1,
        *,
        base: int | None = None,
        by: str = "ada",
        creates: str | None = None,
    ) -> None:
        at = self.attachment.revisions.published if base is None else base
        self.attachment.submit(
            Submission(
                at,
                by,
                sequence,
                operation,
                TEXT_UNICODE,
                ANYONE,
                self.decided.append,
                creates=creates,
            )
        )

    async def heard_of(self, number: int) -> None:
        await until(lambda: bool(self.told) and self.told[-1].number >= number)


def in_plain(document: Any) -> str:
    return "".join(each.content for each in document.components)


def inserts(text: str, at: int = 0) -> Operation:
    return Operation.of(*([Retain(at)] if at else []), Insert(text))


async def followed(shell: Shell) -> Following:
    attachment = await shell.attachments.use(NOTES)
    following = Following(attachment, shell.new_source())
    attachment.follow(following.source, following)
    return following


def revisions_since(following: Following, number: int) -> tuple[Revision, ...]:
    found = following.attachment.revisions.since(number)
    assert isinstance(found, tuple)
    return found


async def until_let_go(shell: Shell) -> None:
    await until(lambda: not len(shell.attachments))
    await turn(50)  # its end goes on by itself


async def left(shell: Shell, following: Following) -> None:
    following.attachment.unfollow(following.source)
    shell.attachments.leave(NOTES)
    await until_let_go(shell)
    await shell.flush()


async def revised(store: GatedStore) -> StoredRevisions:
    found = await store.revisions(NOTES)
    assert found is not None
    return found


async def on_disk(store: GatedStore) -> str:
    stored = await store.read(NOTES)
    assert stored is not None
    return text_of(stored.updates())


async def through_is_the_last(store: GatedStore) -> bool:
    stored = await store.read(NOTES)
    assert stored is not None
    return (await revised(store)).through == stored.last


def appends_alone(writes: Sequence[Write]) -> bool:
    """Whether something of the document is written without a revision directly behind it."""
    alone = [each for each in writes if isinstance(each, Append) and each.document == NOTES]
    pairs = [
        first
        for first, second in pairwise(writes)
        if isinstance(first, Append) and isinstance(second, Revise) and first.document == NOTES
    ]
    return alone != pairs


# --- what is written ----------------------------------------------------------------------------


async def test_what_is_submitted_and_its_revision_are_in_one_commit() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("hello"))
        await ada.heard_of(ada.head + 1)
        (writes,) = [each for each in shell.store.writes if each]
        assert [type(each) for each in writes] == [Append, Revise]
        assert isinstance(ada.decided[0], Accepted)
        assert await through_is_the_last(shell.store)
        assert await on_disk(shell.store) == ada.shown == "hello"
        assert [(each.source, each.sequence) for each in ada.told] == [("ada", 1)]


async def test_what_arrives_and_its_revision_are_in_one_commit() -> None:
    watcher = Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, watcher)
        ada = await followed(shell)
        for at in range(60):
            shell.take(typed("a", at=at))
            if at % 3 == 0:
                ada.submit(inserts("b"), at // 3 + 1)
            await turn(at % 4)
        await shell.settled(NOTES)
        written = [each for each in shell.store.writes if each]
        assert len(written) > 3
        assert not any(map(appends_alone, written))
        assert await through_is_the_last(shell.store)
        assert ada.shown == await on_disk(shell.store)
        assert sorted(ada.shown) == sorted("a" * 60 + "b" * 20)
        assert text_of(watcher.updates) == ada.shown
        numbers = [each.number for each in ada.told]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


class GatedSession:
    """A session whose answers wait at a gate."""

    def __init__(self, session: TextSession, gate: asyncio.Event) -> None:
        self.document = session.document
        self._session = session
        self._gate = gate

    async def apply(self, updates: Sequence[bytes]) -> Operation:
        await self._gate.wait()
        return await self._session.apply(updates)

    async def edit(self, operations: Sequence[Operation]) -> bytes:
        await self._gate.wait()
        return await self._session.edit(operations)

    async def close(self) -> None:
        await self._session.close()


class GatedSessions(InProcess):
    """Workers whose sessions wait at a gate, as do openings at another; or fail when told to."""

    def __init__(self) -> None:
        super().__init__(IMPATIENT)
        self.gate, self.opening = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.opening.set()
        self.opened = 0
        self.failure: Exception | None = None

    async def open_text(self, updates: Sequence[bytes], name: str, client_id: Any) -> TextSession:
        self.opened += 1
        await self.opening.wait()
        if self.failure is not None:
            raise self.failure
        return GatedSession(await super().open_text(updates, name, client_id), self.gate)


async def test_nothing_is_written_before_it_has_been_staged() -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        await shell.use(OTHER, 1, Watcher())
        ada = await followed(shell)
        workers.gate.clear()
        shell.take(typed("a"))
        shell.take(typed("else"), document=OTHER)
        await shell.settled(OTHER)
        await turn()
        assert shell.store.appended(OTHER)
        assert not shell.store.appended(NOTES)
        shell.take(typed("b", at=1))
        workers.gate.set()
        await shell.settled(NOTES)
        assert not any(map(appends_alone, shell.store.writes))
        assert ada.shown == "ab"


async def test_nobody_hears_of_a_revision_before_its_commit_has_returned() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        ada = await followed(shell)
        store.returning.clear()
        ada.submit(inserts("a"))
        await turn()
        assert isinstance(ada.decided[0], Accepted)
        assert await store.revisions(NOTES) is not None
        assert ada.told == []
        assert ada.shown == ""
        store.returning.set()
        await ada.heard_of(ada.head)


async def test_an_update_of_another_root_moves_what_the_revisions_stand_for() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("text"))
        await ada.heard_of(ada.head + 1)
        elsewhere = update(section(9, 0, string("other", parent="another root")))
        shell.take(elsewhere)
        await shell.settled(NOTES)
        assert len(ada.told) == 1
        assert await through_is_the_last(shell.store)


async def test_operations_on_an_old_base_are_carried_over_what_has_come_since() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("ac"))
        base = ada.head + 1
        await ada.heard_of(base)
        ada.submit(inserts("b", 1), 2, base=base)
        ada.submit(inserts("d", 2), 7, base=base, by="bob")
        await ada.heard_of(base + 2)
        assert ada.shown == "abcd" == await on_disk(shell.store)


# --- again --------------------------------------------------------------------------------------


async def test_what_is_sent_again_is_repeated_and_applied_once() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        base = ada.head
        for _ in range(3):
            ada.submit(inserts("once"), base=base)
        await ada.heard_of(base + 1)
        await shell.flush()
        assert isinstance(ada.decided[0], Accepted)
        assert ada.decided[1:] == [Repeated(base + 1)] * 2
        assert ada.shown == "once"
        assert len(ada.told) == 1


async def test_what_is_sent_again_to_a_later_attachment_is_repeated() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        ada = await followed(shell)
        base = ada.head
        ada.submit(inserts("once"), base=base)
        await ada.heard_of(base + 1)
        await left(shell, ada)
        again = await followed(shell)
        again.submit(inserts("once"), base=base)
        await until(lambda: bool(again.decided))
        assert again.decided == [Repeated(base + 1)]
        assert again.shown == "once" == await on_disk(store)


async def test_a_text_is_created_once() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        assert not ada.attachment.is_there
        ada.submit(inserts("begun"), creates=UNICODE)
        ada.submit(inserts("no"), by="bob", creates=UNICODE)
        ada.submit(inserts("begun"), creates=UNICODE)
        await until(lambda: len(ada.decided) == 3)
        await ada.heard_of(ada.head)
        assert isinstance(ada.decided[0], Accepted)
        assert ada.decided[1] is None
        assert isinstance(ada.decided[2], Repeated)
        assert ada.shown == "begun"
        (writes,) = [each for each in shell.store.writes if each]
        assert SetMetadata(TYPE, UNICODE.encode(), NOTES) in writes
        await left(shell, ada)
        again = await followed(shell)
        assert again.attachment.is_there
        assert again.attachment.type == UNICODE


async def test_an_empty_text_can_be_created_and_is_there_then() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(EMPTY, creates=UNICODE)
        await ada.heard_of(ada.head + 1)
        await left(shell, ada)
        again = await followed(shell)
        assert again.attachment.is_there
        again.submit(inserts("no"), by="bob", creates=UNICODE)
        await until(lambda: bool(again.decided))
        assert again.decided == [None]


async def test_an_empty_text_belongs_to_who_created_it_whoever_writes_to_it_first() -> None:
    """Until it was loaded again, it was counted against whoever wrote to it first."""
    async with opened_shell() as shell:
        ada = await followed(shell)
        for identity in ("ada", "bob"):
            await shell.recount(identity)
        ada.attachment.submit(
            Submission(
                ada.head,
                "ada",
                1,
                EMPTY,
                TEXT_UNICODE,
                Author("ada"),
                ada.decided.append,
                creates=UNICODE,
            )
        )
        await ada.heard_of(ada.head + 1)
        shell.take(typed("b"), author=Author("bob"))
        await shell.settled(NOTES)
        stored, known = await shell.store.read(NOTES), shell.core.get(NOTES)
        assert stored is not None
        assert known is not None
        assert (known.creator, stored.creator) == ("ada", "ada")


async def test_what_was_written_by_the_crdt_alone_cannot_be_created() -> None:
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.take(typed("there"))
        await shell.settled(NOTES)
        ada = await followed(shell)
        ada.submit(inserts("no"), creates=UNICODE)
        await until(lambda: bool(ada.decided))
        assert ada.decided == [None]
        await shell.flush()
        assert ada.shown == "there"


# --- attaching ----------------------------------------------------------------------------------


async def test_all_that_came_while_nobody_was_attached_becomes_one_revision() -> None:
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        ada.submit(inserts("ada "))
        await ada.heard_of(ada.head + 1)
        before = ada.head
        await left(shell, ada)
        for at in range(5):
            shell.take(typed("later"[at], at=at))
            await shell.settled(NOTES)
        again = await followed(shell)
        await shell.flush()
        (change,) = revisions_since(again, before)
        assert change.number == before + 1 == again.head
        assert change.source is None
        assert sorted(again.shown) == sorted("ada later")
        assert again.shown == await on_disk(shell.store)
        assert await through_is_the_last(shell.store)
        stored = await revised(shell.store)
        assert [decode(each).number for each in stored.revisions] == [before, before + 1]


async def test_a_fold_while_nobody_is_attached_keeps_the_text_and_the_next_revision_is_right() -> (
    None
):
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        ada.submit(inserts("ada "))
        await ada.heard_of(ada.head + 1)
        before = ada.head
        await left(shell, ada)
        shell.take(typed("later"))
        await shell.settled(NOTES)
        assert await shell.compaction.fold(NOTES)
        assert any(isinstance(each, KeepText) for writes in shell.store.writes for each in writes)
        assert (await revised(shell.store)).text is not None
        again = await followed(shell)
        await shell.flush()
        (change,) = revisions_since(again, before)
        assert change.number == before + 1
        assert "".join(
            str(each.content) for each in change.operation.components if isinstance(each, Insert)
        ) == ("later")
        assert again.shown == await on_disk(shell.store)
        assert (await revised(shell.store)).text is None
        again.submit(inserts("more "), 2)
        await again.heard_of(before + 2)
        assert again.shown == await on_disk(shell.store)


async def test_a_fold_while_the_text_is_attached_changes_nothing_of_it() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        for sequence in range(1, 6):
            ada.submit(inserts("x"), sequence)
            await ada.heard_of(ada.head + 1)
        before = ada.head
        assert await shell.compaction.fold(NOTES)
        ada.submit(inserts("y"), 6)
        await ada.heard_of(before + 1)
        assert ada.shown == "yxxxxx" == await on_disk(shell.store)
        await left(shell, ada)
        again = await followed(shell)
        assert again.head == before + 1
        assert again.shown == "yxxxxx"


async def test_a_new_incarnation_begins_a_new_epoch_and_still_knows_who_submitted_what() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        ada = await followed(shell)
        base = ada.head
        ada.submit(inserts("kept"), base=base)
        await ada.heard_of(base + 1)
        await left(shell, ada)
    restored = store.restored(Random(9))
    async with opened_shell(restored) as shell:
        again = await followed(shell)
        assert epoch_of(again.head) > epoch_of(base)
        await shell.flush()
        await until(lambda: bool(restored.writes))
        assert (await revised(restored)).is_of_this_incarnation
        again.submit(inserts("more"), 2)
        await again.heard_of(again.head + 1)
        again.submit(inserts("more"), 2)
        await until(lambda: len(again.decided) == 2)
        assert again.decided[1] == Repeated(again.head)
        assert again.shown == "morekept" == await on_disk(restored)


async def write_something(shell: Shell) -> None:
    """Of a document that is not there nothing is held open."""
    await shell.use(NOTES, 9, Watcher())
    shell.take(typed("something"))
    await shell.settled(NOTES)
    shell.leave(NOTES, 9)
    await until(lambda: shell.core.get(NOTES) is None)


async def test_two_copies_of_one_backup_begin_epochs_of_their_own() -> None:
    """Both began the next one, and gave the same numbers to different content."""
    store = GatedStore()
    async with opened_shell(store) as shell:
        ada = await followed(shell)
        ada.submit(inserts("a"))
        await until(lambda: bool(ada.told))
        before = epoch_of(ada.head)
    epochs = set[int]()
    for seed in range(8):
        copy = store.restored(Random(seed))
        assert isinstance(copy, GatedStore)
        async with opened_shell(copy, seed=seed) as shell:
            bob = await followed(shell)
            bob.submit(inserts(str(seed)), by="bob")
            await bob.heard_of(bob.head + 1)
            epochs.add(epoch_of(bob.head))
    assert len(epochs) == 8
    assert min(epochs) > before


def test_there_is_a_later_epoch_as_long_as_one_is_left() -> None:
    dice, epoch = Random(1), 1
    for _ in range(40):
        later = attaching.later_epoch(epoch, dice)
        assert epoch < later <= attaching.EPOCH_MAX
        epoch = later
    assert attaching.later_epoch(attaching.EPOCH_MAX - 1, dice) == attaching.EPOCH_MAX


async def test_a_document_of_other_roots_has_no_text_however_often_it_is_attached() -> None:
    """From the second time on it was shown as an empty text, which nobody had created."""
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        for client in range(5, 9):
            shell.take(of_another_root(client))
            await shell.settled(NOTES)
            ada = await followed(shell)
            await turn()
            assert not ada.attachment.is_there
            shell.take(of_another_root(client + 10))
            await shell.settled(NOTES)
            assert not ada.told
            await left(shell, ada)
        ada = await followed(shell)
        ada.submit(inserts("a"), creates=UNICODE)
        await until(lambda: bool(ada.told))
        assert [type(each) for each in ada.decided] == [Accepted]
        assert await through_is_the_last(shell.store)


def of_another_root(client: int) -> bytes:
    return update(section(client, 0, item(4, encode_string("v"), parent="map", key="k")))


async def test_of_what_is_not_there_nothing_is_held_open_until_it_is_written() -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        ada = await followed(shell)
        await turn()
        assert not workers.opened
        ada.submit(inserts("ada"))
        await until(lambda: ada.shown == "ada")
        assert workers.opened == 1


async def test_a_document_that_somebody_gave_up_attaching_is_let_go() -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        await write_something(shell)
        workers.opening.clear()
        attaching = asyncio.create_task(shell.attachments.use(NOTES))
        await until(lambda: bool(workers.opened))
        attaching.cancel()
        await turn()
        workers.opening.set()
        await turn()
        assert len(shell.attachments) == 0
        await until(lambda: shell.core.get(NOTES) is None)


async def test_who_stays_is_attached_although_another_gave_up() -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        await write_something(shell)
        workers.opening.clear()
        gave_up = asyncio.create_task(shell.attachments.use(NOTES))
        stays = asyncio.create_task(shell.attachments.use(NOTES))
        await until(lambda: bool(workers.opened))
        gave_up.cancel()
        await turn()
        workers.opening.set()
        assert await stays is shell.attachments.get(NOTES)
        assert workers.opened == 1


async def test_what_an_earlier_attachment_staged_is_known_to_the_next_one() -> None:
    # Its commit waits behind that of another document while the text is attached anew.
    store = GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(OTHER, 1, Watcher())
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        base = ada.head
        store.gate.clear()
        shell.take(typed("else"), document=OTHER)
        await turn()
        ada.submit(inserts("ada"), base=base)
        ada.attachment.unfollow(ada.source)
        shell.attachments.leave(NOTES)
        await until_let_go(shell)
        attaching = asyncio.create_task(followed(shell))
        await turn()
        store.let_one_through()
        await turn()
        store.gate.set()
        again = await attaching
        await shell.flush()
        again.submit(inserts("more "), 2, base=again.attachment.revisions.published)
        await until(lambda: again.shown == "more ada")
        assert again.error is None
        assert await on_disk(store) == "more ada"
        stored = await revised(store)
        numbers = [decode(each).number for each in stored.revisions]
        assert numbers == [stored.floor_number + 1, stored.floor_number + 2]


async def test_a_replica_that_closes_ends_what_is_being_attached() -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        await write_something(shell)
        workers.opening.clear()
        attaching = asyncio.create_task(shell.attachments.use(NOTES))
        await until(lambda: bool(workers.opened))
        closing = asyncio.create_task(shell.close())
        await turn()
        workers.opening.set()
        await closing
        assert len(shell.attachments) == 0
        with pytest.raises(DocumentClosed):
            await attaching


# --- its end ------------------------------------------------------------------------------------


async def test_a_failed_commit_ends_it_and_a_new_one_goes_on_from_what_is_stored() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("kept"))
        await ada.heard_of(ada.head + 1)
        before = ada.head
        shell.store.fault = StoreFull("no space left")
        ada.submit(inserts("lost"), 2)
        await until(lambda: ada.error is not None)
        assert isinstance(ada.error, StoreFull)
        assert [each.number for each in ada.told] == [before]
        with pytest.raises(StoreFull):
            ada.submit(inserts("late"), 3, base=before)
        with pytest.raises(StoreFull):
            _ = ada.attachment.revisions
        shell.store.fault = None
        shell.attachments.leave(NOTES)
        again = await followed(shell)
        assert again.head == before
        assert again.shown == "kept"
        again.submit(inserts("lost"), 2, base=before)
        await again.heard_of(before + 1)
        assert again.shown == "lostkept" == await on_disk(shell.store)


async def test_an_attachment_that_fails_at_what_is_durable_does_not_stop_the_writer() -> None:
    reports, watcher = Reports(), Watcher()
    async with opened_shell() as shell:
        ada = await followed(shell)
        await shell.use(OTHER, 1, watcher)

        def fail(_: int) -> tuple[Revision, ...]:
            raise UsageError("a mistake")

        ada.attachment.revisions.persisted = fail  # type: ignore[method-assign]
        ada.submit(inserts("a"))
        await until(lambda: ada.error is not None)
        shell.take(typed("b"), document=OTHER)
        await shell.settled(OTHER)
        assert watcher.updates == [typed("b")]
        assert len(reports) == 1


async def test_the_last_user_that_leaves_has_more_staged_than_one_commit_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What went beyond the first commit was let go of."""
    monkeypatch.setattr(attaching, "COMPONENTS_AT_ONCE", 10)
    async with opened_shell() as shell:
        ada = await followed(shell)
        base = ada.head
        async with ada.attachment.staging:
            for sequence in range(1, 56):
                ada.submit(inserts("a"), sequence, base=base)
            shell.attachments.leave(NOTES)
            await turn()
        await until_let_go(shell)
        await shell.flush()
        assert await on_disk(shell.store) == "a" * 55
        assert await through_is_the_last(shell.store)


async def test_the_last_user_that_leaves_has_what_was_submitted_staged() -> None:
    async with opened_shell() as shell:
        ada, bob = await followed(shell), await followed(shell)
        assert ada.attachment is bob.attachment
        ada.submit(inserts("last words"))
        shell.attachments.leave(NOTES)
        assert len(shell.attachments) == 1
        shell.attachments.leave(NOTES)
        assert len(shell.attachments) == 0
        await until_let_go(shell)
        await shell.flush()
        assert await on_disk(shell.store) == "last words"
        assert await through_is_the_last(shell.store)
        await until(lambda: shell.core.get(NOTES) is None)


async def test_a_follower_that_fails_is_told_and_stops_nobody() -> None:
    class Failing(Following):
        def published(self, revisions: Sequence[Revision]) -> None:
            raise RuntimeError("a follower with a fault")

    async with opened_shell() as shell:
        ada = await followed(shell)
        failing = Failing(ada.attachment, shell.new_source())
        ada.attachment.follow(failing.source, failing)
        ada.submit(inserts("a"))
        await ada.heard_of(ada.head + 1)
        assert isinstance(failing.error, RuntimeError)
        ada.submit(inserts("b"), 2)
        await ada.heard_of(ada.head + 1)
        assert ada.error is None


async def test_a_document_that_is_set_aside_is_not_attached_any_more() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("a"))
        await ada.heard_of(ada.head + 1)
        base = ada.head
        ada.submit(inserts("in between"), 2)
        await shell.set_aside(NOTES, "a person has to look at it")
        assert isinstance(ada.error, DocumentSetAside)
        with pytest.raises(DocumentSetAside):
            ada.submit(inserts("b"), 3, base=base)
        await until_let_go(shell)
        shell.attachments.leave(NOTES)
        again = await followed(shell)
        with pytest.raises(DocumentSetAside):
            again.submit(inserts("b"), 3)


async def test_a_deletion_ends_it_and_nothing_is_attached_afterwards() -> None:
    async with opened_shell() as shell:
        ada = await followed(shell)
        ada.submit(inserts("a"))
        await ada.heard_of(ada.head + 1)
        await succeed(
            shell, NOTES, BORN.deleted(), held=held_by_anybody, told_by="a peer", content=None
        )
        assert isinstance(ada.error, LineageEnded)
        shell.attachments.leave(NOTES)
        await until_let_go(shell)
        with pytest.raises(LineageDeleted):
            await shell.attachments.use(NOTES)
        assert len(shell.attachments) == 0
        assert await shell.store.revisions(NOTES) is None


@pytest.mark.parametrize("failure", [WorkerFailed("died", "killed"), EngineFailed("no")])
async def test_what_cannot_be_opened_is_told_to_all_who_wait_and_tried_anew(
    failure: Exception,
) -> None:
    workers = GatedSessions()
    async with opened_shell(workers=workers) as shell:
        await write_something(shell)
        workers.failure = failure
        asked = [asyncio.create_task(shell.attachments.use(NOTES)) for _ in range(2)]
        for each in asked:
            with pytest.raises(type(failure)):
                await each
        assert shell.core.get(NOTES) is None
        workers.failure = None
        await shell.attachments.use(NOTES)
        assert len(shell.attachments) == 1


# --- worker processes ---------------------------------------------------------------------------


@asynccontextmanager
async def beside_processes() -> AsyncIterator[tuple[Shell, WorkerProcesses]]:
    workers: Any = WorkerProcesses(IMPATIENT)
    async with opened_shell(workers=workers) as shell:
        yield shell, workers


async def until_told(following: Following, count: int) -> None:
    while len(following.told) < count and following.error is None:  # noqa: ASYNC110  bounded above
        await asyncio.sleep(0)


async def test_a_killed_worker_ends_it_and_the_next_one_works() -> None:
    async with beside_processes() as (shell, workers):
        ada = await followed(shell)
        ada.submit(inserts("kept"))
        await until_told(ada, 1)
        before = ada.head
        (process,) = workers.process_ids
        os.kill(process, signal.SIGKILL)
        ada.submit(inserts("lost"), 2)
        await until_told(ada, 2)
        assert isinstance(ada.error, WorkerFailed | DocumentClosed)
        shell.attachments.leave(NOTES)
        again = await followed(shell)
        assert again.head == before
        again.submit(inserts("lost"), 2, base=before)
        await until_told(again, 1)
        assert again.error is None
        assert again.shown == "lostkept" == await on_disk(shell.store)
        assert shell.witness.aside == []


# --- split surrogate pairs ----------------------------------------------------------------------


def between_halves(client: int = 2) -> bytes:
    return update(section(client, 0, string("x", origin=(1, 1), right=(1, 2))))


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_split_pair_is_repaired_and_is_a_revision(is_busy: bool) -> None:
    async with opened_shell(is_listening=True) as shell:
        ada = await followed(shell)
        shell.take(typed(SMILE))
        await shell.settled(NOTES)
        base = ada.head
        shell.take(between_halves(), source=8)
        if is_busy:
            ada.submit(inserts("!", 3), base=base)
            shell.take(typed("c", client=1, at=4), source=9)
        await shell.settled(NOTES)
        await shell.flush()
        assert shell.witness.repairs == [NOTES]
        assert sorted(ada.shown) == sorted(SMILE + "x" + ("!c" if is_busy else ""))
        assert ada.shown == await on_disk(shell.store)
        assert len(ada.told) >= 2
        assert await through_is_the_last(shell.store)
        assert ada.error is None


async def test_what_was_submitted_before_the_last_user_left_is_staged_behind_a_repair() -> None:
    async with opened_shell(is_listening=True) as shell:
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        shell.take(typed(SMILE))
        await shell.settled(NOTES)
        shell.take(between_halves(), source=8)
        ada.submit(inserts("!", 3))
        await turn(1)
        shell.attachments.leave(NOTES)
        await until_let_go(shell)
        await shell.settled(NOTES)
        await shell.flush()
        assert sorted(await on_disk(shell.store)) == sorted(SMILE + "x!")
        again = await followed(shell)
        await shell.flush()
        assert again.shown == await on_disk(shell.store)


class GatedRepairs(InProcess):
    """Repairs wait at a gate."""

    def __init__(self) -> None:
        super().__init__(IMPATIENT)
        self.gate = asyncio.Event()
        self.gate.set()
        self.repairs = 0

    async def repair(self, updates: Any, splits: Any) -> Any:
        self.repairs += 1
        await self.gate.wait()
        return await super().repair(updates, splits)


async def test_what_was_repaired_while_nobody_was_attached_is_in_the_next_revision() -> None:
    """Its state, which says more than the log, was taken for the text at the last revision."""
    async with opened_shell(is_listening=True) as shell:
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        shell.take(typed(SMILE))
        await shell.settled(NOTES)
        known_to_clients, number = ada.attachment.revisions.document, ada.head
        await left(shell, ada)
        shell.take(between_halves(), source=8)
        await shell.settled(NOTES)
        assert shell.witness.repairs == [NOTES]
        again = await followed(shell)
        await shell.flush()
        await turn()
        (revision,) = revisions_since(again, number)
        found = apply(known_to_clients, revision.operation)
        assert in_plain(found) == again.shown == await on_disk(shell.store)


async def test_a_pair_that_is_split_while_a_text_is_being_attached_is_repaired_first() -> None:
    """What the repair was to take the place of was staged beside it, and reached the log."""
    workers = GatedRepairs()
    async with opened_shell(is_listening=True, workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.take(typed(SMILE))
        await shell.settled(NOTES)
        shell.store.reading.clear()
        attached = asyncio.create_task(followed(shell))
        await turn()
        workers.gate.clear()
        shell.take(between_halves(), source=8)
        await turn()
        shell.store.reading.set()
        await until(lambda: workers.repairs == 1)
        ada = await attached
        await turn()
        assert not ada.told, "it is being repaired"
        assert shell.store.appended() == [typed(SMILE)]
        workers.gate.set()
        await shell.settled(NOTES)
        assert len(ada.told) == 1
        assert ada.shown == await on_disk(shell.store)
        assert sorted(ada.shown) == sorted(SMILE + "x")


# --- all at once --------------------------------------------------------------------------------


async def test_revisions_that_are_not_kept_for_ever_make_the_text_all_the_same() -> None:
    limits = replace(IMPATIENT, revisions_kept_max=8, log_updates_before_fold=5)
    async with opened_shell(limits=limits) as shell:
        await shell.use(NOTES, 1, Watcher())
        ada = await followed(shell)
        for sequence in range(1, 40):
            ada.submit(inserts(chr(96 + sequence % 26 + 1)), sequence)
            if sequence % 5 == 0:
                shell.take(typed("!", at=sequence // 5 - 1), source=LOCAL + 5)
            await shell.settled(NOTES)
            await turn(3)
            if sequence % 13 == 0:
                await left(shell, ada)
                ada = await followed(shell)
                await shell.flush()
        await shell.flush()
        stored = await revised(shell.store)
        assert len(stored.revisions) <= 9
        assert ada.shown == await on_disk(shell.store)
        assert len(ada.shown) == 39 + 7
        assert ada.error is None
