"""A 64-ary trie of hashes over a scope's documents: how it is numbered, and what is hashed.

    level 0   the root        1 node    number 0
    level 1                  64 nodes   numbers 1 to 64
    level 2               4,096 nodes   numbers 65 to 4,160
    buckets             262,144         numbers 0 to 262,143

The path of a document is the first 18 bits of SHA-256 over its id in UTF-8, 6 for each step, so
nobody who does not look for it fills one bucket.  Children of node n are 64 n + 1 to 64 n + 64,
as in a heap; those of level 2 are buckets, numbered from 0.

    leaf     SHA-256(length of the id in 2 bytes, id, lineage, deep digest), its first 16 bytes
    bucket   SHA-256(its leaves, sorted), its first 16 bytes; zeros where it has none
    node     stored as one blob of 1,024 bytes: the hashes of its 64 children, 16 bytes each
             its hash is SHA-256(blob), its first 16 bytes; zeros where the blob is all zeros
    root     the same, all 32 bytes

Equal sets of (document, lineage, deep digest) have equal tries, however they came about.

Cf. R. Merkle, "A digital signature based on a conventional encryption function" (1987), and the
anti-entropy of G. DeCandia et al., "Dynamo" (2007).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NewType, TypeAlias

from crdt_state.identifiers import DocumentId
from crdt_state.lineage import LINEAGE_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BUCKETS",
    "EMPTY_HASH",
    "EMPTY_NODE",
    "EMPTY_ROOT_HASH",
    "FAN_OUT",
    "HASH_BYTES",
    "LEVEL_1",
    "LEVEL_2",
    "NODES",
    "NODE_BYTES",
    "ROOT",
    "Entry",
    "Leaf",
    "bucket_hash",
    "bucket_of",
    "leaf_of",
    "node_hash",
    "root_hash",
]

Leaf = NewType("Leaf", bytes)
"""16 bytes that stand for what a replica holds of one document."""

Entry: TypeAlias = tuple[DocumentId, Leaf]
"""What a bucket is made of."""

FAN_OUT: Final = 64
HASH_BYTES: Final = 16
NODE_BYTES: Final = FAN_OUT * HASH_BYTES

ROOT: Final = 0
LEVEL_1: Final = range(1, 1 + FAN_OUT)
LEVEL_2: Final = range(LEVEL_1.stop, LEVEL_1.stop + FAN_OUT**2)
NODES: Final = LEVEL_2.stop
BUCKETS: Final = FAN_OUT**3

EMPTY_NODE: Final = bytes(NODE_BYTES)
EMPTY_ROOT_HASH: Final = bytes(32)
EMPTY_HASH: Final = bytes(HASH_BYTES)


def bucket_of(document: DocumentId) -> int:
    """The bucket that `document` belongs to."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:3], "big") >> 6


def leaf_of(document: DocumentId, deep_digest: bytes, lineage: bytes = LINEAGE_ZERO) -> Leaf:
    """The leaf of a document whose integrated state has `deep_digest`; a lineage is 16 bytes."""
    name = document.encode()
    covered = len(name).to_bytes(2, "big") + name + lineage + deep_digest
    return Leaf(hashlib.sha256(covered).digest()[:HASH_BYTES])


def bucket_hash(leaves: Iterable[bytes]) -> bytes:
    """16 bytes for a set of leaves, in whatever order they come."""
    joined = b"".join(sorted(leaves))
    return hashlib.sha256(joined).digest()[:HASH_BYTES] if joined else EMPTY_HASH


def node_hash(blob: bytes) -> bytes:
    """16 bytes for a node."""
    return root_hash(blob)[:HASH_BYTES]


def root_hash(blob: bytes) -> bytes:
    """32 bytes for a node: of the root, this is what replicas show each other first."""
    return hashlib.sha256(blob).digest() if blob != EMPTY_NODE else EMPTY_ROOT_HASH
