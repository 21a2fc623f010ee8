"""Positions that stay where they are."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import UpdateMalformed
from crdt_state.model.positions import Position, Side
from model.documents import document

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("content", ["", "abc", "a😀中\u0301b"])
def test_a_position_is_where_it_was_made(content: str, side: Side) -> None:
    text = document().text("text")
    text.append(content)
    for index in range(len(content) + 1):
        assert text.index_of(text.position(index, side)) == index


def test_what_is_inserted_at_a_position_goes_to_the_side_it_does_not_stick_to() -> None:
    text = document().text("text")
    text.append("😀中")
    before, after = text.position(1, Side.BEFORE), text.position(1, Side.AFTER)
    start, end = text.position(0, Side.BEFORE), text.position(2, Side.AFTER)
    text.insert(1, "xy")
    assert (text.index_of(before), text.index_of(after)) == (1, 3)
    text.insert(0, "é")
    text.append("é")
    assert (text.index_of(start), text.index_of(end)) == (0, 6)


@settings(deadline=None, max_examples=60)
@given(st.text("ab😀中", min_size=1, max_size=12), st.data())
def test_a_position_follows_its_character_over_replicas(content: str, data: st.DataObject) -> None:
    here, there = document(1), document(2)
    text = here.text("text")
    text.append(content)
    index = data.draw(st.integers(0, len(content) - 1))
    position = text.position(index, Side.AFTER)
    there.apply(here.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(there.text("text"))))
        there.text("text").insert(at, data.draw(st.text("x😀", min_size=1, max_size=3)))
    # The character itself is marked, so that it can be found again.
    where = there.text("text").index_of(position)
    there.text("text").format(where, 1, {"mark": True})
    here.apply(there.encode())
    assert text.index_of(position) == where
    found, at = [], 0
    for run in text.runs():
        if run.attributes:
            found.append(at)
        at += len(run.content)
    assert found == [where]
    assert text[where] == content[index]


def test_a_position_whose_character_is_gone_is_where_it_was() -> None:
    text = document().text("text")
    text.append("a😀中b")
    position = text.position(2)
    text.delete(1, 2)
    assert text.index_of(position) == 1


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"\x00\x01"])
def test_bytes_that_are_no_position_are_refused(damaged: bytes) -> None:
    source = document()
    source.text("text").append("abc")
    with pytest.raises(UpdateMalformed):
        source.text("text").index_of(Position(damaged))
    assert not source.is_broken


def test_a_position_of_another_document_or_of_the_future_is_refused() -> None:
    text, other = document(1).text("text"), document(2).text("text")
    text.append("abc")
    other.append("abc")
    with pytest.raises(UpdateMalformed):
        other.index_of(text.position(1))
    assert str(other) == "abc"


@pytest.mark.node
def test_yjs_reads_our_positions_and_we_read_those_of_yjs(node_programs: Path) -> None:
    here, there = document(1), document(2)
    text = here.text("text")
    text.append("a😀中\u0301b")
    there.apply(here.encode())
    there.text("text").insert(2, "é😀")
    there.text("text").delete(4, 1)
    here.apply(there.encode())
    content = str(text)
    ours = [
        (side, index, text.position(index, side).encoded.hex())
        for side in Side
        for index in range(len(content) + 1)
    ]
    asked = {
        "update": here.encode().hex(),
        "positions": [encoded for _, _, encoded in ours],
        "indexes": [
            (units(content[:index]), -1 if side is Side.BEFORE else 0) for side, index, _ in ours
        ],
    }
    said = json.loads(
        subprocess.run(
            ["node", "positions.mjs"],
            cwd=node_programs,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert said["text"] == content
    assert said["indexes"] == [units(content[:index]) for _, index, _ in ours]
    theirs = [text.index_of(Position(bytes.fromhex(encoded))) for encoded in said["positions"]]
    assert theirs == [index for _, index, _ in ours]


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
