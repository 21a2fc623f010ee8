"""Values are checked and copied before anything native sees them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import ValueNotStorable
from crdt_state.limits import Limits
from crdt_state.model.values import (
    INTEGER_MAX,
    Codec,
    check_key,
    from_stored,
    identity_of,
    to_stored,
)

NUMBERS = st.integers(-INTEGER_MAX, INTEGER_MAX) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT | st.binary(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


class Colour(StrEnum):
    RED = "red"


@given(VALUES)
def test_what_is_stored_comes_back_equal(value: Any) -> None:
    assert from_stored(to_stored(value)) == value


@given(VALUES)
def test_a_value_stays_itself_however_often_it_is_stored(value: Any) -> None:
    once = from_stored(to_stored(value))
    again = from_stored(to_stored(once))
    assert identity_of(again) == identity_of(once)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (1.0, 1),
        (-0.0, 0),
        (2.0**53, 2**53),
        (-(2**53), -(2**53)),
        (1.5, 1.5),
        (2.0**60, 2.0**60),
        (True, True),
        ((1, 2), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Colour.RED, "red"),
        ({"a": [{"b": 2.0}]}, {"a": [{"b": 2}]}),
    ],
)
def test_values_come_back_in_their_plain_form(value: Any, seen: Any) -> None:
    got = from_stored(to_stored(value))
    assert got == seen
    assert type(got) is type(seen)


def test_minus_zero_loses_its_sign() -> None:
    assert math.copysign(1, to_stored(-0.0)) == 1


def test_the_largest_integers_are_stored_as_numbers_that_javascript_knows() -> None:
    assert isinstance(to_stored(INTEGER_MAX), float)
    assert isinstance(to_stored(-INTEGER_MAX), float)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (2**53 + 1, "value"),
        (-(2**53) - 1, "value"),
        (math.nan, "value"),
        ([1, math.inf], "value[1]"),
        ({"a": [0, 1, 2, "\ud800"]}, "value['a'][3]"),
        ({"a": {1: 2}}, "value['a'] key 1"),
        ({"\udc00": 2}, "value key '\\udc00'"),
        ({"k" * 5000: 2}, f"value key '{'k' * 5000}'"),
        ([{1, 2}], "value[0]"),
        (datetime(2020, 1, 1, tzinfo=UTC), "value"),
        (Decimal(1), "value"),
        (object(), "value"),
        (1j, "value"),
    ],
)
def test_what_yjs_cannot_hold_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(ValueNotStorable) as refused:
        to_stored(value)
    assert refused.value.path == path


def test_depth_is_bounded_to_the_level() -> None:
    limits = Limits(value_depth_max=3)
    to_stored([[[1]]], limits=limits)
    with pytest.raises(ValueNotStorable, match="value_depth_max = 3"):
        to_stored([[[[1]]]], limits=limits)


def test_a_value_far_too_deep_is_an_error_and_not_a_crash() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueNotStorable, match="value_depth_max"):
        to_stored(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueNotStorable):
        to_stored(value)


def test_the_count_of_values_is_bounded() -> None:
    limits = Limits(value_items_max=10)
    to_stored([[0] * 4, [0] * 4], limits=limits)
    with pytest.raises(ValueNotStorable, match="value_items_max = 10"):
        to_stored([[0] * 4, [0] * 5], limits=limits)


def test_what_was_stored_does_not_follow_later_changes_of_the_original() -> None:
    value = {"a": [1]}
    stored = to_stored(value)
    value["a"].append(2)
    assert stored == {"a": [1]}


def test_keys_are_strings_of_a_bounded_size() -> None:
    assert check_key("name") == "name"
    for key in (1, None, "\ud800", "é" * 2049):
        with pytest.raises(ValueNotStorable):
            check_key(key)


def test_a_codec_makes_dates_storable() -> None:
    codec = Codec("iso", lambda value: value.isoformat(), datetime.fromisoformat)
    moment = datetime(2020, 1, 2, tzinfo=UTC)
    stored = to_stored(moment, codec=codec)
    assert stored == "2020-01-02T00:00:00+00:00"
    assert from_stored(stored, codec=codec) == moment


def test_a_codec_that_refuses_is_named() -> None:
    def refuse(value: object) -> object:
        raise ValueError("no time zone")

    with pytest.raises(ValueNotStorable, match=r"codec 'iso' refuses it: no time zone"):
        to_stored(1, codec=Codec("iso", refuse, refuse))


def test_a_codec_does_not_widen_what_yjs_holds() -> None:
    with pytest.raises(ValueNotStorable):
        to_stored(1, codec=Codec("set", lambda value: {value}, list))


def test_one_and_true_are_two_values_and_one_and_one_point_zero_are_one() -> None:
    same = identity_of(from_stored(to_stored([1, {"a": b"x"}])))
    assert same == identity_of(from_stored(to_stored((1.0, {"a": bytearray(b"x")}))))
    assert identity_of(1) != identity_of(True)
    assert identity_of("1") != identity_of(1)
    assert identity_of([]) != identity_of({})
