"""One document over one connection of our own protocol: the same at both ends.

    opener    use the document ── Open(vector) ──► … ◄── State(vector, n) ── n updates
    both      what the other lacks, then what others edit ── Updates ──► … ◄── Acknowledge

What a peer has acknowledged is a position in our own log (`sync/acknowledging`), which is what
clears an outbox and fulfils a receipt.

1. An update is acknowledged as durable when the commit that holds it has returned; as applied when
   nothing that it depends on is missing.  From a refused one on, nothing is.
2. Updates go out in the order of the log, and behind the state that they build on.
3. Nothing is said of one life of a document to who holds another (crdt_state/lineage.py): who
   holds the lesser one is told of the greater, and the channel ends.
4. What waits to be sent is bounded: beyond it this is behind, keeps a state vector only, and
   catches up from the document's state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentSetAside,
    LineageDeleted,
    LineageEnded,
    NotHead,
    QuotaExceeded,
    RemoteProtocolError,
    UpdateRefused,
    WriteNotPermitted,
)
from crdt_state.lineage import BORN
from crdt_state.model.portions import portions
from crdt_state.model.state import EMPTY_VECTOR, encode_state_vector
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Awareness,
    Barrier,
    Held,
    Hops,
    Passed,
    State,
    Updates,
)
from crdt_state.replica.awaited import fingerprint
from crdt_state.replica.document_core import NOBODY, Delta
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.storage.contract import NOTHING, Sequence
from crdt_state.sync.acknowledging import Brought, Sent
from crdt_state.transport import codes
from crdt_state.transport.reception import take_update
from crdt_state.transport.shortfall import Shortfall

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from collections.abc import Sequence as Many

    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.lineage import Life
    from crdt_state.replica.admission import Author
    from crdt_state.replica.awaited import Fingerprint
    from crdt_state.replica.document_core import Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.transport.peer_connection import PeerConnection, Said

__all__ = [
    "NOTHING_TO_BRING",
    "Attendant",
    "Channel",
]


MESSAGE_OVERHEAD_BYTES = 64
"""At most, of what an `Updates` says besides one update."""

BATCH_BYTES = 32 * 1024
"""What one channel sends before others have their turn."""

NOTHING_TO_BRING = b"\x00\x00"
"""The update that says nothing."""


class Attendant(Protocol):
    """Whoever runs a channel at its end of the connection.  These calls must not wait."""

    def progressed(self) -> None:
        """Something was confirmed, caught up, or has begun to be sent."""

    def heard_awareness(self, message: Awareness) -> None:
        """The peer told of clients."""

    def was_refused(self, refusal: Refusal) -> None:
        """The peer brought what we do not let in."""

    def channel_ended(self, code: int, reason: str, *, by_peer: bool) -> None:
        """The channel is over: closed by the peer, or by us for the document's sake."""


class _Waiting(NamedTuple):
    """An update on its way out; what is of a state is not bounded, what comes after it is."""

    update: bytes
    position: Sequence
    """Where the peer is in our log when it has this and all others of the same position."""
    floor: Sequence
    """Where it is by what goes before; `NOTHING` where this is a part of what was left out."""
    is_of_state: bool


