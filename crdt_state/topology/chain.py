"""A chain: writes enter at the head, pass from each to the next, and are held by all at the tail.

Chain replication (R. van Renesse, F. Schneider, 2004).  Order and epoch come from configuration:
whoever changes the order raises the epoch, and from then on what was said in an older one does
not count.  So a member that was cut out cannot acknowledge, or be acknowledged to.

1. Acknowledged means held by all members of this epoch.
2. An epoch has one order.

Replicas outside of the order may read: they talk to the tail, where everything is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import EpochOutdated, NotHead, UsageError
from crdt_state.topology.contract import HOPS_MAX, others

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Arrival, Dice

__all__ = ["Chain"]


@dataclass(frozen=True, slots=True)
class Chain:
    """One configuration: `order` from head to tail, in `epoch`.

    Raises `UsageError` when made of no member, or of one twice.
    """

    order: tuple[ReplicaId, ...]
    epoch: int

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) != len(self.order):
            raise UsageError("a chain has at least one member, and none of them twice")

    @property
    def head(self) -> ReplicaId:
        """Where writes enter."""
        return self.order[0]

    @property
    def tail(self) -> ReplicaId:
        """Where what is held is held by all."""
        return self.order[-1]

    def successor(self, member: ReplicaId) -> ReplicaId | None:
        """Who comes after; None after the tail, and after whoever is in no order."""
        return self._beside(member, 1)

    def predecessor(self, member: ReplicaId) -> ReplicaId | None:
        """Who comes before; None before the head, and before whoever is in no order."""
        return self._beside(member, -1)

    def check_write(self, me: ReplicaId) -> None:
        """Raise `NotHead` unless a write may enter at `me`."""
        if me != self.head:
            raise NotHead(self.head)

    def check_epoch(self, epoch: int) -> None:
        """Raise `EpochOutdated` if a frame of `epoch` no longer counts."""
        if epoch < self.epoch:
            raise EpochOutdated(epoch, self.epoch)

    def replaced_by(self, other: Chain) -> Chain:
        """`other`, which is of a later epoch or the same as this.

        Raises `EpochOutdated` if it is older, `UsageError` if it is another order of this epoch.
        """
        self.check_epoch(other.epoch)
        if other.epoch == self.epoch and other.order != self.order:
            raise UsageError(f"epoch {self.epoch} has another order already; raise the epoch")
        return other

    def is_acknowledged(self, held_by: Collection[ReplicaId]) -> bool:
        """Whether what these replicas hold is held by all members of this epoch."""
        return set(self.order).issubset(held_by)

    @property
    def hops_max(self) -> int:
        """No path is as long."""
        return HOPS_MAX

    def neighbours(
        self, me: ReplicaId, members: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """Predecessor and successor; of a replica outside, the tail."""
        if me not in self.order:
            return (self.tail,)
        beside = (self.predecessor(me), self.successor(me))
        return tuple(member for member in beside if member is not None)

    def forward_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId], dice: Dice
    ) -> tuple[ReplicaId, ...]:
        """To the successor; by the tail, to those outside.  Nothing goes towards the head."""
        if arrival.hops_left <= 0 or me not in self.order:
            return ()
        if me == self.tail:
            return others(peers, me, arrival.came_from, arrival.origin, *self.order)
        successor = self.successor(me)
        if successor is None or successor not in peers or successor == arrival.came_from:
            return ()
        return (successor,)

    def show_to(
        self, me: ReplicaId, arrival: Arrival, peers: Collection[ReplicaId]
    ) -> tuple[ReplicaId, ...]:
        """In both directions: people read at the tail, and write at the head."""
        return others(peers, me, arrival.came_from, arrival.origin)

    def anti_entropy_partner(
        self, me: ReplicaId, peers: Collection[ReplicaId], turn: int, dice: Dice
    ) -> ReplicaId | None:
        """The predecessor, who holds all that is held here; from outside, the tail."""
        partner = self.predecessor(me) if me in self.order else self.tail
        return partner if partner in peers else None

    def _beside(self, member: ReplicaId, step: int) -> ReplicaId | None:
        if member not in self.order:
            return None
        at = self.order.index(member) + step
        return self.order[at] if 0 <= at < len(self.order) else None
