"""The format text-unicode of ottypes: plain text, counted in code points.

An operation is a JSON list (https://github.com/ottypes/text-unicode):

    3             goes over three code points
    "new"         inserts
    {"d": 2}      deletes two
    {"d": "ab"}   deletes two, and says which, so that it could be inverted without the document

The text of the fourth is counted and not compared with the document, as ottypes does; what is
written is always the third.

Two of a kind never stand side by side, and nothing at the end goes over what stays: ottypes makes
nothing else.  It reads two insertions in a row, but as something else than one: where somebody
else inserts at that place, only the first of them takes part in the tie.  So they are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_state.errors import (
    NotInFormat,
    OperationMalformed,
    OperationNotCanonical,
    OperationTooLarge,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot.json_values import Json, read_count, read_text, shortened
from crdt_state.ot.operation import Delete, Insert, Operation, Order, Retain, check
from crdt_state.ot.transformation import Side

if TYPE_CHECKING:
    from crdt_state.ot.operation import Component

__all__ = ["INCOMING", "NAME", "ORDER", "URI", "decode", "encode"]

NAME: Final = "text-unicode"
URI: Final = "http://sharejs.org/types/text-unicode"

INCOMING: Final = Side.LEFT
"""The side of what comes in at a server (`transformation`)."""

ORDER: Final = Order.AS_MADE
"""How its clients order insertions and deletions at one place (`operation`)."""


def decode(wire: Json, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
    """The operation that a JSON list says.

    Raises `OperationMalformed`, `OperationNotCanonical` and `OperationTooLarge`.
    """
    if not isinstance(wire, list):
        raise OperationMalformed("operation", f"it is a list, not {type(wire).__name__}")
    if len(wire) > limits.operation_components_max:
        raise OperationTooLarge(
            "operation", "operation_components_max", limits.operation_components_max, len(wire)
        )
    components: list[Component] = []
    before: type[Component] | None = None
    for index, part in enumerate(wire):
        component = _read(part, f"[{index}]")
        if type(component) is before:
            raise OperationNotCanonical(f"[{index}]", "it is one with the component before it")
        before = type(component)
        components.append(component)
    if before is Retain:
        raise OperationNotCanonical(f"[{len(wire) - 1}]", "nothing comes after it")
    return Operation(tuple(components))


def encode(operation: Operation) -> list[Json]:
    """The JSON list that says `operation`.

    Raises `NotInFormat` for attributes and embeds, and what `check` raises.
    """
    check(operation)
    wire: list[Json] = []
    for index, component in enumerate(operation.components):
        if type(component) is Delete:
            wire.append({"d": component.count})
        elif component.attributes is not None:
            raise NotInFormat(NAME, f"component {index}", "attributes")
        elif type(component) is Retain:
            wire.append(component.count)
        elif isinstance(component.content, str):
            wire.append(component.content)
        else:
            raise NotInFormat(NAME, f"component {index}", "embeds")
    return wire


def _read(part: Json, path: str) -> Component:
    if isinstance(part, str):
        return Insert(read_text(part, path))
    if not isinstance(part, dict):
        return Retain(read_count(part, path))
    if part.keys() != {"d"}:
        names = shortened(", ".join(sorted(map(repr, part)))) or "none"
        raise OperationMalformed(path, f"a deletion has the key 'd' and no other, not {names}")
    deleted = part["d"]
    if isinstance(deleted, str):
        return Delete(len(read_text(deleted, f"{path}.d")))
    return Delete(read_count(deleted, f"{path}.d"))
