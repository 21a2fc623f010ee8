"""What every storage engine promises, as values and one port.

A store holds bytes and does not look inside them.  Per document it keeps a *log* of updates in
the order of their sequences, at most one *checkpoint* (one update that stands for the log up to
a sequence), *pending* updates that wait for others, a *quarantine*, and the *revisions* of its text
above a *floor*.  For the replica it keeps metadata and, per remote, an *outbox*: which documents
hold local edits that the remote is not known to hold.

A document lives one *life* after another (crdt_state/lineage.py).  The end of one and the beginning
of the next are one write, which takes a sequence of its own, so that a deletion is something that
comes after a sequence as an update does.  What is left of a deleted document is its *tombstone*.

A document exists from the first write that leaves something in it (an update, a pending or
quarantined one, a value) until `Forget`; a write that only takes away never creates one.
That first write names its *creator*, an identity or None, who stays the same until `Forget`: a
`creator` in a later write is passed over.

1. `write` is all or nothing, and what it wrote is on the disk when it returns.
2. Sequences are given inside the commit, grow by one over the whole store, and are never given
   twice, not even after a fold, a forget or a restart.  The same holds for the numbers of
   quarantined entries.
3. Writes are carried out in the order of their calls.  A cancelled call is carried out whole or
   not at all.
4. A fold replaces exactly the log up to its sequence; pending updates are untouched.  A fold
   that would lose or resurrect something is refused (`FoldOutdated`).
5. What was stored damaged is noticed when it is read (`StoreCorrupt`), never passed on, and
   other documents stay readable.
6. After `StoreFull` or `StoreUnavailable` from `write`, reading still works, and so does writing
   once its cause has gone.
7. An invalid call (`WriteInvalid`) changes nothing and harms no call beside it.
8. A store that was copied or restored begins a new incarnation before anything else is written:
   every document with a log or checkpoint is then unsent to every remote ever named, and
   metadata of the replica below `WATERMARKS` is gone.
9. The commit that adds to a log also makes its document undigested, until a `SetLeaf` through its
   last sequence.  A leaf or node that no longer stands for what is stored is known as such.
10. A document's life only ever becomes greater (`LifeOutdated`), and nothing of one life is read in
    the next but what was set aside.
11. The revisions of a document's text are numbered without a gap from their floor on, and stand for
    its log through a sequence that only `Revise` moves.  No fold goes beyond that (`FoldOutdated`)
    unless the text at the last of them is kept, which the next `Revise` drops.  They end with the
    life of the document, and outlive an incarnation; reading tells whether their floor is of it.

Per scope a store also keeps a trie: each document's *leaf* in one of its *buckets*, and *nodes*
above them.  What they are hashes of is the writer's business (crdt_state/merkle).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, Protocol, TypeAlias

from crdt_state.lineage import BORN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from collections.abc import Sequence as Many

    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId, Scope
    from crdt_state.lineage import Life

__all__ = [
    "NOTHING",
    "PEERS",
    "UNKNOWN",
    "WATERMARKS",
    "Append",
    "Buckets",
    "Checkpoint",
    "ClearOutbox",
    "DropAside",
    "Entry",
    "Finding",
    "Fold",
    "Forget",
    "ForgetDigests",
    "Head",
    "Heads",
    "Hold",
    "KeepText",
    "OutboxEntry",
    "PendingEntry",
    "QuarantineEntry",
    "Release",
    "Revise",
    "Sequence",
    "SetAside",
    "SetLeaf",
    "SetLife",
    "SetMetadata",
    "SetNodes",
    "StaleBuckets",
    "Store",
    "StoredDocument",
    "StoredLeaf",
    "StoredRevisions",
    "Summary",
    "Usage",
    "Write",
]

Sequence = NewType("Sequence", int)
"""A position in the store's one order of commits; 0 is before everything."""

NOTHING = Sequence(0)

WATERMARKS = "watermark/"
"""Metadata keys of the replica that begin so belong to one incarnation and end with it."""

PEERS = "peer/"
"""Remotes whose names begin so are owed lives alone: who dials us asks for updates by itself."""

UNKNOWN = -1
"""In the place of a sequence, of what was owed before there were such sequences."""


