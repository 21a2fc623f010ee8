"""A star: one hub, and everybody talks to it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.topology.contract import HOPS_MAX, others

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Arrival, Dice

__all__ = ["Star"]


@dataclass(frozen=True, slots=True)
class Star:
    """`hub` forwards everything to all others; they forward nothing."""

    hub: ReplicaId

    @property
    def hops_max(self) -> int:
        """No path is as long."""
        return HOPS_MAX

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """The hub; of the hub, all."""
        return others(members, me) if me == self.hub else (self.hub,)

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """From the hub to all but the origin; from here to the hub what was edited here."""
        if arrival.hops_left <= 0:
            return ()
        if me == self.hub:
            return others(peers, me, arrival.came_from, arrival.origin)
        return (self.hub,) if arrival.came_from is None and self.hub in peers else ()

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """As what is edited: through the hub."""
        if me == self.hub:
            return others(peers, me, arrival.came_from, arrival.origin)
        return (self.hub,) if arrival.came_from is None and self.hub in peers else ()

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """The hub, every round; the hub itself is asked."""
        return self.hub if me != self.hub and self.hub in peers else None
