"""A set in which an add wins over a remove that has not seen it (observed-remove).

Root `<name>#set`, a Yjs array: one row per add, which is the element itself; the Yjs id of the row
is the add's unique tag.  A remove deletes the rows that it sees.  An element is present while a
row holds it, however many do.

An add of an element that is already there replaces its rows by a new one: it must, or a remove
made elsewhere at the same time would win over it.  The deleted rows of one writer merge into runs,
so a set does not grow by that; only where writers take turns on one element, some 12 bytes stay
for each turn.

Bieniusa et al., "An optimized conflict-free replicated set" (2012).
"""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crdt_state.errors import ValueNotStorable
from crdt_state.model.container import Cause, Container, Event
from crdt_state.model.engine import NativeArray
from crdt_state.model.rows import Rows
from crdt_state.model.values import from_stored, identity_of, to_stored

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from crdt_state.model.container import Owner
    from crdt_state.model.values import Codec

__all__ = ["Set", "SetEvent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEvent(Event):
    """Elements that have appeared and disappeared."""

    added: tuple[Any, ...]
    removed: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Element:
    """A row; `value` is hashable, and rows are equal where Yjs holds the same value.

    None in the place of a row is one that a foreign program wrote and that is no element.
    """

    identity: Hashable
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Element) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class Set(Container[NativeArray, SetEvent]):
    """Elements without an order of their own; iteration gives every replica the same one.

    An element is None, a boolean, a number, a string, bytes, or a tuple of these (a list is taken
    for one).  1 and 1.0 are one element, 1 and True are two.  Objects that a foreign program
    added are not elements.
    """

    kind = "set"

    def __init__(
        self, owner: Owner, native: NativeArray, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec
        self._rows = Rows(native, _element_from)
        self._tally: Tally[_Element] = Tally(row for row in self._rows.values if row is not None)
        self._told: dict[_Element, bool] = {}

    def __len__(self) -> int:
        return len(self._tally)

    def __contains__(self, element: object) -> bool:
        try:
            return self._checked(element)[1] in self._tally
        except ValueNotStorable:
            return False

    def __iter__(self) -> Iterator[Any]:
        rows = dict.fromkeys(row for row in self._rows.values if row is not None)
        return iter([self._seen(row) for row in rows])

    def add(self, element: Any) -> None:
        """Put an element in.  Raises `ValueNotStorable`."""
        self.update([element])

    def update(self, elements: Iterable[Any]) -> None:
        """Put several elements in, in one transaction.

        Raises `ValueNotStorable`; then none is put in.
        """
        checked = [
            self._checked(element, f"element {index}") for index, element in enumerate(elements)
        ]
        adding = {element: stored for stored, element in checked}
        if not adding:
            return
        with self._owner.transaction():
            self._delete(adding.keys())
            self._rows.insert(len(self._rows), list(adding.values()))
            self._count(adding, +1)

    def discard(self, element: Any) -> None:
        """Take an element out, if it is there."""
        self.difference_update([element])

    def remove(self, element: Any) -> None:
        """Take an element out.  Raises `KeyError` where it is not there."""
        if element not in self:
            raise KeyError(element)
        self.discard(element)

    def difference_update(self, elements: Iterable[Any]) -> None:
        """Take several elements out, in one transaction."""
        going = [self._checked(element)[1] for element in elements if element in self]
        if going:
            with self._owner.transaction():
                self._delete(going)

    def clear(self) -> None:
        """Take everything out."""
        if self._rows.values:
            with self._owner.transaction():
                self._rows.delete(range(len(self._rows)))
                for element in list(self._tally):
                    self._remember(element)
                self._tally.clear()

    def changed(self, change: Any, cause: Cause) -> SetEvent | None:
        """See `Container`."""
        is_own = cause.is_local and not cause.is_undo
        settled = self._rows.settle(change, is_own=is_own)
        if not is_own:
            self._count((row for row in settled.inserted if row is not None), +1)
            self._count((row for row in settled.removed if row is not None), -1)
        told, self._told = self._told, {}
        added = tuple(
            self._seen(row) for row, was in told.items() if not was and row in self._tally
        )
        removed = tuple(
            self._seen(row) for row, was in told.items() if was and row not in self._tally
        )
        if not added and not removed:
            return None
        return SetEvent(added=added, removed=removed, is_local=cause.is_local, origin=cause.origin)

    def _delete(self, elements: Iterable[_Element]) -> None:
        """Delete every row of `elements`."""
        present = dict.fromkeys(element for element in elements if element in self._tally)
        if not present:
            return
        if len(present) == 1 and self._tally[next(iter(present))] == 1:
            indexes = [self._rows.values.index(next(iter(present)))]
        else:
            indexes = [index for index, row in enumerate(self._rows.values) if row in present]
        self._rows.delete(indexes)
        for element in present:
            self._remember(element)
            del self._tally[element]

    def _count(self, elements: Iterable[_Element], by: int) -> None:
        for element in elements:
            self._remember(element)
            self._tally[element] += by
            if not self._tally[element]:
                del self._tally[element]

    def _remember(self, element: _Element) -> None:
        """Note whether `element` was there when the last event was told."""
        self._told.setdefault(element, element in self._tally)

    def _checked(self, element: Any, path: str = "element") -> tuple[Any, _Element]:
        stored = to_stored(element, limits=self._owner.limits, path=path, codec=self._codec)
        row = _element_from(from_stored(stored))
        if row is None:
            raise ValueNotStorable(path, "a dictionary is no element; a tuple of pairs can be one")
        return stored, row

    def _seen(self, row: _Element) -> Any:
        return row.value if self._codec is None else self._codec.from_stored(row.value)


def _element_from(stored: Any) -> _Element | None:
    value = _frozen(stored)
    return None if value is _NO_ELEMENT else _Element(identity_of(stored), value)


_NO_ELEMENT = object()


def _frozen(value: Any) -> Any:
    """`value` with tuples for lists; what bounds its depth is the guard and `to_stored`."""
    if isinstance(value, dict):
        return _NO_ELEMENT
    if isinstance(value, list):
        parts = tuple(_frozen(part) for part in value)
        return _NO_ELEMENT if any(part is _NO_ELEMENT for part in parts) else parts
    return value
