"""PROTOCOL.md's examples are what the codecs do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol import ywebsocket
from crdt_state.protocol.peer import messages, scopes
from crdt_state.protocol.sharedb import codes, parts, replies, requests, text_types

DOCUMENT = (Path(__file__).parent.parent.parent / "PROTOCOL.md").read_text()
IDS = {"A": b"A" * 16, "B": b"B" * 16, "L": b"\0\6" + b"L" * 14}


def examples(kind: str) -> list[tuple[bytes, str]]:
    """The frames of a block, and each as the document writes its message."""
    (block,) = re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)
    found = []
    for line in block.strip().splitlines():
        coded, message = re.fullmatch(r"([0-9a-f ABL]+?) +(\w+\(.*\))", line).groups()
        for name, value in IDS.items():
            coded = coded.replace(name, value.hex())
        found.append((bytes.fromhex(coded), message))
    return found


def test_the_example_frames_are_what_the_codec_writes_and_reads() -> None:
    found = examples("frames")
    assert len(found) == 7
    for frame, message in found:
        value = eval(message, vars(ywebsocket))  # the document's own notation of a message
        assert ywebsocket.encode(value) == frame
        assert ywebsocket.decode(frame) == value


def test_the_example_messages_between_replicas_are_what_the_codec_writes_and_reads() -> None:
    found = examples("peer-frames")
    shown = set()
    for frame, message in found:
        value = eval(message, {**vars(messages), **vars(scopes), **IDS})
        shown.add(type(value))
        assert messages.encode(value) == frame
        assert messages.decode(frame) == value
    every = {kind for each in get_args(messages.Message) for kind in (get_args(each) or (each,))}
    assert shown == every


def sharedb_examples(kind: str) -> list[tuple[str, str]]:
    """The texts of a block, and below each how the document writes its message."""
    (block,) = re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)
    lines = block.strip().splitlines()
    return list(zip(lines[::2], map(str.strip, lines[1::2]), strict=True))


def test_the_example_requests_of_sharedb_are_what_the_codec_writes_and_reads() -> None:
    shown = set()
    for text, message in sharedb_examples("sharedb-requests"):
        value = eval(message, {**vars(parts), **vars(requests)})
        shown.add(type(value))
        assert requests.encode_request(value) == text
        assert requests.decode_request(text, DEFAULT_LIMITS) == value
    assert shown == set(get_args(requests.Request))


def test_the_example_replies_of_sharedb_are_what_the_codec_writes_and_reads() -> None:
    shown = set()
    for text, message in sharedb_examples("sharedb-replies"):
        value = eval(message, {**vars(parts), **vars(replies)})
        shown.add(type(value))
        assert replies.encode_reply(value) == text
        assert replies.decode_reply(text, DEFAULT_LIMITS) == value
    assert shown == set(get_args(replies.Reply))


def test_the_errors_of_sharedb_are_those_that_are_sent() -> None:
    shown = dict(re.findall(r"^\| (ERR_\w+) \| (.+) \|$", DOCUMENT, re.MULTILINE))
    assert shown == {code: (codes.CODES | codes.OURS)[code].sent for code in codes.Code}


def test_the_types_of_texts_are_those_that_are_known() -> None:
    shown = re.findall(r"^\| `([\w-]+)` \| `(http://sharejs\S+)` \|", DOCUMENT, re.MULTILINE)
    known = (text_types.TEXT_UNICODE, text_types.RICH_TEXT)
    assert shown == [(each.name, each.uri) for each in known]
