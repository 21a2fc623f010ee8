"""What a worker can be asked to do with a document's bytes: values, their coding, and the work.

Here is everything that hands foreign bytes to the native engine on a server.  Each job is a plain
function of bytes and `Limits`; `perform` runs one by its kind on coded arguments, which is what
crosses the pipe of a worker process.  Nothing is pickled: a request and a reply are both a kind
and a row of byte strings.

1. A job never sees a text cut inside a surrogate pair: bytes are healed first (see
   `model/surrogates`), because the native engine loses neighbouring characters otherwise.
2. What a fold does not cover is named in `Folded.waiting`, so that nobody drops it.
3. Whatever goes wrong inside is one of `UpdateRefused` or `WorkerFailed`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import orjson

from crdt_state.errors import EngineFailed, UpdateMalformed, UpdateTooLarge, WorkerFailed
from crdt_state.lib0 import CodingError, Reader, encode_varuint
from crdt_state.model import engine, surrogates
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect, pieces
from crdt_state.model.ranges import Intervals, Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crdt_state.limits import Limits
    from crdt_state.model.inspect import Inspection

__all__ = [
    "FOLDED_PARTS",
    "FRAME_HEADER_BYTES",
    "OF_SESSIONS",
    "Digests",
    "Folded",
    "Kind",
    "Repaired",
    "Status",
    "as_json",
    "decode_message",
    "decode_splits",
    "diff",
    "digest",
    "encode_error",
    "encode_message",
    "encode_splits",
    "error_of",
    "failures_named",
    "fold",
    "folded_of",
    "merge",
    "perform",
    "repair",
]


FRAME_HEADER_BYTES = 8
"""Before a message on a pipe stands its length, little-endian."""

FOLDED_PARTS = 6
"""How many byte strings a coded `Folded` takes."""


class Kind(IntEnum):
    """What is asked; the first byte of a request."""

    FOLD = 1
    DIFF = 2
    MERGE = 3
    AS_JSON = 4
    DIGEST = 5
    REPAIR = 6
    # Of a session (text_sessions).
    OPEN_TEXT = 7
    APPLY_TEXT = 8
    EDIT_TEXT = 9
    CLOSE_TEXT = 10


OF_SESSIONS = frozenset({Kind.OPEN_TEXT, Kind.APPLY_TEXT, Kind.EDIT_TEXT, Kind.CLOSE_TEXT})


class Status(IntEnum):
    """How it went; the first byte of a reply."""

    DONE = 1
    MALFORMED = 2
    TOO_LARGE = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Folded:
    """A document folded into one update.

    `state` is the integrated document, `vector` its encoded state vector, `head` the encoded
    `Head.of_state(state)` (who owns which client id is not in the bytes: `Head.inherit`).
    `digest` and `deep_digest` are the engine's, 16 bytes each.  `waiting` are positions in the
    updates given that `state` does not cover, because something they depend on is missing.
    """

    state: bytes
    head: bytes
    vector: bytes
    digest: bytes
    deep_digest: bytes
    waiting: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Digests:
    """What two replicas compare; 16 bytes each, and the encoded state vector they belong to."""

    digest: bytes
    deep_digest: bytes
    vector: bytes


@dataclass(frozen=True, slots=True)
class Repaired:
    """A document after the repair of texts that were cut inside a surrogate pair.

    `updates` stand in place of the update that cut: they are logged and sent on in this order
    and one by one, never merged with one another.
    """

    folded: Folded
    updates: tuple[bytes, ...]


# --- the work ----------------------------------------------------------------------------------


def fold(updates: Sequence[bytes], limits: Limits) -> Folded:
    """Integrate `updates` (a whole document, in the order of its log) into one state."""
    document, waiting = _integrate(updates, limits)
    try:
        state = document.encode()
        vector = document.state_vector()
        digests = document.digest(), document.deep_digest()
    finally:
        document.close()
    return Folded(state, Head.of_state(state, limits).encode(), vector, *digests, waiting)


def diff(state: bytes, vector: bytes, limits: Limits) -> bytes:
    """What of `state` is not in `vector`; its delete set whole."""
    return engine.diff(surrogates.heal([state], limits)[0], vector)


def merge(updates: Sequence[bytes], limits: Limits) -> bytes:
    """One update for all of `updates`, without integrating: keeps what waits for others."""
    return engine.merge(surrogates.heal(updates, limits))


def as_json(updates: Sequence[bytes], limits: Limits) -> bytes:
    """The document's roots as UTF-8 JSON; values of bytes as `{"base64": …}`."""
    document, _ = _integrate(updates, limits)
    try:
        return orjson.dumps(document.as_json())
    finally:
        document.close()


