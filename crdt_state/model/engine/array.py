"""A list as the engine has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_state.model.engine.container import NativeContainer
from crdt_state.model.engine.kinds import RootKind
from crdt_state.model.engine.plain import plain, plain_delta

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NativeArray"]


class NativeArray(NativeContainer[pycrdt.Array[Any]]):
    """A list of values.  Nested containers are read as plain values.

    Access by index walks from the front, so reading all of n items takes time in n times the
    number of the engine's blocks; a facade that reads often keeps its own copy by events.
    """

    kind = RootKind.LIST
    shared_type = pycrdt.Array

    def get(self, index: int) -> Any:
        """The value at `index`."""
        return self._call(lambda: plain(self._shared[index]))

    def values(self) -> list[Any]:
        """All values."""
        return self._call(lambda: [plain(value) for value in self._shared])

    def insert(self, index: int, values: Sequence[Any]) -> None:
        """Insert values, the first at `index`."""

        def insert_all() -> None:
            self._shared[index:index] = list(values)

        self._call(insert_all)

    def delete(self, index: int, length: int) -> None:
        """Delete `length` values."""
        self._call(lambda: self._shared.__delitem__(slice(index, index + length)))

    def _change_of(self, event: Any) -> list[dict[str, Any]]:
        return plain_delta(event)
