"""Updates as bytes: joined, cut and measured without a document that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pycrdt

from crdt_state.model.engine.guard import from_bytes
from crdt_state.model.state import EMPTY_UPDATE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["diff", "loaded", "merge", "state_vector_of"]

MERGE_WIDTH: Final = 64  # The engine's merge is quadratic in how many it is given.


def merge(updates: Sequence[bytes]) -> bytes:
    """One update that says what all of `updates` say, without loading a document.

    Nothing is dropped, not even what waits for dependencies.  Above some thousands of updates
    `fold` is both faster and smaller.  Raises `UpdateMalformed`, `EngineFailed`.
    """
    level = list(updates)
    if not level:
        return EMPTY_UPDATE
    while len(level) > 1:
        level = [
            from_bytes(pycrdt.merge_updates, *level[start : start + MERGE_WIDTH])
            for start in range(0, len(level), MERGE_WIDTH)
        ]
    return level[0]


def diff(update: bytes, state_vector: bytes) -> bytes:
    """What of `update` is not covered by `state_vector`; its deletes all stay.

    Raises `UpdateMalformed`, `EngineFailed`.
    """
    return from_bytes(pycrdt.get_update, update, state_vector)


def state_vector_of(update: bytes) -> bytes:
    """The state vector of a document that holds `update` and nothing else.

    Raises `UpdateMalformed`, `EngineFailed`.
    """
    return from_bytes(pycrdt.get_state, update)


def loaded(update: bytes, *, client_id: int = 1) -> pycrdt.Doc[Any]:
    """A native document of one's own, to look into or to try something on.

    Nobody observes it, so it goes with its last reference.
    """
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id)
    document.apply_update(update)
    return document
