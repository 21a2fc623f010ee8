"""Folds logs into checkpoints, one document at a time, in the background.

A log is folded when it has grown by enough to pay for writing the state again; that holds for
documents that nobody has open too (they are found in the store at the start).  The folding
itself integrates the bytes, so it runs in a worker; what harms the worker harms nobody else,
and its document is set aside.

1. This ends for no failure: a log that cannot be folded stays as it is, and the next one is.
2. A fold takes away exactly what it read; what is appended meanwhile stays in the log.
3. Who owns a client id, and who was refused, outlives every fold.
4. Of a document that a remote is owed, what it lacks stays apart from what it held before, until
   the log has grown too long for that: it tells later which edits were made here.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import EngineFailed, StoreError, UpdateRefused, UsageError, WorkerFailed
from crdt_state.model.head import Head
from crdt_state.replica.attachment import kept_text
from crdt_state.replica.document_core import SET_ASIDE, DocumentCore
from crdt_state.storage.contract import NOTHING, Fold, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence as Many

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.replica.document_core import Delta
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.replica.worker_jobs import Folded
    from crdt_state.storage.contract import StoredDocument, Write

__all__ = ["Compaction", "is_fold_due"]

FOUND_MAX = 1_000
"""How many overgrown documents are looked for in the store at once."""

FOLDED_AT_LAST = 16
"""No log grows beyond so many times the usual count."""


class _Growth(NamedTuple):
    """What a document's log holds since its checkpoint."""

    updates: int
    log_bytes: int
    state_bytes: int


class _Run:
    """One fold under way; void when what it read has been replaced meanwhile."""

    is_void = False


def is_fold_due(updates: int, log_bytes: int, state_bytes: int, limits: Limits) -> bool:
    """Whether a log of this size is worth a new checkpoint.

    A fold writes the whole state.  So that a large document is not rewritten for every few
    updates, its log must first hold an eighth of the state's bytes; but no log may grow beyond
    sixteen times the usual count, because opening a document reads all of it.
    """
    if updates >= FOLDED_AT_LAST * limits.log_updates_before_fold:
        return True
    if 8 * log_bytes < state_bytes:
        return False
    return updates >= limits.log_updates_before_fold or log_bytes >= limits.log_bytes_before_fold


def _held_part(stored: StoredDocument, limits: Limits) -> StoredDocument:
    """What of a document is to be folded: up to where the remotes held it that are owed more."""
    through = min(stored.held.values(), default=stored.last)
    log = tuple(entry for entry in stored.log if entry.sequence <= through)
    folded = NOTHING if stored.checkpoint is None else stored.checkpoint.through
    is_too_long = len(stored.log) >= FOLDED_AT_LAST * limits.log_updates_before_fold
    # Where they held nothing there is nothing to be kept apart, and where it is folded, no more.
    if is_too_long or not max(folded, 1) <= through < stored.last:
        return stored
    return replace(stored, log=log, last=log[-1].sequence if log else Sequence(through))


