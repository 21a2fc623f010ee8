"""A full mesh: everybody tells everybody, and nobody forwards."""

from __future__ import annotations

from random import Random

from crdt_state.topology.contract import Arrival, dials
from crdt_state.topology.mesh import Mesh
from topology.replicas import delivered, replicas

ANNE, BERT, CARL, DORA = ALL = replicas(4)
MESH = Mesh()
DICE = Random(1)


def test_everybody_is_connected_to_everybody() -> None:
    assert MESH.neighbours(BERT, ALL, DICE) == (ANNE, CARL, DORA)


def test_of_two_that_want_to_be_connected_one_dials() -> None:
    assert all(
        dials(one, other) != dials(other, one) for one in ALL for other in ALL if one != other
    )


def test_nothing_that_came_from_a_peer_is_forwarded() -> None:
    assert MESH.forward_to(ANNE, Arrival(BERT, came_from=BERT), ALL, DICE) == ()
    assert MESH.forward_to(ANNE, Arrival(BERT, came_from=CARL), ALL, DICE) == ()


def test_an_edit_reaches_everybody_once() -> None:
    for origin in ALL:
        assert delivered(MESH, origin, ALL) == dict.fromkeys(set(ALL) - {origin}, 1)


def test_everybody_compares_with_everybody_in_turn() -> None:
    partners = [MESH.anti_entropy_partner(BERT, ALL, turn, DICE) for turn in range(6)]
    assert partners == [ANNE, CARL, DORA, ANNE, CARL, DORA]
    assert MESH.anti_entropy_partner(BERT, (BERT,), 0, DICE) is None
