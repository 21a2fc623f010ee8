"""A counter that everyone may count up and down at once: a PN counter.

Root `<name>#counter`, a Yjs map: hex of an incarnation -> [increments, decrements].  Only its
incarnation writes an entry, so no two writers ever meet at one key; the value is the sum of all
differences.  The key is not the client id, which changes at every opening: then a counter would
grow with use.  Folding the entries of others together would count what they add meanwhile twice
or not at all, so they stay.

Shapiro et al., "A comprehensive study of convergent and commutative replicated data types"
(2011), specification 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_state.errors import LimitExceeded, ValueNotStorable
from crdt_state.model.container import Cause, Container, Event
from crdt_state.model.engine import NativeMap
from crdt_state.model.values import INTEGER_MAX, to_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crdt_state.model.container import Owner

__all__ = ["Counter", "CounterEvent", "sum_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterEvent(Event):
    """The counter has changed by `amount`."""

    amount: int


class _Entry(NamedTuple):
    """What one incarnation has counted, both from 0 to 2^53."""

    increments: int = 0
    decrements: int = 0

    @property
    def difference(self) -> int:
        return self.increments - self.decrements


class Counter(Container[NativeMap, CounterEvent]):
    """A number that counts.  `value` is exact; own counting keeps it within ±2^53."""

    kind = "counter"

    def __init__(self, owner: Owner, native: NativeMap, name: str) -> None:
        super().__init__(owner, native, name)
        self._entries = {key: _entry_from(value) for key, value in native.items()}
        self._value = sum(entry.difference for entry in self._entries.values())
        self._told = self._value

    @property
    def value(self) -> int:
        """The sum of what everyone has counted."""
        return self._value

    def __int__(self) -> int:
        return self._value

    def increment(self, amount: int = 1) -> None:
        """Count up.  Raises as `add`."""
        self.add(amount)

    def decrement(self, amount: int = 1) -> None:
        """Count down.  Raises as `add`."""
        _check_amount(amount)
        self.add(-amount)

    def add(self, amount: int) -> None:
        """Count up by `amount`, or down where it is negative.

        Raises `ValueNotStorable` for what is not an integer, `LimitExceeded` where the value
        would leave ±2^53.
        """
        _check_amount(amount)
        if amount == 0:
            return
        if abs(self._value + amount) > INTEGER_MAX:
            raise LimitExceeded("a counter's ±2^53", INTEGER_MAX, self._value + amount)
        key = self._owner.incarnation.hex()
        entry = _counted(self._entries.get(key, _Entry()), amount)
        with self._owner.transaction():
            self._native.set(key, to_stored(list(entry)))
            self._put(key, entry)

    def changed(self, change: Any, cause: Cause) -> CounterEvent | None:
        """See `Container`; to follow one's own change twice puts the same entry twice."""
        for key, (action, _, new) in change.items():
            self._put(key, _Entry() if action == "delete" else _entry_from(new))
        amount, self._told = self._value - self._told, self._value
        if not amount:
            return None
        return CounterEvent(amount=amount, is_local=cause.is_local, origin=cause.origin)

    def _put(self, key: str, entry: _Entry) -> None:
        before = self._entries.get(key, _Entry())
        self._entries[key] = entry
        self._value += entry.difference - before.difference


def sum_of(entries: Mapping[str, Any]) -> int:
    """What the map of a counter's root comes to."""
    return sum(_entry_from(entry).difference for entry in entries.values())


def _counted(entry: _Entry, amount: int) -> _Entry:
    increments = entry.increments + max(amount, 0)
    decrements = entry.decrements + max(-amount, 0)
    if max(increments, decrements) > INTEGER_MAX:
        # Only the difference counts, and only we write here: so both may shrink together.
        common = min(increments, decrements)
        increments, decrements = increments - common, decrements - common
    if max(increments, decrements) > INTEGER_MAX:
        raise LimitExceeded("a counter entry's 2^53", INTEGER_MAX, max(increments, decrements))
    return _Entry(increments, decrements)


def _entry_from(value: Any) -> _Entry:
    """The entry that a foreign program may have written; nonsense counts nothing, everywhere."""
    match value:
        # A boolean is an int to Python, and nonsense here.
        case [increments, decrements] if type(increments) is type(decrements) is int:
            if 0 <= increments <= INTEGER_MAX and 0 <= decrements <= INTEGER_MAX:
                return _Entry(increments, decrements)
    return _Entry()


def _check_amount(amount: object) -> None:
    if not isinstance(amount, int) or isinstance(amount, bool):
        reason = f"a counter counts in integers, not in values of type {type(amount).__name__}"
        raise ValueNotStorable("amount", reason)
