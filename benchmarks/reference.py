"""How fast this machine runs Python, against the one on which the floors were set.

A time says as much of the machine as of the code.  So every run also measures a reference: a
little of all that the paths of an update are made of (calls, attributes, dictionaries, slices,
small objects), on which no change of ours has a bearing.  Floors of times and rates hold at the
reference's speed: a machine that takes three times as long for the reference may take three times
as long for an update.

`REFERENCE_SECONDS` was found by measuring one commit of this project on both machines.  What took
2.47 µs (`guard_busy`) and 14.35 µs (`guard_alone`) where the floors were set took 9.1 and 51 µs,
3.6 times as long, on a machine that took 2.64 ms for the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

__all__ = ["REFERENCE_SECONDS", "slowness"]

REFERENCE_SECONDS = 0.000_733
ROUNDS = 2_000
REPEATS = 15


@dataclass(slots=True)
class _Account:
    total: int = 0
    largest: int = 0

    def take(self, size: int) -> bool:
        self.total += size
        if size > self.largest:
            self.largest = size
        return self.total < 0


def _work(rounds: int) -> int:
    account, table, kept = _Account(), dict[bytes, list[int]](), list[tuple[int, bytes]]()
    frame = bytes(range(48))
    for number in range(rounds):
        at = number % 16
        key = frame[at : at + 8]
        row = table.get(key)
        if row is None:
            row = table[key] = [0, 0]
        size = frame[at] | frame[at + 1] << 7
        row[0] += 1
        row[1] = max(row[1], size)
        if account.take(size):
            return 0
        kept.append((number, frame[at:]))
        if len(kept) == 256:
            kept = []
    return account.total


def slowness() -> float:
    """How many times as long as there the reference takes here, now: the best of several."""
    best = float("inf")
    for _ in range(REPEATS):
        begin = perf_counter()
        _work(ROUNDS)
        best = min(best, perf_counter() - begin)
    return best / REFERENCE_SECONDS
