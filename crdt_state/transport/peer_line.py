"""The dialling end of our own protocol: one connection to a remote, made again for ever.

1. A line is dialled again whatever ended it.
2. The token is asked for anew at each greeting, and is never part of an address.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import CrdtStateError, RemoteError, RemoteProtocolError
from crdt_state.protocol.peer.conversation import (
    CAPABILITIES,
    MEMBERS_KNOWN,
    VERSION,
    Role,
    SyncProtocol,
)
from crdt_state.protocol.peer.messages import (
    Authenticate,
    Authenticated,
    Hello,
    Member,
    Members,
    Welcome,
)
from crdt_state.protocol.peer.scopes import ScopeMessage
from crdt_state.sync.exchange import Progress
from crdt_state.transport import codes
from crdt_state.transport.budget import Budget
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.peer_connection import PeerConnection
from crdt_state.transport.peer_visit import PEER_PATH
from crdt_state.transport.reconnect import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.identifiers import ReplicaId
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.transport.connection import Connection, Dial
    from crdt_state.transport.scope_link import ScopeLink

__all__ = ["PeerLine", "report"]

RENEWED_AFTER = 0.8
"""Of a grant's time, after which a fresh token is brought."""

NOT_SPOKEN = frozenset({codes.NOT_WEBSOCKET, codes.NOT_BINARY, codes.MALFORMED, codes.NO_DOCUMENT})
"""How a server ends a connection of which it does not know what is spoken there."""

TRY_ANOTHER_WIRE = "a server that speaks y-websocket alone is reached with wire=Wire.Y_WEBSOCKET"


