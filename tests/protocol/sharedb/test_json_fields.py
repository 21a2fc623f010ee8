"""`crdt_state.protocol.sharedb.json_fields`: objects only, and bounded ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from crdt_state.errors import RemoteProtocolError, RequestRefused
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.sharedb.json_fields import (
    ANY,
    COUNT,
    NAME,
    TEXT,
    Layout,
    at,
    layout_of,
    nullable,
    optional,
    parse,
)

DEEPEST = DEFAULT_LIMITS.sharedb_depth_max


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "a JSON object"),
        ("null", "a JSON object"),
        ('"hs"', "a JSON object"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": "\\ud800"}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON"),
        ('{"a": ' + "[" * DEEPEST + "]" * DEEPEST + "}", "sharedb_depth_max"),
        ('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), "sharedb_depth_max"),
    ],
)
def test_what_is_no_object_or_too_deep_ends_the_connection(text: str | bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse(text, DEFAULT_LIMITS)


def test_as_deep_as_allowed_is_read() -> None:
    deep = '{"a": ' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}"
    assert parse(deep, DEFAULT_LIMITS)["a"]


def test_a_message_beyond_the_bound_ends_the_connection() -> None:
    limits = replace(DEFAULT_LIMITS, message_bytes_max=10)
    assert parse('{"a":"pp"}', limits) == {"a": "pp"}
    with pytest.raises(RemoteProtocolError, match="message_bytes_max = 10"):
        parse('{"a": "pp"}', limits)


@pytest.mark.parametrize("value", [-1, 2**53, 2**70, 1.0, 1.5, True, "1", None, [1]])
def test_a_count_is_an_integer_that_javascript_can_count(value: object) -> None:
    with pytest.raises(RequestRefused, match="'v' is an integer from 0 to 2"):
        at("v", COUNT).take({"v": value}, DEFAULT_LIMITS)


def test_the_ends_of_a_count() -> None:
    for value in (0, 2**53 - 1):
        assert at("v", COUNT).take({"v": value}, DEFAULT_LIMITS) == value


@pytest.mark.parametrize("value", ["", "x" * 257, "ü" * 129, 5, None])
def test_a_name_is_short_and_not_empty(value: object) -> None:
    with pytest.raises(RequestRefused, match=r"'src' (is a string|has)"):
        at("src", NAME).take({"src": value}, DEFAULT_LIMITS)


@dataclass(frozen=True)
class Note:
    text: str
    left_out: str | None
    said: str | None
    value: object


NOTE = Layout(
    Note,
    "n",
    text=at("t", TEXT),
    left_out=at("l", optional(TEXT)),
    said=at("s", nullable(TEXT)),
    value=at("x", ANY),
)


def test_a_layout_reads_what_it_writes() -> None:
    for note in (Note("a", None, None, None), Note("a", "b", "c", {"d": [1]})):
        assert NOTE.read(NOTE.write(note), DEFAULT_LIMITS) == note


def test_what_is_optional_is_left_out_and_what_may_be_null_is_said() -> None:
    assert NOTE.write(Note("a", None, None, None)) == {"a": "n", "t": "a", "s": None, "x": None}


def test_what_a_later_client_says_besides_is_passed_over() -> None:
    raw = {"a": "n", "t": "a", "later": {"x": 1}}
    assert NOTE.read(raw, DEFAULT_LIMITS) == Note("a", None, None, None)


@pytest.mark.parametrize("action", [None, 5, "", "nn", ["n"], "x" * 10_000])
def test_an_unknown_action_is_refused_by_name(action: object) -> None:
    assert layout_of({"a": "n"}, {"n": NOTE}) is NOTE
    with pytest.raises(RequestRefused, match="is unknown; known are n") as caught:
        layout_of({"a": action}, {"n": NOTE})
    assert len(caught.value.reason) < 200
