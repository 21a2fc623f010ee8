"""What two replicas say about a whole scope, as values, and the strict coding of them.

Kinds and fields stand in PROTOCOL.md, section 2.7.  A *batch* is documents with updates:

    00 <entries>                  as they are
    01 varuint size · <zlib>      compressed; `size` is that of the entries

    entries   many (string document · byte is_apart · bytes state_vector · many bytes updates)

A decoder refuses what is short, long, unknown or not UTF-8, and inflates no more than was said.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_state.errors import InvalidDocumentId, RemoteProtocolError
from crdt_state.identifiers import DocumentId, Scope, document_id
from crdt_state.lib0 import CodingError, Reader, encode_bytes, encode_string, encode_varuint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BATCH_BYTES",
    "LEAF_BYTES",
    "PARCEL_BYTES_MAX",
    "Answer",
    "Ask",
    "Bring",
    "Brought",
    "Ended",
    "Exchange",
    "Exchanged",
    "List",
    "Listed",
    "News",
    "Parcel",
    "Root",
    "ScopeMessage",
    "Since",
    "Subscribe",
    "Unsubscribe",
    "batches",
    "encode_scope_message",
    "read_scope_message",
    "unpack",
]

BATCH_BYTES: Final = 56 * 1024
"""Of a batch before it is compressed: a message with one fits a frame."""

PARCEL_BYTES_MAX: Final = 32 * 1024
"""What one document takes of a batch; a larger difference goes through a channel of its own."""

PARCELS_MAX: Final = 1_024

SHORT_BYTES = 128
"""Below this nothing is compressed."""

MARK_BYTES: Final = 24
ROOT_BYTES: Final = 32
LEAF_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something of one document; `is_apart` says that it is to be had through a channel instead.

    `state_vector` is what the sender holds, where that was asked.
    """

    document: DocumentId
    updates: tuple[bytes, ...] = ()
    state_vector: bytes = b""
    is_apart: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Tell me what changes in a scope, from `after` on if that is a sequence of `mark`.

    Without a mark: `root` is what I hold, compare it with yours.
    """

    subscription: int
    scope: Scope
    mark: bytes = b""
    after: int = 0
    root: bytes = b""


@dataclass(frozen=True, slots=True)
class Root:
    """My root hash, of all through the sequence `through` of `mark`; my root node if that differs.

    Without a root: you may not read all of the scope; ask for the list of what you may.
    """

    subscription: int
    mark: bytes
    through: int
    root: bytes
    node: bytes = b""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of a walk (crdt_state/merkle/messages.py)."""

    subscription: int
    request: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an `Ask`, in their order."""

    subscription: int
    answer: bytes


@dataclass(frozen=True, slots=True)
class Since:
    """I hold, durably, everything through `after`; tell me the next."""

    subscription: int
    after: int


@dataclass(frozen=True, slots=True)
class News:
    """What came up to `through`; if `is_all`, there is no more for now."""

    subscription: int
    through: int
    is_all: bool
    batch: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """These documents, with what I hold of each."""

    subscription: int
    held: tuple[tuple[DocumentId, bytes], ...]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What you lack of the next documents of an `Exchange`, and what I hold of each."""

    subscription: int
    batch: bytes


@dataclass(frozen=True, slots=True)
class Bring:
    """What you lack of these documents."""

    subscription: int
    batch: bytes


@dataclass(frozen=True, slots=True)
class Brought:
    """All of the next `Bring` is durable here, but for these documents."""

    subscription: int
    refused: tuple[tuple[DocumentId, int], ...] = ()


@dataclass(frozen=True, slots=True)
class List:
    """Asks which documents of the scope may be read, beyond `after`."""

    subscription: int
    after: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Documents with 8 bytes of the hash of each leaf; if `is_last`, there are no more."""

    subscription: int
    is_last: bool
    leaves: tuple[tuple[DocumentId, bytes], ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Tell me no more of it."""

    subscription: int


@dataclass(frozen=True, slots=True)
class Ended:
    """I tell you no more of it, and why."""

    subscription: int
    code: int
    reason: str


