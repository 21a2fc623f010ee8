"""Whether the documents of one creator may take up more.

A document belongs to its *creator*, the identity that brought its first stored write, and what
anybody adds to it counts against the creator's quota.  The truth is in the store
(`Store.usage`).  Here is a *tally* of each creator: what the store said when it was last asked,
and all that was brought since.  That is too much rather than too little, because some of it was
held already and folds make room; so nobody is refused by a tally before the store was asked again.

1. A document without a creator has no quota, and only who has an identity is refused: what our
   own user edits or a remote that we dial brings is counted and goes in.
2. A creator whose usage is not known here counts as beyond, until the store has been asked.
3. The table is bounded; whoever falls out of it is counted anew.
4. A quota is passed by no more than what waits for the disk while the store is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import QuotaExceeded
from crdt_state.storage.contract import Usage

if TYPE_CHECKING:
    from crdt_state.clocks import Instant
    from crdt_state.limits import Limits
    from crdt_state.replica.admission import Author
    from crdt_state.replica.document_core import DocumentCore

__all__ = ["Quotas"]


@dataclass(slots=True)
class _Tally:
    """What one creator's documents take up at most."""

    documents: int
    stored_bytes: int
    counted_at: Instant
    has_grown: bool = False
    """Whether anything was brought since the store was asked."""


class Quotas:
    """The tallies of those whose documents are written to."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._documents_max = limits.identity_documents_max
        self._bytes_max = limits.identity_stored_bytes_max
        self._tallies: dict[str, _Tally] = {}

    def charge(self, document: DocumentCore, author: Author, size: int) -> None:
        """Count `size` bytes that `author` brings.  Raises `QuotaExceeded`: nothing is counted."""
        creator = document.creator if document.exists else author.identity
        if creator is None:
            return
        tally = self._tallies.get(creator)
        if tally is not None:
            stored = tally.stored_bytes + size
            if stored <= self._bytes_max and document.exists:  # nearly always
                tally.stored_bytes = stored
                tally.has_grown = True
                return
        self._charge_with_care(creator, tally, document, author, size)

    def _charge_with_care(
        self,
        creator: str,
        tally: _Tally | None,
        document: DocumentCore,
        author: Author,
        size: int,
    ) -> None:
        is_bound = author.identity is not None
        if tally is None:
            if is_bound:
                bound = self._bytes_max
                raise QuotaExceeded(creator, "identity_stored_bytes_max", bound, is_counted=False)
            return
        if is_bound and tally.stored_bytes + size > self._bytes_max:
            raise QuotaExceeded(creator, "identity_stored_bytes_max", self._bytes_max)
        if not document.exists:
            if is_bound and tally.documents >= self._documents_max:
                raise QuotaExceeded(creator, "identity_documents_max", self._documents_max)
            tally.documents += 1
        tally.stored_bytes += size
        tally.has_grown = True

    def is_counted(self, creator: str, *, since: Instant, now: Instant) -> bool:
        """Whether asking the store again could tell nothing new.

        Somebody else asked behind `since`; or nothing was let in after the store had been asked a
        moment ago, so that who dials again and again does not make it count again and again.
        """
        tally = self._tallies.get(creator)
        if tally is None:
            return False
        is_recent = now - tally.counted_at < self._limits.usage_recount_seconds
        return tally.counted_at > since or (is_recent and not tally.has_grown)

    def tallied(self, creator: str) -> Usage:
        """What is known here, to be given to `count` with what the store then says."""
        tally = self._tallies.get(creator)
        return Usage(0, 0) if tally is None else Usage(tally.documents, tally.stored_bytes)

    def count(self, creator: str, stored: Usage, *, before: Usage, now: Instant) -> None:
        """Take over what the store says; `before` was tallied when it was asked, at `now`."""
        # What was brought meanwhile is not in the answer.
        meanwhile = self.tallied(creator) if creator in self._tallies else before
        documents = stored.documents + meanwhile.documents - before.documents
        stored_bytes = stored.stored_bytes + meanwhile.stored_bytes - before.stored_bytes
        self._tallies.pop(creator, None)
        if len(self._tallies) >= self._limits.usages_kept_max:
            del self._tallies[next(iter(self._tallies))]
        self._tallies[creator] = _Tally(documents, stored_bytes, now)

    def __len__(self) -> int:
        return len(self._tallies)
