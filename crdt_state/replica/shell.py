"""Does what the core decides: one replica over one store, in one event loop.

    receive ─► (end of the tick) decide ─► writer: take a batch, write it ─► deliver

Whoever wants a document's updates *uses* it: a room of connections, a link to a remote, an open
`Document`.  All three are subscribers and are told the same thing in the same order, after it
has become durable.

1. The writer never stops: whatever a store, a subscriber or a document does wrong ends that
   batch, that subscription or that document's use, and is reported.
2. Nobody is told of an update before it is durable, and everybody of the same ones in one order.
3. Whoever waits (`settled`, `has_room`, `use`) is woken, at the latest by an error.
4. What nobody uses is let go of as soon as nothing of it is under way.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentSetAside,
    EditNotStored,
    EngineFailed,
    LineageEnded,
    StoreError,
    StoreUnavailable,
    UpdateRefused,
    UpdateTooLarge,
    WorkerFailed,
)
from crdt_state.model import engine
from crdt_state.model.state import decode_state_vector, encode_state_vector
from crdt_state.replica.attachment import Attachments
from crdt_state.replica.compaction import Compaction
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.document_core import LOCAL, SET_ASIDE, DocumentCore
from crdt_state.replica.encodings import Encodings
from crdt_state.replica.gathering import Gatherings
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.replica.peers import Peers
from crdt_state.replica.receipts import Holdings
from crdt_state.replica.tries import Tries
from crdt_state.replica.verification import Verification
from crdt_state.replica.watching import Watching
from crdt_state.replica.witness import Silent
from crdt_state.storage.contract import NOTHING, SetMetadata
from crdt_state.storage.contract import Sequence as Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
    from random import Random
    from types import TracebackType

    from crdt_state.clocks import Clock
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.replica.admission import Author
    from crdt_state.replica.core import Batch
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.membership import Membership
    from crdt_state.replica.witness import Witness
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store, StoredDocument, Write

__all__ = ["ReplicaShell", "Subscriber"]


BURIALS = 1_000
"""How often old tombstones are looked for while a peer is silent and not forgotten."""


class Subscriber(Protocol):
    """Whoever uses a document.  These are calls from the writer: they must not wait."""

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """These updates are durable now; those that this subscriber brought are among them."""

    def refused(self, refusal: Refusal) -> None:
        """An update that somebody at this document brought was not let in."""

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """The document fell out of use: what was received and not delivered is not stored."""


class ReplicaShell:
    """One replica.  Use it as an async context manager."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        *,
        limits: Limits,
        clock: Clock,
        random: Random,
        is_listening: bool = False,
        witness: Witness | None = None,
    ) -> None:
        """Without effects; `is_listening` replicas repair split surrogates, others count them."""
        self.store = store
        self.limits = limits
        self.clock = clock
        self.random = random
        self.workers = workers
        self.witness: Witness = witness or Silent()
        self.core = ReplicaCore(limits)
        self.encodings = Encodings(store, workers, limits)
        self.compaction = Compaction(self)
        self.tries = Tries(store, workers, set_aside=self.set_aside)
        self.verification = Verification(store, workers, limits, self.witness)
        self.watching = Watching()
        self.holdings = Holdings(limits.holders_max)
        self.attachments = Attachments(self)
        self.gatherings = Gatherings(store, self.core, limits)
        self.peers = Peers(store, limits)
        self.membership: Membership | None = None
        """This replica's part in a topology, where it has one."""
        self.last = NOTHING
        """The greatest sequence that is known to be durable and has been delivered."""
        self.before = NOTHING
        """Where the log was before the commit that is being delivered."""
        self._read_through = NOTHING
        self._is_listening = is_listening
        self._subscribers: dict[DocumentId, dict[int, Subscriber]] = {}
        self._loading: dict[DocumentId, asyncio.Task[None]] = {}
        self._replacing: set[DocumentId] = set()
        self._outdated: set[DocumentId] = set()
        """What takes the place of these may be in the store, and nobody has been told."""
        self._next_source = LOCAL + 1
        self._tick: asyncio.Handle | None = None
        self._work = asyncio.Event()
        self._one_large = asyncio.Semaphore(1)
        self._counting = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._is_closing = False
        self._is_closed = False

    async def __aenter__(self) -> Self:
        await self.peers.load()
        self._start(self._write_batches(), "writer")
        self._start(self.compaction.run(), "compaction")
        self._start(self.verification.run(), "verification")
        self._start(self._bury(), "burials")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Make everything received durable, then let go of the store and the workers."""
        if self._is_closed:
            return
        self._is_closing = True  # from now on nothing more is received, so that this ends
        await self.flush()
        await self.attachments.close()
        await self.flush()
        self._is_closed = True
        tasks = [*self._tasks, *self._loading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.workers.close()
        await self.store.close()

    # --- using documents ---------------------------------------------------------------------

    def new_source(self) -> int:
        """A number for somebody who will bring updates."""
        self._next_source += 1
        return self._next_source

    async def use(self, document: DocumentId, source: int, subscriber: Subscriber) -> None:
        """Subscribe, and load what admission must know of the document.

        Raises `StoreError`; then nothing is subscribed.
        """
        while self.core.get(document) is None:
            task = self._loading.get(document)
            if task is None:
                task = asyncio.create_task(self._load(document))
                self._loading[document] = task
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                # Nobody else may be waiting for it; whoever is asks for it again.
                task.add_done_callback(lambda _: self._let_go_unused(document))
                raise
        self._subscribers.setdefault(document, {})[source] = subscriber

    def hand_over(self, document: DocumentId, source: int, subscriber: Subscriber) -> None:
        """Let another subscriber take the place of one that uses the document.

        Raises `DocumentClosed` when the document fell out of use meanwhile.
        """
        subscribers = self._subscribers.get(document, {})
        if source not in subscribers:
            raise DocumentClosed(f"{document!r} fell out of use; use it again")
        subscribers[source] = subscriber

    def leave(self, document: DocumentId, source: int) -> None:
        """Unsubscribe; a document that nobody uses is let go of once it is settled."""
        subscribers = self._subscribers.get(document)
        if subscribers is None:
            return
        subscribers.pop(source, None)
        if not subscribers:
            del self._subscribers[document]
            self._let_go_unused(document)

    # --- the life of an update ---------------------------------------------------------------

    def receive(
        self, document: DocumentId, source: int, author: Author, update: bytes, *, name: str
    ) -> None:
        """Take an update in; it is decided at the end of this tick.

        Raises `WriteNotPermitted`, `DocumentSetAside`, `DocumentClosed`, and `QuotaExceeded`,
        which is final only after a `recount`.
        """
        if self._is_closing:
            raise DocumentClosed("this replica is closing; nothing more is taken in")
        self.core.receive(document, source, author, update, name=name)
        self._decide_soon()
        if self.core.waiting_bytes > self.limits.writer_queue_bytes_max:
            self._room.clear()

    async def recount(self, creator: str) -> None:
        """Ask the store what the documents of `creator` take up.  Raises `StoreError`."""
        quotas, asked = self.core.quotas, self.clock.now()
        async with self._counting:
            now = self.clock.now()
            if not quotas.is_counted(creator, since=asked, now=now):
                before = quotas.tallied(creator)
                stored = await self.store.usage(creator)
                quotas.count(creator, stored, before=before, now=now)

    async def has_room(self) -> None:
        """Wait until the writer has caught up: what a reader of a connection does first."""
        await self._room.wait()

    async def settled(self, document: DocumentId) -> None:
        """Everything received for `document` so far is decided, and durable if let in.

        Raises `StoreError` when it could not be written.
        """
        waiter = asyncio.get_running_loop().create_future()
        if not self.core.ask(document, waiter):
            await waiter

    async def difference(self, document: DocumentId, state_vector: bytes) -> bytes:
        """What a peer with this state vector lacks of what is durable, as one update.

        Raises `UpdateMalformed` or `UpdateTooLarge` for bytes that are no state vector,
        `StoreError`, `WorkerFailed` or `EngineFailed` for a document that cannot be encoded, and
        `DocumentClosed` for one that fell out of use while it was read: what was read may be of
        another life than whoever asked talks of.
        """
        limits = self.limits
        if len(state_vector) > limits.state_vector_bytes_max:
            allowed = limits.state_vector_bytes_max
            raise UpdateTooLarge("state_vector_bytes_max", allowed, len(state_vector))
        if len(state_vector) > LARGE_BYTES:
            vector = await asyncio.to_thread(decode_state_vector, state_vector)
        else:
            vector = decode_state_vector(state_vector)
        known = self.core.get(document)
        if known is not None:
            # Clients that we do not know either make the question longer, not the answer.
            ours = known.head.vector
            known_there = {client: end for client, end in vector.items() if client in ours}
            vector = known.head.aligned(known_there)
        update = await self.encodings.difference(document, encode_state_vector(vector))
        is_still_used = self.core.get(document) is known and document not in self._outdated
        if known is not None and not is_still_used:
            raise DocumentClosed(f"{document!r} fell out of use while it was read; ask again")
        return update

    async def flush(self) -> None:
        """Everything received so far, for any document, is decided and written."""
        while busy := self.core.busy():
            for document in busy:
                with suppress(CrdtStateError):  # told to the document's own subscribers
                    await self.settled(document)

    def staged(self, document: DocumentId) -> None:
        """What has gathered of a document may be written, as far as it is staged."""
        self.core.staged(document)
        self._work.set()

    # --- the end of a tick -------------------------------------------------------------------

    def _decide_soon(self) -> None:
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self) -> None:
        self._tick = None
        decided = self.core.decide(self.clock.wall())
        for refusal in decided.refusals:
            self.witness.refused(refusal)
            for source, subscriber in self._users_of(refusal.document):
                with self._containing(refusal.document, source):
                    subscriber.refused(refusal)
        for waiter in decided.answered:
            _resolve(waiter)
        for document, error in decided.failed:
            self.report(f"deciding about {document!r} failed", error)
            self.drop(document, error)
        if self._is_listening:
            for document in decided.split:
                self.core.withhold(document)
                self._start(self._repair(document), "repair")
        for document in decided.large:
            self._start(self._prepare(document), "large update")
        for document in decided.quiet:
            self._let_go_unused(document)
        if decided.unfinished:
            self._decide_soon()
        self.attachments.wake()
        # What arrived may have added nothing, and then no commit follows that would say so.
        self._wake_readers()
        self._work.set()

    async def _prepare(self, document: DocumentId) -> None:
        """Read a large update in a thread, so that the event loop goes on with others.

        One at a time: what is read takes many times its bytes.
        """
        async with self._one_large:
            known = self.core.get(document)
            if known is None or not known.awaits_preparation:
                return
            try:
                await asyncio.to_thread(known.prepare)
            except Exception as error:
                self.report(f"deciding about {document!r} failed", error)
                if self.core.get(document) is known:
                    self.drop(document, error)
                return
        if self.core.get(document) is known:
            self.core.resume(document)
            self._decide_soon()

    async def _write_batches(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while (batch := self.core.take_batch()) is not None:
                await self._write(batch)

    async def _write(self, batch: Batch) -> None:
        began = self.clock.now()
        try:
            last = await self.store.write(batch.writes)
        except StoreError as error:
            self.witness.commit_failed(error)
            self._fail(batch, error)
        except Exception as error:
            # Whatever it was, none of it may count as stored, and the others want to be written.
            self.report("a store failed in an unexpected way", error)
            self._fail(batch, StoreUnavailable(f"the store failed: {error!r}"))
        else:
            self.witness.committed(batch, self.clock.now() - began)
            self.last = max(self.last, last)
            self.before = Position(last - batch.updates)
            self._deliver(batch)
        self.last = max(self.last, self._read_through)
        self._wake_readers()

    def _wake_readers(self) -> None:
        if self.core.waiting_bytes <= self.limits.writer_queue_bytes_max:
            self._room.set()

    def _deliver(self, batch: Batch) -> None:
        for document, deltas, answered, revised in self.core.persisted(batch):
            if deltas:
                if (known := self.core.get(document)) is not None:
                    known.through = self.last
                self.encodings.appended(document, [delta.update for delta in deltas])
                self.watching.changed(document, deltas)
                for source, subscriber in self._users_of(document):
                    with self._containing(document, source):
                        subscriber.deliver(deltas)
                self.compaction.grew(document, deltas)
            if revised is not None and (attached := self.attachments.get(document)) is not None:
                with self._containing(document, attached.source):
                    attached.persisted(revised)
            for waiter in answered:
                _resolve(waiter)
            self._let_go_unused(document)

    def _fail(self, batch: Batch, error: StoreError) -> None:
        for document, own_edits, asked in self.core.failed(batch):
            self._tell_lost(document, error, own_edits, asked)

    def drop(self, document: DocumentId, error: Exception) -> None:
        """End the use of a document before its time; what is not being written yet is lost."""
        if not isinstance(error, CrdtStateError):
            error = DocumentClosed(f"{document!r} fell out of use: {error!r}")
        _, own_edits, asked = self.core.abandon(document)
        self._tell_lost(document, error, own_edits, asked)
        self._wake_readers()

    def _tell_lost(
        self,
        document: DocumentId,
        error: Exception,
        own_edits: Sequence[bytes],
        asked: Sequence[object],
    ) -> None:
        self.encodings.drop(document)
        self.compaction.left(document)
        for waiter in asked:
            _resolve(waiter, error)
        subscribers = self._subscribers.pop(document, {})
        # Of a life that has ended they are set aside, or their own user has ended it.
        if own_edits and LOCAL not in subscribers and not isinstance(error, LineageEnded):
            # Whoever made them has closed the document, and nobody is left to hand them back to.
            lost = EditNotStored(str(error), tuple(own_edits))
            self.report(f"what was last edited in {document!r} is lost", lost)
        for source, subscriber in subscribers.items():
            with self._containing(document, source):
                subscriber.lost(error, own_edits)

    # --- around it ---------------------------------------------------------------------------

    async def set_aside(self, document: DocumentId, reason: str) -> None:
        """Refuse everything for `document` until a person has looked at it; the rest goes on.

        What was received for it and is in no commit yet is not stored.
        """
        self.witness.set_aside(document, reason)
        known = self.core.get(document)
        if known is not None:
            known.set_aside = reason
            self.core.withhold(document)
        try:
            # Behind whatever is being written, so that nothing of it is under way afterwards.
            await self.store.write([SetMetadata(SET_ASIDE, reason.encode(), document)])
        except StoreError as error:
            # It is aside until it is next used; then it does its harm, and this, once more.
            self.witness.store_failed(error)
        if (loading := self._loading.get(document)) is not None:
            await asyncio.wait([loading])  # it may have read the store before the write
        self.drop(document, DocumentSetAside(reason))

    async def replace(
        self,
        known: DocumentCore,
        make: Callable[[StoredDocument | None], Awaitable[tuple[list[Write], CrdtStateError]]],
        late: Callable[[], Awaitable[list[Write]]] | None = None,
    ) -> bool:
        """Write what `make` gives, in one commit, in place of a document in use; end its use.

        Until then nothing else of it is written.  `make` is given what is durable, and gives the
        error by which the document's users learn that what they show is not what is stored.
        `late` gives what is to be written then, until it gives nothing: before its users are told,
        they edit.  False, and nothing has happened, where the document fell out of use or is being
        replaced by others.
        """
        # Whoever asked may give up; between the commit and its consequences nothing may.
        task = asyncio.create_task(self._replace(known, make, late))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return await asyncio.shield(task)

    async def _replace(
        self,
        known: DocumentCore,
        make: Callable[[StoredDocument | None], Awaitable[tuple[list[Write], CrdtStateError]]],
        late: Callable[[], Awaitable[list[Write]]] | None,
    ) -> bool:
        document = known.document
        if self.core.get(document) is not known or document in self._replacing:
            return False
        self._replacing.add(document)
        self.core.withhold(document)
        try:
            await self.store.write([])  # writes are carried out in order: none is under way
            stored = await self.store.read(document)
            if self.core.get(document) is not known:
                return False
            self.encodings.drop(document)  # the last commit may not have been delivered yet
            writes, error = await make(stored)
            if self.core.get(document) is not known:
                return False
            self._outdated.add(document)
            with self.compaction.withheld(document):
                await self.store.write(writes)
                try:
                    while late is not None and (more := await late()):
                        await self.store.write(more)
                except StoreError as failure:
                    self._lost_unheard(known, failure)
            if (loading := self._loading.get(document)) is not None:
                await asyncio.wait([loading])  # it may have read the store before the write
            self.drop(document, error)
            self.watching.changed(document)
            return True
        finally:
            self._replacing.discard(document)
            self._outdated.discard(document)
            if self.core.get(document) is known:
                self.core.release(document)
                self._decide_soon()
                self._work.set()

    def _lost_unheard(self, known: DocumentCore, error: StoreError) -> None:
        """What could not be set aside is handed back, if anybody is left to hand it back to."""
        own_edits = known.own_edits()
        if own_edits and LOCAL not in self._subscribers.get(known.document, {}):
            lost = EditNotStored(str(error), tuple(own_edits))
            self.report(f"what was last edited in {known.document!r} is lost", lost)

    async def _bury(self) -> None:
        """Let go of old tombstones, now and then, for ever."""
        while True:
            try:
                await self.peers.bury(self.clock.wall())
            except StoreError as error:
                self.witness.store_failed(error)
            await asyncio.sleep(self.limits.peer_forget_seconds / BURIALS)

    async def _load(self, document: DocumentId) -> None:
        try:
            with suppress(StoreError):  # whom it concerns has been told
                await self.settled(document)  # it may have been dropped while it was written
            stored = await self.store.read(document)
            size = 0 if stored is None else sum(map(len, stored.updates()))
            if size > LARGE_BYTES:
                # Reading so much takes longer than others should wait for the event loop.
                opened = await asyncio.to_thread(DocumentCore, document, stored, self.limits)
            else:
                opened = DocumentCore(document, stored, self.limits)
            self.core.open(opened)
            if stored is not None:
                # A commit under way may be below that, and has not been delivered.
                self._read_through = max(self._read_through, stored.last)
                if not self.core.is_writing:
                    self.last = max(self.last, self._read_through)
                self.compaction.loaded(stored)
        finally:
            self._loading.pop(document, None)

    def _let_go_unused(self, document: DocumentId) -> None:
        if document not in self._subscribers and not self.core.is_busy(document):
            self.core.close(document)
            self.compaction.left(document)

    async def _repair(self, document: DocumentId) -> None:
        """Make split surrogate pairs whole, in one commit, before anybody else sees them.

        What has gathered for the document is kept back meanwhile, and is then replaced by an
        update that says the same without the split.
        """
        known = self.core.get(document)
        if known is None:
            return
        attached = self.attachments.get(document)
        try:
            async with nullcontext() if attached is None else attached.staging:
                await self._repair_gathered(known)
                if attached is not None:
                    await attached.stage(is_repaired=True)
        except Exception as error:
            # Unrepaired, the split must reach neither the log nor anybody else.
            if self.core.get(document) is known:
                await self._give_up_repair(document, error)
        finally:
            # Another opening of the document, meanwhile, may be having its own repair.
            if self.core.get(document) is known:
                self.core.release(document)
                self._decide_soon()  # what arrived meanwhile may have been kept back with it
            self._work.set()

    async def _repair_gathered(self, known: DocumentCore) -> None:
        document = known.document
        while splits := known.take_splits():
            await self.store.write([])  # writes are carried out in order: none is under way
            stored = await self.store.read(document)
            updates = [] if stored is None else stored.updates()
            updates += known.staged_updates()
            splitting = known.unstaged_updates()
            repaired = await self.workers.repair([*updates, engine.merge(splitting)], splits)
            if self.core.get(document) is not known:
                return
            if repaired is None:
                continue
            folds: list[Write] = []
            if stored is not None and updates:
                folds += await self.compaction.writes(stored, repaired.folded, is_replaced=True)
            known.repair(len(splitting), repaired.updates, folds)
            self.encodings.drop(document)
            self.witness.repaired(document)

    async def _give_up_repair(self, document: DocumentId, error: Exception) -> None:
        is_by_document = isinstance(error, EngineFailed | UpdateRefused) or (
            isinstance(error, WorkerFailed) and error.is_by_document
        )
        if is_by_document:
            await self.set_aside(document, f"a split surrogate pair could not be repaired: {error}")
            return
        if not isinstance(error, CrdtStateError):
            self.report(f"repairing {document!r} failed", error)
        # The disk or the machine is to blame: its peers come back and bring it again.
        self.drop(document, error)

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        if self._is_closed:
            work.close()
            raise DocumentClosed("this replica is closed")
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.report(f"the {task.get_name()} of a replica ended", error)

    def _users_of(self, document: DocumentId) -> tuple[tuple[int, Subscriber], ...]:
        return tuple(self._subscribers.get(document, {}).items())

    @contextmanager
    def _containing(self, document: DocumentId, source: int) -> Iterator[None]:
        """Report what a subscriber raises, and unsubscribe it: it has missed what it was told."""
        try:
            yield
        except Exception as error:
            self.report(f"a user of {document!r} failed", error)
            subscriber = self._subscribers.get(document, {}).pop(source, None)
            if subscriber is not None:
                with suppress(Exception):  # it has been reported once
                    subscriber.lost(error, [])

    def report(self, what: str, error: BaseException) -> None:
        """Say that something has failed which nobody expected, and whom it concerned goes on."""
        asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})


def _resolve(waiter: object, error: Exception | None = None) -> None:
    if not isinstance(waiter, asyncio.Future):
        raise TypeError("the shell asks with futures")
    if waiter.done():
        return  # whoever asked has been cancelled
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
