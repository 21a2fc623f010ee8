"""`crdt-state simulate`: the production code in a simulated world, from a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from crdt_client.commands.outcome import Exit, carry_out, usage_error
from crdt_client.commands.stores import JsonOption
from crdt_client.commands.terminal import (
    complain,
    counted,
    new_table,
    note,
    progress,
    show,
    write_json,
)
from crdt_state.transport.link import Wire

if TYPE_CHECKING:
    from crdt_state.simulator.simulation import Outcome
    from crdt_state.simulator.weather import Weather

__all__ = ["HELP", "simulate"]

HELP = """Run replicas, links and a listener in a simulated world, where everything goes wrong.

One thread, one seed: the same seed does the same things in the same order, on every machine.
Replicas edit; connections are cut, clogged and half open; power fails in the middle of a commit;
disks fill up, answer with errors and flip bits; old backups come back; a peer lies.  When the
weather has calmed, everything has to be in step, and nothing that was promised may be missing.
Half of the seeds talk over our own protocol, half over y-websocket.  Over our own, people also
delete documents, begin them anew, and choose what becomes of edits that a deletion has ended.

Seeds run side by side, one on each core.  The first that fails ends it: it is shrunk to the
shortest history that still does, and printed with the command that repeats it.  Weathers: calm,
rain, storm.

\b
Examples:
  crdt-state simulate --seed 7 --weather storm
  crdt-state simulate --seed 1000 --seeds 200
  crdt-state simulate --seeds 10000 --keep-going
  crdt-state simulate --seeds 20 --json

\b
Exit codes: 0 everything held; 1 something did not; 2 bad usage; 130 interrupted.
"""

HISTORY_LINES = 60

SHRUNK_MAX = 3
"""Of the seeds that fail, how many are shrunk: each takes as long as many seeds."""


def simulate(
    *,
    seed: Annotated[int, typer.Option(metavar="N", help="The first seed.")] = 1,
    seeds: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many, from it on.")] = 1,
    weather: Annotated[str, typer.Option(metavar="NAME", help="calm, rain or storm.")] = "storm",
    edits: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT", min=1, help="In each seed, instead of 1,150.", show_default=False
        ),
    ] = None,
    wire: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="replica or y-websocket, instead of what the seed says.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            min=1,
            help="Seeds side by side, instead of one on each core.",
            show_default=False,
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Try the other seeds when one has failed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The command; its words are `HELP`."""
    spoken = None if wire is None else _wire(wire)
    try:
        from crdt_state.simulator.weather import WEATHERS  # noqa: PLC0415 - of an extra
    except ImportError:
        usage_error("the simulator needs apsw; install crdt-state[simulator]")
    chosen = WEATHERS.get(weather)
    if chosen is None:
        usage_error(f"{weather!r} is no weather; there are {', '.join(WEATHERS)}")
    drawn = Drawn(range(seed, seed + seeds), chosen, spoken, edits)
    way = Way(jobs, keeps_going=keep_going, as_json=as_json)
    carry_out(_simulate(drawn, way))


class Drawn(NamedTuple):
    """What is asked for: which plans."""

    seeds: range
    weather: Weather
    wire: Wire | None
    edits: int | None

    def command(self, seed: int) -> str:
        """What repeats one of them."""
        wire = "" if self.wire is None else f" --wire {self.wire.value}"
        edits = "" if self.edits is None else f" --edits {self.edits}"
        return f"crdt-state simulate --seed {seed} --weather {self.weather.name}{wire}{edits}"


class Way(NamedTuple):
    """How it is carried out, and told."""

    jobs: int | None
    keeps_going: bool
    as_json: bool


def _wire(name: str) -> Wire:
    try:
        return Wire(name)
    except ValueError:
        usage_error(f"{name!r} is no wire; there are {', '.join(wire.value for wire in Wire)}")


async def _simulate(drawn: Drawn, way: Way) -> Exit:
    # A simulation is a loop of its own, and there is one to a thread.
    return await asyncio.to_thread(_run_all, drawn, way)


