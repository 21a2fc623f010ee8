"""ShareDB's error codes: what each says to a client, and when this server sends it.

A refusal is `{"code": ..., "message": ...}` in the place of an answer.  The npm client looks at
three codes and takes all others alike: it takes back the operation that was refused, and hands the
error to whoever edited.

    ERR_NO_OP                           the operation is done with, after a fetch of what is new
    ERR_OP_SUBMIT_REJECTED              the operation is taken back, and nobody is told
    ERR_SNAPSHOT_READ_SILENT_REJECTION  the subscription is over, and nobody is told

The last two are never sent: an edit that is lost is told to its editor.  Nor is
ERR_OP_ALREADY_SUBMITTED, though operations are sent again at every reconnection: the client would
take back what is stored.  It gets the acknowledgement once more.

The client knows no code for a right that is missing.  Those of ShareDB's middleware are its
authors' own, and so are ours (`OURS`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["CODES", "OURS", "Code", "Meaning"]


class Code(StrEnum):
    """A code that this server sends."""

    MESSAGE_BADLY_FORMED = "ERR_MESSAGE_BADLY_FORMED"
    PROTOCOL_VERSION_NOT_SUPPORTED = "ERR_PROTOCOL_VERSION_NOT_SUPPORTED"
    CLIENT_ID_BADLY_FORMED = "ERR_CLIENT_ID_BADLY_FORMED"
    CONNECTION_SEQ_INTEGER_OVERFLOW = "ERR_CONNECTION_SEQ_INTEGER_OVERFLOW"
    DATABASE_METHOD_NOT_IMPLEMENTED = "ERR_DATABASE_METHOD_NOT_IMPLEMENTED"
    DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE = "ERR_DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE"
    DOC_ALREADY_CREATED = "ERR_DOC_ALREADY_CREATED"
    DOC_DOES_NOT_EXIST = "ERR_DOC_DOES_NOT_EXIST"
    DOC_WAS_DELETED = "ERR_DOC_WAS_DELETED"
    DOC_TYPE_NOT_RECOGNIZED = "ERR_DOC_TYPE_NOT_RECOGNIZED"
    NO_OP = "ERR_NO_OP"
    OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT = "ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT"
    SUBMIT_TRANSFORM_OPS_NOT_FOUND = "ERR_SUBMIT_TRANSFORM_OPS_NOT_FOUND"
    MAX_SUBMIT_RETRIES_EXCEEDED = "ERR_MAX_SUBMIT_RETRIES_EXCEEDED"
    OT_OP_BADLY_FORMED = "ERR_OT_OP_BADLY_FORMED"
    OT_OP_NOT_APPLIED = "ERR_OT_OP_NOT_APPLIED"
    PRESENCE_TRANSFORM_FAILED = "ERR_PRESENCE_TRANSFORM_FAILED"
    TYPE_DOES_NOT_SUPPORT_PRESENCE = "ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE"
    SNAPSHOT_READS_REJECTED = "ERR_SNAPSHOT_READS_REJECTED"
    UNKNOWN_ERROR = "ERR_UNKNOWN_ERROR"
    NOT_PERMITTED = "ERR_NOT_PERMITTED"
    LIMIT_EXCEEDED = "ERR_LIMIT_EXCEEDED"


class Meaning(NamedTuple):
    """What a code says, and when this server says so; `sent` is empty where it never does."""

    says: str
    sent: str = ""


OURS: Final[dict[str, Meaning]] = {
    Code.NOT_PERMITTED: Meaning(
        "the grant does not cover it",
        "a submission without the right to write, presence without the right to read",
    ),
    Code.LIMIT_EXCEEDED: Meaning(
        "more than one connection, or one operation, may have",
        "too many documents, submissions or presences at once; an operation beyond a bound",
    ),
}
"""Codes that ShareDB has no word for."""

_BY_CLIENT: Final = "found by the client itself"
_BY_DRIVER: Final = "of storage, middleware or features of the original that are not here"

CODES: Final[dict[str, Meaning]] = {
    Code.MESSAGE_BADLY_FORMED: Meaning(
        "not a request", "a field is missing or wrong, the action unknown, the name no document's"
    ),
    Code.PROTOCOL_VERSION_NOT_SUPPORTED: Meaning(
        "another version of the protocol", "a handshake with another version than 1.2 or later 1.x"
    ),
    Code.CLIENT_ID_BADLY_FORMED: Meaning(
        "not a client's id", "a second handshake with another id than the first"
    ),
    Code.CONNECTION_SEQ_INTEGER_OVERFLOW: Meaning(
        "no numbers are left", "a submission numbered from 2^53 - 1 on"
    ),
    Code.DATABASE_METHOD_NOT_IMPLEMENTED: Meaning(
        "the store cannot do that", "a query; a snapshot of a version or a time"
    ),
    Code.DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE: Meaning(
        "a query cannot be followed here", "a query that asks for that"
    ),
    Code.DOC_ALREADY_CREATED: Meaning(
        "there is a document of that name", "a creation by anybody but who created it"
    ),
    Code.DOC_DOES_NOT_EXIST: Meaning(
        "there is none", "an edit or a deletion of what was never created"
    ),
    Code.DOC_WAS_DELETED: Meaning(
        "there is none any more", "an edit of what was deleted meanwhile"
    ),
    Code.DOC_TYPE_NOT_RECOGNIZED: Meaning(
        "not a type that is known here",
        "a creation of anything but a text, or of another type than its collection's",
    ),
    Code.NO_OP: Meaning(
        "nothing is left of the operation",
        "what it did had been done by others; it has made no version",
    ),
    Code.OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT: Meaning(
        "made on a version that is not reached", "a base above the head: of another history"
    ),
    Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND: Meaning(
        "made on a version that is too old", "a base below the floor, or beyond the budget"
    ),
    Code.MAX_SUBMIT_RETRIES_EXCEEDED: Meaning(
        "others were always faster",
        "an operation could not be given its place; the document has been set aside",
    ),
    Code.OT_OP_BADLY_FORMED: Meaning("not an operation", "the codec of its type refuses it"),
    Code.OT_OP_NOT_APPLIED: Meaning(
        "the document cannot take it", "it goes past the end, or cuts a character in two"
    ),
    Code.PRESENCE_TRANSFORM_FAILED: Meaning(
        "not a position", "presence that cannot be brought to the latest version"
    ),
    Code.TYPE_DOES_NOT_SUPPORT_PRESENCE: Meaning(
        "presence has no meaning there", "presence in a document of text-unicode"
    ),
    Code.SNAPSHOT_READS_REJECTED: Meaning(
        "it may not be read", "a fetch or subscription without the right to read"
    ),
    Code.UNKNOWN_ERROR: Meaning("anything else", "a failure of the server"),
    "ERR_OP_ALREADY_SUBMITTED": Meaning("stored before; answered by an acknowledgement"),
    "ERR_OP_SUBMIT_REJECTED": Meaning("taken back, and the editor not told"),
    "ERR_SNAPSHOT_READ_SILENT_REJECTION": Meaning("may not be read, and the reader is not told"),
    "ERR_CANNOT_PING_OFFLINE": Meaning(_BY_CLIENT),
    "ERR_CONNECTION_STATE_TRANSITION_INVALID": Meaning(_BY_CLIENT),
    "ERR_DEFAULT_TYPE_MISMATCH": Meaning(_BY_CLIENT),
    "ERR_DOC_IN_HARD_ROLLBACK": Meaning(_BY_CLIENT),
    "ERR_DOC_MISSING_VERSION": Meaning(_BY_CLIENT),
    "ERR_HARD_ROLLBACK_FETCH_FAILED": Meaning(_BY_CLIENT),
    "ERR_INFLIGHT_OP_MISSING": Meaning(_BY_CLIENT),
    "ERR_INGESTED_SNAPSHOT_HAS_NO_VERSION": Meaning(_BY_CLIENT),
    "ERR_PENDING_OP_REMOVED_BY_OP_SUBMIT_REJECTED": Meaning(_BY_CLIENT),
    "ERR_APPLY_OP_VERSION_DOES_NOT_MATCH_SNAPSHOT": Meaning(_BY_DRIVER),
    "ERR_APPLY_SNAPSHOT_NOT_PROVIDED": Meaning(_BY_DRIVER),
    "ERR_CANNOT_FIXUP_DELETION": Meaning(_BY_DRIVER),
    "ERR_DATABASE_ADAPTER_NOT_FOUND": Meaning(_BY_DRIVER),
    "ERR_FIXUP_IS_ONLY_VALID_ON_APPLY": Meaning(_BY_DRIVER),
    "ERR_MILESTONE_ARGUMENT_INVALID": Meaning(_BY_DRIVER),
    "ERR_OP_NOT_ALLOWED_IN_PROJECTION": Meaning(_BY_DRIVER),
    "ERR_OP_VERSION_MISMATCH_AFTER_TRANSFORM": Meaning(_BY_DRIVER),
    "ERR_OP_VERSION_MISMATCH_DURING_TRANSFORM": Meaning(_BY_DRIVER),
    "ERR_OT_LEGACY_JSON0_OP_CANNOT_BE_NORMALIZED": Meaning(_BY_DRIVER),
    "ERR_OT_OP_NOT_PROVIDED": Meaning(_BY_DRIVER),
    "ERR_QUERY_CHANNEL_MISSING": Meaning(_BY_DRIVER),
    "ERR_QUERY_EMITTER_LISTENER_NOT_ASSIGNED": Meaning(_BY_DRIVER),
    "ERR_TYPE_CANNOT_BE_PROJECTED": Meaning(_BY_DRIVER),
    "ERR_TYPE_DOES_NOT_SUPPORT_COMPOSE": Meaning(_BY_DRIVER),
}
"""Every code of ShareDB."""
