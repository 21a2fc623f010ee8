"""Making a trie, keeping it current, and checking it (`hashes` says what it is).

1. `update` after any change leaves what `build` would have made.
2. A node is read and written at most once by one `update`, and not written where it stays equal.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from crdt_state.merkle.hashes import (
    EMPTY_NODE,
    FAN_OUT,
    HASH_BYTES,
    LEVEL_1,
    LEVEL_2,
    NODE_BYTES,
    ROOT,
    bucket_hash,
    node_hash,
)
from crdt_state.merkle.store import read_buckets, read_nodes, write_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crdt_state.merkle.hashes import Entry
    from crdt_state.merkle.store import Steps

__all__ = ["build", "update", "verify"]


def build(entries: Iterable[Entry]) -> dict[int, bytes]:
    """All nodes that are not empty, by number, of a trie over `entries` (each document once).

    Takes the entries in any order; holds 16 bytes of each, and not the ids.
    """
    # Bytes that grow are the leanest bucket there is: most hold a handful of leaves.
    buckets: defaultdict[int, bytes] = defaultdict(bytes)
    sha256, from_bytes = hashlib.sha256, int.from_bytes
    for document, leaf in entries:
        # `bucket_of`, written out: this line runs once for every document of a scope.
        buckets[from_bytes(sha256(document.encode()).digest()[:3], "big") >> 6] += leaf
    hashes = {number: bucket_hash(_leaves(joined)) for number, joined in buckets.items()}
    nodes: dict[int, bytes] = {}
    for level in (LEVEL_2, LEVEL_1, range(ROOT, ROOT + 1)):
        blobs: dict[int, bytearray] = {}
        for number, child_hash in hashes.items():
            parent, child = divmod(number, FAN_OUT)
            blob = blobs.setdefault(parent, bytearray(NODE_BYTES))
            blob[child * HASH_BYTES : (child + 1) * HASH_BYTES] = child_hash
        made = {number: bytes(blob) for number, blob in blobs.items()}
        nodes |= {level.start + number: blob for number, blob in made.items()}
        hashes = {number: node_hash(blob) for number, blob in made.items()}
    return nodes


def update(changed: Iterable[int]) -> Steps[dict[int, bytes]]:
    """Bring the stored nodes above the `changed` buckets up to date; what changed, by number.

    Every node on the way is read once, and written once if it has become another.  Trusts the
    nodes that are stored: it does not mend what `verify` finds.
    """
    made: dict[int, bytes] = {}
    by_node: dict[int, dict[int, bytes]] = {}
    for buckets in _in_runs(sorted(set(changed))):
        held = yield from read_buckets(buckets)
        for bucket in buckets:
            parent, child = divmod(bucket, FAN_OUT)
            leaves = [leaf for _, leaf in held.get(bucket, ())]
            by_node.setdefault(LEVEL_2.start + parent, {})[child] = bucket_hash(leaves)
    while by_node:
        above: dict[int, dict[int, bytes]] = {}
        stored = yield from read_nodes(sorted(by_node))
        for number, children in by_node.items():
            before = stored.get(number, EMPTY_NODE)
            blob = _with_children(before, children)
            if blob == before:
                continue
            made[number] = blob
            if number != ROOT:
                parent, child = divmod(number - 1, FAN_OUT)
                above.setdefault(parent, {})[child] = node_hash(blob)
        by_node = above
    if made:
        yield from write_nodes(made)
    return made


def verify() -> Steps[dict[int, bytes]]:
    """Nodes that are not stored as the stored buckets say, by number, as they should be.

    Recomputes everything, 64 buckets at a time.  Storing what is returned mends the trie.
    """
    right: dict[int, bytes] = {}
    hashes: list[bytes] = []
    for number in LEVEL_2:
        first = (number - LEVEL_2.start) * FAN_OUT
        buckets = range(first, first + FAN_OUT)
        held = yield from read_buckets(buckets)
        hashes += [bucket_hash(leaf for _, leaf in held.get(b, ())) for b in buckets]
    for level in (LEVEL_2, LEVEL_1, range(ROOT, ROOT + 1)):
        blobs = [b"".join(hashes[at : at + FAN_OUT]) for at in range(0, len(hashes), FAN_OUT)]
        stored = yield from read_nodes(level)
        computed = zip(level, blobs, strict=True)
        right |= {n: blob for n, blob in computed if stored.get(n, EMPTY_NODE) != blob}
        hashes = [node_hash(blob) for blob in blobs]
    return right


def _with_children(blob: bytes, children: Mapping[int, bytes]) -> bytes:
    changed = bytearray(blob)
    for child, child_hash in children.items():
        changed[child * HASH_BYTES : (child + 1) * HASH_BYTES] = child_hash
    return bytes(changed)


def _leaves(joined: bytes) -> Iterator[bytes]:
    return (joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES))


def _in_runs(buckets: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of a list of buckets, small enough that what they hold fits in memory."""
    return (buckets[at : at + FAN_OUT**2] for at in range(0, len(buckets), FAN_OUT**2))
