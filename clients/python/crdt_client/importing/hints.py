"""What refused bytes probably are, in words that help: the mistakes people make with Yjs files.

Only ever looked at after the guard has refused: a hint decides nothing.
"""

from __future__ import annotations

from crdt_state.lib0 import CodingError, Reader

__all__ = ["hint", "is_version_2"]

V2_COLUMNS = 9
"""Key clocks, clients, left and right clocks, infos, strings, parents, types, lengths."""

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x78\x01": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}


def is_version_2(update: bytes) -> bool:
    """Whether these bytes have the frame of a Yjs update, version 2.

    That is a zero byte and nine columns, each after its length (yjs 13.6,
    src/utils/UpdateEncoder.js); as version 1 such bytes do not decode.
    """
    reader = Reader(update)
    try:
        if reader.byte() != 0:
            return False
        for _ in range(V2_COLUMNS):
            reader.bytes()
    except CodingError:
        return False
    return not reader.is_done()


def hint(update: bytes) -> str:
    """A sentence on what a refused update may be, with a blank before it, or nothing."""
    for magic, name in COMPRESSED.items():
        if update.startswith(magic):
            return f" (it looks compressed by {name}: decompress it first)"
    if not update:
        return " (it is empty)"
    if is_version_2(update):
        return (
            " (it is a Yjs update of version 2, and this reads version 1: convert it with "
            "Y.convertUpdateFormatV2ToV1, or encode with Y.encodeStateAsUpdate)"
        )
    if _is_sync_message(update):
        return " (it is a message of y-protocols around an update: cut off its first bytes)"
    if update[:256].isascii() and update[:256].decode("ascii").isprintable():
        return " (it is text; is it base64 or hexadecimal that has to be decoded first?)"
    return ""


def _is_sync_message(update: bytes) -> bool:
    """Message type sync, kind step 2 or update, and one byte string to the end."""
    reader = Reader(update)
    try:
        if reader.varuint() != 0 or reader.varuint() not in (1, 2):
            return False
        reader.bytes()
    except CodingError:
        return False
    return reader.is_done()
