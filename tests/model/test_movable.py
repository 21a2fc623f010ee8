"""The movable list: moves do not double an element, and every conflict has one outcome."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import IndexOutOfRange, UsageError, ValueNotStorable
from crdt_state.model.list import ListEvent
from crdt_state.model.movable import MovableList
from offline_sites import START, ForeignProgram, Site, followed, meet, size_of

INDEX = st.integers(-4, 10)
EDITS = st.lists(
    st.tuples(st.sampled_from(["insert", "set", "delete", "move"]), INDEX, INDEX), max_size=25
)


def todo(site: Site) -> MovableList:
    return site.document.movable_list("todo")


def two_sites_with(*values: Any) -> tuple[Site, Site]:
    one, two = Site(1), Site(2)
    todo(one).extend(values)
    meet(one, two)
    return one, two


def shown(*sites: Site) -> list[Any]:
    """What all of `sites` show, which must be the same."""
    meet(*sites)
    lists = [list(todo(site)) for site in sites]
    assert all(values == lists[0] for values in lists)
    return lists[0]


def attempt(target: MovableList | list[Any], verb: str, index: int, other: int) -> None:
    match verb:
        case "insert":
            target.insert(index, other)
        case "set":
            target[index] = other
        case "delete":
            del target[index]
        case "move" if isinstance(target, MovableList):
            target.move(index, other)
        case "move":
            size = len(target)
            value = target.pop(index)
            target.insert(other + size if other < 0 else other, value)


def is_inside(size: int, verb: str, index: int, other: int) -> bool:
    if verb == "insert":
        return -size <= index <= size
    return -size <= index < size and (verb != "move" or -size <= other < size)


@given(EDITS)
def test_alone_it_does_what_a_python_list_does(edits: list[tuple[str, int, int]]) -> None:
    site, told = Site(1), []
    model: list[Any] = []

    def follow(event: ListEvent) -> None:
        told[:] = followed(told, event.delta)

    todo(site).observe(follow)
    for verb, index, other in edits:
        if is_inside(len(model), verb, index, other):
            attempt(model, verb, index, other)
            attempt(todo(site), verb, index, other)
        else:
            with pytest.raises(IndexOutOfRange):
                attempt(todo(site), verb, index, other)
        assert list(todo(site)) == model == told
        assert len(todo(site)) == len(model)


def test_moving_an_element_at_two_places_at_once_leaves_it_at_the_place_of_the_later() -> None:
    one, two = two_sites_with("a", "b", "c", "d")
    todo(one).move(0, 3)
    two.time.advance(1)
    todo(two).move(0, 1)
    assert shown(one, two) == ["b", "a", "c", "d"]


def test_a_move_and_a_replacement_at_once_both_hold() -> None:
    for writer_is_later in (False, True):
        one, two = two_sites_with("a", "b", "c")
        (two if writer_is_later else one).time.advance(1)
        todo(one).move(0, 2)
        todo(two)[0] = "A"
        assert shown(one, two) == ["b", "c", "A"]


def test_two_replacements_at_once_show_the_later_and_the_place_stays() -> None:
    one, two = two_sites_with("a", "b", "c")
    todo(one)[1] = "earlier"
    two.time.advance(1)
    todo(two)[1] = "later"
    assert shown(one, two) == ["a", "later", "c"]


def test_an_element_moved_while_another_deletes_it_stays() -> None:
    one, two = two_sites_with("a", "b", "c")
    del todo(one)[0]
    todo(two).move(0, 2)
    assert shown(one, two) == ["b", "c", "a"]


def test_an_element_replaced_while_another_deletes_it_stays() -> None:
    one, two = two_sites_with("a", "b")
    todo(one).clear()
    todo(two)[1] = "B"
    assert shown(one, two) == ["B"]


def test_a_delete_takes_every_row_that_a_conflict_has_left() -> None:
    one, two = two_sites_with("a", "b", "c")
    todo(one).move(0, 2)
    todo(two).move(0, 1)
    meet(one, two)
    todo(one).remove("a")
    assert shown(one, two) == ["b", "c"]


def test_what_is_inserted_at_the_place_of_a_replaced_element_keeps_its_side() -> None:
    for first, second in ((5, 9), (9, 5)):
        one, two = Site(1, client_id=first), Site(2, client_id=second)
        todo(one).extend(["a", "c"])
        meet(one, two)
        todo(one)[1] = "C"
        todo(two).insert(1, "b")
        assert shown(one, two) == ["a", "b", "C"]


def test_the_next_write_clears_away_what_a_conflict_has_left() -> None:
    one, two, foreign = Site(1), Site(2), ForeignProgram()
    todo(one).extend("abcd")
    meet(one, two)
    todo(one).move(0, 3)
    todo(two).move(0, 1)
    meet(one, two, foreign)
    assert len(foreign.rows("todo#movable")) == 5
    before = list(todo(one))
    todo(one).append("e")
    meet(one, two, foreign)
    assert len(foreign.rows("todo#movable")) == 5
    assert list(todo(one)) == list(todo(two)) == [*before, "e"]


def test_a_move_to_where_it_stands_writes_nothing() -> None:
    site = Site(1)
    todo(site).extend("ab")
    todo(site).move(1, -1)
    assert len(site.made) == 1


def test_moving_for_ever_does_not_make_the_document_grow() -> None:
    site = Site(1, client_id=2**52)
    todo(site).extend("abc")
    for _ in range(20):
        todo(site).move(0, 2)
    before = size_of(site)
    for _ in range(300):
        todo(site).move(0, 2)
    assert size_of(site) <= before + 16


def test_a_move_shows_over_one_from_the_future_that_it_has_seen() -> None:
    one, ahead = Site(1), Site(2, wall=START + 10**12)
    todo(one).extend("abc")
    meet(one, ahead)
    todo(ahead).move(0, 2)
    todo(ahead)[2] = "A"
    meet(one, ahead)
    assert one.clock.remote_times_refused > 0
    todo(one).move(2, 1)
    todo(one)[1] = "x"
    assert shown(one, ahead) == ["b", "x", "c"]


@pytest.mark.parametrize(
    "row", [1, None, [], [1, 2], [1, 2, 3, 4], [-1, 2, "x"], [1, 2, "x", 1, 2, 3, "y"]]
)
def test_a_row_of_nonsense_is_no_element_and_indexes_go_past_it(row: Any) -> None:
    one, foreign = Site(1), ForeignProgram()
    foreign.push("todo#movable", row)
    meet(one, foreign)
    todo(one).extend("abc")
    todo(one).insert(1, "x")
    todo(one).move(0, 3)
    todo(one)[0] = "X"
    del todo(one)[1]
    assert list(todo(one)) == ["X", "c", "a"]
    meet(one, foreign)
    assert row in foreign.rows("todo#movable")


def test_events_lead_from_what_showed_to_what_shows_through_every_conflict() -> None:
    one, two = two_sites_with(*"abcdef")
    told = list(todo(one))

    def follow(event: ListEvent) -> None:
        told[:] = followed(told, event.delta)

    todo(one).observe(follow)
    todo(one).move(0, 5)
    todo(one)[2] = "D"
    todo(two).move(0, 3)
    todo(two).move(3, 1)
    del todo(two)[4]
    meet(one, two)
    assert told == list(todo(one))
    with one.document.transaction():
        todo(one).move(0, 2)
        todo(one).append("z")
        del todo(one)[1]
    assert told == list(todo(one)) == shown(one, two)


def test_what_is_refused_changes_nothing() -> None:
    site = Site(1)
    todo(site).extend("ab")
    with pytest.raises(ValueNotStorable):
        todo(site).extend(["c", {1}])
    with pytest.raises(UsageError):
        todo(site)[0:1] = ["x"]
    with pytest.raises(IndexOutOfRange):
        todo(site).move(0, 2)
    assert list(todo(site)) == ["a", "b"]
    assert len(site.made) == 1


def test_values_may_be_as_deep_as_anywhere_but_for_the_row_around_them() -> None:
    site = Site(1)
    deepest: Any = []
    for _ in range(site.document.limits.value_depth_max - 2):
        deepest = [deepest]
    todo(site).append(deepest)
    with pytest.raises(ValueNotStorable, match="value_depth_max"):
        todo(site).append([deepest])
