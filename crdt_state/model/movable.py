"""A list whose elements can be moved and replaced without being doubled or lost.

Root `<name>#movable`, a Yjs array with a row per element

    [time, writer, value]
    [time, writer, value, placed time, placed writer, valued time, valued writer]

in which (time, writer) is when and by whom the element was made, which names it for ever; the
longer form also says when it was last put where it stands, and when it was last given its value.
To move or replace an element is to delete its rows and insert a new one, at its new or its old
place.  Writers who did not see one another leave several rows of one element:

1. it stands once, where the row with the greatest (placed, valued) stands;
2. it has the value of the row with the greatest (valued, placed): so a move and a replacement
   made at once both hold;
3. a delete removes the rows it sees: an element that somebody moved or replaced meanwhile stays.

Places are Yjs's own, so what is inserted at once at one place is never interleaved.  Kleppmann,
"Moving elements in list CRDTs" (2020), has the idea of a position as a register.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from crdt_state.clocks import HybridTime
from crdt_state.errors import UsageError
from crdt_state.model.container import Cause, Container
from crdt_state.model.engine import NativeArray
from crdt_state.model.layout import Stamp, next_stamp, stamp_from
from crdt_state.model.list import (
    ListDelta,
    ListEvent,
    ValuesDeleted,
    ValuesInserted,
    ValuesRetained,
    all_stored,
    index_in,
    span_of,
)
from crdt_state.model.rows import Rows
from crdt_state.model.values import from_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crdt_state.model.container import Owner
    from crdt_state.model.values import Codec

__all__ = ["MovableList", "elements_of"]


@dataclass(frozen=True, slots=True)
class _Row:
    """One row; in its place, None is one that a foreign program wrote and that is no row."""

    element: Stamp
    value: Any
    placed: Stamp
    valued: Stamp

    @property
    def stored(self) -> list[Any]:
        """What lies in the array."""
        if self.element == self.placed == self.valued:
            return [*self.element, self.value]
        return [*self.element, self.value, *self.placed, *self.valued]


@dataclass(frozen=True, slots=True)
class _Shown:
    """An element as it shows: the index of the row where it stands, and what its rows say."""

    at: int
    row: _Row


class MovableList(Container[NativeArray, ListEvent], MutableSequence[Any]):
    """A list; indexes as in Python, but `insert` and `move` take none outside the list."""

    kind = "movable list"

    def __init__(
        self, owner: Owner, native: NativeArray, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec
        self._rows = Rows(native, _row_from)
        self._tally: Tally[Stamp] = Tally()
        # Rows that are no elements or share one.  While there are none, row and element are
        # one, and nothing needs a walk over the list.
        self._odd = 0
        self._elements: list[_Shown] | None = None
        self._before: tuple[int, list[_Row | None]] | None = None
        self._count(self._rows.values, +1)
        self._heed(self._rows.values)

    def __len__(self) -> int:
        return len(self._tally)

    def __iter__(self) -> Iterator[Any]:
        return iter([self._seen(shown.row.value) for shown in self._shown()])

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Read one value, or a list of them.  Raises `IndexOutOfRange`."""
        if isinstance(index, slice):
            return list(self)[index]
        return self._seen(self._at(index_in(index, len(self))).row.value)

    @overload
    def __setitem__(self, index: int, value: Any) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any]) -> None: ...
    def __setitem__(self, index: int | slice, value: Any) -> None:
        """Give an element another value; it stays the same element, wherever others move it."""
        if isinstance(index, slice):
            raise UsageError("assign to one element at a time: an element keeps its identity")
        shown = self._at(index_in(index, len(self)))
        [stored] = self._stored([value])
        row = shown.row
        valued = self._stamp(after=row.valued)
        # Behind the old row, so that what others insert before it at once stays before it.
        self._replace(shown, shown.at + 1, _Row(row.element, stored, row.placed, valued))

    def __delitem__(self, index: int | slice) -> None:
        if isinstance(index, slice):
            start, stop = span_of(index, len(self))
        else:
            start = index_in(index, len(self))
            stop = start + 1
        if start < stop:
            going = self._indexes([self._at(at) for at in range(start, stop)])
            with self._owner.transaction():
                self._delete(going)
                self._heal()

    def insert(self, index: int, value: Any) -> None:
        """Insert before the element at `index`.  Raises `IndexOutOfRange`, `ValueNotStorable`."""
        self.insert_all(index, [value])

    def insert_all(self, index: int, values: Iterable[Any]) -> None:
        """Insert several values, in one transaction.  Raises as `insert`."""
        at = index_in(index, len(self), is_end_allowed=True)
        rows = []
        for stored in self._stored(values):
            stamp = self._stamp()
            rows.append(_Row(stamp, stored, stamp, stamp))
        if rows:
            with self._owner.transaction():
                self._insert(self._at(at).at if at < len(self) else len(self._rows), rows)
                self._heal()

    def append(self, value: Any) -> None:
        """Insert behind the last element.  Raises `ValueNotStorable`."""
        self.insert_all(len(self), [value])

    def extend(self, values: Iterable[Any]) -> None:
        """Insert several values behind the last element, in one transaction."""
        self.insert_all(len(self), values)

    def clear(self) -> None:
        """Delete every element, in one transaction."""
        del self[:]

    def move(self, index: int, to: int) -> None:
        """Take the element at `index` out and put it so that it then stands at `to`.

        Raises `IndexOutOfRange`.
        """
        start = index_in(index, len(self))
        end = index_in(to, len(self))
        if start == end:
            return
        shown = self._at(start)
        row = shown.row
        placed = self._stamp(after=row.placed)
        # Behind the element that will stand before it, or in front of the one that will follow.
        at = self._at(end).at + (1 if end > start else 0)
        self._replace(shown, at, _Row(row.element, row.value, placed, row.valued))

    def changed(self, change: Any, cause: Cause) -> ListEvent | None:
        """See `Container`."""
        is_own = cause.is_local and not cause.is_undo
        odd, before = self._before or (self._odd, list(self._rows.values))
        self._before = None
        settled = self._rows.settle(change, is_own=is_own)
        if not is_own:
            self._count(settled.inserted, +1)
            self._count(settled.removed, -1)
            self._heed(settled.inserted)
        if odd or self._odd:
            delta = self._difference(_shown_in(before), self._shown())
        else:
            delta = tuple(self._step(operation) for operation in change)
        if not delta:
            return None
        return ListEvent(delta=delta, is_local=cause.is_local, origin=cause.origin)

    # --- rows

    def _at(self, index: int) -> _Shown:
        if self._odd:
            return self._shown()[index]
        row = self._rows.values[index]
        assert row is not None  # noqa: S101 - a row that is none counts as odd
        return _Shown(index, row)

    def _shown(self) -> list[_Shown]:
        if self._elements is None:
            self._elements = _shown_in(self._rows.values)
        return self._elements

    def _indexes(self, elements: Sequence[_Shown]) -> list[int]:
        """Where all rows of these elements are."""
        if not self._odd:
            return [shown.at for shown in elements]
        going = {shown.row.element for shown in elements}
        return [
            index
            for index, row in enumerate(self._rows.values)
            if row is not None and row.element in going
        ]

    def _replace(self, shown: _Shown, at: int, row: _Row) -> None:
        """Put `row` before the row at `at`, and delete all others of its element."""
        going = [index + (1 if index >= at else 0) for index in self._indexes([shown])]
        with self._owner.transaction():
            self._insert(at, [row])
            self._delete(going)
            self._heal()

    def _insert(self, at: int, rows: Sequence[_Row]) -> None:
        self._remember()
        self._rows.insert(at, [row.stored for row in rows])
        self._count(rows, +1)

    def _delete(self, indexes: Sequence[int]) -> None:
        self._remember()
        rows = [self._rows.values[index] for index in indexes]
        self._rows.delete(indexes)
        self._count(rows, -1)

    def _heal(self) -> None:
        """Delete rows that decide nothing any more, where moves made at once have left some.

        Writing is the time for it: reading must not change a document.  Whoever does the same
        at once deletes the same rows.
        """
        if self._odd:
            self._delete(_undecisive_in(self._rows.values))

    def _remember(self) -> None:
        """Keep what the next event is measured against."""
        if self._before is None:
            self._before = (self._odd, list(self._rows.values))

    def _count(self, rows: Iterable[_Row | None], by: int) -> None:
        self._elements = None
        for row in rows:
            if row is None:
                self._odd += by
                continue
            before = self._tally[row.element]
            after = before + by
            self._odd += max(after - 1, 0) - max(before - 1, 0)
            if after:
                self._tally[row.element] = after
            else:
                del self._tally[row.element]

    # --- values and stamps

    def _stored(self, values: Iterable[Any]) -> list[Any]:
        return all_stored(values, self._owner.limits, self._codec, inside=1)

    def _seen(self, value: Any) -> Any:
        return from_stored(value, codec=self._codec)

    def _stamp(self, *, after: Stamp | None = None) -> Stamp:
        seen = None if after is None else after.time
        return next_stamp(self._owner.clock, self._owner.client_id, seen=seen)

    def _heed(self, rows: Iterable[_Row | None]) -> None:
        for row in rows:
            if row is not None:
                latest = max(row.element.time, row.placed.time, row.valued.time)
                self._owner.clock.observe(HybridTime(latest))

    # --- events

    def _step(self, operation: dict[str, Any]) -> ValuesRetained | ValuesInserted | ValuesDeleted:
        match operation:
            case {"retain": count}:
                return ValuesRetained(count)
            case {"delete": count}:
                return ValuesDeleted(count)
        rows = (_row_from(row) for row in operation["insert"])
        return ValuesInserted(tuple(self._seen(row.value) for row in rows if row is not None))

    def _difference(self, before: list[_Shown], after: list[_Shown]) -> ListDelta:
        """One splice that leads from `before` to `after`: exact, if not always the shortest."""
        old = [(shown.row.element, shown.row.valued) for shown in before]
        new = [(shown.row.element, shown.row.valued) for shown in after]
        shorter = min(len(old), len(new))
        start = next((at for at in range(shorter) if old[at] != new[at]), shorter)
        tail = 0
        while tail < shorter - start and old[-1 - tail] == new[-1 - tail]:
            tail += 1
        inserted = tuple(self._seen(shown.row.value) for shown in after[start : len(new) - tail])
        deleted = len(old) - tail - start
        delta: list[ValuesRetained | ValuesInserted | ValuesDeleted] = []
        if deleted:
            delta.append(ValuesDeleted(deleted))
        if inserted:
            delta.append(ValuesInserted(inserted))
        if delta and start:
            delta.insert(0, ValuesRetained(start))
        return tuple(delta)