def digest(updates: Sequence[bytes], limits: Limits) -> Digests:
    """The digests of the integrated document."""
    document, _ = _integrate(updates, limits)
    try:
        return Digests(document.digest(), document.deep_digest(), document.state_vector())
    finally:
        document.close()


def repair(
    updates: Sequence[bytes], splits: Sequence[tuple[int, int]], limits: Limits
) -> Repaired | None:
    """Repair the `splits` that the last of `updates` makes; None where nothing alive is split."""
    plan = surrogates.plan_repair(updates, splits, limits)
    if plan is None:
        return None
    return Repaired(fold([*updates[:-1], *plan], limits), plan)


def _integrate(
    updates: Sequence[bytes], limits: Limits
) -> tuple[engine.NativeDocument, tuple[int, ...]]:
    """A document of `updates`, to be closed, and the positions of those that still wait.

    yrs (0.28) integrates a struct behind a gap of its client where it can, and then forgets what
    would have filled the gap.  So what its vector does not cover is given to it once more, until
    nothing more goes in.
    """
    healed = surrogates.heal(updates, limits)
    # Nothing is written in this document, so its client id never shows anywhere.
    document = engine.NativeDocument(_NOBODY)
    try:
        for update in healed:
            parts = pieces(update, STRUCTS_AT_ONCE) if len(update) > STRUCTS_AT_ONCE else (update,)
            for part in parts:
                document.apply(part)
        waiting = tuple(range(len(healed)))
        while left := _uncovered(document, healed, waiting, limits):
            if left == waiting:
                break
            for position in left:
                document.apply(healed[position])
            waiting = left
    except BaseException:
        document.close()
        raise
    return document, left


def _uncovered(
    document: engine.NativeDocument,
    updates: Sequence[bytes],
    positions: Iterable[int],
    limits: Limits,
) -> tuple[int, ...]:
    """Which of `updates` at `positions` are not wholly in the document."""
    vector = engine.decode_state_vector(document.state_vector())
    deletes = Intervals(
        Range(client, start, end)
        for client, ranges in document.delete_set().items()
        for start, end in ranges
    )

    def is_covered(inspection: Inspection) -> bool:
        return all(
            vector.get(client, 0) >= end for client, end in inspection.vector.items()
        ) and all(deletes.covers(*deleted) for deleted in inspection.deletes)

    return tuple(
        position
        for position in positions
        if not is_covered(inspect(updates[position], limits, merged=True))
    )


_NOBODY = 1

STRUCTS_AT_ONCE = 1_000
"""More of one client's in one transaction cost yrs the square of their number."""


# --- the coding --------------------------------------------------------------------------------


def perform(kind: int, parts: Sequence[bytes], limits: Limits) -> tuple[bytes, ...]:
    """Carry out a coded request; return the coded result.

    Raises `UpdateRefused` and `WorkerFailed`, nothing else that bytes can cause.
    """
    result: tuple[bytes, ...]
    with failures_named():
        match kind:
            case Kind.FOLD:
                result = _parts_of_folded(fold(parts, limits))
            case Kind.DIFF:
                state, vector = parts
                result = (diff(state, vector, limits),)
            case Kind.MERGE:
                result = (merge(parts, limits),)
            case Kind.AS_JSON:
                result = (as_json(parts, limits),)
            case Kind.DIGEST:
                digests = digest(parts, limits)
                result = (digests.digest, digests.deep_digest, digests.vector)
            case Kind.REPAIR:
                splits, *updates = parts
                repaired = repair(updates, decode_splits(splits), limits)
                result = _parts_of_repaired(repaired) if repaired is not None else ()
            case _:
                raise ValueError(f"no job has the kind {kind}")
    return result


