"""The trie: building it, keeping it current, checking it."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.identifiers import DocumentId
from crdt_state.merkle.hashes import BUCKETS, bucket_of, leaf_of
from crdt_state.merkle.store import MemoryTrieStore, ReadNodes, Step, WriteNodes, run
from crdt_state.merkle.trie import build, update, verify
from merkle.walking import change, recorded, root_of, stored

NAMES = st.sampled_from([f"notes/{number}" for number in range(40)])
CHANGES = st.dictionaries(NAMES, st.none() | st.binary(min_size=1, max_size=2), max_size=12)


@given(st.lists(CHANGES, max_size=6))
@settings(deadline=None)
def test_a_trie_kept_current_is_the_trie_built_anew(rounds: list[dict[str, bytes | None]]) -> None:
    store = stored({})
    held: dict[str, bytes] = {}
    for changes in rounds:
        change(store, changes)
        held |= {name: digest for name, digest in changes.items() if digest is not None}
        held = {name: digest for name, digest in held.items() if changes.get(name, b"") is not None}
        assert store.nodes == stored(held).nodes


def test_the_order_of_the_documents_does_not_matter() -> None:
    entries = [(DocumentId(f"{n}"), leaf_of(DocumentId(f"{n}"), b"digest")) for n in range(500)]
    sorted_nodes = build(sorted(entries))
    Random(1).shuffle(entries)
    assert build(entries) == sorted_nodes
    assert len(sorted_nodes) > 64


def test_a_trie_of_nothing_has_no_nodes() -> None:
    assert build([]) == {}
    assert run(update([]), MemoryTrieStore()) == {}


def test_a_trie_from_which_all_was_removed_is_that_of_nothing() -> None:
    store = stored({"a": b"1", "b": b"2"})
    changed = change(store, {"a": None, "b": None})
    assert store.nodes == {}
    assert not any(map(any, changed.values()))
    assert root_of(store) == bytes(32)


def test_an_update_reads_and_writes_each_node_of_the_paths_once() -> None:
    store = stored({f"{number}": b"digest" for number in range(1_000)})
    names = [DocumentId(f"{number}") for number in range(0, 1_000, 10)]
    buckets = {store.put(name, leaf_of(name, b"another")) for name in names}
    taken: list[Step] = []
    changed = run(recorded(update(buckets), taken), store)
    read = [n for step in taken if isinstance(step, ReadNodes) for n in step.numbers]
    written = [n for step in taken if isinstance(step, WriteNodes) for n in step.nodes]
    paths = {0} | {1 + (b >> 12) for b in buckets} | {65 + (b >> 6) for b in buckets}
    assert sorted(read) == sorted(written) == sorted(changed) == sorted(paths)


def test_an_update_after_which_nothing_differs_writes_nothing() -> None:
    store = stored({"a": b"1"})
    assert change(store, {"a": b"1"}) == {}
    assert run(update(range(BUCKETS)), store) == {}


def test_verifying_finds_what_was_damaged_and_how_to_mend_it() -> None:
    store = stored({f"{number}": b"digest" for number in range(300)})
    whole = dict(store.nodes)
    assert run(verify(), store) == {}
    below = max(store.nodes)
    absent = next(number for number in range(65, 4_161) if number not in store.nodes)
    store.nodes[below] = b"\x01" + store.nodes[below][1:]
    store.nodes[absent] = b"\x01" * 1_024
    del store.nodes[7]
    found = run(verify(), store)
    assert sorted(found) == [7, *sorted([below, absent])]
    store.write_nodes(found)
    assert store.nodes == whole


def test_verifying_finds_a_document_that_the_trie_does_not_know_of() -> None:
    store = stored({"a": b"1"})
    bucket = store.put(DocumentId("b"), leaf_of(DocumentId("b"), b"1"))
    assert bucket == bucket_of(DocumentId("b"))
    assert sorted(run(verify(), store)) == sorted({0, 1 + (bucket >> 12), 65 + (bucket >> 6)})


@pytest.mark.full
@pytest.mark.alone
def test_a_trie_of_a_million_documents_is_built_within_15_seconds() -> None:
    names = [DocumentId(f"notes/document-{number:07d}") for number in range(1_000_000)]
    digests = [number.to_bytes(16, "big") for number in range(1_000_000)]
    begun = time.process_time()
    nodes = build(
        (name, leaf_of(name, digest)) for name, digest in zip(names, digests, strict=True)
    )
    assert time.process_time() - begun <= 15
    assert len(nodes) == 4_161
