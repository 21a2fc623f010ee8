"""One revision of a text, and what is left of those below the floor, as values and as bytes.

Numbers are epoch x 2^32 + 1, + 2, ...; epochs begin with 1, so a number is never 0.  Integers are
lib0 varints, strings are UTF-8 behind their length, operations as in crdt_state/ot/coding.py:

    revision   01                    this format
               number                above 2^32, below 2^53
               source                00: nobody's; or 01, string, sequence (1 or more)
               operation             in code points
               widths                00: no character that is gone over is a surrogate pair;
                                       or 01, then for each retain and delete of the operation,
                                       by how many units it is more than it counts code points

    floor      01                    this format
               number                what comes after it has not been forgotten
               forgotten             the greatest number of a source that was forgotten, or 0
               count, then of each source, numbers rising:
                 string, sequence, distance of its number from the one before (of the first: from 0)

Of a revision both measures are kept, because a format that counts units cannot be served from the
other without the document that was there then; in bytes the second is next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crdt_state.bridge.sources import Last
from crdt_state.errors import StoreCorrupt, UsageError
from crdt_state.lib0 import VARUINT_MAX, CodingError, Reader, encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import Delete, Insert, Operation, Retain
from crdt_state.ot.coding import encode_operation, read_operation
from crdt_state.ot.units import as_units

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from crdt_state.ot import Component

    T = TypeVar("T")

__all__ = ["EPOCH_REVISIONS", "NUMBER_MAX", "Floor", "Revision", "decode", "encode", "epoch_of"]

EPOCH_REVISIONS: Final = 2**32
"""How far the first numbers of two epochs are apart."""

NUMBER_MAX: Final = VARUINT_MAX

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of a text.  `in_units` is `operation` in UTF-16 code units (crdt_state/ot/units.py).

    `source` is None for what came by the CRDT; `sequence` is then 0.
    """

    number: int
    operation: Operation
    in_units: Operation
    source: str | None = None
    sequence: int = 0
    data: bytes = field(init=False, compare=False, repr=False)
    """As bytes; `decode` reads them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _encode(self))

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Floor:
    """What is kept of the revisions through `number`, which are forgotten."""

    number: int
    sources: tuple[Last, ...] = ()
    forgotten: int = 0

    @classmethod
    def of_epoch(cls, epoch: int) -> Floor:
        """The floor of a text that begins with this epoch.  Raises `UsageError`."""
        number = epoch * EPOCH_REVISIONS
        if epoch < 1 or number > NUMBER_MAX:
            raise UsageError(f"epoch {epoch:,} is none: they go from 1 to 2^21 - 1")
        return cls(number)

    def encode(self) -> bytes:
        """As bytes; `decode` reads them."""
        parts = [
            encode_varuint(FORMAT),
            encode_varuint(self.number),
            encode_varuint(self.forgotten),
            encode_varuint(len(self.sources)),
        ]
        before = 0
        for last in self.sources:
            parts.append(encode_string(last.source))
            parts.append(encode_varuint(last.sequence))
            parts.append(encode_varuint(last.number - before))
            before = last.number
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Floor:
        """The floor that `encode` wrote.  Raises `StoreCorrupt`."""
        return _decoded(data, "floor", _read_floor)


def epoch_of(number: int) -> int:
    """The epoch of a revision's number."""
    return number // EPOCH_REVISIONS


def encode(revision: Revision) -> bytes:
    """A revision as bytes."""
    return revision.data


def _encode(revision: Revision) -> bytes:
    parts = [encode_varuint(FORMAT), encode_varuint(revision.number)]
    if revision.source is None:
        parts.append(b"\0")
    else:
        parts += (b"\1", encode_string(revision.source), encode_varuint(revision.sequence))
    parts.append(encode_operation(revision.operation))
    widths = _widths(revision)
    parts.append(b"\1" if any(widths) else b"\0")
    if any(widths):
        parts += map(encode_varuint, widths)
    return b"".join(parts)


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Revision:
    """The revision that `encode` wrote.  Raises `StoreCorrupt`."""
    return _decoded(data, "revision", lambda reader: _read_revision(reader, limits))


def _widths(revision: Revision) -> list[int]:
    """By how much each component that goes over something is wider in units."""
    if revision.in_units is revision.operation:
        return []
    both = zip(revision.operation.components, revision.in_units.components, strict=True)
    return [
        wide.count - each.count
        for each, wide in both
        if type(each) is not Insert and type(wide) is not Insert
    ]


def _decoded(data: bytes, what: str, read: Callable[[Reader], T]) -> T:
    reader = Reader(data)
    try:
        value = read(reader)
        reader.finish()
    except CodingError as error:
        raise StoreCorrupt(f"a stored {what} is damaged: it {error}") from None
    return value


def _read_format(reader: Reader) -> None:
    if (version := reader.byte()) != FORMAT:
        raise CodingError(f"has format {version}; known is {FORMAT}")


def _read_number(reader: Reader) -> int:
    at, number = reader.at, reader.varuint()
    if number < EPOCH_REVISIONS:
        raise CodingError(f"has {number:,} at byte {at}, which is of no epoch")
    return number


def _read_sequence(reader: Reader) -> int:
    at, sequence = reader.at, reader.varuint()
    if not sequence:
        raise CodingError(f"has a sequence 0 at byte {at}")
    return sequence


def _read_flag(reader: Reader) -> bool:
    at, flag = reader.at, reader.byte()
    if flag > 1:
        raise CodingError(f"has a flag {flag} at byte {at}; known are 0 and 1")
    return bool(flag)


def _read_revision(reader: Reader, limits: Limits) -> Revision:
    _read_format(reader)
    number = _read_number(reader)
    source, sequence = None, 0
    if _read_flag(reader):
        source, sequence = reader.string(), _read_sequence(reader)
    operation = read_operation(reader, limits=limits)
    is_wider = _read_flag(reader)
    wide = _read_widths(reader, operation) if is_wider else _as_wide(operation)
    return Revision(number, operation, wide, source, sequence)


def _as_wide(operation: Operation) -> Operation:
    """The same in units, where no pair is gone over."""
    components = tuple(_wider(each, 0) for each in operation.components)
    return operation if components == operation.components else Operation(components)


def _read_widths(reader: Reader, operation: Operation) -> Operation:
    components: list[Component] = []
    total = 0
    for component in operation.components:
        at = reader.at
        width = 0 if type(component) is Insert else reader.varuint()
        if type(component) is not Insert and width > component.count:
            raise CodingError(f"has more units at byte {at} than so many characters can take")
        components.append(_wider(component, width))
        total += width
    if not total:
        raise CodingError(f"has no wide character before byte {reader.at}, and says it had")
    return Operation(tuple(components))


def _wider(component: Component, width: int) -> Component:
    if type(component) is Delete:
        return Delete(component.count + width)
    if type(component) is Retain:
        return Retain(component.count + width, component.attributes)
    content = component.content
    if isinstance(content, str):
        return Insert(as_units(content), component.attributes)
    return component


def _read_floor(reader: Reader) -> Floor:
    _read_format(reader)
    number, forgotten = _read_number(reader), reader.varuint()
    sources: dict[str, Last] = {}
    before = 0
    for _ in range(reader.varuint()):
        source, sequence = reader.string(), _read_sequence(reader)
        at, distance = reader.at, reader.varuint()
        before += distance
        if source in sources or not distance or before > number:
            raise CodingError(f"has its sources out of order at byte {at}")
        sources[source] = Last(source, sequence, before)
    if forgotten > number:
        raise CodingError("has forgotten a source of a revision that is above it")
    return Floor(number, tuple(sources.values()), forgotten)
