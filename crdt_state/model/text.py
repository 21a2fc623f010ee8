"""Text in code points, over an engine that counts bytes and checks nothing.

Every index and value is checked before anything happens: a bad one raises `IndexOutOfRange` or
`ValueNotStorable`, and nothing has changed.  An embedded value (an image, a mention) counts 1.

The index from code points to bytes is a copy of the text (`CodePoints`) that follows one's own
edits as they are made.  What others change is followed by their deltas while somebody observes;
otherwise the copy is dropped and read anew when it is next needed, because the engine walks the
whole text to compute one delta.

1. Before and after each public call the copy, where there is one, equals the engine's text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from crdt_state.errors import IndexOutOfRange, UpdateMalformed, UsageError, ValueNotStorable
from crdt_state.model.code_points import EMBED, CodePoints, byte_length
from crdt_state.model.container import Container, Event
from crdt_state.model.engine import NativeText
from crdt_state.model.positions import Position, Side
from crdt_state.model.values import to_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crdt_state.model.container import Cause

__all__ = ["Delete", "Delta", "Insert", "Retain", "Text", "TextEvent"]

_BMP_LAST = "\uffff"

Attributes: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Retain:
    """Go over `count` code points; `attributes` are set on them, None takes one away."""

    count: int
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert characters (a string) or one embedded value (anything else)."""

    content: Any
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete `count` code points."""

    count: int


Delta: TypeAlias = "tuple[Retain | Insert | Delete, ...]"
"""A change from the front to the back; what it does not mention stays.  The shape of Quill's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEvent(Event):
    """One transaction's change of one text, in code points."""

    delta: Delta


