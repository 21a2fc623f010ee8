"""What the next key press of somebody who goes on typing looks like, byte by byte.

Most updates of a busy document are the next character right behind the last one of the same
client: all bytes but the character are known beforehand.  Comparing them costs a fraction of
reading them, and proves the same.  A stroke is a prediction and nothing else: where it fails,
the update is read in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.lib0 import encode_varuint

if TYPE_CHECKING:
    from crdt_state.model.inspect import Typing

__all__ = ["STROKE_KEY", "Stroke"]

STROKE_KEY = slice(2, 7)
"""The bytes of an update under which its stroke is looked up: where its client id begins.

Two clients may share them, and short client ids miss; both only cost the prediction.
"""


class Stroke:
    """One client's; `end` is the counter that it will write next."""

    __slots__ = ("_behind", "_digits", "_front", "_middle", "client", "end", "prefix")

    def __init__(self, typing: Typing) -> None:
        client = encode_varuint(typing.client)
        self.client = typing.client
        self.end = typing.end
        self._front = b"\x01\x01" + client
        self._digits = encode_varuint(typing.end)
        if typing.right_origin is None:
            self._middle, self._behind = b"\x84" + client, b""
        else:
            other, counter = typing.right_origin
            self._middle = b"\xc4" + client
            self._behind = encode_varuint(other) + encode_varuint(counter)
        self.prefix = b""
        self._predict(encode_varuint(typing.end - 1))

    def copy(self) -> Stroke:
        """An independent prediction of the same."""
        other = Stroke.__new__(Stroke)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def units(self, update: bytes) -> int:
        """How many characters this update adds as predicted, or 0 where it is something else."""
        prefix = self.prefix
        if not update.startswith(prefix):
            return 0
        at = len(prefix)
        size = len(update) - at - 2
        # One byte says the length, the last says that nothing is deleted.
        if not 0 < size < 0x80 or update[at] != size or update[-1]:
            return 0
        if size == 1:
            return 1 if update[at + 1] < 0x80 else 0
        return size if update[at + 1 : -1].isascii() else 0

    def advance(self, units: int) -> None:
        """Go on behind the characters that `units` counted."""
        self.end = end = self.end + units
        last = self._digits if units == 1 else encode_varuint(end - 1)
        # Two bytes is what counters mostly take.
        if 0x80 <= end < 0x4000:
            self._digits = bytes((end & 0x7F | 0x80, end >> 7))
        else:
            self._digits = encode_varuint(end)
        self._predict(last)

    def _predict(self, last: bytes) -> None:
        self.prefix = self._front + self._digits + self._middle + last + self._behind
