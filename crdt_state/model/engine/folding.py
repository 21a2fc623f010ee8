"""Many updates as one, through a document: what a checkpoint is made by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.model.engine.document import NativeDocument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["fold"]


def fold(updates: Iterable[bytes]) -> bytes:
    """One update for all of `updates`, through a document; none before what it depends on.

    Updates that wait for dependencies are left out: keep them elsewhere.  Raises
    `UpdateMalformed`, `EngineFailed`.
    """
    document = NativeDocument(client_id=1)
    try:
        for update in updates:
            document.apply(update)
        return document.encode()
    finally:
        document.close()
