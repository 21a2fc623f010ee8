"""Of what messages are made: the coding of one field, and of records of fields.

A message is laid out once, as a `Record`: its fields by name, in the order in which they stand on
the wire.  `varuint`, `bytes` and `string` are lib0's (crdt_state/lib0.py).

A decoder refuses what is short, unknown or not UTF-8, where it stands (`CodingError`).  A count
that lies runs into the end of the frame before it has cost anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Scope, document_id
from crdt_state.lib0 import CodingError, Reader, encode_bytes, encode_string, encode_varuint
from crdt_state.lineage import Life

__all__ = [
    "BYTES",
    "DOCUMENT",
    "FLAG",
    "LIFE",
    "SCOPE",
    "STRING",
    "VARUINT",
    "Field",
    "Record",
    "fixed",
    "many",
    "one_of_sizes",
    "pair",
]

T = TypeVar("T")
U = TypeVar("U")


class Field(NamedTuple, Generic[T]):
    """How a value is written, and read again."""

    encode: Callable[[T], bytes]
    decode: Callable[[Reader], T]
    """Raises `CodingError`, `InvalidDocumentId` and `RemoteProtocolError`."""


class Record(Generic[T]):
    """How a value of several fields is coded: one behind the other."""

    def __init__(self, made: Callable[..., T], **fields: Field[Any]) -> None:
        """`made` takes the fields by their names, and gives a value that has them as attributes."""
        self.made = made
        self._fields = tuple(fields.items())

    def encode(self, value: T) -> bytes:
        """All fields of `value`."""
        return b"".join([field.encode(getattr(value, name)) for name, field in self._fields])

    def decode(self, reader: Reader) -> T:
        """The value that is next; raises what its fields raise."""
        return self.made(**{name: field.decode(reader) for name, field in self._fields})

    @property
    def field(self) -> Field[T]:
        """For what has it as a part."""
        return Field(self.encode, self.decode)


def _read_flag(reader: Reader) -> bool:
    at, flag = reader.at, reader.byte()
    if flag > 1:
        raise CodingError(f"has a flag {flag} at byte {at}; known are 0 and 1")
    return bool(flag)


def _read_life(reader: Reader) -> Life:
    life, reader.at = Life.read(reader.data, reader.at)
    return life


def _read_document(reader: Reader) -> DocumentId:
    name = reader.string()
    document = document_id(name)
    if document != name:
        raise RemoteProtocolError(f"{name!r} is not in NFC", code=4404)
    return document


def _read_scope(reader: Reader) -> Scope:
    at = reader.at
    if not reader.string():
        return Scope("")
    reader.at = at
    return Scope(_read_document(reader))


VARUINT: Final = Field(encode_varuint, Reader.varuint)
BYTES: Final = Field(encode_bytes, Reader.bytes)
STRING: Final = Field(encode_string, Reader.string)
FLAG: Final = Field[bool](lambda flag: b"\1" if flag else b"\0", _read_flag)
LIFE: Final = Field(Life.encode, _read_life)
DOCUMENT: Final = Field(encode_string, _read_document)
SCOPE: Final = Field(encode_string, _read_scope)


def fixed(kind: Callable[[bytes], T], size: int) -> Field[T]:
    """As many bytes, without their length."""

    def read(reader: Reader) -> T:
        end = reader.at + size
        value = reader.data[reader.at : end]
        if len(value) < size:
            raise CodingError(f"ends inside {size} bytes that begin at byte {reader.at}")
        reader.at = end
        return kind(value)

    return Field(_as_they_are, read)


def one_of_sizes(*sizes: int) -> Field[bytes]:
    """Bytes after their length, which is one of these."""

    def read(reader: Reader) -> bytes:
        at, value = reader.at, reader.bytes()
        if len(value) not in sizes:
            raise CodingError(f"has {len(value)} bytes at byte {at} in the place of {sizes[-1]}")
        return value

    return Field(encode_bytes, read)


def many(field: Field[T], *, at_most: int | None = None) -> Field[tuple[T, ...]]:
    """A count, and so many of them."""
    encode, decode = field

    def write(values: tuple[T, ...]) -> bytes:
        return encode_varuint(len(values)) + b"".join(map(encode, values))

    def read(reader: Reader) -> tuple[T, ...]:
        count = reader.varuint()
        if at_most is not None and count > at_most:
            raise CodingError(f"has {count:,} of what there may be {at_most:,} of")
        return tuple([decode(reader) for _ in range(count)])

    return Field(write, read)


def pair(first: Field[T], second: Field[U]) -> Field[tuple[T, U]]:
    """One behind the other."""
    return Field(
        lambda both: first.encode(both[0]) + second.encode(both[1]),
        lambda reader: (first.decode(reader), second.decode(reader)),
    )


def _as_they_are(value: Any) -> bytes:
    return bytes(value)
