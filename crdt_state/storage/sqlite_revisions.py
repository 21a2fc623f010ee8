"""Revisions of texts: what SQLite keeps of them beside a document's log.

    revised ──► where they stand        one small row, written with every commit that revises
    revision_floors, revisions          written once
    kept_texts                          the text at the last, from a fold until the next revision

Writing is called inside a group's transaction.  What it does with a position that is damaged is in
revising.py; whoever reads one is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdt_state.errors import StoreCorrupt
from crdt_state.identifiers import Incarnation
from crdt_state.storage.checksums import checksum
from crdt_state.storage.contract import Finding, Sequence, StoredRevisions
from crdt_state.storage.revising import Position, check_fold, check_text, follow
from crdt_state.storage.sqlite_connection import execute_rows, transaction
from crdt_state.storage.sqlite_identity import read_fact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Fold, KeepText, Revise
    from crdt_state.storage.sqlite_connection import Connection

__all__ = [
    "TABLES",
    "check_revised",
    "find_in_revisions",
    "keep_text",
    "measure_revisions",
    "read_revisions",
    "revise",
]

TABLES = ("revised", "revision_floors", "revisions", "kept_texts")
"""All of them hold rows of documents."""

# A row that damage has left in the place of one is replaced, not refused: that would harm a group.
INSERT_REVISIONS = (
    "INSERT OR REPLACE INTO revisions (document, number, checksum, content) VALUES ROWS"
)


# --- writing, inside a group ------------------------------------------------------------------


def revise(connection: Connection, write: Revise) -> None:
    """Add revisions, and let a floor stand in the place of others.  Raises `WriteInvalid`."""
    name, floor = write.document, write.floor
    row_id, through = _end_of(connection, name)
    before = _trusted_position(connection, row_id, name)
    after = follow(write, before, through, _incarnation(connection))
    grown = sum(map(len, write.revisions)) - _remove(
        connection, "kept_texts WHERE document = ?", row_id
    )
    if floor is not None:
        last = 0 if before is None else before.last
        grown += len(floor) - _remove(connection, "revision_floors WHERE document = ?", row_id)
        grown -= _remove(
            connection,
            "revisions WHERE document = ? AND (number <= ? OR number > ?)",
            row_id,
            after.floor,
            last,
        )
        connection.execute(
            "INSERT INTO revision_floors (document, checksum, content) VALUES (?, ?, ?)",
            (row_id, checksum("floor", name, after.floor, floor), floor),
        )
    execute_rows(
        connection,
        INSERT_REVISIONS,
        "(?, ?, ?, ?)",
        [
            (row_id, number, checksum("revision", name, number, revision), revision)
            for number, revision in enumerate(write.revisions, write.first)
        ],
    )
    connection.execute(
        "INSERT OR REPLACE INTO revised (document, floor, last, through, incarnation, checksum) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (row_id, after.floor, after.last, after.through, after.incarnation, after.checksum(name)),
    )
    _grow(connection, row_id, grown)


def keep_text(connection: Connection, write: KeepText) -> None:
    """Keep the text at the last revision.  Raises `WriteInvalid`."""
    name, text = write.document, write.text
    row_id, _ = _end_of(connection, name)
    check_text(write, _trusted_position(connection, row_id, name))
    before = _remove(connection, "kept_texts WHERE document = ?", row_id)
    connection.execute(
        "INSERT INTO kept_texts (document, checksum, content) VALUES (?, ?, ?)",
        (row_id, checksum("text", name, write.number, text), text),
    )
    _grow(connection, row_id, len(text) - before)


def check_revised(connection: Connection, row_id: int, write: Fold) -> None:
    """Raises `FoldOutdated` for a fold that revisions do not let pass."""
    before = _trusted_position(connection, row_id, write.document)
    if before is not None and write.through > before.through:
        kept = connection.execute("SELECT 1 FROM kept_texts WHERE document = ?", (row_id,))
        check_fold(write, before, has_text=kept.fetchone() is not None)


def _end_of(connection: Connection, name: DocumentId) -> tuple[int, Sequence | None]:
    """The row id of a document, 0 without one, and the last sequence of one that lives."""
    row = connection.execute(
        "SELECT id, iif(deleted_at IS NULL, last, NULL) FROM documents WHERE name = ?", (name,)
    ).fetchone()
    return (0, None) if row is None else row


def _trusted_position(connection: Connection, row_id: int, name: DocumentId) -> Position | None:
    row = _position_row(connection, row_id)
    if row is None:
        return None
    position, expected = row
    return position if position.checksum(name) == expected else None


def _position_row(connection: Connection, row_id: int) -> tuple[Position, int] | None:
    row = connection.execute(
        "SELECT floor, last, through, incarnation, checksum FROM revised WHERE document = ?",
        (row_id,),
    ).fetchone()
    if row is None:
        return None
    floor, last, through, incarnation, expected = row
    return Position(floor, last, Sequence(through), Incarnation(incarnation)), expected


def _incarnation(connection: Connection) -> Incarnation:
    return Incarnation(read_fact(connection, "incarnation") or b"")


def _remove(connection: Connection, rows: str, *parameters: int) -> int:
    """Delete rows, and count their bytes."""
    removed = connection.execute(f"DELETE FROM {rows} RETURNING length(content)", parameters)  # noqa: S608
    return sum(size for (size,) in removed.fetchall())


def _grow(connection: Connection, row_id: int, size: int) -> None:
    connection.execute(
        "UPDATE documents SET revisions_bytes = revisions_bytes + ? WHERE id = ?", (size, row_id)
    )


# --- reading ----------------------------------------------------------------------------------


def read_revisions(connection: Connection, document: DocumentId) -> StoredRevisions | None:
    """The revisions of a document's text."""
    with transaction(connection, is_writing=False):
        row = connection.execute("SELECT id FROM documents WHERE name = ?", (document,)).fetchone()
        return None if row is None else _revisions_of(connection, row[0], document)


