"""One document of a link: dials, talks y-websocket, and dials again.

1. A conversation ends when it is told to, and for nothing else: whatever goes wrong, it waits
   and dials again.
2. Whoever waits for `synced` learns of an answer to a question that was asked after all that
   was edited before the call had become durable and been sent.
3. The outbox is cleared by such an answer alone.
4. Updates go out in the order of the log, and behind the state that they build on.
5. Contents of two lineages are never merged, though this wire does not name them: a document of
   another lineage than zero is talked of only with a remote that shares a client with it, or has
   nothing of it.
6. What waits to be sent is bounded: beyond it this hangs up, and the next state exchange brings
   what was not sent.

How it ended decides what follows (`PROTOCOL.md`, section 1.5): most often a wait that grows; a
remote that refuses what we bring has the document given way to what it holds
(`replica/giving_way`); one that will not have the document at all is asked again much later.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_state.errors import CrdtStateError, DocumentClosed, UpdateRefused
from crdt_state.identifiers import path_of
from crdt_state.lineage import BORN
from crdt_state.model.awareness import encode_awareness
from crdt_state.model.inspect import inspect
from crdt_state.model.portions import portions
from crdt_state.model.state import EMPTY_VECTOR, decode_state_vector
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
    encode_update,
)
from crdt_state.replica.admission import Author
from crdt_state.replica.document_core import LOCAL
from crdt_state.replica.giving_way import give_way
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.storage.contract import ClearOutbox
from crdt_state.sync.exchange import Exchange, Progress
from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.unshown import Unshown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from crdt_state.errors import EditRefused
    from crdt_state.identifiers import DocumentId
    from crdt_state.model.awareness import AwarenessEntry
    from crdt_state.protocol.ywebsocket import Message
    from crdt_state.replica.document_core import Delta, DocumentCore, Refusal
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import Sequence as StoreSequence
    from crdt_state.transport.connection import Connection, Dial

__all__ = ["Conversation", "Tie"]

REMOTE = Author(identity=None, may_write=True, may_relay=True)
"""A remote that we chose to connect to relays what many wrote."""


class Tie(NamedTuple):
    """What the conversations of one link have in common."""

    remote: str
    source: int
    shell: ReplicaShell
    remotes: Remotes
    dial: Dial
    changed: Callable[[], None]
    """Called when the progress of one has changed."""
    was_refused: Callable[[EditRefused], None]
    """Called when edits of one were set aside."""


class Conversation:
    """One document of a link: dials, talks, and dials again.  A subscriber of the replica."""

    def __init__(
        self, document: DocumentId, tie: Tie, *, behind: asyncio.Task[None] | None = None
    ) -> None:
        """Begins when `behind`, an earlier one about this document, has ended."""
        shell = tie.shell
        self.document = document
        self.progress = Progress.OFFLINE
        self.last_error: str | None = None
        self.unwelcome_seconds: float | None = None
        """Set when the remote's last word was about this document and was no: how long to rest."""
        self._unshown: Unshown[AwarenessEntry] = Unshown(shell.limits)
        self._tie = tie
        self._behind = behind
        self._shell = shell
        self._url = tie.remote + path_of(document)
        self._backoff = Backoff(shell.limits, shell.random)
        self._connection: Connection | None = None
        self._exchange = Exchange(shell.limits)
        self._confirm_seconds = shell.limits.confirm_seconds
        self._state_bytes = 0
        self._is_of_lineage = False
        self._through: StoreSequence | None = None
        self._asking_for: list[asyncio.Future[None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._awaited_by = 0
        self._timer: asyncio.TimerHandle | None = None
        self._behind_state: list[bytes] | None = None
        self._behind_state_bytes = 0
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._stay: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._stay = asyncio.create_task(self._stay_connected(), name=f"link {self.document}")

    async def close(self) -> None:
        """End, and let go of the document."""
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.gather(self._stay, return_exceptions=True)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tell_waiters(DocumentClosed("the link was closed before this was in sync"))

    def synced(self) -> Coroutine[Any, Any, None]:
        """As `Link.synced`, for this document; it counts as awaited from this call on.

        Raises `EditRefused` when the remote refuses what this waits for.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._awaited_by += 1
        waiter.add_done_callback(self._is_answered)
        self._ask_soon(at_once=True)
        return self._synced(waiter)

    async def _synced(self, waiter: asyncio.Future[None]) -> None:
        await waiter
        await self._shell.settled(self.document)

    def _is_answered(self, _: object) -> None:
        self._awaited_by -= 1

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for `synced`."""
        return self._awaited_by > 0

    # --- awareness ---------------------------------------------------------------------------

    def _come_to_the_gathering(self) -> None:
        gathering = self._shell.gatherings.of(self.document)
        gathering.renew()
        gathering.arrive(self._tie.source, is_guest=False)
        gathering.listen(self._tie.source, self._show_remote)
        self._show_everybody()

    def _show_everybody(self) -> None:
        """Show the remote all who are here; it knows that whom it told of is."""
        gathering = self._shell.gatherings.of(self.document)
        self._show_remote(LOCAL, gathering.entries(but=self._tie.source))

    def _show_remote(self, _author: int, entries: list[AwarenessEntry]) -> None:
        self._unshown.put(entries)
        connection, limit = self._connection, self._shell.limits.peer_queue_bytes_max
        # One that does not read is shown the latest with what comes once it does.
        while self._unshown and connection is not None and connection.buffered_bytes <= limit:
            shown = encode_awareness(self._unshown.take(LARGE_BYTES))
            connection.send(encode(AwarenessUpdate(shown)))

    # --- the connection ----------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        if self._behind is not None:
            await asyncio.wait([self._behind])  # both are the link's one user of the document
        while True:
            self._show_attempt(Progress.CONNECTING)
            self.progress, seconds = await self._try_once()
            self._tie.changed()
            await asyncio.sleep(seconds)

    async def _try_once(self) -> tuple[Progress, float]:
        """Connect and talk for as long as it goes; what it came to, and how long to wait then."""
        limits = self._shell.limits
        progress = Progress.OFFLINE
        self.unwelcome_seconds = None
        try:
            await self._dial_and_talk()
        except ConnectionEnded as ended:
            self.last_error = str(ended)
            if ended.code in codes.REFUSES_US:
                progress = Progress.REFUSED
            if ended.code == codes.FORBIDDEN:
                # Another token may bring the right.
                self.unwelcome_seconds = limits.reconnect_seconds_max
            elif ended.code in codes.REFUSES_THE_DOCUMENT | codes.REFUSES_WHAT_WE_BRING:
                # Asking again soon cannot help; a person may have helped by much later.
                seconds = self._shell.random.uniform(0.5, 1.0) * limits.refused_seconds
                self.unwelcome_seconds = seconds
                return progress, seconds
        except (OSError, CrdtStateError) as error:
            self.last_error = str(error) or type(error).__name__
        except Exception as error:
            # A function that gives tokens, for one.  A link that ended here would leave
            # edits unsent without a word.
            self.last_error = repr(error)
            _report(f"the link to {self._url} failed and goes on", error)
        return progress, self._backoff.failed()

    async def _dial_and_talk(self) -> None:
        connection = await self._tie.dial(self._url)
        try:
            # Not before dialling: what falls out of use meanwhile would be talked of unsubscribed.
            await self._shell.use(self.document, self._tie.source, self)
            known = self._shell.core.get(self.document)
            try:
                await self._talk(connection)
            except ConnectionEnded as ended:
                has_brought = self._exchange.remote_vector is not None
                self._hang_up()
                if (
                    known is None
                    or not has_brought
                    or ended.code not in codes.REFUSES_WHAT_WE_BRING
                ):
                    raise
                await self._give_way(known, ended)
        finally:
            self._hang_up()
            self._shell.leave(self.document, self._tie.source)
            await connection.close()

    def _hang_up(self) -> None:
        self._connection = None
        self._behind_state = None
        self._stop_asking()
        self._unshown = Unshown(self._shell.limits)
        self._shell.gatherings.leave(self.document, self._tie.source)

    # --- when the remote refuses what we bring -----------------------------------------------

    async def _give_way(self, known: DocumentCore, ended: ConnectionEnded) -> None:
        """Let the document be what the remote holds.  Raises `ended` where that cannot help."""
        if self._shell.core.get(self.document) is not known:
            return  # it was begun anew meanwhile, by another link for one: offer that
        remotes, remote = self._tie.remotes, self._tie.remote
        holders = await remotes.others_who_hold(self.document, remote)
        if holders:
            reason = f"{ended.reason}; but {holders[0]} holds it, so it is kept"
            raise ConnectionEnded(ended.code, reason)
        refused = await give_way(
            self._shell,
            known,
            await self._state_of_remote(),
            remote=remote,
            code=ended.code,
            reason=ended.reason,
        )
        if refused is not None:
            self.last_error = str(refused)
            self._tell_waiters(refused)
            self._tie.was_refused(refused)

    async def _state_of_remote(self) -> bytes:
        """All that the remote holds, asked for on a connection on which we bring nothing."""
        connection = await self._tie.dial(self._url)
        try:
            connection.send(encode(SyncStep1(EMPTY_VECTOR)))
            while True:
                match decode(await connection.receive()):
                    case SyncStep2(update):
                        return update
                    case _:
                        pass  # what it says of others, the next connection brings
        finally:
            await connection.close()

    # --- talking -----------------------------------------------------------------------------

    async def _talk(self, connection: Connection) -> None:
        self._connection = connection
        self._exchange = Exchange(self._shell.limits)
        self._state_bytes = 0
        self._is_of_lineage = False
        self._show_attempt(Progress.CATCHING_UP)
        self._exchange.begin()
        connection.send(encode(SyncStep1(self._vector())))
        self._come_to_the_gathering()
        while True:
            await self._take(connection, decode(await connection.receive()))
            await self._shell.has_room()

    async def _take(self, connection: Connection, message: Message) -> None:
        match message:
            case SyncStep1(state_vector):
                self._check_lineage(state_vector)
                if self.progress is Progress.REFUSED:
                    self._show(Progress.CATCHING_UP)  # nobody says that to who may not come in
                await self._send_what_lacks(connection, state_vector)
            case SyncStep2(update):
                self._check_lineage()
                for part in await self._parts_of(update):
                    self._bring(part)
                await self._answered(update)
            case Update(update):
                self._check_lineage()
                self._bring(update)
            case AwarenessUpdate(payload):
                self._shell.gatherings.of(self.document).receive(self._tie.source, payload)
            case QueryAwareness():
                self._show_everybody()
            case PermissionDenied(reason):
                self.last_error = reason

    def _check_lineage(self, state_vector: bytes | None = None) -> None:
        """Bring nothing of one lineage to another, in either direction.  Raises where it would."""
        known = self._shell.core.get(self.document)
        if known is None or known.life == BORN or known.life.is_deleted or self._is_of_lineage:
            return  # what was deleted lets nothing in, and has nothing to bring
        theirs = decode_state_vector(state_vector) if state_vector is not None else {}
        if state_vector is None or (theirs and not theirs.keys() & known.head.vector.keys()):
            raise ConnectionEnded(codes.OTHER_LINEAGE, "the remote holds another lineage of it")
        self._is_of_lineage = True

    async def _parts_of(self, state: bytes) -> list[bytes]:
        """A state that many wrote, in parts that the bound on one author's update lets in."""
        limits = self._shell.limits
        if len(state) <= limits.update_bytes_max:
            return [state]
        await asyncio.to_thread(inspect, state, limits, merged=True)
        return await asyncio.to_thread(portions, state, limits.update_bytes_max // 2)

    def _bring(self, update: bytes) -> None:
        with contextlib.suppress(UpdateRefused):  # the document was set aside; the witness knows
            self._shell.receive(
                self.document, self._tie.source, REMOTE, update, name=f"remote {self._tie.remote}"
            )

    async def _send_what_lacks(self, connection: Connection, state_vector: bytes) -> None:
        # Said before the state is read, so that what becomes durable meanwhile is sent as well;
        # but behind it, because stock yrs loses what comes before what it builds on.
        self._exchange.remote_vector = decode_state_vector(state_vector)
        self._behind_state = []
        self._behind_state_bytes = 0
        await self._shell.settled(self.document)
        update = await self._shell.difference(self.document, state_vector)
        parts = [update]
        size_max = self._shell.limits.update_bytes_max
        if len(update) > size_max:
            # What the remote's limits bind is an edit, not all that was edited offline.
            parts = await asyncio.to_thread(portions, update, size_max // 2)
        if connection is not self._connection:
            return  # hung up meanwhile
        connection.send(encode(SyncStep2(parts[0])))
        for part in parts[1:]:
            connection.send(encode_update(part))
        self._state_bytes += len(update)
        self._exchange.sent(update)
        later, self._behind_state = self._behind_state or [], None
        for news in later:
            connection.send(encode_update(news))
            self._exchange.sent(news)
        self._ask_soon(at_once=True)

    # --- the question whether what we sent has arrived ---------------------------------------

    def _ask_soon(self, *, at_once: bool = False) -> None:
        if self._exchange.remote_vector is None:
            return
        if self._timer is not None:
            if not at_once:
                return
            self._timer.cancel()
        wait = 0.0 if at_once else self._confirm_seconds
        self._timer = asyncio.get_running_loop().call_later(wait, self._start_asking)

    def _start_asking(self) -> None:
        self._timer = None
        if self._exchange.is_asking or self._connection is None:
            return  # the answer, or the next connection, asks again
        task = asyncio.create_task(self._ask(self._connection))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _ask(self, connection: Connection) -> None:
        # Only theirs: who begins to wait from here on may have edited what is not durable yet.
        waiters, self._waiting = self._waiting, []
        try:
            await self._shell.settled(self.document)
        except BaseException as error:
            self._waiting = waiters + self._waiting
            if isinstance(error, CrdtStateError):
                return  # the document fell out of use, and the next connection asks
            raise
        known = self._shell.core.get(self.document)
        if (
            known is None
            or connection is not self._connection
            or self._exchange.is_asking
            or self._behind_state is not None
        ):
            self._waiting = waiters + self._waiting
            return
        # Without an await from here on: all that is durable has been sent, and is asked about.
        self._through = self._shell.last
        self._asking_for += waiters
        connection.send(encode(SyncStep1(self._exchange.ask(known.head))))

    async def _answered(self, update: bytes) -> None:
        was_asking = self._exchange.is_asking
        is_confirmed = self._exchange.answered(update)
        limits = self._shell.limits
        if is_confirmed:
            self._confirm_seconds = limits.confirm_seconds
        elif was_asking:
            # It answers, but does not keep what we send: asking faster keeps it no better.
            self._confirm_seconds = min(2 * self._confirm_seconds, limits.confirm_seconds_max)
        if was_asking and is_confirmed and self._through is not None:
            self._backoff.succeeded()
            through, waiters = self._through, self._asking_for
            self._through, self._asking_for = None, []
            clear = ClearOutbox(self._tie.remote, self.document, through)
            try:
                await self._shell.store.write([clear])
            except BaseException:
                self._waiting = waiters + self._waiting
                raise
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._exchange.owes or self._waiting or self._asking_for:
            self._ask_soon()
        elif is_confirmed:
            self._show(Progress.IN_SYNC)

    def _tell_waiters(self, error: Exception) -> None:
        waiters = [*self._waiting, *self._asking_for]
        self._waiting, self._asking_for = [], []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _stop_asking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting, self._asking_for = self._asking_for + self._waiting, []

    # --- as a subscriber ---------------------------------------------------------------------

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """Send on what others brought."""
        if self._connection is None or self._exchange.remote_vector is None:
            return
        news = [delta.update for delta in deltas if delta.source != self._tie.source]
        limit = self._shell.limits.peer_queue_bytes_max
        if self._behind_state is not None:
            self._behind_state += news
            self._behind_state_bytes += sum(map(len, news))
            if self._behind_state_bytes > limit:
                self._give_up(
                    codes.GOING_AWAY, "more was edited than could wait while the state was read"
                )
            return
        for update in news:
            self._connection.send(encode_update(update))
            self._exchange.sent(update)
        # A state may be larger than the bound, and takes the time it takes.
        if self._connection.buffered_bytes > limit + self._state_bytes:
            self._give_up(codes.GOING_AWAY, "the remote does not read fast enough")
        elif news:
            self._show(Progress.CATCHING_UP)
            self._ask_soon()

    def refused(self, refusal: Refusal) -> None:
        """The remote brought what we do not let in; it stays out, the rest goes on."""
        if refusal.source == self._tie.source:
            self.last_error = f"an update of the remote was refused: {refusal.error.reason}"

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """What we talked of is not what is stored: hang up, and begin anew from that."""
        self.last_error = str(error)
        self._give_up(codes.INTERNAL, "the document has to be begun anew")

    def _give_up(self, code: int, reason: str) -> None:
        """End the connection, in the background; the next one begins anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            task = asyncio.create_task(connection.close(code, reason))
            self._tasks[task] = None
            task.add_done_callback(self._tasks.pop)

    def _vector(self) -> bytes:
        known = self._shell.core.get(self.document)
        return b"\x00" if known is None else known.head.state_vector()

    def _show_attempt(self, progress: Progress) -> None:
        """Show that we try, but where the last word was a no: that stands until there is another.

        A handshake succeeds whoever we are, so by itself it says nothing.
        """
        if self.progress is not Progress.REFUSED:
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        if progress is not self.progress:
            self.progress = progress
            self._tie.changed()


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
