"""What two replicas say to one another, as values, and the strict coding of them.

A frame (one binary WebSocket message) holds one message or several, back to back.  Each begins
with the byte that names its kind; `bytes`, `string` and `varuint` are lib0's (crdt_state/lib0.py),
`id` is 16 bytes as they are, `many x` a varuint count and so many x:

    00 Hello          varuint version_min · varuint version_max · id replica · id incarnation ·
                      many string capabilities · varuint message_bytes_max ·
                      varuint update_bytes_max · varuint credit · string token ("": none)
    01 Welcome        varuint version · id replica · id incarnation · many string capabilities ·
                      varuint message_bytes_max · varuint update_bytes_max · varuint credit ·
                      varuint expires_at (0: never)
    02 Authenticate   string token
    03 Authenticated  varuint expires_at
    04 Credit         varuint size
    05 Part           varuint transfer · varuint left · bytes content
    06                a whole frame that is compressed: see compression.py

    10 Open           varuint channel · string document · bytes state_vector · life · byte is_new
    11 State          varuint channel · bytes state_vector · varuint updates · life
    12 Updates        varuint channel · varuint first · many bytes updates
    13 Acknowledge    varuint channel · varuint durable · varuint applied
    14 Held           varuint channel · id replica · varuint through
    15 Awareness      varuint channel · id origin · varuint hops · bytes payload
    16 Close          varuint channel · varuint code · string reason
    17 Barrier        varuint channel
    18 Passed         varuint channel
    19 Hops           varuint channel · varuint hops

    20 and on         of a whole scope: crdt_state/protocol/peer/scopes.py

A `life` is that of crdt_state/lineage.py: 00, or 01 (alive) or 02 (deleted) and an id.

A decoder refuses what is short, long, unknown or not UTF-8.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from crdt_state.errors import InvalidDocumentId, RemoteProtocolError
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
from crdt_state.lib0 import CodingError, Reader
from crdt_state.lineage import BORN, Life
from crdt_state.protocol.peer.fields import (
    BYTES,
    DOCUMENT,
    FLAG,
    LIFE,
    STRING,
    VARUINT,
    Field,
    Record,
    fixed,
    many,
)
from crdt_state.protocol.peer.scopes import SCOPE_RECORDS, ScopeMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ID_BYTES",
    "Acknowledge",
    "Authenticate",
    "Authenticated",
    "Awareness",
    "Barrier",
    "ChannelMessage",
    "Close",
    "Credit",
    "Held",
    "Hello",
    "Hops",
    "Member",
    "Members",
    "Message",
    "Open",
    "Part",
    "Passed",
    "State",
    "Told",
    "TopologyMessage",
    "Updates",
    "Welcome",
    "decode",
    "decode_all",
    "encode",
]

ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of the side that dialled."""

    version_min: int
    version_max: int
    replica: ReplicaId
    incarnation: Incarnation
    capabilities: tuple[str, ...] = ()
    message_bytes_max: int
    update_bytes_max: int
    """What one author may add in one update; a longer difference is to be sent in portions."""
    credit: int
    """Bytes of `Updates` that the other side may send before it is given more."""
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The answer to a `Hello`; from then on both sides say what they like.

    `capabilities` are those that both sides have; `expires_at` is microseconds since 1970.
    """

    version: int
    replica: ReplicaId
    incarnation: Incarnation
    capabilities: tuple[str, ...] = ()
    message_bytes_max: int
    update_bytes_max: int
    credit: int
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A fresh token in place of the one that was brought before."""

    token: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The fresh token counts from now on, until `expires_at` (0: for ever)."""

    expires_at: int


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more bytes of `Updates` may be sent."""

    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message that is too large to be sent in one piece.

    `left` counts the bytes of that message that follow in later parts; 0 makes it whole.
    """

    transfer: int
    left: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """Let us keep `document` in step: I hold what `state_vector` says of its `life`.

    `is_new` where, as far as I know, you have never held any of that.
    """

    channel: int
    document: DocumentId
    state_vector: bytes
    life: Life = BORN
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The answer to an `Open`: what I hold, and how many of my updates make you hold it too.

    A `life` that is greater than that of the `Open` is all that is said; the opener closes.
    """

    channel: int
    state_vector: bytes
    updates: int
    life: Life = BORN


@dataclass(frozen=True, slots=True)
class Updates:
    """Updates of one document, in order; `first` numbers the first of them on this channel."""

    channel: int
    first: int
    updates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """All your updates through `durable` are fsynced here; all through `applied` integrated."""

    channel: int
    durable: int
    applied: int


@dataclass(frozen=True, slots=True)
class Held:
    """A relay's report: `replica` has told me that your updates through `through` are durable."""

    channel: int
    replica: ReplicaId
    through: int


