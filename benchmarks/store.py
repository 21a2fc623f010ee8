"""How many updates a second a store makes durable: one writer after another, and 100 at once.

What counts is the ratio: alone, every update pays for a sync of its own; together they share one.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from crdt_state.identifiers import document_id
from crdt_state.storage.contract import Append
from crdt_state.storage.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure"]

UPDATE_BYTES = 30
WRITERS = 100
SECONDS = 1.5
ROUNDS = 5


async def _measure(folder: Path, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Of each round, updates/s one by one and together, right behind one another."""
    store = await SqliteStore.open(folder / "bench.db", random=Random(1))
    update = bytes(range(UPDATE_BYTES))

    async def write(number: int, until: float) -> int:
        document = document_id(f"bench/{number}")
        count = 0
        while time.perf_counter() < until:
            await store.write([Append(document, (update,))])
            count += 1
        return count

    async def rate(writers: int) -> float:
        begin = time.perf_counter()
        counts = await asyncio.gather(*(write(n, begin + seconds) for n in range(writers)))
        return sum(counts) / (time.perf_counter() - begin)

    await rate(WRITERS)
    measured = [(await rate(1), await rate(WRITERS)) for _ in range(rounds)]
    await store.close()
    return measured


def measure() -> Iterator[Figure]:
    """On the disk that holds the system's temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = asyncio.run(_measure(Path(folder), ROUNDS, SECONDS))
    one_by_one, together = (median(rates) for rates in zip(*rounds, strict=True))
    ratio = median(together / alone for alone, together in rounds)
    yield Figure("store_one_by_one", one_by_one, "updates/s", "each with a sync of its own")
    yield Figure("store_together", together, "updates/s", f"{WRITERS} writers share commits")
    yield Figure("store_ratio", ratio, "times", f"together against alone, median of {ROUNDS}")
