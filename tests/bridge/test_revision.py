"""A revision and a floor as bytes: one coding for each, and nothing else is taken."""

from __future__ import annotations

from random import Random

import pytest

from crdt_state.bridge import Floor, Last, Revision, decode, encode
from crdt_state.errors import StoreCorrupt
from crdt_state.ot import Delete, Insert, Operation, Retain, apply, in_units
from ot.operations import plain_operation, rich_document, rich_operation

START = 2**32
PLAIN = Operation.of(Retain(2), Insert("é"), Delete(1))
EXAMPLES = {
    # Nobody's; an insertion behind two, a deletion.
    "01 8180808010 00 03 0002 0102c3a9 0301 00": Revision(START + 1, PLAIN, PLAIN),
    # Of "a", its 300th; nothing is left of it.
    "01 8180808010 01 0161 ac02 00 00": Revision(START + 1, Operation(), Operation(), "a", 300),
    # Of the two that are gone over one is a pair, and one is inserted.
    "01 8180808010 00 02 0002 0104f09f9880 01 01": Revision(
        START + 1,
        Operation.of(Retain(2), Insert("😀")),
        Operation.of(Retain(3), Insert("\ud83d\ude00")),
    ),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_revision_is_coded_as_its_module_says(text: str) -> None:
    data, revision = bytes.fromhex(text), EXAMPLES[text]
    assert encode(revision) == data
    assert decode(data) == revision
    assert decode(data).size == revision.size == len(data)


def test_any_revision_is_read_as_it_was_written() -> None:
    for seed in range(300):
        dice = Random(seed)
        if seed % 2:
            document = rich_document(dice)
            operation = rich_operation(dice, document)
        else:
            document = "a😀é\u0301\0\r\n\u05e9\u05dc🏳\ufe0f"
            operation = plain_operation(dice, document)
        apply(document, operation)
        wide = in_units(operation, document)
        source = dice.choice((None, "a", "\u05e9\u05dc"))
        revision = Revision(
            START + dice.randint(1, 2**40),
            operation,
            wide,
            source,
            0 if source is None else seed + 1,
        )
        data = encode(revision)
        assert decode(data) == revision, f"seed {seed}"
        for end in range(len(data)):
            with pytest.raises(StoreCorrupt):
                decode(data[:end])
        with pytest.raises(StoreCorrupt):
            decode(data + b"\0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("02 8180808010 00 00 00", "has format 2"),
        ("01 ffffffff0f 00 00 00", "of no epoch"),
        ("01 8180808010 02 00 00", "a flag 2"),
        ("01 8180808010 01 0161 00 00 00", "a sequence 0"),
        ("01 8180808010 00 01 0001 00", "nothing comes after it"),
        ("01 8180808010 00 02 0101610101 61 00", "one with the component before"),
        ("01 8180808010 00 01 0701 00", "kind 7"),
        ("01 8180808010 00 02 0002 010161 02 01", "a flag 2"),
        ("01 8180808010 00 02 0002 010161 01 00", "no wide character"),
        ("01 8180808010 00 02 0002 010161 01 03", "more units"),
    ],
)
def test_what_is_no_revision_is_corrupt(text: str, reason: str) -> None:
    with pytest.raises(StoreCorrupt, match=reason):
        decode(bytes.fromhex(text))


def test_bytes_that_were_changed_are_read_as_something_else_or_refused() -> None:
    dice = Random(7)
    data = encode(EXAMPLES["01 8180808010 00 02 0002 0104f09f9880 01 01"])
    refused = 0
    for _ in range(500):
        damaged = bytearray(data)
        damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            assert encode(decode(bytes(damaged))) == damaged
        except StoreCorrupt:
            refused += 1
    assert refused


def test_a_floor_is_coded_as_its_module_says() -> None:
    floor = Floor(START + 9, (Last("b", 2, START + 3), Last("a", 300, START + 7)), START + 1)
    data = bytes.fromhex("01 8980808010 8180808010 02 0162 02 8380808010 0161 ac02 04")
    assert floor.encode() == data
    assert Floor.decode(data) == floor
    for end in range(len(data)):
        with pytest.raises(StoreCorrupt):
            Floor.decode(data[:end])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("02 8980808010 00 00", "has format 2"),
        ("01 05 00 00", "of no epoch"),
        ("01 8980808010 8a80808010 00", "forgotten"),
        ("01 8980808010 00 02 0162 02 8380808010 0162 02 01", "out of order"),
        ("01 8980808010 00 02 0162 02 8380808010 0161 02 00", "out of order"),
        ("01 8980808010 00 01 0162 02 8a80808010", "out of order"),
        ("01 8980808010 00 01 0162 00 8380808010", "a sequence 0"),
        ("01 8980808010 00 00 00", "left over"),
    ],
)
def test_what_is_no_floor_is_corrupt(text: str, reason: str) -> None:
    with pytest.raises(StoreCorrupt, match=reason):
        Floor.decode(bytes.fromhex(text))
