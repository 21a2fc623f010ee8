"""A text in the engine does exactly what operations say, and tells exactly what others did."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from bridge.simulated import edit
from crdt_state.errors import UpdateMalformed
from crdt_state.identifiers import ClientId, draw_client_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.engine import NativeDocument
from crdt_state.ot import EMPTY, Attributes, Delete, Embed, Insert, Operation, Retain, apply
from crdt_state.replica.operable_text import OperableText

if TYPE_CHECKING:
    from collections.abc import Sequence

BOLD = Attributes.of({"bold": True})
SEEDS = range(40)
IN_THE_SAMPLE = 6


def opened(*updates: bytes, client_id: int = 77) -> OperableText:
    return OperableText(updates, "text", ClientId(client_id), DEFAULT_LIMITS)


def with_text(*components: Insert) -> tuple[OperableText, bytes]:
    text = opened()
    return text, text.edit([Operation.of(*components)])


def test_a_text_is_the_operation_that_inserts_it() -> None:
    native = NativeDocument(client_id=5)
    text = native.text("text")
    with native.transaction():
        text.insert(0, "plain")
        text.insert(5, "bold", {"bold": True})
        text.insert_embed(9, {"image": "x"}, {"bold": None})
    assert opened(native.encode()).document == Operation.of(
        Insert("plain"), Insert("bold", BOLD), Insert(Embed.of({"image": "x"}))
    )


@pytest.mark.parametrize("value", [7, [1, 2], {}, 1.5, True])
def test_what_is_embedded_takes_one_place_whatever_it_is(value: object) -> None:
    native = NativeDocument(client_id=5)
    with native.transaction():
        native.text("text").insert_embed(0, value)
        native.text("text").insert(1, "behind")
    text = opened(native.encode())
    assert text.document.growth == 1 + len("behind")
    update = text.edit([Operation.of(Retain(1), Insert("x"))])
    native.apply(update)
    assert native.text("text").string() == "xbehind"


def test_what_is_inserted_has_the_attributes_that_it_says_and_no_others() -> None:
    text, first = with_text(Insert("bold", BOLD))
    second = text.edit([Operation.of(Retain(2), Insert("plain"))])
    expected = Operation.of(Insert("bo", BOLD), Insert("plain"), Insert("ld", BOLD))
    assert text.document == expected
    assert opened(first, second).document == expected


def test_formatting_without_a_character_lends_itself_to_nothing() -> None:
    native = NativeDocument(client_id=5)
    text = native.text("text")
    with native.transaction():
        text.insert(0, "b", {"bold": True})
        text.delete(0, 1)
    ours = opened(native.encode())
    native.apply(ours.edit([Operation.of(Insert("plain"))]))
    assert native.text("text").runs() == [("plain", None)]


def test_operations_that_leave_nothing_give_no_update_to_keep() -> None:
    text, _ = with_text(Insert("kept"))
    there_and_back = [Operation.of(Insert("x")), Operation.of(Delete(1))]
    update = text.edit(there_and_back)
    assert text.document == Operation.of(Insert("kept"))
    assert text.edit([EMPTY]) == b""
    assert opened(with_text(Insert("kept"))[1], update).document.growth >= 4


def test_changes_of_other_roots_change_nothing() -> None:
    text, first = with_text(Insert("text"))
    native = NativeDocument(client_id=5)
    native.apply(first)
    before = native.state_vector()
    with native.transaction():
        native.map("map").set("key", 1)
    assert text.apply([native.encode(before)]) == EMPTY


def test_bytes_that_are_no_update_are_refused() -> None:
    text, _ = with_text(Insert("text"))
    with pytest.raises(UpdateMalformed):
        text.apply([b"\xff\xff\xff"])


@pytest.mark.parametrize(
    "seed",
    [
        *SEEDS[:IN_THE_SAMPLE],
        *(pytest.param(s, marks=pytest.mark.full) for s in SEEDS[IN_THE_SAMPLE:]),
    ],
)
@pytest.mark.parametrize("is_rich", [False, True])
def test_both_sides_see_the_same_after_each_turn(seed: int, is_rich: bool) -> None:
    dice = Random(seed)
    here, there = opened(client_id=draw_client_id(dice)), opened(client_id=draw_client_id(dice))
    for _ in range(12):
        before = here.document
        mine = edits(dice, here.document, is_rich=is_rich)
        theirs = edits(dice, there.document, is_rich=is_rich)
        made, came = here.edit(mine), there.edit(theirs)
        assert here.document == all_of(before, mine)
        for text, update in ((here, came), (there, made)):
            seen = text.document
            change = text.apply([update] if update else [])
            assert apply(seen, change) == text.document
        assert here.document == there.document


def edits(dice: Random, document: Operation, *, is_rich: bool) -> list[Operation]:
    made: list[Operation] = []
    for _ in range(dice.randrange(4)):
        operation = edit(dice, document, is_rich=is_rich)
        made.append(operation)
        document = apply(document, operation)
    return made


def all_of(document: Operation, operations: Sequence[Operation]) -> Operation:
    for operation in operations:
        document = apply(document, operation)
    return document
