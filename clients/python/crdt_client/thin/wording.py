"""Operations and documents of a thin client in the words of ShareDB's types.

Operations are in the measure of the format, as the machine keeps them; documents in code points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.ot import EMPTY, apply, rich_text, text_unicode
from crdt_state.protocol.sharedb.text_types import text_type

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.ot import Document, Operation
    from crdt_state.ot.formats import Format
    from crdt_state.ot.json_values import Json

__all__ = ["content_of", "document_of_content", "operation_of", "operation_of_content", "words_of"]


def words_of(operation: Operation, spoken: Format) -> Json:
    """What an `op` says of an operation."""
    if spoken.is_plain:
        return text_unicode.encode(operation)
    return rich_text.encode_units(operation)


def operation_of(words: Json, spoken: Format, *, limits: Limits) -> Operation:
    """What an `op` says.  Raises `OperationRefused`."""
    if spoken.is_plain:
        return text_unicode.decode(words, limits=limits)
    # The stock type takes a bare list for a delta wherever it takes a delta.
    return rich_text.decode_units(
        {"ops": words} if isinstance(words, list) else words, limits=limits
    )


def content_of(operation: Operation, spoken: Format) -> Json:
    """What a document is created with that `operation` makes of an empty one."""
    made = apply("" if spoken.is_plain else EMPTY, spoken.in_code_points(operation, EMPTY))
    return text_type(spoken.uri).write_content(made)


def operation_of_content(content: Json, spoken: Format, *, limits: Limits) -> Operation:
    """What makes of an empty document what it was created with.  Raises `OperationRefused`."""
    inserted = text_type(spoken.uri).read_content(content, limits=limits)
    return spoken.in_measure(inserted, EMPTY)


def document_of_content(content: Json, spoken: Format, *, limits: Limits) -> Document:
    """What a snapshot shows.  Raises `OperationRefused`."""
    inserted = text_type(spoken.uri).read_content(content, limits=limits)
    return apply("" if spoken.is_plain else EMPTY, inserted)
