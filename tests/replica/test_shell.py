"""`crdt_state.replica.shell`: order of durability, and what must never stop it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentSetAside,
    EngineFailed,
    StoreFull,
    StoreUnavailable,
    UpdateMalformed,
    WorkerFailed,
    WriteInvalid,
)
from crdt_state.model.engine import EMPTY_VECTOR
from crdt_state.replica.admission import Author
from crdt_state.replica.document_core import LOCAL, NOBODY, REPAIR, SET_ASIDE
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import Append, SetMetadata
from crdt_state.storage.memory import MemoryStore
from hostile import section, string, update
from wired import (
    BROKEN,
    IMPATIENT,
    NOTES,
    OTHER,
    GatedStore,
    Reports,
    Watcher,
    opened_shell,
    text_of,
    turn,
    typed,
    until,
)


async def test_nobody_is_told_before_the_commit_has_returned() -> None:
    store, watcher = GatedStore(), Watcher()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, watcher)
        store.gate.clear()
        shell.take(typed("a"))
        settled = asyncio.create_task(shell.settled(NOTES))
        await turn()
        assert watcher.updates == []
        assert not settled.done()
        assert text_of([await shell.difference(NOTES, EMPTY_VECTOR)]) == ""
        store.gate.set()
        await settled
        assert watcher.updates == [typed("a")]
        assert text_of([await shell.difference(NOTES, EMPTY_VECTOR)]) == "a"


async def test_everybody_is_told_the_same_in_the_same_order() -> None:
    first, second = Watcher(), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, first)
        await shell.use(NOTES, 2, second)
        for at in range(50):
            shell.take(typed("a", at=at), source=1 + at % 2)
            if at % 7 == 0:
                await turn(2)
        await shell.settled(NOTES)
        assert first.deltas == second.deltas
        assert first.updates == [typed("a", at=at) for at in range(50)] == shell.store.appended()


async def test_an_update_that_came_while_a_commit_ran_is_in_the_next_one() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, Watcher())
        store.gate.clear()
        shell.take(typed("a"))
        await turn()
        for at in range(1, 40):
            shell.take(typed("a", at=at))
            await turn(1)
        store.gate.set()
        await shell.settled(NOTES)
        assert shell.witness.commits == 2


async def test_a_failed_commit_is_told_to_whoever_waits_and_nothing_of_it_is_delivered() -> None:
    watcher, bystander = Watcher(), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, watcher)
        await shell.use(OTHER, 1, bystander)
        shell.store.fault = StoreFull("no space left")
        shell.take(typed("mine"), source=LOCAL)
        with pytest.raises(StoreFull):
            await shell.settled(NOTES)
        assert watcher.updates == []
        ((error, own_edits),) = watcher.losses
        assert isinstance(error, StoreFull)
        assert own_edits == [typed("mine")]
        assert shell.core.get(NOTES) is None
        assert bystander.losses == []
        shell.store.fault = None
        await shell.use(NOTES, 1, watcher)
        shell.take(typed("mine"), source=LOCAL)
        await shell.settled(NOTES)
        assert watcher.updates == [typed("mine")]
        assert [type(failure) for failure in shell.witness.failures] == [StoreFull]


@pytest.mark.parametrize("failure", [WriteInvalid("a mistake"), RuntimeError("a mistake")])
async def test_the_writer_goes_on_whatever_the_store_raises(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, watcher = Reports(), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, watcher)

        async def fail(_: object) -> None:
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(shell.store, "write", fail)
            shell.take(typed("a"))
            with pytest.raises(StoreUnavailable):
                await shell.settled(NOTES)
        assert len(reports) == 1
        await shell.use(NOTES, 1, watcher)
        shell.take(typed("a"))
        await shell.settled(NOTES)
        assert watcher.updates == [typed("a")]


async def test_a_subscriber_that_fails_stops_neither_the_writer_nor_the_others() -> None:
    reports = Reports()
    faulty, sound = Watcher(fails=True), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, faulty)
        await shell.use(NOTES, 2, sound)
        shell.take(typed("a"))
        await shell.settled(NOTES)
        shell.take(typed("b", at=1))
        await shell.settled(NOTES)
        assert sound.updates == [typed("a"), typed("b", at=1)]
        assert len(reports) == 1, "told once, then unsubscribed"
        assert [type(error) for error, _ in faulty.losses] == [RuntimeError]


async def test_a_subscriber_that_fails_at_a_refusal_stops_nothing() -> None:
    reports, sound = Reports(), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher(fails=True))
        await shell.use(NOTES, 2, sound)
        shell.take(BROKEN)
        shell.take(typed("a", client=2), source=9)
        await shell.settled(NOTES)
        assert sound.updates == [typed("a", client=2)]
        assert [type(refusal.error) for refusal in sound.refusals] == [UpdateMalformed]
        assert len(reports) == 1


async def test_readers_are_woken_when_what_arrived_added_nothing() -> None:
    # 64 MB of updates that everybody holds already must not stop the replica for ever.
    limits = replace(IMPATIENT, writer_queue_bytes_max=100)
    async with opened_shell(limits=limits) as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.take(typed("a" * 80))
        await shell.settled(NOTES)
        shell.take(typed("a" * 80))
        shell.take(typed("a" * 80))
        waiting = asyncio.create_task(shell.has_room())
        await until(waiting.done)


async def test_readers_wait_while_the_disk_is_slow_and_go_on_afterwards() -> None:
    limits = replace(IMPATIENT, writer_queue_bytes_max=100)
    store = GatedStore(limits=limits)
    async with opened_shell(store, limits=limits) as shell:
        await shell.use(NOTES, 1, Watcher())
        store.gate.clear()
        shell.take(typed("a" * 200))
        waiting = asyncio.create_task(shell.has_room())
        await turn()
        assert not waiting.done()
        store.gate.set()
        await until(waiting.done)


async def test_readers_are_woken_by_a_failed_commit() -> None:
    limits = replace(IMPATIENT, writer_queue_bytes_max=100)
    async with opened_shell(limits=limits) as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.store.fault = StoreFull("no space left")
        shell.take(typed("a" * 200))
        waiting = asyncio.create_task(shell.has_room())
        await until(waiting.done)


async def test_a_document_is_loaded_once_for_all_who_come_at_the_same_time() -> None:
    store = GatedStore()
    store.reading.clear()
    async with opened_shell(store) as shell:
        uses = [asyncio.create_task(shell.use(NOTES, source, Watcher())) for source in range(1, 20)]
        await turn()
        store.reading.set()
        await asyncio.gather(*uses)
        assert len(shell.core) == 1
        for source in range(1, 20):
            shell.leave(NOTES, source)
        assert len(shell.core) == 0


async def test_who_gives_up_while_a_document_is_loaded_leaves_nothing_behind() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        store.reading.clear()
        gave_up = asyncio.create_task(shell.use(NOTES, 1, Watcher()))
        await turn()
        gave_up.cancel()
        await turn()
        store.reading.set()
        await turn()
        assert len(shell.core) == 0


async def test_who_stays_gets_the_document_although_another_gave_up() -> None:
    store, watcher = GatedStore(), Watcher()
    async with opened_shell(store) as shell:
        store.reading.clear()
        gave_up = asyncio.create_task(shell.use(NOTES, 1, Watcher()))
        stays = asyncio.create_task(shell.use(NOTES, 2, watcher))
        await turn()
        gave_up.cancel()
        store.reading.set()
        await stays
        shell.take(typed("a"))
        await shell.settled(NOTES)
        assert watcher.updates == [typed("a")]


@pytest.mark.parametrize("update", [typed("a"), typed("b", at=1), typed("held")])
async def test_a_document_that_nobody_uses_is_let_go_once_it_is_settled(update: bytes) -> None:
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.take(typed("held"))
        await shell.settled(NOTES)
        shell.take(update)
        shell.leave(NOTES, 1)
        assert len(shell.core) == 1
        await turn()
        assert len(shell.core) == 0
        assert not shell.compaction._growth


async def test_what_is_set_aside_is_refused_from_then_on_and_handed_back() -> None:
    watcher, store = Watcher(), GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, watcher)
        shell.take(typed("stored"))
        await shell.settled(NOTES)
        shell.take(typed("mine", client=2), source=LOCAL)
        settled = asyncio.create_task(shell.settled(NOTES))
        await turn(0)
        shell.core.withhold(NOTES)
        await turn()
        await shell.set_aside(NOTES, "it killed a worker")
        with pytest.raises(DocumentSetAside):
            await settled
        ((error, own_edits),) = watcher.losses
        assert isinstance(error, DocumentSetAside)
        assert own_edits == [typed("mine", client=2)]
        assert store.appended() == [typed("stored")], "nothing stored is lost, nothing is added"
        await shell.use(NOTES, 1, watcher)
        with pytest.raises(DocumentSetAside):
            shell.take(typed("more", client=3))


async def test_a_document_set_aside_while_it_is_loaded_is_set_aside() -> None:
    store, watcher = GatedStore(), Watcher()
    async with opened_shell(store) as shell:
        store.reading.clear()
        loading = asyncio.create_task(shell.use(NOTES, 1, watcher))
        await turn()
        aside = asyncio.create_task(shell.set_aside(NOTES, "it killed a worker"))
        await turn()
        store.reading.set()
        await aside
        await loading
        if shell.core.get(NOTES) is None:
            assert [type(error) for error, _ in watcher.losses] == [DocumentSetAside]
            await shell.use(NOTES, 1, watcher)
        with pytest.raises(DocumentSetAside):
            shell.take(typed("a"))


async def test_setting_aside_survives_a_full_disk() -> None:
    watcher = Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, watcher)
        shell.store.fault = StoreFull("no space left")
        await shell.set_aside(NOTES, "it killed a worker")
        assert len(watcher.losses) == 1
        assert len(shell.witness.failures) == 1


async def test_a_dropped_document_is_read_again_only_when_its_commit_has_ended() -> None:
    store, watcher = GatedStore(), Watcher()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, watcher)
        store.gate.clear()
        shell.take(typed("a"))
        await turn()
        shell.drop(NOTES, EngineFailed("a panic"))
        again = asyncio.create_task(shell.use(NOTES, 2, watcher))
        await turn()
        assert not again.done()
        store.gate.set()
        await again
        known = shell.core.get(NOTES)
        assert known is not None
        assert known.head.vector == {1: 1}, "what was being written is known"


async def test_a_mistake_in_deciding_ends_the_use_of_one_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports, watcher, bystander = Reports(), Watcher(), Watcher()
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, watcher)
        await shell.use(OTHER, 1, bystander)
        known = shell.core.get(NOTES)
        assert known is not None

        def broken(*_: object) -> None:
            raise KeyError("a mistake")

        monkeypatch.setattr(known, "_decide_run", broken)
        shell.take(typed("a"))
        shell.take(typed("x"), document=OTHER)
        with pytest.raises(CrdtStateError):
            await shell.settled(NOTES)
        await shell.settled(OTHER)
        assert bystander.updates == [typed("x")]
        assert len(watcher.losses) == len(reports) == 1


async def test_closing_makes_durable_what_has_been_received_and_takes_nothing_more() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, Watcher())
        store.gate.clear()
        shell.take(typed("a"))
        await turn()
        shell.take(typed("b", at=1))
        closing = asyncio.create_task(shell.close())
        await turn()
        with pytest.raises(DocumentClosed, match="closing"):
            shell.take(typed("c", at=2))
        assert not closing.done()
        store.gate.set()
        await closing
        assert store.appended() == [typed("a"), typed("b", at=1)]
        assert store.is_closed


async def test_closing_ends_although_the_disk_is_full() -> None:
    async with opened_shell() as shell:
        await shell.use(NOTES, 1, Watcher())
        shell.store.fault = StoreFull("no space left")
        shell.take(typed("a"))
        await shell.close()
        assert shell.store.is_closed


async def test_a_cancelled_waiter_takes_nobody_with_it() -> None:
    store = GatedStore()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, Watcher())
        store.gate.clear()
        shell.take(typed("a"))
        cancelled = asyncio.create_task(shell.settled(NOTES))
        stays = asyncio.create_task(shell.settled(NOTES))
        await turn()
        cancelled.cancel()
        store.gate.set()
        await stays


async def test_the_last_sequence_is_never_ahead_of_what_was_delivered() -> None:
    seen: list[tuple[int, int]] = []
    async with opened_shell() as shell:

        class Counting(Watcher):
            def deliver(self, deltas: Any) -> None:
                super().deliver(deltas)
                seen.append((len(self.deltas), shell.last))

        await shell.use(NOTES, 1, Counting())
        for at in range(10):
            shell.take(typed("a", at=at))
            await shell.settled(NOTES)
        assert all(delivered == last for delivered, last in seen)


# --- split surrogate pairs ----------------------------------------------------------------------

SMILE = typed("a\N{GRINNING FACE}b")


def between_halves(client: int = 2) -> bytes:
    return update(section(client, 0, string("x", origin=(1, 1), right=(1, 2))))


class GatedWorkers(InProcess):
    """Repairs wait at a gate, and fail when told to."""

    def __init__(self) -> None:
        super().__init__(IMPATIENT)
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.repairs = 0

    async def repair(self, updates: Any, splits: Any) -> Any:
        self.repairs += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().repair(updates, splits)


async def test_a_split_pair_is_repaired_before_anybody_sees_it() -> None:
    workers, watcher = GatedWorkers(), Watcher()
    async with opened_shell(is_listening=True, workers=workers) as shell:
        await shell.use(NOTES, 1, watcher)
        shell.take(SMILE)
        await shell.settled(NOTES)
        workers.gate.clear()
        shell.take(between_halves(), source=8)
        settled = asyncio.create_task(shell.settled(NOTES))
        await turn()
        assert watcher.updates == [SMILE]
        assert not settled.done(), "the barrier waits for the repair"
        workers.gate.set()
        await settled
        assert shell.witness.repairs == [NOTES]
        assert {delta.source for delta in watcher.deltas[1:]} <= {REPAIR, NOBODY}
        text = text_of([await shell.difference(NOTES, EMPTY_VECTOR)])
        assert sorted(text) == sorted("a\N{GRINNING FACE}bx")


async def test_a_repair_keeps_owners_and_refusals() -> None:
    ada = Author("ada")
    store = GatedStore()
    async with opened_shell(store, is_listening=True) as shell:
        await shell.use(NOTES, 1, Watcher())
        await shell.recount("ada")
        shell.take(SMILE, author=ada)
        shell.take(typed("x" * 9, client=5)[:-1], source=9)
        await shell.settled(NOTES)
        await shell.compaction.fold(NOTES)
        shell.take(between_halves(), source=8)
        await shell.settled(NOTES)
        assert shell.witness.repairs == [NOTES]
        known = shell.core.get(NOTES)
        assert known is not None
        before = dict(known.head.owners), dict(known.head.refused)
        assert all(before)
        shell.leave(NOTES, 1)
        await shell.use(NOTES, 1, Watcher())
        again = shell.core.get(NOTES)
        assert again is not None
        assert again is not known
        assert (again.head.owners, again.head.refused) == before


@pytest.mark.parametrize(
    ("failure", "is_aside"),
    [
        (WorkerFailed("died", "it ended"), True),
        (WorkerFailed("not started", "no memory"), False),
        (StoreUnavailable("an I/O error"), False),
    ],
)
async def test_what_could_not_be_repaired_reaches_neither_log_nor_subscribers(
    failure: Exception, is_aside: bool
) -> None:
    workers, watcher = GatedWorkers(), Watcher()
    async with opened_shell(is_listening=True, workers=workers) as shell:
        await shell.use(NOTES, 1, watcher)
        shell.take(SMILE)
        await shell.settled(NOTES)
        workers.failure = failure
        shell.take(between_halves(), source=8)
        with pytest.raises(CrdtStateError):
            await shell.settled(NOTES)
        await turn()
        assert watcher.updates == [SMILE]
        assert shell.store.appended() == [SMILE]
        assert bool(shell.witness.aside) is is_aside
        assert len(watcher.losses) == 1


async def test_an_old_repair_does_not_let_go_what_a_new_one_holds_back() -> None:
    workers, watcher = GatedWorkers(), Watcher()
    async with opened_shell(is_listening=True, workers=workers) as shell:
        await shell.use(NOTES, 1, watcher)
        shell.take(SMILE)
        await shell.settled(NOTES)
        old, workers.gate = workers.gate, asyncio.Event()
        shell.take(between_halves(), source=8)
        await until(lambda: workers.repairs == 1)
        shell.drop(NOTES, EngineFailed("a panic"))
        first, workers.gate = workers.gate, asyncio.Event()
        await shell.use(NOTES, 1, watcher)
        shell.take(between_halves(3), source=9)
        await until(lambda: workers.repairs == 2)
        first.set()
        await turn()
        assert shell.store.appended() == [SMILE], "the second repair is still under way"
        workers.gate.set()
        await shell.settled(NOTES)
        assert len(shell.store.appended()) > 1
        assert old.is_set()


async def test_a_fold_beside_a_repair_loses_nothing() -> None:
    workers, watcher = GatedWorkers(), Watcher()
    async with opened_shell(is_listening=True, workers=workers) as shell:
        await shell.use(NOTES, 1, watcher)
        shell.take(SMILE)
        await shell.settled(NOTES)
        workers.gate.clear()
        shell.take(between_halves(), source=8)
        await until(lambda: workers.repairs == 1)
        await shell.compaction.fold(NOTES)
        workers.gate.set()
        await shell.settled(NOTES)
        await shell.compaction.fold(NOTES)
        shell.encodings.drop(NOTES)
        text = text_of([await shell.difference(NOTES, EMPTY_VECTOR)])
        assert sorted(text) == sorted("a\N{GRINNING FACE}bx")


async def test_metadata_of_a_document_set_aside_is_on_the_disk() -> None:
    async with opened_shell() as shell:
        await shell.set_aside(NOTES, "it killed a worker")
        assert [SetMetadata(SET_ASIDE, b"it killed a worker", NOTES)] in shell.store.writes


async def test_reading_a_document_does_not_count_an_earlier_commit_as_delivered() -> None:
    store, watcher = GatedStore(), Watcher()
    async with opened_shell(store) as shell:
        await shell.use(NOTES, 1, watcher)
        store.returning.clear()
        shell.take(typed("a"))
        await turn(5)
        assert await store.read(NOTES) is not None, "the commit is on the disk"
        assert watcher.updates == [], "and nobody knows"
        await MemoryStore.write(store, [Append(OTHER, (typed("b"),))])
        await shell.use(OTHER, 2, Watcher())
        assert shell.last == 0, "what is said to be held through here has been delivered"
        store.returning.set()
        await shell.settled(NOTES)
        assert shell.last == 2
