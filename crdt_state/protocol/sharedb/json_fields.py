"""Of what JSON messages are made: one field, and layouts of fields.

A message is laid out once: its fields by name, each with its key in the JSON object.  Where a key
is not there, a field reads null, as JavaScript leaves out what is undefined.  Keys that a layout
does not have are passed over: a later client of the same version may say more.

Text becomes JSON in one place (`parse`), which bounds how deep it is and how long: nothing beyond
it recurses on what a peer sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import orjson

from crdt_state.errors import RemoteProtocolError, RequestRefused
from crdt_state.protocol.sharedb.codes import Code

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.ot.json_values import Json

__all__ = [
    "ANY",
    "COUNT",
    "NAME",
    "NUMBER_MAX",
    "TEXT",
    "Field",
    "JsonObject",
    "Layout",
    "Place",
    "at",
    "layout_of",
    "nullable",
    "optional",
    "parse",
]

T = TypeVar("T")

JsonObject: TypeAlias = "dict[str, Json]"

NUMBER_MAX: Final = 2**53 - 1


class Field(NamedTuple, Generic[T]):
    """How a value is read, and written again; `read` raises `RequestRefused`."""

    read: Callable[[Json, Limits], T]
    write: Callable[[T], Json]
    is_left_out: bool = False
    """Whether None is written as nothing at all."""


class Place(NamedTuple):
    """Where an attribute of a message stands in its object."""

    take: Callable[[JsonObject, Limits], Any]
    put: Callable[[JsonObject, Any], None]


class Layout(Generic[T]):
    """How a message of several fields lies in an object."""

    def __init__(self, made: Callable[..., T], action: str, **places: Place) -> None:
        """`made` takes the fields by their names, and gives a value that has them as attributes."""
        self.made = made
        self.action = action
        self._places = tuple(places.items())

    def read(self, raw: JsonObject, limits: Limits) -> T:
        """The message that an object is.  Raises `RequestRefused`."""
        return self.made(**{name: place.take(raw, limits) for name, place in self._places})

    def write(self, message: T) -> JsonObject:
        """The object that says a message."""
        wire: JsonObject = {"a": self.action}
        for name, place in self._places:
            place.put(wire, getattr(message, name))
        return wire


def layout_of(raw: JsonObject, layouts: dict[str, Layout[Any]]) -> Layout[Any]:
    """The layout of the action that an object names.  Raises `RequestRefused`."""
    action = raw.get("a")
    layout = layouts.get(action) if isinstance(action, str) else None
    if layout is None:
        said, known = str(action)[:50], ", ".join(layouts)
        raise RequestRefused(
            Code.MESSAGE_BADLY_FORMED, f"the action {said!r} is unknown; known are {known}"
        )
    return layout


def at(key: str, field: Field[Any]) -> Place:
    """A field under a key."""

    def take(raw: JsonObject, limits: Limits) -> Any:
        try:
            return field.read(raw.get(key), limits)
        except RequestRefused as error:
            raise RequestRefused(error.code, f"{key!r} {error.reason}") from None

    def put(wire: JsonObject, value: Any) -> None:
        written = field.write(value)
        if written is not None or not field.is_left_out:
            wire[key] = written

    return Place(take, put)


def optional(field: Field[T]) -> Field[T | None]:
    """A field that may be null, and is then left out."""
    return nullable(field)._replace(is_left_out=True)


def nullable(field: Field[T]) -> Field[T | None]:
    """A field that may be null."""

    def read(value: Json, limits: Limits) -> T | None:
        return None if value is None else field.read(value, limits)

    def write(value: T | None) -> Json:
        return None if value is None else field.write(value)

    return Field(read, write)


def parse(text: str | bytes, limits: Limits) -> JsonObject:
    """The JSON object that a frame holds.

    Raises `RemoteProtocolError`: who sends no objects does not speak this protocol.
    """
    if len(text) > limits.message_bytes_max:
        raise RemoteProtocolError(
            f"a message of {len(text):,} characters; message_bytes_max = "
            f"{limits.message_bytes_max:,} allows no more"
        )
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RemoteProtocolError(f"not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(raw, dict):
        raise RemoteProtocolError("a message is a JSON object")
    _check_depth(raw, limits)
    return raw


def _check_depth(raw: Json, limits: Limits) -> None:
    level = [raw]
    depth = 0
    while level:
        depth += 1
        if depth > limits.sharedb_depth_max:
            raise RemoteProtocolError(
                f"a message nested deeper than sharedb_depth_max = {limits.sharedb_depth_max}"
            )
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]


def _as_it_is(value: Any) -> Json:
    return value


def _read_text(value: Json, limits: Limits) -> str:
    if not isinstance(value, str):
        raise RequestRefused(Code.MESSAGE_BADLY_FORMED, f"is a string, not {_kind(value)}")
    return value


def _read_name(value: Json, limits: Limits) -> str:
    text = _read_text(value, limits)
    size = len(text.encode())
    if not 0 < size <= limits.sharedb_name_bytes_max:
        raise RequestRefused(
            Code.MESSAGE_BADLY_FORMED,
            f"has {size:,} bytes; 1 to sharedb_name_bytes_max = "
            f"{limits.sharedb_name_bytes_max} are allowed",
        )
    return text


def _read_count(value: Json, limits: Limits) -> int:
    # Exactly: a boolean is an `int` too, and JavaScript writes no integer with a point.
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        said = repr(value) if type(value) in (int, float) else _kind(value)
        raise RequestRefused(
            Code.MESSAGE_BADLY_FORMED, f"is an integer from 0 to 2^53 - 1, not {said}"
        )
    return value


def _kind(value: Json) -> str:
    return "missing" if value is None else type(value).__name__


ANY: Final = Field[Any](lambda value, limits: value, _as_it_is)
TEXT: Final = Field[str](_read_text, _as_it_is)
NAME: Final = Field[str](_read_name, _as_it_is)
COUNT: Final = Field[int](_read_count, _as_it_is)
