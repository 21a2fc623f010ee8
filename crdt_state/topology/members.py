"""Who is known: replicas with their addresses, from configuration and from what peers tell.

Peers' tales are hearsay, so they may add and refresh, within bounds, and not take away:

1. Whoever was configured stays, at the address that was configured.
2. Whoever is known stays until forgotten; newcomers take free places only.  So a peer that makes
   up thousands pushes nobody out.
3. What a replica says of itself over its own connection counts more than any tale about it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crdt_state.errors import LimitExceeded
from crdt_state.topology.contract import others

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.identifiers import ReplicaId
    from crdt_state.topology.contract import Dice

__all__ = ["Member", "MemberList"]


@dataclass(frozen=True, slots=True)
class Member:
    """A replica, where it can be dialled, and a number that it raises while it lives.

    Of two tales about one replica, the one with the higher `seen` is the later.
    """

    replica: ReplicaId
    address: str
    seen: int = 0
    is_configured: bool = False


@dataclass(frozen=True, slots=True)
class MemberList:
    """At most `members_max` members, by replica id; every verb returns another list."""

    members_max: int
    address_bytes_max: int
    members: tuple[Member, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    @property
    def replicas(self) -> tuple[ReplicaId, ...]:
        """The ids, in order."""
        return tuple(member.replica for member in self.members)

    def find(self, replica: ReplicaId) -> Member | None:
        """What is known of a replica."""
        return next((member for member in self.members if member.replica == replica), None)

    def configured(self, replica: ReplicaId, address: str) -> MemberList:
        """With a member that stays.  Raises `LimitExceeded` if no place is free for it."""
        by_id = self._by_id()
        known = by_id.get(replica)
        by_id[replica] = Member(replica, address, known.seen if known else 0, is_configured=True)
        if len(by_id) > self.members_max:
            raise LimitExceeded("members_max", self.members_max, len(by_id))
        return self._with(by_id)

    def merged(self, tales: Iterable[Member], *, me: ReplicaId) -> MemberList:
        """With what a peer tells, as far as there are places.

        Tales about `me`, and addresses beyond the bound, are ignored.
        """
        by_id = self._by_id()
        newcomers: dict[ReplicaId, Member] = {}
        for tale in tales:
            if tale.replica == me or len(tale.address.encode()) > self.address_bytes_max:
                continue
            # Nobody is configured by being talked about.
            heard = replace(tale, is_configured=False)
            known = by_id.get(tale.replica)
            if known is not None:
                by_id[tale.replica] = _later(known, heard)
            elif len(newcomers) < self.members_max or tale.replica in newcomers:
                newcomers[tale.replica] = _later(newcomers.get(tale.replica, heard), heard)
        free = max(0, self.members_max - len(by_id))
        for replica in others(newcomers)[:free]:
            by_id[replica] = newcomers[replica]
        return self._with(by_id)

    def met(self, replica: ReplicaId, address: str, seen: int) -> MemberList:
        """With what a replica says of itself, even if a tale about it claimed to be later."""
        by_id = self._by_id()
        known = by_id.get(replica)
        if len(address.encode()) > self.address_bytes_max:
            return self
        if known is None and len(by_id) >= self.members_max:
            return self
        if known is not None and known.is_configured:
            by_id[replica] = replace(known, seen=seen)
        else:
            by_id[replica] = Member(replica, address, seen)
        return self._with(by_id)

    def without(self, replicas: Iterable[ReplicaId]) -> MemberList:
        """Without those that have been silent for too long; whoever was configured stays."""
        silent = set(replicas)
        kept = (m for m in self.members if m.is_configured or m.replica not in silent)
        return replace(self, members=tuple(kept))

    def told(self, count: int, dice: Dice) -> tuple[Member, ...]:
        """At most `count` members, by dice, to tell a peer."""
        return tuple(dice.sample(self.members, min(count, len(self.members))))

    def _by_id(self) -> dict[ReplicaId, Member]:
        return {member.replica: member for member in self.members}

    def _with(self, by_id: dict[ReplicaId, Member]) -> MemberList:
        return replace(self, members=tuple(by_id[replica] for replica in sorted(by_id)))


def _later(known: Member, tale: Member) -> Member:
    """The later of two; at the same number the larger address, so that the order is nothing."""
    if known.is_configured:
        return replace(known, seen=max(known.seen, tale.seen))
    return max(known, tale, key=lambda member: (member.seen, member.address))
