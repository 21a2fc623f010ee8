"""The walk finds what differs, all of it, in few bytes and few round trips."""

from __future__ import annotations

from itertools import count, islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import UsageError
from crdt_state.identifiers import DocumentId
from crdt_state.merkle.hashes import bucket_of
from crdt_state.merkle.store import MemoryTrieStore
from crdt_state.merkle.walk import Walk
from merkle.walking import Outcome, change, differences, root_of, stored, walk

DIGESTS = st.dictionaries(
    st.integers(0, 60).map("notes/{}".format), st.binary(min_size=1, max_size=1), max_size=30
)

KIB = 1024


def scope(documents: int) -> dict[str, bytes]:
    return {f"notes/document-{n:07d}": n.to_bytes(16, "big") for n in range(documents)}


def copy_of(store: MemoryTrieStore) -> MemoryTrieStore:
    copied = MemoryTrieStore()
    copied.nodes = dict(store.nodes)
    copied.buckets = {number: dict(held) for number, held in store.buckets.items()}
    return copied


@pytest.fixture(scope="module")
def many() -> MemoryTrieStore:
    return stored(scope(100_000))


def change_some(store: MemoryTrieStore, count: int, documents: int) -> list[str]:
    """Give `count` documents another digest; which."""
    picked = Random(count).sample(list(scope(documents)), count)
    change(store, dict.fromkeys(picked, b"changed"))
    return sorted(picked)


@given(DIGESTS, DIGESTS)
@settings(deadline=None)
def test_a_walk_finds_what_looking_at_everything_finds(ours, theirs) -> None:
    outcome = walk(stored(ours), stored(theirs))
    assert outcome.found() == differences(ours, theirs)
    assert outcome.round_trips == (2 if ours != theirs else 0)


@given(DIGESTS, DIGESTS, st.integers(1, 3))
@settings(deadline=None)
def test_the_number_of_requests_under_way_changes_nothing(ours, theirs, requests_max) -> None:
    outcome = walk(
        stored(ours), stored(theirs), requests_max=requests_max, message_bytes_max=40 * KIB
    )
    assert outcome.found() == differences(ours, theirs)
    assert outcome.under_way_most <= requests_max


@pytest.mark.parametrize("short_bytes", [1, 2, 8])
def test_one_change_is_found_by_one_walk_whatever_collides(short_bytes: int) -> None:
    names = [f"notes/{number}" for number in range(6)]
    ours = dict.fromkeys(names, b"same")
    more_round_trips = 0
    for number in range(1_500):
        theirs = ours | {names[number % 6]: number.to_bytes(2, "big")}
        outcome = walk(stored(ours), stored(theirs), short_bytes=short_bytes)
        assert outcome.found() == differences(ours, theirs)
        assert outcome.round_trips <= 7
        more_round_trips += outcome.round_trips > 2
    # A leaf, a bucket, two nodes and a child of the root: 5 chances in 256 for one byte.
    assert more_round_trips > 10 if short_bytes == 1 else more_round_trips <= 5


@given(DIGESTS, DIGESTS)
@settings(deadline=None)
def test_what_a_collision_hides_is_found_once_the_rest_is_mended(ours, theirs) -> None:
    ours = dict(ours)
    store, goal = stored(ours), stored(theirs)
    while root_of(store) != root_of(goal):
        expected = differences(ours, theirs)
        outcome = walk(store, goal, short_bytes=1)
        found = set().union(*outcome.found())
        assert found
        for named, whole in zip(outcome.found(), expected, strict=True):
            assert set(named) <= set(whole)
        changes = {name: theirs.get(name) for name in found}
        change(store, changes)
        ours |= {name: digest for name, digest in changes.items() if digest is not None}
        ours = {name: digest for name, digest in ours.items() if changes.get(name, b"") is not None}
    assert ours == theirs


def test_where_nothing_differs_nothing_is_said() -> None:
    assert walk(stored(scope(100)), stored(scope(100))) == Outcome()


def test_an_empty_replica_learns_of_everything_a_full_one_holds() -> None:
    held = scope(20_000)
    outcome = walk(MemoryTrieStore(), stored(held), message_bytes_max=64 * KIB)
    assert outcome.found() == ([], [], sorted(held))
    assert outcome.bytes_largest <= 64 * KIB


def test_a_full_replica_learns_that_an_empty_one_holds_nothing() -> None:
    held = scope(20_000)
    outcome = walk(stored(held), MemoryTrieStore(), message_bytes_max=64 * KIB)
    assert outcome.found() == ([], sorted(held), [])
    assert outcome.bytes_largest <= 64 * KIB


