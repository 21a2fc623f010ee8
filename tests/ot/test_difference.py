"""What makes one document of another: right always, shortest where that can be afforded."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import UsageError
from crdt_state.limits import Limits
from crdt_state.ot import (
    EMPTY,
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    apply,
    check,
    diff,
)
from ot.operations import TEXTS, documents, operations

DOCUMENTS = st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich))
FEW = Limits(diff_comparisons_max=3)

BOLD = Attributes.of({"bold": True})
CAT, DOG = Embed.of({"image": "cat.png"}), Embed.of({"image": "dog.png"})


def cost(operation: Operation) -> int:
    """How many characters are inserted and deleted."""
    return sum(
        len(each.content) if type(each) is Insert else each.count
        for each in operation.components
        if type(each) is not Retain
    )


def shortest(old: str, new: str) -> int:
    """The same of a shortest script, by the table that everybody knows."""
    row = list(range(len(new) + 1))
    for number, one in enumerate(old, start=1):
        above, row = row, [number]
        for index, other in enumerate(new):
            least = above[index] if one == other else 1 + min(above[index + 1], row[index])
            row.append(least)
    return row[-1]


@settings(deadline=None, max_examples=120)
@given(DOCUMENTS, st.data(), st.booleans())
def test_a_difference_makes_the_one_of_the_other(document, data: st.DataObject, has_few) -> None:
    other = apply(document, data.draw(operations(document)))
    operation = diff(document, other, limits=FEW) if has_few else diff(document, other)
    check(operation, document)
    assert apply(document, operation) == other
    assert diff(document, document) == EMPTY


@settings(deadline=None, max_examples=120)
@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=12))
def test_a_difference_of_short_texts_is_a_shortest_one(old: str, new: str) -> None:
    operation = diff(old, new)
    assert apply(old, operation) == new
    assert cost(operation) == shortest(old, new)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_any_two_texts_have_a_difference(old: str, new: str) -> None:
    assert apply(old, diff(old, new)) == new
    assert cost(diff(old, new)) == shortest(old, new)


def test_insertions_come_first() -> None:
    assert diff("abc", "axc") == Operation.of(Retain(1), Insert("x"), Delete(1))


def test_one_word_in_a_megabyte_is_found_with_a_handful_of_comparisons() -> None:
    old = "All work and no play makes Jack a dull boy.\n" * 25_000
    at = 600_000
    new = old[:at] + old[at:].replace("dull", "bright", 1)
    operation = diff(old, new, limits=Limits(diff_comparisons_max=50))
    assert len(old) > 1_000_000
    assert apply(old, operation) == new
    assert cost(operation) == len("dull" + "bright")


def test_changes_in_many_lines_are_found_line_by_line() -> None:
    lines = [f"{number}: the quick brown fox\n" for number in range(1_500)]
    changed = [
        line.replace("quick", "slow") if number % 3 else line for number, line in enumerate(lines)
    ]
    del changed[300:400]
    old, new = "".join(lines), "".join(changed)
    operation = diff(old, new)
    assert apply(old, operation) == new
    deleted = len("".join(lines[300:400]))
    assert cost(operation) <= 1_000 * len("quickslow") + deleted


def test_lines_that_have_moved_are_no_anchors_of_each_other() -> None:
    lines = [f"{number} {'x' * 40}\n" for number in range(200)]
    old, new = "".join(lines), "".join(lines[100:] + lines[:100])
    operation = diff(old, new)
    assert apply(old, operation) == new
    assert cost(operation) <= len(old)


def test_two_texts_that_have_nothing_in_common_cost_no_more_than_is_allowed() -> None:
    old, new = "ab" * 200_000, "cd" * 200_000
    assert diff(old, new) == Operation.of(Insert(new), Delete(len(old)))
    # The same letters in another order would take thousands of millions of comparisons.
    one, other = ("".join(Random(seed).choices("abcd", k=100_000)) for seed in (1, 2))
    assert apply(one, diff(one, other)) == other


def test_attributes_that_differ_are_set_and_nothing_is_replaced() -> None:
    old = Operation.of(Insert("ab"), Insert("cd", BOLD), Insert(CAT))
    new = Operation.of(Insert("abc"), Insert("d", BOLD), Insert(CAT, BOLD))
    assert diff(old, new) == Operation.of(
        Retain(2), Retain(1, Attributes.of({"bold": None})), Retain(1), Retain(1, BOLD)
    )


def test_embeds_are_told_apart_by_their_values() -> None:
    old = Operation.of(Insert(CAT), Insert(DOG), Insert(CAT), Insert(CAT))
    new = Operation.of(Insert(DOG), Insert(CAT), Insert(CAT))
    assert diff(old, new) == Operation.of(Delete(1))


def test_more_embeds_than_there_are_signs_for_them_are_told_apart_too() -> None:
    embeds = [Embed.of({"number": number}) for number in range(2_100)]
    old = Operation.of(*map(Insert, embeds))
    new = Operation.of(*map(Insert, (*embeds[:2_060], *reversed(embeds[2_060:]))))
    assert apply(old, diff(old, new)) == new


def test_a_text_and_a_document_can_be_compared() -> None:
    assert diff("abc", Operation.of(Insert("ab"), Insert("c", BOLD))) == Operation.of(
        Retain(2), Retain(1, BOLD)
    )
    with pytest.raises(UsageError, match="a document only inserts"):
        diff("abc", Operation.of(Retain(1), Insert("c")))
