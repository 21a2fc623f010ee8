"""`crdt_state.protocol.sharedb.text_types`: a text's operations and contents on the wire."""

from __future__ import annotations

import pytest

from crdt_state.errors import OperationMalformed, OperationPastEnd, PairSplit, RequestRefused
from crdt_state.ot import EMPTY, Attributes, Delete, Insert, Operation, Retain, apply
from crdt_state.protocol.sharedb.text_types import DEFAULT, RICH_TEXT, TEXT_UNICODE, text_type


def test_a_type_is_known_by_its_uri_and_its_name() -> None:
    for each in (TEXT_UNICODE, RICH_TEXT):
        assert text_type(each.uri) is text_type(each.name) is each


@pytest.mark.parametrize("name", [DEFAULT, "json0", "", "x" * 10_000])
def test_another_type_is_refused(name: str) -> None:
    with pytest.raises(RequestRefused, match="known are") as caught:
        text_type(name)
    assert caught.value.code == "ERR_DOC_TYPE_NOT_RECOGNIZED"
    assert len(caught.value.reason) < 500


def test_plain_text_counts_code_points_and_rich_text_units() -> None:
    document = "😀cat"
    operation = Operation((Retain(1), Insert("a"), Delete(1)))
    assert TEXT_UNICODE.write(operation, document) == [1, "a", {"d": 1}]
    delta = {"ops": [{"retain": 2}, {"insert": "a"}, {"delete": 1}]}
    assert RICH_TEXT.write(operation, document) == delta
    assert TEXT_UNICODE.read([1, "a", {"d": 1}], document) == operation
    assert RICH_TEXT.read(delta, document) == operation
    with pytest.raises(PairSplit):
        RICH_TEXT.read({"ops": [{"retain": 1}, {"insert": "a"}]}, document)
    with pytest.raises(OperationPastEnd):
        RICH_TEXT.read({"ops": [{"retain": 9}, {"insert": "a"}]}, document)


def test_a_bare_list_is_a_delta() -> None:
    assert RICH_TEXT.read([{"insert": "a"}], EMPTY) == Operation((Insert("a"),))


def test_contents_are_read_as_what_makes_them_of_nothing() -> None:
    assert apply("", TEXT_UNICODE.read_content("the cat")) == "the cat"
    bold = Operation((Insert("the cat", Attributes.of({"bold": True})),))
    wire = {"ops": [{"insert": "the cat", "attributes": {"bold": True}}]}
    assert RICH_TEXT.read_content(wire) == RICH_TEXT.read_content(wire["ops"]) == bold
    for each in (TEXT_UNICODE, RICH_TEXT):
        assert each.read_content(None) == EMPTY
    assert TEXT_UNICODE.read_content("") == RICH_TEXT.read_content({"ops": []}) == EMPTY


def test_contents_are_written_as_a_snapshot_shows_them() -> None:
    assert TEXT_UNICODE.write_content("the cat") == "the cat"
    assert TEXT_UNICODE.write_content(Operation((Insert("the cat"),))) == "the cat"
    assert TEXT_UNICODE.write_content(EMPTY) == TEXT_UNICODE.write_content("") == ""
    assert RICH_TEXT.write_content("the cat") == {"ops": [{"insert": "the cat"}]}
    assert RICH_TEXT.write_content("") == RICH_TEXT.write_content(EMPTY) == {"ops": []}


@pytest.mark.parametrize("wire", [5, {}, ["a"], {"ops": [{"insert": "a"}]}])
def test_plain_text_is_created_with_a_string(wire: object) -> None:
    with pytest.raises(OperationMalformed):
        TEXT_UNICODE.read_content(wire)


@pytest.mark.parametrize(
    "wire", ["a", 5, {}, {"ops": [{"delete": 1}]}, [{"retain": 1}, {"insert": "a"}]]
)
def test_rich_text_is_created_with_insertions(wire: object) -> None:
    with pytest.raises((OperationMalformed, OperationPastEnd)):
        RICH_TEXT.read_content(wire)


def test_only_rich_text_has_presence_in_the_stock_types() -> None:
    assert RICH_TEXT.has_presence
    assert not TEXT_UNICODE.has_presence
