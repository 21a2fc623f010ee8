"""`crdt_state.replica.succession`: one life of a document after another, in one commit."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from crdt_state.errors import (
    DocumentClosed,
    DocumentDeleted,
    EditNotStored,
    LineageEnded,
    StoreFull,
)
from crdt_state.lineage import BORN, Life
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.replica.admission import ANYONE
from crdt_state.replica.document_core import LOCAL
from crdt_state.replica.succession import copies, held_by_anybody, held_by_nobody, succeed
from crdt_state.storage.contract import ClearOutbox
from wired import (
    IMPATIENT,
    NOTES,
    GatedStore,
    Reports,
    Shell,
    Watcher,
    opened_shell,
    text_of,
    turn,
    typed,
)

REMOTE = "ws://remote"
COMMON = typed("common", client=1)
OURS = typed(" ours", client=2)


async def holding(shell: Shell) -> None:
    """A document of which the remote holds the first update, and not the second."""
    shell.core.add_remote(REMOTE)
    await shell.use(NOTES, 1, Watcher())
    shell.take(COMMON)
    await shell.settled(NOTES)
    await shell.store.write([ClearOutbox(REMOTE, NOTES, shell.last)])
    shell.take(OURS)
    await shell.settled(NOTES)


def later(shell: Shell) -> Life:
    return BORN.successor(shell.clock.wall(), shell.random)


async def told(shell: Shell, life: Life, content: bytes | None = None) -> LineageEnded | None:
    """The remote has said which life counts."""
    return await succeed(shell, NOTES, life, held=held_by_anybody, told_by=REMOTE, content=content)


async def test_the_edits_that_nobody_else_holds_are_set_aside_with_what_they_build_on() -> None:
    async with opened_shell() as shell:
        await holding(shell)
        watcher = Watcher()
        await shell.use(NOTES, 99, watcher)
        ended = await told(shell, later(shell), typed("new", client=9))
        assert isinstance(ended, LineageEnded)
        assert ended.updates == (OURS,)
        assert watcher.losses == [(ended, [])]
        (copy,) = copies(await shell.store.quarantine(NOTES))
        assert copy.common == COMMON
        assert sorted(text_of([copy.whole])) == sorted("common ours")
        assert (copy.lineage, copy.is_deleted) == (BORN.lineage, False)
        stored = await shell.store.read(NOTES)
        assert stored is not None
        assert text_of(stored.updates()) == "new"
        assert stored.held == {}, "who told of it is owed nothing"


async def test_compaction_keeps_apart_what_a_remote_lacks() -> None:
    async with opened_shell() as shell:
        await holding(shell)
        assert await shell.compaction.fold(NOTES)
        stored = await shell.store.read(NOTES)
        assert stored is not None
        assert stored.checkpoint is not None
        assert text_of([stored.checkpoint.state]) == "common"
        assert [entry.update for entry in stored.log] == [OURS]
        assert not await shell.compaction.fold(NOTES), "until the remote holds it"
        await told(shell, BORN.deleted())
        (copy,) = copies(await shell.store.quarantine(NOTES))
        assert copy.common is not None
        assert text_of([copy.common]) == "common"


async def test_what_is_edited_during_the_commit_is_set_aside_as_well() -> None:
    for is_first in (True, False):
        async with opened_shell() as shell:
            await holding(shell)
            if is_first:  # nothing else is to be set aside
                await shell.store.write([ClearOutbox(REMOTE, NOTES, shell.last)])
            user = Watcher()
            await shell.use(NOTES, LOCAL, user)
            shell.store.gate.clear()
            shell.store.let_one_through()  # the empty one, before anything is made
            ending = asyncio.create_task(told(shell, later(shell), typed("new", client=9)))
            await turn(20)
            late = typed("late ", client=3)
            shell.receive(NOTES, LOCAL, ANYONE, late, name="local")
            shell.store.gate.set()
            ended = await ending
            assert isinstance(ended, LineageEnded)
            assert ended.has_copy
            assert ended.updates[-1] == late
            ((error, own_edits),) = user.losses
            assert isinstance(error, LineageEnded)
            assert error.has_copy
            assert own_edits == [late]
            (copy,) = copies(await shell.store.quarantine(NOTES))
            assert sorted(text_of([copy.whole])) == sorted("late common ours")
            assert copy.common is not None
            assert sorted(text_of([copy.common])) == sorted("common ours" if is_first else "common")


async def test_what_was_edited_last_and_closed_is_set_aside_and_not_reported_as_lost() -> None:
    async with opened_shell() as shell:
        reports = Reports()
        await holding(shell)
        shell.store.gate.clear()
        shell.store.let_one_through()
        ending = asyncio.create_task(told(shell, BORN.deleted()))
        await turn(20)
        shell.receive(NOTES, LOCAL, ANYONE, typed("late ", client=3), name="local")
        shell.store.gate.set()
        await ending
        (copy,) = copies(await shell.store.quarantine(NOTES))
        assert "late" in text_of([copy.whole])
        assert not len(reports)


async def test_a_disk_that_takes_the_deletion_and_not_the_copy_has_the_edit_reported() -> None:
    async with opened_shell() as shell:
        reports = Reports()
        await holding(shell)
        shell.store.gate.clear()
        shell.store.let_one_through()
        ending = asyncio.create_task(told(shell, BORN.deleted()))
        await turn(20)
        late = typed("late ", client=3)
        shell.receive(NOTES, LOCAL, ANYONE, late, name="local")
        shell.store.let_one_through()
        await turn(20)
        shell.store.fault = StoreFull("no space left")
        shell.store.gate.set()
        await ending
        shell.store.fault = None
        assert len(reports) == 1
        error = reports.contexts[0]["exception"]
        assert isinstance(error, EditNotStored)
        assert error.updates == (late,)


async def test_a_log_that_has_grown_too_long_is_folded_all_the_same_and_all_is_kept() -> None:
    limits = replace(IMPATIENT, log_updates_before_fold=1)
    async with opened_shell(limits=limits) as shell:
        shell.core.add_remote(REMOTE)
        await shell.use(NOTES, 1, Watcher())
        shell.take(COMMON)
        await shell.settled(NOTES)
        await shell.store.write([ClearOutbox(REMOTE, NOTES, shell.last)])
        for number in range(20):
            shell.take(typed("x", client=2, at=number))
            await shell.settled(NOTES)
        await shell.compaction.fold(NOTES)
        stored = await shell.store.read(NOTES)
        assert stored is not None
        assert len(stored.log) < 20
        await told(shell, BORN.deleted())
        (copy,) = copies(await shell.store.quarantine(NOTES))
        assert copy.common is None
        assert text_of([copy.whole]).count("x") == 20


async def test_its_own_user_decides_without_a_copy_and_everybody_is_owed_the_decision() -> None:
    async with opened_shell() as shell:
        await holding(shell)
        await shell.peers.met(shell.store.replica_id, shell.clock.wall())
        await succeed(shell, NOTES, BORN.deleted(), held=held_by_nobody)
        assert await shell.store.quarantine(NOTES) == ()
        for remote in (REMOTE, *shell.peers.names()):
            assert [entry.document for entry in await shell.store.outbox(remote)] == [NOTES]


async def test_a_lesser_life_changes_nothing() -> None:
    async with opened_shell() as shell:
        await holding(shell)
        assert await told(shell, later(shell)) is not None
        for life in (BORN, BORN.deleted()):
            assert await told(shell, life) is None


async def test_a_full_disk_changes_nothing() -> None:
    async with opened_shell() as shell:
        await holding(shell)
        shell.store.fault = StoreFull("no space left")
        with pytest.raises(StoreFull):
            await told(shell, BORN.deleted())
        shell.store.fault = None
        stored = await shell.store.read(NOTES)
        assert stored is not None
        assert (stored.life, len(stored.log)) == (BORN, 2)
        shell.take(typed("!", client=2, at=5))
        await shell.settled(NOTES)


async def test_a_life_is_shown_to_nobody_who_still_talks_of_the_one_before() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        await holding(shell)
        store.gate.clear()
        succeeding = asyncio.create_task(told(shell, later(shell), typed("new", client=9)))
        await turn(3)
        store.let_one_through()  # whatever was under way before
        await turn(3)
        store.returning.clear()
        store.gate.set()
        await turn(3)
        stored = await store.read(NOTES)
        assert stored is not None
        assert text_of(stored.updates()) == "new", "it is committed"
        assert not succeeding.done(), "and nobody knows"
        shell.encodings.drop(NOTES)
        with pytest.raises(DocumentClosed, match="ask again"):
            await shell.difference(NOTES, EMPTY_VECTOR)
        store.returning.set()
        await succeeding
        assert text_of([await shell.difference(NOTES, EMPTY_VECTOR)]) == "new"


async def test_a_document_that_is_not_here_can_be_deleted() -> None:
    async with opened_shell() as shell:
        ended = await told(shell, BORN.deleted())
        assert isinstance(ended, DocumentDeleted)
        assert ended.updates == ()
        stored = await shell.store.read(NOTES)
        assert stored is not None
        assert stored.life == BORN.deleted()
