"""Holds back updates until everything they depend on is there.

The engine keeps such updates itself, and loses some of them: of four updates of two clients,
six of the 24 orders of arrival leave one that never shows (Yjs shows it in all 24), and where a
map is observed it panics in one of nine random runs; in causal order it does neither.  The bytes
are in tests/model/test_waiting.py.  So it is handed nothing whose dependencies are missing.

1. What is handed out never depends on what has not been handed out before it.
2. What is held is bounded (`Limits.pending_updates_max`, `pending_bytes_max`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.errors import UpdateTooLarge
from crdt_state.model.engine import decode_state_vector, merge
from crdt_state.model.inspect import inspect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crdt_state.limits import Limits
    from crdt_state.model.inspect import Inspection
    from crdt_state.model.ranges import Range

__all__ = ["Waiting"]


class Waiting:
    """Puts the updates of one document into an order in which the engine takes them.

    It does not hear of local edits: when `misses` says that an update seems to lack something,
    tell it by `refresh` what the document holds, then `admit` the update.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._vector: dict[int, int] = {}
        self._held: dict[bytes, Inspection] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def refresh(self, state_vector: bytes) -> None:
        """What the document holds now."""
        self._vector = decode_state_vector(state_vector)

    def misses(self, inspection: Inspection) -> bool:
        """Whether `inspection`'s update depends on what has not been handed out."""
        return not _is_met(inspection.needs, self._vector)

    def read(self, update: bytes) -> Inspection:
        """Read an update; the bounds on a single author's do not apply.

        Raises `UpdateMalformed`, `UpdateTooLarge`.
        """
        return inspect(update, self._limits, merged=True)

    def admit(self, update: bytes, inspection: Inspection) -> list[bytes]:
        """Take in an update; what the engine can be given now, in this order.

        Raises `UpdateTooLarge` when too much would be held; then it is not taken in.
        """
        if self.misses(inspection):
            self._hold(update, inspection)
            # Merges of several authors' updates may depend on one another.
            return self._released()
        _advance(self._vector, inspection.ranges)
        return [update, *self._released()]

    def _hold(self, update: bytes, inspection: Inspection) -> None:
        if update in self._held:
            return
        if len(self._held) >= self._limits.pending_updates_max:
            allowed = self._limits.pending_updates_max
            raise UpdateTooLarge("pending_updates_max", allowed, len(self._held) + 1)
        if self._bytes + len(update) > self._limits.pending_bytes_max:
            allowed = self._limits.pending_bytes_max
            raise UpdateTooLarge("pending_bytes_max", allowed, self._bytes + len(update))
        self._held[update] = inspection
        self._bytes += len(update)

    def _released(self) -> list[bytes]:
        ready: list[bytes] = []
        while group := self._next_group():
            ready.append(merge(group) if len(group) > 1 else group[0])
            found = [self._held.pop(update) for update in group]
            _advance(self._vector, (one for each in found for one in each.ranges))
            self._bytes -= sum(len(update) for update in group)
        return ready

    def _next_group(self) -> list[bytes]:
        """One update that lacks nothing, or several that lack nothing but one another."""
        for update, inspection in self._held.items():
            if _is_met(inspection.needs, self._vector):
                return [update]
        group = dict(self._held)
        while group:
            reached = dict(self._vector)
            _advance(reached, (one for each in group.values() for one in each.ranges))
            lacking = [update for update, each in group.items() if not _is_met(each.needs, reached)]
            if not lacking:
                break
            for update in lacking:
                del group[update]
        return list(group)


def _is_met(needs: Mapping[int, int], vector: Mapping[int, int]) -> bool:
    return all(vector.get(client, 0) >= counter for client, counter in needs.items())


def _advance(vector: dict[int, int], ranges: Iterable[Range]) -> None:
    """Move `vector` over `ranges` as far as they join it without a gap."""
    for client, start, end in sorted(ranges):
        reached = vector.get(client, 0)
        if start <= reached < end:
            vector[client] = end
