"""A replica's clock: the simulation's time, as a machine with a bad quartz tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.clocks import Instant, WallTime

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NOON", "SimulatedClock"]

NOON = 1_700_000_000_000_000
"""When a simulation begins, in microseconds since 1970."""


class SimulatedClock:
    """Ahead or behind by `skew_seconds`, and by `drift` seconds more for each that passes."""

    def __init__(self, time: Callable[[], float], *, skew_seconds: float, drift: float) -> None:
        self._time = time
        self._skew = skew_seconds
        self._drift = drift

    def now(self) -> Instant:
        """Seconds that only grow, somewhat too fast or too slow."""
        return Instant(self._time() * (1 + self._drift))

    def wall(self) -> WallTime:
        """Microseconds since 1970, as this machine believes."""
        return WallTime(NOON + round((self.now() + self._skew) * 1_000_000))

    def jump(self, seconds: float) -> None:
        """Set the time of day, as a person or a bad time server does."""
        self._skew += seconds
