"""Foreign files, from recognition to the store: all of a document or nothing of it."""

from __future__ import annotations

import base64
import gzip
import json
import random
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pycrdt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_client.importing import Format, Importer, Outcome, open_source
from crdt_client.importing.folder import FolderWriter, name_of_file, read_folder
from crdt_client.importing.foreign import ForeignDocument
from crdt_client.importing.hints import hint, is_version_2
from crdt_client.importing.importer import importing_limits
from crdt_client.importing.source import leveldb_script
from crdt_state.clocks import ManualClock, WallTime
from crdt_state.errors import NotImportable, WorkerFailed
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.lineage import BORN
from crdt_state.replica.document_core import SET_ASIDE
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import SetLife, SetMetadata
from crdt_state.storage.memory import MemoryStore
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.storage.sqlite_foreign import ForeignLayout, open_foreign
from hostile import key_swarm, nesting_swarm, place_swarm, section, string, update
from reference import documents as reference_documents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from crdt_client.importing import Result
    from crdt_state.limits import Limits

# `héllo 😀` with two characters deleted and a map, encoded by yjs 13.6 encodeStateAsUpdateV2.
VERSION_2 = bytes.fromhex(
    "000006e8c0b8e91e01020004000704008100840028161074657874686c6f20f09f98806d61706104010503010101"
    "0002020101040075027d01760101627d0201a8a0dcb40f010101"
)
EMPTY_VERSION_2 = bytes.fromhex("00000000000001000000000000")


def written(text: str, *, client: int = 7) -> bytes:
    document = pycrdt.Doc(client_id=client)
    document["text"] = pycrdt.Text(text)
    return document.get_update()


def keystrokes(text: str, *, client: int = 7) -> list[bytes]:
    document = pycrdt.Doc(client_id=client)
    content = document.get("text", type=pycrdt.Text)
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    for character in text:
        content += character
    document.unobserve(subscription)
    return updates


def read_text(updates: list[bytes]) -> str:
    document = pycrdt.Doc()
    for one in updates:
        document.apply_update(one)
    return str(document.get("text", type=pycrdt.Text))


