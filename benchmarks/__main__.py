"""`make bench`: every figure beside its floor; fails when one is not met."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import fanout, guard, joining, memory, store
from benchmarks.figures import Report
from benchmarks.reference import slowness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.figures import Figure

BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "guard": guard.measure,
    "store": store.measure,
    "fanout": fanout.measure,
    "memory": memory.measure,
    "joining": joining.measure,
}


def main(chosen: list[str]) -> int:
    """Run the chosen benchmarks, or all; the number of floors not met."""
    console = Console()
    unknown = set(chosen) - BENCHMARKS.keys()
    if unknown:
        console.print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    report = Report("crdt-state benchmarks")
    for name in chosen or BENCHMARKS:
        with console.status(f"measuring {name} …"):
            before = slowness()
            figures = list(BENCHMARKS[name]())
            # Where a neighbour made the machine slower meanwhile, the stricter of both counts.
            times = min(before, slowness())
        for figure in figures:
            report.add(figure, times)
    console.print(report.table)
    console.print(
        f"This machine takes {slowness():.2f} times as long for the reference as the one on which "
        f"the floors of times and rates were set; they are scaled by that."
    )
    return 1 if report.missed else 0


sys.exit(main(sys.argv[1:]))
