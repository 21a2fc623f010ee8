"""A text as the engine has it: in bytes of UTF-8, unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_state.model.engine.container import NativeContainer
from crdt_state.model.engine.kinds import RootKind
from crdt_state.model.engine.places import Places
from crdt_state.model.engine.plain import plain_delta, runs_of

if TYPE_CHECKING:
    from crdt_state.model.engine.document import NativeDocument
    from crdt_state.model.ranges import Place

__all__ = ["NativeText"]


class NativeText(NativeContainer[pycrdt.Text]):
    """A text; every index and length is in bytes of UTF-8, an embedded value counts 1.

    The caller vouches that indexes lie between characters and inside the text: the engine
    does not check, and a wrong one loses text.
    """

    kind = RootKind.TEXT
    shared_type = pycrdt.Text

    def __init__(self, document: NativeDocument, name: str, ordinal: int) -> None:
        super().__init__(document, name, ordinal)
        self._places = Places(document, name)

    def string(self) -> str:
        """The characters, without embedded values."""
        return self._call(lambda: str(self._shared))

    def runs(self) -> list[tuple[Any, dict[str, Any] | None]]:
        """Strings and embedded values with their attributes, adjacent equal ones joined."""
        return self._call(lambda: runs_of(self._shared))

    def insert(self, index: int, text: str, attributes: dict[str, Any] | None = None) -> None:
        """Insert characters; without `attributes` they take those that hold at `index`."""
        self._call(lambda: self._shared.insert(index, text, attributes))

    def insert_embed(
        self, index: int, value: Any, attributes: dict[str, Any] | None = None
    ) -> None:
        """Insert a value that counts 1."""
        self._call(lambda: self._shared.insert_embed(index, value, attributes))

    def delete(self, index: int, length: int) -> None:
        """Delete `length` bytes."""
        self._call(lambda: self._shared.__delitem__(slice(index, index + length)))

    def format(self, index: int, length: int, attributes: dict[str, Any]) -> None:
        """Set attributes over `length` bytes; None takes one away."""
        self._call(lambda: self._shared.format(index, index + length, attributes))

    def neighbours(self, index: int) -> tuple[Place | None, Place | None]:
        """Between which (client id, counter) an insert at byte `index` comes.

        Either may be deleted; None is the beginning or the end of the text.
        """
        return self._places.neighbours(index)

    def byte_before(self, place: Place) -> int:
        """How many bytes lie before `place` now; before where it was, if it is deleted.

        `place` must begin a character.  Raises `UpdateMalformed` where it is nowhere.
        """
        return self._places.byte_before(place)

    def byte_behind(self, place: Place) -> int:
        """How many bytes lie up to the end of `place` now; before where it was, if deleted.

        `place` must end a character.  Raises `UpdateMalformed` where it is nowhere.
        """
        return self._places.byte_behind(place)

    def forget_places(self) -> None:
        """Look places up in a new copy: what was asked for may have torn a character."""
        self._places.forget()

    def release(self) -> None:
        """Let go of the engine's root, and of the copy for places."""
        self._places.forget()
        super().release()

    def _change_of(self, event: Any) -> list[dict[str, Any]]:
        return plain_delta(event)
