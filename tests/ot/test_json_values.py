"""JSON as canonical text: equal where JavaScript says so, bounded, and read without recursion."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import OperationMalformed, OperationTooLarge
from crdt_state.limits import Limits
from crdt_state.ot.json_values import text_of, value_of

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=4)
) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    text = text_of(value)
    assert value_of(text) == value
    assert text_of(value_of(text)) == text
    assert json.loads(text) == value


def test_text_is_canonical() -> None:
    assert text_of({"b": [1, 2.0, True, None], "a": {"é": "\n"}}) == (
        '{"a":{"é":"\\n"},"b":[1,2,true,null]}'
    )
    assert text_of([]) == "[]"
    assert text_of({}) == "{}"


def test_numbers_are_the_same_where_javascript_says_so() -> None:
    assert text_of(1) == text_of(1.0) != text_of(True)
    assert text_of(0) == text_of(-0.0) != text_of(False)
    assert text_of(0.5) != text_of(5)
    assert value_of(text_of(1e300)) == 1e300


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [math.nan]}, r"value\['a'\]\[0\]: nan is no number of JSON"),
        ([math.inf], r"value\[0\]: inf is no number of JSON"),
        (2**53, r"value: an integer is within"),
        (-(2**53), r"an integer is within"),
        ([10**9_999], r"value\[0\]: an integer is within"),
        ("a\ud800", r"value: a lone surrogate, U\+D800, at character 1"),
        ({"\udfff": 1}, r"lone surrogate"),
        ({1: 1}, r"a key is a string, not int"),
        (b"", r"value: bytes is nothing that JSON holds"),
        ([{1, 2}], r"value\[0\]: set is nothing that JSON holds"),
    ],
)
def test_what_json_does_not_hold_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(OperationMalformed, match=said):
        text_of(value)


def test_depth_is_bounded_without_recursion() -> None:
    within = outside = 7
    for _ in range(64):
        within = [within]
    for _ in range(100_000):
        outside = {"a": outside}
    assert value_of(text_of(within)) == within
    with pytest.raises(OperationTooLarge, match="value_depth_max") as caught:
        text_of(outside)
    assert (caught.value.limit, caught.value.allowed, caught.value.found) == (
        "value_depth_max",
        64,
        65,
    )
    assert caught.value.path.startswith("value['a']['a']")
    assert len(caught.value.path) == 200
    while isinstance(outside, dict):  # not by recursion, as the interpreter would end it
        outside = outside.pop("a")


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(OperationTooLarge, match="value_depth_max"):
        text_of(value)


def test_size_is_bounded_in_bytes() -> None:
    limits = Limits(operation_value_bytes_max=10)
    assert text_of("é" * 4, limits=limits) == '"éééé"'
    with pytest.raises(OperationTooLarge, match="operation_value_bytes_max"):
        text_of("é" * 5, limits=limits)
    with pytest.raises(OperationTooLarge, match="operation_value_bytes_max"):
        text_of([1] * 6, limits=limits)
    with pytest.raises(OperationTooLarge, match="key_bytes_max"):
        text_of({"é" * 3: 1}, limits=Limits(key_bytes_max=5))


def test_places_cost_nothing_where_nothing_is_wrong() -> None:
    value: Any = [1] * 2_000
    for _ in range(60):
        value = {"k" * 1_000: value}
    tracemalloc.start()
    text_of(value)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * 1024 * 1024
