"""Documents as a folder: one Yjs update a file, which every Yjs program reads, and an index.

    index.json            {"format": "crdt-state-folder", "version": 1, "documents": [
                            {"document": "notes/today", "file": "notes%2Ftoday.bin",
                             "bytes": 4711, "sha256": "…"}, …]}
    notes%2Ftoday.bin     the document as one update (version 1)

A file is named after its document's id, percent-encoded.  Where that would be too long for a file
system, or differs from another name only in case, a hash stands for it: the index has the truth.
Without an index every `*.bin` is a document, and its name is decoded.

1. The index is written last, so that a folder with an index is whole.
2. What an index names is read only from within its folder, and only where its hash is right.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import orjson

from crdt_client.importing.foreign import ForeignDocument
from crdt_state.errors import NotImportable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crdt_state.identifiers import DocumentId

__all__ = ["INDEX", "FolderWriter", "count_folder", "name_of_file", "read_folder", "read_update"]

INDEX = "index.json"
SUFFIX = ".bin"
FORMAT = "crdt-state-folder"
VERSION = 1
FILE_NAME_BYTES_MAX = 200
INDEX_BYTES_MAX = 512 * 1024 * 1024

# Names that Windows gives to devices, whatever follows the dot.
DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


@dataclass(slots=True)
class FolderWriter:
    """Writes one document after the other into `folder`, which must be empty, then the index."""

    folder: Path
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, folder: Path) -> FolderWriter:
        """Make the folder if it is not there.  Raises `OSError`."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def add(self, document: DocumentId, update: bytes) -> None:
        """Write one document.  Raises `OSError`."""
        name = self._name(document)
        (self.folder / name).write_bytes(update)
        digest = hashlib.sha256(update).hexdigest()
        self._entries.append(
            {"document": document, "file": name, "bytes": len(update), "sha256": digest}
        )

    def finish(self) -> None:
        """Write the index.  Raises `OSError`."""
        index = {"format": FORMAT, "version": VERSION, "documents": self._entries}
        partial = self.folder / f"{INDEX}.partial"
        partial.write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))
        partial.replace(self.folder / INDEX)

    def _name(self, document: DocumentId) -> str:
        name = quote(document, safe="") + SUFFIX
        is_taken = name.casefold() in self._names
        if is_taken or len(name) > FILE_NAME_BYTES_MAX or DEVICE.match(name) or name[0] == ".":
            name = hashlib.sha256(document.encode()).hexdigest() + SUFFIX
        self._names.add(name.casefold())
        return name


def count_folder(folder: Path) -> int:
    """How many documents `read_folder` will yield.  Raises `NotImportable`."""
    entries = _index(folder)
    return len(_update_files(folder)) if entries is None else len(entries)


def read_folder(folder: Path, *, size_max: int) -> Iterator[ForeignDocument]:
    """The documents of a folder; a file that cannot be read is a document with a problem.

    Raises `NotImportable` where the index is damaged.
    """
    entries = _index(folder)
    if entries is None:
        for file in _update_files(folder):
            yield _document(name_of_file(file), file, size_max)
        return
    for entry in entries:
        name, file_name = entry["document"], entry["file"]
        if file_name in ("", ".", "..") or re.search(r"[/\\\0]", file_name):
            problem = f"its file {file_name!r} in the index is outside of the folder"
            yield ForeignDocument(name, problem=problem)
            continue
        document = _document(name, folder / file_name, size_max)
        if document.problem is None:
            (update,) = document.updates
            if hashlib.sha256(update).hexdigest() != entry.get("sha256"):
                problem = f"{file_name} is not the file that the index names (its SHA-256 differs)"
                document = ForeignDocument(name, problem=problem)
        yield document


def name_of_file(file: Path) -> str:
    """The document's name in the name of an update file."""
    try:
        return unquote_to_bytes(file.name.removesuffix(SUFFIX)).decode()
    except UnicodeDecodeError:
        return file.name


def read_update(file: Path, *, size_max: int) -> bytes:
    """The bytes of an update file.  Raises `NotImportable` beyond `size_max`, and `OSError`."""
    with file.open("rb") as opened:
        data = opened.read(size_max + 1)
    if len(data) > size_max:
        raise NotImportable(str(file), f"it is larger than document_bytes_max = {size_max:,}")
    return data


def _document(name: str, file: Path, size_max: int) -> ForeignDocument:
    try:
        return ForeignDocument(name, (read_update(file, size_max=size_max),))
    except OSError as error:
        return ForeignDocument(name, problem=f"{file.name} cannot be read ({error.strerror})")
    except NotImportable as error:
        return ForeignDocument(name, problem=f"{file.name}: {error.reason}")


def _update_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob(f"*{SUFFIX}") if file.is_file())


def _index(folder: Path) -> list[dict[str, Any]] | None:
    file = folder / INDEX
    if not file.exists():
        return None
    try:
        index = orjson.loads(read_update(file, size_max=INDEX_BYTES_MAX))
    except OSError as error:
        raise NotImportable(str(file), f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise NotImportable(str(file), f"it is not JSON ({error})") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise NotImportable(str(file), f"its format is not {FORMAT!r}; is it of another program?")
    if index.get("version") != VERSION:
        version = index.get("version")
        raise NotImportable(str(file), f"it is of version {version!r}, and this reads {VERSION}")
    entries = index.get("documents")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise NotImportable(str(file), "its documents are not a list of names and files")
    return entries


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("document", "file")
    )
