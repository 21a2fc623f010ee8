"""How each id is made and parsed.

Document id: what stands in the URL path, percent-decoded and in Unicode NFC, at most 512 bytes
    of UTF-8, without empty, `.` or `..` parts.  Ids below `-/` belong to the engine.
Scope: everything before the last slash of a document id, or the empty scope; the unit of
    catch-up.
Client id: Yjs's, 1 to 2^53 - 1; drawn anew at every opening of a document and never read
    from a disk, because a counter used twice under one id forks a document for ever.
Replica id: 16 random bytes, stored; who a replica is.
Incarnation: 16 random bytes, stored; which life of that replica this is.  A copied or restored
    file begins a new one.
"""

from __future__ import annotations

import unicodedata
from typing import NewType, Protocol
from urllib.parse import quote, unquote_to_bytes

from crdt_state.errors import InvalidDocumentId

__all__ = [
    "CLIENT_ID_MAX",
    "DOCUMENT_ID_BYTES_MAX",
    "ClientId",
    "Dice",
    "DocumentId",
    "Incarnation",
    "ReplicaId",
    "Scope",
    "document_id",
    "document_id_from_path",
    "draw_client_id",
    "draw_incarnation",
    "draw_replica_id",
    "path_of",
    "scope_of",
]

DocumentId = NewType("DocumentId", str)
Scope = NewType("Scope", str)
ClientId = NewType("ClientId", int)
ReplicaId = NewType("ReplicaId", bytes)
Incarnation = NewType("Incarnation", bytes)

CLIENT_ID_MAX = 2**53 - 1
DOCUMENT_ID_BYTES_MAX = 512
RESERVED = "-"


class Dice(Protocol):
    """Where chance comes from: a `random.Random`, seeded by whoever wants to repeat a run."""

    def randbytes(self, n: int, /) -> bytes:
        """`n` bytes."""

    def randint(self, a: int, b: int, /) -> int:
        """An integer from `a` to `b`, both included."""


def document_id(text: str) -> DocumentId:
    """The document id that `text` names, in NFC.

    Raises `InvalidDocumentId`.
    """
    name = unicodedata.normalize("NFC", text)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidDocumentId(text, "it holds a lone surrogate, which UTF-8 cannot") from None
    if not name:
        raise InvalidDocumentId(text, "it is empty")
    if size > DOCUMENT_ID_BYTES_MAX:
        reason = f"it takes {size} bytes of UTF-8, more than {DOCUMENT_ID_BYTES_MAX}"
        raise InvalidDocumentId(text, reason)
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidDocumentId(text, "it holds a control character")
    parts = name.split("/")
    if parts[0] == RESERVED:
        raise InvalidDocumentId(text, "ids below '-/' belong to the engine")
    if "" in parts:
        raise InvalidDocumentId(text, "a part between slashes is empty")
    if "." in parts or ".." in parts:
        raise InvalidDocumentId(text, "'.' and '..' are not names")
    return DocumentId(name)


def document_id_from_path(path: str) -> DocumentId:
    """The document id of a URL path such as `/notes/caf%C3%A9`, without its first slash.

    Raises `InvalidDocumentId`.
    """
    raw = path.removeprefix("/")
    try:
        return document_id(unquote_to_bytes(raw).decode())
    except UnicodeDecodeError:
        raise InvalidDocumentId(raw, "its percent-encoding is not UTF-8") from None


def path_of(document: DocumentId) -> str:
    """The URL path of a document, percent-encoded, with its first slash."""
    return "/" + quote(document, safe="/")


def scope_of(document: DocumentId) -> Scope:
    """Everything before the last slash, or the empty scope."""
    return Scope(document.rpartition("/")[0])


def draw_client_id(dice: Dice) -> ClientId:
    """A client id for one opening of one document."""
    return ClientId(dice.randint(1, CLIENT_ID_MAX))


def draw_replica_id(dice: Dice) -> ReplicaId:
    """An id for a new replica."""
    return ReplicaId(dice.randbytes(16))


def draw_incarnation(dice: Dice) -> Incarnation:
    """An id for a new life of a replica."""
    return Incarnation(dice.randbytes(16))
