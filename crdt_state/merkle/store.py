"""Where nodes and buckets lie: the port, the reference in memory, and how to wait for neither.

What needs stored bytes (`trie.update`, `Walk`, `answering.answer`) is a generator of `Steps`: it
yields what it wants read or written, is sent what was read, and returns its result.  So one code
serves a store that answers at once and one that is awaited.  `run` is the first; the second is
the same loop, with an `await`, in the shell:

    step = next(steps)
    while True:
        step = steps.send(await carry_out(store, step))     # until StopIteration, whose value it is

A step names at most 4,161 nodes or 4,096 buckets.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from crdt_state.merkle.hashes import bucket_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from crdt_state.identifiers import DocumentId
    from crdt_state.merkle.hashes import Entry, Leaf

__all__ = [
    "MemoryTrieStore",
    "ReadBuckets",
    "ReadNodes",
    "Step",
    "Steps",
    "TrieStore",
    "WriteNodes",
    "carry_out",
    "read_buckets",
    "read_nodes",
    "run",
    "write_nodes",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadNodes:
    """Asks for the blobs of these nodes, by number; of an empty one, none or zeros."""

    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class ReadBuckets:
    """Asks for the entries of these buckets, by number and in any order."""

    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class WriteNodes:
    """Asks for these blobs to be stored, all or none; zeros may be forgotten instead."""

    nodes: Mapping[int, bytes]


Step: TypeAlias = ReadNodes | ReadBuckets | WriteNodes
Steps: TypeAlias = Generator[Step, Any, T]


class TrieStore(Protocol):
    """One scope's trie at rest."""

    def read_nodes(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        """Blobs of 1,024 bytes by number; empty nodes may be absent."""

    def read_buckets(self, numbers: Sequence[int]) -> Mapping[int, Collection[Entry]]:
        """Entries by number of the bucket; empty buckets may be absent."""

    def write_nodes(self, nodes: Mapping[int, bytes]) -> None:
        """Store blobs by number, all or none."""


class MemoryTrieStore:
    """The reference: a trie in dictionaries.  Its caller updates the trie after a change."""

    def __init__(self) -> None:
        self.nodes: dict[int, bytes] = {}
        self.buckets: dict[int, dict[DocumentId, Leaf]] = {}

    def put(self, document: DocumentId, leaf: Leaf) -> int:
        """Hold `document` as `leaf` says; the bucket that has changed."""
        bucket = bucket_of(document)
        self.buckets.setdefault(bucket, {})[document] = leaf
        return bucket

    def remove(self, document: DocumentId) -> int:
        """Hold `document` no longer; the bucket that has changed."""
        bucket = bucket_of(document)
        self.buckets.get(bucket, {}).pop(document, None)
        return bucket

    def read_nodes(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Blobs by number."""
        return {number: self.nodes[number] for number in numbers if number in self.nodes}

    def read_buckets(self, numbers: Sequence[int]) -> dict[int, list[Entry]]:
        """Entries by number of the bucket."""
        held = self.buckets
        return {number: list(held[number].items()) for number in numbers if number in held}

    def write_nodes(self, nodes: Mapping[int, bytes]) -> None:
        """Store blobs by number."""
        for number, blob in nodes.items():
            if any(blob):
                self.nodes[number] = blob
            else:
                self.nodes.pop(number, None)


def read_nodes(numbers: Sequence[int]) -> Steps[Mapping[int, bytes]]:
    """`yield from` this for blobs by number."""
    nodes: Mapping[int, bytes] = yield ReadNodes(numbers)
    return nodes


def read_buckets(numbers: Sequence[int]) -> Steps[Mapping[int, Collection[Entry]]]:
    """`yield from` this for entries by number of the bucket."""
    buckets: Mapping[int, Collection[Entry]] = yield ReadBuckets(numbers)
    return buckets


def write_nodes(nodes: Mapping[int, bytes]) -> Steps[None]:
    """`yield from` this to store blobs by number."""
    yield WriteNodes(nodes)


def carry_out(store: TrieStore, step: Step) -> object:
    """Do one step; what has to be sent back."""
    match step:
        case ReadNodes(numbers):
            return store.read_nodes(numbers)
        case ReadBuckets(numbers):
            return store.read_buckets(numbers)
        case WriteNodes(nodes):
            store.write_nodes(nodes)
            return None


def run(steps: Steps[T], store: TrieStore) -> T:
    """Carry out all steps over a store that answers at once; their result."""
    try:
        step = next(steps)
        while True:
            step = steps.send(carry_out(store, step))
    except StopIteration as end:
        result: T = end.value
        return result
