"""What stands in messages of both directions: documents, changes, snapshots, presence.

document   "c" and "d" (crdt_state/protocol/sharedb/names.py)
change     one of "op" (in the words of the document's type), "create": {type, data?}, "del": true
snapshot   {v, type, data?}; type null: there is no document
failure    {code, message}
presence   ch src? id p pv c d v? t?; p null: gone.  "c.d" is the channel
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_state.errors import RequestRefused
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.json_fields import (
    ANY,
    COUNT,
    NAME,
    TEXT,
    Field,
    JsonObject,
    Layout,
    Place,
    at,
    nullable,
    optional,
)
from crdt_state.protocol.sharedb.names import (
    channel_of,
    document_of,
    document_of_channel,
    name_of,
)

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.ot.json_values import Json

__all__ = [
    "CHANGE",
    "CHANNEL",
    "COLLECTION",
    "DOCUMENT",
    "FAILURE",
    "KEYS",
    "PRESENCE",
    "SEQUENCE",
    "SHOWN",
    "SNAPSHOT",
    "SUBMITTED",
    "VERSION",
    "VERSIONS",
    "Change",
    "Create",
    "Delete",
    "Edit",
    "Failure",
    "Presence",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class Edit:
    """An operation in the words of the document's type, which it does not name."""

    operation: Json


@dataclass(frozen=True, slots=True)
class Create:
    """The document begins; `type` is a URI, or the short name of one."""

    type: str
    data: Json = None


@dataclass(frozen=True, slots=True)
class Delete:
    """The document ends; its name stays, and its versions go on."""


Change: TypeAlias = Edit | Create | Delete


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document as of a version; `type` None: there is none."""

    version: int
    type: str | None = None
    data: Json = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something was not done."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What somebody shows of themselves at a document; `value` None says that they left.

    `number` counts what this `id` has shown; `version` is the document's, as of which the value is
    a position.  A client leaves its `source` out.
    """

    document: DocumentId
    id: str
    value: Json
    number: int
    version: int | None = None
    type: str | None = None
    source: str | None = None


# --- places and fields --------------------------------------------------------------------------

_C, _D, _CH = at("c", TEXT), at("d", TEXT), at("ch", TEXT)


def _take_document(raw: JsonObject, limits: Limits) -> DocumentId:
    return document_of(_C.take(raw, limits), _D.take(raw, limits))


def _put_document(wire: JsonObject, document: DocumentId) -> None:
    wire["c"], wire["d"] = name_of(document)


def _take_channel(raw: JsonObject, limits: Limits) -> DocumentId:
    return document_of_channel(_CH.take(raw, limits))


def _put_channel(wire: JsonObject, document: DocumentId | None) -> None:
    if document is not None:
        wire["ch"] = channel_of(document)


def _take_present(raw: JsonObject, limits: Limits) -> DocumentId:
    document = _take_document(raw, limits)
    if _CH.take(raw, limits) != channel_of(document) or "." in name_of(document)[0]:
        raise _badly_formed("'ch' is c.d, and c has no dot: presence is shown at documents only")
    return document


def _put_present(wire: JsonObject, document: DocumentId) -> None:
    _put_channel(wire, document)
    _put_document(wire, document)


def _take_change(raw: JsonObject, limits: Limits) -> Change | None:
    if "op" in raw:
        return Edit(raw["op"])
    created = raw.get("create")
    if created is not None:
        if not isinstance(created, dict):
            raise _badly_formed("'create' is an object")
        return Create(at("type", TEXT).take(created, limits), created.get("data"))
    deleted = raw.get("del")
    if deleted is not None:
        if deleted is not True:
            raise _badly_formed("'del' is true")
        return Delete()
    return None


def _take_submitted(raw: JsonObject, limits: Limits) -> Change:
    change = _take_change(raw, limits)
    if change is None:
        raise _badly_formed("a submission has one of 'op', 'create' and 'del'")
    return change


def _put_change(wire: JsonObject, change: Change | None) -> None:
    match change:
        case Edit(operation):
            wire["op"] = operation
        case Create(name, data):
            wire["create"] = {"type": name} if data is None else {"type": name, "data": data}
        case Delete():
            wire["del"] = True


