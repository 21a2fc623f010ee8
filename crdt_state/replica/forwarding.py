"""To whom a replica owes what somebody brought, where a topology has the say.

A replica owes every remote what others bring.  Among members of a topology its rule is asked: so
in a full mesh nobody is owed what its author brings to everybody himself.

Members are known here by *names*, because an address is known from the configuration before
anybody has met, and which replica lives there only afterwards: `member_name` of its address.

1. A remote that is no member is owed everything, whatever the topology says.
2. What comes from somebody unknown counts as edited here: it is owed once too often, never once
   too little.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from crdt_state.identifiers import ReplicaId
from crdt_state.topology.contract import Arrival

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crdt_state.model.awareness_room import Route
    from crdt_state.topology.contract import Dice, Topology

__all__ = ["Forwarding", "member_name"]

NAME_BYTES = 16


def member_name(address: str) -> ReplicaId:
    """By what a topology knows whoever can be dialled at `address`."""
    return ReplicaId(hashlib.sha256(address.encode()).digest()[:NAME_BYTES])


class Forwarding:
    """The rule of one topology, as `ReplicaCore` asks it once a commit and document."""

    def __init__(self, me: ReplicaId, topology: Topology, dice: Dice) -> None:
        self.members: Mapping[str, ReplicaId] = {}
        """Members by their addresses, this one left out."""
        self.peers: tuple[ReplicaId, ...] = ()
        """Those that this replica is to be connected to now."""
        self.names: dict[ReplicaId, ReplicaId] = {}
        """Names of the replicas that have been met."""
        self._me = me
        self._topology = topology
        self._dice = dice

    @property
    def hops_max(self) -> int:
        """How often what is edited here is sent on at most."""
        return self._topology.hops_max

    def shows(self, route: Route | None, peer: ReplicaId | None) -> bool:
        """Whether awareness that came by `route` goes on to `peer`, by the topology's rule.

        Whoever is no member is shown everything, and whoever has not been met may be one.
        """
        to = None if peer is None else self.names.get(peer)
        if to is None:
            return True
        came_from = None if route is None else self.names.get(route.via)
        origin = None if route is None else self.names.get(route.origin)
        arrival = Arrival(origin or self._me, came_from)
        return to in self._topology.show_to(self._me, arrival, (to,))

    def narrowed(
        self,
        remotes: Sequence[tuple[int, str]],
        hops: Mapping[int, int],
        bringers: Mapping[int, ReplicaId],
    ) -> list[tuple[int, str]]:
        """Those of `remotes`, each with its source, that are owed what sources have brought.

        `hops` says of each source how often that may be sent on, `bringers` which replica brings
        under a source, of those that have dialled us.
        """
        of_links = {source: self.members.get(remote) for source, remote in remotes}
        reached: set[ReplicaId] = set()
        for source, hops_left in sorted(hops.items()):
            came_from = of_links.get(source)
            if came_from is None and source in bringers:
                came_from = self.names.get(bringers[source])
            arrival = Arrival(came_from or self._me, came_from, hops_left)
            reached.update(self._topology.forward_to(self._me, arrival, self.peers, self._dice))
        return [
            (source, remote)
            for source, remote in remotes
            if remote not in self.members or self.members[remote] in reached
        ]
