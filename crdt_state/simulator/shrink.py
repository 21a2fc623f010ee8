"""The shortest history that still fails: leaves out faults, acts and sessions while it stays.

As delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
2002), without its guarantee of a minimum: tries are bounded, because each is a whole run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.simulator.plan import Plan
    from crdt_state.simulator.simulation import Outcome

__all__ = ["TRIES_MAX", "shrink"]

TRIES_MAX = 60

T = TypeVar("T")


def shrink(
    failed: Outcome, run: Callable[[Plan], Outcome], *, tries_max: int = TRIES_MAX
) -> Outcome:
    """The outcome of the smallest plan found in which the same checker fails."""
    best = failed
    left = tries_max

    def still_fails(plan: Plan) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        outcome = run(plan)
        if outcome.checker != failed.checker:
            return False
        best = outcome
        return True

    # What lies behind the failure never happened, and one try shows it for all of it.
    end = failed.seconds
    plan = failed.plan
    still_fails(
        replace(
            plan,
            seconds=min(plan.seconds, end),
            sessions=tuple(session for session in plan.sessions if session.at <= end),
            faults=tuple(fault for fault in plan.faults if fault.at <= end),
            acts=tuple(act for act in plan.acts if act.at <= end),
        )
    )
    _leave_out(best.plan.faults, lambda some: still_fails(replace(best.plan, faults=some)))
    _leave_out(best.plan.acts, lambda some: still_fails(replace(best.plan, acts=some)))
    _leave_out(best.plan.sessions, lambda some: still_fails(replace(best.plan, sessions=some)))
    return best


def _leave_out(entries: tuple[T, ...], still_fails: Callable[[tuple[T, ...]], bool]) -> None:
    """Leave out halves, then quarters, and so on, while it still fails."""
    size = len(entries)
    while size:
        at = 0
        while at < len(entries):
            some = entries[:at] + entries[at + size :]
            if still_fails(some):
                entries = some
            else:
                at += size
        size //= 2
