"""The format rich-text, strict in both directions, in UTF-16 code units."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import (
    OperationMalformed,
    OperationNotCanonical,
    OperationPastEnd,
    OperationTooLarge,
    PairSplit,
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
    in_units,
    rich_text,
)
from crdt_state.ot.rich_text import decode, decode_units, encode, encode_units
from ot.operations import documents, operations

BOLD = Attributes.of({"bold": True})
CAT = Embed.of({"image": "cat.png"})
DOCUMENT = Operation.of(Insert("a😀b"), Insert(CAT), Insert("c"))


def test_an_operation_by_hand() -> None:
    wire = {
        "ops": [
            {"retain": 3, "attributes": {"bold": True, "link": None}},
            {"insert": "😀"},
            {"insert": {"image": "cat.png"}, "attributes": {"bold": True}},
            {"delete": 2},
        ]
    }
    operation = Operation.of(
        Retain(2, Attributes.of({"bold": True, "link": None})),
        Insert("😀"),
        Insert(CAT, BOLD),
        Delete(2),
    )
    assert decode(wire, DOCUMENT) == operation
    assert encode(operation, DOCUMENT) == wire


def test_a_document_is_an_operation_on_nothing() -> None:
    wire = {"ops": [{"insert": "a😀b"}, {"insert": {"image": "cat.png"}}, {"insert": "c"}]}
    assert decode(wire, EMPTY) == DOCUMENT
    assert encode(DOCUMENT, EMPTY) == wire
    assert encode(EMPTY, EMPTY) == {"ops": []}
    with pytest.raises(OperationPastEnd):
        decode({"ops": [{"insert": "a"}, {"retain": 1, "attributes": {"bold": True}}]}, EMPTY)


def test_what_the_format_says_of_sides_and_orders() -> None:
    assert (rich_text.NAME, rich_text.INCOMING) == ("rich-text", Side.RIGHT)
    assert rich_text.ORDER is Order.INSERTIONS_FIRST


@settings(deadline=None, max_examples=120)
@given(st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich)), st.data())
def test_an_operation_comes_back_from_its_json(document, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    wire = json.loads(json.dumps(encode(operation, document)))
    assert decode(wire, document) == operation
    wide = decode_units(wire)
    assert wide == in_units(operation, document)
    assert encode_units(wide) == wire


def test_what_quill_reads_as_one_is_one() -> None:
    wire = {
        "ops": [
            {"retain": 1},
            {"retain": 2},
            {"insert": "a", "attributes": {"bold": True}},
            {"insert": "b", "attributes": {"bold": True}},
            {"delete": 1},
            {"delete": 1},
            {"retain": 1},
        ]
    }
    assert decode(wire, DOCUMENT) == Operation.of(Retain(2), Insert("ab", BOLD), Delete(2))


def test_a_deletion_before_an_insertion_stays_there() -> None:
    wire = {"ops": [{"insert": "x"}, {"delete": 1}, {"insert": "y"}]}
    assert decode(wire, DOCUMENT) == Operation.of(Insert("x"), Delete(1), Insert("y"))
    assert encode(decode(wire, DOCUMENT), DOCUMENT) == wire


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ([{"insert": "a"}], "delta: it is an object with a list 'ops'"),
        ({}, "delta: it is an object with a list 'ops'"),
        ({"ops": {}}, "delta: it is an object with a list 'ops'"),
        ({"ops": [], "v": 1}, "delta: it is an object with a list 'ops' and nothing else"),
        (None, "delta: it is an object"),
    ],
)
def test_what_is_no_delta_is_refused(wire: Any, said: str) -> None:
    with pytest.raises(OperationMalformed, match=said):
        decode(wire, DOCUMENT)


@pytest.mark.parametrize(
    ("part", "error", "said"),
    [
        ("a", OperationMalformed, r"ops\[1\]: it is an object, not str"),
        (None, OperationMalformed, r"ops\[1\]: it is an object, not NoneType"),
        ({}, OperationMalformed, r"ops\[1\]: it has one of"),
        ({"attributes": {"a": 1}}, OperationMalformed, r"ops\[1\]: it has one of"),
        ({"insert": "a", "delete": 1}, OperationMalformed, r"not 'delete', 'insert'"),
        ({"insert": "a", "at": 1}, OperationMalformed, r"not 'at', 'insert'"),
        ({"insert": ""}, OperationNotCanonical, r"ops\[1\].insert: an empty string"),
        ({"insert": "\ud83d"}, OperationMalformed, r"ops\[1\].insert: a lone surrogate, U\+D83D"),
        ({"insert": 1}, OperationMalformed, r"insert: an embed is an object, not int"),
        ({"insert": None}, OperationMalformed, r"insert: an embed is an object, not NoneType"),
        ({"insert": ["a"]}, OperationMalformed, r"insert: an embed is an object, not list"),
        ({"insert": {}}, OperationMalformed, r"insert: an embed without a key"),
        ({"insert": {"a": float("nan")}}, OperationMalformed, r"insert\['a'\]: nan"),
        ({"insert": {"a": "\ude00"}}, OperationMalformed, r"insert\['a'\]: a lone surrogate"),
        ({"insert": {"a": 2**53}}, OperationMalformed, r"insert\['a'\]: an integer is within"),
        ({"insert": {"a": nested(64)}}, OperationTooLarge, "value_depth_max"),
        ({"insert": {"a": "x" * 2**20}}, OperationTooLarge, "operation_value_bytes_max"),
        ({"insert": {"k" * 4097: 1}}, OperationTooLarge, "key_bytes_max"),
        ({"retain": 0}, OperationNotCanonical, r"ops\[1\].retain: a count of 0"),
        ({"retain": -1}, OperationNotCanonical, r"ops\[1\].retain: a count of -1"),
        ({"retain": True}, OperationMalformed, r"ops\[1\].retain: .* not bool"),
        ({"retain": 1.0}, OperationMalformed, r"ops\[1\].retain: .* not float"),
        ({"retain": "1"}, OperationMalformed, r"ops\[1\].retain: .* not str"),
        ({"retain": {"image": {}}}, OperationMalformed, r"ops\[1\].retain: .* not dict"),
        ({"retain": 2**53}, OperationMalformed, r"ops\[1\].retain: a count is within"),
        ({"delete": 0}, OperationNotCanonical, r"ops\[1\].delete: a count of 0"),
        ({"delete": True}, OperationMalformed, r"ops\[1\].delete: .* not bool"),
        ({"delete": 1.5}, OperationMalformed, r"ops\[1\].delete: .* not float"),
        (
            {"delete": 1, "attributes": {"a": 1}},
            OperationMalformed,
            r"ops\[1\].attributes: a deletion has no attributes",
        ),
        ({"retain": 1, "attributes": {}}, OperationMalformed, r"ops\[1\].attributes: there are no"),
        ({"retain": 1, "attributes": None}, OperationMalformed, r"are an object, not NoneType"),
        ({"retain": 1, "attributes": [1]}, OperationMalformed, r"are an object, not list"),
        ({"retain": 1, "attributes": {"a": nested(65)}}, OperationTooLarge, "value_depth_max"),
        (
            {"retain": 1, "attributes": {str(name): 1 for name in range(257)}},
            OperationTooLarge,
            "operation_attributes_max",
        ),
        (
            {"insert": "a", "attributes": {"bold": None}},
            OperationMalformed,
            r"ops\[1\].attributes: an insertion has no attribute to take away",
        ),
    ],
)
def test_what_is_no_component_is_refused_with_its_place(part: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        decode({"ops": [{"insert": "x"}, part]}, DOCUMENT)


def test_a_value_nested_beyond_any_recursion_is_refused() -> None:
    value = nested(200_000)
    with pytest.raises(OperationTooLarge, match="value_depth_max"):
        decode({"ops": [{"insert": {"a": value}}]}, DOCUMENT)
    while isinstance(value, list):
        value = value.pop()


def test_the_number_of_components_is_bounded() -> None:
    wire = {"ops": [{"insert": "a"}, {"retain": 1}, {"delete": 2}]}
    assert decode(wire, DOCUMENT, limits=Limits(operation_components_max=3))
    with pytest.raises(OperationTooLarge, match="operation_components_max"):
        decode(wire, DOCUMENT, limits=Limits(operation_components_max=2))


@pytest.mark.parametrize(
    "ops",
    [
        [{"retain": 2}, {"insert": "x"}],
        [{"delete": 2}],
        [{"retain": 1}, {"delete": 1}],
        [{"retain": 2, "attributes": {"bold": True}}],
    ],
)
def test_a_boundary_inside_a_pair_is_refused(ops: list[Any]) -> None:
    with pytest.raises(PairSplit, match="unit 2 is the second half"):
        decode({"ops": ops}, DOCUMENT)


def test_running_past_the_end_is_refused() -> None:
    assert decode({"ops": [{"retain": 5}, {"delete": 1}]}, DOCUMENT)
    with pytest.raises(OperationPastEnd, match="it goes to 7 in a document of 6") as caught:
        decode({"ops": [{"retain": 5}, {"delete": 2}]}, DOCUMENT)
    assert (caught.value.reach, caught.value.length) == (7, 6)


def test_what_no_decoder_would_take_is_not_written() -> None:
    with pytest.raises(OperationMalformed, match="lone surrogate"):
        encode(Operation.of(Insert("\ud800")), DOCUMENT)
    with pytest.raises(OperationMalformed, match="take away"):
        encode(Operation.of(Insert("a", Attributes.of({"bold": None}))), DOCUMENT)
    with pytest.raises(OperationPastEnd):
        encode(Operation.of(Delete(6)), DOCUMENT)
    with pytest.raises(PairSplit):
        encode_units(Operation.of(Insert("\ud83d")))
