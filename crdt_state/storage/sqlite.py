"""The store of production: one SQLite file, one writer, one reader.

A shell.  What is written is in sqlite_writing.py, what is read in sqlite_reading.py; here are
the threads (one for each connection, aiosqlite's), the queue before the writer, and the file's
opening and closing.

1. A group is everything that arrived while the commit before it ran.  There is no timer: a call
   that meets an idle writer is committed at once.
2. Calls are carried out in the order in which they came, those that had to wait for room in the
   queue included.
3. A call that has entered the queue is carried out whole, whether or not its caller still waits.
   One that is cancelled before there was room for it is not carried out at all.
4. Readers never wait for the writer: they have their own connection and thread.
5. Nothing is kept in memory for a document.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import aiosqlite

from crdt_state.errors import (
    DocumentClosed,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    WriteInvalid,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.storage.sidecar import Sidecar
from crdt_state.storage.sqlite_connection import checkpoint, configure, meaning_of
from crdt_state.storage.sqlite_identity import (
    Identity,
    read_identity,
    renew_marks,
    settle_identity,
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
from crdt_state.storage.sqlite_schema import (
    MIGRATIONS,
    SQLITE_VERSION_MIN,
    check_format,
    migrate,
)
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
    from collections.abc import AsyncIterator, Callable
    from collections.abc import Sequence as Many
    from random import Random

    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId, Scope
    from crdt_state.storage.contract import (
        Buckets,
        Entry,
        Finding,
        Heads,
        OutboxEntry,
        QuarantineEntry,
        Sequence,
        StaleBuckets,
        StoredDocument,
        StoredLeaf,
        StoredRevisions,
        Summary,
        Usage,
        Write,
    )
    from crdt_state.storage.sidecar import Marked
    from crdt_state.storage.sqlite_connection import Connection

__all__ = ["SqliteStore", "Thread"]

P = ParamSpec("P")
T = TypeVar("T")

DOCUMENTS_VERIFIED_AT_ONCE = 64


class Thread(Protocol):
    """A connection, and where what is done with it is carried out, one call after another."""

    async def call(
        self,
        function: Callable[Concatenate[Any, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `function` with the connection; a cancelled wait does not stop it.

        Raises `StoreError` for what SQLite answers.
        """

    async def stop(self) -> None:
        """Close the connection and end."""


