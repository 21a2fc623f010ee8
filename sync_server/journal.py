"""Turns what replica and listener tell into metrics and log lines; reads what they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from sync_server.sparing import Sparing

if TYPE_CHECKING:
    from crdt_state.clocks import Clock
    from crdt_state.errors import StoreError
    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.core import Batch
    from crdt_state.replica.document_core import Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.replica.workers import WorkerProcesses
    from crdt_state.transport.farewell import Departure
    from crdt_state.transport.listener import Listener
    from crdt_state.transport.websocket_server import WebSocketServer
    from sync_server.metrics import ServerMetrics

__all__ = ["Journal", "readings"]

log = structlog.get_logger("replica")


class Journal:
    """Turns what the replica and the listener tell into metrics and log lines."""

    def __init__(self, metrics: ServerMetrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._departures = Sparing()

    def committed(self, batch: Batch, seconds: float) -> None:
        """Count a commit."""
        self._metrics.committed(len(batch.writes), seconds)
        self._metrics.updates_admitted(batch.updates)

    def commit_failed(self, error: StoreError) -> None:
        """Say that the disk failed us."""
        self._metrics.store_failed()
        log.error("commit failed; its authors were sent away to come again", error=str(error))

    def store_failed(self, error: StoreError) -> None:
        """Say that work in the background could not be done."""
        self._metrics.store_failed()
        log.error("the store failed in the background; nobody lost anything", error=str(error))

    def refused(self, refusal: Refusal) -> None:
        """Say what was not let in."""
        self._metrics.update_refused(refusal.error)
        log.warning(
            "update refused",
            document=refusal.document,
            error=type(refusal.error).__name__,
            reason=refusal.error.reason,
            size=len(refusal.update),
        )

    def folded(self, document: DocumentId, updates: int, state_bytes: int) -> None:
        """Count a fold."""
        self._metrics.folded()
        log.debug("log folded", document=document, updates=updates, state_bytes=state_bytes)

    def set_aside(self, document: DocumentId, reason: str) -> None:
        """Say that a document needs a person."""
        self._metrics.document_set_aside()
        log.error("document set aside", document=document, reason=reason)

    def repaired(self, document: DocumentId) -> None:
        """Say that a split pair was made whole."""
        self._metrics.repaired()
        log.info("split surrogate pairs repaired", document=document)

    def unsound(self, document: DocumentId, what: str) -> None:
        """Say that a document is not what it was."""
        self._metrics.document_unsound()
        log.error("document unsound", document=document, reason=what)

    def sent_away(self, departure: Departure) -> None:
        """Say who was refused, and why; sparingly, because a program comes back for ever."""
        reported = self._departures.report((departure.name, departure.code), self._clock.now())
        if reported is not None:
            log.warning(
                "connection refused",
                peer=departure.name,
                path=departure.path,
                code=departure.code,
                reason=departure.reason,
                again=reported.again,
                others=reported.others,
            )


def readings(
    shell: ReplicaShell, workers: WorkerProcesses, listener: Listener, server: WebSocketServer
) -> dict[str, int]:
    """All of `metrics.READINGS`, as they stand now."""
    traffic = listener.traffic
    members = [member for room in listener.rooms.values() for member in room.members.values()]
    return {
        "connections_opened": traffic.connections_total,
        "connections_rejected": traffic.rejected,
        "connections_refused": server.addresses_refused,
        "connections_cut_off": server.intake.cut_off,
        "tokens_rejected": traffic.tokens_rejected,
        "origins_refused": server.origins_refused,
        "quotas_exceeded": traffic.beyond_quota,
        "slow_peers_resynchronised": traffic.resynchronised,
        "slow_peers_dropped": traffic.dropped_as_slow,
        "messages_received": traffic.messages_received,
        "messages_sent": traffic.messages_sent,
        "bytes_received": traffic.bytes_received,
        "bytes_sent": traffic.bytes_sent,
        "worker_processes_started": workers.processes_started,
        "connections_open": traffic.connections,
        "documents_in_use": len(shell.core),
        "updates_pending": shell.core.pending_updates(),
        "bytes_to_write": shell.core.waiting_bytes,
        "bytes_to_send": sum(member.connection.buffered_bytes for member in members),
        "encodings_bytes": shell.encodings.size,
        "worker_jobs_waiting": workers.jobs_waiting,
        "worker_jobs_running": workers.jobs_running,
    }
