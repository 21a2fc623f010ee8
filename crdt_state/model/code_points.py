"""A text as code points, for an engine that counts bytes.

A copy of the text in chunks of about a thousand characters, which answers "where does code point
i begin in bytes of UTF-8" without reading the whole text.  Edits are near one another, so the
chunk of the last answer is remembered and the search walks from there; in a chunk of ASCII, which
Python knows in constant time, both counts agree.

An embedded value is one `EMBED` here and counts 1 in both measures, as it does in Yjs.
`EMBED` is a lone surrogate, which no stored string can hold.

1. `length` and bytes are those of the text that was inserted and not deleted.
2. No chunk is empty unless the text is, and none is longer than `CHUNK_MAX`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EMBED", "CodePoints", "byte_length"]

EMBED = "\udfff"

CHUNK_MAX = 2_048
CHUNK_NEW = 1_024


def byte_length(text: str) -> int:
    """Bytes of UTF-8, an `EMBED` counting 1."""
    if text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass")) - 2 * text.count(EMBED)


class CodePoints:
    """The text; positions are in code points unless a name says otherwise.

    Callers check positions: here they are trusted.
    """

    __slots__ = ("_at", "_byte", "_bytes", "_chunks", "_point", "length")

    def __init__(self, text: str = "") -> None:
        self.length = len(text)
        self._chunks = list(_pieces(text)) or [""]
        self._bytes = [byte_length(chunk) for chunk in self._chunks]
        # The remembered chunk, and how much lies before it.
        self._at = self._point = self._byte = 0

    def copy(self) -> CodePoints:
        """A copy that further edits here leave alone."""
        other = CodePoints()
        other.length = self.length
        other._chunks = list(self._chunks)
        other._bytes = list(self._bytes)
        return other

    def __str__(self) -> str:
        return "".join(self._chunks)

    def byte_of(self, point: int) -> int:
        """How many bytes lie before code point `point`."""
        self._seek(point)
        return self._byte + byte_length(self._chunks[self._at][: point - self._point])

    def point_of_byte(self, byte: int) -> int:
        """How many code points lie before byte `byte`."""
        self._seek_byte(byte)
        chunk, rest = self._chunks[self._at], byte - self._byte
        if chunk.isascii():
            return self._point + rest
        return self._point + _points_in(chunk, rest)

    def slice(self, start: int, end: int) -> str:
        """The characters from `start` to `end`."""
        if start >= end:
            return ""
        self._seek(start)
        at, first = self._at, start - self._point
        chunk = self._chunks[at]
        if first + end - start <= len(chunk):
            return chunk[first : first + end - start]
        parts = [chunk[first:]]
        left = end - start - len(parts[0])
        while left > 0:
            at += 1
            parts.append(self._chunks[at][:left])
            left -= len(parts[-1])
        return "".join(parts)

    def insert(self, point: int, text: str) -> None:
        """Put `text` before code point `point`."""
        self._seek(point)
        at = self._at
        chunk, offset = self._chunks[at], point - self._point
        joined = chunk[:offset] + text + chunk[offset:]
        self.length += len(text)
        if len(joined) <= CHUNK_MAX:
            self._chunks[at] = joined
            self._bytes[at] += byte_length(text)
        else:
            self._replace(at, at + 1, joined)

    def delete(self, point: int, count: int) -> None:
        """Take `count` code points away."""
        if count <= 0:
            return
        self._seek(point)
        at, offset = self._at, point - self._point
        chunk = self._chunks[at]
        self.length -= count
        if offset + count < len(chunk):
            gone = chunk[offset : offset + count]
            self._chunks[at] = chunk[:offset] + chunk[offset + count :]
            self._bytes[at] -= byte_length(gone)
            return
        end, rest = at, offset + count
        while end < len(self._chunks) and rest >= len(self._chunks[end]):
            rest -= len(self._chunks[end])
            end += 1
        kept = chunk[:offset]
        if end < len(self._chunks):
            kept += self._chunks[end][rest:]
            end += 1
        self._replace(at, end, kept)

    def _replace(self, start: int, end: int, text: str) -> None:
        """Cut `text` anew in place of the chunks from `start` to `end`."""
        if len(text) < CHUNK_NEW // 2 and end < len(self._chunks):
            # A small remainder joins its neighbour, else deletions would leave crumbs for ever.
            text += self._chunks[end]
            end += 1
        pieces = list(_pieces(text))
        if not pieces and len(self._chunks) == end - start:
            pieces = [""]
        self._chunks[start:end] = pieces
        self._bytes[start:end] = [byte_length(piece) for piece in pieces]
        if self._at >= len(self._chunks):
            self._at = self._point = self._byte = 0

    def _seek(self, point: int) -> None:
        """Remember the chunk that holds `point`; the one before, where it is between two."""
        if point < self._point:
            if point < self._point // 2:
                self._at = self._point = self._byte = 0
            else:
                while point < self._point:
                    self._back()
        chunks = self._chunks
        while point > self._point + len(chunks[self._at]):
            self._forward()

    def _seek_byte(self, byte: int) -> None:
        if byte < self._byte:
            self._at = self._point = self._byte = 0
        while byte > self._byte + self._bytes[self._at]:
            self._forward()

    def _back(self) -> None:
        self._at -= 1
        self._point -= len(self._chunks[self._at])
        self._byte -= self._bytes[self._at]

    def _forward(self) -> None:
        self._point += len(self._chunks[self._at])
        self._byte += self._bytes[self._at]
        self._at += 1


def _points_in(text: str, size: int) -> int:
    """How many characters at the front of `text` take at most `size` bytes; by bisection."""
    low, high = 0, min(size, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if byte_length(text[:middle]) <= size:
            low = middle
        else:
            high = middle - 1
    return low


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= CHUNK_MAX:
        return iter((text,) if text else ())
    return (text[start : start + CHUNK_NEW] for start in range(0, len(text), CHUNK_NEW))