@dataclass(slots=True)
class _Deciding:
    """The rows that say where an element stands and what its value is; mostly one."""

    placing_at: int
    placing: _Row
    valuing_at: int
    valuing: _Row


def _deciding_in(rows: Sequence[_Row | None]) -> dict[Stamp, _Deciding]:
    """Rules 1 and 2 above, applied to all of `rows`."""
    found: dict[Stamp, _Deciding] = {}
    for at, row in enumerate(rows):
        if row is None:
            continue
        one = found.get(row.element)
        if one is None:
            found[row.element] = _Deciding(at, row, at, row)
            continue
        if (row.placed, row.valued) > (one.placing.placed, one.placing.valued):
            one.placing_at, one.placing = at, row
        if (row.valued, row.placed) > (one.valuing.valued, one.valuing.placed):
            one.valuing_at, one.valuing = at, row
    return found


def _shown_in(rows: Sequence[_Row | None]) -> list[_Shown]:
    """The elements of `rows` in the order in which they show."""
    shown = [
        _Shown(
            one.placing_at,
            _Row(element, one.valuing.value, one.placing.placed, one.valuing.valued),
        )
        for element, one in _deciding_in(rows).items()
    ]
    return sorted(shown, key=_place)


def elements_of(rows: Sequence[Any]) -> list[Any]:
    """What the rows of a movable list come to: its values in their order."""
    return [shown.row.value for shown in _shown_in([_row_from(row) for row in rows])]


def _place(shown: _Shown) -> int:
    return shown.at


def _undecisive_in(rows: Sequence[_Row | None]) -> list[int]:
    """Where rows of an element are that decide neither its place nor its value."""
    decisive = {
        at for one in _deciding_in(rows).values() for at in (one.placing_at, one.valuing_at)
    }
    return [at for at, row in enumerate(rows) if row is not None and at not in decisive]


def _row_from(row: Any) -> _Row | None:
    match row:
        case [time, writer, value]:
            element = stamp_from(time, writer)
            return None if element is None else _Row(element, value, element, element)
        case [time, writer, value, placed_time, placed_writer, valued_time, valued_writer]:
            element = stamp_from(time, writer)
            placed = stamp_from(placed_time, placed_writer)
            valued = stamp_from(valued_time, valued_writer)
            if element is not None and placed is not None and valued is not None:
                return _Row(element, value, placed, valued)
    return None
