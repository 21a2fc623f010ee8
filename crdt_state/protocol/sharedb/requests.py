"""What a ShareDB client says, as values, and the strict coding of it.

One WebSocket text message holds one JSON object.  `a` names its action, `?` may be left out
(crdt_state/protocol/sharedb/parts.py has what they are made of):

    hs      Handshake            id (null at first) · protocol · protocolMinor
    f       Fetch                c · d · v?
    s       Subscribe            c · d · v?
    u       Unsubscribe          c · d
    bf      BulkFetch            c · b: a list of d, or an object of v by d
    bs      BulkSubscribe        c · b
    bu      BulkUnsubscribe      c · b
    op      Submit               c · d · v (null: of a document just created) · src? · seq · change
    pp      Ping
    p       Presence             parts.py
    ps      PresenceSubscribe    ch · seq
    pu      PresenceUnsubscribe  ch · seq
    pr      PresenceRequest      ch
    qf qs   QueryFetch, QuerySubscribe                  id, and what is not read
    qu      QueryUnsubscribe                            id
    nf nt   SnapshotFetch, SnapshotFetchByTimestamp     id, and what is not read

What is no JSON object, or beyond a bound that no request has, ends the connection.  All else that
is wrong with a request is answered by a refusal, as ShareDB does: enough of the request to know it
by (`address_of`), and `error: {code, message}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from crdt_state.protocol.sharedb.json_fields import (
    COUNT,
    NAME,
    JsonObject,
    Layout,
    at,
    layout_of,
    nullable,
    optional,
    parse,
)
from crdt_state.protocol.sharedb.parts import (
    CHANNEL,
    COLLECTION,
    DOCUMENT,
    PRESENCE,
    SEQUENCE,
    SUBMITTED,
    VERSION,
    VERSIONS,
    Change,
    Presence,
)

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits

__all__ = [
    "BulkFetch",
    "BulkSubscribe",
    "BulkUnsubscribe",
    "Fetch",
    "Handshake",
    "Ping",
    "PresenceRequest",
    "PresenceSubscribe",
    "PresenceUnsubscribe",
    "QueryFetch",
    "QuerySubscribe",
    "QueryUnsubscribe",
    "Request",
    "SnapshotFetch",
    "SnapshotFetchByTimestamp",
    "Submit",
    "Subscribe",
    "Unsubscribe",
    "address_of",
    "decode_request",
    "encode_request",
    "object_of",
    "read_request",
]


@dataclass(frozen=True, slots=True)
class Handshake:
    """A client's first word; `source` is the id that it had on an earlier connection."""

    source: str | None
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks for a snapshot, or for all that was made on `version` and later ones."""

    document: DocumentId
    version: int | None = None
    is_in_bulk: bool = False
    """Whether it is one of a `BulkFetch`; its answer then says so."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A `Fetch`, and from then on for all that is new."""

    document: DocumentId
    version: int | None = None
    is_in_bulk: bool = False
    """Whether it is one of a `BulkSubscribe`; its answer then says so."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Asks for no more of it."""

    document: DocumentId


