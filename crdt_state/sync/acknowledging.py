"""Two counts of the same thing: the numbers of updates on a channel, and positions in a log.

Sent       what we sent: an acknowledged number becomes a position in *our* log, through which
           the peer then holds the document
Brought    what the peer sent: a position that another replica has reached becomes the number
           of the peer's update that it therefore holds
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from crdt_state.identifiers import ReplicaId

__all__ = ["Brought", "Sent"]

REMEMBERED_MAX = 1_024
"""Batches whose positions are remembered; of older ones a relay's report says nothing."""

UNDER_WAY_MAX = 4_096
"""Batches under way that are told apart; of a peer that acknowledges nothing, pairs become one."""

REPORTED_MAX = 16
"""Other replicas of which a peer is told that they hold what it brought."""


class _Batch(NamedTuple):
    number: int
    """Of its last update."""
    position: int
    """What of our log the peer holds, of this document, once this has reached it."""
    floor: int
    """The same for all that went before it; 0 where this brings what was left out before."""


class Sent:
    """What was sent on one channel, and how far it has come.

    `durable_through` and `applied_through` are positions in our log: everything of the document
    up to them is fsynced there, or integrated.
    """

    def __init__(self) -> None:
        self.durable_through = 0
        self.applied_through = 0
        self._not_durable: deque[_Batch] = deque()
        self._not_applied: deque[_Batch] = deque()
        self._lately: deque[_Batch] = deque(maxlen=REMEMBERED_MAX)
        self._number = 0

    def note(self, position: int) -> None:
        """Whoever holds what has been sent so far is at `position`: nothing else was lacking."""
        self._lately.append(_Batch(self._number, position, 0))

    def add(self, number: int, position: int, *, floor: int) -> None:
        """Updates through `number` have been sent, which bring the peer to `position`.

        `floor` is where the peer is by what went before: all of the document up to it was sent, or
        lies in no other update.  It is 0 for a part of a state, and for what was missed.
        """
        batch = _Batch(number, position, floor)
        self._number = number
        for batches in (self._not_durable, self._not_applied):
            batches.append(batch)
            if len(batches) > UNDER_WAY_MAX:
                _coarsen(batches)
        self._lately.append(batch)

    @property
    def is_all_durable(self) -> bool:
        """Whether nothing is under way."""
        return not self._not_durable

    @property
    def is_all_applied(self) -> bool:
        """Whether nothing is under way, and nothing waits at the peer."""
        return not self._not_applied

    def acknowledged(self, durable: int, applied: int) -> None:
        """The peer has said how far they have come."""
        self.durable_through = _through(self._not_durable, durable, self.durable_through)
        self.applied_through = _through(self._not_applied, applied, self.applied_through)

    def position_of(self, number: int) -> int:
        """The position of whoever holds our updates through `number`; 0 where it is unknown."""
        position = 0
        for batch in self._lately:
            if batch.number > number:
                break
            position = max(position, batch.position)
        return position


class Brought:
    """What a peer brought on one channel, and which others it was told to hold it."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._positions: list[int] = []
        self._told: dict[ReplicaId, int] = {}

    def add(self, number: int, position: int) -> None:
        """The peer's updates through `number` are in our log by `position`."""
        if len(self._numbers) >= REMEMBERED_MAX:
            del self._numbers[: REMEMBERED_MAX // 2]
            del self._positions[: REMEMBERED_MAX // 2]
        self._numbers.append(number)
        self._positions.append(position)

    def news_of(self, replica: ReplicaId, position: int) -> int | None:
        """Through which number `replica`, which is at `position`, holds them; None: told before."""
        told = self._told.get(replica)
        if told is None and len(self._told) >= REPORTED_MAX:
            return None  # the peer knows of enough of them
        at = bisect_right(self._positions, position)
        if not at:
            return None
        through = self._numbers[at - 1]
        if told is not None and through <= told:
            return None
        self._told[replica] = through
        return through


def _coarsen(batches: deque[_Batch]) -> None:
    """Let every two batches be one, which has come when the second has."""
    for _ in range(len(batches) // 2):
        one, other = batches.popleft(), batches.popleft()
        batches.append(_Batch(other.number, max(one.position, other.position), one.floor))
    if len(batches) > 1 and batches[0].number > batches[-1].number:
        batches.rotate(-1)  # the one that had no other


def _through(batches: deque[_Batch], number: int, before: int) -> int:
    """Drop what is acknowledged through `number`; the position through which all is now held."""
    while batches and batches[0].number <= number:
        before = max(before, batches.popleft().position)
    return max(before, batches[0].floor) if batches else before
