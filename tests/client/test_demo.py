from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from crdt_client.demonstration import stage
from crdt_client.demonstration.display import LiveAudience, PlainAudience, verdict_picture
from crdt_client.demonstration.line import Line
from crdt_client.demonstration.quarrel import (
    Ledger,
    Quarreller,
    author_of,
    contents_of,
    disagreements,
)
from crdt_client.demonstration.schedule import Segment, segments_of
from crdt_client.demonstration.stage import Play, Scene, Stage
from crdt_client.demonstration.trace import (
    Patch,
    Trace,
    Transaction,
    find_reference,
    generate,
    read_reference,
)
from crdt_client.demonstration.verdict import Report, Verdict, judge
from crdt_state import DEFAULT_LIMITS, Replica
from crdt_state.errors import DemonstrationFailed, NotImportable
from crdt_state.transport.websocket import WebSocketDial
from offline_sites import Site, meet
from running import RunningServer

ON_LINUX = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")


def played(trace: Trace) -> tuple[str, str]:
    """What two sites show that made every transaction on exactly its parents, as scheduled."""
    segments = segments_of(trace)
    sites = [Site(number) for number in range(2)]
    at, heard, released = [0, 0], [0, 0], [0, 0]
    ends = [list(ends_of(theirs)) for theirs in segments]
    while at != [len(theirs) for theirs in segments]:
        before = (list(at), list(heard))
        for who in (0, 1):
            site, other = sites[who], 1 - who
            while at[who] < len(segments[who]) and heard[who] == segments[who][at[who]].needs:
                text = site.document.text("text")
                for transaction in segments[who][at[who]].transactions:
                    with site.document.transaction():
                        for position, deleted, inserted in transaction.patches:
                            text.delete(position, deleted)
                            text.insert(position, inserted)
                at[who] += 1
            # What is not held any more arrives at once: the network brings all that it has.
            made = ends[who][at[who] - 1] if at[who] else 0
            while (
                released[other] < at[other]
                and segments[other][released[other]].released_after <= made
            ):
                released[other] += 1
            until = ends[other][released[other] - 1] if released[other] else 0
            for update in sites[other].made[heard[who] : until]:
                site.document.apply(update)
            heard[who] = until
        assert (at, heard) != before, "more has come than an edit was made on, or too little"
    meet(*sites)
    first, second = (str(site.document.text("text")) for site in sites)
    return first, second


def ends_of(segments: tuple[Segment, ...]) -> list[int]:
    ends, end = [], 0
    for segment in segments:
        end += len(segment.transactions)
        ends.append(end)
    return ends


# --- the trace and its schedule


@pytest.mark.parametrize("seed", range(5))
def test_a_generated_trace_comes_to_what_it_says(seed: int) -> None:
    trace = generate(seed, transactions=400)
    concurrent = sum(
        transaction.needs < sum(one.person != transaction.person for one in trace.transactions[:at])
        for at, transaction in enumerate(trace.transactions)
    )
    assert concurrent > 100, "hardly anything was typed at once"
    assert played(trace) == (trace.end, trace.end)


def test_the_reference_trace_comes_to_its_end_content_through_the_schedule(
    data_folder: Path,
) -> None:
    path = find_reference(Path("/nowhere/project"), {"CRDT_STATE_DATA": str(data_folder)})
    assert path is not None
    trace = read_reference(path)
    assert len(trace.transactions) == 26_078
    assert played(trace) == (trace.end, trace.end)


def test_a_segment_ends_where_something_new_is_heard_or_asked_for() -> None:
    def one(person: int, needs: int) -> Transaction:
        return Transaction(person, needs, (Patch(0, 0, "a"),))

    trace = Trace("t", (one(0, 0), one(0, 0), one(1, 1), one(1, 2), one(0, 0), one(0, 2)), "")
    ada, ben = segments_of(trace)
    lengths = [[len(segment.transactions) for segment in theirs] for theirs in (ada, ben)]
    assert lengths == [[1, 1, 1, 1], [1, 1]]
    # Ben makes his first on one of Ada's: her second may not come to him before.
    assert [segment.released_after for segment in ada] == [0, 1, 2, 2]
    # Ada makes three without him, so he has to keep everything until then.
    assert [segment.released_after for segment in ben] == [3, 3]


