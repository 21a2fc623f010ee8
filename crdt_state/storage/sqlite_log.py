"""One document's log, followed from its end: each row names the row before it.

    documents.last ──► log row ── previous ──► log row ── previous ──► … at or before `floor`

An index over (document, sequence) would answer the same, and be written at as many places as a
group has documents: it took a third of a commit of a hundred.  What a chain cannot tell is
whether a link leaves rows out; reading a whole document and verifying count them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import StoreCorrupt

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.sqlite_connection import Connection

__all__ = ["Log", "count_log", "cut_log", "find_log", "follow_log"]

# Descending, so that a link that leads forward, or to another document, ends the walk.
FOLLOW = """WITH RECURSIVE chain (sequence, previous, checksum, content) AS (
    SELECT sequence, previous, checksum, content FROM log
    WHERE sequence = :last AND document = :document AND :last > :floor
    UNION ALL
    SELECT log.sequence, log.previous, log.checksum, log.content FROM chain
    CROSS JOIN log ON log.sequence = chain.previous
    WHERE chain.previous > :floor AND log.document = :document AND log.sequence < chain.sequence)"""

READ = f"{FOLLOW} SELECT sequence, checksum, content, previous FROM chain"  # noqa: S608
COUNT = f"""{FOLLOW} SELECT count(*), coalesce(sum(length(content)), 0) FROM chain
    WHERE sequence <= :through"""  # noqa: S608
CUT = f"""DELETE FROM log WHERE sequence IN (
    {FOLLOW} SELECT sequence FROM chain WHERE sequence <= :through)"""  # noqa: S608


class Log(NamedTuple):
    """Where a document's log lies: behind `floor`, up to `last` (equal: it is empty)."""

    name: DocumentId
    document: int
    """The row id of its document."""
    last: int
    floor: int
    is_folded: bool
    """Whether `floor` is where a checkpoint ends; else it is where the document was born."""

    def behind(self, after: int) -> Log:
        """The part of it behind `after`."""
        return self._replace(floor=max(self.floor, after))


def find_log(connection: Connection, name: DocumentId) -> Log | None:
    """The log of a document, or None where there is no such document."""
    row = connection.execute(
        "SELECT documents.id, last, max(born, coalesce(through, 0)), through IS NOT NULL "
        "FROM documents LEFT JOIN checkpoints ON document = documents.id WHERE name = ?",
        (name,),
    ).fetchone()
    return None if row is None else Log(name, *row)


def follow_log(connection: Connection, log: Log) -> list[tuple[int, int, bytes]]:
    """Its rows in order: sequence, checksum, content.  Raises `StoreCorrupt` for a broken link."""
    rows = connection.execute(READ, log._asdict()).fetchall()
    reached = rows[-1][3] if rows else log.last
    if reached > log.floor:
        raise StoreCorrupt(
            f"the log of {log.name!r} breaks off: its update {reached} is missing; other "
            f"documents are not touched by it",
            document=log.name,
            sequence=reached,
        )
    return [row[:3] for row in reversed(rows)]


def count_log(connection: Connection, log: Log, *, through: int) -> tuple[int, int]:
    """How many updates it has up to `through`, and their bytes."""
    updates, size = connection.execute(COUNT, {**log._asdict(), "through": through}).fetchone()
    return updates, size


def cut_log(connection: Connection, log: Log, *, through: int) -> None:
    """Remove its rows up to `through`."""
    connection.execute(CUT, {**log._asdict(), "through": through})