@dataclass(frozen=True, slots=True)
class BulkFetch:
    """Several of one collection by their `d`, each with the version that the client has."""

    collection: str
    versions: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class BulkSubscribe:
    """Several of one collection by their `d`, each with the version that the client has."""

    collection: str
    versions: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class BulkUnsubscribe:
    """Several of one collection by their `d`; the versions say nothing."""

    collection: str
    versions: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Submit:
    """A change made on the version `base`; its source and sequence name it for ever.

    Without a source it is the connection's.  Without a base it is made on nothing, or on whatever
    is there: a creation, or a deletion.
    """

    document: DocumentId
    base: int | None
    source: str | None
    sequence: int
    change: Change


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks whether anybody is there."""


@dataclass(frozen=True, slots=True)
class PresenceSubscribe:
    """Asks for what others show at a document; `sequence` numbers the asking."""

    document: DocumentId
    sequence: int


@dataclass(frozen=True, slots=True)
class PresenceUnsubscribe:
    """Asks for no more of that."""

    document: DocumentId
    sequence: int


@dataclass(frozen=True, slots=True)
class PresenceRequest:
    """Asks everybody else at a document to show themselves again."""

    document: DocumentId


@dataclass(frozen=True, slots=True)
class QueryFetch:
    """A query; of what it asks nothing is read."""

    id: int


@dataclass(frozen=True, slots=True)
class QuerySubscribe:
    """A query that is to be followed."""

    id: int


@dataclass(frozen=True, slots=True)
class QueryUnsubscribe:
    """A query is over."""

    id: int


@dataclass(frozen=True, slots=True)
class SnapshotFetch:
    """A document as of an old version."""

    id: int


@dataclass(frozen=True, slots=True)
class SnapshotFetchByTimestamp:
    """A document as of some time."""

    id: int


Request: TypeAlias = (
    Handshake
    | Fetch
    | Subscribe
    | Unsubscribe
    | BulkFetch
    | BulkSubscribe
    | BulkUnsubscribe
    | Submit
    | Ping
    | Presence
    | PresenceSubscribe
    | PresenceUnsubscribe
    | PresenceRequest
    | QueryFetch
    | QuerySubscribe
    | QueryUnsubscribe
    | SnapshotFetch
    | SnapshotFetchByTimestamp
)

_ID = at("id", COUNT)

_LAYOUTS: Final[tuple[Layout[Any], ...]] = (
    Layout(
        Handshake,
        "hs",
        source=at("id", nullable(NAME)),
        major=at("protocol", COUNT),
        minor=at("protocolMinor", COUNT),
    ),
    Layout(Fetch, "f", document=DOCUMENT, version=VERSION),
    Layout(Subscribe, "s", document=DOCUMENT, version=VERSION),
    Layout(Unsubscribe, "u", document=DOCUMENT),
    Layout(BulkFetch, "bf", collection=COLLECTION, versions=VERSIONS),
    Layout(BulkSubscribe, "bs", collection=COLLECTION, versions=VERSIONS),
    Layout(BulkUnsubscribe, "bu", collection=COLLECTION, versions=VERSIONS),
    Layout(
        Submit,
        "op",
        document=DOCUMENT,
        base=at("v", nullable(COUNT)),
        source=at("src", optional(NAME)),
        sequence=SEQUENCE,
        change=SUBMITTED,
    ),
    Layout(Ping, "pp"),
    PRESENCE,
    Layout(PresenceSubscribe, "ps", document=CHANNEL, sequence=SEQUENCE),
    Layout(PresenceUnsubscribe, "pu", document=CHANNEL, sequence=SEQUENCE),
    Layout(PresenceRequest, "pr", document=CHANNEL),
    Layout(QueryFetch, "qf", id=_ID),
    Layout(QuerySubscribe, "qs", id=_ID),
    Layout(QueryUnsubscribe, "qu", id=_ID),
    Layout(SnapshotFetch, "nf", id=_ID),
    Layout(SnapshotFetchByTimestamp, "nt", id=_ID),
)

_BY_ACTION: Final = {layout.action: layout for layout in _LAYOUTS}
_BY_KIND: Final = {layout.made: layout for layout in _LAYOUTS}

ADDRESS: Final = ("a", "c", "d", "id", "ch", "src", "seq", "v", "pv")
"""By which keys a client knows what it has asked; `b` beside them, of a bulk."""

ADDRESS_CHARACTERS_MAX: Final = 1_024


def decode_request(text: str | bytes, limits: Limits) -> Request:
    """What a client says.

    Raises `RemoteProtocolError` for what is no message at all, and `RequestRefused` for what can
    be answered.
    """
    return read_request(parse(text, limits), limits)


def read_request(raw: JsonObject, limits: Limits) -> Request:
    """The request that an object is.  Raises `RequestRefused`."""
    request: Request = layout_of(raw, _BY_ACTION).read(raw, limits)
    return request


def object_of(request: Request) -> JsonObject:
    """The object that says a request."""
    return _BY_KIND[type(request)].write(request)


def encode_request(request: Request) -> str:
    """The text that says a request."""
    return orjson.dumps(object_of(request)).decode()


def address_of(raw: JsonObject) -> JsonObject:
    """What of a request goes into the refusal of it: enough to know it by."""
    address = {key: raw[key] for key in ADDRESS if _is_short(raw.get(key))}
    bulk = raw.get("b")
    if isinstance(bulk, list | dict):
        address["b"] = [key for key in bulk if _is_short(key)]
    return address


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= ADDRESS_CHARACTERS_MAX
    return isinstance(value, int)
