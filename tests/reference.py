"""Reads the reference inputs of the data folder."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

from crdt_state.lib0 import Reader


class Session(NamedTuple):
    """One randomized Yjs session: its updates, and what the three roots hold in the end."""

    updates: list[bytes]
    text: str
    map: object
    array: object


def sessions(folder: Path) -> list[Session]:
    """All of `yjs-sessions`, in order."""
    reader = Reader((folder / "yjs-sessions" / "small-test-dataset.bin").read_bytes())
    result = []
    for _ in range(reader.varuint()):
        updates = [reader.bytes() for _ in range(reader.varuint())]
        result.append(Session(updates, reader.string(), _any(reader), _any(reader)))
    reader.finish()
    return result


def documents(folder: Path) -> dict[str, bytes]:
    """File name -> update, of `yjs-documents`."""
    return {
        path.name: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in sorted((folder / "yjs-documents").iterdir())
        if path.suffix in (".gz", ".bin")
    }


def _any(reader: Reader) -> object:
    match reader.byte():
        case 127 | 126:
            return None
        case 125:
            byte = reader.byte()
            sign = -1 if byte & 0x40 else 1
            number, shift = byte & 0x3F, 6
            while byte > 0x7F:
                byte = reader.byte()
                number |= (byte & 0x7F) << shift
                shift += 7
            return sign * number
        case 121:
            return False
        case 120:
            return True
        case 119:
            return reader.string()
        case 118:
            return {reader.string(): _any(reader) for _ in range(reader.varuint())}
        case 117:
            return [_any(reader) for _ in range(reader.varuint())]
        case kind:
            raise AssertionError(f"the sessions hold no value of kind {kind}")
