"""The dialling end of our own protocol: one connection to a remote, made again for ever.

    PeerLine          dials, greets, hands the connection out, dials again
    PeerConversation  one document over whatever connection there is; what a link follows

1. A line is dialled again whatever ended it; a conversation opens its channel on every new one.
2. The token is asked for anew at each greeting, and is never part of an address.
3. The outbox is cleared by acknowledgements of what is durable at the remote alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_state.errors import CrdtStateError, DocumentClosed, RemoteError, RemoteProtocolError
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
    State,
    Updates,
    Welcome,
)
from crdt_state.protocol.peer.scopes import ScopeMessage
from crdt_state.replica.giving_way import give_way, head_of_state
from crdt_state.replica.succession import held_by, succeed
from crdt_state.storage.contract import ClearOutbox, Sequence
from crdt_state.sync.exchange import Progress
from crdt_state.transport.budget import Budget
from crdt_state.transport.channel import (
    LINEAGE_ENDED,
    NOTHING_TO_BRING,
    TOO_BIG_FOR_THE_PEER,
    Channel,
)
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.conversation import (
    FORBIDDEN,
    REFUSES_THE_DOCUMENT,
    REFUSES_US,
    REFUSES_WHAT_WE_BRING,
    REMOTE,
    TOO_LARGE,
)
from crdt_state.transport.peer_connection import PeerConnection
from crdt_state.transport.peer_visit import PEER_PATH
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.showing import Showing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.lineage import Life
    from crdt_state.protocol.peer.messages import Awareness
    from crdt_state.replica.document_core import Refusal
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.transport.connection import Connection, Dial
    from crdt_state.transport.conversation import Tie
    from crdt_state.transport.peer_connection import Said
    from crdt_state.transport.scope_link import ScopeLink

__all__ = ["PeerConversation", "PeerLine"]

RENEWED_AFTER = 0.8
"""Of a grant's time, after which a fresh token is brought."""

NOT_SPOKEN = frozenset({1002, 1003, 4400, 4404})
"""How a server ends a connection of which it does not know what is spoken there."""

TRY_ANOTHER_WIRE = "a server that speaks y-websocket alone is reached with wire=Wire.Y_WEBSOCKET"

TRY_AGAIN_LATER = 1013
GONE = 1006


class _End(NamedTuple):
    """How a channel ended."""

    code: int
    reason: str
    is_by_peer: bool


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
                elif isinstance(error, ConnectionEnded) and code in REFUSES_US:
                    progress = Progress.REFUSED
            except Exception as error:
                # A function that gives tokens, for one.
                self.last_error = repr(error)
                _report(f"the link to {self._url} failed and goes on", error)
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
        code, reason = 1000, ""
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
            code, reason = getattr(error, "code", 4400), str(error)
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
            _report(f"no fresh token for {self._url}", error)

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
        self._farewell = asyncio.create_task(connection.close(4408, "nothing was said in time"))

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


