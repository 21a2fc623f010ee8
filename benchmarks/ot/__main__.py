"""`make bench-ot`: operations on texts, alone and from end to end beside ShareDB.

Printed are what transforming and composing costs, the rates and times of both servers with one
document and 1, 10 and 100 clients, the best that ShareDB does with several documents, who was the
bottleneck, and the ratios beside their floors.  It fails below a floor.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Report
from benchmarks.ot import operations
from benchmarks.ot.load import LoadFailed
from benchmarks.ot.rounds import ALL, run_rounds
from benchmarks.ot.subjects import OURS, SHAREDB
from benchmarks.ot.targets import best_crowd, targets

if TYPE_CHECKING:
    from benchmarks.ot.rounds import Rounds, Runs

PARTS = ("operations", "rounds")
ROUNDS = 5
SECONDS = 3.0


def table_of_rates(rounds: Rounds) -> Table:
    """Operations a second and what one takes, side by side."""
    rate, took = "operations/s\n(all rounds)", "µs for one\np50, p99"
    table = Table("", title="from end to end")
    for name in (OURS, SHAREDB):
        table.add_column(f"{name}\n{rate}", justify="right")
    table.add_column("ratio", justify="right")
    for name in (OURS, SHAREDB):
        table.add_column(f"{name}\n{took}", justify="right")
    for crowd in ALL:
        ours, theirs = rounds.ours.get(crowd), rounds.sharedb[crowd]
        ratio = "" if ours is None else f"{ours.rate / theirs.rate:,.2f}"
        rates, times = zip(_cells(ours), _cells(theirs), strict=True)
        table.add_row(str(crowd), *rates, ratio, *times)
    return table


def _cells(runs: Runs | None) -> tuple[str, str]:
    if runs is None:
        return "", ""
    slowest, fastest = runs.rates
    p50, p99 = runs.seconds, runs.of(lambda run: run.p99_seconds)
    return (
        f"{runs.rate:,.0f}\n({slowest:,.0f} to {fastest:,.0f})",
        f"{p50 * 1e6:,.0f}\n{p99 * 1e6:,.0f}",
    )


def table_of_shares(rounds: Rounds) -> Table:
    """How busy the server and the load generator were."""
    cpu = "CPU, % of one"
    table = Table(
        "",
        "server",
        "told to others/s",
        f"server\n{cpu}",
        f"load\n{cpu}",
        title="who was the bottleneck",
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for crowd in ALL:
        for name, measured in ((OURS, rounds.ours), (SHAREDB, rounds.sharedb)):
            if (runs := measured.get(crowd)) is not None:
                table.add_row(
                    str(crowd),
                    name,
                    f"{runs.of(lambda run: run.told_per_second):,.0f}",
                    f"{100 * runs.of(lambda run: run.server_share):,.0f}",
                    f"{100 * runs.of(lambda run: run.load_share):,.0f}",
                )
    return table


def measure_operations(console: Console) -> int:
    """Print what operations cost without a server; the number of floors not met."""
    report = Report("operations on texts")
    with console.status("measuring operations …"):
        for figure in operations.measure():
            report.add(figure)
    console.print(report.table)
    return report.missed


def measure_rounds(console: Console, count: int, seconds: float, url: str | None) -> int:
    """Print how both servers did; the number of floors not met.  Raises `LoadFailed`."""
    with console.status("starting …") as status:
        rounds = asyncio.run(run_rounds(count, seconds, url=url, told=status.update))
    console.print(table_of_rates(rounds))
    console.print(table_of_shares(rounds))
    report = Report("beside ShareDB")
    for figure in targets(rounds):
        report.add(figure)
    console.print(report.table)
    best = best_crowd(rounds)
    slowest, fastest = min(rounds.syncs) * 1e6, max(rounds.syncs) * 1e6
    console.print(
        f"Medians of {count} rounds of {seconds:g} s; 8 x 10 clients: ten at each of 8 documents. "
        f"The best rate of ShareDB is {rounds.sharedb[best].rate:,.0f}/s, with {best}. "
        f"One sync of the disk that holds our store, in {tempfile.gettempdir()}, takes "
        f"{rounds.sync * 1e6:,.0f} µs ({slowest:,.0f} to {fastest:,.0f}). "
        f"The server and the load generator share the {os.cpu_count()} processors of this machine; "
        "ShareDB keeps all in memory, and may tell an operation twice."
    )
    return report.missed


def main(arguments: list[str]) -> int:
    """Measure all, or the parts given; the exit code says whether floors were met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ot", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, unless given")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"default {SECONDS:g}")
    parser.add_argument("--url", help="a server that runs already, in the place of ours")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    console, missed, parts = Console(), 0, asked.parts or PARTS
    if "operations" in parts:
        missed += measure_operations(console)
    if "rounds" in parts:
        try:
            missed += measure_rounds(console, asked.rounds, asked.seconds, asked.url)
        except LoadFailed as error:
            console.print(str(error), style="red", highlight=False)
            return 1
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
