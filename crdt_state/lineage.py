"""Which life of a document id a replica holds, and which of two counts: pure rules.

A document id lives in one *lineage* after another.  The first is lineage zero, the same everywhere,
so that documents that were born apart from each other under one id merge.  A later one is minted:
16 bytes, of which 8 are a hybrid time in microseconds (big endian) and 8 are random, so that bytes
compare as (time, random).  A *life* is a lineage and whether it was ended by a deletion.

    zero ── edits ── zero, deleted ── re-created ── 0006…a1 ── seeded ── 0006…f3 ── …

1. Lives are totally ordered: the greater lineage is the greater life, and of one lineage the
   deleted life is the greater.  Everybody who meets two of them keeps the greater, so whoever has
   met the same ones holds the same one, in whatever order they came (a join, as of a max register).
2. A deletion ends the lineage that it saw, hence wins over every edit in it; it does not end one
   that was begun beside it, because that is greater.
3. What is minted is greater than every life that its replica has met of that document, whatever the
   clocks say: it takes max(now, time + 1).
4. The contents of two lineages are never merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType, Self

from crdt_state.errors import LimitExceeded
from crdt_state.lib0 import CodingError

if TYPE_CHECKING:
    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import Dice

__all__ = ["BORN", "LINEAGE_BYTES", "LINEAGE_ZERO", "Life", "Lineage"]

Lineage = NewType("Lineage", bytes)
"""16 bytes that name one life of a document id."""

LINEAGE_BYTES: Final = 16
LINEAGE_ZERO: Final = Lineage(bytes(LINEAGE_BYTES))
"""The lineage that every document begins in, the same everywhere."""

TIME_BYTES = 8
TIME_MAX = 2**53 - 1
"""As of stamps; no honest clock comes near it."""

FIRST, ALIVE, DELETED = range(3)


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """One life of a document id; the greater of two is the one that counts."""

    lineage: Lineage = LINEAGE_ZERO
    is_deleted: bool = False

    def deleted(self) -> Life:
        """The same lineage, ended."""
        return Life(self.lineage, is_deleted=True)

    def successor(self, now: WallTime, dice: Dice) -> Life:
        """A new life, greater than this one.

        Raises `LimitExceeded` where no time is left after this one's, which no clock explains.
        """
        time = max(now, self.time + 1)
        if time > TIME_MAX:
            raise LimitExceeded("the time of a lineage", TIME_MAX, time)
        return Life(Lineage(time.to_bytes(TIME_BYTES) + dice.randbytes(TIME_BYTES)))

    @property
    def time(self) -> int:
        """When the lineage was minted, in microseconds of hybrid time; 0 of lineage zero."""
        return int.from_bytes(self.lineage[:TIME_BYTES])

    def encode(self) -> bytes:
        """1 byte, for nearly every document, or 17.

        00 lineage zero · 01 and 16 bytes: that lineage · 02 and 16 bytes: that lineage, deleted
        """
        if self == BORN:
            return bytes([FIRST])
        return bytes([DELETED if self.is_deleted else ALIVE]) + self.lineage

    @classmethod
    def read(cls, data: bytes, at: int) -> tuple[Self, int]:
        """The life that begins at byte `at`, and where it ends.  Raises `CodingError`."""
        kind = data[at] if at < len(data) else -1
        if kind == FIRST:
            return cls(), at + 1
        if kind not in (ALIVE, DELETED):
            raise CodingError(f"has no life of a document at byte {at}")
        end = at + 1 + LINEAGE_BYTES
        life = cls(Lineage(data[at + 1 : end]), is_deleted=kind == DELETED)
        if len(life.lineage) < LINEAGE_BYTES:
            raise CodingError(f"ends inside a lineage at byte {at}")
        if life == BORN or life.time > TIME_MAX:
            raise CodingError(f"has a life at byte {at} that nobody writes so")
        return life, end

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exactly one life.  Raises `CodingError`."""
        life, end = cls.read(data, 0)
        if end != len(data):
            raise CodingError(f"has {len(data) - end} bytes behind a life")
        return life

    def __str__(self) -> str:
        name = "zero" if self.lineage == LINEAGE_ZERO else self.lineage.hex()
        return f"lineage {name}{', deleted' if self.is_deleted else ''}"


BORN: Final = Life()
"""The life that every document begins with."""
