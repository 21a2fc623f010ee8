"""PROTOCOL.md's examples are what the codecs do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from crdt_state.protocol import ywebsocket
from crdt_state.protocol.peer import messages, scopes

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
