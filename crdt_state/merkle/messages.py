"""What the two sides of a walk say, as values and as bytes.

Three requests and two answers; integers are lib0 varints, strings and lengths as in lib0:

    00 <nodes>                    CompareNodes: here are mine of level 1, where they may differ
    01 <full> <numbers>           SendNodes: show me yours
    02 <full> <parts>             CompareBuckets: here are my entries, where buckets differ
    03 <nodes>                    Nodes: here are mine
    04 ...                        Differences: what is otherwise in the buckets you named

    full      00: hashes are short (8 bytes on the wire); 01: they are full (16 bytes)
    numbers   count, then each as its distance from the one before, of the first from -1
    node      2 x distance from the number before + full, 8 bytes with a bit for every child that
              is not empty (child 0 is the lowest bit of the first byte), the hashes of those
    nodes     count, then nodes
    entry     document id, hash of its leaf
    part      2 x distance from the number before + (1 unless the part is the whole bucket);
              if it is not, string `after` and 1 byte `is_last`; count, then entries by id
    Differences: `otherwise`, `lacking`, `alike` as numbers; count of `more`, then ids;
              2 x `answered` + `is_inside`

A small scope is cheap: a node with k children takes 9 + 8 k bytes.

Decoders refuse what is short, long, unsorted or out of range, and make nothing that is larger
than a small multiple of the frame; whether an answer fits its request is for the walk to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_state.errors import InvalidDocumentId, RemoteProtocolError
from crdt_state.identifiers import DOCUMENT_ID_BYTES_MAX, DocumentId, document_id
from crdt_state.lib0 import CodingError, Reader, encode_string, encode_varuint
from crdt_state.merkle.hashes import BUCKETS, FAN_OUT, HASH_BYTES, LEVEL_1, NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SHORT_BYTES",
    "Answer",
    "CompareBuckets",
    "CompareNodes",
    "Differences",
    "Message",
    "Node",
    "Nodes",
    "Part",
    "Request",
    "SendNodes",
    "decode",
    "encode",
    "entry_bytes",
    "part_bytes",
]

SHORT_BYTES: Final = 8
"""How much of a hash travels.  Two that differ agree in it once in 2^64; then all of it does."""

BITMAP_BYTES = FAN_OUT // 8


@dataclass(frozen=True, slots=True)
class Node:
    """A node as one side holds it: bit i of `bitmap` says that child i is not empty.

    `hashes` holds the hashes of those children, each 16 bytes or cut to be short.
    """

    number: int
    is_full: bool
    bitmap: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """All entries of a bucket whose ids are beyond `after`, up to the last of them.

    If `is_last`, all that are beyond `after`.  `entries` are (id, hash of the leaf), sorted.
    """

    number: int
    entries: tuple[tuple[DocumentId, bytes], ...]
    after: str = ""
    is_last: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole bucket."""
        return self.is_last and not self.after

    def covers(self, document: str) -> bool:
        """Whether an id of this bucket would stand here."""
        return self.after < document and (self.is_last or document <= self.entries[-1][0])


