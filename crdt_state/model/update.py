"""The grammar of a Yjs update, version 1, read without applying it.

    update      = sections deletes
    sections    = count, then per client (each at most once):  structs, client, clock, struct …
    struct      = 0x00 length                              GC: content is gone, counters remain
                | 0x0A length                              Skip: counters that this update lacks
                | info [origin] [right origin] [parent [key]] content
    info        = 0x80 an origin follows | 0x40 a right origin | 0x20 has a key | content kind
    parent      = 1 root name | 0 client clock             only without origin and right origin
    deletes     = count, then per client (each at most once):  ranges, client… see `deletes`

Integers are lib0 varints.  Source: yjs 13.6 (src/structs, src/utils/UpdateDecoder.js) and yrs.
What either of them cannot decode is refused, and so is what harms them in one update: an `Any`
nested deeply, counts without the bytes for them, structs of no length, counters beyond 31 bits
(yrs computes with signed 32), references to one's own future.  Nothing recurses, nothing is
allocated by an announced count, and only `UpdateRefused` is ever raised.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn

from crdt_state.errors import UpdateMalformed, UpdateTooLarge
from crdt_state.lib0 import VARUINT_MAX
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.ranges import COUNTER_MAX, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crdt_state.limits import Limits
    from crdt_state.model.ranges import Place

__all__ = [
    "GC",
    "SKIP",
    "STRING",
    "TYPE",
    "Struct",
    "UNBOUNDED",
    "UpdateReader",
]

# Kinds of struct, the low five bits of its first byte.  JSON is what Yjs before 13 wrote for
# ANY; yrs reads one string too many there, so that it is refused like a kind of the future.
GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)

HAS_ORIGIN = 0x80
HAS_RIGHT_ORIGIN = 0x40
HAS_KEY = 0x20

# Array, map, text, XML element (it has a name), XML fragment, XML text.  5 would be Yjs's XML
# hook, whose name yrs does not read; and nobody makes those.
TYPE_REFS = (0, 1, 2, 3, 4, 6)
NAMED_TYPE_REF = 3

# Kinds of value in lib0's `Any` coding.
BYTES, ARRAY, OBJECT, TEXT, TRUE, FALSE, INT64, FLOAT64, FLOAT32, INTEGER, NULL, UNDEFINED = range(
    116, 128
)


class Struct(NamedTuple):
    """One struct as it stands in the bytes; `at` … `end` is where.

    `parent` is a root's name, the place of the item that holds a nested type, or None where it
    follows from the origins.  `text` is the content of a string, else None.
    """

    client: int
    clock: int
    length: int
    kind: int
    origin: Place | None
    right_origin: Place | None
    parent: str | Place | None
    key: str | None
    at: int
    content_at: int
    end: int
    text: str | None


UNBOUNDED = replace(
    DEFAULT_LIMITS,
    update_bytes_max=2**53,
    update_clients_max=2**53,
    update_structs_max=2**53,
    update_delete_ranges_max=2**53,
    key_bytes_max=2**53,
    value_depth_max=2**53,
)
"""For bytes that were let in before: the grammar binds them, limits of today do not."""


class UpdateReader:
    """Reads one update from front to back: first all of `structs`, then all of `deletes`.

    Both raise `UpdateMalformed` and `UpdateTooLarge` only, on any bytes.
    """

    __slots__ = ("_at", "_data", "_limits")

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._at = 0

    def structs(self) -> Iterator[Struct]:
        """Every struct, section by section; within one, counters ascend without a gap."""
        data = self._data
        try:
            clients, at = _varuint(data, 0)
            if clients > len(data) // 5 + 1:
                _refuse(f"{clients} clients announced in {len(data)} bytes")
            seen: set[int] = set()
            for _ in range(clients):
                count, at = _varuint(data, at)
                client, at = _varuint(data, at)
                clock, at = _varuint(data, at)
                if client in seen:
                    _refuse(f"two sections of client {client}")
                seen.add(client)
                if not 0 < count <= (len(data) - at) // 2:
                    _refuse(f"{count} structs announced before {len(data) - at} bytes")
                for _ in range(count):
                    struct = self._struct(client, clock, at)
                    clock += struct.length
                    at = struct.end
                    if struct.length < 1:
                        _refuse(f"a struct of no length at byte {struct.at}")
                    if clock > COUNTER_MAX:
                        _refuse(f"counters of client {client} beyond 2^31 - 1")
                    yield struct
        except IndexError:
            _refuse("it ends early")
        self._at = at

    def deletes(self) -> Iterator[Range]:
        """Every deleted range, in the order of the bytes; then the update must end.

        Neither sorted nor disjoint: merges made by yrs are neither.
        """
        data, at = self._data, self._at
        try:
            clients, at = _varuint(data, at)
            if clients > (len(data) - at) // 4 + 1:
                _refuse(f"deletes of {clients} clients announced before {len(data) - at} bytes")
            seen: set[int] = set()
            for _ in range(clients):
                client, at = _varuint(data, at)
                count, at = _varuint(data, at)
                if client in seen:
                    _refuse(f"two sections of deletes of client {client}")
                seen.add(client)
                if count > (len(data) - at) // 2:
                    _refuse(f"{count} deleted ranges announced before {len(data) - at} bytes")
                for _ in range(count):
                    start, at = _varuint(data, at)
                    length, at = _varuint(data, at)
                    if length < 1:
                        _refuse(f"a deleted range of no length before byte {at}")
                    if start + length > COUNTER_MAX:
                        _refuse(f"deleted counters of client {client} beyond 2^31 - 1")
                    yield Range(client, start, start + length)
        except IndexError:
            _refuse("it ends early")
        if at != len(data):
            _refuse(f"{len(data) - at} bytes are left over at byte {at}")

    # --- one struct ---------------------------------------------------------------------------

    def _struct(self, client: int, clock: int, begin: int) -> Struct:
        data = self._data
        info = data[begin]
        at = begin + 1
        if info in (GC, SKIP):
            length, at = _varuint(data, at)
            return Struct(client, clock, length, info, None, None, None, None, begin, at, at, None)
        origin = right_origin = parent = key = None
        if info & HAS_ORIGIN:
            origin, at = self._earlier(client, clock, at)
        if info & HAS_RIGHT_ORIGIN:
            right_origin, at = self._earlier(client, clock, at)
        if not info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN):
            parent, key, at = self._parent(client, clock, at, keyed=bool(info & HAS_KEY))
        kind = info & 0x1F
        text = None
        if kind == STRING:
            text, end = self._string(at)
            length = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
        else:
            length, end = self._content(kind, at)
        return Struct(
            client, clock, length, kind, origin, right_origin, parent, key, begin, at, end, text
        )

    def _earlier(self, client: int, clock: int, at: int) -> tuple[Place, int]:
        """A reference.  To one's own future it is a lie, and yrs does not check it."""
        data = self._data
        other, at = _varuint(data, at)
        counter, at = _varuint(data, at)
        if other == client and counter >= clock:
            _refuse(f"a struct before byte {at} refers to what its author wrote later")
        if counter >= COUNTER_MAX:
            _refuse(f"a reference before byte {at} to a counter beyond 2^31 - 1")
        return (other, counter), at

    def _parent(
        self, client: int, clock: int, at: int, *, keyed: bool
    ) -> tuple[str | Place, str | None, int]:
        data = self._data
        how = data[at]
        parent: str | Place
        if how == 1:
            parent, at = self._key(at + 1)
        elif how == 0:
            parent, at = self._earlier(client, clock, at + 1)
        else:
            _refuse(f"a parent of kind {how} at byte {at}")
        key = None
        if keyed:
            key, at = self._key(at)
        return parent, key, at

    def _content(self, kind: int, at: int) -> tuple[int, int]:
        """(length in counters, offset behind it) of content that is no string."""
        data = self._data
        if kind == DELETED:
            return _varuint(data, at)
        if kind == ANY:
            count, at = _varuint(data, at)
            if count > len(data) - at:
                _refuse(f"{count} values announced before {len(data) - at} bytes")
            return count, self._values(count, at)
        end_of = self._ends.get(kind)
        if end_of is None:
            _refuse(f"content of kind {kind} before byte {at}, which not every engine reads")
        return 1, end_of(self, at)

    def _format(self, at: int) -> int:
        _, at = self._key(at)
        return self._json(at)

    def _type(self, at: int) -> int:
        ref, at = _varuint(self._data, at)
        if ref not in TYPE_REFS:
            _refuse(f"a nested type of kind {ref} before byte {at}, which not every engine reads")
        if ref == NAMED_TYPE_REF:
            _, at = self._key(at)
        return at

    def _document(self, at: int) -> int:
        _, at = self._key(at)
        if self._data[at] != OBJECT:
            _refuse(f"a subdocument without options at byte {at}")
        return self._values(1, at)

    def _bytes(self, at: int) -> int:
        size, at = _varuint(self._data, at)
        end = at + size
        if end > len(self._data):
            _refuse(f"a string at byte {at} ends {end - len(self._data)} bytes short")
        return end

    def _string(self, at: int) -> tuple[str, int]:
        data = self._data
        size, at = _varuint(data, at)
        end = at + size
        if end > len(data):
            _refuse(f"a string at byte {at} ends {end - len(data)} bytes short")
        try:
            return data[at:end].decode(), end
        except UnicodeDecodeError:
            _refuse(f"the string at byte {at} is not UTF-8")

    def _key(self, at: int) -> tuple[str, int]:
        """A name: of a root, a key, a format, an XML element."""
        size, _ = _varuint(self._data, at)
        if size > self._limits.key_bytes_max:
            raise UpdateTooLarge("key_bytes_max", self._limits.key_bytes_max, size)
        return self._string(at)

    def _json(self, at: int) -> int:
        """JSON that JavaScript and serde both read: no NaN, no infinity, no lone surrogate."""
        text, end = self._string(at)
        # Brackets inside strings count too: this is an upper bound, and cheap.
        depth_max = self._limits.value_depth_max
        if text.count("[") + text.count("{") > depth_max and _json_depth(text) > depth_max:
            _refuse(f"JSON at byte {at} nested deeper than value_depth_max = {depth_max}")
        try:
            value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
            if "\\u" in text:
                json.dumps(value, ensure_ascii=False).encode()
        except ValueError:
            _refuse(f"the string at byte {at} is not JSON")
        return end

    def _values(self, count: int, at: int) -> int:
        """Skip `count` values of lib0's `Any` coding; returns the offset behind them."""
        data = self._data
        size = len(data)
        depth_max = self._limits.value_depth_max
        # How many values are left at each level above, and whether keys stand before them.
        above: list[tuple[int, bool]] = []
        left, keyed = count, False
        while True:
            while not left:
                if not above:
                    return at
                left, keyed = above.pop()
            left -= 1
            if keyed:
                _, at = self._string(at)
            kind = data[at]
            at += 1
            if kind in (ARRAY, OBJECT):
                inner, at = _varuint(data, at)
                if inner > size - at:
                    _refuse(f"{inner} values announced before {size - at} bytes")
                above.append((left, keyed))
                if len(above) > depth_max:
                    _refuse(
                        f"a value at byte {at} nested deeper than value_depth_max = {depth_max}"
                    )
                left, keyed = inner, kind == OBJECT
            else:
                at = self._scalar(kind, at)

    def _scalar(self, kind: int, at: int) -> int:
        if kind == TEXT:
            return self._string(at)[1]
        if kind == INTEGER:
            return _varint(self._data, at)
        if kind == BYTES:
            return self._bytes(at)
        size = _SCALAR_BYTES.get(kind)
        if size is None:
            _refuse(f"a value of unknown kind {kind} at byte {at - 1}")
        if at + size > len(self._data):
            _refuse("it ends early")
        return at + size

    # Kind of content -> what finds its end; all of these are one counter long.
    _ends: ClassVar[dict[int, Callable[[UpdateReader, int], int]]] = {
        BINARY: _bytes,
        EMBED: _json,
        FORMAT: _format,
        TYPE: _type,
        DOC: _document,
    }


