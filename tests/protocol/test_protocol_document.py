"""PROTOCOL.md's examples are what the codec does."""

from __future__ import annotations

import re
from pathlib import Path

from crdt_state.protocol import ywebsocket

DOCUMENT = Path(__file__).parent.parent.parent / "PROTOCOL.md"


def test_the_example_frames_are_what_the_codec_writes_and_reads() -> None:
    (block,) = re.findall(r"```frames\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    examples = [line.split(maxsplit=1) for line in block.strip().splitlines()]
    assert len(examples) == 7
    for frame, message in examples:
        value = eval(message, vars(ywebsocket))  # the document's own notation of a message
        assert ywebsocket.encode(value).hex() == frame
        assert ywebsocket.decode(bytes.fromhex(frame)) == value
