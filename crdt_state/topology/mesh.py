"""A full mesh: everybody talks to everybody, and so nobody forwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.topology.contract import HOPS_MAX, others, turn_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Arrival, Dice

__all__ = ["Mesh"]


@dataclass(frozen=True, slots=True)
class Mesh:
    """n (n - 1) / 2 connections, one hop.

    What a broken connection withholds comes by anti-entropy, from whoever has it.
    """

    @property
    def hops_max(self) -> int:
        """No path is as long."""
        return HOPS_MAX

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """All others."""
        return others(members, me)

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """To all what was edited here, and nothing that came from a peer."""
        if arrival.came_from is not None or arrival.hops_left <= 0:
            return ()
        return others(peers, me, arrival.origin)

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """To all who came here, and nobody who came to a peer."""
        if arrival.came_from is not None:
            return ()
        return others(peers, me, arrival.origin)

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """Each peer in turn."""
        return turn_of(others(peers, me), turn)
