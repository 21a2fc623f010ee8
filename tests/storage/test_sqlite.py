"""The store of production keeps the contract, and what a file needs beyond it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import (
    StoreCorrupt,
    StoreInUse,
    StoreTooNew,
    StoreUnavailable,
    WriteInvalid,
)
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.lineage import BORN
from crdt_state.storage import sqlite as shell
from crdt_state.storage import sqlite_identity
from crdt_state.storage.checksums import log_checksum, log_salt
from crdt_state.storage.contract import (
    Append,
    Fold,
    Forget,
    KeepText,
    Release,
    Revise,
    Sequence,
    SetLife,
    SetMetadata,
    StoredRevisions,
    Usage,
)
from crdt_state.storage.memory import MemoryStore
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.storage.sqlite_schema import MIGRATIONS, check_format, migrate
from storage.damage import flip_a_bit
from storage.store_contract import (
    HUB,
    NOTES,
    OTHER,
    SMALL,
    StoreContract,
    contents,
    everything,
    findings,
    hold,
    read,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Write


FORMAT_1 = Path(__file__).parent / "format_1.sql"
"""What `Connection.iterdump` gave of a file that the last version with format 1 had written."""


async def open_store(path: Path, seed: int = 3, limits: Limits = DEFAULT_LIMITS) -> SqliteStore:
    return await SqliteStore.open(path, random=Random(seed), limits=limits)


class OpenedSqlite:
    def __init__(self, path: Path, store: SqliteStore, random: Random) -> None:
        self.path = path
        self.store = store
        self.random = random

    async def reopen(self) -> SqliteStore:
        await self.store.close()
        self.store = await SqliteStore.open(self.path, random=self.random, limits=SMALL)
        return self.store

    async def restore(self) -> SqliteStore:
        await self.store.close()
        copy = self.path.with_name("restored.db")
        shutil.copy(self.path, copy)
        self.path = copy
        return await self.reopen()

    async def damage(self, kind: str, document: DocumentId) -> None:
        await self.on_writer(lambda connection: flip_a_bit(connection, kind, document))

    async def fill_disk(self) -> None:
        pages = await self.on_writer(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await self.on_writer(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 40}"))

    async def free_disk(self) -> None:
        await self.on_writer(lambda c: c.execute("PRAGMA max_page_count = 1000000"))

    async def on_writer(self, function):
        assert self.store._writer is not None
        return await self.store._writer.call(function)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenedSqlite]:
    path = tmp_path / "store.db"
    random = Random(3)
    store = await SqliteStore.open(path, random=random, limits=SMALL)
    held = OpenedSqlite(path, store, random)
    yield held
    await held.store.close()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def opened(self, opened: OpenedSqlite) -> OpenedSqlite:
        return opened


# --- groups ----------------------------------------------------------------------------------


class Commits:
    """Counts groups, and holds the writer's thread where a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.inside = threading.Event()
        commit = shell.commit_group

        def counted(connection, calls, limits):
            self.inside.set()
            assert self.may_go_on.wait(10)
            self.groups.append(len(calls))
            return commit(connection, calls, limits)

        monkeypatch.setattr(shell, "commit_group", counted)

    async def until_inside(self) -> None:
        assert await asyncio.to_thread(self.inside.wait, 10)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    return Commits(monkeypatch)


def appends(store: SqliteStore, names: list[str]) -> list[asyncio.Task[Sequence]]:
    return [
        asyncio.create_task(store.write([Append(document_id(name), (b"x",))])) for name in names
    ]


async def test_what_arrives_during_a_commit_is_the_next_group(
    opened: OpenedSqlite, commits: Commits
) -> None:
    commits.may_go_on.clear()
    first = appends(opened.store, ["first"])
    await commits.until_inside()
    rest = appends(opened.store, [f"rest/{n}" for n in range(30)])
    await asyncio.sleep(0)
    commits.may_go_on.set()
    await asyncio.gather(*first, *rest)
    assert commits.groups == [1, 30]


async def test_a_group_is_bounded(tmp_path: Path, commits: Commits) -> None:
    limits = Limits(group_writes_max=8)
    store = await open_store(tmp_path / "s.db", limits=limits)
    await asyncio.gather(*appends(store, [f"d/{n}" for n in range(20)]))
    await store.close()
    assert commits.groups == [8, 8, 4]


