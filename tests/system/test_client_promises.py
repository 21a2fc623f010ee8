"""What `Replica.open` and `connect` promise, kept against a real server and real kills."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crdt_state.errors import StoreInUse
from crdt_state.sync.exchange import Progress
from crdt_state.transport.replica import Replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from running import RunningServer

CHILD = Path(__file__).parent.parent / "editing_child.py"
LINE_SECONDS_MAX = 20.0
NAME = "promises/notes"


class Child:
    """A replica in another process (tests/editing_child.py)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next thing it says; empty at its end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LINE_SECONDS_MAX):
            return (await self.process.stdout.readline()).decode().removesuffix("\n")

    async def until(self, word: str) -> list[str]:
        """What it says before it says `word`."""
        said: list[str] = []
        while (line := await self.line()) != word:
            assert line, f"it ended before it said {word!r}, after {said[-3:]}"
            said.append(line)
        return said

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def child(path: Path, url: str, *script: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(path), NAME, url, *script, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_fresh(server: RunningServer, path: Path) -> tuple[Counter[str], int]:
    """Tokens of the text, and the counter, as somebody reads them who has nothing yet."""
    async with Replica.open(path) as replica:
        document = await replica.document(NAME)
        await replica.connect(server.url).synced()
        tokens = str(document.text("text")).split(";")[:-1]
        return Counter(f"{token};" for token in tokens), document.counter("edits").value


# --- offline ---------------------------------------------------------------------------------


async def test_the_outbox_survives_a_sigkill_and_a_new_process_delivers_it(
    server: RunningServer, tmp_path: Path
) -> None:
    path, url = tmp_path / "notes.db", server.url
    async with child(path, url, "edit=3", "synced", "hold") as first:
        tokens = await first.until("synced")
        server.kill()
        await first.kill()
    async with child(path, url, "edit=20", "hold") as second:
        tokens += await second.until("holding")
        await second.kill()
    server.start()
    async with Replica.open(path) as replica:
        # Nobody opens the document: the outbox knows of it.
        link = replica.connect(url)
        await link.synced()
        assert await replica.store.outbox(link.remote) == ()
    assert len(tokens) == 23
    assert await read_fresh(server, tmp_path / "fresh.db") == (Counter(tokens), 23)
    assert server.complaints() == []


async def test_edits_made_before_the_first_connect_are_delivered(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    async with child(path, "-", "edit=20", "hold") as first:
        tokens = await first.until("holding")
        await first.kill()
    async with Replica.open(path) as replica:
        # In a later process, which does not open the document either.
        await replica.connect(server.url).synced()
    assert await read_fresh(server, tmp_path / "fresh.db") == (Counter(tokens), 20)


# --- kills while connected -------------------------------------------------------------------


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed_while_clients_stream(
    server: RunningServer, tmp_path: Path
) -> None:
    kills = 3
    async with (
        child(tmp_path / "a.db", server.url, "edit=250", "synced", "hold") as one,
        child(tmp_path / "b.db", server.url, "edit=250", "synced", "hold") as two,
    ):
        tokens: list[str] = []
        for _ in range(kills):
            tokens += [await one.line() for _ in range(60)]
            await asyncio.to_thread(server.restart)
        tokens += await one.until("synced")
        tokens += await two.until("synced")
        assert len(tokens) == 500
        assert await read_fresh(server, tmp_path / "fresh.db") == (Counter(tokens), 500)
    assert server.starts == 1 + kills
    assert server.complaints() == []


async def test_a_client_that_is_killed_while_it_streams_loses_nothing_that_it_saved(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    saved: list[str] = []
    for kill_after in (1, 30, 75):
        async with child(path, server.url, "edit=1000") as writer:
            saved += [await writer.line() for _ in range(kill_after)]
            await writer.kill()
            rest = await writer.process.stdout.read() if writer.process.stdout else b""
            saved += rest.decode().splitlines()
    async with child(path, server.url, "synced", "show") as last:
        await last.until("synced")
        await last.line()
    tokens, count = await read_fresh(server, tmp_path / "fresh.db")
    # What was on the disk and not yet said when the kill came may be there as well, once.
    assert set(saved) <= set(tokens)
    assert set(tokens.values()) == {1}
    assert len(saved) <= count == tokens.total() <= len(saved) + 3


# --- synced ----------------------------------------------------------------------------------


async def test_synced_means_that_the_server_has_it_on_its_disk(
    server: RunningServer, tmp_path: Path
) -> None:
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(NAME)
        link = replica.connect(server.url)
        for number in range(3):
            document.text("text").append(f"{number};")
            document.counter("edits").add(1)
            await link.synced()
            server.kill()
            server.start()
            tokens, count = await read_fresh(server, tmp_path / f"fresh-{number}.db")
            assert tokens == Counter(f"{earlier};" for earlier in range(number + 1))
            assert count == number + 1


async def test_synced_means_that_what_the_server_had_is_on_our_disk(
    server: RunningServer, tmp_path: Path
) -> None:
    async with Replica.open(tmp_path / "other.db") as other:
        document = await other.document(NAME)
        link = other.connect(server.url)
        for number in range(2):
            document.text("text").append(f"{number};")
            await link.synced()
            async with child(tmp_path / "notes.db", server.url, "synced", "hold") as here:
                await here.until("synced")
                await here.kill()
            async with child(tmp_path / "notes.db", "-", "show") as offline:
                assert await offline.line() == str(document.text("text"))


async def test_synced_waits_while_there_is_no_server(server: RunningServer, tmp_path: Path) -> None:
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(NAME)
        link = replica.connect(server.url)
        await link.synced()
        assert link.progress is Progress.IN_SYNC
        lost = asyncio.Event()
        stop = link.watch(lambda progress: lost.set() if progress is Progress.OFFLINE else None)
        server.kill()
        document.text("text").append("offline;")
        waiting = asyncio.create_task(link.synced())
        await asyncio.wait_for(lost.wait(), 10)
        stop()
        await document.saved()
        assert not waiting.done()
        assert [entry.document for entry in await replica.store.outbox(link.remote)] == [NAME]
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(waiting, 20)
        assert await replica.store.outbox(link.remote) == ()
    assert (await read_fresh(server, tmp_path / "fresh.db"))[0] == Counter(["offline;"])


async def test_deletions_alone_are_delivered_and_confirmed(
    server: RunningServer, tmp_path: Path
) -> None:
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(NAME)
        link = replica.connect(server.url)
        document.text("text").append("keep;drop;")
        await link.synced()
        document.text("text").delete(5, 5)  # changes no state vector
        await link.synced()
        assert await replica.store.outbox(link.remote) == ()
        server.restart()
    assert (await read_fresh(server, tmp_path / "fresh.db"))[0] == Counter(["keep;"])


# --- the file --------------------------------------------------------------------------------


async def test_a_second_process_on_the_same_file_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with child(path, "-", "edit=1", "hold") as holder:
        tokens = await holder.until("holding")
        with pytest.raises(StoreInUse, match=r"notes\.db"):
            await Replica.open(path)
        async with child(path, "-", "show") as second:
            assert await second.line() == "StoreInUse"
        await holder.kill()
    # The kernel let go of the file with the process.
    async with child(path, "-", "show") as third:
        assert await third.line() == "".join(tokens)


def copy_files(original: Path, copy: Path) -> None:
    """As a person does it: the file and all that lies beside it."""
    for file in original.parent.glob(f"{original.name}*"):
        shutil.copy(file, copy.parent / file.name.replace(original.stem, copy.stem))


async def test_a_copied_file_is_another_replica_and_nothing_is_counted_twice(
    server: RunningServer, tmp_path: Path
) -> None:
    original, copy = tmp_path / "notes.db", tmp_path / "copy.db"
    async with child(original, server.url, "edit=5", "synced") as first:
        tokens = await first.until("synced")
        await first.process.wait()
    await asyncio.to_thread(copy_files, original, copy)
    incarnations = []
    for path in (original, copy):
        async with Replica.open(path) as replica:
            incarnations.append((replica.store.incarnation, replica.store.is_new_incarnation))
    assert [is_new for _, is_new in incarnations] == [False, True]
    assert incarnations[0][0] != incarnations[1][0]
    async with (
        child(original, server.url, "edit=7", "synced", "hold") as one,
        child(copy, server.url, "edit=7", "synced", "hold") as two,
    ):
        tokens += await one.until("synced")
        tokens += await two.until("synced")
    assert len(set(tokens)) == 19
    assert await read_fresh(server, tmp_path / "fresh.db") == (Counter(tokens), 19)


async def test_a_server_that_lost_its_store_is_given_everything_again(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = serve()
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(NAME)
        link = replica.connect(server.url)
        document.text("text").append("kept here;")
        await link.synced()
        server.kill()
        shutil.rmtree(server.store)
        server.start()
        await link.synced()
    assert (await read_fresh(server, tmp_path / "fresh.db"))[0] == Counter(["kept here;"])
