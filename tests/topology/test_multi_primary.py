"""Several primaries, each edit through one of them, everybody reached once."""

from __future__ import annotations

from random import Random

from crdt_state.topology.contract import Arrival
from crdt_state.topology.multi_primary import MultiPrimary
from topology.replicas import delivered, replicas

ALL = replicas(40)
PRIMARIES, REST = ALL[:4], ALL[4:]
TOPOLOGY = MultiPrimary(frozenset(PRIMARIES))
DICE = Random(1)


def test_primaries_are_connected_to_one_another_and_the_rest_to_one_of_them() -> None:
    assert TOPOLOGY.neighbours(ALL[0], ALL, DICE) == ALL[1:4]
    for me in REST:
        (primary,) = TOPOLOGY.neighbours(me, ALL, DICE)
        assert primary in PRIMARIES


def test_an_edit_reaches_everybody_once_wherever_it_is_made() -> None:
    for origin in ALL:
        assert delivered(TOPOLOGY, origin, ALL) == dict.fromkeys(set(ALL) - {origin}, 1)


def test_an_edit_ends_though_everybody_takes_it_for_new() -> None:
    for origin in ALL:
        arrived = delivered(TOPOLOGY, origin, ALL, is_seen_ignored=False)
        assert arrived == dict.fromkeys(set(ALL) - {origin}, 1)


def test_what_a_primary_brought_goes_to_no_other_primary() -> None:
    arrival = Arrival(ALL[1], came_from=ALL[1])
    assert TOPOLOGY.forward_to(ALL[0], arrival, ALL[1:6], DICE) == ALL[4:6]


def test_only_those_who_talked_to_a_primary_move_when_it_goes() -> None:
    alive = ALL[1:]
    before = {me: TOPOLOGY.primary_of(me, ALL) for me in REST}
    after = {me: TOPOLOGY.primary_of(me, alive) for me in REST}
    moved = {me for me in REST if before[me] != after[me]}
    assert moved == {me for me in REST if before[me] == ALL[0]}
    assert moved
    assert len({after[me] for me in moved}) > 1
    assert TOPOLOGY.neighbours(REST[0], REST, DICE) == ()


def test_anti_entropy_is_with_each_primary_in_turn() -> None:
    partners = [TOPOLOGY.anti_entropy_partner(ALL[0], ALL, turn, DICE) for turn in range(4)]
    assert partners == [*ALL[1:4], ALL[1]]
    assert TOPOLOGY.anti_entropy_partner(REST[0], (ALL[2], REST[1]), 3, DICE) == ALL[2]
