"""Undo and redo of the edits that were made here, never of anybody else's.

Texts, maps, lists and what lies on arrays are undone by the engine, which takes back what an edit
inserted and puts back what it deleted, wherever that now stands.  A counter has no past to go
back to: its undo counts the inverse amount.  A step is what happened in one transaction or within
the capture interval, over all containers of the stack: at most one of the engine's own steps, and
an amount for each counter.  The engine groups by time, so it is shown a time that makes it group
exactly as the steps here do.

1. The engine's steps that are spoken of here are the topmost ones that it holds, in this order.
2. A new edit forgets what could be redone.
3. At most `Limits.undo_steps_max` steps are kept; the oldest are forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from crdt_state.errors import UsageError
from crdt_state.model.container import Cause
from crdt_state.model.counter import Counter, CounterEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from crdt_state.clocks import Instant
    from crdt_state.limits import Limits
    from crdt_state.model.container import Container
    from crdt_state.model.engine import NativeDocument

__all__ = ["UndoStack"]

ENGINE_CAPTURE_MILLISECONDS: Final = 1_000


class _Owner(Protocol):
    """What a stack sees of its document."""

    @property
    def limits(self) -> Limits:
        """The bounds."""

    @property
    def transactions_begun(self) -> int:
        """Tells one transaction from the next."""

    def transaction(self, origin: object = None) -> AbstractContextManager[None]:
        """Writes go inside."""


@dataclass(slots=True)
class _Step:
    """What is undone together."""

    is_native: bool = False
    amounts: dict[Counter, int] = field(default_factory=dict)

    def is_empty(self) -> bool:
        return not self.is_native and not any(self.amounts.values())


class UndoStack:
    """The edits made here in some containers.  Made by `Document.undo_stack`.

    `now` gives seconds that only grow, and must not raise; edits less than `capture_seconds`
    apart are one step.  Only transactions of the origin `local_origin` of the engine count.
    """

    def __init__(
        self,
        owner: _Owner,
        native: NativeDocument,
        containers: Sequence[Container[Any, Any]],
        *,
        now: Callable[[], Instant],
        capture_seconds: float,
        local_origin: int,
    ) -> None:
        if not containers:
            raise UsageError("name at least one container whose edits are to be undone")
        if not capture_seconds >= 0:
            raise UsageError(f"capture_seconds is not below 0, as {capture_seconds} is")
        self._owner = owner
        self._native_document = native
        self._now = now
        self._capture_seconds = capture_seconds
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        # When and in which transaction the newest step last grew; None begins a new one.
        self._grown: Instant | None = None
        self._grown_in = 0
        self._is_replaying = False
        self._milliseconds = 1
        self._native = native.undo(
            capture_milliseconds=ENGINE_CAPTURE_MILLISECONDS,
            origins=[local_origin],
            timestamp=self._captured,
        )
        self._unwatch: list[Callable[[], None]] = []
        for container in containers:
            if isinstance(container, Counter):
                self._unwatch.append(container.watch(self._counting(container)))
            else:
                container.track_by(self._native)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return bool(self._undone)

    def undo(self) -> bool:
        """Take back the newest step that still has an effect; whether there was one.

        Events say `is_local` and this stack as their origin.  A step over counters and other
        containers gives two updates.  Raises `UsageError` inside a transaction.
        """
        return self._replay_any(self._done, self._undone, self._native.undo)

    def redo(self) -> bool:
        """Make the newest step that was undone again; whether there was one."""
        return self._replay_any(self._undone, self._done, self._native.redo)

    def split(self) -> None:
        """Let the next edit begin a new step, however soon it comes."""
        self._grown = None

    def clear(self) -> None:
        """Forget all steps."""
        self._done.clear()
        self._undone.clear()
        self._native.clear()
        self.split()

    def close(self) -> None:
        """Stop watching."""
        for unwatch in self._unwatch:
            unwatch()
        self._unwatch.clear()
        self._done.clear()
        self._undone.clear()
        self._native_document.end_undo(self._native)

    # --- recording; runs while the engine commits, so nothing here calls it

    def _captured(self) -> int:
        """Answer the engine's "what time is it?", which it asks when it captures an edit."""
        if self._is_replaying:
            return self._milliseconds
        step = self._growing_step()
        if not step.is_native:
            step.is_native = True
            self._milliseconds += 2 * ENGINE_CAPTURE_MILLISECONDS
        return self._milliseconds

    def _counting(self, counter: Counter) -> Callable[[CounterEvent], None]:
        def counted(event: CounterEvent) -> None:
            if event.is_local and not self._is_replaying:
                amounts = self._growing_step().amounts
                amounts[counter] = amounts.get(counter, 0) + event.amount

        return counted

    def _growing_step(self) -> _Step:
        """The step that an edit made now belongs to."""
        self._undone.clear()
        now, transaction = self._now(), self._owner.transactions_begun
        grown, self._grown = self._grown, now
        grown_in, self._grown_in = self._grown_in, transaction
        is_soon = grown is not None and now - grown < self._capture_seconds
        if self._done and (is_soon or transaction == grown_in):
            return self._done[-1]
        self._done.append(_Step())
        if len(self._done) > self._owner.limits.undo_steps_max:
            del self._done[0]
            self._native_document.later(self._trim)
        return self._done[-1]

    def _trim(self) -> None:
        """Let go of the engine's steps that belong to none of ours, now and then."""
        kept = sum(step.is_native for step in self._done)
        if self._native.depth()[0] > 2 * kept:
            self._native.keep(kept)

    # --- replaying

    def _replay_any(
        self, source: list[_Step], target: list[_Step], replay: Callable[[object], bool]
    ) -> bool:
        if self._native_document.in_transaction:
            raise UsageError("undo and redo happen between transactions, not inside one")
        self.split()
        is_changed = False
        while source and not is_changed:
            is_changed = self._replay(source, target, replay)
        return is_changed

    def _replay(
        self, source: list[_Step], target: list[_Step], replay: Callable[[object], bool]
    ) -> bool:
        """Replay one step of `source`; its inverse becomes one of `target`."""
        step = source.pop()
        inverse = _Step()
        self._is_replaying = True
        try:
            if step.is_native:
                before = self._native.depth()
                inverse.is_native = replay(Cause(is_local=True, origin=self, is_undo=True))
                after = self._native.depth()
                is_undo = source is self._done
                consumed = before[0] - after[0] if is_undo else before[1] - after[1]
                # The engine goes on to older steps where one has no effect any more.
                _forget_native(source, consumed - 1)
            if any(step.amounts.values()):
                with self._owner.transaction(origin=self):
                    for counter, amount in step.amounts.items():
                        counter.add(-amount)
                        inverse.amounts[counter] = -amount
        finally:
            self._is_replaying = False
            if not inverse.is_empty():
                target.append(inverse)
        return not inverse.is_empty()


def _forget_native(steps: list[_Step], count: int) -> None:
    """The engine's newest `count` steps are gone: so they are from the newest of `steps`."""
    for step in reversed(steps):
        if count <= 0:
            break
        if step.is_native:
            step.is_native = False
            count -= 1
    steps[:] = [step for step in steps if not step.is_empty()]
