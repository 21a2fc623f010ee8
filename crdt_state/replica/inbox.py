"""What has arrived for one document and is not decided yet, in order.

Updates that one source brings without a break are one run: its author is looked at once, and
admission takes them together.  A large update is a run of its own, because deciding about it
takes two steps.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.replica.admission import Author

__all__ = ["LARGE_BYTES", "Inbox", "Run"]

LARGE_BYTES = 16 * 1024
"""What is larger is a run of its own."""

COST = 64
"""What deciding about the smallest update costs, in bytes that could be read meanwhile."""


class Run:
    """Updates of one source; `name` is `name_of` its author."""

    __slots__ = ("author", "is_large", "name", "size", "source", "updates")

    def __init__(self, source: int, author: Author, name: str, update: bytes) -> None:
        self.source = source
        self.author = author
        self.name = name
        self.updates = [update]
        self.size = len(update)
        self.is_large = self.size > LARGE_BYTES


class Inbox:
    """Runs, oldest first.  `size` counts the bytes of their updates."""

    def __init__(self) -> None:
        self.size = 0
        self._runs: deque[Run] = deque()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def add(self, source: int, author: Author, update: bytes, name: str) -> None:
        """Put an update behind all others."""
        size = len(update)
        self.size += size
        if self._runs and size <= LARGE_BYTES:
            last = self._runs[-1]
            if last.source == source and not last.is_large:
                last.updates.append(update)
                last.size += size
                return
        self._runs.append(Run(source, author, name, update))

    @property
    def first(self) -> Run:
        """The oldest run."""
        return self._runs[0]

    def affordable(self, effort: int) -> int:
        """How many updates of the oldest run `effort` bytes pay for; at least one."""
        run = self._runs[0]
        if run.is_large or run.size + COST * len(run.updates) <= effort:
            return len(run.updates)
        count = cost = 0
        while cost < effort:
            cost += len(run.updates[count]) + COST
            count += 1
        return count

    def drop(self, count: int) -> int:
        """Let go of the oldest `count` updates of the oldest run; what deciding them cost."""
        run = self._runs[0]
        if count == len(run.updates):
            self._runs.popleft()
            size = run.size
        else:
            size = sum(map(len, run.updates[:count]))
            del run.updates[:count]
            run.size -= size
        self.size -= size
        return min(size, LARGE_BYTES) if run.is_large else size + COST * count
