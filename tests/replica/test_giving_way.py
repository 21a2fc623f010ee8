"""`crdt_state.replica.giving_way`: a document becomes what a remote holds, in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from crdt_state.errors import EditRefused, RemoteProtocolError, StoreFull, UpdateMalformed
from crdt_state.model import engine
from crdt_state.replica.giving_way import give_way
from crdt_state.replica.worker_jobs import Folded
from crdt_state.replica.workers import InProcess
from wired import (
    BROKEN,
    IMPATIENT,
    NOTES,
    Shell,
    Watcher,
    opened_shell,
    text_of,
    turn,
    typed,
    until,
)

OURS = typed("ours", client=2)
THEIRS = typed("theirs", client=1)


@asynccontextmanager
async def holding(*updates: bytes, workers: InProcess | None = None) -> AsyncIterator[Shell]:
    async with opened_shell(workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        for each in updates:
            shell.take(each)
        await shell.settled(NOTES)
        yield shell


async def give(shell: Shell, state: bytes) -> EditRefused | None:
    known = shell.core.get(NOTES)
    assert known is not None
    return await give_way(shell, known, state, remote="ws://remote", code=4413, reason="too large")


async def shown(shell: Shell) -> str:
    stored = await shell.store.read(NOTES)
    assert stored is not None
    return text_of(stored.updates())


async def test_what_the_remote_lacks_is_set_aside_and_what_it_holds_stays() -> None:
    async with holding(THEIRS, OURS) as shell:
        watcher = Watcher()
        await shell.use(NOTES, 2, watcher)
        refused = await give(shell, THEIRS)
        assert refused is not None
        assert await shown(shell) == "theirs"
        assert watcher.losses == [(refused, [])]
        (aside,) = await shell.store.quarantine(NOTES)
        assert (aside.update, aside.code, aside.reason) == (refused.updates[0], 4413, "too large")
        assert text_of([THEIRS, aside.update]) in ("theirsours", "ourstheirs")
        await shell.use(NOTES, 2, watcher)
        assert await shell.difference(NOTES, b"\0") == THEIRS


async def test_where_the_remote_holds_everything_nothing_changes() -> None:
    async with holding(THEIRS, OURS) as shell:
        assert await give(shell, engine.merge([THEIRS, OURS])) is None
        assert await shell.store.quarantine(NOTES) == ()
        shell.take(typed("!", client=2, at=4))  # it is still in use, and written
        await shell.settled(NOTES)
        assert "ours!" in await shown(shell)


@pytest.mark.parametrize(
    ("state", "error"),
    [(BROKEN, UpdateMalformed), (typed("late", client=1, at=7), RemoteProtocolError)],
)
async def test_a_state_that_is_none_changes_nothing(state: bytes, error: type[Exception]) -> None:
    async with holding(THEIRS, OURS) as shell:
        with pytest.raises(error):
            await give(shell, state)
        assert await shell.store.quarantine(NOTES) == ()
        assert len(await shown(shell)) == len("theirsours")


async def test_a_full_disk_changes_nothing_and_the_document_goes_on() -> None:
    async with holding(THEIRS, OURS) as shell:
        shell.store.fault = StoreFull("no space left")
        with pytest.raises(StoreFull):
            await give(shell, THEIRS)
        shell.store.fault = None
        shell.take(typed("!", client=2, at=4))
        await shell.settled(NOTES)
        assert "ours!" in await shown(shell)


async def test_who_gives_up_waiting_does_not_leave_it_half_done() -> None:
    async with holding(THEIRS, OURS) as shell:
        watcher = Watcher()
        await shell.use(NOTES, 2, watcher)
        shell.store.gate.clear()
        giving = asyncio.create_task(give(shell, THEIRS))
        await turn()
        giving.cancel()
        shell.store.gate.set()
        await until(lambda: watcher.losses != [])
        assert await shown(shell) == "theirs"


class SlowFolds(InProcess):
    """Folds wait at a gate."""

    def __init__(self) -> None:
        super().__init__(IMPATIENT)
        self.gate = asyncio.Event()
        self.folds = 0

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        self.folds += 1
        await self.gate.wait()
        return await super().fold(updates)


async def test_a_fold_that_was_under_way_does_not_bring_back_what_was_set_aside() -> None:
    workers = SlowFolds()
    async with holding(THEIRS, OURS, workers=workers) as shell:
        folding = asyncio.create_task(shell.compaction.fold(NOTES))
        await until(lambda: workers.folds == 1)
        assert await give(shell, THEIRS) is not None
        workers.gate.set()
        assert not await folding
        assert await shown(shell) == "theirs"
        assert shell.compaction._running == {}


async def test_who_is_bound_and_who_was_refused_is_still_known() -> None:
    limits = replace(IMPATIENT, update_bytes_max=1_000)
    async with opened_shell(limits=limits) as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.take(THEIRS)
        shell.take(OURS)
        shell.take(typed("x" * 2_000, client=9))
        await shell.settled(NOTES)
        assert await give(shell, THEIRS) is not None
        await shell.use(NOTES, 1, Watcher())
        known = shell.core.get(NOTES)
        assert known is not None
        assert known.head.refused == {9: 0}
