"""What two replicas say about a whole scope, as values, and how each is laid out.

    20 Subscribe      varuint subscription · string scope · bytes mark · varuint after · bytes root
    21 Root           varuint subscription · 24 bytes mark · varuint through · bytes root ·
                      bytes node
    22 Ask            varuint subscription · bytes request
    23 Answer         varuint subscription · bytes answer
    24 Since          varuint subscription · varuint after
    25 News           varuint subscription · varuint through · byte is_all · many parcel
    26 Exchange       varuint subscription · many (string document · bytes state_vector)
    27 Exchanged      varuint subscription · many parcel
    28 Bring          varuint subscription · many parcel
    29 Brought        varuint subscription · many (string document · varuint code)
    2a List           varuint subscription · string after
    2b Listed         varuint subscription · byte is_last · many (string document · 8 bytes)
    2c Unsubscribe    varuint subscription
    2d Ended          varuint subscription · varuint code · string reason

A `parcel` is string document · byte is_apart · bytes state_vector · many bytes updates.  What one
message brings is a *batch*: it fits a frame, and connections compress frames (compression.py).
What it all means is in PROTOCOL.md, section 2.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from crdt_state.protocol.peer.fields import (
    BYTES,
    DOCUMENT,
    FLAG,
    SCOPE,
    STRING,
    VARUINT,
    Record,
    fixed,
    many,
    one_of_sizes,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.identifiers import DocumentId, Scope

__all__ = [
    "BATCH_BYTES",
    "LEAF_BYTES",
    "PARCEL_BYTES_MAX",
    "SCOPE_RECORDS",
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
]

BATCH_BYTES: Final = 56 * 1024
"""Of a batch: a message with one fits a frame."""

PARCEL_BYTES_MAX: Final = 32 * 1024
"""What one document takes of a batch; a larger difference goes through a channel of its own."""

PARCELS_MAX: Final = 1_024

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
    parcels: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """These documents, with what I hold of each."""

    subscription: int
    held: tuple[tuple[DocumentId, bytes], ...]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What you lack of the next documents of an `Exchange`, and what I hold of each."""

    subscription: int
    parcels: tuple[Parcel, ...]


@dataclass(frozen=True, slots=True)
class Bring:
    """What you lack of these documents."""

    subscription: int
    parcels: tuple[Parcel, ...]


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


_PARCEL = Record(Parcel, document=DOCUMENT, is_apart=FLAG, state_vector=BYTES, updates=many(BYTES))
_NUMBER = {"subscription": VARUINT}
_PARCELS = {"parcels": many(_PARCEL.field, at_most=PARCELS_MAX)}

SCOPE_RECORDS: dict[int, Record[Any]] = {
    0x20: Record(
        Subscribe,
        **_NUMBER,
        scope=SCOPE,
        mark=one_of_sizes(0, MARK_BYTES),
        after=VARUINT,
        root=one_of_sizes(0, ROOT_BYTES),
    ),
    0x21: Record(
        Root,
        **_NUMBER,
        mark=fixed(bytes, MARK_BYTES),
        through=VARUINT,
        root=one_of_sizes(0, ROOT_BYTES),
        node=BYTES,
    ),
    0x22: Record(Ask, **_NUMBER, request=BYTES),
    0x23: Record(Answer, **_NUMBER, answer=BYTES),
    0x24: Record(Since, **_NUMBER, after=VARUINT),
    0x25: Record(News, **_NUMBER, through=VARUINT, is_all=FLAG, **_PARCELS),
    0x26: Record(Exchange, **_NUMBER, held=many(pair(DOCUMENT, BYTES))),
    0x27: Record(Exchanged, **_NUMBER, **_PARCELS),
    0x28: Record(Bring, **_NUMBER, **_PARCELS),
    0x29: Record(Brought, **_NUMBER, refused=many(pair(DOCUMENT, VARUINT))),
    0x2A: Record(List, **_NUMBER, after=STRING),
    0x2B: Record(
        Listed, **_NUMBER, is_last=FLAG, leaves=many(pair(DOCUMENT, fixed(bytes, LEAF_BYTES)))
    ),
    0x2C: Record(Unsubscribe, **_NUMBER),
    0x2D: Record(Ended, **_NUMBER, code=VARUINT, reason=STRING),
}


def batches(parcels: Iterable[Parcel]) -> Iterator[tuple[Parcel, ...]]:
    """Parcels in their order, as many at once as fit a frame.

    One that would be too large for others beside it goes apart, without its updates.
    """
    batch: list[Parcel] = []
    size = 0
    for each in parcels:
        parcel, taken = each, len(_PARCEL.encode(each))
        if taken > PARCEL_BYTES_MAX:
            parcel = Parcel(each.document, is_apart=True)
            taken = len(_PARCEL.encode(parcel))
        if batch and (size + taken > BATCH_BYTES or len(batch) == PARCELS_MAX):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(parcel)
        size += taken
    if batch:
        yield tuple(batch)
