"""`crdt_state.protocol.sharedb.names`: a document has one name, and a channel one document."""

from __future__ import annotations

import pytest

from crdt_state.errors import RequestRefused
from crdt_state.identifiers import DocumentId
from crdt_state.protocol.sharedb.names import (
    channel_of,
    document_of,
    document_of_channel,
    name_of,
)


@pytest.mark.parametrize(
    ("collection", "key"), [("notes", "a"), ("notes", "a/b/c"), ("notes", "a.b"), ("a b", "ü😀")]
)
def test_a_name_is_that_of_one_document(collection: str, key: str) -> None:
    document = document_of(collection, key)
    assert document == f"{collection}/{key}"
    assert name_of(document) == (collection, key)
    assert document_of_channel(channel_of(document)) == document
    assert channel_of(document) == f"{collection}.{key}"


@pytest.mark.parametrize(
    ("collection", "key", "reason"),
    [
        ("", "a", "no collection"),
        ("a/b", "c", "without a slash"),
        ("notes", "", "a part between slashes is empty"),
        ("notes", "..", "are not names"),
        ("-", "sharedb", "belong to the engine"),
        ("notes", "a\n", "control character"),
        ("notes", "e\u0301", "not in NFC"),
        ("notes", "x" * 600, "more than 512"),
    ],
)
def test_what_is_no_name_is_refused(collection: str, key: str, reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason) as caught:
        document_of(collection, key)
    assert caught.value.code == "ERR_MESSAGE_BADLY_FORMED"
    assert len(caught.value.reason) < 1_000


def test_a_channel_of_no_document_is_refused() -> None:
    for channel in ("everywhere", "", ".a", "a."):
        with pytest.raises(RequestRefused):
            document_of_channel(channel)


def test_a_dot_ends_the_collection_of_a_channel() -> None:
    assert document_of_channel("a.b.c") == DocumentId("a/b.c")
