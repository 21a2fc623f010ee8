"""A Yjs array of rows, with a copy on this side of the engine that is never behind.

Sets, registers and movable lists look at all their rows at every turn; asking the engine for
them each time would make n writes cost n².  So the rows are kept here too.

1. Our own writes change the engine and the copy in the same call.
2. All other changes (a peer's, an undo's) reach the copy when the engine commits them, before any
   callback of a user runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from crdt_state.model.values import from_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from crdt_state.model.engine import NativeArray

__all__ = ["Rows", "RowsChanged"]

Row = TypeVar("Row")


class RowsChanged(NamedTuple, Generic[Row]):
    """What one transaction did to the rows, as those that left and those that came."""

    removed: list[Row]
    inserted: list[Row]


class Rows(Generic[Row]):
    """The rows of one root, as `parse` reads them.  Writes need an open transaction."""

    __slots__ = ("_native", "_parse", "_written", "values")

    def __init__(self, native: NativeArray, parse: Callable[[Any], Row]) -> None:
        self.values: list[Row] = [parse(row) for row in native.values()]
        self._native = native
        self._parse = parse
        self._written: RowsChanged[Row] = RowsChanged([], [])

    def __len__(self) -> int:
        return len(self.values)

    def append(self, row: Any) -> None:
        """Put a row behind all others."""
        self.insert(len(self.values), [row])

    def insert(self, index: int, rows: Sequence[Any]) -> None:
        """Put `rows`, which `to_stored` made, before the row at `index`."""
        self._native.insert(index, rows)
        # Copies: what the caller handed over must not change the rows when it changes.
        seen = [self._parse(from_stored(row)) for row in rows]
        self.values[index:index] = seen
        self._written.inserted.extend(seen)

    def delete(self, indexes: Iterable[int]) -> None:
        """Delete the rows at `indexes`, in as few calls as there are runs of them."""
        ascending = sorted(set(indexes))
        while ascending:
            end = ascending.pop() + 1
            start = end - 1
            while ascending and ascending[-1] == start - 1:
                start = ascending.pop()
            self._native.delete(start, end - start)
            self._written.removed.extend(self.values[start:end])
            del self.values[start:end]

    def replace_all(self, row: Any) -> None:
        """Delete every row there is, and put one in their place."""
        self.delete(range(len(self.values)))
        self.append(row)

    def settle(self, delta: Sequence[dict[str, Any]], *, is_own: bool) -> RowsChanged[Row]:
        """Take in what a transaction committed; `delta` is the engine's account of it.

        `is_own` says that it was written through this object.  Then the copy is already right,
        because nothing else is applied inside a transaction; what came and left is what the
        calls did, in their order, and a row that came may be among those that left.
        """
        if is_own:
            changed, self._written = self._written, RowsChanged([], [])
            return changed
        return self._follow(delta)

    def _follow(self, delta: Sequence[dict[str, Any]]) -> RowsChanged[Row]:
        removed: list[Row] = []
        inserted: list[Row] = []
        at = 0
        for operation in delta:
            if "retain" in operation:
                at += operation["retain"]
            elif "delete" in operation:
                end = at + operation["delete"]
                removed.extend(self.values[at:end])
                del self.values[at:end]
            else:
                rows = [self._parse(row) for row in operation["insert"]]
                self.values[at:at] = rows
                inserted.extend(rows)
                at += len(rows)
        return RowsChanged(removed, inserted)
