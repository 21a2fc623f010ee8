"""What operations do: to a document, one after another, and undone.

    apply(apply(document, a), b) == apply(document, compose(a, b))
    apply(apply(document, a), invert(a, document)) == document

Each is one walk over what it is given: the cost is that of its components, and of copying the
text once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from crdt_state.errors import OperationMalformed, OperationPastEnd
from crdt_state.ot.attributes import composed, inverted
from crdt_state.ot.operation import (
    Delete,
    Draft,
    Insert,
    Operation,
    Order,
    Retain,
    check_reach,
    length_of,
    part,
)
from crdt_state.ot.pieces import Pieces

if TYPE_CHECKING:
    from crdt_state.ot.operation import Document

__all__ = ["apply", "compose", "invert"]

AnyDocument = TypeVar("AnyDocument", str, Operation, "Document")


def apply(document: AnyDocument, operation: Operation) -> AnyDocument:
    """The document that `operation` makes of `document`.

    Raises `OperationPastEnd`; `OperationMalformed` where a `str` is to hold attributes or embeds.
    """
    if isinstance(document, str):
        return _applied_to_text(document, operation)
    check_reach(operation, length_of(document))
    return compose(document, operation)


def compose(first: Operation, second: Operation, *, order: Order = Order.AS_MADE) -> Operation:
    """The operation that does what `first` does, and then `second`."""
    draft = Draft(order)
    firsts, seconds = iter(first.components), iter(second.components)
    one, two = next(firsts, None), next(seconds, None)
    # How much of a component is behind us: of `one` in the text between them, as of `two`.
    one_at = two_at = 0
    while one is not None and two is not None:
        if type(two) is Insert:
            draft.insert(two)
            two = next(seconds, None)
            continue
        if type(one) is Delete:
            draft.delete(one.count)
            one = next(firsts, None)
            continue
        one_left = (one.count if type(one) is Retain else len(one.content)) - one_at
        two_left = two.count - two_at
        step = one_left if one_left < two_left else two_left
        _compose_step(draft, one, one_at, two, step)
        one_at += step
        two_at += step
        if step == one_left:
            one, one_at = next(firsts, None), 0
        if step == two_left:
            two, two_at = next(seconds, None), 0
    draft.finish(one, one_at, firsts)
    draft.finish(two, two_at, seconds)
    return draft.operation()


def invert(operation: Operation, document: Document, *, order: Order = Order.AS_MADE) -> Operation:
    """The operation that undoes `operation`, which is one to apply to `document`.

    Raises `OperationPastEnd`.
    """
    check_reach(operation, length_of(document))
    pieces, draft = Pieces(document), Draft(order)
    for component in operation.components:
        if type(component) is Insert:
            draft.delete(len(component.content))
            continue
        end = pieces.gone + component.count
        while pieces.gone < end:
            piece = pieces.take(min(end - pieces.gone, pieces.left))
            if type(component) is Delete:
                draft.push(piece)
            else:
                change = inverted(component.attributes, piece.attributes)
                draft.retain(len(piece.content), change)
    return draft.operation()


def _applied_to_text(document: str, operation: Operation) -> str:
    pieces: list[str] = []
    at = 0
    for index, component in enumerate(operation.components):
        if type(component) is Delete:
            at += component.count
            continue
        if component.attributes is not None:
            raise OperationMalformed(f"component {index}", "a plain text has no attributes")
        if type(component) is Retain:
            pieces.append(document[at : at + component.count])
            at += component.count
        elif isinstance(component.content, str):
            pieces.append(component.content)
        else:
            raise OperationMalformed(f"component {index}", "a plain text has no embeds")
    if at > len(document):
        raise OperationPastEnd("operation", at, len(document))
    pieces.append(document[at:])
    return "".join(pieces)


def _compose_step(
    draft: Draft, one: Retain | Insert, at: int, two: Retain | Delete, step: int
) -> None:
    """What becomes of `step` code points, `at` in what `one` leaves, that `two` comes over."""
    if type(two) is Delete:
        # What was inserted and is deleted has never been.
        if type(one) is Retain:
            draft.delete(step)
    elif type(one) is Retain:
        draft.retain(step, composed(one.attributes, two.attributes, keeps_removals=True))
    else:
        attributes = composed(one.attributes, two.attributes, keeps_removals=False)
        draft.insert(part(one, at, step, attributes))
