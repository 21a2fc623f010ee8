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
    "revised": ("revised", "incarnation", "document"),
    "floor": ("revision_floors", "content", "document"),
    "text": ("kept_texts", "content", "document"),
}

OF_TRIES = {"leaf": ("documents", "leaf"), "node": ("trie_nodes", "content")}


def flip_a_bit(connection: Connection, kind: str, document: DocumentId) -> None:
    """Flip the lowest bit of the first value of a kind: of its last byte, in a trie its first."""
    if kind == "revision":
        (row_id,) = connection.execute(
            "SELECT id FROM documents WHERE name = ?", (document,)
        ).fetchone()
        number, content = connection.execute(
            "SELECT number, content FROM revisions WHERE document = ? ORDER BY number", (row_id,)
        ).fetchone()
        connection.execute(
            "UPDATE revisions SET content = ? WHERE document = ? AND number = ?",
            (content[:-1] + bytes([content[-1] ^ 1]), row_id, number),
        )
        return
    if kind in OF_TRIES:
        table, column = OF_TRIES[kind]
        row_id, content = connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"
        ).fetchone()
        damaged = bytes([content[0] ^ 1]) + content[1:]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (damaged, row_id))
        return
    table, column, order = TABLES[kind]
    row_id, content = connection.execute(
        f"SELECT rowid, {column} FROM {table} "
        f"WHERE {'id' if kind == 'life' else 'document'} = "
        f"(SELECT id FROM documents WHERE name = ?) ORDER BY {order}",
        (document,),
    ).fetchone()
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (damaged, row_id))
