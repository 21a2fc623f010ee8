"""An operation as bytes, for whoever keeps it: compact, and one coding for each operation.

Integers are lib0 varints, strings are UTF-8 behind their length (crdt_state/lib0.py):

    operation   count of components, then components
    component   1 byte: 00 retain, 01 insert text, 02 insert an embed, 03 delete;
                  + 04 where attributes follow, never with delete
                retain, delete: count, 1 or more
                text: string, not empty
                embed: string, its object in JSON as ot/json_values writes it
                attributes, where there are any
    attributes  count, 1 or more, then of each: string name, string value in JSON as above;
                  names rise in the order of code points
    document    00, string: a plain text
                01, operation: one that only inserts

Counts are of code points.  A decoder takes canonical operations in their one coding, and nothing
else: what it does not know is refused with `CodingError`, which whoever knows whose bytes these are
renames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_state.errors import OperationRefused
from crdt_state.lib0 import CodingError, encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot.attributes import Attributes
from crdt_state.ot.json_values import value_of
from crdt_state.ot.operation import Delete, Embed, Insert, Operation, Retain, check

if TYPE_CHECKING:
    from crdt_state.lib0 import Reader
    from crdt_state.ot.operation import Component, Document

__all__ = ["encode_document", "encode_operation", "read_document", "read_operation"]

RETAIN: Final = 0
TEXT: Final = 1
EMBED: Final = 2
DELETE: Final = 3
WITH_ATTRIBUTES: Final = 4

PLAIN: Final = 0
RICH: Final = 1


def encode_operation(operation: Operation) -> bytes:
    """A canonical operation as bytes."""
    parts = [encode_varuint(len(operation.components))]
    for component in operation.components:
        _write(component, parts)
    return b"".join(parts)


def read_operation(reader: Reader, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
    """The operation that is next.  Raises `CodingError`."""
    at, count = reader.at, reader.varuint()
    if count > limits.operation_components_max:
        raise CodingError(f"an operation at byte {at} has {count:,} components")
    try:
        operation = Operation(tuple([_read(reader, limits) for _ in range(count)]))
        check(operation, limits=limits)
    except OperationRefused as error:
        raise CodingError(f"the operation at byte {at} is none: {error}") from None
    return operation


def encode_document(document: Document) -> bytes:
    """A document as bytes."""
    if isinstance(document, str):
        return encode_varuint(PLAIN) + encode_string(document)
    return encode_varuint(RICH) + encode_operation(document)


def read_document(reader: Reader, *, limits: Limits = DEFAULT_LIMITS) -> Document:
    """The document that is next.  Raises `CodingError`."""
    at, kind = reader.at, reader.byte()
    if kind == PLAIN:
        return reader.string()
    if kind != RICH:
        raise CodingError(f"a document of kind {kind} at byte {at}; known are 0 and 1")
    document = read_operation(reader, limits=limits)
    if not document.is_document:
        raise CodingError(f"what is at byte {at} is no document: a document only inserts")
    return document


def _write(component: Component, parts: list[bytes]) -> None:
    if type(component) is Delete:
        parts.append(encode_varuint(DELETE))
        parts.append(encode_varuint(component.count))
        return
    attributes = component.attributes
    flag = 0 if attributes is None else WITH_ATTRIBUTES
    if type(component) is Retain:
        parts.append(encode_varuint(RETAIN | flag))
        parts.append(encode_varuint(component.count))
    elif isinstance(component.content, str):
        parts.append(encode_varuint(TEXT | flag))
        parts.append(encode_string(component.content))
    else:
        parts.append(encode_varuint(EMBED | flag))
        parts.append(encode_string(component.content.text))
    if attributes is not None:
        parts.append(encode_varuint(len(attributes)))
        for name, text in sorted(attributes.texts.items()):
            parts.append(encode_string(name))
            parts.append(encode_string(text))


def _read(reader: Reader, limits: Limits) -> Component:
    at, kind = reader.at, reader.byte()
    if kind == DELETE:
        return Delete(reader.varuint())
    if kind >= DELETE | WITH_ATTRIBUTES:
        raise CodingError(f"a component of kind {kind} at byte {at}")
    does, has_attributes = kind & ~WITH_ATTRIBUTES, bool(kind & WITH_ATTRIBUTES)
    if does == RETAIN:
        count = reader.varuint()
        return Retain(count, _read_attributes(reader, limits) if has_attributes else None)
    content = reader.string() if does == TEXT else _read_embed(reader, limits)
    return Insert(content, _read_attributes(reader, limits) if has_attributes else None)


def _read_embed(reader: Reader, limits: Limits) -> Embed:
    at, text = reader.at, reader.string()
    embed = Embed.of(_parsed(text, at), limits=limits)
    if embed.text != text:
        raise CodingError(f"the embed at byte {at} is written otherwise")
    return embed


def _read_attributes(reader: Reader, limits: Limits) -> Attributes:
    at, count = reader.at, reader.varuint()
    if not 0 < count <= limits.operation_attributes_max:
        raise CodingError(f"{count:,} attributes at byte {at}")
    texts: dict[str, str] = {}
    before = None
    for _ in range(count):
        name, text = reader.string(), reader.string()
        if before is not None and name <= before:
            raise CodingError(f"attributes at byte {at} are out of order")
        texts[name] = text
        before = name
    values = {name: _parsed(text, at) for name, text in texts.items()}
    attributes = Attributes.of(values, limits=limits)
    if attributes.texts != texts:
        raise CodingError(f"the attributes at byte {at} are written otherwise")
    return attributes


def _parsed(text: str, at: int) -> object:
    try:
        value: object = value_of(text)
    except (ValueError, RecursionError):
        raise CodingError(f"no JSON at byte {at}") from None
    return value
