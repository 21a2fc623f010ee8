"""Who the store is: its replica id, its incarnation, and the marks of the file it lives in.

Rows of the table `store`; what a mark is, and what it is compared with, is in sidecar.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import StoreCorrupt
from crdt_state.identifiers import (
    Incarnation,
    ReplicaId,
    draw_incarnation,
    draw_replica_id,
)
from crdt_state.storage.checksums import checksum
from crdt_state.storage.contract import PEERS, WATERMARKS
from crdt_state.storage.sidecar import agrees, bare, draw_token
from crdt_state.storage.sqlite_connection import transaction

if TYPE_CHECKING:
    from random import Random

    from crdt_state.storage.sidecar import Marked
    from crdt_state.storage.sqlite_connection import Connection

__all__ = [
    "Identity",
    "begin_incarnation",
    "create_identity",
    "read_fact",
    "read_identity",
    "renew_marks",
    "settle_identity",
    "write_fact",
    "write_marks",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """`marks`: what the sidecar may say; one mark, or two while it is being renewed."""

    replica_id: ReplicaId
    incarnation: Incarnation
    marks: bytes


def settle_identity(
    connection: Connection, sidecar: Marked, random: Random
) -> tuple[Identity, bool]:
    """Find out who the store is and whether its file is a copy, and renew its mark."""
    identity = read_identity(connection)
    if identity is None:
        mark = sidecar.renew(draw_token(random))
        identity = Identity(draw_replica_id(random), draw_incarnation(random), mark)
        create_identity(connection, identity)
        return identity, False
    mark_found = sidecar.mark()
    is_new = not agrees(identity.marks, mark_found)
    token = draw_token(random)
    if is_new:
        identity = Identity(identity.replica_id, draw_incarnation(random), bare(token))
        begin_incarnation(connection, identity.incarnation, identity.marks)
    else:
        write_marks(connection, (mark_found or b"") + bare(token))
    write_marks(connection, sidecar.renew(token))
    return identity, is_new


def renew_marks(connection: Connection, sidecar: Marked, random: Random) -> None:
    """Begin a new mark in both places, the database naming both meanwhile."""
    if read_identity(connection) is not None:
        token = draw_token(random)
        write_marks(connection, (sidecar.mark() or b"") + bare(token))
        write_marks(connection, sidecar.renew(token))


def read_fact(connection: Connection, name: str) -> bytes | None:
    """One value of the table `store`; raises `StoreCorrupt`."""
    row = connection.execute("SELECT value, checksum FROM store WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    value: bytes = row[0]
    if row[1] != checksum("store", name, 0, value):
        raise StoreCorrupt(f"the store's own {name} is damaged; restore a backup of the file")
    return value


def write_fact(connection: Connection, name: str, value: bytes) -> None:
    """Set one value of the table `store`."""
    connection.execute(
        "INSERT OR REPLACE INTO store (name, value, checksum) VALUES (?, ?, ?)",
        (name, value, checksum("store", name, 0, value)),
    )


def read_identity(connection: Connection) -> Identity | None:
    """Who the store is, or None while it is nobody yet."""
    replica_id = read_fact(connection, "replica_id")
    incarnation = read_fact(connection, "incarnation")
    marks = read_fact(connection, "marks")
    if replica_id is None or incarnation is None or marks is None:
        return None
    return Identity(ReplicaId(replica_id), Incarnation(incarnation), marks)


def create_identity(connection: Connection, identity: Identity) -> None:
    """Make a new store somebody."""
    with transaction(connection, is_writing=True):
        write_fact(connection, "replica_id", identity.replica_id)
        write_fact(connection, "incarnation", identity.incarnation)
        write_fact(connection, "marks", identity.marks)


def write_marks(connection: Connection, marks: bytes) -> None:
    """Say what the sidecar may hold from now on."""
    with transaction(connection, is_writing=True):
        write_fact(connection, "marks", marks)


def begin_incarnation(connection: Connection, incarnation: Incarnation, marks: bytes) -> None:
    """Start a new life: every document is owed to every remote, and watermarks are void.

    One transaction with the new incarnation, so that there is no moment at which the old
    outbox belongs to the new life.
    """
    with transaction(connection, is_writing=True):
        connection.execute(
            "INSERT INTO outbox (remote, document, through, since) "
            "SELECT remotes.id, documents.id, documents.last, documents.last "
            "FROM remotes, documents WHERE documents.last > 0 "
            "AND (life IS NOT NULL OR substr(remotes.name, 1, ?) <> ?) "
            "ON CONFLICT (remote, document) DO UPDATE SET through = excluded.through",
            (len(PEERS), PEERS),
        )
        connection.execute(
            "DELETE FROM replica_values WHERE substr(key, 1, ?) = ?", (len(WATERMARKS), WATERMARKS)
        )
        write_fact(connection, "incarnation", incarnation)
        write_fact(connection, "marks", marks)
