"""What becomes of a document when one life of it follows another (crdt_state/lineage.py).

A life ends because its own user deletes or seeds the document here, or because a peer has a greater
life of it.  The old content goes and the new one comes in one commit; whoever uses the document is
told (`LineageEnded`) and begins anew.

1. Nothing of the old life is in the new one.
2. Of a life that somebody else ended, the edits made here that nobody was known to hold are set
   aside first, in the same commit: the whole of it with them, and before that what it was without.
   What is edited during that commit is set aside, or handed back with the copy to build on.
3. Whom this replica owes anything, it owes the new life, deletions included, until they have it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentDeleted,
    LineageEnded,
)
from crdt_state.model.portions import portions
from crdt_state.replica.admission import Author
from crdt_state.storage.contract import NOTHING, PEERS, UNKNOWN, Append, SetAside, SetLife

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life
    from crdt_state.replica.document_core import DocumentCore, Refusal
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import QuarantineEntry, StoredDocument, Write

__all__ = [
    "Copy",
    "Held",
    "bring",
    "copies",
    "held_by",
    "held_by_anybody",
    "held_by_nobody",
    "succeed",
]

RELAY = Author(identity=None, may_write=True, may_relay=True)

LATE_ROUNDS = 3
"""So often a copy is set aside once more, because somebody edits while the last one is written."""

TRIES = 3
"""Before a document that others replace again and again is left to them."""

MINE, COMMON = "edited here in lineage ", "held by others of lineage "
"""How the two parts of a copy are named in the quarantine: with the edits, and without."""

Held: TypeAlias = "Callable[[StoredDocument], int | None]"
"""Through which sequence others hold a document, `UNKNOWN`, or None where nothing is to be kept."""


def held_by_nobody(_: StoredDocument) -> int | None:
    """Its own user has decided: nothing is kept."""
    return None


def held_by_anybody(stored: StoredDocument) -> int | None:
    """Through where every remote holds it; None where none is owed any of it."""
    return min(stored.held.values(), default=None)


def held_by(remote: str, remotes: Remotes) -> Held:
    """Through where `remote` holds it, as far as is known; None where it is owed nothing."""

    def held(stored: StoredDocument) -> int | None:
        # Not on the list yet, it was never owed anything, and never confirmed any of it.
        return stored.held.get(remote) if remote in remotes else NOTHING

    return held


async def succeed(
    shell: ReplicaShell,
    document: DocumentId,
    life: Life,
    *,
    held: Held,
    told_by: str | None = None,
    content: bytes | None = None,
    creator: str | None = None,
) -> LineageEnded | None:
    """Let `document` have `life`, with `content`; what its users were told.

    None where it has a life as great already.  `told_by` is owed nothing: it has said so.  Raises
    `StoreError`, and `DocumentClosed` where others are replacing the document at the same time.
    """
    keeper = shell.new_source()
    for _ in range(TRIES):
        await shell.use(document, keeper, _Keeper())
        try:
            known = shell.core.get(document)
            if known is None:
                continue
            if not known.life < life:
                return None
            step = _Step(shell, known, life, held, told_by, content, creator)
            if await shell.replace(known, step.make, step.late):
                if step.error is None:
                    return None
                shell.holdings.of(document).end(step.error)
                return step.error.with_more(step.late_edits)
        finally:
            shell.leave(document, keeper)
    raise DocumentClosed(f"{document!r} is being replaced by somebody else; try again")


@dataclass(slots=True)
class _Step:
    """From one life to the next."""

    shell: ReplicaShell
    known: DocumentCore
    life: Life
    held: Held
    told_by: str | None
    content: bytes | None
    creator: str | None
    error: LineageEnded | None = None
    """What the document's users are told; set by `make`."""
    late_edits: list[bytes] = field(default_factory=list)
    """What was edited here while the commit was under way and was set aside then."""
    _before: list[bytes] = field(default_factory=list)
    """What is stored of the life that ends."""
    _common: list[bytes] | None = None
    _own: int = 0
    """How many edits that had not been written are in the commit."""
    _rounds: int = 0

    async def make(self, stored: StoredDocument | None) -> tuple[list[Write], CrdtStateError]:
        """The writes, and `error`."""
        document, now = self.known.document, self.shell.clock.wall()
        own = [] if self.held is held_by_nobody else self.known.own_edits()
        self._before, self._own = [] if stored is None else stored.updates(), len(own)
        self._common, edits = self._parted(stored, own)
        ended = DocumentDeleted if self.life.is_deleted else LineageEnded
        lineage = self.known.life.lineage
        error = self.error = ended(document, lineage, tuple(edits), has_copy=bool(edits))
        writes = await self._set_aside(error, own) if edits else []
        owed = tuple(
            remote
            for remote in (*self.shell.core.remotes(), *self.shell.peers.names())
            if remote != self.told_by
        )
        writes.append(SetLife(document, self.life, now, owed, self.creator))
        if self.content is not None:
            remotes = tuple(remote for remote in owed if not remote.startswith(PEERS))
            writes.append(Append(document, (self.content,), remotes, creator=self.creator))
        return writes, error

    async def late(self) -> list[Write]:
        """The copy once more, with what was edited here meanwhile, where anything was."""
        error, own = self.error, self.known.own_edits()
        if error is None or self.held is held_by_nobody:
            return []
        self.late_edits = own[self._own :] if self._rounds else []
        error.has_copy |= bool(self._rounds)
        kept = self._own + len(self.late_edits)
        if len(own) <= kept or self._rounds == LATE_ROUNDS:
            return []
        self._rounds += 1
        return await self._set_aside(error.with_more(own[self._own :], has_copy=True), own)

    async def _set_aside(self, error: LineageEnded, own: list[bytes]) -> list[Write]:
        """The writes that keep a copy, with these edits that were never written."""
        name = self.known.life.lineage.hex()
        merge = self.shell.workers.merge
        copy = [(MINE, await merge([*self._before, *own]))]
        if self._common is not None:
            common = await merge(self._common) if self._common else NOTHING_WRITTEN
            copy.insert(0, (COMMON, common))
        now = self.shell.clock.wall()
        return [
            SetAside(self.known.document, update, error.code, str(error), source + name, now)
            for source, update in copy
        ]

    def _parted(
        self, stored: StoredDocument | None, own: list[bytes]
    ) -> tuple[list[bytes] | None, list[bytes]]:
        """What others hold, None where that cannot be told, and the edits that only we hold."""
        if stored is None:
            return [], own
        through = self.held(stored)
        if through is None:
            return stored.updates(), own
        if through == NOTHING:
            return [], stored.updates() + own
        point = stored.checkpoint
        if through == UNKNOWN or (point is not None and point.through > through):
            return None, stored.updates() + own
        common = [] if point is None else [point.state]
        common += [entry.update for entry in stored.log if entry.sequence <= through]
        edits = [entry.update for entry in stored.log if entry.sequence > through]
        return common, edits + own


