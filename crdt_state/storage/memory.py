"""The reference adapter of the store: plain dictionaries, gone with the process.

What it does is what the contract means; the tests of every other engine compare with it.
`write` never yields to the event loop, so a call is carried out whole.
Values keep their checksums here too, so that a test can damage one and see it noticed.

A simulated disk fault is an attribute: while `fault` is set, every write raises it and changes
nothing.
"""

from __future__ import annotations

import heapq
from copy import copy
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import (
    DocumentClosed,
    FoldOutdated,
    LifeOutdated,
    StoreCorrupt,
    WriteInvalid,
)
from crdt_state.identifiers import draw_incarnation, draw_replica_id, scope_of
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.lineage import BORN, Life
from crdt_state.storage.checksums import checksum, log_checksum, log_salt
from crdt_state.storage.contract import (
    NOTHING,
    PEERS,
    WATERMARKS,
    Append,
    Checkpoint,
    ClearOutbox,
    DropAside,
    Entry,
    Finding,
    Fold,
    Forget,
    ForgetDigests,
    Head,
    Heads,
    Hold,
    KeepText,
    OutboxEntry,
    PendingEntry,
    QuarantineEntry,
    Release,
    Revise,
    Sequence,
    SetAside,
    SetLeaf,
    SetLife,
    SetMetadata,
    SetNodes,
    StaleBuckets,
    StoredDocument,
    StoredLeaf,
    StoredRevisions,
    Summary,
    Usage,
)
from crdt_state.storage.revising import Position, check_fold, check_text, follow
from crdt_state.storage.validity import CONDITIONAL, checked_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from collections.abc import Sequence as Many

    from crdt_state.clocks import WallTime
    from crdt_state.errors import StoreError
    from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId, Scope
    from crdt_state.storage.contract import Buckets, Write

__all__ = ["MemoryStore"]


class _Owed(NamedTuple):
    """What a remote is owed of a document, and through where it held all of it before."""

    through: Sequence
    since: int


@dataclass(frozen=True, slots=True)
class _Revised:
    """The revisions of one document's text."""

    position: Position
    floor: bytes
    revisions: tuple[bytes, ...]
    text: bytes | None = None

    @property
    def stored_bytes(self) -> int:
        return len(self.floor) + sum(map(len, self.revisions)) + len(self.text or b"")


@dataclass(slots=True)
class _Kept:
    """All of one document.  Lists are in the order of sequences or numbers."""

    born: Sequence
    last: Sequence = NOTHING
    checkpoint: Checkpoint | None = None
    log: list[Entry] = field(default_factory=list)
    log_bytes: int = 0
    pending: dict[int, PendingEntry] = field(default_factory=dict)
    quarantine: dict[int, QuarantineEntry] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    checksums: dict[tuple[str, int], int] = field(default_factory=dict)
    creator: str | None = None
    digested: Sequence = NOTHING
    leaf: SetLeaf | None = None
    life: Life = BORN
    deleted_at: WallTime | None = None
    revised: _Revised | None = None

    def copy(self) -> _Kept:
        """A copy that shares only values that never change."""
        return _Kept(
            self.born,
            self.last,
            self.checkpoint,
            self.log.copy(),
            self.log_bytes,
            self.pending.copy(),
            self.quarantine.copy(),
            self.metadata.copy(),
            self.checksums.copy(),
            self.creator,
            self.digested,
            self.leaf,
            self.life,
            self.deleted_at,
            self.revised,
        )

    @property
    def checkpoint_bytes(self) -> int:
        return len(self.checkpoint.state) + len(self.checkpoint.head) if self.checkpoint else 0

    @property
    def stored_bytes(self) -> int:
        """All that counts in a creator's usage."""
        pending = sum(len(entry.update) for entry in self.pending.values())
        aside = sum(len(entry.update) for entry in self.quarantine.values())
        revised = self.revised.stored_bytes if self.revised else 0
        return self.log_bytes + self.checkpoint_bytes + pending + aside + revised


