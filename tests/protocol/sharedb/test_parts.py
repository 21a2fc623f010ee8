"""`crdt_state.protocol.sharedb.parts`: documents, changes, snapshots and presence as objects."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_state.errors import RequestRefused
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.sharedb.json_fields import JsonObject, Place
from crdt_state.protocol.sharedb.parts import (
    CHANGE,
    CHANNEL,
    DOCUMENT,
    FAILURE,
    KEYS,
    PRESENCE,
    SHOWN,
    SNAPSHOT,
    VERSIONS,
    Create,
    Delete,
    Edit,
    Failure,
    Presence,
    Snapshot,
)

A = DocumentId("notes/a/b.c")


@pytest.mark.parametrize(
    ("place", "value", "wire"),
    [
        (DOCUMENT, A, {"c": "notes", "d": "a/b.c"}),
        (CHANNEL, A, {"ch": "notes.a/b.c"}),
        (CHANGE, Edit([3, "x"]), {"op": [3, "x"]}),
        (CHANGE, Edit(None), {"op": None}),
        (CHANGE, Create("rich-text"), {"create": {"type": "rich-text"}}),
        (CHANGE, Create("t", ""), {"create": {"type": "t", "data": ""}}),
        (CHANGE, Delete(), {"del": True}),
        (CHANGE, None, {}),
        (SNAPSHOT, Snapshot(0), {"data": {"v": 0, "type": None}}),
        (SNAPSHOT, Snapshot(1, "t", ""), {"data": {"v": 1, "type": "t", "data": ""}}),
        (SNAPSHOT, None, {}),
        (VERSIONS, (("a", None), ("b", None)), {"b": ["a", "b"]}),
        (VERSIONS, (("a", 0), ("b", 9)), {"b": {"a": 0, "b": 9}}),
        (KEYS, ("a",), {"b": ["a"]}),
        (KEYS, None, {}),
        (
            SHOWN,
            (("a", Snapshot(1, "t", "x")), ("b", Failure("E", "no"))),
            {
                "data": {
                    "a": {"v": 1, "type": "t", "data": "x"},
                    "b": {"error": {"code": "E", "message": "no"}},
                }
            },
        ),
        (FAILURE, Failure("E", "no"), {"error": {"code": "E", "message": "no"}}),
    ],
)
def test_what_is_put_is_taken(place: Place, value: Any, wire: JsonObject) -> None:
    written: JsonObject = {}
    place.put(written, value)
    assert written == wire
    assert place.take(wire, DEFAULT_LIMITS) == value


def test_an_operation_counts_before_what_else_a_change_says() -> None:
    raw = {"op": [], "create": {"type": "t"}, "del": True}
    assert CHANGE.take(raw, DEFAULT_LIMITS) == Edit([])
    assert CHANGE.take({"create": None, "del": True}, DEFAULT_LIMITS) == Delete()


def test_an_error_of_a_middleware_may_have_no_code() -> None:
    assert FAILURE.take({"error": {"message": "no"}}, DEFAULT_LIMITS) == Failure("", "no")


def test_presence_names_its_document_twice_and_alike() -> None:
    presence = Presence(document=A, id="x", value=None, number=1)
    wire = PRESENCE.write(presence)
    assert wire == {
        "a": "p", "ch": "notes.a/b.c", "c": "notes", "d": "a/b.c", "id": "x", "p": None, "pv": 1,
    }  # fmt: skip
    assert PRESENCE.read(wire, DEFAULT_LIMITS) == presence
    for other in ("notes.a", "notes/a/b.c", "everywhere"):
        with pytest.raises(RequestRefused, match="at documents only"):
            PRESENCE.read({**wire, "ch": other}, DEFAULT_LIMITS)
