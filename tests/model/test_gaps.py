"""`crdt_state.model.gaps`: an update of which something is missing, in parts."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from pycrdt import Doc, Text, merge_updates

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model import gaps
from crdt_state.model.gaps import parts_of
from crdt_state.model.inspect import inspect
from crdt_state.model.ranges import Intervals
from crdt_state.model.update import SKIP, UNBOUNDED, UpdateReader
from hostile import deleting, gc, nested, section, skip, string, update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crdt_state.model.update import Struct

AB = string("ab")
EF = string("ef", origin=(5, 3))


def needs(part: bytes, vector: Mapping[int, int] | None = None) -> dict[int, int]:
    held = vector or {}
    found = inspect(part, DEFAULT_LIMITS).needs
    return {client: end for client, end in found.items() if end > held.get(client, 0)}


def cut(whole: bytes, vector: Mapping[int, int] | None = None, parts_max: int = 100) -> list[bytes]:
    return parts_of(whole, vector or {}, parts_max=parts_max)


def structs_of(*updates: bytes) -> list[tuple[int, int, bytes]]:
    """(client, clock, bytes) of every struct that is no Skip, in order."""

    def coded(whole: bytes, struct: Struct) -> tuple[int, int, bytes]:
        return struct.client, struct.clock, whole[struct.at : struct.end]

    return sorted(
        coded(whole, struct)
        for whole in updates
        for struct in UpdateReader(whole, UNBOUNDED).structs()
        if struct.kind != SKIP
    )


def test_what_lacks_nothing_goes_first_and_the_rest_waits_for_its_gap() -> None:
    whole = update(section(5, 0, AB, skip(2), EF), section(7, 0, string("own")))
    assert cut(whole) == [
        update(section(7, 0, string("own")), section(5, 0, AB)),
        update(section(5, 4, EF)),
    ]


def test_each_gap_has_its_own_part() -> None:
    whole = update(section(5, 0, AB, skip(2), EF, skip(2), gc(1), skip(1), gc(3)))
    assert [needs(part) for part in cut(whole)] == [{}, {5: 4}, {5: 8}, {5: 10}]


def test_what_is_built_on_what_waits_waits_for_the_same() -> None:
    behind = string("!", origin=(5, 5))
    whole = update(section(5, 4, EF), section(7, 0, string("own"), behind, string("x")))
    assert cut(whole) == [
        update(section(7, 0, string("own"))),
        update(section(7, 3, behind, string("x")), section(5, 4, EF)),
    ]


def test_a_reference_into_a_gap_is_no_circle() -> None:
    # 7 builds on what is missing of 5, and what 5 wrote afterwards builds on 7.
    whole = update(
        section(5, 0, AB, skip(2), string("ef", origin=(7, 0))),
        section(7, 0, string("!", origin=(5, 2))),
    )
    parts = cut(whole)
    assert structs_of(*parts) == structs_of(whole)
    assert [needs(part) for part in parts] == [{}, {5: 3}, {5: 4, 7: 1}]


def test_a_reference_behind_all_that_is_brought_is_no_circle_either() -> None:
    whole = update(
        section(5, 0, string("ab", origin=(7, 0)), skip(10)),
        section(7, 0, string("!", origin=(5, 5))),
        section(8, 0, AB),
    )
    parts = cut(whole)
    assert structs_of(*parts) == structs_of(whole)
    assert parts[0] == update(section(8, 0, AB))


def test_deletes_go_with_what_they_delete() -> None:
    whole = update(
        section(5, 0, AB, skip(2), EF), deletes=deleting((5, 1, 4), (6, 0, 1), (6, 5, 1))
    )
    assert cut(whole, {6: 3}) == [
        update(section(5, 0, AB), deletes=deleting((5, 1, 1), (6, 0, 1))),
        update(section(5, 4, EF), deletes=deleting((5, 4, 1))),
        update(deletes=deleting((5, 2, 2))),
        update(deletes=deleting((6, 5, 1))),
    ]


def test_what_is_held_is_left_out_so_that_what_waits_is_known_again() -> None:
    whole = update(section(5, 0, AB, skip(2), EF))
    assert cut(whole, {5: 2}) == cut(whole)[1:] == [update(section(5, 4, EF))]


def test_a_struct_is_not_cut_where_half_of_it_is_held() -> None:
    whole = update(section(5, 0, string("abcd"), skip(2), EF))
    assert cut(whole, {5: 2})[0] == update(section(5, 0, string("abcd")))


@pytest.mark.parametrize(
    "whole",
    [
        update(section(5, 4, EF)),
        update(section(5, 4, EF, gc(2)), section(4, 0, string("!", origin=(5, 4)))),
        update(section(5, 0, AB), deletes=deleting((5, 0, 1))),
        update(deletes=deleting((5, 0, 1), (5, 5, 1))),
    ],
)
def test_what_is_one_part_stays_as_it_is(whole: bytes) -> None:
    assert cut(whole) == [whole]


def test_what_is_barred_waits_by_itself_and_counts_as_missing() -> None:
    whole = update(
        section(5, 0, AB, gc(2), EF),
        section(7, 0, string("own"), string("!", origin=(5, 1))),
    )
    barred = parts_of(whole, {}, parts_max=100, barred={5})
    assert barred == [
        update(section(7, 0, string("own"))),
        update(section(7, 3, string("!", origin=(5, 1)))),
        update(section(5, 0, AB, gc(2), EF)),
    ]
    collected = parts_of(whole, {}, parts_max=100, barred={5}, are_collected_barred_only=True)
    assert collected[1:] == [update(section(5, 4, EF)), update(section(5, 2, gc(2)))]


@pytest.mark.parametrize("parts_max", [0, 3, 10, 1_000])
def test_beyond_the_bound_all_waits_in_one(parts_max: int) -> None:
    count = 50
    whole = update(
        section(5, 1, *(gc(1), skip(1)) * count, gc(1)),
        section(6, 1, *(string("x", origin=(8, 2 * n)) for n in range(count))),
        section(7, 0, nested(), gc(1)),
        deletes=deleting(*((client, 0, 1) for client in range(100, 200)), (5, 0, 101)),
    )
    parts = cut(whole, parts_max=parts_max)
    assert len(parts) - 1 <= max(3, parts_max)
    assert structs_of(*parts) == structs_of(whole)
    deleted = Intervals(r for part in parts for r in inspect(part, DEFAULT_LIMITS).deletes)
    assert deleted == Intervals(inspect(whole, DEFAULT_LIMITS).deletes)
    assert needs(parts[0]) == {}


def test_needs_that_grow_with_every_struct_are_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gaps, "_COUNTERS_PER_PART", 4)
    whole = update(
        *(
            section(
                client,
                1,
                *(
                    string("a", origin=(client - 1 if client > 2 else 9_000 + n, n + 1))
                    for n in range(30)
                ),
            )
            for client in range(2, 32)
        )
    )
    parts = cut(whole, parts_max=1_000)
    assert len(parts) < 200, "otherwise there are 900"
    assert structs_of(*parts) == structs_of(whole)


@pytest.mark.parametrize("seed", range(30))
def test_parts_say_together_what_the_update_says(seed: int) -> None:
    dice = Random(seed)
    documents = [Doc(client_id=number) for number in (9, 5, 7)]
    updates: list[bytes] = []
    subscriptions = [
        document.observe(lambda event: updates.append(event.update)) for document in documents
    ]
    for _ in range(60):
        document = dice.choice(documents)
        text = document.get("text", type=Text)
        size = len(str(text))
        if size > 5 and dice.random() < 0.3:
            at = dice.randrange(size - 2)
            del text[at : at + 2]
        else:
            text.insert(dice.randint(0, size), "x" * dice.randint(1, 3))
        other = dice.choice(documents)
        if other is not document:
            other.apply_update(document.get_update(other.get_state()))
    assert subscriptions
    held = dice.randrange(len(updates) // 2)
    vector: dict[int, int] = {}
    whole = merge_updates(*dice.sample(updates, len(updates) // 2))
    known: Doc = Doc()
    for early in updates[:held]:
        known.apply_update(early)
        vector |= inspect(known.get_update(), DEFAULT_LIMITS).vector
    parts = cut(whole, vector)
    new = [s for s in structs_of(whole) if s not in structs_of(*parts)]
    assert all(clock < vector.get(client, 0) for client, clock, _ in new), "only what is held"
    assert set(structs_of(*parts)) <= set(structs_of(whole))
    assert len(structs_of(*parts)) == len(set(structs_of(*parts)))
    deleted = Intervals(r for part in parts for r in inspect(part, DEFAULT_LIMITS).deletes)
    assert deleted == Intervals(inspect(whole, DEFAULT_LIMITS).deletes)
    assert sum(not needs(part, vector) for part in parts) <= 1
