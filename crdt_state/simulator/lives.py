"""Which lives of documents people began, which stores know of them, and who was told.

Checkers of their own, held against every commit that ends a life (crdt_state/lineage.py):

`lives`         no store has a life of a document that nobody began; at the end all have one
`tombstones`    what a store has taken in of lives it keeps: no lesser one ever counts there again
`told`          of a life that others ended, every edit that was made here and that no remote ever
                held is set aside, or handed back to whoever had the document open; and stays so
                until a person has chosen

1. A life is somebody's doing: a person has said so at that machine (`will`) before a store there
   has it, and it comes to all others from there.
2. Where a disk was taken away, so is what it had promised since; where its machine comes back with
   an older state, its people are told once more of what they were told before.
3. What a remote has held once, its editor was told; if the remote was then lost and somebody began
   the document anew, that is what they wanted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt_state.lineage import BORN
from crdt_state.simulator.checkers import (
    Violation,
    copies_now,
    life_now,
    stored_now,
    vector_of,
    vector_of_all,
)
from crdt_state.simulator.plan import Deed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crdt_state.errors import LineageEnded
    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life, Lineage
    from crdt_state.simulator.checkers import Checkers
    from crdt_state.simulator.ledger import Entry
    from crdt_state.simulator.plan import Topology
    from crdt_state.simulator.stores import SimulatedStore

__all__ = ["RECREATION", "Lives", "Will"]

DELETION = Deed.DELETE.value
RECREATION = "re-creation"
NOTHING_SAID = b"\x00\x00"

_Key: TypeAlias = "tuple[str, DocumentId, Lineage]"
"""A lineage of a document, at a machine."""


@dataclass(slots=True, eq=False)
class Will:
    """Somebody is about to end a life of a document, or has tried to."""

    host: str
    document: DocumentId
    deed: str
    entries: list[Entry] = field(default_factory=list)
    """What the next life begins with."""
    life: Life | None = None
    """The one that came of it, once a store has it."""


class _Offer(NamedTuple):
    """Edits of an ended lineage that are offered to whoever made them."""

    entries: list[Entry]
    fresh: list[Entry]
    """Those among them that no remote was known to hold."""
    at: float


class _Promise(NamedTuple):
    at: float
    life: Life


class Lives:
    """All of them; raises `Violation`."""

    def __init__(self, checkers: Checkers, topology: Topology) -> None:
        self.counts: Counter[str] = Counter()
        """What people did, by the word for it."""
        self._checkers = checkers
        self._ledger = checkers.ledger
        self._topology = topology
        self._known: dict[DocumentId, dict[Life, None]] = {}
        self._wills: list[Will] = []
        self._promises: dict[tuple[str, DocumentId], list[_Promise]] = {}
        self._seen: dict[tuple[str, DocumentId], Life] = {}
        """What each store had when it was last looked at."""
        self._own: dict[_Key, float] = {}
        """When a machine's own people ended a lineage there."""
        self._before: dict[tuple[str, DocumentId], dict[int, int]] = {}
        """How far each store held a document when its life was last about to end."""
        self._held: dict[_Key, dict[int, int]] = {}
        """How far each store has ever held a lineage that has ended there, or was taken away."""
        self._offers: dict[_Key, _Offer] = {}
        """What was set aside at each machine, in its store."""
        self._handed: dict[_Key, list[Entry]] = {}
        """What was handed back there besides, and is in no store."""
        self._chosen: dict[_Key, float] = {}

    # --- what people do ----------------------------------------------------------------------

    def will(self, host: str, document: DocumentId, deed: str, entries: list[Entry]) -> Will:
        """Somebody at `host` is about to end a life of a document."""
        will = Will(host, document, deed, entries)
        self._wills.append(will)
        return will

    def is_over(self, will: Will) -> None:
        """Whoever meant to is told that it is done: what did not happen will not."""
        if will.life is None:
            self._wills.remove(will)

    def chose(self, host: str, ended: LineageEnded, choice: str, at: float) -> None:
        """Somebody has decided what becomes of what was offered."""
        self._chosen[_key(host, ended)] = at
        self.counts[choice] += 1

    def has_chosen(self, host: str, ended: LineageEnded) -> bool:
        """Whether somebody at `host` has decided about this."""
        return _key(host, ended) in self._chosen

    def offered(self, host: str, ended: LineageEnded) -> list[Entry]:
        """What is known to be offered."""
        key = _key(host, ended)
        offer = self._offers.get(key)
        return [*(offer.entries if offer else ()), *self._handed.get(key, ())]

    def fresh(self, host: str, ended: LineageEnded) -> list[Entry]:
        """What of it no remote was known to hold, so that a rebase makes it once more."""
        key = _key(host, ended)
        offer = self._offers.get(key)
        return [*(offer.fresh if offer else ()), *self._handed.get(key, ())]

    # --- what becomes of stores --------------------------------------------------------------

    def is_ending(self, host: str, store: SimulatedStore, document: DocumentId) -> None:
        """A commit is about to end the life that a document has there."""
        self.remember(host, store, document)

    def remember(self, host: str, store: SimulatedStore, document: DocumentId) -> None:
        """What a store holds of a document now it has held once."""
        stored = stored_now(store, document)
        if stored is None:
            return
        self._before[host, document] = vector_of(stored)
        held = self._held.setdefault((host, document, stored.life.lineage), {})
        waiting = [each.update for each in stored.pending]
        for client, end in vector_of_all([*stored.updates(), *waiting]).items():
            held[client] = max(end, held.get(client, 0))

    def opened(
        self, host: str, store: SimulatedStore, documents: Iterable[DocumentId], at: float
    ) -> None:
        """A store has been opened."""
        for document in documents:
            self.looks(host, store, document)
            if life_now(store, document) != self._seen.get((host, document), BORN):
                self.has_ended(host, store, document, at)
        for (by, document, lineage), offer in self._offers.items():
            if by == host and (by, document, lineage) not in self._chosen:
                self._is_offered(host, store, document, lineage, offer.entries)

    def has_ended(self, host: str, store: SimulatedStore, document: DocumentId, at: float) -> None:
        """A store has another life of a document than it had."""
        life = life_now(store, document)
        before = self._seen.get((host, document), BORN)
        self._seen[host, document] = life
        self.looks(host, store, document)
        self._promises.setdefault((host, document), []).append(_Promise(at, life))
        known = self._known.setdefault(document, {BORN: None})
        will = self._will_of(host, store, document, life)
        if will is None and life not in known:
            raise Violation("lives", f"{host} has {life} of {document!r}, which nobody began")
        known[life] = None
        # What others have deleted at the same time has the same life as what is deleted here.
        if will is not None:
            if not before.is_deleted:
                self._own[host, document, before.lineage] = at
            self._is_done(will, life, at)
            return
        if before < life and not before.is_deleted:
            self._told(host, store, document, before.lineage, at)

    def _will_of(
        self, host: str, store: SimulatedStore, document: DocumentId, life: Life
    ) -> Will | None:
        """Whose doing it is at `host` that a document has this life there, or None."""
        wills = [
            will
            for will in self._wills
            if (will.host, will.document, will.life) == (host, document, None)
            and (will.deed == DELETION) is life.is_deleted
        ]
        if not life.is_deleted:
            if not wills or life in self._known[document]:
                return None
            # Whoever was killed has perhaps done it, and perhaps not: the content tells.
            vector = vector_of(stored_now(store, document))
            wills = [will for will in wills if _covers(vector, will.entries)]
        return max(wills, key=lambda will: len(will.entries), default=None)

    def _is_done(self, will: Will, life: Life, at: float) -> None:
        will.life = life
        self.counts[will.deed] += 1
        for entry in will.entries:
            entry.lineage = life.lineage
            self._ledger.enter(entry)
        self._ledger.promised(will.entries, will.host, at)
        self._checkers.passed["lives"] += 1

    def looks(self, host: str, store: SimulatedStore, document: DocumentId) -> None:
        """A store has kept what it promised of a document's lives."""
        promises = self._promises.get((host, document))
        if not promises:
            return
        greatest = max(promise.life for promise in promises)
        life = life_now(store, document)
        if life < greatest:
            raise Violation(
                "tombstones",
                f"{host} has {life} of {document!r}, and had {greatest} on its disk before",
            )
        if life.is_deleted:
            stored = stored_now(store, document)
            if stored is not None and (stored.updates() or stored.pending):
                raise Violation("tombstones", f"{document!r} is deleted at {host}, and has content")
            self._checkers.passed["tombstones"] += 1

    def agreed(self, document: DocumentId, lives: Mapping[str, Life]) -> Life:
        """The one life of a document that all stores have, at the end."""
        if len(set(lives.values())) != 1:
            shown = ", ".join(f"{host} {life}" for host, life in lives.items())
            raise Violation("lives", f"{document!r} has several: {shown}")
        life = next(iter(lives.values()))
        if life not in self._known.get(document, {BORN: None}):
            raise Violation("lives", f"{document!r} has {life}, which nobody began")
        self._checkers.passed["lives"] += 1
        return life

    def promise(self, host: str, document: DocumentId, life: Life, at: float) -> None:
        """`host` has said that it knows of this life."""
        self._promises.setdefault((host, document), []).append(_Promise(at, life))

    def promised(self, host: str, *, after: float) -> dict[DocumentId, Life]:
        """The lives that a store has taken in since, by document."""
        found = {}
        for (by, document), promises in self._promises.items():
            lives = [promise.life for promise in promises if promise.at > after]
            if by == host and lives:
                found[document] = max(lives)
        return found

    def taken_away(self, host: str, since: float) -> None:
        """What a store took in after `since` is not there any more, and that is our doing."""
        for (by, document), promises in self._promises.items():
            if by == host:
                promises[:] = [promise for promise in promises if promise.at <= since]
                last = max((promise.life for promise in promises), default=BORN)
                self._seen[host, document] = last
        for place in tuple(self._before):
            if place[0] == host:
                del self._before[place]
        for key, offer in tuple(self._offers.items()):
            if key[0] == host and offer.at > since:
                del self._offers[key]
        for times in (self._own, self._chosen):
            for key, at in tuple(times.items()):
                if key[0] == host and at > since:
                    del times[key]

    # --- who is told -------------------------------------------------------------------------

    def _told(
        self, host: str, store: SimulatedStore, document: DocumentId, lineage: Lineage, at: float
    ) -> None:
        """Others have ended a lineage: what only this machine held has been set aside."""
        if (host, document, lineage) in self._own or not self._topology.dialled_by(host):
            return
        here = self._before.get((host, document), {})
        ours = [
            entry
            for entry in self._ledger.made_in(document, lineage)
            if entry.host == host and _covers(here, [entry])
        ]
        lost = [entry for entry in ours if not self._was_held(entry)]
        self._is_offered(host, store, document, lineage, lost)
        key = host, document, lineage
        self._chosen.pop(key, None)
        copy = copies_now(store, document).get(lineage)
        if copy is not None:
            vector = vector_of_all([copy.whole])
            common = vector_of_all([copy.common or NOTHING_SAID])
            entries = [entry for entry in ours if _covers(vector, [entry])]
            fresh = [entry for entry in entries if not _covers(common, [entry])]
            self._offers[key] = _Offer(entries, fresh, at)
        self._checkers.passed["told"] += 1

    def _is_offered(
        self,
        host: str,
        store: SimulatedStore,
        document: DocumentId,
        lineage: Lineage,
        entries: list[Entry],
    ) -> None:
        if not entries:
            return
        copy = copies_now(store, document).get(lineage)
        vector = {} if copy is None else vector_of_all([copy.whole])
        for entry in entries:
            if not _covers(vector, [entry]):
                raise Violation("told", _not_told(entry))

    def handed_back(self, host: str, ended: LineageEnded, entries: Iterable[Entry]) -> None:
        """Whoever had a document open was told that this lineage of it has ended."""
        key = _key(host, ended)
        if key in self._own:
            return
        vector = vector_of_all(ended.updates)
        offered = self.offered(host, ended)
        for entry in entries:
            if entry in offered or not entry.reach:
                continue
            if _covers(vector, [entry]):
                self._handed.setdefault(key, []).append(entry)
            elif not self._was_held(entry):
                raise Violation("told", _not_told(entry))
        self._checkers.passed["told"] += 1

    def _was_held(self, entry: Entry) -> bool:
        """Whether a remote of whoever made it has ever held it."""
        return any(
            _covers(self._held.get((remote, entry.document, entry.lineage), {}), [entry])
            for remote in self._topology.dialled_by(entry.host)
        )


def _key(host: str, ended: LineageEnded) -> tuple[str, DocumentId, Lineage]:
    return host, ended.document, ended.lineage  # type: ignore[return-value]


def _covers(vector: Mapping[int, int], entries: Iterable[Entry]) -> bool:
    return all(
        entry.reach and all(vector.get(client, 0) >= end for client, end in entry.reach.items())
        for entry in entries
    )


def _not_told(entry: Entry) -> str:
    return (
        f"{entry.tag!r} of {entry.container} in {entry.document!r} was made at {entry.host} in "
        f"{entry.life}, which has ended; no remote ever held it, and it was not offered"
    )
