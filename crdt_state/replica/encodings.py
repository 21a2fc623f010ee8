"""Whole documents as one update each, ready to be sent: what answers a state exchange.

A join storm asks for the same bytes a thousand times, so they are read and merged once, by
whoever asks first, while the others wait for the same answer.  What is appended later is kept
as a tail and merged in when somebody asks again.  Nothing is integrated here: a state is made
from bytes, and from durable rows only, because `appended` is called after the commit.

1. A state holds everything that was durable when it was asked for.
2. What is cached is bounded, in bytes and in documents, by `Limits.encodings_cached_bytes_max`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.replica import worker_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store

__all__ = ["Encodings"]

INLINE_BYTES_MAX = 64 * 1024
"""Below this a merge takes less time than a worker's answer takes to arrive."""

ENTRY_BYTES = 1_024
"""What a document costs the cache beside its state: anybody may ask for a million empty ones."""


class _Encoding:
    """The state of one document: one update, and what came after it."""

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.tail: list[bytes] = []
        self.size = ENTRY_BYTES
        self.lock = asyncio.Lock()


class Encodings:
    """A cache of states, bounded by `Limits.encodings_cached_bytes_max`."""

    def __init__(self, store: Store, workers: Workers, limits: Limits) -> None:
        self._store = store
        self._workers = workers
        self._limits = limits
        self._bytes_max = limits.encodings_cached_bytes_max
        self._cached: OrderedDict[DocumentId, _Encoding] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    async def state(self, document: DocumentId) -> bytes:
        """All that is durable of `document`, as one update."""
        while True:
            encoding = self._encoding_of(document)
            async with encoding.lock:
                # Dropped while this waited, it has not been told of what was appended since.
                if self._cached.get(document) is encoding:
                    return await self._state(document, encoding)

    def _encoding_of(self, document: DocumentId) -> _Encoding:
        encoding = self._cached.get(document)
        if encoding is None:
            encoding = self._cached[document] = _Encoding()
            self._bytes += encoding.size
            self._shrink()
        else:
            self._cached.move_to_end(document)
        return encoding

    async def _state(self, document: DocumentId, encoding: _Encoding) -> bytes:
        try:
            if encoding.state is None:
                # The encoding is in the cache before the read, so that what is committed
                # meanwhile is in its tail; an update that is in both does no harm.
                stored = await self._store.read(document)
                updates = [] if stored is None else stored.updates()
            else:
                updates = [encoding.state]
            tail, encoding.tail = encoding.tail, []
            state = await self._merge([*updates, *tail])
        except BaseException:
            self._drop(document, encoding)
            raise
        encoding.state = state
        if self._cached.get(document) is encoding:
            self._weigh(encoding)
        return state

    async def difference(self, document: DocumentId, state_vector: bytes) -> bytes:
        """What `state_vector` lacks of `document`, with every deletion, as one update."""
        state = await self.state(document)
        if state_vector == EMPTY_VECTOR:
            return state
        if len(state) <= INLINE_BYTES_MAX:
            return worker_jobs.diff(state, state_vector, self._limits)
        return await self._workers.diff(state, state_vector)

    def appended(self, document: DocumentId, updates: Sequence[bytes]) -> None:
        """`updates` have been committed to the log of `document`."""
        encoding = self._cached.get(document)
        if encoding is None:
            return
        encoding.tail.extend(updates)
        grown = sum(map(len, updates))
        encoding.size += grown
        self._bytes += grown
        self._shrink()
        if self._bytes > self._bytes_max:
            self.drop(document)  # the only one left, with a tail that nobody asks for

    def drop(self, document: DocumentId) -> None:
        """Forget a document; its next state is read from the store."""
        encoding = self._cached.get(document)
        if encoding is not None:
            self._drop(document, encoding)

    def _drop(self, document: DocumentId, encoding: _Encoding) -> None:
        if self._cached.get(document) is encoding:
            del self._cached[document]
            self._bytes -= encoding.size

    async def _merge(self, updates: list[bytes]) -> bytes:
        if len(updates) == 1:
            return updates[0]
        if sum(map(len, updates)) <= INLINE_BYTES_MAX:
            return worker_jobs.merge(updates, self._limits)
        return await self._workers.merge(updates)

    def _weigh(self, encoding: _Encoding) -> None:
        size = ENTRY_BYTES + len(encoding.state or b"") + sum(map(len, encoding.tail))
        self._bytes += size - encoding.size
        encoding.size = size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._bytes_max and len(self._cached) > 1:
            _, oldest = self._cached.popitem(last=False)
            self._bytes -= oldest.size
