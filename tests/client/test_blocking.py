from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import pytest

from crdt_client.blocking import BlockingReplica
from crdt_state.errors import (
    DocumentClosed,
    DocumentDeleted,
    IndexOutOfRange,
    StoreInUse,
    UsageError,
)
from crdt_state.model.text import TextEvent
from running import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[BlockingReplica]:
    with BlockingReplica.open(tmp_path / "notes.db") as opened:
        yield opened


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "crdt-state"]


def test_edits_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with BlockingReplica.open(path) as replica:
        note = replica.document("notes/today")
        note.text("text").insert(0, "Hello 🙂")
        note.counter("visits").add(2)
        note.set("tags").add("blue")
        note.map("map")["key"] = [1, 2]
        note.list("array").extend(["a", "b"])
    with BlockingReplica.open(path) as replica:
        note = replica.document("notes/today")
        assert str(note.text("text")) == "Hello 🙂"
        assert note.text("text")[6:] == "🙂"
        assert len(note.text("text")) == 7
        assert note.counter("visits").value == 2
        assert list(note.set("tags")) == ["blue"]
        assert "blue" in note.set("tags")
        assert note.map("map").items() == [("key", [1, 2])]
        assert note.list("array")[1] == "b"
        assert note.as_json()["text"] == "Hello 🙂"


def test_an_error_comes_back_with_both_halves_of_its_way(replica: BlockingReplica) -> None:
    text = replica.document("x").text("text")
    with pytest.raises(IndexOutOfRange) as caught:
        text.insert(5, "too far")
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert any(name.endswith("test_blocking.py") for name in files)
    assert any(name.endswith("model/text.py") for name in files)


def test_documents_are_touched_in_one_thread_only(replica: BlockingReplica) -> None:
    text = replica.document("x").text("text")
    seen: list[threading.Thread] = []
    text.observe(lambda _: seen.append(threading.current_thread()))
    text.insert(0, "a")
    worker = threading.Thread(target=text.append, args=("b",))
    worker.start()
    worker.join()
    assert str(text) == "ab"
    assert len(seen) == 2
    assert set(seen) == set(background_threads())


def test_a_transaction_is_one_update_and_its_reads_see_its_writes(replica: BlockingReplica) -> None:
    note = replica.document("x")
    text = note.text("text")
    events: list[TextEvent] = []
    stop = text.observe(events.append)
    with note.transaction(origin="me"):
        text.insert(0, "world")
        assert str(text) == "world"
        text.insert(0, "hello ")
        note.counter("edits").add(2)
    assert [event.origin for event in events] == ["me"]
    stop()
    text.append("!")
    assert len(events) == 1
    assert note.counter("edits").value == 2


def test_nobody_gets_between_the_edits_of_a_transaction(replica: BlockingReplica) -> None:
    note = replica.document("x")
    text = note.text("text")
    other = threading.Thread(target=text.append, args=("other",))
    with note.transaction():
        text.append("a")
        other.start()
        for _ in range(100):
            text.append("a")
        assert str(text) == "a" * 101
    other.join()
    assert str(text) == "a" * 101 + "other"


