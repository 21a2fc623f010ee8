"""`crdt_state.replica.remotes`: whoever was connected once is owed what comes later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_state.errors import LimitExceeded, StoreCorrupt, StoreFull
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.remotes import KEY, Remotes
from crdt_state.storage.contract import Append, SetMetadata
from crdt_state.storage.memory import MemoryStore
from wired import typed

FIRST, SECOND = "ws://first", "ws://second"


def remotes(store: MemoryStore, **limits: int) -> Remotes:
    bounds = replace(DEFAULT_LIMITS, **limits)  # type: ignore[arg-type]
    return Remotes(store, ReplicaCore(bounds), bounds)


async def stored(count: int) -> MemoryStore:
    store = MemoryStore()
    for number in range(count):
        await store.write([Append(DocumentId(f"d{number:04}"), (typed("a"),))])
    return store


async def owed(store: MemoryStore, remote: str) -> list[str]:
    return [entry.document for entry in await store.outbox(remote)]


async def test_a_new_remote_is_owed_everything_and_a_known_one_nothing_more() -> None:
    store = await stored(1_234)
    known = remotes(store)
    assert FIRST not in known
    await known.add(FIRST)
    assert FIRST in known
    assert len(await owed(store, FIRST)) == 1_234
    await known.forget(FIRST)
    again = remotes(store)
    await again.load()
    assert FIRST not in again
    assert await owed(store, FIRST) == []


async def test_the_list_outlives_the_process_and_the_core_owes_who_is_on_it() -> None:
    store = await stored(1)
    first = remotes(store)
    await first.add(FIRST)
    await first.add(SECOND)
    await store.write([Append(DocumentId("late"), (typed("a"),))])
    again = remotes(store)
    await again.load()
    await again.add(SECOND)  # it is known: no second round of everything
    assert SECOND in again
    assert await owed(store, SECOND) == ["d0000"]
    assert set(again._core._remotes) == {FIRST, SECOND}


async def test_a_remote_is_known_only_when_it_is_owed_everything() -> None:
    store = await stored(3)
    known = remotes(store)
    store.fault = StoreFull("no space left")
    with pytest.raises(StoreFull):
        await known.add(FIRST)
    store.fault = None
    assert FIRST not in known
    await known.add(FIRST)
    assert len(await owed(store, FIRST)) == 3


async def test_who_holds_all_of_a_document_is_who_is_not_owed_it() -> None:
    store = await stored(1_100)
    known = remotes(store)
    await known.add(FIRST)
    await known.add(SECOND)
    document = DocumentId("d1050")
    assert await known.others_who_hold(document, FIRST) == []
    await known.forget(SECOND)
    await store.write([SetMetadata(KEY, b'["ws://first", "ws://second"]')])
    again = remotes(store)
    await again.load()
    assert await again.others_who_hold(document, FIRST) == [SECOND]
    assert await again.others_who_hold(document, SECOND) == []


async def test_the_list_is_bounded() -> None:
    known = remotes(await stored(1), remotes_max=1)
    known.check_room(FIRST)
    await known.add(FIRST)
    known.check_room(FIRST)
    with pytest.raises(LimitExceeded, match="remotes_max"):
        known.check_room(SECOND)
    with pytest.raises(LimitExceeded, match="remotes_max"):
        await known.add(SECOND)


async def test_a_list_that_cannot_be_read_is_said_to_be_so() -> None:
    store = MemoryStore()
    await store.write([SetMetadata(KEY, b"{")])
    with pytest.raises(StoreCorrupt, match="list of remotes"):
        await remotes(store).load()
