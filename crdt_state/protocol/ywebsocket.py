"""The y-websocket wire, bit for bit.

One WebSocket message holds one message (y-protocols, PROTOCOL.md and sync.js, awareness.js,
auth.js; every integer a lib0 varint, every length in bytes):

    00 00 <bytes>        sync step 1: the sender's state vector; asks for what it lacks
    00 01 <bytes>        sync step 2: the update that answers a step 1
    00 02 <bytes>        update: what has just changed
    01 <bytes>           awareness: states of clients (crdt_state/model/awareness.py)
    02 00 <string>       auth: permission denied, with the reason; from the server only
    03                   query awareness: asks for all states

Stricter than y-protocols: input that is short, long, unknown, or not UTF-8 is refused, where
the original throws half-way or reads what it can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crdt_state.errors import RemoteProtocolError
from crdt_state.lib0 import CodingError, Reader, encode_bytes, encode_string

__all__ = [
    "AwarenessUpdate",
    "Message",
    "PermissionDenied",
    "QueryAwareness",
    "SyncStep1",
    "SyncStep2",
    "Update",
    "decode",
    "encode",
    "encode_update",
]


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """Asks for everything that `state_vector` lacks."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """Answers a step 1; after it, the receiver holds what the sender held."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """What has just changed."""

    update: bytes


@dataclass(frozen=True, slots=True)
class AwarenessUpdate:
    """States of clients, in the coding of y-protocols' awareness."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class PermissionDenied:
    """The server's no, with its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """Asks for the states of all clients."""


Message: TypeAlias = (
    SyncStep1 | SyncStep2 | Update | AwarenessUpdate | PermissionDenied | QueryAwareness
)

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = range(4)
STEP_1, STEP_2, UPDATE = range(3)
PERMISSION_DENIED = 0


def encode(message: Message) -> bytes:
    """The WebSocket message of `message`."""
    match message:
        case Update(update):
            return encode_update(update)
        case SyncStep1(state_vector):
            return b"\x00\x00" + encode_bytes(state_vector)
        case SyncStep2(update):
            return b"\x00\x01" + encode_bytes(update)
        case AwarenessUpdate(payload):
            return b"\x01" + encode_bytes(payload)
        case PermissionDenied(reason):
            return b"\x02\x00" + encode_string(reason)
        case QueryAwareness():
            return b"\x03"


def encode_update(update: bytes) -> bytes:
    """The WebSocket message of an update; apart from `encode` because live traffic is these."""
    return b"\x00\x02" + encode_bytes(update)


def decode(frame: bytes) -> Message:
    """The message that `frame` holds.

    Raises `RemoteProtocolError` for anything but exactly one message.
    """
    # Nearly every frame is a short update, and its length one byte.
    if frame[:2] == b"\x00\x02" and 2 < len(frame) == 3 + frame[2] < 0x83:
        return Update(frame[3:])
    try:
        reader = Reader(frame)
        message = _read(reader)
        reader.finish()
    except CodingError as error:
        raise RemoteProtocolError(f"not a y-websocket message: it {error}") from None
    return message


def _read(reader: Reader) -> Message:
    kind = reader.varuint()
    if kind == SYNC:
        step = reader.varuint()
        if step == STEP_1:
            return SyncStep1(reader.bytes())
        if step == STEP_2:
            return SyncStep2(reader.bytes())
        if step == UPDATE:
            return Update(reader.bytes())
        raise RemoteProtocolError(f"sync message {step} is unknown; known are 0, 1 and 2")
    if kind == AWARENESS:
        return AwarenessUpdate(reader.bytes())
    if kind == AUTH:
        verdict = reader.varuint()
        if verdict != PERMISSION_DENIED:
            raise RemoteProtocolError(f"auth message {verdict} is unknown; known is 0")
        return PermissionDenied(reader.string())
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    raise RemoteProtocolError(f"message {kind} is unknown; known are 0 to 3")
