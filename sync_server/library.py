"""The documents of a replica, as the HTTP endpoints need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Summary
    from crdt_state.transport.replica import Replica

__all__ = ["ShellLibrary"]


@dataclass(frozen=True, slots=True)
class ShellLibrary:
    """The documents of a replica, for the HTTP endpoints."""

    shell: Replica

    async def list(self, *, prefix: str, after: str, limit: int) -> tuple[Summary, ...]:
        """Lines of the list."""
        return await self.shell.store.list(prefix=prefix, after=after, limit=limit)

    async def head(self, document: DocumentId) -> Summary | None:
        """One line."""
        return await self.shell.store.summary(document)

    async def update(self, document: DocumentId) -> bytes | None:
        """All of it as one update."""
        if await self.shell.store.summary(document) is None:
            return None
        return await self.shell.encodings.state(document)

    async def as_json(self, document: DocumentId) -> bytes | None:
        """Its content, read by a worker.

        Raises `WorkerFailed`; that alone sets nothing aside, because a busy machine may be the
        reason.  Compaction finds out whether it is the document.
        """
        stored = await self.shell.store.read(document)
        if stored is None or stored.life.is_deleted:
            return None
        return await self.shell.workers.as_json(stored.updates())

    def peers(self) -> dict[str, Any]:
        """Whom this replica dials, by which topology."""
        neighbours = self.shell.neighbours
        if neighbours is None:
            return {"topology": None, "peers": []}
        return {
            "topology": neighbours.neighbourhood.kind,
            "peers": [
                {
                    "address": each.address,
                    "replica": None if each.replica is None else each.replica.hex(),
                    "connected": each.is_connected,
                    "error": None if each.is_connected else each.last_error,
                }
                for each in neighbours.seen
            ],
        }
