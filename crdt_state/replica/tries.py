"""The tries of a replica's scopes: what they are digests of, kept current, shown and mended.

A commit makes its documents undigested and does no more.  Before a scope's root is shown, what
is undigested is read, integrated by workers, and written as leaves with the nodes above them, a
bounded batch in one write each.

1. What `settle` returns after, the trie covers everything that was durable when it was called.
2. Leaves and the nodes above them are written together: no kill leaves one without the other.
3. A document that cannot be integrated is set aside and has no leaf; nor has one that is deleted,
   which its remembered end (a tombstone) keeps from coming back.  The others do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from crdt_state.errors import EngineFailed, StoreCorrupt, UpdateRefused, WorkerFailed
from crdt_state.merkle import trie
from crdt_state.merkle.hashes import EMPTY_NODE, ROOT, bucket_of, leaf_of, root_hash
from crdt_state.merkle.store import ReadBuckets, ReadNodes, WriteNodes
from crdt_state.replica.document_core import SET_ASIDE
from crdt_state.storage.contract import ForgetDigests, SetLeaf, SetNodes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from crdt_state.identifiers import DocumentId, Scope
    from crdt_state.merkle.hashes import Entry
    from crdt_state.merkle.store import Step, Steps
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store

__all__ = ["Tries"]

T = TypeVar("T")

BATCH = 256
"""Documents digested for one write."""

AT_ONCE = 4
"""Documents that are in the hands of workers."""


class Tries:
    """Over a store; `set_aside` is told which documents harm whoever opens them, and why."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        *,
        set_aside: Callable[[DocumentId, str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._workers = workers
        self._set_aside = set_aside
        self._settling = asyncio.Lock()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def settle(self, scope: Scope) -> None:
        """Digest what has changed in a scope.  Raises `StoreError`, `WorkerFailed`.

        What is written while this runs may be left for the next time.
        """
        async with self._settling:
            after = ""
            while True:
                documents = await self._store.undigested(scope, after=after, limit=BATCH)
                stale = await self._store.stale(scope)
                if not documents and not stale.buckets:
                    return
                digested = await asyncio.gather(*map(self._digest, documents))
                leaves = [leaf for leaf in digested if leaf is not None]
                await self._write(scope, leaves, stale.buckets, stale.through)
                if not documents:
                    return
                after = documents[-1]

    async def root(self, scope: Scope) -> bytes:
        """32 bytes that are equal where the documents are.  Raises `StoreError`."""
        nodes = await self._store.nodes(scope, (ROOT,))
        return root_hash(nodes.get(ROOT, EMPTY_NODE))

    async def run(self, scope: Scope, steps: Steps[T]) -> T:
        """Carry out what only reads, over the trie as it is stored.  Raises `StoreError`."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._read(scope, step))
        except StopIteration as end:
            result: T = end.value
            return result

    async def mend(self, scope: Scope) -> int:
        """Compare every node with the leaves below it, and store what is not as it should be.

        How many nodes that was.  Raises `StoreError`.
        """
        async with self._settling:
            stale = await self._store.stale(scope)
            right = await self.run(scope, trie.verify())
            await self._store.write([SetNodes(scope, right, stale.through)])
        return len(right)

    async def forget(self) -> None:
        """Take every leaf and node away, so that all is digested anew.  Raises `StoreError`."""
        async with self._settling:
            await self._store.write([ForgetDigests()])

    # --- private -----------------------------------------------------------------------------

    async def _digest(self, document: DocumentId) -> SetLeaf | None:
        """A document's leaf; None where it has gone meanwhile."""
        bucket = bucket_of(document)
        async with self._at_once:
            try:
                stored = await self._store.read(document)
            except StoreCorrupt:
                # Damage, which `verify` names; the last sequence is in a row of its own.
                summary = await self._store.summary(document)
                return None if summary is None else SetLeaf(document, summary.last, bucket, None)
            if stored is None:
                return None
            if SET_ASIDE in stored.metadata or stored.life.is_deleted:
                return SetLeaf(document, stored.last, bucket, None)
            try:
                digests = await self._workers.digest(stored.updates())
            except (EngineFailed, UpdateRefused, WorkerFailed) as error:
                if isinstance(error, WorkerFailed) and not error.is_by_document:
                    raise
                await self._set_aside(document, f"digesting it failed: {error}")
                return SetLeaf(document, stored.last, bucket, None)
        leaf = leaf_of(document, digests.deep_digest, stored.life.lineage)
        return SetLeaf(document, stored.last, bucket, leaf)

    async def _write(
        self, scope: Scope, leaves: Sequence[SetLeaf], stale: Sequence[int], mark: int
    ) -> None:
        by_bucket: dict[int, dict[DocumentId, bytes | None]] = {number: {} for number in stale}
        for each in leaves:
            by_bucket.setdefault(each.bucket, {})[each.document] = each.leaf
        nodes: dict[int, bytes] = {}
        steps = trie.update(by_bucket)
        try:
            step = next(steps)
            while True:
                if isinstance(step, WriteNodes):
                    nodes.update(step.nodes)
                    step = steps.send(None)
                else:
                    found = await self._read(scope, step)
                    if isinstance(step, ReadBuckets):
                        found = {
                            n: _with_leaves(found.get(n, ()), by_bucket[n]) for n in step.numbers
                        }
                    step = steps.send(found)
        except StopIteration:
            pass
        await self._store.write([*leaves, SetNodes(scope, nodes, mark)])

    async def _read(self, scope: Scope, step: Step) -> Any:
        if isinstance(step, ReadNodes):
            return await self._store.nodes(scope, step.numbers)
        if isinstance(step, ReadBuckets):
            return await self._store.buckets(scope, step.numbers)
        raise AssertionError("only an update writes nodes")


def _with_leaves(
    stored: Sequence[Entry], new: dict[DocumentId, bytes | None]
) -> list[tuple[DocumentId, bytes]]:
    """Entries of a bucket as they will be."""
    entries: dict[DocumentId, bytes] = {**dict(stored)}
    for document, leaf in new.items():
        entries.pop(document, None)
        if leaf is not None:
            entries[document] = leaf
    return list(entries.items())
