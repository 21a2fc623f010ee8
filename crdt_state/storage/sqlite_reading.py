"""Reading what is stored: every function one read transaction, every value against its checksum.

A damaged value raises `StoreCorrupt` with its document and sequence; nothing damaged is returned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crdt_state.errors import StoreCorrupt
from crdt_state.identifiers import DocumentId
from crdt_state.lib0 import CodingError
from crdt_state.lineage import BORN, Life
from crdt_state.storage.checksums import checksum, log_checksum, log_salt
from crdt_state.storage.contract import (
    PEERS,
    Checkpoint,
    Entry,
    OutboxEntry,
    PendingEntry,
    QuarantineEntry,
    Sequence,
    StoredDocument,
    Summary,
    Usage,
)
from crdt_state.storage.sqlite_connection import transaction
from crdt_state.storage.sqlite_log import find_log, follow_log
from crdt_state.storage.sqlite_schema import OVERGROWN, OVERGROWN_BYTES, OVERGROWN_UPDATES

if TYPE_CHECKING:
    from crdt_state.clocks import WallTime
    from crdt_state.storage.sqlite_connection import Connection
    from crdt_state.storage.sqlite_log import Log

__all__ = [
    "end_of",
    "life_of",
    "list_overgrown",
    "list_passed_tombstones",
    "list_summaries",
    "read_checkpoint",
    "read_document",
    "read_life",
    "read_log",
    "read_outbox",
    "read_pending",
    "read_quarantine",
    "read_since",
    "read_summary",
    "read_usage",
    "read_value",
    "read_values",
]

SUMMARY = """SELECT name, last, log_updates, log_bytes, checkpoint_bytes, pending_updates,
    quarantined_updates, creator, deleted_at IS NOT NULL FROM documents"""


def read_document(connection: Connection, document: DocumentId) -> StoredDocument | None:
    """All of a document."""
    with transaction(connection, is_writing=False):
        log = find_log(connection, document)
        if log is None:
            return None
        row_id = log.document
        creator, updates, *life = connection.execute(
            "SELECT creator, log_updates, life, life_checksum, deleted_at FROM documents "
            "WHERE id = ?",
            (row_id,),
        ).fetchone()
        entries = read_log(connection, log)
        if len(entries) != updates:
            raise StoreCorrupt(
                f"the log of {document!r} has {len(entries):,} updates, not the {updates:,} that "
                f"were counted; other documents are not touched by it",
                document=document,
            )
        return StoredDocument(
            document,
            Sequence(log.last),
            read_checkpoint(connection, row_id, document),
            entries,
            read_pending(connection, row_id, document),
            read_values(connection, row_id, document),
            creator,
            life_of(document, *life),
            read_held(connection, row_id),
        )


def read_since(connection: Connection, document: DocumentId, after: Sequence) -> tuple[Entry, ...]:
    """The log of a document behind `after`."""
    with transaction(connection, is_writing=False):
        log = find_log(connection, document)
        return () if log is None else read_log(connection, log.behind(after))


def read_checkpoint(connection: Connection, row_id: int, document: DocumentId) -> Checkpoint | None:
    """The checkpoint of the document with this row id."""
    row = connection.execute(
        "SELECT through, checksum, head, state FROM checkpoints WHERE document = ?", (row_id,)
    ).fetchone()
    if row is None:
        return None
    through, expected, head, state = row
    if checksum("checkpoint", document, through, state, head) != expected:
        raise _damage("checkpoint", document, through)
    return Checkpoint(state, head, Sequence(through))


def read_life(connection: Connection, row_id: int, document: DocumentId) -> Life:
    """The life of the document with this row id."""
    row = connection.execute(
        "SELECT life, life_checksum, deleted_at FROM documents WHERE id = ?", (row_id,)
    ).fetchone()
    return life_of(document, *row)


def life_of(
    document: DocumentId, life: bytes | None, expected: int | None, deleted_at: int | None
) -> Life:
    """What the columns of a document say of its life."""
    if life is None and expected is None and deleted_at is None:
        return BORN
    try:
        found = Life.decode(life or b"")
    except CodingError:
        found = BORN
    if (
        found.is_deleted != (deleted_at is not None)
        or checksum("life", document, deleted_at or 0, life or b"") != expected
    ):
        raise _damage("life", document, 0)
    return found


def read_held(connection: Connection, row_id: int) -> dict[str, int]:
    """Who is owed the document with this row id, and through which sequence each held it all."""
    # Through the remotes, because the key of an outbox entry begins with one.
    rows = connection.execute(
        "SELECT name, since FROM remotes CROSS JOIN outbox ON remote = remotes.id "
        "AND document = ? WHERE substr(name, 1, ?) <> ? ORDER BY name",
        (row_id, len(PEERS), PEERS),
    )
    return dict(rows.fetchall())


def read_log(connection: Connection, log: Log) -> tuple[Entry, ...]:
    """The updates of a log, or of a part of it."""
    salt = log_salt(log.name)
    entries = []
    for sequence, expected, update in follow_log(connection, log):
        if log_checksum(salt, sequence, update) != expected:
            raise _damage("update", log.name, sequence)
        entries.append(Entry(Sequence(sequence), update))
    return tuple(entries)


def read_pending(
    connection: Connection, row_id: int, document: DocumentId
) -> tuple[PendingEntry, ...]:
    """The pending updates of the document with this row id, by number."""
    entries = []
    for number, expected, at, source, update in connection.execute(
        "SELECT number, checksum, at, source, content FROM pending WHERE document = ? "
        "ORDER BY number",
        (row_id,),
    ).fetchall():
        if checksum("pending", document, number, update) != expected:
            raise _damage("pending update", document, number)
        entries.append(PendingEntry(number, update, source, at))
    return tuple(entries)


def read_values(connection: Connection, row_id: int, document: DocumentId) -> dict[str, bytes]:
    """The metadata of the document with this row id."""
    values: dict[str, bytes] = {}
    for key, expected, value in connection.execute(
        "SELECT key, checksum, content FROM document_values WHERE document = ? ORDER BY key",
        (row_id,),
    ).fetchall():
        if checksum("document_value", document, 0, key.encode(), value) != expected:
            raise StoreCorrupt(f"the value {key!r} of {document!r} is damaged", document=document)
        values[key] = value
    return values


def read_value(connection: Connection, key: str) -> bytes | None:
    """One value of the replica."""
    row = connection.execute(
        "SELECT checksum, content FROM replica_values WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    value: bytes = row[1]
    if checksum("replica_value", key, 0, value) != row[0]:
        raise StoreCorrupt(f"the replica's value {key!r} is damaged")
    return value


def read_outbox(
    connection: Connection, remote: str, after: str = "", limit: int | None = None
) -> tuple[OutboxEntry, ...]:
    """What a remote is owed behind `after`."""
    rows = connection.execute(
        "SELECT documents.name, through FROM outbox "
        "JOIN remotes ON remotes.id = outbox.remote "
        "JOIN documents ON documents.id = outbox.document "
        "WHERE remotes.name = ? AND documents.name > ? ORDER BY documents.name LIMIT ?",
        (remote, after, -1 if limit is None else limit),
    ).fetchall()
    return tuple(OutboxEntry(remote, name, through) for name, through in rows)


def read_quarantine(
    connection: Connection, document: DocumentId | None, after: int, limit: int
) -> tuple[QuarantineEntry, ...]:
    """What was set aside behind `after`, oldest first."""
    entries = []
    where = "" if document is None else "AND documents.name = ?"
    for name, number, expected, at, code, reason, source, update in connection.execute(
        "SELECT documents.name, number, checksum, at, code, reason, source, content "  # noqa: S608
        "FROM quarantine JOIN documents ON documents.id = quarantine.document "
        f"WHERE number > ? {where} ORDER BY number LIMIT ?",
        (after, limit) if document is None else (after, document, limit),
    ).fetchall():
        if checksum("quarantine", name, number, update) != expected:
            raise _damage("quarantined update", name, number)
        entries.append(QuarantineEntry(number, name, update, code, reason, source, at))
    return tuple(entries)


def read_summary(connection: Connection, document: DocumentId) -> Summary | None:
    """One line about a document."""
    row = connection.execute(
        f"{SUMMARY} WHERE name = ? AND deleted_at IS NULL", (document,)
    ).fetchone()
    return None if row is None else _summary(row)


def read_usage(connection: Connection, identity: str) -> Usage:
    """What the documents of one creator take up, counted from their rows."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum("
        "log_bytes + checkpoint_bytes + pending_bytes + quarantined_bytes + revisions_bytes), 0) "
        "FROM documents WHERE creator = ?",
        (identity,),
    ).fetchone()
    return Usage(*row)