class MemoryStore:
    """A store that forgets everything when it is let go; same calls, same results.

    Reopen it in a test with `reopened()`, which keeps what was written, as a file would.
    """

    def __init__(self, *, random: Random | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        dice = random or Random(0)  # noqa: S311 - ids of a replica are names, not secrets
        self.fault: StoreError | None = None
        self.is_closed = False
        self._limits = limits
        self._replica_id = draw_replica_id(dice)
        self._incarnation = draw_incarnation(dice)
        self._is_new_incarnation = False
        self._documents: dict[DocumentId, _Kept] = {}
        self._metadata: dict[str, bytes] = {}
        self._outbox: dict[tuple[str, DocumentId], _Owed] = {}
        self._remotes: set[str] = set()
        self._nodes: dict[tuple[Scope, int], bytes] = {}
        self._node_checksums: dict[tuple[Scope, int], int] = {}
        self._stale: dict[int, tuple[Scope, int]] = {}
        self._mark = 0
        self._scopes: dict[Scope, None] = {}
        self._sequence = NOTHING
        self._number = 0

    @property
    def replica_id(self) -> ReplicaId:
        """Who this replica is."""
        return self._replica_id

    @property
    def incarnation(self) -> Incarnation:
        """Which life of the replica this is."""
        return self._incarnation

    @property
    def is_new_incarnation(self) -> bool:
        """Whether this store was made by `restored`."""
        return self._is_new_incarnation

    def reopened(self) -> MemoryStore:
        """The same store, opened once more after `close` or a crash."""
        store = copy(self)
        store.fault = None
        store.is_closed = False
        store._is_new_incarnation = False  # noqa: SLF001 - its own kind
        return store

    def restored(self, random: Random) -> MemoryStore:
        """A copy of what is stored now, opened as a file restored from a backup is."""
        store = self.reopened()
        store._documents = {name: kept.copy() for name, kept in self._documents.items()}  # noqa: SLF001
        store._nodes = self._nodes.copy()  # noqa: SLF001
        store._node_checksums = self._node_checksums.copy()  # noqa: SLF001
        store._stale = self._stale.copy()  # noqa: SLF001
        store._begin_incarnation(draw_incarnation(random))  # noqa: SLF001
        return store

    def _begin_incarnation(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self._is_new_incarnation = True
        self._remotes = self._remotes.copy()
        self._metadata = {
            key: value for key, value in self._metadata.items() if not key.startswith(WATERMARKS)
        }
        before, self._outbox = self._outbox, {}
        for remote in self._remotes:
            for name, kept in self._documents.items():
                if kept.last and (kept.life != BORN or not remote.startswith(PEERS)):
                    owed = before.get((remote, name), _Owed(kept.last, kept.last))
                    self._outbox[remote, name] = owed._replace(through=kept.last)

    # --- writing -----------------------------------------------------------------------------

    async def write(self, writes: Many[Write]) -> Sequence:
        """Carry out all of `writes` or none; return the greatest sequence after it."""
        self._check_open()
        checked_bytes(writes, self._limits)
        if self.fault is not None:
            raise self.fault
        # Only these can be refused by what is stored; only then is a way back needed.
        is_conditional = any(type(write) in CONDITIONAL for write in writes)
        before = self._photograph(writes) if is_conditional else None
        counts = self._sequence, self._number
        try:
            for write in writes:
                self._carry_out(write)
        except WriteInvalid:
            if before is not None:
                (
                    self._documents,
                    self._metadata,
                    self._outbox,
                    self._remotes,
                    self._nodes,
                    self._node_checksums,
                    self._stale,
                ) = before
                self._sequence, self._number = counts
            raise
        return self._sequence

    def _photograph(
        self, writes: Many[Write]
    ) -> tuple[
        dict[DocumentId, _Kept],
        dict[str, bytes],
        dict[tuple[str, DocumentId], _Owed],
        set[str],
        dict[tuple[Scope, int], bytes],
        dict[tuple[Scope, int], int],
        dict[int, tuple[Scope, int]],
    ]:
        documents = self._documents.copy()
        for name in {getattr(write, "document", None) for write in writes}:
            if name in documents:
                documents[name] = documents[name].copy()
        return (
            documents,
            self._metadata.copy(),
            self._outbox.copy(),
            self._remotes.copy(),
            self._nodes.copy(),
            self._node_checksums.copy(),
            self._stale.copy(),
        )

    def _carry_out(self, write: Write) -> None:  # noqa: C901, PLR0912 - a table
        match write:
            case Append():
                self._append(write)
            case Hold():
                self._hold(write)
            case Release(document, numbers):
                self._release(document, numbers)
            case SetAside():
                self._set_aside(write)
            case DropAside(document, numbers):
                self._drop_aside(document, numbers)
            case Fold():
                self._fold(write)
            case ClearOutbox(remote, document, through):
                self._remotes.add(remote)
                owed = self._outbox.get((remote, document))
                if owed is not None and owed.through <= through:
                    del self._outbox[remote, document]
                elif owed is not None:
                    since = max(owed.since, through)
                    self._outbox[remote, document] = owed._replace(since=since)
            case SetMetadata():
                self._set_metadata(write)
            case SetLeaf():
                self._set_leaf(write)
            case SetNodes():
                self._set_nodes(write)
            case ForgetDigests():
                self._forget_digests()
            case Revise():
                self._revise(write)
            case KeepText():
                self._keep_text(write)
            case SetLife():
                self._set_life(write)
            case Forget(document):
                forgotten = self._documents.pop(document, None)
                if forgotten is not None and forgotten.leaf is not None:
                    self._add_stale(document, forgotten.leaf.bucket)
                self._forget_outbox(document)

    def _born(self, document: DocumentId, creator: str | None) -> _Kept:
        kept = self._documents.get(document)
        if kept is None:
            kept = self._documents[document] = _Kept(born=self._sequence, creator=creator)
        return kept

    def _append(self, write: Append) -> None:
        self._release(write.document, write.released)
        before = self._sequence
        if write.updates:
            kept = self._born(write.document, write.creator)
            salt = log_salt(write.document)
            for update in write.updates:
                self._sequence = Sequence(self._sequence + 1)
                kept.log.append(Entry(self._sequence, update))
                kept.log_bytes += len(update)
                kept.checksums["log", self._sequence] = log_checksum(salt, self._sequence, update)
            kept.last = self._sequence
        self._remotes.update(write.unsent_to)
        document = self._documents.get(write.document)
        if document is not None and document.last:
            since = before if write.updates else document.last if write.is_again else NOTHING
            since = since if since > document.born else NOTHING
            for remote in write.unsent_to:
                known = self._outbox.get((remote, write.document))
                held = since if known is None else min(known.since, since)
                self._outbox[remote, write.document] = _Owed(document.last, held)

    def _release(self, document: DocumentId, numbers: tuple[int, ...]) -> None:
        kept = self._documents.get(document)
        if kept is not None:
            for number in numbers:
                kept.pending.pop(number, None)
                kept.checksums.pop(("pending", number), None)

    def _hold(self, write: Hold) -> None:
        kept = self._born(write.document, write.creator)
        if write.number in kept.pending:
            raise WriteInvalid(
                f"{write.document!r} already has a pending entry {write.number}; take a greater one"
            )
        kept.pending[write.number] = PendingEntry(
            write.number, write.update, write.source, write.at
        )
        kept.checksums["pending", write.number] = checksum(
            "pending", write.document, write.number, write.update
        )

    def _set_aside(self, write: SetAside) -> None:
        self._number += 1
        kept = self._born(write.document, write.creator)
        kept.quarantine[self._number] = QuarantineEntry(
            self._number,
            write.document,
            write.update,
            write.code,
            write.reason,
            write.source,
            write.at,
        )
        kept.checksums["quarantine", self._number] = checksum(
            "quarantine", write.document, self._number, write.update
        )
        size = sum(len(entry.update) for entry in kept.quarantine.values())
        while len(kept.quarantine) > 1 and (
            len(kept.quarantine) > self._limits.quarantine_entries_max
            or size > self._limits.quarantine_bytes_max
        ):
            oldest = min(kept.quarantine)
            size -= len(kept.quarantine.pop(oldest).update)
            del kept.checksums["quarantine", oldest]

    def _drop_aside(self, document: DocumentId, numbers: tuple[int, ...]) -> None:
        kept = self._documents.get(document)
        if kept is not None:
            for number in numbers:
                kept.quarantine.pop(number, None)
                kept.checksums.pop(("quarantine", number), None)

    def _set_life(self, write: SetLife) -> None:
        document = write.document
        kept = self._documents.get(document)
        stored = BORN if kept is None else kept.life
        if not stored < write.life:
            raise LifeOutdated(f"{document!r} has {stored} by now, which {write.life} cannot end")
        self._sequence = Sequence(self._sequence + 1)
        begun = _Kept(self._sequence, self._sequence, creator=write.creator, life=write.life)
        begun.deleted_at = write.at if write.life.is_deleted else None
        begun.checksums["life", 0] = _life_checksum(document, begun)
        if kept is not None:
            # Of the life before: what it stands in is known, and the document is undigested.
            begun.leaf, begun.digested = kept.leaf, kept.digested
            if kept.leaf is not None:
                begun.checksums["leaf", 0] = kept.checksums["leaf", 0]
            begun.quarantine = kept.quarantine
            for number in kept.quarantine:
                begun.checksums["quarantine", number] = kept.checksums["quarantine", number]
        self._documents[document] = begun
        self._forget_outbox(document)
        self._remotes.update(write.unsent_to)
        for remote in write.unsent_to:
            self._outbox[remote, document] = _Owed(self._sequence, NOTHING)

    def _forget_outbox(self, document: DocumentId) -> None:
        for entry in [key for key in self._outbox if key[1] == document]:
            del self._outbox[entry]

    def _fold(self, write: Fold) -> None:
        kept = self._documents.get(write.document)
        if kept is None:
            raise FoldOutdated(f"there is no document {write.document!r} to fold")
        behind = kept.checkpoint.through if kept.checkpoint else NOTHING
        if not max(behind, kept.born + 1) <= write.through <= kept.last:
            raise FoldOutdated(
                f"{write.document!r} cannot be folded through {write.through}: its log reaches "
                f"from {max(behind, kept.born + 1)} to {kept.last}; read it again and fold anew"
            )
        has_text = kept.revised is not None and kept.revised.text is not None
        check_fold(write, _trusted_position(write.document, kept), has_text=has_text)
        for entry in kept.log:
            if entry.sequence <= write.through:
                kept.log_bytes -= len(entry.update)
                del kept.checksums["log", entry.sequence]
        kept.log = [entry for entry in kept.log if entry.sequence > write.through]
        kept.checkpoint = Checkpoint(write.state, write.head, write.through)
        kept.checksums["checkpoint", 0] = checksum(
            "checkpoint", write.document, write.through, write.state, write.head
        )

    def _revise(self, write: Revise) -> None:
        document, kept = write.document, self._documents.get(write.document)
        before = None if kept is None else _trusted_position(document, kept)
        through = None if kept is None or kept.life.is_deleted else kept.last
        after = follow(write, before, through, self._incarnation)
        assert kept is not None  # noqa: S101 - else it has been refused
        stored, above = kept.revised, tuple[bytes, ...]()
        if before is not None and stored is not None:
            above = stored.revisions[after.floor - before.floor :]
        floor = write.floor if write.floor is not None or stored is None else stored.floor
        assert floor is not None  # noqa: S101 - the first has one
        kept.revised = _Revised(after, floor, above + write.revisions)
        checksums = kept.checksums
        checksums.pop(("text", 0), None)
        checksums["revised", 0] = after.checksum(document)
        if write.floor is not None:
            checksums["floor", 0] = checksum("floor", document, after.floor, floor)
            still = range(after.floor + 1, write.first) if before is not None else ()
            for kind, number in tuple(checksums):
                if kind == "revision" and number not in still:
                    del checksums[kind, number]
        for number, revision in enumerate(write.revisions, write.first):
            checksums["revision", number] = checksum("revision", document, number, revision)

    def _keep_text(self, write: KeepText) -> None:
        document, kept = write.document, self._documents.get(write.document)
        check_text(write, None if kept is None else _trusted_position(document, kept))
        assert kept is not None  # noqa: S101 - what has revisions is there
        assert kept.revised is not None  # noqa: S101
        kept.revised = replace(kept.revised, text=write.text)
        kept.checksums["text", 0] = checksum("text", document, write.number, write.text)

    def _set_metadata(self, write: SetMetadata) -> None:
        if write.document is None:
            values = self._metadata
        elif write.value is not None:
            values = self._born(write.document, write.creator).metadata
        else:
            known = self._documents.get(write.document)
            values = known.metadata if known is not None else {}
        if write.value is None:
            values.pop(write.key, None)
        else:
            values[write.key] = write.value

    def _set_leaf(self, write: SetLeaf) -> None:
        kept = self._documents.get(write.document)
        self._scopes[scope_of(write.document)] = None
        # Where another life began, that sequence is of it; the one before a first life is not.
        first = 0 if kept is None else kept.born + (kept.life == BORN)
        if kept is None or not first <= write.through <= kept.last:
            self._add_stale(write.document, write.bucket)
            return
        kept.digested = write.through
        kept.leaf = None if write.leaf is None else write
        kept.checksums["leaf", 0] = _leaf_checksum(write)

    def _set_nodes(self, write: SetNodes) -> None:
        for number, blob in write.nodes.items():
            key = (write.scope, number)
            if any(blob):
                self._nodes[key] = blob
                self._node_checksums[key] = checksum("node", write.scope, number, blob)
            else:
                self._nodes.pop(key, None)
        for mark, (scope, _) in tuple(self._stale.items()):
            if scope == write.scope and mark <= write.fresh_through:
                del self._stale[mark]

    def _forget_digests(self) -> None:
        for name, kept in self._documents.items():
            self._documents[name] = replace(kept, digested=NOTHING, leaf=None)
        self._nodes.clear()
        self._stale.clear()

    def _add_stale(self, document: DocumentId, bucket: int) -> None:
        self._mark += 1
        self._stale[self._mark] = (scope_of(document), bucket)

    # --- reading -----------------------------------------------------------------------------

    async def read(self, document: DocumentId) -> StoredDocument | None:
        """A whole document, or None where there is none."""
        self._check_open()
        kept = self._documents.get(document)
        if kept is None:
            return None
        for problem in _damages(document, kept):
            raise problem
        return StoredDocument(
            document,
            kept.last,
            kept.checkpoint,
            tuple(kept.log),
            tuple(kept.pending[number] for number in sorted(kept.pending)),
            kept.metadata.copy(),
            kept.creator,
            kept.life,
            {
                remote: self._outbox[remote, document].since
                for remote in sorted(self._remotes)
                if (remote, document) in self._outbox and not remote.startswith(PEERS)
            },
        )

    async def read_since(self, document: DocumentId, after: Sequence) -> tuple[Entry, ...]:
        """The log of `document` behind `after`, as far as it has not been folded."""
        stored = await self.read(document)
        if stored is None:
            return ()
        return tuple(entry for entry in stored.log if entry.sequence > after)

    async def metadata(self, key: str) -> bytes | None:
        """One value of the replica."""
        self._check_open()
        return self._metadata.get(key)

    async def outbox(
        self, remote: str, *, after: str = "", limit: int | None = None
    ) -> tuple[OutboxEntry, ...]:
        """What `remote` is not known to hold behind `after`, in the order of ids."""
        self._check_open()
        entries = [
            OutboxEntry(remote, document, owed.through)
            for (to, document), owed in self._outbox.items()
            if to == remote and document > after
        ]
        return tuple(sorted(entries, key=lambda entry: entry.document)[:limit])

    async def quarantine(
        self, document: DocumentId | None = None, *, after: int = 0, limit: int = 1_000
    ) -> tuple[QuarantineEntry, ...]:
        """What was set aside behind `after`, of one document or of all, oldest first."""
        self._check_open()
        found: list[QuarantineEntry] = []
        for name in self._documents if document is None else [document]:
            kept = self._documents.get(name)
            if kept is not None:
                for problem in _damages_aside(name, kept):
                    raise problem
                found += (entry for entry in kept.quarantine.values() if entry.number > after)
        return tuple(sorted(found, key=lambda entry: entry.number)[:limit])

    async def summary(self, document: DocumentId) -> Summary | None:
        """One line about a document that is not deleted."""
        self._check_open()
        kept = self._documents.get(document)
        return None if kept is None or kept.life.is_deleted else _summary(document, kept)

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000, with_deleted: bool = False
    ) -> tuple[Summary, ...]:
        """Lines about documents with this prefix behind `after`, in the order of ids."""
        self._check_open()
        names = (
            name
            for name, kept in self._documents.items()
            if name > after
            and name.startswith(prefix)
            and (with_deleted or not kept.life.is_deleted)
        )
        return tuple(
            _summary(name, self._documents[name]) for name in heapq.nsmallest(limit, names)
        )

    async def passed_tombstones(self, *, before: WallTime, limit: int) -> tuple[DocumentId, ...]:
        """Documents deleted before then, owed to nobody, with nothing set aside; oldest first."""
        self._check_open()
        owed = {name for _, name in self._outbox}
        found = [
            (kept.deleted_at, kept.born, name)
            for name, kept in self._documents.items()
            if kept.deleted_at is not None
            and kept.deleted_at < before
            and not kept.quarantine
            and name not in owed
        ]
        return tuple(name for _, _, name in sorted(found)[:limit])

    async def overgrown(self, *, updates: int, size: int, limit: int) -> tuple[DocumentId, ...]:
        """Documents whose log passes `updates` entries or `size` bytes, most bytes first."""
        self._check_open()
        found = [
            (-kept.log_bytes, name)
            for name, kept in self._documents.items()
            if len(kept.log) > updates or kept.log_bytes > size
        ]
        return tuple(name for _, name in heapq.nsmallest(limit, found))

    async def usage(self, identity: str) -> Usage:
        """What the documents that `identity` created take up; nothing where there are none."""
        self._check_open()
        theirs = [
            kept.stored_bytes for kept in self._documents.values() if kept.creator == identity
        ]
        return Usage(len(theirs), sum(theirs))

    async def heads(self, scope: Scope, after: Sequence, *, limit: int, size: int) -> Heads:
        """Documents of a scope with something behind `after`, and what it is."""
        self._check_open()
        lasts = [
            (kept.last, name)
            for name, kept in self._documents.items()
            if kept.last > after and scope_of(name) == scope
        ]
        left = 4 * size
        found: list[Head] = []
        for last, name in heapq.nsmallest(limit, lasts):
            kept = self._documents[name]
            updates = _behind(name, kept, after) if kept.life == BORN else None
            length = sum(map(len, updates or ()))
            if updates is not None and length > size:
                updates = None
            elif length > left:
                break
            else:
                left -= length
            found.append(Head(name, last, updates))
        is_all = len(found) == len(lasts)
        return Heads(tuple(found), self._sequence if is_all else found[-1].last, is_all)

    async def scopes(self, *, after: Scope | None = None, limit: int = 1_000) -> tuple[Scope, ...]:
        """Scopes that have had a leaf, in their order."""
        self._check_open()
        return tuple(
            heapq.nsmallest(limit, (name for name in self._scopes if after is None or name > after))
        )

    async def undigested(
        self, scope: Scope | None = None, *, after: str = "", limit: int = 1_000
    ) -> tuple[DocumentId, ...]:
        """Documents of a scope, or of all, whose leaf is not of all they hold, by id."""
        self._check_open()
        names = (
            name
            for name, kept in self._documents.items()
            if kept.last > kept.digested and name > after and scope in (None, scope_of(name))
        )
        return tuple(heapq.nsmallest(limit, names))

    async def stale(self, scope: Scope) -> StaleBuckets:
        """Buckets of a scope that have lost a leaf since their nodes were set."""
        self._check_open()
        found = {mark: bucket for mark, (of, bucket) in self._stale.items() if of == scope}
        return StaleBuckets(tuple(sorted(set(found.values()))), max(found, default=0))

    async def nodes(self, scope: Scope, numbers: Many[int]) -> dict[int, bytes]:
        """Nodes of a scope's trie by number."""
        self._check_open()
        for problem in self._damages_of_nodes():
            raise problem
        keys = ((scope, number) for number in numbers)
        return {key[1]: self._nodes[key] for key in keys if key in self._nodes}

    async def buckets(self, scope: Scope, numbers: Many[int]) -> Buckets:
        """Ids and leaves by number of the bucket."""
        found: Buckets = {}
        wanted = frozenset(numbers)
        for name, kept in self._documents.items():
            if kept.leaf is None or kept.leaf.bucket not in wanted or scope_of(name) != scope:
                continue
            stored = _stored_leaf(name, kept)
            found.setdefault(kept.leaf.bucket, []).append((name, stored.leaf))
        return found

    async def leaves(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000
    ) -> tuple[StoredLeaf, ...]:
        """Leaves of documents with this prefix behind `after`, in the order of ids."""
        self._check_open()
        names = (
            name
            for name, kept in self._documents.items()
            if kept.leaf is not None and name > after and name.startswith(prefix)
        )
        first = heapq.nsmallest(limit, names)
        return tuple(_stored_leaf(name, self._documents[name]) for name in first)

    async def revisions(self, document: DocumentId) -> StoredRevisions | None:
        """The revisions of a document's text, or None where it has never been revised."""
        self._check_open()
        kept = self._documents.get(document)
        if kept is None or kept.revised is None:
            return None
        for problem in _damages_of_revisions(document, kept):
            raise problem
        revised, position = kept.revised, kept.revised.position
        return StoredRevisions(
            position.floor,
            revised.floor,
            revised.revisions,
            position.through,
            revised.text,
            position.incarnation == self._incarnation,
        )

    def _damages_of_nodes(self) -> Iterator[StoreCorrupt]:
        for (scope, number), blob in self._nodes.items():
            if self._node_checksums[scope, number] != checksum("node", scope, number, blob):
                yield StoreCorrupt(f"node {number} of the scope {scope!r} is damaged")

    async def verify(self) -> AsyncIterator[Finding]:
        """Read everything and yield what does not hold."""
        self._check_open()
        for problem in self._damages_of_nodes():
            yield Finding(None, str(problem))
        for document, kept in list(self._documents.items()):
            for problem in (
                *_damages(document, kept),
                *_damages_aside(document, kept),
                *_damages_of_leaf(document, kept),
                *_damages_of_revisions(document, kept),
            ):
                yield Finding(document, str(problem))

    async def close(self) -> None:
        """Every later call raises `DocumentClosed`."""
        self.is_closed = True

    def _check_open(self) -> None:
        if self.is_closed:
            raise DocumentClosed("the store is closed; open it again")


def _summary(document: DocumentId, kept: _Kept) -> Summary:
    return Summary(
        document,
        kept.last,
        len(kept.log),
        kept.log_bytes,
        kept.checkpoint_bytes,
        len(kept.pending),
        len(kept.quarantine),
        kept.creator,
        is_deleted=kept.life.is_deleted,
    )


def _life_checksum(document: DocumentId, kept: _Kept) -> int:
    return checksum("life", document, kept.deleted_at or 0, kept.life.encode())


def _damages(document: DocumentId, kept: _Kept) -> Iterator[StoreCorrupt]:
    expected = kept.checksums
    if expected.get(("life", 0), 0) != (kept.life != BORN and _life_checksum(document, kept)):
        yield _damage("life", document, 0)
    point = kept.checkpoint
    if point is not None and expected["checkpoint", 0] != checksum(
        "checkpoint", document, point.through, point.state, point.head
    ):
        yield _damage("checkpoint", document, point.through)
    salt = log_salt(document)
    for entry in kept.log:
        if expected["log", entry.sequence] != log_checksum(salt, entry.sequence, entry.update):
            yield _damage("log", document, entry.sequence)
    for number, held in kept.pending.items():
        if expected["pending", number] != checksum("pending", document, number, held.update):
            yield _damage("pending", document, number)


def _behind(document: DocumentId, kept: _Kept, after: Sequence) -> tuple[bytes, ...] | None:
    """What a log has behind `after`; None where it has been folded beyond, or is damaged."""
    folded = kept.checkpoint.through if kept.checkpoint else NOTHING
    if folded > after or any(_damages(document, kept)):
        return None
    return tuple(entry.update for entry in kept.log if entry.sequence > after)


def _damages_of_leaf(document: DocumentId, kept: _Kept) -> Iterator[StoreCorrupt]:
    if kept.leaf is not None and kept.checksums["leaf", 0] != _leaf_checksum(kept.leaf):
        yield _damage("leaf", document, kept.digested)


def _trusted_position(document: DocumentId, kept: _Kept) -> Position | None:
    """Where a document's revisions stand; None where there are none, or that is damaged."""
    if kept.revised is None:
        return None
    position = kept.revised.position
    return position if kept.checksums["revised", 0] == position.checksum(document) else None


def _damages_of_revisions(document: DocumentId, kept: _Kept) -> Iterator[StoreCorrupt]:
    revised, expected = kept.revised, kept.checksums
    if revised is None:
        return
    position = revised.position
    if _trusted_position(document, kept) is None:
        yield _damage("position of the revisions", document, position.through)
    if expected["floor", 0] != checksum("floor", document, position.floor, revised.floor):
        yield _damage("floor", document, position.floor)
    for number, revision in enumerate(revised.revisions, position.floor + 1):
        if expected["revision", number] != checksum("revision", document, number, revision):
            yield _damage("revision", document, number)
    text = revised.text
    if text is not None and expected["text", 0] != checksum("text", document, position.last, text):
        yield _damage("text", document, position.last)


def _stored_leaf(document: DocumentId, kept: _Kept) -> StoredLeaf:
    for problem in _damages_of_leaf(document, kept):
        raise problem
    write = kept.leaf
    assert write is not None  # noqa: S101 - asked for where there is one
    return StoredLeaf(document, kept.digested, write.leaf or b"")


def _leaf_checksum(write: SetLeaf) -> int:
    return checksum("leaf", write.document, write.through, write.leaf or b"")


def _damages_aside(document: DocumentId, kept: _Kept) -> Iterator[StoreCorrupt]:
    for number, entry in kept.quarantine.items():
        found = checksum("quarantine", document, number, entry.update)
        if kept.checksums["quarantine", number] != found:
            yield _damage("quarantine", document, number)


def _damage(kind: str, document: DocumentId, number: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"the {kind} of {document!r} is damaged at {number}", document=document, sequence=number
    )
