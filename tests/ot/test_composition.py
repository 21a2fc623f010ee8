"""Applying, composing and undoing operations, on texts and on documents with attributes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import OperationMalformed, OperationPastEnd, UsageError
from crdt_state.ot import (
    EMPTY,
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Order,
    Retain,
    apply,
    check,
    compose,
    invert,
    length_of,
)
from ot.operations import applied, documents, operations, sequences

DOCUMENTS = st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich))
ORDERS = st.sampled_from(Order)

BOLD = Attributes.of({"bold": True})
PLAIN = Attributes.of({"bold": None})
CAT = Embed.of({"image": "cat.png"})


# --- applying -------------------------------------------------------------------------------


def test_positions_are_code_points() -> None:
    operation = Operation.of(Retain(1), Delete(1), Insert("é"), Retain(2), Insert("\0"))
    assert apply("a😀b🏳c", operation) == "aéb🏳\0c"


def test_a_document_takes_attributes_and_embeds() -> None:
    document = Operation.of(Insert("hello "), Insert(CAT))
    operation = Operation.of(Retain(2), Retain(4, BOLD), Insert("w", BOLD), Retain(1, BOLD))
    assert apply(document, operation) == Operation.of(
        Insert("he"), Insert("llo w", BOLD), Insert(CAT, BOLD)
    )


def test_taking_the_last_difference_away_makes_one_text_again() -> None:
    document = Operation.of(Insert("a"), Insert("b", BOLD), Insert("c"))
    assert apply(document, Operation.of(Retain(1), Retain(1, PLAIN))) == Operation.of(Insert("abc"))


@pytest.mark.parametrize("document", ["ab😀", Operation.of(Insert("ab"), Insert(CAT))])
@pytest.mark.parametrize(
    "operation",
    [
        Operation.of(Retain(4), Insert("x")),
        Operation.of(Delete(4)),
        Operation.of(Retain(2), Insert("xyz"), Delete(2)),
    ],
)
def test_running_past_the_end_is_refused(document, operation: Operation) -> None:
    for refused in (apply, lambda document, operation: invert(operation, document)):
        with pytest.raises(OperationPastEnd, match="it goes to 4 in a document of 3"):
            refused(document, operation)


def test_a_plain_text_takes_neither_attributes_nor_embeds() -> None:
    with pytest.raises(OperationMalformed, match="component 1: a plain text has no embeds"):
        apply("abc", Operation.of(Retain(1), Insert(CAT)))
    for rich in (Insert("x", BOLD), Retain(1, PLAIN)):
        with pytest.raises(OperationMalformed, match="component 0: a plain text has no attributes"):
            apply("abc", Operation.of(rich))


def test_only_a_document_is_applied_to() -> None:
    with pytest.raises(UsageError, match="a document only inserts"):
        apply(Operation.of(Retain(1), Insert("a")), EMPTY)


@settings(deadline=None)
@given(DOCUMENTS, st.data())
def test_a_document_grows_by_what_the_operation_says(document, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    after = apply(document, operation)
    assert length_of(after) == length_of(document) + operation.growth
    assert apply(document, EMPTY) == document


# --- composing ------------------------------------------------------------------------------


def test_what_is_inserted_and_deleted_has_never_been() -> None:
    typed = Operation.of(Retain(3), Insert("hello"))
    erased = Operation.of(Retain(4), Delete(3), Insert("!"))
    assert compose(typed, erased) == Operation.of(Retain(3), Insert("h!o"))
    assert compose(typed, Operation.of(Retain(3), Delete(5))) == EMPTY


def test_attributes_on_what_is_inserted_are_its_own_and_removals_vanish() -> None:
    first = Operation.of(Insert("ab", BOLD), Retain(1))
    second = Operation.of(Retain(1), Retain(2, PLAIN))
    assert compose(first, second) == Operation.of(Insert("a", BOLD), Insert("b"), Retain(1, PLAIN))


def test_removals_stay_in_what_is_still_a_change() -> None:
    first, second = Operation.of(Retain(2, BOLD)), Operation.of(Retain(1, PLAIN))
    assert compose(first, second) == Operation.of(Retain(1, PLAIN), Retain(1, BOLD))


def test_the_order_within_what_is_composed_is_that_of_the_format() -> None:
    first = Operation.of(Insert("x"), Retain(1), Insert("y"))
    second = Operation.of(Retain(1), Delete(1))
    assert compose(first, second) == Operation.of(Insert("x"), Delete(1), Insert("y"))
    assert compose(first, second, order=Order.INSERTIONS_FIRST) == Operation.of(
        Insert("xy"), Delete(1)
    )


@settings(deadline=None, max_examples=120)
@given(DOCUMENTS, ORDERS, st.data())
def test_a_composed_operation_does_what_both_do_in_turn(document, order, data) -> None:
    first = data.draw(operations(document))
    between = apply(document, first)
    second = data.draw(operations(between))
    both = compose(first, second, order=order)
    check(both, document)
    assert apply(document, both) == apply(between, second)


@settings(deadline=None, max_examples=120)
@given(DOCUMENTS, ORDERS, st.data())
def test_it_makes_no_difference_what_is_composed_first(document, order, data) -> None:
    first = data.draw(operations(document))
    second = data.draw(operations(apply(document, first)))
    third = data.draw(operations(applied(document, [first, second])))
    left = compose(compose(first, second, order=order), third, order=order)
    right = compose(first, compose(second, third, order=order), order=order)
    assert apply(document, left) == apply(document, right)
    assert compose(left, EMPTY) == compose(EMPTY, left) == left


@settings(deadline=None)
@given(DOCUMENTS, ORDERS, st.data())
def test_a_history_composes_to_one_operation(document, order, data: st.DataObject) -> None:
    history = data.draw(sequences(document, most=5))
    whole = EMPTY
    for operation in history:
        whole = compose(whole, operation, order=order)
    assert apply(document, whole) == applied(document, history)


def test_many_insertions_into_a_long_text_copy_it_once() -> None:
    long, typed = "x" * 1_000_000, []
    for _ in range(10_000):
        typed += [Retain(100), Insert("y")]
    document = apply(Operation.of(Insert(long)), Operation.of(*typed))
    assert document == Operation.of(Insert(apply(long, Operation.of(*typed))))
    assert len(document.components) == 1
    assert invert(Operation.of(Delete(1_010_000)), document) == document


# --- undoing --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=120)
@given(DOCUMENTS, ORDERS, st.data())
def test_an_inverted_operation_undoes_it(document, order, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    after = apply(document, operation)
    undo = invert(operation, document, order=order)
    check(undo, after)
    assert apply(after, undo) == document
    assert apply(document, compose(operation, undo)) == document


def test_the_order_within_what_is_undone_is_that_of_the_format() -> None:
    operation = Operation.of(Insert("x"), Delete(1))
    assert invert(operation, "a") == Operation.of(Delete(1), Insert("a"))
    assert invert(operation, "a", order=Order.INSERTIONS_FIRST) == Operation.of(
        Insert("a"), Delete(1)
    )


def test_undoing_brings_back_attributes_and_embeds() -> None:
    document = Operation.of(Insert("a", BOLD), Insert(CAT), Insert("b"))
    operation = Operation.of(Retain(1, PLAIN), Delete(1), Retain(1, BOLD))
    assert invert(operation, document) == Operation.of(
        Retain(1, BOLD), Insert(CAT), Retain(1, PLAIN)
    )
