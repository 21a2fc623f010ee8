"""Documents and operations for the tests: texts that are hard to count, and strategies for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from crdt_state.ot import (
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    apply,
    length_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from crdt_state.ot import Component, Document

__all__ = [
    "ATTRIBUTES",
    "CHANGES",
    "EMBEDS",
    "PIECES",
    "TEXTS",
    "applied",
    "documents",
    "operations",
    "plain_operation",
    "rich_document",
    "rich_operation",
    "sequences",
    "text",
]

PIECES = (
    "a",
    "b",
    " ",
    "\r\n",
    "\0",
    "é",
    "e\u0301",
    "中",
    "😀",
    "👩\u200d👩\u200d👧",
    "🏳\ufe0f\u200d🌈",
    "שלום",
    "\u202eسلم\u202c",
)
"""Beyond U+FFFF, joined by ZWJ, combining, right to left, CRLF, NUL."""

NAMES = ("bold", "列")
VALUES: tuple[Any, ...] = (True, 1, False, 0, "", "x", {"deep": [1, {"k": None}]}, ["a", 1.5])
OBJECTS: tuple[dict[str, Any], ...] = (
    {"image": "cat.png"},
    {"image": "dog.png"},
    {"formula": {"tex": ["x", 1, True, None]}},
)

TEXTS = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
EMBEDS = st.sampled_from(OBJECTS).map(Embed.of)
FEW_VALUES = st.sampled_from((True, 1, {"deep": [1, {"k": None}]}))
ATTRIBUTES = st.dictionaries(st.sampled_from(NAMES), FEW_VALUES, min_size=1).map(Attributes.of)
CHANGES = st.dictionaries(st.sampled_from(NAMES), st.none() | FEW_VALUES, min_size=1).map(
    Attributes.of
)


@st.composite
def documents(draw: st.DrawFn, *, is_rich: bool) -> Document:
    """A text, or a document with attributes and embeds."""
    if not is_rich:
        return draw(TEXTS)
    inserts = st.builds(Insert, TEXTS | EMBEDS, st.none() | ATTRIBUTES)
    return Operation.of(*draw(st.lists(inserts, max_size=5)))


@st.composite
def operations(draw: st.DrawFn, document: Document) -> Operation:
    """An operation on `document`, with insertions and deletions in any order."""
    is_rich = not isinstance(document, str)
    left = length_of(document)
    components: list[Component] = []
    for kind in draw(st.lists(st.sampled_from("rrriidd"), max_size=9)):
        if kind == "i":
            content = draw(TEXTS | EMBEDS) if is_rich else draw(TEXTS)
            components.append(Insert(content, draw(st.none() | ATTRIBUTES) if is_rich else None))
            continue
        # Few, so that the next ones have something left to meet.
        count = draw(st.integers(0, min(left, 4)))
        left -= count
        if kind == "d":
            components.append(Delete(count))
        else:
            components.append(Retain(count, draw(st.none() | CHANGES) if is_rich else None))
    return Operation.of(*components)


@st.composite
def sequences(draw: st.DrawFn, document: Document, *, most: int = 3) -> list[Operation]:
    """Operations that follow one another, the first on `document`."""
    made = []
    for _ in range(draw(st.integers(0, most))):
        made.append(draw(operations(document)))
        document = apply(document, made[-1])
    return made


def applied(document: Document, sequence: Sequence[Operation]) -> Document:
    """The document after all of them."""
    for operation in sequence:
        document = apply(document, operation)
    return document


# --- by dice, for batches ---------------------------------------------------------------------


def text(dice: Random) -> str:
    """A few of the pieces."""
    return "".join(dice.choices(PIECES, k=dice.randint(1, 4)))


def attributes(dice: Random, values: Sequence[Any]) -> Attributes | None:
    names = dice.sample(NAMES, dice.randint(0, 2))
    return Attributes.of({name: dice.choice(values) for name in names}) if names else None


def insertion(dice: Random) -> Insert:
    content = text(dice) if dice.random() < 0.7 else Embed.of(dice.choice(OBJECTS))
    return Insert(content, attributes(dice, VALUES))


def rich_document(dice: Random) -> Operation:
    """A document with attributes and embeds."""
    return Operation.of(*(insertion(dice) for _ in range(dice.randint(0, 5))))


def rich_operation(dice: Random, document: Operation) -> Operation:
    """An operation on it; deletions and insertions in any order."""
    left = length_of(document)
    components: list[Component] = []
    for _ in range(dice.randint(0, 6)):
        count = dice.randint(0, left)
        match dice.choice("rid"):
            case "i":
                components.append(insertion(dice))
            case "d":
                components.append(Delete(count))
                left -= count
            case _:
                components.append(Retain(count, attributes(dice, (None, *VALUES))))
                left -= count
    return Operation.of(*components)


def plain_operation(dice: Random, document: str) -> Operation:
    """An operation on a text; deletions and insertions in any order."""
    left = len(document)
    components: list[Component] = []
    for _ in range(dice.randint(0, 6)):
        count = dice.randint(0, left)
        match dice.choice("rid"):
            case "i":
                components.append(Insert(text(dice)))
            case "d":
                components.append(Delete(count))
                left -= count
            case _:
                components.append(Retain(count))
                left -= count
    return Operation.of(*components)
