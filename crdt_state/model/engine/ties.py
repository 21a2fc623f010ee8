"""What holds the memory of a native document, and lets go of it: by `close`, or by collection.

The engine keeps the callbacks that it was given, and a callback that holds its document is a
circle that the collector does not see: such a document stays for ever.  So the engine is given
callbacks that hold nobody (`weakly`), and what has to be taken away is kept here, apart from the
document, for whoever comes first: `close`, a panic, or the finalizer.

1. Nothing in here refers to the `NativeDocument`, its containers or its undo managers.
2. An open transaction is left first: it locks the document against everything else.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple
from weakref import WeakMethod

from crdt_state.model.engine.guard import let_go

if TYPE_CHECKING:
    from collections.abc import Callable

    import pycrdt

__all__ = ["Ties", "weakly"]

Arguments = TypeVarTuple("Arguments")
R = TypeVar("R")


class Ties:
    """One document's; `transaction` is the one that is open, if one is."""

    __slots__ = ("_ends", "_numbers", "transaction")

    def __init__(self) -> None:
        self.transaction: pycrdt.Transaction | None = None
        self._ends: dict[int, Callable[[], object]] = {}
        self._numbers = count()

    def tie(self, end: Callable[[], object]) -> Callable[[], None]:
        """Have `end` run by `release`; or before that, by the function that is returned."""
        number = next(self._numbers)
        self._ends[number] = end
        return partial(self._untie, number)

    def release(self) -> None:
        """Let go of everything, the newest first; again is nothing."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            let_go(partial(transaction.__exit__, None, None, None))
        for number in reversed(tuple(self._ends)):
            self._untie(number)

    def _untie(self, number: int) -> None:
        end = self._ends.pop(number, None)
        if end is not None:
            let_go(end)


def weakly(method: Callable[[*Arguments], R], *, gone: R) -> Callable[[*Arguments], R]:
    """`method` of an object, without keeping that object; `gone` is its answer afterwards."""
    reference = WeakMethod(method)

    # pycrdt counts parameters, and to a callback with this one it hands one argument.
    def call(*arguments: *Arguments) -> R:
        alive = reference()
        return gone if alive is None else alive(*arguments)

    return call
