"""Which replicas have dialled this one, so that each learns of every document that ended meanwhile.

Whoever dials asks for updates by itself, and is owed none; but a deletion has to be known as long
as somebody may come back who has not heard of it.  So each known peer is owed every change of life,
under a name of its own in the outbox, until it has the document in step or is forgotten.

1. A tombstone stays until every known peer has passed it, and for `Limits.peer_forget_seconds` in
   any case: stock Yjs clients are known to nobody.
2. A peer that was silent for `Limits.peer_forget_seconds` is forgotten.  Who returns after that is
   new: it may hold what was deleted and is no longer known to be, so what it has of a document that
   was here and is not any more counts as deleted, and is offered to it as a copy.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crdt_state.clocks import WallTime
from crdt_state.errors import StoreCorrupt
from crdt_state.storage.contract import PEERS, ClearOutbox, Forget, Sequence, SetMetadata

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.limits import Limits
    from crdt_state.storage.contract import Store

__all__ = ["Peers"]

KEY = "peers"
"""Metadata of the replica: JSON, [when each known peer was last seen, when it was forgotten]."""

PAGE = 1_000

SEEN_AGAIN = 32
"""When a peer was last seen is written down so many times within the time to forget it."""

DECIDED_MAX = 4_096
"""Peers that were forgotten are remembered as such, the last so many."""


class Peers:
    """Known peers, at most `Limits.peers_max`; the one that was silent longest goes first."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._seen: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}

    async def load(self) -> None:
        """Read what is stored.  Raises `StoreError`."""
        value = await self._store.metadata(KEY)
        if value is None:
            return
        try:
            seen, forgotten = json.loads(value)
            self._seen = {str(name): int(at) for name, at in seen.items()}
            self._forgotten = {str(name): int(at) for name, at in forgotten.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreCorrupt(f"the list of peers cannot be read: {error}") from error

    def names(self) -> tuple[str, ...]:
        """Under which names known peers are owed lives."""
        return tuple(self._seen)

    @staticmethod
    def name_of(replica: ReplicaId) -> str:
        """The name of one peer in the outbox."""
        return PEERS + replica.hex()

    async def met(self, replica: ReplicaId, now: WallTime) -> bool:
        """A replica has dialled; whether it was ever forgotten.  Raises `StoreError`."""
        await self.forget_silent(now)
        name = self.name_of(replica)
        before = self._seen.get(name)
        if before is None or now - before >= self._microseconds // SEEN_AGAIN:
            self._seen[name] = now
            while len(self._seen) > self._limits.peers_max:
                await self._forget(min(self._seen, key=self._seen.__getitem__), now)
            await self._keep()
        return name in self._forgotten

    async def passed(self, replica: ReplicaId, document: DocumentId, through: Sequence) -> None:
        """A peer knows which life of a document counts.  Raises `StoreError`."""
        name = self.name_of(replica)
        if name in self._seen:
            await self._store.write([ClearOutbox(name, document, through)])

    async def forget_silent(self, now: WallTime) -> None:
        """Forget who was silent for too long.  Raises `StoreError`."""
        silent = [name for name, at in self._seen.items() if now - at >= self._microseconds]
        for name in silent:
            await self._forget(name, now)
        if silent:
            await self._keep()

    async def bury(self, now: WallTime) -> int:
        """Forget who was silent, and then the tombstones that everybody has passed; how many.

        Raises `StoreError`.
        """
        await self.forget_silent(now)
        before = WallTime(max(0, now - self._microseconds))
        buried = 0
        while page := await self._store.passed_tombstones(before=before, limit=PAGE):
            await self._store.write([Forget(document) for document in page])
            buried += len(page)
        return buried

    @property
    def _microseconds(self) -> int:
        return round(self._limits.peer_forget_seconds * 1_000_000)

    async def _forget(self, name: str, now: WallTime) -> None:
        # Its outbox first: as long as it is on the list, this begins anew after a kill.
        while page := await self._store.outbox(name, limit=PAGE):
            await self._store.write(
                [ClearOutbox(name, entry.document, entry.through) for entry in page]
            )
        self._seen.pop(name, None)
        self._forgotten.pop(name, None)
        self._forgotten[name] = now
        while len(self._forgotten) > DECIDED_MAX:
            del self._forgotten[next(iter(self._forgotten))]

    async def _keep(self) -> None:
        value = json.dumps([self._seen, self._forgotten]).encode()
        await self._store.write([SetMetadata(KEY, value)])
