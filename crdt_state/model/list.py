"""A list of values: exactly the Yjs array of its name.

Yjs arrays know no move.  To move a value here is to delete it and insert it again, and two people
who do so at once double it; `movable.py` has the kind for that.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from crdt_state.errors import IndexOutOfRange, UsageError
from crdt_state.model.container import Cause, Container, Event
from crdt_state.model.engine import NativeArray
from crdt_state.model.values import from_stored, to_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.limits import Limits
    from crdt_state.model.container import Owner
    from crdt_state.model.values import Codec

__all__ = [
    "List",
    "ListDelta",
    "ListEvent",
    "ValuesDeleted",
    "ValuesInserted",
    "ValuesRetained",
    "all_stored",
    "index_in",
    "span_of",
]


@dataclass(frozen=True, slots=True)
class ValuesRetained:
    """`count` values are as they were."""

    count: int


@dataclass(frozen=True, slots=True)
class ValuesInserted:
    """`values` have come."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ValuesDeleted:
    """`count` values have gone."""

    count: int


ListDelta: TypeAlias = tuple[ValuesRetained | ValuesInserted | ValuesDeleted, ...]
"""What happened to a list, from its front on; what is not mentioned is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEvent(Event):
    """The list has changed."""

    delta: ListDelta


class List(Container[NativeArray, ListEvent], MutableSequence[Any]):
    """A list; indexes as in Python, but `insert` takes none outside the list.

    Containers that a Yjs program nested in it are read as plain copies of what they hold.
    """

    kind = "list"

    def __init__(
        self, owner: Owner, native: NativeArray, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec

    def __len__(self) -> int:
        return len(self._native)

    def __iter__(self) -> Iterator[Any]:
        return iter([from_stored(value, codec=self._codec) for value in self._native.values()])

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Read one value, or a list of them.  Raises `IndexOutOfRange`."""
        if isinstance(index, slice):
            return list(self)[index]
        at = index_in(index, len(self))
        return from_stored(self._native.get(at), codec=self._codec)

    @overload
    def __setitem__(self, index: int, value: Any) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any]) -> None: ...
    def __setitem__(self, index: int | slice, value: Any) -> None:
        """Delete what is there and insert in its place; Yjs knows no other assignment."""
        if isinstance(index, slice):
            start, stop = span_of(index, len(self))
            stored = all_stored(value, self._owner.limits, self._codec)
        else:
            start = index_in(index, len(self))
            stop = start + 1
            stored = all_stored([value], self._owner.limits, self._codec)
        self._splice(start, stop, stored)

    def __delitem__(self, index: int | slice) -> None:
        if isinstance(index, slice):
            start, stop = span_of(index, len(self))
        else:
            start = index_in(index, len(self))
            stop = start + 1
        self._splice(start, stop, [])

    def insert(self, index: int, value: Any) -> None:
        """Insert before the value at `index`.  Raises `IndexOutOfRange`, `ValueNotStorable`."""
        self.insert_all(index, [value])

    def insert_all(self, index: int, values: Iterable[Any]) -> None:
        """Insert several values, in one transaction.  Raises as `insert`."""
        at = index_in(index, len(self), is_end_allowed=True)
        self._splice(at, at, all_stored(values, self._owner.limits, self._codec))

    def append(self, value: Any) -> None:
        """Insert behind the last value.  Raises `ValueNotStorable`."""
        self.insert_all(len(self), [value])

    def extend(self, values: Iterable[Any]) -> None:
        """Insert several values behind the last, in one transaction."""
        self.insert_all(len(self), values)

    def clear(self) -> None:
        """Delete every value, in one transaction."""
        self._splice(0, len(self), [])

    def changed(self, change: Any, cause: Cause) -> ListEvent | None:
        """See `Container`."""
        if not change:
            return None
        delta = tuple(self._step(operation) for operation in change)
        return ListEvent(delta=delta, is_local=cause.is_local, origin=cause.origin)

    def _splice(self, start: int, stop: int, stored: list[Any]) -> None:
        if start == stop and not stored:
            return
        with self._owner.transaction():
            if stop > start:
                self._native.delete(start, stop - start)
            if stored:
                self._native.insert(start, stored)

    def _step(self, operation: dict[str, Any]) -> ValuesRetained | ValuesInserted | ValuesDeleted:
        match operation:
            case {"retain": count}:
                return ValuesRetained(count)
            case {"delete": count}:
                return ValuesDeleted(count)
        values = (from_stored(value, codec=self._codec) for value in operation["insert"])
        return ValuesInserted(tuple(values))


def index_in(index: int, length: int, *, is_end_allowed: bool = False) -> int:
    """`index`, which counts from the end where it is negative, as one that counts from the front.

    Raises `IndexOutOfRange`.
    """
    at = index + length if index < 0 else index
    last = length if is_end_allowed else length - 1
    if not 0 <= at <= last:
        raise IndexOutOfRange("index", index, max(last, 0))
    return at


def span_of(span: slice, length: int) -> tuple[int, int]:
    """Where a slice begins and ends.  Raises `UsageError` for one with steps."""
    start, stop, step = span.indices(length)
    if step != 1:
        raise UsageError("a slice with steps can be read, not written; write one value at a time")
    return start, max(start, stop)


def all_stored(
    values: Iterable[Any], limits: Limits, codec: Codec | None, *, inside: int = 0
) -> list[Any]:
    """What the engine holds of `values`, see `to_stored`.  Raises `ValueNotStorable`."""
    return [
        to_stored(value, limits=limits, path=f"value {index}", codec=codec, inside=inside)
        for index, value in enumerate(values)
    ]
