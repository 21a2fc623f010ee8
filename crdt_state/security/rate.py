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

BURST_SECONDS = 1.0

ROUNDING_SECONDS = 1e-6
"""A shorter wait is a sum of rounding errors."""


class Rate:
    """Messages and bytes of one identity, over all its connections.

    Each bucket is kept as the time at which it will be full again (the generic cell rate
    algorithm, ITU-T I.371): it is empty when that time is a second or more away.
    """

    __slots__ = ("_bytes_full_at", "_messages_full_at", "_seconds_per_byte", "_seconds_per_message")

    def __init__(self, limits: Limits, now: Instant) -> None:
        self._seconds_per_message = 1.0 / limits.identity_messages_per_second_max
        self._seconds_per_byte = 1.0 / limits.identity_bytes_per_second_max
        self._messages_full_at: float = now
        self._bytes_full_at: float = now

    def take(self, size: int, now: Instant, count: int = 1) -> float:
        """Count messages of `size` bytes together; the seconds to wait before reading the next."""
        messages, full = self._messages_full_at, self._bytes_full_at
        messages = (messages if messages > now else now) + count * self._seconds_per_message
        full = (full if full > now else now) + size * self._seconds_per_byte
        self._messages_full_at, self._bytes_full_at = messages, full
        late = (messages if messages > full else full) - now - BURST_SECONDS
        return late if late > ROUNDING_SECONDS else 0.0
