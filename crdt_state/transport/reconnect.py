"""When to dial again: exponential backoff with full jitter, as a value machine.

Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): the wait is drawn evenly from
zero to the bound, so that a thousand clients of a restarted server do not come back at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from crdt_state.limits import Limits

__all__ = ["Backoff"]


class Backoff:
    """Doubles the bound with each failure and forgets after a success."""

    def __init__(self, limits: Limits, random: Random) -> None:
        self._min = limits.reconnect_seconds_min
        self._max = limits.reconnect_seconds_max
        self._random = random
        self.failures = 0

    def succeeded(self) -> None:
        """The remote answered; the next wait is short again."""
        self.failures = 0

    def failed(self) -> float:
        """Seconds to wait before the next try."""
        bound = min(self._max, self._min * 2 ** min(self.failures, 32))
        self.failures += 1
        return self._random.uniform(self._min / 2, max(bound, self._min))
