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

    10 Open           varuint channel · string document · bytes state_vector · life ·
                      varuint is_new (0 or 1)
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
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt_state.errors import InvalidDocumentId, RemoteProtocolError
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId, document_id
from crdt_state.lib0 import CodingError, Reader, encode_bytes, encode_string, encode_varuint
from crdt_state.lineage import BORN, Life
from crdt_state.protocol.peer.scopes import (
    ScopeMessage,
    encode_scope_message,
    read_scope_message,
)

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

HELLO, WELCOME, AUTHENTICATE, AUTHENTICATED, CREDIT, PART = range(6)
OPEN, STATE, UPDATES, ACKNOWLEDGE, HELD, AWARENESS, CLOSE, BARRIER, PASSED = range(0x10, 0x19)
HOPS = 0x19
MEMBER, MEMBERS = 0x30, 0x31


def encode(message: Message) -> bytes:  # noqa: C901, PLR0911, PLR0912 - a table
    """The bytes of one message."""
    match message:
        case Updates(channel, first, updates):
            parts = [b"\x12", encode_varuint(channel), encode_varuint(first)]
            parts.append(encode_varuint(len(updates)))
            parts += map(encode_bytes, updates)
            return b"".join(parts)
        case Acknowledge(channel, durable, applied):
            return b"\x13" + _numbers(channel, durable, applied)
        case Credit(size):
            return b"\x04" + encode_varuint(size)
        case Awareness(channel, origin, hops, payload):
            head = b"\x15" + encode_varuint(channel) + origin
            return head + encode_varuint(hops) + encode_bytes(payload)
        case Held(channel, replica, through):
            return b"\x14" + encode_varuint(channel) + replica + encode_varuint(through)
        case Open(channel, document, state_vector, life, is_new):
            head = b"\x10" + encode_varuint(channel) + encode_string(document)
            return head + encode_bytes(state_vector) + life.encode() + encode_varuint(is_new)
        case State(channel, state_vector, updates_count, life):
            head = b"\x11" + encode_varuint(channel) + encode_bytes(state_vector)
            return head + encode_varuint(updates_count) + life.encode()
        case Close(channel, code, reason):
            return b"\x16" + _numbers(channel, code) + encode_string(reason)
        case Barrier(channel):
            return b"\x17" + encode_varuint(channel)
        case Passed(channel):
            return b"\x18" + encode_varuint(channel)
        case Hops(channel, hops):
            return b"\x19" + _numbers(channel, hops)
        case Part(transfer, left, content):
            return b"\x05" + _numbers(transfer, left) + encode_bytes(content)
        case Member(epoch, address):
            return b"\x30" + encode_varuint(epoch) + encode_string(address)
        case Members(members):
            told = b"".join(
                each.replica + encode_string(each.address) + encode_varuint(each.seen)
                for each in members
            )
            return b"\x31" + encode_varuint(len(members)) + told
        case Hello():
            head = b"\x00" + _numbers(message.version_min, message.version_max)
            return head + _about(message) + encode_string(message.token)
        case Welcome():
            head = b"\x01" + encode_varuint(message.version)
            return head + _about(message) + encode_varuint(message.expires_at)
        case Authenticate(token):
            return b"\x02" + encode_string(token)
        case Authenticated(expires_at):
            return b"\x03" + encode_varuint(expires_at)
        case _:
            return encode_scope_message(message)


def decode(message: bytes) -> Message:
    """Exactly one message, which brings one update at most: what came in parts.

    Raises `RemoteProtocolError`.
    """
    if message[:1] == b"\x12":
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


def _numbers(*numbers: int) -> bytes:
    return b"".join(map(encode_varuint, numbers))


def _about(message: Hello | Welcome) -> bytes:
    """What both greetings say of their sender."""
    names = b"".join(map(encode_string, message.capabilities))
    return (
        message.replica
        + message.incarnation
        + encode_varuint(len(message.capabilities))
        + names
        + _numbers(message.message_bytes_max, message.update_bytes_max, message.credit)
    )


