"""What somebody who fell behind has missed, in bounded memory, and how they catch up.

    miss(…) while behind ──► vector = catching_up(…) ──► difference from the document's state
            ──► rest = caught_up()

While behind, what is missed is kept as a state vector only.  What is delivered between
`catching_up` and `caught_up` goes out behind the difference, never before it: stock yrs loses
what it is given before something of the same client that comes earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.model.inspect import inspect
from crdt_state.replica.inbox import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crdt_state.limits import Limits
    from crdt_state.replica.document_core import Delta

__all__ = ["Shortfall"]


class Shortfall:
    """What one subscriber was not sent; `source` is its own, of which it misses nothing."""

    def __init__(self, source: int, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._first_missed: dict[int, int] = {}
        self._has_missed_all = False
        self._held: list[Delta] | None = None
        self._held_bytes = 0

    def miss(self, deltas: Iterable[Delta]) -> None:
        """Note what was not sent."""
        for delta in deltas:
            if delta.source == self._source:
                continue
            if len(delta.update) > LARGE_BYTES:
                # Reading it would hold up everybody; sending all of the document does not.
                self._has_missed_all = True
            else:
                for client, start, _ in inspect(delta.update, self._limits, merged=True).ranges:
                    known = self._first_missed.get(client, start)
                    self._first_missed[client] = min(known, start)
            if self._held is not None:
                self._held.append(delta)
                self._held_bytes += len(delta.update)
                if self._held_bytes > self._limits.peer_queue_bytes_max:
                    self._held = None

    def catching_up(self, vector: Mapping[int, int]) -> dict[int, int]:
        """What the peer holds of a document whose state vector is `vector`."""
        missed, self._first_missed = self._first_missed, {}
        has_missed_all, self._has_missed_all = self._has_missed_all, False
        self._held, self._held_bytes = [], 0
        if has_missed_all:
            return {}
        return {
            client: min(counter, missed.get(client, counter)) for client, counter in vector.items()
        }

    def caught_up(self) -> list[Delta] | None:
        """What was missed since `catching_up`: sent now, nothing is missing any more.

        None where that was too much to keep: then it has to catch up again.
        """
        held, self._held = self._held, None
        if held is not None:
            self._first_missed.clear()
            self._has_missed_all = False
        return held