class Text(Container[NativeText, TextEvent]):
    """A text that many people write at once; exactly the Yjs text of that name.

    It has the feel of a string: `len`, `str`, `in`, slices to read; `insert`, `append`,
    `delete`, `replace` and assignment to slices to write.
    """

    kind = "text"
    follows_always = False

    # Set once the text has been read; None when what it copied may have changed.
    _copied: CodePoints | None = None
    # The text before the transaction in progress, kept while somebody observes.
    _before: CodePoints | None = None
    _before_number = 0

    # --- reading

    def __len__(self) -> int:
        return self._points().length

    def __str__(self) -> str:
        """The characters, without embedded values."""
        return str(self._points()).replace(EMBED, "")

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __getitem__(self, key: int | slice) -> str:
        """Characters by code points as in a string; an embedded value gives no character."""
        points = self._points()
        if isinstance(key, slice):
            start, end, step = key.indices(points.length)
            if step == 1:
                return points.slice(start, end).replace(EMBED, "")
            return str(points)[key].replace(EMBED, "")
        index = key + points.length if key < 0 else key
        if not 0 <= index < points.length:
            raise IndexOutOfRange("index", key, points.length - 1)
        return points.slice(index, index + 1).replace(EMBED, "")

    def runs(self) -> tuple[Insert, ...]:
        """The content with its formatting: the shortest list of inserts that makes this text."""
        return tuple(Insert(content, attributes) for content, attributes in self._native.runs())

    # --- writing

    def insert(self, index: int, text: str, attributes: Attributes | None = None) -> None:
        """Insert `text` before code point `index`.

        Without `attributes` it takes those that hold at `index`; with them it has exactly
        those.  Raises `IndexOutOfRange`, `ValueNotStorable`.
        """
        points = self._points()
        _check_index(index, points.length)
        _check_text(text)
        given = self._attributes(attributes)
        if text:
            with self._owner.transaction():
                self._keep(points)
                self._native.insert(points.byte_of(index), text, given)
                points.insert(index, text)

    def append(self, text: str, attributes: Attributes | None = None) -> None:
        """Insert `text` at the end."""
        self.insert(len(self), text, attributes)

    def insert_embed(self, index: int, value: Any, attributes: Attributes | None = None) -> None:
        """Insert a value that counts 1: an image, a mention; not a string.

        Raises `IndexOutOfRange`, `ValueNotStorable`.
        """
        points = self._points()
        _check_index(index, points.length)
        stored = self._embed(value)
        given = self._attributes(attributes)
        with self._owner.transaction():
            self._keep(points)
            self._native.insert_embed(points.byte_of(index), stored, given)
            points.insert(index, EMBED)

    def delete(self, index: int, count: int = 1) -> None:
        """Delete `count` code points from `index` on.  Raises `IndexOutOfRange`."""
        points = self._points()
        _check_range(index, count, points.length)
        if count:
            with self._owner.transaction():
                self._keep(points)
                start = points.byte_of(index)
                self._native.delete(start, points.byte_of(index + count) - start)
                points.delete(index, count)

    def replace(
        self, index: int, count: int, text: str, attributes: Attributes | None = None
    ) -> None:
        """Put `text` in the place of `count` code points, in one transaction."""
        _check_range(index, count, len(self))
        _check_text(text)
        self._attributes(attributes)
        with self._owner.transaction():
            # Inserted first: so it takes the formatting of what it replaces.
            self.insert(index + count, text, attributes)
            self.delete(index, count)

    def clear(self) -> None:
        """Delete everything."""
        self.delete(0, len(self))

    def format(self, index: int, count: int, attributes: Attributes) -> None:
        """Set attributes on `count` code points; a value of None takes the attribute away.

        Raises `IndexOutOfRange`, `ValueNotStorable`.
        """
        points = self._points()
        _check_range(index, count, points.length)
        given = self._attributes(attributes)
        if count and given:
            with self._owner.transaction():
                self._keep(points)
                start = points.byte_of(index)
                self._native.format(start, points.byte_of(index + count) - start, given)

    def edit(self, delta: Iterable[Retain | Insert | Delete]) -> None:
        """Carry out a whole delta in one transaction.

        It is checked from end to end first.  Raises `IndexOutOfRange`, `ValueNotStorable`.
        """
        operations = tuple(delta)
        self._check_delta(operations)
        with self._owner.transaction():
            at = 0
            for operation in operations:
                at = self._carry_out(operation, at)

    def __setitem__(self, key: int | slice, text: str) -> None:
        start, count = self._range(key)
        self.replace(start, count, text)

    def __delitem__(self, key: int | slice) -> None:
        start, count = self._range(key)
        self.delete(start, count)

    # --- positions

    def position(self, index: int, side: Side = Side.AFTER) -> Position:
        """A place that stays where it is while the text changes around it.

        Raises `IndexOutOfRange`.
        """
        points = self._points()
        _check_index(index, points.length)
        left, right = self._native.neighbours(points.byte_of(index))
        return Position.at(self.name, side, left if side is Side.BEFORE else right)

    def index_of(self, position: Position) -> int:
        """Where a position is now, in code points.

        A position of another text of this document gives any index.  Raises `UpdateMalformed`
        for bytes that are no position, or one of another document or of the future.
        """
        points = self._points()
        root, side, place = position.parts()
        if place is None:
            if root != self.name:
                raise UpdateMalformed(f"a position of root {root!r}, not of {self.name!r}")
            return 0 if side is Side.BEFORE else points.length
        native = self._native
        byte = native.byte_behind(place) if side is Side.BEFORE else native.byte_before(place)
        index = points.point_of_byte(min(byte, points.byte_of(points.length)))
        if side is Side.AFTER and points.slice(index - 1, index) > _BMP_LAST:
            # Perhaps a foreign program stuck it to the second half of that character.
            native.forget_places()
        return index

    # --- following

    def observe(self, callback: Callable[[TextEvent], None]) -> Callable[[], None]:
        """Call `callback(event)` after each transaction that changed this; return the off switch.

        It may read and write.  What it raises comes out of the transaction as
        `ObserversFailed`, after everybody has been called.
        """
        # Deltas tell what changed in bytes of the text before: so that has to be known.
        self._points()
        return super().observe(callback)

    def changed(self, change: Any, cause: Cause) -> TextEvent | None:
        """Follow a committed change, and say it in code points."""
        points = self._copied
        if points is None:
            raise UsageError("a text that is observed lost its copy; this is a defect")
        if cause.is_local and not cause.is_undo:
            before, self._before = self._before, None
            delta = _in_code_points(change, points if before is None else before)
        else:
            delta = _in_code_points(change, points)
            _follow(points, delta)
        if not delta:
            # Written and taken back in one transaction.
            return None
        return TextEvent(delta=delta, is_local=cause.is_local, origin=cause.origin)

    def forget(self) -> None:
        """Drop the copy, unless deltas keep it true."""
        if not self._is_following:
            self._copied = None

    # --- private

    def _points(self) -> CodePoints:
        if self._copied is None:
            self._copied = CodePoints(self._read())
        return self._copied

    def _read(self) -> str:
        text = self._native.string()
        if byte_length(text) == len(self._native):
            return text
        return "".join(
            content if isinstance(content, str) else EMBED for content, _ in self._native.runs()
        )

    def _keep(self, points: CodePoints) -> None:
        """Before the first write of a transaction: what its delta will be counted in."""
        if self._is_following and self._before_number != self._owner.transactions_begun:
            self._before_number = self._owner.transactions_begun
            self._before = points.copy()

    def _attributes(self, attributes: Attributes | None) -> dict[str, Any] | None:
        if attributes is None:
            return None
        stored = to_stored(dict(attributes), limits=self._owner.limits, path="attributes")
        return dict(stored)

    def _embed(self, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueNotStorable("value", "an embedded value is not a string: insert it as text")
        return to_stored(value, limits=self._owner.limits)

    def _range(self, key: int | slice) -> tuple[int, int]:
        """Where a key of an assignment begins and how long it is, strictly inside the text."""
        length = len(self)
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise UsageError("a text is written at consecutive characters: use a step of 1")
            start = _from_end(0 if key.start is None else key.start, length)
            end = _from_end(length if key.stop is None else key.stop, length)
            _check_index(end, length)
            _check_index(start, length)
            return start, max(0, end - start)
        start = _from_end(key, length)
        _check_range(start, 1, length)
        return start, 1

    def _check_delta(self, operations: Iterable[object]) -> None:
        left = length = len(self)
        for operation in operations:
            match operation:
                case Retain(count, attributes):
                    self._attributes(attributes)
                case Delete(count):
                    pass
                case Insert(content, attributes):
                    self._attributes(attributes)
                    if isinstance(content, str):
                        _check_text(content)
                    else:
                        self._embed(content)
                    continue
                case _:
                    raise UsageError(f"{operation!r} is not part of a delta")
            if not 0 <= count <= left:
                raise IndexOutOfRange("end of the delta", length - left + count, length)
            left -= count

    def _carry_out(self, operation: Retain | Insert | Delete, at: int) -> int:
        """Carry out one checked operation at `at`; where the next one begins."""
        match operation:
            case Retain(count, attributes):
                if attributes:
                    self.format(at, count, attributes)
                return at + count
            case Delete(count):
                self.delete(at, count)
                return at
            case Insert(str() as text, attributes):
                self.insert(at, text, attributes)
                return at + len(text)
            case Insert(value, attributes):
                self.insert_embed(at, value, attributes)
                return at + 1


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise ValueNotStorable("text", f"it is {type(text).__name__}, not a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = f"text[{error.start}]"
            raise ValueNotStorable(at, "it is a lone surrogate, half of a character") from None


def _check_index(index: int, length: int) -> None:
    if not 0 <= index <= length:
        raise IndexOutOfRange("index", index, length)


def _check_range(index: int, count: int, length: int) -> None:
    _check_index(index, length)
    if not 0 <= count <= length - index:
        raise IndexOutOfRange("end", index + count, length)


def _from_end(index: int, length: int) -> int:
    return index + length if index < 0 else index


def _in_code_points(change: list[dict[str, Any]], before: CodePoints) -> Delta:
    """The engine's delta, in bytes of the text `before`, in code points."""
    delta: list[Retain | Insert | Delete] = []
    byte = point = 0
    for operation in change:
        attributes = operation.get("attributes") or None
        if "insert" in operation:
            delta.append(Insert(operation["insert"], attributes))
            continue
        byte += operation.get("retain", 0) + operation.get("delete", 0)
        start, point = point, before.point_of_byte(byte)
        if "retain" in operation:
            delta.append(Retain(point - start, attributes))
        else:
            delta.append(Delete(point - start))
    return tuple(delta)


def _follow(points: CodePoints, delta: Delta) -> None:
    """Carry out `delta` on a copy."""
    at = 0
    for operation in delta:
        match operation:
            case Retain(count):
                at += count
            case Delete(count):
                points.delete(at, count)
            case Insert(content):
                text = content if isinstance(content, str) else EMBED
                points.insert(at, text)
                at += len(text)
