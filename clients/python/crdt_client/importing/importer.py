"""Takes foreign documents into a replica: all of a document or nothing of it.

    name ──► id ──► rehearse admission ──► rehearse integration (a worker) ──► receive ──► settled

Content that has nothing in common with what the document holds, as that of a file that was made
anew, is another history of it: the document gets a new lineage with that content, because merged it
would be there twice.  What was there before is set aside.

An ordinary peer's refused update ends its author's range, which is right for a peer that goes on
writing and wrong for a file: so each document is first decided on a copy of what the replica
knows, and integrated in a worker, before its first byte is received.

1. A document that is refused leaves no trace; the next one goes on.
2. What is held already is not written again: importing twice changes nothing.
3. Two histories of one document are never merged.
4. Two names that mean the same document id are never merged silently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from crdt_client.importing.hints import hint
from crdt_state.errors import (
    InvalidDocumentId,
    LimitExceeded,
    RemoteError,
    StoreCorrupt,
    StoreError,
    UpdateMalformed,
    WorkerFailed,
)
from crdt_state.identifiers import document_id
from crdt_state.replica.admission import ANYONE
from crdt_state.replica.document_core import DocumentCore
from crdt_state.replica.succession import succeed
from crdt_state.storage.contract import UNKNOWN, Hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crdt_client.importing.foreign import ForeignDocument
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import StoredDocument

__all__ = ["Importer", "Outcome", "Result", "importing_limits"]


class Outcome(Enum):
    """What became of a foreign document."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Result:
    """One document's line in the report.

    `updates` and `size` (bytes) are what was new, `waiting` counts updates that lack something
    and are kept pending; `reason` says why it was refused.  With `is_another` it is another history
    than the one that was there, and has taken its place.
    """

    name: str
    outcome: Outcome
    document: DocumentId | None = None
    updates: int = 0
    size: int = 0
    waiting: int = 0
    reason: str | None = None
    is_another: bool = False


class _NotTaken(Exception):
    """Why a document is refused."""


def importing_limits(limits: Limits) -> Limits:
    """`limits` for files: they hold whole states, which what binds one author does not bind."""
    return replace(
        limits,
        update_bytes_max=max(limits.update_bytes_max, limits.document_bytes_max),
        update_clients_max=max(limits.update_clients_max, limits.update_structs_max),
    )


