"""Operations that were made at the same time, brought one after the other.

    apply(apply(document, a), transform(b, a, RIGHT))
        == apply(apply(document, b), transform(a, b, LEFT))

is what makes two replicas agree (TP1 in C. Ellis and S. Gibbs, "Concurrency control in groupware
systems", 1989, as M. Ressel et al. named it in 1996).  One of the two is `LEFT`: where both insert
at one place its insertion stands in front, and where both set an attribute it has the say.
Whoever brings operations together has to agree on who that is.

**Which side.**  A server gives operations their one order.  What comes in was made at an older
revision, and is transformed against all that has been let in since.  A client does the same, on
the same side, with what waits in its hands, and transforms what the server sends on the other one.
Which side is whose is part of a format, because its clients are written already:

- text-unicode: what comes in is `LEFT`.  An insertion that the server sees later stands in front.
- rich-text: what comes in is `RIGHT`.  Its own word for the side of what comes in is "left" too,
  but Quill's `history.transform(incoming, priority)` gives that priority to the history, so what
  the server sees first stands in front, and its attributes win.

`text_unicode.INCOMING` and `rich_text.INCOMING` say so.

**What is not claimed.**  Three operations that are made at once and brought in different orders
by different replicas may end in different texts (TP2 does not hold).  Where a server gives the one
order, nobody does that.

**Operation by operation.**  To catch up, transform against every operation of the history in its
turn: `rebase`.  Composing the history first would be one step instead of many, and is wrong: it no
longer says that a text was deleted before somebody inserted beside it.  Two insertions that meet
at one place, step by step, do not meet then, and stand the other way round than at a client.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.ot.attributes import transformed
from crdt_state.ot.operation import Delete, Draft, Insert, Order, Retain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crdt_state.ot.operation import Operation

__all__ = ["Rebased", "Side", "rebase", "rebase_all", "transform", "transform_position"]


class Side(enum.Enum):
    """Who stands in front at one place, and has the say about one attribute: who is `LEFT`."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def other(self) -> Side:
        """The side of the one against which is transformed."""
        return Side.RIGHT if self is Side.LEFT else Side.LEFT


class Rebased(NamedTuple):
    """Two lists of operations, made from one document on: each as it follows the other."""

    mine: tuple[Operation, ...]
    theirs: tuple[Operation, ...]


def transform(
    operation: Operation, other: Operation, side: Side, *, order: Order = Order.AS_MADE
) -> Operation:
    """What `operation` is after `other`, which was made on the same document.

    `side` is that of `operation`.
    """
    draft = Draft(order)
    wins = side is Side.LEFT
    mine, theirs = iter(operation.components), iter(other.components)
    one, two = next(mine, None), next(theirs, None)
    # How much of what they go over is behind us.
    one_at = two_at = 0
    while one is not None and two is not None:
        if type(two) is Insert and not (wins and type(one) is Insert):
            draft.retain(len(two.content))
            two = next(theirs, None)
        elif type(one) is Insert:
            draft.insert(one)
            one = next(mine, None)
        elif type(two) is not Insert:
            one_left, two_left = one.count - one_at, two.count - two_at
            step = one_left if one_left < two_left else two_left
            if type(two) is Retain:
                if type(one) is Delete:
                    draft.delete(step)
                else:
                    draft.retain(step, transformed(one.attributes, two.attributes, wins=wins))
            one_at += step
            two_at += step
            if step == one_left:
                one, one_at = next(mine, None), 0
            if step == two_left:
                two, two_at = next(theirs, None), 0
    draft.finish(one, one_at, mine)
    return draft.operation()


def transform_position(position: int, operation: Operation, side: Side = Side.LEFT) -> int:
    """Where a position is after `operation`.

    It is where an insertion at `position` would be made after `transform` with this `side`: what
    `operation` inserts at the very place comes behind a `LEFT` one and before a `RIGHT` one.  That
    is how text-unicode moves its cursors (`LEFT`), and Quill with and without its priority.
    """
    # How far it is to go on the old document, and where that is on the new one.
    left, at = position, 0
    for component in operation.components:
        if type(component) is Insert:
            if not left and side is Side.LEFT:
                break
            at += len(component.content)
            continue
        if not left or left < component.count:
            if type(component) is Delete:
                left = 0
            break
        left -= component.count
        if type(component) is Retain:
            at += component.count
    return at + left


def rebase(
    operation: Operation,
    history: Iterable[Operation],
    side: Side,
    *,
    order: Order = Order.AS_MADE,
) -> Operation:
    """What `operation` is after all of `history`, which begins at the same document.

    The operations of `history` follow one another.  `side` is that of `operation`.
    """
    for other in history:
        operation = transform(operation, other, side, order=order)
    return operation


def rebase_all(
    mine: Sequence[Operation],
    theirs: Sequence[Operation],
    side: Side,
    *,
    order: Order = Order.AS_MADE,
) -> Rebased:
    """Both lists as each follows the other; those of a list follow one another.

    For who has made several operations meanwhile: `mine` are then to be sent on, and `theirs` to
    be applied here.  `side` is that of `mine`.
    """
    rebased: list[Operation] = []
    for each in mine:
        operation = each
        passed: list[Operation] = []
        for other in theirs:
            passed.append(transform(other, operation, side.other, order=order))
            operation = transform(operation, other, side, order=order)
        rebased.append(operation)
        theirs = passed
    return Rebased(tuple(rebased), tuple(theirs))
