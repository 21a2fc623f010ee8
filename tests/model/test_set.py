"""The set: adds win over removes that have not seen them, and it does not grow by being used."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from crdt_state.errors import ValueNotStorable
from crdt_state.model.set import Set, SetEvent
from crdt_state.model.values import Codec
from offline_sites import ForeignProgram, Site, meet, size_of


def tags(site: Site) -> Set:
    return site.document.set("tags")


def test_a_set_holds_what_was_added_and_not_what_was_removed() -> None:
    site = Site(1)
    tags(site).update(["a", 1, 1.5, True, None, b"x", ("p", 2)])
    tags(site).discard("a")
    tags(site).discard("never there")
    assert list(tags(site)) == [1, 1.5, True, None, b"x", ("p", 2)]
    assert len(tags(site)) == 6
    assert ("p", 2) in tags(site)
    assert "a" not in tags(site)


def test_one_and_one_point_zero_are_one_element_and_true_is_another() -> None:
    site = Site(1)
    tags(site).update([1, 1.0, True])
    assert len(tags(site)) == 2
    tags(site).discard(1.0)
    assert list(tags(site)) == [True]
    assert 1 not in tags(site)


def test_removing_what_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        tags(Site(1)).remove("a")


def test_an_add_wins_over_a_remove_made_at_the_same_time() -> None:
    one, two = Site(1), Site(2)
    tags(one).add("a")
    meet(one, two)
    tags(one).remove("a")
    tags(two).add("a")
    meet(one, two)
    assert list(tags(one)) == list(tags(two)) == ["a"]


def test_a_remove_wins_over_the_adds_it_has_seen() -> None:
    one, two = Site(1), Site(2)
    tags(one).add("a")
    tags(two).add("a")
    meet(one, two)
    tags(one).remove("a")
    meet(one, two)
    assert list(tags(one)) == list(tags(two)) == []


def test_adds_of_one_element_at_the_same_time_show_it_once() -> None:
    one, two = Site(1), Site(2)
    tags(one).add("a")
    tags(two).update(["a", "b"])
    meet(one, two)
    assert sorted(tags(one)) == sorted(tags(two)) == ["a", "b"]
    assert list(tags(one)) == list(tags(two))


def test_adding_again_does_not_make_the_document_grow() -> None:
    site = Site(1, client_id=2**52)
    tags(site).update(["a", "b"])
    tags(site).add("a")
    before = size_of(site)
    for _ in range(500):
        tags(site).add("a")
        tags(site).add("b")
    assert size_of(site) <= before + 16


def test_elements_that_come_and_go_leave_hardly_a_trace() -> None:
    site = Site(1, client_id=2**52)
    for number in range(1000):
        tags(site).add(f"element {number}")
        tags(site).remove(f"element {number}")
    assert size_of(site) < 64


def test_writers_who_take_turns_on_one_element_cost_a_few_bytes_a_turn() -> None:
    one, two = Site(1, client_id=2**52), Site(2, client_id=2**52 + 1)
    for _ in range(100):
        for site in (one, two):
            tags(site).add("a")
            meet(one, two)
    assert list(tags(one)) == ["a"]
    assert size_of(one) < 200 * 30


def test_reads_inside_a_transaction_see_its_writes() -> None:
    site = Site(1)
    with site.document.transaction():
        tags(site).add("a")
        assert "a" in tags(site)
        tags(site).add("b")
        tags(site).remove("a")
        assert list(tags(site)) == ["b"]
    assert list(tags(site)) == ["b"]


def test_a_set_opened_on_a_document_that_holds_it_already_shows_it() -> None:
    one, two = Site(1), Site(2)
    tags(one).update(["a", "b"])
    two.document.apply(one.document.encode())
    assert list(tags(two)) == ["a", "b"]
    tags(two).remove("a")
    meet(one, two)
    assert list(tags(one)) == ["b"]


@pytest.mark.parametrize("element", [{"a": 1}, ("a", {"b": 1}), {1}, 2**53 + 1, "\ud800"])
def test_what_is_no_element_is_refused_before_anything_is_put_in(element: Any) -> None:
    site = Site(1)
    with pytest.raises(ValueNotStorable, match="element 1"):
        tags(site).update(["good", element])
    assert list(tags(site)) == []
    assert site.made == []
    assert element not in tags(site)


def test_objects_of_a_foreign_program_are_no_elements_and_do_no_harm() -> None:
    site, foreign = Site(1), ForeignProgram()
    foreign.push("tags#set", {"a": 1}, "a", [1, [2]], "b", "a")
    meet(site, foreign)
    assert list(tags(site)) == ["a", (1, (2,)), "b"]
    tags(site).remove("a")
    tags(site).remove((1, (2,)))
    assert list(tags(site)) == ["b"]
    tags(site).clear()
    meet(site, foreign)
    assert foreign.rows("tags#set") == []


def test_events_tell_what_appeared_and_disappeared() -> None:
    one, two = Site(1), Site(2)
    events: list[SetEvent] = []
    tags(one).observe(events.append)
    tags(one).update(["a", "b"])
    with one.document.transaction():
        tags(one).remove("a")
        tags(one).add("c")
        tags(one).add("fleeting")
        tags(one).remove("fleeting")
    tags(two).update(["b", "d"])
    meet(one, two)
    tags(two).clear()
    meet(one, two)
    assert [(event.added, event.removed, event.is_local) for event in events] == [
        (("a", "b"), (), True),
        (("c",), ("a",), True),
        (("d",), (), False),
        ((), ("b", "c", "d"), False),
    ]


def test_adding_again_is_no_event_but_is_an_update() -> None:
    site = Site(1)
    tags(site).add("a")
    events: list[SetEvent] = []
    tags(site).observe(events.append)
    tags(site).add("a")
    assert events == []
    assert len(site.made) == 2


def test_a_codec_puts_dates_into_a_set() -> None:
    site = Site(1)
    codec = Codec("iso", date.isoformat, date.fromisoformat)
    days = site.document.set("days", codec=codec)
    days.add(date(2020, 1, 2))
    assert date(2020, 1, 2) in days
    assert list(days) == [date(2020, 1, 2)]
    assert site.document.as_json()["days#set"] == ["2020-01-02"]
    days.remove(date(2020, 1, 2))
    assert len(days) == 0


def test_ten_thousand_elements_do_not_take_their_square() -> None:
    site = Site(1)
    tags(site).update(range(5_000))
    for number in range(5_000, 10_000):
        tags(site).add(number)
    tags(site).difference_update(range(0, 10_000, 2))
    assert list(tags(site)) == list(range(1, 10_000, 2))
