"""Keeps one replica in step with one remote over y-websocket, for ever.

One socket per document (that is y-websocket's wire): a `Conversation` each, dialled again with
backoff whenever it ends.  A link follows the documents that are open, and those whose outbox
holds edits that the remote is not known to hold, whether anybody has them open or not.

1. A conversation ends when it is told to, and for nothing else: whatever goes wrong, it waits
   and dials again.
2. Whoever waits for `synced` learns of an answer to a question that was asked after all that
   was edited before the call had become durable and been sent.
3. The outbox is cleared by such an answer alone.
4. Updates go out in the order of the log, and behind the state that they build on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from crdt_state.errors import CrdtStateError, DocumentClosed, UpdateRefused
from crdt_state.identifiers import path_of
from crdt_state.model.state import decode_state_vector
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
from crdt_state.storage.contract import Append, ClearOutbox, SetMetadata
from crdt_state.sync.exchange import Exchange, Progress
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.reconnect import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.protocol.ywebsocket import Message
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.presence import Presence
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import Sequence as StoreSequence
    from crdt_state.transport.connection import Connection, Dial

__all__ = ["Link"]

KNOWN = "known/"
"""Metadata keys of the replica: remotes that are owed by the outbox, and by nothing before it."""

REMOTE = Author(identity=None, may_write=True, may_relay=True)
"""A remote that we chose to connect to relays what many wrote."""


class Link:
    """A replica's tie to one remote."""

    def __init__(self, shell: ReplicaShell, url: str, dial: Dial) -> None:
        self.remote = url.rstrip("/")
        self.source = shell.new_source()
        self._shell = shell
        self._dial = dial
        self._conversations: dict[DocumentId, Conversation] = {}
        self._watchers: list[Callable[[Progress], None]] = []
        self._progress = Progress.OFFLINE
        self._begun: asyncio.Task[None] | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Owe the remote what is edited from now on, and go on with what it was owed before."""
        self._shell.core.add_remote(self.source, self.remote)
        self._begun = asyncio.create_task(self._follow_owed(), name=f"link {self.remote}")

    async def _follow_owed(self) -> None:
        await self._owe_what_was_before()
        for entry in await self._shell.store.outbox(self.remote):
            self.follow(entry.document)

    async def _owe_what_was_before(self) -> None:
        """A remote that is new to us is owed everything that is here, whoever has it open."""
        store, key = self._shell.store, f"{KNOWN}{self.remote}"
        if await store.metadata(key) is not None:
            return
        after = ""
        while page := await store.list(after=after):
            after = page[-1].document
            await store.write([Append(line.document, (), (self.remote,)) for line in page])
        # Last, so that a kill on the way begins this anew.
        await store.write([SetMetadata(key, b"")])

    # --- what people look at -----------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the link is: as far as its slowest document."""
        return self._progress

    @property
    def last_error(self) -> str | None:
        """Why a connection last ended or could not be made, of any document."""
        errors = [talk.last_error for talk in self._conversations.values() if talk.last_error]
        return errors[-1] if errors else None

    def progress_of(self, document: DocumentId) -> Progress:
        """How far one document is."""
        talk = self._conversations.get(document)
        return Progress.OFFLINE if talk is None else talk.progress

    def watch(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Call back whenever `progress` changes; returns how to stop that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    async def synced(self) -> None:
        """Return when the remote holds all that is here, and all that it held is here.

        More exactly, for every document that is followed now: every edit that was made before
        this call is confirmed by the remote, and everything the remote held when it confirmed
        is durable here.  Waits through disconnections.
        """
        if self._begun is not None:
            await self._begun
        await asyncio.gather(*(talk.synced() for talk in self._conversations.values()))

    # --- which documents ---------------------------------------------------------------------

    def follow(self, document: DocumentId) -> Conversation:
        """Keep a document in step; a second call changes nothing."""
        if self._is_closed:
            raise DocumentClosed("this link is closed")
        talk = self._conversations.get(document)
        if talk is None:
            talk = Conversation(document, self, self._shell, self._dial)
            self._conversations[document] = talk
            talk.start()
            self.progress_changed()
        return talk

    async def unfollow(self, document: DocumentId) -> None:
        """Let a document go, unless it is still to be brought in step."""
        talk = self._conversations.get(document)
        if talk is not None and talk.progress is Progress.IN_SYNC:
            del self._conversations[document]
            await talk.close()
            self.progress_changed()

    async def close(self) -> None:
        """Hang up.  What is not confirmed stays in the outbox for the next time."""
        self._is_closed = True
        self._shell.core.remove_remote(self.source)
        if self._begun is not None:
            self._begun.cancel()
        await asyncio.gather(*(talk.close() for talk in self._conversations.values()))
        self._conversations.clear()
        self.progress_changed()

    def progress_changed(self) -> None:
        """Look at all conversations again."""
        order = list(Progress)
        found = [talk.progress for talk in self._conversations.values()]
        progress = min(found, key=order.index, default=Progress.OFFLINE)
        if progress is not self._progress:
            self._progress = progress
            for callback in tuple(self._watchers):
                try:
                    callback(progress)
                except Exception as error:
                    # An application's own trouble; the link goes on.
                    _report(f"a callback on the link to {self.remote} failed", error)


class Conversation:
    """One document of a link: dials, talks, and dials again.  A subscriber of the replica."""

    def __init__(self, document: DocumentId, link: Link, shell: ReplicaShell, dial: Dial) -> None:
        self.document = document
        self.progress = Progress.OFFLINE
        self.last_error: str | None = None
        self._presence: Presence | None = None
        self._stop_presenting: Callable[[], None] = _nothing
        self._link = link
        self._shell = shell
        self._dial = dial
        self._url = link.remote + path_of(document)
        self._backoff = Backoff(shell.limits, shell.random)
        self._connection: Connection | None = None
        self._exchange = Exchange(shell.limits)
        self._through: StoreSequence | None = None
        self._asking_for: list[asyncio.Future[None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._behind_state: list[bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stay: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._stay = asyncio.create_task(self._stay_connected(), name=f"link {self.document}")

    async def close(self) -> None:
        """End, and let go of the document."""
        self._stop_presenting()
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.gather(self._stay, return_exceptions=True)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiter in [*self._waiting, *self._asking_for]:
            if not waiter.done():
                waiter.set_exception(DocumentClosed("the link was closed before this was in sync"))

    async def synced(self) -> None:
        """As `Link.synced`, for this document."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._ask_soon(at_once=True)
        await waiter
        await self._shell.settled(self.document)

    def present(self, presence: Presence) -> None:
        """Carry this presence from now on, in both directions."""
        if presence is not self._presence:
            self._stop_presenting()
            self._presence = presence
            self._stop_presenting = presence.attach(self._send_awareness)
            self._greet()

    def _send_awareness(self, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.send(encode(AwarenessUpdate(payload)))

    def _greet(self) -> None:
        greeting = None if self._presence is None else self._presence.greeting()
        if greeting is not None:
            self._send_awareness(greeting)

    # --- the connection ----------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            self._show(Progress.CONNECTING)
            try:
                await self._dial_and_talk()
            except (OSError, ConnectionEnded, CrdtStateError) as error:
                self.last_error = str(error) or type(error).__name__
            except Exception as error:
                # A function that gives tokens, for one.  A link that ended here would leave
                # edits unsent without a word.
                self.last_error = repr(error)
                _report(f"the link to {self._url} failed and goes on", error)
            self._show(Progress.OFFLINE)
            await asyncio.sleep(self._backoff.failed())

    async def _dial_and_talk(self) -> None:
        connection = await self._dial(self._url)
        try:
            # Not before dialling: what falls out of use meanwhile would be talked of unsubscribed.
            await self._shell.use(self.document, self._link.source, self)
            await self._talk(connection)
        finally:
            self._connection = None
            self._behind_state = None
            self._stop_asking()
            self._shell.leave(self.document, self._link.source)
            if self._presence is not None:
                self._presence.disconnected()
            await connection.close()

    async def _talk(self, connection: Connection) -> None:
        self._connection = connection
        self._exchange = Exchange(self._shell.limits)
        self._show(Progress.CATCHING_UP)
        self._exchange.begin()
        connection.send(encode(SyncStep1(self._vector())))
        self._greet()
        while True:
            await self._take(connection, decode(await connection.receive()))
            await self._shell.has_room()

    async def _take(self, connection: Connection, message: Message) -> None:
        match message:
            case SyncStep1(state_vector):
                await self._send_what_lacks(connection, state_vector)
            case SyncStep2(update):
                self._bring(update)
                await self._answered(update)
            case Update(update):
                self._bring(update)
            case AwarenessUpdate(payload):
                if self._presence is not None:
                    self._presence.receive(payload)
            case QueryAwareness():
                self._greet()
            case PermissionDenied(reason):
                self.last_error = reason

    def _bring(self, update: bytes) -> None:
        with contextlib.suppress(UpdateRefused):  # the document was set aside; the witness knows
            self._shell.receive(
                self.document, self._link.source, REMOTE, update, name=f"remote {self._link.remote}"
            )

    async def _send_what_lacks(self, connection: Connection, state_vector: bytes) -> None:
        # Said before the state is read, so that what becomes durable meanwhile is sent as well;
        # but behind it, because stock yrs loses what comes before what it builds on.
        self._exchange.remote_vector = decode_state_vector(state_vector)
        self._behind_state = []
        await self._shell.settled(self.document)
        update = await self._shell.difference(self.document, state_vector)
        connection.send(encode(SyncStep2(update)))
        self._exchange.sent(update)
        later, self._behind_state = self._behind_state, None
        for news in later:
            connection.send(encode_update(news))
            self._exchange.sent(news)
        self._ask_soon(at_once=True)

    # --- the question whether what we sent has arrived ---------------------------------------

    def _ask_soon(self, *, at_once: bool = False) -> None:
        if self._exchange.remote_vector is None or self._timer is not None:
            return
        wait = 0.0 if at_once else self._shell.limits.confirm_seconds
        self._timer = asyncio.get_running_loop().call_later(wait, self._start_asking)

    def _start_asking(self) -> None:
        self._timer = None
        if self._exchange.is_asking or self._connection is None:
            return  # the answer, or the next connection, asks again
        task = asyncio.create_task(self._ask(self._connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        if was_asking and is_confirmed and self._through is not None:
            self._backoff.succeeded()
            through, waiters = self._through, self._asking_for
            self._through, self._asking_for = None, []
            clear = ClearOutbox(self._link.remote, self.document, through)
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
        news = [delta.update for delta in deltas if delta.source != self._link.source]
        if self._behind_state is not None:
            self._behind_state += news
            return
        for update in news:
            self._connection.send(encode_update(update))
            self._exchange.sent(update)
        if news:
            self._show(Progress.CATCHING_UP)
            self._ask_soon()

    def refused(self, refusal: Refusal) -> None:
        """The remote brought what we do not let in; it stays out, the rest goes on."""
        if refusal.source == self._link.source:
            self.last_error = f"an update of the remote was refused: {refusal.error.reason}"

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """Our own store failed: hang up, and begin anew from what is stored."""
        self.last_error = str(error)
        if self._connection is not None:
            task = asyncio.create_task(self._connection.close(1011, "our store failed"))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _vector(self) -> bytes:
        known = self._shell.core.get(self.document)
        return b"\x00" if known is None else known.head.state_vector()

    def _show(self, progress: Progress) -> None:
        if progress is not self.progress:
            self.progress = progress
            self._link.progress_changed()


def _nothing() -> None:
    """Nothing is presented yet."""


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
