"""The shape of the trie: its numbers, paths and hashes."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from crdt_state.identifiers import DocumentId
from crdt_state.merkle.hashes import (
    BUCKETS,
    EMPTY_NODE,
    EMPTY_ROOT_HASH,
    LEVEL_1,
    LEVEL_2,
    NODES,
    bucket_hash,
    bucket_of,
    leaf_of,
    node_hash,
    root_hash,
)

NOTE = DocumentId("notes/café")


def test_three_levels_hold_one_node_then_64_then_4096() -> None:
    assert (len(LEVEL_1), len(LEVEL_2), NODES, BUCKETS) == (64, 4_096, 4_161, 262_144)


@given(st.text(min_size=1, max_size=40).filter(str.isprintable))
def test_the_path_is_the_first_18_bits_of_sha_256(name: str) -> None:
    bits = "".join(f"{byte:08b}" for byte in sha256(name.encode()).digest())
    assert f"{bucket_of(DocumentId(name)):018b}" == bits[:18]


def test_a_leaf_covers_the_id_the_lineage_and_the_digest() -> None:
    leaf = leaf_of(NOTE, b"digest", bytes(16))
    name = NOTE.encode()
    assert leaf == sha256(b"\x00\x0b" + name + bytes(16) + b"digest").digest()[:16]
    others = {
        leaf_of(DocumentId("notes/cafe"), b"digest"),
        leaf_of(NOTE, b"digest", b"\x01" * 16),
        leaf_of(NOTE, b"another"),
    }
    assert len(others | {leaf}) == 4


def test_the_hash_of_a_bucket_does_not_depend_on_the_order_of_its_leaves() -> None:
    assert bucket_hash([b"a" * 16, b"b" * 16]) == bucket_hash([b"b" * 16, b"a" * 16])
    assert bucket_hash([b"a" * 16]) == sha256(b"a" * 16).digest()[:16]


def test_what_is_empty_has_a_hash_of_zeros() -> None:
    assert bucket_hash([]) == bytes(16) == node_hash(EMPTY_NODE)
    assert root_hash(EMPTY_NODE) == bytes(32) == EMPTY_ROOT_HASH
    assert len(root_hash(b"\x01" + EMPTY_NODE[1:])) == 32
