"""State vectors and delete sets as canonical bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import UpdateMalformed
from crdt_state.model.engine import NativeDocument
from crdt_state.model.ranges import COUNTER_MAX
from crdt_state.model.state import (
    decode_delete_set,
    decode_state_vector,
    digest_of,
    encode_state_vector,
)

VECTORS = st.dictionaries(st.integers(0, 2**53 - 1), st.integers(0, COUNTER_MAX), max_size=20)


@given(VECTORS)
def test_a_state_vector_comes_back(vector: dict[int, int]) -> None:
    encoded = encode_state_vector(vector)
    assert decode_state_vector(encoded) == vector
    assert encode_state_vector(dict(reversed(vector.items()))) == encoded


def test_the_engine_reads_what_we_encode() -> None:
    document = NativeDocument(7)
    with document.transaction():
        document.text("text").insert(0, "abc")
    assert decode_state_vector(document.state_vector()) == {7: 3}
    assert document.encode(encode_state_vector({7: 3})) == b"\x00\x00"


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"", "ends"),
        (b"\x01\x05", "ends"),
        (b"\x00\x00", "left over"),
        (b"\x02\x05\x01\x05\x02", "twice"),
        (b"\x81\x00\x05\x01", "longer than it needs"),
    ],
)
def test_a_damaged_state_vector_is_refused(damaged: bytes, reason: str) -> None:
    with pytest.raises(UpdateMalformed, match=reason):
        decode_state_vector(damaged)


def test_ranges_of_deletes_are_sorted_and_merged() -> None:
    encoded = bytes([0, 2, 9, 3, 8, 2, 0, 3, 3, 1, 4, 1, 5, 1])
    assert decode_delete_set(encoded) == {4: ((5, 6),), 9: ((0, 4), (8, 10))}


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x00\x01\x05", b"\x00\x00\x00"])
def test_a_damaged_delete_set_is_refused(damaged: bytes) -> None:
    with pytest.raises(UpdateMalformed):
        decode_delete_set(damaged)


def test_a_digest_depends_on_every_number() -> None:
    digests = {
        digest_of(vector, deletes)
        for vector in ({}, {1: 1}, {1: 2}, {2: 1})
        for deletes in ({}, {1: ((0, 1),)}, {1: ((0, 2),)}, {1: ((0, 1), (2, 3))}, {2: ((0, 1),)})
    }
    assert len(digests) == 4 * 5
    assert {len(digest) for digest in digests} == {16}
