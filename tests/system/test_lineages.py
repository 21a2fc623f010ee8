"""Documents that are deleted, lost, seeded anew: over a real server, with stock Yjs clients."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.errors import DocumentDeleted, LineageEnded
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.replica import Replica
from running import eventually
from stock import stock_clients

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_state.model.document import Document
    from running import RunningServer

NAME = "plans/week"
FILE = "Monday: milk.\nTuesday: bread.\n"


@pytest.fixture
def friendly(serve: Callable[..., RunningServer]) -> RunningServer:
    """A server that speaks to replicas."""
    return serve(CRDT_STATE_REPLICA_PROTOCOL="true")


def linked(replica: Replica, server: RunningServer) -> Link:
    return replica.connect(server.url, wire=Wire.REPLICA)


def text(document: Document) -> str:
    return str(document.text("text"))


def refill(words: str) -> Callable[[Document], Any]:
    return lambda document: document.text("text").insert(0, words)


async def written(path: Path, server: RunningServer, words: str) -> None:
    """A replica brings a document to a server, and goes."""
    async with Replica.open(path) as replica:
        document = await replica.document(NAME)
        link = linked(replica, server)
        await link.synced()
        document.text("text").append(words)
        await link.synced()


async def taken_home(path: Path, server: RunningServer) -> None:
    """A replica takes a document along, and goes."""
    async with Replica.open(path) as replica:
        document = await replica.document(NAME)
        await linked(replica, server).synced()
        assert text(document) == FILE


async def edited_offline(path: Path) -> None:
    async with Replica.open(path) as replica:
        document = await replica.document(NAME)
        document.text("text").insert(len("Monday: milk"), " and eggs")
        await document.saved()


async def at(server: RunningServer, path: Path) -> str:
    """What a replica finds there that edits nothing."""
    async with Replica.open(path) as replica:
        link = linked(replica, server)
        await replica.document(NAME)
        await link.synced()
        # What it had open may have ended meanwhile.
        document = await replica.document(NAME)
        assert [each async for each in replica.ended()] == []
        return text(document)


async def told(replica: Replica, link: Link) -> LineageEnded:
    """What a replica that returns is told."""
    document = await replica.document(NAME)
    with pytest.raises(LineageEnded):
        await link.synced()
    assert document.is_closed
    assert isinstance(document.error, LineageEnded)
    (kept,) = [each async for each in replica.ended()]
    assert kept.lineage == document.error.lineage
    return document.error


@pytest.mark.parametrize("choice", ["adopt", "keep as a copy", "rebase"])
async def test_who_returns_to_a_server_that_lost_its_store_is_told_and_chooses(
    friendly: RunningServer, tmp_path: Path, choice: str
) -> None:
    ana, ben = tmp_path / "ana.db", tmp_path / "ben.db"
    await written(ana, friendly, FILE)
    await taken_home(ben, friendly)
    await edited_offline(ben)
    # The server loses its store, and an application imports the text again, from a file.
    friendly.kill()
    shutil.rmtree(friendly.store)
    await asyncio.to_thread(friendly.start)
    async with Replica.open(tmp_path / "application.db") as application:
        await application.seed(NAME, refill(FILE))
        await linked(application, friendly).synced()
    # A week later the client comes back, with an edit.
    async with Replica.open(ben) as replica:
        link = linked(replica, friendly)
        ended = await told(replica, link)
        expected = FILE
        if choice == "adopt":
            await replica.adopt(ended)
        elif choice == "keep as a copy":
            copy = await replica.keep_as_copy(ended, f"{NAME}/mine")
            assert text(copy) == "Monday: milk and eggs.\nTuesday: bread.\n"
        else:
            assert await replica.rebase(ended) == ()
            expected = "Monday: milk and eggs.\nTuesday: bread.\n"
        document = await replica.document(NAME)
        await link.synced()
        assert text(document) == expected
        assert [each async for each in replica.ended()] == []
    # Whoever had it from before, without an edit of their own, has it once as well.
    for path in (ana, tmp_path / "new.db"):
        assert await at(friendly, path) == expected
    async with Replica.open(tmp_path / "copy.db") as replica:
        mine = await replica.document(f"{NAME}/mine")
        await linked(replica, friendly).synced()
        assert text(mine).count("eggs") == (choice == "keep as a copy")
    assert friendly.complaints() == []


async def test_a_deletion_wins_over_an_edit_that_was_made_offline_which_is_offered(
    friendly: RunningServer, tmp_path: Path
) -> None:
    ana, ben = tmp_path / "ana.db", tmp_path / "ben.db"
    await written(ana, friendly, FILE)
    await taken_home(ben, friendly)
    await edited_offline(ben)
    async with Replica.open(ana) as replica:
        await replica.delete(NAME)
        await linked(replica, friendly).synced()
    assert friendly.get(f"/-/api/json/{NAME}")[0] == 404
    friendly.kill()
    await asyncio.to_thread(friendly.start)
    async with Replica.open(ben) as replica:
        link = linked(replica, friendly)
        ended = await told(replica, link)
        assert isinstance(ended, DocumentDeleted)
        with pytest.raises(DocumentDeleted):
            await replica.document(NAME)
        copy = await replica.keep_as_copy(ended, "mine")
        assert text(copy) == "Monday: milk and eggs.\nTuesday: bread.\n"
        await link.synced()
    assert friendly.get(f"/-/api/json/{NAME}")[0] == 404
    assert friendly.get("/-/api/json/mine")[0] == 200
    assert friendly.complaints() == []


async def test_a_stock_client_is_closed_with_4404_and_4409_and_brings_nothing_back(
    friendly: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    async with (
        Replica.open(tmp_path / "a.db") as replica,
        stock_clients(node_programs) as node,
    ):
        link = linked(replica, friendly)
        document = await replica.document(NAME)
        document.text("text").insert(0, "old")
        ana = await node.open("ana", friendly.url, NAME)
        await eventually(ana.text, "old")
        await replica.delete(NAME)

        async def codes() -> set[int]:
            return {code for code, _ in await ana.closes()}

        async def has_4404() -> bool:
            return 4404 in await codes()

        async def has_4409() -> bool:
            return 4409 in await codes()

        await eventually(has_4404, True)
        await ana.do("insert", 0, "late ")
        await link.synced()
        assert friendly.get(f"/-/api/json/{NAME}")[0] == 404
        await replica.recreate(NAME)
        again = await replica.document(NAME)
        again.text("text").insert(0, "new")
        await link.synced()
        await eventually(has_4409, True)
        ben = await node.open("ben", friendly.url, NAME)
        await eventually(ben.text, "new")
        await ben.do("insert", 3, "er")
        await eventually(lambda: text(again), "newer")
        await ben.do("disconnect")
        await ben.do("insert", 0, "even ")
        await ben.do("connect")
        await eventually(lambda: text(again), "even newer")
        assert await ana.text() == "late old"
        assert text(again) == "even newer"
    assert friendly.complaints() == []


async def test_the_command_deletes_in_a_closed_store_and_asks_first(
    friendly: RunningServer, tmp_path: Path
) -> None:
    ben = tmp_path / "ben.db"
    await written(tmp_path / "ana.db", friendly, FILE)
    await taken_home(ben, friendly)
    command = [
        *(sys.executable, "-c", "from crdt_client.commands import main; main()", "delete", NAME),
        *("--store", str(friendly.store)),
    ]

    async def run(*options: str, answer: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(
            subprocess.run, [*command, *options], input=answer, capture_output=True, check=False
        )

    assert (await run("--yes")).returncode == 3, "a server has it open"
    friendly.kill()
    refused = await run(answer=b"n\n")
    assert (refused.returncode, b"nothing was deleted" in refused.stderr) == (0, True)
    assert b"deleted" in (await run("--yes")).stdout
    assert (await run("--yes")).returncode == 2, "there is no such document any more"
    await asyncio.to_thread(friendly.start)
    await edited_offline(ben)
    async with Replica.open(ben) as replica:
        assert isinstance(await told(replica, linked(replica, friendly)), DocumentDeleted)
    assert friendly.get(f"/-/api/json/{NAME}")[0] == 404
    assert friendly.complaints() == []
