"""The format text-unicode, strict in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import (
    NotInFormat,
    OperationMalformed,
    OperationNotCanonical,
    OperationTooLarge,
    UsageError,
)
from crdt_state.limits import Limits
from crdt_state.ot import (
    EMPTY,
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Order,
    Retain,
    Side,
    text_unicode,
)
from crdt_state.ot.text_unicode import decode, encode
from ot.operations import documents, operations


def test_an_operation_by_hand() -> None:
    operation = Operation.of(Retain(3), Delete(2), Insert("😀\0"), Retain(1), Delete(1))
    assert encode(operation) == [3, {"d": 2}, "😀\0", 1, {"d": 1}]
    assert decode([3, {"d": 2}, "😀\0", 1, {"d": "x"}]) == operation
    assert decode([]) == EMPTY
    assert encode(EMPTY) == []


def test_a_deletion_that_names_its_text_counts_code_points() -> None:
    assert decode([{"d": "a😀e\u0301"}]) == Operation.of(Delete(4))


def test_what_the_format_says_of_sides_and_orders() -> None:
    assert (text_unicode.NAME, text_unicode.INCOMING) == ("text-unicode", Side.LEFT)
    assert text_unicode.ORDER is Order.AS_MADE


@settings(deadline=None, max_examples=120)
@given(documents(is_rich=False), st.data())
def test_an_operation_comes_back_from_its_json(document: str, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    assert decode(json.loads(json.dumps(encode(operation)))) == operation


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ({}, "operation: it is a list, not dict"),
        ("abc", "operation: it is a list, not str"),
        (None, "it is a list, not NoneType"),
        ([True], r"\[0\]: a count is an integer, not bool"),
        ([1.0, "a"], r"\[0\]: a count is an integer, not float"),
        (["a", None], r"\[1\]: a count is an integer, not NoneType"),
        ([["a"]], r"\[0\]: a count is an integer, not list"),
        ([2**53, "a"], r"\[0\]: a count is within"),
        ([-(10**9_999), "a"], r"\[0\]: a count is within"),
        ([{"k" * 999: 1}], r"^\[0\]: .{0,300}$"),
        ([{"d": True}], r"\[0\].d: a count is an integer, not bool"),
        ([{"d": 2.0}], r"\[0\].d: a count is an integer, not float"),
        ([{"d": [1]}], r"\[0\].d: a count is an integer, not list"),
        ([{"d": 2**60}], r"\[0\].d: a count is within"),
        ([{"d": "\udc00"}], r"\[0\].d: a lone surrogate, U\+DC00, at character 0"),
        ([{"d": 1, "i": "a"}], r"\[0\]: a deletion has the key 'd' and no other, not 'd', 'i'"),
        ([{}], r"\[0\]: a deletion has the key 'd' and no other, not none"),
        ([1, {"i": "a"}], r"\[1\]: a deletion has the key 'd'"),
        (["a\ud83d"], r"\[0\]: a lone surrogate, U\+D83D, at character 1"),
        (["\ude00\ud83d"], r"\[0\]: a lone surrogate"),
    ],
)
def test_what_is_no_operation_is_refused_with_its_place(wire: Any, said: str) -> None:
    with pytest.raises(OperationMalformed, match=said):
        decode(wire)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ([0, "a"], r"\[0\]: a count of 0 says nothing"),
        ([-1, "a"], r"\[0\]: a count of -1 says nothing"),
        ([{"d": 0}], r"\[0\].d: a count of 0 says nothing"),
        ([{"d": -3}], r"\[0\].d: a count of -3 says nothing"),
        ([{"d": ""}], r"\[0\].d: an empty string says nothing"),
        ([1, ""], r"\[1\]: an empty string says nothing"),
        ([1, 2, "a"], r"\[1\]: it is one with the component before it"),
        (["a", "b"], r"\[1\]: it is one with the component before it"),
        ([{"d": 1}, {"d": "a"}], r"\[1\]: it is one with the component before it"),
        (["a", 1], r"\[1\]: nothing comes after it"),
        ([1], r"\[0\]: nothing comes after it"),
    ],
)
def test_what_is_not_canonical_is_refused_with_its_place(wire: Any, said: str) -> None:
    with pytest.raises(OperationNotCanonical, match=said):
        decode(wire)


def test_the_number_of_components_is_bounded() -> None:
    wire = [1, "a", {"d": 1}]
    assert decode(wire, limits=Limits(operation_components_max=3))
    with pytest.raises(OperationTooLarge, match="operation_components_max"):
        decode(wire, limits=Limits(operation_components_max=2))


@pytest.mark.parametrize(
    ("component", "what"),
    [
        (Insert(Embed.of({"image": "cat.png"})), "embeds"),
        (Insert("a", Attributes.of({"bold": True})), "attributes"),
        (Retain(1, Attributes.of({"bold": None})), "attributes"),
    ],
)
def test_what_the_format_has_no_words_for_is_not_written(component, what: str) -> None:
    with pytest.raises(NotInFormat, match=f"component 1: text-unicode has no {what}") as caught:
        encode(Operation.of(Delete(1), component))
    assert (caught.value.path, caught.value.what) == ("component 1", what)
    assert isinstance(caught.value, UsageError)


def test_what_no_decoder_would_take_is_not_written() -> None:
    with pytest.raises(OperationMalformed, match="lone surrogate"):
        encode(Operation.of(Insert("\ud800")))
    with pytest.raises(OperationNotCanonical, match="nothing comes after it"):
        encode(Operation((Retain(1),)))
