"""Everybody ends equal, however late, cut off, restarted or out of reach they were."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from bridge.simulated import CALM, ComposingRevisions, Run, Weather, in_plain, wrong_side
from crdt_client.thin import Why
from crdt_state.bridge import Revisions
from crdt_state.bridge.sources import Sources
from crdt_state.errors import CrdtStateError
from crdt_state.ot import Order
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 30
BATCHES_IN_FULL = 30

MUTANT_RUNS = 16
"""Of each.  Rates are far beyond what is asked for here, so few runs show them."""

OFTEN = ("snapshot", "floor", "repeated", "stale", "failed commit", "lost provisional", "epoch")
"""What some run of every batch comes to."""


def batches(first: int = 0) -> list[object]:
    """Seeds of a sample, and those of all."""
    rest = range(first + BATCH, first + BATCH * BATCHES_IN_FULL, BATCH)
    return [first, *(pytest.param(seed, marks=pytest.mark.full) for seed in rest)]


def go(seed: int, run: Run) -> Run:
    """Any failure says which seed it was."""
    try:
        run.go()
        assert run.is_converged, "they show different texts"
    except BaseException as error:
        error.add_note(f"seed {seed}, rich {run.is_rich}")
        raise
    return run


@pytest.mark.parametrize("first", batches())
@pytest.mark.parametrize("is_rich", [False, True])
def test_all_end_equal_after_a_storm(first: int, is_rich: bool) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        run = go(seed, Run(Random(seed), is_rich=is_rich))
        assert run.server.concurrent >= 40
        seen.update(run.server.seen)
    for what in {*OFTEN, "snapshot waits"} if not first else OFTEN:
        assert seen[what], f"no run of {BATCH} came to: {what}"


@pytest.mark.parametrize("first", batches(100_000))
def test_all_end_equal_where_all_that_happens_is_that_messages_are_late(first: int) -> None:
    for seed in range(first, first + BATCH):
        run = go(seed, Run(Random(seed), is_rich=seed % 2 == 0, weather=CALM))
        assert not run.server.seen - {"stale", "snapshot"}
        assert not any(client.handed_back for client in run.clients)


@pytest.mark.parametrize("first", batches(200_000))
def test_what_was_written_is_there_once_or_handed_back(first: int) -> None:
    reasons: Counter[Why] = Counter()
    kept = 0
    for seed in range(first, first + BATCH):
        run = go(seed, Run(Random(seed), is_rich=False, only_tags=True))
        there = Counter(in_plain(run.server.text))
        back: dict[str, Why] = {}
        for client in run.clients:
            for each in client.handed_back:
                for component in each.operation.components:
                    back |= dict.fromkeys(getattr(component, "content", ""), each.why)
        for tag in run.written:
            where = f"seed {seed}: {tag!r} is there {there[tag]} times"
            assert there[tag] <= 1, where
            assert there[tag] or tag in back or tag in lost_by_a_commit(run), where
            if there[tag] and tag in back:
                assert back[tag] is Why.IN_DOUBT, where
        kept += len(run.written)
        reasons.update(back.values())
    assert kept > 50 * BATCH
    # Where nobody deletes, nothing is taken for another text.
    assert set(reasons) == {Why.IN_DOUBT}


def lost_by_a_commit(run: Run) -> set[str]:
    """What people at the CRDT wrote and the store could not: theirs to be told, not ours."""
    return run.server.lost


# --- broken on purpose ------------------------------------------------------------------------


def rate_of_failures(runs: int, make: Callable[[int], Run]) -> float:
    """How many runs of a mutant end unequal, or break off because nothing fits any more."""
    failed = 0
    for seed in range(runs):
        run = make(seed)
        try:
            run.go()
            failed += not run.is_converged
        except (CrdtStateError, AssertionError):
            failed += 1
    return failed / runs


@pytest.mark.parametrize("weather", [Weather(), CALM], ids=["storm", "calm"])
def test_with_the_wrong_side_at_the_server_most_runs_diverge(weather: Weather) -> None:
    rate = rate_of_failures(
        MUTANT_RUNS,
        lambda seed: Run(Random(seed), is_rich=seed % 2 == 0, weather=weather, heard_as=wrong_side),
    )
    assert rate >= 0.5


@pytest.mark.parametrize("weather", [Weather(), CALM], ids=["storm", "calm"])
def test_with_composed_history_some_runs_diverge(weather: Weather) -> None:
    rate = rate_of_failures(
        MUTANT_RUNS,
        lambda seed: Run(
            Random(seed), is_rich=seed % 2 == 0, weather=weather, make=ComposingRevisions
        ),
    )
    assert rate >= 0.03


def test_with_the_order_of_another_format_some_runs_diverge() -> None:
    def heard_as(spoken: Format) -> Format:
        orders = list(Order)
        return replace(spoken, order=orders[1 - orders.index(spoken.order)])

    rate = rate_of_failures(
        MUTANT_RUNS, lambda seed: Run(Random(seed), is_rich=False, weather=CALM, heard_as=heard_as)
    )
    assert rate >= 0.03


class Forgetful(Sources):
    """Remembers nobody."""

    def last_of(self, source: str) -> None:
        return None

    def __iter__(self) -> Iterator[object]:
        return iter(())


def test_without_remembering_sources_something_is_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crdt_state.bridge.revisions.Sources", Forgetful)
    doubled = 0
    for seed in range(10):
        run = Run(Random(seed), is_rich=False, only_tags=True)
        try:
            run.go()
        except (CrdtStateError, AssertionError):
            doubled += 1
            continue
        doubled += max(Counter(in_plain(run.server.text)).values()) > 1 or not run.is_converged
    assert doubled


def test_the_mutants_differ_from_what_they_break() -> None:
    for spoken in (TEXT_UNICODE, RICH_TEXT):
        assert wrong_side(spoken).incoming is spoken.incoming.other
    assert issubclass(ComposingRevisions, Revisions)
