"""Reading everything there is, to find what does not hold.

The pages (`PRAGMA integrity_check`), every value against its checksum, every count of the table
`documents` against the rows it counts, and rows that belong to nothing.  Damage is a finding,
never an exception, so that one damaged document does not hide the next.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from crdt_state.errors import StoreError
from crdt_state.storage.contract import Finding
from crdt_state.storage.sqlite_connection import meaning_of, transaction
from crdt_state.storage.sqlite_identity import read_fact
from crdt_state.storage.sqlite_reading import (
    read_checkpoint,
    read_life,
    read_log,
    read_pending,
    read_quarantine,
    read_value,
    read_values,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.sqlite_connection import Connection

__all__ = ["find_in_documents", "find_in_pages", "find_in_store", "find_lost_rows"]

FINDINGS_MAX = 100
OF_A_DOCUMENT = ("log", "checkpoints", "pending", "quarantine", "document_values", "outbox")


def find_in_pages(connection: Connection) -> list[Finding]:
    """What SQLite itself finds wrong with the file and its indexes."""

    def check() -> Iterator[Finding]:
        rows = connection.execute(f"PRAGMA integrity_check({FINDINGS_MAX})").fetchall()
        yield from (Finding(None, f"SQLite: {text}") for (text,) in rows if text != "ok")

    return _found(None, check)


def find_in_store(connection: Connection) -> list[Finding]:
    """What the store knows of itself, and the replica's values."""
    found: list[Finding] = []
    for name in ("replica_id", "incarnation", "marks", "sequence", "number"):
        found += _found(None, partial(_read_only, read_fact, connection, name))

    def values() -> Iterator[Finding]:
        for (key,) in connection.execute("SELECT key FROM replica_values").fetchall():
            yield from _found(None, partial(_read_only, read_value, connection, key))

    return found + _found(None, values)


def find_lost_rows(connection: Connection) -> list[Finding]:
    """Rows without a document, and sequences that were never given."""

    def lost() -> Iterator[Finding]:
        for table in OF_A_DOCUMENT:
            count = connection.execute(
                f"SELECT count(*) FROM {table} "  # noqa: S608
                "WHERE document NOT IN (SELECT id FROM documents)"
            ).fetchone()[0]
            if count:
                yield Finding(None, f"{count:,} rows of {table} belong to no document")
        count = connection.execute(
            "SELECT count(*) FROM outbox WHERE remote NOT IN (SELECT id FROM remotes)"
        ).fetchone()[0]
        if count:
            yield Finding(None, f"{count:,} rows of outbox belong to no remote")
        for name, column, table in (
            ("sequence", "sequence", "log"),
            ("sequence", "last", "documents"),
            ("sequence", "born", "documents"),
            ("number", "number", "quarantine"),
        ):
            given = int.from_bytes(read_fact(connection, name) or b"")
            greatest = connection.execute(
                f"SELECT coalesce(max({column}), 0) FROM {table}"  # noqa: S608
            ).fetchone()[0]
            if greatest > given:
                yield Finding(
                    None, f"{table} reaches {greatest}, but the last {name} given is {given}"
                )

    return _found(None, lost)


def find_in_documents(
    connection: Connection, after: int, limit: int
) -> tuple[list[Finding], int | None]:
    """What is wrong with the next `limit` documents behind row id `after`.

    Also the row id to go on from, or None at the end.  One read transaction a document, so that
    a long check does not hold the write-ahead log back.
    """
    found: list[Finding] = []
    try:
        rows = connection.execute(
            "SELECT id, name FROM documents WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
    except Exception as error:
        problem = meaning_of(error, "documents")
        if problem is None:
            raise
        return [Finding(None, str(problem))], None
    for row_id, name in rows:
        found += _found(name, partial(_in_document, connection, row_id, name))
    return found, rows[-1][0] if rows else None


def _in_document(connection: Connection, row_id: int, name: DocumentId) -> Iterator[Finding]:
    with transaction(connection, is_writing=False):
        kept = connection.execute(
            "SELECT last, log_updates, log_bytes, checkpoint_bytes, pending_updates, "
            "quarantined_updates, quarantined_bytes, pending_bytes, born, life IS NOT NULL, "
            "deleted_at IS NOT NULL FROM documents "
            "WHERE id = ? AND name = ?",
            (row_id, name),
        ).fetchone()
        if kept is None:  # forgotten since its row id was read
            return
        yield from _found(name, partial(_read_only, read_life, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_log, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_checkpoint, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_pending, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_values, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_quarantine, connection, name, 0, -1))
        log = connection.execute(
            "SELECT count(*), coalesce(sum(length(content)), 0), coalesce(min(sequence), 0), "
            "coalesce(max(sequence), 0) FROM log WHERE document = ?",
            (row_id,),
        ).fetchone()
        point = connection.execute(
            "SELECT coalesce(max(through), 0), coalesce(sum(length(state) + length(head)), 0) "
            "FROM checkpoints WHERE document = ?",
            (row_id,),
        ).fetchone()
        pending = connection.execute(
            "SELECT count(*), coalesce(sum(length(content)), 0) FROM pending WHERE document = ?",
            (row_id,),
        ).fetchone()
        aside = connection.execute(
            "SELECT count(*), coalesce(sum(length(content)), 0) FROM quarantine WHERE document = ?",
            (row_id,),
        ).fetchone()
        owed = connection.execute(
            "SELECT coalesce(max(through), 0) FROM outbox WHERE document = ? "
            "AND remote IN (SELECT id FROM remotes)",
            (row_id,),
        ).fetchone()
    last, updates, size, point_bytes, held, set_aside, aside_bytes, held_bytes, *lived = kept
    born, has_lived, is_deleted = lived
    for what, says, counted in (
        ("log_updates", updates, log[0]),
        ("log_bytes", size, log[1]),
        ("checkpoint_bytes", point_bytes, point[1]),
        ("pending_updates", held, pending[0]),
        ("quarantined_updates", set_aside, aside[0]),
        ("quarantined_bytes", aside_bytes, aside[1]),
        ("pending_bytes", held_bytes, pending[1]),
    ):
        if says != counted:
            yield Finding(name, f"{what} is {says:,}, but the rows count {counted:,}")
    # The last update is in the log or under the checkpoint, or none was written in this life: a
    # gap means that rows went missing.
    reached = max(log[3], point[0], born if has_lived else 0)
    if reached != last:
        yield Finding(name, f"its last sequence is {last}, but its rows reach {reached}")
    if is_deleted and (log[0] or point[1] or pending[0]):
        yield Finding(name, "it is deleted, but has content")
    if log[0] and log[2] <= max(born, point[0]):
        yield Finding(name, f"its log begins at {log[2]}, which is folded or of an earlier life")
    if owed[0] > last:
        yield Finding(name, f"its outbox reaches {owed[0]}, beyond its last sequence {last}")


def _found(document: DocumentId | None, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of one check, the error that ended it among them."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)  # noqa: PERF402 - kept when the next one raises
    except Exception as error:
        problem = error if isinstance(error, StoreError) else meaning_of(error, "reading")
        if problem is None:
            raise
        found.append(Finding(document, str(problem)))
    return found


def _read_only(read: Callable[..., object], *arguments: object) -> Iterator[Finding]:
    """No finding: reading either holds or raises."""
    read(*arguments)
    return iter(())
