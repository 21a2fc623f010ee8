"""A document read from front to back, in parts: text of the same attributes, or an embed.

Whoever converts, inverts or compares goes over a document once, in steps that its other argument
gives.  A step never goes over the end of a part: ask how much is `left` of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.ot.operation import Insert, part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.ot.operation import Document

__all__ = ["Pieces", "pieces_of"]


def pieces_of(document: Document) -> Iterator[Insert]:
    """The parts of a document, as what would insert them."""
    if not isinstance(document, str):
        for component in document.components:
            if type(component) is Insert:
                yield component
    elif document:
        yield Insert(document)


class Pieces:
    """One reading of one document; counts are in characters, an embed counting one."""

    __slots__ = ("_at", "_piece", "_pieces", "gone")

    def __init__(self, document: Document) -> None:
        self.gone = 0
        self._pieces = pieces_of(document)
        self._piece = Insert("")
        self._at = 0

    @property
    def left(self) -> int:
        """How much is left of the part that this is in; 0 at the end of the document."""
        while self._at == len(self._piece.content):
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece, self._at = piece, 0
        return len(self._piece.content) - self._at

    def peek(self, count: int) -> Insert:
        """The next `count` characters, no more than are left of this part."""
        return part(self._piece, self._at, count, self._piece.attributes)

    def skip(self, count: int) -> None:
        """Go over as many."""
        self._at += count
        self.gone += count

    def take(self, count: int) -> Insert:
        """Go over the next `count` characters, which are returned."""
        part = self.peek(count)
        self.skip(count)
        return part
