"""One text of a document in use, attached: edited by operations, beside those who know its CRDT.

    operations ──► submit ─┐
                           ├─► stage: decide, apply, observe ──► one commit ──► published
    updates, admitted ─────┘          (text_sessions)          Append, Revise

While a text is attached, nothing of its document is written that has not been staged: the session
has integrated it, what that changed of the text is a revision, and both are in one commit.

1. What a follower is told is durable; revisions are told in their order, each once.
2. What is submitted is decided on all that was decided before it, and on all updates that were
   staged before it.  It is answered at once, but where it is accepted: then by its revision.
3. Whatever fails (a commit, the session, the document's use) ends the attachment, and every
   follower is told; what was submitted and not published is lost, and submitted again.
4. On attaching, all that has come since the last revision becomes one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from crdt_state.bridge import Accepted, Floor, Revisions, decode, encode, epoch_of
from crdt_state.bridge.revision import NUMBER_MAX
from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    LineageDeleted,
    OperationRefused,
    StoreCorrupt,
    WorkerFailed,
)
from crdt_state.identifiers import draw_client_id
from crdt_state.lib0 import CodingError, Reader
from crdt_state.ot import EMPTY, diff
from crdt_state.ot.coding import encode_operation, read_operation
from crdt_state.storage.contract import KeepText, Revise, SetMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from crdt_state.bridge import Decision, Revision
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot import Operation
    from crdt_state.ot.formats import Format
    from crdt_state.replica.admission import Author
    from crdt_state.replica.document_core import Delta, DocumentCore, Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.replica.text_sessions import TextSession
    from crdt_state.storage.contract import StoredDocument, StoredRevisions, Write

__all__ = ["ROOT", "TYPE", "Attachment", "Attachments", "Follower", "Submission", "kept_text"]

ROOT = "text"
"""The root that operations are about."""

TYPE = "operations/type"
"""Key of a document's metadata: as which type it was created by somebody who knows operations."""

COMPONENTS_AT_ONCE = 1_000
"""Beyond it, what was submitted waits for the next commit."""

EPOCH_MAX = epoch_of(NUMBER_MAX)

EPOCH_DRAWN_MAX = 2**20
"""First epochs are drawn below it, so that another history of a document has another."""

EPOCHS_KEPT_MAX = 10_000
"""Of how many texts that are not there it is remembered where their history would begin."""


class Submission(NamedTuple):
    """An operation on revision `base`; `decided` is called once, and must not wait.

    One that `creates` a text names its type, and is made on whatever is there; where there is a
    text, None is decided.
    """

    base: int
    source: str
    sequence: int
    operation: Operation
    spoken: Format
    author: Author
    decided: Callable[[Decision | None], None]
    may_skip: bool = False
    creates: str | None = None


class Follower(Protocol):
    """Whoever follows an attached text.  These are calls that must not wait."""

    def published(self, revisions: Sequence[Revision]) -> None:
        """These are durable now, and come behind all that were told before."""

    def detached(self, error: Exception) -> None:
        """The attachment has ended; nothing that was submitted and not published will be."""


