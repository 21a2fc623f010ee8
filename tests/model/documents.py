"""Documents for tests: deterministic, without a replica around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.clocks import HybridClock, ManualClock
from crdt_state.identifiers import ClientId, DocumentId, Incarnation
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.document import Document

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["assert_converged", "document", "updates_of"]


def document(
    client: int = 1,
    state: Iterable[bytes] = (),
    *,
    incarnation: bytes | None = None,
    clock: ManualClock | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Document:
    """An open document; each client is an incarnation of its own unless told otherwise."""
    life = client.to_bytes(16, "big") if incarnation is None else incarnation
    hybrid = HybridClock(
        ManualClock() if clock is None else clock,
        drift_seconds_max=limits.register_drift_seconds_max,
    )
    return Document(
        DocumentId("test"),
        state,
        client_id=ClientId(client),
        incarnation=Incarnation(life),
        clock=hybrid,
        limits=limits,
    )


def updates_of(source: Document) -> list[bytes]:
    """A list that grows with every local update of `source`."""
    updates: list[bytes] = []
    source.on_update(lambda update, is_local: updates.append(update) if is_local else None)
    return updates


def assert_converged(*documents: Document) -> None:
    """Equal content first, digests afterwards: a digest says nothing about what it is of."""
    first, *others = documents
    for other in others:
        assert other.as_json() == first.as_json()
        assert other.state_vector() == first.state_vector()
        assert other.digest() == first.digest()
        assert other.deep_digest() == first.deep_digest()
