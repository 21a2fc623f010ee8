"""Damage done to a store from outside, below its checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.sqlite_connection import Connection

TABLES = {
    "log": ("log", "content", "sequence"),
    "checkpoint": ("checkpoints", "state", "document"),
    "pending": ("pending", "content", "number"),
    "quarantine": ("quarantine", "content", "number"),
    "value": ("document_values", "content", "key"),
    "life": ("documents", "life", "id"),
}


def flip_a_bit(connection: Connection, kind: str, document: DocumentId) -> None:
    """Flip the lowest bit of the last byte of the document's first value of this kind."""
    table, column, order = TABLES[kind]
    row_id, content = connection.execute(
        f"SELECT rowid, {column} FROM {table} "
        f"WHERE {'id' if kind == 'life' else 'document'} = "
        f"(SELECT id FROM documents WHERE name = ?) ORDER BY {order}",
        (document,),
    ).fetchone()
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (damaged, row_id))
