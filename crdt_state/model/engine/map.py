"""A map as the engine has it."""

from __future__ import annotations

from typing import Any

import pycrdt

from crdt_state.model.engine.container import NativeContainer
from crdt_state.model.engine.kinds import RootKind
from crdt_state.model.engine.plain import plain

__all__ = ["NativeMap"]


class NativeMap(NativeContainer[pycrdt.Map[Any]]):
    """A map from strings to values.  Nested containers are read as plain values."""

    kind = RootKind.MAP
    shared_type = pycrdt.Map

    def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`."""
        return self._call(lambda: plain(self._shared.get(key, default)))

    def keys(self) -> list[str]:
        """The keys, sorted."""
        return self._call(lambda: sorted(self._shared.keys()))

    def items(self) -> list[tuple[str, Any]]:
        """Keys and values, sorted by key."""
        return self._call(
            lambda: sorted((key, plain(value)) for key, value in self._shared.items())
        )

    def __contains__(self, key: str) -> bool:
        return self._call(lambda: key in self._shared)

    def set(self, key: str, value: Any) -> None:
        """Put a value at `key`."""
        self._call(lambda: self._shared.__setitem__(key, value))

    def delete(self, key: str) -> None:
        """Delete `key`, which must be there."""
        self._call(lambda: self._shared.__delitem__(key))

    def _change_of(self, event: Any) -> dict[str, tuple[str, Any, Any]]:
        # key -> ("add" | "update" | "delete", old value, new value)
        return {
            key: (change["action"], plain(change.get("oldValue")), plain(change.get("newValue")))
            for key, change in event.keys.items()
        }
