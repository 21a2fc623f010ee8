"""How we compare with ShareDB: ratios of medians, each with a floor in `floors.toml`.

One client waits for a server at every operation, and ours may take one sync of the disk longer than
ShareDB, which keeps nothing.  Many clients share syncs, so there the rate has to be well above the
best that ShareDB does: with as many clients at one document, and with ten at each of several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.ot.rounds import CROWDS, SATURATING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.ot.load import Crowd
    from benchmarks.ot.rounds import Rounds

__all__ = ["best_crowd", "targets"]


def best_crowd(rounds: Rounds) -> Crowd:
    """With which crowd ShareDB does most when it is saturated."""
    return max(SATURATING, key=lambda crowd: rounds.sharedb[crowd].rate)


def targets(rounds: Rounds) -> Iterator[Figure]:
    """One client's time, and the rates of many."""
    alone, *crowds = CROWDS
    ours, theirs = rounds.ours[alone].seconds, rounds.sharedb[alone].seconds
    allowed = theirs + rounds.sync
    sums = f"{ours * 1e6:,.0f} µs against {theirs * 1e6:,.0f} µs + {rounds.sync * 1e6:,.0f} µs"
    yield Figure("ot_1_time", ours / allowed, "times", f"{sums} of a sync")
    best = best_crowd(rounds)
    for crowd in crowds:
        rate = rounds.ours[crowd].rate
        for what, other in (("rate", crowd), ("saturated", best)):
            against = rounds.sharedb[other].rate
            note = f"{rate:,.0f}/s against {against:,.0f}/s with {other}"
            yield Figure(f"ot_{crowd.clients}_{what}", rate / against, "times", note)
