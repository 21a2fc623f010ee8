"""Stock quill-delta, rich-text and ot-text-unicode in Node make of operations what this makes."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.errors import OperationMalformed, PairSplit
from crdt_state.ot import (
    EMPTY,
    Operation,
    Retain,
    Side,
    apply,
    compose,
    diff,
    invert,
    length_of,
    rich_text,
    text_unicode,
    transform,
    transform_position,
    unit_of_point,
)
from ot.operations import plain_operation, rich_document, rich_operation, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Ask = Callable[[list[list[Any]]], list[Any]]

CASES = 400
CASES_IN_FULL = 5_000

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def node(node_programs: Path) -> Ask:
    def ask(asked: list[list[Any]]) -> list[Any]:
        answer = subprocess.run(
            ["node", "operations.mjs"],
            cwd=node_programs,
            input=json.dumps(asked).encode(),
            capture_output=True,
            check=True,
            timeout=300,
        )
        answers: list[Any] = json.loads(answer.stdout)
        assert len(answers) == len(asked) > 0
        return answers

    return ask


class Batch:
    """What is asked of Node, and what each answer should be."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.asked: list[list[Any]] = []
        self.expected: list[Any] = []

    def expect(self, answer: Any, *asked: Any) -> None:
        self.asked.append(list(asked))
        self.expected.append(answer)

    def check(self, node: Ask) -> None:
        answers = node(self.asked)
        for asked, expected, found in zip(self.asked, self.expected, answers, strict=True):
            # As text: to Python, True and 1 are equal.
            same = json.dumps(expected, sort_keys=True) == json.dumps(found, sort_keys=True)
            assert same, f"seed {self.seed}: {asked} should give {expected}, gave {found}"


def canonical(operation: Operation) -> Operation:
    """The same as Quill builds it: insertions first."""
    return compose(EMPTY, operation, order=rich_text.ORDER)


def rich_batch(seed: int, cases: int) -> Batch:
    batch = Batch(seed)
    dice, order = batch.dice, rich_text.ORDER
    for _ in range(cases):
        document = rich_document(dice)
        base = rich_text.encode(document, EMPTY)
        one, other = (rich_operation(dice, document) for _ in range(2))
        first, second = (rich_text.encode(each, document) for each in (one, other))
        after = apply(document, one)
        shown = rich_text.encode(after, EMPTY)
        after_other = apply(document, other)

        batch.expect(shown, "quill-delta", "compose", base, first)
        for side, has_priority in ((Side.LEFT, False), (Side.RIGHT, True)):
            late = rich_text.encode(transform(one, other, side, order=order), after_other)
            batch.expect(late, "quill-delta", "transform", second, first, has_priority)
        incoming = transform(one, other, rich_text.INCOMING, order=order)
        late = rich_text.encode(incoming, after_other)
        batch.expect(late, "rich-text", "transform", first, second, "left")

        following = canonical(rich_operation(dice, after))
        both = compose(canonical(one), following, order=order)
        batch.expect(
            rich_text.encode(both, document),
            "quill-delta",
            "compose",
            rich_text.encode(canonical(one), document),
            rich_text.encode(following, after),
        )

        change = diff(document, after)
        difference = rich_text.encode(change, document)
        batch.expect(shown, "quill-delta", "compose", base, difference)

        undo = rich_text.encode(invert(one, document, order=order), after)
        batch.expect(base, "quill-delta", "compose", shown, undo)

        position = dice.randint(0, length_of(document))
        for side, has_priority in ((Side.LEFT, True), (Side.RIGHT, False)):
            moved = transform_position(position, canonical(one), side)
            batch.expect(
                unit_of_point(moved, after),
                "quill-delta",
                "position",
                rich_text.encode(canonical(one), document),
                unit_of_point(position, document),
                has_priority,
            )
    return batch


def text_batch(seed: int, cases: int) -> Batch:
    batch = Batch(seed)
    dice, order = batch.dice, text_unicode.ORDER
    encode = text_unicode.encode
    for _ in range(cases):
        document = text(dice) * dice.randint(0, 3)
        one, other = (plain_operation(dice, document) for _ in range(2))
        after = apply(document, one)
        following = plain_operation(dice, after)
        batch.expect(after, "text-unicode", "apply", document, encode(one))
        for side in Side:
            late = encode(transform(one, other, side, order=order))
            batch.expect(late, "text-unicode", "transform", encode(one), encode(other), side.value)
        both = encode(compose(one, following, order=order))
        batch.expect(both, "text-unicode", "compose", encode(one), encode(following))
        position = dice.randint(0, len(document))
        moved = transform_position(position, one)
        batch.expect(moved, "text-unicode", "position", encode(one), position)
        change = encode(diff(document, after))
        batch.expect(after, "text-unicode", "apply", document, change)
    return batch