NOTHING_WRITTEN = b"\x00\x00"
"""The update that says nothing."""


class Copy(NamedTuple):
    """What was set aside of one lineage of a document that has ended.

    `whole` is all of it as one update, `common` what others held; None where that is not known.
    """

    document: DocumentId
    lineage: bytes
    is_deleted: bool
    whole: bytes
    common: bytes | None
    numbers: tuple[int, ...]

    def error(self) -> LineageEnded:
        """As who had the document open was told."""
        kind = DocumentDeleted if self.is_deleted else LineageEnded
        return kind(self.document, self.lineage, (self.whole,), has_copy=True)


def copies(entries: Sequence[QuarantineEntry]) -> list[Copy]:
    """The copies among quarantined entries, oldest first; of each lineage, what was kept last."""
    parts: dict[tuple[DocumentId, str], list[QuarantineEntry]] = {}
    for entry in entries:
        for kind in (MINE, COMMON):
            if entry.source.startswith(kind):
                parts.setdefault((entry.document, entry.source.removeprefix(kind)), []).append(
                    entry
                )
    found = []
    for (document, name), kept in parts.items():
        mine = [entry for entry in kept if entry.source.startswith(MINE)]
        common = [entry for entry in kept if entry.source.startswith(COMMON)]
        if mine:
            found.append(
                Copy(
                    document,
                    bytes.fromhex(name),
                    mine[-1].code == DocumentDeleted.code,
                    mine[-1].update,
                    common[-1].update if common else None,
                    tuple(entry.number for entry in kept),
                )
            )
    return found


async def bring(shell: ReplicaShell, document: DocumentId, updates: Sequence[bytes]) -> None:
    """Add what was written elsewhere, by whomever.

    Raises `UpdateRefused` where it is not let in, and `StoreError`.
    """
    keeper, source = _Keeper(), shell.new_source()
    size_max = shell.limits.update_bytes_max
    await shell.use(document, source, keeper)
    try:
        for update in updates:
            parts = [update]
            if len(update) > size_max:
                parts = await asyncio.to_thread(portions, update, size_max // 2)
            for part in parts:
                shell.receive(document, source, RELAY, part, name="local copy")
        await shell.settled(document)
    finally:
        shell.leave(document, source)
    if keeper.refusal is not None:
        raise keeper.refusal.error


class _Keeper:
    """Uses a document, so that it stays in use."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None

    def deliver(self, deltas: object) -> None:
        """Nothing to be told."""

    def refused(self, refusal: Refusal) -> None:
        """Of what `bring` brought."""
        self.refusal = refusal

    def lost(self, error: Exception, own_edits: object) -> None:
        """What came of it, `succeed` says."""
