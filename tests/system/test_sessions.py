"""Real Yjs documents go in through the running server, which is killed meanwhile, and come out.

The sessions of `yjs-sessions` hold everything that Yjs programs do to a text, a map and an
array; each is one document here.  Readers are processes that share nothing with the writers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import reference
from pushing import Pushed, push

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from running import RunningServer

TESTS = Path(__file__).parent.parent
PYCRDT_READER = (sys.executable, str(TESTS / "reading_child.py"))
AT_ONCE = 24

SMALLEST_DOCUMENT = "b4-update.bin"
B4_CODE_POINTS = 104_852
"""The one whose text has no hash in the data."""
DOCUMENTS = {SMALLEST_DOCUMENT, "C1.v1.gz", "S1.v1.gz"}


async def read_in_new_process(
    program: tuple[str, ...], url: str, rooms: list[str]
) -> dict[str, dict[str, Any]]:
    """What a program that has never seen these documents reads of them."""
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    asked = {"url": url, "rooms": rooms, "at_once": AT_ONCE}
    said, _ = await process.communicate(json.dumps(asked).encode())
    assert process.returncode == 0
    return {line["room"]: line for line in map(json.loads, said.splitlines())}


async def push_and_kill(
    server: RunningServer, documents: dict[str, list[bytes]], random: Random, kills: list[int]
) -> Pushed:
    """Push all; kill and restart when each count of `kills` is confirmed, and at the end."""
    ahead = sorted(kills)
    restarts: list[asyncio.Task[None]] = []

    def confirmed(pushed: Pushed) -> None:
        if ahead and len(pushed.confirmed) >= ahead[0]:
            ahead.pop(0)
            server.kill()  # at once: in the middle of whatever is under way
            restarts.append(asyncio.create_task(asyncio.to_thread(server.start)))

    pushed = await push(server.url, documents, random=random, at_once=AT_ONCE, confirmed=confirmed)
    await asyncio.gather(*restarts)
    assert not ahead
    server.restart()
    return pushed


async def check_sessions(
    server: RunningServer,
    data_folder: Path,
    node_programs: Path,
    tell: Callable[[str], None],
    *,
    count: int | None,
    unfinished_at_kills: list[int],
) -> None:
    seed = 20_240_601
    random = Random(seed)
    sessions = {
        f"sessions/{number}": session
        for number, session in enumerate(reference.sessions(data_folder))
    }
    if count is not None:
        sessions = {name: sessions[name] for name in random.sample(sorted(sessions), count)}
    documents = {name: session.updates for name, session in sessions.items()}
    kills = [len(sessions) - unfinished for unfinished in unfinished_at_kills]
    pushed = await push_and_kill(server, documents, random, kills)
    assert pushed.interruptions, "the kills interrupted nothing"
    expected = {
        name: {"room": name, "text": session.text, "map": session.map, "array": session.array}
        for name, session in sessions.items()
    }
    node = ("node", str(node_programs / "readers.mjs"))
    equal = {}
    wrong = []
    for reader, program in {"pycrdt": PYCRDT_READER, "yjs": node}.items():
        found = await read_in_new_process(program, server.url, list(sessions))
        wrong += [(reader, name) for name in sessions if found.get(name) != expected[name]]
        equal[reader] = sum(found.get(name) == expected[name] for name in sessions)
    tell(
        f"seed {seed}: {len(sessions):,} sessions, "
        f"{sum(map(len, documents.values())):,} updates, sent {pushed.updates_sent:,} times; "
        f"SIGKILL with {unfinished_at_kills} unfinished and at the end, "
        f"{pushed.interruptions} conversations interrupted; "
        f"equal: {equal['pycrdt']:,} by pycrdt, {equal['yjs']:,} by yjs"
    )
    assert wrong == []
    assert server.starts == 2 + len(kills)
    assert server.complaints() == []


@pytest.mark.node
async def test_a_sample_of_the_sessions_reads_back_equal(
    server: RunningServer,
    data_folder: Path,
    node_programs: Path,
    tell: Callable[[str], None],
) -> None:
    await check_sessions(
        server, data_folder, node_programs, tell, count=150, unfinished_at_kills=[110, 60]
    )


@pytest.mark.node
@pytest.mark.full
async def test_all_sessions_read_back_equal(
    server: RunningServer,
    data_folder: Path,
    node_programs: Path,
    tell: Callable[[str], None],
) -> None:
    await check_sessions(
        server,
        data_folder,
        node_programs,
        tell,
        count=None,
        unfinished_at_kills=[4_000, 2_500, 1_200],
    )


@pytest.mark.node
@pytest.mark.parametrize(
    "names",
    [{SMALLEST_DOCUMENT}, pytest.param(DOCUMENTS, marks=pytest.mark.full)],
    ids=["smallest", "all"],
)
async def test_whole_documents_read_back_equal(
    names: Set[str], server: RunningServer, data_folder: Path, node_programs: Path
) -> None:
    updates = reference.documents(data_folder)
    assert updates.keys() == DOCUMENTS
    documents = {f"documents/{name}": [updates[name]] for name in sorted(names)}
    await push_and_kill(server, documents, Random(1), [1])
    expected = {
        f"{name}.v1.gz": (entry["codepoints"], entry["sha256_utf8"])
        for name, entry in json.loads(
            (data_folder / "yjs-documents" / "sha256.json").read_text()
        ).items()
    }
    node = ("node", str(node_programs / "readers.mjs"))
    for program in (PYCRDT_READER, node):
        found = await read_in_new_process(program, server.url, list(documents))
        for name in names:
            text = found[f"documents/{name}"]["text"]
            if name in expected:
                digest = hashlib.sha256(text.encode()).hexdigest()
                assert (len(text), digest) == expected[name]
            else:
                assert len(text) == B4_CODE_POINTS
    assert server.complaints() == []
