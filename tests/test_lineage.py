"""`crdt_state.lineage`: whoever has met the same lives of a document holds the same one."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.clocks import WallTime
from crdt_state.errors import LimitExceeded
from crdt_state.lib0 import CodingError
from crdt_state.lineage import BORN, LINEAGE_ZERO, TIME_MAX, Life, Lineage

NOON = WallTime(1_700_000_000_000_000)

times = st.integers(0, TIME_MAX)
lives = st.builds(
    lambda time, tail, is_deleted: Life(Lineage(time.to_bytes(8) + tail), is_deleted=is_deleted),
    times | st.just(0),
    st.binary(min_size=8, max_size=8) | st.just(bytes(8)),
    st.booleans(),
)


def later(life: Life, *, now: int = NOON, seed: int = 1) -> Life:
    return life.successor(WallTime(now), Random(seed))


@given(st.lists(lives, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_who_meets_the_same_lives_in_any_order_holds_the_same_one(
    met: list[Life], dice: Random
) -> None:
    held = []
    for _ in range(3):
        dice.shuffle(met)
        ours = BORN
        for life in [*met, *met[:2]]:
            ours = max(ours, life)
        held.append(ours)
    assert held[0] == held[1] == held[2]


@given(lives)
def test_a_deletion_wins_over_the_lineage_that_it_ended_and_over_no_later_one(life: Life) -> None:
    alive = Life(life.lineage)
    assert alive.deleted() > alive
    assert alive.deleted().deleted() == alive.deleted()
    if life.time < TIME_MAX:
        assert later(alive) > alive.deleted()
        assert later(alive.deleted()).deleted() > later(alive.deleted())


@given(lives.filter(lambda life: life.time < TIME_MAX), st.integers(0, 2**52))
def test_what_is_minted_is_greater_whatever_the_clock_says(life: Life, now: int) -> None:
    minted = later(life, now=now)
    assert minted > life
    assert not minted.is_deleted
    assert minted.time == max(now, life.time + 1)


@given(st.data())
def test_replicas_that_delete_seed_and_meet_end_with_one_life(data: st.DataObject) -> None:
    held = [BORN, BORN, BORN]
    minted = 0
    for _ in range(data.draw(st.integers(1, 12))):
        at, what = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
        if what == 0:
            held[at] = held[at].deleted()
        elif what == 1:
            minted += 1
            # Clocks that disagree by hours, and stand still.
            held[at] = later(held[at], now=NOON - at * 10**10, seed=minted)
        else:
            other = data.draw(st.integers(0, 2))
            held[at] = held[other] = max(held[at], held[other])
    for _ in range(2):
        for at in range(3):
            held[at] = held[at - 1] = max(held[at], held[at - 1])
    assert len(set(held)) == 1


def test_two_that_are_minted_at_once_differ() -> None:
    assert later(BORN, seed=1) != later(BORN, seed=2)


def test_no_time_is_left_after_the_last_one() -> None:
    last = Life(Lineage(TIME_MAX.to_bytes(8) + bytes(8)))
    with pytest.raises(LimitExceeded):
        later(last)


@given(lives)
def test_a_life_is_read_back(life: Life) -> None:
    assert Life.decode(life.encode()) == life
    assert Life.read(b"xx" + life.encode() + b"yy", 2) == (life, 2 + len(life.encode()))


def test_a_document_that_was_never_seeded_or_deleted_costs_one_byte() -> None:
    assert BORN.encode() == b"\0"
    assert len(BORN.deleted().encode()) == len(later(BORN).encode()) == 17


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\3" + bytes(16),
        b"\1" + b"x" * 15,
        b"\1" + LINEAGE_ZERO,
        b"\0\0",
        b"\2" + b"\xff" * 16,
    ],
)
def test_what_nobody_writes_is_refused(data: bytes) -> None:
    with pytest.raises(CodingError):
        Life.decode(data)
