"""Undo and redo as the engine does them: of transactions, by their origin and their time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycrdt

from crdt_state.model.engine.ties import weakly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crdt_state.model.engine.document import NativeDocument

__all__ = ["NativeUndo"]


class NativeUndo:
    """Undo and redo of transactions of some origins, in some containers.

    `timestamp` is asked once, inside the commit, for each transaction that is captured; it
    gives milliseconds above 0.  Transactions less than `capture_milliseconds` apart by it are
    one step.  It must not raise.
    """

    def __init__(
        self,
        document: NativeDocument,
        capture_milliseconds: int,
        origins: Iterable[int],
        timestamp: Callable[[], int],
    ) -> None:
        self._document = document
        self._capture_milliseconds = capture_milliseconds
        self._origins = tuple(origins)
        self._timestamp = timestamp
        self._scopes: list[Any] = []
        # A list, so that the document's finalizer can empty it without holding this object.
        self._managers = [self._new_manager([], [])]
        self._untie = document.tie(self._managers.clear)

    def expand(self, shared: Any) -> None:
        """Watch this root too (for containers)."""
        self._scopes.append(shared)
        self._document.call(lambda: self._manager.expand_scope(shared))

    def keep(self, steps: int) -> None:
        """Forget all but the newest `steps` that can be undone."""

        def keep_newest() -> None:
            undo_stack = self._manager.undo_stack
            kept = undo_stack[max(0, len(undo_stack) - steps) :]
            self._managers[:] = [self._new_manager(kept, self._manager.redo_stack)]

        self._document.call(keep_newest)

    def depth(self) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        return self._document.call(
            lambda: (len(self._manager.undo_stack), len(self._manager.redo_stack))
        )

    def undo(self, cause: object) -> bool:
        """Undo one step; whether there was one."""
        return self._document.call_with_events(cause, lambda: bool(self._manager.undo()))

    def redo(self, cause: object) -> bool:
        """Redo one step; whether there was one."""
        return self._document.call_with_events(cause, lambda: bool(self._manager.redo()))

    def clear(self) -> None:
        """Forget all steps."""
        self._document.call(lambda: self._manager.clear())  # noqa: PLW0108 - it may be gone

    def release(self) -> None:
        """Let go of the native manager."""
        self._scopes.clear()
        self._untie()

    @property
    def _manager(self) -> pycrdt.UndoManager:
        return self._managers[0]

    def _new_manager(
        self, undo_stack: list[pycrdt.StackItem[Any]], redo_stack: list[pycrdt.StackItem[Any]]
    ) -> pycrdt.UndoManager:
        manager = pycrdt.UndoManager(
            capture_timeout_millis=self._capture_milliseconds,
            timestamp=weakly(self._now, gone=1),
            undo_stack=undo_stack,
            redo_stack=redo_stack,
        )
        for origin in self._origins:
            manager.include_origin(origin)
        for shared in self._scopes:
            manager.expand_scope(shared)
        return manager

    def _now(self) -> int:
        return self._timestamp()
