"""An event loop without a machine below it: no sockets, no threads, and time that is counted.

When nothing is ready, time jumps to the next timer.  What asks for a thread is carried out on the
loop, one turn later.  So the same program does the same things in the same order, every time.

1. Nothing here reads a clock; `time` is what has been jumped over so far.
2. A run ends: beyond `turns_max` turns it is `LivelockFound`, and where nobody will ever wake
   anybody, `DeadlockFound`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DeadlockFound", "LivelockFound", "SimulatedLoop"]

R = TypeVar("R")

RESOLUTION_SECONDS = 1e-6
"""Timers so close together are due together; sums of floats differ by less."""


class LivelockFound(Exception):
    """The program went on and on: so many turns are no progress any more."""


class DeadlockFound(Exception):
    """Nothing is ready and no timer is set, so nothing will ever happen again."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, and of their asking where times are equal."""

    def __init__(self, *, turns_max: int) -> None:
        super().__init__()
        # What `BaseEventLoop` asks how long it may sleep; there is nothing else to wait for.
        self._selector = _Sleep(self)
        self._clock_resolution = RESOLUTION_SECONDS
        self._seconds = 0.0
        self._turns_max = turns_max
        self.turns = 0

    def time(self) -> float:
        """Seconds since this loop was made."""
        return self._seconds

    def pass_time(self, seconds: float | None) -> None:
        """Let time pass until the next timer; `seconds` is None where there is none."""
        self.turns += 1
        if self.turns > self._turns_max:
            raise LivelockFound(f"still busy after {self._turns_max:,} turns of the loop")
        if seconds is None:
            raise DeadlockFound("nothing is ready and no timer is set")
        self._seconds += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., R], *args: Any
    ) -> asyncio.Future[R]:
        """Carry out `func` on the loop, in a later turn, as a thread would have by then."""
        future: asyncio.Future[R] = self.create_future()
        self.call_soon(_carry_out, future, func, args)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets to have events."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""


class _Sleep:
    """In the place of a selector: waiting for sockets is letting time pass."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []


def _carry_out(
    future: asyncio.Future[R], function: Callable[..., R], arguments: tuple[Any, ...]
) -> None:
    try:
        result = function(*arguments)
    except Exception as error:
        if not future.cancelled():
            future.set_exception(error)
    else:
        if not future.cancelled():
            future.set_result(result)