class Compaction:
    """Watches logs grow and folds them."""

    def __init__(self, shell: ReplicaShell) -> None:
        self._shell = shell
        self._growth: dict[DocumentId, _Growth] = {}
        self._due: dict[DocumentId, None] = {}
        self._wake = asyncio.Event()
        self._running: dict[DocumentId, list[_Run]] = {}
        self._withheld: set[DocumentId] = set()

    def loaded(self, stored: StoredDocument) -> None:
        """A document has come into use."""
        state_bytes = 0 if stored.checkpoint is None else len(stored.checkpoint.state)
        log_bytes = sum(len(entry.update) for entry in stored.log)
        self._note(stored.document, _Growth(len(stored.log), log_bytes, state_bytes))

    def grew(self, document: DocumentId, deltas: Many[Delta]) -> None:
        """Updates have been added to a log."""
        before = self._growth.get(document, _Growth(0, 0, 0))
        added = sum(len(delta.update) for delta in deltas)
        grown = _Growth(before.updates + len(deltas), before.log_bytes + added, before.state_bytes)
        self._note(document, grown)

    def left(self, document: DocumentId) -> None:
        """A document is no longer in use; if its fold is due, it will still happen."""
        self._growth.pop(document, None)

    async def run(self) -> None:
        """Fold what is due, for ever."""
        await self._find_overgrown()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                document = next(iter(self._due))
                del self._due[document]
                growth = self._growth.get(document)
                # Named again while it was being folded, it may have nothing left to fold.
                if growth is None or is_fold_due(*growth, self._shell.limits):
                    await self._fold_or_set_aside(document)

    async def fold(self, document: DocumentId) -> bool:
        """Fold one log now; False where there was nothing to fold.

        Raises `WorkerFailed` or `EngineFailed` when the document harms whoever opens it, and
        `StoreError`.
        """
        if document in self._withheld:
            return False
        run = _Run()
        self._running.setdefault(document, []).append(run)
        try:
            return await self._fold(document, run)
        finally:
            self._running[document].remove(run)
            if not self._running[document]:
                del self._running[document]

    @contextmanager
    def withheld(self, document: DocumentId) -> Iterator[None]:
        """Fold nothing of a document meanwhile, and let what is being folded come to nothing.

        For whoever replaces what is stored: a fold of what was there before would bring it back.
        """
        self._withheld.add(document)
        for run in self._running.get(document, ()):
            run.is_void = True
        try:
            yield
        finally:
            self._withheld.discard(document)

    async def _fold(self, document: DocumentId, run: _Run) -> bool:
        stored = await self._shell.store.read(document)
        if stored is None or SET_ASIDE in stored.metadata:
            return False
        stored = _held_part(stored, self._shell.limits)
        if not stored.log:
            if document in self._growth:
                # Nothing to be done yet; looked at again when as much has been added once more.
                self._growth[document] = _Growth(0, 0, self._growth[document].state_bytes)
            return False
        folded = await self._shell.workers.fold(stored.updates())
        if folded.waiting:
            # Admission lets in only what can be integrated, so this is damage; the rows stay.
            raise EngineFailed(f"{len(folded.waiting)} updates of its log cannot be integrated")
        if run.is_void:
            return False
        await self._shell.store.write(await self.writes(stored, folded))
        if (growth := self._growth.get(document)) is not None:
            # Not nothing: what was added while this ran is still in the log.
            self._growth[document] = _Growth(
                max(0, growth.updates - len(stored.log)),
                max(0, growth.log_bytes - sum(len(entry.update) for entry in stored.log)),
                len(folded.state),
            )
        self._shell.witness.folded(document, len(stored.log), len(folded.state))
        return True

    async def writes(
        self, stored: StoredDocument, folded: Folded, *, is_replaced: bool = False
    ) -> list[Write]:
        """Replace all that was read as `stored` by what it was folded into.

        It `is_replaced` by a state that says more than that.

        The state cannot tell who owns a client id and who was refused; that is inherited from
        the document in use, or from what is stored.
        """
        document = stored.document
        kept = await kept_text(self._shell, stored, is_replaced=is_replaced)
        known = self._shell.core.get(document)
        if known is None:
            known = DocumentCore(document, stored, self._shell.limits)
        head = Head.decode(folded.head)
        head.inherit(known.head)
        return [
            *kept,
            *known.folded(),
            Fold(document, folded.state, head.encode(), stored.last),
        ]

    def _note(self, document: DocumentId, growth: _Growth) -> None:
        self._growth[document] = growth
        if is_fold_due(*growth, self._shell.limits):
            self._due[document] = None
            self._wake.set()

    async def _find_overgrown(self) -> None:
        limits = self._shell.limits
        try:
            found = await self._shell.store.overgrown(
                updates=limits.log_updates_before_fold,
                size=limits.log_bytes_before_fold,
                limit=FOUND_MAX,
            )
        except StoreError as error:
            self._shell.witness.store_failed(error)
            return
        for document in found:
            self._due[document] = None
        if found:
            self._wake.set()

    async def _fold_or_set_aside(self, document: DocumentId) -> None:
        try:
            await self.fold(document)
        except UsageError:
            # Folded by somebody else meanwhile, or gone; or too many jobs wait; or the state is
            # larger than may be stored.  The log stays as it is, and is tried when it has grown.
            pass
        except StoreError as error:
            self._shell.witness.store_failed(error)
        except WorkerFailed as error:
            if error.is_by_document:
                await self._shell.set_aside(document, f"folding its log failed: {error}")
        except (EngineFailed, UpdateRefused) as error:
            await self._shell.set_aside(document, f"folding its log failed: {error}")
