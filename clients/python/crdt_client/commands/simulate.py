"""`crdt-state simulate`: the production code in a simulated world, from a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
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
Half of the seeds talk over our own protocol, half over y-websocket.

A seed that fails is shrunk to the shortest history that still does, and printed with the command
that repeats it.  Weathers: calm, rain, storm.

\b
Examples:
  crdt-state simulate --seed 7 --weather storm
  crdt-state simulate --seed 1000 --seeds 200
  crdt-state simulate --seeds 20 --json

\b
Exit codes: 0 everything held; 1 something did not; 2 bad usage; 130 interrupted.
"""

HISTORY_LINES = 60


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
    carry_out(_simulate(drawn, as_json=as_json))


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


def _wire(name: str) -> Wire:
    try:
        return Wire(name)
    except ValueError:
        usage_error(f"{name!r} is no wire; there are {', '.join(wire.value for wire in Wire)}")


async def _simulate(drawn: Drawn, *, as_json: bool) -> Exit:
    # A simulation is a loop of its own, and there is one to a thread.
    return await asyncio.to_thread(_run_all, drawn, as_json=as_json)


def _run_all(drawn: Drawn, *, as_json: bool) -> Exit:
    from crdt_state.simulator.plan import EDITS, draw_plan  # noqa: PLC0415
    from crdt_state.simulator.shrink import shrink  # noqa: PLC0415
    from crdt_state.simulator.simulation import run  # noqa: PLC0415

    outcomes: list[Outcome] = []
    with progress() as display:
        task = display.add_task(drawn.weather.name, total=len(drawn.seeds), at="")
        for seed in drawn.seeds:
            display.update(task, at=f"seed {seed}")
            plan = draw_plan(seed, drawn.weather, edits=drawn.edits or EDITS, wire=drawn.wire)
            outcome = run(plan)
            outcomes.append(outcome)
            if as_json:
                write_json(_as_json(outcome))
            if not outcome.is_good:
                display.update(task, at=f"seed {seed}: looking for the shortest history")
                _tell(outcome, shrink(outcome, run), drawn.command(seed))
            display.update(task, advance=1)
    if not as_json:
        _show(outcomes)
    return Exit.FINE if all(outcome.is_good for outcome in outcomes) else Exit.WRONG


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
        "passed": outcome.passed,
    }


def _tell(failed: Outcome, shortest: Outcome, command: str) -> None:
    plan = shortest.plan
    complain(f"seed {plan.seed}, over {plan.wire.value}: {failed.failure}")
    note(f"repeat it with: {command}")
    note(
        f"it still fails with {counted(len(plan.sessions), 'session')} and "
        f"{counted(len(plan.faults), 'fault')}: {shortest.failure}"
    )
    for fault in plan.faults:
        note(f"  {fault.at:10.3f} {fault.kind.value} at {fault.host}, {fault.seconds:.1f} s")
    for session in plan.sessions:
        note(
            f"  {session.at:10.3f} {session.host} edits {session.container} of "
            f"{session.document!r} {counted(session.edits, 'time')}"
        )
    note(f"the end of its history (hash {shortest.digest[:16]}):", style="dim")
    for line in shortest.history[-HISTORY_LINES:]:
        note(f"  {line}", style="dim")


def _show(outcomes: list[Outcome]) -> None:
    faults: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
        passed.update(outcome.passed)
    for title, counts in (("fault", faults), ("checker", passed)):
        if counts:
            table = new_table(title, "times", numbers=("times",))
            for name, count in sorted(counts.items()):
                table.add_row(name, f"{count:,}")
            show(table)
    hours = sum(outcome.seconds for outcome in outcomes) / 3600
    bad = sum(not outcome.is_good for outcome in outcomes)
    if len(outcomes) == 1:
        note(f"over {outcomes[0].plan.wire.value}, hash {outcomes[0].digest}", style="dim")
    edits = sum(outcome.edits for outcome in outcomes)
    note(
        f"{counted(len(outcomes), 'seed')}, {hours:.1f} simulated hours, "
        f"{counted(edits, 'edit')}, {counted(faults.total(), 'fault')}"
        + (f"; {bad:,} failed" if bad else ""),
        style="dim",
    )
