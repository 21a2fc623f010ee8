"""One replica that has dialled us: its greeting, its token, and the documents it opens.

The order of checks is that of the listener: the token, then for each document the right to read,
then the document.  What is wrong with one document closes its channel, never the connection; what
is wrong with the peer closes the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import (
    CrdtStateError,
    QuotaExceeded,
    RemoteProtocolError,
    UpdateRefused,
    WriteNotPermitted,
)
from crdt_state.identifiers import ReplicaId, path_of
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.protocol.peer.compression import ZSTD
from crdt_state.protocol.peer.conversation import CAPABILITIES, VERSION, Role, SyncProtocol
from crdt_state.protocol.peer.messages import (
    Authenticate,
    Authenticated,
    Hello,
    Member,
    Members,
    Open,
    Welcome,
)
from crdt_state.protocol.peer.scopes import ScopeMessage
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.document_core import name_of
from crdt_state.replica.succession import held_by_anybody, succeed
from crdt_state.transport import codes
from crdt_state.transport.channel import Channel
from crdt_state.transport.farewell import Departure
from crdt_state.transport.peer_connection import PeerConnection
from crdt_state.transport.scope_visit import ScopeVisit
from crdt_state.transport.showing import Showing

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life
    from crdt_state.protocol.peer.messages import Awareness, Message
    from crdt_state.replica.document_core import Refusal
    from crdt_state.security.grant import Grant
    from crdt_state.transport.listener import Account, Counted, Listener
    from crdt_state.transport.room import Room

__all__ = ["PEER_PATH", "PeerVisit"]

NOBODY = ReplicaId(bytes(16))
"""Until the greeting says who it is."""

PEER_PATH = "/-/sync"
"""Where replicas speak their own protocol; every other path is a document's, for y-websocket."""

NO_MEMBER = Member(0, "")
"""Said by whoever takes part in no topology."""


ANSWERED_AT_ONCE = 16
"""Documents of one connection that are loaded and answered at the same time."""


