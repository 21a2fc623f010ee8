"""The formats as values: what who brings operations together has to know of one.

An operation of a format is in the format's *measure*: code points for text-unicode, UTF-16 code
units for rich-text (`units`).  Whoever holds history transforms in that measure, and converts where
a document is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import rich_text, text_unicode
from crdt_state.ot.operation import Insert, Operation, Order, check
from crdt_state.ot.units import as_characters, in_code_points, in_units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crdt_state.ot.operation import Component, Document
    from crdt_state.ot.transformation import Side

__all__ = ["FORMATS", "RICH_TEXT", "TEXT_UNICODE", "Format"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What clients of one kind speak, and how they bring operations together."""

    name: str
    uri: str
    incoming: Side
    """The side of what comes in at a server (`transformation`)."""
    order: Order
    """How its clients order insertions and deletions at one place (`operation`)."""
    counts_units: bool
    """Whether its measure is UTF-16 code units."""
    is_plain: bool
    """Whether its documents are plain texts, without attributes and embeds."""

    def in_measure(self, operation: Operation, document: Document) -> Operation:
        """`operation` on `document`, from code points.  Raises `OperationPastEnd`."""
        return in_units(operation, document) if self.counts_units else operation

    def in_code_points(self, operation: Operation, document: Document) -> Operation:
        """`operation` on `document`, to code points; `document` is in those.

        Raises `OperationPastEnd` and `PairSplit`.
        """
        return in_code_points(operation, document) if self.counts_units else operation

    def check(self, operation: Operation, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Refuse what is no operation in this measure, whatever it is to be applied to.

        Raises what `ot.check` raises, and `PairSplit`.
        """
        if self.counts_units:
            components = enumerate(operation.components)
            operation = Operation(tuple(_spelt(each, f"component {i}") for i, each in components))
        check(operation, limits=limits)


TEXT_UNICODE: Final = Format(
    name=text_unicode.NAME,
    uri=text_unicode.URI,
    incoming=text_unicode.INCOMING,
    order=text_unicode.ORDER,
    counts_units=False,
    is_plain=True,
)

RICH_TEXT: Final = Format(
    name=rich_text.NAME,
    uri=rich_text.URI,
    incoming=rich_text.INCOMING,
    order=rich_text.ORDER,
    counts_units=True,
    is_plain=False,
)

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {each.name: each for each in (TEXT_UNICODE, RICH_TEXT)}
)
"""By name."""


def _spelt(component: Component, path: str) -> Component:
    """A component with characters in the place of halves; its counts stay."""
    if type(component) is not Insert or not isinstance(component.content, str):
        return component
    return Insert(as_characters(component.content, path), component.attributes)
