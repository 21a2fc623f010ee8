"""`crdt_state.replica.encodings`: read once, never behind, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from crdt_state.errors import StoreUnavailable, WorkerFailed
from crdt_state.identifiers import DocumentId
from crdt_state.limits import Limits
from crdt_state.model.engine import EMPTY_VECTOR, encode_state_vector
from crdt_state.replica.encodings import ENTRY_BYTES, INLINE_BYTES_MAX, Encodings
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import Append
from wired import IMPATIENT, NOTES, GatedStore, text_of, turn, typed

BIG = typed("x" * (INLINE_BYTES_MAX + 1), client=9)


class CountingStore(GatedStore):
    """Counts reads; may fail."""

    reads = 0
    failure: Exception | None = None

    async def read(self, document: DocumentId) -> Any:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return await super().read(document)


class GatedWorkers(InProcess):
    """Merges wait at a gate."""

    def __init__(self) -> None:
        super().__init__(IMPATIENT)
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def merge(self, updates: Sequence[bytes]) -> bytes:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().merge(updates)


class Cache:
    """Encodings over a store, told of what is appended as the shell tells them."""

    def __init__(self, *, limits: Limits = IMPATIENT) -> None:
        self.store = CountingStore(limits=limits)
        self.workers = GatedWorkers()
        self.encodings = Encodings(self.store, self.workers, limits)

    async def append(self, *updates: bytes, document: DocumentId = NOTES) -> None:
        await self.store.write([Append(document, updates)])
        self.encodings.appended(document, updates)

    async def text(self, document: DocumentId = NOTES) -> str:
        return text_of([await self.encodings.state(document)])


async def test_a_storm_of_joins_reads_and_merges_once() -> None:
    cache = Cache()
    await cache.append(typed("a"), typed("b", at=1))
    cache.store.reading.clear()
    joins = [asyncio.create_task(cache.encodings.state(NOTES)) for _ in range(1_000)]
    await turn()
    cache.store.reading.set()
    states = await asyncio.gather(*joins)
    assert cache.store.reads == 1
    assert all(state is states[0] for state in states)
    assert text_of(states[:1]) == "ab"


async def test_what_is_appended_is_in_the_next_answer_without_reading_again() -> None:
    cache = Cache()
    await cache.append(typed("a"))
    assert await cache.text() == "a"
    await cache.append(typed("b", at=1))
    await cache.append(typed("c", at=2))
    assert await cache.text() == "abc"
    assert cache.store.reads == 1


async def test_what_is_appended_while_the_store_is_read_is_not_lost() -> None:
    cache = Cache()
    await cache.append(typed("a"))
    cache.store.reading.clear()
    first = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    await cache.append(typed("b", at=1))
    second = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    cache.store.reading.set()
    await first
    assert text_of([await second]) == "ab"


async def test_what_is_appended_during_a_merge_is_in_the_answer_to_who_asked_later() -> None:
    cache = Cache()
    await cache.append(BIG, typed("a"))
    cache.workers.gate.clear()
    first = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    await cache.append(typed("b", at=1))
    second = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    cache.workers.gate.set()
    await first
    assert "ab" in text_of([await second])


async def test_who_waited_for_a_state_that_was_dropped_is_not_given_an_old_one() -> None:
    cache = Cache()
    await cache.append(typed("a"))
    cache.store.reading.clear()
    first = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    second = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    cache.encodings.drop(NOTES)
    # From here on the first one's encoding hears of nothing, and the second one has asked after.
    await cache.append(typed("b", at=1))
    third = asyncio.create_task(cache.encodings.state(NOTES))
    cache.store.reading.set()
    await first
    assert text_of([await third]) == "ab"
    assert text_of([await second]) == "ab"


@pytest.mark.parametrize("failure", [StoreUnavailable("an I/O error"), asyncio.CancelledError()])
async def test_a_failed_read_is_told_and_leaves_nothing_behind(failure: BaseException) -> None:
    cache = Cache()
    await cache.append(typed("a"))
    cache.store.failure = failure  # type: ignore[assignment]
    with pytest.raises(type(failure)):
        await cache.encodings.state(NOTES)
    cache.store.failure = None
    assert await cache.text() == "a"
    assert cache.encodings._bytes == sum(e.size for e in cache.encodings._cached.values())


async def test_a_failed_merge_loses_no_update() -> None:
    cache = Cache()
    await cache.append(BIG)
    await cache.encodings.state(NOTES)
    await cache.append(typed("a"))
    cache.workers.failure = WorkerFailed("died", "it ended")
    with pytest.raises(WorkerFailed):
        await cache.encodings.state(NOTES)
    cache.workers.failure = None
    assert "a" in await cache.text()


async def test_one_who_gives_up_during_a_merge_takes_no_update_along() -> None:
    cache = Cache()
    await cache.append(BIG)
    await cache.encodings.state(NOTES)
    await cache.append(typed("a"))
    cache.workers.gate.clear()
    gave_up = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    stays = asyncio.create_task(cache.encodings.state(NOTES))
    await turn()
    gave_up.cancel()
    cache.workers.gate.set()
    assert "a" in text_of([await stays])


async def test_a_million_empty_documents_do_not_fill_the_memory() -> None:
    cache = Cache(limits=replace(IMPATIENT, encodings_cached_bytes_max=100 * ENTRY_BYTES))
    for number in range(500):
        await cache.encodings.state(DocumentId(f"empty {number}"))
    assert len(cache.encodings._cached) <= 100


async def test_the_least_recently_asked_for_goes_first() -> None:
    cache = Cache(limits=replace(IMPATIENT, encodings_cached_bytes_max=3 * ENTRY_BYTES + 100))
    for name in ("one", "two", "three"):
        await cache.encodings.state(DocumentId(name))
    await cache.encodings.state(DocumentId("one"))
    await cache.encodings.state(DocumentId("four"))
    assert list(cache.encodings._cached) == ["three", "one", "four"]


async def test_a_tail_that_nobody_asks_for_is_bounded() -> None:
    cache = Cache(limits=replace(IMPATIENT, encodings_cached_bytes_max=10_000))
    await cache.encodings.state(NOTES)
    for at in range(100):
        await cache.append(typed("x" * 1_000, at=at * 1_000))
        assert cache.encodings._bytes <= 10_000 + 1_100
    assert len(await cache.text()) == 100_000


async def test_a_difference_is_what_a_vector_lacks() -> None:
    cache = Cache()
    await cache.append(typed("a"), typed("b", client=2))
    difference = await cache.encodings.difference(NOTES, encode_state_vector({1: 1}))
    assert text_of([difference]) == "b"
    assert await cache.encodings.difference(NOTES, EMPTY_VECTOR) == await cache.encodings.state(
        NOTES
    )


async def test_large_and_small_states_give_the_same_difference() -> None:
    cache = Cache()
    await cache.append(BIG, typed("a"))
    difference = await cache.encodings.difference(NOTES, encode_state_vector({9: len(BIG)}))
    assert text_of([difference]) == "a"
