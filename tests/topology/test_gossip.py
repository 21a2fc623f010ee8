"""Gossip: few are told, all know soon, and it ends."""

from __future__ import annotations

from math import ceil, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.topology.contract import Arrival
from crdt_state.topology.gossip import Gossip
from topology.replicas import delivered, replicas

ALL = replicas(20)
ME = ALL[3]


@given(st.integers(0, 2**32), st.integers(2, 200), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_all_know_within_a_few_times_log_n_rounds(seed: int, count: int, fan_out: int) -> None:
    """In a round, who has just learned tells `fan_out`, and each compares with one."""
    gossip, dice = Gossip(fan_out=fan_out, rounds_between=1), Random(seed)
    members = replicas(count)
    knows = {members[0]}
    told = [(members[0], Arrival(members[0], None, gossip.hops_max))]
    rounds = 0
    while len(knows) < count:
        onward = []
        for me, arrival in told:
            for peer in gossip.forward_to(me, arrival, members, dice):
                if peer not in knows:
                    knows.add(peer)
                    onward.append((peer, arrival.sent_on(me)))
        told = onward
        for me in members:
            partner = gossip.anti_entropy_partner(me, members, rounds, dice)
            assert partner != me
            if partner is not None and not knows.isdisjoint((me, partner)):
                knows |= {me, partner}
        rounds += 1
    assert rounds <= 2 * ceil(log2(count)) + 6


@pytest.mark.parametrize("seed", range(20))
def test_telling_alone_reaches_nearly_all(seed: int) -> None:
    gossip, dice = Gossip(fan_out=4, hops_max=16), Random(seed)
    members = replicas(200)
    knows = {members[0]}
    told = [(members[0], Arrival(members[0], None, gossip.hops_max))]
    while told:
        me, arrival = told.pop(0)
        for peer in gossip.forward_to(me, arrival, members, dice):
            if peer not in knows:
                knows.add(peer)
                told.append((peer, arrival.sent_on(me)))
    assert len(knows) >= 180


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 3))
@settings(deadline=None)
def test_forwarding_ends_though_everybody_takes_it_for_new(seed, hops, fan_out) -> None:
    gossip = Gossip(fan_out=fan_out, hops_max=hops)
    arrived = delivered(gossip, ME, ALL, hops_left=hops, is_seen_ignored=False, dice=Random(seed))
    assert sum(arrived.values()) <= sum(fan_out**hop for hop in range(1, hops + 1))


def test_a_peer_cannot_lengthen_the_way() -> None:
    gossip = Gossip(hops_max=4)
    assert gossip.bounded(Arrival(ALL[0], ALL[1], 10**9)).hops_left == 4
    assert gossip.bounded(Arrival(ALL[0], ALL[1], 2)).hops_left == 2


@given(st.integers(0, 2**32))
def test_nobody_is_told_what_it_told(seed: int) -> None:
    arrival = Arrival(ALL[0], came_from=ALL[1])
    peers = Gossip(fan_out=3).forward_to(ME, arrival, ALL, Random(seed))
    assert len(set(peers)) == 3
    assert {ME, ALL[0], ALL[1]}.isdisjoint(peers)


def test_the_same_dice_choose_the_same_peers_whatever_the_order() -> None:
    gossip = Gossip(fan_out=3)
    chosen = {
        gossip.neighbours(ME, members, Random(5)) for members in (ALL, ALL[::-1], frozenset(ALL))
    }
    assert len(chosen) == 1
    assert gossip.neighbours(ME, ALL, Random(5)) != gossip.neighbours(ME, ALL, Random(6))


def test_fewer_members_than_the_fan_out_are_all_told() -> None:
    gossip = Gossip(fan_out=3)
    assert set(gossip.neighbours(ME, (ME, ALL[0]), Random(1))) == {ALL[0]}
    assert gossip.neighbours(ME, (ME,), Random(1)) == ()
    assert gossip.anti_entropy_partner(ME, (ME,), 0, Random(1)) is None


def test_a_partner_is_chosen_now_and_then() -> None:
    gossip = Gossip(rounds_between=10)
    chosen = [gossip.anti_entropy_partner(ME, ALL, turn, Random(turn)) for turn in range(21)]
    assert [turn for turn, partner in enumerate(chosen) if partner] == [0, 10, 20]