def _summary(row: tuple[Any, ...]) -> Summary:
    line, is_deleted = row[:-1], bool(row[-1])
    return replace(Summary(*line), is_deleted=is_deleted)


def list_summaries(
    connection: Connection, prefix: str, after: str, limit: int, *, with_deleted: bool
) -> tuple[Summary, ...]:
    """Lines about the documents with this prefix behind `after`."""
    # One lower bound: of two, SQLite may seek to the lesser and pass over all in between.
    where, parameters = ("name >= ?", [prefix]) if prefix > after else ("name > ?", [after])
    end = end_of(prefix)
    if end is not None:
        where += " AND name < ?"
        parameters.append(end)
    if not with_deleted:
        where += " AND deleted_at IS NULL"
    rows = connection.execute(
        f"{SUMMARY} WHERE {where} ORDER BY name LIMIT ?", (*parameters, limit)
    ).fetchall()
    return tuple(map(_summary, rows))


def list_passed_tombstones(
    connection: Connection, before: WallTime, limit: int
) -> tuple[DocumentId, ...]:
    """Documents deleted before then that nobody is owed and of which nothing is set aside."""
    rows = connection.execute(
        "SELECT name FROM documents WHERE deleted_at IS NOT NULL AND deleted_at < ? "
        "AND quarantined_updates = 0 AND NOT EXISTS (SELECT 1 FROM remotes CROSS JOIN outbox "
        "ON remote = remotes.id AND document = documents.id) ORDER BY deleted_at, born LIMIT ?",
        (before, limit),
    ).fetchall()
    return tuple(DocumentId(row[0]) for row in rows)


def list_overgrown(
    connection: Connection, updates: int, size: int, limit: int
) -> tuple[DocumentId, ...]:
    """Documents with long logs, most bytes first."""
    # Without the repeated condition SQLite cannot know that the partial index holds them all.
    is_indexed = updates >= OVERGROWN_UPDATES and size >= OVERGROWN_BYTES
    rows = connection.execute(
        "SELECT name FROM documents "  # noqa: S608
        f"WHERE (log_updates > ? OR log_bytes > ?) {f'AND {OVERGROWN}' if is_indexed else ''} "
        "ORDER BY log_bytes DESC, name LIMIT ?",
        (updates, size, limit),
    ).fetchall()
    return tuple(DocumentId(row[0]) for row in rows)


def end_of(prefix: str) -> str | None:
    """The least text behind all texts with this prefix, or None where there is none."""
    head = prefix.rstrip("\U0010ffff")
    if not head:
        return None
    following = ord(head[-1]) + 1
    # Surrogates are not characters, and the next one that is comes behind them.
    return head[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


def _damage(what: str, document: DocumentId, number: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"the {what} {number} of {document!r} does not match its checksum; other documents are "
        f"not touched by it",
        document=document,
        sequence=number,
    )
