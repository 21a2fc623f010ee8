"""Updates that come before what they depend on are held back, and none is lost."""

from __future__ import annotations

import random
from itertools import permutations
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import EngineFailed, UpdateMalformed, UpdateTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.engine import EMPTY_VECTOR, NativeDocument, merge
from crdt_state.model.waiting import Waiting
from hostile import section, string
from hostile import update as update_of
from offline_sites import Site

# Client 70 sets `c`, sets `b`, sets `b` again; client 92 has seen the first and sets `c`.
LOST_BY_THE_ENGINE = [
    bytes.fromhex(update)
    for update in (
        "010146002801016d0163017c3f80000000",
        "010146012801016d0162017c4000000000",
        "01014602a84601017c404000000146010101",
        "01015c00a84600017701780146010001",
    )
]

# Three clients on one key of a map, out of order.
PANICS_THE_ENGINE = [
    bytes.fromhex(update)
    for update in (
        "01012203a82201017e0122010101",
        "010122012801036d61700163017e00",
        "01012208a822070175027c3f80000075017c400000000122010701",
        "01012206a822050175027c3f80000075017c400000000122010501",
        "01012207a82203017401000122010301",
        "01011d06a82203017601016175017e0122010301",
    )
]


def applied(updates: list[bytes], *, limits: Limits = DEFAULT_LIMITS) -> NativeDocument:
    document, waiting = NativeDocument(5), Waiting(limits)
    for update in updates:
        for ready in waiting.admit(update, waiting.read(update)):
            document.apply(ready)
    assert len(waiting) == 0
    return document


def test_the_order_in_which_the_engine_loses_an_update_loses_none() -> None:
    for order in permutations(LOST_BY_THE_ENGINE):
        assert applied(list(order)).map("m").items() == [("b", 3), ("c", "x")]


def test_upstream_the_engine_still_loses_an_update_that_came_too_early() -> None:
    """When this fails, upstream has mended it; `waiting.py` may be simpler then."""
    document = NativeDocument(5)
    for number in (1, 2, 3, 0):
        document.apply(LOST_BY_THE_ENGINE[number])
    assert document.map("m").items() == [("b", 3)]


def test_upstream_an_observed_map_still_panics_on_updates_that_came_too_early() -> None:
    document = NativeDocument(5)
    document.map("map").observe(lambda change, origin: None)
    *earlier, last = PANICS_THE_ENGINE
    for update in earlier:
        document.apply(update)
    with pytest.raises(EngineFailed):
        document.apply(last)


def test_the_updates_that_panic_the_engine_wait_for_what_they_build_on() -> None:
    waiting = Waiting(DEFAULT_LIMITS)
    for update in PANICS_THE_ENGINE:
        assert waiting.admit(update, waiting.read(update)) == []
    assert len(waiting) == len(PANICS_THE_ENGINE)


@given(st.integers(0, 2**32))
def test_edits_of_three_in_any_order_and_merged_in_any_groups_all_arrive(seed: int) -> None:
    dice = random.Random(seed)
    sites = [Site(number) for number in (1, 2, 3)]
    made: list[bytes] = []
    for step in range(20):
        site, other = dice.sample(sites, 2)
        values = site.document.list("array")
        values.insert(dice.randint(0, len(values)), step)
        if dice.random() < 0.4:
            other.document.apply(site.document.encode())
    for site in sites:
        made += site.made
    dice.shuffle(made)
    # A few merged groups, which may depend on one another.
    cut = dice.randint(0, len(made))
    updates = [merge(made[start : start + 3]) for start in range(0, cut, 3)] + made[cut:]
    dice.shuffle(updates)
    assert len(made) == 20
    assert sorted(applied(updates).array("array").values()) == list(range(20))


def test_what_is_held_is_bounded_in_number_and_bytes() -> None:
    site = Site(1)
    for number in range(6):
        site.document.list("array").append(number)
    for limits, name in (
        (Limits(pending_updates_max=2), "pending_updates_max"),
        (Limits(pending_bytes_max=2 * len(site.made[1])), "pending_bytes_max"),
    ):
        waiting = Waiting(limits)
        for update in (*site.made[1:3], site.made[1]):
            assert waiting.admit(update, waiting.read(update)) == []
        with pytest.raises(UpdateTooLarge) as refused:
            waiting.admit(site.made[3], waiting.read(site.made[3]))
        assert refused.value.limit == name
        assert len(waiting) == 2
        assert waiting.admit(site.made[0], waiting.read(site.made[0])) == site.made[:3]
        # What was let go makes room again.
        for update in site.made[4:6]:
            assert waiting.admit(update, waiting.read(update)) == []


def chain_of_clients(length: int) -> list[bytes]:
    """Updates of as many clients, each of which inserts behind the one before it."""
    return [update_of(section(1, 0, string("x", parent="text")))] + [
        update_of(section(client, 0, string("x", origin=(client - 1, 0))))
        for client in range(2, length + 1)
    ]


@pytest.mark.parametrize("is_first_missing", [False, True])
def test_a_long_chain_from_its_end_costs_what_it_is_long(*, is_first_missing: bool) -> None:
    chain = chain_of_clients(400)
    waiting = Waiting(DEFAULT_LIMITS)
    begun = process_time()
    released: list[bytes] = []
    for late in chain[1:] if is_first_missing else reversed(chain):
        released += waiting.admit(late, waiting.read(late))
    # Some milliseconds; looking through all that is held each time took half a minute.
    assert process_time() - begun < 3
    assert released == ([] if is_first_missing else chain)
    assert len(waiting) == (len(chain) - 1 if is_first_missing else 0)


def test_an_update_that_follows_a_local_edit_passes_after_a_refresh() -> None:
    site, other = Site(1), Site(2)
    site.document.list("array").append("local")
    other.document.apply(site.made[0])
    other.document.list("array").append("remote")
    waiting = Waiting(DEFAULT_LIMITS)
    waiting.refresh(EMPTY_VECTOR)
    found = waiting.read(other.made[0])
    assert waiting.misses(found)
    waiting.refresh(site.document.state_vector())
    assert not waiting.misses(found)
    assert waiting.admit(other.made[0], found) == [other.made[0]]


def test_what_waits_for_a_local_edit_follows_the_first_update_after_a_refresh() -> None:
    site, other, third = Site(1), Site(2), Site(3)
    site.document.list("array").append("local")
    other.document.apply(site.made[0])
    other.document.list("array").append("remote")
    third.document.list("array").append("alone")
    waiting = Waiting(DEFAULT_LIMITS)
    assert waiting.admit(other.made[0], waiting.read(other.made[0])) == []
    waiting.refresh(site.document.state_vector())
    found = waiting.read(third.made[0])
    assert waiting.admit(third.made[0], found) == [third.made[0], other.made[0]]
    assert len(waiting) == 0


def test_what_is_no_update_is_refused() -> None:
    with pytest.raises(UpdateMalformed):
        Waiting(DEFAULT_LIMITS).read(b"\x01\x02")
