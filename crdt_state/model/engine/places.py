"""Where a (client id, counter) stands in a text, in bytes.

The engine's own positions count bytes between its blocks and UTF-16 units inside them, so they
are right for ASCII only; and one that names what is not there panics.  So places are found on a
copy, by what an insert next to them says, or by cutting a block at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_state.errors import UpdateMalformed
from crdt_state.lib0 import Reader, encode_varuint
from crdt_state.model.engine.guard import is_panic
from crdt_state.model.engine.updates import loaded
from crdt_state.model.state import decode_state_vector
from crdt_state.model.update import DELETED, HAS_ORIGIN, HAS_RIGHT_ORIGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.model.engine.document import NativeDocument
    from crdt_state.model.ranges import Place

__all__ = ["Places"]


class Places:
    """Those of one text, looked up in a copy that is made anew when the document has changed."""

    __slots__ = ("_document", "_lookup", "_name")

    def __init__(self, document: NativeDocument, name: str) -> None:
        self._document = document
        self._name = name
        # Of which state the copy is, and the copy.
        self._lookup: tuple[int, pycrdt.Doc[Any], pycrdt.Text] | None = None

    def neighbours(self, index: int) -> tuple[Place | None, Place | None]:
        """See `NativeText.neighbours`."""

        def insert_in_copy() -> bytes:
            copy, text = self._copy()
            before = copy.get_state()
            text.insert(index, "x")
            return copy.get_update(before)

        return _origins_of(self._document.call(insert_in_copy))

    def byte_before(self, place: Place) -> int:
        """See `NativeText.byte_before`."""
        return self._find(place, _cut_before)

    def byte_behind(self, place: Place) -> int:
        """See `NativeText.byte_behind`."""
        return self._find(place, _mark_behind)

    def forget(self) -> None:
        """Drop the copy."""
        self._lookup = None

    def _find(
        self, place: Place, find: Callable[[pycrdt.Doc[Any], pycrdt.Text, bytes], int]
    ) -> int:
        client, counter = place
        if counter >= decode_state_vector(self._document.state_vector()).get(client, 0):
            raise UpdateMalformed(f"counter {counter} of client {client} is not held here")
        if self._lookup is None or self._lookup[0] != self._document.committed:
            self._lookup = (self._document.committed, *self._document.call(self._copy))
        _, copy, text = self._lookup
        try:
            return find(copy, text, _encoded(place))
        except BaseException as error:
            self._lookup = None
            if is_panic(error):
                raise UpdateMalformed(f"client {client} wrote nothing at {counter}") from None
            raise

    def _copy(self) -> tuple[pycrdt.Doc[Any], pycrdt.Text]:
        update = self._document.encode()
        copy = loaded(update)
        used = decode_state_vector(copy.get_state())
        if 1 in used:
            unused = next(client for client in range(2, len(used) + 3) if client not in used)
            copy = loaded(update, client_id=unused)
        return copy, copy.get(self._name, type=pycrdt.Text)


def _origins_of(update: bytes) -> tuple[Place | None, Place | None]:
    """What the one struct of `update` says it was inserted between."""
    reader = Reader(update)
    for _ in ("clients", "structs", "client", "counter"):
        reader.varuint()
    info = reader.byte()
    left = (reader.varuint(), reader.varuint()) if info & HAS_ORIGIN else None
    right = (reader.varuint(), reader.varuint()) if info & HAS_RIGHT_ORIGIN else None
    return left, right


def _cut_before(copy: pycrdt.Doc[Any], text: pycrdt.Text, place: bytes) -> int:
    """Let a block begin at `place`, so that nothing of it is counted in units; where it begins."""
    _insert_deleted(copy, HAS_RIGHT_ORIGIN, place)
    return _offset_of(text, place)


def _mark_behind(copy: pycrdt.Doc[Any], text: pycrdt.Text, place: bytes) -> int:
    """Put something deleted, which counts nothing, right behind `place`; where that is."""
    return _offset_of(text, _insert_deleted(copy, HAS_ORIGIN, place))


def _insert_deleted(copy: pycrdt.Doc[Any], has_neighbour: int, neighbour: bytes) -> bytes:
    """Integrate one deleted unit on one side of `neighbour`; its place."""
    # Client 0, because of siblings behind one neighbour the lowest client comes first.
    counter = decode_state_vector(copy.get_state()).get(0, 0)
    place = _encoded((0, counter))
    # One client with one struct, of length 1; no deletes.
    struct = bytes([has_neighbour | DELETED]) + neighbour + b"\x01"
    copy.apply_update(b"\x01\x01" + place + struct + b"\x00")
    return place


def _offset_of(text: pycrdt.Text, place: bytes) -> int:
    return pycrdt.StickyIndex.decode(b"\x00" + place + b"\x00", text).get_index()


def _encoded(place: Place) -> bytes:
    return encode_varuint(place[0]) + encode_varuint(place[1])
