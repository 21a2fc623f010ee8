"""A walk down two tries to the documents in which they differ.

Both sides show each other their root hashes, 32 bytes.  Where these are equal, that was all.
Otherwise the responder sends its root node (`answering.greet`), and the initiator walks; each
side sends what the other needs to compare next:

    initiator                                     responder
                                              <── its root node                        greeting
    its nodes of level 1 that differ          ──>
                                              <── its nodes of level 2 that differ     round trip 1
    its entries of the buckets that differ    ──>
                                              <── what is otherwise in them            round trip 2

Hashes travel cut to 8 bytes.  Where a node or bucket differs and nothing within it seems to, it
is sent again with all 16: one round trip more, about once in 2^64.  A collision beside another
difference stays hidden until that one is mended; then the roots still differ, and the next walk
finds it.  While documents change, a walk may miss or repeat some: the roots say so again.

Answers come in the order of the requests.  The responder keeps no state.  The initiator keeps
what is still to be asked (`agenda`) and the requests under way, `requests_max` of some 16 KiB
(a little more when nodes are compared).

Every node is asked about at most twice, every bucket too, but for one in which the answer
stopped after naming a difference; and differences are counted.  So a peer that makes up what it
says costs no more than one from which everything differs.

Whoever walks checks, before it asks for a document that only the peer holds, that its id is one
of this scope: a walk checks that it belongs to the bucket, and no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import RemoteProtocolError, UsageError
from crdt_state.merkle.agenda import Agenda
from crdt_state.merkle.answering import MESSAGE_BYTES_MIN
from crdt_state.merkle.comparing import differing_children, node_of
from crdt_state.merkle.findings import read_differences
from crdt_state.merkle.hashes import FAN_OUT, HASH_BYTES, ROOT
from crdt_state.merkle.messages import (
    SHORT_BYTES,
    CompareBuckets,
    CompareNodes,
    Differences,
    Nodes,
    SendNodes,
)
from crdt_state.merkle.store import read_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.merkle.findings import Found
    from crdt_state.merkle.messages import Answer, Node, Request
    from crdt_state.merkle.store import Steps

__all__ = ["Progress", "Walk"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What to send next, in this order, and what has been found since the last time."""

    requests: tuple[Request, ...]
    found: Found | None = None


class Walk:
    """The initiator's side of one walk over one scope.

    `begin`, then `receive` for every answer, until `is_done`.  After an error, it is over.
    """

    def __init__(
        self,
        *,
        message_bytes_max: int,
        requests_max: int,
        differences_max: int,
        short_bytes: int = SHORT_BYTES,
    ) -> None:
        """`message_bytes_max` binds both sides: the smaller of what they announced."""
        if message_bytes_max < MESSAGE_BYTES_MIN:
            raise UsageError(f"messages of a walk take up to {MESSAGE_BYTES_MIN:,} bytes")
        self._agenda = Agenda(message_bytes_max, short_bytes)
        self._requests_max = requests_max
        self._differences_left = differences_max
        self._short_bytes = short_bytes
        self._under_way: deque[Request] = deque()

    @property
    def is_done(self) -> bool:
        """Whether everything that differs has been named."""
        return not self._under_way and not self._agenda

    def begin(self, greeting: Nodes) -> Steps[Progress]:
        """Set out from the responder's root node.  Raises `RemoteProtocolError`."""
        if [(node.number, node.is_full) for node in greeting.nodes] != [(ROOT, False)]:
            raise RemoteProtocolError("a walk begins with the root node and nothing else")
        yield from self._compare(greeting.nodes)
        return Progress((yield from self._next_requests()))

    def receive(self, answer: Answer) -> Steps[Progress]:
        """Go on after the answer to the oldest request.  Raises `RemoteProtocolError`."""
        if not self._under_way:
            raise RemoteProtocolError("an answer to which there was no request")
        found = None
        match self._under_way.popleft(), answer:
            case CompareNodes() as request, Nodes(nodes):
                _check_compared(request, nodes)
                yield from self._compare(nodes)
            case SendNodes(numbers, is_full), Nodes(nodes):
                if [(n.number, n.is_full) for n in nodes] != [(n, is_full) for n in numbers]:
                    raise RemoteProtocolError("other nodes than those that were asked for")
                yield from self._compare(nodes)
            case CompareBuckets() as request, Differences():
                found = self._find(request, answer)
            case request, _:
                answered = f"{type(answer).__name__} to {type(request).__name__}"
                raise RemoteProtocolError(f"{answered} is no answer")
        return Progress((yield from self._next_requests()), found)

    def _compare(self, nodes: Sequence[Node]) -> Steps[None]:
        stored = yield from read_nodes([node.number for node in nodes])
        for theirs in nodes:
            hash_bytes = HASH_BYTES if theirs.is_full else self._short_bytes
            ours = node_of(theirs.number, stored, hash_bytes=hash_bytes)
            differing = differing_children(ours, theirs)
            if differing:
                self._agenda.descend(theirs.number, differing)
            elif not theirs.is_full:
                self._agenda.see_in_full(theirs.number)

    def _find(self, request: CompareBuckets, answer: Differences) -> Found:
        found, rests = read_differences(request, answer)
        self._differences_left -= len(found)
        if self._differences_left < 0:
            raise RemoteProtocolError("a walk names more documents than it may")
        for rest in rests:
            if rest.is_full:
                self._agenda.compare_in_full(rest.bucket, rest.after)
            else:
                self._agenda.compare_whole(rest.bucket)
        return found

    def _next_requests(self) -> Steps[tuple[Request, ...]]:
        made: list[Request] = []
        while len(self._under_way) < self._requests_max:
            request = yield from self._agenda.next_request()
            if request is None:
                break
            made.append(request)
            self._under_way.append(request)
        return tuple(made)


def _check_compared(request: CompareNodes, nodes: Sequence[Node]) -> None:
    """Refuse what is neither a node of `request` in full nor a child of one."""
    asked = {node.number for node in request.nodes}
    # Full ones are of level 1, and so come first.
    for node in nodes:
        if node.is_full and node.number in asked:
            asked.remove(node.number)
        elif node.is_full or (node.number - 1) // FAN_OUT not in asked:
            raise RemoteProtocolError(f"node {node.number} was not asked for")
