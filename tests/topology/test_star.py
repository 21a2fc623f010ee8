"""A star: the hub forwards to all but the origin, and nobody else forwards."""

from __future__ import annotations

from random import Random

from crdt_state.topology.contract import Arrival
from crdt_state.topology.star import Star
from topology.replicas import delivered, replicas

HUB, ANNE, BERT, CARL = ALL = replicas(4)
STAR = Star(HUB)
DICE = Random(1)


def test_everybody_is_connected_to_the_hub() -> None:
    assert STAR.neighbours(ANNE, ALL, DICE) == (HUB,)
    assert STAR.neighbours(HUB, ALL, DICE) == (ANNE, BERT, CARL)


def test_the_hub_forwards_to_all_but_the_origin() -> None:
    arrival = Arrival(ANNE, came_from=ANNE)
    assert STAR.forward_to(HUB, arrival, (ANNE, BERT, CARL), DICE) == (BERT, CARL)


def test_the_hub_sends_its_own_edits_to_all() -> None:
    arrival = Arrival(HUB, came_from=None)
    assert STAR.forward_to(HUB, arrival, (ANNE, BERT), DICE) == (ANNE, BERT)


def test_who_is_not_the_hub_sends_what_it_edits_to_the_hub_only() -> None:
    edited = Arrival(ANNE, came_from=None)
    assert STAR.forward_to(ANNE, edited, (HUB, BERT), DICE) == (HUB,)
    assert STAR.forward_to(ANNE, edited, (BERT,), DICE) == ()


def test_who_is_not_the_hub_forwards_nothing() -> None:
    assert STAR.forward_to(ANNE, Arrival(BERT, came_from=HUB), (HUB, CARL), DICE) == ()


def test_an_edit_reaches_everybody_once() -> None:
    for origin in ALL:
        reached = delivered(STAR, origin, ALL)
        assert reached == dict.fromkeys(set(ALL) - {origin}, 1)


def test_anti_entropy_is_with_the_hub() -> None:
    assert STAR.anti_entropy_partner(ANNE, (HUB, BERT), 7, DICE) == HUB
    assert STAR.anti_entropy_partner(ANNE, (BERT,), 7, DICE) is None
    assert STAR.anti_entropy_partner(HUB, (ANNE, BERT), 7, DICE) is None
