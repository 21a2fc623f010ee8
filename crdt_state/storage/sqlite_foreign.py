"""Reads documents out of SQLite files that other Yjs servers wrote.

    pycrdt-store   yupdates(path TEXT, yupdate BLOB, metadata BLOB, timestamp REAL)
                   ycheckpoints(path TEXT, checkpoint BLOB, timestamp REAL)     since 0.1.3
    Hocuspocus     documents(name varchar, data blob)

A pycrdt-store document is its checkpoint and all of its updates: what a checkpoint covers is
read again, which does no harm, and an update written within the same clock tick is not lost.

1. The file is opened for reading only and read within one transaction, so that a server that is
   still writing to it gives one state of it.
2. One document is in memory at a time, and none that is larger than the bound given.
3. Foreign bytes come out as they are: whoever imports them inspects them.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from crdt_state.errors import NotImportable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAGIC", "ForeignLayout", "ForeignSqlite", "open_foreign"]

MAGIC = b"SQLite format 3\0"
"""How every SQLite file begins (https://sqlite.org/fileformat.html)."""


class ForeignLayout(Enum):
    """Whose tables they are."""

    PYCRDT_STORE = "pycrdt-store"
    HOCUSPOCUS = "hocuspocus"


class ForeignSqlite:
    """An open file of another server; made by `open_foreign`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, layout: ForeignLayout) -> None:
        self.path = path
        self.layout = layout
        self._connection = connection
        self._tables = _TABLES[layout]
        if layout is ForeignLayout.PYCRDT_STORE and "ycheckpoints" not in _tables(connection):
            self._tables = self._tables[1:]

    def count(self) -> int:
        """How many documents it holds."""
        with self._errors_named():
            row = self._connection.execute(f"SELECT count(*) FROM ({self._names})").fetchone()  # noqa: S608 - our own constants
        return int(row[0])

    def names(self) -> Iterator[str]:
        """The names of its documents, as that server knows them, in the order of their bytes."""
        with self._errors_named():
            for (name,) in self._connection.execute(f"{self._names} ORDER BY 1"):
                # SQLite holds whatever was bound; a name that is no text is nobody's document.
                yield name if isinstance(name, str) else repr(name)

    def size(self, name: str) -> int:
        """Bytes of all updates of one document."""
        with self._errors_named():
            return sum(
                int(
                    self._connection.execute(
                        f"SELECT coalesce(sum(length({column})), 0) FROM {table} WHERE {key} = ?",  # noqa: S608
                        (name,),
                    ).fetchone()[0]
                )
                for table, key, column, _ in self._tables
            )

    def updates(self, name: str) -> list[bytes]:
        """The updates of one document, oldest first.

        Raises `NotImportable` where a row holds something else than bytes.
        """
        found: list[bytes] = []
        with self._errors_named():
            for table, key, column, order in self._tables:
                rows = self._connection.execute(
                    f"SELECT {column} FROM {table} WHERE {key} = ? ORDER BY {order}",  # noqa: S608
                    (name,),
                )
                for (update,) in rows:
                    if not isinstance(update, bytes):
                        kind = type(update).__name__
                        raise NotImportable(
                            f"{self.path}: {name!r}", f"{table}.{column} holds {kind}, not bytes"
                        )
                    found.append(update)
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def _names(self) -> str:
        return " UNION ".join(
            f"SELECT DISTINCT {key} FROM {table}"  # noqa: S608 - our own constants
            for table, key, _, _ in self._tables
        )

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise NotImportable(
                str(self.path), f"reading it failed ({error}); is the file whole?"
            ) from error


# Table, the column with the document's name, the one with bytes, and the order of the rows.
_TABLES = {
    ForeignLayout.PYCRDT_STORE: (
        ("ycheckpoints", "path", "checkpoint", "timestamp, rowid"),
        ("yupdates", "path", "yupdate", "timestamp, rowid"),
    ),
    ForeignLayout.HOCUSPOCUS: (("documents", "name", "data", "rowid"),),
}


@contextmanager
def open_foreign(path: Path) -> Iterator[ForeignSqlite]:
    """Open a SQLite file whose layout is one of `ForeignLayout`, for reading only.

    Raises `NotImportable`.
    """
    connection: sqlite3.Connection | None = None
    try:
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
            )
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("BEGIN")
            layout = _layout(path, connection)
        except sqlite3.Error as error:
            raise NotImportable(
                str(path), f"SQLite cannot read it ({error}); copy it anew, and its -wal file too"
            ) from error
        yield ForeignSqlite(path, connection, layout)
    finally:
        if connection is not None:
            connection.close()


def _layout(path: Path, connection: sqlite3.Connection) -> ForeignLayout:
    tables = _tables(connection)
    if {"path", "yupdate", "timestamp"} <= tables.get("yupdates", set()):
        return ForeignLayout.PYCRDT_STORE
    if {"log", "checkpoints"} <= tables.keys():
        raise NotImportable(
            str(path), "it is a store of this software; name it with --store, or dump it first"
        )
    if {"name", "data"} <= tables.get("documents", set()):
        return ForeignLayout.HOCUSPOCUS
    names = ", ".join(sorted(tables)[:8]) or "none"
    raise NotImportable(
        str(path),
        "its tables are neither those of pycrdt-store (yupdates) nor those of Hocuspocus "
        f"(documents with name and data); it has: {names}",
    )


def _tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: {
            column
            for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
        }
        for (name,) in names
        if isinstance(name, str)
    }
