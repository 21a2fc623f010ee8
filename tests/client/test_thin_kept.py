"""What a thin client writes down: whole files, the newest last, and errors that are told."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from crdt_client.thin.kept import Keeper
from crdt_state.errors import StoreCorrupt, StoreFull, StoreInUse
from crdt_state.identifiers import DocumentId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

A, B = DocumentId("notes/a"), DocumentId("notes/b")


@pytest_asyncio.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path / "mine")
    assert await keeper.begin("me") == "me"
    yield keeper
    await keeper.end()


async def test_what_was_kept_is_there_afterwards(keeper: Keeper, tmp_path: Path) -> None:
    assert await keeper.load(A) is None
    keeper.changed(A, lambda: b"one")
    keeper.changed(B, lambda: b"other")
    keeper.changed(A, lambda: b"two")
    await keeper.kept()
    assert (await keeper.load(A), await keeper.load(B)) == (b"two", b"other")
    assert await keeper.documents() == [A, B]
    assert not list((tmp_path / "mine").glob("*.new"))


async def test_what_changes_when_a_writing_has_just_ended_is_kept_too(keeper: Keeper) -> None:
    keeper.changed(A, lambda: b"one")
    await keeper.kept()
    keeper._writing = asyncio.create_task(asyncio.sleep(0))
    await keeper._writing
    keeper.changed(A, lambda: b"two")
    await keeper.kept()
    assert await keeper.load(A) == b"two"


async def test_where_the_disk_is_full_the_old_file_stays_and_it_is_tried_again(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.changed(A, lambda: b"one")
    await keeper.kept()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        keeper.changed(A, lambda: b"two")
        with pytest.raises(StoreFull):
            await keeper.kept()
        assert isinstance(keeper.last_error, StoreFull)
    assert await keeper.load(A) == b"one"
    await keeper.kept()
    assert await keeper.load(A) == b"two"
    assert keeper.last_error is None


async def test_who_stops_waiting_does_not_stop_the_writing(keeper: Keeper) -> None:
    keeper.changed(A, lambda: b"one")
    waits = asyncio.create_task(keeper.kept())
    await asyncio.sleep(0)
    waits.cancel()
    keeper.changed(A, lambda: b"two")
    await keeper.kept()
    assert await keeper.load(A) == b"two"


async def test_a_folder_keeps_its_first_name_and_has_one_owner(
    keeper: Keeper, tmp_path: Path
) -> None:
    with pytest.raises(StoreInUse):
        await Keeper(tmp_path / "mine").begin("other")
    await keeper.end()
    again = Keeper(tmp_path / "mine")
    assert await again.begin("other") == "me"
    await again.end()


async def test_a_file_of_another_document_or_without_any_is_corrupt(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.changed(A, lambda: b"one")
    await keeper.kept()
    (path,) = (tmp_path / "mine").glob("*.thin")
    path.rename(keeper._path(B))
    with pytest.raises(StoreCorrupt, match="is of 'notes/a'"):
        await keeper.load(B)
    keeper._path(B).write_bytes(b"\xff")
    with pytest.raises(StoreCorrupt, match="damaged"):
        await keeper.load(B)


async def test_a_name_that_is_none_is_corrupt_and_the_folder_is_let_go_of(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "name").write_bytes(b"\xff")
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="no name"):
            await Keeper(folder).begin("me")
