"""Holds back updates until everything they depend on is there.

The engine keeps such updates itself, and loses some of them: of four updates of two clients,
six of the 24 orders of arrival leave one that never shows (Yjs shows it in all 24), and where a
map is observed it panics in one of nine random runs; in causal order it does neither.  The bytes
are in tests/model/test_waiting.py.  So it is handed nothing whose dependencies are missing.

This is one of two tables of waiting updates.  `replica/admission` has the other, whose rows are
stored, age, come from somebody and end when what they wait for is refused; what they miss may be
an owner's word and not a dependency.  Here there is an order to find and nothing else, and
updates that depend on one another are merged into one that does not.

1. What is handed out never depends on what has not been handed out before it.
2. What is held is bounded (`Limits.pending_updates_max`, `pending_bytes_max`).
3. An update that comes or goes costs what it touches; all that is held is looked through only
   where a group of it may have become whole.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from crdt_state.errors import UpdateTooLarge
from crdt_state.model.engine import merge
from crdt_state.model.inspect import inspect
from crdt_state.model.state import decode_state_vector

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.model.inspect import Inspection

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
        # Held update -> the clients of which it still lacks something.
        self._lacking: dict[bytes, set[int]] = {}
        # Client -> heap of (counter awaited, who waits).
        self._lines: dict[int, list[tuple[int, bytes]]] = {}
        # Client -> heap of (first counter brought, by whom); of those that have gone, some.
        self._brought: dict[int, list[tuple[int, bytes]]] = {}
        # Clients that went on since their lines were last looked at.
        self._moved: set[int] = set()
        self._may_hold_group = False

    def __len__(self) -> int:
        return len(self._held)

    def refresh(self, state_vector: bytes) -> None:
        """What the document holds now."""
        self._vector = decode_state_vector(state_vector)
        self._moved.update(self._lines)

    def misses(self, inspection: Inspection) -> bool:
        """Whether `inspection`'s update depends on what has not been handed out."""
        vector = self._vector
        return any(vector.get(client, 0) < end for client, end in inspection.needs.items())

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
            return self._released()
        self._advance(inspection)
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
        # A group that this completes has somebody who waits for it.
        is_awaited = not self._lines.keys().isdisjoint(inspection.vector)
        for client, start, _ in inspection.ranges:
            heappush(self._brought.setdefault(client, []), (start, update))
        lacking = self._lacking[update] = set()
        for client, counter in inspection.needs.items():
            if counter > self._vector.get(client, 0):
                lacking.add(client)
                heappush(self._lines.setdefault(client, []), (counter, update))
        if is_awaited and all(map(self._is_continued, lacking)):
            self._may_hold_group = True

    def _is_continued(self, client: int) -> bool:
        """Whether something held goes on where the document ends."""
        brought = self._brought.get(client, [])
        while brought and brought[0][1] not in self._held:
            heappop(brought)
        if not brought:
            self._brought.pop(client, None)
            return False
        return brought[0][0] <= self._vector.get(client, 0)

    def _released(self) -> list[bytes]:
        ready = self._unblocked()
        # Merges of several authors' updates may depend on one another.
        while self._may_hold_group:
            self._may_hold_group = False
            if group := self._group():
                ready.append(merge(group))
                self._let_out(group)
                ready += self._unblocked()
        return ready

    def _unblocked(self) -> list[bytes]:
        """Take out what lacks nothing any more, now that some clients have gone on."""
        ready: list[bytes] = []
        while self._moved:
            client = self._moved.pop()
            line = self._lines.get(client, [])
            while line and line[0][0] <= self._vector.get(client, 0):
                update = heappop(line)[1]
                lacking = self._lacking.get(update)
                if lacking is None:
                    continue
                lacking.discard(client)
                if lacking:
                    self._may_hold_group = True
                else:
                    ready.append(update)
                    self._let_out([update])
            if not line:
                self._lines.pop(client, None)
            elif self._is_continued(client):
                self._may_hold_group = True
        return ready

    def _group(self) -> list[bytes]:
        """The updates that lack nothing but one another: what is left without those that do."""
        brought: dict[int, list[tuple[int, int, bytes]]] = {}
        for update, inspection in self._held.items():
            for client, start, end in inspection.ranges:
                brought.setdefault(client, []).append((start, end, update))
        for pieces in brought.values():
            pieces.sort()
        group = dict.fromkeys(self._held)
        doubtful = set(self._lines)
        while doubtful:
            client = doubtful.pop()
            reached = self._vector.get(client, 0)
            for start, end, update in brought.get(client, ()):
                if start <= reached < end and update in group:
                    reached = end
            for counter, update in self._lines[client]:
                if counter > reached and update in group:
                    del group[update]
                    doubtful.update(self._held[update].vector.keys() & self._lines.keys())
        return list(group)

    def _let_out(self, updates: list[bytes]) -> None:
        for update in updates:
            inspection = self._held.pop(update)
            del self._lacking[update]
            self._bytes -= len(update)
            self._advance(inspection)

    def _advance(self, inspection: Inspection) -> None:
        """What `inspection`'s update brings is there."""
        for client, end in inspection.vector.items():
            if end > self._vector.get(client, 0):
                self._vector[client] = end
                self._moved.add(client)
