"""Several primaries: a full mesh of those, and everybody else talks to one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.topology.contract import HOPS_MAX, others, turn_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Arrival, Dice

__all__ = ["MultiPrimary"]


@dataclass(frozen=True, slots=True)
class MultiPrimary:
    """Any primary takes writes; what is edited elsewhere goes through a primary.

    At most three hops: to a primary, to the others, to those who talk to them.
    """

    primaries: frozenset[ReplicaId]

    def primary_of(self, me: ReplicaId, members: Collection[ReplicaId]) -> ReplicaId | None:
        """Which primary among `members` `me` talks to, if it is none itself.

        By rendezvous hashing (D. Thaler, C. Ravishankar, 1998): when a primary goes, only those
        who talked to it move, and they spread over all that are left.
        """
        known = self.primaries.intersection(members)
        return max(known, key=lambda primary: hashlib.sha256(me + primary).digest(), default=None)

    @property
    def hops_max(self) -> int:
        """No path is as long."""
        return HOPS_MAX

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """Of a primary, the other primaries; of anybody else, one primary."""
        if me in self.primaries:
            return others(self.primaries.intersection(members), me)
        primary = self.primary_of(me, members)
        return () if primary is None else (primary,)

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """By a primary: to the other primaries what none of those brought, to the rest all."""
        if arrival.hops_left <= 0:
            return ()
        reached = others(peers, me, arrival.came_from, arrival.origin)
        if me not in self.primaries:
            return self._primaries_of(reached) if arrival.came_from is None else ()
        if arrival.came_from in self.primaries:
            return tuple(peer for peer in reached if peer not in self.primaries)
        return reached

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """As what is edited: among primaries once, and to those who talk to them."""
        reached = others(peers, me, arrival.came_from, arrival.origin)
        if me not in self.primaries:
            return self._primaries_of(reached) if arrival.came_from is None else ()
        if arrival.came_from in self.primaries:
            return tuple(peer for peer in reached if peer not in self.primaries)
        return reached

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """Each primary that is connected, in turn."""
        return turn_of(self._primaries_of(others(peers, me)), turn)

    def _primaries_of(self, peers: tuple[ReplicaId, ...]) -> tuple[ReplicaId, ...]:
        return tuple(peer for peer in peers if peer in self.primaries)
