"""Many plans side by side: a process for each core, because a simulation has one to itself.

Outcomes come in the order in which they end, which depends on the machine; each of them depends on
its plan alone.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TYPE_CHECKING

from crdt_state.simulator.simulation import Outcome, run

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from crdt_state.simulator.plan import Plan

__all__ = ["ProcessDied", "cores", "outcomes"]


class ProcessDied(Exception):
    """A process ended without an outcome, which no simulation may bring about."""


def cores() -> int:
    """How many processes can run at the same time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def outcomes(plans: Iterable[Plan], jobs: int) -> Generator[Outcome, None, None]:
    """Carry out plans, `jobs` at a time; whoever wants no more of them closes this.

    What is under way then is waited for.  Raises `ProcessDied`.
    """
    if jobs == 1:
        yield from map(run, plans)
        return
    left = iter(plans)
    # Not forked: a simulation counts on a process that has done nothing else.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as pool:
        running: dict[Future[Outcome], Plan] = {}
        while True:
            for plan in islice(left, jobs - len(running)):
                running[pool.submit(run, plan)] = plan
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: running[each].seed):
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    seeds = ", ".join(str(plan.seed) for plan in running.values())
                    raise ProcessDied(f"a process died while it ran one of {seeds}") from error
                del running[future]
                yield outcome


def _prepare() -> None:
    # An interruption is the business of whoever waits for the outcomes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What has been imported stays: it need not be gone through after every run.
    gc.collect()
    gc.freeze()
