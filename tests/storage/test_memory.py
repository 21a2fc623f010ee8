"""The reference adapter keeps the contract."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.errors import StoreFull
from crdt_state.storage.memory import MemoryStore
from storage.store_contract import SMALL, StoreContract

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId


class OpenedMemory:
    def __init__(self) -> None:
        self.random = Random(3)
        self.store = MemoryStore(random=self.random, limits=SMALL)

    async def reopen(self) -> MemoryStore:
        await self.store.close()
        self.store = self.store.reopened()
        return self.store

    async def restore(self) -> MemoryStore:
        await self.store.close()
        self.store = self.store.restored(self.random)
        return self.store

    async def damage(self, kind: str, document: DocumentId) -> None:
        if kind == "node":
            checksums = self.store._node_checksums
            checksums[next(iter(checksums))] ^= 1
            return
        checksums = self.store._documents[document].checksums
        place = next(place for place in checksums if place[0] == kind)
        checksums[place] ^= 1

    async def fill_disk(self) -> None:
        self.store.fault = StoreFull("no space left")

    async def free_disk(self) -> None:
        self.store.fault = None


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def opened(self) -> OpenedMemory:
        return OpenedMemory()

    async def test_a_restored_copy_is_a_store_of_its_own(self) -> None:
        store = OpenedMemory().store
        copy = store.restored(Random(1))
        assert copy.replica_id == store.replica_id
        assert copy.incarnation != store.incarnation
        assert not store.is_new_incarnation
