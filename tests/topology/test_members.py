"""Who is known: tales add and refresh within bounds, and take nobody away."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import LimitExceeded
from crdt_state.topology.members import Member, MemberList
from topology.replicas import replicas

ME, ANNE, BERT, CARL = replicas(4)
MANY = replicas(300)
EMPTY = MemberList(members_max=8, address_bytes_max=100)

TALES = st.lists(
    st.builds(
        Member, st.sampled_from(MANY[:12]), st.sampled_from(["ws://a", "ws://b"]), st.integers(0, 3)
    ),
    max_size=20,
)


def test_a_later_tale_replaces_an_earlier_one() -> None:
    known = EMPTY.merged([Member(ANNE, "ws://old", 1)], me=ME)
    known = known.merged([Member(ANNE, "ws://new", 2)], me=ME)
    assert known.merged([Member(ANNE, "ws://old", 1)], me=ME) == known
    assert known.find(ANNE) == Member(ANNE, "ws://new", 2)


@given(TALES, TALES)
def test_below_the_bound_tales_may_come_in_any_order_and_twice(one, other) -> None:
    roomy = MemberList(members_max=100, address_bytes_max=100)
    known = roomy.merged(one, me=ME).merged(other, me=ME)
    assert known == roomy.merged(other, me=ME).merged(one, me=ME)
    assert known == known.merged(one + other, me=ME)


@given(TALES, TALES)
def test_who_is_known_is_not_pushed_out(one, other) -> None:
    known = EMPTY.merged(one, me=ME)
    more = known.merged(other, me=ME)
    assert set(known.replicas) <= set(more.replicas)
    assert len(more) <= 8
    assert list(more.replicas) == sorted(more.replicas)
    assert ME not in more.replicas


def test_a_peer_that_makes_up_thousands_fills_free_places_only() -> None:
    known = EMPTY.configured(BERT, "ws://bert").merged([Member(ANNE, "ws://anne", 1)], me=ME)
    flood = (Member(replica, "ws://liar", 2**53) for replica in MANY[4:])
    flooded = known.merged(flood, me=ME)
    assert len(flooded) == 8
    assert flooded.find(ANNE) == Member(ANNE, "ws://anne", 1)
    assert flooded.find(BERT) == known.find(BERT)


def test_an_address_that_was_configured_stays() -> None:
    known = EMPTY.configured(ANNE, "ws://anne")
    known = known.merged([Member(ANNE, "ws://liar", 9)], me=ME).met(ANNE, "ws://elsewhere", 3)
    assert known.find(ANNE) == Member(ANNE, "ws://anne", 3, is_configured=True)
    assert known.without([ANNE]) == known


def test_nobody_is_configured_by_a_tale() -> None:
    known = EMPTY.merged([Member(ANNE, "ws://a", 1, is_configured=True)], me=ME)
    known = known.merged([Member(ANNE, "ws://b", 2, is_configured=True)], me=ME)
    assert known.find(ANNE) == Member(ANNE, "ws://b", 2)


def test_what_a_replica_says_of_itself_counts_more_than_a_tale() -> None:
    known = EMPTY.merged([Member(ANNE, "ws://liar", 2**53)], me=ME)
    assert known.met(ANNE, "ws://anne", 5).find(ANNE) == Member(ANNE, "ws://anne", 5)


def test_what_is_beyond_a_bound_is_ignored() -> None:
    assert len(EMPTY.merged([Member(ANNE, "x" * 101, 1)], me=ME)) == 0
    assert len(EMPTY.met(ANNE, "x" * 101, 1)) == 0
    full = EMPTY.merged([Member(replica, "ws://x") for replica in MANY[4:12]], me=ME)
    assert full.met(ANNE, "ws://anne", 1) == full


def test_configuring_more_than_there_are_places_is_the_callers_mistake() -> None:
    full = EMPTY
    for replica in MANY[:8]:
        full = full.configured(replica, "ws://x")
    with pytest.raises(LimitExceeded, match="members_max"):
        full.configured(MANY[8], "ws://x")


def test_who_was_silent_is_forgotten() -> None:
    known = EMPTY.merged([Member(ANNE, "ws://a"), Member(BERT, "ws://b")], me=ME)
    assert known.without([ANNE]).replicas == (BERT,)


def test_a_peer_is_told_of_a_few_by_dice() -> None:
    known = EMPTY.merged([Member(replica, "ws://x") for replica in MANY[1:7]], me=ME)
    told = known.told(3, Random(1))
    assert len(set(told)) == 3
    assert told == known.told(3, Random(1))
    assert set(known.told(99, Random(1))) == set(known.members)
