"""One run: a plan in, what became of it out."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import StoreCorrupt
from crdt_state.simulator.checkers import Checkers, Violation
from crdt_state.simulator.ledger import Ledger
from crdt_state.simulator.loop import DeadlockFound, LivelockFound, SimulatedLoop
from crdt_state.simulator.processes import new_task
from crdt_state.simulator.remembering import remembered
from crdt_state.simulator.trace import Trace
from crdt_state.simulator.vfs import in_the_dark
from crdt_state.simulator.world import World

if TYPE_CHECKING:
    from crdt_state.simulator.plan import Plan

__all__ = ["Outcome", "run"]

TURNS_MAX = 2_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has come to; `failure` is None where everything held."""

    plan: Plan
    digest: str
    failure: str | None
    checker: str | None
    seconds: float
    """Of simulated time."""
    edits: int
    faults: dict[str, int]
    acts: dict[str, int]
    """What people did with lives of documents, by the word for it."""
    passed: dict[str, int]
    events: int
    history: list[str]

    @property
    def is_good(self) -> bool:
        """Whether everything held."""
        return self.failure is None


def run(plan: Plan) -> Outcome:
    """Carry out a plan from its beginning to its end, in this thread."""
    loop = SimulatedLoop(turns_max=TURNS_MAX)
    loop.set_task_factory(new_task)
    trace = Trace(loop.time)
    checkers = Checkers(Ledger())
    failure: Exception | None = None
    world: World | None = None

    async def live() -> None:
        nonlocal world
        world = World(plan, checkers, trace)
        await world.run()

    # What is collected must not be collected at a moment that depends on what ran before.
    was_enabled = gc.isenabled()
    gc.disable()
    with in_the_dark(), remembered():
        try:
            loop.run_until_complete(live())
        except Exception as error:
            # A violation mostly; but what a replica raises that nobody expects is a finding too.
            failure = error
        finally:
            _end(loop)
            if was_enabled:
                gc.enable()
    return Outcome(
        plan,
        trace.digest,
        None if failure is None else str(failure) or repr(failure),
        None if failure is None else _who_found(failure),
        loop.time(),
        0 if world is None else world.edits,
        {} if world is None else dict(world.happened),
        {} if world is None else dict(world.lives.counts),
        dict(checkers.passed),
        trace.events,
        trace.lines(),
    )


def _who_found(failure: Exception) -> str:
    if isinstance(failure, Violation):
        return failure.checker
    # No store is damaged but by a fault that looks at it first.
    return "verified" if isinstance(failure, StoreCorrupt) else "silence"


def _end(loop: SimulatedLoop) -> None:
    """Let go of whatever a run that failed has left behind."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.set_exception_handler(lambda *_: None)
    loop.turns = 0
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    except (LivelockFound, DeadlockFound):
        pass
    loop.close()
    gc.collect()
