"""What the engine gives back, as plain Python values.

A peer decides how deep values nest, so nothing here recurses.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import pycrdt

from crdt_state.errors import EngineFailed
from crdt_state.model.values import from_stored

__all__ = ["plain", "plain_delta", "runs_as_json", "runs_of"]


def plain(value: Any) -> Any:
    """A value of the engine as a plain one: integral numbers are int, buffers are bytes.

    Nested containers become lists, dictionaries and strings.
    """
    holder: list[Any] = [value]
    work: list[tuple[Any, Any]] = [(holder, 0)]
    while work:
        place, key = work.pop()
        one = place[key] = _plain_once(place[key])
        if type(one) is list:
            work.extend((one, index) for index in range(len(one)))
        elif type(one) is dict:
            work.extend((one, name) for name in one)
    return holder[0]


def plain_delta(event: Any) -> list[dict[str, Any]]:
    """What an event says of a sequence, from its front on.

    `{"retain": n}`, `{"delete": n}` and `{"insert": …}`, which is a list of values, or in a text
    a string or one value; in a text, `attributes` may stand beside them.
    """
    return [{key: plain(value) for key, value in operation.items()} for operation in event.delta]


def runs_of(text: pycrdt.Text | pycrdt.XmlText) -> list[tuple[Any, dict[str, Any] | None]]:
    """Strings and embedded values with their attributes, adjacent equal ones joined."""
    runs: list[tuple[Any, dict[str, Any] | None]] = []
    for raw, raw_attributes in text.diff():
        found = {
            key: value for key, value in plain(raw_attributes or {}).items() if value is not None
        }
        attributes = found or None
        content = plain(raw)
        if runs and isinstance(content, str) and isinstance(runs[-1][0], str):
            before, before_attributes = runs[-1]
            if before_attributes == attributes:
                runs[-1] = (before + content, attributes)
                continue
        runs.append((content, attributes))
    return runs


def runs_as_json(text: pycrdt.Text | pycrdt.XmlText) -> Any:
    """The string where there is nothing but characters, else the runs as a Quill delta."""
    runs = runs_of(text)
    if all(isinstance(content, str) and attributes is None for content, attributes in runs):
        return "".join(content for content, _ in runs)
    return [
        {"insert": content} if attributes is None else {"insert": content, "attributes": attributes}
        for content, attributes in runs
    ]


def _plain_once(value: Any) -> Any:
    """One level of `plain`: what is inside is still the engine's."""
    match value:
        case bool() | str() | int() | None:
            return value
        case float() | bytearray():
            return from_stored(value)
        case list() | tuple():
            return list(value)
        case dict():
            return dict(value)
        case _:
            return _plain_shared(value)


def _plain_shared(value: Any) -> Any:  # noqa: PLR0911 - one return for each shared type
    match value:
        case pycrdt.Text():
            return str(value)
        case pycrdt.Map():
            return dict(value.items())
        case pycrdt.Array():
            return list(value)
        case pycrdt.XmlElement():
            return {
                "tag": value.tag,
                "attributes": dict(sorted(value.attributes, key=itemgetter(0))),  # type: ignore[call-overload]
                "children": list(value.children),
            }
        case pycrdt.XmlText():
            return runs_as_json(value)
        case pycrdt.XmlFragment():
            return list(value.children)
        case pycrdt.Doc():
            return {"guid": value.guid}
        case _:
            raise EngineFailed(f"the engine gave back an unknown {type(value).__name__}")