class PeerLine:
    """One connection to a remote, made again whenever it has ended."""

    def __init__(
        self,
        shell: ReplicaShell,
        remote: str,
        dial: Dial,
        *,
        token: str | Callable[[], str] | None,
        changed: Callable[[], None],
        remotes: Remotes,
        owes_more: Callable[[], None],
        scopes: ScopeLink,
        is_to_member: bool = False,
    ) -> None:
        """`owes_more` is called when documents have come to be owed to the remote.

        With `is_to_member` both sides say what they are in their topology before anything else.
        """
        self._is_to_member = is_to_member
        self.last_error: str | None = None
        self.progress = Progress.OFFLINE
        """How far the connection is; REFUSED stands until the remote lets us in or is not there."""
        self.welcome: Welcome | None = None
        """Who is at the other end, of the connection that there is or was last."""
        self.is_to_itself = False
        """Whether this replica was found to be at the other end."""
        self._shell = shell
        self._remote = remote
        self._remotes = remotes
        self._owes_more = owes_more
        self._scopes = scopes
        self._url = remote + PEER_PATH
        self._dial = dial
        self._token = token
        self._changed = changed
        self._backoff = Backoff(shell.limits, shell.random)
        self._farewell: asyncio.Task[None] | None = None
        self._token_said = ""
        self._renewing: asyncio.TimerHandle | None = None
        self._wire: PeerConnection | None = None
        self._large_answers = Budget(shell.limits.large_answers_bytes_max)
        self._is_up = asyncio.Event()
        self._has_met = False
        """Whether the remote has greeted on this connection, or did on the last."""
        self._stay: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Dial, in the background."""
        self._stay = asyncio.create_task(self._stay_connected(), name=f"line {self._url}")

    async def close(self) -> None:
        """Hang up for good."""
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.gather(self._stay, return_exceptions=True)

    @property
    def is_up(self) -> bool:
        """Whether both sides have greeted."""
        return self._is_up.is_set()

    def peer(self) -> ReplicaId:
        """Who is at the other end."""
        if self.welcome is None:
            raise AssertionError("asked for once both sides have greeted")
        return self.welcome.replica

    async def wire(self) -> PeerConnection:
        """The connection, once both sides have greeted."""
        while True:
            await self._is_up.wait()
            if self._wire is not None:
                return self._wire

    def succeeded(self) -> None:
        """Something has been brought in step: the next failure is the first again."""
        self._backoff.succeeded()

    async def _stay_connected(self) -> None:
        while True:
            if self.progress is not Progress.REFUSED:
                self._show(Progress.CONNECTING)
            progress = Progress.OFFLINE
            try:
                await self._dial_and_talk()
            except (ConnectionEnded, OSError, CrdtStateError) as error:
                self.last_error = str(error) or type(error).__name__
                code = getattr(error, "code", None)
                if not self._has_met and (isinstance(error, RemoteError) or code in NOT_SPOKEN):
                    progress = Progress.REFUSED
                    self.last_error += f"; {TRY_ANOTHER_WIRE}"
                elif isinstance(error, ConnectionEnded) and code in codes.REFUSES_US:
                    progress = Progress.REFUSED
            except Exception as error:
                # A function that gives tokens, for one.
                self.last_error = repr(error)
                report(f"the link to {self._url} failed and goes on", error)
            self._show(progress)
            await asyncio.sleep(self._backoff.failed())

    def _show(self, progress: Progress) -> None:
        self.progress = progress
        self._changed()

    async def _dial_and_talk(self) -> None:
        shell = self._shell
        self._has_met = False
        connection = await self._dial(self._url)
        protocol = SyncProtocol(Role.DIALLER, shell.limits)
        wire = PeerConnection(
            connection,
            protocol,
            shell.limits,
            received=self._received,
            large_answers=self._large_answers,
        )
        code, reason = codes.CLOSED, ""
        greeting = asyncio.get_running_loop().call_later(
            shell.limits.handshake_seconds_max, self._give_up_waiting, connection
        )
        try:
            self._token_said = self._fresh_token()
            protocol.greet(self._hello(self._token_said))
            wire.touch()
            self._scopes.begin(wire)
            async for message in wire.messages():
                if isinstance(message, Welcome):
                    self._has_met = True
                    await self._meet(message)
                    self.welcome, self._wire = message, wire
                    if not self._introduces_itself(message, wire):
                        self._come_up()
                elif isinstance(message, Member):
                    self._hear_member(message, wire)
                elif isinstance(message, Members) and shell.membership is not None:
                    shell.membership.heard_of(message)  # from somebody whom we chose to dial
                if self.is_up:
                    greeting.cancel()
                if isinstance(message, Welcome | Authenticated):
                    self._renew_in_time(message.expires_at)
                elif isinstance(message, ScopeMessage):
                    self._scopes.hear(message)
        except RemoteError as error:
            code, reason = getattr(error, "code", codes.MALFORMED), str(error)
            raise
        finally:
            greeting.cancel()
            self._wire = None
            self._is_up.clear()
            if self.progress is Progress.CATCHING_UP:
                self.progress = Progress.OFFLINE
            self._renew_in_time(0)
            await self._scopes.end()
            wire.end()
            await connection.close(code, reason)

    def _introduces_itself(self, welcome: Welcome, wire: PeerConnection) -> bool:
        """Say to a member that this is one; whether that is to be answered first."""
        membership = self._shell.membership
        is_known = self._is_to_member and MEMBERS_KNOWN in welcome.capabilities
        if membership is None or not is_known:
            return False
        wire.protocol.say(membership.says())
        return True

    def _hear_member(self, said: Member, wire: PeerConnection) -> None:
        membership, welcome = self._shell.membership, self.welcome
        if membership is None or welcome is None or self._is_up.is_set():
            raise RemoteProtocolError("Member is said once, and to whoever has said it")
        membership.heard(welcome.replica, said, may_relay=True)
        wire.protocol.say(membership.tells())
        self._come_up()

    def tell(self, tales: Members) -> None:
        """Say to a member, where there is a connection, whom this replica knows."""
        welcome, wire = self.welcome, self._wire
        if self.is_up and wire is not None and welcome is not None:
            if MEMBERS_KNOWN not in welcome.capabilities:
                return
            wire.protocol.say(tales)
            wire.touch()

    def _come_up(self) -> None:
        self._is_up.set()
        self._show(Progress.CATCHING_UP)

    def renew_token(self) -> None:
        """Bring a fresh token on the connection that there is, where one is to be had.

        Raises whatever the function raises that gives tokens.
        """
        token = self._fresh_token()
        if self._wire is not None and token != self._token_said:
            self._token_said = token
            self._wire.protocol.say(Authenticate(token))
            self._wire.touch()

    def _fresh_token(self) -> str:
        return (self._token() if callable(self._token) else self._token) or ""

    def _renew_in_time(self, expires_at: int) -> None:
        """Renew the token before the grant ends (microseconds since 1970; 0: never)."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if expires_at and callable(self._token):
            seconds = (expires_at - self._shell.clock.wall()) / 1_000_000
            loop = asyncio.get_running_loop()
            self._renewing = loop.call_later(max(0.0, RENEWED_AFTER * seconds), self._renew)

    def _renew(self) -> None:
        self._renewing = None
        try:
            self.renew_token()
        except Exception as error:
            # The application's own; the connection ends with the grant, and asks again.
            self.last_error = repr(error)
            report(f"no fresh token for {self._url}", error)

    def _hello(self, token: str) -> Hello:
        limits = self._shell.limits
        return Hello(
            version_min=VERSION,
            version_max=VERSION,
            replica=self._shell.store.replica_id,
            incarnation=self._shell.store.incarnation,
            capabilities=CAPABILITIES,
            message_bytes_max=limits.message_bytes_max,
            update_bytes_max=limits.update_bytes_max,
            credit=limits.peer_credit_bytes,
            token=token,
        )

    def _give_up_waiting(self, connection: Connection) -> None:
        self.last_error = f"the remote said no word of our protocol in time; {TRY_ANOTHER_WIRE}"
        self._farewell = asyncio.create_task(
            connection.close(codes.TOO_SLOW, "nothing was said in time")
        )

    async def _meet(self, welcome: Welcome) -> None:
        """Who is there: one that has begun a new life is owed everything again."""
        if welcome.version != VERSION:
            raise RemoteProtocolError(f"version {welcome.version} was not offered")
        if welcome.replica == self._shell.store.replica_id:
            self.is_to_itself = True
            raise RemoteProtocolError("this is the replica itself; connect to another one")
        self._shell.holdings.met(welcome.replica, welcome.incarnation)
        if await self._remotes.met(self._remote, welcome.replica, welcome.incarnation):
            self._owes_more()

    async def _received(self, _size: int, _count: int) -> None:
        await self._shell.has_room()
        await self._scopes.has_room()


def report(what: str, error: Exception) -> None:
    """Let whoever runs the event loop know of what nobody expects."""
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