class PeerConversation:
    """One document of a link, over the line's connection."""

    def __init__(
        self,
        document: DocumentId,
        tie: Tie,
        line: PeerLine,
        *,
        behind: asyncio.Task[None] | None = None,
    ) -> None:
        """Begins when `behind`, an earlier one about this document, has ended."""
        self.document = document
        self.progress = Progress.OFFLINE
        self.last_error: str | None = None
        self.unwelcome_seconds: float | None = None
        """Set when the remote's last word was about this document and was no: how long to rest."""
        self._tie = tie
        self._line = line
        self._behind = behind
        self._shell = tie.shell
        self._keeper = tie.shell.new_source()
        self._backoff = Backoff(tie.shell.limits, tie.shell.random)
        self._showing: Showing | None = None
        self._channel: Channel | None = None
        self._channel_over: asyncio.Future[_End] | None = None
        self._waiting: list[_Waiter] = []
        self._awaited_by = 0
        self._may_need_a_token = False
        self._is_to_be_cleared = True
        self._clearing: asyncio.Task[None] | None = None
        self._stay: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._stay = asyncio.create_task(self._stay_in_step(), name=f"link {self.document}")

    async def close(self) -> None:
        """End, and let go of the document."""
        tasks = [task for task in (self._stay, self._clearing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tell_waiters(DocumentClosed("the link was closed before this was in sync"))

    def synced(self) -> Coroutine[Any, Any, None]:
        """As `Link.synced`, for this document; it counts as awaited from this call on.

        Raises `EditRefused` when the remote refuses what this waits for.
        """
        self._awaited_by += 1
        return self._synced()

    async def _synced(self) -> None:
        try:
            with contextlib.suppress(CrdtStateError):  # told to who has it open
                await self._shell.settled(self.document)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiter(self._shell.last, waiter))
            self.progressed()
            await waiter
            await self._shell.settled(self.document)
        finally:
            self._awaited_by -= 1

    @property
    def channel(self) -> Channel | None:
        """The channel that is open now, or being opened."""
        return self._channel

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for `synced`."""
        return self._awaited_by > 0

    # --- one channel after another -----------------------------------------------------------

    async def _stay_in_step(self) -> None:
        if self._behind is not None:
            await asyncio.wait([self._behind])  # both are the link's one user of the document
        while True:
            self._show_attempt(Progress.CONNECTING)
            self.line_changed()
            wire = await self._line.wire()
            self.progress, seconds = await self._try_once(wire)
            self._tie.changed()
            if seconds:
                await asyncio.sleep(seconds)

    def line_changed(self) -> None:
        """Without a connection, this is as far as the line is."""
        if self._channel is None and not self._line.is_up and self.unwelcome_seconds is None:
            self._show_progress(self._line.progress)

    async def _try_once(self, wire: PeerConnection) -> tuple[Progress, float]:
        """Open a channel and stay while it goes; what it came to, and how long to wait then."""
        limits = self._shell.limits
        self.unwelcome_seconds = None
        try:
            if self._may_need_a_token:
                self._may_need_a_token = False
                self._line.renew_token()
            code, reason, is_by_peer = await self._talk(wire)
        except CrdtStateError as error:
            self.last_error = str(error) or type(error).__name__
            return Progress.OFFLINE, self._backoff.failed()
        except Exception as error:
            self.last_error = repr(error)
            _report(f"the link to {self._tie.remote} about {self.document!r} goes on", error)
            return Progress.OFFLINE, self._backoff.failed()
        if code == GONE:
            return Progress.OFFLINE, 0.0  # the line is dialled again, after a wait of its own
        self.last_error = f"closed with {code}{f' ({reason})' if reason else ''}"
        if not is_by_peer:
            # We ended it, for what the remote said: that refuses nothing of ours.
            return Progress.OFFLINE, self._backoff.failed()
        progress = Progress.REFUSED if code in REFUSES_US else Progress.OFFLINE
        if code == FORBIDDEN:
            self.unwelcome_seconds = limits.reconnect_seconds_max
            self._may_need_a_token = True
        elif code in REFUSES_THE_DOCUMENT | REFUSES_WHAT_WE_BRING | {TOO_BIG_FOR_THE_PEER}:
            # Asking again soon cannot help; a person may have helped by much later.
            seconds = self._shell.random.uniform(0.5, 1.0) * limits.refused_seconds
            self.unwelcome_seconds = seconds
            return progress, seconds
        return progress, self._backoff.failed()

    async def _talk(self, wire: PeerConnection) -> _End:
        shell, document = self._shell, self.document
        # A user of its own, so that the document stays in use while it gives way.
        await shell.use(document, self._keeper, _Keeper())
        try:
            over = asyncio.get_running_loop().create_future()
            channel = Channel(
                shell,
                wire,
                document,
                self,
                peer=self._line.peer(),
                source=self._tie.source,
                author=REMOTE,
                name=f"remote {self._tie.remote}",
            )
            self._channel_over, self._channel = over, channel
            self._showing = Showing(shell, wire, channel)
            self._is_to_be_cleared = True
            known = shell.core.get(document)
            try:
                # Not on the list yet, the remote was never brought anything.
                is_listed = self._tie.remote in self._tie.remotes
                is_new = known is None or not is_listed or known.is_new_to(self._tie.remote)
                await channel.open(is_new=is_new)
                self._show_attempt(Progress.CATCHING_UP)
                self._showing.begin(is_dialled=True)
                end: _End = await over
            finally:
                self._leave_channel(channel)
            if channel.successor is not None:
                return await self._succeed(wire, channel.successor)
            if end.code == LINEAGE_ENDED:
                if end.is_by_peer:
                    await asyncio.sleep(self._backoff.failed())
                return _End(GONE, end.reason, is_by_peer=True)  # opened anew, it is told more
            has_refused = end.is_by_peer and channel.has_sent and end.code in REFUSES_WHAT_WE_BRING
            if known is not None and has_refused:
                return await self._give_way(wire, end)
            return end
        finally:
            shell.leave(document, self._keeper)

    def _leave_channel(self, channel: Channel) -> None:
        if not channel.is_over:
            channel.close(1000, "")
        if self._showing is not None:
            self._showing.end()
        self._channel, self._showing = None, None

    # --- when the remote holds a later life of the document ----------------------------------

    async def _succeed(self, wire: PeerConnection, life: Life) -> _End:
        """Let the document be what the remote holds of a later life; how this then goes on."""
        shell, tie = self._shell, self._tie
        content: bytes | None = None
        if not life.is_deleted:
            fetched = await _Fetching(wire, self.document, life).fetch()
            if isinstance(fetched, _End):
                return fetched
            if fetched:
                content = await shell.workers.merge(fetched)
                await head_of_state(content, shell.limits)
        ended = await succeed(
            shell,
            self.document,
            life,
            held=held_by(tie.remote, tie.remotes),
            told_by=tie.remote,
            content=content,
        )
        if ended is not None and ended.updates:
            self._tell_waiters(ended)
        return _End(GONE, "", is_by_peer=True)

    # --- when the remote refuses what we bring -----------------------------------------------

    async def _give_way(self, wire: PeerConnection, end: _End) -> _End:
        """Let the document be what the remote holds; how the conversation then goes on."""
        document, remote = self.document, self._tie.remote
        if await self._tie.remotes.others_who_hold(document, remote):
            return end  # they would bring the same again
        known = self._shell.core.get(document)
        if known is None:
            return _End(TRY_AGAIN_LATER, "the document fell out of use", is_by_peer=True)
        fetched = await _Fetching(wire, document, known.life).fetch()
        if isinstance(fetched, _End):
            return fetched
        state = await self._shell.workers.merge(fetched) if fetched else NOTHING_TO_BRING
        refused = await give_way(
            self._shell, known, state, remote=remote, code=end.code, reason=end.reason
        )
        if refused is None:
            return end
        self._tie.was_refused(refused)
        self._tell_waiters(refused)
        return _End(GONE, end.reason, is_by_peer=True)

    # --- as the attendant of its channel -----------------------------------------------------

    def progressed(self) -> None:
        """Look whether what is waited for has come to be."""
        channel = self._channel
        if channel is None:
            return
        if not channel.has_all:
            if channel.has_begun:
                self._show_progress(Progress.CATCHING_UP)
            return
        if not channel.has_confirmed_all:
            self._is_to_be_cleared = True
            self._show_progress(Progress.CATCHING_UP)
        elif not self._is_to_be_cleared:
            self._show_progress(Progress.IN_SYNC)
        if channel.is_confirmed:  # before, it would be answered too early to be in sync by it
            self._ask_for_those_who_wait(channel)
        if self._clearing is None and self._is_worth_clearing(channel):
            self._clearing = asyncio.create_task(self._clear_outbox(channel))

    def _ask_for_those_who_wait(self, channel: Channel) -> None:
        """One question for everybody who has begun to wait since the last one."""
        asking = [waiter for waiter in self._waiting if waiter.asked_on is not channel]
        if asking:
            for waiter in asking:
                waiter.asked_on, waiter.has_passed = channel, False
            channel.barrier().add_done_callback(lambda _: self._passed(asking, channel))

    def _passed(self, asked: list[_Waiter], channel: Channel) -> None:
        for waiter in asked:
            waiter.has_passed = waiter.asked_on is channel
        self.progressed()

    def _is_worth_clearing(self, channel: Channel) -> bool:
        if self._is_to_be_cleared and channel.has_confirmed_all:
            return True
        through = channel.holds_through()
        return any(waiter.is_served(through) for waiter in self._waiting)

    def heard_awareness(self, message: Awareness) -> None:
        """Somebody else at this document."""
        if self._showing is not None:
            self._showing.heard(message)

    def was_refused(self, refusal: Refusal) -> None:
        """The remote brought what we do not let in; it stays out, the rest goes on."""
        self.last_error = f"an update of the remote was refused: {refusal.error.reason}"

    def channel_ended(self, code: int, reason: str, *, by_peer: bool) -> None:
        """What follows is `_stay_in_step`'s."""
        if code == TOO_BIG_FOR_THE_PEER and not by_peer:
            # The remote was not asked: it has said in its greeting that it refuses this.
            code, by_peer = TOO_LARGE, True
        if self._channel_over is not None and not self._channel_over.done():
            self._channel_over.set_result(_End(code, reason, by_peer))

    # --- private -----------------------------------------------------------------------------

    async def _clear_outbox(self, channel: Channel) -> None:
        """Owe no more what the remote holds, and then tell who waits for that."""
        try:
            while channel is self._channel and self._is_worth_clearing(channel):
                through = channel.holds_through()
                if channel.has_confirmed_all:
                    self._is_to_be_cleared = False
                try:
                    await self._shell.store.write(
                        [ClearOutbox(self._tie.remote, self.document, through)]
                    )
                except BaseException:
                    self._is_to_be_cleared = True
                    raise
                if (known := self._shell.core.get(self.document)) is not None:
                    known.confirmed.add(self._tie.remote)
                self._backoff.succeeded()
                self._line.succeeded()
                if channel.has_confirmed_all and not self._is_to_be_cleared:
                    self._show_progress(Progress.IN_SYNC)
                self._tell_those_who_wait_for(through)
        except CrdtStateError as error:
            self.last_error = str(error)
            await asyncio.sleep(self._backoff.failed())
        finally:
            self._clearing = None
        self.progressed()

    def _tell_those_who_wait_for(self, through: Sequence) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.is_served(through):
                self._waiting.append(waiter)
            elif not waiter.told.done():
                waiter.told.set_result(None)

    def _tell_waiters(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.told.done():
                waiter.told.set_exception(error)

    def _show_attempt(self, progress: Progress) -> None:
        """Show that we try; but where the last word was a no, that stands until another."""
        if self.progress is not Progress.REFUSED:
            self._show_progress(progress)

    def _show_progress(self, progress: Progress) -> None:
        if progress is not self.progress:
            self.progress = progress
            self._tie.changed()


@dataclass(slots=True, eq=False)
class _Waiter:
    """Who waits for `synced`, until what was durable here at `target` is durable there."""

    target: Sequence
    told: asyncio.Future[None]
    asked_on: Channel | None = None
    """Where a barrier was asked for after the wait began; it is asked for again elsewhere."""
    has_passed: bool = False

    def is_served(self, through: Sequence) -> bool:
        """Whether the remote holds what this waits for, and we what it held when asked."""
        return self.has_passed and self.target <= through


class _Keeper:
    """Uses a document, so that it stays in use, and looks at nothing."""

    def deliver(self, deltas: object) -> None:
        """The channel sees to it."""

    def refused(self, refusal: object) -> None:
        """The channel sees to it."""

    def lost(self, error: Exception, own_edits: object) -> None:
        """The channel sees to it."""


class _Fetching:
    """Asks for all that a remote holds of one document, and brings nothing."""

    def __init__(self, wire: PeerConnection, document: DocumentId, life: Life) -> None:
        """All of this life of it."""
        self._wire = wire
        self._life = life
        self._number = wire.protocol.open(document, b"\x00", life)
        self._updates: list[bytes] = []
        self._expected: int | None = None
        self._done: asyncio.Future[list[bytes] | _End] = asyncio.get_running_loop().create_future()
        wire.register(self._number, self)
        wire.touch()

    async def fetch(self) -> list[bytes] | _End:
        """All of it, or how the connection or the channel ended before."""
        try:
            return await self._done
        finally:
            if self._number in self._wire.channels:
                self._wire.close_channel(self._number, 1000, "")

    def hear(self, message: Said) -> None:
        """The peer said something."""
        if isinstance(message, State):
            self._expected = message.updates
            if message.life != self._life:
                self._finish(_End(TRY_AGAIN_LATER, f"it has {message.life} by now", True))
        elif isinstance(message, Updates):
            self._updates += message.updates
            self._wire.grant(self._number, sum(map(len, message.updates)))
        if self._expected is not None and len(self._updates) >= self._expected:
            self._finish(self._updates)

    def ended(self, code: int, reason: str) -> None:
        """It is not to be had."""
        self._finish(_End(code, reason, is_by_peer=True))

    def send_some(self) -> bool:
        """Nothing is brought."""
        return False

    def _finish(self, result: list[bytes] | _End) -> None:
        if not self._done.done():
            self._done.set_result(result)


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
