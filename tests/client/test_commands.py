"""The command line as its users meet it: what is on stdout, on stderr, and in the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING

import pycrdt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from crdt_client.commands.application import new_application
from crdt_client.commands.serve import WORDS
from crdt_client.commands.terminal import bytes_text, printable
from crdt_client.commands.token import seconds_of
from crdt_state.clocks import SystemClock, WallTime
from crdt_state.identifiers import Scope, document_id
from crdt_state.model.head import Head
from crdt_state.replica.document_core import SET_ASIDE
from crdt_state.replica.shell import ReplicaShell
from crdt_state.security.grant import Access
from crdt_state.security.tokens import parse_keys, verify
from crdt_state.storage.contract import (
    Append,
    Fold,
    Hold,
    Sequence,
    SetAside,
    SetMetadata,
    SetNodes,
)
from crdt_state.storage.sqlite import SqliteStore
from offline_sites import Site
from sync_server.settings import ServerSettings, names_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from crdt_state.storage.contract import StoredDocument, Write

COMMANDS = (
    "serve",
    "list",
    "show",
    "dump",
    "import",
    "check",
    "compact",
    "simulate",
    "token",
    "version",
)
SECRET = "a-secret-of-at-least-thirty-two-bytes"
AT = WallTime(1_700_000_000_000_000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's folder that all commands of a test use, in an otherwise empty environment."""
    for name in tuple(os.environ):
        if name.startswith("CRDT_STATE_") or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRDT_STATE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "store"


