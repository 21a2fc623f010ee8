"""What has become of a text, by words."""

from __future__ import annotations

from random import Random

import pytest

from crdt_client.thin.rejoining import difference_by_words, is_same_text
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import (
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    Side,
    apply,
    check,
    transform,
)
from ot.operations import PIECES, rich_document, rich_operation

BOLD = Attributes.of({"bold": True})


def difference(old, new, limits: Limits = DEFAULT_LIMITS) -> Operation:
    change = difference_by_words(old, new, limits=limits)
    check(change, old)
    assert apply(old, change) == new
    return change


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("one two three", "zero one three", (Insert("zero "), Retain(4), Delete(4))),
        ("the cat sat", "the cats sat", (Retain(7), Insert("s"))),
        ("one two three", "one two", (Retain(7), Delete(6))),
        ("a cat", "a cut", (Retain(3), Insert("u"), Delete(1))),
        ("one two", "o1ne t2wo", (Retain(1), Insert("1"), Retain(4), Insert("2"))),
        ("the cat", "the dog", (Retain(4), Insert("dog"), Delete(3))),
        ("你好世界", "你好新世界", (Retain(2), Insert("新"))),
        ("a\r\nb", "a\nb", (Retain(1), Delete(1))),
        ("\0x", "x", (Delete(1),)),
        ("", "new", (Insert("new"),)),
        ("same", "same", ()),
    ],
)
def test_what_differs_is_words_and_what_a_word_has_more_or_less(old, new, expected) -> None:
    assert difference(old, new) == Operation.of(*expected)


def test_any_two_texts_are_made_one_of_the_other() -> None:
    for seed in range(100):
        dice = Random(seed)
        words = [*PIECES, "one", "two ", "three\n"]
        old = dice.choices(words, k=dice.randint(0, 12))
        new = [each for each in old if dice.random() < 0.7]
        new[dice.randint(0, len(new)) :] = dice.choices(words, k=dice.randint(0, 4))
        difference("".join(old), "".join(new))


def test_any_two_documents_are_made_one_of_the_other() -> None:
    for seed in range(100):
        dice = Random(seed)
        old = rich_document(dice)
        difference(old, apply(old, rich_operation(dice, old)))
        difference(old, rich_document(dice))


def test_embeds_and_attributes_are_seen() -> None:
    cat = Insert(Embed.of({"image": "cat.png"}))
    old = Operation.of(Insert("one "), cat, Insert(" two"))
    new = Operation.of(Insert("one "), Insert("two", BOLD))
    change = difference(old, new)
    assert Retain(4) in change.components


def test_an_edit_stays_in_the_word_that_it_was_made_in() -> None:
    edit = Operation.of(Retain(2), Insert("xy"))
    change = difference("one two three", "zero one three")
    assert apply("zero one three", transform(edit, change, Side.LEFT)) == "zero onxye three"


def test_a_text_of_which_half_is_there_is_the_same() -> None:
    assert is_same_text(4, Operation.of(Insert("new text"), Delete(2)))
    assert not is_same_text(4, Operation.of(Delete(3)))
    assert is_same_text(0, Operation.of(Insert("x")))
