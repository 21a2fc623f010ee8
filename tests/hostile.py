"""Builders of Yjs updates that no honest program makes, and a mutator of honest ones.

`SHAPES` are single updates that inspection refuses; `SWARMS` are many small ones of which each
alone is harmless.  What each does to a bare pycrdt process is proved where children are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from crdt_state.lib0 import encode_string, encode_varuint

ARRAY, MAP, TEXT, XML_ELEMENT, XML_FRAGMENT, XML_HOOK, XML_TEXT = range(7)

Place = tuple[int, int]


# --- honest pieces ------------------------------------------------------------------------------


def place(at: Place) -> bytes:
    return encode_varuint(at[0]) + encode_varuint(at[1])


def item(
    kind: int,
    content: bytes,
    *,
    origin: Place | None = None,
    right: Place | None = None,
    parent: str | Place = "text",
    key: str | None = None,
) -> bytes:
    """A struct with content; `parent` and `key` are written where there are no origins."""
    info = kind
    info |= 0x80 if origin is not None else 0
    info |= 0x40 if right is not None else 0
    info |= 0x20 if key is not None else 0
    out = bytes([info])
    if origin is not None:
        out += place(origin)
    if right is not None:
        out += place(right)
    if origin is None and right is None:
        out += b"\1" + encode_string(parent) if isinstance(parent, str) else b"\0" + place(parent)
        if key is not None:
            out += encode_string(key)
    return out + content


def string(
    text: str,
    *,
    origin: Place | None = None,
    right: Place | None = None,
    parent: str | Place = "text",
) -> bytes:
    return item(4, encode_string(text), origin=origin, right=right, parent=parent)


def value(
    any_bytes: bytes = b"\x7e",
    *,
    origin: Place | None = None,
    right: Place | None = None,
    parent: str | Place = "map",
    key: str | None = None,
) -> bytes:
    """A struct with one value; null unless told otherwise."""
    return item(8, b"\1" + any_bytes, origin=origin, right=right, parent=parent, key=key)


def nested(
    kind: int = MAP,
    *,
    origin: Place | None = None,
    right: Place | None = None,
    parent: str | Place = "map",
    key: str | None = None,
) -> bytes:
    return item(7, bytes([kind]), origin=origin, right=right, parent=parent, key=key)


def gc(length: int) -> bytes:
    return b"\x00" + encode_varuint(length)


def skip(length: int) -> bytes:
    return b"\x0a" + encode_varuint(length)


def section(client: int, clock: int, *structs: bytes) -> bytes:
    return encode_varuint(len(structs)) + place((client, clock)) + b"".join(structs)


def deleting(*ranges: tuple[int, int, int]) -> bytes:
    """A delete set of (client, start, length)."""
    by_client: dict[int, list[bytes]] = {}
    for client, start, length in ranges:
        by_client.setdefault(client, []).append(place((start, length)))
    out = encode_varuint(len(by_client))
    for client, encoded in by_client.items():
        out += encode_varuint(client) + encode_varuint(len(encoded)) + b"".join(encoded)
    return out


def update(*sections: bytes, deletes: bytes = b"\0") -> bytes:
    return encode_varuint(len(sections)) + b"".join(sections) + deletes


# --- shapes of one update -----------------------------------------------------------------------


def nested_any(depth: int) -> bytes:
    """Arrays of one element, one in the other."""
    return update(section(1, 0, value(b"\x75\x01" * depth + b"\x7e", parent="array")))


def nested_objects(depth: int) -> bytes:
    return update(section(1, 0, value(b"\x76\x01\x01k" * depth + b"\x7e", parent="map", key="k")))


def nested_json(depth: int) -> bytes:
    return update(section(1, 0, item(5, encode_string("[" * depth + "]" * depth))))


def long_varuint(number: int, size: int) -> bytes:
    """`number` in more bytes than it needs."""
    out = bytearray()
    for _ in range(size - 1):
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


HUGE = encode_varuint(2**32 - 1)
ONE = update(section(1, 0, string("a")))
# Made by Yjs 13.6's encodeStateAsUpdateV2: one letter; and a text, a map, a delete.
V2 = bytes.fromhex("00000101000001040805746578746104010101000001010000")
V2_LONGER = bytes.fromhex(
    "000004d1bf09030300020001040701008401c40028110b74657874656c6c6f786d6b04010341010101000241"
    "000105007601016175017d0101d1df04010000"
)

SHAPES: dict[str, bytes] = {
    "values nested 30,000 deep": nested_any(30_000),
    "objects nested 20,000 deep": nested_objects(20_000),
    "JSON nested 30,000 deep": nested_json(30_000),
    "no bytes at all": b"",
    "one byte": b"\x00",
    "cut in the middle": ONE[:-3],
    "a byte left over": ONE + b"\0",
    "an integer longer than it needs to be": b"\x01\x01" + long_varuint(1, 3) + ONE[3:],
    "an integer without an end": b"\xff" * 64,
    "four billion clients": HUGE + b"\0",
    "four billion structs": b"\x01" + HUGE + b"\x01\x00\x00",
    "four billion values": update(section(1, 0, item(8, HUGE, parent="array"))),
    "four billion deletes": b"\x00\x01\x01" + HUGE,
    "a string that ends beyond the update": update(section(1, 0, item(4, b"\x7fabc"))),
    "a string that is not UTF-8": update(section(1, 0, item(4, b"\x02\xc3\x28"))),
    "a lone surrogate in UTF-8": update(section(1, 0, item(4, b"\x03\xed\xa0\x80"))),
    "a section without structs": b"\x01\x00\x01\x00\x00",
    "a string of no length": update(section(1, 0, string(""))),
    "a GC of no length": update(section(1, 0, gc(0))),
    "a Skip of no length": update(section(1, 0, skip(0), string("a"))),
    "no values": update(section(1, 0, item(8, b"\x00", parent="array"))),
    "a deleted range of no length": update(deletes=deleting((1, 0, 0))),
    "a client twice": update(section(1, 0, string("a")), section(1, 1, string("b"))),
    "overlapping sections of a client": update(
        section(1, 0, string("abc")), section(1, 1, string("xy"))
    ),
    "a client twice in the deletes": b"\x00\x02\x01\x01\x00\x01\x01\x01\x00\x01",
    "a client id of 2^53": b"\x01\x01" + long_varuint(2**53, 8) + ONE[3:],
    "a counter of 2^32": update(section(1, 2**32, string("a"))),
    "a counter that wraps": update(section(1, 2**32 - 1, string("ab"))),
    "a GC that wraps": update(section(1, 5, gc(2**32 - 1))),
    "a counter beyond 2^31": update(section(1, 2**31 - 1, string("ab"))),
    "deletes that wrap": update(deletes=deleting((1, 2**32 - 1, 5))),
    "an origin of 2^32": update(section(1, 0, string("a", origin=(2, 2**32)))),
    "an origin in its own future": update(section(1, 0, string("a", origin=(1, 7)))),
    "a right origin in its own future": update(section(1, 0, string("a", right=(1, 0)))),
    "a parent in its own future": update(section(1, 0, nested(parent=(1, 0)))),
    "structs that wait in a circle": update(
        section(2, 0, string("a", origin=(1, 0))), section(1, 0, string("b", origin=(2, 0)))
    ),
    "content of kind 11 (move)": update(section(1, 0, item(11, b"\x00\x01\x00\x01\x00"))),
    "content of kind 31": update(section(1, 0, item(31, b"\x00"))),
    "a GC with origins": update(section(1, 0, b"\x80\x02\x00\x01")),
    "a nested type of kind 7 (weak link)": update(
        section(1, 0, item(7, b"\x07\x00\x01\x00", parent="map", key="k"))
    ),
    "a nested type of kind 15": update(section(1, 0, item(7, b"\x0f", parent="map", key="k"))),
    "a parent of kind 2": update(section(1, 0, b"\x04\x02\x04text\x01a")),
    "an embed that is not JSON": update(section(1, 0, item(5, encode_string("{")))),
    "JSON with a lone surrogate": update(section(1, 0, item(5, encode_string('"\\ud800"')))),
    "JSON beyond the range of numbers": update(section(1, 0, item(5, encode_string("1e999")))),
    "a value of unknown kind": update(section(1, 0, value(b"\x30"))),
    "a subdocument without options": update(
        section(1, 0, item(9, encode_string("guid") + b"\x7e", parent="map", key="k"))
    ),
    "content of the kind JSON, which yrs misreads": update(
        section(1, 0, item(2, b"\1" + encode_string("{}"), parent="array"))
    ),
    "an XML hook, whose name yrs does not read": update(
        section(1, 0, item(7, b"\x05" + encode_string("hook"), parent="xml"))
    ),
    "an insert into a string": update(section(1, 0, string("a"), string("b", parent=(1, 0)))),
    "version 2 of the format": V2,
    "more of version 2 of the format": V2_LONGER,
}
"""Name -> an update that `inspect` refuses."""


# --- swarms: each update alone is harmless -------------------------------------------------------


def nesting_swarm(count: int) -> Iterator[bytes]:
    """Each update nests one map deeper in the one before: 16 bytes each."""
    yield update(section(1, 0, nested(parent="map", key="k")))
    for depth in range(1, count):
        yield update(section(1, depth, nested(parent=(1, depth - 1), key="k")))


def hidden_nesting_swarm(count: int) -> Iterator[bytes]:
    """The same with containers beside other items, so that no update names its container."""
    yield update(section(1, 0, nested(ARRAY, parent="array")))
    for depth in range(1, count):
        at = 2 * depth - 1
        first = value(parent=(1, at - 1))
        yield update(section(1, at, first, nested(ARRAY, origin=(1, at))))


def key_swarm(count: int) -> Iterator[bytes]:
    """As many clients set one key of one map, none knowing of the others."""
    for client in range(1, count + 1):
        yield update(section(client, 0, value(key="k")))


def one_client_key_swarm(count: int) -> Iterator[bytes]:
    """One client sets one key again and again without knowing of itself."""
    for clock in range(count):
        yield update(section(1, clock, value(key="k")))


def place_swarm(count: int) -> Iterator[bytes]:
    """As many clients insert behind one character."""
    yield update(section(1, 0, string("a")))
    for client in range(2, count + 2):
        yield update(section(client, 0, string("b", origin=(1, 0))))


def silencing_gc(victim: int, start: int, length: int = 1_000) -> bytes:
    """A few bytes after which nothing that the victim writes is taken any more."""
    return update(section(victim, start, gc(length)))


SWARMS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "nesting": nesting_swarm,
    "hidden nesting": hidden_nesting_swarm,
    "clients on one key": key_swarm,
    "one client on one key": one_client_key_swarm,
    "clients at one place": place_swarm,
}


# --- mutants -------------------------------------------------------------------------------------

INTERESTING = (0, 1, 2, 7, 10, 11, 31, 63, 64, 127, 128, 255, 2**14, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(honest: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """`honest` with one to three things wrong, mostly where the grammar has a number."""
    mutant = bytearray(honest)
    for _ in range(random.randint(1, 3)):
        if not mutant:
            break
        at = random.randrange(len(mutant))
        match random.randrange(9):
            case 0:
                mutant[at] ^= 1 << random.randrange(8)
            case 1:
                mutant[at] = random.randrange(256)
            case 2:
                mutant[at : at + 1] = encode_varuint(random.choice(INTERESTING))
            case 3:
                mutant[at] = max(0, min(255, mutant[at] + random.choice((-1, 1))))
            case 4:
                del mutant[at : at + random.randint(1, 8)]
            case 5:
                mutant[at:at] = mutant[at : at + random.randint(1, 16)]
            case 6:
                mutant[at] = mutant[at] & 0x1F | random.randrange(8) << 5
            case 7:
                mutant[at] = mutant[at] & 0xE0 | random.randrange(12)
            case 8 if others:
                other = random.choice(others)
                cut = random.randrange(len(other)) if other else 0
                mutant[at:] = other[cut:]
            case _:
                mutant[at] = random.choice(INTERESTING[:12])
    return bytes(mutant)
