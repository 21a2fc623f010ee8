"""Keeps one replica in step with one remote over y-websocket, for ever.

One socket per document (that is y-websocket's wire): a `Conversation` each.  A link follows the
documents that are open, and those whose outbox holds edits that the remote is not known to hold,
whether anybody has them open or not.

1. Every open document has its conversation.  Documents that are only owed take turns in what
   `Limits.link_conversations_max` leaves, and in one place at least.
2. A turn ends when the remote has confirmed the document, or will not have it; nothing else ends
   it.  What it would not have gets another turn after `Limits.refused_seconds`.
3. The outbox is read in pages; nothing here grows with it.

Between members of a topology, which dial one another, a turn lasts until nothing has been edited
for `Limits.link_linger_seconds` or its place is needed, so that what is edited in a row is
streamed; and nobody opens a channel for a document that the other has opened on its own connection
already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.clocks import Instant
from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    LimitExceeded,
    StoreUnavailable,
)
from crdt_state.identifiers import Scope, document_id, scope_of
from crdt_state.storage.contract import NOTHING, ClearOutbox
from crdt_state.sync.exchange import Progress
from crdt_state.topology.contract import dials
from crdt_state.transport.conversation import Conversation, Tie
from crdt_state.transport.peer_conversation import PeerConversation
from crdt_state.transport.peer_line import PeerLine, report
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.scope_link import ScopeLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crdt_state.errors import EditRefused
    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.protocol.peer.messages import Members
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import OutboxEntry
    from crdt_state.transport.connection import Dial

__all__ = ["Link", "Refused", "Wire"]

PAGE = 256

RESTING_MAX = 10_000
"""How many unwelcome documents are remembered; beyond it the oldest is tried again sooner."""


class Wire(Enum):
    """What a link speaks."""

    REPLICA = "replica"
    """Our own protocol: one connection for all documents, and acknowledgements."""

    Y_WEBSOCKET = "y-websocket"
    """A connection for each document; every server of Yjs documents speaks it."""


class Refused(NamedTuple):
    """Edits that the remote did not let in; they are in the quarantine of `document`."""

    document: str
    code: int
    reason: str
    size: int
    """In bytes."""


class Link:
    """A replica's tie to one remote."""

    def __init__(
        self,
        shell: ReplicaShell,
        remotes: Remotes,
        url: str,
        dial: Dial,
        *,
        closed: Callable[[Link], None],
        wire: Wire = Wire.REPLICA,
        token: str | Callable[[], str] | None = None,
        is_to_member: bool = False,
    ) -> None:
        """For `Replica.connect`; `closed` is called when this begins to close.

        `token` is said in the greeting of our own protocol; over y-websocket `dial` brings it.
        `is_to_member` where the remote takes part in the same topology: it may dial us, too.
        """
        self.remote = url.rstrip("/")
        self.source = shell.new_source()
        self._shell = shell
        self._remotes = remotes
        self._closed = closed
        self._tie = Tie(
            self.remote, self.source, shell, remotes, dial, self.progress_changed, self._was_refused
        )
        self._scopes = ScopeLink(
            shell,
            self.remote,
            self.source,
            changed=self._scopes_changed,
            give_turns=self._give_turns,
            bring=self.bring,
        )
        self._wanted: dict[DocumentId, asyncio.Future[bool]] = {}
        """Documents that are to have a turn though they are not owed, until they had it."""
        self._line: PeerLine | None = None
        if wire is Wire.REPLICA:
            self._line = PeerLine(
                shell,
                self.remote,
                dial,
                token=token,
                changed=self._line_changed,
                remotes=remotes,
                owes_more=self.look_again,
                scopes=self._scopes,
                is_to_member=is_to_member,
            )
        self._conversations: dict[DocumentId, Conversation | PeerConversation] = {}
        self.line_changed: Callable[[], None] = _nothing
        """Called when the connection of our own protocol has come, gone or failed."""
        self._is_to_member = is_to_member
        self._quiet_since: dict[DocumentId, Instant] = {}
        """Turns that last though the remote has confirmed everything."""
        self.lasts: Callable[[DocumentId], bool] = lambda _: False
        """Which documents' turns are not to end, however long nothing is edited."""
        self._attended: dict[DocumentId, None] = {}
        """Documents that have a channel for the sake of the people who are at them."""
        self._to_bring: dict[DocumentId, None] = {}
        self._is_to_compare = False
        self._looking_again: asyncio.TimerHandle | None = None
        self._turns: dict[DocumentId, None] = {}
        """Of the conversations, those about documents that are only owed, in their order."""
        self._ending: dict[DocumentId, asyncio.Task[None]] = {}
        self._resting: dict[DocumentId, Instant] = {}
        self._is_giving_turns = False
        self._look = asyncio.Event()
        self._has_changed = asyncio.Event()
        self._waiting: list[asyncio.Future[list[DocumentId]]] = []
        self._opened_while_owed: dict[DocumentId, None] = {}
        """Of what the outbox holds, documents that need no turn, because somebody has them open."""
        self._watchers: list[Callable[[Progress], None]] = []
        self._refusals: deque[Refused] = deque(maxlen=shell.limits.link_refusals_max)
        self._last_error: str | None = None
        self._progress = Progress.OFFLINE
        self._backoff = Backoff(shell.limits, shell.random)
        self._begun: asyncio.Task[None] | None = None
        self._is_closed = False

    def begin(self) -> None:
        """Owe the remote what is edited from now on, and go on with what it was owed before."""
        self._shell.core.add_remote(self.remote, self.source)
        if self._line is not None:
            self._line.begin()
        self._begun = asyncio.create_task(self._bring_what_is_owed(), name=f"link {self.remote}")
        self._look_at_gatherings()

    # --- what people look at -----------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the link is: as far as its slowest document.

        Where it is `Progress.REFUSED`, the remote does not let us in; `last_error` says why.
        """
        return self._progress

    @property
    def peer(self) -> ReplicaId | None:
        """Who is at the other end, once it has said so; over y-websocket nobody does."""
        welcome = None if self._line is None else self._line.welcome
        return None if welcome is None else welcome.replica

    @property
    def is_to_itself(self) -> bool:
        """Whether the remote turned out to be this replica."""
        return self._line is not None and self._line.is_to_itself

    @property
    def is_up(self) -> bool:
        """Whether there is a connection of our own protocol on which both have greeted."""
        return self._line is not None and self._line.is_up

    @property
    def last_error(self) -> str | None:
        """Why a connection last ended or could not be made, of any document."""
        talks = [*self._conversations.values(), *self._scopes.followers.values()]
        errors = [talk.last_error for talk in talks if talk.last_error]
        if self._line is not None and self._line.last_error and not self._line.is_up:
            errors.append(self._line.last_error)
        return errors[-1] if errors else self._last_error

    @property
    def refusals(self) -> tuple[Refused, ...]:
        """What the remote did not let in, oldest first; the last `Limits.link_refusals_max`."""
        return tuple(self._refusals)

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

        More exactly, for every document that is open or owed now: every edit that was made before
        this call is confirmed by the remote, and everything the remote held when it confirmed
        is durable here.  Waits through disconnections, and for documents that the remote will
        not have.  Raises `EditRefused` where the remote refused an edit in a document that is
        open; of documents that are only owed, `refusals` tells.
        """
        if self._is_closed:
            raise DocumentClosed("this link is closed; `Replica.connect` makes another")
        waiter: asyncio.Future[list[DocumentId]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.look_again()
        followed = [
            talk for document, talk in self._conversations.items() if document not in self._turns
        ]
        scopes = self._scopes.followers.values()
        await asyncio.gather(*(follower.in_step() for follower in scopes))
        await asyncio.gather(self._owed(waiter), *(talk.synced() for talk in followed))

    async def _owed(self, waiter: asyncio.Future[list[DocumentId]]) -> None:
        """Wait for what is only owed, and for what has been opened since by somebody."""
        opened = await waiter
        # What has been let go of again was in step by then, and a turn is about what came later.
        talks = [
            self._conversations[each]
            for each in opened
            if each in self._conversations and each not in self._turns
        ]
        await asyncio.gather(*(talk.synced() for talk in talks))

    # --- which documents ---------------------------------------------------------------------

    def subscribe(self, scope: str) -> None:
        """Keep every document of a scope in step, whether anybody has it open or not.

        A scope is what stands before the last slash of document ids: `notes` for `notes/today`,
        and "" for ids without a slash.  Over our own protocol only.  Raises `InvalidDocumentId`
        for what is no scope, and `LimitExceeded` beyond `Limits.scopes_max`.
        """
        name = Scope(document_id(scope) if scope else "")
        if self._is_closed or self._line is None:
            raise DocumentClosed("this link is closed, or speaks y-websocket, which has no scopes")
        allowed, count = self._shell.limits.scopes_max, len(self._scopes.followers)
        if name not in self._scopes.followers and count >= allowed:
            raise LimitExceeded("scopes_max", allowed, count + 1)
        self._scopes.subscribe(name)
        self.progress_changed()

    def follow(self, document: DocumentId) -> Conversation | PeerConversation:
        """Keep a document in step that somebody has open; a second call changes nothing."""
        if self._is_closed:
            raise DocumentClosed("this link is closed; `Replica.connect` makes another")
        if document in self._turns:
            del self._turns[document]
            self._opened_while_owed[document] = None
        return self._conversations.get(document) or self._converse(document)

    def needs(self, document: DocumentId) -> bool:
        """Whether a document is still to be brought in step, or somebody waits until it is."""
        talk = self._conversations.get(document)
        return talk is None or talk.progress is not Progress.IN_SYNC or talk.is_awaited

    def unfollow(self, document: DocumentId) -> asyncio.Future[None]:
        """Let go of a document that the link no longer `needs`; done when that has happened."""
        if document in self._attended:
            self._turns[document] = None  # others are still at it
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return asyncio.shield(self._end(document))

    async def close(self) -> None:
        """Hang up, for good; `Replica.connect` makes another.  A second call changes nothing.

        What is not confirmed stays in the outbox for the next time.
        """
        if not self._is_closed:
            self._is_closed = True
            self._closed(self)
        self._shell.core.remote_left(self.remote, self.source)
        if self._looking_again is not None:
            self._looking_again.cancel()
        if self._begun is not None:
            self._begun.cancel()
            await asyncio.gather(self._begun, return_exceptions=True)
        for document in tuple(self._conversations):
            self._end(document)
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
        if self._line is not None:
            await self._line.close()
        for follower in self._scopes.followers.values():
            follower.close(DocumentClosed("the link was closed before this was in sync"))
        for future in self._wanted.values():
            future.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(DocumentClosed("the link was closed before this was in sync"))
        self.progress_changed()

    def look_again(self) -> None:
        """Look into the outbox for documents that have come to be owed."""
        self._look.set()
        if self._looks_early():
            self._has_changed.set()

    def compare(self) -> None:
        """Give every document that is here a turn: what either side lacks then comes to it."""
        self._is_to_compare = True
        self.look_again()

    def tell(self, tales: Members) -> None:
        """Tell a member, where there is a connection, whom this replica knows."""
        if self._line is not None:
            self._line.tell(tales)

    def bring(self, document: DocumentId) -> None:
        """Give a document a turn, owed or not."""
        self._to_bring[document] = None
        self.look_again()

    def ask_for_life(self, document: DocumentId) -> None:
        """Hear whether a document that was deleted has been begun anew at the remote since."""
        if self._line is not None:
            self.bring(document)

    def delivered(self, documents: Iterable[DocumentId]) -> None:
        """Of these documents something new is durable here: a member is told soon."""
        if not self._is_to_member:
            return
        now = self._shell.clock.now()
        for document in documents:
            if document in self._quiet_since:
                self._quiet_since[document] = now
            if document not in self._conversations:
                self.look_again()

    @property
    def carries_awareness(self) -> bool:
        """Whether people see each other by this link who are at neither end's own documents."""
        return bool(self._attended)

    def who_is_here_changed(self, document: DocumentId) -> None:
        """Somebody has come to a document or left it: they are shown by a channel that lasts."""
        gathering = self._shell.gatherings.find(document)
        is_attended = gathering is not None and gathering.concerns(
            self.source, self.peer, is_to_member=self._is_to_member
        )
        if is_attended and document in self._attended:
            if document not in self._conversations:
                self.look_again()  # the remote may have let go of its own channel
        elif is_attended and len(self._attended) < self._shell.limits.link_gatherings_max:
            self._attended[document] = None
            self.look_again()
        elif not is_attended and document in self._attended:
            del self._attended[document]
            self.look_again()

    def _converse(self, document: DocumentId) -> Conversation | PeerConversation:
        behind = self._ending.get(document)
        talk: Conversation | PeerConversation
        if self._line is None:
            talk = Conversation(document, self._tie, behind=behind)
        else:
            talk = PeerConversation(document, self._tie, self._line, behind=behind)
        self._conversations[document] = talk
        talk.start()
        self.progress_changed()
        return talk

    def _end(self, document: DocumentId) -> asyncio.Task[None]:
        """End a conversation in the background."""
        talk = self._conversations.pop(document)
        self._turns.pop(document, None)
        self._quiet_since.pop(document, None)
        self._last_error = talk.last_error or self._last_error
        task = asyncio.create_task(self._close(talk))
        self._ending[document] = task

        def ended(_: object) -> None:
            if self._ending.get(document) is task:
                del self._ending[document]
            self._has_changed.set()
            self._had_its_turn(document, is_in_step=talk.unwelcome_seconds is None)

        task.add_done_callback(ended)
        self.progress_changed()
        return task

    async def _close(self, talk: Conversation | PeerConversation) -> None:
        with contextlib.suppress(CrdtStateError):  # told to who has it open
            await self._shell.settled(talk.document)
        await talk.close()

    # --- documents that are only owed --------------------------------------------------------

    async def _bring_what_is_owed(self) -> None:
        while True:
            try:
                await self._remotes.add(self.remote)
                while True:
                    self._look.clear()
                    waiting, self._waiting = self._waiting, []
                    await self._go_through_outbox(waiting)
                    await self._look.wait()
            except CrdtStateError as error:
                self._last_error = str(error)
            except Exception as error:
                self._last_error = repr(error)
                report(f"the link to {self.remote} failed and goes on", error)
            await asyncio.sleep(self._backoff.failed())

    async def _go_through_outbox(self, waiting: list[asyncio.Future[list[DocumentId]]]) -> None:
        """Give every document that is owed its turn, and then tell who waits for that.

        Who waits goes on waiting where the remote would not have one of them.
        """
        self._opened_while_owed.clear()
        try:
            await self._give_turns_to_asked_for()
            is_all = await self._give_turns_to_owed()
            if self._is_to_compare:
                self._is_to_compare = False
                await self._give_turns_to_all()
            # A member that is slow over one document is not to be told late of all others, and who
            # comes to a document is not to be shown late because of what is owed.
            await self._until(
                lambda: self._are_turns_over() or (self._looks_early() and self._look.is_set())
            )
            is_all &= self._are_turns_over()
        except BaseException:
            self._waiting = waiting + self._waiting
            raise
        self._is_giving_turns = False
        self.progress_changed()
        if not is_all or self._resting:
            self._waiting = waiting + self._waiting
            return
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(list(self._opened_while_owed))

    async def _give_turns_to_asked_for(self) -> None:
        """Owed or not: what somebody waits for, what has rested, and what people are at."""
        for document in tuple(self._wanted):
            if not await self._give_turn(document):
                self._had_its_turn(document, is_in_step=False)  # not now
            elif document not in self._turns:
                self._is_open(document)
        to_bring, self._to_bring = self._to_bring, {}
        for document in (*to_bring, *self._resting):
            if not await self._give_turn(document) and document not in self._resting:
                self._to_bring[document] = None  # when the remote has let go of it
        for document in tuple(self._attended):
            if document not in self._conversations and document in self._attended:
                await self._give_turn(document)

    async def _give_turns_to_owed(self) -> bool:
        """Whether none of them had to be left for later."""
        is_all, after = True, ""
        while page := await self._shell.store.outbox(self.remote, after=after, limit=PAGE):
            after = page[-1].document
            for entry in page:
                if self._scopes.is_catching_up(scope_of(entry.document)):
                    is_all = False
                elif not await self._is_cleared(entry):
                    is_all &= await self._give_turn(entry.document)
        return is_all

    async def _give_turns_to_all(self) -> None:
        after = ""
        while page := await self._shell.store.list(after=after, limit=PAGE):
            after = page[-1].document
            for line in page:
                await self._give_turn(line.document)

    async def _is_cleared(self, entry: OutboxEntry) -> bool:
        """Whether a member that has dialled us holds it, as it has said there: then owe it no more.

        Raises `StoreError`.
        """
        if not self._is_to_member or self.peer is None or entry.document in self._conversations:
            return False
        holders = self._shell.holdings.of(entry.document)
        holders.ask()
        if dict(holders.durable()).get(self.peer, NOTHING) < entry.through:
            return False
        await self._shell.store.write([ClearOutbox(self.remote, entry.document, entry.through)])
        return True

    def _has_come_for(self, document: DocumentId, *, surely: bool = False) -> bool:
        """Whether the remote has opened this document on a connection of its own.

        `surely` where it has answered there, and so has been shown who is here, and shown it.
        """
        if not self._is_to_member or self.peer is None:
            return False
        talk = self._conversations.get(document)
        mine = talk.channel if isinstance(talk, PeerConversation) else None
        talkers = self._shell.holdings.of(document).talkers_with(self.peer)
        return any(
            talker is not mine and not (surely and not talker.is_confirmed) for talker in talkers
        )

    def _are_turns_over(self) -> bool:
        return len(self._turns) == len(self._quiet_since) and not self._ending

    def _looks_early(self) -> bool:
        return self._is_to_member or bool(self._attended)

    def _look_again_in(self, seconds: float) -> None:
        def look() -> None:
            self._looking_again = None
            self.look_again()

        loop, earlier = asyncio.get_running_loop(), self._looking_again
        if earlier is None or earlier.when() > loop.time() + seconds:
            if earlier is not None:
                earlier.cancel()
            self._looking_again = loop.call_later(seconds, look)

    async def _give_turn(self, document: DocumentId) -> bool:
        """Begin a document's turn when there is a place; False where it is not its time yet."""
        if document in self._turns and self._is_to_member:
            return True
        if document in self._conversations:
            self._opened_while_owed[document] = None
            return True
        if self._has_come_for(document):
            if document not in self._attended:  # of those, the gathering tells when that ends
                self._look_again_in(self._shell.limits.link_look_seconds)
            return False
        if document in self._resting:
            rest = self._resting[document] - self._shell.clock.now()
            if rest > 0:
                self._look_again_in(rest)
                return False
            del self._resting[document]
        self._is_giving_turns = True
        if document not in self._attended and not self._has_place():
            await self._until(self._has_place, may_linger=False)
        if document in self._conversations:
            self._opened_while_owed[document] = None
        else:
            self._turns[document] = None
            self._converse(document)
        return True

    async def _give_turns(self, documents: Iterable[DocumentId]) -> bool:
        """Give documents a turn that need not be owed; whether all of them are in step then."""
        futures: list[asyncio.Future[bool]] = []
        for document in documents:
            future = self._wanted.get(document)
            if future is None:
                future = self._wanted[document] = asyncio.get_running_loop().create_future()
            futures.append(future)
        self.look_again()
        return all(await asyncio.gather(*map(asyncio.shield, futures)))

    def _had_its_turn(self, document: DocumentId, *, is_in_step: bool) -> None:
        future = self._wanted.pop(document, None)
        if future is not None and not future.done():
            future.set_result(is_in_step)

    def _is_open(self, document: DocumentId) -> None:
        """Somebody has it open: what its channel will have brought is not here before."""
        if self.progress_of(document) is not Progress.IN_SYNC:
            future = self._wanted.pop(document, None)
            if future is not None and not future.done():
                future.set_exception(StoreUnavailable(f"{document!r} is not in step yet"))
        else:
            self._had_its_turn(document, is_in_step=True)

    def _has_place(self) -> bool:
        turns = sum(document not in self._attended for document in self._turns)
        open_ones = len(self._conversations) - len(self._turns)
        places = max(1, self._shell.limits.link_conversations_max - open_ones)
        return turns + len(self._ending) < places

    async def _until(self, condition: Callable[[], bool], *, may_linger: bool = True) -> None:
        while True:
            self._has_changed.clear()
            for document in tuple(self._turns):
                talk = self._conversations[document]
                if talk.unwelcome_seconds is not None:
                    self._rest(document, talk.unwelcome_seconds)
                    self._end(document)
                elif talk.progress is not Progress.IN_SYNC:
                    self._quiet_since.pop(document, None)
                elif not self._lingers(document, may_linger=may_linger):
                    self._end(document)
            if condition():
                return
            await self._has_changed.wait()

    def _lingers(self, document: DocumentId, *, may_linger: bool) -> bool:
        """Whether a turn lasts though the remote has confirmed everything."""
        is_attended = document in self._attended
        if not is_attended and not (may_linger and self._is_to_member):
            return False
        now = self._shell.clock.now()
        since = self._quiet_since.setdefault(document, now)
        is_long_quiet = now - since >= self._shell.limits.link_linger_seconds
        if is_long_quiet and not is_attended and not self.lasts(document):
            return False
        me, peer = self._shell.store.replica_id, self.peer
        # Where both have opened it, one of the two is enough, and both know whose.
        return peer is None or dials(me, peer) or not self._has_come_for(document, surely=True)

    def _rest(self, document: DocumentId, seconds: float) -> None:
        if len(self._resting) >= RESTING_MAX:
            del self._resting[next(iter(self._resting))]
        self._resting[document] = Instant(self._shell.clock.now() + seconds)

    # --- what conversations tell -------------------------------------------------------------

    def progress_changed(self) -> None:
        """Look at all conversations again."""
        self._has_changed.set()
        order = list(Progress)
        found = [talk.progress for talk in self._conversations.values()]
        found += [follower.progress for follower in self._scopes.followers.values()]
        progress = min(found, key=order.index, default=Progress.OFFLINE)
        if self._is_giving_turns and progress is Progress.IN_SYNC:
            progress = Progress.CATCHING_UP  # others have not had their turn yet
        if progress is not self._progress:
            self._progress = progress
            for callback in tuple(self._watchers):
                try:
                    callback(progress)
                except Exception as error:
                    # An application's own trouble; the link goes on.
                    report(f"a callback on the link to {self.remote} failed", error)

    def _scopes_changed(self) -> None:
        self.look_again()  # what was held back while a scope was compared
        self.progress_changed()

    def _line_changed(self) -> None:
        for talk in tuple(self._conversations.values()):
            if isinstance(talk, PeerConversation):
                talk.line_changed()
        self.progress_changed()
        self.line_changed()
        if self.is_up:
            self._look_at_gatherings()

    def _look_at_gatherings(self) -> None:
        for document in self._shell.gatherings.documents():
            self.who_is_here_changed(document)

    def _was_refused(self, refused: EditRefused) -> None:
        size = sum(map(len, refused.updates))
        self._refusals.append(Refused(refused.document, refused.code, refused.reason, size))


def _nothing() -> None:
    """Nobody wants to know."""
