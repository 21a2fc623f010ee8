"""Transforms and compositions a second, of short operations in a few shapes.

A pair to transform is what two people do to one text at once; a pair to compose is what one of
them does after the other.  Both are made before the clock starts.  A round goes over all pairs of
a shape until its time is over; the figure is the median of the rounds, with the slowest and the
fastest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.figures import Figure
from crdt_state.ot import (
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    compose,
    transform,
)
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crdt_state.ot.formats import Format

__all__ = ["measure"]

DOCUMENT_CHARACTERS = 5_000
PASTED_CHARACTERS = 400
PAIRS = 200
ROUNDS = 9
ROUND_SECONDS = 0.15
SEED = 8


Pair: TypeAlias = tuple[Operation, Operation]


@dataclass(frozen=True, slots=True)
class Shape:
    """What people do, and in which format they say it."""

    name: str
    format: Format
    make: Callable[[Random], Operation]


def typing(dice: Random) -> Operation:
    """A key press somewhere: a letter, or now and then one taken away."""
    at = Retain(dice.randrange(1, DOCUMENT_CHARACTERS - 1))
    return Operation.of(at, Delete(1) if dice.random() < 0.1 else Insert(dice.choice("etaoin ")))


def pasting(dice: Random) -> Operation:
    """A paragraph in the place of a selected one."""
    at = dice.randrange(1, DOCUMENT_CHARACTERS - PASTED_CHARACTERS)
    pasted = "".join(dice.choices("etaoin ", k=PASTED_CHARACTERS))
    return Operation.of(Retain(at), Delete(dice.randrange(1, PASTED_CHARACTERS)), Insert(pasted))


def formatting(dice: Random) -> Operation:
    """A word made bold, an image, and a link behind it."""
    at = dice.randrange(1, DOCUMENT_CHARACTERS - 100)
    return Operation.of(
        Retain(at),
        Retain(dice.randrange(1, 20), Attributes.of({"bold": True, "size": dice.choice("12")})),
        Insert(Embed.of({"image": "cat.png"})),
        Retain(dice.randrange(1, 20)),
        Insert("see there", Attributes.of({"link": "https://example.org"})),
        Delete(3),
    )


SHAPES = (
    Shape("typing", TEXT_UNICODE, typing),
    Shape("paste", TEXT_UNICODE, pasting),
    Shape("rich", RICH_TEXT, formatting),
)


def rates(step: Callable[[Operation, Operation], object], pairs: Sequence[Pair]) -> list[float]:
    """Steps a second, of each round."""
    found = []
    for _ in range(ROUNDS):
        count, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < ROUND_SECONDS:
            for one, two in pairs:
                step(one, two)
            count += len(pairs)
        found.append(count / took)
    return found


def measure() -> Iterator[Figure]:
    """Every shape, transformed and composed."""
    for shape in SHAPES:
        dice = Random(SEED)
        pairs = [(shape.make(dice), shape.make(dice)) for _ in range(PAIRS)]
        side, order = shape.format.incoming, shape.format.order
        transformed = rates(partial(transform, side=side, order=order), pairs)
        yield _figure(f"ot_transform_{shape.name}", transformed, shape)
        composed = rates(partial(compose, order=order), pairs)
        yield _figure(f"ot_compose_{shape.name}", composed, shape)


def _figure(name: str, found: list[float], shape: Shape) -> Figure:
    spread = f"{min(found):,.0f} to {max(found):,.0f} in {ROUNDS} rounds; {shape.format.name}"
    return Figure(name, median(found), "/s", spread)