# --- what is written -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Append:
    """Add `updates` to the log of `document`, which begins to exist with its first one.

    `unsent_to` names the remotes that are not known to hold them: each gets an outbox entry
    at the sequence of the last of these updates (without updates: at the document's last, if it
    has any).  `released` are the numbers of pending entries that these updates came from; they
    leave the pending table in the same commit, and a number that is not there is passed over.

    Beside an outbox entry stands through which sequence its remote held all of the document when
    it was made: what came before these updates; without updates nothing, or with `is_again`, for a
    remote that has lost what it held, all of it.  0 where that is nothing.
    """

    document: DocumentId
    updates: tuple[bytes, ...]
    unsent_to: tuple[str, ...] = ()
    released: tuple[int, ...] = ()
    creator: str | None = None
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep `update` as pending: it is durable, and not part of the document yet.

    `number` is the writer's, so that it can name the entry before the commit has returned:
    greater than that of every pending entry the document has.  A number that is taken is
    refused with `WriteInvalid`.
    """

    document: DocumentId
    number: int
    update: bytes
    source: str
    at: WallTime
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Forget pending entries by their numbers (they expired, or were refused)."""

    document: DocumentId
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetAside:
    """Put `update` into quarantine with the reason a person needs to decide about it.

    Beyond `limits.quarantine_entries_max` or `quarantine_bytes_max` of one document its oldest
    entries leave; the newest always stays.
    """

    document: DocumentId
    update: bytes
    code: int
    reason: str
    source: str
    at: WallTime
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class DropAside:
    """Take entries out of a document's quarantine, by their numbers; a person has decided."""

    document: DocumentId
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """Replace the log of `document` up to and including `through` by one update.

    `head` is whatever the replica wants back beside it (what it derived from `state`).
    Refused with `FoldOutdated` where `through` is behind the checkpoint, beyond the log, from
    before the document was forgotten and began anew, or beyond what its revisions stand for while
    no text is kept.
    """

    document: DocumentId
    state: bytes
    head: bytes
    through: Sequence


