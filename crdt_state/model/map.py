"""A map from strings to values: exactly the Yjs map of its name.

Of writes to one key that did not see one another, Yjs keeps the one of the higher client id, not
the later one; a register per key is the kind for whom that matters.  A deleted key stays in the
document's bytes for ever; for keys that come and go, a set or a movable list is the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from crdt_state.model.container import Cause, Container, Event
from crdt_state.model.engine import NativeMap
from crdt_state.model.values import check_key, from_stored, to_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.model.container import Owner
    from crdt_state.model.values import Codec

__all__ = ["KeyChange", "Map", "MapEvent"]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What happened to one key; `old` or `new` is None where there was, or is, no value."""

    action: Literal["add", "update", "delete"]
    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEvent(Event):
    """The keys that changed, sorted."""

    keys: Mapping[str, KeyChange]


class Map(Container[NativeMap, MapEvent], MutableMapping[str, Any]):
    """A dictionary with string keys, in the order of the keys.

    Containers that a Yjs program nested in it are read as plain copies of what they hold.  It
    is a place and not a value: two maps are equal when they are the same; compare `dict(map)`.
    """

    kind = "map"

    def __init__(
        self, owner: Owner, native: NativeMap, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self._native)

    def __iter__(self) -> Iterator[str]:
        return iter(self._native.keys())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._native

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        return from_stored(self._native.get(key), codec=self._codec)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        with self._owner.transaction():
            self._native.delete(key)

    def update(  # type: ignore[override]
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any
    ) -> None:
        """Put several values, in one transaction.

        Raises `ValueNotStorable`; then none is put.
        """
        limits = self._owner.limits
        stored = {
            check_key(key, limits=limits): to_stored(
                value, limits=limits, path=f"value of {key!r}", codec=self._codec
            )
            for key, value in dict(other, **named).items()
        }
        if stored:
            with self._owner.transaction():
                for key, value in stored.items():
                    self._native.set(key, value)

    def clear(self) -> None:
        """Delete every key, in one transaction."""
        keys = self._native.keys()
        if keys:
            with self._owner.transaction():
                for key in keys:
                    self._native.delete(key)

    def changed(self, change: Any, cause: Cause) -> MapEvent | None:
        """See `Container`."""
        if not change:
            return None
        return MapEvent(
            keys={key: self._key_change(*change[key]) for key in sorted(change)},
            is_local=cause.is_local,
            origin=cause.origin,
        )

    def _key_change(self, action: str, old: Any, new: Any) -> KeyChange:
        return KeyChange(
            cast("Literal['add', 'update', 'delete']", action),
            None if action == "add" else from_stored(old, codec=self._codec),
            None if action == "delete" else from_stored(new, codec=self._codec),
        )
