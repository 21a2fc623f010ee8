"""How many structs contest one place, counted in bounded memory.

Yrs and Yjs compare a new struct with all that were put at the same place by authors who did not
know of each other, so that `n` of them cost n²: 5,000 half a second, 40,000 half a minute.  A
place is what stands between a struct's kind and its content: its origins, or its parent and key.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from crdt_state.model.update import GC, SKIP

if TYPE_CHECKING:
    from crdt_state.model.update import Struct

__all__ = ["CROWD_PLACES_MAX", "anchor_of", "crowded", "is_contested", "short_anchor"]

CROWD_PLACES_MAX = 4_096
"""How many contested places are counted at once; see `crowded`."""


def crowded(crowd: dict[bytes, int], anchor: bytes, count: int = 1) -> None:
    """Count `count` more structs at one contested place, in bounded memory.

    The table keeps at most `CROWD_PLACES_MAX` places (Misra and Gries, "Finding Repeated
    Elements", 1982): a place's count is exact until the table first overflows, and after that
    too low by at most the total divided by that number.  It is never too high, so that no
    honest document is refused for it.
    """
    if anchor in crowd or len(crowd) < CROWD_PLACES_MAX:
        crowd[anchor] = crowd.get(anchor, 0) + count
        return
    least = min(count, *crowd.values())
    for place in [place for place, total in crowd.items() if total == least]:
        del crowd[place]
    for place in crowd:
        crowd[place] -= least
    if count > least:
        crowded(crowd, anchor, count - least)


def is_contested(struct: Struct) -> bool:
    """Whether others may have inserted at the same place: not right behind what one just wrote."""
    if struct.kind in (GC, SKIP):
        return False
    return struct.origin != (struct.client, struct.clock - 1)


def anchor_of(update: bytes, struct: Struct) -> bytes:
    """The place at which a struct inserts, as a key of a crowd."""
    return short_anchor(update[struct.at + 1 : struct.content_at])


def short_anchor(anchor: bytes) -> bytes:
    """Places stand in tables: a long key in one must not make the table large."""
    return anchor if len(anchor) <= 32 else blake2b(anchor, digest_size=16).digest()
