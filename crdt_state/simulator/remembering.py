"""Bytes that every replica of a simulation reads are read once.

Five replicas in one process inspect and heal the same updates, and the checkers do so again.  What
that gives depends on the bytes and the limits alone, and nobody changes it, so within a run it is
kept: a fifth of the time, and the same history (the tests compare hashes).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crdt_state.model import inspect, surrogates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.limits import Limits

__all__ = ["remembered"]

KEPT_MAX = 50_000
"""Of what was read in one run; a plan of ordinary length comes nowhere near it."""


@contextmanager
def remembered() -> Iterator[None]:
    """Within this, what was read before is not read again."""
    walk: Any = inspect._Walk  # noqa: SLF001 - whoever inspects comes through here
    survey, heal = walk.survey, surrogates.heal
    surveys: dict[tuple[bytes, int, int], Any] = {}
    healed: dict[tuple[bytes, ...], list[bytes]] = {}

    def survey_once(self: Any) -> Any:
        # By identity: limits live as long as the run, and to hash one takes longer than to look.
        key = self._update, id(self._bounds), id(self._limits)
        found = surveys.get(key)
        if found is None:
            found = survey(self)
            if len(surveys) < KEPT_MAX:
                surveys[key] = found
        return found

    def heal_once(updates: Iterable[bytes], limits: Limits) -> list[bytes]:
        key = tuple(updates)
        found = healed.get(key)
        if found is None:
            found = heal(key, limits)
            if len(healed) < KEPT_MAX:
                healed[key] = found
        return list(found)

    walk.survey = survey_once
    surrogates.heal = heal_once
    try:
        yield
    finally:
        walk.survey = survey
        surrogates.heal = heal