def _run_all(drawn: Drawn, way: Way) -> Exit:
    from crdt_state.simulator.hunt import ProcessDied, cores, outcomes  # noqa: PLC0415
    from crdt_state.simulator.plan import EDITS, draw_plan  # noqa: PLC0415
    from crdt_state.simulator.shrink import shrink  # noqa: PLC0415
    from crdt_state.simulator.simulation import run  # noqa: PLC0415

    plans = (
        draw_plan(seed, drawn.weather, edits=drawn.edits or EDITS, wire=drawn.wire)
        for seed in drawn.seeds
    )
    jobs = min(way.jobs or cores(), len(drawn.seeds))
    sums = Sums()
    failed: list[Outcome] = []
    with progress() as display, closing(outcomes(plans, jobs)) as ended:
        task = display.add_task(drawn.weather.name, total=len(drawn.seeds), at="")
        try:
            for outcome in ended:
                sums.add(outcome)
                if way.as_json:
                    write_json(_as_json(outcome))
                display.update(task, advance=1, at=f"seed {outcome.plan.seed}")
                if not outcome.is_good:
                    failed.append(outcome)
                    complain(_failure(outcome))
                    note(f"repeat it with: {drawn.command(outcome.plan.seed)}")
                    if not way.keeps_going:
                        break
        except ProcessDied as error:
            complain(str(error))
            return Exit.WRONG
        for outcome in failed[:SHRUNK_MAX]:
            display.update(task, at=f"seed {outcome.plan.seed}: looking for the shortest history")
            _tell(shrink(outcome, run))
    if not way.as_json:
        _show(sums)
    return Exit.WRONG if failed else Exit.FINE


class Sums:
    """What there was in all seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.failed = 0
        self.edits = 0
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.acts: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.last: tuple[str, str] = ("", "")
        """The wire and the hash of the last one."""

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.seeds += 1
        self.failed += not outcome.is_good
        self.edits += outcome.edits
        self.seconds += outcome.seconds
        self.faults.update(outcome.faults)
        self.acts.update(outcome.acts)
        self.passed.update(outcome.passed)
        self.last = outcome.plan.wire.value, outcome.digest


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.plan.seed,
        "weather": outcome.plan.weather.name,
        "wire": outcome.plan.wire.value,
        "is_good": outcome.is_good,
        "checker": outcome.checker,
        "failure": outcome.failure,
        "hash": outcome.digest,
        "simulated_seconds": round(outcome.seconds, 3),
        "edits": outcome.edits,
        "faults": outcome.faults,
        "acts": outcome.acts,
        "passed": outcome.passed,
    }


def _failure(outcome: Outcome) -> str:
    return f"seed {outcome.plan.seed}, over {outcome.plan.wire.value}: {outcome.failure}"


def _tell(shortest: Outcome) -> None:
    plan = shortest.plan
    note(
        f"seed {plan.seed}: it still fails with {counted(len(plan.sessions), 'session')}, "
        f"{counted(len(plan.faults), 'fault')} and {counted(len(plan.acts), 'act')}: "
        f"{shortest.failure}"
    )
    for fault in plan.faults:
        note(f"  {fault.at:10.3f} {fault.kind.value} at {fault.host}, {fault.seconds:.1f} s")
    for act in plan.acts:
        note(f"  {act.at:10.3f} {act.deed.value} of {act.document!r} at {act.host}")
    for session in plan.sessions:
        note(
            f"  {session.at:10.3f} {session.host} edits {session.container} of "
            f"{session.document!r} {counted(session.edits, 'time')}"
        )
    note(f"the end of its history (hash {shortest.digest[:16]}):", style="dim")
    for line in shortest.history[-HISTORY_LINES:]:
        note(f"  {line}", style="dim")


def _show(sums: Sums) -> None:
    for title, counts in (("fault", sums.faults), ("act", sums.acts), ("checker", sums.passed)):
        if counts:
            table = new_table(title, "times", numbers=("times",))
            for name, count in sorted(counts.items()):
                table.add_row(name, f"{count:,}")
            show(table)
    if sums.seeds == 1:
        wire, digest = sums.last
        note(f"over {wire}, hash {digest}", style="dim")
    note(
        f"{counted(sums.seeds, 'seed')}, {sums.seconds / 3600:.1f} simulated hours, "
        f"{counted(sums.edits, 'edit')}, {counted(sums.faults.total(), 'fault')}, "
        f"{counted(sums.acts.total(), 'act')}"
        + (f"; {sums.failed:,} failed" if sums.failed else ""),
        style="dim",
    )
