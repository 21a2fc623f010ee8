"""A disk that forgets: a SQLite VFS in memory that knows what was synced and what was not.

What the model holds true, after the unix VFS of SQLite and POSIX:

* A write or a change of size is visible at once, and durable only when a later sync of that file
  has completed.  Until then each sector of 512 bytes may be in any state it had since the last
  sync, independently of every other (so writes are dropped, torn and reordered), and so may the
  file's size.  Bytes outside a write are not harmed by it (`IOCAP_POWERSAFE_OVERWRITE`, which
  the unix VFS promises too).
* A new name, or a removed one, is durable only when the folder was synced: SQLite does it with
  the first sync of a new journal or write-ahead log and with a removal that asks for it; our
  shell does it after making a store (`Disk.sync_folder`).
* The power fails at the n-th step; steps are writes, changes of size, syncs and removals.  The
  step it fails in has begun and not ended.  From then on every call is an error.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

SECTOR = 512
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


@dataclass(slots=True)
class File:
    """One file: what programs see, and what a loss of power can leave of it."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    # Every state of a sector, and every size, since the last sync, oldest first.
    sectors: dict[int, list[bytes]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.content):
            self.content.extend(bytes(end - len(self.content)))
            self.sizes.append(end)
        self.content[offset:end] = data
        self._changed(offset, end)

    def resize(self, size: int) -> None:
        before = len(self.content)
        if size < before:
            del self.content[size:]
        else:
            self.content.extend(bytes(size - before))
        self.sizes.append(size)
        self._changed(min(size, before), max(size, before))

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self.sectors.clear()
        self.sizes.clear()

    def after_loss(self, random: Random) -> bytes:
        """What is on the platter when the power comes back."""
        size = random.choice([len(self.durable), *self.sizes])
        left = bytearray(self.durable[:size].ljust(size, b"\0"))
        # Some losses keep nearly all, some nearly nothing; a fair coin alone would never show
        # a commit that is complete but for one sector.
        luck = random.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        for number, states in self.sectors.items():
            if random.random() < luck:
                state = states[-1] if random.random() < 0.7 else random.choice(states)
                at = number * SECTOR
                if at < size:
                    left[at : at + SECTOR] = state[: size - at]
        return bytes(left)

    def _changed(self, start: int, end: int) -> None:
        for number in range(start // SECTOR, (end + SECTOR - 1) // SECTOR):
            at = number * SECTOR
            state = bytes(self.content[at : at + SECTOR]).ljust(SECTOR, b"\0")
            self.sectors.setdefault(number, []).append(state)


class Disk:
    """Files by name, and the step at which the power fails (0: never)."""

    def __init__(self, files: dict[str, bytes] | None = None, *, lost_at: int = 0) -> None:
        self.names: dict[str, File] = {
            name: File(bytearray(content), content) for name, content in (files or {}).items()
        }
        self.durable_names = dict(self.names)
        self.lost_at = lost_at
        self.steps = 0
        self.syncs = 0
        self.is_off = False
        # What a device that is full or ill answers: a result code for "write", "sync", "read".
        self.refuses: dict[str, int] = {}
        # Names whose syncs do nothing: a fault that a test puts in on purpose.
        self.lies_about: str | None = None

    def step(self) -> bool:
        """Count one step; whether it is the one that does not end."""
        self.check()
        self.steps += 1
        self.is_off = self.steps == self.lost_at
        return self.is_off

    def refuse(self, what: str) -> None:
        """Raise what the device answers to this, if it refuses it."""
        code = self.refuses.get(what)
        if code is not None:
            raise apsw.exception_for(code)

    def check(self) -> None:
        if self.is_off:
            raise PowerLost("the power is off")

    def sync_folder(self) -> None:
        self.check()
        self.durable_names = dict(self.names)

    def after_loss(self, random: Random) -> dict[str, bytes]:
        """The files that are there when the power comes back."""
        left = {}
        for name in sorted({*self.names, *self.durable_names}):
            file = random.choice([self.durable_names.get(name), self.names.get(name)])
            if file is not None:
                left[name] = file.after_loss(random)
        return left


class FaultyVfs(apsw.VFS):
    """SQLite's view of a `Disk`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        super().__init__(name, "")

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xOpen(self, name, flags):  # noqa: N802
        self.disk.check()
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = self.disk.names.get(path) if path else File()
        if file is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            file = self.disk.names[path] = File()
        flags[1] = flags[0]
        return FaultyFile(self.disk, path, file, flags[0])

    def xAccess(self, path: str, flags: int) -> bool:  # noqa: N802
        self.disk.check()
        return path in self.disk.names

    def xDelete(self, path: str, sync_folder: bool) -> None:  # noqa: N802
        is_last = self.disk.step()
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
        self.disk.check()
        self.disk.refuse("read")
        return bytes(self.file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.refuse("write")
        is_last = self.disk.step()
        self.file.write(bytes(data), offset)
        if is_last:
            raise PowerLost("the power is off")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        is_last = self.disk.step()
        self.file.resize(size)
        if is_last:
            raise PowerLost("the power is off")

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.refuse("sync")
        if self.disk.step():
            raise PowerLost("the power is off")
        self.disk.syncs += 1
        if self.disk.lies_about is not None and str(self.path).endswith(self.disk.lies_about):
            return
        self.file.sync()
        if self.is_new and self.flags & SYNCS_ITS_FOLDER:
            self.disk.sync_folder()
            self.is_new = False

    def xFileSize(self) -> int:  # noqa: N802
        self.disk.check()
        return len(self.file.content)

    def xLock(self, level: int) -> None:  # noqa: N802
        """One connection: nobody to keep out."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """One connection: nobody to let in."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xClose(self) -> None:  # noqa: N802
        """Closing writes nothing and can be done in the dark."""