def run(*arguments: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(new_application(), [str(one) for one in arguments], input=given)


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def written(text: str, *, client: int = 7) -> bytes:
    document = pycrdt.Doc(client_id=client)
    document["text"] = pycrdt.Text(text)
    return document.get_update()


def read_text(*updates: bytes) -> str:
    document = pycrdt.Doc()
    for one in updates:
        document.apply_update(one)
    return str(document.get("text", type=pycrdt.Text))


def keystrokes(text: str, *, client: int = 7) -> tuple[bytes, ...]:
    document = pycrdt.Doc(client_id=client)
    content = document.get("text", type=pycrdt.Text)
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    for character in text:
        content += character
    document.unobserve(subscription)
    return tuple(updates)


def fill(folder: Path, *writes: Write) -> None:
    """Write into the store behind the replica's back."""

    folder.mkdir(exist_ok=True)

    async def work() -> None:
        store = await SqliteStore.open(folder / "replica.db", random=random.Random(1))
        try:
            await store.write(writes)
        finally:
            await store.close()

    asyncio.run(work())


def stored(folder: Path, name: str) -> StoredDocument | None:
    async def work() -> StoredDocument | None:
        store = await SqliteStore.open(
            folder / "replica.db", random=random.Random(1), read_only=True
        )
        try:
            return await store.read(document_id(name))
        finally:
            await store.close()

    return asyncio.run(work())


@contextmanager
def held_open(folder: Path) -> Iterator[None]:
    """Another process has the store open for writing, as a server has."""
    program = (
        "import asyncio, random, sys\n"
        "from crdt_state.storage.sqlite import SqliteStore\n"
        "async def hold():\n"
        "    store = await SqliteStore.open(sys.argv[1], random=random.Random(2))\n"
        "    print('open', flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "    await store.close()\n"
        "asyncio.run(hold())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "replica.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        try:
            yield
        finally:
            process.communicate()
    assert process.returncode == 0


NOTES, ROOM = document_id("notes/today"), document_id("room")


# --- all of them ------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(f"\n  {command} " in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples_and_fits_80_columns(folder: Path, command: str) -> None:
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert "Examples:\n" in shown.stdout
    assert f"crdt-state {command}" in shown.stdout
    assert command == "version" or "Exit codes:" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["show"],
        ["show", "a//b"],
        ["dump", "-o", "x"],
        ["dump", "a", "--all", "-o", "x"],
        ["dump", "--all", "-o", "-"],
        ["dump", "a"],
        ["import"],
        ["import", "/nowhere/at/all"],
        ["import", "-"],
        ["import", "/", "/", "--as", "a"],
        ["import", "/", "--rename", "a"],
        ["compact", "../up"],
        ["token", "--identity", "me"],
        ["token", "--identity", "me", "--read", "**", "--expires", "soon"],
        ["serve", "--port", "many"],
        ["serve", "--host", "0.0.0.0"],
        ["serve", "--settings", "/nowhere/at/all"],
    ],
)
def test_bad_usage_says_what_to_do_and_ends_with_2(folder: Path, arguments: list[str]) -> None:
    fill(folder)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "a"], ["dump", "a", "-o", "x"], ["check"], ["compact"]]
)
def test_a_store_that_is_not_there_is_never_made_by_looking(
    folder: Path, arguments: list[str]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 3
    assert "there is no store" in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize("arguments", [["list"], ["check"], ["compact"], ["import", "x.bin"]])
def test_a_file_that_is_no_store_ends_with_3(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(written("x"))
    folder.mkdir()
    (folder / "replica.db").write_bytes(b"no database at all" * 100)
    assert run(*arguments).exit_code == 3
    assert (folder / "replica.db").read_bytes() == b"no database at all" * 100


def test_a_store_may_be_named_by_its_folder_or_its_file(folder: Path) -> None:
    fill(folder, Append(ROOM, (written("x"),)))
    for place in (folder, folder / "replica.db"):
        assert lines(run("list", "--json", "--store", place))[0]["document"] == "room"


def test_beside_a_server_reading_works_and_writing_says_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    fill(folder, Append(ROOM, keystrokes("hello")))
    (tmp_path / "x.bin").write_bytes(written("x"))
    with held_open(folder):
        assert run("list").exit_code == 0
        assert run("show", "room", "--text", "text").stdout == "hello"
        assert run("dump", "room", "-o", tmp_path / "out.bin").exit_code == 0
        assert run("check").exit_code == 0
        for arguments in (["compact"], ["import", tmp_path / "x.bin"]):
            result = run(*arguments)
            assert result.exit_code == 3
            assert "stop that one first" in result.stderr
    assert run("compact").exit_code == 0


def test_the_program_itself_runs_and_survives_a_reader_that_leaves(folder: Path) -> None:
    fill(folder, *(Append(document_id(f"{n:05}"), (written("x"),)) for n in range(3_000)))
    program = "from crdt_client.commands import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b'"00000"' in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
@pytest.mark.parametrize("stdout", ["terminal", "file", "pipe"])
def test_progress_never_mixes_with_results(folder: Path, tmp_path: Path, stdout: str) -> None:
    names = [f"notes/{n:03}" for n in range(300)]
    fill(folder, *(Append(document_id(name), (written("x"),)) for name in names))
    ours, theirs = os.openpty()
    file, arguments = tmp_path / "results", ["list", "--json"]
    with (
        file.open("wb") as opened,
        subprocess.Popen(
            [sys.executable, "-c", "from crdt_client.commands import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout={"terminal": theirs, "file": opened, "pipe": subprocess.PIPE}[stdout],
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "400"},
        ) as process,
    ):
        os.close(theirs)
        on_terminal = _read_all(ours)
        if process.stdout is not None:
            file.write_bytes(process.stdout.read())
    assert process.returncode == 0
    results = on_terminal if stdout == "terminal" else file.read_text("utf-8")
    # Before a line that stands above the display, the display's own is erased.
    found = [json.loads(line)["document"] for line in re.findall(r"\{.*\}", results)]
    assert found == names
    assert ("reading" in on_terminal) is (stdout != "pipe")
    if stdout != "terminal":
        assert "{" not in on_terminal
        assert results.count("\n") == 300


# --- list, show -------------------------------------------------------------------------------


def test_list_names_bad_documents_with_their_reasons(folder: Path) -> None:
    fill(
        folder,
        Append(NOTES, keystrokes("abc")),
        Append(ROOM, (written("x"),)),
        SetMetadata(SET_ASIDE, b"it took 20 seconds", ROOM),
        SetAside(NOTES, b"\xff", 4422, "not an update", "address 1", AT),
        Hold(NOTES, 1, keystrokes("xyz", client=9)[2], "address 1", AT),
        Append(document_id("fine"), (written("y"),)),
    )
    result = run("list")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert rows[0].split() == ["document", "updates", "log", "checkpoint", "pending", "refused"]
    assert rows[2].split() == ["notes/today", "3", "34", "B", "0", "B", "1", "1"]
    assert "! notes/today: 1 refused, the last: not an update" in rows
    assert "! room: set aside: it took 20 seconds" in rows
    bad = run("list", "--bad", "--json")
    assert bad.exit_code == 1
    assert {line["document"] for line in lines(bad)} == {"notes/today", "room"}
    assert run("list", "--bad", "fine").exit_code == 0
    assert [line["document"] for line in lines(run("list", "no", "--json"))] == ["notes/today"]


def test_list_goes_on_behind_a_damaged_document(folder: Path) -> None:
    fill(folder, *(Append(document_id(name), (written(name * 9),)) for name in "abc"))
    _overwrite(folder, b"bbbbbbbbb", b"bbbbXbbbb")
    found = {line["document"]: line["trouble"] for line in lines(run("list", "--json"))}
    assert (found["a"], found["c"]) == (None, None)
    assert "damaged" in str(found["b"])


def test_show_writes_the_content_to_stdout_and_all_else_to_stderr(folder: Path) -> None:
    document = pycrdt.Doc(client_id=3)
    document["text"] = pycrdt.Text("héllo 😀\x1b[31m")
    document["map"] = pycrdt.Map({"a": [1, {"b": 2.5}]})
    fill(folder, Append(NOTES, (document.get_update(),)))
    result = run("show", NOTES)
    assert json.loads(result.stdout) == {
        "text": "héllo 😀\x1b[31m",
        "map": {"a": [1, {"b": 2.5}]},
    }
    assert "digest" in result.stderr
    (line,) = lines(run("show", NOTES, "--json"))
    assert line["content"] == json.loads(result.stdout)
    assert (line["clients"], len(str(line["digest"]))) == (1, 32)
    assert run("show", NOTES, "--text", "text").stdout == "héllo 😀\x1b[31m"
    missing = run("show", NOTES, "--text", "txt")
    assert (missing.exit_code, "map, text" in missing.stderr) == (2, True)
    assert run("show", NOTES, "--text", "map").exit_code == 2


def test_show_gives_the_values_of_our_kinds_and_raw_their_layout(folder: Path) -> None:
    site = Site(1)
    site.document.counter("visits").add(5)
    site.document.counter("visits").add(-2)
    site.document.set("tags").update(["a", "b"])
    site.document.register("title").set("Notes")
    site.document.map("plain")["n"] = 1
    fill(folder, Append(NOTES, (site.document.encode(),)))
    shown = json.loads(run("show", NOTES).stdout)
    assert shown == {
        "visits#counter": 3,
        "tags#set": ["a", "b"],
        "title#register": "Notes",
        "plain": {"n": 1},
    }
    raw = json.loads(run("show", NOTES, "--raw").stdout)
    assert list(raw["visits#counter"].values()) == [[5, 2]]
    assert raw["title#register"][0][2] == "Notes"
    assert lines(run("show", NOTES, "--json"))[0]["content"] == shown
    assert lines(run("show", NOTES, "--json", "--raw"))[0]["content"] == raw


def test_show_reads_a_formatted_text_as_its_characters(folder: Path) -> None:
    document = pycrdt.Doc(client_id=3)
    text = document["text"] = pycrdt.Text("plain")
    text.insert(0, "bold ", {"bold": True})
    fill(folder, Append(NOTES, (document.get_update(),)))
    assert run("show", NOTES, "--text", "text").stdout == "bold plain"


def test_show_of_a_document_that_is_not_there_ends_with_2(folder: Path) -> None:
    fill(folder)
    assert "crdt-state list" in run("show", "nothing").stderr
    assert run("show", "nothing").exit_code == 2


# --- dump, import -----------------------------------------------------------------------------


def test_a_dump_is_an_update_that_any_yjs_program_reads(folder: Path, tmp_path: Path) -> None:
    fill(folder, Append(NOTES, keystrokes("hello 😀")))
    file = tmp_path / "today.bin"
    assert run("dump", NOTES, "-o", file).exit_code == 0
    assert read_text(file.read_bytes()) == "hello 😀"
    assert run("dump", NOTES, "-o", "-").stdout_bytes == file.read_bytes()
    assert run("dump", NOTES, "-o", file).exit_code == 2
    assert run("dump", NOTES, "-o", file, "--force", "--merged").exit_code == 0
    assert read_text(file.read_bytes()) == "hello 😀"
    assert [one.name for one in tmp_path.glob("today*")] == ["today.bin"]


def test_dump_all_and_import_make_an_equal_store(folder: Path, tmp_path: Path) -> None:
    fill(folder, *(Append(document_id(f"d/{n}"), keystrokes(f"text {n}")) for n in range(5)))
    assert run("dump", "--all", "-o", tmp_path / "out").exit_code == 0
    assert run("dump", "--all", "-o", tmp_path / "out").exit_code == 2
    other = tmp_path / "other"
    assert run("import", tmp_path / "out", "--store", other).exit_code == 0
    for number in range(5):
        (line,) = lines(run("show", f"d/{number}", "--json"))
        (copy,) = lines(run("show", f"d/{number}", "--json", "--store", other))
        assert (copy["digest"], copy["content"]) == (line["digest"], line["content"])


def test_dump_all_names_what_it_leaves_out(folder: Path, tmp_path: Path) -> None:
    fill(folder, *(Append(document_id(name), (written(name * 9),)) for name in "abc"))
    _overwrite(folder, b"bbbbbbbbb", b"bbbbXbbbb")
    result = run("dump", "--all", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "'b' is not in the folder" in result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.bin", "c.bin", "index.json"}


def test_import_reports_each_document_and_ends_with_1_for_a_bad_one(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes%2Ftoday.bin").write_bytes(written("today"))
    (tmp_path / "bad.bin").write_bytes(b"\1\2\3")
    arguments = [tmp_path / "bad.bin", tmp_path / "notes%2Ftoday.bin"]
    result = run("import", *arguments, "--json")
    assert result.exit_code == 1
    assert [(line["document"], line["outcome"]) for line in lines(result)] == [
        ("bad", "refused"),
        ("notes/today", "imported"),
    ]
    again = run("import", *arguments)
    assert again.exit_code == 1
    assert "0 documents imported, 1 unchanged, 1 refused" in again.stderr
    assert run("import", arguments[1]).exit_code == 0
    found = stored(folder, "notes/today")
    assert found is not None
    assert read_text(*found.updates()) == "today"
    assert stored(folder, "bad") is None


def test_import_reads_an_update_from_stdin_under_a_name(folder: Path) -> None:
    result = run("import", "-", "--as", "notes/today", given=written("piped"))
    assert result.exit_code == 0, result.output
    assert run("show", "notes/today", "--text", "text").stdout == "piped"


def test_import_goes_on_behind_a_file_it_cannot_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE recipes (id)")
    connection.close()
    (tmp_path / "good.bin").write_bytes(written("good"))
    names = ("empty", "other.db", "good.bin")
    result = run("import", *(tmp_path / name for name in names))
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 2
    assert stored(folder, "good") is not None


def test_a_rehearsed_import_makes_no_store(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "good.bin").write_bytes(written("good"))
    result = run("import", tmp_path / "good.bin", "--rehearse")
    assert (result.exit_code, "would be imported" in result.stderr) == (0, True)
    assert not folder.exists()
    fill(folder)
    assert run("import", tmp_path / "good.bin", "--rehearse").exit_code == 0
    assert stored(folder, "good") is None


def test_import_prints_the_program_that_dumps_leveldb(folder: Path) -> None:
    result = run("import", "--leveldb-script")
    assert result.exit_code == 0
    assert "y-leveldb" in result.stdout


# --- check, compact ---------------------------------------------------------------------------


def test_check_of_a_sound_store_finds_nothing(folder: Path) -> None:
    fill(folder, *(Append(document_id(name), keystrokes("text " + name)) for name in "abc"))
    assert run("compact", "a").exit_code == 0
    fill(folder, Append(document_id("a"), (written("more", client=8),)))
    result = run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing wrong in 3 documents" in result.stderr


def test_check_names_what_each_kind_of_damage_did(folder: Path) -> None:
    a, b, c, d = (document_id(name) for name in "abcd")
    state, other = written("checkpoint"), written("another", client=8)
    wrong_head = Head()
    fill(
        folder,
        Append(a, (written("aaaaaaaaaaaa"),)),
        Append(b, (state,)),
        Append(c, (keystrokes("xyz")[2],)),
        SetMetadata(SET_ASIDE, b"slow", d),
        Append(d, (other,)),
    )
    fill(folder, Fold(b, state, wrong_head.encode(), Sequence(2)))
    _overwrite(folder, b"aaaaaaaaaaaa", b"aaaaXaaaaaaa")
    result = run("check", "--json")
    assert result.exit_code == 1
    found: dict[object, list[str]] = {}
    for line in lines(result):
        found.setdefault(line["document"], []).append(str(line["finding"]))
    assert found.keys() == {"a", "b", "c", "d"}
    assert "checksum" in found["a"][0]
    assert "state vector kept with its checkpoint" in found["b"][0]
    assert any("its log says" in what for what in found["b"])
    assert any("cannot be integrated" in what for what in found["c"])
    assert found["d"] == ["set aside: slow"]


def test_check_finds_a_trie_that_is_not_that_of_its_documents_and_rebuilds_it(folder: Path) -> None:
    fill(folder, *(Append(document_id(f"notes/{n}"), (written(str(n)),)) for n in range(5)))
    assert run("check", "--rebuild").exit_code == 0
    fill(folder, SetNodes(Scope("notes"), {0: b"x" * 1_024}))
    result = run("check", "--json")
    assert result.exit_code == 1
    (finding,) = lines(result)
    assert "1 nodes of the trie of 'notes'" in str(finding["finding"])
    assert run("check", "--rebuild").exit_code == 0
    assert run("check").exit_code == 0


def test_compact_folds_logs_and_keeps_everything(folder: Path) -> None:
    waiting = keystrokes("xyz", client=9)[2]
    fill(
        folder,
        Append(NOTES, keystrokes("hello")),
        Hold(NOTES, 1, waiting, "address 1", AT),
        Append(ROOM, (written("one"),)),
        SetMetadata("owner/7", b"ana", NOTES),
    )
    result = run("compact", "--json")
    assert result.exit_code == 0, result.output
    assert [(line["document"], line["log_updates"]) for line in lines(result)] == [
        ("notes/today", 5)
    ]
    found = stored(folder, "notes/today")
    assert found is not None
    assert found.checkpoint is not None
    assert (found.log, read_text(*found.updates())) == ((), "hello")
    assert [held.update for held in found.pending] == [waiting]
    assert Head.decode(found.checkpoint.head).owners == {7: "ana"}
    # A second fold of a document takes over what only the checkpoint still knows.
    fill(folder, Append(NOTES, (written("more", client=8),)))
    assert run("compact", "notes/today").exit_code == 0
    found = stored(folder, "notes/today")
    assert found is not None
    assert found.checkpoint is not None
    assert Head.decode(found.checkpoint.head).owners == {7: "ana"}
    assert "nothing" not in run("compact").stdout


def test_compact_leaves_a_document_alone_that_cannot_be_opened(folder: Path) -> None:
    fill(
        folder,
        Append(NOTES, keystrokes("xyz")[1:]),
        Append(ROOM, keystrokes("fine")),
        Append(document_id("aside"), keystrokes("slow")),
        SetMetadata(SET_ASIDE, b"it took 20 seconds", document_id("aside")),
    )
    before = stored(folder, "notes/today")
    result = run("compact")
    assert result.exit_code == 1
    assert "'notes/today' stays as it is" in result.stderr
    assert "'aside' stays as it is: set aside: it took 20 seconds" in result.stderr
    assert "room: 4 updates" in result.stdout
    assert stored(folder, "notes/today") == before
    assert run("compact", "nothing").exit_code == 2


# --- token, serve, version --------------------------------------------------------------------


def test_a_token_is_all_of_stdout_and_says_what_was_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("token", "--identity", "ana", "--read", "**").exit_code == 2
    monkeypatch.setenv("CRDT_STATE_JWT_SECRET", SECRET)
    result = run(
        *("token", "--identity", "ana", "--read", "public/*", "--write", "ana/**"),
        *("--expires", "30m", "--relay"),
    )
    assert result.exit_code == 0, result.output
    now = SystemClock().wall()
    grant = verify(result.stdout.strip(), parse_keys(SECRET), now=now)
    assert (grant.identity, grant.may_relay) == ("ana", True)
    assert {(right.pattern, right.access) for right in grant.rights} == {
        ("public/*", Access.READ),
        ("ana/**", Access.WRITE),
    }
    assert grant.expires_at is not None
    assert 0 <= now + 1_800_000_000 - grant.expires_at < 60_000_000
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--identity", "ana", "--read", "a//b"],
        ["--identity", "", "--read", "a"],
        ["--identity", "x" * 1_000, "--read", "a"],
        ["--identity", "ana", "--read", "a", "--jwt-key-file", "/nowhere"],
    ],
)
def test_a_token_that_the_server_would_not_take_is_not_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("CRDT_STATE_JWT_SECRET", SECRET)
    result = run("token", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_times_are_a_number_and_a_unit() -> None:
    times = {"90s": 90, "30m": 1_800, "8h": 28_800, "7d": 604_800}
    assert {text: seconds_of(text) for text in times} == times
    assert [seconds_of(text) for text in ("", "8", "h", "0h", "-1h", "1.5h", "8 h", "1y")] == (
        [None] * 8
    )


def test_serve_has_a_flag_with_words_for_every_setting(folder: Path) -> None:
    shown = run("serve", "--help").stdout
    flags = {name: names_of(name).flag for name in ServerSettings.model_fields}
    expected = {name for name, flag in flags.items() if flag is not None and name != "limits"}
    assert expected
    assert expected == WORDS.keys()
    assert all(f"\n  {flags[name]} " in shown for name in expected)
    assert "jwt-secret" not in shown


def test_serve_hands_flags_to_the_server_over_variables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ServerSettings] = []

    def fake(settings: ServerSettings) -> int:
        seen.append(settings)
        return 1

    monkeypatch.setattr("sync_server.server.run", fake)
    monkeypatch.setenv("PORT", "4321")
    monkeypatch.setenv("HOST", "127.0.0.1")
    monkeypatch.setenv("CRDT_STATE_PRT", "1")
    (tmp_path / "settings.toml").write_text("workers = 3\nport = 1\n")
    result = run(
        *("serve", "--port", "8080", "--no-metrics", "--allowed-hosts", "a.example,b.example"),
        *("--settings", tmp_path / "settings.toml"),
    )
    assert result.exit_code == 1
    (settings,) = seen
    assert (settings.port, settings.host, settings.workers) == (8080, "127.0.0.1", 3)
    assert (settings.metrics, settings.store) == (False, folder)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert "CRDT_STATE_PRT is no setting" in result.stderr


def test_version_says_of_what_it_is_built(folder: Path) -> None:
    (line,) = lines(run("version", "--json"))
    assert {"crdt-state", "python", "pycrdt"} <= line.keys()
    assert f"pycrdt {line['pycrdt']}" in run("version").stdout
    assert run("--version").stdout == f"crdt-state {line['crdt-state']}\n"
    assert run("--version").exit_code == 0


# --- for the eye ------------------------------------------------------------------------------


@given(st.text())
def test_nothing_printable_can_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0x202A <= ord(c) <= 0x202E for c in shown)


def test_honest_text_is_shown_as_it_is() -> None:
    for text in ("café", "日本語", "👩\u200d🚀", "a b"):
        assert printable(text) == text
    assert printable("\x1b[2J\u202e") == "\\x1b[2J\\u202e"


def test_ids_and_reasons_cannot_write_markup_or_escapes(folder: Path) -> None:
    name = document_id("[red]x[/red]\u202e")
    fill(
        folder,
        Append(name, (written("x"),)),
        SetAside(name, b"\xff", 4422, "bad \x1b]0;title\x07", "[bold]", AT),
    )
    result = run("list")
    assert "[red]x[/red]\\u202e" in result.stdout
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert lines(run("list", "--json"))[0]["document"] == name


def test_bytes_are_shown_in_the_unit_that_fits() -> None:
    sizes = {0: "0 B", 1_023: "1023 B", 1_024: "1.0 KiB", 5_000_000: "4.8 MiB", 2**50: "1024.0 TiB"}
    assert {size: bytes_text(size) for size in sizes} == sizes


def test_nothing_is_cut_in_a_pipe(folder: Path) -> None:
    name = document_id("a/" + "long" * 60)
    fill(folder, Append(name, (written("x"),)), SetMetadata(SET_ASIDE, b"why " * 59 + b"why", name))
    rows = run("list").stdout.splitlines()
    assert rows[1].startswith(f"{name}  ")
    assert rows[2] == f"! {name}: set aside: {'why ' * 59}why"


def _read_all(descriptor: int) -> str:
    """What is written to a terminal until its last writer has gone; Linux ends it by an error."""
    data = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 65_536):
            data += chunk
    os.close(descriptor)
    return data.decode()


