"""Everybody ends equal at the production server: three thin clients in two formats, two by Yjs.

Each run has its own network, disk and clock from one seed; lines are cut and slow, and the server
is killed, loses its power, and comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.served import Served
from bridge.simulated import ComposingRevisions, wrong_side
from crdt_state.bridge import Accepted, Revisions
from crdt_state.replica import attachment
from crdt_state.transport import sharedb_visit

if TYPE_CHECKING:
    from crdt_state.bridge import Decision

RUNS = 1_000
BATCH = 25
IN_THE_SAMPLE = 2
"""Batches that run in every `make test`; all of them belong to `make verify`."""

MUTANT_RUNS = 10
CONCURRENT_MIN = 40

BATCHES = [range(at, at + BATCH) for at in range(0, RUNS, BATCH)]


class Counting(Revisions):
    """Counts operations that had to be brought together with others."""

    concurrent: set[tuple[int, int]]

    def submit(self, base: int, *others: object, **options: object) -> Decision:
        decision = super().submit(base, *others, **options)  # type: ignore[arg-type]
        if isinstance(decision, Accepted) and base < self.head:
            # What is accepted now becomes the next; it and all since its base know not each other.
            Counting.concurrent.update(
                (id(self), number) for number in range(base + 1, self.head + 2)
            )
        return decision


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "Revisions", Counting)


def go(seed: int) -> Served:
    """Any failure says which seed it was."""
    Counting.concurrent = set()
    run = Served(seed, is_rich=seed % 2 == 1)
    try:
        run.go()
        assert run.shown
        assert run.is_converged, f"they show different texts: {run.shown}"
        assert not run.reported
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return run


def everybody_ends_equal(seeds: range) -> None:
    starts = 0
    for seed in seeds:
        run = go(seed)
        assert len(Counting.concurrent) >= CONCURRENT_MIN, f"seed {seed}"
        starts += run.starts
    assert starts > 2 * len(seeds), "the server was hardly restarted"


@pytest.mark.parametrize("seeds", BATCHES[:IN_THE_SAMPLE], ids=str)
def test_everybody_ends_equal(seeds: range) -> None:
    everybody_ends_equal(seeds)


@pytest.mark.full
@pytest.mark.parametrize("seeds", BATCHES[IN_THE_SAMPLE:], ids=str)
def test_everybody_ends_equal_in_a_thousand_runs(seeds: range) -> None:
    everybody_ends_equal(seeds)


# --- broken on purpose ------------------------------------------------------------------------


def rate_of_failures(seeds: range) -> float:
    """How many runs end unequal, or break off because nothing fits any more."""
    failed = 0
    for seed in seeds:
        Counting.concurrent = set()
        run = Served(seed, is_rich=seed % 2 == 1, faults=False, quiet_seconds=30.0)
        try:
            run.go()
            failed += not run.is_converged
        except Exception:
            failed += 1
    return failed / len(seeds)


@pytest.mark.full
def test_with_the_wrong_side_at_the_server_most_runs_diverge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoken_in = sharedb_visit.spoken_in
    monkeypatch.setattr(sharedb_visit, "spoken_in", lambda kind: wrong_side(spoken_in(kind)))
    assert rate_of_failures(range(MUTANT_RUNS)) >= 0.5


@pytest.mark.full
def test_with_composed_history_some_runs_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "Revisions", ComposingRevisions)
    assert rate_of_failures(range(MUTANT_RUNS)) >= 0.03
