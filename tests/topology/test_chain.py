"""A chain: writes at the head, in order to the tail, acknowledged when all hold them."""

from __future__ import annotations

from random import Random

import pytest

from crdt_state.errors import EpochOutdated, NotHead, UpdateRefused, UsageError
from crdt_state.topology.chain import Chain
from crdt_state.topology.contract import Arrival
from topology.replicas import delivered, replicas

ANNE, BERT, CARL, DORA = ALL = replicas(4)
CHAIN = Chain((CARL, ANNE, BERT), epoch=3)
DICE = Random(1)


def test_the_order_is_that_of_the_configuration() -> None:
    assert (CHAIN.head, CHAIN.tail) == (CARL, BERT)
    assert [CHAIN.successor(member) for member in ALL] == [BERT, None, ANNE, None]
    assert [CHAIN.predecessor(member) for member in ALL] == [CARL, ANNE, None, None]


def test_a_write_elsewhere_than_at_the_head_names_the_head() -> None:
    CHAIN.check_write(CARL)
    for member in (ANNE, BERT, DORA):
        with pytest.raises(NotHead, match=CARL.hex()) as caught:
            CHAIN.check_write(member)
        assert caught.value.head == CARL
        assert isinstance(caught.value, UpdateRefused)
        assert caught.value.code == 4421


def test_frames_of_older_epochs_are_refused() -> None:
    CHAIN.check_epoch(3)
    CHAIN.check_epoch(4)
    with pytest.raises(EpochOutdated, match="epoch 2 has ended") as caught:
        CHAIN.check_epoch(2)
    assert (caught.value.epoch, caught.value.current) == (2, 3)


def test_a_configuration_with_a_higher_epoch_replaces() -> None:
    shorter = Chain((ANNE, BERT), epoch=4)
    assert CHAIN.replaced_by(shorter) == shorter
    assert CHAIN.replaced_by(CHAIN) == CHAIN
    with pytest.raises(EpochOutdated):
        shorter.replaced_by(CHAIN)


def test_an_epoch_has_one_order() -> None:
    with pytest.raises(UsageError, match="another order"):
        CHAIN.replaced_by(Chain((ANNE, BERT, CARL), epoch=3))


@pytest.mark.parametrize("order", [(), (ANNE, ANNE)])
def test_a_chain_of_nobody_or_of_one_twice_is_refused(order) -> None:
    with pytest.raises(UsageError, match="at least one"):
        Chain(order, epoch=1)


def test_acknowledged_means_held_by_all_of_this_epoch() -> None:
    assert not CHAIN.is_acknowledged({CARL, ANNE, DORA})
    assert CHAIN.is_acknowledged({CARL, ANNE, BERT, DORA})
    assert Chain((ANNE, BERT), epoch=4).is_acknowledged({ANNE, BERT})


def test_a_write_passes_from_each_to_the_next_and_then_to_those_outside() -> None:
    assert delivered(CHAIN, CARL, ALL) == {ANNE: 1, BERT: 1, DORA: 1}
    assert CHAIN.forward_to(CARL, Arrival(CARL, None), (ANNE, BERT), DICE) == (ANNE,)
    assert CHAIN.forward_to(ANNE, Arrival(CARL, CARL), (BERT, CARL), DICE) == (BERT,)
    assert CHAIN.forward_to(BERT, Arrival(CARL, ANNE), (ANNE, CARL, DORA), DICE) == (DORA,)


def test_nothing_goes_back_towards_the_head_or_past_a_broken_connection() -> None:
    assert CHAIN.forward_to(ANNE, Arrival(BERT, BERT), (BERT, CARL), DICE) == ()
    assert CHAIN.forward_to(CARL, Arrival(CARL, None), (BERT,), DICE) == ()


def test_everybody_is_connected_to_those_beside_them() -> None:
    assert CHAIN.neighbours(ANNE, ALL, DICE) == (CARL, BERT)
    assert CHAIN.neighbours(CARL, ALL, DICE) == (ANNE,)
    assert CHAIN.neighbours(DORA, ALL, DICE) == (BERT,)


def test_anti_entropy_is_with_the_predecessor() -> None:
    assert CHAIN.anti_entropy_partner(BERT, ALL, 5, DICE) == ANNE
    assert CHAIN.anti_entropy_partner(CARL, ALL, 5, DICE) is None
    assert CHAIN.anti_entropy_partner(DORA, ALL, 5, DICE) == BERT
    assert CHAIN.anti_entropy_partner(BERT, (CARL,), 5, DICE) is None
