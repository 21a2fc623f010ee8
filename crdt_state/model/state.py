"""The state of a document as values: how far each client is held, and what is deleted.

Both are read strictly and written canonically (sorted, merged), because the engine's own bytes
for one state differ from run to run, and digests are made of them.

    state vector = varuint count, then count times: varuint client id, varuint next counter
    delete set   = varuint count, then count times: varuint client id, varuint ranges,
                   then for each range: varuint first counter, varuint length
    update       = structs (a varuint 0 where there are none), then a delete set
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_state.errors import UpdateMalformed
from crdt_state.lib0 import CodingError, Reader, encode_varuint

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DIGEST_BYTES",
    "EMPTY_UPDATE",
    "EMPTY_VECTOR",
    "DeleteSet",
    "encode_state_vector",
    "decode_state_vector",
    "decode_delete_set",
    "digest_of",
]

EMPTY_UPDATE: Final = b"\x00\x00"
"""The update that changes nothing: no structs, no deletes."""

EMPTY_VECTOR: Final = b"\x00"
"""The state vector of a document in which nothing has happened."""

DeleteSet: TypeAlias = dict[int, tuple[tuple[int, int], ...]]
"""Client id -> ranges of deleted counters, half open, sorted, merged."""

DIGEST_BYTES: Final = 16


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """Client id -> next counter, as bytes; sorted, so that equal vectors have equal bytes."""
    out = bytearray(encode_varuint(len(vector)))
    for client in sorted(vector):
        out += encode_varuint(client) + encode_varuint(vector[client])
    return bytes(out)


def decode_state_vector(data: bytes) -> dict[int, int]:
    """Client id -> next counter.

    Raises `UpdateMalformed`; a client that stands there twice is an error too.
    """
    reader = Reader(data)
    vector: dict[int, int] = {}
    try:
        for _ in range(reader.varuint()):
            client = reader.varuint()
            if client in vector:
                raise UpdateMalformed(f"a state vector names client {client} twice")
            vector[client] = reader.varuint()
        reader.finish()
    except CodingError as error:
        raise UpdateMalformed(f"not a state vector: {error}") from None
    return vector


def decode_delete_set(data: bytes) -> DeleteSet:
    """The delete set of an update that holds no structs (as `encode(since=own vector)` gives).

    Raises `UpdateMalformed`.
    """
    reader = Reader(data)
    found: dict[int, list[tuple[int, int]]] = {}
    try:
        if reader.varuint():
            raise UpdateMalformed("the update holds structs beside its delete set")
        for _ in range(reader.varuint()):
            ranges = found.setdefault(reader.varuint(), [])
            for _ in range(reader.varuint()):
                start = reader.varuint()
                ranges.append((start, start + reader.varuint()))
        reader.finish()
    except CodingError as error:
        raise UpdateMalformed(f"not a delete set: {error}") from None
    return {client: _merged(ranges) for client, ranges in sorted(found.items()) if ranges}


def digest_of(vector: Mapping[int, int], deletes: DeleteSet) -> bytes:
    """16 bytes for a state: the same for the same state however it was reached.

    SHA-256, truncated, over the sorted vector and the sorted merged deletes.  Both must come
    from an integrated document: integration deletes items that no update names.
    """
    out = bytearray(encode_state_vector(vector))
    out += encode_varuint(len(deletes))
    for client in sorted(deletes):
        ranges = deletes[client]
        out += encode_varuint(client) + encode_varuint(len(ranges))
        for start, end in ranges:
            out += encode_varuint(start) + encode_varuint(end - start)
    return hashlib.sha256(out).digest()[:DIGEST_BYTES]


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return tuple(merged)