def without_changes(operation: Operation) -> Operation:
    """The same, setting no attributes on what it goes over."""
    components = operation.components
    return Operation.of(
        *(Retain(each.count) if type(each) is Retain else each for each in components)
    )


def assert_inverts_like_quill(node: Ask, seed: int, cases: int) -> None:
    """But that Quill also sets some attributes to what they are."""
    dice = random.Random(seed)
    asked, expected = [], []
    for _ in range(cases):
        document = rich_document(dice)
        operation = canonical(rich_operation(dice, document))
        wire = rich_text.encode(operation, document)
        asked.append(["quill-delta", "invert", wire, rich_text.encode(document, EMPTY)])
        expected.append((document, operation))
    for answer, (document, operation) in zip(node(asked), expected, strict=True):
        after = apply(document, operation)
        theirs, undo = (
            rich_text.decode(answer, after),
            invert(operation, document, order=rich_text.ORDER),
        )
        assert without_changes(theirs) == without_changes(undo), f"seed {seed}"
        assert apply(after, theirs) == apply(after, undo) == document, f"seed {seed}"


def assert_texts_invert_like_ottypes(node: Ask, seed: int, cases: int) -> None:
    dice = random.Random(seed)
    asked, expected = [], []
    for _ in range(cases):
        document = text(dice)
        operation = plain_operation(dice, document)
        wire = text_unicode.encode(operation)
        asked.append(["text-unicode", "invert", wire, document])
        expected.append(invert(operation, document))
    for answer, undo in zip(node(asked), expected, strict=True):
        assert text_unicode.decode(answer) == undo, f"seed {seed}"


def assert_differences_of_quill_lead_where_ours_do(node: Ask, seed: int, cases: int) -> None:
    """Now and then Quill's cut a pair, as it compares units; that is refused here."""
    dice = random.Random(seed)
    asked, pairs = [], []
    for _ in range(cases):
        old = rich_document(dice)
        new = apply(old, rich_operation(dice, old))
        asked.append(
            ["quill-delta", "diff", *(rich_text.encode(each, EMPTY) for each in (old, new))]
        )
        pairs.append((old, new))
    cut = 0
    for answer, (old, new) in zip(node(asked), pairs, strict=True):
        assert apply(old, diff(old, new)) == new, f"seed {seed}"
        try:
            theirs = rich_text.decode(answer, old)
        except (PairSplit, OperationMalformed):
            cut += 1
        else:
            assert apply(old, theirs) == new, f"seed {seed}"
    assert cut <= cases // 50, f"seed {seed}"


def drawn_seed() -> int:
    return random.SystemRandom().randrange(2**30)


def test_quill_makes_of_operations_what_this_makes(node: Ask) -> None:
    rich_batch(drawn_seed(), CASES).check(node)


def test_ottypes_makes_of_operations_what_this_makes(node: Ask) -> None:
    text_batch(drawn_seed(), CASES).check(node)


def test_quill_undoes_what_this_undoes(node: Ask) -> None:
    assert_inverts_like_quill(node, drawn_seed(), CASES)
    assert_texts_invert_like_ottypes(node, drawn_seed(), CASES)


def test_differences_of_quill_are_read_and_do_what_they_should(node: Ask) -> None:
    assert_differences_of_quill_lead_where_ours_do(node, drawn_seed(), CASES)


@pytest.mark.full
def test_stock_programs_make_of_many_operations_what_this_makes(node: Ask) -> None:
    rich_batch(drawn_seed(), CASES_IN_FULL).check(node)
    text_batch(drawn_seed(), CASES_IN_FULL).check(node)
    assert_inverts_like_quill(node, drawn_seed(), CASES_IN_FULL)
    assert_texts_invert_like_ottypes(node, drawn_seed(), CASES_IN_FULL)
    assert_differences_of_quill_lead_where_ours_do(node, drawn_seed(), CASES_IN_FULL)
