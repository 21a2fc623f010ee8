"""The checksum beside every stored value, shared by all engines.

A CRC-32 over what the value is, where it belongs, and its bytes.  Because the place is part of
it, two intact rows that changed places are noticed as well as a flipped bit.  It finds damage,
not malice: whoever can write the file can write the checksum.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["checksum", "log_checksum", "log_salt"]


def checksum(kind: str, document: str, number: int, *values: bytes) -> int:
    """CRC-32 of `values`, salted by their kind, document and sequence or number.

    Lengths are part of it, so that bytes cannot move from one value to the next.
    """
    running = crc32(f"{kind}\n{document}\n{number}".encode())
    for value in values:
        running = crc32(value, crc32(len(value).to_bytes(8), running))
    return running


def log_salt(document: str) -> int:
    """Start of every `log_checksum` of one document."""
    return crc32(b"log\n" + document.encode())


def log_checksum(salt: int, sequence: int, update: bytes) -> int:
    """CRC-32 of one update of a log; the hot path of writing, hence apart from `checksum`."""
    return crc32(update, crc32(sequence.to_bytes(8), salt))
