"""A disk that forgets: files in memory that know what was synced and what was not.

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

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["SECTOR_BYTES", "Disk", "File"]

SECTOR_BYTES = 512


class _Change(NamedTuple):
    """One write or change of size: `before` at `offset` became `after`, shorter only at an end."""

    offset: int
    before: bytes
    after: bytes


class File:
    """One file: what programs see, and what a loss of power can leave of it."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self._changes: list[_Change] = []

    def write(self, data: bytes, offset: int) -> None:
        """Put `data` at `offset`; what lies between the end and it becomes zeros."""
        content = self.content
        size, end = len(content), offset + len(data)
        start = min(offset, size)
        before = bytes(content[start:end])
        if offset > size:
            content.extend(bytes(offset - size))
        content[offset:end] = data
        after = data if start == offset else bytes(content[start:end])
        self._changes.append(_Change(start, before, after))

    def resize(self, size: int) -> None:
        """Cut, or fill up with zeros."""
        before = len(self.content)
        start = min(size, before)
        lost = bytes(self.content[start:])
        if size < before:
            del self.content[size:]
        else:
            self.content.extend(bytes(size - before))
        self._changes.append(_Change(start, lost, bytes(self.content[start:])))

    def sync(self) -> None:
        """Make durable what is there."""
        self._changes.clear()

    def after_loss(self, random: Random) -> bytes:
        """What is on the platter when the power comes back."""
        state = bytearray(self.content)
        for offset, before, after in reversed(self._changes):
            state[offset : offset + len(after)] = before
        durable = bytes(state)
        sizes = [len(durable)]
        sectors: dict[int, list[bytes]] = {}
        for offset, before, after in self._changes:
            state[offset : offset + len(before)] = after
            if len(before) != len(after):
                sizes.append(len(state))
            end = offset + max(len(before), len(after))
            for number in range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
                at = number * SECTOR_BYTES
                sector = bytes(state[at : at + SECTOR_BYTES]).ljust(SECTOR_BYTES, b"\0")
                sectors.setdefault(number, []).append(sector)
        size = random.choice(sizes)
        left = bytearray(durable[:size].ljust(size, b"\0"))
        # Some losses keep nearly all, some nearly nothing; a fair coin alone would never show
        # a commit that is complete but for one sector.
        luck = random.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        for number, states in sectors.items():
            if random.random() < luck:
                sector = states[-1] if random.random() < 0.7 else random.choice(states)
                at = number * SECTOR_BYTES
                if at < size:
                    left[at : at + SECTOR_BYTES] = sector[: size - at]
        return bytes(left)


class Disk:
    """Files by name, and the step at which the power fails (0: never)."""

    def __init__(self, files: dict[str, bytes] | None = None, *, lost_at: int = 0) -> None:
        self.names: dict[str, File] = {
            name: File(content) for name, content in (files or {}).items()
        }
        self.durable_names = dict(self.names)
        self.lost_at = lost_at
        self.steps = 0
        self.syncs = 0
        self.is_off = False
        self.on_loss: Callable[[], None] | None = None
        """Called within the step in which the power fails."""
        self.refuses: dict[str, int] = {}
        """What a device that is full or ill answers: a result code for "write", "sync", "read"."""
        self.lies_about: str | None = None
        """The end of names whose syncs do nothing: a fault that a test puts in on purpose."""

    def step(self) -> bool:
        """Count one step; whether it is the one that does not end."""
        self.steps += 1
        if self.steps == self.lost_at:
            self.is_off = True
            if self.on_loss is not None:
                self.on_loss()
        return self.is_off

    def sync(self, name: str | None, file: File) -> None:
        """Make a file durable, unless this disk lies about it."""
        self.syncs += 1
        if self.lies_about is None or not str(name).endswith(self.lies_about):
            file.sync()

    def sync_folder(self) -> None:
        """Make names durable."""
        self.durable_names = dict(self.names)

    def after_loss(self, random: Random) -> dict[str, bytes]:
        """The files that are there when the power comes back."""
        left = {}
        for name in sorted({*self.names, *self.durable_names}):
            file = random.choice([self.durable_names.get(name), self.names.get(name)])
            if file is not None:
                left[name] = file.after_loss(random)
        return left

    def after_kill(self) -> dict[str, bytes]:
        """The files that are there when only the process has ended: nothing is lost."""
        return {name: bytes(file.content) for name, file in self.names.items()}
