"""`crdt_state.replica.compaction`: what is folded when, and what a fold must never lose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import LimitExceeded, StoreFull, UpdateMalformed, WorkerFailed
from crdt_state.identifiers import DocumentId
from crdt_state.model.engine import EMPTY_VECTOR
from crdt_state.replica.admission import Author
from crdt_state.replica.compaction import is_fold_due
from crdt_state.replica.workers import Folded, InProcess
from crdt_state.storage.contract import Append, Hold
from wired import (
    BROKEN,
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    Shell,
    Watcher,
    opened_shell,
    text_of,
    turn,
    typed,
    until,
)

NOW = WallTime(1_700_000_000_000_000)
TEN = replace(IMPATIENT, log_updates_before_fold=10)


class GatedWorkers(InProcess):
    """Folds wait at a gate, and fail when told to."""

    def __init__(self) -> None:
        super().__init__(TEN)
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.folds = 0

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        self.folds += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().fold(updates)


async def type_into(
    shell: Shell, count: int, *, document: DocumentId = NOTES, start: int = 0
) -> None:
    for at in range(start, start + count):
        shell.take(typed("a", at=at), document=document)
    await shell.settled(document)


async def text(shell: Shell, document: DocumentId = NOTES) -> str:
    shell.encodings.drop(document)
    return text_of([await shell.difference(document, EMPTY_VECTOR)])


@pytest.mark.parametrize(
    ("updates", "log_bytes", "state_bytes", "is_due"),
    [
        (499, 1_000, 0, False),
        (500, 1_000, 0, True),
        (10, IMPATIENT.log_bytes_before_fold, 0, True),
        (500, 1_000, 8_001, False),
        (500, 1_000, 8_000, True),
        (16 * 500 - 1, 1_000, 10**9, False),
        (16 * 500, 1_000, 10**9, True),
    ],
)
def test_a_log_is_folded_when_that_pays(
    updates: int, log_bytes: int, state_bytes: int, is_due: bool
) -> None:
    assert is_fold_due(updates, log_bytes, state_bytes, IMPATIENT) is is_due


async def test_a_log_that_has_grown_is_folded_in_the_background() -> None:
    async with opened_shell(limits=TEN) as shell:
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 10)
        await until(lambda: bool(shell.witness.folds))
        assert shell.witness.folds == [(NOTES, 10)]
        stored = await shell.store.read(NOTES)
        assert stored.log == ()
        assert await text(shell) == "a" * 10


async def test_documents_that_nobody_has_open_are_folded_too() -> None:
    store = GatedStore(limits=TEN)
    await store.write([Append(NOTES, tuple(typed("a", at=at) for at in range(12)))])
    async with opened_shell(store, limits=TEN) as shell:
        await until(lambda: bool(shell.witness.folds))
        assert shell.witness.folds == [(NOTES, 12)]
        assert len(shell.core) == 0
        assert not shell.compaction._growth, "nothing is kept of what nobody uses"


async def test_what_is_appended_while_a_fold_runs_stays_in_the_log_and_counts() -> None:
    workers = GatedWorkers()
    workers.gate.clear()
    async with opened_shell(limits=TEN, workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 10)
        await until(lambda: workers.folds == 1)
        await type_into(shell, 9, start=10)
        workers.gate.set()
        await until(lambda: bool(shell.witness.folds))
        stored = await shell.store.read(NOTES)
        assert len(stored.log) == 9
        await turn()
        assert workers.folds == 1, "nine more are not worth a second one"
        await type_into(shell, 1, start=19)
        await until(lambda: workers.folds == 2)
        assert await text(shell) == "a" * 20


@pytest.mark.parametrize("is_open", [True, False])
async def test_owners_and_refusals_outlive_folds(is_open: bool) -> None:
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        await shell.recount("ada")
        shell.take(typed("a"), author=Author("ada"))
        shell.take(typed("x" * 9, client=5)[:-1], source=9)
        await shell.settled(NOTES)
        for at in range(1, 3):
            if not is_open:
                shell.leave(NOTES, 1)
            await shell.compaction.fold(NOTES)
            if not is_open:
                await shell.use(NOTES, 1, Watcher())
            shell.take(typed("b", at=at), author=Author("ada"))
            await shell.settled(NOTES)
        shell.leave(NOTES, 1)
        await shell.use(NOTES, 1, Watcher())
        known = shell.core.get(NOTES)
        assert known is not None
        assert known.head.owners == {1: "ada"}
        assert list(known.head.refused) == [5]
        stored = await shell.store.read(NOTES)
        assert stored.metadata == {}, "the head holds them"


async def test_what_waits_outlives_a_fold() -> None:
    store = GatedStore()
    await store.write(
        [
            Append(NOTES, (typed("a"),)),
            Hold(NOTES, 1, typed("c", at=2), "address peer", NOW),
        ]
    )
    async with opened_shell(store) as shell:
        await shell.compaction.fold(NOTES)
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 1, start=1)
        assert await text(shell) == "aac"


async def test_nothing_is_folded_where_there_is_no_log() -> None:
    async with opened_shell() as shell:
        assert not await shell.compaction.fold(NOTES)
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 1)
        assert await shell.compaction.fold(NOTES)
        assert not await shell.compaction.fold(NOTES)


@pytest.mark.parametrize(
    "failure",
    [
        StoreFull("no space left"),
        LimitExceeded("worker_jobs_waiting_max", 1, 2),
        WorkerFailed("not started", "no memory"),
    ],
)
async def test_a_failure_that_is_not_the_documents_leaves_its_log_and_ends_nothing(
    failure: Exception,
) -> None:
    workers = GatedWorkers()
    workers.failure = failure
    async with opened_shell(limits=TEN, workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        await shell.use(OTHER, 1, Watcher())
        await type_into(shell, 10)
        await until(lambda: workers.folds == 1)
        await turn()
        assert shell.witness.aside == []
        workers.failure = None
        await type_into(shell, 10, document=OTHER)
        await until(lambda: bool(shell.witness.folds))
        assert shell.witness.folds == [(OTHER, 10)]
        await type_into(shell, 1, start=10)
        await until(lambda: len(shell.witness.folds) == 2)


@pytest.mark.parametrize(
    "failure", [WorkerFailed("died", "it ended"), UpdateMalformed("not an update")]
)
async def test_a_document_that_harms_the_worker_is_set_aside_and_the_rest_goes_on(
    failure: Exception,
) -> None:
    workers, watcher = GatedWorkers(), Watcher()
    workers.failure = failure
    async with opened_shell(limits=TEN, workers=workers) as shell:
        await shell.use(NOTES, 1, watcher)
        await type_into(shell, 10)
        await until(lambda: bool(shell.witness.aside))
        await until(lambda: bool(watcher.losses))
        workers.failure = None
        assert not await shell.compaction.fold(NOTES), "it is not tried again and again"
        await shell.use(OTHER, 1, Watcher())
        await type_into(shell, 10, document=OTHER)
        await until(lambda: bool(shell.witness.folds))


async def test_folding_goes_on_although_the_disk_is_full_when_a_document_is_set_aside() -> None:
    workers = GatedWorkers()
    workers.failure = WorkerFailed("died", "it ended")
    async with opened_shell(limits=TEN, workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        workers.gate.clear()
        await type_into(shell, 10)
        await until(lambda: workers.folds == 1)
        shell.store.fault = StoreFull("no space left")
        workers.gate.set()
        await until(lambda: bool(shell.witness.aside))
        await turn()
        shell.store.fault, workers.failure = None, None
        await shell.use(OTHER, 1, Watcher())
        await type_into(shell, 10, document=OTHER)
        await until(lambda: bool(shell.witness.folds))


async def test_two_folds_of_one_document_at_once_lose_nothing() -> None:
    workers = GatedWorkers()
    workers.gate.clear()
    async with opened_shell(limits=TEN, workers=workers) as shell:
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 10)
        await until(lambda: workers.folds == 1)
        await type_into(shell, 5, start=10)
        second = asyncio.create_task(shell.compaction.fold(NOTES))
        await until(lambda: workers.folds == 2)
        workers.gate.set()
        await second
        await turn()
        await type_into(shell, 5, start=15)
        assert await text(shell) == "a" * 20


async def test_a_store_that_cannot_be_read_at_the_start_does_not_end_compaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = GatedStore(limits=TEN)

    async def fail(**_: object) -> tuple[DocumentId, ...]:
        raise StoreFull("an I/O error")

    monkeypatch.setattr(store, "overgrown", fail)
    async with opened_shell(store, limits=TEN) as shell:
        await shell.use(NOTES, 1, Watcher())
        await type_into(shell, 10)
        await until(lambda: bool(shell.witness.folds))


async def test_refused_updates_are_not_counted_as_growth() -> None:
    async with opened_shell(limits=TEN) as shell:
        await shell.use(NOTES, 1, Watcher())
        for source in range(20):
            shell.take(BROKEN, source=100 + source)
        await shell.settled(NOTES)
        await turn()
        assert shell.witness.folds == []
