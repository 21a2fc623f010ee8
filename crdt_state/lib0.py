"""The byte coding beneath Yjs: unsigned varints, byte strings, UTF-8 strings.

lib0 (https://github.com/dmonad/lib0): a varint is little-endian base 128, its high bit saying
that more follows; every length is a count of bytes.  This reader refuses what lib0's own lets
through: input that ends early, integers beyond 2^53 - 1, overlong integers, strings that
are not UTF-8, and bytes left over where `finish` is called.
"""

from __future__ import annotations

__all__ = [
    "VARUINT_MAX",
    "CodingError",
    "Reader",
    "encode_bytes",
    "encode_string",
    "encode_varuint",
]

VARUINT_MAX = 2**53 - 1


class CodingError(ValueError):
    """Bytes that are not what the coding says; whoever knows whose bytes they are renames it."""


def encode_varuint(number: int) -> bytes:
    """`number` (0 to 2^53 - 1) as 1 to 8 bytes."""
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_bytes(data: bytes) -> bytes:
    """`data` after its length."""
    return encode_varuint(len(data)) + data


def encode_string(text: str) -> bytes:
    """`text` as UTF-8 after its length in bytes."""
    return encode_bytes(text.encode())


_ONE_BYTE = [bytes([number]) for number in range(128)]


class Reader:
    """Reads one buffer from front to back; `at` is the offset of the next byte."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def byte(self) -> int:
        """The next byte."""
        try:
            value = self.data[self.at]
        except IndexError:
            raise CodingError(f"ends at byte {self.at}, where one more should be") from None
        self.at += 1
        return value

    def varuint(self) -> int:
        """An unsigned integer up to 2^53 - 1."""
        data, at = self.data, self.at
        value = shift = 0
        try:
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 49:
                    raise CodingError(f"an integer at byte {self.at} takes more than 8 bytes")
        except IndexError:
            raise CodingError(f"ends inside an integer at byte {self.at}") from None
        if shift and not byte:
            raise CodingError(f"an integer at byte {self.at} is longer than it needs to be")
        if value > VARUINT_MAX:
            raise CodingError(f"an integer at byte {self.at} is beyond 2^53 - 1")
        self.at = at
        return value

    def bytes(self) -> bytes:
        """A byte string after its length."""
        size = self.varuint()
        end = self.at + size
        if end > len(self.data):
            missing = end - len(self.data)
            raise CodingError(f"a string at byte {self.at} ends {missing} bytes short")
        value = self.data[self.at : end]
        self.at = end
        return value

    def string(self) -> str:
        """A UTF-8 string after its length in bytes."""
        start = self.at
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise CodingError(f"the string at byte {start} is not UTF-8") from None

    def is_done(self) -> bool:
        """Whether every byte has been read."""
        return self.at == len(self.data)

    def finish(self) -> None:
        """Refuse bytes that are left over."""
        left = len(self.data) - self.at
        if left:
            raise CodingError(f"{left} bytes are left over at byte {self.at}")
