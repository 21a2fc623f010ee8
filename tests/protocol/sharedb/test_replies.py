"""`crdt_state.protocol.sharedb.replies`: what a server says is read as it was written."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Failure, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import (
    BulkFetched,
    BulkSubscribed,
    BulkUnsubscribed,
    Fetched,
    Greeting,
    Init,
    Operation,
    Pong,
    PresenceRequested,
    PresenceSubscribed,
    PresenceUnsubscribed,
    QueryUnsubscribed,
    Refusal,
    Reply,
    Subscribed,
    Unsubscribed,
    decode_reply,
    encode_reply,
)

A = DocumentId("notes/a")
NO = Failure("ERR_NO_OP", "nothing")

REPLIES: list[Reply] = [
    Greeting("me", 1, 2, "http://sharejs.org/types/JSONv0"),
    Init("me", 1, 2, "http://sharejs.org/types/JSONv0"),
    Fetched(A),
    Fetched(A, Snapshot(3, "rich-text", {"ops": []})),
    Subscribed(A, Snapshot(0)),
    Subscribed(A, Snapshot(0, "text-unicode", "")),
    Unsubscribed(A),
    BulkFetched("notes", (("a", Snapshot(1, "text-unicode", "x")), ("b", NO))),
    BulkFetched("notes", ()),
    BulkSubscribed("notes", None, ("a", "b")),
    BulkUnsubscribed("notes", ("a",)),
    Operation(A, 7 * 2**32, "me", 4, Edit(["x"])),
    Operation(A, 7, "me", 4, Create("rich-text", {"ops": []})),
    Operation(A, 7, "me", None, Delete()),
    Operation(A, 7, "me", 4, None),
    Pong(),
    Presence(document=A, source="me", id="x", value={"index": 1}, number=1, version=2, type="t"),
    PresenceSubscribed(A, 1),
    PresenceUnsubscribed(A, 2),
    PresenceRequested(A),
    PresenceRequested(),
    QueryUnsubscribed(3),
    Refusal({"a": "op", "c": "notes", "d": "a", "v": 1, "src": "me", "seq": 4}, NO),
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda each: type(each).__name__)
def test_what_is_written_is_read(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply), DEFAULT_LIMITS) == reply


def test_every_kind_of_reply_was_tried() -> None:
    assert {type(each) for each in REPLIES} == set(get_args(Reply))


def test_what_does_not_exist_is_said_to_have_no_type() -> None:
    assert json.loads(encode_reply(Subscribed(A, Snapshot(5))))["data"] == {"v": 5, "type": None}


def test_an_operation_is_written_once_for_all_who_are_told() -> None:
    operation = Operation(A, 1, "me", 1, Edit(["x"]))
    assert encode_reply(operation) is encode_reply(operation)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":"x"}',
        '{"a":"f","c":"notes","d":".."}',
        '{"a":"f","c":"notes","d":"a","data":5}',
        '{"a":"bf","c":"notes","data":[]}',
        '{"a":"op","c":"notes","d":"a","v":"1","src":"me"}',
        '{"a":"f","error":"no"}',
    ],
)
def test_what_no_server_says_ends_the_connection(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(text, DEFAULT_LIMITS)
