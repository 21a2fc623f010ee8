"""The content of a document as people read it: values instead of the layout that holds them.

What `Document.as_json` gives of a counter, set, movable list or register is its layout on Yjs
types (`layout`).  Here each of these roots becomes what the container of that name would show;
the root keeps its name, whose suffix says what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdt_state.model.counter import sum_of
from crdt_state.model.layout import (
    COUNTER,
    KIND_SUFFIXES,
    MOVABLE_LIST,
    MULTI_VALUE_REGISTER,
    REGISTER,
    SET,
    kind_of_root,
)
from crdt_state.model.movable import elements_of
from crdt_state.model.register import distinct, latest_of
from crdt_state.model.values import identity_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = ["shown"]


def shown(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content`, which `as_json` gave, with a value in the place of each layout.

    A counter is its number, a set and a movable list are lists, a register is its value (None
    where nothing was written), a multi-value register the list of its values.
    """
    return {root: _shown(root, value) for root, value in content.items()}


def _shown(root: str, value: Any) -> Any:
    found = kind_of_root(root)
    if found is not None:
        kind = found[1]
        if isinstance(value, dict) and kind == KIND_SUFFIXES[COUNTER]:
            return sum_of(value)
        if isinstance(value, list) and kind in _OF_ROWS:
            return _OF_ROWS[kind](value)
    # A plain root, or one to which a foreign program gave another type than its name says.
    return value


def _elements(rows: list[Any]) -> list[Any]:
    found: dict[Hashable, Any] = {}
    for row in filter(_is_element, rows):
        found.setdefault(identity_of(row), row)
    return list(found.values())


def _is_element(value: Any) -> bool:
    """Objects are none (see `Set`), but for the form that `as_json` gives to bytes."""
    if isinstance(value, dict):
        return value.keys() == {"base64"} and isinstance(value["base64"], str)
    return not isinstance(value, list) or all(map(_is_element, value))


_OF_ROWS = {
    KIND_SUFFIXES[SET]: _elements,
    KIND_SUFFIXES[MOVABLE_LIST]: elements_of,
    KIND_SUFFIXES[REGISTER]: latest_of,
    KIND_SUFFIXES[MULTI_VALUE_REGISTER]: distinct,
}
