"""JSON values as canonical text: what embeds and the values of attributes are kept as.

Two values are the same where JavaScript says so, whatever Python says: True is not 1, and 1.0 is
1.  As text, keys sorted, that is the equality of strings; and text can be hashed, is never changed
by somebody else who holds it, and is read without recursion.

Written by a loop: depth is bounded by `Limits.value_depth_max`, keys by `key_bytes_max`, the whole
by `operation_value_bytes_max`, so a value that holds itself ends too.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple, TypeAlias

from crdt_state.errors import OperationMalformed, OperationNotCanonical, OperationTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "INTEGER_MAX",
    "Json",
    "check_key",
    "check_text",
    "read_count",
    "read_text",
    "shortened",
    "text_of",
    "value_of",
]

Json: TypeAlias = Any
"""None, a boolean, a number, a string, a list of these, or a dictionary of these by strings."""

INTEGER_MAX: Final = 2**53 - 1
"""The largest integer for which a double, which is all that JavaScript has, is exact."""

SHOWN_MAX: Final = 200
"""How many characters of what somebody else has written an error shows."""

_Where: TypeAlias = "str | tuple[_Where, object]"
"""Where a value stands: a path, or a place and the name or index within it."""


class _Waiting(NamedTuple):
    """A value that is still to be written, where it stands, and how deep."""

    value: Json
    where: _Where
    depth: int


def text_of(value: Json, path: str = "value", *, limits: Limits = DEFAULT_LIMITS) -> str:
    """`value` as canonical text; `path` is where it stands, for the error.

    Raises `OperationMalformed` and `OperationTooLarge`.
    """
    pieces: list[str] = []
    size = 0
    # The last first; what is text already is written as it is.
    waiting: list[str | _Waiting] = [_Waiting(value, path, 1)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            piece = item
        elif isinstance(item.value, dict | list | tuple):
            piece = _open(item, waiting, limits)
        else:
            piece = _scalar(item.value, item.where)
        pieces.append(piece)
        size += len(piece) if piece.isascii() else len(piece.encode())
        if size > limits.operation_value_bytes_max:
            raise OperationTooLarge(
                path, "operation_value_bytes_max", limits.operation_value_bytes_max, size
            )
    return "".join(pieces)


def value_of(text: str) -> Json:
    """The value that `text_of` wrote; a new one every time."""
    return json.loads(text)


def check_key(key: object, where: _Where, *, limits: Limits = DEFAULT_LIMITS) -> str:
    """`key` as a name within what stands at `where`.

    Raises `OperationMalformed` and `OperationTooLarge`.
    """
    if not isinstance(key, str):
        raise OperationMalformed(_said(where), f"a key is a string, not {type(key).__name__}")
    check_text(key, where)
    size = len(key.encode())
    if size > limits.key_bytes_max:
        raise OperationTooLarge(_said(where), "key_bytes_max", limits.key_bytes_max, size)
    return key


def check_text(text: str, where: _Where) -> None:
    """Raise `OperationMalformed` if `text` holds a lone surrogate, which is no character."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        reason = f"a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}"
        raise OperationMalformed(_said(where), reason) from None


def shortened(text: str) -> str:
    """What of `text`, which somebody else has written, goes into an error."""
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."


def read_count(value: Json, path: str) -> int:
    """What a format gives as a count.  Raises `OperationMalformed`, `OperationNotCanonical`."""
    # Exactly: a boolean is an `int` too, and 3.0 is nothing that JavaScript writes.
    if type(value) is not int:
        raise OperationMalformed(path, f"a count is an integer, not {type(value).__name__}")
    if abs(value) > INTEGER_MAX:
        raise OperationMalformed(path, "a count is within 2^53 - 1")
    if value <= 0:
        raise OperationNotCanonical(path, f"a count of {value} says nothing")
    return value


def read_text(text: str, path: str) -> str:
    """What a format inserts.  Raises `OperationMalformed`, `OperationNotCanonical`."""
    if not text:
        raise OperationNotCanonical(path, "an empty string says nothing")
    check_text(text, path)
    return text


def _open(item: _Waiting, waiting: list[str | _Waiting], limits: Limits) -> str:
    """The bracket that opens a container; all else of it begins to wait."""
    value, where, depth = item
    if depth > limits.value_depth_max:
        raise OperationTooLarge(_said(where), "value_depth_max", limits.value_depth_max, depth)
    if isinstance(value, dict):
        names = sorted(check_key(key, where, limits=limits) for key in value)
        waiting.append("}")
        for number, name in reversed(list(enumerate(names))):
            waiting.append(_Waiting(value[name], (where, name), depth + 1))
            waiting.append(("," if number else "") + _quoted(name) + ":")
        return "{"
    waiting.append("]")
    for index in reversed(range(len(value))):
        waiting.append(_Waiting(value[index], (where, index), depth + 1))
        if index:
            waiting.append(",")
    return "["


def _scalar(value: object, where: _Where) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int():
            if abs(value) > INTEGER_MAX:
                raise OperationMalformed(_said(where), "an integer is within ±(2^53 - 1)")
            return str(int(value))
        case float():
            if not math.isfinite(value):
                raise OperationMalformed(_said(where), f"{value} is no number of JSON")
            # JavaScript knows one kind of number, and writes integral ones without a point.
            is_integer = value.is_integer() and abs(value) <= INTEGER_MAX
            return str(int(value)) if is_integer else repr(value)
        case str():
            check_text(value, where)
            return _quoted(value)
    raise OperationMalformed(_said(where), f"{type(value).__name__} is nothing that JSON holds")


def _said(where: _Where) -> str:
    """A place as text: made only for an error, as each is as long as all names above it."""
    names = []
    while not isinstance(where, str):
        where, name = where
        names.append(f"[{name!r}]")
    return shortened("".join((where, *reversed(names))))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
