"""A peer over our own protocol that follows its rules only as far as it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Close,
    Hello,
    Open,
    Passed,
    State,
    Welcome,
    decode_all,
    encode,
)
from crdt_state.protocol.peer.messages import Barrier as BarrierMessage
from raw_peer import BINARY, RawPeer

if TYPE_CHECKING:
    from typing import Self

    from crdt_state.protocol.peer.messages import Message

__all__ = ["HELLO", "PATH", "RawReplica"]

M = TypeVar("M")

PATH = "-/sync"
KEPT = (Welcome, State, Passed, Close, Acknowledge)
KEPT_MAX = 1_000

HELLO = Hello(
    version_min=1,
    version_max=1,
    replica=ReplicaId(b"h" * 16),
    incarnation=Incarnation(b"i" * 16),
    message_bytes_max=1 << 25,
    update_bytes_max=1 << 24,
    credit=1 << 40,
    token="",
)


class RawReplica(RawPeer):
    """One connection; of what it hears the last of the kinds in `KEPT` are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Message] = []
        self._has_heard = asyncio.Event()

    @classmethod
    async def meet(cls, port: int, number: int = 0) -> Self:
        """A connection on which both sides have greeted."""
        peer = await cls.connect(port, PATH)
        assert isinstance(peer, cls)
        peer.say(replace(HELLO, replica=ReplicaId(number.to_bytes(16))))
        assert await peer.hear(Welcome) is not None
        return peer

    def say(self, *messages: Message) -> None:
        """Say messages, as far as they fit in one frame."""
        self.send(b"".join(map(encode, messages)))

    async def open(self, channel: int, document: str, vector: bytes = b"\0") -> Message | None:
        """Open a document; its `State`, or None where there is none."""
        self.say(Open(channel, DocumentId(document), vector))
        return await self.hear(State)

    async def passed(self, channel: int) -> bool:
        """Whether all that was said on a channel is durable there; False when hung up instead."""
        self.say(BarrierMessage(channel))
        return await self.hear(Passed) is not None

    async def hear(self, kind: type[M]) -> M | None:
        """The next message of a kind, or None where a channel or the connection ends before."""
        while True:
            for at, message in enumerate(self.heard):
                if isinstance(message, kind):
                    del self.heard[: at + 1]
                    return message
                if isinstance(message, Close):
                    return None
            if self.ended.done():
                return None
            self._has_heard.clear()
            await self._either(self._has_heard)

    def _take(self, opcode: int, buffer: bytearray, start: int, end: int) -> None:
        if opcode != BINARY:
            super()._take(opcode, buffer, start, end)
            return
        try:
            messages = decode_all(bytes(buffer[start:end]))
        except RemoteProtocolError as error:  # the server says nothing that is none
            raise AssertionError(error) from error
        self.heard += [message for message in messages if isinstance(message, KEPT)]
        del self.heard[:-KEPT_MAX]
        self._has_heard.set()