@dataclass(frozen=True, slots=True)
class ClearOutbox:
    """The remote holds everything of `document` up to `through`.

    An entry beyond `through` stays, for what came after it.
    """

    remote: str
    document: DocumentId
    through: Sequence


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """Set one value of the replica, or of `document` when it is named; None removes it."""

    key: str
    value: bytes | None
    document: DocumentId | None = None
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class SetLife:
    """End the life of `document`, which then has `life`, and nothing but its quarantine.

    This takes a sequence, which is the document's last until something is appended, and each of
    `unsent_to` is owed it, nobody else.  `at` is kept of a deletion.  `creator` is whose it is from
    now on.  Refused with `LifeOutdated` unless `life` is greater than the one that is stored.
    """

    document: DocumentId
    life: Life
    at: WallTime
    unsent_to: tuple[str, ...] = ()
    creator: str | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove every trace of `document`, tombstone included; its sequences are not given again."""

    document: DocumentId


@dataclass(frozen=True, slots=True)
class SetLeaf:
    """Let `leaf` stand in `bucket` for all of `document` through `through`.

    None takes it out of the trie: its content has no digest.  Where the document has been
    forgotten since, or began anew, nothing is set and the bucket becomes stale.
    """

    document: DocumentId
    through: Sequence
    bucket: int
    leaf: bytes | None


@dataclass(frozen=True, slots=True)
class SetNodes:
    """Store nodes of a scope's trie by number (zeros are forgotten instead).

    Buckets that became stale up to the mark `fresh_through` no longer are.
    """

    scope: Scope
    nodes: Mapping[int, bytes]
    fresh_through: int = 0


@dataclass(frozen=True, slots=True)
class ForgetDigests:
    """Take away every leaf and node: all documents are undigested."""


@dataclass(frozen=True, slots=True)
class Revise:
    """Add to the revisions of `document`'s text; they then stand for its log as of this write.

    `revisions` are numbered from `first` on.  Where `floor` is given, what is numbered
    `floor_number` or less leaves and `floor` stands in its place.  A text that was kept is dropped.

    `first` is one more than the last number that is stored, which is that of the floor where
    nothing is above it; where `floor_number` is beyond the last, all leave and `first` follows it.
    What does not follow is refused with `WriteInvalid`, and so are a floor behind the one that is
    stored, the first of these writes without a floor, and one about a document that does not exist.
    Beside a damaged position, each is a first one.
    """

    document: DocumentId
    first: int
    revisions: tuple[bytes, ...] = ()
    floor_number: int = 0
    floor: bytes | None = None


@dataclass(frozen=True, slots=True)
class KeepText:
    """Keep beside the last revision, which is `number`, what the text was there.

    Its log may then be folded past it.  Refused with `WriteInvalid` where another revision is the
    last, or there is none.
    """

    document: DocumentId
    number: int
    text: bytes


Write: TypeAlias = (
    Append
    | Hold
    | Release
    | SetAside
    | DropAside
    | Fold
    | ClearOutbox
    | SetMetadata
    | SetLife
    | Forget
    | SetLeaf
    | SetNodes
    | ForgetDigests
    | Revise
    | KeepText
)


# --- what is read ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One update of a log."""

    sequence: Sequence
    update: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One update that stands for the log through `through`."""

    state: bytes
    head: bytes
    through: Sequence


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An update that waits for what it depends on."""

    number: int
    update: bytes
    source: str
    at: WallTime


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An update that was not let in."""

    number: int
    document: DocumentId
    update: bytes
    code: int
    reason: str
    source: str
    at: WallTime


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """`document` holds local edits through `through` that `remote` is not known to hold."""

    remote: str
    document: DocumentId
    through: Sequence


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """All of a document, read in one transaction.  `last` is its greatest sequence ever.

    `held` has every remote that is owed it, but for peers, with the sequence through which that one
    held all of it before (`UNKNOWN` where nobody kept that).
    """

    document: DocumentId
    last: Sequence
    checkpoint: Checkpoint | None
    log: tuple[Entry, ...]
    pending: tuple[PendingEntry, ...] = ()
    metadata: dict[str, bytes] = field(default_factory=dict)
    creator: str | None = None
    life: Life = BORN
    held: dict[str, int] = field(default_factory=dict)

    def updates(self) -> list[bytes]:
        """The checkpoint, if any, and the log: together the durable document."""
        base = [] if self.checkpoint is None else [self.checkpoint.state]
        return base + [entry.update for entry in self.log]


@dataclass(frozen=True, slots=True)
class Summary:
    """A line of the list of documents; sizes in bytes."""

    document: DocumentId
    last: Sequence
    log_updates: int
    log_bytes: int
    checkpoint_bytes: int
    pending_updates: int
    quarantined_updates: int
    creator: str | None = None
    is_deleted: bool = False

    def in_numbers(self) -> dict[str, str | int]:
        """Sizes as plain values, for JSON; the names are an interface.

        Without the creator: who may read a document need not learn whose it is.
        """
        return {
            "document": self.document,
            "last_sequence": self.last,
            "log_updates": self.log_updates,
            "log_bytes": self.log_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
            "pending_updates": self.pending_updates,
            "quarantined_updates": self.quarantined_updates,
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """What the documents of one creator take up.

    Bytes are those of logs, checkpoints, pending and quarantined updates, and of revisions with
    their floors and texts.
    """

    documents: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """The greatest sequence that a document ever had, and what was added behind another one.

    `updates` is None where the log no longer has all of that, or has more than was asked for.
    """

    document: DocumentId
    last: Sequence
    updates: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Heads:
    """Documents in the order of their last sequences: all there are up to `through`.

    If `is_all`, there is nothing behind that.
    """

    heads: tuple[Head, ...]
    through: Sequence
    is_all: bool


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """What was digested of a document, and through where."""

    document: DocumentId
    through: Sequence
    leaf: bytes


@dataclass(frozen=True, slots=True)
class StaleBuckets:
    """Buckets that have changed below their nodes, and the mark through which these are all."""

    buckets: tuple[int, ...]
    through: int


@dataclass(frozen=True, slots=True)
class StoredRevisions:
    """The revisions of a document's text; a floor stands for those that have left."""

    floor_number: int
    floor: bytes
    revisions: tuple[bytes, ...]
    """Those above the floor, by number."""
    through: Sequence
    """The log through here is in them."""
    text: bytes | None
    """As kept by `KeepText`."""
    is_of_this_incarnation: bool
    """Whether the floor was written since the last change of incarnation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something `verify` found wrong; `document` where it is known."""

    document: DocumentId | None
    what: str


