"""The side of a walk that answers; it remembers nothing between two frames.

Whatever it is told, one request costs at most one answer of `message_bytes_max`, the reading of
what the request names and of the children of that, and no memory afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_state.errors import RemoteProtocolError
from crdt_state.merkle.comparing import (
    children_in,
    differing_children,
    differing_entries,
    node_of,
)
from crdt_state.merkle.hashes import EMPTY_NODE, FAN_OUT, HASH_BYTES, ROOT, root_hash
from crdt_state.merkle.messages import (
    SHORT_BYTES,
    CompareBuckets,
    CompareNodes,
    Differences,
    Nodes,
    SendNodes,
)
from crdt_state.merkle.store import read_buckets, read_nodes

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import DocumentId
    from crdt_state.merkle.hashes import Entry
    from crdt_state.merkle.messages import Answer, Part, Request
    from crdt_state.merkle.store import Steps

__all__ = ["MESSAGE_BYTES_MIN", "answer", "compared_nodes_max", "greet", "sent_nodes_max"]

MESSAGE_BYTES_MIN: Final = 40 * 1024
"""The smallest `message_bytes_max` there is: all children of a node of level 1 must fit."""

BUCKETS_READ_AT_ONCE = FAN_OUT

NODE_HEAD_BYTES = 2 + 8
LIST_HEAD_BYTES = 4
DIFFERENCES_HEAD_BYTES = 32
INDEX_BYTES = 5


def compared_nodes_max(message_bytes_max: int) -> int:
    """How many nodes may be compared at once, so that the answer fits whatever differs."""
    children_bytes = FAN_OUT * (NODE_HEAD_BYTES + FAN_OUT * SHORT_BYTES)
    return (message_bytes_max - LIST_HEAD_BYTES) // children_bytes


def sent_nodes_max(message_bytes_max: int) -> int:
    """How many nodes may be asked for at once."""
    return (message_bytes_max - LIST_HEAD_BYTES) // (NODE_HEAD_BYTES + FAN_OUT * HASH_BYTES)


def greet(their_root: bytes, *, short_bytes: int = SHORT_BYTES) -> Steps[Nodes | None]:
    """Our root node, for a peer whose root hash (32 bytes) is `their_root`; None if equal."""
    stored = yield from read_nodes((ROOT,))
    if root_hash(stored.get(ROOT, EMPTY_NODE)) == their_root:
        return None
    return Nodes((node_of(ROOT, stored, hash_bytes=short_bytes),))


def answer(
    request: Request, *, message_bytes_max: int, short_bytes: int = SHORT_BYTES
) -> Steps[Answer]:
    """What the store says to `request`, in at most `message_bytes_max` bytes (40 KiB or more).

    Raises `RemoteProtocolError` where more nodes are asked for than such an answer holds.
    """
    match request:
        case CompareNodes(nodes):
            if len(nodes) > compared_nodes_max(message_bytes_max):
                raise RemoteProtocolError(f"{len(nodes)} nodes to compare; an answer is bounded")
            return (yield from _compare_nodes(request, short_bytes))
        case SendNodes(numbers, is_full):
            if len(numbers) > sent_nodes_max(message_bytes_max):
                raise RemoteProtocolError(f"{len(numbers)} nodes to send; an answer is bounded")
            hash_bytes = HASH_BYTES if is_full else short_bytes
            stored = yield from read_nodes(numbers)
            return Nodes(tuple(node_of(n, stored, hash_bytes=hash_bytes) for n in numbers))
        case CompareBuckets():
            return (yield from _compare_buckets(request, message_bytes_max, short_bytes))


def _compare_nodes(request: CompareNodes, short_bytes: int) -> Steps[Nodes]:
    stored = yield from read_nodes([node.number for node in request.nodes])
    again, below = [], []
    for theirs in request.nodes:
        ours = node_of(theirs.number, stored, hash_bytes=short_bytes)
        differing = differing_children(ours, theirs)
        if differing:
            first = FAN_OUT * theirs.number + 1
            below += [first + child for child in children_in(differing)]
        else:
            again.append(node_of(theirs.number, stored, hash_bytes=HASH_BYTES))
    children = yield from read_nodes(below)
    sent = [node_of(number, children, hash_bytes=short_bytes) for number in below]
    # Every node of level 1 is numbered below every one of level 2, so this is sorted.
    return Nodes((*again, *sent))


def _compare_buckets(
    request: CompareBuckets, message_bytes_max: int, short_bytes: int
) -> Steps[Differences]:
    findings = Findings(request, message_bytes_max, short_bytes)
    parts = request.parts
    for at in range(0, len(parts), BUCKETS_READ_AT_ONCE):
        some = parts[at : at + BUCKETS_READ_AT_ONCE]
        held = yield from read_buckets([part.number for part in some])
        for part in some:
            if not findings.take(part, held.get(part.number, ())):
                return findings.answer()
    return findings.answer()


class Findings:
    """An answer to `CompareBuckets` as it grows, part by part, while there is room."""

    def __init__(self, request: CompareBuckets, bytes_max: int, short_bytes: int) -> None:
        self._is_full = request.is_full
        self._hash_bytes = HASH_BYTES if request.is_full else short_bytes
        self._room = bytes_max - DIFFERENCES_HEAD_BYTES
        self._entries_before = 0
        self._answered = 0
        self._is_inside = False
        self._otherwise: list[int] = []
        self._lacking: list[int] = []
        self._alike: list[int] = []
        self._more: list[DocumentId] = []

    def take(self, part: Part, held: Collection[Entry]) -> bool:
        """Add what is otherwise in the next part; whether all of it had room."""
        differing = differing_entries(held, part, hash_bytes=self._hash_bytes)
        if not differing and part.is_whole and not self._is_full:
            if self._room < INDEX_BYTES:
                return False
            self._room -= INDEX_BYTES
            self._alike.append(self._answered)
        at = {document: number for number, (document, _) in enumerate(part.entries)}
        for count, (document, is_held_here, is_held_there) in enumerate(differing):
            size = INDEX_BYTES if is_held_there else 2 + len(document.encode())
            if size > self._room:
                self._is_inside = count > 0
                return False
            self._room -= size
            if not is_held_there:
                self._more.append(document)
            else:
                index = self._entries_before + at[document]
                (self._otherwise if is_held_here else self._lacking).append(index)
        self._answered += 1
        self._entries_before += len(part.entries)
        return True

    def answer(self) -> Differences:
        """What has been found."""
        return Differences(
            tuple(self._otherwise),
            tuple(self._lacking),
            tuple(self._more),
            tuple(self._alike),
            self._answered,
            self._is_inside,
        )
