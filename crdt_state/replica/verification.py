"""Reads every document again, a few at a time, and compares it with what was digested of it.

A leaf is of the deep digest, which also covers live content, so this finds what no checksum and no
state vector shows: bits that have changed together with their checksum.  A finding is told to the
witness; nothing is changed.  What two replicas hold otherwise under one client id and counter is
found where they compare (`transport/scope_catch_up`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import CrdtStateError, EngineFailed, StoreCorrupt, StoreError, UpdateRefused
from crdt_state.merkle.hashes import leaf_of
from crdt_state.storage.contract import SetMetadata

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.replica.witness import Witness
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store, StoredLeaf

__all__ = ["Verification", "unsoundness"]

KEY = "verified"
"""Metadata of the replica: the id of the document that was read last."""

AT_ONCE = 64


class Verification:
    """Goes round and round through the documents of a store."""

    def __init__(self, store: Store, workers: Workers, limits: Limits, witness: Witness) -> None:
        self._store = store
        self._workers = workers
        self._limits = limits
        self._witness = witness

    async def run(self) -> None:
        """Read on for ever, at the pace of `Limits.verification_seconds`."""
        while True:
            await asyncio.sleep(self._limits.verification_seconds)
            try:
                await self.read_some()
            except StoreError as error:
                self._witness.store_failed(error)
            except CrdtStateError:
                pass  # no worker to be had; the next time goes on from the same place

    async def read_some(self) -> int:
        """Read the next documents that have been digested; how many.

        0 at the end of a round.  Raises `StoreError`, and `WorkerFailed` where none can be had.
        """
        at = (await self._store.metadata(KEY) or b"").decode()
        leaves = await self._store.leaves(after=at, limit=AT_ONCE)
        for leaf in leaves:
            found = await unsoundness(leaf, self._store, self._workers)
            if found is not None:
                self._witness.unsound(leaf.document, found)
        at = leaves[-1].document if leaves else ""
        await self._store.write([SetMetadata(KEY, at.encode())])
        return len(leaves)


async def unsoundness(leaf: StoredLeaf, store: Store, workers: Workers) -> str | None:
    """What is wrong with a document that was digested, or None.

    Raises `StoreError` but for damage, and `WorkerFailed`.
    """
    try:
        stored = await store.read(leaf.document)
    except StoreCorrupt as error:
        return str(error)
    if stored is None or stored.last != leaf.through:
        return None  # it has changed since, and will be digested anew
    try:
        digests = await workers.digest(stored.updates())
    except (EngineFailed, UpdateRefused) as error:
        return f"it can no longer be integrated: {error}"
    if leaf_of(leaf.document, digests.deep_digest, stored.life.lineage) != leaf.leaf:
        return "it no longer holds what it held when it was digested: what is stored has decayed"
    return None
