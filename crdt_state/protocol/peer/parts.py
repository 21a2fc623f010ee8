"""Messages too large for one frame, in parts; small ones of other channels go in between.

1. A receiver holds at most `TRANSFERS_MAX` unfinished messages, together no larger than one may
   be; whoever claims more is refused at the first part that says so.
2. What follows on the channel of a message in parts waits until its last part is out, so that a
   channel stays in order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crdt_state.errors import RemoteProtocolError
from crdt_state.protocol.peer.messages import Part, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FRAME_BYTES_MAX", "PART_BYTES", "Assembler", "Splitter"]

FRAME_BYTES_MAX = 128 * 1024
"""No frame is larger; what a message takes beyond `PART_BYTES` goes in parts."""

PART_BYTES = 64 * 1024

TRANSFERS_MAX = 8


class Assembler:
    """Puts the messages of one peer together again."""

    def __init__(self, message_bytes_max: int) -> None:
        self._bytes_max = message_bytes_max
        self._unfinished: dict[int, bytearray] = {}
        self._left: dict[int, int] = {}
        self._claimed = 0

    @property
    def size(self) -> int:
        """Bytes that are held of messages that are not whole yet."""
        return sum(map(len, self._unfinished.values()))

    def take(self, part: Part) -> bytes | None:
        """The whole message, where this part makes it whole.  Raises `RemoteProtocolError`."""
        size = len(part.content)
        if not size:
            raise RemoteProtocolError("a part of nothing")
        expected = self._left.get(part.transfer)
        if expected is None:
            self._begin(part)
        elif expected != size + part.left:
            raise RemoteProtocolError(
                f"transfer {part.transfer} had {expected} bytes left, and a part says "
                f"{size + part.left}"
            )
        content = self._unfinished[part.transfer]
        content += part.content
        self._left[part.transfer] = part.left
        if part.left:
            return None
        del self._unfinished[part.transfer], self._left[part.transfer]
        self._claimed -= len(content)
        return bytes(content)

    def _begin(self, part: Part) -> None:
        total = len(part.content) + part.left
        if len(self._unfinished) >= TRANSFERS_MAX:
            raise RemoteProtocolError(f"more than {TRANSFERS_MAX} messages in parts at once")
        if self._claimed + total > self._bytes_max:
            raise RemoteProtocolError(
                f"messages in parts of {self._claimed + total:,} bytes together are more than "
                f"message_bytes_max = {self._bytes_max:,} allows",
                code=4413,
            )
        self._claimed += total
        self._unfinished[part.transfer] = bytearray()


@dataclass(slots=True)
class _Transfer:
    number: int
    message: bytes
    at: int = 0
    behind: list[bytes] = field(default_factory=list)

    def next_part(self) -> bytes:
        content = self.message[self.at : self.at + PART_BYTES]
        self.at += len(content)
        return encode(Part(self.number, len(self.message) - self.at, content))


class Splitter:
    """Cuts what we send.  Some transfers take turns, a part each; the others wait for a place.

    No more are under way than the receiver puts together (`Assembler`).
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes that wait here, in messages in parts and behind them."""
        self.bytes_max = 0
        """Of messages under way, together; what the peer announced."""
        self._transfers: dict[int, _Transfer] = {}
        self._line: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._claimed = 0
        self._next_number = 0

    def __bool__(self) -> bool:
        return bool(self._transfers)

    def holds_back(self, channel: int) -> bool:
        """Whether what is sent on this channel has to wait behind a message in parts."""
        return channel in self._transfers

    def add(self, channel: int, message: bytes) -> None:
        """A message of a channel that is large, or that has to wait."""
        self.size += len(message)
        transfer = self._transfers.get(channel)
        if transfer is not None:
            transfer.behind.append(message)
        else:
            self._begin(channel, message, [])

    def parts(self, count: int) -> Iterator[bytes]:
        """The next parts, and what followed a message whose last part is among them."""
        for _ in range(count):
            self._give_places()
            if not self._line:
                return
            channel = self._line.popleft()
            transfer = self._transfers[channel]
            before = transfer.at
            yield transfer.next_part()
            self.size -= transfer.at - before
            if transfer.at < len(transfer.message):
                self._line.append(channel)
                continue
            del self._transfers[channel]
            self._claimed -= len(transfer.message)
            yield from self._release(channel, transfer.behind)

    def _give_places(self) -> None:
        while self._waiting and len(self._line) < TRANSFERS_MAX:
            size = len(self._transfers[self._waiting[0]].message)
            if self._line and self._claimed + size > self.bytes_max:
                return
            self._claimed += size
            self._line.append(self._waiting.popleft())

    def _release(self, channel: int, behind: list[bytes]) -> Iterator[bytes]:
        for at, message in enumerate(behind):
            if len(message) > PART_BYTES:
                self._begin(channel, message, behind[at + 1 :])
                return
            self.size -= len(message)
            yield message

    def _begin(self, channel: int, message: bytes, behind: list[bytes]) -> None:
        self._transfers[channel] = _Transfer(self._next_number, message, behind=behind)
        self._next_number += 1
        self._waiting.append(channel)
