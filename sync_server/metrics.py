"""What the server counts, in the text form that Prometheus reads.

Two kinds of numbers.  What happens rarely, or needs a histogram, is told by a verb.  What is
counted on a hot path, or is simply a size, is read from where it is kept when somebody looks:
`measure` takes all of `READINGS` at once, so that none can be forgotten.  Labels take values from
fixed lists only: what a peer can choose (document ids, reasons in words) never becomes a label,
because every new value is kept for ever.

The registry is this object's own, so that two servers in one process do not share numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from crdt_state.errors import TokenRejected, UpdateRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTENT_TYPE", "READINGS", "ServerMetrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

OTHER = "other"
PREFIX = "crdt_state"
COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GROUP_WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

TOTALS = {
    "connections_opened": "Connections that finished the handshake.",
    "connections_rejected": "Connections ended for what the peer did.",
    "connections_refused": "Sockets refused because their address, or all together, had too many.",
    "connections_cut_off": "Connections cut off: unfinished messages took too much memory.",
    "tokens_rejected": "Connections whose token was missing, invalid or expired.",
    "origins_refused": "Requests refused for their Origin or Host.",
    "quotas_exceeded": "Updates refused because the document's creator had no room left.",
    "slow_peers_resynchronised": "Peers that fell behind and were brought up to date.",
    "slow_peers_dropped": "Peers that fell behind and were closed.",
    "messages_received": "Messages from peers.",
    "messages_sent": "Messages to peers.",
    "bytes_received": "Bytes of messages from peers.",
    "bytes_sent": "Bytes of messages to peers.",
    "worker_processes_started": "Worker processes started, replacements included.",
}
"""Readings that only ever grow."""

SIZES = {
    "connections_open": "Connections open now.",
    "documents_in_use": "Documents with a peer.",
    "updates_pending": "Updates of documents in use that wait for what they depend on.",
    "bytes_to_write": "Bytes of updates that wait for the disk.",
    "bytes_to_send": "Bytes that wait for peers to take them.",
    "encodings_bytes": "Bytes of document states kept ready to be sent.",
    "worker_jobs_waiting": "Jobs that wait for a worker process.",
    "worker_jobs_running": "Jobs that worker processes are at.",
}
"""Readings that rise and fall."""

READINGS = frozenset(TOTALS | SIZES)


class ServerMetrics:
    """Counters, gauges and histograms of one server; every verb takes about a microsecond."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"{PREFIX}_{name}", what, labels, registry=registry)

        self._totals = {name: _Total(counter(name, what)) for name, what in TOTALS.items()}
        self._sizes = {
            name: Gauge(f"{PREFIX}_{name}", what, registry=registry) for name, what in SIZES.items()
        }
        self._authentication_failures = counter(
            "authentication_failures", "HTTP requests whose token was rejected or missing."
        )
        self._admitted = counter("updates_admitted", "Updates let in.")
        refused = counter("updates_refused", "Updates not let in.", ("reason",))
        reasons = (*_names_below(UpdateRefused), OTHER)
        # Looked up once: a lookup costs more than the counting.
        self._refused = {reason: refused.labels(reason) for reason in reasons}
        self._commit_seconds = Histogram(
            f"{PREFIX}_commit_seconds",
            "From the beginning of a group's commit until it is on the disk.",
            buckets=COMMIT_SECONDS,
            registry=registry,
        )
        self._group_writes = Histogram(
            f"{PREFIX}_commit_group_writes",
            "Writes that shared a commit.",
            buckets=GROUP_WRITES,
            registry=registry,
        )
        self._store_errors = counter("store_errors", "Times that the store failed.")
        self._folds = counter("folds", "Logs folded into a checkpoint.")
        self._set_aside = counter("documents_set_aside", "Documents set aside for a person.")
        self._unsound = counter("documents_unsound", "Documents that are not what they were.")
        self._repairs = counter("surrogate_repairs", "Repairs of split surrogate pairs.")

    def render(self) -> bytes:
        """Write everything in Prometheus' text form (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def measure(self, readings: Mapping[str, int]) -> None:
        """Take over what is counted elsewhere: exactly the names in `READINGS`."""
        if readings.keys() != READINGS:
            raise ValueError(f"readings differ in {sorted(readings.keys() ^ READINGS)}")
        for name, value in readings.items():
            if name in self._totals:
                self._totals[name].reach(value)
            else:
                self._sizes[name].set(value)

    def authentication_failed(self, error: TokenRejected) -> None:
        """Count a token that was rejected."""
        self._authentication_failures.inc()

    def updates_admitted(self, count: int) -> None:
        """Count a commit's updates."""
        self._admitted.inc(count)

    def update_refused(self, error: UpdateRefused) -> None:
        """Count an update not let in, by the class of its error."""
        reason = type(error).__name__
        self._refused.get(reason, self._refused[OTHER]).inc()

    def committed(self, writes: int, seconds: float) -> None:
        """Record one group commit."""
        self._group_writes.observe(writes)
        self._commit_seconds.observe(seconds)

    def store_failed(self) -> None:
        """Count a commit that failed."""
        self._store_errors.inc()

    def folded(self) -> None:
        """Count a log folded into a checkpoint."""
        self._folds.inc()

    def document_set_aside(self) -> None:
        """Count a document that needs a person."""
        self._set_aside.inc()

    def document_unsound(self) -> None:
        """Count a document that is not what it was."""
        self._unsound.inc()

    def repaired(self) -> None:
        """Count a repair."""
        self._repairs.inc()


def _names_below(error: type[UpdateRefused]) -> tuple[str, ...]:
    return (
        error.__name__,
        *(name for kind in error.__subclasses__() for name in _names_below(kind)),
    )


class _Total:
    """A counter that follows a number which somebody else counts."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._reached = 0

    def reach(self, total: int) -> None:
        # Asked for twice by two readers, only the first adds.
        self._counter.inc(max(0, total - self._reached))
        self._reached = max(total, self._reached)
