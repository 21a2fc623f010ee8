"""`crdt_state.model.inspect`: what honest updates say, and what every other one is refused for."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, get_state, merge_updates

import hostile
import reference
from crdt_state.errors import UpdateMalformed, UpdateRefused, UpdateTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.crowd import CROWD_PLACES_MAX, crowded
from crdt_state.model.inspect import (
    Erasing,
    Survey,
    Typing,
    claimed_range,
    inspect,
)
from crdt_state.model.ranges import Intervals, Range, Run
from crdt_state.model.state import decode_state_vector, encode_state_vector
from hostile import gc, section, skip, string, update, value

DEEP_LIMITS = replace(DEFAULT_LIMITS, update_structs_max=5, update_delete_ranges_max=3)


def vector_of(document: Doc) -> dict[int, int]:
    """A state vector without zeros, which yrs sometimes writes."""
    vector = decode_state_vector(document.get_state())
    return {client: counter for client, counter in vector.items() if counter}


def assert_agrees_with_pycrdt(encoded: bytes) -> None:
    """What we say an update brings is what pycrdt holds after it, when it needs nothing."""
    inspection = inspect(encoded, DEFAULT_LIMITS, merged=True)
    if inspection.needs:
        return
    document: Doc = Doc()
    document.apply_update(encoded)
    assert vector_of(document) == dict(inspection.vector)


# --- honest updates ------------------------------------------------------------------------------


def test_a_key_press_is_recognised_as_typing() -> None:
    document: Doc = Doc(client_id=7)
    text = document.get("text", type=Text)
    text += "ab"
    before = document.get_state()
    text += "c"
    inspection = inspect(document.get_update(before), DEFAULT_LIMITS)
    assert isinstance(inspection, Typing)
    assert inspection.ranges == (Range(7, 2, 3),)
    assert inspection.needs == {7: 2}
    assert inspection.crowd({}) == {}


def test_a_key_press_within_a_text_needs_both_neighbours() -> None:
    inspection = inspect(
        update(section(9, 4, string("x", origin=(7, 2), right=(8, 5)))), DEFAULT_LIMITS
    )
    assert isinstance(inspection, Typing)
    assert inspection.needs == {9: 4, 7: 3, 8: 6}
    assert inspection.cuts_beyond({}) == ((7, 3), (8, 5))
    assert len(inspection.crowd({})) == 1
    assert inspection.crowd({9: 5}) == {}


def test_one_deleted_range_is_recognised() -> None:
    inspection = inspect(update(deletes=hostile.deleting((300, 5, 200))), DEFAULT_LIMITS)
    assert isinstance(inspection, Erasing)
    assert inspection.deletes == (Range(300, 5, 205),)
    assert inspection.needs == {300: 205}
    assert inspection.vector == {}


@pytest.mark.parametrize("text", ["a", "héllo", "日本", "x" * 200, "\0"])
@pytest.mark.parametrize("right", [None, (2, 8), (3, 70_000)])
@pytest.mark.parametrize("clock", [1, 200, 2**20])
def test_the_fast_reading_and_the_full_one_say_the_same(
    text: str, right: tuple[int, int] | None, clock: int
) -> None:
    encoded = update(section(1, clock, string(text, origin=(2, 9), right=right)))
    fast = inspect(encoded, DEFAULT_LIMITS)
    # The same struct with another one behind it is no typing.
    other = inspect(
        update(
            section(1, clock, string(text, origin=(2, 9), right=right)),
            section(5, 0, string("z", parent="other")),
        ),
        DEFAULT_LIMITS,
    )
    assert isinstance(fast, Typing) == (len(encoded) < 256)
    assert isinstance(other, Survey)
    assert fast.ranges == tuple(here for here in other.ranges if here.client == 1)
    assert fast.needs == other.needs
    assert fast.cuts_beyond({}) == other.cuts_beyond({})
    assert fast.crowd({}).items() <= other.crowd({}).items()


def test_skips_cut_the_ranges_and_raise_what_is_needed() -> None:
    merged = update(section(1, 0, string("ab"), skip(5), string("c", origin=(1, 1)), gc(4)))
    inspection = inspect(merged, DEFAULT_LIMITS)
    assert inspection.ranges == (Range(1, 0, 2), Range(1, 7, 12))
    assert inspection.skipped == (Range(1, 2, 7),)
    assert inspection.collected == (Range(1, 8, 12),)
    assert inspection.needs == {1: 7}


def test_what_an_update_brings_itself_is_not_needed() -> None:
    both = update(
        section(2, 0, string("b", origin=(1, 0))),
        section(1, 0, string("a")),
        deletes=hostile.deleting((1, 0, 1)),
    )
    assert inspect(both, DEFAULT_LIMITS).needs == {}


def test_structs_that_wait_for_each_other_in_turns_are_no_circle() -> None:
    turns = update(
        section(2, 0, string("b", origin=(1, 0)), string("d", origin=(1, 1))),
        section(1, 0, string("a"), string("c", origin=(2, 0)), string("e", origin=(2, 1))),
    )
    assert inspect(turns, DEFAULT_LIMITS).needs == {}
    assert_agrees_with_pycrdt(turns)


def test_waking_many_who_wait_for_one_client_stays_linear() -> None:
    clients = 4_000
    structs = [string("a")]
    sections = []
    for client in range(2, clients):
        sections.append(section(client, 0, string("x", origin=(1, clients - 1))))
        structs.append(string("b", origin=(clients, client)))
    structs += [string("c", origin=(1, len(structs) - 1)) for _ in range(3)]
    sections.append(section(clients, 0, *[string("y", parent="other") for _ in range(clients)]))
    sections.insert(0, section(1, 0, *structs))
    assert inspect(update(*sections), DEFAULT_LIMITS).needs == {}


def test_pairs_are_found_where_they_stand() -> None:
    inspection = inspect(update(section(1, 10, string("a😀😀b😀"))), DEFAULT_LIMITS)
    assert inspection.vector == {1: 18}
    assert inspection.second_halves == (Run(1, 12, 2), Run(1, 17, 1))


def test_typing_an_emoji_tells_where_its_pair_is() -> None:
    inspection = inspect(update(section(1, 5, string("😀", origin=(1, 4)))), DEFAULT_LIMITS)
    assert inspection.vector == {1: 7}
    assert inspection.second_halves == (Run(1, 6, 1),)


def test_every_container_and_root_is_named() -> None:
    document: Doc = Doc(client_id=3)
    document.get("map", type=Map)["k"] = Map({"inner": Array([1, 2])})
    document.get("array", type=Array).append("x")
    inspection = inspect(document.get_update(), DEFAULT_LIMITS)
    assert inspection.roots == {"map", "array"}
    assert len(inspection.containers) == 2
    assert inspection.parents == frozenset()


@pytest.mark.parametrize("seed", [20])
def test_updates_of_sessions_pass_and_agree_with_pycrdt(data_folder, seed: int) -> None:
    sessions = reference.sessions(data_folder)
    seen = 0
    for session in Random(seed).sample(sessions, 400):
        for encoded in session.updates:
            assert_agrees_with_pycrdt(encoded)
            seen += 1
    assert seen > 1_000


@pytest.mark.full
def test_all_updates_of_all_sessions_pass_and_agree_with_pycrdt(data_folder) -> None:
    seen = 0
    for session in reference.sessions(data_folder):
        for encoded in session.updates:
            assert_agrees_with_pycrdt(encoded)
            seen += 1
    assert seen == 46_385


def test_whole_documents_pass_and_agree_with_pycrdt(data_folder) -> None:
    documents = reference.documents(data_folder)
    assert len(documents) == 3
    for encoded in documents.values():
        inspection = inspect(encoded, DEFAULT_LIMITS, merged=True)
        assert inspection.needs == {}
        assert inspection.vector == decode_state_vector(get_state(encoded))
        assert sum(end - start for _, start, end in inspection.deletes) > 1_000


@pytest.mark.parametrize("seed", [21])
def test_merged_updates_of_a_session_pass(data_folder, seed: int) -> None:
    random = Random(seed)
    skips = 0
    for session in random.sample(reference.sessions(data_folder), 200):
        if len(session.updates) < 3:
            continue
        some = random.sample(session.updates, len(session.updates) // 2)
        if not some:
            continue
        merged = inspect(merge_updates(*some), DEFAULT_LIMITS, merged=True)
        skips += len(merged.skipped)
        singles = [inspect(encoded, DEFAULT_LIMITS) for encoded in some]
        brought = Intervals(here for single in singles for here in single.ranges)
        assert list(Intervals(merged.ranges).ranges()) == list(brought.ranges())
        deleted = Intervals(here for single in singles for here in single.deletes)
        assert list(Intervals(merged.deletes).ranges()) == list(deleted.ranges())
    assert skips > 0


@pytest.mark.node
def test_every_content_that_yjs_makes_passes(node_programs) -> None:
    printed = subprocess.run(
        ["node", "every_content.mjs"], cwd=node_programs, capture_output=True, check=True, text=True
    ).stdout.split()
    assert len(printed) > 100
    for line in printed:
        assert_agrees_with_pycrdt(bytes.fromhex(line))


# --- hostile ones --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.SHAPES)
def test_hostile_shapes_are_refused(name: str) -> None:
    with pytest.raises(UpdateMalformed):
        inspect(hostile.SHAPES[name], DEFAULT_LIMITS)
    with pytest.raises(UpdateMalformed):
        inspect(hostile.SHAPES[name], DEFAULT_LIMITS, merged=True)


@pytest.mark.parametrize(
    ("limit", "limits", "encoded"),
    [
        (
            "update_bytes_max",
            Limits(update_bytes_max=300),
            update(section(1, 0, string("a" * 300))),
        ),
        (
            "update_clients_max",
            Limits(update_clients_max=1),
            update(section(1, 0, string("a")), section(2, 0, string("b"))),
        ),
        ("update_structs_max", DEEP_LIMITS, update(section(1, 0, *[string("a")] * 6))),
        (
            "update_delete_ranges_max",
            DEEP_LIMITS,
            update(deletes=hostile.deleting(*[(1, 2 * n, 1) for n in range(4)])),
        ),
    ],
)
def test_each_limit_is_named_and_does_not_bind_merges(
    limit: str, limits: Limits, encoded: bytes
) -> None:
    with pytest.raises(UpdateTooLarge) as refusal:
        inspect(encoded, limits)
    assert refusal.value.limit == limit
    found = inspect(encoded, limits, merged=True)
    assert found.ranges or found.deletes


def test_a_long_key_is_refused_by_name() -> None:
    with pytest.raises(UpdateTooLarge) as refusal:
        inspect(update(section(1, 0, value(key="k" * 5_000))), DEFAULT_LIMITS)
    assert refusal.value.limit == "key_bytes_max"


def test_values_at_the_depth_allowed_pass() -> None:
    depth = DEFAULT_LIMITS.value_depth_max
    assert inspect(hostile.nested_any(depth), DEFAULT_LIMITS).vector == {1: 1}
    with pytest.raises(UpdateMalformed, match="value_depth_max"):
        inspect(hostile.nested_any(depth + 1), DEFAULT_LIMITS)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(noise: bytes) -> None:
    with suppress(UpdateRefused):
        inspect(noise, DEFAULT_LIMITS)


def mutants_hurt_nobody(folder, seed: int, count: int) -> None:
    random = Random(seed)
    sample = random.sample(reference.sessions(folder), 300)
    honest = [one for session in sample for one in session.updates if len(one) < 400]
    honest += [shape for shape in hostile.SHAPES.values() if 0 < len(shape) < 300]
    refused = 0
    for _ in range(count):
        mutant = hostile.mutate(random.choice(honest), random, honest)
        try:
            inspection = inspect(mutant, DEFAULT_LIMITS)
        except UpdateRefused:
            refused += 1
            continue
        # Native code raises nothing, and integrates exactly what was announced.
        document: Doc = Doc()
        if not inspection.parents:
            document.apply_update(mutant)
            if not inspection.needs:
                assert vector_of(document) == dict(inspection.vector), mutant.hex()
        merge_updates(mutant, mutant)
        get_state(mutant)
    assert count * 0.3 < refused < count * 0.98


@pytest.mark.parametrize("seed", [5])
def test_mutants_are_refused_or_harmless(data_folder, seed: int) -> None:
    mutants_hurt_nobody(data_folder, seed, count=6_000)


@pytest.mark.full
@pytest.mark.parametrize("seed", [6])
def test_a_hundred_thousand_mutants_are_refused_or_harmless(data_folder, seed: int) -> None:
    mutants_hurt_nobody(data_folder, seed, count=100_000)


# --- the rest ------------------------------------------------------------------------------------


def test_a_refused_update_tells_whose_counters_it_claims() -> None:
    broken = update(section(300, 77, string("abc")))[:-4]
    assert claimed_range(broken) == Range(300, 77, 78)
    assert claimed_range(b"") is None
    assert claimed_range(b"\x02\x01\x05\x01") is None


def test_a_crowd_is_counted_in_bounded_memory_and_never_too_high() -> None:
    crowd: dict[bytes, int] = {}
    for number in range(3 * CROWD_PLACES_MAX):
        crowded(crowd, b"lonely %d" % number)
        crowded(crowd, b"popular")
        assert len(crowd) <= CROWD_PLACES_MAX
    full = {b"%d" % number: 1 for number in range(CROWD_PLACES_MAX)}
    crowded(full, b"all at once", 50)
    assert full == {b"all at once": 49}
    total = 3 * CROWD_PLACES_MAX
    assert total - 2 * total / CROWD_PLACES_MAX <= crowd[b"popular"] <= total


def test_a_state_vector_survives_its_coding_and_damage_is_refused() -> None:
    vector = {2**53 - 1: 5, 1: 2**31 - 1, 300: 0}
    assert decode_state_vector(encode_state_vector(vector)) == vector
    for damaged in (b"", b"\x05", b"\x01\x01\x01\x01", b"\x02\x01\x01\x01\x02"):
        with pytest.raises(UpdateMalformed):
            decode_state_vector(damaged)