async def test_a_full_queue_makes_writers_wait_in_their_order(
    tmp_path: Path, commits: Commits
) -> None:
    limits = Limits(store_queue_writes_max=10, group_writes_max=4)
    store = await open_store(tmp_path / "s.db", limits=limits)
    commits.may_go_on.clear()
    first = appends(store, ["first"])
    await commits.until_inside()
    tasks = [asyncio.create_task(store.write([Append(NOTES, (b"%d" % n,))])) for n in range(40)]
    await asyncio.sleep(0)
    assert store._queue._writes == 10
    assert len(store._queue._line) == 30
    # The last five are still in line: nothing of them may be carried out, or stay in memory.
    for task in tasks[35:]:
        task.cancel()
    # These are in the queue, and are carried out although nobody waits.
    for task in tasks[:2]:
        task.cancel()
    await asyncio.sleep(0)
    assert len(store._queue._line) == 25
    commits.may_go_on.set()
    await asyncio.gather(*first, *tasks, return_exceptions=True)
    stored = await read(store, NOTES)
    assert [entry.update for entry in stored.log] == [b"%d" % n for n in range(35)]
    await store.close()


async def test_an_idle_writer_does_not_wait_for_company(
    opened: OpenedSqlite, commits: Commits
) -> None:
    for _ in range(5):
        await opened.store.write([Append(NOTES, (b"x",))])
    assert commits.groups == [1] * 5


async def test_readers_do_not_wait_for_the_writer(opened: OpenedSqlite, commits: Commits) -> None:
    await opened.store.write([Append(NOTES, (b"x",))])
    commits.inside.clear()
    commits.may_go_on.clear()
    task = appends(opened.store, [OTHER])
    await commits.until_inside()
    assert (await read(opened.store, NOTES)).updates() == [b"x"]
    assert await opened.store.read(OTHER) is None
    commits.may_go_on.set()
    await asyncio.gather(*task)


async def test_a_caller_may_reuse_its_list(opened: OpenedSqlite, commits: Commits) -> None:
    writes = [Append(NOTES, (b"x",))]
    task = asyncio.create_task(opened.store.write(writes))
    await asyncio.sleep(0)
    writes.clear()
    await task
    assert (await read(opened.store, NOTES)).updates() == [b"x"]


