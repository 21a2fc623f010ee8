"""The same operation in two measures: code points, and UTF-16 code units.

JavaScript counts units: a character beyond U+FFFF is a surrogate pair, and counts two.  How many
of one there are in so many of the other depends on the text that is gone over, so whoever
converts needs the document that the operation was made on.

    in_code_points(in_units(operation, document), document) == operation

An operation *in units* has its inserted text in units as well: every pair as its two halves, each
an element of the `str`, just as JavaScript holds it.  All that this package does with operations
it does with those too.  So a server that has no old documents at hand transforms what comes in, in
units, against a history in units, and converts once it has come to the document that is there now.

A boundary inside a pair has no place in code points: `PairSplit`.

Only the part of a document that an operation goes over is looked at, in slices, never character by
character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crdt_state.errors import OperationPastEnd, PairSplit
from crdt_state.ot.operation import Delete, Draft, Insert, Operation
from crdt_state.ot.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.ot.operation import Document

    _Go = Callable[[Pieces, int, int, str], int]

__all__ = [
    "as_characters",
    "as_units",
    "in_code_points",
    "in_units",
    "point_of_unit",
    "unit_of_point",
    "units_in",
]

PAIR = re.compile("[\U00010000-\U0010ffff]")
UTF_16 = "utf-16-le"


def units_in(text: str) -> int:
    """How many UTF-16 code units `text` takes."""
    return len(text) if text.isascii() else len(text.encode(UTF_16)) // 2


def as_units(text: str) -> str:
    """`text` with the two halves in the place of every pair."""
    return text if text.isascii() else PAIR.sub(_halves, text)


def as_characters(text: str, path: str) -> str:
    """`text` with a character in the place of every two halves.  Raises `PairSplit`."""
    if text.isascii():
        return text
    try:
        return text.encode(UTF_16, "surrogatepass").decode(UTF_16)
    except UnicodeDecodeError as error:
        raise PairSplit(path, error.start // 2) from None


def in_units(operation: Operation, document: Document) -> Operation:
    """`operation`, to be applied to `document`, in UTF-16 code units.

    Raises `OperationPastEnd`.
    """
    return _converted(operation, _go_points, document, lambda text, _: as_units(text))


def in_code_points(operation: Operation, document: Document) -> Operation:
    """`operation` in units, to be applied to `document`, in code points; `document` is in those.

    Raises `OperationPastEnd` and `PairSplit`.
    """
    return _converted(operation, _go_units, document, as_characters)


def unit_of_point(point: int, document: Document) -> int:
    """How many units are before code point `point`.  Raises `OperationPastEnd`."""
    return _go_points(Pieces(document), point, 0, "position")


def point_of_unit(unit: int, document: Document) -> int:
    """How many code points are before unit `unit`.  Raises `OperationPastEnd` and `PairSplit`."""
    return _go_units(Pieces(document), unit, 0, "position")


def _converted(
    operation: Operation, go: _Go, document: Document, spell: Callable[[str, str], str]
) -> Operation:
    pieces, draft = Pieces(document), Draft()
    at = 0
    for index, component in enumerate(operation.components):
        path = f"component {index}"
        if type(component) is Insert:
            content = component.content
            spelt = spell(content, path) if isinstance(content, str) else content
            draft.insert(Insert(spelt, component.attributes))
            continue
        count = go(pieces, component.count, at, path)
        at += component.count
        if type(component) is Delete:
            draft.delete(count)
        else:
            draft.retain(count, component.attributes)
    return draft.operation()


def _halves(pair: re.Match[str]) -> str:
    number = ord(pair[0]) - 0x10000
    return chr(0xD800 + (number >> 10)) + chr(0xDC00 + (number & 0x3FF))


def _go_points(pieces: Pieces, points: int, at: int, path: str) -> int:
    """Go over so many code points, `at` being behind us; how many units that is."""
    units, left = 0, points
    while left:
        step = min(left, pieces.left)
        if not step:
            raise OperationPastEnd(path, at + points, at + points - left)
        content = pieces.take(step).content
        units += units_in(content) if isinstance(content, str) else 1
        left -= step
    return units


def _go_units(pieces: Pieces, units: int, at: int, path: str) -> int:
    """Go over so many units, `at` being behind us; how many code points that is."""
    start, left = pieces.gone, units
    while left:
        # As many code points are no fewer units.
        step = min(left, pieces.left)
        if not step:
            raise OperationPastEnd(path, at + units, at + units - left)
        content = pieces.peek(step).content
        if isinstance(content, str) and not content.isascii():
            whole = content.encode(UTF_16)[: 2 * left]
            try:
                step = len(whole.decode(UTF_16))
            except UnicodeDecodeError:
                raise PairSplit(path, at + units) from None
            left -= len(whole) // 2
        else:
            left -= step
        pieces.skip(step)
    return pieces.gone - start
