"""How often a thing that happens again and again is worth a line of the log.

1. Of one subject there is one line in `QUIET_SECONDS`, and it says how many it stands for.
2. There are never more than `SUBJECTS_MAX` subjects: peers choose them.  What finds no place is
   counted, and the next line says so; so the log's rate is bounded whoever comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from crdt_state.clocks import Instant

__all__ = ["Reported", "Sparing"]

QUIET_SECONDS = 60.0
SUBJECTS_MAX = 256


class Reported(NamedTuple):
    """A line that is to be written, and what it stands for."""

    again: int
    """How many times the same happened since its last line."""
    others: int
    """How many times something happened, since any line, of which there was no line at all."""


class Sparing:
    """Which of many occurrences are reported."""

    def __init__(self) -> None:
        # In the order of their lines, so the oldest is first.
        self._subjects: dict[Hashable, tuple[Instant, int]] = {}
        self._others = 0

    def report(self, subject: Hashable, now: Instant) -> Reported | None:
        """Note that it happened; what to report, or None when there is to be no line."""
        known = self._subjects.get(subject)
        if known is not None:
            written, again = known
            if now - written < QUIET_SECONDS:
                self._subjects[subject] = (written, again + 1)
                return None
            del self._subjects[subject]
            return self._written(subject, now, again)
        if len(self._subjects) >= SUBJECTS_MAX and not self._forget_oldest(now):
            self._others += 1
            return None
        return self._written(subject, now, 0)

    def _written(self, subject: Hashable, now: Instant, again: int) -> Reported:
        self._subjects[subject] = (now, 0)
        others, self._others = self._others, 0
        return Reported(again, others)

    def _forget_oldest(self, now: Instant) -> bool:
        oldest = next(iter(self._subjects))
        written, again = self._subjects[oldest]
        if now - written < QUIET_SECONDS:
            return False
        del self._subjects[oldest]
        self._others += again
        return True
