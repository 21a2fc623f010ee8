"""SQLite's view of a simulated disk: a VFS for apsw."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

from crdt_state.simulator.disks import SECTOR_BYTES, Disk, File

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FaultyVfs", "PowerLost", "in_the_dark"]

SYNCS_ITS_FOLDER = (
    apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)


class PowerLost(apsw.IOError):
    """The machine is off."""


@contextmanager
def in_the_dark() -> Iterator[None]:
    """Let SQLite clean up after a loss of power: its calls fail where no exception can go."""
    report = sys.unraisablehook

    def report_others(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, PowerLost):
            report(what)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


class FaultyVfs(apsw.VFS):
    """One disk under a name that `apsw.Connection` can be given as `vfs`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        super().__init__(name, "")

    def xFullPathname(self, name: str) -> str:  # noqa: N802 - SQLite's names
        """A name is its own path."""
        return name

    def xOpen(  # type: ignore[override]  # noqa: N802 - apsw asks for the verbs, not for the class
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> FaultyFile:
        """A file, or a temporary one without a name."""
        _check(self.disk)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = self.disk.names.get(path) if path else File()
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            file = self.disk.names[str(path)] = File()
        flags[1] = flags[0]
        return FaultyFile(self.disk, path, file, flags[0])

    def xAccess(self, path: str, flags: int) -> bool:  # noqa: N802
        """Whether a file is there."""
        _check(self.disk)
        return path in self.disk.names

    def xDelete(self, path: str, sync_folder: bool) -> None:  # noqa: N802
        """Remove a name."""
        is_last = _step(self.disk)
        if path not in self.disk.names:
            raise apsw.IOError(path)
        del self.disk.names[path]
        if is_last:
            raise PowerLost("the power is off")
        if sync_folder:
            self.disk.sync_folder()


class FaultyFile:
    """SQLite's view of one `File`; without shared memory, hence for one exclusive connection."""

    def __init__(self, disk: Disk, path: str | None, file: File, flags: int) -> None:
        self.disk = disk
        self.path = path
        self.file = file
        self.flags = flags
        self.is_new = True

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """Bytes, fewer at the end."""
        _check(self.disk)
        _refuse(self.disk, "read")
        return bytes(self.file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Visible at once, durable with a sync."""
        _refuse(self.disk, "write")
        is_last = _step(self.disk)
        self.file.write(bytes(data), offset)
        if is_last:
            raise PowerLost("the power is off")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        """Change the size."""
        is_last = _step(self.disk)
        self.file.resize(size)
        if is_last:
            raise PowerLost("the power is off")

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Make it durable."""
        _refuse(self.disk, "sync")
        if _step(self.disk):
            raise PowerLost("the power is off")
        self.disk.sync(self.path, self.file)
        if self.is_new and self.flags & SYNCS_ITS_FOLDER:
            self.disk.sync_folder()
            self.is_new = False

    def xFileSize(self) -> int:  # noqa: N802
        """Its size."""
        _check(self.disk)
        return len(self.file.content)

    def xLock(self, level: int) -> None:  # noqa: N802
        """One connection: nobody to keep out."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """One connection: nobody to let in."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        """Nobody else has it."""
        return False

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        """Nothing of it is known here."""
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        """What a disk writes at once."""
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        """Bytes beside a write are not harmed."""
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xClose(self) -> None:  # noqa: N802
        """Closing writes nothing and can be done in the dark."""


def _check(disk: Disk) -> None:
    if disk.is_off:
        raise PowerLost("the power is off")


def _step(disk: Disk) -> bool:
    _check(disk)
    return disk.step()


def _refuse(disk: Disk, what: str) -> None:
    code = disk.refuses.get(what)
    if code is not None:
        raise apsw.exception_for(code)
