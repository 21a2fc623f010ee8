from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crdt_state.errors import (
    DependsOnRefused,
    TokenRejected,
    UpdateMalformed,
    UpdateRefused,
    UpdateTooLarge,
)
from sync_server.metrics import READINGS, ServerMetrics


def numbers(metrics: ServerMetrics) -> dict[str, float]:
    """Every sample as `name` or `name/label value`, without the platform's own."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name.startswith("crdt_state_"):
                name = sample.name.removeprefix("crdt_state_")
                found["/".join([name, *sample.labels.values()])] = sample.value
    assert found
    return found


def readings(**some: int) -> dict[str, int]:
    return dict.fromkeys(READINGS, 0) | some


def test_each_verb_moves_its_number() -> None:
    metrics = ServerMetrics()
    metrics.authentication_failed(TokenRejected("no"))
    metrics.updates_admitted(5)
    metrics.update_refused(UpdateMalformed("x"))
    metrics.committed(64, 0.004)
    metrics.store_failed()
    metrics.folded()
    metrics.document_set_aside()
    metrics.repaired()
    expected = {
        "authentication_failures_total": 1,
        "updates_admitted_total": 5,
        "updates_refused_total/UpdateMalformed": 1,
        "commit_seconds_count": 1,
        "commit_seconds_bucket/0.005": 1,
        "commit_seconds_bucket/0.002": 0,
        "commit_group_writes_sum": 64,
        "store_errors_total": 1,
        "folds_total": 1,
        "documents_set_aside_total": 1,
        "surrogate_repairs_total": 1,
    }
    found = numbers(metrics)
    assert {name: found.get(name) for name in expected} == expected


def test_every_reading_is_shown() -> None:
    metrics = ServerMetrics()
    given = {name: number for number, name in enumerate(sorted(READINGS), start=1)}
    metrics.measure(given)
    found = numbers(metrics)
    for name, number in given.items():
        assert number in (found.get(name), found.get(f"{name}_total")), name


def test_a_reading_that_is_missing_or_unknown_is_an_error() -> None:
    metrics = ServerMetrics()
    incomplete = readings()
    del incomplete["connections_open"]
    with pytest.raises(ValueError, match="connections_open"):
        metrics.measure(incomplete)
    with pytest.raises(ValueError, match="unheard_of"):
        metrics.measure(readings(unheard_of=1))


def test_measuring_twice_counts_once() -> None:
    metrics = ServerMetrics()
    for total in (5, 5, 8):
        metrics.measure(readings(messages_received=total))
        assert numbers(metrics)["messages_received_total"] == total


@pytest.mark.parametrize(
    "error", [DependsOnRefused("x"), UpdateTooLarge("l", 1, 2), UpdateRefused("x")]
)
def test_every_kind_of_refusal_has_its_own_number(error: UpdateRefused) -> None:
    metrics = ServerMetrics()
    metrics.update_refused(error)
    assert numbers(metrics)[f"updates_refused_total/{type(error).__name__}"] == 1


def test_a_label_that_is_not_on_the_list_is_counted_as_other() -> None:
    metrics = ServerMetrics()
    before = set(numbers(metrics))

    class Unheard(UpdateRefused):
        """Made after the list."""

    for _ in range(100):
        metrics.update_refused(Unheard("x"))
    found = numbers(metrics)
    assert set(found) == before
    assert found["updates_refused_total/other"] == 100


def test_two_servers_in_one_process_do_not_share_numbers() -> None:
    one, other = ServerMetrics(), ServerMetrics()
    one.updates_admitted(5)
    assert numbers(other)["updates_admitted_total"] == 0
