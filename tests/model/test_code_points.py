"""The index from code points to bytes, against plain strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.model.code_points import CHUNK_MAX, EMBED, CodePoints, byte_length

if TYPE_CHECKING:
    from hypothesis.strategies import DataObject

PIECES = st.one_of(
    st.text(alphabet="ab é中😀\u0301\u200d👩‍💻\u0000" + EMBED, max_size=12),
    st.builds(
        lambda part, times: part * times,
        st.sampled_from(["x", "é", "中", "😀", EMBED, "a😀"]),
        st.integers(0, 3 * CHUNK_MAX),
    ),
)


def assert_same(points: CodePoints, text: str, position: int) -> None:
    assert points.length == len(text)
    assert str(points) == text
    assert points.byte_of(position) == byte_length(text[:position])
    assert points.point_of_byte(byte_length(text[:position])) == position
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk in points._chunks) or not text


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_both_measures_agree_with_a_plain_string(data: DataObject) -> None:
    text = data.draw(PIECES)
    points = CodePoints(text)
    for _ in range(data.draw(st.integers(1, 12))):
        position = data.draw(st.integers(0, len(text)))
        if data.draw(st.booleans()):
            piece = data.draw(PIECES)
            points.insert(position, piece)
            text = text[:position] + piece + text[position:]
        else:
            count = data.draw(st.integers(0, len(text) - position))
            points.delete(position, count)
            text = text[:position] + text[position + count :]
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(0, len(text)))
        assert points.slice(start, end) == text[start:end]
        assert_same(points, text, start)
        assert_same(points, text, end)


def test_a_copy_stays_as_it_was() -> None:
    points = CodePoints("abc")
    before = points.copy()
    points.insert(1, "é")
    points.delete(0, 1)
    assert (str(before), before.length, before.byte_of(3)) == ("abc", 3, 3)
    assert str(points) == "ébc"


def test_deleting_everything_character_by_character_leaves_one_empty_chunk() -> None:
    points = CodePoints("é" * 5_000)
    for _ in range(5_000):
        points.delete(points.length // 2, 1)
    assert points._chunks == [""]
    points.insert(0, "again")
    assert str(points) == "again"
