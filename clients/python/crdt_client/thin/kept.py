"""What a thin client writes down: a file for each document, and one for its own name.

    <folder>/name             the client's id, by which a server knows its older connections
    <folder>/<hash>.thin      document id: string; then what `ThinDocument.export` wrote
    <folder>-lock             held by the one process that has the folder

The hash is the first 32 digits of the SHA-256 of the document id: ids may be longer than a file's
name, and some systems do not tell capitals from small letters.

1. A file is replaced as a whole: it is what it was, or what it is to be, after whatever happens.
2. What `kept` has returned for is on the disk, name and content.
3. Files are written one after another, in the order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from crdt_state.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from crdt_state.identifiers import DocumentId
from crdt_state.lib0 import CodingError, Reader, encode_string
from crdt_state.storage.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Keeper"]

NAME_FILE: Final = "name"
SUFFIX: Final = ".thin"
HASH_DIGITS: Final = 32


class Keeper:
    """The files of one client, from `begin` to `end`."""

    def __init__(self, folder: Path) -> None:
        self.last_error: StoreError | None = None
        """Why the last writing failed; it is tried again with the next."""
        self._folder = folder.absolute()
        self._lock: Sidecar | None = None
        # One thread, so that nothing older is ever written over something newer.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thin client")
        self._changed: dict[DocumentId, Callable[[], bytes]] = {}
        self._asked = 0
        """How often something has changed, ..."""
        self._kept = 0
        """... and through which of these it is on the disk."""
        self._writing: asyncio.Task[None] | None = None

    async def begin(self, name: str) -> str:
        """Take the folder; the name that is kept in it, which is `name` if there was none.

        Raises `StoreInUse`, `StoreCorrupt` and `StoreUnavailable`.
        """
        try:
            return await self._in_thread(lambda: self._open(name))
        except StoreError:
            self._release()
            raise

    async def load(self, document: DocumentId) -> bytes | None:
        """What was kept of a document.  Raises `StoreCorrupt` and `StoreUnavailable`."""
        return await self._in_thread(lambda: self._read(document))

    async def documents(self) -> list[DocumentId]:
        """Of which documents something is kept, sorted."""
        return await self._in_thread(self._list)

    def changed(self, document: DocumentId, export: Callable[[], bytes]) -> None:
        """Write a document soon, as `export` gives it when its turn has come."""
        self._changed[document] = export
        self._asked += 1
        self._write_soon()

    async def kept(self) -> None:
        """Return when everything that has changed by now is on the disk.

        Raises `StoreFull` and `StoreUnavailable`; it is tried again with the next.
        """
        through = self._asked
        while self._kept < through:
            await asyncio.shield(self._write_soon())

    async def end(self) -> None:
        """Write what there is, and let another process have the folder.  Raises as `kept`."""
        try:
            await self.kept()
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._thread.shutdown(wait=False)

    # --- in the background -----------------------------------------------------------------------

    def _write_soon(self) -> asyncio.Task[None]:
        # One that is done may not have been seen to be: to wait for it would not even yield.
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="thin client's files")
            self._writing.add_done_callback(self._has_written)
        return self._writing

    def _has_written(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # Raised to whoever waits; whoever does not finds it here.
        self.last_error = error if isinstance(error, StoreError) else None

    async def _write(self) -> None:
        while self._changed:
            through, changed = self._asked, self._changed
            self._changed = {}
            files = {self._path(each): _content(each, export) for each, export in changed.items()}
            try:
                await self._in_thread(partial(self._replace_all, files))
            except StoreError:
                self._changed = changed | self._changed
                raise
            self._kept = through

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except OSError as error:
            kind = StoreFull if error.errno == errno.ENOSPC else StoreUnavailable
            raise kind(f"{self._folder}: {error.strerror or error}") from error

    # --- in the thread ---------------------------------------------------------------------------

    def _open(self, name: str) -> str:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = Sidecar(self._folder)
        path = self._folder / NAME_FILE
        with suppress(FileNotFoundError):
            try:
                return path.read_bytes().decode("ascii")
            except UnicodeDecodeError:
                raise StoreCorrupt(f"{path} holds no name; take it away for a new one") from None
        self._replace_all({path: name.encode("ascii")})
        return name

    def _path(self, document: DocumentId) -> Path:
        digest = hashlib.sha256(document.encode()).hexdigest()
        return self._folder / (digest[:HASH_DIGITS] + SUFFIX)

    def _read(self, document: DocumentId) -> bytes | None:
        path = self._path(document)
        try:
            found, rest = _parted(path)
        except FileNotFoundError:
            return None
        if found != document:
            raise StoreCorrupt(f"{path} is of {found!r}", document=document)
        return rest

    def _list(self) -> list[DocumentId]:
        return sorted(_parted(path)[0] for path in self._folder.glob("*" + SUFFIX))

    def _replace_all(self, files: dict[Path, bytes]) -> None:
        for path, content in files.items():
            beside = path.with_name(path.name + ".new")
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        with suppress(OSError):  # where folders cannot be synced, the system does it
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _content(document: DocumentId, export: Callable[[], bytes]) -> bytes:
    return encode_string(document) + export()


def _parted(path: Path) -> tuple[DocumentId, bytes]:
    data = path.read_bytes()
    reader = Reader(data)
    try:
        name = reader.string()
    except CodingError as error:
        raise StoreCorrupt(f"{path} is damaged: it {error}") from None
    return DocumentId(name), data[reader.at :]
