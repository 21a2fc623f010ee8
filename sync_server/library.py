"""The documents of a replica, as the HTTP endpoints need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import Summary

__all__ = ["ShellLibrary"]


@dataclass(frozen=True, slots=True)
class ShellLibrary:
    """The documents of a replica, for the HTTP endpoints."""

    shell: ReplicaShell

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
