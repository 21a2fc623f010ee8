"""A real server whose bounds are smaller than its client's: one edit is refused, no more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from crdt_state.errors import EditRefused
from crdt_state.transport.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from running import RunningServer

NAME = "refused/notes"
UPDATE_BYTES_MAX = 20_000
SECONDS_MAX = 20.0


async def test_an_oversize_paste_is_handed_back_and_everything_else_synchronises(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = serve(CRDT_STATE_LIMITS__UPDATE_BYTES_MAX=str(UPDATE_BYTES_MAX))
    paste = "paste;" * UPDATE_BYTES_MAX
    async with (
        Replica.open(tmp_path / "a.db") as one,
        Replica.open(tmp_path / "b.db") as other,
        asyncio.timeout(SECONDS_MAX),
    ):
        link, second = one.connect(server.url), other.connect(server.url)
        document, theirs = await one.document(NAME), await other.document(NAME)
        document.text("text").append("before;")
        document.counter("edits").add(1)
        await link.synced()
        with document.transaction():
            document.text("text").delete(0, 7)
            document.text("text").append(paste)
        with pytest.raises(EditRefused) as caught:
            await link.synced()
        assert document.is_closed
        assert document.error is caught.value
        assert caught.value.code == 4413
        assert len(caught.value.updates[0]) > len(paste)
        assert [each.code for each in await one.store.quarantine()] == [4413]
        assert [refused.document for refused in link.refusals] == [NAME]
        again = await one.document(NAME)
        assert str(again.text("text")) == "before;"
        again.text("text").append("after;")
        again.counter("edits").add(1)
        await link.synced()
        theirs.text("text").insert(0, "theirs;")
        await second.synced()
        await link.synced()
        for shown in (again, theirs):
            assert str(shown.text("text")) == "theirs;before;after;"
            assert shown.counter("edits").value == 2
        assert await one.store.outbox(link.remote) == ()
    assert server.complaints() == []


async def test_a_refused_offline_edit_stays_out_after_a_restart_of_both_sides(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = serve(CRDT_STATE_LIMITS__UPDATE_BYTES_MAX=str(UPDATE_BYTES_MAX))
    path = tmp_path / "a.db"
    async with Replica.open(path) as one:
        document = await one.document(NAME)
        document.text("text").append("x" * (2 * UPDATE_BYTES_MAX))
    async with Replica.open(path) as one, asyncio.timeout(SECONDS_MAX):
        link = one.connect(server.url)
        await link.synced()  # nobody has it open: it is set aside, and nothing is owed any more
        assert [refused.code for refused in link.refusals] == [4413]
        assert len(await one.store.quarantine()) == 1
    await asyncio.to_thread(server.restart)
    async with Replica.open(path) as one, asyncio.timeout(SECONDS_MAX):
        link = one.connect(server.url)
        document = await one.document(NAME)
        assert str(document.text("text")) == ""
        document.text("text").append("small")
        await link.synced()
        assert link.refusals == ()
    async with Replica.open(tmp_path / "fresh.db") as fresh, asyncio.timeout(SECONDS_MAX):
        document = await fresh.document(NAME)
        await fresh.connect(server.url).synced()
        assert str(document.text("text")) == "small"
    assert server.complaints() == []
