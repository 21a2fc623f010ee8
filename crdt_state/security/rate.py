"""How much one identity may bring per second: two token buckets, filled by time.

Whoever is over is made to wait, not sent away: the server reads its connections later, and TCP
slows the sender down.  A bucket holds one second's worth, so a burst of that size passes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.clocks import Instant
    from crdt_state.limits import Limits

__all__ = ["Rate"]


class Rate:
    """Updates and bytes of one identity, over all its connections."""

    __slots__ = ("_at", "_bytes", "_bytes_per_second", "_updates", "_updates_per_second")

    def __init__(self, limits: Limits, now: Instant) -> None:
        self._updates_per_second = limits.identity_updates_per_second_max
        self._bytes_per_second = limits.identity_bytes_per_second_max
        self._updates = self._updates_per_second
        self._bytes = self._bytes_per_second
        self._at = now

    def take(self, size: int, now: Instant) -> float:
        """Count one update of `size` bytes; the seconds to wait before reading the next."""
        passed = now - self._at
        self._at = now
        updates = min(self._updates_per_second, self._updates + passed * self._updates_per_second)
        room = min(self._bytes_per_second, self._bytes + passed * self._bytes_per_second)
        self._updates = updates - 1
        self._bytes = room - size
        if self._updates >= 0 and self._bytes >= 0:
            return 0.0
        return max(-self._updates / self._updates_per_second, -self._bytes / self._bytes_per_second)
