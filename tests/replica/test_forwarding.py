"""Who is owed what, where a topology has the say."""

from __future__ import annotations

from random import Random

from crdt_state.identifiers import ReplicaId
from crdt_state.replica.forwarding import Forwarding, member_name
from crdt_state.topology.chain import Chain
from crdt_state.topology.contract import HOPS_MAX
from crdt_state.topology.gossip import Gossip
from crdt_state.topology.mesh import Mesh

A, B, C = "ws://a:1", "ws://b:1", "ws://c:1"
ELSEWHERE = "ws://phone:1"
REMOTES = [(10, B), (11, C), (12, ELSEWHERE)]
REPLICA_OF_B = ReplicaId(b"B" * 16)
LOCAL, VISIT_OF_B, VISIT_OF_SOMEBODY = 0, 20, 21
BRINGERS = {VISIT_OF_B: REPLICA_OF_B, VISIT_OF_SOMEBODY: ReplicaId(b"?" * 16)}


def mesh_of_three() -> Forwarding:
    forwarding = Forwarding(member_name(A), Mesh(), Random(1))
    forwarding.members = {address: member_name(address) for address in (B, C)}
    forwarding.peers = tuple(forwarding.members.values())
    forwarding.names[REPLICA_OF_B] = member_name(B)
    return forwarding


def owed(forwarding: Forwarding, *sources: int, hops: int = HOPS_MAX) -> list[str]:
    said = dict.fromkeys(sources, hops)
    return [remote for _, remote in forwarding.narrowed(REMOTES, said, BRINGERS)]


def test_what_is_edited_here_is_owed_to_every_member() -> None:
    assert owed(mesh_of_three(), LOCAL) == [B, C, ELSEWHERE]


def test_what_a_member_brings_to_all_itself_is_owed_to_no_other_member() -> None:
    assert owed(mesh_of_three(), VISIT_OF_B) == [ELSEWHERE]


def test_what_came_over_our_own_link_to_a_member_is_owed_to_no_other_member() -> None:
    assert owed(mesh_of_three(), 10) == [ELSEWHERE]


def test_what_somebody_unknown_brings_counts_as_edited_here() -> None:
    assert owed(mesh_of_three(), VISIT_OF_SOMEBODY) == [B, C, ELSEWHERE]


def test_of_several_who_brought_something_in_one_commit_each_counts() -> None:
    assert owed(mesh_of_three(), VISIT_OF_B, LOCAL) == [B, C, ELSEWHERE]


def test_in_a_chain_nothing_is_owed_towards_the_head() -> None:
    chain = Chain(tuple(map(member_name, (B, A, C))), 1)
    forwarding = Forwarding(member_name(A), chain, Random(1))
    forwarding.members = {address: member_name(address) for address in (B, C)}
    forwarding.peers = tuple(forwarding.members.values())
    forwarding.names[REPLICA_OF_B] = member_name(B)
    assert owed(forwarding, VISIT_OF_B) == [C, ELSEWHERE]


def test_what_has_no_hops_left_is_owed_to_no_member() -> None:
    gossip = Forwarding(member_name(A), Gossip(hops_max=4), Random(1))
    gossip.members = {address: member_name(address) for address in (B, C)}
    gossip.peers = tuple(gossip.members.values())
    assert gossip.hops_max == 4
    assert owed(gossip, VISIT_OF_SOMEBODY, hops=1) == [B, C, ELSEWHERE]
    assert owed(gossip, VISIT_OF_SOMEBODY, hops=0) == [ELSEWHERE]