class SqliteStore:
    """A store in one SQLite file; make one with `await SqliteStore.open(path, random=...)`."""

    def __init__(
        self,
        path: Path,
        identity: Identity,
        *,
        writer: Thread | None,
        reader: Thread,
        sidecar: Marked | None,
        is_new_incarnation: bool,
        random: Random,
        limits: Limits,
    ) -> None:
        self.path = path
        self._identity = identity
        self._writer = writer
        self._reader = reader
        self._sidecar = sidecar
        self._is_new_incarnation = is_new_incarnation
        self._random = random
        self._limits = limits
        self._queue = _Queue(limits)
        self._writing: asyncio.Task[None] | None = None
        self._is_closing = False
        self._closed: asyncio.Task[None] | None = None
        self._wal_bytes_tolerated = limits.wal_bytes_before_checkpoint

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        random: Random,
        limits: Limits = DEFAULT_LIMITS,
        read_only: bool = False,
    ) -> SqliteStore:
        """Open the store at `path`, made if it is not there; its folder must exist.

        `random` draws ids and marks; give it entropy outside of tests.  With `read_only` the
        store may be open elsewhere, is never made, changed or migrated, and `write` is refused.

        Raises `StoreInUse`, `StoreTooNew`, `StoreCorrupt`, `StoreUnavailable`.
        """
        if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
            needed = ".".join(map(str, SQLITE_VERSION_MIN))
            raise StoreUnavailable(
                f"this Python has SQLite {sqlite3.sqlite_version}; {needed} or later is needed"
            )
        place = _one_name(path)
        if read_only:
            return await cls._open_beside(place, random, limits)
        sidecar = Sidecar(place)
        writer: Thread | None = None
        try:
            writer = await _Thread.start(place, limits, is_writer=True)
            await writer.call(migrate)
            await writer.call(_sync_folder, place)
            identity, is_new = await writer.call(settle_identity, sidecar, random)
            reader = await _Thread.start(place, limits, is_writer=False)
        except BaseException:
            if writer is not None:
                await asyncio.shield(writer.stop())
            sidecar.release()
            raise
        return cls(
            place,
            identity,
            writer=writer,
            reader=reader,
            sidecar=sidecar,
            is_new_incarnation=is_new,
            random=random,
            limits=limits,
        )

    @classmethod
    async def _open_beside(cls, place: Path, random: Random, limits: Limits) -> SqliteStore:
        reader = await _Thread.start(place, limits, is_writer=False)
        try:
            identity = await reader.call(_read_settled_identity, place)
        except BaseException:
            await asyncio.shield(reader.stop())
            raise
        return cls(
            place,
            identity,
            writer=None,
            reader=reader,
            sidecar=None,
            is_new_incarnation=False,
            random=random,
            limits=limits,
        )

    @property
    def replica_id(self) -> ReplicaId:
        """Who this replica is."""
        return self._identity.replica_id

    @property
    def incarnation(self) -> Incarnation:
        """Which life of the replica this is."""
        return self._identity.incarnation

    @property
    def is_new_incarnation(self) -> bool:
        """Whether this opening found a copied or restored file."""
        return self._is_new_incarnation

    # --- writing -----------------------------------------------------------------------------

    async def write(self, writes: Many[Write]) -> Sequence:
        """Carry out all of `writes` or none; return the greatest sequence after it."""
        self._check_open()
        if self._writer is None:
            raise StoreUnavailable(f"{self.path} is open for reading only")
        size = checked_bytes(writes, self._limits)
        call = _Call(writes, size, asyncio.get_running_loop().create_future())
        self._queue.enter(call)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_groups(self._writer))
        try:
            return await call.outcome
        except asyncio.CancelledError:
            self._queue.leave(call)
            raise

    async def _write_groups(self, writer: Thread) -> None:
        while group := self._queue.next_group():
            try:
                outcomes, wal_bytes = await writer.call(
                    _commit, self.wal_bytes, [call.writes for call in group], self._limits
                )
            except asyncio.CancelledError:
                # Only the end of the event loop does this; the thread finishes the group, and
                # nobody is left to hear of it.
                for call in group:
                    call.outcome.cancel()
                raise
            except Exception as error:
                for call in group:
                    call.fail(_same_again(error))
            else:
                for call, outcome in zip(group, outcomes, strict=True):
                    if isinstance(outcome, WriteInvalid):
                        call.fail(outcome)
                    elif not call.outcome.done():
                        call.outcome.set_result(outcome)
                if wal_bytes > self._wal_bytes_tolerated:
                    await self._checkpoint(writer, wal_bytes)

    async def _checkpoint(self, writer: Thread, wal_bytes: int) -> None:
        """Move the log into the database; a reader that holds it back makes the next one later.

        An error is not the business of any caller: what was committed is in the log, and the
        next group meets the same disk.
        """
        step = self._limits.wal_bytes_before_checkpoint
        with suppress(StoreError):
            if await writer.call(checkpoint):
                self._wal_bytes_tolerated = step
                return
        self._wal_bytes_tolerated = wal_bytes + step

    def wal_bytes(self) -> int:
        """Bytes in the write-ahead log; called on the writer's thread."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    # --- reading -----------------------------------------------------------------------------

    async def read(self, document: DocumentId) -> StoredDocument | None:
        """A whole document, or None where there is none."""
        return await self._read_of(document, read_document, document)

    async def read_since(self, document: DocumentId, after: Sequence) -> tuple[Entry, ...]:
        """The log of `document` behind `after`, as far as it has not been folded."""
        return await self._read_of(document, read_since, document, after)

    async def metadata(self, key: str) -> bytes | None:
        """One value of the replica."""
        return await self._read(read_value, key)

    async def outbox(
        self, remote: str, *, after: str = "", limit: int | None = None
    ) -> tuple[OutboxEntry, ...]:
        """What `remote` is not known to hold behind `after`, in the order of ids."""
        return await self._read(read_outbox, remote, after, limit)

    async def quarantine(
        self, document: DocumentId | None = None, *, after: int = 0, limit: int = 1_000
    ) -> tuple[QuarantineEntry, ...]:
        """What was set aside behind `after`, of one document or of all, oldest first."""
        return await self._read(read_quarantine, document, after, limit)

    async def summary(self, document: DocumentId) -> Summary | None:
        """One line about a document that is not deleted."""
        return await self._read_of(document, read_summary, document)

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000, with_deleted: bool = False
    ) -> tuple[Summary, ...]:
        """Lines about documents with this prefix behind `after`, in the order of ids."""
        return await self._read(list_summaries, prefix, after, limit, with_deleted=with_deleted)

    async def passed_tombstones(self, *, before: WallTime, limit: int) -> tuple[DocumentId, ...]:
        """Documents deleted before then, owed to nobody, with nothing set aside; oldest first."""
        return await self._read(list_passed_tombstones, before, limit)

    async def overgrown(self, *, updates: int, size: int, limit: int) -> tuple[DocumentId, ...]:
        """Documents whose log passes `updates` entries or `size` bytes, most bytes first."""
        return await self._read(list_overgrown, updates, size, limit)

    async def usage(self, identity: str) -> Usage:
        """What the documents that `identity` created take up; nothing where there are none."""
        return await self._read(read_usage, identity)

    async def heads(self, scope: Scope, after: Sequence, *, limit: int, size: int) -> Heads:
        """Documents of a scope with something behind `after`, and what it is."""
        return await self._read(list_heads, scope, after, limit, size)

    async def scopes(self, *, after: Scope | None = None, limit: int = 1_000) -> tuple[Scope, ...]:
        """Scopes that have had a leaf, in their order."""
        return await self._read(list_scopes, after, limit)

    async def undigested(
        self, scope: Scope | None = None, *, after: str = "", limit: int = 1_000
    ) -> tuple[DocumentId, ...]:
        """Documents of a scope, or of all, whose leaf is not of all they hold, by id."""
        return await self._read(list_undigested, scope, after, limit)

    async def stale(self, scope: Scope) -> StaleBuckets:
        """Buckets of a scope that have lost a leaf since their nodes were set."""
        return await self._read(read_stale, scope)

    async def nodes(self, scope: Scope, numbers: Many[int]) -> dict[int, bytes]:
        """Nodes of a scope's trie by number."""
        return await self._read(read_nodes, scope, numbers)

    async def buckets(self, scope: Scope, numbers: Many[int]) -> Buckets:
        """Ids and leaves by number of the bucket."""
        return await self._read(read_buckets, scope, numbers)

    async def leaves(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000
    ) -> tuple[StoredLeaf, ...]:
        """Leaves of documents with this prefix behind `after`, in the order of ids."""
        return await self._read(read_leaves, prefix, after, limit)

    async def revisions(self, document: DocumentId) -> StoredRevisions | None:
        """The revisions of a document's text, or None where it has never been revised."""
        return await self._read_of(document, read_revisions, document)

    async def verify(self) -> AsyncIterator[Finding]:
        """Read everything and yield what does not hold, on a connection of its own."""
        self._check_open()
        thread = await self._start_reader()
        try:
            for check in (find_in_pages, find_in_store, find_lost_rows):
                for finding in await thread.call(check):
                    yield finding
            at: int | None = 0
            while at is not None:
                found, at = await thread.call(find_in_documents, at, DOCUMENTS_VERIFIED_AT_ONCE)
                for finding in found:
                    yield finding
        finally:
            await asyncio.shield(thread.stop())

    async def _start_reader(self) -> Thread:
        """A connection beside the two that are always there."""
        return await _Thread.start(self.path, self._limits, is_writer=False)

    async def _read(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._check_open()
        return await self._reader.call(function, *args, **kwargs)

    async def _read_of(
        self,
        document: DocumentId,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read, and name the document when the damage is below the rows."""
        try:
            return await self._read(function, *args, **kwargs)
        except StoreCorrupt as error:
            if error.document is not None:
                raise
            raise StoreCorrupt(f"{document!r}: {error}", document=document) from error

    # --- the end -----------------------------------------------------------------------------

    async def close(self) -> None:
        """Carry out what was asked before, then let go of the file; calling it again waits."""
        self._is_closing = True
        if self._closed is None:
            self._closed = asyncio.create_task(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
        try:
            if self._writer is not None and self._sidecar is not None:
                await self._writer.call(_leave, self._sidecar, self._random)
        finally:
            await self._reader.stop()
            if self._writer is not None:
                await self._writer.stop()
            if self._sidecar is not None:
                self._sidecar.release()

    def _check_open(self) -> None:
        if self._is_closing:
            raise DocumentClosed(f"the store {self.path} is closed; open it again")


class _Call:
    """One call of `write` on its way to the disk."""

    __slots__ = ("outcome", "size", "writes")

    def __init__(self, writes: Many[Write], size: int, outcome: asyncio.Future[Sequence]) -> None:
        # A copy, because the caller may go on using its list before the group is written.
        self.writes = tuple(writes)
        self.size = size
        self.outcome = outcome

    def fail(self, error: Exception) -> None:
        """Tell the caller, if it is still there."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class _Queue:
    """Calls before the writer, bounded in writes and bytes; those without room wait in line.

    The line holds only calls whose callers still wait, so it is bounded by them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: deque[_Call] = deque()
        self._line: dict[_Call, None] = {}
        self._writes = 0
        self._bytes = 0

    def enter(self, call: _Call) -> None:
        """Into the queue, or behind the others in the line."""
        if self._line or not self._has_room(call):
            self._line[call] = None
        else:
            self._admit(call)

    def leave(self, call: _Call) -> None:
        """Out of the line; who is in the queue stays."""
        self._line.pop(call, None)

    def next_group(self) -> list[_Call]:
        """Take the calls of the next group; empty when there are none."""
        group: list[_Call] = []
        writes = size = 0
        while self._calls:
            call = self._calls[0]
            writes += len(call.writes)
            size += call.size
            if group and (
                writes > self._limits.group_writes_max or size > self._limits.group_bytes_max
            ):
                break
            group.append(self._calls.popleft())
            self._writes -= len(call.writes)
            self._bytes -= call.size
        self._fill()
        return group

    def _fill(self) -> None:
        while self._line:
            call = next(iter(self._line))
            if not self._has_room(call):
                return
            del self._line[call]
            self._admit(call)

    def _has_room(self, call: _Call) -> bool:
        # An empty queue takes anything: a call larger than the bounds goes alone.
        return not self._calls or (
            self._writes + len(call.writes) <= self._limits.store_queue_writes_max
            and self._bytes + call.size <= self._limits.store_queue_bytes_max
        )

    def _admit(self, call: _Call) -> None:
        self._calls.append(call)
        self._writes += len(call.writes)
        self._bytes += call.size


class _Thread:
    """A connection and the thread that it lives on."""

    def __init__(self, path: Path, limits: Limits, *, is_writer: bool) -> None:
        self._path = path
        self._limits = limits
        self._is_writer = is_writer
        self._raw: sqlite3.Connection | None = None
        self._failure: sqlite3.Error | StoreError | None = None
        self._connection = aiosqlite.Connection(self._connect, iter_chunk_size=64)
        # A program that ends without closing its store must end, not wait for this thread for
        # ever.  A commit that is cut off so is the same as one cut off by a kill.
        self._connection._thread.daemon = True  # noqa: SLF001 - no other way to say it

    @classmethod
    async def start(cls, path: Path, limits: Limits, *, is_writer: bool) -> _Thread:
        """Open the file on a new thread."""
        thread = cls(path, limits, is_writer=is_writer)
        await thread._connection
        failure = thread._failure
        if failure is not None:
            await thread.stop()
            if isinstance(failure, StoreError):
                raise type(failure)(f"{path}: {failure}") from failure
            raise thread._meaning_of(failure) from failure
        return thread

    def _connect(self) -> sqlite3.Connection:
        # When opening raises, aiosqlite lets its thread go without waiting for it; so the error
        # is kept, and the thread gets an empty connection that can be closed in good order.
        try:
            self._raw = self._open()
        except (sqlite3.Error, StoreError) as error:
            self._failure = error
            return sqlite3.connect(":memory:")
        return self._raw

    def _open(self) -> sqlite3.Connection:
        address = f"{self._path.as_uri()}?mode={'rwc' if self._is_writer else 'ro'}"
        raw = sqlite3.connect(address, uri=True, isolation_level=None)
        try:
            # Before anything is changed: switching to WAL already writes.
            check_format(raw)
            configure(raw, self._limits, is_writer=self._is_writer)
        except BaseException:
            raw.close()
            raise
        return raw

    async def call(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `function` with the connection on its thread; a cancelled wait does not stop it."""
        assert self._raw is not None  # noqa: S101 - set by `start`
        try:
            # aiosqlite offers single statements; a group must be one piece on the thread.
            result: T = await self._connection._execute(  # type: ignore[no-untyped-call]  # noqa: SLF001
                function, self._raw, *args, **kwargs
            )
        except sqlite3.Error as error:
            raise self._meaning_of(error) from error
        return result

    async def stop(self) -> None:
        """Close the connection and end the thread."""
        await self._connection.close()

    def _meaning_of(self, error: Exception) -> StoreError:
        return meaning_of(error, str(self._path)) or StoreUnavailable(f"{self._path}: {error}")


# --- on the threads --------------------------------------------------------------------------


def _commit(
    connection: Connection,
    wal_bytes: Callable[[], int],
    calls: list[tuple[Write, ...]],
    limits: Limits,
) -> tuple[list[Sequence | WriteInvalid], int]:
    """Commit a group; also the bytes in the write-ahead log."""
    return commit_group(connection, calls, limits), wal_bytes()


def _read_settled_identity(connection: sqlite3.Connection, path: Path) -> Identity:
    version = check_format(connection)
    identity = read_identity(connection) if version else None
    if version < len(MIGRATIONS) or identity is None:
        raise StoreUnavailable(
            f"{path} has not been opened for writing by this version yet; do that once first"
        )
    return identity


def _leave(connection: Connection, sidecar: Marked, random: Random) -> None:
    """Renew the mark, so that a backup made while the store was open is known as one."""
    renew_marks(connection, sidecar, random)
    checkpoint(connection, "TRUNCATE")


def _one_name(path: str | os.PathLike[str]) -> Path:
    """Resolve links: two names of one file must meet the same lock."""
    return Path(path).resolve()


def _sync_folder(_: Connection, path: Path) -> None:
    """Make the file's name durable; where folders cannot be synced, the system does it."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _same_again(error: Exception) -> Exception:
    """One error for each caller: a shared one would collect the tracebacks of all of them."""
    again = copy(error)
    again.__cause__ = error
    return again