@dataclass(frozen=True, slots=True)
class CompareNodes:
    """Asks for the children that differ from these nodes of level 1."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class SendNodes:
    """Asks for nodes by number."""

    numbers: tuple[int, ...]
    is_full: bool


@dataclass(frozen=True, slots=True)
class CompareBuckets:
    """Asks what is otherwise in these buckets."""

    parts: tuple[Part, ...]
    is_full: bool


@dataclass(frozen=True, slots=True)
class Nodes:
    """Answers `CompareNodes`, `SendNodes`; a root node also opens the walk.

    To `CompareNodes`: of each node, those children that differ; the node itself with full hashes
    where none does.
    """

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """Answers `CompareBuckets`.

    `otherwise` and `lacking` count through the entries of all parts of the request: what this
    side holds with another leaf, and what it does not hold.  `more` is what only this side
    holds.  `alike` counts parts: whole buckets in which short hashes show no difference.

    The first `answered` parts have been dealt with; the rest did not fit and is to be asked for
    again.  If `is_inside`, the next part has been dealt with up to the last id named here.
    """

    otherwise: tuple[int, ...]
    lacking: tuple[int, ...]
    more: tuple[DocumentId, ...]
    alike: tuple[int, ...]
    answered: int
    is_inside: bool


Request: TypeAlias = CompareNodes | SendNodes | CompareBuckets
Answer: TypeAlias = Nodes | Differences
Message: TypeAlias = Request | Answer

COMPARE_NODES, SEND_NODES, COMPARE_BUCKETS, NODES_ANSWER, DIFFERENCES = range(5)


def encode(message: Message) -> bytes:
    """The bytes of `message`."""
    match message:
        case CompareNodes(nodes):
            return b"\x00" + _encode_nodes(nodes)
        case SendNodes(numbers, is_full):
            return b"\x01" + encode_varuint(is_full) + _encode_numbers(numbers)
        case CompareBuckets(parts, is_full):
            return b"\x02" + encode_varuint(is_full) + _encode_parts(parts)
        case Nodes(nodes):
            return b"\x03" + _encode_nodes(nodes)
        case Differences():
            return b"\x04" + _encode_differences(message)


def decode(frame: bytes, *, short_bytes: int = SHORT_BYTES) -> Message:
    """The message that `frame` holds, in which a short hash takes `short_bytes`.

    Raises `RemoteProtocolError` for anything but exactly one message.
    """
    reader = Reader(frame)
    try:
        message = _read(reader, short_bytes)
        reader.finish()
    except CodingError as error:
        raise RemoteProtocolError(f"not a message of a walk: it {error}") from None
    return message


def entry_bytes(document: DocumentId, hash_bytes: int) -> int:
    """No fewer bytes than an entry takes."""
    return 2 + len(document.encode()) + hash_bytes


def part_bytes(entries: Sequence[tuple[DocumentId, bytes]], after: str, hash_bytes: int) -> int:
    """No fewer bytes than a part takes."""
    frame = 4 + 2 + len(after.encode()) + 1 + 4
    return frame + sum(entry_bytes(document, hash_bytes) for document, _ in entries)


def _read(reader: Reader, short_bytes: int) -> Message:
    kind = reader.byte()
    if kind == COMPARE_NODES:
        return CompareNodes(_read_level_1(reader, short_bytes))
    if kind == SEND_NODES:
        is_full = _read_flag(reader)
        numbers = _read_numbers(reader, NODES)
        _refuse_if(not numbers, "a request for nodes names none")
        return SendNodes(numbers, is_full)
    if kind == COMPARE_BUCKETS:
        is_full = _read_flag(reader)
        return CompareBuckets(_read_parts(reader, HASH_BYTES if is_full else short_bytes), is_full)
    if kind == NODES_ANSWER:
        return Nodes(_read_nodes(reader, short_bytes))
    if kind == DIFFERENCES:
        return _read_differences(reader)
    raise RemoteProtocolError(f"message {kind} of a walk is unknown; known are 0 to 4")


def _encode_numbers(numbers: Sequence[int]) -> bytes:
    out = bytearray(encode_varuint(len(numbers)))
    before = -1
    for number in numbers:
        out += encode_varuint(number - before)
        before = number
    return bytes(out)


def _read_numbers(reader: Reader, stop: int) -> tuple[int, ...]:
    numbers: list[int] = []
    before = -1
    for _ in range(reader.varuint()):
        before = _next_number(before, reader.varuint(), stop)
        numbers.append(before)
    return tuple(numbers)


def _next_number(before: int, distance: int, stop: int) -> int:
    _refuse_if(not distance, "a number of a walk stands there twice")
    _refuse_if(before + distance >= stop, f"a number of a walk is {stop} or more")
    return before + distance


def _encode_nodes(nodes: Sequence[Node]) -> bytes:
    out = bytearray(encode_varuint(len(nodes)))
    before = -1
    for node in nodes:
        out += encode_varuint(2 * (node.number - before) + node.is_full)
        out += node.bitmap.to_bytes(BITMAP_BYTES, "little")
        out += node.hashes
        before = node.number
    return bytes(out)


def _read_nodes(reader: Reader, short_bytes: int) -> tuple[Node, ...]:
    nodes: list[Node] = []
    before = -1
    for _ in range(reader.varuint()):
        distance, is_full = divmod(reader.varuint(), 2)
        before = _next_number(before, distance, NODES)
        bitmap = int.from_bytes(_take(reader, BITMAP_BYTES), "little")
        hash_bytes = HASH_BYTES if is_full else short_bytes
        hashes = _take(reader, bitmap.bit_count() * hash_bytes)
        nodes.append(Node(before, bool(is_full), bitmap, hashes))
    return tuple(nodes)


def _read_level_1(reader: Reader, short_bytes: int) -> tuple[Node, ...]:
    nodes = _read_nodes(reader, short_bytes)
    _refuse_if(not nodes, "a request to compare nodes holds none")
    _refuse_if(
        any(node.is_full or node.number not in LEVEL_1 for node in nodes),
        "nodes to compare are of level 1 and have short hashes",
    )
    return nodes


def _encode_parts(parts: Sequence[Part]) -> bytes:
    out = bytearray(encode_varuint(len(parts)))
    before = -1
    for part in parts:
        out += encode_varuint(2 * (part.number - before) + (not part.is_whole))
        if not part.is_whole:
            out += encode_string(part.after) + bytes([part.is_last])
        out += encode_varuint(len(part.entries))
        for document, leaf in part.entries:
            out += encode_string(document) + leaf
        before = part.number
    return bytes(out)


def _read_parts(reader: Reader, hash_bytes: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    before = -1
    for _ in range(reader.varuint()):
        distance, is_partial = divmod(reader.varuint(), 2)
        before = _next_number(before, distance, BUCKETS)
        parts.append(_read_part(reader, before, hash_bytes, is_partial=bool(is_partial)))
    _refuse_if(not parts, "a request to compare buckets holds none")
    return tuple(parts)


def _read_part(reader: Reader, number: int, hash_bytes: int, *, is_partial: bool) -> Part:
    after, is_last = (reader.string(), _read_flag(reader)) if is_partial else ("", True)
    _refuse_if(is_partial and is_last and not after, "a whole bucket is written as a part")
    entries: list[tuple[DocumentId, bytes]] = []
    last = after
    for _ in range(reader.varuint()):
        # Compared and never used otherwise, so what else an id must be is not asked here.
        start = reader.at
        document = reader.string()
        _refuse_if(reader.at - start > DOCUMENT_ID_BYTES_MAX + 2, "a document id is too long")
        _refuse_if(document <= last, "the entries of a bucket are not sorted by their ids")
        entries.append((DocumentId(document), _take(reader, hash_bytes)))
        last = document
    _refuse_if(not is_last and not entries, "a part of a bucket does not say where it ends")
    return Part(number, tuple(entries), after, is_last)


def _encode_differences(message: Differences) -> bytes:
    numbers = (message.otherwise, message.lacking, message.alike)
    return b"".join(
        [
            *map(_encode_numbers, numbers),
            encode_varuint(len(message.more)),
            *map(encode_string, message.more),
            encode_varuint(2 * message.answered + message.is_inside),
        ]
    )


def _read_differences(reader: Reader) -> Differences:
    # The walk knows how many entries and parts there were; no frame holds as many as this.
    otherwise, lacking, alike = (_read_numbers(reader, 2**32) for _ in range(3))
    more = tuple(_read_document_id(reader) for _ in range(reader.varuint()))
    answered, is_inside = divmod(reader.varuint(), 2)
    return Differences(otherwise, lacking, more, alike, answered, bool(is_inside))


def _read_document_id(reader: Reader) -> DocumentId:
    text = reader.string()
    try:
        document = document_id(text)
    except InvalidDocumentId as error:
        raise RemoteProtocolError(f"a walk names a document that cannot be: {error}") from None
    _refuse_if(document != text, "a walk names a document by an id that is not in NFC")
    return document


def _read_flag(reader: Reader) -> bool:
    flag = reader.byte()
    _refuse_if(flag > 1, f"a flag of a walk is {flag}; known are 0 and 1")
    return bool(flag)


def _take(reader: Reader, size: int) -> bytes:
    end = reader.at + size
    found = reader.data[reader.at : end]
    if len(found) < size:
        raise CodingError(f"ends at byte {len(reader.data)}, {size - len(found)} bytes short")
    reader.at = end
    return found


def _refuse_if(is_wrong: bool, reason: str) -> None:
    if is_wrong:
        raise RemoteProtocolError(reason)