ScopeMessage: TypeAlias = (
    Subscribe
    | Root
    | Ask
    | Answer
    | Since
    | News
    | Exchange
    | Exchanged
    | Bring
    | Brought
    | List
    | Listed
    | Unsubscribe
    | Ended
)


def encode_scope_message(message: ScopeMessage) -> bytes:  # noqa: C901, PLR0911, PLR0912 - a table
    """The bytes of one message."""
    head = encode_varuint(message.subscription)
    match message:
        case Subscribe(_, scope, mark, after, root):
            fields = encode_string(scope) + encode_bytes(mark) + encode_varuint(after)
            return b"\x20" + head + fields + encode_bytes(root)
        case Root(_, mark, through, root, node):
            fields = mark + encode_varuint(through) + encode_bytes(root)
            return b"\x21" + head + fields + encode_bytes(node)
        case Ask(_, request):
            return b"\x22" + head + encode_bytes(request)
        case Answer(_, answer):
            return b"\x23" + head + encode_bytes(answer)
        case Since(_, after):
            return b"\x24" + head + encode_varuint(after)
        case News(_, through, is_all, batch):
            fields = encode_varuint(through) + bytes([is_all])
            return b"\x25" + head + fields + encode_bytes(batch)
        case Exchange(_, held):
            pairs = [encode_string(name) + encode_bytes(vector) for name, vector in held]
            return b"\x26" + head + _many(pairs)
        case Exchanged(_, batch):
            return b"\x27" + head + encode_bytes(batch)
        case Bring(_, batch):
            return b"\x28" + head + encode_bytes(batch)
        case Brought(_, refused):
            pairs = [encode_string(name) + encode_varuint(code) for name, code in refused]
            return b"\x29" + head + _many(pairs)
        case List(_, after):
            return b"\x2a" + head + encode_string(after)
        case Listed(_, is_last, leaves):
            pairs = [encode_string(name) + leaf for name, leaf in leaves]
            return b"\x2b" + head + bytes([is_last]) + _many(pairs)
        case Unsubscribe():
            return b"\x2c" + head
        case Ended(_, code, reason):
            return b"\x2d" + head + encode_varuint(code) + encode_string(reason)


def read_scope_message(kind: int, reader: Reader) -> ScopeMessage:  # noqa: C901, PLR0911, PLR0912 - a table
    """The message behind the byte of its kind.  Raises `CodingError`, `RemoteProtocolError`."""
    if not 0x20 <= kind <= 0x2D:
        raise RemoteProtocolError(f"message {kind:#04x} is unknown")
    number = reader.varuint()
    match kind:
        case 0x20:
            scope = _scope(reader)
            mark, after = _sized(reader, 0, MARK_BYTES), reader.varuint()
            return Subscribe(number, scope, mark, after, _sized(reader, 0, ROOT_BYTES))
        case 0x21:
            mark, through = _take(reader, MARK_BYTES), reader.varuint()
            return Root(number, mark, through, _sized(reader, 0, ROOT_BYTES), reader.bytes())
        case 0x22:
            return Ask(number, reader.bytes())
        case 0x23:
            return Answer(number, reader.bytes())
        case 0x24:
            return Since(number, reader.varuint())
        case 0x25:
            return News(number, reader.varuint(), _flag(reader), reader.bytes())
        case 0x26:
            held = ((_document(reader), reader.bytes()) for _ in range(reader.varuint()))
            return Exchange(number, tuple(held))
        case 0x27:
            return Exchanged(number, reader.bytes())
        case 0x28:
            return Bring(number, reader.bytes())
        case 0x29:
            refused = ((_document(reader), reader.varuint()) for _ in range(reader.varuint()))
            return Brought(number, tuple(refused))
        case 0x2A:
            return List(number, reader.string())
        case 0x2B:
            is_last, count = _flag(reader), reader.varuint()
            leaves = ((_document(reader), _take(reader, LEAF_BYTES)) for _ in range(count))
            return Listed(number, is_last, tuple(leaves))
        case 0x2C:
            return Unsubscribe(number)
        case _:
            return Ended(number, reader.varuint(), reader.string())


