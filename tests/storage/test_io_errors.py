"""A device that is full or ill: a clear error, reading goes on, writing does when it is well."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import apsw
import pytest

from crdt_state.errors import StoreError, StoreFull, StoreUnavailable
from crdt_state.simulator.disks import Disk
from crdt_state.simulator.vfs import FaultyVfs
from crdt_state.storage.contract import Append
from crdt_state.storage.sqlite_connection import checkpoint, meaning_of
from crdt_state.storage.sqlite_reading import read_document
from storage.apsw_store import ApswStore
from storage.store_contract import NOTES, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator

VFS_NUMBERS = itertools.count()


@contextmanager
def opened(disk: Disk) -> Iterator[ApswStore]:
    name = f"ill-{next(VFS_NUMBERS)}"
    vfs = FaultyVfs(name, disk)
    store = ApswStore("/store.db", Random(1), vfs=name)
    try:
        disk.sync_folder()
        yield store
    finally:
        store.connection.close()
        vfs.unregister()


def updates(store: ApswStore) -> list[bytes]:
    stored = read_document(store.connection, NOTES)
    return [] if stored is None else stored.updates()


@pytest.mark.parametrize(
    ("operation", "answer", "meaning"),
    [
        ("write", apsw.SQLITE_FULL, StoreFull),
        ("write", apsw.SQLITE_IOERR_WRITE, StoreUnavailable),
        ("sync", apsw.SQLITE_IOERR_FSYNC, StoreUnavailable),
    ],
)
def test_a_write_that_fails_leaves_a_store_that_reads_and_later_writes(
    operation: str, answer: int, meaning: type[StoreError]
) -> None:
    disk = Disk()
    with opened(disk) as store:
        store.write_now([Append(NOTES, (b"before",))])
        for _ in range(3):
            disk.refuses = {operation: answer}
            with pytest.raises(meaning):
                store.write_now([Append(NOTES, (b"failed",)), Append(OTHER, (b"failed",))])
            assert updates(store) == [b"before"]
        disk.refuses = {}
        store.write_now([Append(NOTES, (b"after",))])
        assert updates(store) == [b"before", b"after"]
        assert read_document(store.connection, OTHER) is None
        assert list(store.findings_now()) == []


def test_a_checkpoint_that_fails_loses_nothing() -> None:
    """The write-ahead log may only start anew when the database has been synced."""
    for seed in range(20):
        disk = Disk()
        with opened(disk) as store:
            for n in range(20):
                store.write_now([Append(NOTES, (b"%d" % n + bytes(3_000),))])
            disk.refuses = {"sync": apsw.SQLITE_IOERR_FSYNC}
            with pytest.raises(apsw.IOError):
                checkpoint(store.connection)
            disk.refuses = {}
            before = updates(store)
            store.write_now([Append(NOTES, (b"after",))])
            left = disk.after_loss(Random(seed))
        with opened(Disk(left)) as store:
            assert updates(store) == [*before, b"after"]
            assert list(store.findings_now()) == []


def test_reading_errors_are_the_disks() -> None:
    disk = Disk()
    with opened(disk) as store:
        store.write_now([Append(NOTES, (bytes(100_000),))])
        checkpoint(store.connection, "TRUNCATE")
        store.connection.execute("PRAGMA shrink_memory")
        disk.refuses = {"read": apsw.SQLITE_IOERR_READ}
        with pytest.raises(apsw.IOError) as caught:
            updates(store)
        assert isinstance(meaning_of(caught.value, "x.db"), StoreUnavailable)
        disk.refuses = {}
        assert updates(store) == [bytes(100_000)]


def test_an_error_of_another_kind_has_no_meaning_for_the_store() -> None:
    assert meaning_of(ValueError("not a disk's"), "x.db") is None
