"""Two hundred seeds of storm: everything holds, and everything that can go wrong does.

Each seed is five replicas, a thousand edits and some thirty faults, in one thread and in simulated
time.  Groups of seeds are tests of their own, so that they can run side by side.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from operator import attrgetter

import pytest

from crdt_state.simulator import simulation
from crdt_state.simulator.checkers import CHECKERS
from crdt_state.simulator.plan import Deed, Plan, draw_plan
from crdt_state.simulator.simulation import Outcome, run
from crdt_state.simulator.weather import CALM, RAIN, STORM, Kind, Weather
from crdt_state.transport.link import Wire

SEEDS = range(1, 201)
A_GROUP = 10
IN_THE_SAMPLE = SEEDS[:2]
"""Seeds that run in every `make test`; all of them, group by group, belong to `make verify`."""

GROUPS = [SEEDS[at : at + A_GROUP] for at in range(0, len(SEEDS), A_GROUP)]
FAULTS_OF_A_KIND_MIN = 50
"""In all seeds.  Some that are planned come to nothing (there is no connection to cut, no machine
that is up); a group has to carry out half of them, rounded down."""

ACTS_THAT_FOLLOW = ("re-creation", "adoption", "copy", "rebase")
ACTS_OF_A_KIND_MIN = 50
"""In all seeds, as of the faults; half of the seeds talk over a wire that names no lineages."""


def held(seed: int, weather: Weather, wire: Wire | None = None) -> Outcome:
    """The outcome of a seed in which everything held."""
    outcome = run(draw_plan(seed, weather, wire=wire))
    assert outcome.is_good, (
        f"{outcome.failure}\nrepeat it with: "
        f"crdt-state simulate --seed {seed} --weather {weather.name} "
        f"--wire {outcome.plan.wire.value}"
    )
    return outcome


def everything_held(seeds: range) -> None:
    edits, happened, passed, planned = 0, Counter[str](), Counter[str](), Counter[str]()
    for seed in seeds:
        outcome = held(seed, STORM)
        assert len(outcome.plan.topology.hosts) >= 5
        assert sum(outcome.faults.values()) >= 20
        edits += outcome.edits
        happened.update(outcome.faults)
        happened.update(outcome.acts)
        passed.update(outcome.passed)
        planned.update(fault.kind.value for fault in outcome.plan.faults)
        planned.update(expected_acts(outcome.plan))
    assert edits >= 1_000 * len(seeds)
    assert set(CHECKERS) <= passed.keys(), "a checker had nothing to look at"
    rare = {kind: count for kind, count in planned.items() if happened[kind] < count // 2}
    assert not rare, f"of these {rare} were planned, and hardly any happened"


def expected_acts(plan: Plan) -> Counter[str]:
    """What people may be expected to do with lives of documents, by the word for it.

    Deletions and seeds are planned; who comes upon a deleted document, or is told that a lineage
    has ended, decides by dice.
    """
    if plan.wire is not Wire.REPLICA:
        return Counter()
    follows = Counter(dict.fromkeys(ACTS_THAT_FOLLOW, 1))
    return follows + Counter(act.deed.value for act in plan.acts)


@pytest.mark.parametrize("seed", IN_THE_SAMPLE)
def test_everything_holds_in_a_storm(seed: int) -> None:
    outcome = held(seed, STORM)
    assert outcome.edits >= 1_000
    assert sum(outcome.faults.values()) >= 20


@pytest.mark.full
@pytest.mark.parametrize("seeds", GROUPS, ids=str)
def test_everything_holds_in_every_storm(seeds: range) -> None:
    everything_held(seeds)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_kind_of_fault_is_planned_often_enough(kind: Kind) -> None:
    assert planned_faults()[kind] // 2 >= FAULTS_OF_A_KIND_MIN + len(GROUPS) // 2


@pytest.mark.parametrize("deed", [*map(attrgetter("value"), Deed), *ACTS_THAT_FOLLOW])
def test_every_kind_of_act_is_expected_often_enough(deed: str) -> None:
    expected = sum((expected_acts(draw_plan(seed, STORM, edits=1)) for seed in SEEDS), Counter())
    assert expected[deed] // 2 >= ACTS_OF_A_KIND_MIN


@cache
def planned_faults() -> Counter[Kind]:
    return Counter(fault.kind for seed in SEEDS for fault in draw_plan(seed, STORM).faults)


def test_half_of_the_seeds_talk_over_each_wire() -> None:
    wires = Counter(draw_plan(seed, STORM, edits=1).wire for seed in SEEDS)
    assert min(wires.values()) >= 0.4 * len(SEEDS), wires
    assert wires.keys() == set(Wire)
    assert {draw_plan(seed, STORM, edits=1).wire for seed in IN_THE_SAMPLE} == set(Wire)


def test_to_force_a_wire_changes_nothing_else_of_a_plan() -> None:
    drawn = draw_plan(1, STORM)
    forced = [draw_plan(1, STORM, wire=wire) for wire in Wire]
    assert {plan.wire for plan in forced} == set(Wire)
    assert all(replace(plan, wire=drawn.wire) == drawn for plan in forced)


@pytest.mark.parametrize(
    ("weather", "wire"), [(CALM, Wire.REPLICA), (RAIN, Wire.Y_WEBSOCKET)], ids=["calm", "rain"]
)
def test_everything_holds_in_better_weather(weather: Weather, wire: Wire) -> None:
    outcome = held(1, weather, wire)
    assert outcome.edits >= 1_000
    assert bool(outcome.faults) is bool(weather.faults)


def test_the_same_seed_does_the_same_in_every_process() -> None:
    program = (
        "from crdt_state.simulator.plan import draw_plan\n"
        "from crdt_state.simulator.simulation import run\n"
        "from crdt_state.simulator.weather import STORM\n"
        "from crdt_state.transport.link import Wire\n"
        "for wire in Wire:\n"
        "    outcome = run(draw_plan(3, STORM, edits=200, wire=wire))\n"
        "    print(outcome.digest, outcome.events, outcome.seconds)\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "4242")
    ]
    one, other = (process.communicate()[0] for process in running)
    assert len(one.split()) == 6
    assert one == other


@pytest.mark.parametrize("wire", Wire, ids=lambda wire: wire.value)
def test_to_remember_what_was_read_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    plan = draw_plan(5, STORM, edits=200, wire=wire)
    with_memory = run(plan)
    monkeypatch.setattr(simulation, "remembered", nullcontext)
    without = run(plan)
    assert with_memory.is_good
    assert (with_memory.digest, with_memory.events) == (without.digest, without.events)


def test_two_seeds_do_not_do_the_same() -> None:
    digests = {run(draw_plan(seed, STORM, edits=40)).digest for seed in (1, 2)}
    assert len(digests) == 2


def test_a_wire_is_part_of_what_is_hashed() -> None:
    digests = {run(draw_plan(1, CALM, edits=4, wire=wire)).digest for wire in Wire}
    assert len(digests) == 2