class Channel:
    """A subscriber of the replica, and what a connection calls when the peer has said something."""

    def __init__(  # noqa: PLR0915 - both directions have much to remember
        self,
        shell: ReplicaShell,
        wire: PeerConnection,
        document: DocumentId,
        attendant: Attendant,
        *,
        peer: ReplicaId,
        source: int,
        author: Author,
        name: str,
        number: int = -1,
    ) -> None:
        """A channel that is not open yet.

        `peer` is the replica at the other end, `author` who that is to admission, and `name` what
        is stored as the source of what it brings.  `number` is known where the peer opened it.
        """
        self.document = document
        self.peer = peer
        self.number = number
        self.author = author
        self.source = source
        self.has_sent = False
        """Whether anything of ours has gone out."""
        self.has_all = False
        """Whether what the peer held when this was opened is durable here."""
        self.successor: Life | None = None
        """The greater life of the document that the peer told of, which ended this."""
        self._is_apart = False
        """Whether the peer was told of a greater life than its own, and may say nothing more."""
        self._shell = shell
        self._wire = wire
        self._holders = shell.holdings.of(document)
        self._attendant = attendant
        self._name = name
        self.is_over = False
        """Whether it has ended, from either side."""
        self._is_used = False
        # To be sent.
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._state_is_out = asyncio.Event()
        self._sent = Sent()
        self._shortfall = Shortfall(source, shell.limits)
        self._is_behind = True
        self.is_confirmed = False
        """Whether what the peer said that it held is known to be on its disk."""
        self.has_begun = False
        """Whether the peer has told us what it holds: it lets us in."""
        self._catching_up: asyncio.Task[None] | None = None
        self._barriers: deque[asyncio.Future[None]] = deque()
        """Those that we asked for, in their order."""
        self._to_pass = 0
        """How many that the peer asked for wait for what has to go out before."""
        # Received.
        self._received = 0
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._taking: asyncio.Task[None] | None = None
        self._unsettled_bytes = 0
        self._settled = 0
        self._undecided: deque[tuple[int, bytes]] = deque()
        self._waits: dict[Fingerprint, int] = {}
        """The first number of each that is in the pending table, in order; no more than that."""
        self._acknowledged = (0, 0)
        self._refused_from: int | None = None
        self._brought = Brought()
        self._to_receive: int | None = None
        self._settling: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    # --- beginning and end -------------------------------------------------------------------

    async def open(self, state_vector: bytes | None = None, *, is_new: bool = False) -> None:
        """Open it from our side; `is_new` where the peer has never held any of the document.

        Raises `StoreError`.
        """
        await self._use()
        vector = state_vector if state_vector is not None else self._vector()
        self.number = self._wire.protocol.open(self.document, vector, self._life(), is_new=is_new)
        self._wire.register(self.number, self)
        self._wire.touch()

    async def answer(self, state_vector: bytes, life: Life, *, is_unknown: bool = False) -> None:
        """Answer the peer, which opened it with what it holds of `life`.

        Where ours is greater, or where `is_unknown` says that it must have been deleted since, the
        peer is told, and closes.  Raises `UpdateRefused` for what is no state vector, and
        `StoreError`.
        """
        await self._use()
        ours = life.deleted() if is_unknown else self._life()
        if ours != life:
            self._is_apart = True
            self._wire.protocol.answer(self.number, EMPTY_VECTOR, 0, ours)
            self._wire.touch()
            return
        if ours != BORN:
            await self._shell.peers.passed(self.peer, self.document, self._shell.last)
        self.has_begun = True
        await self._catch_up(state_vector, is_answer=True)
        self._confirm()

    def end(self) -> None:
        """Let go of the document; whoever calls this closes the channel."""
        if self.is_over:
            return
        self.is_over = True
        self._wire.let_go(self.number)
        for task in tuple(self._tasks):
            task.cancel()
        self._queue.clear()
        self._state_is_out.set()
        self._barriers.clear()
        self._holders.leave(self)
        self._shell.core.hops.pop((self.document, self.source), None)
        if self._is_used:
            self._shell.leave(self.document, self.source)

    def close(self, code: int, reason: str) -> None:
        """End it, and tell both sides."""
        if not self.is_over:
            self._wire.close_channel(self.number, code, reason)
            self.end()
            self._attendant.channel_ended(code, reason, by_peer=False)

    def barrier(self) -> asyncio.Future[None]:
        """Ask the peer, which has answered, whether all that was said so far is durable there.

        Done when it is, and when all that the peer held then has come; never where the channel
        ends before.
        """
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers.append(passed)
        self._wire.protocol.say(Barrier(self.number))
        self._wire.touch()
        return passed

    @property
    def has_confirmed_all(self) -> bool:
        """Whether the peer holds, durably, everything of the document that was delivered."""
        is_all_sent = self.is_confirmed and not self._is_behind and not self._queue
        return is_all_sent and self._sent.is_all_durable

    def holds_through(self) -> Sequence:
        """Position in our log through which the peer is known to hold this document, durably."""
        return self._shell.last if self.has_confirmed_all else Sequence(self._sent.durable_through)

    # --- as a subscriber ---------------------------------------------------------------------

    def deliver(self, deltas: Many[Delta]) -> None:
        """Send on what others brought."""
        if self._waits:
            self._acknowledge()  # something that waited may have been let in
        if not self.has_begun:
            return  # the exchange of states covers it
        news = [delta for delta in deltas if delta.source != self.source]
        if not news:
            return
        if self._is_behind:
            self._shortfall.miss(news)
        else:
            self._enqueue(news, self._shell.before)
        self._attendant.progressed()

    def refused(self, refusal: Refusal) -> None:
        """Acknowledge nothing from it on."""
        if refusal.source == NOBODY:
            numbers = self._numbers_of(refusal.wholes)
            if not numbers:
                return
        elif refusal.source == self.source:
            numbers = [number for number, update in self._undecided if update == refusal.update]
        else:
            return
        first = min(numbers, default=self._settled + 1)
        self._refused_from = min(first, self._refused_from or first)
        self._attendant.was_refused(refusal)

    def _numbers_of(self, wholes: Many[Fingerprint]) -> list[int]:
        """Of what the peer brought and was let wait, the numbers of these."""
        numbers = [self._waits[whole] for whole in wholes if whole in self._waits]
        if wholes:
            numbers += [
                number for number, update in self._undecided if fingerprint(update) in wholes
            ]
        return numbers

    def lost(self, error: Exception, own_edits: Many[bytes]) -> None:
        """What we talked of is not what is stored: end it; the peer may open it anew."""
        self._is_used = False  # it has been unsubscribed already
        code = error.code if isinstance(error, UpdateRefused) else codes.TRY_AGAIN_LATER
        if isinstance(error, LineageEnded):
            code = codes.OTHER_LINEAGE  # however it ended: the next `Open` is told
        self.close(code, str(error))

    # --- as what a connection calls ----------------------------------------------------------

    def hear(self, message: Said) -> None:
        """The peer said something."""
        try:
            self._hear(message)
        except Exception as error:
            self._crashed(error)

    def _hear(self, message: Said) -> None:
        if self._is_apart:
            self.close(codes.OTHER_LINEAGE, "what you say is about a life of it that has ended")
            return
        match message:
            case Updates():
                self._receive(message)
            case Acknowledge(_, durable, applied):
                self._was_acknowledged(durable, applied)
            case State(_, _, _, life) if life != self._life():
                self._hear_of_another(life)
            case State(_, state_vector, updates, _):
                self._to_receive = updates
                self.has_begun = True
                self._start(self._begin(state_vector))
                self._attendant.progressed()
                if not updates:
                    self._settle_soon()
            case Awareness():
                self._hear_awareness(message)
            case Held():
                self._hear_held(message)
            case Hops(_, hops):
                self._shell.core.hops[self.document, self.source] = hops
            case Barrier():
                self._start(self._pass_barrier())
            case Passed():
                self._barriers.popleft().set_result(None)

    def _hear_of_another(self, life: Life) -> None:
        if life > self._life():
            self.successor = life
            self.close(codes.OTHER_LINEAGE, f"we hold another of its lives than {life}")
        else:
            self.close(codes.MALFORMED, f"an answer of {life}, which has ended")

    def _hear_awareness(self, message: Awareness) -> None:
        try:
            self._attendant.heard_awareness(message)
        except RemoteProtocolError as error:
            self.close(error.code, error.reason)

    def ended(self, code: int, reason: str) -> None:
        """The peer closed it, or the connection has gone."""
        if not self.is_over:
            self.end()
            self._attendant.channel_ended(code, reason, by_peer=True)

    # --- sending -----------------------------------------------------------------------------

    def send_some(self) -> bool:
        """Send a batch of what waits; whether more waits."""
        try:
            return self._send_some()
        except Exception as error:
            self._crashed(error)
            return False

    def _send_some(self) -> bool:
        if not self._queue:
            if self._is_behind and self.has_begun and self._catching_up is None:
                self._catching_up = self._start(self._come_back())
            return False
        batch: list[bytes] = []
        size, floor, last = 0, self._queue[0].floor, self._queue[0]
        while self._queue and size < BATCH_BYTES:
            last = self._queue.popleft()
            batch.append(last.update)
            size += len(last.update)
            if not last.is_of_state:
                self._queue_bytes -= len(last.update)
        self.has_sent = True
        size_max = self._wire.protocol.message_bytes_max - MESSAGE_OVERHEAD_BYTES
        largest = max(map(len, batch))
        if largest > size_max:
            reason = f"an update of {largest:,} bytes is more than the other side takes at once"
            self.close(codes.TOO_BIG, reason)
            return False
        self._wire.protocol.count_hops(self.number, self._shell.core.hops_beyond(self.document))
        number = self._wire.protocol.send_updates(self.number, tuple(batch))
        if not (self._queue and self._queue[0].is_of_state):
            self._state_is_out.set()
        # Where the rest of a commit or of a state follows, this part does not stand for it.
        is_whole = not self._queue or self._queue[0].position > last.position
        self._sent.add(number, last.position if is_whole else last.floor, floor=floor)
        self._pass_barriers()
        return bool(self._queue) or self._is_behind

    def _enqueue(self, deltas: Many[Delta], floor: Sequence) -> None:
        position = self._shell.last
        self._queue.extend(
            _Waiting(delta.update, position, floor, is_of_state=False) for delta in deltas
        )
        self._queue_bytes += sum(len(delta.update) for delta in deltas)
        if self._queue_bytes > self._shell.limits.peer_queue_bytes_max:
            self._fall_behind()
        self._wire.wants_to_send(self.number)

    def _fall_behind(self) -> None:
        """Keep a state vector of what waits, and what is left of a state."""
        self._is_behind = True
        later = [Delta(NOBODY, each.update) for each in self._queue if not each.is_of_state]
        self._shortfall.miss(later)
        self._queue = deque(each for each in self._queue if each.is_of_state)
        self._queue_bytes = 0

    async def _begin(self, state_vector: bytes) -> None:
        """Bring what a peer that has told us its vector lacks."""
        try:
            await self._catch_up(state_vector)
            self._confirm()
        except CrdtStateError as error:
            self._fail(error)

    def _confirm(self) -> None:
        """Ask once: a state vector may be ahead of the disk by what is being committed."""
        if not self.is_over:
            self.barrier().add_done_callback(lambda _: self._was_confirmed())

    def _was_confirmed(self) -> None:
        if not self.is_over:
            self.is_confirmed = True
            self.speak()
            self._attendant.progressed()

    async def _come_back(self) -> None:
        try:
            known = self._shell.core.get(self.document)
            if known is not None:
                held = self._shortfall.catching_up(known.head.vector)
                await self._catch_up(encode_state_vector(held))
        except CrdtStateError as error:
            self._fail(error)
        finally:
            self._catching_up = None

    async def _catch_up(self, vector: bytes, *, is_answer: bool = False) -> None:
        """Send what a peer that holds `vector` lacks, and after that what was missed meanwhile."""
        self._shortfall.catching_up({})  # from here on what is delivered is kept
        await self._shell.settled(self.document)
        position = self._shell.last
        update = await self._shell.difference(self.document, vector)
        if len(update) <= LARGE_BYTES:
            await self._bring(update, position, is_answer=is_answer)
            return
        async with self._wire.large_answers.spend(len(update)):
            await self._bring(update, position, is_answer=is_answer)
            del update
            await self._state_is_out.wait()
            await self._wire.has_room()

    async def _bring(self, update: bytes, position: Sequence, *, is_answer: bool) -> None:
        """Let a difference from the document's state go out, and what was missed behind it."""
        parts = await self._parts_of(update)
        if self.is_over:
            return
        self._state_is_out.clear()
        if not parts:
            self._state_is_out.set()
        if is_answer:
            self._wire.protocol.answer(self.number, self._vector(), len(parts), self._life())
        if not parts:
            self._sent.note(position)
        rest = self._shortfall.caught_up()
        self._queue.extend(_Waiting(part, position, NOTHING, is_of_state=True) for part in parts)
        if rest is not None:
            self._is_behind = False
            self._enqueue(rest, NOTHING)  # of several commits, perhaps
        self._wire.wants_to_send(self.number)
        self._pass_barriers()
        self._attendant.progressed()

    async def _pass_barrier(self) -> None:
        try:
            while self._taking is not None:
                await asyncio.wait([self._taking])  # what came before the barrier
            await self._shell.settled(self.document)
        except CrdtStateError as error:
            self._fail(error)
            return
        self._note_brought()
        self._to_pass += 1
        self._pass_barriers()

    def _note_brought(self) -> None:
        """All that the peer has said is here: whoever reaches our position holds it, too.

        So a peer hears of others also where it had nothing to bring.
        """
        if not self.is_over and not self._undecided and not self._waits and not self._refused_from:
            self._brought.add(self._settled, self._through())
            for replica, position in self._holders.durable():
                self.heard(replica, position)

    def _pass_barriers(self) -> None:
        """Answer the peer's barriers once nothing is left to be said before."""
        if self._is_behind or self._queue:
            return
        for _ in range(self._to_pass):
            self._wire.protocol.say(Passed(self.number))
        self._to_pass = 0
        self._wire.touch()

    async def _parts_of(self, update: bytes) -> list[bytes]:
        if update == NOTHING_TO_BRING:
            return []
        size_max = self._wire.protocol.update_bytes_max
        if len(update) <= size_max:
            return [update]
        # What the peer's limits bind is an edit, not all that was edited offline.
        return await asyncio.to_thread(portions, update, size_max // 2)

    def _was_acknowledged(self, durable: int, applied: int) -> None:
        self._sent.acknowledged(durable, applied)
        self.speak()
        self._attendant.progressed()

    # --- as a talker of the holdings ---------------------------------------------------------

    def speak(self) -> None:
        """Say how far the peer holds the document."""
        is_all_applied = self.has_confirmed_all and self._sent.is_all_applied
        applied = self._shell.last if is_all_applied else Sequence(self._sent.applied_through)
        self._holders.said(self.peer, self.holds_through(), applied)

    def heard(self, replica: ReplicaId, durable: Sequence) -> None:
        """Tell the peer who else holds what it brought."""
        if replica != self.peer:
            through = self._brought.news_of(replica, durable)
            if through is not None:
                self._wire.protocol.say(Held(self.number, replica, through))
                self._wire.touch()

    def _hear_held(self, message: Held) -> None:
        position = self._sent.position_of(message.through)
        if position:
            self._holders.said(message.replica, Sequence(position), NOTHING)

    # --- receiving ---------------------------------------------------------------------------

    def _receive(self, message: Updates) -> None:
        self._backlog.extend(enumerate(message.updates, message.first))
        if self._taking is None:
            self._take_backlog()

    def _take_backlog(self) -> None:
        """Take in what has come, in order; where rights or quotas say no, by a slower way."""
        while self._backlog and not self.is_over:
            try:
                self._shell.receive(
                    self.document, self.source, self.author, self._backlog[0][1], name=self._name
                )
            except (WriteNotPermitted, NotHead, QuotaExceeded):
                self._taking = self._start(self._take_slowly())
                return
            except (DocumentSetAside, DocumentClosed, LineageDeleted) as error:
                self._fail(error)
                return
            self._was_taken()

    async def _take_slowly(self) -> None:
        try:
            await take_update(
                self._shell,
                self.document,
                self._backlog[0][1],
                source=self.source,
                author=self.author,
                name=self._name,
                is_here=lambda: not self.is_over,
            )
        except CrdtStateError as error:
            self._fail(error)
            return
        finally:
            self._taking = None
        if not self.is_over:
            self._was_taken()
            self._take_backlog()

    def _was_taken(self) -> None:
        number, update = self._backlog.popleft()
        self._undecided.append((number, update))
        self._unsettled_bytes += len(update)
        self._received = number
        self._settle_soon()

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = self._start(self._settle())

    async def _settle(self) -> None:
        try:
            while self._settled < self._received or self._to_receive == 0:
                through, size = self._received, self._unsettled_bytes
                self._unsettled_bytes = 0
                await self._shell.settled(self.document)
                self._settled = through
                if size:
                    self._wire.grant(self.number, size)
                self._acknowledge()
        except CrdtStateError as error:
            self._fail(error)
        finally:
            self._settling = None

    def _acknowledge(self) -> None:
        """Say how far what the peer sent has come."""
        known = self._shell.core.get(self.document)
        if known is None:
            return
        while self._undecided and self._undecided[0][0] <= self._settled:
            number, update = self._undecided.popleft()
            if len(known.pending):
                whole = fingerprint(update)
                if known.waits(whole):
                    self._waits.setdefault(whole, number)
        while self._waits and not known.waits(first := next(iter(self._waits))):
            del self._waits[first]
        durable = self._settled
        if self._refused_from is not None:
            durable = min(durable, self._refused_from - 1)
        applied = min(durable, next(iter(self._waits.values())) - 1) if self._waits else durable
        # What waited and was then given up had been durable, and neither number ever falls.
        durable = max(durable, self._acknowledged[0])
        if (durable, applied) != self._acknowledged:
            has_more_applied = applied > self._acknowledged[1]
            self._acknowledged = (durable, applied)
            self._wire.protocol.acknowledge(self.number, durable, applied)
            if has_more_applied:
                # Only what is integrated is passed on, and can be held by others.
                self._brought.add(applied, self._through())
                for replica, position in self._holders.durable():
                    self.heard(replica, position)
        self._wire.touch()
        if self._to_receive is not None and self._settled >= self._to_receive:
            self._to_receive = None
            self.has_all = True
            self._attendant.progressed()

    # --- private -----------------------------------------------------------------------------

    async def _use(self) -> None:
        await self._shell.use(self.document, self.source, self)
        self._is_used = True
        self._holders.join(self)
        if self.is_over:  # it ended while the document was being loaded
            self._shell.leave(self.document, self.source)

    def _life(self) -> Life:
        known = self._shell.core.get(self.document)
        return BORN if known is None else known.life

    def _through(self) -> Sequence:
        """By where in our log all of the document is, as far as it was delivered."""
        known = self._shell.core.get(self.document)
        return self._shell.last if known is None else known.through

    def _vector(self) -> bytes:
        known = self._shell.core.get(self.document)
        return EMPTY_VECTOR if known is None else known.head.state_vector()

    def _fail(self, error: CrdtStateError) -> None:
        code = error.code if isinstance(error, UpdateRefused) else codes.TRY_AGAIN_LATER
        self.close(code, str(error))

    def _crashed(self, error: BaseException) -> None:
        """Something that nobody expects: report it, and end this channel alone."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a channel about {self.document!r} failed", "exception": error}
        )
        self.close(codes.TRY_AGAIN_LATER, "something went wrong here; it was reported")

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._has_ended)
        return task

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crashed(error)
