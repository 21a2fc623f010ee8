"""What the initiator of a walk has still to ask, and the next request made of it.

Buckets go before nodes, and whole ones after those begun: what is deepest is finished first, so
that what is kept stays small.  At most 4,096 bitmaps of buckets, 4,161 numbers of nodes, and the
buckets that answers have sent back and no request has taken up yet.

Nodes and buckets are read when they are asked about, never kept: what has changed meanwhile is
compared as it is by then.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Final

from crdt_state.merkle.answering import compared_nodes_max, sent_nodes_max
from crdt_state.merkle.comparing import children_in, node_of
from crdt_state.merkle.hashes import FAN_OUT, HASH_BYTES, LEVEL_1, LEVEL_2, ROOT
from crdt_state.merkle.messages import (
    CompareBuckets,
    CompareNodes,
    Part,
    SendNodes,
    entry_bytes,
    part_bytes,
)
from crdt_state.merkle.store import read_buckets, read_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.identifiers import DocumentId
    from crdt_state.merkle.hashes import Entry
    from crdt_state.merkle.messages import Request
    from crdt_state.merkle.store import Steps

__all__ = ["REQUEST_BYTES_MAX", "Agenda"]

REQUEST_BYTES_MAX: Final = 16 * 1024
"""Of a request about buckets: it is kept until it is answered, and many are under way."""

HEAD_BYTES = 8
PART_BYTES_MIN = 2
BUCKETS_READ_AT_ONCE = FAN_OUT


class Agenda:
    """Nodes and buckets that differ, or may, until a request asks about them."""

    def __init__(self, message_bytes_max: int, short_bytes: int) -> None:
        self._compared_max = compared_nodes_max(message_bytes_max)
        self._sent_max = sent_nodes_max(message_bytes_max)
        self._short_bytes = short_bytes
        self._nodes_to_compare: set[int] = set()
        self._nodes_to_see: set[int] = set()
        self._nodes_to_see_in_full: set[int] = set()
        # Node of level 2 -> a bit for each of its buckets.
        self._buckets: dict[int, int] = {}
        # Bucket -> the id beyond which it is still to be compared, with full hashes.
        self._begun: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(
            self._nodes_to_compare
            or self._nodes_to_see
            or self._nodes_to_see_in_full
            or self._buckets
            or self._begun
        )

    def descend(self, number: int, differing: int) -> None:
        """Ask about those children of a node whose bits are set."""
        children = (FAN_OUT * number + 1 + child for child in children_in(differing))
        if number == ROOT:
            self._nodes_to_compare.update(children)
        elif number in LEVEL_1:
            self._nodes_to_see.update(children)
        else:
            self._buckets[number] = self._buckets.get(number, 0) | differing

    def see_in_full(self, number: int) -> None:
        """Ask for a node whose short hashes do not show why it differs."""
        self._nodes_to_see_in_full.add(number)

    def compare_whole(self, bucket: int) -> None:
        """Ask about a bucket."""
        node, child = divmod(bucket, FAN_OUT)
        self.descend(LEVEL_2.start + node, 1 << child)

    def compare_in_full(self, bucket: int, after: str = "") -> None:
        """Ask about a bucket from `after` on, with full hashes."""
        self._begun[bucket] = after

    def next_request(self) -> Steps[Request | None]:
        """What to ask next; None if there is nothing."""
        if not self._begun and self._buckets:
            whole = yield from self._whole_buckets()
            if whole:
                return CompareBuckets(whole, is_full=False)
        if self._begun:
            return CompareBuckets((yield from self._begun_buckets()), is_full=True)
        for wanted, is_full in (
            (self._nodes_to_see_in_full, True),
            (self._nodes_to_see, False),
        ):
            if wanted:
                return SendNodes(_take(wanted, self._sent_max), is_full)
        if self._nodes_to_compare:
            numbers = _take(self._nodes_to_compare, self._compared_max)
            stored = yield from read_nodes(numbers)
            ours = (node_of(n, stored, hash_bytes=self._short_bytes) for n in numbers)
            return CompareNodes(tuple(ours))
        return None

    def _whole_buckets(self) -> Steps[tuple[Part, ...]]:
        """As many as fit; none at all if each was too large and has become one of those begun."""
        parts: list[Part] = []
        room = REQUEST_BYTES_MAX - HEAD_BYTES
        while numbers := self._first_buckets():
            held = yield from read_buckets(numbers)
            for number in numbers:
                entries = sorted(held.get(number, ()))
                size = part_bytes(entries, "", self._short_bytes)
                if size > REQUEST_BYTES_MAX - HEAD_BYTES:
                    self.compare_in_full(number)
                elif size > room:
                    return _by_number(parts)
                else:
                    room -= size
                    parts.append(Part(number, _cut(entries, self._short_bytes)))
                self._forget_bucket(number)
        return _by_number(parts)

    def _begun_buckets(self) -> Steps[tuple[Part, ...]]:
        """As many as fit, and of the last of them what fits."""
        parts: list[Part] = []
        room = REQUEST_BYTES_MAX - HEAD_BYTES
        numbers = sorted(islice(self._begun, REQUEST_BYTES_MAX // PART_BYTES_MIN))
        for at in range(0, len(numbers), BUCKETS_READ_AT_ONCE):
            some = numbers[at : at + BUCKETS_READ_AT_ONCE]
            held = yield from read_buckets(some)
            for number in some:
                part = _part_within(room, number, self._begun[number], held.get(number, ()))
                if part is None:
                    return tuple(parts)
                parts.append(part)
                del self._begun[number]
                room -= part_bytes(part.entries, part.after, HASH_BYTES)
                if not part.is_last:
                    return tuple(parts)
        return tuple(parts)

    def _first_buckets(self) -> list[int]:
        found: list[int] = []
        for node in islice(self._buckets, BUCKETS_READ_AT_ONCE):
            first = (node - LEVEL_2.start) * FAN_OUT
            found += [first + child for child in children_in(self._buckets[node])]
            if len(found) >= BUCKETS_READ_AT_ONCE:
                break
        return found[:BUCKETS_READ_AT_ONCE]

    def _forget_bucket(self, bucket: int) -> None:
        node, child = divmod(bucket, FAN_OUT)
        number = LEVEL_2.start + node
        self._buckets[number] &= ~(1 << child)
        if not self._buckets[number]:
            del self._buckets[number]


def _take(wanted: set[int], count: int) -> tuple[int, ...]:
    taken = tuple(nsmallest(count, wanted))
    wanted.difference_update(taken)
    return taken


def _by_number(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: part.number))


def _part_within(room: int, number: int, after: str, held: Iterable[Entry]) -> Part | None:
    """What fits into `room` bytes of a bucket beyond `after`; None if nothing does."""
    entries = [entry for entry in sorted(held) if entry[0] > after]
    room -= part_bytes((), after, HASH_BYTES)
    fitting = 0
    for entry in entries:
        room -= entry_bytes(entry[0], HASH_BYTES)
        if room < 0:
            break
        fitting += 1
    if room < 0 and not fitting:
        return None
    return Part(number, tuple(entries[:fitting]), after, is_last=fitting == len(entries))


def _cut(
    entries: Iterable[tuple[DocumentId, bytes]], hash_bytes: int
) -> tuple[tuple[DocumentId, bytes], ...]:
    return tuple((document, leaf[:hash_bytes]) for document, leaf in entries)