def _read_versions(value: Json, limits: Limits) -> tuple[tuple[str, int | None], ...]:
    if not isinstance(value, list | dict):
        raise _badly_formed("is a list of documents, or an object of versions by documents")
    if len(value) > limits.channels_max:
        raise RequestRefused(
            Code.LIMIT_EXCEEDED,
            f"names {len(value):,} documents; channels_max = {limits.channels_max:,}",
        )
    if isinstance(value, list):
        return tuple([(TEXT.read(key, limits), None) for key in value])
    return tuple([(key, COUNT.read(version, limits)) for key, version in value.items()])


def _write_versions(versions: tuple[tuple[str, int | None], ...]) -> Json:
    if any(version is not None for _, version in versions):
        return dict(versions)
    return [key for key, _ in versions]


def _read_snapshot(value: Json, limits: Limits) -> Snapshot:
    if not isinstance(value, dict):
        raise _badly_formed("is an object")
    version = at("v", COUNT).take(value, limits)
    return Snapshot(version, at("type", nullable(TEXT)).take(value, limits), value.get("data"))


def _write_snapshot(snapshot: Snapshot) -> JsonObject:
    # A snapshot without a type would be taken for one of JSON0; null says that there is none.
    wire: JsonObject = {"v": snapshot.version, "type": snapshot.type}
    if snapshot.data is not None:
        wire["data"] = snapshot.data
    return wire


def _read_failure(value: Json, limits: Limits) -> Failure:
    if not isinstance(value, dict):
        raise _badly_formed("is an object")
    # An error of somebody's middleware may have no code.
    code = at("code", optional(TEXT)).take(value, limits)
    return Failure(code or "", at("message", optional(TEXT)).take(value, limits) or "")


def _write_failure(failure: Failure) -> JsonObject:
    return {"code": failure.code, "message": failure.message}


def _read_shown(value: Json, limits: Limits) -> tuple[tuple[str, Snapshot | Failure], ...]:
    if not isinstance(value, dict):
        raise _badly_formed("is an object by documents")
    shown: list[tuple[str, Snapshot | Failure]] = []
    for key, each in value.items():
        if isinstance(each, dict) and each.get("error") is not None:
            shown.append((key, _read_failure(each["error"], limits)))
        else:
            shown.append((key, _read_snapshot(each, limits)))
    return tuple(shown)


def _write_shown(shown: tuple[tuple[str, Snapshot | Failure], ...]) -> JsonObject:
    return {
        key: {"error": _write_failure(each)} if isinstance(each, Failure) else _write_snapshot(each)
        for key, each in shown
    }


def _read_keys(value: Json, limits: Limits) -> tuple[str, ...]:
    return tuple([key for key, _ in _read_versions(value, limits)])


def _badly_formed(reason: str) -> RequestRefused:
    return RequestRefused(Code.MESSAGE_BADLY_FORMED, reason)


COLLECTION: Final = _C
DOCUMENT: Final = Place(_take_document, _put_document)
CHANNEL: Final = Place(_take_channel, _put_channel)
SEQUENCE: Final = at("seq", COUNT)
VERSION: Final = at("v", optional(COUNT))
CHANGE: Final = Place(_take_change, _put_change)
SUBMITTED: Final = Place(_take_submitted, _put_change)
VERSIONS: Final = at("b", Field(_read_versions, _write_versions))
KEYS: Final = at("b", optional(Field(_read_keys, list)))
SHOWN: Final = at("data", optional(Field(_read_shown, _write_shown)))
SNAPSHOT: Final = at("data", optional(Field(_read_snapshot, _write_snapshot)))
FAILURE: Final = at("error", Field(_read_failure, _write_failure))

PRESENCE: Final = Layout(
    Presence,
    "p",
    document=Place(_take_present, _put_present),
    id=at("id", NAME),
    value=at("p", nullable(ANY)),
    number=at("pv", COUNT),
    version=VERSION,
    type=at("t", optional(TEXT)),
    source=at("src", optional(NAME)),
)
