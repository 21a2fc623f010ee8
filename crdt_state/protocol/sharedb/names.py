"""What a client calls a document, and where it speaks of who is there.

Collection `c` and `d` name the document `c/d`: `c` has no slash, `d` may have some, so every
document has one name, and none that has no slash in its id can be named at all.  Presence of a
document is spoken of in the channel `c.d`, and the channel has to tell which document that is: so
the first dot ends `c`, and where a collection has one, its documents have no presence.
"""

from __future__ import annotations

from crdt_state.errors import InvalidDocumentId, RequestRefused
from crdt_state.identifiers import DocumentId, document_id
from crdt_state.protocol.sharedb.codes import Code

__all__ = ["channel_of", "document_of", "document_of_channel", "name_of"]

SHOWN_MAX = 200
"""How many characters of what somebody else has written a refusal shows."""


def document_of(collection: str, key: str) -> DocumentId:
    """The document `collection/key`.  Raises `RequestRefused`."""
    if not collection or "/" in collection:
        raise _refused(
            f"{collection[:SHOWN_MAX]!r} is no collection: not empty, and without a slash"
        )
    name = f"{collection}/{key}"
    try:
        document = document_id(name)
    except InvalidDocumentId as error:
        raise _refused(str(error)) from None
    if document != name:
        raise _refused(f"{name!r} is not in NFC")
    return document


def name_of(document: DocumentId) -> tuple[str, str]:
    """Collection and key of a document that has both."""
    collection, _, key = document.partition("/")
    return collection, key


def channel_of(document: DocumentId) -> str:
    """The channel in which presence of a document is spoken of."""
    return document.replace("/", ".", 1)


def document_of_channel(channel: str) -> DocumentId:
    """The document of a channel.  Raises `RequestRefused`."""
    collection, dot, key = channel.partition(".")
    if not dot:
        raise _refused(
            f"{channel[:SHOWN_MAX]!r} is no channel of a document; those are called c.d, "
            f"and there are no others"
        )
    return document_of(collection, key)


def _refused(reason: str) -> RequestRefused:
    return RequestRefused(Code.MESSAGE_BADLY_FORMED, reason)
