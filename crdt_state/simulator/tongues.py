"""How a lying peer speaks: what it says as an honest one would, and the lies of each wire.

A tongue says one thing on one connection, and then asks whether all of it is durable there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import Incarnation, ReplicaId, path_of
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.protocol import ywebsocket
from crdt_state.protocol.peer import messages
from crdt_state.protocol.peer.conversation import BARRIERS_MAX, VERSION, Role, SyncProtocol
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.link import Wire
from crdt_state.transport.peer_visit import PEER_PATH

if TYPE_CHECKING:
    from random import Random

    from crdt_state.identifiers import DocumentId
    from crdt_state.protocol.peer.messages import Message
    from crdt_state.transport.connection import Connection

__all__ = ["Told", "Tongue", "tongue_for"]

CREDIT = 64 * 1024 * 1024
FAR = 1_000


class Told(NamedTuple):
    """What one was told of an update that one has brought."""

    is_durable: bool
    is_applied: bool = False
    """Said over our own protocol alone."""


class Tongue(Protocol):
    """One visit's way of talking."""

    def path(self, document: DocumentId) -> str:
        """Where the document is talked about."""

    async def tell(self, connection: Connection, document: DocumentId, update: bytes) -> Told:
        """Bring one update, and ask what became of it.  Raises `ConnectionEnded`."""

    async def lie(self, connection: Connection, document: DocumentId, update: bytes) -> None:
        """Say something that is not so, with `update`, which is malformed, if need be."""


def tongue_for(wire: Wire, dice: Random) -> Tongue:
    """The tongue of a wire."""
    return _OverReplica(dice) if wire is Wire.REPLICA else _OverYWebsocket()


class _OverYWebsocket:
    def path(self, document: DocumentId) -> str:
        return path_of(document)

    async def tell(self, connection: Connection, document: DocumentId, update: bytes) -> Told:
        connection.send(ywebsocket.encode_update(update))
        connection.send(ywebsocket.encode(ywebsocket.SyncStep1(EMPTY_VECTOR)))
        while not isinstance(ywebsocket.decode(await connection.receive()), ywebsocket.SyncStep2):
            pass
        return Told(is_durable=True)

    async def lie(self, connection: Connection, document: DocumentId, update: bytes) -> None:
        await self.tell(connection, document, update)


class _OverReplica:
    def __init__(self, dice: Random) -> None:
        self._dice = dice

    def path(self, document: DocumentId) -> str:
        return PEER_PATH

    async def tell(self, connection: Connection, document: DocumentId, update: bytes) -> Told:
        visit = _Visit(connection, self._dice)
        number = await visit.open(document)
        visit.protocol.send_updates(number, (update,))
        await visit.pass_barrier(number)
        return Told(visit.durable > 0, visit.applied > 0)

    async def lie(self, connection: Connection, document: DocumentId, update: bytes) -> None:
        visit = _Visit(connection, self._dice)
        number = await visit.open(document)
        connection.send(self._lie(number, update))
        # What it is told of what it has not counted itself confuses the liar alone.
        with suppress(RemoteProtocolError):
            await visit.pass_barrier(number)

    def _lie(self, number: int, update: bytes) -> bytes:
        dice = self._dice
        true = messages.encode(messages.Updates(number, 1, (update,)))
        mutant = bytearray(true)
        mutant[dice.randrange(len(mutant))] ^= 1 << dice.randrange(8)
        other = ReplicaId(dice.randbytes(16))
        lies = (
            messages.encode(messages.Acknowledge(number, FAR, FAR)),
            messages.encode(messages.Updates(number + 2, 1, (update,))),
            messages.encode(messages.Updates(number, FAR, (update,))),
            messages.encode(messages.Passed(number)) * BARRIERS_MAX,
            messages.encode(messages.Part(0, FAR, update)) * 2,
            messages.encode(messages.Held(number, other, FAR)) + true,
            messages.encode(messages.Barrier(number)) + true,
            bytes(mutant),
            dice.randbytes(dice.randint(1, 40)),
        )
        return dice.choice(lies)


class _Visit:
    """The honest beginning of a conversation over our own protocol."""

    def __init__(self, connection: Connection, dice: Random) -> None:
        self.protocol = SyncProtocol(Role.DIALLER, DEFAULT_LIMITS)
        self.durable = 0
        self.applied = 0
        self._connection = connection
        self._dice = dice

    async def open(self, document: DocumentId) -> int:
        """Greet, and open a channel; its number, once there is an answer."""
        dice, protocol = self._dice, self.protocol
        hello = messages.Hello(
            version_min=VERSION,
            version_max=VERSION,
            replica=ReplicaId(dice.randbytes(16)),
            incarnation=Incarnation(dice.randbytes(16)),
            capabilities=(),
            message_bytes_max=DEFAULT_LIMITS.message_bytes_max,
            update_bytes_max=DEFAULT_LIMITS.update_bytes_max,
            credit=CREDIT,
            token="",
        )
        protocol.greet(hello)
        await self._hear(messages.Welcome)
        number = protocol.open(document, EMPTY_VECTOR)
        await self._hear(messages.State)
        return number

    async def pass_barrier(self, number: int) -> None:
        """Return when what became of all that was said on a channel is known."""
        self.protocol.say(messages.Barrier(number))
        await self._hear(messages.Passed)

    async def _hear(self, wanted: type[Message]) -> None:
        """Listen until a message of this kind; the `Close` of the only channel ends it."""
        while True:
            for frame in self.protocol.frames_to_send():
                self._connection.send(frame)
            for message in self.protocol.receive(await self._connection.receive()):
                if isinstance(message, messages.Close):
                    raise ConnectionEnded(message.code, message.reason)
                if isinstance(message, messages.Updates):
                    self._acknowledge(message)
                if isinstance(message, messages.Acknowledge):
                    self.durable, self.applied = message.durable, message.applied
                if isinstance(message, wanted):
                    return

    def _acknowledge(self, message: messages.Updates) -> None:
        """Say that it is kept, which is a lie, too: nobody may owe this peer anything for it."""
        last = message.first + len(message.updates) - 1
        self.protocol.acknowledge(message.channel, last, last)
