"""What a server says to a ShareDB client, as values, and the strict coding of it.

`a` names the action; of most it is that of the request which is answered (`?` may be left out,
crdt_state/protocol/sharedb/parts.py has what they are made of):

    hs      Greeting              id · protocol · protocolMinor · type
    init    Init                  the same
    f       Fetched               c · d · data?
    s       Subscribed            c · d · data?
    u       Unsubscribed          c · d
    bf      BulkFetched           c · data? · b?
    bs      BulkSubscribed        c · data? · b?
    bu      BulkUnsubscribed      c · b
    op      Operation             c · d · v · src · seq? · change?
    pp      Pong
    p       Presence              parts.py
    ps      PresenceSubscribed    ch · seq
    pu      PresenceUnsubscribed  ch · seq
    pr      PresenceRequested     ch?
    qu      QueryUnsubscribed     id
    any     Refusal               what was asked · error

`data` is a snapshot, and in a bulk snapshots and errors by `d`; where a client named its version,
and operations said all, there is none, and `b` names the documents of a bulk.  An `op` without a
change is the acknowledgement of the one that its client has under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from crdt_state.errors import RemoteProtocolError, RequestRefused
from crdt_state.protocol.sharedb.json_fields import (
    COUNT,
    NAME,
    TEXT,
    JsonObject,
    Layout,
    Place,
    at,
    layout_of,
    optional,
    parse,
)
from crdt_state.protocol.sharedb.parts import (
    CHANGE,
    CHANNEL,
    COLLECTION,
    DOCUMENT,
    FAILURE,
    KEYS,
    PRESENCE,
    SEQUENCE,
    SHOWN,
    SNAPSHOT,
    Change,
    Failure,
    Presence,
    Snapshot,
)
from crdt_state.protocol.sharedb.requests import address_of

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits

__all__ = [
    "BulkFetched",
    "BulkSubscribed",
    "BulkUnsubscribed",
    "Fetched",
    "Greeting",
    "Init",
    "Operation",
    "Pong",
    "PresenceRequested",
    "PresenceSubscribed",
    "PresenceUnsubscribed",
    "QueryUnsubscribed",
    "Refusal",
    "Reply",
    "Subscribed",
    "Unsubscribed",
    "decode_reply",
    "encode_reply",
]


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a `Handshake`; `source` is what the client's own changes will name."""

    source: str
    major: int
    minor: int
    type: str


@dataclass(frozen=True, slots=True)
class Init:
    """What a server may say unasked: clients since 1.1 answer by one more handshake."""

    source: str
    major: int
    minor: int
    type: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to a `Fetch`, behind the operations where a version was named."""

    document: DocumentId
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a `Subscribe`, behind the operations where a version was named."""

    document: DocumentId
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The answer to an `Unsubscribe`."""

    document: DocumentId


@dataclass(frozen=True, slots=True)
class BulkFetched:
    """The answer for some documents of a bulk: what each is, or that operations were all."""

    collection: str
    shown: tuple[tuple[str, Snapshot | Failure], ...] | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BulkSubscribed:
    """The answer for some documents of a bulk: what each is, or that operations were all."""

    collection: str
    shown: tuple[tuple[str, Snapshot | Failure], ...] | None = None
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BulkUnsubscribed:
    """The answer to a `BulkUnsubscribe`."""

    collection: str
    keys: tuple[str, ...] | None


@dataclass(frozen=True)  # without slots, so that it can keep its text
class Operation:
    """A change made on `version`, which made the next one.

    `change` is None in an acknowledgement, and `sequence` is where no client of this protocol made
    the change.
    """

    document: DocumentId
    version: int
    source: str
    sequence: int | None
    change: Change | None

    @cached_property
    def text(self) -> str:
        """The text that says it, the same to whoever is told."""
        return _text_of(self)


@dataclass(frozen=True, slots=True)
class Pong:
    """I am here."""


@dataclass(frozen=True, slots=True)
class PresenceSubscribed:
    """The answer to a `PresenceSubscribe`."""

    document: DocumentId
    sequence: int


@dataclass(frozen=True, slots=True)
class PresenceUnsubscribed:
    """The answer to a `PresenceUnsubscribe`."""

    document: DocumentId
    sequence: int


@dataclass(frozen=True, slots=True)
class PresenceRequested:
    """Asks a client to show itself again at a document; at none, the answer to its own asking."""

    document: DocumentId | None = None


@dataclass(frozen=True, slots=True)
class QueryUnsubscribed:
    """The answer to a `QueryUnsubscribe`."""

    id: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was asked by `asked`, which is enough of a request to know it by, is not done."""

    asked: JsonObject
    failure: Failure


