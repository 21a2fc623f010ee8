"""The file beside the store: `<file>-lock`, which holds its lock and its mark.

**Lock.**  One process per store.  The lock is the operating system's (`flock`; on Windows a
locked byte), so that it ends with the process however it dies, and a second opening in the same
process meets it too.  The file itself stays where it is: removing it would let two processes
hold "the" lock at once.  SQLite's own locks cannot do this, because readers beside a running
server are welcome.

**Mark.**  A replica that is copied, or restored from a backup, must not go on under the same
incarnation: two lives would give the same names to different things.  A mark is

    token         16 random bytes, renewed whenever the store is opened and closed
    inode         8 bytes, little endian   } of this file; zero where not yet known
    change time   8 bytes, little endian   }

The token is in this file, the whole mark also inside the database.  They disagree when

* the database was copied elsewhere: there is no file beside it;
* an earlier database was put back over this one: its token is of an earlier opening;
* both files were copied together: a copy has another inode, and no program can set a file's
  change time (on Windows: creation time), only the system's clock can.

What this cannot see is a whole disk or virtual machine set back to an earlier state, or a
database put back after a crash that was copied during that same run; a replica learns of these
when a peer has seen more of it than it holds.  Mistakes go the safe way: renaming this file, or
changing its owner, also begins a new incarnation, which costs one full exchange.

While the mark is being renewed the database names both, first the new token without inode and
time; so a kill at any moment leaves a pair that agrees.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from crdt_state.errors import StoreInUse, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["MARK_BYTES", "Marked", "Sidecar", "agrees", "bare", "draw_token"]

TOKEN_BYTES = 16
MARK_BYTES = TOKEN_BYTES + 8 + 8
UNKNOWN = bytes(16)
HEADER = b"crdt-state lock 1\n"
CONTENT_BYTES_MAX = 4_096
LOCKED_BYTE = 1 << 30
"""Windows refuses to read a locked byte, so it is far behind the content."""


def agrees(marks: bytes, mark: bytes | None) -> bool:
    """Whether `mark`, found beside the database, is one of the `marks` in it."""
    if mark is None:
        return False
    for at in range(0, len(marks), MARK_BYTES):
        known = marks[at : at + MARK_BYTES]
        if known == mark or known == mark[:TOKEN_BYTES] + UNKNOWN:
            return True
    return False


class Marked(Protocol):
    """What carries a store's mark beside it."""

    def mark(self) -> bytes | None:
        """The mark as it stands, or None where there is none."""

    def renew(self, token: bytes) -> bytes:
        """Put a new token on the disk; the mark that it makes."""

    def release(self) -> None:
        """Let another opening have the store."""


class Sidecar:
    """The lock file of one store, held from `__init__` to `release`.

    Raises `StoreInUse` when it is held already, `StoreUnavailable` when it cannot be made.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(store.name + "-lock")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(
                f"{self.path}: cannot be made or opened ({error.strerror}); the store's folder "
                f"must exist and be writable"
            ) from error
        try:
            _lock(self._file)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._file)
            raise StoreInUse(
                f"{store} is already open{holder}, and a file has one user at a time: close it "
                f"there, or open another file and let both connect to one server; `crdt-state "
                f"list`, `show` and `dump` read beside whoever has it open"
            ) from None
        except OSError as error:
            os.close(self._file)
            raise StoreUnavailable(
                f"{self.path}: cannot be locked ({error.strerror}); put the store on a local disk"
            ) from error

    def mark(self) -> bytes | None:
        """The mark as it stands, or None where there is none."""
        content = self._content()
        if not content.startswith(HEADER):
            return None
        token = content[len(HEADER) : len(HEADER) + 2 * TOKEN_BYTES]
        try:
            raw = bytes.fromhex(token.decode("ascii"))
        except ValueError:
            return None
        if len(raw) != TOKEN_BYTES:
            return None
        status = os.fstat(self._file)
        inode = status.st_ino % 2**64
        return raw + inode.to_bytes(8, "little") + status.st_ctime_ns.to_bytes(8, "little")

    def renew(self, token: bytes) -> bytes:
        """Put a new token on the disk; the mark that it makes."""
        content = HEADER + token.hex().encode() + b"\n" + str(os.getpid()).encode() + b"\n"
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, content)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)
        mark = self.mark()
        if mark is None:
            raise StoreUnavailable(f"{self.path}: what was written cannot be read back")
        return mark

    def release(self) -> None:
        """Let go of the lock.  The file stays."""
        os.close(self._file)

    def _content(self) -> bytes:
        os.lseek(self._file, 0, os.SEEK_SET)
        return os.read(self._file, CONTENT_BYTES_MAX)

    def _holder(self) -> str:
        lines = self._content().split(b"\n")
        if len(lines) > 2 and lines[2].isdigit():
            return f" in process {lines[2].decode()}"
        return ""


def draw_token(random: Random) -> bytes:
    """A token for the next mark."""
    return random.randbytes(TOKEN_BYTES)


def bare(token: bytes) -> bytes:
    """The mark of a token whose inode and change time are not known yet."""
    return token + UNKNOWN


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