def pycrdt_store(
    path: Path, rows: list[tuple[str, bytes]], checkpoints: dict[str, bytes] | None = None
) -> Path:
    """A file with the tables of pycrdt-store 0.1.5; without checkpoints, those of 0.1.2."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE yupdates (path TEXT NOT NULL, yupdate BLOB, metadata BLOB, "
            "timestamp REAL NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO yupdates VALUES (?, ?, NULL, ?)",
            [(name, one, number) for number, (name, one) in enumerate(rows)],
        )
        if checkpoints is not None:
            connection.execute(
                "CREATE TABLE ycheckpoints (path TEXT NOT NULL, checkpoint BLOB NOT NULL, "
                "timestamp REAL NOT NULL, PRIMARY KEY(path))"
            )
            connection.executemany(
                "INSERT INTO ycheckpoints VALUES (?, ?, 1.5)", list(checkpoints.items())
            )
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    return path


def hocuspocus(path: Path, rows: dict[str, object]) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute(
            'CREATE TABLE "documents" ("name" varchar(255) NOT NULL, "data" blob NOT NULL, '
            "UNIQUE(name))"
        )
        connection.executemany("INSERT INTO documents VALUES (?, ?)", list(rows.items()))
    connection.close()
    return path


@asynccontextmanager
async def replica(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[ReplicaShell]:
    limits = importing_limits(limits)
    shell = ReplicaShell(
        MemoryStore(limits=limits),
        InProcess(limits),
        limits=limits,
        clock=ManualClock(),
        random=random.Random(1),
        is_listening=True,
    )
    async with shell:
        yield shell


async def imported(path: Path, shell: ReplicaShell, **options: str) -> dict[str, Result]:
    importer = Importer(shell, **options)
    results: dict[str, Result] = {}
    with open_source(path, shell.limits) as source:
        for foreign in source.documents:
            assert foreign.name not in results, "a source yields each document once"
            results[foreign.name] = await importer.take(foreign, source=source.format.value)
    assert source.count in (None, len(results))
    return results


async def text_in(shell: ReplicaShell, name: str) -> str:
    stored = await shell.store.read(document_id(name))
    assert stored is not None
    return read_text(stored.updates())


# --- the sources ------------------------------------------------------------------------------


async def test_pycrdt_store_gives_its_checkpoint_and_its_updates(tmp_path: Path) -> None:
    typed = keystrokes("hello")
    rows = [("lab/a", one) for one in typed[3:]] + [("lab/b", written("b", client=8))]
    folded = pycrdt.Doc()
    for one in typed[:3]:
        folded.apply_update(one)
    only = written("only a checkpoint", client=9)
    checkpoints = {"lab/a": folded.get_update(), "lab/c": only}
    path = pycrdt_store(tmp_path / "ystore.db", rows, checkpoints)
    async with replica() as shell:
        results = await imported(path, shell)
        assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(
            ("lab/a", "lab/b", "lab/c"), Outcome.IMPORTED
        )
        assert await text_in(shell, "lab/a") == "hello"
        assert await text_in(shell, "lab/b") == "b"
        assert await text_in(shell, "lab/c") == "only a checkpoint"


async def test_pycrdt_store_of_the_time_before_checkpoints_is_read(tmp_path: Path) -> None:
    path = pycrdt_store(tmp_path / "ystore.db", [("a", one) for one in keystrokes("old")])
    async with replica() as shell:
        assert (await imported(path, shell))["a"].updates == 3
        assert await text_in(shell, "a") == "old"


async def test_hocuspocus_is_read_and_rows_that_are_no_updates_are_named(tmp_path: Path) -> None:
    rows = {"good": written("good"), "empty": b"", "number": 5, "bad//id": written("x", client=9)}
    path = hocuspocus(tmp_path / "db.sqlite", rows)
    async with replica() as shell:
        results = await imported(path, shell)
        assert await text_in(shell, "good") == "good"
        refused = {name: r.reason for name, r in results.items() if r.outcome is Outcome.REFUSED}
        assert refused.keys() == {"empty", "number", "bad//id"}
        assert "no bytes" in str(refused["empty"])
        assert "not bytes" in str(refused["number"])
        assert "--rename" in str(refused["bad//id"])
        assert [line.document for line in await shell.store.list()] == ["good"]


async def test_a_name_that_is_no_id_can_be_renamed_and_all_can_be_prefixed(tmp_path: Path) -> None:
    path = hocuspocus(tmp_path / "db.sqlite", {"a//b": written("x"), "c": written("y")})
    async with replica() as shell:
        results = await imported(path, shell, renames={"a//b": "a/b"}, prefix="team/")
        assert {str(result.document) for result in results.values()} == {"team/a/b", "team/c"}
        assert await text_in(shell, "team/a/b") == "x"


def test_a_foreign_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    path = hocuspocus(tmp_path / "db.sqlite", {"a": written("x")})
    before = path.read_bytes()
    path.chmod(0o400)
    with open_source(path, DEFAULT_LIMITS) as source:
        assert [foreign.name for foreign in source.documents] == ["a"]
        assert source.count == 1
    assert path.read_bytes() == before
    with pytest.raises(NotImportable), open_foreign(tmp_path / "nothing.db"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["db.sqlite"]


def test_a_file_that_its_server_still_writes_is_read_as_of_one_moment(tmp_path: Path) -> None:
    path = hocuspocus(tmp_path / "db.sqlite", {"a": written("x"), "b": written("y")})
    server = sqlite3.connect(path, isolation_level=None)
    server.execute("PRAGMA journal_mode = WAL")
    with open_source(path, DEFAULT_LIMITS) as source:
        server.execute("DELETE FROM documents")
        found = [foreign.name for foreign in source.documents if foreign.updates]
        assert found == ["a", "b"]
    server.close()


async def test_our_own_store_is_not_taken_for_a_foreign_one(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "replica.db", random=random.Random(1))
    await store.close()
    with (
        pytest.raises(NotImportable, match="--store"),
        open_source(tmp_path / "replica.db", DEFAULT_LIMITS),
    ):
        pass


@pytest.mark.parametrize("cut", [16, 100, 5_000])
def test_a_damaged_sqlite_file_is_an_error_that_names_it(tmp_path: Path, cut: int) -> None:
    path = hocuspocus(tmp_path / "db.sqlite", {f"n{n}": written(f"{n}" * 99) for n in range(99)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(NotImportable, match=r"db\.sqlite"), open_source(path, DEFAULT_LIMITS) as s:
        list(s.documents)


def test_a_sqlite_file_with_other_tables_says_what_it_has(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE recipes (id)")
    connection.close()
    with (
        pytest.raises(NotImportable, match="recipes"),
        open_source(tmp_path / "x.db", DEFAULT_LIMITS),
    ):
        pass


async def test_lines_are_read_and_broken_ones_are_named(tmp_path: Path) -> None:
    good = {"name": "a", "update": base64.b64encode(written("line")).decode()}
    many = {"name": "b", "updates": [base64.b64encode(u).decode() for u in keystrokes("two")]}
    lines = [json.dumps(good), "", "{nope", '{"name": "c"}', '{"name": "d", "update": "%"}', "7"]
    path = tmp_path / "documents.ndjson"
    path.write_text("\n".join([*lines, json.dumps(many)]))
    async with replica() as shell:
        results = await imported(path, shell)
        assert await text_in(shell, "a") == "line"
        assert await text_in(shell, "b") == "two"
        refused = {name for name, r in results.items() if r.outcome is Outcome.REFUSED}
        assert refused == {"line 3", "c", "d", "line 6"}


async def test_a_line_beyond_the_bound_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, document_bytes_max=1_000)
    good = {"name": "a", "update": base64.b64encode(written("line")).decode()}
    path = tmp_path / "documents.ndjson"
    path.write_text('{"name": "big", "update": "' + "A" * 200_000 + '"}\n' + json.dumps(good))
    async with replica(limits) as shell:
        results = await imported(path, shell)
        assert "document_bytes_max" in str(results["line 1"].reason)
        assert await text_in(shell, "a") == "line"


async def test_a_dumped_folder_comes_back_whole(tmp_path: Path) -> None:
    names = ["a", "A", "notes/today", "Café/☕", "x" * 500, "con", ".hidden", "100%", "a.bin"]
    writer = FolderWriter.begin(tmp_path / "dump")
    for number, name in enumerate(names):
        writer.add(document_id(name), written(name, client=number + 1))
    writer.finish()
    files = {file.name for file in (tmp_path / "dump").iterdir()}
    assert len({name.casefold() for name in files}) == len(names) + 1
    async with replica() as shell:
        results = await imported(tmp_path / "dump", shell)
        assert {r.outcome for r in results.values()} == {Outcome.IMPORTED}
        for name in names:
            assert await text_in(shell, name) == name


async def test_a_folder_without_an_index_is_read_by_its_file_names(tmp_path: Path) -> None:
    (tmp_path / "notes%2Ftoday.bin").write_bytes(written("today"))
    (tmp_path / "readme.txt").write_text("not a document")
    async with replica() as shell:
        assert (await imported(tmp_path, shell)).keys() == {"notes/today"}
        assert await text_in(shell, "notes/today") == "today"


@pytest.mark.parametrize(
    "file", ["../secret.bin", "/etc/passwd", "..", "sub/x.bin", "a\\b.bin", ""]
)
def test_an_index_cannot_point_out_of_its_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.bin").write_bytes(written("secret"))
    (tmp_path / "in").mkdir()
    index = {"format": "crdt-state-folder", "version": 1}
    index["documents"] = [{"document": "a", "file": file}]  # type: ignore[assignment]
    (tmp_path / "in" / "index.json").write_bytes(orjson.dumps(index))
    (foreign,) = read_folder(tmp_path / "in", size_max=1_000)
    assert foreign.updates == ()
    assert "outside" in str(foreign.problem)


def test_a_file_that_differs_from_its_index_is_named(tmp_path: Path) -> None:
    writer = FolderWriter.begin(tmp_path)
    writer.add(document_id("a"), written("a"))
    writer.add(document_id("b"), written("b"))
    writer.finish()
    (tmp_path / "a.bin").write_bytes(written("changed"))
    (tmp_path / "b.bin").unlink()
    problems = [foreign.problem for foreign in read_folder(tmp_path, size_max=1_000)]
    assert ["SHA-256" in str(problems[0]), "cannot be read" in str(problems[1])] == [True, True]


@pytest.mark.parametrize("index", [b"", b"{", b"[]", b'{"format": "other"}', b'{"documents": 1}'])
def test_an_index_that_is_none_is_an_error(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    with (
        pytest.raises(NotImportable, match=r"index\.json"),
        open_source(tmp_path, DEFAULT_LIMITS) as s,
    ):
        list(s.documents)


def test_a_leveldb_folder_says_how_to_dump_it(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("MANIFEST-000001\n")
    (tmp_path / "MANIFEST-000001").write_bytes(b"")
    with (
        pytest.raises(NotImportable, match="--leveldb-script"),
        open_source(tmp_path, DEFAULT_LIMITS),
    ):
        pass
    assert "LeveldbPersistence" in leveldb_script()


def test_a_file_name_is_decoded_where_it_can_be(tmp_path: Path) -> None:
    assert name_of_file(tmp_path / "notes%2Fcaf%C3%A9.bin") == "notes/café"
    assert name_of_file(tmp_path / "today") == "today"
    assert name_of_file(tmp_path / "%FF.bin") == "%FF.bin"


def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"

    @given(
        st.binary(max_size=300), st.sampled_from([b"", b'{"name":', b"SQLite format 3\0", b"\0"])
    )
    def holds(data: bytes, start: bytes) -> None:
        path.write_bytes(start + data)
        try:
            with open_source(path, DEFAULT_LIMITS) as source:
                for foreign in source.documents:
                    for one in foreign.updates:
                        hint(one)
        except NotImportable:
            assert (start + data).startswith(b"SQLite")

    holds()


# --- what becomes of them ---------------------------------------------------------------------


async def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    path = pycrdt_store(tmp_path / "ystore.db", [("a", one) for one in keystrokes("again")])
    hostile = [("bad", b"\1\2\3"), ("waits", keystrokes("xyz", client=9)[2])]
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO yupdates VALUES (?, ?, NULL, 99)", hostile)
    connection.close()
    async with replica() as shell:
        first = await imported(path, shell)
        assert first["a"].updates == 5
        assert first["waits"].waiting == 1
        lines = await shell.store.list()
        second = await imported(path, shell)
        assert second["a"].outcome is Outcome.UNCHANGED
        assert second["waits"].outcome is Outcome.UNCHANGED
        assert second["bad"].outcome is Outcome.REFUSED
        assert await shell.store.list() == lines


async def test_a_refused_document_leaves_no_trace_and_the_next_goes_on() -> None:
    typed = keystrokes("fine")
    async with replica() as shell:
        importer = Importer(shell)
        foreign = ForeignDocument("bad", (typed[0], typed[1], b"\xff\xff", typed[2]))
        result = await importer.take(foreign, source="test")
        assert result.outcome is Outcome.REFUSED
        assert "update 3 of 4" in str(result.reason)
        assert await shell.store.read(document_id("bad")) is None
        assert await shell.store.quarantine() == ()
        # Nor is anybody's range ended: without the bad one, the same updates go in.
        again = await importer.take(ForeignDocument("bad", tuple(typed)), source="test")
        assert again.outcome is Outcome.IMPORTED
        assert await text_in(shell, "bad") == "fine"


@pytest.mark.parametrize(
    "swarm", [list(nesting_swarm(200)), list(key_swarm(60)), list(place_swarm(60))]
)
async def test_a_document_that_would_harm_whoever_opens_it_is_refused(swarm: list[bytes]) -> None:
    limits = replace(DEFAULT_LIMITS, document_writers_per_place_max=50)
    async with replica(limits) as shell:
        importer = Importer(shell)
        result = await importer.take(ForeignDocument("bad", tuple(swarm)), source="test")
        assert result.outcome is Outcome.REFUSED
        assert "document_" in str(result.reason)
        assert (await importer.take(ForeignDocument("ok", (written("x"),)), source="test")).updates
        assert [line.document for line in await shell.store.list()] == ["ok"]


async def test_a_document_that_kills_its_worker_is_refused_before_it_is_stored() -> None:
    async def fold(updates: object) -> None:
        raise WorkerFailed("died", "the process ended with signal 11")

    async with replica() as shell:
        shell.workers.fold = fold  # type: ignore[method-assign]
        result = await Importer(shell).take(ForeignDocument("a", (written("x"),)), source="test")
        assert "signal 11" in str(result.reason)
        assert await shell.store.list() == ()


async def test_a_document_that_is_set_aside_takes_nothing_in() -> None:
    async with replica() as shell:
        importer = Importer(shell)
        await importer.take(ForeignDocument("a", (written("x"),)), source="test")
        await shell.store.write([SetMetadata(SET_ASIDE, b"it harmed us", document_id("a"))])
        foreign = ForeignDocument("a", (written("y", client=8),))
        for one in (importer, Importer(shell, is_rehearsal=True)):
            assert "it harmed us" in str((await one.take(foreign, source="test")).reason)


async def test_two_names_of_one_id_are_never_merged() -> None:
    async with replica() as shell:
        importer = Importer(shell)
        first = ForeignDocument("caf\u00e9", (written("one"),))
        second = ForeignDocument("cafe\u0301", (written("two", client=8),))
        assert (await importer.take(first, source="test")).outcome is Outcome.IMPORTED
        assert "same document id" in str((await importer.take(second, source="test")).reason)
        assert await text_in(shell, "café") == "one"


async def test_a_whole_state_may_be_larger_than_one_authors_update() -> None:
    limits = replace(DEFAULT_LIMITS, update_bytes_max=1_000, document_bytes_max=10_000)
    async with replica(limits) as shell:
        importer = Importer(shell)
        for size, outcome in ((9_000, Outcome.IMPORTED), (11_000, Outcome.REFUSED)):
            foreign = ForeignDocument(f"d{size}", (written("x" * size),))
            assert (await importer.take(foreign, source="test")).outcome is outcome


async def test_a_rehearsal_reports_and_writes_nothing() -> None:
    async with replica() as shell:
        importer = Importer(shell, is_rehearsal=True)
        result = await importer.take(ForeignDocument("a", (written("x"),)), source="test")
        assert (result.outcome, result.updates) == (Outcome.IMPORTED, 1)
        assert await shell.store.list() == ()


async def test_a_split_surrogate_pair_is_repaired_as_it_comes_in() -> None:
    # Client 2 writes between the two halves of client 1's character, as a JavaScript program can.
    base = update(section(1, 0, string("😀")))
    split = update(section(2, 0, string("x", origin=(1, 0), right=(1, 1))))
    async with replica() as shell:
        result = await Importer(shell).take(ForeignDocument("a", (base, split)), source="test")
        assert result.outcome is Outcome.IMPORTED, result.reason
        stored = await shell.store.read(document_id("a"))
        assert stored is not None
        one_by_one = read_text(stored.updates())
        assert one_by_one == read_text([pycrdt.merge_updates(*stored.updates())])
        assert "x" in one_by_one
        # The update that splits the pair is not what was stored.
        assert split not in stored.updates()


async def test_the_reference_documents_come_in(data_folder: Path, tmp_path: Path) -> None:
    name, data = "b4-update.bin", reference_documents(data_folder)["b4-update.bin"]
    (tmp_path / name).write_bytes(data)
    async with replica() as shell:
        results = await imported(tmp_path / name, shell)
        assert results["b4-update"].outcome is Outcome.IMPORTED
        assert len(await text_in(shell, "b4-update")) == 104_852


# --- hints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (VERSION_2, "version 2"),
        (EMPTY_VERSION_2, "version 2"),
        (gzip.compress(written("x"), mtime=0), "gzip"),
        (base64.b64encode(written("x")), "base64"),
        (b"\0\2" + bytes([len(written("x"))]) + written("x"), "y-protocols"),
        (b"", "empty"),
    ],
)
async def test_the_usual_mistakes_are_refused_with_a_hint(data: bytes, word: str) -> None:
    async with replica() as shell:
        result = await Importer(shell).take(ForeignDocument("a", (data,)), source="test")
        assert result.outcome is Outcome.REFUSED
        assert word in str(result.reason)


@given(st.text(max_size=50))
def test_an_update_of_version_1_is_never_called_version_2(text: str) -> None:
    assert not is_version_2(written(text))


def test_the_formats_have_the_names_of_the_layouts() -> None:
    assert {layout.value for layout in ForeignLayout} <= {kind.value for kind in Format}


async def test_another_history_of_a_document_takes_its_place_and_is_not_merged_with_it() -> None:
    async with replica() as shell:
        importer = Importer(shell)
        await importer.take(ForeignDocument("a", (written("text", client=7),)), source="test")
        before = await shell.store.read(document_id("a"))
        assert before is not None
        again = ForeignDocument("a", (written("Text!", client=8),))
        rehearsed = await Importer(shell, is_rehearsal=True).take(again, source="test")
        assert rehearsed.is_another
        assert await shell.store.read(document_id("a")) == before
        result = await importer.take(again, source="test")
        assert result.is_another
        assert await text_in(shell, "a") == "Text!"
        after = await shell.store.read(document_id("a"))
        assert after is not None
        assert after.life > before.life
        (aside,) = await shell.store.quarantine()
        assert read_text([aside.update]) == "text"
        # What belongs to it is the same history: nothing begins anew.
        more = ForeignDocument("a", tuple(keystrokes("Text!x", client=8)))
        assert not (await importer.take(more, source="test")).is_another


async def test_a_deleted_document_takes_no_file_in() -> None:
    document = document_id("a")
    async with replica() as shell:
        await shell.store.write([SetLife(document, BORN.deleted(), WallTime(1))])
        result = await Importer(shell).take(ForeignDocument("a", (written("back"),)), source="test")
        assert result.outcome is Outcome.REFUSED
        assert "deleted" in str(result.reason)
        stored = await shell.store.read(document)
        assert stored is not None
        assert stored.updates() == []
