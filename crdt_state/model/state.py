"""The state of a document as values: how far each client is held, and what is deleted.

Both are read strictly and written canonically (sorted, merged), because the engine's own bytes
for one state differ from run to run, and digests are made of them.

    state vector = count, then per client:  client id, next counter
    deletes      = count, then per client:  client id, count, then per range: first counter, length

Integers are lib0 varints.  A client stands in either at most once.  Deletes are the second half
of an update (`model/update`); an update whose first half is a 0 deletes and does nothing else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_state.errors import UpdateMalformed
from crdt_state.lib0 import CodingError, Reader, encode_varuint
from crdt_state.model.ranges import COUNTER_MAX, Range, merged
from crdt_state.model.update import UNBOUNDED, UpdateReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DIGEST_BYTES",
    "EMPTY_UPDATE",
    "EMPTY_VECTOR",
    "DeleteSet",
    "decode_delete_set",
    "decode_state_vector",
    "digest_of",
    "encode_deletes",
    "encode_state_vector",
]

EMPTY_UPDATE: Final = b"\x00\x00"
"""The update that changes nothing: no structs, no deletes."""

EMPTY_VECTOR: Final = b"\x00"
"""The state vector of a document in which nothing has happened."""

DeleteSet: TypeAlias = dict[int, tuple[tuple[int, int], ...]]
"""Client id -> ranges of deleted counters, half open, sorted, merged."""

DIGEST_BYTES: Final = 16


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """Client id -> next counter, as bytes; equal vectors give equal bytes."""
    parts = [encode_varuint(len(vector))]
    for client in sorted(vector):
        parts.append(encode_varuint(client))
        parts.append(encode_varuint(vector[client]))
    return b"".join(parts)


def decode_state_vector(data: bytes) -> dict[int, int]:
    """Client id -> next counter, strictly.  Raises `UpdateMalformed`."""
    reader = Reader(data)
    vector: dict[int, int] = {}
    try:
        for _ in range(reader.varuint()):
            client = reader.varuint()
            counter = reader.varuint()
            if client in vector:
                raise UpdateMalformed(f"a state vector names client {client} twice")
            if counter > COUNTER_MAX:
                raise UpdateMalformed(f"a state vector has counter {counter}, beyond 2^31 - 1")
            vector[client] = counter
        reader.finish()
    except CodingError as error:
        raise UpdateMalformed(f"not a state vector: {error}") from None
    return vector


def encode_deletes(ranges: Iterable[Range]) -> bytes:
    """The deletes of an update; clients in the order in which they first come."""
    by_client: dict[int, list[Range]] = {}
    for deleted in ranges:
        by_client.setdefault(deleted.client, []).append(deleted)
    parts = [encode_varuint(len(by_client))]
    for client, ours in by_client.items():
        parts += [encode_varuint(client), encode_varuint(len(ours))]
        for _, start, end in ours:
            parts += [encode_varuint(start), encode_varuint(end - start)]
    return b"".join(parts)


def decode_delete_set(update: bytes) -> DeleteSet:
    """What an update without structs deletes (as `encode(since=own vector)` gives it).

    Raises `UpdateMalformed`.
    """
    reader = UpdateReader(update, UNBOUNDED)
    if any(True for _ in reader.structs()):
        raise UpdateMalformed("the update holds structs beside its delete set")
    found: dict[int, list[tuple[int, int]]] = {}
    for client, start, end in merged(reader.deletes()):
        found.setdefault(client, []).append((start, end))
    return {client: tuple(ranges) for client, ranges in found.items()}


def digest_of(vector: Mapping[int, int], deletes: DeleteSet) -> bytes:
    """16 bytes for a state: the same for the same state however it was reached.

    SHA-256, truncated, over the sorted vector and the sorted merged deletes.  Both must come
    from an integrated document: integration deletes items that no update names.
    """
    ranges = (Range(client, *bounds) for client in sorted(deletes) for bounds in deletes[client])
    found = hashlib.sha256(encode_state_vector(vector) + encode_deletes(ranges))
    return found.digest()[:DIGEST_BYTES]
