"""What Yjs can hold, checked before a transaction begins.

An exception inside a native transaction does not roll it back, and pycrdt panics on much of what
Python calls a value.  So every value passes here first.  Storable are None, booleans, numbers,
strings, bytes, lists (and tuples, which come back as lists) and dictionaries with string keys.

Numbers follow Yjs, which knows only IEEE 754 doubles: 1 and 1.0 are one number.  Integral numbers
within ±2^53 come back as `int`, all others as `float`; -0.0 is stored and comes back as 0.
Refused are integers beyond ±2^53, NaN, infinities, lone surrogates, keys that are not strings,
and everything else (sets, dates, decimals, objects): for those a container takes a `Codec`.

Both directions are loops, not recursion: depth is bounded by `Limits.value_depth_max`, the count
of values by `Limits.value_items_max`, so that a value that holds itself ends too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from crdt_state.errors import ValueNotStorable
from crdt_state.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "INTEGER_MAX",
    "Codec",
    "Stored",
    "Value",
    "check_key",
    "from_stored",
    "identity_of",
    "to_stored",
]

Value: TypeAlias = Any
"""What an application gives and gets."""

Stored: TypeAlias = Any
"""What is handed to the engine: plain types that pycrdt turns into Yjs values without loss."""

INTEGER_MAX = 2**53
"""The largest integer up to which a double holds every integer."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Two functions with which a container holds values that Yjs cannot.

    `to_stored` turns an application's value into a storable one and may raise `ValueError` or
    `TypeError`; `from_stored` turns it back.  Every program that opens the container needs the
    same codec; `name` is what its documentation calls it.
    """

    name: str
    to_stored: Callable[[Value], Value]
    from_stored: Callable[[Value], Value]


def check_key(key: object, *, limits: Limits = DEFAULT_LIMITS, path: str = "key") -> str:
    """`key` as a key of a map: a string of at most `Limits.key_bytes_max` bytes of UTF-8.

    Raises `ValueNotStorable`.
    """
    if not isinstance(key, str):
        raise ValueNotStorable(path, f"a key is a string, not {_kind(key)}")
    size = len(_encoded(key, path))
    if size > limits.key_bytes_max:
        allowed = f"more than key_bytes_max = {limits.key_bytes_max}"
        raise ValueNotStorable(path, f"a key of {size} bytes is {allowed}")
    return str(key)


def to_stored(
    value: Value,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str = "value",
    codec: Codec | None = None,
    inside: int = 0,
) -> Stored:
    """A plain copy of `value` that the engine can hold.

    `inside` is how many lists of ours it will lie in; they count towards the depth allowed.
    Raises `ValueNotStorable` with a path such as `value['a'][3]`.
    """
    if codec is not None:
        try:
            value = codec.to_stored(value)
        except (ValueError, TypeError) as error:
            raise ValueNotStorable(path, f"codec {codec.name!r} refuses it: {error}") from error
    if _is_scalar(value):
        return _stored_scalar(value, path)
    return _stored_tree(value, limits, path, inside)


def from_stored(value: Stored, *, codec: Codec | None = None) -> Value:
    """What an application sees of `value`, which the engine returned."""
    value = _read_scalar(value) if _is_scalar(value) else _read_tree(value)
    return value if codec is None else codec.from_stored(value)


def identity_of(value: Value) -> object:
    """A hashable that is equal exactly for values that Yjs holds as the same.

    `value` comes from `from_stored`.  1 and 1.0 are the same, 1 and True are not; lists are
    equal in order, dictionaries in any.
    """
    if isinstance(value, list | tuple):
        return ("list", tuple(identity_of(part) for part in value))
    if isinstance(value, dict):
        return ("dict", frozenset((key, identity_of(part)) for key, part in value.items()))
    return (type(value).__name__, value)


def _is_scalar(value: object) -> bool:
    return not isinstance(value, dict | list | tuple)


def _stored_scalar(value: object, path: str) -> Stored:
    match value:
        case None | bool():
            return value
        case int():
            return _stored_integer(int(value), path)
        case float():
            if not math.isfinite(value):
                raise ValueNotStorable(path, f"{value} is not a number that Yjs holds")
            # Adding 0.0 turns -0.0, which nobody means, into 0.0.
            return float(value) + 0.0
        case str():
            _encoded(value, path)
            return str.__str__(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value)
    raise ValueNotStorable(path, f"{_kind(value)} cannot be stored; a codec could make it storable")


def _stored_integer(number: int, path: str) -> Stored:
    if abs(number) > INTEGER_MAX:
        raise ValueNotStorable(path, f"{number} is beyond ±2^53, up to which integers are exact")
    # pycrdt would store ±2^53 itself as a BigInt, which JavaScript does not take for a number.
    return float(number) if abs(number) == INTEGER_MAX else number


def _stored_tree(root: Value, limits: Limits, path: str, inside: int) -> Stored:
    """`root`, a list, tuple or dictionary, copied with a stack of what is left to copy."""
    copies: list[Any] = []
    # Each entry: a container, its path, its depth, and where its copy belongs.
    waiting: list[tuple[Any, str, int, Callable[[Any], None]]] = [
        (root, path, inside + 1, copies.append)
    ]
    items = 0
    while waiting:
        container, here, depth, place = waiting.pop()
        if depth > limits.value_depth_max:
            reason = f"is nested more than value_depth_max = {limits.value_depth_max} deep"
            raise ValueNotStorable(here, f"it {reason}")
        items += len(container)
        if items > limits.value_items_max:
            reason = f"it holds more than value_items_max = {limits.value_items_max} values"
            raise ValueNotStorable(path, reason)
        if isinstance(container, dict):
            table: dict[str, Any] = {}
            for key, part in container.items():
                name = check_key(key, limits=limits, path=f"{here} key {key!r}")
                there = f"{here}[{name!r}]"
                if _is_scalar(part):
                    table[name] = _stored_scalar(part, there)
                else:
                    table[name] = None
                    waiting.append((part, there, depth + 1, _into_key(table, name)))
            place(table)
        else:
            row: list[Any] = [None] * len(container)
            for index, part in enumerate(container):
                there = f"{here}[{index}]"
                if _is_scalar(part):
                    row[index] = _stored_scalar(part, there)
                else:
                    waiting.append((part, there, depth + 1, _into_index(row, index)))
            place(row)
    return copies[0]


def _read_tree(root: Stored) -> Value:
    copies: list[Any] = []
    waiting: list[tuple[Any, Callable[[Any], None]]] = [(root, copies.append)]
    while waiting:
        container, place = waiting.pop()
        if isinstance(container, dict):
            table: dict[str, Any] = {}
            for key, part in container.items():
                if _is_scalar(part):
                    table[key] = _read_scalar(part)
                else:
                    table[key] = None
                    waiting.append((part, _into_key(table, key)))
            place(table)
        else:
            row = [_read_scalar(part) if _is_scalar(part) else None for part in container]
            for index, part in enumerate(container):
                if not _is_scalar(part):
                    waiting.append((part, _into_index(row, index)))
            place(row)
    return copies[0]


def _read_scalar(value: Stored) -> Value:
    if isinstance(value, float) and value.is_integer() and abs(value) <= INTEGER_MAX:
        return int(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value


def _into_key(table: dict[str, Any], key: str) -> Callable[[Any], None]:
    def place(copy: Any) -> None:
        table[key] = copy

    return place


def _into_index(row: list[Any], index: int) -> Callable[[Any], None]:
    def place(copy: Any) -> None:
        row[index] = copy

    return place


def _encoded(text: str, path: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        reason = f"character {error.start} is a lone surrogate, which UTF-8 cannot hold"
        raise ValueNotStorable(path, reason) from None


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
