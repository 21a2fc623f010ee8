"""The history of a simulation, and one hash over all of it.

Everything that happens is hashed, every byte of every message included; what a person would want
to read is kept as well, the latest of it.  The same plan gives the same hash in every process.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Trace"]

LINES_MAX = 2_000


class Trace:
    """Notes with their time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._hash = hashlib.sha256()
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self.events = 0

    def note(self, what: str, *details: str | int | bytes) -> None:
        """Something has happened; bytes are hashed, and kept as their length."""
        self.events += 1
        head = f"{self._time():.6f} {what}"
        self._hash.update(head.encode())
        shown = [head]
        for detail in details:
            if isinstance(detail, bytes):
                self._hash.update(detail)
                shown.append(f"{len(detail)} B")
            else:
                self._hash.update(b"\0" + str(detail).encode())
                shown.append(str(detail))
        self._lines.append(" ".join(shown))

    @property
    def digest(self) -> str:
        """The hash so far, in hexadecimal."""
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """The last notes, oldest first."""
        return list(self._lines)
