"""One direction of a connection as one stream of Zstandard (RFC 8878), cut where frames end.

    message · message · …  ──►  06 · varuint size · block of the stream     (`Compressor`)
    06 · size · block      ──►  message · message · …                       (`Decompressor`)

A stream remembers what went before, so that small frames shrink too: four key presses to a third,
where each by itself would shrink to 0.6.  Its memory is bounded by a small window.

1. What is decompressed is what `size` says, or the peer is refused; `size` is bounded like a frame.
2. Tokens never enter a stream: what is compressed beside a secret tells of it by its length.
"""

from __future__ import annotations

from typing import Final

import zstandard

from crdt_state.errors import RemoteProtocolError
from crdt_state.lib0 import CodingError, Reader, encode_varuint

__all__ = ["COMPRESSED", "WORTH_BYTES", "ZSTD", "Compressor", "Decompressor"]

ZSTD: Final = "zstd"
"""The capability by its name."""

COMPRESSED: Final = 0x06
"""The byte that such a frame begins with."""

WORTH_BYTES = 128
"""Below this a frame goes out as it is."""

WINDOW_LOG = 16
"""64 KiB, as much as a frame brings; a sender takes some 330 KB for it, a receiver a third."""

SLICE_BYTES = 256
"""Decompressed at once: that many bytes of a bomb become 8 MiB at most before they are counted."""

PARAMETERS = zstandard.ZstdCompressionParameters.from_level(1, window_log=WINDOW_LOG)


class Compressor:
    """What one side sends."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(compression_params=PARAMETERS).compressobj()

    def frame(self, messages: bytes) -> bytes:
        """Messages back to back, as a frame to send."""
        block = self._stream.compress(messages)
        block += self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return bytes([COMPRESSED]) + encode_varuint(len(messages)) + block


class Decompressor:
    """What one side hears."""

    def __init__(self, size_max: int) -> None:
        """`size_max` bounds what one frame may become."""
        self._size_max = size_max
        context = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._stream = context.decompressobj()

    def messages(self, frame: bytes) -> bytes:
        """The messages of a compressed frame.  Raises `RemoteProtocolError`."""
        try:
            reader = Reader(frame, 1)
            size = reader.varuint()
        except CodingError as error:
            raise RemoteProtocolError(f"a compressed frame {error}") from None
        if size > self._size_max:
            raise RemoteProtocolError(
                f"a compressed frame of {size:,} bytes, where {self._size_max:,} are allowed"
            )
        found = bytearray()
        try:
            for at in range(reader.at, len(frame), SLICE_BYTES):
                found += self._stream.decompress(frame[at : at + SLICE_BYTES])
                if len(found) > size:
                    break
        except zstandard.ZstdError as error:
            raise RemoteProtocolError(f"what is compressed does not decompress: {error}") from None
        if len(found) != size:
            raise RemoteProtocolError(f"a compressed frame is not of the {size:,} bytes it says")
        return bytes(found)
