"""Registers: the later write shows, or all that did not see one another do."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from crdt_state.errors import ValueNotStorable
from crdt_state.lib0 import VARUINT_MAX
from crdt_state.model.register import (
    LwwRegister,
    MultiValueEvent,
    MultiValueRegister,
    RegisterEvent,
)
from crdt_state.model.values import Codec
from offline_sites import START, ForeignProgram, Site, meet, size_of


def title(site: Site) -> LwwRegister:
    return site.document.register("title")


def owner(site: Site) -> MultiValueRegister:
    return site.document.multi_value_register("owner")


# --- the last writer wins --------------------------------------------------------------------


def test_a_register_shows_what_was_written() -> None:
    site = Site(1)
    assert title(site).value is None
    assert not title(site).is_set
    assert title(site).stamp is None
    title(site).set({"a": [1.0]})
    assert title(site).value == {"a": [1]}
    title(site).set(None)
    assert title(site).value is None
    assert title(site).is_set


def test_the_later_write_shows_whatever_the_client_ids() -> None:
    for first_id, second_id in ((10, 20), (20, 10)):
        first, second = Site(1, client_id=first_id), Site(2, client_id=second_id)
        title(first).set("earlier")
        second.time.advance(1)
        title(second).set("later")
        meet(first, second)
        assert title(first).value == title(second).value == "later"


def test_writes_at_the_same_microsecond_go_to_the_higher_client_id_everywhere() -> None:
    one, two = Site(1, client_id=10), Site(2, client_id=20)
    title(one).set("ten")
    title(two).set("twenty")
    meet(one, two)
    assert title(one).value == title(two).value == "twenty"


def test_writes_in_every_order_of_delivery_show_the_same() -> None:
    sites = [Site(number, wall=START + number % 2) for number in range(4)]
    for number, site in enumerate(sites):
        title(site).set(number)
    shown = set()
    for order in permutations(sites):
        reader = Site(9)
        for site in order:
            reader.document.apply(site.made[0])
        shown.add(title(reader).value)
    assert shown == {3}


def test_a_write_shows_over_one_from_the_future_that_it_has_seen() -> None:
    ahead, site = Site(1, wall=START + 10**12), Site(2)
    title(ahead).set("from the future")
    meet(ahead, site)
    title(site).set("now")
    assert title(site).value == "now"
    meet(ahead, site)
    assert title(ahead).value == "now"


def test_a_time_beyond_the_drift_does_not_move_our_clock_and_is_counted() -> None:
    site, ahead, near = Site(1), Site(2, wall=START + 10**12), Site(3, wall=START + 5_000_000)
    title(site)
    title(ahead).set("far")
    meet(site, ahead)
    assert site.clock.remote_times_refused == 1
    assert site.clock.next() < START + 1_000
    title(near).set("near")
    meet(site, near)
    assert site.clock.next() > START + 5_000_000


def test_a_time_at_the_end_of_its_range_cannot_freeze_a_register() -> None:
    site, foreign = Site(1), ForeignProgram()
    foreign.push("title#register", [VARUINT_MAX, 7, "stuck"])
    meet(site, foreign)
    assert title(site).value == "stuck"
    title(site).set("free")
    meet(site, foreign)
    assert title(site).value == "free"
    assert foreign.rows("title#register")[0][0] == VARUINT_MAX


@pytest.mark.parametrize(
    "row", [1, "x", None, [], [1, 2], [-1, 2, "x"], [1.5, 2, "x"], [2**53, 1, "x"], [True, 1, "x"]]
)
def test_a_row_that_is_no_write_does_not_show_and_goes_with_the_next_write(row: Any) -> None:
    site, foreign = Site(1), ForeignProgram()
    foreign.push("title#register", row)
    meet(site, foreign)
    assert not title(site).is_set
    title(site).set("good")
    meet(site, foreign)
    assert len(foreign.rows("title#register")) == 1


def test_a_register_does_not_grow_with_use() -> None:
    site = Site(1, client_id=2**52)
    title(site).set("a")
    before = size_of(site)
    for _ in range(1000):
        title(site).set("a")
    assert size_of(site) < before + 32


def test_a_value_yjs_cannot_hold_is_refused_and_the_old_one_stays() -> None:
    site = Site(1)
    title(site).set("old")
    for register in (title(site), owner(site)):
        with pytest.raises(ValueNotStorable):
            register.set({1, 2})
    assert title(site).value == "old"


def test_what_was_read_may_be_changed_without_changing_the_register() -> None:
    site = Site(1)
    value = {"a": [1]}
    title(site).set(value)
    value["a"].append(2)
    title(site).value["a"].append(3)
    assert title(site).value == {"a": [1]}


def test_events_tell_what_showed_and_what_shows() -> None:
    one, two = Site(1), Site(2, wall=START + 1_000)
    events: list[RegisterEvent] = []
    title(one).observe(events.append)
    with one.document.transaction():
        title(one).set("a")
        assert title(one).value == "a"
        title(one).set("b")
    title(two).set("later")
    meet(one, two)
    older = Site(3)
    title(older).set("older")
    meet(one, older)
    assert [(event.old, event.new, event.is_local) for event in events] == [
        (None, "b", True),
        ("b", "later", False),
    ]


def test_a_codec_stands_between_the_application_and_the_register() -> None:
    site = Site(1)
    codec = Codec("pair", lambda pair: [pair.real, pair.imag], lambda row: complex(*row))
    point = site.document.register("point", codec=codec)
    assert point.value is None
    point.set(1 + 2j)
    assert point.value == 1 + 2j


# --- all that did not see one another --------------------------------------------------------


def test_writes_that_did_not_see_one_another_all_show_until_the_next_write() -> None:
    one, two = Site(1), Site(2)
    assert owner(one).values == ()
    owner(one).set("ann")
    meet(one, two)
    owner(one).set("bob")
    owner(two).set("cat")
    meet(one, two)
    assert owner(one).values == owner(two).values
    assert set(owner(one).values) == {"bob", "cat"}
    assert owner(one).has_conflict
    owner(two).set("cat")
    meet(one, two)
    assert owner(one).values == ("cat",)
    assert not owner(one).has_conflict


def test_the_same_value_written_twice_at_once_is_no_conflict() -> None:
    one, two = Site(1), Site(2)
    owner(one).set([1])
    owner(two).set([1.0])
    meet(one, two)
    assert owner(one).values == ([1],)


def test_a_multi_value_register_does_not_grow_with_use() -> None:
    site = Site(1, client_id=2**52)
    owner(site).set("a")
    before = size_of(site)
    for _ in range(1000):
        owner(site).set("a")
    assert size_of(site) < before + 32


def test_events_tell_all_values_before_and_after() -> None:
    one, two = Site(1), Site(2)
    events: list[MultiValueEvent] = []
    owner(one).observe(events.append)
    owner(one).set("a")
    owner(one).set("a")
    owner(two).set("b")
    meet(one, two)
    assert [(event.old, set(event.new), event.is_local) for event in events] == [
        ((), {"a"}, True),
        (("a",), {"a", "b"}, False),
    ]