def _overwrite(folder: Path, before: bytes, after: bytes) -> None:
    """Damage bytes in the file, as a disk does."""
    file = folder / "replica.db"
    data = file.read_bytes()
    assert before in data
    file.write_bytes(data.replace(before, after))


def test_simulate_says_what_happened_and_repeats_it(folder: Path) -> None:
    shown = run("simulate", "--seed", "3", "--edits", "60", "--json")
    again = run("simulate", "--seed", "3", "--edits", "60", "--json")
    assert shown.exit_code == 0
    told = json.loads(shown.stdout)
    assert told["is_good"] is True
    assert told["edits"] > 30
    assert sum(told["faults"].values()) > 10
    assert told["passed"]["convergence"]
    assert shown.stdout == again.stdout


def test_simulate_shows_tables_for_the_eye(folder: Path) -> None:
    shown = run("simulate", "--edits", "20", "--weather", "calm", "--seeds", "2")
    assert shown.exit_code == 0
    assert "convergence" in shown.stdout
    assert "2 seeds" in shown.stderr
    assert "simulated hours" in shown.stderr


def test_simulate_prints_the_shortest_history_of_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settled(self: ReplicaShell, document: str) -> None:
        """A bug: nothing is waited for."""

    monkeypatch.setattr(ReplicaShell, "settled", settled)
    shown = run("simulate", "--seed", "3", "--edits", "60")
    assert shown.exit_code == 1
    assert "repeat it with: crdt-state simulate --seed 3 --weather storm --edits 60" in shown.stderr
    assert "it still fails with 1 session" in shown.stderr


