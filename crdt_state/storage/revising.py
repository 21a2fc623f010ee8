"""Where the revisions of a text stand, and what may follow: judged alike by every engine.

Numbers alone are looked at.  What was stored is a `Position`, or None where there is none, or none
that can be trusted: a position that is damaged is in nobody's way, because only a floor can follow,
and that begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import FoldOutdated, WriteInvalid
from crdt_state.storage.checksums import checksum

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId, Incarnation
    from crdt_state.storage.contract import Fold, KeepText, Revise, Sequence

__all__ = ["Position", "check_fold", "check_text", "follow"]


@dataclass(frozen=True, slots=True)
class Position:
    """From which number to which revisions are stored, and through where they are of the log."""

    floor: int
    last: int
    """The floor where nothing is above it."""
    through: Sequence
    incarnation: Incarnation
    """In which the floor was written."""

    def checksum(self, document: DocumentId) -> int:
        """What is stored beside it."""
        numbers = f"{self.floor} {self.last}".encode()
        return checksum("revised", document, self.through, numbers, self.incarnation)


def follow(
    write: Revise, before: Position | None, through: Sequence | None, incarnation: Incarnation
) -> Position:
    """The position after `write`; `through` is its last sequence, None where there is none.

    Raises `WriteInvalid`.
    """
    document = write.document
    if through is None:
        raise WriteInvalid(
            f"there is no document {document!r} whose text could have revisions; append to it "
            f"first, or set a value of it"
        )
    last = 0 if before is None else before.last
    if write.floor is not None:
        if before is not None and write.floor_number < before.floor:
            raise WriteInvalid(
                f"the revisions of {document!r} have their floor at {before.floor}, which cannot "
                f"go back to {write.floor_number}; read them again"
            )
        floor, last = write.floor_number, max(write.floor_number, last)
    elif before is not None:
        floor, incarnation = before.floor, before.incarnation
    else:
        raise WriteInvalid(f"{document!r} has no revisions yet; give their floor with the first")
    if write.first != last + 1:
        raise WriteInvalid(
            f"the revisions of {document!r} go on with {last + 1}, not with {write.first}; "
            f"read them again"
        )
    return Position(floor, last + len(write.revisions), through, incarnation)


def check_text(write: KeepText, before: Position | None) -> None:
    """Raises `WriteInvalid` for the text of anything but the last revision."""
    if before is None:
        raise WriteInvalid(f"{write.document!r} has no revisions beside which to keep a text")
    if write.number != before.last:
        raise WriteInvalid(
            f"the last revision of {write.document!r} is {before.last}, not {write.number}; "
            f"keep the text that it led to"
        )


def check_fold(write: Fold, before: Position | None, *, has_text: bool) -> None:
    """Raises `FoldOutdated` where a fold takes away what revisions are still to be made of."""
    if before is not None and write.through > before.through and not has_text:
        raise FoldOutdated(
            f"{write.document!r} cannot be folded through {write.through}: its revisions stand for "
            f"its log through {before.through}; revise it, or keep its text, and fold then"
        )
