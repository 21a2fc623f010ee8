"""Who is told of a transaction, in which order, and what becomes of their errors.

1. What the document's callbacks, then the containers' do, in the order of their naming, comes
   before anything that they put off by `later`.
2. A callback that writes is told of its own transaction at once; what that puts off stands
   behind what is being delivered already.
3. A callback that fails stops none of the others.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Delivery"]


class Delivery:
    """The calls that one document still has to make.

    A cause is whatever the transaction was given; callbacks get it as it is.
    """

    __slots__ = ("_events", "_failures", "_is_delivering", "_later", "_updates")

    def __init__(self) -> None:
        self._updates: list[tuple[Callable[..., None], bytes, Any]] = []
        self._events: list[tuple[int, Callable[..., None], object, Any]] = []
        self._later: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._failures: list[Exception] = []
        self._is_delivering = False

    def tell_update(self, callback: Callable[..., None], update: bytes, cause: object) -> None:
        """Have `callback(update, cause)` called."""
        self._updates.append((callback, update, cause))

    def tell_event(
        self, ordinal: int, callback: Callable[..., None], event: object, cause: object
    ) -> None:
        """Have `callback(event, cause)` called; of containers, the lowest ordinal's first."""
        self._events.append((ordinal, callback, event, cause))

    def later(self, callback: Callable[..., None], *arguments: object) -> None:
        """Have `callback(*arguments)` called behind all of these."""
        self._later.append((callback, arguments))

    def clear(self) -> None:
        """Call nobody any more."""
        self._updates.clear()
        self._events.clear()
        self._later.clear()

    def deliver(self) -> list[Exception]:
        """Make the calls; what failed of them, at the outermost delivery."""
        updates, self._updates = self._updates, []
        events, self._events = self._events, []
        # The engine's own order between containers changes from run to run.
        events.sort(key=itemgetter(0))
        for callback, update, cause in updates:
            self._run(callback, update, cause)
        for _, callback, event, cause in events:
            self._run(callback, event, cause)
        if self._is_delivering:
            return []
        self._is_delivering = True
        try:
            while self._later:
                later, arguments = self._later.popleft()
                self._run(later, *arguments)
        finally:
            self._is_delivering = False
        failures, self._failures = self._failures, []
        return failures

    def _run(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # An application's: all are raised together.
            self._failures.append(error)