def test_without_a_data_folder_there_is_no_reference_and_a_wrong_one_is_an_error(
    tmp_path: Path,
) -> None:
    assert find_reference(tmp_path / "project", {}) is None
    with pytest.raises(NotImportable, match="CRDT_STATE_DATA names its folder"):
        find_reference(tmp_path / "project", {"CRDT_STATE_DATA": str(tmp_path)})


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip",
        gzip.compress(b"not json", mtime=0),
        gzip.compress(b'{"endContent": ""}', mtime=0),
        gzip.compress(b'{"endContent": "", "txns": [{"agent": 5, "parents": []}]}', mtime=0),
    ],
)
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(content)
    with pytest.raises(NotImportable, match="not a concurrent editing trace"):
        read_reference(path)


def test_an_author_who_forgets_their_own_typing_is_refused(tmp_path: Path) -> None:
    rows = [{"agent": 0, "parents": [], "patches": []}, {"agent": 0, "parents": [], "patches": []}]
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"endContent": "", "txns": rows}).encode()))
    with pytest.raises(NotImportable, match="forgets"):
        read_reference(path)


# --- the quarrel and the verdict


def quarrelled(seed: int) -> tuple[list[dict[str, Any]], list[Ledger]]:
    sites = [Site(number) for number in range(3)]
    people = [
        Quarreller(number, site.document, Random(f"{seed}/{number}"))
        for number, site in enumerate(sites)
    ]
    for _ in range(3):
        for person in people:
            person.edit(60)
        meet(*sites)
    return [contents_of(site.document) for site in sites], [one.ledger for one in people]


@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_agrees_with_what_converged(seed: int) -> None:
    contents, ledgers = quarrelled(seed)
    assert contents[0] == contents[1] == contents[2]
    assert sum(ledger.edits for ledger in ledgers) == 540
    assert {author_of(character) for character in contents[0]["text"]} == {0, 1, 2}
    assert disagreements(contents[0], ledgers) == []


def test_the_ledger_sees_whatever_is_lost_doubled_or_wrong() -> None:
    contents, ledgers = quarrelled(1)
    text = contents[0]["text"]
    for wrong, sentence in (
        ({"text": text[1:]}, "1 characters of the text are lost"),
        ({"text": text + text[:2]}, "2 characters of the text are too many"),
        ({"votes": contents[0]["votes"] + 1}, "the counter says"),
        ({"guests": [*contents[0]["guests"], "p0-999"]}, "the set does not hold"),
        ({"seats": contents[0]["seats"] | {"p0-1": -1}}, "the map does not hold"),
        ({"seats": contents[0]["seats"] | {"last word": "?"}}, "what nobody wrote"),
    ):
        found = disagreements(contents[0] | wrong, ledgers)
        assert len(found) == 1
        assert sentence in found[0]


def reports() -> tuple[list[Report], list[Ledger], Trace]:
    contents, ledgers = quarrelled(2)
    trace = generate(2, transactions=50)
    return (
        [
            Report(
                name=name,
                typed={"text": trace.end, "transactions": 50},
                quarrel=one,
                edits=1_234,
                bytes_sent=524_600,
                bytes_received=6_000,
                reconnections=3,
            )
            for name, one in zip(("Ada", "Ben", "Cleo"), contents, strict=True)
        ],
        ledgers,
        trace,
    )


def test_the_verdict_is_good_only_if_everything_is_equal() -> None:
    good, ledgers, trace = reports()
    assert all(finding.holds for finding in judge(good, ledgers, trace))
    spoilt = replace(good[1], typed={"text": trace.end + "!", "transactions": 50})
    equal, typed, nothing_lost = judge([good[0], spoilt, good[2]], ledgers, trace)
    assert equal.wrong == ("the typed document: Ben and Ada differ in text",)
    assert typed.holds
    assert nothing_lost.holds
    everywhere = [replace(one, typed=spoilt.typed) for one in good]
    assert [finding.holds for finding in judge(everywhere, ledgers, trace)] == [True, False, True]
    with pytest.raises(ValueError, match="nothing to compare"):
        judge(good[:1], ledgers, trace)


