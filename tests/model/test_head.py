"""`crdt_state.model.head`: what admission knows of a document without loading it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

import hostile
import reference
from crdt_state.errors import StoreCorrupt
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.model.ranges import Intervals, PairTable, Range, Run, merged
from crdt_state.model.state import decode_state_vector
from hostile import deleting, nested, section, string, update, value


def head_of(*updates: bytes) -> Head:
    head = Head()
    for encoded in updates:
        head.take(inspect(encoded, DEFAULT_LIMITS))
    return head


def state_of(*updates: bytes) -> bytes:
    document: Doc = Doc()
    for encoded in updates:
        document.apply_update(encoded)
    return document.get_update()


# --- ranges --------------------------------------------------------------------------------------

COUNTERS = st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(1, 9))


@given(st.lists(COUNTERS, max_size=80))
def test_intervals_hold_exactly_what_was_added(added: list[tuple[int, int, int]]) -> None:
    intervals = Intervals()
    expected: set[tuple[int, int]] = set()
    for client, start, length in added:
        intervals.add(client, start, start + length)
        expected.update((client, counter) for counter in range(start, start + length))
    held = {
        (client, counter)
        for client, start, end in intervals.ranges()
        for counter in range(start, end)
    }
    assert held == expected
    ranges = [Range(client, start, start + length) for client, start, length in added]
    assert tuple(intervals.ranges()) == merged(ranges)
    assert len(intervals) == len(merged(ranges))
    assert intervals.copy() == intervals
    half = len(ranges) // 2
    at_once = Intervals(ranges[:half])
    at_once.add_all(ranges[half:])
    assert at_once == intervals
    for client, start, length in added:
        assert intervals.covers(client, start, start + length)
    for client, start, end in intervals.ranges():
        assert not intervals.covers(client, start, end + 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=12))
def test_pairs_are_second_halves_where_runs_say_so(added: list[tuple[int, int]]) -> None:
    table = PairTable()
    expected: set[int] = set()
    # Pairs of one text never overlap by one unit: positions of one parity, as in a text of emoji.
    for place, pairs in added:
        first = 2 * place + 1
        table.add(Run(1, first, pairs))
        expected.update(range(first, first + 2 * pairs, 2))
    assert {counter for counter in range(100) if (1, counter) in table} == expected
    assert list(table.copy().runs()) == list(table.runs())
    assert bool(table) == bool(expected)
    assert (2, 1) not in table


# --- the head ------------------------------------------------------------------------------------


def test_it_follows_a_document_update_by_update(data_folder) -> None:
    seen = 0
    for session in Random(3).sample(reference.sessions(data_folder), 200):
        document: Doc = Doc()
        head = Head()
        for encoded in session.updates:
            inspection = inspect(encoded, DEFAULT_LIMITS)
            if any(head.vector.get(c, 0) < n for c, n in inspection.needs.items()):
                continue
            assert head.holds(inspection) <= (encoded in session.updates)
            document.apply_update(encoded)
            head.take(inspection)
            assert head.holds(inspection)
            seen += 1
        state = document.get_update()
        vector = decode_state_vector(document.get_state())
        assert head.vector == {client: counter for client, counter in vector.items() if counter}
        assert head.state_vector() == Head.of_state(state, DEFAULT_LIMITS).state_vector()
        folded = Head.of_state(state, DEFAULT_LIMITS)
        # Integration deletes more than updates name, never less.
        assert folded.covers(head.vector, head.deletes.ranges())
        assert Head.decode(head.encode()) == head
    assert seen > 400


def test_what_is_held_is_known_by_structs_and_deletes() -> None:
    written = update(section(1, 0, string("abc")))
    erased = update(deletes=deleting((1, 1, 1)))
    both = update(section(1, 0, string("abc")), deletes=deleting((1, 1, 1)))
    head = head_of(written)
    assert head.holds(inspect(written, DEFAULT_LIMITS))
    assert not head.holds(inspect(erased, DEFAULT_LIMITS))
    assert not head.holds(inspect(both, DEFAULT_LIMITS))
    head.take(inspect(erased, DEFAULT_LIMITS))
    assert head.holds(inspect(both, DEFAULT_LIMITS))
    assert head.covers({1: 3}, [Range(1, 1, 2)])
    assert not head.covers({1: 4}, [])
    assert not head.covers({1: 3}, [Range(1, 0, 2)])


def test_nesting_is_counted_from_the_root() -> None:
    document: Doc = Doc()
    document.get("map", type=Map)["k"] = Map({"inner": Array([Map({"x": 1})])})
    head = head_of(document.get_update())
    assert head.containers == 3
    deeper = Head()
    assert deeper.nesting(inspect(document.get_update(), DEFAULT_LIMITS)) == 3


@pytest.mark.parametrize("swarm", ["nesting", "hidden nesting"])
def test_nesting_is_followed_over_many_updates(swarm: str) -> None:
    updates = list(hostile.SWARMS[swarm](40))
    head = Head()
    for depth, encoded in enumerate(updates, 1):
        inspection = inspect(encoded, DEFAULT_LIMITS)
        assert head.nesting(inspection) == depth
        head.take(inspection)
        head = Head.decode(head.encode())
    assert head.containers == 40


def test_nesting_in_one_update_does_not_depend_on_the_order_of_its_sections() -> None:
    outer = section(1, 0, nested(parent="map", key="k"))
    inner = section(2, 0, nested(parent=(1, 0), key="k"))
    for sections in ((outer, inner), (inner, outer)):
        assert Head().nesting(inspect(update(*sections), DEFAULT_LIMITS)) == 2


def test_siblings_are_not_deeper_than_each_other() -> None:
    document: Doc = Doc()
    array = document.get("array", type=Array)
    for _ in range(200):
        array.append(Map({"leaf": 1}))
    inspection = inspect(document.get_update(), DEFAULT_LIMITS)
    assert len(inspection.containers) == 200
    assert Head().nesting(inspection) == 1


def test_nesting_is_the_same_from_a_folded_state() -> None:
    document: Doc = Doc()
    array = document.get("array", type=Array)
    for _ in range(5):
        array.insert(0, Map({"list": Array([Text("x")])}))
    head = Head.of_state(document.get_update(), DEFAULT_LIMITS)
    before = document.get_state()
    array[2]["list"].insert(0, Map({"deep": 1}))
    added = inspect(document.get_update(before), DEFAULT_LIMITS)
    assert head.nesting(added) == 3


def test_splits_are_cuts_inside_pairs_that_still_live() -> None:
    emoji = update(section(1, 0, string("a😀😀b")))
    head = head_of(emoji)
    inside = inspect(update(section(2, 0, string("x", origin=(1, 1)))), DEFAULT_LIMITS)
    between = inspect(update(section(2, 0, string("x", origin=(1, 2)))), DEFAULT_LIMITS)
    half = inspect(update(deletes=deleting((1, 0, 2))), DEFAULT_LIMITS)
    whole = inspect(update(deletes=deleting((1, 1, 2))), DEFAULT_LIMITS)
    assert head.splits(inside) == ((1, 2),)
    assert head.splits(half) == ((1, 2),)
    assert head.splits(between) == head.splits(whole) == ()
    head.take(whole)
    assert head.splits(inside) == ()
    assert head.splits_seen == 0
    head.take(inspect(update(deletes=deleting((1, 4, 2))), DEFAULT_LIMITS))
    assert head.splits_seen == 1
    assert Head.decode(head.encode()).splits_seen == 1


def test_a_split_within_one_update_is_seen() -> None:
    split = update(section(1, 0, string("a😀b"), string("x", origin=(1, 1))))
    assert Head().splits(inspect(split, DEFAULT_LIMITS)) == ((1, 2),)


def test_a_split_seen_is_not_seen_again_when_it_is_sent_again() -> None:
    emoji = update(section(1, 0, string("a😀b")))
    split = inspect(update(section(2, 0, string("x", origin=(1, 1)))), DEFAULT_LIMITS)
    head = head_of(emoji)
    head.take(split)
    assert head.splits(split) == ()


def test_held_text_keeps_its_pairs_whatever_is_said_of_it_later() -> None:
    head = head_of(update(section(1, 0, string("abcd"))))
    head.take(inspect(update(section(1, 0, string("😀😀😀"))), DEFAULT_LIMITS))
    assert list(head.second_halves.runs()) == [Run(1, 5, 1)]


def test_a_refusal_never_takes_back_what_is_held() -> None:
    head = head_of(update(section(1, 0, string("abc"))))
    head.refuse(1, 0)
    assert head.refused == {1: 3}
    head.refuse(1, 9)
    assert head.refused == {1: 3}


def test_a_fold_inherits_what_no_state_tells() -> None:
    head = head_of(update(section(1, 0, string("abc"))))
    head.owners[1] = "ada"
    head.refuse(2, 0)
    folded = Head.of_state(state_of(update(section(1, 0, string("abc")))), DEFAULT_LIMITS)
    folded.inherit(head)
    again = Head.decode(folded.encode())
    assert (again.owners, again.refused) == ({1: "ada"}, {2: 0})


def test_contested_places_survive_a_fold() -> None:
    updates = list(hostile.place_swarm(30))
    folded = Head.of_state(state_of(*updates), DEFAULT_LIMITS)
    (place,) = inspect(updates[-1], DEFAULT_LIMITS).crowd({})
    assert folded.crowd_at(place) == head_of(*updates).crowd_at(place) == 30


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_head_is_store_corrupt(data: st.DataObject) -> None:
    head = head_of(
        *hostile.nesting_swarm(3),
        update(section(5, 0, string("a😀b"), value(key="k"))),
        update(deletes=deleting((5, 0, 1))),
    )
    head.owners[5] = "ada"
    encoded = bytearray(head.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    if data.draw(st.booleans()):
        del encoded[at:]
    else:
        encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        again = Head.decode(bytes(encoded))
        assert Head.decode(again.encode()) == again
    except StoreCorrupt:
        return
    assert len(encoded) == len(head.encode())


def test_a_text_without_nesting_costs_a_few_bytes() -> None:
    document: Doc = Doc()
    text = document.get("text", type=Text)
    for _ in range(50):
        text += "hello "
    assert len(Head.of_state(document.get_update(), DEFAULT_LIMITS).encode()) < 64
