"""The state of a thin client as bytes, so that what waits for the server survives a restart.

Integers are lib0 varints, strings are UTF-8 behind their length, operations and documents as in
crdt_state/ot/coding.py, in code points:

    01                    this format
    format                string: its name
    name                  string: the source as the application gave it
    renamings             how often the client has begun to go by another source
    sequence              of what is in flight, or of what is sent next; 1 or more
    revision
    known                 document: the server's at that revision
    in flight             00; or 01, operation on `known`
    waiting               operation on what both make
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crdt_state.errors import OperationRefused, StoreCorrupt
from crdt_state.lib0 import CodingError, Reader, encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import apply, check
from crdt_state.ot.coding import encode_document, encode_operation, read_document, read_operation
from crdt_state.ot.formats import FORMATS, Format

if TYPE_CHECKING:
    from crdt_state.ot import Document, Operation

__all__ = ["Saved"]

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a client knows when it is not running."""

    format: Format
    name: str
    renamings: int
    sequence: int
    revision: int
    known: Document
    in_flight: Operation | None
    waiting: Operation

    def encode(self) -> bytes:
        """As bytes."""
        parts = [
            encode_varuint(VERSION),
            encode_string(self.format.name),
            encode_string(self.name),
            encode_varuint(self.renamings),
            encode_varuint(self.sequence),
            encode_varuint(self.revision),
            encode_document(self.known),
        ]
        if self.in_flight is None:
            parts.append(b"\0")
        else:
            parts += (b"\1", encode_operation(self.in_flight))
        parts.append(encode_operation(self.waiting))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Saved:
        """What `encode` wrote.  Raises `StoreCorrupt`."""
        reader = Reader(data)
        try:
            saved = cls._read(reader, limits)
            reader.finish()
        except (CodingError, OperationRefused) as error:
            raise StoreCorrupt(f"the saved state of a client is damaged: it {error}") from None
        return saved

    @classmethod
    def _read(cls, reader: Reader, limits: Limits) -> Saved:
        if (version := reader.byte()) != VERSION:
            raise CodingError(f"has format {version}; known is {VERSION}")
        name = reader.string()
        spoken = FORMATS.get(name)
        if spoken is None:
            raise CodingError(f"is of the format {name!r}, which is not known")
        source, renamings, sequence = reader.string(), reader.varuint(), reader.varuint()
        if not source or not sequence:
            raise CodingError("has no source, or a sequence 0")
        revision = reader.varuint()
        known = read_document(reader, limits=limits)
        if isinstance(known, str) is not spoken.is_plain:
            raise CodingError(f"has a document that is none of {name}")
        if (flag := reader.byte()) > 1:
            raise CodingError(f"has a flag {flag}; known are 0 and 1")
        in_flight = read_operation(reader, limits=limits) if flag else None
        waiting = read_operation(reader, limits=limits)
        document = known
        for operation in (in_flight, waiting):
            if operation is not None:
                check(operation, document, limits=limits)
                document = apply(document, operation)
        return cls(
            format=spoken,
            name=source,
            renamings=renamings,
            sequence=sequence,
            revision=revision,
            known=known,
            in_flight=in_flight,
            waiting=waiting,
        )
