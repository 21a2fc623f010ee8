"""A peer that lies, floods or repeats itself costs no more than one from which all differs."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId
from crdt_state.merkle.answering import answer, compared_nodes_max, greet, sent_nodes_max
from crdt_state.merkle.hashes import LEVEL_1, NODES, bucket_of
from crdt_state.merkle.messages import (
    CompareBuckets,
    CompareNodes,
    Differences,
    Node,
    Nodes,
    Part,
    SendNodes,
    decode,
    encode,
)
from crdt_state.merkle.store import MemoryTrieStore, ReadBuckets, Step, run
from crdt_state.merkle.walk import Walk
from merkle.walking import recorded, root_of, stored

if TYPE_CHECKING:
    from crdt_state.merkle.messages import Answer, Request

MESSAGE_BYTES_MAX = 64 * 1024
ALL = 2**64 - 1


@pytest.fixture(scope="module")
def store() -> MemoryTrieStore:
    return stored({f"notes/{number}": b"digest" for number in range(20_000)})


def made_up(dice: Random, number: int, *, is_full: bool = False) -> Node:
    return Node(number, is_full, ALL, dice.randbytes(64 * (16 if is_full else 8)))


def walking(**bounds: int) -> Walk:
    chosen = {"requests_max": 8, "differences_max": 1_000} | bounds
    return Walk(message_bytes_max=MESSAGE_BYTES_MAX, **chosen)


def ask(store: MemoryTrieStore, request: Request) -> Answer:
    return run(answer(request, message_bytes_max=MESSAGE_BYTES_MAX), store)


# The one that answers, asked by a liar.


def test_who_claims_that_all_nodes_differ_gets_one_bounded_answer(store) -> None:
    dice = Random(1)
    most = compared_nodes_max(MESSAGE_BYTES_MAX)
    nodes = tuple(made_up(dice, number) for number in LEVEL_1)
    reply = ask(store, CompareNodes(nodes[:most]))
    assert isinstance(reply, Nodes)
    assert len(reply.nodes) == 64 * most
    assert len(encode(reply)) <= MESSAGE_BYTES_MAX
    with pytest.raises(RemoteProtocolError, match="bounded"):
        ask(store, CompareNodes(nodes[: most + 1]))


def test_who_wants_every_node_is_refused(store) -> None:
    most = sent_nodes_max(MESSAGE_BYTES_MAX)
    for is_full in (True, False):
        reply = ask(store, SendNodes(tuple(range(most)), is_full))
        assert len(encode(reply)) <= MESSAGE_BYTES_MAX
    with pytest.raises(RemoteProtocolError, match="bounded"):
        ask(store, SendNodes(tuple(range(NODES)), is_full=False))


def test_who_claims_to_hold_nothing_makes_us_read_little_beyond_one_answer(store) -> None:
    request = CompareBuckets(tuple(Part(number, ()) for number in range(100_000)), is_full=False)
    taken: list[Step] = []
    steps = answer(request, message_bytes_max=MESSAGE_BYTES_MAX)
    reply = run(recorded(steps, taken), store)
    read = sum(len(step.numbers) for step in taken if isinstance(step, ReadBuckets))
    assert 0 < reply.answered < len(request.parts)
    assert read <= reply.answered + 64
    assert len(encode(reply)) <= MESSAGE_BYTES_MAX


def test_entries_that_we_lack_are_answered_by_their_numbers(store) -> None:
    names = sorted(f"{number:>500}".replace(" ", "x") for number in range(100))
    part = Part(5, tuple((DocumentId(name), bytes(8)) for name in names))
    reply = ask(store, CompareBuckets((part,), is_full=False))
    assert isinstance(reply, Differences)
    assert reply.lacking == tuple(range(100))
    assert len(encode(reply)) <= 200


def test_who_repeats_itself_is_answered_the_same(store) -> None:
    request = CompareNodes((made_up(Random(2), 3),))
    first = ask(store, request)
    before = dict(store.nodes)
    assert all(ask(store, request) == first for _ in range(3))
    assert store.nodes == before


# The one that asks, answered by a liar.


def lie(request: Request, dice: Random) -> Answer:
    """The most work that an answer to `request` can make."""
    match request:
        case CompareNodes(nodes):
            children = (64 * node.number + 1 + child for node in nodes for child in range(64))
            return Nodes(tuple(made_up(dice, number) for number in children))
        case SendNodes(numbers, is_full):
            return Nodes(tuple(made_up(dice, number, is_full=is_full) for number in numbers))
        case CompareBuckets(parts, is_full):
            alike = () if is_full else tuple(i for i, part in enumerate(parts) if part.is_whole)
            return Differences((), (), (), alike, len(parts), is_inside=False)


@pytest.mark.parametrize("children", [8, pytest.param(64, marks=pytest.mark.full)])
def test_a_walk_past_made_up_nodes_ends_and_keeps_little(children: int) -> None:
    dice = Random(3)
    walk = walking()
    held = stored({})
    root = Node(0, False, 2**children - 1, dice.randbytes(8 * children))
    requests = deque(run(walk.begin(Nodes((root,))), held).requests)
    frames = named = parts_most = 0
    while requests:
        assert len(requests) <= 8
        request = requests.popleft()
        if isinstance(request, CompareBuckets):
            named += len(request.parts)
            parts_most = max(parts_most, len(request.parts))
            assert len(encode(request)) <= 16 * 1024
        requests += run(walk.receive(lie(request, dice)), held).requests
        frames += 1
        # What answers have sent back is asked before anything else, so it never piles up.
        assert len(walk._agenda._begun) <= 9 * parts_most
    assert walk.is_done
    # Every bucket short and then in full, and nothing a third time.
    assert named == 2 * children * 64**2
    assert frames < 1_000


def test_a_peer_that_never_stops_naming_documents_is_stopped() -> None:
    held = stored({f"{number}": b"" for number in range(10)})
    other = stored({f"x{number}": b"" for number in range(3_000)})
    walk = walking(differences_max=2_000)
    greeting = run(greet(root_of(held)), other)
    requests = deque(run(walk.begin(greeting), held).requests)
    found: list[int] = []

    def go_on() -> None:
        while requests:
            progress = run(walk.receive(ask(other, requests.popleft())), held)
            requests.extend(progress.requests)
            found.append(len(progress.found or ()))

    with pytest.raises(RemoteProtocolError, match="more documents than it may"):
        go_on()
    assert 0 < sum(found) <= 2_000


def begun(requests_wanted: type[Request]) -> tuple[Walk, MemoryTrieStore, Request, Answer]:
    """A walk that waits for the answer to one request of a kind, and a true answer to it."""
    held = stored({f"notes/{number}": b"digest" for number in range(6_000)})
    other = stored({f"notes/{number}": b"another" for number in range(3_000, 9_000)})
    walk = walking(requests_max=1)
    progress = run(walk.begin(run(greet(root_of(held)), other)), held)
    while True:
        (request,) = progress.requests
        true = ask(other, request)
        if isinstance(request, requests_wanted):
            return walk, held, request, true
        progress = run(walk.receive(true), held)


def test_true_answers_pass() -> None:
    for kind in (CompareNodes, CompareBuckets):
        walk, held, request, true = begun(kind)
        assert decode(encode(request)) == request
        run(walk.receive(true), held)


@pytest.mark.parametrize(
    "node",
    [
        Node(64 * 64 + 1, False, 0, b""),
        Node(64 * 64 + 1, True, 0, b""),
        Node(0, True, 0, b""),
        Node(64, True, 0, b""),
    ],
)
def test_nodes_that_were_not_asked_for_are_refused(node: Node) -> None:
    walk, held, request, _ = begun(CompareNodes)
    assert isinstance(request, CompareNodes)
    assert all(asked.number != 64 for asked in request.nodes)
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        run(walk.receive(Nodes((node,))), held)


def test_a_node_in_full_with_its_children_beside_it_is_refused() -> None:
    walk, held, request, _ = begun(CompareNodes)
    asked = request.nodes[0].number
    both = (made_up(Random(1), asked, is_full=True), made_up(Random(1), 64 * asked + 1))
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        run(walk.receive(Nodes(both)), held)


def nothing(request: CompareBuckets) -> Differences:
    return Differences((), (), (), (), len(request.parts), is_inside=False)


def entries_of(request: CompareBuckets) -> list[DocumentId]:
    return [document for part in request.parts for document, _ in part.entries]


def of_another_bucket(request: CompareBuckets) -> DocumentId:
    asked = {part.number for part in request.parts}
    names = (DocumentId(f"{number}") for number in range(10_000))
    return next(name for name in names if bucket_of(name) not in asked)


LIES = {
    "deals with none": lambda r, _: replace(nothing(r), answered=0),
    "with too many": lambda r, _: replace(nothing(r), answered=len(r.parts) + 1),
    "or with too many": lambda r, _: replace(nothing(r), is_inside=True),
    "was not sent": lambda r, true: replace(true, otherwise=(len(entries_of(r)),)),
    "that it was not sent": lambda r, true: replace(true, lacking=(len(entries_of(r)) + 5,)),
    "names an entry twice": lambda r, _: replace(nothing(r), lacking=(0,), otherwise=(0,)),
    "of another one": lambda r, _: replace(nothing(r), more=(of_another_bucket(r),)),
    "not sorted": lambda _, true: replace(true, more=true.more[::-1]),
    "sorted by": lambda _, true: replace(true, more=true.more[:1] * 2),
    "as one that was not": lambda r, _: replace(nothing(r), more=(entries_of(r)[0],)),
    "says nothing": lambda r, _: replace(nothing(r), answered=0, is_inside=True),
    "called alike": lambda r, _: replace(nothing(r), alike=(len(r.parts),)),
}


@pytest.mark.parametrize("why", LIES)
def test_a_false_answer_about_buckets_is_refused(why: str) -> None:
    walk, held, request, true = begun(CompareBuckets)
    assert len(true.more) > 1
    with pytest.raises(RemoteProtocolError, match=why):
        run(walk.receive(LIES[why](request, true)), held)


def test_an_answer_of_the_other_kind_or_to_nothing_is_refused() -> None:
    walk, held, _, _ = begun(CompareBuckets)
    with pytest.raises(RemoteProtocolError, match="is no answer"):
        run(walk.receive(Nodes(())), held)
    with pytest.raises(RemoteProtocolError, match="there was no request"):
        run(walking().receive(Nodes(())), held)


@pytest.mark.parametrize("numbers", [(), (1,), (0, 1)])
def test_a_greeting_that_is_not_the_root_is_refused(numbers: tuple[int, ...]) -> None:
    greeting = Nodes(tuple(made_up(Random(1), number) for number in numbers))
    with pytest.raises(RemoteProtocolError, match="begins with the root"):
        run(walking().begin(greeting), MemoryTrieStore())
