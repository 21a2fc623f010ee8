"""Finds out what a path holds, by its content, and reads documents from it one at a time."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from typing import TYPE_CHECKING

from crdt_client.importing.folder import INDEX, count_folder, name_of_file, read_folder, read_update
from crdt_client.importing.foreign import ForeignDocument
from crdt_client.importing.lines import is_lines, read_lines
from crdt_state.errors import NotImportable
from crdt_state.storage.sqlite_foreign import MAGIC, open_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crdt_state.limits import Limits
    from crdt_state.storage.sqlite_foreign import ForeignSqlite

__all__ = ["Format", "Source", "leveldb_script", "open_source"]

START_BYTES = 4_096


class Format(Enum):
    """What a path can hold."""

    UPDATE = "update"
    LINES = "lines"
    FOLDER = "folder"
    PYCRDT_STORE = "pycrdt-store"
    HOCUSPOCUS = "hocuspocus"


@dataclass(frozen=True, slots=True)
class Source:
    """Documents to be read once, in their order; `count` is None where nobody knows it."""

    format: Format
    documents: Iterator[ForeignDocument]
    count: int | None


@contextmanager
def open_source(
    path: Path, limits: Limits, *, wanted: Format | None = None, name: str | None = None
) -> Iterator[Source]:
    """Open what `path` holds; `wanted` says what that is, else its content does.

    `name` is the document that a single update belongs to; without it, the file's name says so.
    Raises `NotImportable`, here and while reading, and for a file only the reading user may
    read `OSError`.
    """
    size_max = limits.document_bytes_max
    kind = wanted or _recognise(path)
    if name is not None and kind is not Format.UPDATE:
        raise NotImportable(
            str(path), f"it is of the format {kind.value} and names its documents itself"
        )
    match kind:
        case Format.UPDATE:
            update = read_update(path, size_max=size_max)
            document = ForeignDocument(name_of_file(path) if name is None else name, (update,))
            yield Source(kind, iter((document,)), 1)
        case Format.LINES:
            with path.open("rb") as stream:
                yield Source(kind, read_lines(stream, size_max=size_max), None)
        case Format.FOLDER:
            yield Source(kind, read_folder(path, size_max=size_max), count_folder(path))
        case Format.PYCRDT_STORE | Format.HOCUSPOCUS:
            with open_foreign(path) as foreign:
                found = Format(foreign.layout.value)
                if wanted not in (None, found):
                    raise NotImportable(str(path), f"it is of the format {found.value}")
                yield Source(found, _rows(foreign, size_max), foreign.count())


def leveldb_script() -> str:
    """The Node program that writes y-websocket's LevelDB as lines."""
    return (files("crdt_client.importing") / "dump_leveldb.mjs").read_text("utf-8")


def _recognise(path: Path) -> Format:
    if path.is_dir():
        if (path / "CURRENT").is_file() and any(path.glob("MANIFEST-*")):
            raise NotImportable(
                str(path),
                "it is a LevelDB folder, which only its own library reads: write its documents as "
                "lines with the program that `crdt-state import --leveldb-script` prints",
            )
        if not (path / INDEX).is_file() and not any(path.glob("*.bin")):
            raise NotImportable(
                str(path), f"the folder holds neither {INDEX} nor files that end in .bin"
            )
        return Format.FOLDER
    with path.open("rb") as opened:
        start = opened.read(START_BYTES)
    if start.startswith(MAGIC):
        with open_foreign(path) as foreign:
            return Format(foreign.layout.value)
    return Format.LINES if is_lines(start) else Format.UPDATE


def _rows(foreign: ForeignSqlite, size_max: int) -> Iterator[ForeignDocument]:
    for name in foreign.names():
        try:
            size = foreign.size(name)
            if size > size_max:
                problem = f"its updates take {size:,} bytes, more than document_bytes_max"
                yield ForeignDocument(name, problem=f"{problem} = {size_max:,}")
                continue
            if not size:
                yield ForeignDocument(name, problem="no bytes are stored under this name")
                continue
            yield ForeignDocument(name, tuple(foreign.updates(name)))
        except NotImportable as error:
            yield ForeignDocument(name, problem=error.reason)
