"""The store's SQL over an apsw connection, without threads: a second engine for the contract.

apsw brings a SQLite of its own, so a file opened here must not be open through `sqlite3` in the
same process (https://sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from crdt_state.errors import DocumentClosed, WriteInvalid
from crdt_state.identifiers import draw_incarnation, draw_replica_id
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.storage.sidecar import MARK_BYTES
from crdt_state.storage.sqlite_connection import checkpoint, configure, meaning_of
from crdt_state.storage.sqlite_identity import (
    Identity,
    begin_incarnation,
    create_identity,
    read_identity,
)
from crdt_state.storage.sqlite_reading import (
    list_overgrown,
    list_passed_tombstones,
    list_summaries,
    read_document,
    read_outbox,
    read_quarantine,
    read_since,
    read_summary,
    read_usage,
    read_value,
)
from crdt_state.storage.sqlite_revisions import read_revisions
from crdt_state.storage.sqlite_schema import migrate
from crdt_state.storage.sqlite_tries import (
    list_heads,
    list_scopes,
    list_undigested,
    read_buckets,
    read_leaves,
    read_nodes,
    read_stale,
)
from crdt_state.storage.sqlite_verifying import (
    find_in_documents,
    find_in_pages,
    find_in_store,
    find_lost_rows,
)
from crdt_state.storage.sqlite_writing import commit_group
from crdt_state.storage.validity import checked_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from collections.abc import Sequence as Many
    from random import Random

    from crdt_state.storage.contract import Finding, Sequence, Write

# What production gets from sqlite3's defaults: no double-quoted strings, no logging on stderr.
NO_MARKS = bytes(MARK_BYTES)


class ApswStore:
    """Synchronous inside; closes like the others, so that the whole suite applies."""

    def __init__(
        self,
        path: str,
        random: Random,
        limits: Limits = DEFAULT_LIMITS,
        *,
        vfs: str | None = None,
        is_copy: bool = False,
    ) -> None:
        self.limits = limits
        self.is_closed = False
        self.is_new_incarnation = False
        self.connection = apsw.Connection(path, vfs=vfs)
        try:
            if vfs is not None:
                # The index of the log is then in memory: the file system under test has no
                # shared memory, and there is one connection only.
                self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            configure(self.connection, limits, is_writer=True)
            migrate(self.connection)
            identity = read_identity(self.connection)
            if identity is None:
                identity = Identity(draw_replica_id(random), draw_incarnation(random), NO_MARKS)
                create_identity(self.connection, identity)
            elif is_copy:
                self.is_new_incarnation = True
                begin_incarnation(self.connection, draw_incarnation(random), NO_MARKS)
                identity = read_identity(self.connection)
                assert identity is not None
        except BaseException:
            self.connection.close()
            raise
        self.replica_id = identity.replica_id
        self.incarnation = identity.incarnation

    def write_now(self, writes: Many[Write]) -> Sequence:
        """One call as a group of its own."""
        checked_bytes(writes, self.limits)
        try:
            outcome = commit_group(self.connection, [tuple(writes)], self.limits)[0]
        except apsw.Error as error:
            raise meaning_of(error, "apsw") or error from error
        if isinstance(outcome, WriteInvalid):
            raise outcome
        return outcome

    def findings_now(self) -> Iterator[Finding]:
        for check in (find_in_pages, find_in_store, find_lost_rows):
            yield from check(self.connection)
        at: int | None = 0
        while at is not None:
            found, at = find_in_documents(self.connection, at, 64)
            yield from found

    async def write(self, writes: Many[Write]) -> Sequence:
        self._check_open()
        return self.write_now(writes)

    async def read(self, document):
        self._check_open()
        return read_document(self.connection, document)

    async def read_since(self, document, after):
        self._check_open()
        return read_since(self.connection, document, after)

    async def metadata(self, key):
        self._check_open()
        return read_value(self.connection, key)

    async def outbox(self, remote, *, after="", limit=None):
        self._check_open()
        return read_outbox(self.connection, remote, after, limit)

    async def quarantine(self, document=None, *, after=0, limit=1_000):
        self._check_open()
        return read_quarantine(self.connection, document, after, limit)

    async def summary(self, document):
        self._check_open()
        return read_summary(self.connection, document)

    async def passed_tombstones(self, *, before, limit):
        self._check_open()
        return list_passed_tombstones(self.connection, before, limit)

    async def list(self, *, prefix="", after="", limit=1_000, with_deleted=False):
        self._check_open()
        return list_summaries(self.connection, prefix, after, limit, with_deleted=with_deleted)

    async def overgrown(self, *, updates, size, limit):
        self._check_open()
        return list_overgrown(self.connection, updates, size, limit)

    async def usage(self, identity):
        self._check_open()
        return read_usage(self.connection, identity)

    async def heads(self, scope, after, *, limit, size):
        self._check_open()
        return list_heads(self.connection, scope, after, limit, size)

    async def scopes(self, *, after=None, limit=1_000):
        self._check_open()
        return list_scopes(self.connection, after, limit)

    async def undigested(self, scope=None, *, after="", limit=1_000):
        self._check_open()
        return list_undigested(self.connection, scope, after, limit)

    async def stale(self, scope):
        self._check_open()
        return read_stale(self.connection, scope)

    async def nodes(self, scope, numbers):
        self._check_open()
        return read_nodes(self.connection, scope, numbers)

    async def buckets(self, scope, numbers):
        self._check_open()
        return read_buckets(self.connection, scope, numbers)

    async def leaves(self, *, prefix="", after="", limit=1_000):
        self._check_open()
        return read_leaves(self.connection, prefix, after, limit)

    async def revisions(self, document):
        self._check_open()
        return read_revisions(self.connection, document)

    async def verify(self) -> AsyncIterator[Finding]:
        self._check_open()
        for finding in self.findings_now():
            yield finding

    async def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            checkpoint(self.connection, "TRUNCATE")
            self.connection.close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise DocumentClosed("closed")
