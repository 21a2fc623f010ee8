"""Carrying out writes: one group of calls, one transaction, one sync.

`commit_group` is the only function that changes documents.  It is synchronous and holds the
connection from `BEGIN IMMEDIATE` to `COMMIT`; whoever awaits it cannot leave half a group
behind.  Updates of all calls are collected and written many rows a statement; any other kind of
write first writes out what was collected, so that the order of the calls is kept.

A call that what is stored can refuse (a fold, a pending entry, revisions) runs in a savepoint: it
alone is undone, and its neighbours are committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.errors import FoldOutdated, LifeOutdated, WriteInvalid
from crdt_state.lineage import BORN
from crdt_state.storage.checksums import checksum, log_checksum, log_salt
from crdt_state.storage.contract import (
    Append,
    ClearOutbox,
    DropAside,
    Fold,
    Forget,
    ForgetDigests,
    Hold,
    KeepText,
    Release,
    Revise,
    Sequence,
    SetAside,
    SetLeaf,
    SetLife,
    SetMetadata,
    SetNodes,
)
from crdt_state.storage.sqlite_connection import execute_rows, query_rows, transaction
from crdt_state.storage.sqlite_identity import read_fact, write_fact
from crdt_state.storage.sqlite_log import count_log, cut_log, find_log
from crdt_state.storage.sqlite_reading import life_of
from crdt_state.storage.sqlite_revisions import TABLES as OF_REVISIONS
from crdt_state.storage.sqlite_revisions import check_revised, keep_text, revise
from crdt_state.storage.sqlite_tries import forget_digests, mark_stale, set_leaves, set_nodes
from crdt_state.storage.validity import CONDITIONAL

if TYPE_CHECKING:
    from collections.abc import Sequence as Many
    from typing import TypeAlias

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.storage.contract import Write
    from crdt_state.storage.sqlite_connection import Connection

    Outcome: TypeAlias = Sequence | WriteInvalid

__all__ = ["commit_group"]

OLDEST_AT_ONCE = 16
"""How many of the oldest quarantined updates are looked at before more are read."""

MAKE_DOCUMENTS = "INSERT INTO documents (name, born, creator) VALUES ROWS"
GROW_DOCUMENTS = """
    UPDATE documents SET last = grown.column2, log_updates = log_updates + grown.column3,
        log_bytes = log_bytes + grown.column4
    FROM (VALUES ROWS) AS grown WHERE id = grown.column1"""
INSERT_UPDATES = "INSERT INTO log (sequence, document, checksum, content, previous) VALUES ROWS"
# Nothing is selected, hence nothing owed, for a document that has no update.  CROSS JOIN keeps
# the order: the pairs are gone through, the names are looked up.  The third column is the sequence
# through which the remote holds it all; NULL, through the last.
OWE = """
    INSERT INTO outbox (remote, document, through, since)
    SELECT remotes.id, documents.id, documents.last,
        iif(coalesce(owed.column3, last) <= born, 0, coalesce(owed.column3, last))
    FROM (VALUES ROWS) AS owed
    CROSS JOIN remotes ON remotes.name = owed.column1
    CROSS JOIN documents ON documents.name = owed.column2
    WHERE documents.last > 0
    ON CONFLICT (remote, document) DO UPDATE SET through = excluded.through,
        since = min(since, excluded.since)"""


def commit_group(connection: Connection, calls: Many[Many[Write]], limits: Limits) -> list[Outcome]:
    """Carry out `calls` in their order; one outcome for each.

    An outcome is the store's greatest sequence after the call, or why it was refused.  When
    this raises, nothing of the group was stored.  `calls` have passed `checked_bytes`.
    """
    with transaction(connection, is_writing=True):
        group = _Group(connection, limits)
        outcomes = [group.carry_out(call) for call in calls]
        group.finish()
    return outcomes


class _Growth:
    """What one document grows by in this group."""

    __slots__ = ("born", "creator", "rows", "salt", "size")

    def __init__(self, creator: str | None, born: int, salt: int) -> None:
        self.creator = creator
        self.born = born
        """The sequence before the first of them."""
        self.salt = salt
        self.rows: list[tuple[int, int, bytes]] = []
        self.size = 0


class _Group:
    """The inside of one transaction.

    Sequences and numbers are counted here and written back once, by `finish`.
    """

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self.connection = connection
        self.limits = limits
        self.sequence = self.sequence_before = _count(read_fact(connection, "sequence"))
        self.number = self.number_before = _count(read_fact(connection, "number"))
        # Collected until `write_out`: what each document grows by; who is owed which, and through
        # where they hold it; leaves.
        self.grown: dict[DocumentId, _Growth] = {}
        self.owed: dict[tuple[str, DocumentId], int | None] = {}
        self.leaves: list[SetLeaf] = []

    def carry_out(self, call: Many[Write]) -> Outcome:
        """One call, whole or not at all."""
        for write in call:
            if type(write) in CONDITIONAL:
                return self.try_out(call)
        for write in call:
            if type(write) is Append and not write.released and not write.is_again:
                self.collect(write)
            elif type(write) is SetLeaf:
                self.leaves.append(write)
            else:
                self.write_out()
                self.one(write)
        return Sequence(self.sequence)

    def try_out(self, call: Many[Write]) -> Outcome:
        """One call that what is stored may refuse."""
        self.write_out()
        sequence, number = self.sequence, self.number
        self.connection.execute("SAVEPOINT call")
        try:
            for write in call:
                self.one(write)
            self.write_out()
        except WriteInvalid as refusal:
            self.grown.clear()
            self.owed.clear()
            self.sequence, self.number = sequence, number
            self.connection.execute("ROLLBACK TO call")
            return refusal
        finally:
            if self.connection.in_transaction:
                self.connection.execute("RELEASE call")
        return Sequence(self.sequence)

    def finish(self) -> None:
        """Write what is still collected, and the counts."""
        self.write_out()
        if self.sequence != self.sequence_before:
            write_fact(self.connection, "sequence", self.sequence.to_bytes(8))
        if self.number != self.number_before:
            write_fact(self.connection, "number", self.number.to_bytes(8))

    def collect(self, write: Append) -> None:
        """Give the updates their sequences; they are written by `write_out`."""
        document = write.document
        before = self.sequence if write.updates else None if write.is_again else 0
        if write.updates:
            sequence = self.sequence
            growth = self.grown.get(document)
            if growth is None:
                growth = self.grown[document] = _Growth(write.creator, sequence, log_salt(document))
            salt, rows = growth.salt, growth.rows
            for update in write.updates:
                sequence += 1
                rows.append((sequence, log_checksum(salt, sequence, update), update))
                growth.size += len(update)
            self.sequence = sequence
        for remote in write.unsent_to:
            known = self.owed.get((remote, document), before)
            # None stands for the last, and is never collected together with others.
            is_lower = known is not None and before is not None and known < before
            self.owed[remote, document] = known if is_lower else before

    def write_out(self) -> None:
        """Write what was collected."""
        if self.grown:
            grown, self.grown = self.grown, {}
            known = self.ends_of(list(grown))
            new = [name for name in grown if name not in known]
            if new:
                rows = [(name, grown[name].born, grown[name].creator) for name in new]
                execute_rows(self.connection, MAKE_DOCUMENTS, "(?, ?, ?)", rows)
                known |= self.ends_of(new)
            updates: list[tuple[int, int, int, bytes, int]] = []
            ends: list[tuple[int, int, int, int]] = []
            for name, growth in grown.items():
                document, last = known[name]
                for sequence, check, update in growth.rows:
                    updates.append((sequence, document, check, update, last))
                    last = sequence
                ends.append((document, last, len(growth.rows), growth.size))
            # In the order of their keys: rows that go to the end of the table cost least.
            updates.sort()
            execute_rows(self.connection, INSERT_UPDATES, "(?, ?, ?, ?, ?)", updates)
            execute_rows(self.connection, GROW_DOCUMENTS, "(?, ?, ?, ?)", ends)
        if self.owed:
            execute_rows(
                self.connection,
                "INSERT OR IGNORE INTO remotes (name) VALUES ROWS",
                "(?)",
                [(remote,) for remote in dict.fromkeys(remote for remote, _ in self.owed)],
            )
            execute_rows(
                self.connection,
                OWE,
                "(?, ?, ?)",
                [(remote, document, since) for (remote, document), since in self.owed.items()],
            )
            self.owed = {}
        if self.leaves:
            set_leaves(self.connection, self.leaves)
            self.leaves = []

    def ends_of(self, names: list[DocumentId]) -> dict[str, tuple[int, int]]:
        """The row id and the last sequence of each of these documents that there is."""
        rows = query_rows(
            self.connection,
            "SELECT name, id, last FROM documents WHERE name IN (VALUES ROWS)",
            "(?)",
            [(name,) for name in names],
        )
        return {name: (row_id, last) for name, row_id, last in rows}

    def one(self, write: Write) -> None:  # noqa: C901, PLR0912 - a table
        """Any write; what was collected before it has been written out."""
        match write:
            case Append():
                self.release(write.document, write.released)
                self.collect(write)
                self.write_out()
            case Hold():
                self.hold(write)
            case Release(document, numbers):
                self.release(document, numbers)
            case SetAside():
                self.set_aside(write)
            case DropAside(document, numbers):
                self.drop_aside(document, numbers)
            case Fold():
                self.fold(write)
            case ClearOutbox(remote, document, through):
                self.clear_outbox(remote, document, through)
            case SetMetadata():
                self.set_metadata(write)
            case SetLife():
                self.set_life(write)
            case Forget(document):
                self.forget(document)
            case SetLeaf():
                set_leaves(self.connection, [write])
            case SetNodes():
                set_nodes(self.connection, write)
            case ForgetDigests():
                forget_digests(self.connection)
            case Revise():
                revise(self.connection, write)
            case KeepText():
                keep_text(self.connection, write)

    def known(self, document: DocumentId) -> int | None:
        """The row id of a document, or None where there is none."""
        row = self.connection.execute(
            "SELECT id FROM documents WHERE name = ?", (document,)
        ).fetchone()
        return None if row is None else int(row[0])

    def born(self, document: DocumentId, creator: str | None) -> int:
        """The row id of a document, which is made where there is none."""
        self.connection.execute(
            "INSERT OR IGNORE INTO documents (name, born, creator) VALUES (?, ?, ?)",
            (document, self.sequence, creator),
        )
        row_id = self.known(document)
        assert row_id is not None  # noqa: S101 - made by the statement before
        return row_id

    def hold(self, write: Hold) -> None:
        """Keep an update that waits for others."""
        row_id = self.born(write.document, write.creator)
        taken = self.connection.execute(
            "SELECT 1 FROM pending WHERE document = ? AND number = ?", (row_id, write.number)
        ).fetchone()
        if taken:
            raise WriteInvalid(
                f"{write.document!r} already has a pending entry {write.number}; take a greater one"
            )
        self.connection.execute(
            "INSERT INTO pending (document, number, checksum, at, source, content) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                row_id,
                write.number,
                checksum("pending", write.document, write.number, write.update),
                write.at,
                write.source,
                write.update,
            ),
        )
        self.connection.execute(
            "UPDATE documents SET pending_updates = pending_updates + 1, "
            "pending_bytes = pending_bytes + ? WHERE id = ?",
            (len(write.update), row_id),
        )

    def release(self, document: DocumentId, numbers: tuple[int, ...]) -> None:
        """Let go of pending entries."""
        row_id = self.known(document) if numbers else None
        if row_id is None:
            return
        execute_rows(
            self.connection,
            "DELETE FROM pending WHERE (document, number) IN (VALUES ROWS)",
            "(?, ?)",
            [(row_id, number) for number in numbers],
        )
        # Counted anew: entries are few, and numbers to release may not be there.
        self.connection.execute(
            "UPDATE documents SET (pending_updates, pending_bytes) = "
            "(SELECT count(*), coalesce(sum(length(content)), 0) FROM pending "
            "WHERE document = ?) WHERE id = ?",
            (row_id, row_id),
        )

    def set_aside(self, write: SetAside) -> None:
        """Put an update into quarantine, and let the oldest go beyond the bounds."""
        row_id = self.born(write.document, write.creator)
        self.number += 1
        self.connection.execute(
            "INSERT INTO quarantine "
            "(number, document, checksum, at, code, reason, source, content) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.number,
                row_id,
                checksum("quarantine", write.document, self.number, write.update),
                write.at,
                write.code,
                write.reason,
                write.source,
                write.update,
            ),
        )
        entries, size = self.connection.execute(
            "SELECT quarantined_updates + 1, quarantined_bytes + ? FROM documents WHERE id = ?",
            (len(write.update), row_id),
        ).fetchone()
        while self.is_overfull(entries, size):
            # A few at a time: beyond the bounds mostly one has to go for each that comes.
            oldest = self.connection.execute(
                "SELECT number, length(content) FROM quarantine "
                "WHERE document = ? AND number < ? ORDER BY number LIMIT ?",
                (row_id, self.number, OLDEST_AT_ONCE),
            ).fetchall()
            if not oldest:
                break
            for number, length in oldest:
                if not self.is_overfull(entries, size):
                    break
                self.connection.execute("DELETE FROM quarantine WHERE number = ?", (number,))
                entries -= 1
                size -= length
        self.connection.execute(
            "UPDATE documents SET quarantined_updates = ?, quarantined_bytes = ? WHERE id = ?",
            (entries, size, row_id),
        )

    def is_overfull(self, entries: int, size: int) -> bool:
        """Whether a document's quarantine is beyond its bounds."""
        return (
            entries > self.limits.quarantine_entries_max or size > self.limits.quarantine_bytes_max
        )

    def drop_aside(self, document: DocumentId, numbers: tuple[int, ...]) -> None:
        """Take entries out of quarantine."""
        row_id = self.known(document) if numbers else None
        if row_id is None:
            return
        execute_rows(
            self.connection,
            "DELETE FROM quarantine WHERE (document, number) IN (VALUES ROWS)",
            "(?, ?)",
            [(row_id, number) for number in numbers],
        )
        self.connection.execute(
            "UPDATE documents SET (quarantined_updates, quarantined_bytes) = "
            "(SELECT count(*), coalesce(sum(length(content)), 0) FROM quarantine "
            "WHERE document = ?) WHERE id = ?",
            (row_id, row_id),
        )

    def set_life(self, write: SetLife) -> None:
        """End one life of a document, and begin the next."""
        document = write.document
        row = self.connection.execute(
            "SELECT life, life_checksum, deleted_at FROM documents WHERE name = ?", (document,)
        ).fetchone()
        stored = BORN if row is None else life_of(document, *row)
        if not stored < write.life:
            raise LifeOutdated(f"{document!r} has {stored} by now, which {write.life} cannot end")
        self.sequence += 1
        row_id = self.born(document, write.creator)
        self.forget_log(document)
        for table in ("checkpoints", "pending", "document_values", *OF_REVISIONS):
            self.connection.execute(f"DELETE FROM {table} WHERE document = ?", (row_id,))  # noqa: S608
        self.forget_outbox(row_id)
        life = write.life.encode()
        deleted_at = write.at if write.life.is_deleted else None
        self.connection.execute(
            "UPDATE documents SET born = ?, last = ?, log_updates = 0, log_bytes = 0, "
            "checkpoint_bytes = 0, pending_updates = 0, pending_bytes = 0, revisions_bytes = 0, "
            "creator = ?, life = ?, life_checksum = ?, deleted_at = ? WHERE id = ?",
            (
                self.sequence,
                self.sequence,
                write.creator,
                life,
                checksum("life", document, deleted_at or 0, life),
                deleted_at,
                row_id,
            ),
        )
        for remote in write.unsent_to:
            self.owed[remote, document] = None
        self.write_out()

    def fold(self, write: Fold) -> None:
        """Replace the beginning of a log by a checkpoint."""
        log = find_log(self.connection, write.document)
        if log is None:
            raise FoldOutdated(f"there is no document {write.document!r} to fold")
        # A fold through the checkpoint that is there replaces it.
        row_id, first = log.document, log.floor if log.is_folded else log.floor + 1
        if not first <= write.through <= log.last:
            raise FoldOutdated(
                f"{write.document!r} cannot be folded through {write.through}: its log reaches "
                f"from {first} to {log.last}; read it again and fold anew"
            )
        check_revised(self.connection, row_id, write)
        updates, size = count_log(self.connection, log, through=write.through)
        cut_log(self.connection, log, through=write.through)
        self.connection.execute(
            "INSERT OR REPLACE INTO checkpoints (document, through, checksum, head, state) "
            "VALUES (?, ?, ?, ?, ?)",
            (
                row_id,
                write.through,
                checksum("checkpoint", write.document, write.through, write.state, write.head),
                write.head,
                write.state,
            ),
        )
        self.connection.execute(
            "UPDATE documents SET log_updates = log_updates - ?, log_bytes = log_bytes - ?, "
            "checkpoint_bytes = ? WHERE id = ?",
            (updates, size, len(write.state) + len(write.head), row_id),
        )

    def clear_outbox(self, remote: str, document: DocumentId, through: int) -> None:
        """Take a document out of what a remote is owed."""
        self.connection.execute("INSERT OR IGNORE INTO remotes (name) VALUES (?)", (remote,))
        self.connection.execute(
            "DELETE FROM outbox WHERE remote = (SELECT id FROM remotes WHERE name = ?) "
            "AND document = (SELECT id FROM documents WHERE name = ?) AND through <= ?",
            (remote, document, through),
        )
        self.connection.execute(
            "UPDATE outbox SET since = ? "
            "WHERE remote = (SELECT id FROM remotes WHERE name = ?) "
            "AND document = (SELECT id FROM documents WHERE name = ?) AND since < ?",
            (through, remote, document, through),
        )

    def set_metadata(self, write: SetMetadata) -> None:
        """Set or remove one value."""
        key, value, document = write.key, write.value, write.document
        if document is None:
            if value is None:
                self.connection.execute("DELETE FROM replica_values WHERE key = ?", (key,))
                return
            self.connection.execute(
                "INSERT OR REPLACE INTO replica_values (key, checksum, content) VALUES (?, ?, ?)",
                (key, checksum("replica_value", key, 0, value), value),
            )
        elif value is None:
            self.connection.execute(
                "DELETE FROM document_values WHERE key = ? "
                "AND document = (SELECT id FROM documents WHERE name = ?)",
                (key, document),
            )
        else:
            self.connection.execute(
                "INSERT OR REPLACE INTO document_values (document, key, checksum, content) "
                "VALUES (?, ?, ?, ?)",
                (
                    self.born(document, write.creator),
                    key,
                    checksum("document_value", document, 0, key.encode(), value),
                    value,
                ),
            )

    def forget(self, document: DocumentId) -> None:
        """Remove every row of a document."""
        row_id = self.known(document)
        if row_id is None:
            return
        mark_stale(self.connection, row_id)
        self.forget_log(document)
        for table in ("checkpoints", "pending", "quarantine", "document_values", *OF_REVISIONS):
            self.connection.execute(f"DELETE FROM {table} WHERE document = ?", (row_id,))  # noqa: S608
        self.forget_outbox(row_id)
        self.connection.execute("DELETE FROM documents WHERE id = ?", (row_id,))

    def forget_outbox(self, row_id: int) -> None:
        """Owe nobody anything of a document."""
        # Through the remotes, because the key of an outbox entry begins with one.
        self.connection.execute(
            "DELETE FROM outbox WHERE document = ? AND remote IN (SELECT id FROM remotes)",
            (row_id,),
        )

    def forget_log(self, document: DocumentId) -> None:
        """Remove every row of a document's log, also where its chain is broken."""
        log = find_log(self.connection, document)
        assert log is not None  # noqa: S101 - looked up by the caller
        (counted,) = self.connection.execute(
            "SELECT log_updates FROM documents WHERE id = ?", (log.document,)
        ).fetchone()
        updates, _ = count_log(self.connection, log, through=log.last)
        if updates == counted:
            cut_log(self.connection, log, through=log.last)
        else:
            self.connection.execute("DELETE FROM log WHERE document = ?", (log.document,))


def _count(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value)
