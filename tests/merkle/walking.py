"""A trie of documents in memory, and a walk between two of them that counts what it costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from crdt_state.identifiers import DocumentId
from crdt_state.merkle.answering import answer, greet
from crdt_state.merkle.hashes import EMPTY_NODE, ROOT, leaf_of, root_hash
from crdt_state.merkle.messages import decode, encode
from crdt_state.merkle.store import MemoryTrieStore, run
from crdt_state.merkle.trie import build, update
from crdt_state.merkle.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crdt_state.merkle.messages import Request
    from crdt_state.merkle.store import Step, Steps

T = TypeVar("T")

MESSAGE_BYTES_MAX = 1024 * 1024


def stored(digests: Mapping[str, bytes]) -> MemoryTrieStore:
    """A store that holds these documents, its trie built."""
    store = MemoryTrieStore()
    entries = [(DocumentId(name), leaf_of(DocumentId(name), d)) for name, d in digests.items()]
    for document, leaf in entries:
        store.put(document, leaf)
    store.nodes = build(entries)
    return store


def change(store: MemoryTrieStore, digests: Mapping[str, bytes | None]) -> dict[int, bytes]:
    """Hold documents with other digests, or no longer (None); the nodes that changed."""
    buckets = set()
    for name, digest in digests.items():
        document = DocumentId(name)
        if digest is None:
            buckets.add(store.remove(document))
        else:
            buckets.add(store.put(document, leaf_of(document, digest)))
    return run(update(buckets), store)


def root_of(store: MemoryTrieStore) -> bytes:
    return root_hash(store.nodes.get(ROOT, EMPTY_NODE))


def recorded(steps: Steps[T], taken: list[Step]) -> Steps[T]:
    """The same, and all that was read and written on the way."""
    try:
        step = next(steps)
        while True:
            taken.append(step)
            step = steps.send((yield step))
    except StopIteration as end:
        return end.value


@dataclass
class Outcome:
    """What a walk found, and what it cost; the greeting is in `bytes_total`."""

    otherwise: list[str] = field(default_factory=list)
    only_ours: list[str] = field(default_factory=list)
    only_theirs: list[str] = field(default_factory=list)
    bytes_total: int = 0
    bytes_largest: int = 0
    round_trips: int = 0
    frames: int = 0
    under_way_most: int = 0

    def found(self) -> tuple[list[str], list[str], list[str]]:
        return sorted(self.otherwise), sorted(self.only_ours), sorted(self.only_theirs)


def walk(
    ours: MemoryTrieStore,
    theirs: MemoryTrieStore,
    *,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    requests_max: int = 64,
    differences_max: int = 4_000_000,
    short_bytes: int = 8,
) -> Outcome:
    """Walk from `ours` against `theirs`, every message as bytes.

    A round trip is one exchange of everything that is under way.
    """
    outcome = Outcome()

    def carried(message):
        frame = encode(message)
        outcome.frames += 1
        outcome.bytes_total += len(frame)
        outcome.bytes_largest = max(outcome.bytes_largest, len(frame))
        decoded = decode(frame, short_bytes=short_bytes)
        assert decoded == message
        return decoded

    greeting = run(greet(root_of(ours), short_bytes=short_bytes), theirs)
    if greeting is None:
        return outcome
    initiator = Walk(
        message_bytes_max=message_bytes_max,
        requests_max=requests_max,
        differences_max=differences_max,
        short_bytes=short_bytes,
    )
    progress = run(initiator.begin(carried(greeting)), ours)
    requests: deque[Request] = deque(progress.requests)
    while requests:
        outcome.round_trips += 1
        outcome.under_way_most = max(outcome.under_way_most, len(requests))
        for _ in range(len(requests)):
            request = carried(requests.popleft())
            reply = answer(request, message_bytes_max=message_bytes_max, short_bytes=short_bytes)
            progress = run(initiator.receive(carried(run(reply, theirs))), ours)
            requests += progress.requests
            if progress.found is not None:
                outcome.otherwise += progress.found.otherwise
                outcome.only_ours += progress.found.only_ours
                outcome.only_theirs += progress.found.only_theirs
    assert initiator.is_done
    return outcome


def differences(
    ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> tuple[list[str], list[str], list[str]]:
    """The same by looking at everything."""
    both = ours.keys() & theirs.keys()
    return (
        sorted(name for name in both if ours[name] != theirs[name]),
        sorted(ours.keys() - theirs.keys()),
        sorted(theirs.keys() - ours.keys()),
    )
