"""A place in a text that stays where it is while others edit: what a cursor is made of.

A position sticks to one character, the one before it or the one after it, and its bytes are
Yjs's relative position (`Y.encodeRelativePosition`), so that it can travel in awareness and be
read by an editor in a browser.  When its character is deleted it is where that character was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crdt_state.errors import UpdateMalformed
from crdt_state.lib0 import CodingError, Reader, encode_string, encode_varuint

__all__ = ["Position", "Side"]


class Side(Enum):
    """Which neighbour a position sticks to: what decides when somebody inserts right there."""

    BEFORE = "before"
    """The character before: text inserted at the position comes behind it."""

    AFTER = "after"
    """The character after: text inserted at the position comes in front of it."""


@dataclass(frozen=True, slots=True)
class Position:
    """`encoded` is what `Y.decodeRelativePosition` reads.

        varuint 0, varuint client id, varuint counter, varint association    at a character
        varuint 1, string name of the root, varint association               at its begin or end

    The association is 0 for "after" and -1 for "before".  Associations are written in one byte;
    where it is missing, as older programs have it, it is 0.
    """

    encoded: bytes

    @classmethod
    def at(cls, root: str, side: Side, place: tuple[int, int] | None) -> Position:
        """The position that sticks to the UTF-16 unit `place`, or to an end of `root`."""
        association = _ASSOCIATION[side]
        if place is None:
            return cls(b"\x01" + encode_string(root) + association)
        client, counter = place
        return cls(b"\x00" + encode_varuint(client) + encode_varuint(counter) + association)

    def parts(self) -> tuple[str | None, Side, tuple[int, int] | None]:
        """The root or the unit it sticks to, and its side.  Raises `UpdateMalformed`."""
        reader = Reader(self.encoded)
        root, place = None, None
        try:
            match reader.varuint():
                case 0:
                    place = reader.varuint(), reader.varuint()
                case 1:
                    root = reader.string()
                case _:
                    raise UpdateMalformed("a position in a nested container is not one of a text")
            association = b"\x00" if reader.is_done() else bytes([reader.byte()])
            reader.finish()
        except CodingError as error:
            raise UpdateMalformed(f"not a position: {error}") from None
        # lib0's varint keeps the sign in bit 6 of its first byte.
        return root, Side.BEFORE if association[0] & 0x40 else Side.AFTER, place


_ASSOCIATION = {Side.AFTER: b"\x00", Side.BEFORE: b"\x41"}
