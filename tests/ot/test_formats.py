"""Formats as values: side, order and measure, each as its module says."""

from __future__ import annotations

import pytest

from crdt_state.errors import OperationMalformed, OperationNotCanonical, PairSplit
from crdt_state.ot import Delete, Insert, Operation, Retain, rich_text, text_unicode
from crdt_state.ot.formats import FORMATS, RICH_TEXT, TEXT_UNICODE


def test_a_format_is_found_by_its_name() -> None:
    assert dict(FORMATS) == {"text-unicode": TEXT_UNICODE, "rich-text": RICH_TEXT}


def test_a_format_says_what_its_module_says() -> None:
    for spoken, module in ((TEXT_UNICODE, text_unicode), (RICH_TEXT, rich_text)):
        assert (spoken.name, spoken.uri) == (module.NAME, module.URI)
        assert (spoken.incoming, spoken.order) == (module.INCOMING, module.ORDER)


def test_an_operation_goes_into_the_measure_of_its_format_and_back() -> None:
    operation, document = Operation.of(Retain(1), Insert("😀"), Delete(1)), "😀😀"
    in_units = Operation.of(Retain(2), Insert("\ud83d\ude00"), Delete(2))
    assert TEXT_UNICODE.in_measure(operation, document) is operation
    assert TEXT_UNICODE.in_code_points(operation, document) is operation
    assert RICH_TEXT.in_measure(operation, document) == in_units
    assert RICH_TEXT.in_code_points(in_units, document) == operation


def test_what_is_checked_is_checked_in_the_measure() -> None:
    in_units = Operation.of(Retain(2), Insert("\ud83d\ude00"))
    RICH_TEXT.check(in_units)
    with pytest.raises(OperationMalformed, match="surrogate"):
        TEXT_UNICODE.check(in_units)
    with pytest.raises(PairSplit):
        RICH_TEXT.check(Operation.of(Insert("\ud83d")))
    for spoken in FORMATS.values():
        with pytest.raises(OperationNotCanonical):
            spoken.check(Operation((Retain(1),)))
