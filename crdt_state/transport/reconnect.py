"""When to dial again: exponential backoff with jitter over all of the wait, as a value machine.

As "full jitter" (Brooker, "Exponential Backoff And Jitter", 2015), so that a thousand clients of
a restarted server do not come back at once; but never at once, so that a server which ends every
connection is not dialled in a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from crdt_state.limits import Limits

__all__ = ["Backoff"]


class Backoff:
    """Doubles the bound with each failure and forgets after a success.

    The bound begins at `Limits.reconnect_seconds_min` and ends at `reconnect_seconds_max`; a wait
    is drawn evenly from half of the former to the bound.
    """

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
