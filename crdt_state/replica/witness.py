"""What a replica tells whoever keeps its metrics and its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crdt_state.errors import StoreError
    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.core import Batch
    from crdt_state.replica.document_core import Refusal

__all__ = ["Silent", "Witness"]


class Witness(Protocol):
    """Called as things happen; must not raise and must not wait."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """A batch is durable; writing it took `seconds`."""

    def commit_failed(self, error: StoreError) -> None:
        """A batch is not on the disk."""

    def store_failed(self, error: StoreError) -> None:
        """The store failed at work in the background; nobody has lost anything."""

    def refused(self, refusal: Refusal) -> None:
        """An update was not let in."""

    def folded(self, document: DocumentId, updates: int, state_bytes: int) -> None:
        """A log of `updates` was replaced by a checkpoint."""

    def set_aside(self, document: DocumentId, reason: str) -> None:
        """A whole document was set aside."""

    def repaired(self, document: DocumentId) -> None:
        """Surrogate pairs that a peer had split were made whole."""

    def unsound(self, document: DocumentId, what: str) -> None:
        """A document was read again, and is not what it was; `what` says it for a person."""


class Silent:
    """Keeps nothing."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """Nothing."""

    def commit_failed(self, error: StoreError) -> None:
        """Nothing."""

    def store_failed(self, error: StoreError) -> None:
        """Nothing."""

    def refused(self, refusal: Refusal) -> None:
        """Nothing."""

    def folded(self, document: DocumentId, updates: int, state_bytes: int) -> None:
        """Nothing."""

    def set_aside(self, document: DocumentId, reason: str) -> None:
        """Nothing."""

    def repaired(self, document: DocumentId) -> None:
        """Nothing."""

    def unsound(self, document: DocumentId, what: str) -> None:
        """Nothing."""
