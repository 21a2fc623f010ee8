"""Bugs that were planted on purpose are found, and without them the same seeds hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest

from crdt_state.simulator.plan import draw_plan
from crdt_state.simulator.shrink import shrink
from crdt_state.simulator.simulation import Outcome, run
from crdt_state.simulator.weather import STORM, Kind, Weather
from crdt_state.transport.link import Wire
from simulator.planted import bugs

LIES = replace(STORM, name="lies", weights={Kind.LIE: 1})
LOSSES = replace(STORM, name="losses", weights={Kind.POWER: 1})
CLOGS = replace(STORM, name="clogs", weights={Kind.CLOG: 1}, stay_seconds=(5.0, 40.0), faults=60)
BACKUPS = replace(STORM, name="backups", weights={Kind.OLD_BACKUP: 1, Kind.KILL: 1})
CUTS = replace(
    STORM,
    name="cuts",
    weights={Kind.CUT: 2, Kind.PARTITION: 2, Kind.ABSENCE: 1, Kind.KILL: 2},
    faults=40,
)


SEEDS_TRIED_MAX = 16
"""Any change of the engine shifts what happens in a seed, so the next ones are tried as well."""


class Planted(NamedTuple):
    """A bug, the checkers that may find it, the weather that shows it, and where to begin."""

    plant: Callable[[pytest.MonkeyPatch], None]
    checkers: set[str]
    weather: Weather
    edits: int
    first_seed: int
    wire: Wire = Wire.Y_WEBSOCKET

    def run(self, seed: int) -> Outcome:
        return run(draw_plan(seed, self.weather, edits=self.edits, wire=self.wire))

    def found(self) -> Outcome:
        """The first outcome in which something is found."""
        for seed in range(self.first_seed, self.first_seed + SEEDS_TRIED_MAX):
            outcome = self.run(seed)
            if not outcome.is_good:
                return outcome
        raise AssertionError(f"nothing was found in {SEEDS_TRIED_MAX} seeds")


PLANTED = [
    Planted(bugs.says_saved_before_the_commit, {"durable"}, STORM, 400, 0),
    Planted(bugs.answers_the_barrier_from_memory, {"durable"}, STORM, 400, 10),
    Planted(bugs.delivers_before_the_commit, {"order"}, STORM, 400, 0),
    Planted(bugs.clears_the_outbox_without_an_answer, {"durable"}, CUTS, 800, 13),
    Planted(bugs.loses_the_end_of_the_log_at_a_fold, {"quiescence", "durable"}, STORM, 800, 0),
    Planted(bugs.drops_what_is_pending_at_a_fold, {"durable"}, LIES, 800, 0),
    Planted(bugs.does_not_sync_commits, {"durable", "verified"}, LOSSES, 400, 0),
    Planted(bugs.goes_on_after_a_restore, {"incarnation"}, BACKUPS, 400, 0),
    Planted(bugs.uses_a_client_id_again, {"convergence"}, BACKUPS, 400, 0),
    Planted(bugs.brings_nobody_up_to_date, {"quiescence"}, CLOGS, 800, 1),
    Planted(bugs.acknowledges_before_the_commit, {"durable"}, STORM, 400, 0, Wire.REPLICA),
    Planted(bugs.acknowledges_what_waits_as_applied, {"receipts"}, LIES, 100, 0, Wire.REPLICA),
    Planted(bugs.counts_what_was_left_out_as_held, {"durable"}, CLOGS, 1_500, 27, Wire.REPLICA),
    Planted(bugs.takes_what_was_sent_for_what_is_held, {"durable"}, CUTS, 400, 0, Wire.REPLICA),
    Planted(bugs.brings_no_peer_up_to_date, {"quiescence", "durable"}, CLOGS, 800, 1, Wire.REPLICA),
    Planted(bugs.lets_a_tombstone_resurrect, {"tombstones"}, STORM, 400, 0, Wire.REPLICA),
    Planted(bugs.merges_two_lineages, {"apart", "told"}, STORM, 400, 2, Wire.REPLICA),
    Planted(bugs.sets_nothing_aside, {"told"}, STORM, 400, 0, Wire.REPLICA),
]

IN_THE_SAMPLE = {
    bugs.acknowledges_what_waits_as_applied,
    bugs.delivers_before_the_commit,
    bugs.does_not_sync_commits,
    bugs.goes_on_after_a_restore,
    bugs.lets_a_tombstone_resurrect,
    bugs.sets_nothing_aside,
    bugs.takes_what_was_sent_for_what_is_held,
}
"""Found soonest, and by as many checkers; all of them belong to `make verify`."""


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(
            planted,
            id=planted.plant.__name__,
            marks=() if planted.plant in IN_THE_SAMPLE else pytest.mark.full,
        )
        for planted in PLANTED
    ],
)
def test_a_planted_bug_is_found_and_without_it_the_same_seed_holds(planted: Planted) -> None:
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch)
        outcome = planted.found()
    assert outcome.checker in planted.checkers, outcome.failure
    without = planted.run(outcome.plan.seed)
    assert without.is_good, without.failure


def test_a_failing_history_is_shrunk_and_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs.says_saved_before_the_commit(monkeypatch)
    failed = run(draw_plan(0, STORM, edits=400, wire=Wire.Y_WEBSOCKET))
    shortest = shrink(failed, run, tries_max=30)
    assert shortest.checker == failed.checker
    assert len(shortest.plan.sessions) <= 3
    assert not shortest.plan.faults