class Attachment:
    """A text that is attached.  Made by `Attachments.use`."""

    def __init__(self, shell: ReplicaShell, document: DocumentId) -> None:
        self.document = document
        self.source = shell.new_source()
        """As whom it uses the document."""
        self.staging = asyncio.Lock()
        """Held while something is being staged, or while what gathers is being repaired."""
        self.type: str | None = None
        """As what it was created."""
        self.is_there = False
        """Whether there is such a text: created, or written to at any time."""
        self._shell = shell
        self._followers: dict[int, Follower] = {}
        self._queue: deque[Submission] = deque()
        self._work = asyncio.Event()
        self._written = 0
        self._floor: Floor | None = None
        self._is_type_unsaid = False
        self._known: DocumentCore | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._revisions: Revisions | None = None
        self._session: TextSession | None = None

    @property
    def revisions(self) -> Revisions:
        """The text's revisions: to be read, and changed by nobody else."""
        if self._revisions is None:
            raise self._error or DocumentClosed(f"{self.document!r} is not attached")
        return self._revisions

    def follow(self, source: int, follower: Follower) -> None:
        """Tell `follower` of what is published from now on."""
        self._followers[source] = follower

    def unfollow(self, source: int) -> None:
        """Tell it nothing more."""
        self._followers.pop(source, None)

    def submit(self, submission: Submission) -> None:
        """Take an operation in.

        Raises `WriteNotPermitted`, `NotHead`, `QuotaExceeded`, `DocumentSetAside`,
        `LineageDeleted` and `DocumentClosed`.
        """
        if self._error is not None:
            raise self._error
        size = sum(map(_bytes_of, submission.operation.components))
        self._shell.core.check(self.document, self.source, submission.author, size)
        self._queue.append(submission)
        self._work.set()

    # --- attaching ------------------------------------------------------------------------------

    async def attach(self) -> None:
        """Begin.

        Raises `LineageDeleted`, `StoreError`, `WorkerFailed`, `UpdateRefused`, `EngineFailed`.
        """
        shell, document = self._shell, self.document
        await shell.use(document, self.source, self)
        try:
            known = self._known = self._in_use()
            _check_lives(known)
            # What an earlier one has staged may be in no commit yet, and is not in the store.
            await shell.settled(document)
            self._check_still(known)
            known.is_attached = True
            await shell.store.write([])  # writes are carried out in order: none is under way
            stored = await shell.store.read(document)
            revised = await shell.store.revisions(document)
            await self._open(stored, revised)
            self._check_still(known)
        except BaseException:
            await self.close()
            raise
        self._task = asyncio.create_task(self._run(), name="attachment")
        self._work.set()

    async def _open(self, stored: StoredDocument | None, revised: StoredRevisions | None) -> None:
        shell = self._shell
        kind = None if stored is None else stored.metadata.get(TYPE)
        self.type = None if kind is None else kind.decode()
        updates = [] if stored is None else stored.updates()
        later: list[bytes] = []
        if stored is not None and revised is not None and revised.text is None:
            later = [entry.update for entry in stored.log if entry.sequence > revised.through]
        first = updates[: len(updates) - len(later)]
        # Of what is not there yet, which anybody may ask for, nothing is held anywhere.
        text = (await self._opened(first)).document if first else EMPTY
        self.is_there = bool(self.type or text.components or revised)
        if revised is None:
            self._floor = Floor.of_epoch(shell.attachments.first_epoch(self.document))
            self._revisions = Revisions(self._floor, (), text, limits=shell.limits)
            self._written = self._revisions.head
            return
        before = text if revised.text is None else _document_in(revised.text, shell)
        self._revisions = _restored(revised, before, shell)
        if not revised.is_of_this_incarnation:
            epoch = later_epoch(epoch_of(self._revisions.head), shell.random)
            self._floor = self._revisions.floor_of_epoch(epoch)
            self._revisions = Revisions(self._floor, (), before, limits=shell.limits)
        self._written = self._revisions.head
        change = await (await self._opened()).apply(later) if later else EMPTY
        if revised.text is not None:
            change = diff(before, text, limits=shell.limits)
        if change.components:
            self._revisions.observed(change)

    async def _opened(self, updates: Sequence[bytes] = ()) -> TextSession:
        """The session, which begins with these updates where there is none."""
        if self._session is None:
            client_id = draw_client_id(self._shell.random)
            self._session = await self._shell.workers.open_text(updates, ROOT, client_id)
        return self._session

    async def close(self) -> None:
        """End it, behind all that was submitted."""
        async with self.staging:
            if self._task is not None and self._error is None:
                with suppress(CrdtStateError):  # then it is lost, as with any other end
                    await self._stage_all()
            self._end(DocumentClosed(f"{self.document!r} is not attached any more"))
            if self._known is not None:
                self._known.is_attached = False
                self._known = None
            self._shell.staged(self.document)
            self._shell.leave(self.document, self.source)
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    # --- staging --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have gathered."""
        self._work.set()

    async def _run(self) -> None:
        while self._error is None:
            await self._work.wait()
            self._work.clear()
            try:
                async with self.staging:
                    await self.stage()
            except WorkerFailed as error:
                await self._fail(error)
            except CrdtStateError as error:
                self._shell.drop(self.document, error)
            except Exception as error:
                # Foreign bytes led here; the document's other users come back and bring it again.
                self._shell.report(f"staging {self.document!r} failed", error)
                self._shell.drop(self.document, error)

    async def _fail(self, error: WorkerFailed) -> None:
        """End it, and set the document aside where that is to blame."""
        known, document = self._known, self.document
        if error.cause == "ended" and known is not None and self._error is None:
            try:
                # What has gathered is brought again, and would end the others' sessions again.
                await self._open_with(known.staged_updates() + known.unstaged_updates())
            except WorkerFailed as found:
                error = found
            except CrdtStateError:
                pass  # whoever attaches it next is told
        if self._error is not None:
            return  # it has ended meanwhile
        if error.is_by_document:
            await self._shell.set_aside(document, f"its text cannot be read: {error}")
        else:
            self._shell.drop(document, error)

    async def _open_with(self, gathered: Sequence[bytes]) -> None:
        """Open the text once more, with all that has gathered, and let go of it."""
        shell = self._shell
        await shell.store.write([])  # writes are carried out in order: none is under way
        stored = await shell.store.read(self.document)
        updates = [] if stored is None else stored.updates()
        client_id = draw_client_id(shell.random)
        session = await shell.workers.open_text([*updates, *gathered], ROOT, client_id)
        await session.close()

    async def _stage_all(self) -> None:
        """Stage as often as what was submitted takes; a repair that is on its way ends it."""
        left = len(self._queue) + 1
        while len(self._queue) < left:
            left = len(self._queue)
            await self.stage()

    async def stage(self, *, is_repaired: bool = False) -> None:
        """Stage all that has gathered and was submitted; `staging` is held by whoever asks.

        While what has gathered is kept back, nothing is, but by the repair that `is_repaired`.
        """
        known, revisions = self._known, self._revisions
        if known is None or revisions is None or known.has_splits:
            return  # it has ended; or a repair is on its way, and stages what it has repaired
        if not is_repaired and self._shell.core.is_withheld(self.document):
            return  # a repair may have begun before this was attached
        updates = known.unstaged_updates()
        if updates:
            change = await (await self._opened()).apply(updates)
            if change.components:
                self.is_there = True
                revisions.observed(change)
        edits = self._decided(revisions)
        update = await (await self._opened()).edit(edits) if edits else b""
        if self._error is not None:
            return  # it has ended meanwhile
        writes = self._writes(revisions)
        if updates or update or writes:
            if not writes and self._floor is None:
                writes = [Revise(self.document, self._written + 1)]
            known.stage(len(updates), update, writes, revisions.head)
            self._shell.staged(self.document)

    def _decided(self, revisions: Revisions) -> list[Operation]:
        """Decide what was submitted; gives what is to be done to the text."""
        edits: list[Operation] = []
        components = 0
        while self._queue and components < COMPONENTS_AT_ONCE:
            each = self._queue.popleft()
            components += len(each.operation.components)
            decision: Decision | None = revisions.submit(
                each.base if each.creates is None else revisions.published,
                each.source,
                each.sequence,
                each.operation,
                each.spoken,
                may_skip=each.may_skip,
            )
            if isinstance(decision, Accepted) and each.creates is not None:
                if self.is_there:
                    each.decided(None)
                    continue
                self.type, self._is_type_unsaid = each.creates, True
            if isinstance(decision, Accepted):
                self.is_there = True
                if self._known is not None:
                    self._known.begin(each.author.identity)
                revisions.observed(decision.operation, each.source, each.sequence)
                if decision.operation.components:
                    edits.append(decision.operation)
            each.decided(decision)
        if self._queue:
            self._work.set()
        return edits

    def _writes(self, revisions: Revisions) -> list[Write]:
        """What makes durable all that is new here; of a text that is not there, nothing."""
        writes: list[Write] = []
        known = self._known
        if self._is_type_unsaid and self.type is not None:
            self._is_type_unsaid = False
            creator = None if known is None else known.creator
            writes.append(SetMetadata(TYPE, self.type.encode(), self.document, creator))
        new = [each for each in revisions.provisional if each.number > self._written]
        floor = self._floor
        is_stored = self.is_there and known is not None and known.exists
        if new or writes or (floor is not None and is_stored):
            self._floor = None
            self._shell.attachments.begun(self.document)
            first = self._written + 1
            coded = tuple(map(encode, new))
            if floor is None:
                writes.append(Revise(self.document, first, coded))
            else:
                writes.append(Revise(self.document, first, coded, floor.number, floor.encode()))
            self._written = revisions.head
        return writes

    # --- what becomes of it (a subscriber of the document) --------------------------------------

    def persisted(self, number: int) -> None:
        """Everything through revision `number` is durable."""
        if self._revisions is None:
            return
        news = self._revisions.persisted(number)
        if news:
            for source, follower in tuple(self._followers.items()):
                try:
                    follower.published(news)
                except Exception as error:
                    # The writer calls this, and has others to tell.
                    self._followers.pop(source, None)
                    follower.detached(error)
        if (floor := self._revisions.trim()) is not None:
            self._floor = floor

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """See `Subscriber`: all of this has been staged."""

    def refused(self, refusal: Refusal) -> None:
        """See `Subscriber`: nothing of ours is refused."""

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """See `Subscriber`."""
        self._end(error)
        self._shell.attachments.ended(self)

    def _end(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        followers = tuple(self._followers.values())
        self._followers.clear()
        self._queue.clear()
        self._revisions = None
        self._work.set()
        for follower in followers:
            follower.detached(error)

    def _check_still(self, known: DocumentCore) -> None:
        """Raise why, if the document has not been in use ever since."""
        if self._in_use() is not known:
            raise DocumentClosed(f"{self.document!r} fell out of use while it was attached")
        if self._error is not None:
            raise self._error

    def _in_use(self) -> DocumentCore:
        known = self._shell.core.get(self.document)
        if known is None:
            raise self._error or DocumentClosed(f"{self.document!r} is not in use")
        return known


class Attachments:
    """The texts of a replica that are attached, each as long as somebody uses it."""

    def __init__(self, shell: ReplicaShell) -> None:
        self._shell = shell
        self._attached: dict[DocumentId, Attachment] = {}
        self._attaching: dict[DocumentId, asyncio.Task[Attachment]] = {}
        self._ending: dict[DocumentId, asyncio.Task[None]] = {}
        self._users: dict[DocumentId, int] = {}
        self._epochs: dict[DocumentId, int] = {}
        """In which the history of a text would begin that was asked for, and is not there yet."""
        self._is_closed = False

    def get(self, document: DocumentId) -> Attachment | None:
        """The attachment of a document that has one."""
        return self._attached.get(document)

    def __len__(self) -> int:
        return len(self._attached)

    def first_epoch(self, document: DocumentId) -> int:
        """In which epoch a text begins that has no revisions; the same until it has some.

        Clients stand there already, and come again.
        """
        epoch = self._epochs.get(document)
        if epoch is None:
            if len(self._epochs) >= EPOCHS_KEPT_MAX:
                del self._epochs[next(iter(self._epochs))]
            epoch = self._epochs[document] = self._shell.random.randrange(1, EPOCH_DRAWN_MAX)
        return epoch

    def begun(self, document: DocumentId) -> None:
        """A text has revisions now: should they be forgotten, another history is another."""
        self._epochs.pop(document, None)

    def wake(self) -> None:
        """Something may have gathered for some of them."""
        for attachment in self._attached.values():
            attachment.wake()

    async def use(self, document: DocumentId) -> Attachment:
        """Attach the text of a document, or take part; `leave` it again.

        Raises what `Attachment.attach` raises, and `DocumentClosed` after `close`.
        """
        self._users[document] = self._users.get(document, 0) + 1
        try:
            while (attachment := self._attached.get(document)) is None:
                self._check_open()
                if (ending := self._ending.get(document)) is not None:
                    await asyncio.wait([ending])
                    continue
                task = self._attaching.get(document)
                if task is None:
                    task = asyncio.create_task(self._attach(document))
                    self._attaching[document] = task
                # Others may be waiting for it.
                await asyncio.shield(task)
        except BaseException:
            self.leave(document)
            raise
        return attachment

    def leave(self, document: DocumentId) -> None:
        """One user less; the last one ends it."""
        left = self._users.get(document, 0) - 1
        if left > 0:
            self._users[document] = left
            return
        self._users.pop(document, None)
        if (attachment := self._attached.get(document)) is not None:
            self.ended(attachment)

    def ended(self, attachment: Attachment) -> None:
        """An attachment has ended by itself, or is to end."""
        document = attachment.document
        if self._attached.get(document) is attachment:
            del self._attached[document]
            task = self._ending[document] = asyncio.create_task(attachment.close())
            task.add_done_callback(lambda _: self._ending.pop(document, None))

    async def close(self) -> None:
        """End all of them."""
        self._is_closed = True
        self._users.clear()  # what is being attached is let go of at once
        while self._attached or self._attaching or self._ending:
            for attachment in tuple(self._attached.values()):
                self.ended(attachment)
            await asyncio.wait([*self._attaching.values(), *self._ending.values()])

    def _check_open(self) -> None:
        if self._is_closed:
            raise DocumentClosed("this replica is closing; nothing more is attached")

    async def _attach(self, document: DocumentId) -> Attachment:
        attachment = Attachment(self._shell, document)
        try:
            await attachment.attach()
            self._attached[document] = attachment
            attachment.wake()
        finally:
            self._attaching.pop(document, None)
        if document not in self._users:
            self.ended(attachment)  # whoever wanted it has left meanwhile
        return attachment


async def kept_text(
    shell: ReplicaShell, stored: StoredDocument, *, is_replaced: bool = False
) -> list[Write]:
    """What has to be written with a fold of all that was read as `stored`, or what replaces it.

    The text at its last revision can be made of the log only as long as that is there, and never
    of a state that says more: by that it `is_replaced`.
    """
    revised = await shell.store.revisions(stored.document)
    if revised is None or revised.text is not None:
        return []
    later = [entry for entry in stored.log if entry.sequence > revised.through]
    if not later and not is_replaced:
        return []
    updates = stored.updates()
    first = updates[: len(updates) - len(later)]
    session = await shell.workers.open_text(first, ROOT, draw_client_id(shell.random))
    await session.close()
    number = revised.floor_number + len(revised.revisions)
    return [KeepText(stored.document, number, encode_operation(session.document))]


def later_epoch(epoch: int, dice: Random) -> int:
    """One of those behind `epoch`, for a new incarnation.

    Drawn, so that another copy of the same backup begins another; few of those left are skipped.
    """
    return epoch + 1 + dice.randrange(max(1, (EPOCH_MAX - epoch) // 16))


def _check_lives(known: DocumentCore) -> None:
    if known.life.is_deleted:
        raise LineageDeleted(f"{known.document!r} was deleted; nothing is added to it")


def _restored(revised: StoredRevisions, document: Operation, shell: ReplicaShell) -> Revisions:
    revisions = [decode(each, limits=shell.limits) for each in revised.revisions]
    try:
        return Revisions(Floor.decode(revised.floor), revisions, document, limits=shell.limits)
    except OperationRefused as error:
        raise StoreCorrupt(f"the revisions are not of the text that is stored: {error}") from error


def _document_in(data: bytes, shell: ReplicaShell) -> Operation:
    reader = Reader(data)
    try:
        document = read_operation(reader, limits=shell.limits)
        reader.finish()
    except CodingError as error:
        raise StoreCorrupt(f"a stored text is damaged: it {error}") from None
    return document


def _bytes_of(component: object) -> int:
    content = getattr(component, "content", "")
    text = content if isinstance(content, str) else getattr(content, "text", "")
    return len(text.encode(errors="surrogatepass"))  # in units, halves of pairs stand in it