def _read(reader: Reader) -> Message:  # noqa: C901, PLR0911, PLR0912 - a table
    kind = reader.byte()
    if kind == UPDATES:
        return Updates(reader.varuint(), reader.varuint(), _many_bytes(reader))
    if kind == ACKNOWLEDGE:
        return Acknowledge(reader.varuint(), reader.varuint(), reader.varuint())
    if kind == CREDIT:
        return Credit(reader.varuint())
    if kind == AWARENESS:
        return Awareness(reader.varuint(), ReplicaId(_id(reader)), reader.varuint(), reader.bytes())
    if kind == HELD:
        return Held(reader.varuint(), ReplicaId(_id(reader)), reader.varuint())
    if kind == OPEN:
        number, document = reader.varuint(), _document(reader)
        return Open(number, document, reader.bytes(), _life(reader), _boolean(reader))
    if kind == STATE:
        return State(reader.varuint(), reader.bytes(), reader.varuint(), _life(reader))
    if kind == CLOSE:
        return Close(reader.varuint(), reader.varuint(), reader.string())
    if kind == BARRIER:
        return Barrier(reader.varuint())
    if kind == PASSED:
        return Passed(reader.varuint())
    if kind == HOPS:
        return Hops(reader.varuint(), reader.varuint())
    if kind == PART:
        return Part(reader.varuint(), reader.varuint(), reader.bytes())
    if kind == MEMBER:
        return Member(reader.varuint(), reader.string())
    if kind == MEMBERS:
        return Members(tuple(_told(reader) for _ in range(reader.varuint())))
    if kind == HELLO:
        return _hello(reader)
    if kind == WELCOME:
        return _welcome(reader)
    if kind == AUTHENTICATE:
        return Authenticate(reader.string())
    if kind == AUTHENTICATED:
        return Authenticated(reader.varuint())
    return read_scope_message(kind, reader)


def _hello(reader: Reader) -> Hello:
    version_min, version_max = reader.varuint(), reader.varuint()
    replica, incarnation = ReplicaId(_id(reader)), Incarnation(_id(reader))
    return Hello(
        version_min=version_min,
        version_max=version_max,
        replica=replica,
        incarnation=incarnation,
        capabilities=_capabilities(reader),
        message_bytes_max=reader.varuint(),
        update_bytes_max=reader.varuint(),
        credit=reader.varuint(),
        token=reader.string(),
    )


def _welcome(reader: Reader) -> Welcome:
    version = reader.varuint()
    replica, incarnation = ReplicaId(_id(reader)), Incarnation(_id(reader))
    return Welcome(
        version=version,
        replica=replica,
        incarnation=incarnation,
        capabilities=_capabilities(reader),
        message_bytes_max=reader.varuint(),
        update_bytes_max=reader.varuint(),
        credit=reader.varuint(),
        expires_at=reader.varuint(),
    )


def _told(reader: Reader) -> Told:
    return Told(ReplicaId(_id(reader)), reader.string(), reader.varuint())


def _id(reader: Reader) -> bytes:
    end = reader.at + ID_BYTES
    value = reader.data[reader.at : end]
    if len(value) < ID_BYTES:
        raise CodingError(f"ends inside an id at byte {reader.at}")
    reader.at = end
    return value


def _life(reader: Reader) -> Life:
    life, reader.at = Life.read(reader.data, reader.at)
    return life


def _boolean(reader: Reader) -> bool:
    number = reader.varuint()
    if number > 1:
        raise CodingError(f"has {number} where 0 or 1 should be")
    return bool(number)


def _document(reader: Reader) -> DocumentId:
    name = reader.string()
    document = document_id(name)
    if document != name:
        raise RemoteProtocolError(f"{name!r} is not in NFC", code=4404)
    return document


def _capabilities(reader: Reader) -> tuple[str, ...]:
    # A count that lies runs into the end of the frame before it has cost anything.
    return tuple(reader.string() for _ in range(reader.varuint()))


def _many_bytes(reader: Reader) -> tuple[bytes, ...]:
    return tuple(reader.bytes() for _ in range(reader.varuint()))
