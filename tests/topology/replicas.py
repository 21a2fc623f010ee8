"""Replicas to arrange, and what becomes of one edit among them."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING

from crdt_state.identifiers import ReplicaId
from crdt_state.topology.contract import HOPS_MAX, Arrival

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.topology.contract import Topology


def replicas(count: int) -> tuple[ReplicaId, ...]:
    return tuple(ReplicaId(number.to_bytes(16, "big")) for number in range(1, count + 1))


def delivered(
    topology: Topology,
    origin: ReplicaId,
    members: Collection[ReplicaId],
    *,
    hops_left: int = HOPS_MAX,
    is_seen_ignored: bool = True,
    dice: Random | None = None,
) -> dict[ReplicaId, int]:
    """How often one edit arrives at whom, where connections are as the topology wants them.

    Without `is_seen_ignored`, everybody takes everything that arrives for new.
    """
    dice = dice or Random(0)
    connected: dict[ReplicaId, set[ReplicaId]] = {member: set() for member in members}
    for member in members:
        for other in topology.neighbours(member, members, dice):
            connected[member].add(other)
            connected[other].add(member)
    arrived: Counter[ReplicaId] = Counter()
    waiting = deque([(origin, Arrival(origin, None, hops_left))])
    while waiting:
        me, arrival = waiting.popleft()
        is_new = me != origin and not arrived[me]
        if arrival.came_from is not None:
            arrived[me] += 1
            if is_seen_ignored and not is_new:
                continue
        for peer in topology.forward_to(me, arrival, connected[me], dice):
            assert peer in connected[me]
            assert peer not in (me, origin, arrival.came_from)
            waiting.append((peer, arrival.sent_on(me)))
    return dict(arrived)
