"""Two registers: one in which the last writer wins, one that shows its conflicts.

Last writer: root `<name>#register`, a Yjs array of rows [time, writer, value].  Time is hybrid
time in microseconds, writer the client id; the row with the greatest (time, writer) shows.
Multi-value: root `<name>#multi`, a Yjs array whose rows are the values themselves.

In both, a write deletes every row it sees and inserts its own, so rows are exactly the writes that
did not see one another: mostly one.  A plain Yjs map would let the higher client id win, whoever
wrote later.

1. No row is refused for its time, and reading consults no clock: replicas agree.
2. A write takes max(now, every time it sees) + 1, so it shows, whatever clocks say.
3. A time beyond the drift bound does not advance our clock; it is counted there
   (`HybridClock.remote_times_refused`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_state.clocks import HybridTime
from crdt_state.model.container import Cause, Container, Event
from crdt_state.model.engine import NativeArray
from crdt_state.model.layout import Stamp, next_stamp, stamp_from
from crdt_state.model.rows import Rows
from crdt_state.model.values import from_stored, identity_of, to_stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.model.container import Owner
    from crdt_state.model.values import Codec

__all__ = [
    "LwwRegister",
    "MultiValueEvent",
    "MultiValueRegister",
    "RegisterEvent",
    "distinct",
    "latest_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterEvent(Event):
    """The value that shows has changed; None where there is, or was, none."""

    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiValueEvent(Event):
    """The values that show have changed."""

    old: tuple[Any, ...]
    new: tuple[Any, ...]


class _Written(NamedTuple):
    """One write; in its place, None is a row that a foreign program wrote and that is no write."""

    stamp: Stamp
    value: Any


class LwwRegister(Container[NativeArray, RegisterEvent]):
    """One value; of writes that did not see one another, the later one shows."""

    kind = "register"

    def __init__(
        self, owner: Owner, native: NativeArray, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec
        self._rows = Rows(native, _written_from)
        self._told = self._shown()
        self._heed(self._rows.values)

    @property
    def value(self) -> Any:
        """The value that shows, or None where nothing was ever written."""
        return self._seen(self._shown())

    @property
    def is_set(self) -> bool:
        """Whether something was ever written, be it None."""
        return self._shown() is not None

    @property
    def stamp(self) -> Stamp | None:
        """When and by whom the value that shows was written."""
        shown = self._shown()
        return None if shown is None else shown.stamp

    def set(self, value: Any) -> None:
        """Write `value`.  Raises `ValueNotStorable`."""
        stored = to_stored(value, limits=self._owner.limits, codec=self._codec, inside=1)
        shown = self._shown()
        seen = None if shown is None else shown.stamp.time
        stamp = next_stamp(self._owner.clock, self._owner.client_id, seen=seen)
        with self._owner.transaction():
            self._rows.replace_all([*stamp, stored])

    def changed(self, change: Any, cause: Cause) -> RegisterEvent | None:
        """See `Container`."""
        is_own = cause.is_local and not cause.is_undo
        settled = self._rows.settle(change, is_own=is_own)
        if not is_own:
            self._heed(settled.inserted)
        old, self._told = self._told, self._shown()
        if old == self._told:
            return None
        return RegisterEvent(
            old=self._seen(old),
            new=self._seen(self._told),
            is_local=cause.is_local,
            origin=cause.origin,
        )

    def _shown(self) -> _Written | None:
        return _latest(self._rows.values)

    def _seen(self, write: _Written | None) -> Any:
        return None if write is None else from_stored(write.value, codec=self._codec)

    def _heed(self, writes: list[_Written | None]) -> None:
        for write in writes:
            if write is not None:
                self._owner.clock.observe(HybridTime(write.stamp.time))


class MultiValueRegister(Container[NativeArray, MultiValueEvent]):
    """Every value whose writer had not seen the others; a write replaces all that it sees.

    Dynamo's register (DeCandia et al., 2007): several values are a conflict, and it is the
    application that settles it, by writing.
    """

    kind = "multi-value register"

    def __init__(
        self, owner: Owner, native: NativeArray, name: str, *, codec: Codec | None = None
    ) -> None:
        super().__init__(owner, native, name)
        self._codec = codec
        self._rows: Rows[Any] = Rows(native, _as_is)
        self._told = tuple(self._rows.values)

    @property
    def values(self) -> tuple[Any, ...]:
        """The different values that show, in the same order everywhere; empty before a write."""
        return self._seen(self._rows.values)

    @property
    def has_conflict(self) -> bool:
        """Whether writers who did not see one another wrote different values."""
        return len(self.values) > 1

    def set(self, value: Any) -> None:
        """Write `value` in the place of all that show.  Raises `ValueNotStorable`."""
        stored = to_stored(value, limits=self._owner.limits, codec=self._codec)
        with self._owner.transaction():
            self._rows.replace_all(stored)

    def changed(self, change: Any, cause: Cause) -> MultiValueEvent | None:
        """See `Container`."""
        self._rows.settle(change, is_own=cause.is_local and not cause.is_undo)
        before, self._told = self._told, tuple(self._rows.values)
        if identity_of(distinct(before)) == identity_of(distinct(self._told)):
            return None
        return MultiValueEvent(
            old=self._seen(before),
            new=self._seen(self._told),
            is_local=cause.is_local,
            origin=cause.origin,
        )

    def _seen(self, rows: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(from_stored(value, codec=self._codec) for value in distinct(rows))


def latest_of(rows: list[Any]) -> Any:
    """What the rows of a register come to: the value that shows, or None."""
    written = _latest(map(_written_from, rows))
    return None if written is None else written.value


def distinct(rows: list[Any] | tuple[Any, ...]) -> list[Any]:
    """The different values of a multi-value register's rows, in their order."""
    return list({identity_of(value): value for value in reversed(rows)}.values())[::-1]


def _latest(rows: Iterable[_Written | None]) -> _Written | None:
    writes = [row for row in rows if row is not None]
    return max(writes, key=lambda write: write.stamp, default=None)


def _as_is(row: Any) -> Any:
    return row


def _written_from(row: Any) -> _Written | None:
    match row:
        case [time, writer, value]:
            stamp = stamp_from(time, writer)
            return None if stamp is None else _Written(stamp, value)
    return None