class Importer:
    """Imports into the replica of `shell`, which has `importing_limits`, until it is dropped.

    `renames` gives names other ones, and `prefix` is put before every name.  With `is_rehearsal`
    nothing is written.
    """

    def __init__(
        self,
        shell: ReplicaShell,
        *,
        prefix: str = "",
        renames: Mapping[str, str] | None = None,
        is_rehearsal: bool = False,
    ) -> None:
        self._shell = shell
        self._limits = shell.limits
        self._prefix = prefix
        self._renames = renames or {}
        self._is_rehearsal = is_rehearsal
        self._names: dict[DocumentId, str] = {}

    async def take(self, foreign: ForeignDocument, *, source: str) -> Result:
        """Import one document; `source` is stored with updates that have to wait.

        Raises `StoreError` when the store itself fails; what was imported before is durable.
        """
        document: DocumentId | None = None
        try:
            if foreign.problem is not None:
                raise _NotTaken(foreign.problem)  # noqa: TRY301 - one way out
            document = self._identify(foreign.name)
            return await self._take(document, foreign, source)
        except _NotTaken as refusal:
            return Result(foreign.name, Outcome.REFUSED, document, reason=str(refusal))

    async def _take(self, document: DocumentId, foreign: ForeignDocument, source: str) -> Result:
        is_another = await self._is_another(document, foreign.updates)
        fresh, waiting, held = await self._rehearse(
            document, foreign.updates, is_another=is_another
        )
        size = sum(map(len, fresh))
        if not fresh and not waiting:
            return Result(foreign.name, Outcome.UNCHANGED, document)
        if fresh:
            await self._integrate([*held, *fresh])
        if not self._is_rehearsal:
            if is_another:
                await self._begin_anew(document)
            await self._receive(document, foreign.updates, source)
        return Result(
            foreign.name,
            Outcome.IMPORTED,
            document,
            len(fresh),
            size,
            waiting,
            is_another=is_another,
        )

    def _identify(self, name: str) -> DocumentId:
        try:
            document = document_id(self._prefix + self._renames.get(name, name))
        except InvalidDocumentId as error:
            raise _NotTaken(f"{error}; give it another one with --rename") from None
        other = self._names.setdefault(document, name)
        if other != name:
            raise _NotTaken(
                f"{other!r} has the same document id {document!r}; "
                "give one of them another with --rename"
            )
        return document

    async def _is_another(self, document: DocumentId, updates: Sequence[bytes]) -> bool:
        """Whether `updates` share no client with a document that holds something."""
        _, ours = await self._stored(document)
        if not ours.head.vector:
            return False
        theirs = DocumentCore(document, None, self._limits)
        for update in updates:
            theirs.arrive(_REHEARSING, ANYONE, update, name="")
        theirs.decide(self._shell.clock.wall())
        found = theirs.head.vector
        return bool(found) and not found.keys() & ours.head.vector.keys()

    async def _stored(self, document: DocumentId) -> tuple[StoredDocument | None, DocumentCore]:
        try:
            stored = await self._shell.store.read(document)
            return stored, DocumentCore(document, stored, self._limits)
        except StoreCorrupt as error:
            raise _NotTaken(f"what the store holds of it is damaged: {error}") from error

    async def _begin_anew(self, document: DocumentId) -> None:
        """Set aside what a document holds, and give it a new lineage."""
        shell = self._shell
        _, ours = await self._stored(document)
        life = ours.life.successor(shell.clock.wall(), shell.random)
        # Nobody knows which of it is whose, so all of it counts.
        await succeed(shell, document, life, held=lambda _: UNKNOWN)

    async def _rehearse(
        self, document: DocumentId, updates: Sequence[bytes], *, is_another: bool
    ) -> tuple[list[bytes], int, list[bytes]]:
        """What of `updates` would be admitted, how many would wait, and what is stored."""
        stored, core = await self._stored(document)
        if core.life.is_deleted:
            raise _NotTaken("it was deleted; give it another id with --rename")
        if core.set_aside is not None:
            raise _NotTaken(f"the store has set this document aside: {core.set_aside}")
        if is_another:
            stored, core = None, DocumentCore(document, None, self._limits)
        for update in updates:
            core.arrive(_REHEARSING, ANYONE, update, name="")
        refusals = core.decide(self._shell.clock.wall())
        if refusals:
            raise _NotTaken(_sentence(refusals, updates))
        turn = core.take()
        waiting = sum(isinstance(write, Hold) for write in turn.others) - len(turn.released)
        fresh = [delta.update for delta in turn.deltas]
        return fresh, max(waiting, 0), [] if stored is None else stored.updates()

    async def _integrate(self, updates: list[bytes]) -> None:
        """See in a worker that the whole document harms nobody who opens it."""
        try:
            folded = await self._shell.workers.fold(updates)
        except (LimitExceeded, RemoteError, WorkerFailed) as error:
            raise _NotTaken(f"opening it fails: {error}") from error
        if folded.waiting:
            raise _NotTaken(f"{len(folded.waiting)} of its updates cannot be integrated")

    async def _receive(self, document: DocumentId, updates: Sequence[bytes], source: str) -> None:
        shell = self._shell
        number = shell.new_source()
        listener = _Listener()
        await shell.use(document, number, listener)
        try:
            for update in updates:
                await shell.has_room()
                shell.receive(document, number, ANYONE, update, name=f"import {source}")
            await shell.settled(document)
        except RemoteError as error:
            raise _NotTaken(str(error)) from error
        finally:
            shell.leave(document, number)
        if listener.error is not None:
            raise _NotTaken(str(listener.error)) from listener.error


class _Listener:
    """Hears what becomes of a document that is being imported."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """Nothing: `settled` says so too."""

    def refused(self, refusal: Refusal) -> None:
        """The rehearsal let it in, so something has changed since."""
        self.error = refusal.error

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """The store failed, which `settled` raises, or the document was set aside."""
        if not isinstance(error, StoreError):
            self.error = error


_REHEARSING = 1


def _sentence(refusals: list[Refusal], updates: Sequence[bytes]) -> str:
    first = refusals[0]
    reason = str(first.error)
    if isinstance(first.error, UpdateMalformed):
        reason += hint(first.update)
    if len(updates) == 1:
        return reason
    number = updates.index(first.update) + 1
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return f"update {number} of {len(updates)}: {reason}{more}"
