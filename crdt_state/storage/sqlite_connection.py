"""What the SQL of this store needs of a connection, and what its errors mean.

The functions with SQL in them take any object of the shape below.  In production that is a
`sqlite3.Connection` on the thread of an aiosqlite connection; in tests it is an
`apsw.Connection` over a file system that loses what was not synced.  Neither is imported here.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from crdt_state.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crdt_state.limits import Limits

__all__ = [
    "Connection",
    "Cursor",
    "checkpoint",
    "configure",
    "execute_rows",
    "meaning_of",
    "query_rows",
    "transaction",
]

ROWS_AT_ONCE = (256, 32, 4, 1)
"""Of so many rows statements are made; few sizes, so that each is compiled once."""


class Cursor(Protocol):
    """Rows of one statement."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """One open database, without transactions of its own making."""

    @property
    def in_transaction(self) -> bool:
        """Whether a `BEGIN` has not ended yet."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Cursor:
        """Run one statement; what comes back holds its rows."""


@contextmanager
def transaction(connection: Connection, *, is_writing: bool) -> Iterator[None]:
    """One transaction around the block: committed at its end, undone by an exception.

    A reading one sees a single state of the file, whatever the writer does meanwhile.
    """
    connection.execute("BEGIN IMMEDIATE" if is_writing else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # SQLite ends some failed transactions by itself; asking again would be an error.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def execute_rows(connection: Connection, sql: str, row: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run `sql` over all of `rows`; its word `ROWS` stands for many of the shape `row`.

    Not `executemany`: that lets go of the interpreter's lock at every row, and where the event
    loop is busy each time costs a switch interval to get it back; 3,000 rows took 16 seconds.
    """
    for statement, values in _many(sql, row, rows):
        connection.execute(statement, values)


def query_rows(
    connection: Connection, sql: str, row: str, rows: Sequence[Sequence[Any]]
) -> list[Any]:
    """What `sql` finds, run as by `execute_rows`."""
    found: list[Any] = []
    for statement, values in _many(sql, row, rows):
        found += connection.execute(statement, values).fetchall()
    return found


def _many(sql: str, row: str, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
    at = 0
    for count in ROWS_AT_ONCE:
        while len(rows) - at >= count:
            yield (
                _for_rows(sql, row, count),
                [v for values in rows[at : at + count] for v in values],
            )
            at += count


@cache
def _for_rows(sql: str, row: str, count: int) -> str:
    return sql.replace("ROWS", ", ".join([row] * count))


def configure(connection: Connection, limits: Limits, *, is_writer: bool) -> None:
    """Set what belongs to a connection, not to the file (https://sqlite.org/pragma.html)."""
    milliseconds = round(limits.store_busy_seconds_max * 1000)
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -8192")
    if not is_writer:
        connection.execute("PRAGMA query_only = ON")
        return
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailable(
            f"this file system cannot hold a write-ahead log (SQLite answered {mode!r}); "
            f"put the store on a local disk"
        )
    # FULL syncs the log at every commit, which is what makes a commit durable; NORMAL only at
    # checkpoints.  The other two matter on macOS, where fsync does not reach the platter.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    # Checkpoints come only from the writer, between two groups: no commit pays for one in its
    # middle, and no second connection ever moves the log.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    # Lets the log shrink back when it starts anew, so that its size says how much is in it.
    connection.execute(f"PRAGMA journal_size_limit = {limits.wal_bytes_before_checkpoint}")


def checkpoint(connection: Connection, mode: str = "PASSIVE") -> bool:
    """Move the write-ahead log into the database; whether all of it could be moved.

    PASSIVE waits for nobody; TRUNCATE, at the end, also empties the log.
    """
    busy, in_log, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return not busy and in_log == moved


def meaning_of(error: Exception, place: str) -> StoreError | None:  # noqa: PLR0911 - a table
    """What an error of sqlite3 or apsw means to us, or None for an error of another kind."""
    if isinstance(error, StoreError):
        return error
    code = getattr(error, "sqlite_errorcode", getattr(error, "result", None))
    if not isinstance(code, int):
        return None
    match code & 0xFF:  # the primary code of https://sqlite.org/rescode.html
        case 13:  # FULL
            return StoreFull(f"{place}: no space left ({error}); free some and write again")
        case 11 | 26:  # CORRUPT, NOTADB
            return StoreCorrupt(
                f"{place}: the file is damaged or not a store ({error}); keep a copy, run "
                f"`crdt-state check`, and restore a backup if it names documents"
            )
        case 5 | 6:  # BUSY, LOCKED
            return StoreInUse(f"{place}: another program holds the file ({error}); close it there")
        case 8 | 14:  # READONLY, CANTOPEN
            return StoreUnavailable(
                f"{place}: cannot be opened or written ({error}); see that it exists and that "
                f"this user may write the file and its folder"
            )
        case _:
            return StoreUnavailable(f"{place}: the disk or SQLite answered with an error ({error})")
