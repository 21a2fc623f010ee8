"""`crdt_state.transport.unshown`: of each client the latest."""

from __future__ import annotations

from crdt_state.identifiers import ClientId
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.awareness import AwarenessEntry
from crdt_state.transport.unshown import Unshown


def entry(client: int, clock: int, text: str = "{}") -> AwarenessEntry:
    return AwarenessEntry(ClientId(client), clock, text)


def test_of_each_client_the_latest_is_kept() -> None:
    unshown: Unshown[AwarenessEntry] = Unshown(DEFAULT_LIMITS)
    for clock in range(1, 1_000):
        unshown.put([entry(1, clock), entry(2, clock)])
    unshown.put([entry(1, 998), entry(2, 999, "null")])
    assert unshown.take(1_000) == [entry(1, 999), entry(2, 999, "null")]
    assert not unshown


def test_they_are_taken_in_parts_and_one_at_least() -> None:
    unshown: Unshown[AwarenessEntry] = Unshown(DEFAULT_LIMITS)
    unshown.put([entry(client, 1, "x" * 600) for client in range(5)])
    assert [len(unshown.take(1_300)) for _ in range(3)] == [2, 2, 1]
    unshown.put([entry(1, 1, "x" * 600)])
    assert len(unshown.take(10)) == 1


def test_so_many_clients_are_kept_and_the_latest_of_those() -> None:
    unshown: Unshown[AwarenessEntry] = Unshown(Limits(awareness_clients_max=3))
    unshown.put([entry(client, 1) for client in range(10)])
    assert [each.client for each in unshown.take(1_000)] == [7, 8, 9]