def test_a_deletion_and_a_birth_are_found(many) -> None:
    store = copy_of(many)
    change(store, {"notes/document-0000007": None, "notes/new": b"new"})
    assert walk(many, store).found() == ([], ["notes/document-0000007"], ["notes/new"])
    assert walk(store, many).found() == ([], ["notes/new"], ["notes/document-0000007"])


@pytest.mark.parametrize(
    ("changed", "bytes_max"), [(1, 2 * KIB), (10, 12 * KIB), (1_000, 320 * KIB)]
)
def test_few_changes_among_100_000_documents_cost_two_round_trips(many, changed, bytes_max) -> None:
    store = copy_of(many)
    picked = change_some(store, changed, 100_000)
    outcome = walk(many, store)
    assert outcome.found() == (picked, [], [])
    assert outcome.round_trips == 2
    assert outcome.bytes_total <= bytes_max


@pytest.mark.full
def test_the_figures_for_a_million_documents() -> None:
    ours = stored(scope(1_000_000))
    for changed, bytes_max in ((1, 2 * KIB), (10, 16 * KIB), (1_000, 768 * KIB)):
        theirs = copy_of(ours)
        picked = change_some(theirs, changed, 1_000_000)
        outcome = walk(ours, theirs)
        assert outcome.found() == (picked, [], [])
        assert outcome.round_trips == 2
        assert outcome.bytes_total <= bytes_max


def in_one_bucket(documents: int, length: int = 0) -> list[str]:
    """Ids whose author has looked for them."""
    names = (f"{number:x}".rjust(length, "x") for number in count())
    return list(islice((n for n in names if bucket_of(DocumentId(n)) >> 6 == 0), documents))


@pytest.fixture(scope="module")
def crowd() -> list[str]:
    """Ids of 500 bytes below one node, 40 and more KiB of them."""
    return in_one_bucket(120, 500)


@pytest.mark.parametrize("flipped", [False, True])
def test_long_ids_in_neighbouring_buckets_are_compared_request_by_request(crowd, flipped) -> None:
    ours = dict.fromkeys(crowd[:80], b"same")
    theirs = dict.fromkeys(crowd[:40], b"same") | dict.fromkeys(crowd[60:], b"another")
    if flipped:
        ours, theirs = theirs, ours
    outcome = walk(stored(ours), stored(theirs), message_bytes_max=40 * KIB, requests_max=2)
    assert outcome.found() == differences(ours, theirs)
    assert outcome.bytes_largest <= 40 * KIB


def test_an_answer_that_is_too_long_is_continued_where_it_stopped(crowd) -> None:
    outcome = walk(MemoryTrieStore(), stored(dict.fromkeys(crowd, b"")), message_bytes_max=40 * KIB)
    assert outcome.found() == ([], [], sorted(crowd))
    assert outcome.round_trips == 3
    assert 39 * KIB <= outcome.bytes_largest <= 40 * KIB


@pytest.mark.parametrize("flipped", [False, True])
def test_a_bucket_larger_than_a_message_is_compared_part_by_part(
    crowd, flipped, monkeypatch
) -> None:
    for module in ("hashes", "store", "findings"):
        monkeypatch.setattr(f"crdt_state.merkle.{module}.bucket_of", lambda _: 4_321)
    ours = dict.fromkeys(crowd, b"same")
    theirs = dict.fromkeys(crowd[:-1], b"same") | {"notes": b"", "w": b"", "xx": b""}
    theirs |= dict.fromkeys(crowd[5:9], b"another")
    if flipped:
        ours, theirs = theirs, ours
    tries = [MemoryTrieStore(), MemoryTrieStore()]
    for store, held in zip(tries, (ours, theirs), strict=True):
        change(store, held)
    outcome = walk(*tries, message_bytes_max=40 * KIB)
    assert outcome.found() == differences(ours, theirs)
    assert outcome.frames > 8
    empty = walk(MemoryTrieStore(), tries[1], message_bytes_max=40 * KIB)
    assert empty.found() == ([], [], sorted(theirs))
    assert max(outcome.bytes_largest, empty.bytes_largest) <= 40 * KIB


def test_a_message_that_could_not_hold_an_answer_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="40,960"):
        Walk(message_bytes_max=40 * KIB - 1, requests_max=1, differences_max=1)
