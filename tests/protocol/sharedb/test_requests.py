"""`crdt_state.protocol.sharedb.requests`: what a client says is read strictly, and named if not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from crdt_state.errors import RequestRefused
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Presence
from crdt_state.protocol.sharedb.requests import (
    BulkFetch,
    BulkSubscribe,
    BulkUnsubscribe,
    Fetch,
    Handshake,
    Ping,
    PresenceRequest,
    PresenceSubscribe,
    PresenceUnsubscribe,
    QueryFetch,
    QuerySubscribe,
    QueryUnsubscribe,
    Request,
    SnapshotFetch,
    SnapshotFetchByTimestamp,
    Submit,
    Subscribe,
    Unsubscribe,
    address_of,
    decode_request,
    encode_request,
)

A = DocumentId("notes/a")

REQUESTS: list[Request] = [
    Handshake(None, 1, 2),
    Handshake("before", 1, 2),
    Fetch(A),
    Fetch(A, 0),
    Subscribe(A),
    Subscribe(A, 2**53 - 1),
    Unsubscribe(A),
    BulkFetch("notes", (("a", None), ("b", None))),
    BulkSubscribe("notes", (("a", 0), ("b", 7 * 2**32))),
    BulkUnsubscribe("notes", ()),
    Submit(A, 3, None, 1, Edit([3, "new"])),
    Submit(A, 3, "before", 1, Edit({"ops": [{"insert": "new"}]})),
    Submit(A, None, None, 1, Create("text-unicode", "new")),
    Submit(A, None, None, 1, Create("text-unicode")),
    Submit(A, 3, None, 1, Delete()),
    Ping(),
    Presence(document=A, id="x", value={"index": 1}, number=0, version=3, type="rich-text"),
    Presence(document=A, id="x", value=None, number=2),
    PresenceSubscribe(A, 1),
    PresenceUnsubscribe(A, 2),
    PresenceRequest(A),
    QueryFetch(1),
    QuerySubscribe(2),
    QueryUnsubscribe(2),
    SnapshotFetch(1),
    SnapshotFetchByTimestamp(1),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_what_is_written_is_read(request_: Request) -> None:
    assert decode_request(encode_request(request_), DEFAULT_LIMITS) == request_


def test_every_kind_of_request_was_tried() -> None:
    assert {type(each) for each in REQUESTS} == set(get_args(Request))


# What the npm client sends, as it sends it.
@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"a":"hs","id":null,"protocol":1,"protocolMinor":2}', Handshake(None, 1, 2)),
        ('{"a":"s","c":"notes","d":"a","v":null}', Subscribe(A)),
        ('{"a":"f","c":"notes","d":"a"}', Fetch(A)),
        (
            '{"a":"op","c":"notes","d":"a","v":1,"seq":2,"x":{},"op":["a"]}',
            Submit(A, 1, None, 2, Edit(["a"])),
        ),
        (
            '{"a":"op","c":"notes","d":"a","v":null,"seq":1,"x":{},"create":{"type":"rich-text"}}',
            Submit(A, None, None, 1, Create("rich-text")),
        ),
        (
            '{"a":"qf","id":1,"c":"notes","q":{"deep":{"er":1}},"o":null}',
            QueryFetch(1),
        ),
    ],
)
def test_what_the_stock_client_sends_is_read(text: str, request_: Request) -> None:
    assert decode_request(text, DEFAULT_LIMITS) == request_


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "action 'None' is unknown"),
        ({"a": "x"}, "action 'x' is unknown"),
        ({"a": ["hs"]}, "is unknown"),
        ({"a": "hs", "id": 5, "protocol": 1, "protocolMinor": 2}, "'id' is a string, not int"),
        ({"a": "hs", "id": None, "protocol": "1", "protocolMinor": 2}, "'protocol' is an integer"),
        ({"a": "s", "c": "notes"}, "'d' is a string, not missing"),
        ({"a": "s", "c": 5, "d": "a"}, "'c' is a string, not int"),
        ({"a": "s", "c": "notes", "d": ".."}, "not a document id"),
        ({"a": "s", "c": "a/b", "d": "c"}, "no collection"),
        ({"a": "s", "c": "notes", "d": "a", "v": -1}, "'v' is an integer"),
        ({"a": "s", "c": "notes", "d": "a", "v": 1.5}, "'v' is an integer"),
        ({"a": "bs", "c": "notes"}, "'b' is a list"),
        ({"a": "bs", "c": "notes", "b": [5]}, "'b' is a string"),
        ({"a": "bs", "c": "notes", "b": {"a": None}}, "'b' is an integer"),
        ({"a": "op", "c": "notes", "d": "a", "v": 1, "op": []}, "'seq' is an integer"),
        ({"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 1}, "one of 'op', 'create' and 'del'"),
        (
            {"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 1, "create": 5},
            "'create' is an object",
        ),
        ({"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 1, "create": {}}, "'type' is a string"),
        ({"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 1, "del": 1}, "'del' is true"),
        ({"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 1, "op": [], "src": ""}, "'src' has 0"),
        ({"a": "p", "ch": "x", "c": "notes", "d": "a", "id": "x", "pv": 1}, "at documents only"),
        ({"a": "p", "ch": "notes.a", "id": "x", "pv": 1}, "'c' is a string"),
        ({"a": "p", "ch": "a.b.c", "c": "a.b", "d": "c", "id": "x", "pv": 1}, "c has no dot"),
        ({"a": "p", "ch": "notes.a", "c": "notes", "d": "a", "id": 5, "pv": 1}, "'id' is a string"),
        ({"a": "ps", "ch": "everywhere", "seq": 1}, "no channel of a document"),
        ({"a": "ps", "ch": "notes.a"}, "'seq' is an integer"),
        ({"a": "qf", "id": "x"}, "'id' is an integer"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason) as caught:
        decode_request(json.dumps(raw), DEFAULT_LIMITS)
    assert caught.value.code == "ERR_MESSAGE_BADLY_FORMED"


def test_a_bulk_names_no_more_documents_than_a_connection_may_have() -> None:
    limits = replace(DEFAULT_LIMITS, channels_max=2)
    two = encode_request(BulkSubscribe("notes", (("a", 1), ("b", 1))))
    assert decode_request(two, limits)
    for bulk in (["a", "b", "c"], {"a": 1, "b": 1, "c": 1}):
        with pytest.raises(RequestRefused, match="channels_max = 2") as caught:
            decode_request(json.dumps({"a": "bs", "c": "notes", "b": bulk}), limits)
        assert caught.value.code == "ERR_LIMIT_EXCEEDED"


def test_a_refused_request_is_known_by_what_is_short_of_it() -> None:
    raw = {"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 2, "op": ["x" * 10_000], "x": {}}
    assert address_of(raw) == {"a": "op", "c": "notes", "d": "a", "v": 1, "seq": 2}
    assert address_of({"a": "bs", "c": "notes", "b": {"a": 1, "b": 2}})["b"] == ["a", "b"]
    assert address_of({"a": "x" * 10_000, "c": ["x"], "b": ["y" * 10_000, 5, "a"]}) == {
        "b": [5, "a"]
    }