def test_an_error_in_a_transaction_ends_it_and_keeps_what_was_written(
    replica: BlockingReplica,
) -> None:
    note = replica.document("x")
    text = note.text("text")

    def write_and_fail() -> None:
        with note.transaction():
            text.insert(0, "kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    note.text("text").append(".")
    assert str(note.text("text")) == "kept."


def test_waiting_inside_a_transaction_or_a_callback_is_refused(replica: BlockingReplica) -> None:
    note = replica.document("x")
    with note.transaction(), pytest.raises(UsageError, match="busy with this very"):
        note.saved()
    refused: list[Exception] = []

    def wait(_: object) -> None:
        try:
            note.saved()
        except UsageError as error:
            refused.append(error)

    note.text("text").observe(wait)
    note.text("text").insert(0, "a")
    assert len(refused) == 1
    note.saved()


def test_a_callback_may_read_and_write(replica: BlockingReplica) -> None:
    note = replica.document("x")
    text, counter = note.text("text"), note.counter("seen")
    text.observe(lambda event: counter.add(len(text)))
    text.insert(0, "abc")
    assert counter.value == 3


async def test_works_beside_a_running_loop(tmp_path: Path) -> None:
    assert asyncio.get_running_loop().is_running()
    with BlockingReplica.open(tmp_path / "notes.db") as replica:  # as a notebook's cell does
        replica.document("x").text("text").insert(0, "a")
        assert str(replica.document("x").text("text")) == "a"


def test_events_can_be_waited_for_with_a_timeout(replica: BlockingReplica) -> None:
    note = replica.document("x")
    text = note.text("text")
    with note.changes(text, timeout=0.05) as changes:
        text.insert(0, "a")
        text.insert(1, "b")
        found = list(changes)
    assert len(found) == 2
    assert all(isinstance(event, TextEvent) for event in found)
    assert list(changes) == []
    with pytest.raises(UsageError, match="not a container"):
        note.changes(object())  # type: ignore[arg-type]


def test_a_closed_replica_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    replica = BlockingReplica.open(tmp_path / "notes.db")
    text = replica.document("x").text("text")
    replica.close()
    replica.close()
    assert background_threads() == []
    with pytest.raises(DocumentClosed):
        text.insert(0, "late")
    with pytest.raises(DocumentClosed):
        replica.document("x")


def test_a_replica_that_nobody_holds_any_more_closes(tmp_path: Path) -> None:
    replica = BlockingReplica.open(tmp_path / "notes.db")
    text = replica.document("x").text("text")
    text.insert(0, "a")
    del replica
    gc.collect()
    assert str(text) == "a", "a container keeps its replica open"
    del text
    gc.collect()
    assert background_threads() == []
    with BlockingReplica.open(tmp_path / "notes.db") as again:
        assert str(again.document("x").text("text")) == "a"


def test_a_script_that_forgets_to_close_ends_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    script = (
        "import sys\n"
        "from crdt_client.blocking import BlockingReplica\n"
        "replica = BlockingReplica.open(sys.argv[1])\n"
        "replica.document('x').text('text').insert(0, 'kept')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    with BlockingReplica.open(path) as replica:
        assert str(replica.document("x").text("text")) == "kept"


def test_a_file_in_use_is_named_and_leaves_no_thread(tmp_path: Path) -> None:
    with BlockingReplica.open(tmp_path / "notes.db"):
        before = len(background_threads())
        with pytest.raises(StoreInUse):
            BlockingReplica.open(tmp_path / "notes.db")
        assert len(background_threads()) == before


def test_two_scripts_meet_at_a_server(tmp_path: Path) -> None:
    with (
        RunningServer(tmp_path) as server,
        BlockingReplica.open(tmp_path / "one.db") as one,
        BlockingReplica.open(tmp_path / "two.db") as two,
    ):
        one.document("x").text("text").insert(0, "met")
        link = one.connect(server.url)
        link.synced(timeout=20)
        assert link.progress.value == "in sync"
        text = two.document("x").text("text")
        with two.document("x").changes(text, timeout=20) as changes:
            two.connect(server.url).synced(timeout=20)
            assert str(text) == "met"
            one.document("x").text("text").append("!")
            events = [next(changes), next(changes)]
        assert all(isinstance(event, TextEvent) and not event.is_local for event in events)
        assert str(text) == "met!"
        one.disconnect(link)
        assert link.progress.value == "offline"


def test_not_in_sync_in_time_says_what_went_wrong(replica: BlockingReplica) -> None:
    replica.document("x").text("text").insert(0, "a")
    link = replica.connect("ws://127.0.0.1:1")  # nobody listens on port 1
    with pytest.raises(TimeoutError, match=r"not in sync after 0\.3 s: .*"):
        link.synced(timeout=0.3)
    assert link.last_error is not None


def test_a_document_is_deleted_and_begun_anew(replica: BlockingReplica) -> None:
    note = replica.document("notes/today")
    note.text("text").insert(0, "old")
    replica.delete("notes/today")
    with pytest.raises(DocumentClosed):
        note.text("text").insert(0, "late ")
    with pytest.raises(DocumentDeleted):
        replica.document("notes/today")
    assert str(replica.recreate("notes/today").text("text")) == ""
    seeded = replica.seed("notes/today", lambda document: document.text("text").insert(0, "new"))
    assert str(seeded.text("text")) == "new"


def test_who_edited_a_document_that_was_deleted_elsewhere_is_offered_it(
    tmp_path: Path,
) -> None:
    with (
        RunningServer(tmp_path) as server,
        BlockingReplica.open(tmp_path / "one.db") as one,
        BlockingReplica.open(tmp_path / "two.db") as two,
    ):
        one.document("notes/today").text("text").insert(0, "common")
        at_server = one.connect(server.url)
        at_server.synced(timeout=60)
        link = two.connect(server.url, scopes=["notes"])
        link.synced(timeout=60)
        link.close()
        note = two.document("notes/today")
        note.text("text").append(" mine")
        note.saved()
        note.close()
        one.delete("notes/today")
        at_server.synced(timeout=60)
        two.connect(server.url, scopes=["notes"]).synced(timeout=60)
        (ended,) = two.ended()
        copy = two.keep_as_copy(ended, "notes/mine")
        assert str(copy.text("text")) == "common mine"
        assert two.ended() == ()
