"""Gossip: everybody tells a few, chosen by dice, and compares with one now and then.

Telling f others at once reaches nearly all of n in about log n / log (f + 1) rounds, and misses
a share of about e^-f: A. Demers et al., "Epidemic algorithms for replicated database
maintenance" (1987).  Anti-entropy finds what telling has missed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crdt_state.topology.contract import others

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Arrival, Dice

__all__ = ["Gossip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """Random peers, `fan_out` of them for each thing that is new.

    An edit is sent on `hops_max` times in a row; a peer's larger number is cut down to that.
    Everybody compares with one peer every `rounds_between` rounds.
    """

    fan_out: int = 3
    hops_max: int = 16
    rounds_between: int = 10

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """`fan_out` others, by dice: ask anew in every round."""
        return self._some(others(members, me), self.fan_out, dice)

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """To `fan_out` of those who may not have it, by dice, while hops are left.

        What is sent on is `bounded(arrival).sent_on(me)`.
        """
        if arrival.hops_left <= 0:
            return ()
        return self._some(others(peers, me, arrival.came_from, arrival.origin), self.fan_out, dice)

    def bounded(self, arrival: Arrival) -> Arrival:
        """`arrival` with no more hops left than an edit of our own has."""
        return replace(arrival, hops_left=min(arrival.hops_left, self.hops_max))

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """To everybody who is connected: who is chosen by dice would be shown every other move."""
        return others(peers, me, arrival.came_from, arrival.origin)

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """Somebody, by dice, in every `rounds_between`th round."""
        if turn % self.rounds_between:
            return None
        partner = self._some(others(peers, me), 1, dice)
        return partner[0] if partner else None

    def _some(
        self, candidates: tuple[ReplicaId, ...], count: int, dice: Dice
    ) -> tuple[ReplicaId, ...]:
        return tuple(dice.sample(candidates, min(count, len(candidates))))
