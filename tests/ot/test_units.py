"""Code points and UTF-16 code units: there and back, over one document."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import OperationPastEnd, PairSplit
from crdt_state.ot import (
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Order,
    Retain,
    Side,
    apply,
    compose,
    in_code_points,
    in_units,
    length_of,
    point_of_unit,
    transform,
    unit_of_point,
)
from crdt_state.ot.units import as_characters, as_units, units_in
from ot.operations import TEXTS, documents, operations, sequences

DOCUMENTS = st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich))
CAT = Embed.of({"image": "cat.png"})
BOLD = Attributes.of({"bold": True})


@settings(deadline=None)
@given(TEXTS)
def test_text_in_units_is_what_javascript_holds(text: str) -> None:
    units = as_units(text)
    assert len(units) == units_in(text) == len(text.encode("utf-16-le")) // 2
    assert all(ord(unit) <= 0xFFFF for unit in units)
    assert as_characters(units, "here") == text


def test_lengths_are_those_of_what_is_gone_over() -> None:
    document = Operation.of(Insert("a😀"), Insert(CAT), Insert("😀b", BOLD), Insert("c"))
    operation = Operation.of(Retain(2), Insert("🏳!"), Delete(2), Retain(1, BOLD), Delete(1))
    wide = in_units(operation, document)
    assert wide == Operation.of(
        Retain(3), Insert("\ud83c\udff3!"), Delete(3), Retain(1, BOLD), Delete(1)
    )
    assert in_code_points(wide, document) == operation


@settings(deadline=None, max_examples=120)
@given(DOCUMENTS, st.data())
def test_an_operation_comes_back_as_it_was(document, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    wide = in_units(operation, document)
    assert in_code_points(wide, document) == operation
    assert wide.growth == units_of(apply(document, operation)) - units_of(document)


def units_of(document) -> int:
    return unit_of_point(length_of(document), document)


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, st.sampled_from(Side), st.sampled_from(Order), st.data())
def test_what_is_done_in_units_is_what_is_done_in_code_points(document, side, order, data) -> None:
    one, other = data.draw(operations(document)), data.draw(operations(document))
    wide = transform(in_units(one, document), in_units(other, document), side, order=order)
    after = transform(one, other, side, order=order)
    assert in_code_points(wide, apply(document, other)) == after
    following = data.draw(operations(apply(document, one)))
    both = compose(in_units(one, document), in_units(following, apply(document, one)), order=order)
    assert in_code_points(both, document) == compose(one, following, order=order)


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, st.data())
def test_a_late_operation_needs_no_old_document(document, data: st.DataObject) -> None:
    operation, late = (
        data.draw(operations(document)),
        in_units(data.draw(operations(document)), document),
    )
    expected = in_code_points(late, document)
    now = document
    for each in (operation, *data.draw(sequences(apply(document, operation)))):
        late = transform(late, in_units(each, now), Side.RIGHT)
        expected = transform(expected, each, Side.RIGHT)
        now = apply(now, each)
    assert in_code_points(late, now) == expected


@pytest.mark.parametrize(
    "operation",
    [
        Operation.of(Retain(2), Insert("x")),
        Operation.of(Delete(2)),
        Operation.of(Retain(1), Delete(1)),
        Operation.of(Retain(3), Delete(1)),
        Operation.of(Retain(2, BOLD)),
    ],
)
@pytest.mark.parametrize("document", ["a😀😀b", Operation.of(Insert("a😀😀"), Insert("b", BOLD))])
def test_a_boundary_inside_a_pair_is_refused(document, operation: Operation) -> None:
    with pytest.raises(PairSplit, match="is the second half of a surrogate pair") as caught:
        in_code_points(operation, document)
    assert caught.value.unit in (2, 4)
    assert caught.value.path.startswith("component ")


def test_half_a_pair_that_is_inserted_is_refused() -> None:
    with pytest.raises(PairSplit, match="component 1"):
        in_code_points(Operation.of(Retain(1), Insert("ab\ude00")), "abc")


def test_running_past_the_end_is_refused_in_the_measure_that_was_asked() -> None:
    for document in ("a😀", Operation.of(Insert("a"), Insert("😀", BOLD))):
        with pytest.raises(OperationPastEnd, match="it goes to 4 in a document of 3") as caught:
            in_code_points(Operation.of(Retain(1), Delete(3)), document)
        assert caught.value.path == "component 1"
        with pytest.raises(OperationPastEnd, match="it goes to 3 in a document of 2"):
            in_units(Operation.of(Retain(1), Delete(2)), document)


def test_positions_are_converted_too() -> None:
    document = "a😀b"
    assert [unit_of_point(point, document) for point in range(4)] == [0, 1, 3, 4]
    assert [point_of_unit(unit, document) for unit in (0, 1, 3, 4)] == [0, 1, 2, 3]
    with pytest.raises(PairSplit, match="position: unit 2"):
        point_of_unit(2, document)
    with pytest.raises(OperationPastEnd, match="position"):
        point_of_unit(5, document)
