"""Change events as async iterators, over the callbacks that every container and document has.

    async with changes(document.text("text")) as events:
        async for event in events:
            ...

What arrives while the reader is busy waits, up to `Limits.events_waiting_max`.  Beyond that
nothing is kept: the reader gets what waited, then one `EventsMissed`, and has to look at the
container itself; what comes after is told again.  So a slow reader neither holds up the writer
nor fills the memory, and never takes a gap for the whole story.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from crdt_state.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Changes", "EventsMissed", "Observable", "changes"]

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)


class Observable(Protocol[EventT_co]):
    """What has events: every container of a document."""

    def observe(self, callback: Callable[[EventT_co], None]) -> Callable[[], None]:
        """Call `callback(event)` until the returned function is called."""


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """In this place `count` events were dropped, because too many waited: read the container."""

    count: int


def changes(observable: Observable[EventT], *, limits: Limits = DEFAULT_LIMITS) -> Changes[EventT]:
    """An async iterator over the events of `observable`, from now until it is closed.

    Used as `async with`, it stops listening at the end of the block; otherwise call `close`.
    """
    return Changes(observable, limits.events_waiting_max)


class Changes(Generic[EventT]):
    """See `changes`.  One reader at a time, in the event loop in which the writer runs."""

    def __init__(self, observable: Observable[EventT], waiting_max: int) -> None:
        self._waiting: deque[EventT | EventsMissed] = deque()
        self._waiting_max = waiting_max
        self._missed = 0
        self._reader: asyncio.Future[None] | None = None
        self._is_closed = False
        self._unsubscribe = observable.observe(self._receive)

    def close(self) -> None:
        """Stop listening; what waits can still be read, then the iteration ends."""
        self._is_closed = True
        self._unsubscribe()
        self._wake()

    def __aiter__(self) -> Changes[EventT]:
        return self

    async def __anext__(self) -> EventT | EventsMissed:
        while True:
            if self._waiting:
                return self._waiting.popleft()
            if self._missed:
                missed, self._missed = self._missed, 0
                return EventsMissed(missed)
            if self._is_closed:
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("two tasks read one iterator of changes: give each its own")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def __aenter__(self) -> Changes[EventT]:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, event: EventT) -> None:
        # Once something is missed, all is missed until the reader has been told where.
        if self._missed or len(self._waiting) >= self._waiting_max:
            self._missed += 1
        else:
            self._waiting.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
