"""The types of document that are spoken of here: texts, in two formats.

A message names a type when a document is created, in a snapshot, and in presence; by its URI, or
by its short name.  An operation names none.  One of text-unicode says what it does by itself;
one of rich-text counts in UTF-16 units, so its document has to be at hand to read it.  Therefore
messages carry both as JSON, and who has the document reads them (`TextType.read`).

`DEFAULT` is the type that a client takes for a document of which none is said.  The npm client
goes no further than the handshake unless that is JSON0, which this server has no documents of;
so every snapshot names its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crdt_state.errors import OperationMalformed, RequestRefused
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import EMPTY, Insert, Operation, rich_text, text_unicode
from crdt_state.protocol.sharedb.codes import Code

if TYPE_CHECKING:
    from crdt_state.ot import Document, Order, Side
    from crdt_state.ot.json_values import Json

__all__ = ["DEFAULT", "RICH_TEXT", "TEXT_UNICODE", "TextType", "text_type"]

DEFAULT: Final = "http://sharejs.org/types/JSONv0"


@dataclass(frozen=True, slots=True)
class TextType:
    """A type by its names, how its clients break ties, and whether they show presence."""

    name: str
    uri: str
    incoming: Side
    order: Order
    has_presence: bool
    """Whether the stock type can move a position past an operation; without, its client fails."""

    def read(self, wire: Json, document: Document, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
        """The operation on `document` that a message brings.  Raises `OperationRefused`."""
        if self is TEXT_UNICODE:
            return text_unicode.decode(wire, limits=limits)
        # The stock type takes a bare list for a delta wherever it takes a delta.
        return rich_text.decode(
            {"ops": wire} if isinstance(wire, list) else wire, document, limits=limits
        )

    def write(self, operation: Operation, document: Document) -> Json:
        """What a message brings of an operation on `document`.  Raises `NotInFormat`."""
        if self is TEXT_UNICODE:
            return text_unicode.encode(operation)
        return rich_text.encode(operation, document)

    def read_content(self, wire: Json, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
        """What a document is created with, as the operation that inserts it into an empty one.

        Raises `OperationRefused`.
        """
        if wire is None:
            return EMPTY
        if self is TEXT_UNICODE:
            if not isinstance(wire, str):
                raise OperationMalformed("data", f"it is a string, not {type(wire).__name__}")
            return text_unicode.decode([wire] if wire else [], limits=limits)
        return self.read(wire, EMPTY, limits=limits)

    def write_content(self, document: Document) -> Json:
        """What a snapshot shows of a document.  Raises `NotInFormat`."""
        if self is RICH_TEXT:
            content = Operation.of(Insert(document)) if isinstance(document, str) else document
            return rich_text.encode(content if document else EMPTY, EMPTY)
        if isinstance(document, str):
            return document
        return "".join(text_unicode.encode(document))


TEXT_UNICODE: Final = TextType(
    text_unicode.NAME,
    text_unicode.URI,
    text_unicode.INCOMING,
    text_unicode.ORDER,
    has_presence=False,
)
RICH_TEXT: Final = TextType(
    rich_text.NAME,
    rich_text.URI,
    rich_text.INCOMING,
    rich_text.ORDER,
    has_presence=True,
)

_BY_NAME: Final = {
    name: each for each in (TEXT_UNICODE, RICH_TEXT) for name in (each.name, each.uri)
}


def text_type(name: str) -> TextType:
    """The type of that URI, or short name.  Raises `RequestRefused`."""
    found = _BY_NAME.get(name)
    if found is None:
        known = " and ".join(each.uri for each in (TEXT_UNICODE, RICH_TEXT))
        raise RequestRefused(
            Code.DOC_TYPE_NOT_RECOGNIZED, f"{name[:200]!r} is no type here; known are {known}"
        )
    return found
