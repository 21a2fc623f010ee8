"""Everything that a document holds, as JSON values."""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_state.model.engine.kinds import RootKind, kinds_in, likeliest
from crdt_state.model.engine.plain import plain, runs_as_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["content_of"]


def content_of(
    copy: pycrdt.Doc[Any], kinds: Mapping[str, RootKind], *, formatted: bool
) -> dict[str, Any]:
    """Every root that holds something, and every root in `kinds`; see `NativeDocument.as_json`.

    `formatted` gives texts as their runs where they have formatting.  `copy` is spoilt by this;
    see `kinds_in`.
    """
    content = {}
    for name in sorted({*copy.keys(), *kinds}):
        kind = kinds.get(name) or likeliest(kinds_in(copy, name))
        if kind is not None:
            content[name] = _json_of(_root_in(copy, name, kind, formatted=formatted))
    return content


def _root_in(copy: pycrdt.Doc[Any], name: str, kind: RootKind, *, formatted: bool) -> Any:
    match kind:
        case RootKind.TEXT:
            text = copy.get(name, type=pycrdt.Text)
            return runs_as_json(text) if formatted else str(text)
        case RootKind.MAP:
            return copy.get(name, type=pycrdt.Map)
        case RootKind.LIST | RootKind.XML:
            return copy.get(name, type=pycrdt.Array)


def _json_of(value: Any) -> Any:
    """`plain`, with what JSON cannot say said otherwise."""
    holder: list[Any] = [plain(value)]
    work: list[tuple[Any, Any]] = [(holder, 0)]
    while work:
        place, key = work.pop()
        one = place[key]
        if isinstance(one, bytes):
            place[key] = {"base64": b64encode(one).decode()}
        elif isinstance(one, float) and not math.isfinite(one):
            place[key] = None
        elif type(one) is list:
            work.extend((one, index) for index in range(len(one)))
        elif type(one) is dict:
            work.extend((one, name) for name in one)
    return holder[0]
