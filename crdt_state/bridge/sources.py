"""Who has submitted what last, so that a resend is known for what it is.

A source has one operation in flight, so of each the last is enough.  The table outlives the
revisions it names: a client that returns after weeks resends what was acknowledged to nobody.

**What is forgotten.**  Beyond `Limits.revision_sources_max` whoever has not submitted anything for
longest.  `forgotten` is the greatest number that was forgotten so.  An operation is given a number
above its base; so of a source that is not known, what was made on `forgotten` or later has never
been applied.  What was made earlier may have been, and where the log does not tell, it is in doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Last", "Sources"]


class Last(NamedTuple):
    """The last operation of one source: its sequence, and the revision that it became."""

    source: str
    sequence: int
    number: int


class Sources:
    """The last of each source, by the order of their numbers."""

    __slots__ = ("_last", "forgotten", "most")

    def __init__(self, entries: Iterable[Last], forgotten: int, most: int) -> None:
        self.forgotten = forgotten
        self.most = most
        self._last: dict[str, Last] = {}
        for entry in entries:
            self.record(entry)

    def record(self, last: Last) -> None:
        """Remember `last` as the last of its source; numbers rise from call to call."""
        self._last.pop(last.source, None)
        self._last[last.source] = last
        if len(self._last) > self.most:
            oldest = self._last.pop(next(iter(self._last)))
            self.forgotten = max(self.forgotten, oldest.number)

    def last_of(self, source: str) -> Last | None:
        """What is known of `source`."""
        return self._last.get(source)

    def copy(self) -> Sources:
        """The same, to go on from."""
        return Sources(self, self.forgotten, self.most)

    def __iter__(self) -> Iterator[Last]:
        return iter(self._last.values())
