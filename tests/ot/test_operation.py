"""Operations as values: canonical, whatever they are made of, and checked where they are not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import (
    OperationMalformed,
    OperationNotCanonical,
    OperationPastEnd,
    OperationRefused,
    OperationTooLarge,
    RemoteError,
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
    check,
    length_of,
)
from crdt_state.ot.operation import Draft
from ot.operations import documents, operations

BOLD = Attributes.of({"bold": True})
PLAIN = Attributes.of({"bold": None})
CAT = Embed.of({"image": "cat.png"})


def test_neighbours_of_a_kind_are_merged() -> None:
    made = Operation.of(
        Retain(1), Retain(2), Insert("a"), Insert("b"), Delete(1), Delete(2), Insert("c")
    )
    assert made.components == (Retain(3), Insert("ab"), Delete(3), Insert("c"))


def test_neighbours_of_other_attributes_stay_apart() -> None:
    parts = (
        Insert("a"),
        Insert("b", BOLD),
        Retain(1, BOLD),
        Retain(1, PLAIN),
        Retain(1),
        Delete(1),
    )
    assert Operation.of(*parts).components == parts
    assert Operation.of(Insert("a", BOLD), Insert("b", BOLD)) == Operation((Insert("ab", BOLD),))
    assert Operation.of(Retain(1, BOLD), Retain(2, BOLD)) == Operation((Retain(3, BOLD),))


def test_embeds_are_never_merged() -> None:
    parts = (Insert(CAT), Insert(CAT), Insert("a"), Insert(CAT))
    assert Operation.of(*parts).components == parts


def test_what_says_nothing_is_left_out() -> None:
    nothing = (Retain(0), Retain(0, BOLD), Insert(""), Delete(0))
    assert Operation.of(*nothing, Retain(5), *nothing) == EMPTY
    assert Operation.of(Insert("a"), Retain(5)) == Operation((Insert("a"),))
    assert Operation.of(Retain(1), Retain(0, BOLD), Retain(1), Delete(1)).components[0] == Retain(2)


def test_what_sets_attributes_at_the_end_stays() -> None:
    assert Operation.of(Retain(5, BOLD), Retain(5)).components == (Retain(5, BOLD),)


def test_a_count_below_zero_is_a_mistake() -> None:
    for wrong in (Retain(-1), Delete(-1)):
        with pytest.raises(UsageError, match="nothing goes backwards"):
            Operation.of(Retain(3), wrong)


def test_the_order_of_insertions_and_deletions_is_kept_unless_asked_otherwise() -> None:
    parts = (Delete(1), Insert("a"), Delete(2), Insert("b"), Retain(1), Delete(1), Insert("c"))
    assert Operation.of(*parts).components == parts
    draft = Draft(Order.INSERTIONS_FIRST)
    for part in parts:
        draft.push(part)
    assert draft.operation().components == (
        Insert("ab"),
        Delete(3),
        Retain(1),
        Insert("c"),
        Delete(1),
    )


def test_a_draft_is_finished_as_if_the_rest_had_been_pushed() -> None:
    rest = (Retain(2), Insert("b"), Delete(1), Insert("c"), Delete(1))
    for order in Order:
        for begun in ((), (Retain(1),), (Insert("a"),), (Delete(1),), (Retain(1, BOLD),)):
            pushed, finished = Draft(order), Draft(order)
            for component in (*begun, *rest):
                pushed.push(component)
            for component in begun:
                finished.push(component)
            finished.finish(Retain(7), 5, iter(rest[1:]))
            assert finished.operation() == pushed.operation()


def test_lengths_count_code_points_and_an_embed_as_one() -> None:
    operation = Operation.of(Retain(3), Insert("😀é"), Insert(CAT), Delete(4), Retain(2, BOLD))
    assert (operation.reach, operation.growth) == (9, -1)
    assert length_of("a😀") == 2
    assert length_of(Operation.of(Insert("a😀"), Insert(CAT))) == 3
    with pytest.raises(UsageError, match="a document only inserts"):
        length_of(operation)


def test_what_is_plain_and_what_is_a_document() -> None:
    assert EMPTY.is_document
    assert EMPTY.is_plain
    assert Operation.of(Retain(1), Insert("a"), Delete(1)).is_plain
    assert not Operation.of(Insert(CAT)).is_plain
    assert not Operation.of(Retain(1, BOLD)).is_plain
    assert not Operation.of(Insert("a", BOLD)).is_plain
    assert Operation.of(Insert(CAT, BOLD)).is_document
    assert not Operation.of(Delete(1)).is_document


def test_values_are_frozen_and_hashable() -> None:
    operation = Operation.of(Retain(1, PLAIN), Insert(CAT, BOLD), Delete(2))
    assert {operation} == {Operation.of(Retain(1, PLAIN), Insert(CAT, BOLD), Delete(2))}
    for value, name in ((operation, "components"), (Retain(1), "count"), (Insert("a"), "content")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
        assert not hasattr(value, "__dict__")


def test_an_embed_is_equal_where_javascript_says_so() -> None:
    assert Embed.of({"a": 1, "b": {"c": True}}) == Embed.of({"b": {"c": True}, "a": 1.0})
    assert Embed.of({"a": 1}) != Embed.of({"a": True})
    assert CAT.value == {"image": "cat.png"}
    assert len(CAT) == 1
    with pytest.raises(OperationMalformed, match="an embed is an object, not list"):
        Embed.of(["image"])
    with pytest.raises(OperationMalformed, match="does not say what it is"):
        Embed.of({})


@settings(deadline=None, max_examples=100)
@given(st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich)), st.data())
def test_what_is_made_is_canonical_and_passes_the_check(document, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    check(operation, document)
    assert Operation.of(*operation.components) == operation


@pytest.mark.parametrize(
    ("components", "where", "said"),
    [
        ((Retain(0), Insert("a")), "component 0", "a count of 0 says nothing"),
        ((Delete(-1),), "component 0", "a count of -1 says nothing"),
        ((Insert(""),), "component 0", "it inserts nothing"),
        ((Retain(1), Insert("a"), Insert("b")), "component 2", "one with the component before"),
        ((Delete(1), Delete(1)), "component 1", "one with the component before"),
        ((Retain(1, BOLD), Retain(1, BOLD)), "component 1", "one with the component before"),
        ((Insert("a"), Retain(1)), "component 1", "nothing comes after it"),
    ],
)
def test_what_is_not_canonical_is_refused_with_its_place(components, where: str, said: str) -> None:
    with pytest.raises(OperationNotCanonical, match=said) as caught:
        check(Operation(components))
    assert caught.value.path == where
    assert isinstance(caught.value, OperationRefused)
    assert isinstance(caught.value, RemoteError)


def test_lone_surrogates_and_removals_on_what_is_inserted_are_refused() -> None:
    with pytest.raises(OperationMalformed, match=r"component 1: a lone surrogate, U\+DE00"):
        check(Operation((Retain(1), Insert("ab\ude00"))))
    with pytest.raises(OperationMalformed, match="no attribute to take away"):
        check(Operation((Insert("a", PLAIN),)))
    check(Operation((Retain(1, PLAIN),)))


def test_the_number_of_components_is_bounded() -> None:
    operation = Operation.of(Insert("a"), Retain(1), Delete(1))
    check(operation, limits=Limits(operation_components_max=3))
    with pytest.raises(OperationTooLarge, match="operation_components_max") as caught:
        check(operation, limits=Limits(operation_components_max=2))
    assert (caught.value.allowed, caught.value.found) == (2, 3)


def test_an_operation_is_checked_against_its_document() -> None:
    check(Operation.of(Retain(2), Delete(1)), "a😀c")
    with pytest.raises(OperationPastEnd, match="it goes to 4 in a document of 3") as caught:
        check(Operation.of(Retain(2), Delete(2)), "a😀c")
    assert (caught.value.reach, caught.value.length) == (4, 3)
    with pytest.raises(OperationMalformed, match="no attributes and no embeds"):
        check(Operation.of(Insert(CAT)), "abc")
    check(Operation.of(Insert(CAT)), Operation.of(Insert("abc")))
