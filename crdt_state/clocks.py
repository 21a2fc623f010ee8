"""Time as an argument: the clock interface, the system's clock, one turned by hand, hybrid time.

Whoever decides takes an `Instant`; only the shells hold a `Clock`.
"""

from __future__ import annotations

import time
from typing import NewType, Protocol

__all__ = [
    "Clock",
    "HybridClock",
    "HybridTime",
    "Instant",
    "ManualClock",
    "SystemClock",
    "WallTime",
]

Instant = NewType("Instant", float)
"""Seconds that only ever grow; without meaning outside this process."""

WallTime = NewType("WallTime", int)
"""Microseconds since 1970-01-01 UTC, as this machine believes."""

HybridTime = NewType("HybridTime", int)
"""Microseconds: the wall's where it was ahead, else one more than the greatest seen."""


class Clock(Protocol):
    """Where a shell reads the time."""

    def now(self) -> Instant:
        """Seconds that never go back."""

    def wall(self) -> WallTime:
        """Microseconds since 1970, which may jump."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Seconds of the monotonic clock."""
        return Instant(time.monotonic())

    def wall(self) -> WallTime:
        """Microseconds of the system's time of day."""
        return WallTime(time.time_ns() // 1000)


class ManualClock:
    """A clock that a test turns by hand; its two hands move together unless told otherwise."""

    def __init__(self, *, now: float = 0.0, wall: int = 1_700_000_000_000_000) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> Instant:
        """Seconds advanced so far."""
        return Instant(self._now)

    def wall(self) -> WallTime:
        """Microseconds since 1970, by this clock."""
        return WallTime(self._wall)

    def advance(self, seconds: float) -> None:
        """Move both hands forward."""
        if seconds < 0:
            raise ValueError("a clock does not run backwards; use set_wall for a jump")
        self._now += seconds
        self._wall += round(seconds * 1_000_000)

    def set_wall(self, microseconds: int) -> None:
        """Make the time of day jump, as an administrator or a bad time server does."""
        self._wall = microseconds


class HybridClock:
    """Stamps that respect causality and stay near the wall clock.

    Kulkarni et al., "Logical Physical Clocks" (2014), in the form with one integer: the next
    stamp is the wall's microseconds, or one more than the greatest stamp seen, whichever is
    greater.  A remote stamp beyond `drift_seconds_max` ahead of the wall does not move the
    clock (one broken peer would otherwise drag everyone into the future); it is counted.
    """

    def __init__(self, clock: Clock, *, drift_seconds_max: float) -> None:
        self._clock = clock
        self._drift = round(drift_seconds_max * 1_000_000)
        self._greatest = 0
        self.remote_times_refused = 0

    def next(self, *, after: HybridTime | None = None) -> HybridTime:
        """A stamp greater than every stamp given or accepted so far, and than `after`."""
        self._greatest = max(self._clock.wall(), self._greatest + 1)
        if after is not None and after >= self._greatest:
            # Only this stamp jumps: a register that holds a time from the far future must
            # still show a new write, but the future must not spread to other registers.
            return HybridTime(after + 1)
        return HybridTime(self._greatest)

    def observe(self, remote: HybridTime) -> bool:
        """Take a peer's stamp into account; False when it is too far ahead to be believed."""
        if remote > self._clock.wall() + self._drift:
            self.remote_times_refused += 1
            return False
        self._greatest = max(self._greatest, remote)
        return True
