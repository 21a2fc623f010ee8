"""How a container meets its document.

A container is a facade over one root: it checks what it is asked for, writes in a transaction of
its document, and turns the engine's changes into event values.  It knows its document only as an
`Owner`, and the engine's root only through the native facade it was given.

The order after a transaction, so that no callback ever reads a stale copy:
1. every container's `changed` runs (bring copies up to date, build the event),
2. then the document's `on_update` callbacks, then the containers' `observe` callbacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from crdt_state.model.callbacks import subscribe
from crdt_state.model.engine import NativeArray, NativeMap, NativeText

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from crdt_state.clocks import HybridClock
    from crdt_state.identifiers import ClientId, Incarnation
    from crdt_state.limits import Limits
    from crdt_state.model.engine import NativeUndo

__all__ = ["Cause", "Container", "Event", "Owner"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something changed: a local transaction, one's own undo (also local), or a peer."""

    is_local: bool
    origin: object = None
    is_undo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every change event says; `origin` is what the transaction was given."""

    is_local: bool
    origin: object = None


class Owner(Protocol):
    """What a container sees of its document."""

    @property
    def client_id(self) -> ClientId:
        """Who writes, in this opening of the document."""

    @property
    def incarnation(self) -> Incarnation:
        """Who writes, over all openings: 16 bytes."""

    @property
    def clock(self) -> HybridClock:
        """Where stamps come from."""

    @property
    def limits(self) -> Limits:
        """The bounds."""

    @property
    def transactions_begun(self) -> int:
        """How many outermost transactions have begun: tells one from the next."""

    def transaction(self, origin: object = None) -> AbstractContextManager[None]:
        """Writes go inside; nests."""

    def later(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run an application's callback when all containers are up to date."""


Native = TypeVar("Native", NativeText, NativeMap, NativeArray)
EventT = TypeVar("EventT", bound=Event)


class Container(Generic[Native, EventT]):
    """One root of a document.  Made by `Document` only, once for each name and kind.

    A subclass implements `changed` and begins every write with its checks, then
    `with self._owner.transaction():`.
    """

    kind: ClassVar[str]
    follows_always: ClassVar[bool] = True
    """Whether `changed` runs from the beginning, or only once somebody observes."""

    def __init__(self, owner: Owner, native: Native, name: str) -> None:
        self._owner = owner
        self._native: Native = native
        self.name = name
        self._callbacks: list[Callable[[EventT], None]] = []
        self._watchers: list[Callable[[EventT], None]] = []
        self._is_following = False
        if self.follows_always:
            self._follow()

    def observe(self, callback: Callable[[EventT], None]) -> Callable[[], None]:
        """Call `callback(event)` after each transaction that changed this; return the off switch.

        It may read and write.  What it raises comes out of the transaction as
        `ObserversFailed`, after everybody has been called.
        """
        self._follow()
        return subscribe(self._callbacks, callback)

    def watch(self, callback: Callable[[EventT], None]) -> Callable[[], None]:
        """Like `observe`, but at once, before any application's callback (for machinery).

        Other containers may not be up to date yet; `callback` must neither write nor raise.
        """
        self._follow()
        return subscribe(self._watchers, callback)

    def track_by(self, undo: NativeUndo) -> None:
        """Let an undo manager of the engine watch this."""
        self._native.track_by(undo)

    def changed(self, change: Any, cause: Cause) -> EventT | None:
        """Follow a committed change; the event to tell, or None for nothing to tell.

        `change` is what the native facade's `observe` gives.  It is called for one's own
        transactions as well (`cause.is_local and not cause.is_undo`): what was already
        followed while writing must not be followed twice.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """Something changed that `changed` may not be told of: drop copies of the content."""

    def _follow(self) -> None:
        if not self._is_following:
            self._is_following = True
            self._native.observe(self._committed)

    def _committed(self, change: Any, cause: Cause) -> None:
        event = self.changed(change, cause)
        if event is not None:
            for watcher in tuple(self._watchers):
                watcher(event)
            for callback in tuple(self._callbacks):
                self._owner.later(callback, event)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
