"""`crdt_state.transport.reconnect`: waits that grow, differ, and are forgotten."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.transport.reconnect import Backoff

LIMITS = replace(DEFAULT_LIMITS, reconnect_seconds_min=1.0, reconnect_seconds_max=60.0)


def test_the_bound_doubles_and_stops_at_the_longest_wait() -> None:
    longest = [0.0] * 12
    for seed in range(500):
        backoff = Backoff(LIMITS, Random(seed))
        for failure in range(12):
            wait = backoff.failed()
            bound = min(60.0, 2.0**failure)
            assert 0.5 <= wait <= max(bound, 1.0)
            longest[failure] = max(longest[failure], wait)
    assert all(found > 0.9 * min(60.0, 2.0**n) for n, found in enumerate(longest))


def test_a_success_makes_the_next_wait_short_again() -> None:
    backoff = Backoff(LIMITS, Random(1))
    for _ in range(20):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failed() <= 1.0


def test_a_thousand_clients_do_not_come_back_at_once() -> None:
    waits = []
    for seed in range(1_000):
        backoff = Backoff(LIMITS, Random(seed))
        for _ in range(7):
            backoff.failed()
        waits.append(backoff.failed())
    busiest = max(sum(low <= wait < low + 1 for wait in waits) for low in range(60))
    assert busiest < 50


def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(LIMITS, Random(1))
    assert all(backoff.failed() <= 60.0 for _ in range(1_000))


def test_without_a_wait_there_is_none() -> None:
    backoff = Backoff(
        replace(LIMITS, reconnect_seconds_min=0.0, reconnect_seconds_max=0.0), Random(1)
    )
    assert {backoff.failed() for _ in range(10)} == {0.0}