# --- what is shown


def verdict(*, is_good: bool) -> Verdict:
    good, ledgers, trace = reports()
    if not is_good:
        good[1] = replace(good[1], quarrel=good[1].quarrel | {"votes": 10**6})
    return Verdict(
        reports=tuple(good),
        findings=tuple(judge(good, ledgers, trace)),
        trace=trace.name,
        kills=3,
        seconds=12.3,
        seed=2,
    )


def test_the_table_fits_eighty_columns_and_names_what_is_wrong() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(verdict_picture(verdict(is_good=True)))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert "reconnects" in shown
    assert "512.3 KiB" in shown, "a figure was broken"
    assert "3 kills of the server" in shown
    assert "✗" not in shown
    console.print(verdict_picture(verdict(is_good=False)))
    shown = console.export_text()
    assert "not so" in shown
    assert "the quarrel: Ben and Ada differ in votes" in shown
    assert verdict(is_good=False).as_json()["equal"] is False


def test_the_picture_shows_the_people_where_they_type_and_no_control_characters() -> None:
    console = Console(width=80, file=io.StringIO(), record=True, force_terminal=True)
    audience = LiveAudience(console)
    audience.server("killed", 2)
    audience.scene(Scene.QUARREL, 6)
    audience.step(4, "a line cut while they met; equal")
    status = {
        "progress": "offline",
        "made": 10,
        "quarrels": 5,
        "sent": 2_048,
        "received": 3,
        "reconnections": 7,
        "before": "long ago " * 100 + "\x1b[31mjust\nnow",
        "after": " and then \u4e00",
    }
    audience.person("Ben", status)
    console.print(audience.picture())
    shown = console.export_text()
    assert len(shown.splitlines()) <= 23, "it has to fit a small terminal"
    for part in ("killed 2 times", "4/6", "● offline", "just⏎now▏", "7 reconnects", "15 edits"):
        assert part in shown
    assert "\x1b[31m" not in shown
    assert "\u4e00" not in shown, "not every terminal has it"


def test_without_a_terminal_there_are_plain_lines() -> None:
    file = io.StringIO()
    audience = PlainAudience(Console(file=file, width=40))
    audience.scene(Scene.TYPING, 1_000)
    for done in range(0, 1_001, 10):
        audience.step(done)
    audience.server("killed", 1)
    lines = file.getvalue().splitlines()
    assert [line[9:].strip() for line in lines] == [
        Scene.TYPING,
        "250 of 1,000 transactions",
        "500 of 1,000 transactions",
        "750 of 1,000 transactions",
        "1,000 of 1,000 transactions",
        "the server was killed",
    ]


# --- the line


async def test_a_line_holds_what_is_sent_until_it_is_released_and_can_be_cut(
    tmp_path: Path,
) -> None:
    with RunningServer(tmp_path) as server:
        line = Line(WebSocketDial(DEFAULT_LIMITS))
        async with (
            Replica.open(tmp_path / "a.db") as one,
            Replica.open(tmp_path / "b.db") as two,
            asyncio.timeout(30),
        ):
            held, free = await one.document("x"), await two.document("x")
            link = one.connect(server.url, dial=line)
            await link.synced()
            other = two.connect(server.url)
            line.hold()
            held.text("text").insert(0, "first ")
            await held.saved()
            mark = line.mark()
            held.text("text").append("second")
            await held.saved()
            await other.synced()
            assert str(free.text("text")) == "", "it was let through"
            came = asyncio.Event()
            free.text("text").observe(lambda _: came.set())
            line.release(mark)
            await came.wait()
            assert str(free.text("text")) == "first ", "more was let through than was released"
            line.flow()
            await link.synced()
            assert (line.connections, line.reconnections) == (1, 0)
            assert line.bytes_sent > 0
            line.cut()
            with pytest.raises(OSError, match="cut"):
                await line(f"{server.url}/x")
            held.text("text").append("!")
            line.mend()
            await link.synced()
            await other.synced()
            assert str(free.text("text")) == "first second!"
            assert line.reconnections == 1


