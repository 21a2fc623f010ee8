"""Attributes: what setting them one after another, at once and backwards comes to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import OperationMalformed, OperationTooLarge
from crdt_state.limits import Limits
from crdt_state.ot.attributes import Attributes, composed, difference, inverted, transformed
from ot.operations import ATTRIBUTES, CHANGES

BEFORE = st.none() | ATTRIBUTES
CHANGE = st.none() | CHANGES
BOLD = Attributes.of({"bold": True})
PLAIN = Attributes.of({"bold": None})


def changed(before: Attributes | None, change: Attributes | None) -> Attributes | None:
    """What content with `before` has after `change`."""
    return composed(before, change, keeps_removals=False)


def test_null_takes_an_attribute_away_from_content() -> None:
    assert changed(BOLD, PLAIN) is None
    assert changed(None, PLAIN) is None
    assert changed(BOLD, None) is BOLD


def test_null_stays_in_what_is_still_a_change() -> None:
    assert composed(BOLD, PLAIN, keeps_removals=True) == PLAIN
    assert composed(None, PLAIN, keeps_removals=True) == PLAIN


@settings(deadline=None)
@given(BEFORE, CHANGE, CHANGE)
def test_two_changes_come_to_one(before, first, second) -> None:
    both = composed(first, second, keeps_removals=True)
    assert changed(changed(before, first), second) == changed(before, both)


@settings(deadline=None)
@given(BEFORE, CHANGE, CHANGE)
def test_changes_at_once_end_equal_in_both_orders(before, winning, losing) -> None:
    one = changed(changed(before, winning), transformed(losing, winning, wins=False))
    other = changed(changed(before, losing), transformed(winning, losing, wins=True))
    assert one == other == changed(changed(before, losing), winning)


@settings(deadline=None)
@given(BEFORE, CHANGE)
def test_an_inverted_change_undoes_it(before, change) -> None:
    assert changed(changed(before, change), inverted(change, before)) == before


@settings(deadline=None)
@given(BEFORE, BEFORE)
def test_a_difference_leads_from_one_to_the_other(old, new) -> None:
    assert changed(old, difference(old, new)) == new
    assert (difference(old, new) is None) == (old == new)


def test_what_is_so_already_is_not_undone() -> None:
    deep = Attributes.of({"mention": {"id": 1, "name": "Anne"}})
    assert inverted(deep, Attributes.of({"mention": {"name": "Anne", "id": 1.0}})) is None
    assert inverted(PLAIN, None) is None


def test_attributes_are_equal_where_javascript_says_so() -> None:
    assert Attributes.of({"bold": 1}) != BOLD
    assert Attributes.of({"a": 1, "b": 2}) == Attributes.of({"b": 2.0, "a": 1})
    assert hash(Attributes.of({"a": 1, "b": 2})) == hash(Attributes.of({"b": 2.0, "a": 1}))
    assert dict(BOLD) == {"bold": True}


def test_attributes_read_as_a_mapping_and_are_not_changed_by_who_gave_them() -> None:
    given_values = {"link": {"to": ["x"]}, "bold": True}
    attributes = Attributes.of(given_values)
    given_values["link"]["to"].append("y")
    assert dict(attributes) == {"bold": True, "link": {"to": ["x"]}}
    attributes["link"]["to"].append("y")
    assert attributes["link"] == {"to": ["x"]}
    assert len(attributes) == 2
    assert not attributes.takes_away
    assert PLAIN.takes_away


def test_what_is_no_attributes_is_refused() -> None:
    with pytest.raises(OperationMalformed, match="attributes: there are none"):
        Attributes.of({})
    with pytest.raises(OperationMalformed, match="are an object, not list"):
        Attributes.of([("bold", True)])
    with pytest.raises(OperationMalformed, match=r"attributes\['bold'\]: set is nothing"):
        Attributes.of({"bold": set()})
    with pytest.raises(OperationMalformed, match="a key is a string, not int"):
        Attributes.of({1: True})
    with pytest.raises(OperationTooLarge, match="operation_attributes_max") as caught:
        Attributes.of({"a": 1, "b": 2}, limits=Limits(operation_attributes_max=1))
    assert (caught.value.allowed, caught.value.found) == (1, 2)
