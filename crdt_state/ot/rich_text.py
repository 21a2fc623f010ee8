"""The format rich-text of Quill: deltas, counted in UTF-16 code units.

A delta is a JSON object (https://quilljs.com/docs/delta):

    {"ops": [
        {"retain": 3, "attributes": {"bold": true, "link": null}},
        {"insert": "new", "attributes": {"italic": true}},
        {"insert": {"image": "cat.png"}},
        {"delete": 2}
    ]}

A document is a delta that only inserts: the same functions read and write it, as an operation on
`EMPTY`.

Quill's own programs bring deltas that could be shorter: pasting over a selection deletes between
two insertions, and many a delta ends by going over what stays.  Quill reads what could be merged
as if it were, so it is taken, and merged; the order of insertions and deletions says something
(`operation`), and is kept.  Refused is what has no meaning, or another one than it seems to have:
empty attributes, and removals on what is inserted, which Quill stores as if they were values.

Quill compares texts in units, so a delta of its own `diff` cuts a pair now and then.  That is
refused too: half a character is no text, and no other format could say it.

Changes within an embed (`retain` with an object) need a handler in every program, and are not
taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt_state.errors import OperationMalformed, OperationTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot.attributes import Attributes
from crdt_state.ot.json_values import Json, read_count, read_text, shortened
from crdt_state.ot.operation import Delete, Draft, Embed, Insert, Operation, Order, Retain, check
from crdt_state.ot.transformation import Side
from crdt_state.ot.units import as_characters, as_units, in_code_points, in_units

if TYPE_CHECKING:
    from crdt_state.ot.operation import Component, Document

__all__ = ["INCOMING", "NAME", "ORDER", "URI", "decode", "decode_units", "encode", "encode_units"]

NAME: Final = "rich-text"
URI: Final = "http://sharejs.org/types/rich-text/v1"

INCOMING: Final = Side.RIGHT
"""The side of what comes in at a server (`transformation`)."""

ORDER: Final = Order.INSERTIONS_FIRST
"""How its clients order insertions and deletions at one place (`operation`)."""

KEYS = {"insert", "retain", "delete"}


def decode(wire: Json, document: Document, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
    """The operation on `document` that a delta says, in code points.

    Raises `OperationMalformed`, `OperationNotCanonical`, `OperationTooLarge`, `OperationPastEnd`
    and `PairSplit`.
    """
    return in_code_points(decode_units(wire, limits=limits), document)


def encode(operation: Operation, document: Document) -> dict[str, Json]:
    """The delta that says `operation`, which is one on `document`, in code points.

    Raises `OperationPastEnd`, and what `check` raises.
    """
    check(operation)
    return encode_units(in_units(operation, document))


def decode_units(wire: Json, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
    """The operation in units (`units`) that a delta says, on a document that is not at hand.

    Raises `OperationMalformed`, `OperationNotCanonical` and `OperationTooLarge`.
    """
    if not isinstance(wire, dict) or wire.keys() != {"ops"} or not isinstance(wire["ops"], list):
        raise OperationMalformed("delta", "it is an object with a list 'ops' and nothing else")
    parts = wire["ops"]
    if len(parts) > limits.operation_components_max:
        raise OperationTooLarge(
            "ops", "operation_components_max", limits.operation_components_max, len(parts)
        )
    draft = Draft()
    for index, part in enumerate(parts):
        draft.push(_read(part, f"ops[{index}]", limits))
    return draft.operation()


def encode_units(operation: Operation) -> dict[str, Json]:
    """The delta that says an operation in units.  Raises `PairSplit`."""
    return {"ops": [_written(each, f"ops[{i}]") for i, each in enumerate(operation.components)]}


def _read(part: Json, path: str, limits: Limits) -> Component:
    if not isinstance(part, dict):
        raise OperationMalformed(path, f"it is an object, not {type(part).__name__}")
    does = part.keys() & KEYS
    unknown = part.keys() - KEYS - {"attributes"}
    if len(does) != 1 or unknown:
        names = shortened(", ".join(sorted(map(repr, part))))
        raise OperationMalformed(
            path, f"it has one of 'insert', 'retain', 'delete', and 'attributes', not {names}"
        )
    attributes = None
    if "attributes" in part:
        there = f"{path}.attributes"
        if "delete" in does:
            raise OperationMalformed(there, "a deletion has no attributes")
        attributes = Attributes.of(part["attributes"], there, limits=limits)
    if "delete" in does:
        return Delete(read_count(part["delete"], f"{path}.delete"))
    if "retain" in does:
        return Retain(read_count(part["retain"], f"{path}.retain"), attributes)
    if attributes is not None and attributes.takes_away:
        raise OperationMalformed(
            f"{path}.attributes", "an insertion has no attribute to take away with null"
        )
    return Insert(_content(part["insert"], f"{path}.insert", limits), attributes)


def _content(content: Json, path: str, limits: Limits) -> str | Embed:
    if isinstance(content, str):
        return as_units(read_text(content, path))
    return Embed.of(content, path, limits=limits)


def _written(component: Component, path: str) -> dict[str, Json]:
    if type(component) is Delete:
        return {"delete": component.count}
    wire: dict[str, Json] = {}
    if type(component) is Retain:
        wire["retain"] = component.count
    elif isinstance(component.content, str):
        wire["insert"] = as_characters(component.content, f"{path}.insert")
    else:
        wire["insert"] = component.content.value
    if component.attributes is not None:
        wire["attributes"] = dict(component.attributes)
    return wire