# --- the whole


class Watcher:
    """An audience that remembers."""

    def __init__(self) -> None:
        self.scenes: list[str] = []
        self.states: list[str] = []
        self.statuses: list[dict[str, Any]] = []

    def scene(self, scene: str, steps: int) -> None:
        self.scenes.append(scene)

    def step(self, done: int, remark: str = "") -> None: ...

    def server(self, state: str, kills: int) -> None:
        self.states.append(state)

    def person(self, name: str, status: dict[str, Any]) -> None:
        self.statuses.append(status)


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes in which `text` occurs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def short_play(**changes: Any) -> Play:
    play = Play(
        trace=generate(5, transactions=600),
        reference=None,
        seed=5,
        rounds=2,
        edits_offline=20,
        edits_online=30,
    )
    return replace(play, **changes)


@ON_LINUX
async def test_a_short_performance_ends_equal_and_leaves_no_process(tmp_path: Path) -> None:
    watcher = Watcher()
    verdict = await Stage(tmp_path, short_play(), watcher).run()
    assert verdict.is_good, verdict.as_json()["wrong"]
    assert watcher.scenes == [Scene.TYPING, Scene.QUARREL, Scene.VISIT]
    assert (verdict.kills, watcher.states.count("up")) == (1, 2)
    assert all(report.reconnections > 0 for report in verdict.reports[:3])
    assert {status["made"] for status in watcher.statuses} > {0}
    assert processes_naming(str(tmp_path)) == []


@ON_LINUX
async def test_a_failure_is_raised_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Stage) -> None:
        raise DemonstrationFailed("the scenery fell")

    monkeypatch.setattr(stage.Stage, "_type", fail)
    with pytest.raises(DemonstrationFailed, match="scenery"):
        await Stage(tmp_path, short_play(), Watcher()).run()
    assert processes_naming(str(tmp_path)) == []


@ON_LINUX
def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    kept = tmp_path / "played"
    # Whoever runs these tests in the background may have Ctrl-C ignored, and that is inherited.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heeding}; from crdt_client.commands import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--seed", "3", "--keep", str(kept)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    try:
        for line in running.stderr:
            if Scene.TYPING in line:
                break
        assert len(processes_naming(f"{kept}")) >= 5, "the stage, a server and three people"
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=40)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert processes_naming(str(kept)) == []


def test_a_folder_that_is_not_empty_is_not_played_in(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    program = "from crdt_client.commands import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "demo", "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "not an empty folder" in ended.stderr


@pytest.mark.full
@pytest.mark.alone
@ON_LINUX
@pytest.mark.parametrize("with_data", [True, False])
def test_make_demo_ends_equal_within_a_minute(
    with_data: bool, data_folder: Path, tmp_path: Path
) -> None:
    """With the reference trace, and with a made-up one."""
    program = (
        "import sys; from pathlib import Path; from crdt_client.commands import demo, main\n"
        "if sys.argv.pop() == 'without': demo.ROOT = Path('/nowhere/project')\n"
        "main()\n"
    )
    kept = tmp_path / "played"
    environment = {"PATH": "", "CRDT_STATE_DATA": str(data_folder)} if with_data else {"PATH": ""}
    began = time.monotonic()
    ended = subprocess.run(
        [
            *(sys.executable, "-c", program, "demo", "--json", "--keep", str(kept)),
            "with" if with_data else "without",
        ],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=environment,
    )
    result = json.loads(ended.stdout or "{}")
    assert (ended.returncode, result.get("equal")) == (0, True), f"{result}\n{ended.stderr}"
    assert ("made up" in ended.stderr) is not with_data
    assert (result["trace"] == "friendsforever_concurrent") is with_data
    assert result["kills"] == 2
    assert time.monotonic() - began < 60
    assert processes_naming(str(kept)) == []
