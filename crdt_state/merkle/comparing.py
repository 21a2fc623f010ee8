"""Nodes and buckets held against each other: which children differ, which entries do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.merkle.hashes import EMPTY_HASH, EMPTY_NODE, FAN_OUT, HASH_BYTES
from crdt_state.merkle.messages import Node

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from crdt_state.identifiers import DocumentId
    from crdt_state.merkle.hashes import Entry
    from crdt_state.merkle.messages import Part

__all__ = ["children_in", "differing_children", "differing_entries", "node_of"]


def node_of(number: int, blobs: Mapping[int, bytes], *, hash_bytes: int) -> Node:
    """The node as it travels, of the one that is stored under `number` if any is."""
    blob = blobs.get(number, EMPTY_NODE)
    bitmap = 0
    hashes = bytearray()
    for child in range(FAN_OUT):
        at = child * HASH_BYTES
        if blob[at : at + HASH_BYTES] != EMPTY_HASH:
            bitmap |= 1 << child
            hashes += blob[at : at + hash_bytes]
    return Node(number, hash_bytes == HASH_BYTES, bitmap, bytes(hashes))


def differing_children(ours: Node, theirs: Node) -> int:
    """A bit for every child that is not equal in two forms, equally long, of one node."""
    if ours == theirs:
        return 0
    differing = ours.bitmap ^ theirs.bitmap
    both = ours.bitmap & theirs.bitmap
    if not both:
        return differing
    hash_bytes = len(ours.hashes) // ours.bitmap.bit_count()
    our_at = their_at = 0
    for child in children_in(ours.bitmap | theirs.bitmap):
        bit = 1 << child
        if both & bit:
            ours_here = ours.hashes[our_at : our_at + hash_bytes]
            if ours_here != theirs.hashes[their_at : their_at + hash_bytes]:
                differing |= bit
        if ours.bitmap & bit:
            our_at += hash_bytes
        if theirs.bitmap & bit:
            their_at += hash_bytes
    return differing


def differing_entries(
    held: Collection[Entry], theirs: Part, *, hash_bytes: int
) -> list[tuple[DocumentId, bool, bool]]:
    """What differs between a bucket as held here and `theirs`: (id, held here, held there)."""
    ours = {document: leaf[:hash_bytes] for document, leaf in held if theirs.covers(document)}
    named = dict(theirs.entries)
    return [
        (document, document in ours, document in named)
        for document in sorted(ours.keys() | named.keys())
        if ours.get(document) != named.get(document)
    ]


def children_in(bitmap: int) -> Iterator[int]:
    """The children whose bits are set, in order."""
    while bitmap:
        lowest = bitmap & -bitmap
        yield lowest.bit_length() - 1
        bitmap ^= lowest
