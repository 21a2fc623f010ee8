"""The store over a simulated disk keeps the contract, on the production shell with its queue."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import apsw
import pytest

from crdt_state.simulator.disks import Disk
from crdt_state.simulator.stores import MARK, SimulatedStore, copied_mark
from storage.damage import flip_a_bit
from storage.store_contract import SMALL, StoreContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crdt_state.identifiers import DocumentId


class OpenedSimulated:
    def __init__(self, store: SimulatedStore, random: Random) -> None:
        self.store = store
        self.random = random

    async def _open(self, files: dict[str, bytes]) -> SimulatedStore:
        self.store = await SimulatedStore.on(Disk(files), random=self.random, limits=SMALL)
        return self.store

    async def reopen(self) -> SimulatedStore:
        await self.store.close()
        return await self._open(self.store.disk.after_kill())

    async def restore(self) -> SimulatedStore:
        await self.store.close()
        files = self.store.disk.after_kill()
        files[MARK] = copied_mark(files[MARK], self.random)
        return await self._open(files)

    async def damage(self, kind: str, document: DocumentId) -> None:
        flip_a_bit(self.store.connection, kind, document)

    async def fill_disk(self) -> None:
        self.store.disk.refuses = {"write": apsw.SQLITE_FULL}

    async def free_disk(self) -> None:
        self.store.disk.refuses = {}


class TestProductionStoreOnASimulatedDisk(StoreContract):
    @pytest.fixture
    async def opened(self) -> AsyncIterator[OpenedSimulated]:
        random = Random(3)
        store = await SimulatedStore.on(Disk(), random=random, limits=SMALL)
        opened = OpenedSimulated(store, random)
        yield opened
        await opened.store.close()