def test_simulate_runs_seeds_side_by_side_and_each_does_what_it_does_alone(folder: Path) -> None:
    options = ("--edits", "20", "--weather", "calm", "--json")
    beside = run("simulate", "--seeds", "3", "--jobs", "2", *options)
    alone = [run("simulate", "--seed", number, *options) for number in (1, 2, 3)]
    assert beside.exit_code == 0
    assert sorted(lines(beside), key=itemgetter("seed")) == [
        line for result in alone for line in lines(result)
    ]


@pytest.mark.parametrize("goes_on", [False, True])
def test_simulate_ends_with_the_first_seed_that_fails_unless_told_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    async def settled(self: ReplicaShell, document: str) -> None:
        """A bug: nothing is waited for."""

    monkeypatch.setattr(ReplicaShell, "settled", settled)
    monkeypatch.setattr("crdt_state.simulator.shrink.shrink", lambda outcome, _: outcome)
    options = ("--keep-going",) if goes_on else ()
    shown = run(
        "simulate",
        "--seed",
        "3",
        "--seeds",
        "3",
        "--edits",
        "60",
        "--jobs",
        "1",
        "--json",
        *options,
    )
    assert shown.exit_code == 1
    assert len(lines(shown)) == (3 if goes_on else 1)


def test_simulate_can_be_told_which_wire_to_use(folder: Path) -> None:
    hashes = set()
    for wire in ("replica", "y-websocket"):
        shown = run("simulate", "--edits", "10", "--weather", "calm", "--wire", wire, "--json")
        told = json.loads(shown.stdout)
        assert (shown.exit_code, told["wire"]) == (0, wire)
        hashes.add(told["hash"])
    assert len(hashes) == 2


def test_a_wire_that_nobody_speaks_is_bad_usage(folder: Path) -> None:
    shown = run("simulate", "--wire", "smoke")
    assert shown.exit_code == 2
    assert "replica, y-websocket" in shown.stderr


def test_a_weather_that_nobody_knows_is_bad_usage(folder: Path) -> None:
    shown = run("simulate", "--weather", "snow")
    assert shown.exit_code == 2
    assert "calm, rain, storm" in shown.stderr