def _revisions_of(
    connection: Connection, row_id: int, document: DocumentId
) -> StoredRevisions | None:
    row = _position_row(connection, row_id)
    floor = _content(connection, "revision_floors", row_id)
    if row is None and floor is None:
        return None
    if row is None:
        raise _damage("position", document, 0)
    position, expected = row
    if position.checksum(document) != expected:
        raise _damage("position", document, position.through)
    if floor is None or checksum("floor", document, position.floor, floor[0]) != floor[1]:
        raise _damage("floor", document, position.floor)
    text = _content(connection, "kept_texts", row_id)
    if text is not None and checksum("text", document, position.last, text[0]) != text[1]:
        raise _damage("text", document, position.last)
    return StoredRevisions(
        position.floor,
        floor[0],
        _read_above(connection, row_id, document, position),
        position.through,
        None if text is None else text[0],
        position.incarnation == _incarnation(connection),
    )


def _read_above(
    connection: Connection, row_id: int, document: DocumentId, position: Position
) -> tuple[bytes, ...]:
    rows = connection.execute(
        "SELECT number, checksum, content FROM revisions WHERE document = ? ORDER BY number",
        (row_id,),
    ).fetchall()
    above: list[bytes] = []
    for number, expected, revision in rows:
        following = position.floor + len(above) + 1
        if number != following or checksum("revision", document, number, revision) != expected:
            raise _damage("revision", document, following)
        above.append(revision)
    if position.floor + len(above) != position.last:
        raise _damage("revision", document, position.floor + len(above) + 1)
    return tuple(above)


def _content(connection: Connection, table: str, row_id: int) -> tuple[bytes, int] | None:
    row: tuple[Any, Any] | None = connection.execute(
        f"SELECT content, checksum FROM {table} WHERE document = ?",  # noqa: S608 - our own tables
        (row_id,),
    ).fetchone()
    return row


def _damage(what: str, document: DocumentId, number: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"of the revisions of {document!r} the {what} at {number} is damaged or missing; its log "
        f"and other documents are not touched by it",
        document=document,
        sequence=number,
    )


# --- verifying --------------------------------------------------------------------------------


def find_in_revisions(connection: Connection, row_id: int, name: DocumentId) -> Iterator[Finding]:
    """Revisions against their checksums, their numbers, and the log that they stand for."""
    stored = _revisions_of(connection, row_id, name)
    if stored is None:
        return
    last, folded = connection.execute(
        "SELECT last, coalesce(through, 0) FROM documents "
        "LEFT JOIN checkpoints ON document = documents.id WHERE documents.id = ?",
        (row_id,),
    ).fetchone()
    if stored.through > last:
        yield Finding(
            name, f"its revisions reach {stored.through}, beyond its last sequence {last}"
        )
    if stored.through < folded and stored.text is None:
        yield Finding(
            name,
            f"its log is folded through {folded}, but its revisions reach {stored.through}, and no "
            f"text is kept",
        )


def measure_revisions(connection: Connection, row_id: int) -> int:
    """The bytes of all that is kept of a document's revisions."""
    size: int = connection.execute(
        "SELECT coalesce(sum(length(content)), 0) FROM ("
        "SELECT content FROM revision_floors WHERE document = :document UNION ALL "
        "SELECT content FROM revisions WHERE document = :document UNION ALL "
        "SELECT content FROM kept_texts WHERE document = :document)",
        {"document": row_id},
    ).fetchone()[0]
    return size
