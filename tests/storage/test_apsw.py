"""The store's SQL keeps the contract over another binding and another build of SQLite too.

The power-loss tests run on it, so what they find holds for the same text in production.
"""

from __future__ import annotations

import shutil
from random import Random
from typing import TYPE_CHECKING

import pytest

from storage.apsw_store import ApswStore
from storage.damage import flip_a_bit
from storage.store_contract import SMALL, StoreContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from crdt_state.identifiers import DocumentId


class OpenedApsw:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"
        self.random = Random(3)
        self.store = ApswStore(str(self.path), self.random, SMALL)

    async def reopen(self) -> ApswStore:
        await self.store.close()
        self.store = ApswStore(str(self.path), self.random, SMALL)
        return self.store

    async def restore(self) -> ApswStore:
        await self.store.close()
        copy = self.path.with_name("restored.db")
        shutil.copy(self.path, copy)
        self.path = copy
        self.store = ApswStore(str(copy), self.random, SMALL, is_copy=True)
        return self.store

    async def damage(self, kind: str, document: DocumentId) -> None:
        flip_a_bit(self.store.connection, kind, document)

    async def fill_disk(self) -> None:
        pages = self.store.connection.execute("PRAGMA page_count").fetchone()[0]
        self.store.connection.execute(f"PRAGMA max_page_count = {pages + 40}")

    async def free_disk(self) -> None:
        self.store.connection.execute("PRAGMA max_page_count = 1000000")


class TestSqlOverApsw(StoreContract):
    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[OpenedApsw]:
        opened = OpenedApsw(tmp_path)
        yield opened
        await opened.store.close()
