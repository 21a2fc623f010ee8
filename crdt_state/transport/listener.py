"""A replica that listens: accepts connections, checks them, and lets them into rooms.

The order of checks is the order of cost: bounds per address and of time when a socket arrives,
`Host` and `Origin` when its request has been read, the token, the right to read, and only then
the document.  Every refusal after the handshake is a close code of 4400 to 4499 with a reason,
because a browser's program cannot see the status of a handshake that failed (how it is said:
`farewell`).

1. A step 1 is answered when everything that came before it on its connection is durable, from
   durable rows, or not at all.
2. Nothing that a peer sends is read before it has taken what it asked for, within bounds.
3. Nobody is in a room whose document has fallen out of use, or stays after a grant has ended.
4. Whatever a peer does ends its own conversation at most.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crdt_state.errors import (
    CrdtStateError,
    DocumentSetAside,
    EpochOutdated,
    InvalidDocumentId,
    LineageDeleted,
    QuotaExceeded,
    RemoteError,
    RemoteProtocolError,
    TokenRejected,
    UpdateRefused,
)
from crdt_state.identifiers import document_id_from_path
from crdt_state.lineage import BORN
from crdt_state.model.state import decode_state_vector
from crdt_state.protocol.sharedb.text_types import RICH_TEXT, TEXT_UNICODE
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
)
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.document_core import name_of
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.security.rate import Rate
from crdt_state.transport import codes
from crdt_state.transport.budget import Budget
from crdt_state.transport.connection import Accepted, ConnectionEnded
from crdt_state.transport.farewell import Departure, Farewells
from crdt_state.transport.member import Member
from crdt_state.transport.peer_visit import PEER_PATH, PeerVisit
from crdt_state.transport.reception import take_update
from crdt_state.transport.room import Room
from crdt_state.transport.sharedb_desk import SharedbDesk
from crdt_state.transport.sharedb_visit import SHAREDB_PATH
from crdt_state.transport.websocket import WebSocketConnection, send_to_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.protocol.sharedb.text_types import TextType
    from crdt_state.protocol.ywebsocket import Message
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.security.grant import Grant
    from crdt_state.security.tokens import Authentication

__all__ = ["Account", "Counted", "Listener", "Traffic", "Visit"]

MESSAGES_IN_A_ROW = 16
"""Taken of one connection before others have their turn."""


THIN_PATHS = {
    SHAREDB_PATH: None,
    **{f"{SHAREDB_PATH}/{kind.name}": kind for kind in (TEXT_UNICODE, RICH_TEXT)},
}
"""Where clients that know only operations speak, and in which type."""

GOODBYE = "the server is going down; reconnect"


@dataclass(frozen=True, slots=True)
class Visit:
    """What a connection asked for in its handshake: a path without query, and a token."""

    path: str
    token: str | None


@dataclass(slots=True)
class Traffic:
    """What went through a listener since it began; plain numbers, cheap to raise."""

    connections: int = 0
    connections_total: int = 0
    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    rejected: int = 0
    tokens_rejected: int = 0
    beyond_quota: int = 0
    resynchronised: int = 0
    dropped_as_slow: int = 0

    def write(self, members: Sequence[Member], frame: bytes) -> None:
        """Write a frame to members without waiting, and count it."""
        self.messages_sent += len(members)
        self.bytes_sent += len(members) * len(frame)
        wires = [m.connection for m in members if isinstance(m.connection, WebSocketConnection)]
        if wires:
            send_to_all(wires, frame)
        if len(wires) != len(members):
            for member in members:
                if not isinstance(member.connection, WebSocketConnection):
                    member.connection.send(frame)


class Listener:
    """Runs conversations; whoever owns the sockets calls `converse` for each connection."""

    def __init__(
        self,
        shell: ReplicaShell,
        authentication: Authentication,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        sent_away: Callable[[Departure], None] = lambda _: None,
        text_types: Mapping[str, TextType] | None = None,
        authority: str | None = None,
    ) -> None:
        """A listener without connections.

        `text_types` and `authority` are the desk's (`sharedb_desk`).

        `sleep` is how time passes for who brings too much or is refused, and between signs of
        life.  `sent_away` is told of everyone who is refused; it must not raise.
        """
        self.traffic = Traffic()
        self.rooms: dict[DocumentId, Room] = {}
        self.sharedb = SharedbDesk(self, types=text_types, authority=authority)
        self.shell = shell
        self._sleep = sleep
        self.authentication = authentication
        self.farewells = Farewells(shell.limits, self.traffic, sleep=sleep, sent_away=sent_away)
        self._visits: dict[PeerVisit, None] = {}
        self._accounts: dict[str, Account] = {}
        self.compressed = 0
        """Connections between replicas that are compressed."""
        self.large_answers = Budget(shell.limits.large_answers_bytes_max)
        self._one_at_a_time = asyncio.Lock()
        self._is_draining = False

    async def converse(self, connection: Accepted, visit: Visit) -> None:
        """One conversation from its beginning to its end; never raises for what a peer did."""
        self.traffic.connections += 1
        self.traffic.connections_total += 1
        name = name_of(ANYONE, connection.remote_address)
        try:
            if self._is_draining:
                raise RemoteProtocolError(GOODBYE, code=codes.RESTARTING)
            if visit.path == PEER_PATH:
                await self._receive_replica(connection, visit)
                return
            grant = self.authentication.grant(visit.token, now=self.shell.clock.wall())
            # As soon as it is known, so that what follows is reported under it.
            anywhere = Author(grant.identity, may_relay=grant.may_relay)
            name = name_of(anywhere, connection.remote_address)
            if visit.path in THIN_PATHS:
                await self._receive_thin(connection, grant, name, THIN_PATHS[visit.path])
                return
            await self._converse(connection, visit, grant)
        except ConnectionEnded:
            pass  # the ordinary end
        except (RemoteError, InvalidDocumentId) as error:
            code = codes.NO_DOCUMENT if isinstance(error, InvalidDocumentId) else _code_of(error)
            departure = Departure(name, visit.path, code, str(error))
            is_thin = visit.path in THIN_PATHS
            await self.farewells.say(connection, departure, reads_frames=not is_thin)
        except CrdtStateError as error:
            # Our store's, our workers' or our engine's; the peer may come again.
            await connection.close(codes.TRY_AGAIN_LATER, str(error))
        finally:
            self.traffic.connections -= 1

    async def show_life(self) -> None:
        """Say something in every room, for ever, often enough for stock clients to stay."""
        while True:
            await self._sleep(self.shell.limits.idle_message_seconds * 0.9)
            for room in tuple(self.rooms.values()):
                room.show_life()

    async def drain(self) -> None:
        """Let nobody in any more, make everything durable, say goodbye."""
        self._is_draining = True
        self.farewells.cut_short()
        await self.shell.flush()
        rooms = tuple(self.rooms.values())
        await asyncio.gather(
            *(room.close(codes.RESTARTING, GOODBYE) for room in rooms),
            *(visit.say_goodbye(codes.RESTARTING, GOODBYE) for visit in tuple(self._visits)),
            *(v.say_goodbye(codes.RESTARTING, GOODBYE) for v in tuple(self.sharedb.visits)),
        )

    # --- one conversation --------------------------------------------------------------------

    async def _receive_replica(self, connection: Accepted, visit: Visit) -> None:
        peer = PeerVisit(self, Counted(connection, self.traffic), visit.token)
        self._visits[peer] = None
        try:
            await peer.run()
        except RemoteError as error:
            await peer.send_away(_code_of(error), str(error))
        finally:
            self._visits.pop(peer, None)

    async def _receive_thin(
        self, connection: Accepted, grant: Grant, name: str, speaks: TextType | None
    ) -> None:
        if isinstance(connection, WebSocketConnection):
            connection.speak_text()
        try:
            counted = Counted(connection, self.traffic)
            await self.sharedb.receive(counted, grant, name=name, speaks=speaks)
        except RemoteError as error:
            departure = Departure(name, SHAREDB_PATH, _code_of(error), str(error))
            await self.farewells.say_to_replica(connection, departure)

    async def _converse(self, connection: Accepted, visit: Visit, grant: Grant) -> None:
        document = document_id_from_path(visit.path)
        if not grant.may_read(document):
            raise RemoteProtocolError(f"no right to read {document!r}", code=codes.FORBIDDEN)
        author = Author(grant.identity, grant.may_write(document), grant.may_relay)
        member = Member(connection, self.shell.new_source(), author, self.shell.limits)
        account = self.arrive(member.name)
        try:
            room = await self.enter(document, lambda room: self._join(room, member))
            try:
                with _Expiry(grant, room, member, self.shell):
                    await self._listen(room, member, account.rate)
            finally:
                self._leave(room, member)
        finally:
            self.depart(member.name)

    def _join(self, room: Room, member: Member) -> None:
        known = self.shell.core.get(room.document)
        if known is not None and known.life.is_deleted:
            raise LineageDeleted(f"{room.document!r} was deleted")
        room.join(member)

    async def _listen(self, room: Room, member: Member, rate: Rate) -> None:
        traffic, clock = self.traffic, self.shell.clock
        in_a_row = 0
        while room.is_here(member):
            frame = await member.connection.receive()
            if not room.is_here(member):
                break
            traffic.messages_received += 1
            traffic.bytes_received += len(frame)
            await self._take(room, member, decode(frame))
            wait = rate.take(len(frame), clock.now())
            if wait:
                await self._sleep(wait)
            await self.shell.has_room()
            await self._has_read(member, at_most=self.shell.limits.peer_queue_bytes_max)
            in_a_row += 1
            if in_a_row == MESSAGES_IN_A_ROW:
                # Nothing above waits while there is more to take; others want to, too.
                in_a_row = 0
                await asyncio.sleep(0)
        if member.farewell is not None:
            # Whoever returns first closes the connection, and this one knows the reason.
            await asyncio.wait([member.farewell])

    async def _has_read(self, member: Member, *, at_most: int) -> None:
        """Wait until a member has taken what is written for it: questions cost it less than us."""
        limits = self.shell.limits
        if member.connection.buffered_bytes <= at_most:
            return
        if not await member.drained(limits.peer_slow_seconds_max):
            self.traffic.dropped_as_slow += 1
            raise RemoteProtocolError(
                "this connection does not read what it asks for", code=codes.TOO_SLOW
            )

    async def _take(self, room: Room, member: Member, message: Message) -> None:
        match message:
            case Update(update) | SyncStep2(update):
                self._check_lineage(room, member)
                await self._take_update(room, member, update)
            case SyncStep1(state_vector):
                self._check_lineage(room, member, state_vector)
                await self._answer(room, member, state_vector)
            case AwarenessUpdate(payload):
                room.receive_awareness(member.source, payload)
            case QueryAwareness():
                room.answer_awareness(member)
            case PermissionDenied():
                raise RemoteProtocolError("only a server denies permission")

    async def _take_update(self, room: Room, member: Member, update: bytes) -> None:
        try:
            await take_update(
                self.shell,
                room.document,
                update,
                source=member.source,
                author=member.author,
                name=member.name,
                is_here=lambda: room.is_here(member),
            )
        except QuotaExceeded:
            self.traffic.beyond_quota += 1
            raise

    def _check_lineage(self, room: Room, member: Member, state_vector: bytes | None = None) -> None:
        """Let nobody bring the content of one lineage to another; this wire does not name them.

        Asked only of a document that was seeded or begun anew: whoever holds something of it shares
        a client with it, or has something else.
        """
        known = self.shell.core.get(room.document)
        if known is None or known.life == BORN or member.is_of_lineage:
            return
        if state_vector is None:
            raise RemoteProtocolError(
                "say first what you hold of it (step 1)", code=codes.OTHER_LINEAGE
            )
        if len(state_vector) > self.shell.limits.state_vector_bytes_max:
            return  # refused by whoever answers it
        theirs = decode_state_vector(state_vector)
        if theirs and not theirs.keys() & known.head.vector.keys():
            raise RemoteProtocolError(
                f"{room.document!r} was begun anew; what you hold of it has ended: load it again",
                code=codes.OTHER_LINEAGE,
            )
        member.is_of_lineage = True

    async def _answer(self, room: Room, member: Member, state_vector: bytes) -> None:
        """Answer a step 1: the barrier.  All that came before it on this socket is durable."""
        await self.shell.settled(room.document)
        update = await self.shell.difference(room.document, state_vector)
        if len(update) <= LARGE_BYTES:
            self.traffic.write([member], encode(SyncStep2(update)))
            return
        async with self.large_answers.spend(len(update)):
            async with self._one_at_a_time:
                # Copying it for a socket takes a while, and others want to be served in between.
                self.traffic.write([member], encode(SyncStep2(update)))
                await asyncio.sleep(0)
            await self._has_read(member, at_most=LARGE_BYTES)

    async def take_in(self, size: int, count: int, account: Account | None) -> None:
        """After a frame of `count` messages: wait as long as its identity brings too much."""
        if account is not None:
            wait = account.rate.take(size, self.shell.clock.now(), count)
            if wait:
                await self._sleep(wait)
        await self.shell.has_room()

    # --- rooms -------------------------------------------------------------------------------

    async def enter(self, document: DocumentId, join: Callable[[Room], None]) -> Room:
        """Let somebody into a document's room, by `join`; the room, until they leave it.

        Raises `StoreError`, `DocumentSetAside`, and `RemoteProtocolError` while draining.
        """
        while True:
            room = self.rooms.get(document)
            if room is None or room.is_over:
                room = self.rooms[document] = Room(
                    document, self.shell, self.traffic, self.farewells
                )
                room.opening = asyncio.create_task(self._open(room))
            room.awaited_by += 1
            try:
                if room.opening is not None:
                    await asyncio.shield(room.opening)
                # While this waited, the document may have fallen out of use again.
                if not room.is_over:
                    self._check_may_enter(room)
                    join(room)
                    return room
            finally:
                room.awaited_by -= 1
                self._forget_empty(room)

    async def _open(self, room: Room) -> None:
        try:
            await self.shell.use(room.document, room.source, room)
        finally:
            if self.rooms.get(room.document) is not room:
                # Everybody who waited for it has given up.
                self.shell.leave(room.document, room.source)

    def _check_may_enter(self, room: Room) -> None:
        if self._is_draining:
            raise RemoteProtocolError(GOODBYE, code=codes.RESTARTING)
        known = self.shell.core.get(room.document)
        if known is not None and known.set_aside is not None:
            raise DocumentSetAside(f"the document was set aside: {known.set_aside}")

    def _leave(self, room: Room, member: Member) -> None:
        room.leave(member)
        self._forget_empty(room)

    def leave_seat(self, room: Room, source: int) -> None:
        """A replica has let go of a document."""
        room.unseat(source)
        self._forget_empty(room)

    def _forget_empty(self, room: Room) -> None:
        if room.members or room.seats or room.awaited_by:
            return
        if self.rooms.get(room.document) is room:
            del self.rooms[room.document]
        self.shell.leave(room.document, room.source)

    # --- identities --------------------------------------------------------------------------

    def arrive(self, name: str) -> Account:
        """Count a connection of an identity.  Raises `RemoteProtocolError` for one too many."""
        account = self._accounts.get(name)
        if account is None:
            account = Account(Rate(self.shell.limits, self.shell.clock.now()))
            self._accounts[name] = account
        if account.connections >= self.shell.limits.identity_connections_max:
            reason = f"{account.connections} connections are open already; close some"
            raise RemoteProtocolError(reason, code=codes.TOO_MANY)
        account.connections += 1
        return account

    def depart(self, name: str) -> None:
        """A connection of an identity has ended."""
        account = self._accounts[name]
        account.connections -= 1
        if not account.connections:
            del self._accounts[name]


class Counted:
    """A connection whose messages are counted."""

    def __init__(self, connection: Accepted, traffic: Traffic) -> None:
        self._connection = connection
        self._traffic = traffic

    @property
    def remote_address(self) -> str:
        """See `Connection`."""
        return self._connection.remote_address

    def holds(self, size: int) -> None:
        """See `Accepted`."""
        self._connection.holds(size)

    @property
    def buffered_bytes(self) -> int:
        """See `Connection`."""
        return self._connection.buffered_bytes

    async def receive(self) -> bytes:
        """See `Connection`."""
        message = await self._connection.receive()
        self._traffic.messages_received += 1
        self._traffic.bytes_received += len(message)
        return message

    def send(self, message: bytes) -> None:
        """See `Connection`."""
        self._traffic.messages_sent += 1
        self._traffic.bytes_sent += len(message)
        self._connection.send(message)

    def send_texts(self, texts: Sequence[str], framed: Callable[[str], bytes]) -> None:
        """Send text messages; `framed` gives the frame of one, where frames are sent."""
        self._traffic.messages_sent += len(texts)
        self._traffic.bytes_sent += sum(map(len, texts))
        if isinstance(self._connection, WebSocketConnection):
            self._connection.send_frames(b"".join(map(framed, texts)))
        else:
            for text in texts:
                self._connection.send(text.encode())

    async def drained(self) -> None:
        """See `Connection`."""
        await self._connection.drained()

    async def close(self, code: int = codes.CLOSED, reason: str = "") -> None:
        """See `Connection`."""
        await self._connection.close(code, reason)


@dataclass(slots=True)
class Account:
    """What one identity, or one address where there are none, has open and brings."""

    rate: Rate
    connections: int = 0
    channels: int = 0


class _Expiry:
    """Ends a conversation when its grant does."""

    def __init__(self, grant: Grant, room: Room, member: Member, shell: ReplicaShell) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._room = room
        self._member = member
        if grant.expires_at is not None:
            seconds = (grant.expires_at - shell.clock.wall()) / 1_000_000
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._end)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._room.send_away(self._member, codes.EXPIRED, "the token has expired; bring a new one")


def _code_of(error: RemoteError) -> int:
    if isinstance(error, RemoteProtocolError | UpdateRefused | TokenRejected | EpochOutdated):
        return error.code
    return codes.MALFORMED
