"""Who may hear of what when, so that each transaction is made on exactly its parents.

A network brings what it has.  If it brought one person everything the other has typed, the next
edit would be made on too new a text.  So each person's work is cut into segments: within one,
nothing new is heard, and nobody else needs the middle of it.  A segment may begin when exactly
`needs` transactions of the other have come, and may be *published* (let onto the wire) when the
other has made all that had to be made without it: the first `released_after` of theirs.

This cannot lock up: in the order of the trace, what a segment waits for is always earlier.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_client.demonstration.trace import PEOPLE, Trace, Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Segment", "segments_of"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive transactions of one person, made on one and the same knowledge."""

    transactions: tuple[Transaction, ...]
    needs: int
    """How many of the other's transactions must have come: exactly."""
    released_after: int
    """How many the other must have made before any of these may come to them."""


def segments_of(trace: Trace) -> tuple[tuple[Segment, ...], ...]:
    """For each person, all of their transactions in order."""
    theirs = [[one for one in trace.transactions if one.person == who] for who in range(PEOPLE)]
    return tuple(_cut(theirs[who], theirs[1 - who]) for who in range(PEOPLE))


def _cut(own: Sequence[Transaction], others: Sequence[Transaction]) -> tuple[Segment, ...]:
    others_needs = [other.needs for other in others]  # never falls: nobody forgets
    asked_for = set(others_needs)
    segments = []
    begin = 0
    for end, one in enumerate(own, start=1):
        if end == len(own) or end in asked_for or own[end].needs != one.needs:
            # What the other makes without the last of these, it makes before hearing of them.
            released_after = bisect_left(others_needs, end)
            segments.append(Segment(tuple(own[begin:end]), one.needs, released_after))
            begin = end
    return tuple(segments)
