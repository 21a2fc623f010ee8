"""What the three kinds of native containers share: a root, guarded, and who is told of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pycrdt

from crdt_state.model.callbacks import subscribe
from crdt_state.model.engine.ties import weakly

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.model.engine.document import NativeDocument
    from crdt_state.model.engine.kinds import RootKind
    from crdt_state.model.engine.undo import NativeUndo

__all__ = ["NativeContainer", "Shared"]

R = TypeVar("R")
Shared = TypeVar("Shared", pycrdt.Text, pycrdt.Map[Any], pycrdt.Array[Any])


class NativeContainer(Generic[Shared]):
    """One root of a native document, made by it.  Writes need an open transaction.

    A subclass says what its `kind` and `shared_type` are, and what a change looks like.
    """

    kind: RootKind
    shared_type: type[Shared]

    def __init__(self, document: NativeDocument, name: str, ordinal: int) -> None:
        self.document = document
        self.name = name
        self.ordinal = ordinal
        self._shared: Shared = document.native_root(name, self.shared_type)
        self._is_observed = False
        self._callbacks: list[Callable[[Any, Any], None]] = []

    def observe(self, callback: Callable[[Any, Any], None]) -> Callable[[], None]:
        """Call `callback(change, origin or cause)` after each transaction that changed this root.

        Returns the function that ends it.
        """
        if not self._is_observed:
            self._call(self._observe_natively)
            self._is_observed = True
        return subscribe(self._callbacks, callback)

    def release(self) -> None:
        """Let go of the engine's root; the document unties what observed it."""
        self._callbacks.clear()
        del self._shared

    def track_by(self, undo: NativeUndo) -> None:
        """Let an undo manager watch this root."""
        undo.expand(self._shared)

    def _observe_natively(self) -> None:
        shared = self._shared
        subscription = shared.observe(weakly(self._changed, gone=None))
        self.document.tie(partial(shared.unobserve, subscription))

    def _changed(self, event: Any) -> None:
        if self.document.why_unusable is not None:
            return
        change = self._change_of(event)
        for callback in self._callbacks:
            self.document.record(self.ordinal, callback, change)

    def _change_of(self, event: Any) -> object:
        raise NotImplementedError

    def _call(self, function: Callable[[], R]) -> R:
        return self.document.call(function)

    def __len__(self) -> int:
        return self._call(lambda: len(self._shared))
