"""Who wants to know that something of a scope has become durable, whatever document it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from crdt_state.identifiers import scope_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.identifiers import DocumentId, Scope
    from crdt_state.replica.document_core import Delta

__all__ = ["ScopeWatcher", "Watching"]


class ScopeWatcher(Protocol):
    """Told from the writer: it must not wait, and must not raise."""

    def changed(self, document: DocumentId, deltas: Sequence[Delta]) -> None:
        """These updates are durable; none are named where a document was replaced."""


class Watching:
    """Watchers by scope."""

    def __init__(self) -> None:
        self._watchers: dict[Scope, dict[ScopeWatcher, None]] = {}

    def watch(self, scope: Scope, watcher: ScopeWatcher) -> None:
        """Tell `watcher` from now on."""
        self._watchers.setdefault(scope, {})[watcher] = None

    def unwatch(self, scope: Scope, watcher: ScopeWatcher) -> None:
        """Tell it no longer."""
        watchers = self._watchers.get(scope, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watchers.pop(scope, None)

    def changed(self, document: DocumentId, deltas: Sequence[Delta] = ()) -> None:
        """Something of a document has become durable."""
        if self._watchers:
            for watcher in tuple(self._watchers.get(scope_of(document), ())):
                watcher.changed(document, deltas)