_SCALAR_BYTES = {
    TRUE: 0,
    FALSE: 0,
    NULL: 0,
    UNDEFINED: 0,
    FLOAT32: 4,
    FLOAT64: 8,
    INT64: 8,
}


def _refuse(reason: str) -> NoReturn:
    raise UpdateMalformed(f"not an update that can be applied: {reason}")


def _varuint(data: bytes, at: int) -> tuple[int, int]:
    """(integer, offset behind it).  `Reader.varuint`, without the object: this runs per field."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = byte & 0x7F
    begin = at
    shift = 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 49:
            _refuse(f"an integer at byte {begin} takes more than 8 bytes")
    if not byte:
        _refuse(f"an integer at byte {begin} is longer than it needs to be")
    if value > VARUINT_MAX:
        _refuse(f"an integer at byte {begin} is beyond 2^53 - 1")
    return value, at + 1


def _varint(data: bytes, at: int) -> int:
    """The offset behind a signed integer: a sign and six bits, then seven bits a byte."""
    begin = at
    byte = data[at]
    value = byte & 0x3F
    shift = 6
    while byte > 0x7F:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 55:
            _refuse(f"a number at byte {begin} takes more than 8 bytes")
    if value > VARUINT_MAX:
        _refuse(f"a number at byte {begin} is beyond 2^53 - 1")
    return at + 1


def _json_depth(text: str) -> int:
    """How deeply arrays and objects nest; brackets in strings do not count."""
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(number)
    return value
