"""The store of production over a simulated disk.

`SqliteStore` with its queue, its groups, its marks and all of its SQL; only the two threads are
gone.  What they would be asked is carried out on the loop, after a time that a disk might take.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import apsw

from crdt_state.errors import StoreUnavailable
from crdt_state.simulator.disks import File
from crdt_state.simulator.vfs import FaultyVfs
from crdt_state.storage.contract import SetLife
from crdt_state.storage.sidecar import MARK_BYTES
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.storage.sqlite_connection import configure, meaning_of
from crdt_state.storage.sqlite_identity import settle_identity
from crdt_state.storage.sqlite_schema import check_format, migrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence as Many
    from random import Random

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.simulator.disks import Disk
    from crdt_state.storage.contract import Sequence, Write
    from crdt_state.storage.sqlite import Thread
    from crdt_state.storage.sqlite_identity import Identity

__all__ = ["MARK", "STORE", "LifeWatcher", "SimulatedStore", "copied_mark"]

P = ParamSpec("P")
R = TypeVar("R")

STORE = "/store.db"
WAL = STORE + "-wal"
MARK = STORE + "-lock"
TOKEN_BYTES = 16

READ_SECONDS = 0.001
WRITE_SECONDS = 0.02
"""At most so long a call takes to be carried out."""

NUMBER_BYTES = MARK_BYTES - TOKEN_BYTES

_names = itertools.count()


class LifeWatcher(Protocol):
    """Whoever looks when a life of a document ends in a store.  It raises nothing."""

    def is_ending(self, document: DocumentId) -> None:
        """The next commit of this document ends its life, if nothing comes between."""

    def has_ended(self, document: DocumentId) -> None:
        """It has, and that is durable."""


class SimulatedStore(SqliteStore):
    """Made by `on`; over a disk that is off, every call is a `StoreUnavailable`."""

    connection: apsw.Connection
    disk: Disk
    watcher: LifeWatcher | None = None

    @classmethod
    async def on(cls, disk: Disk, *, random: Random, limits: Limits) -> SimulatedStore:
        """Open the store on this disk, made if it is not there.  Raises `StoreError`."""
        connection = _Opened(disk)
        sidecar = _Sidecar(disk, random)
        try:
            identity, is_new = _prepare(connection.raw, disk, sidecar, random=random, limits=limits)
        except apsw.Error as error:
            connection.close()
            raise meaning_of(error, STORE) or StoreUnavailable(str(error)) from error
        except BaseException:
            connection.close()
            raise
        store = cls(
            Path(STORE),
            identity,
            writer=_Turns(connection, random, WRITE_SECONDS),
            reader=_Turns(connection, random, READ_SECONDS),
            sidecar=sidecar,
            is_new_incarnation=is_new,
            random=random,
            limits=limits,
        )
        store.connection = connection.raw
        store.disk = disk
        return store

    async def write(self, writes: Many[Write]) -> Sequence:
        """See `Store`."""
        ended = [write.document for write in writes if isinstance(write, SetLife)]
        for document in ended:
            if self.watcher is not None:
                self.watcher.is_ending(document)
        last = await super().write(writes)
        for document in ended:
            if self.watcher is not None:
                self.watcher.has_ended(document)
        return last

    def wal_bytes(self) -> int:
        """See `SqliteStore`."""
        file = self.disk.names.get(WAL)
        return 0 if file is None else len(file.content)

    async def _start_reader(self) -> Thread:
        return _Borrowed(self._reader)

    def abandon(self) -> None:
        """What is left of it when its process is killed: nothing more is carried out."""
        for turns in (self._reader, self._writer):
            if isinstance(turns, _Turns):
                turns.abandon()


def _prepare(
    connection: apsw.Connection, disk: Disk, sidecar: _Sidecar, *, random: Random, limits: Limits
) -> tuple[Identity, bool]:
    # The index of the log is then in memory: this file system has no shared memory, and there is
    # one connection only.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    check_format(connection)
    configure(connection, limits, is_writer=True)
    migrate(connection)
    disk.sync_folder()
    return settle_identity(connection, sidecar, random)


class _Opened:
    """A connection, and the file system that it has for itself."""

    def __init__(self, disk: Disk) -> None:
        name = f"simulated-{next(_names)}"
        self._vfs: FaultyVfs | None = FaultyVfs(name, disk)
        try:
            self.raw = apsw.Connection(STORE, vfs=name)
        except apsw.Error as error:
            self._vfs.unregister()
            raise meaning_of(error, STORE) or StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """Both end; a second call does nothing."""
        if self._vfs is None:
            return
        with suppress(apsw.Error):
            self.raw.close()
        self._vfs.unregister()
        self._vfs = None


class _Turns:
    """In the place of a thread: calls wait in line, and one is carried out after another.

    As with a thread, a call whose caller has given up is carried out all the same.
    """

    def __init__(self, connection: _Opened, random: Random, seconds_max: float) -> None:
        self._connection = connection
        self._random = random
        self._seconds_max = seconds_max
        self._line: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def call(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        raw = self._connection.raw
        self._line.append((future, lambda: function(raw, *args, **kwargs)))
        self._begin()
        return await future

    async def stop(self) -> None:
        await self.call(lambda _: None)
        self._connection.close()

    def abandon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._line.clear()
        # Not at once: the power may fail in the middle of a statement.
        asyncio.get_running_loop().call_soon(self._connection.close)

    def _begin(self) -> None:
        if self._line and self._timer is None:
            seconds = self._random.uniform(0.0, self._seconds_max)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._carry_out)

    def _carry_out(self) -> None:
        self._timer = None
        future, work = self._line.popleft()
        try:
            result = work()
        except apsw.Error as error:
            _fail(future, meaning_of(error, STORE) or StoreUnavailable(f"{STORE}: {error}"))
        except Exception as error:
            _fail(future, error)
        else:
            if not future.done():
                future.set_result(result)
        self._begin()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class _Borrowed:
    """Another's turns: a connection of its own would find the file locked."""

    def __init__(self, turns: Thread) -> None:
        self.call = turns.call

    async def stop(self) -> None:
        """It is not ours to end."""


class _Sidecar:
    """The mark beside the store, as `storage/sidecar` keeps it: a token, and whose file it is in.

    Here the file itself holds which file it is; whoever restores a backup gives it another.  The
    lock is left out: one process at a time has a simulated disk.
    """

    def __init__(self, disk: Disk, random: Random) -> None:
        self._disk = disk
        self._random = random
        self._file = disk.names.setdefault(MARK, File())

    def mark(self) -> bytes | None:
        return bytes(self._file.content) or None

    def renew(self, token: bytes) -> bytes:
        if self._disk.is_off or self._disk.step():
            raise StoreUnavailable("the power is off")
        number = bytes(self._file.content[TOKEN_BYTES:]) or self._random.randbytes(NUMBER_BYTES)
        self._file.write(token + number, 0)
        self._file.sync()
        return token + number

    def release(self) -> None:
        pass


def copied_mark(mark: bytes, random: Random) -> bytes:
    """What a copy of the file with the mark holds: it is another file."""
    return mark[:TOKEN_BYTES] + random.randbytes(NUMBER_BYTES)