Reply: TypeAlias = (
    Greeting
    | Init
    | Fetched
    | Subscribed
    | Unsubscribed
    | BulkFetched
    | BulkSubscribed
    | BulkUnsubscribed
    | Operation
    | Pong
    | Presence
    | PresenceSubscribed
    | PresenceUnsubscribed
    | PresenceRequested
    | QueryUnsubscribed
    | Refusal
)

_GREETED: Final[dict[str, Place]] = {
    "source": at("id", NAME),
    "major": at("protocol", COUNT),
    "minor": at("protocolMinor", COUNT),
    "type": at("type", TEXT),
}


def _take_asked_channel(raw: JsonObject, limits: Limits) -> DocumentId | None:
    return None if raw.get("ch") is None else CHANNEL.take(raw, limits)


_LAYOUTS: Final[tuple[Layout[Any], ...]] = (
    Layout(Greeting, "hs", **_GREETED),
    Layout(Init, "init", **_GREETED),
    Layout(Fetched, "f", document=DOCUMENT, snapshot=SNAPSHOT),
    Layout(Subscribed, "s", document=DOCUMENT, snapshot=SNAPSHOT),
    Layout(Unsubscribed, "u", document=DOCUMENT),
    Layout(BulkFetched, "bf", collection=COLLECTION, shown=SHOWN, keys=KEYS),
    Layout(BulkSubscribed, "bs", collection=COLLECTION, shown=SHOWN, keys=KEYS),
    Layout(BulkUnsubscribed, "bu", collection=COLLECTION, keys=KEYS),
    Layout(
        Operation,
        "op",
        document=DOCUMENT,
        version=at("v", COUNT),
        source=at("src", NAME),
        sequence=at("seq", optional(COUNT)),
        change=CHANGE,
    ),
    Layout(Pong, "pp"),
    PRESENCE,
    Layout(PresenceSubscribed, "ps", document=CHANNEL, sequence=SEQUENCE),
    Layout(PresenceUnsubscribed, "pu", document=CHANNEL, sequence=SEQUENCE),
    Layout(PresenceRequested, "pr", document=Place(_take_asked_channel, CHANNEL.put)),
    Layout(QueryUnsubscribed, "qu", id=at("id", COUNT)),
)

_BY_ACTION: Final = {layout.action: layout for layout in _LAYOUTS}
_BY_KIND: Final = {layout.made: layout for layout in _LAYOUTS}


def decode_reply(text: str | bytes, limits: Limits) -> Reply:
    """What a server says.  Raises `RemoteProtocolError`."""
    raw = parse(text, limits)
    try:
        if raw.get("error") is not None:
            return Refusal(address_of(raw), FAILURE.take(raw, limits))
        reply: Reply = layout_of(raw, _BY_ACTION).read(raw, limits)
    except RequestRefused as error:
        raise RemoteProtocolError(error.reason) from None
    return reply


def encode_reply(reply: Reply) -> str:
    """The text that says a reply."""
    return reply.text if isinstance(reply, Operation) else _text_of(reply)


def _text_of(reply: Reply) -> str:
    if isinstance(reply, Refusal):
        wire = dict(reply.asked)
        FAILURE.put(wire, reply.failure)
    else:
        wire = _BY_KIND[type(reply)].write(reply)
    return orjson.dumps(wire).decode()
