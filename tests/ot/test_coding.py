"""Operations and documents as bytes: one coding for each, and nothing else is taken."""

from __future__ import annotations

from random import Random

import pytest

from crdt_state.lib0 import CodingError, Reader
from crdt_state.ot import EMPTY, Attributes, Delete, Embed, Insert, Operation, Retain
from crdt_state.ot.coding import encode_document, encode_operation, read_document, read_operation
from ot.operations import PIECES, plain_operation, rich_document, rich_operation

EXAMPLES = {
    "00": EMPTY,
    "03 0002 0102c3a9 0381 01": Operation.of(Retain(2), Insert("é"), Delete(129)),
    "01 0401 01 0162 0474727565": Operation.of(Retain(1, Attributes.of({"b": True}))),
    "01 0501 78 02 0161 0131 0162 0132": Operation.of(Insert("x", Attributes.of({"b": 2, "a": 1}))),
    "01 02 07 7b2269223a317d": Operation.of(Insert(Embed.of({"i": 1}))),
    "01 06 07 7b2269223a317d 01 0162 0131": Operation.of(
        Insert(Embed.of({"i": 1}), Attributes.of({"b": 1}))
    ),
}


def read(data: bytes) -> Operation:
    reader = Reader(data)
    operation = read_operation(reader)
    reader.finish()
    return operation


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_operation_is_coded_as_its_module_says(text: str) -> None:
    data = bytes.fromhex(text)
    assert encode_operation(EXAMPLES[text]) == data
    assert read(data) == EXAMPLES[text]


def test_any_operation_and_document_is_read_as_it_was_written() -> None:
    for seed in range(300):
        dice = Random(seed)
        document = rich_document(dice) if seed % 2 else "".join(dice.choices(PIECES, k=5))
        if isinstance(document, str):
            operation = plain_operation(dice, document)
        else:
            operation = rich_operation(dice, document)
        assert read(encode_operation(operation)) == operation, f"seed {seed}"
        reader = Reader(encode_document(document))
        assert read_document(reader) == document, f"seed {seed}"
        reader.finish()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ffffff07", "components"),
        ("01 0000", "a count of 0"),
        ("01 0300", "a count of 0"),
        ("01 0001", "nothing comes after it"),
        ("02 0301 0301", "one with the component before"),
        ("01 0100", "inserts nothing"),
        ("01 0101ff", "not UTF-8"),
        ("01 07", "kind 7"),
        ("01 08", "kind 8"),
        ("01 0401 00", "0 attributes"),
        ("01 0401 ff07", "1,023 attributes"),
        ("01 0401 02 0162 0131 0161 0131", "out of order"),
        ("01 0401 02 0161 0131 0161 0131", "out of order"),
        ("01 0401 01 0161 0378797a", "no JSON"),
        ("01 0401 01 0161 03312e30", "written otherwise"),
        ("01 050178 01 0161 046e756c6c", "take away"),
        ("01 02 027b7d", "without a key"),
        ("01 02 0131", "an embed is an object"),
        ("01 02 087b2269223a20317d", "written otherwise"),
    ],
)
def test_what_is_no_canonical_operation_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CodingError, match=reason):
        read(bytes.fromhex(text))


def test_values_that_are_too_deep_to_be_read_are_refused() -> None:
    deep = b"[" * 100_000
    data = bytes.fromhex("01 02") + bytes.fromhex("a08d06") + deep
    with pytest.raises(CodingError, match="no JSON"):
        read(data)


@pytest.mark.parametrize(
    ("text", "reason"), [("02", "kind 2"), ("01 01 0301", "no document"), ("00 05 61", "short")]
)
def test_what_is_no_document_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CodingError, match=reason):
        read_document(Reader(bytes.fromhex(text)))
