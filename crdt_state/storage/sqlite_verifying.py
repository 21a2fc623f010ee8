"""Reading everything there is, to find what does not hold.

The pages (`PRAGMA integrity_check`), every value against its checksum, every count of the table
`documents` against the rows it counts, and rows that belong to nothing.  Damage is a finding,
never an exception, so that one damaged document does not hide the next.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from crdt_state.errors import StoreCorrupt, StoreError
from crdt_state.storage.contract import Finding
from crdt_state.storage.sqlite_connection import meaning_of, transaction
from crdt_state.storage.sqlite_identity import read_fact
from crdt_state.storage.sqlite_log import find_log
from crdt_state.storage.sqlite_reading import (
    read_checkpoint,
    read_life,
    read_log,
    read_pending,
    read_quarantine,
    read_value,
    read_values,
)
from crdt_state.storage.sqlite_revisions import TABLES as OF_REVISIONS
from crdt_state.storage.sqlite_revisions import find_in_revisions, measure_revisions
from crdt_state.storage.sqlite_tries import find_in_leaf, find_in_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.sqlite_connection import Connection

__all__ = ["find_in_documents", "find_in_pages", "find_in_store", "find_lost_rows"]

FINDINGS_MAX = 100
OF_A_DOCUMENT = (
    "log",
    "checkpoints",
    "pending",
    "quarantine",
    "document_values",
    "outbox",
    *OF_REVISIONS,
)


def find_in_pages(connection: Connection) -> list[Finding]:
    """What SQLite itself finds wrong with the file and its indexes."""

    def check() -> Iterator[Finding]:
        rows = connection.execute(f"PRAGMA integrity_check({FINDINGS_MAX})").fetchall()
        yield from (Finding(None, f"SQLite: {text}") for (text,) in rows if text != "ok")

    return _found(None, check)


def find_in_store(connection: Connection) -> list[Finding]:
    """What the store knows of itself, the replica's values, and the nodes of its tries."""
    found: list[Finding] = []
    for name in ("replica_id", "incarnation", "marks", "sequence", "number"):
        found += _found(None, partial(_read_only, read_fact, connection, name))

    def values() -> Iterator[Finding]:
        for (key,) in connection.execute("SELECT key FROM replica_values").fetchall():
            yield from _found(None, partial(_read_only, read_value, connection, key))

    return found + _found(None, values) + _found(None, partial(find_in_nodes, connection))


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
        rows, counted = connection.execute(
            "SELECT (SELECT count(*) FROM log), "
            "(SELECT coalesce(sum(log_updates), 0) FROM documents)"
        ).fetchone()
        if rows != counted:
            yield Finding(
                None, f"log has {rows:,} rows, and {counted:,} are counted as some document's"
            )
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
            "quarantined_updates, quarantined_bytes, pending_bytes, revisions_bytes, "
            "deleted_at IS NOT NULL FROM documents "
            "WHERE id = ? AND name = ?",
            (row_id, name),
        ).fetchone()
        if kept is None:  # forgotten since its row id was read
            return
        log = find_log(connection, name)
        if log is None:
            yield Finding(name, "the index of names does not lead to it")
            return
        in_log = updates_in_log, bytes_in_log = kept[1], kept[2]
        try:
            entries = read_log(connection, log)
        except StoreCorrupt as error:
            yield Finding(name, str(error))
        else:
            in_log = len(entries), sum(len(entry.update) for entry in entries)
        yield from _found(name, partial(_read_only, read_life, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_checkpoint, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_pending, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_values, connection, row_id, name))
        yield from _found(name, partial(_read_only, read_quarantine, connection, name, 0, -1))
        yield from _found(name, partial(find_in_leaf, connection, row_id, name))
        yield from _found(name, partial(find_in_revisions, connection, row_id, name))
        point = connection.execute(
            "SELECT coalesce(sum(length(state) + length(head)), 0) FROM checkpoints "
            "WHERE document = ?",
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
        revised = measure_revisions(connection, row_id)
        owed = connection.execute(
            "SELECT coalesce(max(through), 0) FROM outbox WHERE document = ? "
            "AND remote IN (SELECT id FROM remotes)",
            (row_id,),
        ).fetchone()
    last, _, _, point_bytes, held, set_aside, aside_bytes, held_bytes, revised_bytes, is_deleted = (
        kept
    )
    for what, says, counted in (
        ("log_updates", updates_in_log, in_log[0]),
        ("log_bytes", bytes_in_log, in_log[1]),
        ("checkpoint_bytes", point_bytes, point[0]),
        ("pending_updates", held, pending[0]),
        ("quarantined_updates", set_aside, aside[0]),
        ("quarantined_bytes", aside_bytes, aside[1]),
        ("pending_bytes", held_bytes, pending[1]),
        ("revisions_bytes", revised_bytes, revised),
    ):
        if says != counted:
            yield Finding(name, f"{what} is {says:,}, but the rows count {counted:,}")
    if is_deleted and (in_log[0] or point[0] or pending[0] or revised):
        yield Finding(name, "it is deleted, but has content")
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