Buckets: TypeAlias = "dict[int, list[tuple[DocumentId, bytes]]]"
"""Ids and leaves by number of the bucket, in any order."""


class Store(Protocol):
    """The port.  Every method may raise `StoreError`, and `DocumentClosed` after `close`."""

    @property
    def replica_id(self) -> ReplicaId:
        """Who this replica is; the same for the life of the store."""

    @property
    def incarnation(self) -> Incarnation:
        """Which life of the replica this is."""

    @property
    def is_new_incarnation(self) -> bool:
        """Whether this opening found a copied or restored store and began a new incarnation.

        False for a store that has just been created.
        """

    async def write(self, writes: Many[Write]) -> Sequence:
        """Carry out all of `writes` or none; return the store's greatest sequence after it.

        Raises `WriteInvalid` (nothing of this call was written), `StoreFull`,
        `StoreUnavailable`.
        """

    async def read(self, document: DocumentId) -> StoredDocument | None:
        """A whole document, or None where there is none."""

    async def read_since(self, document: DocumentId, after: Sequence) -> tuple[Entry, ...]:
        """The log of `document` behind `after`, as far as it has not been folded."""

    async def metadata(self, key: str) -> bytes | None:
        """One value of the replica."""

    async def outbox(
        self, remote: str, *, after: str = "", limit: int | None = None
    ) -> tuple[OutboxEntry, ...]:
        """What `remote` is not known to hold, one entry a document, in the order of ids.

        Ids behind `after`, at most `limit`; all of them by default, which can be many.
        """

    async def quarantine(
        self, document: DocumentId | None = None, *, after: int = 0, limit: int = 1_000
    ) -> tuple[QuarantineEntry, ...]:
        """What was set aside, of one document or of all, oldest first.

        Numbers behind `after`, at most `limit`.
        """

    async def summary(self, document: DocumentId) -> Summary | None:
        """One line about a document that is not deleted."""

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000, with_deleted: bool = False
    ) -> tuple[Summary, ...]:
        """Lines about documents with this prefix behind `after`, in the order of ids."""

    async def passed_tombstones(self, *, before: WallTime, limit: int) -> tuple[DocumentId, ...]:
        """Documents deleted before then, owed to nobody, with nothing set aside; oldest first."""

    async def overgrown(self, *, updates: int, size: int, limit: int) -> tuple[DocumentId, ...]:
        """Documents whose log passes `updates` entries or `size` bytes, most bytes first."""

    async def usage(self, identity: str) -> Usage:
        """What the documents that `identity` created take up; nothing where there are none."""

    async def heads(self, scope: Scope, after: Sequence, *, limit: int, size: int) -> Heads:
        """At most `limit` documents of a scope with something behind `after`, and what it is.

        No fold hides any.  Of one document at most `size` bytes of updates, of all together at
        most four times as many, are given.  One that is written to meanwhile comes again.
        """

    async def scopes(self, *, after: Scope | None = None, limit: int = 1_000) -> tuple[Scope, ...]:
        """Scopes that have had a leaf, in their order."""

    async def undigested(
        self, scope: Scope | None = None, *, after: str = "", limit: int = 1_000
    ) -> tuple[DocumentId, ...]:
        """Documents of a scope, or of all, whose leaf is not of all they hold, by id."""

    async def stale(self, scope: Scope) -> StaleBuckets:
        """Buckets of a scope that have lost a leaf since their nodes were set."""

    async def nodes(self, scope: Scope, numbers: Many[int]) -> dict[int, bytes]:
        """Nodes of a scope's trie by number; those that are not stored are left out."""

    async def buckets(self, scope: Scope, numbers: Many[int]) -> Buckets:
        """Ids and leaves by number of the bucket; empty ones are left out."""

    async def leaves(
        self, *, prefix: str = "", after: str = "", limit: int = 1_000
    ) -> tuple[StoredLeaf, ...]:
        """Leaves of documents with this prefix behind `after`, in the order of ids."""

    async def revisions(self, document: DocumentId) -> StoredRevisions | None:
        """The revisions of a document's text, or None where it has never been revised."""

    def verify(self) -> AsyncIterator[Finding]:
        """Read everything and yield what does not hold."""

    async def close(self) -> None:
        """Carry out what was asked before, then let go of the file."""
