"""The counter: exact, one entry an incarnation, and not larger for being used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import LimitExceeded, ValueNotStorable
from crdt_state.model.counter import Counter, CounterEvent
from offline_sites import ForeignProgram, Site, meet, size_of


def likes(site: Site) -> Counter:
    return site.document.counter("likes")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1000, 1000), st.booleans())))
def test_the_value_is_the_sum_of_what_everyone_counted(
    steps: list[tuple[int, int, bool]],
) -> None:
    sites = [Site(0), Site(1), Site(2)]
    for number, amount, do_meet in steps:
        likes(sites[number]).add(amount)
        if do_meet:
            meet(*sites)
    meet(*sites)
    expected = sum(amount for _, amount, _ in steps)
    assert [likes(site).value for site in sites] == [expected] * 3


def test_updates_seen_twice_count_once() -> None:
    one, two = Site(1), Site(2)
    likes(one).increment(5)
    for _ in range(3):
        two.document.apply(one.made[0])
    assert int(likes(two)) == 5


def test_a_replica_that_opens_the_document_again_goes_on_with_its_entry() -> None:
    first = Site(1, client_id=9)
    likes(first).increment(5)
    second = Site(1, client_id=4, state=first.made)
    likes(second).decrement(2)
    incarnation = first.document.incarnation.hex()
    assert second.document.as_json() == {"likes#counter": {incarnation: [5, 2]}}
    assert likes(second).value == 3


def test_a_counter_does_not_grow_with_use() -> None:
    site = Site(1, client_id=2**52)
    likes(site).increment()
    before = size_of(site)
    for _ in range(1000):
        likes(site).increment()
    assert likes(site).value == 1001
    assert size_of(site) < before + 32


@pytest.mark.parametrize("amount", [1.0, "1", None, True, 1.5])
def test_a_counter_counts_in_integers_only(amount: Any) -> None:
    site = Site(1)
    with pytest.raises(ValueNotStorable):
        likes(site).add(amount)
    with pytest.raises(ValueNotStorable):
        likes(site).decrement(amount)
    assert site.made == []


def test_a_value_beyond_what_is_exact_is_refused() -> None:
    site = Site(1)
    likes(site).add(2**53)
    with pytest.raises(LimitExceeded, match=r"2\^53"):
        likes(site).increment()
    assert likes(site).value == 2**53
    likes(site).decrement(2**53)
    assert likes(site).value == 0
    likes(site).add(-(2**53))
    with pytest.raises(LimitExceeded):
        likes(site).decrement()


def test_counting_to_and_fro_for_ever_is_exact() -> None:
    site, other = Site(1), Site(2)
    for _ in range(5):
        likes(site).add(2**53 - 1)
        likes(site).add(-(2**53 - 2))
        likes(site).decrement()
    likes(site).increment(7)
    meet(site, other)
    assert likes(other).value == likes(site).value == 7


def test_two_large_entries_add_up_beyond_what_one_may_count() -> None:
    one, two = Site(1), Site(2)
    likes(one).add(2**53)
    likes(two).add(2**53 - 1)
    meet(one, two)
    assert likes(one).value == likes(two).value == 2**54 - 1
    likes(one).add(-(2**53))
    meet(one, two)
    assert likes(two).value == 2**53 - 1


def test_counting_nothing_writes_nothing() -> None:
    site = Site(1)
    likes(site).add(0)
    assert site.made == []


def test_nonsense_of_a_foreign_program_counts_nothing_everywhere() -> None:
    site, foreign = Site(1), ForeignProgram()
    likes(site).add(3)
    foreign.put(
        "likes#counter",
        {"a": "x", "b": [1], "c": [-1, 0], "d": [1.5, 0], "e": [True, 0], "f": [2, 1], "g": None},
    )
    meet(site, foreign)
    assert likes(site).value == 4


def test_events_tell_the_amount_once_a_transaction() -> None:
    one, two = Site(1), Site(2)
    events: list[CounterEvent] = []
    likes(one).observe(events.append)
    with one.document.transaction():
        likes(one).increment(3)
        likes(one).decrement()
        assert likes(one).value == 2
    with one.document.transaction():
        likes(one).increment()
        likes(one).decrement()
    likes(two).add(-7)
    meet(one, two)
    assert [(event.amount, event.is_local) for event in events] == [(2, True), (-7, False)]
    assert likes(one).value == -5
