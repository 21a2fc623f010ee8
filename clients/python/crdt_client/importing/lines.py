"""Documents as lines of JSON: what a dump of y-websocket's LevelDB is (see dump_leveldb.mjs).

    {"name": "notes/today", "update": "<base64 of one update>"}
    {"name": "notes/today", "updates": ["<base64>", …]}

A line that does not hold is a document with a problem, and the next one is read.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from crdt_client.importing.foreign import ForeignDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_lines", "read_lines"]

CHUNK_BYTES = 1 << 20


def is_lines(start: bytes) -> bool:
    """Whether a file that begins so is lines of JSON.

    An update may begin with the byte of a brace, but not with one, a quotation mark and a name.
    """
    head = start.lstrip()[:64].replace(b" ", b"")
    return head.startswith((b'{"name"', b'{"update"', b'{"updates"'))


def read_lines(stream: BinaryIO, *, size_max: int) -> Iterator[ForeignDocument]:
    """The documents of a stream of lines; `size_max` bounds the bytes of one document."""
    line_max = size_max * 4 // 3 + 65_536
    number = 0
    while line := stream.readline(line_max + 1):
        number += 1
        if len(line) > line_max:
            while line and not line.endswith(b"\n"):
                line = stream.readline(CHUNK_BYTES)
            problem = f"it is longer than document_bytes_max = {size_max:,} allows"
            yield ForeignDocument(f"line {number}", problem=problem)
        elif line.strip():
            yield _document(line, number)


def _document(line: bytes, number: int) -> ForeignDocument:
    place = f"line {number}"
    try:
        value: Any = orjson.loads(line)
    except ValueError as error:
        return ForeignDocument(place, problem=f"it is not JSON ({error})")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return ForeignDocument(place, problem='it is not like {"name": "…", "update": "<base64>"}')
    name = value["name"]
    coded = value.get("updates", [value.get("update")])
    if not isinstance(coded, list) or not all(isinstance(text, str) for text in coded):
        return ForeignDocument(name, problem=f"{place} has no text 'update' nor list 'updates'")
    try:
        return ForeignDocument(name, tuple(b64decode(text, validate=True) for text in coded))
    except (binascii.Error, ValueError) as error:
        return ForeignDocument(name, problem=f"an update in {place} is not base64 ({error})")
