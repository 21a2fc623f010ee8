"""Nothing confirmed is missing after SIGKILL, at whatever moment it comes.

The moments are drawn from a seed, but what the child is doing then is not repeatable; the
power-loss tests are.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from crdt_state.identifiers import document_id
from crdt_state.storage.sqlite import SqliteStore
from storage.store_contract import findings

CHILD = Path(__file__).with_name("writing_child.py")
KILLS_PER_FILE = 10


def one_life(path: Path, seed: int, random: Random) -> tuple[list[str], int]:
    """What a child said before it was killed, and how it ended."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    lines: list[bytes] = []
    # Most kills meet the writing, some the opening: then nothing has been said yet.
    is_early = random.random() < 0.1
    delay = random.uniform(0.0, 0.4)
    timer = threading.Timer(delay, child.kill)
    if is_early:
        timer.start()
    for line in child.stdout:
        if not lines and not is_early:
            timer.start()
        if line.endswith(b"\n"):
            lines.append(line)
    timer.join(10)
    _, errors = child.communicate(timeout=10)
    assert not errors, errors.decode()
    return [line.decode().strip() for line in lines], child.returncode


async def check(path: Path, confirmed: dict[str, set[bytes]]) -> None:
    store = await SqliteStore.open(path, random=Random(1))
    try:
        assert not store.is_new_incarnation
        assert await findings(store) == []
        owed = {entry.document for entry in await store.outbox("hub")}
        for name, tokens in confirmed.items():
            stored = await store.read(document_id(name))
            assert stored is not None
            content = b"".join(stored.updates()).replace(b" ", b"")
            there = set(content.split(b";"))
            assert tokens <= there, f"{len(tokens - there)} of {len(tokens)} in {name} are gone"
            assert name in owed
    finally:
        await store.close()


async def kill(folder: Path, times: int, seed: int) -> None:
    random = Random(seed)
    killed = written = 0
    path, confirmed = folder, dict[str, set[bytes]]()
    for number in range(times):
        if number % KILLS_PER_FILE == 0:
            path, confirmed = folder / f"{number}.db", {}
        lines, code = one_life(path, seed * 10_000 + number, random)
        for line in lines:
            word, _, rest = line.partition(" ")
            if word == "open":
                assert rest == "False", "a kill must not look like a copy"
            elif word != "closed":
                confirmed.setdefault(word, set()).add(rest.rstrip(";").encode())
                written += 1
        killed += code == -9
        if path.exists():
            await check(path, confirmed)
    assert killed >= times // 3, f"only {killed} of {times} were killed"
    assert written > 20 * times, "hardly anything was written"


async def test_nothing_confirmed_is_missing_after_a_few_kills(tmp_path: Path) -> None:
    await kill(tmp_path, 10, seed=1)


@pytest.mark.full
async def test_nothing_confirmed_is_missing_after_two_hundred_kills(tmp_path: Path) -> None:
    await kill(tmp_path, 200, seed=2)
