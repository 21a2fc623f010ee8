"""Which of the updates that were brought still wait, in whole or in part, in the pending table.

Whoever brought an update knows the whole of it alone; what waits may be parts.  An update is
known here by its fingerprint, so that what was brought need not be kept.

1. An update waits as long as any of its rows does.
2. When a row leaves the table without having been let in, everybody who brought it can be told.
3. What is kept is bounded: rows and fingerprints together by `Limits.pending_updates_max` each.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING

from crdt_state.errors import UpdateTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Awaited", "Fingerprint", "fingerprint"]

Fingerprint = bytes
"""16 bytes that stand for an update."""


def fingerprint(update: bytes) -> Fingerprint:
    """What an update is known by here."""
    return blake2b(update, digest_size=16).digest()


class Awaited:
    """Rows of one document's pending table, and whose updates they are parts of."""

    def __init__(self, links_max: int) -> None:
        self._links_max = links_max
        self._links: dict[int, dict[Fingerprint, None]] = {}
        self._rows_of: Counter[Fingerprint] = Counter()
        self._count = 0

    def link(self, number: int, wholes: Iterable[Fingerprint]) -> None:
        """These updates wait for row `number`.  Raises `UpdateTooLarge` for too many of them."""
        links = self._links.setdefault(number, {})
        for whole in wholes:
            if whole in links:
                continue
            found = self._count + 1
            if found > self._links_max:
                raise UpdateTooLarge("pending_updates_max", self._links_max, found)
            links[whole] = None
            self._count = found
            self._rows_of[whole] += 1

    def unlink(self, number: int) -> tuple[Fingerprint, ...]:
        """Row `number` has left the table; of whose updates it was a part."""
        wholes = tuple(self._links.pop(number, ()))
        self._count -= len(wholes)
        for whole in wholes:
            self._rows_of[whole] -= 1
            if not self._rows_of[whole]:
                del self._rows_of[whole]
        return wholes

    def waits(self, whole: Fingerprint) -> bool:
        """Whether any of it is in the table."""
        return whole in self._rows_of