@dataclass(frozen=True, slots=True)
class Awareness:
    """States of clients that `origin` told of; may be passed on `hops` times more."""

    channel: int
    origin: ReplicaId
    hops: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The end of one channel; the rest of the connection goes on.  Answered by a `Close`."""

    channel: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Barrier:
    """Answer me with `Passed` when what I said before is durable, behind all that you hold."""

    channel: int


@dataclass(frozen=True, slots=True)
class Passed:
    """The answer to a `Barrier`, in their order."""

    channel: int


@dataclass(frozen=True, slots=True)
class Hops:
    """What I send on this channel from now on may be sent on `hops` times more."""

    channel: int
    hops: int


@dataclass(frozen=True, slots=True)
class Member:
    """I take part in a topology and am dialled at `address`; 0 and nothing where I do not.

    `epoch` is that of my chain; everything I say on this connection is of it.
    """

    epoch: int
    address: str


class Told(NamedTuple):
    """A replica, where it is dialled, and a number that it raises while it lives."""

    replica: ReplicaId
    address: str
    seen: int


@dataclass(frozen=True, slots=True)
class Members:
    """Some of those that I know."""

    members: tuple[Told, ...]


ChannelMessage: TypeAlias = (
    Open | State | Updates | Acknowledge | Held | Awareness | Close | Barrier | Passed | Hops
)
TopologyMessage: TypeAlias = Member | Members
Message: TypeAlias = (
    Hello
    | Welcome
    | Authenticate
    | Authenticated
    | Credit
    | Part
    | ChannelMessage
    | ScopeMessage
    | TopologyMessage
)

_REPLICA = fixed(ReplicaId, ID_BYTES)
_INCARNATION = fixed(Incarnation, ID_BYTES)
_ABOUT_THE_SENDER: dict[str, Field[Any]] = {
    "replica": _REPLICA,
    "incarnation": _INCARNATION,
    "capabilities": many(STRING),
    "message_bytes_max": VARUINT,
    "update_bytes_max": VARUINT,
    "credit": VARUINT,
}
_TOLD = Record(Told, replica=_REPLICA, address=STRING, seen=VARUINT)

UPDATES = 0x12

RECORDS: dict[int, Record[Any]] = {
    0x00: Record(
        Hello, version_min=VARUINT, version_max=VARUINT, **_ABOUT_THE_SENDER, token=STRING
    ),
    0x01: Record(Welcome, version=VARUINT, **_ABOUT_THE_SENDER, expires_at=VARUINT),
    0x02: Record(Authenticate, token=STRING),
    0x03: Record(Authenticated, expires_at=VARUINT),
    0x04: Record(Credit, size=VARUINT),
    0x05: Record(Part, transfer=VARUINT, left=VARUINT, content=BYTES),
    0x10: Record(
        Open, channel=VARUINT, document=DOCUMENT, state_vector=BYTES, life=LIFE, is_new=FLAG
    ),
    0x11: Record(State, channel=VARUINT, state_vector=BYTES, updates=VARUINT, life=LIFE),
    UPDATES: Record(Updates, channel=VARUINT, first=VARUINT, updates=many(BYTES)),
    0x13: Record(Acknowledge, channel=VARUINT, durable=VARUINT, applied=VARUINT),
    0x14: Record(Held, channel=VARUINT, replica=_REPLICA, through=VARUINT),
    0x15: Record(Awareness, channel=VARUINT, origin=_REPLICA, hops=VARUINT, payload=BYTES),
    0x16: Record(Close, channel=VARUINT, code=VARUINT, reason=STRING),
    0x17: Record(Barrier, channel=VARUINT),
    0x18: Record(Passed, channel=VARUINT),
    0x19: Record(Hops, channel=VARUINT, hops=VARUINT),
    **SCOPE_RECORDS,
    0x30: Record(Member, epoch=VARUINT, address=STRING),
    0x31: Record(Members, members=many(_TOLD.field)),
}

_KINDS = {record.made: (bytes([kind]), record.encode) for kind, record in RECORDS.items()}


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    kind, encode_fields = _KINDS[type(message)]
    return kind + encode_fields(message)


def decode(message: bytes) -> Message:
    """Exactly one message, which brings one update at most: what came in parts.

    Raises `RemoteProtocolError`.
    """
    if message[:1] == bytes([UPDATES]):
        # Before they are read: millions of tiny ones would be a long wait for everybody.
        with _named_failures():
            reader = Reader(message, 1)
            reader.varuint(), reader.varuint()
            if reader.varuint() != 1:
                raise RemoteProtocolError("what comes in parts is one update")
    found = decode_all(message)
    if len(found) != 1:
        raise RemoteProtocolError(f"{len(found)} messages where one should be")
    return found[0]


def decode_all(frame: bytes) -> list[Message]:
    """The messages of a frame, at least one.  Raises `RemoteProtocolError`."""
    reader = Reader(frame)
    messages: list[Message] = []
    with _named_failures():
        while not messages or not reader.is_done():
            messages.append(_read(reader))
    return messages


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except CodingError as error:
        raise RemoteProtocolError(f"not a message of this protocol: it {error}") from None
    except InvalidDocumentId as error:
        raise RemoteProtocolError(str(error), code=4404) from None


def _read(reader: Reader) -> Message:
    kind = reader.byte()
    record = RECORDS.get(kind)
    if record is None:
        raise RemoteProtocolError(f"message {kind:#04x} is unknown")
    message: Message = record.decode(reader)
    return message
