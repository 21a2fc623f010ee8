"""What kind a root is, by what it holds: no update says the type of a root."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import pycrdt

__all__ = ["RootKind", "kinds_in", "likeliest"]


class RootKind(Enum):
    """What a root is, as far as one can see from what it holds."""

    TEXT = "text"
    MAP = "map"
    LIST = "list"
    XML = "xml"


_XML: Final = (pycrdt.XmlElement, pycrdt.XmlText, pycrdt.XmlFragment)
_SHARED: Final = (pycrdt.Text, pycrdt.Map, pycrdt.Array, pycrdt.Doc, *_XML)


def likeliest(kinds: tuple[RootKind, ...]) -> RootKind | None:
    """The first of what `kinds_in` gave, or None for a root that holds nothing."""
    return kinds[0] if kinds else None


def kinds_in(copy: pycrdt.Doc[Any], name: str) -> tuple[RootKind, ...]:
    """What a root can be by what it holds, likeliest first.

    `copy` must not be used for anything that observes: this names the root as several types, and
    the first naming of a root fixes its type inside the engine for good.
    """
    if len(copy.get(name, type=pycrdt.Map)):
        return (RootKind.MAP,)
    chunks = [content for content, _ in copy.get(name, type=pycrdt.Text).diff()]
    if any(not isinstance(content, _SHARED) for content in chunks):
        return (RootKind.TEXT,)
    length = len(copy.get(name, type=pycrdt.Array))
    if not length:
        return ()
    if len(chunks) < length:
        # Values that a text does not show.
        return (RootKind.LIST,)
    is_xml = all(isinstance(content, _XML) for content in chunks)
    return (RootKind.XML if is_xml else RootKind.LIST, RootKind.TEXT)
