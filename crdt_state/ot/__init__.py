"""Operational transform for text: operations as values, and what brings concurrent ones together.

    before = "the cat"
    mine = diff(before, "the black cat")
    theirs = diff(before, "the cats")
    after = apply(apply(before, theirs), transform(mine, theirs, Side.LEFT))

`operation` says what an operation is, `composition` what it does, `transformation` which side is
whose, `difference` how one is found.  `text_unicode` and `rich_text` are the formats that ShareDB's
clients speak, as strict codecs; `units` has UTF-16.  Nothing here knows a document's history, who
gives it its order, or where it is kept.
"""

from crdt_state.ot import rich_text, text_unicode
from crdt_state.ot.attributes import Attributes
from crdt_state.ot.composition import apply, compose, invert
from crdt_state.ot.difference import diff
from crdt_state.ot.operation import (
    EMPTY,
    Component,
    Delete,
    Document,
    Embed,
    Insert,
    Operation,
    Order,
    Retain,
    check,
    length_of,
)
from crdt_state.ot.transformation import (
    Rebased,
    Side,
    rebase,
    rebase_all,
    transform,
    transform_position,
)
from crdt_state.ot.units import in_code_points, in_units, point_of_unit, unit_of_point

__all__ = [
    "Operation",
    "Component",
    "Retain",
    "Insert",
    "Delete",
    "Embed",
    "Attributes",
    "Document",
    "EMPTY",
    "Order",
    "check",
    "length_of",
    "apply",
    "compose",
    "invert",
    "diff",
    "Side",
    "transform",
    "transform_position",
    "rebase",
    "rebase_all",
    "Rebased",
    "text_unicode",
    "rich_text",
    "in_units",
    "in_code_points",
    "unit_of_point",
    "point_of_unit",
]
