"""What a topology is asked, and what is known when it is asked.

1. Nothing goes back to the peer that it came from, or to the replica that it began at.
2. Only peers among those connected are named, each once, in an order that depends on nothing
   but the arguments.

Whether something is new is decided before, by ranges and deletes: what brings nothing new is not
forwarded at all.  So a hop limit is a second guard, and the first against two replicas that
disagree about what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crdt_state.identifiers import ReplicaId

__all__ = ["HOPS_MAX", "Arrival", "Dice", "Topology", "dials", "others", "turn_of"]

T = TypeVar("T")

HOPS_MAX = 32
"""For topologies in which a path has an end of its own, a bound that no sane one meets."""


class Dice(Protocol):
    """Where chance comes from: a `random.Random`, seeded by whoever wants to repeat a run."""

    def sample(self, population: Sequence[T], k: int, /) -> list[T]:
        """`k` of `population`, no place in it twice."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something new here: where it was edited, and how it came.

    `came_from` is the peer that brought it, None if it was edited here.  `hops_left` says how
    often it may still be sent on.
    """

    origin: ReplicaId
    came_from: ReplicaId | None
    hops_left: int = HOPS_MAX

    def sent_on(self, sender: ReplicaId) -> Arrival:
        """The same as it arrives at whoever `sender` sends it to."""
        return Arrival(self.origin, sender, self.hops_left - 1)


class Topology(Protocol):
    """Who talks to whom."""

    @property
    def hops_max(self) -> int:
        """How often an edit is sent on at most."""

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """Whom `me` should be connected to."""

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """To which of its connected `peers` `me` sends what has arrived."""

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """To which of its connected `peers` `me` shows who is here; nobody compares that later.

        Not by dice: who is shown an entry is also to be told when it is gone.
        """

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """With which of its `peers` `me` compares everything in this round; None: with nobody."""


def others(members: Collection[ReplicaId], *without: ReplicaId | None) -> tuple[ReplicaId, ...]:
    """`members` in the order of their ids, but for some: sets have no order to repeat a run by."""
    return tuple(sorted(set(members).difference(without)))


def turn_of(peers: Collection[ReplicaId], turn: int) -> ReplicaId | None:
    """Whose turn it is, so that each of n has one in n rounds."""
    ordered = others(peers)
    return ordered[turn % len(ordered)] if ordered else None


def dials(me: ReplicaId, other: ReplicaId) -> bool:
    """Whether `me` is the one of two who dials, where each wants to be connected to the other."""
    return me < other
