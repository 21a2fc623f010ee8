"""Both servers under the same loads, in turns.

A round has each server once, with every crowd that edits one document; the next round has them the
other way round.  ShareDB is also saturated: with more documents at once, none of which waits for
another.  A sync of the disk is measured in each round, while no server runs.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.ot.disk import sync_seconds
from benchmarks.ot.load import Crowd, Measured, loading
from benchmarks.ot.subjects import elsewhere, ours, sharedb

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.ot.subjects import Subject

__all__ = ["ALL", "CROWDS", "SATURATING", "Rounds", "Runs", "run_rounds"]

CROWDS = (Crowd(1, 1), Crowd(1, 10), Crowd(1, 100))
SATURATING = (Crowd(1, 10), Crowd(2, 10), Crowd(4, 10), Crowd(8, 10))
ALL = tuple(dict.fromkeys(CROWDS + SATURATING))


class Runs(list[Measured]):
    """All runs of one server with one crowd; a figure is the median of what they measured."""

    def of(self, figure: Callable[[Measured], float]) -> float:
        return median(map(figure, self))

    @property
    def rate(self) -> float:
        return self.of(lambda run: run.operations_per_second)

    @property
    def rates(self) -> tuple[float, float]:
        """The slowest and the fastest."""
        found = [run.operations_per_second for run in self]
        return min(found), max(found)

    @property
    def seconds(self) -> float:
        return self.of(lambda run: run.p50_seconds)


def _by_crowd() -> dict[Crowd, Runs]:
    return defaultdict(Runs)


@dataclass(slots=True)
class Rounds:
    """What was measured."""

    ours: dict[Crowd, Runs] = field(default_factory=_by_crowd)
    sharedb: dict[Crowd, Runs] = field(default_factory=_by_crowd)
    syncs: list[float] = field(default_factory=list)

    @property
    def sync(self) -> float:
        """Seconds of one sync."""
        return median(self.syncs)


async def run_rounds(
    count: int, seconds: float, *, url: str | None, told: Callable[[str], None]
) -> Rounds:
    """Measure so many rounds; with `url`, a server there in the place of ours.

    `told` is told what is being measured.  Raises `LoadFailed`.
    """
    rounds = Rounds()
    async with loading(seconds) as load:

        async def turn(
            subject: Subject, crowds: tuple[Crowd, ...], into: dict[Crowd, Runs]
        ) -> None:
            for crowd in crowds:
                told(f"round {number + 1} of {count}: {subject.name}, {crowd}")
                into[crowd].append(await load.measure(subject, crowd))

        async def our_turn(folder: Path) -> None:
            async with ours(folder) if url is None else elsewhere(url) as subject:
                await turn(subject, CROWDS, rounds.ours)

        async def their_turn() -> None:
            async with sharedb() as subject:
                await turn(subject, ALL, rounds.sharedb)

        for number in range(count):
            with tempfile.TemporaryDirectory() as folder:
                rounds.syncs += sync_seconds(Path(folder))
                if number % 2:
                    await their_turn()
                await our_turn(Path(folder))
            if not number % 2:
                await their_turn()
    return rounds