async def test_an_unforeseen_error_reaches_the_callers_and_the_writer_goes_on(
    opened: OpenedSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(shell, "commit_group", broken)
        results = await asyncio.gather(*appends(opened.store, ["a", "b"]), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 2
    assert await opened.store.write([Append(NOTES, (b"x",))]) == 1


def test_a_program_that_forgets_to_close_its_store_ends(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from random import Random\n"
        "from crdt_state.storage.sqlite import SqliteStore\n"
        "from crdt_state.storage.contract import Append\n"
        "async def main():\n"
        "    global store\n"
        "    store = await SqliteStore.open(sys.argv[1], random=Random(1))\n"
        "    await store.write([Append('notes', (b'x',))])\n"
        "asyncio.run(main())\n"
        "print('end', flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr


def test_an_event_loop_that_ends_does_not_tear_a_group(tmp_path: Path) -> None:
    names = [document_id(f"end/{n}") for n in range(50)]

    async def write_and_end() -> None:
        store = await open_store(tmp_path / "s.db")
        for name in names:
            writes = [Append(name, (b"a", b"b")), Append(name, (b"c",), (HUB,))]
            writing.append(asyncio.create_task(store.write(writes)))
        await asyncio.sleep(0)
        ending.append(asyncio.create_task(wait_and_close(store)))
        await asyncio.sleep(0)

    async def wait_and_close(store: SqliteStore) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await store.close()

    async def look() -> int:
        store = await open_store(tmp_path / "s.db")
        assert await findings(store) == []
        counts = {summary.log_updates for summary in await store.list()}
        await store.close()
        assert counts <= {3}
        return len(counts)

    writing: list[asyncio.Task[Sequence]] = []
    ending: list[asyncio.Task[None]] = []
    asyncio.run(write_and_end())
    assert all(task.cancelled() for task in writing)
    assert asyncio.run(look()) == 1


async def test_the_write_ahead_log_is_moved_and_stays_bounded(tmp_path: Path) -> None:
    bound = 256 * 1024
    store = await open_store(tmp_path / "s.db", limits=Limits(wal_bytes_before_checkpoint=bound))
    wal = tmp_path / "s.db-wal"
    greatest = 0
    for _ in range(120):
        await store.write([Append(NOTES, (bytes(20_000),))])
        greatest = max(greatest, wal.stat().st_size)
    assert bound < greatest < 2 * bound
    assert (tmp_path / "s.db").stat().st_size > 100 * 20_000
    await store.close()
    assert not wal.exists() or wal.stat().st_size == 0


async def test_every_commit_syncs_fully(opened: OpenedSqlite) -> None:
    async def pragma(name: str) -> object:
        return await opened.on_writer(lambda c: c.execute(f"PRAGMA {name}").fetchone()[0])

    assert await pragma("journal_mode") == "wal"
    assert await pragma("synchronous") == 2
    assert await pragma("fullfsync") == 1
    assert await pragma("checkpoint_fullfsync") == 1
    assert await pragma("wal_autocheckpoint") == 0


# --- the format ------------------------------------------------------------------------------


def set_marker(connection) -> None:
    connection.execute("ALTER TABLE documents ADD COLUMN title TEXT NOT NULL DEFAULT 'untitled'")


def fail_late(connection) -> None:
    connection.execute("CREATE TABLE half (x)")
    raise RuntimeError("a migration that fails")


async def test_a_file_of_one_format_becomes_one_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_store(path)
    await store.write(everything())
    before = await contents(store)
    await store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    known, last = MIGRATIONS, len(MIGRATIONS)
    with pytest.raises(RuntimeError):
        migrate(connection, (*known, fail_late))
    assert check_format(connection, known) == last, "a migration that fails leaves nothing"
    assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall()
    assert migrate(connection, (*known, set_marker)) == last
    assert check_format(connection, (*known, set_marker)) == last + 1
    assert migrate(connection, (*known, set_marker)) == last + 1
    titles = connection.execute("SELECT title FROM documents").fetchall()
    assert titles == [("untitled",)]
    connection.execute(f"PRAGMA user_version = {last}")
    connection.close()
    store = await open_store(path)
    assert await contents(store) == before
    await store.close()


async def test_a_file_that_the_first_format_wrote_is_read_and_gets_creators_and_lives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    connection = sqlite3.connect(path)
    connection.executescript(FORMAT_1.read_text("utf-8"))
    connection.execute("PRAGMA application_id = 0x43524454")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    notes, mail = document_id("notes"), document_id("mail")
    with pytest.raises(StoreUnavailable, match="opened for writing"):
        await SqliteStore.open(path, random=Random(1), read_only=True)
    store = await open_store(path)
    stored = await read(store, notes)
    assert stored.creator is None
    assert stored.updates() == [b"state", b"three"]
    assert [entry.update for entry in stored.pending] == [b"early", b"earlier"]
    assert stored.metadata == {"owner/7": b"ada"}
    assert [entry.update for entry in await store.quarantine(mail)] == [b"bad"]
    assert await findings(store) == [], "what waits is counted in bytes as well"
    await store.write([Append(notes, (b"more",), creator="ada"), Release(notes, (1,))])
    await store.write([Append(OTHER, (b"new",), creator="ada")])
    assert await store.usage("ada") == Usage(1, 3)
    assert await findings(store) == []
    assert stored.life == BORN
    await store.write([SetLife(notes, BORN.deleted(), WallTime(1))])
    assert (await read(store, notes)).updates() == []
    assert await findings(store) == []
    await store.close()
    with sqlite3.connect(path) as connection:
        assert check_format(connection) == len(MIGRATIONS) == 7
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT count(*) FROM documents WHERE creator = 'ada'"
        ).fetchall()
    connection.close()
    assert "documents_by_creator" in plan[0][3]


async def test_a_file_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await (await open_store(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreTooNew, match=r"s\.db.*format 99.*install"):
            await SqliteStore.open(path, random=Random(1), read_only=read_only)
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreCorrupt, match=r"theirs\.db.*not a store of crdt-state"):
        await open_store(path)


@pytest.mark.parametrize("content", [b"hello, I am a text file. " * 100, bytes(8192)])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "text.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"text\.db"):
        await open_store(path)
    assert path.read_bytes() == content


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="folder must exist"):
        await open_store(tmp_path / "nowhere" / "s.db")
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(tmp_path / "s.db", random=Random(1), read_only=True)
    assert not (tmp_path / "s.db").exists()


# --- one process, and readers beside it ------------------------------------------------------


async def test_a_second_opening_says_who_holds_the_file(opened: OpenedSqlite) -> None:
    with pytest.raises(StoreInUse, match=rf"store\.db is already open in process {os.getpid()}"):
        await open_store(opened.path)
    with pytest.raises(StoreInUse, match="close it there, or open another file"):
        await open_store(opened.path)
    await opened.store.write([Append(NOTES, (b"x",))])


async def test_a_link_to_the_file_is_the_same_store(opened: OpenedSqlite) -> None:
    link = opened.path.with_name("link.db")
    link.symlink_to(opened.path)
    with pytest.raises(StoreInUse):
        await open_store(link)


async def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    program = (
        "import asyncio, sys\n"
        "from random import Random\n"
        "from crdt_state.storage.sqlite import SqliteStore\n"
        "async def main():\n"
        "    await SqliteStore.open(sys.argv[1], random=Random(1))\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreInUse, match=f"process {child.pid}"):
            await open_store(path)
        reader = await SqliteStore.open(path, random=Random(1), read_only=True)
        assert await reader.list() == ()
        await reader.close()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    store = await open_store(path)
    assert not store.is_new_incarnation
    await store.close()


async def test_a_reader_beside_the_writer_sees_what_is_committed(opened: OpenedSqlite) -> None:
    await opened.store.write(everything())
    beside = await SqliteStore.open(opened.path, random=Random(1), read_only=True)
    assert (beside.replica_id, beside.incarnation) == (
        opened.store.replica_id,
        opened.store.incarnation,
    )
    assert [summary.document for summary in await beside.list()] == [NOTES]
    await opened.store.write([Append(OTHER, (b"x",))])
    assert (await read(beside, OTHER)).updates() == [b"x"]
    assert await findings(beside) == []
    with pytest.raises(StoreUnavailable, match="reading only"):
        await beside.write([Append(OTHER, (b"y",))])
    await beside.close()
    await opened.reopen()
    assert not opened.store.is_new_incarnation


async def test_a_killed_store_can_be_read_without_being_opened_for_writing(tmp_path: Path) -> None:
    path, killed = tmp_path / "s.db", tmp_path / "killed.db"
    store = await open_store(path)
    await store.write(everything())
    # What a kill leaves: the log, and no index of it.
    shutil.copy(path, killed)
    shutil.copy(f"{path}-wal", f"{killed}-wal")
    await store.close()
    beside = await SqliteStore.open(killed, random=Random(1), read_only=True)
    assert len((await read(beside, NOTES)).log) == 2
    await beside.close()


async def test_a_closed_store_can_be_read_without_being_changed(opened: OpenedSqlite) -> None:
    await opened.store.write(everything())
    await opened.store.close()
    before = opened.path.read_bytes()
    beside = await SqliteStore.open(opened.path, random=Random(1), read_only=True)
    assert len((await read(beside, NOTES)).pending) == 2
    await beside.close()
    assert opened.path.read_bytes() == before


# --- copies ----------------------------------------------------------------------------------


async def is_new(path: Path) -> bool:
    store = await open_store(path, seed=hash(path.name) % 1000)
    await store.close()
    return store.is_new_incarnation


async def test_opening_and_closing_is_not_a_new_incarnation(tmp_path: Path) -> None:
    for seed in range(4):
        store = await open_store(tmp_path / "s.db", seed)
        assert not store.is_new_incarnation
        await store.close()


async def test_a_copied_file_is_a_new_incarnation(tmp_path: Path) -> None:
    assert not await is_new(tmp_path / "s.db")
    shutil.copy2(tmp_path / "s.db", tmp_path / "copy.db")
    assert await is_new(tmp_path / "copy.db")
    assert not await is_new(tmp_path / "copy.db")
    assert not await is_new(tmp_path / "s.db"), "the original goes on"


async def test_a_folder_copied_with_its_times_is_a_new_incarnation(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    assert not await is_new(tmp_path / "one" / "s.db")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert await is_new(tmp_path / "two" / "s.db")
    assert not await is_new(tmp_path / "one" / "s.db")


@pytest.mark.parametrize("was_open", [True, False])
async def test_an_earlier_file_put_back_in_place_is_a_new_incarnation(
    tmp_path: Path, was_open: bool
) -> None:
    path, backup = tmp_path / "s.db", tmp_path / "backup.db"
    store = await open_store(path)
    if not was_open:
        await store.close()
    with sqlite3.connect(path) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    if not was_open:
        store = await open_store(path, seed=4)
    await store.write([Append(NOTES, (b"later",))])
    await store.close()
    # Same inode, same name; only the content goes back.
    path.write_bytes(backup.read_bytes())
    assert await is_new(path)
    assert not await is_new(path)


async def test_an_earlier_folder_put_back_in_place_is_a_new_incarnation(tmp_path: Path) -> None:
    path, backup = tmp_path / "s.db", tmp_path / "backup"
    assert not await is_new(path)
    backup.mkdir()
    names = ["s.db", "s.db-lock"]
    for name in names:
        shutil.copy2(tmp_path / name, backup / name)
    assert not await is_new(path)
    for name in names:
        (tmp_path / name).write_bytes((backup / name).read_bytes())
        shutil.copystat(backup / name, tmp_path / name)
    assert await is_new(path)


async def test_a_kill_while_the_mark_is_renewed_leaves_the_incarnation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    assert not await is_new(path)
    renew, write_marks = shell.Sidecar.renew, sqlite_identity.write_marks

    class Killed(Exception):
        pass

    def stop_before(*_: object) -> None:
        raise Killed

    def stop_after(sidecar, token):
        renew(sidecar, token)
        raise Killed

    def stop_at_last(connection, marks):
        if len(marks) == 32:
            raise Killed
        write_marks(connection, marks)

    for target, name, replacement in (
        (shell.Sidecar, "renew", stop_before),
        (shell.Sidecar, "renew", stop_after),
        (sqlite_identity, "write_marks", stop_at_last),
        (sqlite_identity, "write_marks", stop_before),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, replacement)
            with pytest.raises(Killed):
                await open_store(path, seed=11)
        assert not await is_new(path), name


async def test_a_log_that_had_an_index_gets_links(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path, isolation_level=None) as connection:
        migrate(connection, MIGRATIONS[:2])
        for row_id, (name, count) in enumerate([(NOTES, 3), (OTHER, 2)], 1):
            connection.execute(
                "INSERT INTO documents (id, name, born, last, log_updates, log_bytes) "
                "VALUES (?, ?, 0, ?, ?, ?)",
                (row_id, name, 4 + row_id - 1, count, count),
            )
        for sequence, (row_id, name) in enumerate(
            [(1, NOTES), (2, OTHER), (1, NOTES), (1, NOTES), (2, OTHER)], 1
        ):
            update = b"%d" % sequence
            check = log_checksum(log_salt(name), sequence, update)
            connection.execute(
                "INSERT INTO log (sequence, document, checksum, content) VALUES (?, ?, ?, ?)",
                (sequence, row_id, check, update),
            )
    connection.close()
    store = await open_store(path)
    assert (await read(store, NOTES)).updates() == [b"1", b"3", b"4"]
    assert (await read(store, OTHER)).updates() == [b"2", b"5"]
    assert [entry.update for entry in await store.read_since(NOTES, Sequence(1))] == [b"3", b"4"]
    await store.close()


# --- damage below the rows -------------------------------------------------------------------


async def test_rows_that_changed_places_are_noticed(opened: OpenedSqlite) -> None:
    await opened.store.write([Append(NOTES, (b"aa", b"bb")), Append(OTHER, (b"cc",))])

    def swap(connection) -> None:
        rows = connection.execute(
            "SELECT content, checksum, sequence FROM log ORDER BY sequence"
        ).fetchall()
        for (content, crc, _), (_, _, sequence) in zip(rows[:2], rows[1::-1], strict=True):
            connection.execute(
                "UPDATE log SET content = ?, checksum = ? WHERE sequence = ?",
                (content, crc, sequence),
            )

    await opened.on_writer(swap)
    with pytest.raises(StoreCorrupt, match="notes/today"):
        await opened.store.read(NOTES)
    assert (await read(opened.store, OTHER)).updates() == [b"cc"]


async def test_updates_moved_to_another_document_are_missed_where_they_were(
    opened: OpenedSqlite,
) -> None:
    await opened.store.write([Append(NOTES, (b"aa", b"bb")), Append(OTHER, (b"cc",))])
    statement = "UPDATE log SET document = (SELECT id FROM documents WHERE name = ?)"
    await opened.on_writer(lambda connection: connection.execute(statement, (OTHER,)))
    with pytest.raises(StoreCorrupt, match="notes/today"):
        await opened.store.read(NOTES)
    with pytest.raises(StoreCorrupt, match="notes/today"):
        await opened.store.read_since(NOTES, Sequence(1))
    assert (await read(opened.store, OTHER)).updates() == [b"cc"]


@pytest.mark.parametrize(
    ("link", "what"),
    [
        (1, "has 2 updates, not the 3"),  # leaves one out
        (0, "has 1 updates, not the 3"),  # leaves two out
        (77, "its update 77 is missing"),
        (3, "its update 3 is missing"),  # to itself
        (4, "its update 4 is missing"),  # into another document
    ],
)
async def test_a_link_that_leads_elsewhere_is_noticed(
    opened: OpenedSqlite, link: int, what: str
) -> None:
    await opened.store.write([Append(NOTES, (b"aa", b"bb", b"cc")), Append(OTHER, (b"dd",))])
    statement = "UPDATE log SET previous = ? WHERE sequence = 3"
    await opened.on_writer(lambda connection: connection.execute(statement, (link,)))
    with pytest.raises(StoreCorrupt, match=what):
        await opened.store.read(NOTES)
    assert await findings(opened.store)
    await opened.store.write([Forget(NOTES)])
    assert await findings(opened.store) == []
    assert (await read(opened.store, OTHER)).updates() == [b"dd"]


async def test_a_file_without_revisions_gets_room_for_them(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path, isolation_level=None) as connection:
        migrate(connection, MIGRATIONS[:6])
        connection.execute(
            "INSERT INTO documents (id, name, born, last, log_updates, log_bytes, creator) "
            "VALUES (1, ?, 0, 1, 1, 3, 'ada')",
            (NOTES,),
        )
        connection.execute(
            "INSERT INTO log (sequence, document, checksum, content) VALUES (1, 1, ?, ?)",
            (log_checksum(log_salt(NOTES), 1, b"old"), b"old"),
        )
        sqlite_identity.write_fact(connection, "sequence", (1).to_bytes(8))
    connection.close()
    store = await open_store(path)
    assert (await read(store, NOTES)).updates() == [b"old"]
    assert await store.revisions(NOTES) is None
    assert await store.usage("ada") == Usage(1, 3)
    await store.write([Fold(NOTES, b"old", b"", Sequence(1)), Append(NOTES, (b"new",))])
    await store.write([Revise(NOTES, 6, (b"six",), 5, b"floor")])
    stored = await store.revisions(NOTES)
    assert stored == StoredRevisions(5, b"floor", (b"six",), Sequence(2), None, True)
    assert await store.usage("ada") == Usage(1, 3 + 3 + 5 + 3)
    await store.close()
    with sqlite3.connect(path) as connection:
        assert check_format(connection) == len(MIGRATIONS)
    connection.close()


@pytest.mark.parametrize("kind", ["checkpoints", "pending", "document_values"])
async def test_a_row_moved_to_another_document_is_noticed(opened: OpenedSqlite, kind: str) -> None:
    await opened.store.write(everything())
    await opened.store.write([Append(OTHER, (b"x",))])
    statement = f"UPDATE {kind} SET document = (SELECT id FROM documents WHERE name = ?)"
    await opened.on_writer(lambda connection: connection.execute(statement, (OTHER,)))
    with pytest.raises(StoreCorrupt, match="notes/tomorrow"):
        await opened.store.read(OTHER)


@pytest.mark.parametrize(
    ("kind", "floor_there", "what"),
    [
        ("revised", None, "position at 4"),
        ("revision_floors", None, "position at 0"),
        ("revisions", 5, "revision at 6"),
        ("kept_texts", 7, "text at 7"),
    ],
)
async def test_revisions_moved_to_another_document_are_noticed(
    opened: OpenedSqlite, kind: str, floor_there: int | None, what: str
) -> None:
    await opened.store.write(everything())
    await opened.store.write([Append(OTHER, (b"x",))])
    if floor_there is not None:
        await opened.store.write([Revise(OTHER, floor_there + 1, (), floor_there, b"floor")])
    statement = f"UPDATE {kind} SET document = (SELECT id FROM documents WHERE name = ?)"
    await opened.on_writer(lambda connection: connection.execute(statement, (OTHER,)))
    with pytest.raises(StoreCorrupt, match="notes/tomorrow") as caught:
        await opened.store.revisions(OTHER)
    assert what in str(caught.value)
    assert {finding.document for finding in await findings(opened.store)} >= {OTHER}


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM log WHERE sequence = 4", "its update 4 is missing"),
        ("UPDATE log SET previous = 0", "log_updates is 2, but the rows count 1"),
        ("UPDATE documents SET log_bytes = 99", "log_bytes is 99"),
        ("UPDATE documents SET pending_updates = 9", "pending_updates is 9"),
        ("DELETE FROM documents", "belong to no document"),
        ("DELETE FROM remotes", "belong to no remote"),
        ("UPDATE store SET value = x'01' WHERE name = 'sequence'", "sequence is damaged"),
        ("UPDATE replica_values SET content = x'00'", "'name' is damaged"),
        ("UPDATE document_values SET content = x'00'", "'lineage' of 'notes/today' is damaged"),
        ("UPDATE checkpoints SET through = 1", "checkpoint 1"),
        ("UPDATE outbox SET through = 77", "outbox reaches 77"),
        ("UPDATE documents SET revisions_bytes = 77", "revisions_bytes is 77"),
        ("DELETE FROM kept_texts", "revisions_bytes is 19, but the rows count 11"),
        ("DELETE FROM revised", "the position at 0 is damaged or missing"),
        ("UPDATE revised SET floor = 4", "the position at 4 is damaged or missing"),
        ("UPDATE revised SET last = 8", "the position at 4 is damaged or missing"),
        ("UPDATE revised SET last = -8", "the position at 4 is damaged or missing"),
        ("UPDATE revised SET through = 3", "the position at 3 is damaged or missing"),
        ("DELETE FROM revision_floors", "the floor at 5 is damaged or missing"),
        ("DELETE FROM revisions WHERE number = 6", "the revision at 6 is damaged or missing"),
        ("DELETE FROM revisions WHERE number = 7", "the revision at 7 is damaged or missing"),
        ("UPDATE revisions SET number = 8 WHERE number = 7", "the revision at 7 is damaged"),
        (
            "INSERT INTO revisions SELECT document, 8, checksum, content FROM revisions "
            "WHERE number = 7",
            "the revision at 8 is damaged",
        ),
        ("DELETE FROM documents", "2 rows of revisions belong to no document"),
        ("UPDATE documents SET last = 3", "revisions reach 4, beyond its last sequence 3"),
        ("UPDATE documents SET deleted_at = 1", "it is deleted, but has content"),
        ("UPDATE documents SET born = 3", "log_updates is 2, but the rows count 1"),
        (
            "INSERT INTO log SELECT 1, document, checksum, content, 0 FROM log WHERE sequence = 4",
            "log has 3 rows, and 2 are counted",
        ),
    ],
)
async def test_verify_finds_rows_that_do_not_hold(
    opened: OpenedSqlite, statement: str, what: str
) -> None:
    await opened.store.write(everything())
    assert await findings(opened.store) == []
    await opened.on_writer(lambda connection: connection.execute(statement))
    found = await findings(opened.store)
    assert any(what in finding.what for finding in found), found


async def test_verify_finds_what_was_folded_beyond_its_revisions(opened: OpenedSqlite) -> None:
    await opened.store.write(everything())
    await opened.store.write([Append(NOTES, (b"e",)), Fold(NOTES, b"all", b"", Sequence(5))])
    assert await findings(opened.store) == [], "the text is kept"
    await opened.on_writer(lambda connection: connection.execute("DELETE FROM kept_texts"))
    found = [finding.what for finding in await findings(opened.store)]
    assert any("folded through 5, but its revisions reach 4" in what for what in found), found


async def test_verify_finds_what_a_deleted_document_has_of_revisions(opened: OpenedSqlite) -> None:
    await opened.store.write([*everything(), SetLife(OTHER, BORN.deleted(), WallTime(1))])
    assert await findings(opened.store) == []
    statement = "UPDATE kept_texts SET document = (SELECT id FROM documents WHERE name = ?)"
    await opened.on_writer(lambda connection: connection.execute(statement, (OTHER,)))
    found = [finding.what for finding in await findings(opened.store) if finding.document == OTHER]
    assert "it is deleted, but has content" in found, found


async def test_a_name_that_differs_in_its_index_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await open_store(path)
    document = document_id("a name like no other")
    await store.write([Append(document, (b"a",)), Append(OTHER, (b"b",))])
    await store.close()
    content = path.read_bytes()
    name = document.encode()
    places = [at for at in range(len(content)) if content.startswith(name, at)]
    assert len(places) == 3, "in the table, and in two indexes"
    for at in places:
        damaged = bytearray(content)
        damaged[at] ^= 2
        path.write_bytes(damaged)
        store = await open_store(path)
        assert [found async for found in store.verify()], at
        await store.close()


async def test_a_destroyed_page_is_found_and_harms_only_what_is_on_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_store(path)
    names = [document_id(f"d/{n:03}") for n in range(200)]
    await asyncio.gather(*(store.write([Append(name, (bytes(3_000),))]) for name in names))
    await store.close()
    content = bytearray(path.read_bytes())
    # A page in the last quarter of the file holds updates.
    at = len(content) // 4096 * 3 // 4 * 4096
    content[at : at + 4096] = Random(1).randbytes(4096)
    path.write_bytes(content)
    store = await open_store(path)
    readable, damaged = 0, list[bool]()
    for name in names:
        try:
            assert (await read(store, name)).updates() == [bytes(3_000)]
            readable += 1
        except StoreCorrupt as error:
            damaged.append(error.document == name)
    assert damaged
    assert all(damaged)
    assert readable >= 150
    assert await findings(store)
    assert await store.write([Append(document_id("new"), (b"x",))]) == 201
    await store.close()


# --- size ------------------------------------------------------------------------------------


def plan(connection, sql: str, *parameters: object) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    return " | ".join(row[3] for row in rows)


async def test_lists_and_long_logs_are_found_through_indexes(
    opened: OpenedSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []

    def traced(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)

    await opened.store._reader.call(traced)
    await opened.store.list(prefix="notes/", after="notes/a", limit=5)
    await opened.store.overgrown(updates=500, size=512 * 1024, limit=5)
    await opened.store.summary(NOTES)
    await opened.store._reader.call(lambda c: c.set_trace_callback(None))
    plans = [await opened.on_writer(lambda c, s=statement: plan(c, s)) for statement in statements]
    assert "SEARCH documents USING INDEX sqlite_autoindex_documents_1" in plans[0]
    assert "documents USING INDEX documents_overgrown" in plans[1]
    assert "SEARCH documents USING INDEX sqlite_autoindex_documents_1" in plans[2]


async def test_a_page_of_a_list_costs_the_same_wherever_it_is(opened: OpenedSqlite) -> None:
    await opened.store.write([Append(document_id(f"d/{n:05}"), (b"x",)) for n in range(5_000)])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    await opened.store._reader.call(lambda c: c.set_progress_handler(count, 10))
    for prefix, after in (("d/049", ""), ("d/049", "d/04950"), ("", "d/04950"), ("d/049", "a")):
        steps = 0
        assert len(await opened.store.list(prefix=prefix, after=after, limit=10)) == 10
        assert 0 < steps < 100, f"{steps * 10} steps for {prefix!r} after {after!r}"


async def test_writes_of_every_kind_survive_a_random_walk(tmp_path: Path) -> None:
    """SQLite and the reference adapter show the same after the same calls (seed 8)."""
    random = Random(8)
    limits = Limits(quarantine_entries_max=3, quarantine_bytes_max=200)
    sqlite, memory = (
        await open_store(tmp_path / "s.db", limits=limits),
        MemoryStore(limits=limits),
    )
    names = [document_id(f"w/{n}") for n in range(4)]
    refusals = 0
    for _ in range(400):
        call = []
        for _ in range(random.randint(1, 4)):
            name = random.choice(names)
            call.append(
                random.choice(
                    [
                        Append(name, (random.randbytes(3),) * random.randint(0, 3), (HUB,)),
                        Append(name, (b"r",), (), (random.randint(1, 9),)),
                        hold(name, random.randint(1, 9), b"h"),
                        Fold(name, b"s", b"h", Sequence(random.randint(1, 600))),
                        SetMetadata("k", random.choice([None, b"v"]), name),
                        Forget(name) if random.random() < 0.2 else Append(name, (b"y",)),
                    ]
                )
            )
        results = await asyncio.gather(
            sqlite.write(call), memory.write(call), return_exceptions=True
        )
        if isinstance(results[0], WriteInvalid):
            refusals += 1
            assert type(results[0]) is type(results[1])
            assert str(results[0]) == str(results[1])
        else:
            assert results[0] == results[1]
    assert 20 < refusals < 380
    assert await contents(sqlite) == await contents(memory)
    assert await findings(sqlite) == await findings(memory) == []
    await sqlite.close()


async def draw_about_revisions(random: Random, store: MemoryStore, name: DocumentId) -> Write:
    """A write that mostly follows what is stored."""
    stored = await store.revisions(name)
    document = await store.read(name)
    last = 0 if stored is None else stored.floor_number + len(stored.revisions)
    floor = max(0, last + random.choice([-3, -1, 0, 1, 2**32]))
    floor_or_none = random.choice([None, None, b"%d" % floor])
    first = 1 + (last if floor_or_none is None else max(floor, last))
    revisions = tuple(random.randbytes(random.randint(0, 4)) for _ in range(random.randint(0, 3)))
    sequence = 0 if document is None else document.last
    return random.choice(
        [
            Append(name, (b"a",) * random.randint(0, 2)),
            Revise(name, first, revisions, floor, floor_or_none),
            Revise(name, first, revisions, floor, floor_or_none),
            Revise(name, first + 1, revisions, floor, floor_or_none),
            KeepText(name, last - random.randint(0, min(last, 1)), random.randbytes(3)),
            Fold(name, b"state", b"", Sequence(sequence)),
            Forget(name) if random.random() < 0.2 else Append(name, (b"b",)),
        ]
    )


async def test_revisions_survive_a_random_walk(tmp_path: Path) -> None:
    """SQLite and the reference adapter show the same after the same calls (seed 9)."""
    random = Random(9)
    sqlite, memory = await open_store(tmp_path / "s.db"), MemoryStore()
    names = [document_id(f"w/{n}") for n in range(3)]
    carried_out, refused = 0, set[str]()
    for _ in range(400):
        calls = [
            [await draw_about_revisions(random, memory, name) for _ in range(random.randint(1, 2))]
            for name in random.sample(names, 2)
        ]
        results = await asyncio.gather(
            *(store.write(call) for store in (sqlite, memory) for call in calls),
            return_exceptions=True,
        )
        for call, ours, theirs in zip(calls, results[:2], results[2:], strict=True):
            if isinstance(ours, WriteInvalid):
                assert (type(ours), str(ours)) == (type(theirs), str(theirs))
                refused |= {type(write).__name__ for write in call}
            else:
                assert ours == theirs
                carried_out += any(isinstance(write, Revise) for write in call)
        assert await contents(sqlite) == await contents(memory)
    assert carried_out > 100
    assert refused >= {"Revise", "KeepText", "Fold"}
    assert await findings(sqlite) == await findings(memory) == []
    await sqlite.close()