@contextmanager
def failures_named() -> Iterator[None]:
    """Give the failures of the engine, and of memory, the one name that callers answer to."""
    try:
        yield
    except EngineFailed as error:
        raise WorkerFailed("panicked", str(error)) from error
    except RuntimeError as error:
        # The binding's, for a parent that holds no type; the interpreter's, for deep recursion.
        raise WorkerFailed("panicked", str(error)) from error
    except MemoryError as error:
        raise WorkerFailed("memory", "an allocation was refused") from error


def folded_of(parts: Sequence[bytes]) -> Folded:
    """The inverse of what `perform` makes of a `Folded`."""
    state, head, vector, shallow, deep, waiting = parts
    reader = Reader(waiting)
    positions = tuple(reader.varuint() for _ in range(reader.varuint()))
    reader.finish()
    return Folded(state, head, vector, shallow, deep, positions)


def _parts_of_folded(folded: Folded) -> tuple[bytes, ...]:
    waiting = b"".join(map(encode_varuint, (len(folded.waiting), *folded.waiting)))
    return (
        folded.state,
        folded.head,
        folded.vector,
        folded.digest,
        folded.deep_digest,
        waiting,
    )


def _parts_of_repaired(repaired: Repaired) -> tuple[bytes, ...]:
    return (*_parts_of_folded(repaired.folded), *repaired.updates)


def encode_splits(splits: Sequence[tuple[int, int]]) -> bytes:
    """Pairs of client id and counter, as varints."""
    return b"".join(encode_varuint(n) for split in splits for n in split)


def decode_splits(data: bytes) -> list[tuple[int, int]]:
    """The inverse of `encode_splits`."""
    reader = Reader(data)
    splits = []
    while not reader.is_done():
        splits.append((reader.varuint(), reader.varuint()))
    return splits


def encode_message(kind: int, parts: Sequence[bytes]) -> bytes:
    """A kind (one byte), how many byte strings (varint), and each after its length."""
    pieces = [bytes([kind]), encode_varuint(len(parts))]
    for part in parts:
        # Not joined with its length first: a part may be a whole document.
        pieces += (encode_varuint(len(part)), part)
    return b"".join(pieces)


def decode_message(data: bytes) -> tuple[int, list[bytes]]:
    """The inverse of `encode_message`; raises `CodingError`."""
    reader = Reader(data)
    kind = reader.byte()
    count = reader.varuint()
    if count > len(data):
        raise CodingError(f"{count} byte strings are announced in {len(data)} bytes")
    parts = [reader.bytes() for _ in range(count)]
    reader.finish()
    return kind, parts


def encode_error(error: UpdateMalformed | UpdateTooLarge | WorkerFailed) -> bytes:
    """An error as a reply."""
    match error:
        case UpdateTooLarge():
            numbers = (str(int(error.allowed)), str(int(error.found)))
            return encode_message(Status.TOO_LARGE, [f.encode() for f in (error.limit, *numbers)])
        case UpdateMalformed():
            return encode_message(Status.MALFORMED, [error.reason.encode()])
        case WorkerFailed():
            fields = (error.cause, error.reason)
            return encode_message(Status.FAILED, [f.encode() for f in fields])


def error_of(status: int, parts: Sequence[bytes]) -> Exception:
    """The error that a reply tells of."""
    fields = [part.decode() for part in parts]
    match status:
        case Status.TOO_LARGE:
            limit, allowed, found = fields
            return UpdateTooLarge(limit, int(allowed), int(found))
        case Status.MALFORMED:
            return UpdateMalformed(*fields)
        case Status.FAILED:
            cause, reason = fields
            return WorkerFailed(cause, reason)
        case _:
            raise CodingError(f"no reply has the status {status}")
