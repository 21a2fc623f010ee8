"""Ranges of counters: the plain form, merged sets of them, and where surrogate pairs stand.

A counter is Yjs's number of one UTF-16 unit or value within what one client wrote.  Everything
here is half open: `end` is the first counter that is not in the range.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["COUNTER_MAX", "Intervals", "PairTable", "Place", "Range", "Run", "merged"]

COUNTER_MAX: Final = 2**31 - 1
"""The greatest counter that both engines compute with: yrs uses signed 32 bits."""

Place: TypeAlias = tuple[int, int]
"""(client id, counter): one UTF-16 unit or value, for ever."""

# From so many added ranges on, one merge of all is cheaper than an insertion each.
_MANY: Final = 16


class Range(NamedTuple):
    """Counters `start` to `end - 1` of one client."""

    client: int
    start: int
    end: int


class Run(NamedTuple):
    """`pairs` surrogate pairs in a row: `first`, `first + 2`, … are their second halves."""

    client: int
    first: int
    pairs: int


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same counters in the fewest ranges, in the order of clients and counters."""
    result: list[Range] = []
    for here in sorted(ranges):
        if result:
            last = result[-1]
            if last.client == here.client and here.start <= last.end:
                if here.end > last.end:
                    result[-1] = Range(last.client, last.start, here.end)
                continue
        result.append(here)
    return tuple(result)


class Intervals:
    """A set of counters per client, held as merged ranges.

    Per client it keeps the flat list `start, end, start, end, …`, strictly ascending: a counter
    is in the set when an odd number of bounds lies at or before it.
    """

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds: dict[int, list[int]] = {}
        self.add_all(ranges)

    def add(self, client: int, start: int, end: int) -> None:
        """Put counters `start` to `end - 1` into the set."""
        bounds = self._bounds.get(client)
        if bounds is None:
            self._bounds[client] = [start, end]
        elif start > bounds[-1]:
            bounds.append(start)
            bounds.append(end)
        elif start >= bounds[-2]:
            # Typing backwards and reading in order both end here.
            bounds[-1] = max(end, bounds[-1])
        else:
            low = bisect_left(bounds, start)
            high = bisect_right(bounds, end)
            replacement = [] if low % 2 else [start]
            if high % 2 == 0:
                replacement.append(end)
            bounds[low:high] = replacement

    def add_all(self, ranges: Iterable[Range]) -> None:
        """Put many ranges in at once: linear, where one by one would move the list each time."""
        by_client: dict[int, list[Range]] = {}
        for added in ranges:
            by_client.setdefault(added.client, []).append(added)
        for client, added_here in by_client.items():
            bounds = self._bounds.get(client, [])
            if len(added_here) < _MANY:
                for _, start, end in added_here:
                    self.add(client, start, end)
                continue
            held = (
                Range(client, bounds[place], bounds[place + 1])
                for place in range(0, len(bounds), 2)
            )
            self._bounds[client] = [
                bound for _, start, end in merged([*held, *added_here]) for bound in (start, end)
            ]

    def covers(self, client: int, start: int, end: int) -> bool:
        """Whether each of these counters is in the set."""
        bounds = self._bounds.get(client)
        if bounds is None:
            return False
        place = bisect_right(bounds, start)
        return place % 2 == 1 and end <= bounds[place]

    def around(self, client: int, counter: int) -> Range | None:
        """The range in which this counter is, if it is in one."""
        bounds = self._bounds.get(client, [])
        place = bisect_right(bounds, counter)
        return Range(client, bounds[place - 1], bounds[place]) if place % 2 else None

    def ranges(self) -> Iterator[Range]:
        """The ranges, in the order of clients and counters."""
        for client in sorted(self._bounds):
            bounds = self._bounds[client]
            for place in range(0, len(bounds), 2):
                yield Range(client, bounds[place], bounds[place + 1])

    def copy(self) -> Intervals:
        """An independent set of the same counters."""
        other = Intervals()
        other._bounds = {client: bounds.copy() for client, bounds in self._bounds.items()}
        return other

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __len__(self) -> int:
        return sum(len(bounds) for bounds in self._bounds.values()) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # it changes


class PairTable:
    """Which counters are second halves of surrogate pairs; empty for most documents.

    Pairs in a row are one range of counters, in which every second one is a second half: a text
    of emoji costs as much as a single one.
    """

    __slots__ = ("_spans",)

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._spans = Intervals()
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Take a run in."""
        client, first, pairs = run
        self._spans.add(client, first - 1, first - 1 + 2 * pairs)

    def runs(self) -> Iterator[Run]:
        """The runs, in the order of clients and counters."""
        for client, start, end in self._spans.ranges():
            yield Run(client, start + 1, (end - start) // 2)

    def copy(self) -> PairTable:
        """An independent table of the same pairs."""
        return PairTable(self.runs())

    def __contains__(self, place: tuple[int, int]) -> bool:
        span = self._spans.around(*place)
        return span is not None and (place[1] - span.start) % 2 == 1

    def __bool__(self) -> bool:
        return bool(self._spans)