def batches(parcels: Iterable[Parcel]) -> Iterator[tuple[bytes, int]]:
    """Parcels as batches that each fit a frame, and how many are in each.

    One that would be too large for others beside it goes apart, without its updates.
    """
    coded: list[bytes] = []
    size = 0
    for parcel in parcels:
        entry = _entry(parcel)
        if len(entry) > PARCEL_BYTES_MAX:
            entry = _entry(Parcel(parcel.document, is_apart=True))
        if coded and (size + len(entry) > BATCH_BYTES or len(coded) == PARCELS_MAX):
            yield _pack(coded), len(coded)
            coded, size = [], 0
        coded.append(entry)
        size += len(entry)
    if coded:
        yield _pack(coded), len(coded)


def unpack(batch: bytes) -> tuple[Parcel, ...]:
    """The parcels of a batch; none of an empty one.  Raises `RemoteProtocolError`."""
    if not batch:
        return ()
    try:
        reader = Reader(_inflated(batch))
        parcels = tuple(_parcel(reader) for _ in range(_count(reader)))
        reader.finish()
    except CodingError as error:
        raise RemoteProtocolError(f"not a batch of documents: it {error}") from None
    except InvalidDocumentId as error:
        raise RemoteProtocolError(str(error), code=4404) from None
    return parcels


def _entry(parcel: Parcel) -> bytes:
    head = encode_string(parcel.document) + bytes([parcel.is_apart])
    return head + encode_bytes(parcel.state_vector) + _many(map(encode_bytes, parcel.updates))


def _pack(entries: list[bytes]) -> bytes:
    content = _many(entries)
    if len(content) >= SHORT_BYTES:
        packed = b"\x01" + encode_varuint(len(content)) + zlib.compress(content)
        if len(packed) < len(content):
            return packed
    return b"\x00" + content


def _inflated(batch: bytes) -> bytes:
    reader = Reader(batch)
    kind = reader.byte()
    if kind == 0:
        return batch[1:]
    if kind != 1:
        raise CodingError(f"is compressed in a way {kind} that is unknown")
    size = reader.varuint()
    if size > BATCH_BYTES + PARCEL_BYTES_MAX:
        raise CodingError(f"would have {size:,} bytes, and {BATCH_BYTES:,} are allowed")
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(batch[reader.at :], size + 1)
    except zlib.error as error:
        raise CodingError(f"cannot be inflated ({error})") from None
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise CodingError(f"does not hold the {size:,} bytes it says")
    return content


def _count(reader: Reader) -> int:
    count = reader.varuint()
    if count > PARCELS_MAX:
        raise CodingError(f"holds {count:,} documents, and {PARCELS_MAX:,} are allowed")
    return count


def _parcel(reader: Reader) -> Parcel:
    document, is_apart, vector = _document(reader), _flag(reader), reader.bytes()
    updates = tuple(reader.bytes() for _ in range(reader.varuint()))
    return Parcel(document, updates, vector, is_apart)


def _many(coded: Iterable[bytes]) -> bytes:
    parts = list(coded)
    return encode_varuint(len(parts)) + b"".join(parts)


def _flag(reader: Reader) -> bool:
    flag = reader.byte()
    if flag > 1:
        raise CodingError(f"has a flag {flag} at byte {reader.at - 1}; known are 0 and 1")
    return bool(flag)


def _sized(reader: Reader, *sizes: int) -> bytes:
    value = reader.bytes()
    if len(value) not in sizes:
        raise CodingError(f"has {len(value)} bytes at byte {reader.at} in the place of {sizes[-1]}")
    return value


def _take(reader: Reader, size: int) -> bytes:
    end = reader.at + size
    value = reader.data[reader.at : end]
    if len(value) < size:
        raise CodingError(f"ends {size - len(value)} bytes short")
    reader.at = end
    return value


def _document(reader: Reader) -> DocumentId:
    name = reader.string()
    document = document_id(name)
    if document != name:
        raise RemoteProtocolError(f"{name!r} is not in NFC", code=4404)
    return document


def _scope(reader: Reader) -> Scope:
    name = reader.string()
    if name and document_id(name) != name:
        raise RemoteProtocolError(f"{name!r} is not in NFC", code=4404)
    return Scope(name)
