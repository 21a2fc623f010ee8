"""`crdt_state.security.rate`: two buckets that time fills."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_state.clocks import Instant
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.security.rate import Rate

LIMITS = replace(
    DEFAULT_LIMITS, identity_messages_per_second_max=10.0, identity_bytes_per_second_max=1_000.0
)


def rate() -> Rate:
    return Rate(LIMITS, Instant(0.0))


def test_a_seconds_worth_passes_at_once_and_the_next_one_waits() -> None:
    bucket = rate()
    assert [bucket.take(1, Instant(0.0)) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1, Instant(0.0)) == pytest.approx(0.1)


def test_bytes_are_bounded_as_updates_are() -> None:
    bucket = rate()
    assert bucket.take(1_000, Instant(0.0)) == 0.0
    assert bucket.take(500, Instant(0.0)) == pytest.approx(0.5)


def test_who_waits_as_told_never_waits_twice_for_the_same_debt() -> None:
    bucket, now = rate(), 0.0
    for _ in range(100):
        now += bucket.take(10, Instant(now))
    assert now == pytest.approx(9.0)


def test_a_pause_refills_one_second_and_no_more() -> None:
    bucket = rate()
    bucket.take(5_000, Instant(0.0))
    assert bucket.take(0, Instant(1_000.0)) == 0.0
    assert sum(bucket.take(0, Instant(1_000.0)) == 0.0 for _ in range(50)) == 9


def test_an_update_larger_than_a_seconds_worth_is_paid_for_in_full() -> None:
    assert rate().take(11_000, Instant(0.0)) == pytest.approx(10.0)


def test_connections_of_one_identity_share_the_debt() -> None:
    bucket = rate()
    waits = [bucket.take(500, Instant(0.0)) for _ in range(6)]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(2.0)