class PeerVisit:
    """A conversation with a replica, from its greeting to its end."""

    def __init__(self, listener: Listener, connection: Counted, token: str | None) -> None:
        """`token` is one that the handshake brought; the greeting's counts before it."""
        self._listener = listener
        self._shell = listener.shell
        self._connection = connection
        self._token = token
        self._grant: Grant | None = None
        self._account: Account | None = None
        self._name = name_of(ANYONE, connection.remote_address)
        self._is_compressed = False
        self._peer = NOBODY
        self._meeting: asyncio.Task[bool] | None = None
        self._seats: dict[DocumentId, _Seat] = {}
        self._sources: set[int] = set()
        """Those of the channels that are in use."""
        self._answering = asyncio.Semaphore(ANSWERED_AT_ONCE)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._is_sent_away = False
        limits = self._shell.limits
        self.protocol = SyncProtocol(Role.LISTENER, limits)
        self.wire = PeerConnection(
            connection,
            self.protocol,
            limits,
            received=self._received,
            large_answers=listener.large_answers,
        )
        self._scopes = ScopeVisit(
            self._shell,
            self.wire,
            grant=self._granted,
            author=self._author_at,
            name=lambda: self._name,
            is_from_peer=self._is_from_channel,
            was_forgotten=self._was_forgotten,
        )

    async def run(self) -> None:
        """Talk until the end.  Raises `ConnectionEnded`, `RemoteError`, `CrdtStateError`."""
        greeting = asyncio.get_running_loop().call_later(
            self._shell.limits.handshake_seconds_max, self._give_up_waiting
        )
        try:
            async for message in self.wire.messages():
                greeting.cancel()
                if not self._is_sent_away:
                    self._take(message)
        finally:
            greeting.cancel()
            await self._end()

    async def say_goodbye(self, code: int, reason: str) -> None:
        """End the connection."""
        await self._connection.close(code, reason)

    async def send_away(self, code: int, reason: str) -> None:
        """End the connection, because the peer is refused; nothing more is taken of it."""
        self._is_sent_away = True
        self.wire.end(reason)
        departure = Departure(self._name, PEER_PATH, code, reason)
        await self._listener.farewells.say_to_replica(self._connection, departure)

    def _take(self, message: Message) -> None:
        match message:
            case Hello():
                self._greet(message)
            case Authenticate(token):
                self._renew(token)
            case Open():
                self._start_seat(message)
            case _ if isinstance(message, ScopeMessage):
                self._scopes.take(message)
            case Member():
                self._meet(message)
            case Members():
                self._hear_of(message)
            case _:
                raise AssertionError("channels and credit are the connection's")

    # --- who it is ---------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> None:
        if not hello.version_min <= VERSION <= hello.version_max:
            raise RemoteProtocolError(
                f"this side speaks version {VERSION}, not {hello.version_min} to "
                f"{hello.version_max}; update the older one",
                code=codes.VERSION_UNKNOWN,
            )
        self._peer = hello.replica
        self._shell.holdings.met(hello.replica, hello.incarnation)
        now = self._shell.clock.wall()
        self._grant = self._listener.authentication.grant(hello.token or self._token, now=now)
        author = Author(self._grant.identity, may_relay=self._grant.may_relay)
        # As soon as it is known, so that what follows is reported under it.
        self._name = name_of(author, self._connection.remote_address)
        self._account = self._listener.arrive(self._name)
        self._meeting = asyncio.create_task(self._shell.peers.met(hello.replica, now))
        self._expire_later()
        self.protocol.greet(
            Welcome(
                version=VERSION,
                replica=self._shell.store.replica_id,
                incarnation=self._shell.store.incarnation,
                capabilities=self._agreed(hello.capabilities),
                message_bytes_max=self._shell.limits.message_bytes_max,
                update_bytes_max=self._shell.limits.update_bytes_max,
                credit=self._shell.limits.peer_credit_bytes,
                expires_at=self._grant.expires_at or 0,
            )
        )
        self.wire.touch()

    def _agreed(self, offered: tuple[str, ...]) -> tuple[str, ...]:
        """What both can do; compression takes memory, so beyond a bound there is none."""
        agreed = tuple(name for name in CAPABILITIES if name in offered)
        if ZSTD not in agreed:
            return agreed
        if self._listener.compressed >= self._shell.limits.compressed_connections_max:
            return tuple(name for name in agreed if name != ZSTD)
        self._listener.compressed += 1
        self._is_compressed = True
        return agreed

    def _renew(self, token: str) -> None:
        """A fresh token: who it is stays the same; what it may do is looked at again."""
        assert self._grant is not None  # noqa: S101 - the table lets nothing through before
        grant = self._listener.authentication.grant(token, now=self._shell.clock.wall())
        if grant.identity != self._grant.identity:
            raise RemoteProtocolError("the new token is somebody else's", code=codes.EXPIRED)
        before, self._grant = self._grant, grant
        self._expire_later()
        # Nothing is looked at again for whoever brings the same again and again.
        for seat in tuple(self._seats.values()) if grant != before else ():
            seat.channel.author = self._author_at(seat.channel.document)
            if not grant.may_read(seat.channel.document):
                seat.channel.close(codes.FORBIDDEN, "the new token gives no right to read it")
        if grant.rights != before.rights:
            self._scopes.grant_changed()
        self.protocol.say(Authenticated(grant.expires_at or 0))
        self.wire.touch()

    def _granted(self) -> Grant:
        assert self._grant is not None  # noqa: S101 - the table lets nothing through before
        return self._grant

    def _is_from_channel(self, source: int) -> bool:
        return source in self._sources

    def _meet(self, said: Member) -> None:
        """A member of a topology says who it is, and is told the same of us."""
        membership, grant = self._shell.membership, self._grant
        if membership is None or grant is None:
            self.protocol.say(NO_MEMBER)
        else:
            # Before it is looked at: whoever is behind has to hear which epoch this is.
            self.protocol.say(membership.says())
            self.wire.flush()
            membership.heard(self._peer, said, may_relay=grant.may_relay)
            if grant.may_relay:
                self.protocol.say(membership.tells())
        self.wire.touch()

    def _hear_of(self, tales: Members) -> None:
        membership, grant = self._shell.membership, self._grant
        if membership is not None and grant is not None and grant.may_relay:
            membership.heard_of(tales)

    def _author_at(self, document: DocumentId) -> Author:
        grant = self._granted()
        return Author(grant.identity, grant.may_write(document), grant.may_relay)

    def _expire_later(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._grant is not None and self._grant.expires_at is not None:
            seconds = (self._grant.expires_at - self._shell.clock.wall()) / 1_000_000
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, seconds), self._expire)

    def _expire(self) -> None:
        self._start(
            self.send_away(codes.EXPIRED, "the token has expired; bring a new one"), "farewell"
        )

    def _give_up_waiting(self) -> None:
        self._start(self.send_away(codes.TOO_SLOW, "nothing was said in time"), "farewell")

    async def _received(self, size: int, count: int) -> None:
        self._connection.holds(self.protocol.unfinished_bytes)
        await self._listener.take_in(size, count, self._account)
        await self._scopes.has_room()

    # --- its documents -----------------------------------------------------------------------

    def _start_seat(self, asked: Open) -> None:
        grant = self._grant
        assert grant is not None  # noqa: S101 - the table lets nothing through before
        if not grant.may_read(asked.document):
            self._turn_away(asked, codes.FORBIDDEN, f"no right to read {asked.document!r}")
        elif asked.document in self._seats:
            reason = f"{asked.document!r} is open on this connection already"
            self._turn_away(asked, codes.MALFORMED, reason)
        elif self._has_enough_open():
            reason = "this identity has too many documents open; close some"
            self._turn_away(asked, codes.TOO_MANY, reason)
        else:
            # At once, so that whatever the peer says next on it, its end included, is heard.
            seat = self._seats[asked.document] = _Seat(self, asked)
            if self._account is not None:
                self._account.channels += 1
            self._sources.add(seat.channel.source)
            self.wire.register(asked.channel, seat.channel)
            seat.showing.begin(is_dialled=False)
            self._start(self._seat(seat, asked), f"channel {asked.channel}")

    def _turn_away(self, asked: Open, code: int, reason: str) -> None:
        self.wire.close_channel(asked.channel, code, reason)
        self.note_end(asked.document, code, reason)

    def _has_enough_open(self) -> bool:
        account = self._account
        most = self._shell.limits.identity_channels_max
        return account is not None and account.channels >= most

    async def _enter(self, seat: _Seat, life: Life) -> Room:
        """Sit down at a document, once its life here is at least the one that the peer has."""
        channel, listener = seat.channel, self._listener
        while True:
            room = await listener.enter(channel.document, seat.sit_down)
            known = self._shell.core.get(channel.document)
            if known is None or not known.life < life:
                return room
            listener.leave_seat(room, channel.source)
            if not channel.author.may_write:
                raise WriteNotPermitted(f"no right to begin or end {channel.document!r}")
            await succeed(
                self._shell,
                channel.document,
                life,
                held=held_by_anybody,
                told_by=self._shell.peers.name_of(self._peer),
                creator=None if life.is_deleted else channel.author.identity,
            )

    async def _must_have_been_deleted(self, asked: Open) -> bool:
        """Whether a peer that had been forgotten brings what was here, and is not any more."""
        known = self._shell.core.get(asked.document)
        is_here = known is None or known.exists
        has_nothing = asked.state_vector == EMPTY_VECTOR or asked.life.is_deleted
        if is_here or has_nothing or asked.is_new:
            return False
        return await self._was_forgotten()

    async def _was_forgotten(self) -> bool:
        """Whether the peer was silent for so long that deletions were not remembered for it."""
        return self._meeting is not None and await asyncio.shield(self._meeting)

    async def _seat(self, seat: _Seat, asked: Open) -> None:
        channel = seat.channel
        try:
            async with self._answering:
                await self.wire.has_room()
                if channel.is_over:
                    return
                room = await self._enter(seat, asked.life)
                if self._seats.get(channel.document) is not seat:  # it ended meanwhile
                    self._listener.leave_seat(room, channel.source)
                    return
                seat.room = room
                is_unknown = await self._must_have_been_deleted(asked)
                await channel.answer(asked.state_vector, asked.life, is_unknown=is_unknown)
        except (UpdateRefused, RemoteProtocolError) as error:
            channel.close(error.code, error.reason)
        except CrdtStateError as error:
            channel.close(codes.TRY_AGAIN_LATER, str(error))
        except Exception as error:
            channel.close(codes.TRY_AGAIN_LATER, "something went wrong here; it was reported")
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a channel about {channel.document!r} failed", "exception": error}
            )

    def note_end(self, document: DocumentId, code: int, reason: str) -> None:
        """Count and report a channel that we have closed."""
        self._listener.traffic.beyond_quota += code == QuotaExceeded.code
        self._listener.farewells.note(Departure(self._name, path_of(document), code, reason))

    def left(self, seat: _Seat) -> None:
        """A channel is over."""
        self._shell.core.bringers.pop(seat.channel.source, None)
        self._sources.discard(seat.channel.source)
        if self._seats.get(seat.channel.document) is seat:
            del self._seats[seat.channel.document]
            if self._account is not None:
                self._account.channels -= 1
        seat.showing.end()
        room, seat.room = seat.room, None
        if room is not None:
            self._listener.leave_seat(room, seat.channel.source)

    def new_channel(self, document: DocumentId, seat: _Seat, number: int) -> Channel:
        """The channel of a seat."""
        source = self._shell.new_source()
        self._shell.core.bringers[source] = self._peer
        if self._shell.membership is not None:
            self._shell.membership.opened(document)
        return Channel(
            self._shell,
            self.wire,
            document,
            seat,
            peer=self._peer,
            source=source,
            author=self._author_at(document),
            name=self._name,
            number=number,
        )

    def new_showing(self, channel: Channel) -> Showing:
        """The awareness of a seat's channel."""
        return Showing(self._shell, self.wire, channel)

    async def _end(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            if task.get_name() != "farewell":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._scopes.close()
        self.wire.end()
        for seat in tuple(self._seats.values()):
            seat.channel.end()
            self.left(seat)
        self._listener.compressed -= self._is_compressed
        if self._account is not None:
            self._listener.depart(self._name)

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)


class _Seat:
    """A channel's place at the document's room."""

    def __init__(self, visit: PeerVisit, asked: Open) -> None:
        self.room: Room | None = None
        self._visit = visit
        self.channel = visit.new_channel(asked.document, self, asked.channel)
        self.showing = visit.new_showing(self.channel)

    def sit_down(self, room: Room) -> None:
        """Take the place."""
        room.seat(self.channel.source)

    # --- as the attendant of its channel -----------------------------------------------------

    def progressed(self) -> None:
        """Nothing is waited for here."""

    def heard_awareness(self, message: Awareness) -> None:
        """Pass it on to everyone at this document."""
        self.showing.heard(message)

    def was_refused(self, refusal: Refusal) -> None:
        """End the channel with the code and the reason."""
        self.channel.close(refusal.error.code, refusal.error.reason)

    def channel_ended(self, code: int, reason: str, *, by_peer: bool) -> None:
        """Leave the room."""
        if not by_peer:
            self._visit.note_end(self.channel.document, code, reason)
        self._visit.left(self)
