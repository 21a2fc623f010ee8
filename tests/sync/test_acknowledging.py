"""`crdt_state.sync.acknowledging`: numbers of a channel, positions of a log, one from the other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.identifiers import ReplicaId
from crdt_state.sync.acknowledging import (
    REMEMBERED_MAX,
    REPORTED_MAX,
    UNDER_WAY_MAX,
    Brought,
    Sent,
)

ANA, BEN = ReplicaId(b"a" * 16), ReplicaId(b"b" * 16)


def sent(*batches: tuple[int, int]) -> Sent:
    result = Sent()
    for number, position in batches:
        result.add(number, position, floor=position - 1)
    return result


def test_an_acknowledged_number_is_a_position() -> None:
    tracked = sent((2, 10), (5, 20), (6, 30))
    tracked.acknowledged(2, 0)
    assert tracked.durable_through == 19, "nothing of the document lies before what is next"
    assert tracked.applied_through == 9
    tracked.acknowledged(6, 5)
    assert (tracked.durable_through, tracked.applied_through) == (30, 29)
    assert tracked.is_all_durable
    assert not tracked.is_all_applied


def test_half_of_a_batch_is_not_the_batch() -> None:
    tracked = sent((2, 10), (5, 20))
    tracked.acknowledged(4, 4)
    assert tracked.durable_through == tracked.applied_through == 19
    assert not tracked.is_all_durable


def test_a_part_of_a_state_stands_for_nothing_before_it() -> None:
    tracked = Sent()
    tracked.add(2, 10, floor=9)
    # Of what was edited at 20 and 30 nothing was sent; a state of two parts brings it.
    tracked.add(3, 0, floor=0)
    tracked.add(4, 40, floor=0)
    tracked.acknowledged(2, 2)
    assert tracked.durable_through == tracked.applied_through == 10
    tracked.acknowledged(3, 3)
    assert tracked.durable_through == tracked.applied_through == 10
    assert tracked.position_of(3) == 10
    tracked.acknowledged(4, 4)
    assert tracked.durable_through == tracked.applied_through == 40


@given(st.integers(UNDER_WAY_MAX, 3 * UNDER_WAY_MAX), st.data())
@settings(max_examples=20, deadline=None)
def test_what_a_peer_never_acknowledges_is_bounded_and_counts_no_earlier(
    count: int, data: st.DataObject
) -> None:
    tracked = Sent()
    for number in range(1, count + 1):
        tracked.add(number, 10 * number, floor=10 * number - 1)
    assert max(len(tracked._not_durable), len(tracked._not_applied)) <= UNDER_WAY_MAX
    number = data.draw(st.integers(0, count))
    tracked.acknowledged(number, number)
    assert tracked.durable_through < 10 * (number + 1)
    tracked.acknowledged(count, count)
    assert tracked.is_all_applied
    assert tracked.durable_through == tracked.applied_through == 10 * count


def test_a_relays_report_may_come_long_after_the_acknowledgement() -> None:
    tracked = sent((2, 10), (5, 20))
    tracked.acknowledged(5, 5)
    assert [tracked.position_of(number) for number in (1, 2, 4, 5)] == [0, 10, 10, 20]


def test_what_is_too_long_ago_is_unknown_and_nothing_grows() -> None:
    tracked, brought = Sent(), Brought()
    for number in range(1, 3 * REMEMBERED_MAX):
        tracked.add(number, 10 * number, floor=0)
        tracked.acknowledged(number, number)
        brought.add(number, 10 * number)
    assert tracked.position_of(1) == 0
    assert len(tracked._lately) == REMEMBERED_MAX
    assert len(brought._numbers) <= REMEMBERED_MAX


def test_of_another_replica_the_peer_is_told_what_is_news() -> None:
    brought = Brought()
    brought.add(3, 100)
    brought.add(7, 200)
    assert brought.news_of(ANA, 99) is None
    assert brought.news_of(ANA, 150) == 3
    assert brought.news_of(ANA, 199) is None
    assert brought.news_of(ANA, 200) == 7
    assert brought.news_of(BEN, 10_000) == 7
    assert brought.news_of(BEN, 10_000) is None


def test_of_no_more_than_enough_others_it_is_told() -> None:
    brought = Brought()
    brought.add(1, 1)
    told = [brought.news_of(ReplicaId(bytes([n]) * 16), 1) for n in range(REPORTED_MAX + 5)]
    assert told == [1] * REPORTED_MAX + [None] * 5


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=20), st.data())
def test_nothing_counts_as_held_beyond_what_was_acknowledged(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    tracked, batches = Sent(), [(0, 0)]
    for more, further in steps:
        batches.append((batches[-1][0] + more, batches[-1][1] + further))
        number, position = batches[-1]
        tracked.add(number, position, floor=position - 1)
    number = data.draw(st.integers(0, batches[-1][0]))
    tracked.acknowledged(number, number)
    first_not_held = next((p for n, p in batches if n > number), None)
    if first_not_held is not None:
        assert tracked.durable_through < first_not_held
    assert tracked.durable_through >= max(p for n, p in batches if n <= number)


def test_who_lacked_nothing_is_at_our_position_before_anything_is_sent() -> None:
    sent = Sent()
    assert sent.position_of(0) == 0
    sent.note(7)
    assert sent.position_of(0) == 7
    sent.add(2, 9, floor=0)
    assert (sent.position_of(1), sent.position_of(2)) == (7, 9)


def test_a_peer_that_had_nothing_to_bring_is_told_once_who_holds_what_it_has() -> None:
    brought = Brought()
    other = ReplicaId(b"o" * 16)
    assert brought.news_of(other, 5) is None
    brought.add(0, 5)
    assert brought.news_of(other, 4) is None
    assert brought.news_of(other, 5) == 0
    assert brought.news_of(other, 6) is None
