"""A document read from front to back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.ot import EMPTY, Attributes, Embed, Insert, Operation, length_of
from crdt_state.ot.pieces import Pieces, pieces_of
from ot.operations import documents

BOLD = Attributes.of({"bold": True})
CAT = Embed.of({"image": "cat.png"})


def test_a_step_stays_within_one_part() -> None:
    pieces = Pieces(Operation.of(Insert("abc"), Insert(CAT, BOLD), Insert("d")))
    assert pieces.left == 3
    assert pieces.take(2) == Insert("ab")
    assert (pieces.left, pieces.gone) == (1, 2)
    pieces.skip(1)
    assert pieces.left == 1
    assert pieces.peek(1) == pieces.take(1) == Insert(CAT, BOLD)
    assert pieces.left == 1
    assert pieces.take(1) == Insert("d")
    assert (pieces.left, pieces.gone) == (0, 5)


def test_an_empty_document_has_no_parts() -> None:
    for document in ("", EMPTY):
        assert Pieces(document).left == 0
        assert list(pieces_of(document)) == []


@settings(deadline=None)
@given(st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich)), st.data())
def test_what_is_taken_step_by_step_is_the_document(document, data: st.DataObject) -> None:
    pieces, taken = Pieces(document), []
    while left := pieces.left:
        taken.append(pieces.take(data.draw(st.integers(1, left))))
    assert pieces.gone == length_of(document)
    whole = Operation.of(Insert(document)) if isinstance(document, str) else document
    assert Operation.of(*taken) == whole
