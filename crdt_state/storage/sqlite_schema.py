"""The format of a store's SQLite file, and how a file of an earlier format becomes this one.

    header          PRAGMA application_id = 0x43524454 ("CRDT"); PRAGMA user_version = the
                    number of the format, which is the number of migrations carried out

    store           what the engine knows of itself, one row a name
        name            TEXT     replica_id | incarnation | marks | sequence | number
        value           BLOB     16 bytes | 16 bytes | see sidecar.py | 8 bytes, big endian,
                                 the greatest sequence ever given | the same for numbers
        checksum        INTEGER

    documents       one row a document; everything behind `last` is counted from the rows below
        id              INTEGER  stands for the document in the other tables
        name            TEXT     its document id
        born            INTEGER  the store's sequence when this row was made: a fold through it
                                 or less is of an earlier life of the document
        last            INTEGER  its greatest sequence ever, 0 before its first update
        log_updates, log_bytes, checkpoint_bytes, pending_updates, quarantined_updates,
        quarantined_bytes, pending_bytes, revisions_bytes
        creator         TEXT     the identity that brought its first write; NULL where nobody had
                                 proved who they were, and for what is older than format 2
        digested        INTEGER  the sequence that `leaf` is of all through; below `last`, the
                                 document is undigested
        place           INTEGER  scope x 262,144 + bucket; NULL without a leaf, as are the rest
        leaf            BLOB
        leaf_checksum   INTEGER
        life            BLOB     Life.encode of lineage.py; NULL for the life that it was born with
        life_checksum   INTEGER  over it and deleted_at
        deleted_at      INTEGER  when the life was ended, as far as known here; NULL while it lives

    log             one row an update, in the order of commits
        sequence        INTEGER  the key: appending always writes at the end of the table
        document        INTEGER
        checksum        INTEGER
        content         BLOB
        previous        INTEGER  the document's sequence before this one: see sqlite_log.py.  What
                                 it names is gone where that has been folded

    checkpoints     at most one a document: document, through, state, head, checksum
    pending         document, number, content, source, at, checksum
    quarantine      number, document, content, code, reason, source, at, checksum
    document_values document, key, content, checksum

    revised         at most one a document: where the revisions of its text stand
        document    INTEGER
        floor, last INTEGER  numbers: of the floor, and of the last revision (the floor's where
                             nothing is above it); a row of `revisions` for each between them
        through     INTEGER  the document's last sequence when this was written
        incarnation BLOB     the store's when the floor was written
        checksum    INTEGER
    revision_floors document, content, checksum (its number: `floor` above)
    revisions       document, number, content, checksum
    kept_texts      document, content, checksum (its number: `last` above)

    replica_values  key, content, checksum
    remotes         id, name: every remote ever named; they outlive their outbox, because a
                    new incarnation owes every document to each of them
    outbox          remote, document, through, since: through which sequence the remote held all
                    of the document before it was owed, -1 where nobody kept that

    scopes          id, name: every scope that has had a leaf
    trie_nodes      place (scope x 8,192 + number), checksum, content: 64 hashes of 16 bytes
    stale_buckets   number, place (as that of documents): what has lost a leaf since its nodes
                    were made

Formats: 1 was without `creator` and `pending_bytes` of documents, and the index on the former;
1 and 2 had no `previous`, and an index of the log by document in its place; up to 3 there were no
digests and tries, and up to 4 no lives (`life`, `life_checksum` and `deleted_at` of documents, the
index on the last, and `since` of outbox); up to 5 the deep digest stood beside a leaf of the plain
one; up to 6 there were no revisions (their four tables, and `revisions_bytes` of documents).

Checksums are those of checksums.py, over the document's *name*, the sequence, number or key,
and the bytes.  Integers are SQLite's (64 bits, signed); texts are UTF-8 in document order
(BINARY).  Rows hold what callers gave, byte for byte.

What is durable when: the file is in WAL mode with synchronous = FULL, so that what a
transaction wrote is on the disk when its COMMIT has returned.  Beside `<file>` there are
`<file>-wal` and `<file>-shm` (SQLite's; a copy of the store needs the -wal as well) and
`<file>-lock` (ours, sidecar.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.errors import StoreCorrupt, StoreTooNew
from crdt_state.storage.sqlite_connection import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.storage.sqlite_connection import Connection

__all__ = ["APPLICATION_ID", "MIGRATIONS", "SQLITE_VERSION_MIN", "check_format", "migrate"]

APPLICATION_ID = 0x43524454

SQLITE_VERSION_MIN = (3, 37, 0)
"""STRICT tables are the youngest feature in use."""

OVERGROWN_UPDATES = 64
OVERGROWN_BYTES = 16_384
OVERGROWN = f"(log_updates > {OVERGROWN_UPDATES} OR log_bytes > {OVERGROWN_BYTES})"
"""Documents in the index of long logs.  A query must repeat it word for word to use the index."""

VERSION_1 = (
    """CREATE TABLE store (
        name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE documents (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        born INTEGER NOT NULL,
        last INTEGER NOT NULL DEFAULT 0,
        log_updates INTEGER NOT NULL DEFAULT 0,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        checkpoint_bytes INTEGER NOT NULL DEFAULT 0,
        pending_updates INTEGER NOT NULL DEFAULT 0,
        quarantined_updates INTEGER NOT NULL DEFAULT 0,
        quarantined_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    # Only documents with long logs are in it, and its key never changes: an append to a short
    # log does not touch it, and what is in it is what compaction is about to fold.
    f"CREATE INDEX documents_overgrown ON documents (id) WHERE {OVERGROWN}",
    """CREATE TABLE log (
        sequence INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX log_by_document ON log (document)",
    """CREATE TABLE checkpoints (
        document INTEGER PRIMARY KEY,
        through INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        head BLOB NOT NULL,
        state BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE pending (
        document INTEGER NOT NULL,
        number INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        at INTEGER NOT NULL,
        source TEXT NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (document, number)
    ) STRICT""",
    """CREATE TABLE quarantine (
        number INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        at INTEGER NOT NULL,
        code INTEGER NOT NULL,
        reason TEXT NOT NULL,
        source TEXT NOT NULL,
        content BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX quarantine_by_document ON quarantine (document)",
    """CREATE TABLE document_values (
        document INTEGER NOT NULL,
        key TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (document, key)
    ) STRICT""",
    """CREATE TABLE replica_values (
        key TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT""",
    "CREATE TABLE remotes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE outbox (
        remote INTEGER NOT NULL,
        document INTEGER NOT NULL,
        through INTEGER NOT NULL,
        PRIMARY KEY (remote, document)
    ) STRICT, WITHOUT ROWID""",
)


VERSION_2 = (
    "ALTER TABLE documents ADD COLUMN pending_bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE documents ADD COLUMN creator TEXT",
    """UPDATE documents SET pending_bytes =
        (SELECT sum(length(content)) FROM pending WHERE document = documents.id)
        WHERE pending_updates > 0""",
    # Of the creator alone: with the counts in it, every append would have to write it, too.
    "CREATE INDEX documents_by_creator ON documents (creator) WHERE creator IS NOT NULL",
)

VERSION_3 = (
    "ALTER TABLE log ADD COLUMN previous INTEGER NOT NULL DEFAULT 0",
    """UPDATE log SET previous = link.previous FROM (
        SELECT sequence, lag(sequence, 1, 0) OVER (PARTITION BY document ORDER BY sequence)
        AS previous FROM log) AS link WHERE link.sequence = log.sequence""",
    "DROP INDEX log_by_document",
)

VERSION_4 = (
    "ALTER TABLE documents ADD COLUMN digested INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE documents ADD COLUMN place INTEGER",
    "ALTER TABLE documents ADD COLUMN leaf BLOB",
    "ALTER TABLE documents ADD COLUMN deep_digest BLOB",
    "ALTER TABLE documents ADD COLUMN leaf_checksum INTEGER",
    # Its key never changes: an append to a document that is in it does not touch it, and the
    # commit that adds to a log needs no further statement to put the document here.
    "CREATE INDEX documents_undigested ON documents (name) WHERE last > digested",
    "CREATE INDEX documents_by_place ON documents (place) WHERE place IS NOT NULL",
    # A document's last sequence is in the log, or the one that its checkpoint reaches through.
    "CREATE INDEX checkpoints_by_through ON checkpoints (through)",
    "CREATE TABLE scopes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE trie_nodes (
        place INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE stale_buckets (
        number INTEGER PRIMARY KEY AUTOINCREMENT, place INTEGER NOT NULL
    ) STRICT""",
)

VERSION_5 = (
    "ALTER TABLE documents ADD COLUMN life BLOB",
    "ALTER TABLE documents ADD COLUMN life_checksum INTEGER",
    "ALTER TABLE documents ADD COLUMN deleted_at INTEGER",
    "CREATE INDEX documents_deleted ON documents (deleted_at) WHERE deleted_at IS NOT NULL",
    # Few documents ever have another life than the first, and only they pay for it.
    "CREATE INDEX documents_begun ON documents (last) WHERE life IS NOT NULL",
    # What was owed before this was kept may be all of it, or the last word of it alone.
    "ALTER TABLE outbox ADD COLUMN since INTEGER NOT NULL DEFAULT -1",
)


VERSION_6 = (
    # A leaf is of the deep digest now: everything is digested anew.
    "ALTER TABLE documents DROP COLUMN deep_digest",
    "UPDATE documents SET digested = 0, place = NULL, leaf = NULL, leaf_checksum = NULL",
    "DELETE FROM trie_nodes",
    "DELETE FROM stale_buckets",
)

VERSION_7 = (
    "ALTER TABLE documents ADD COLUMN revisions_bytes INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE revised (
        document INTEGER PRIMARY KEY,
        floor INTEGER NOT NULL,
        last INTEGER NOT NULL,
        through INTEGER NOT NULL,
        incarnation BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE revision_floors (
        document INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT""",
    # A document's revisions lie together: most are small, and they are read and leave by ranges.
    """CREATE TABLE revisions (
        document INTEGER NOT NULL,
        number INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (document, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE kept_texts (
        document INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT""",
)


def _create(connection: Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in VERSION_1:
        connection.execute(statement)


def _add_creators(connection: Connection) -> None:
    for statement in VERSION_2:
        connection.execute(statement)


def _link_log(connection: Connection) -> None:
    for statement in VERSION_3:
        connection.execute(statement)


def _add_tries(connection: Connection) -> None:
    for statement in VERSION_4:
        connection.execute(statement)


def _add_lives(connection: Connection) -> None:
    for statement in VERSION_5:
        connection.execute(statement)


def _deepen_leaves(connection: Connection) -> None:
    for statement in VERSION_6:
        connection.execute(statement)


def _add_revisions(connection: Connection) -> None:
    for statement in VERSION_7:
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create,
    _add_creators,
    _link_log,
    _add_tries,
    _add_lives,
    _deepen_leaves,
    _add_revisions,
)
"""The migration at index n makes version n + 1 of version n; 0 is an empty file."""


def check_format(
    connection: Connection, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS
) -> int:
    """The version of the file's format, 0 for an empty file.

    Raises `StoreTooNew`, and `StoreCorrupt` for a database that is not a store.
    """
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == 0 and version == 0:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables == 0:
            return 0
    if application != APPLICATION_ID:
        raise StoreCorrupt(
            "the file is a SQLite database, but not a store of crdt-state; name another file"
        )
    if version > len(migrations):
        raise StoreTooNew(
            f"the file has format {version}, and this version of crdt-state knows formats up to "
            f"{len(migrations)}; install a later version"
        )
    return version


def migrate(
    connection: Connection, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS
) -> int:
    """Bring the file to the last format in one transaction; return the version it had."""
    before = check_format(connection, migrations)
    if before < len(migrations):
        with transaction(connection, is_writing=True):
            for step in migrations[before:]:
                step(connection)
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
    return before
