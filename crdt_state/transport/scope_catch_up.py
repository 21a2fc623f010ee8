"""Bringing a scope in step with a remote: what differs is found, then exchanged in batches.

walk or list    ──► documents that differ
Exchange        ──► … ◄── Exchanged    what we lack, and what the remote holds
Bring           ──► … ◄── Brought      what the remote lacks

A document that differs though neither side has anything to bring is `alike`: it was edited on the
way, or one client id and counter stands for two contents, which only comparing again can tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from crdt_state.errors import (
    CrdtStateError,
    RemoteProtocolError,
    StoreError,
    StoreUnavailable,
)
from crdt_state.identifiers import scope_of
from crdt_state.merkle.findings import Found
from crdt_state.merkle.messages import Differences, Nodes, decode, encode
from crdt_state.merkle.walk import Walk
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.protocol.peer.scopes import (
    LEAF_BYTES,
    Answer,
    Ask,
    Bring,
    Brought,
    Exchange,
    Exchanged,
    List,
    Listed,
    Parcel,
    ScopeMessage,
    batches,
)
from crdt_state.storage.contract import ClearOutbox
from crdt_state.transport import codes
from crdt_state.transport.conversation import REMOTE
from crdt_state.transport.scope_intake import held_of, parcel_for, take_parcel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from crdt_state.identifiers import DocumentId, Scope
    from crdt_state.protocol.peer.scopes import Root
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import Sequence as Position

__all__ = ["CatchUp"]

M = TypeVar("M", bound=ScopeMessage)

WALK_BYTES_MAX = 120 * 1024
"""Of a message of a walk: it fits a frame."""

EXCHANGED_AT_ONCE = 128
EXCHANGE_BYTES = 48 * 1024
VECTOR_BYTES_MAX = 8 * 1024
"""A document of very many clients is exchanged through a channel of its own."""

UNDER_WAY_MAX = 8
PAGE = 1_000


class Answers(Protocol):
    """Where the remote's words come from."""

    async def next(self) -> ScopeMessage:
        """The next of them."""

    async def expect(self, kind: type[M]) -> M:
        """The next of them, which has to be of a kind."""


class CatchUp:
    """One catching up of one scope."""

    def __init__(
        self,
        shell: ReplicaShell,
        scope: Scope,
        number: int,
        *,
        remote: str,
        source: int,
        say: Callable[[ScopeMessage], None],
        has_room: Callable[[], Awaitable[None]],
        follower: Answers,
        give_turns: Callable[[Iterable[DocumentId]], Awaitable[bool]],
        bring: Callable[[DocumentId], None],
    ) -> None:
        """`source` is the remote to our core.

        `give_turns` exchanges documents through channels, and so does `bring`, some time.
        """
        self.is_complete = True
        """Whether all that the remote holds has come; False where it would not show a document."""
        self._bring_by_itself = bring
        self._shell = shell
        self._scope = scope
        self._number = number
        self._remote = remote
        self._source = source
        self._say = say
        self._has_room = has_room
        self._answers = follower
        self._give_turns = give_turns
        self.alike: set[DocumentId] = set()
        """What differed, though neither side had anything to bring."""
        self._apart: dict[DocumentId, None] = {}
        self._different: frozenset[DocumentId] = frozenset()
        self._unmoved: set[DocumentId] = set()
        """What differed, and of which the remote had nothing to bring."""
        self._to_bring: deque[tuple[DocumentId, bytes]] = deque()
        self._exchanging: deque[deque[DocumentId]] = deque()
        self._bringing: deque[dict[DocumentId, Position]] = deque()

    async def take_news(self, parcels: Sequence[Parcel]) -> None:
        """Take in what has changed at the remote."""
        self._check_scope(parcel.document for parcel in parcels)
        await self._take([parcel for parcel in parcels if not parcel.is_apart])
        changed = tuple(parcel.document for parcel in parcels if parcel.is_apart)
        if changed:
            await self._exchange(Found(changed, (), ()), brings=False)

    async def compare(self, theirs: Root, *, rooted_at: Position) -> None:
        """Find what differs and bring both sides in step.

        `rooted_at` is our position from before the root was made that the remote has compared.
        """
        if (
            theirs.root and not theirs.node
        ):  # it is equal to that, and says nothing of what came since
            await self._clear_outbox(rooted_at, set())
            return
        through = await self._shell.store.write([])
        await self._shell.tries.settle(self._scope)
        if not theirs.root:
            found = await self._compare_list()
        elif await self._shell.tries.root(self._scope) == theirs.root:
            found = Found((), (), ())
        else:
            found = await self._walk(theirs.node)
        await self._exchange(found)
        await self._clear_outbox(through, {*found.otherwise, *found.only_ours})

    # --- finding -----------------------------------------------------------------------------

    async def _walk(self, node: bytes) -> Found:
        limits, tries = self._shell.limits, self._shell.tries
        walk = Walk(
            message_bytes_max=WALK_BYTES_MAX,
            requests_max=limits.walk_requests_max,
            differences_max=limits.walk_differences_max,
        )
        greeting = decode(node)
        if not isinstance(greeting, Nodes):
            raise RemoteProtocolError("a root node that is none")
        otherwise: list[DocumentId] = []
        only_ours: list[DocumentId] = []
        only_theirs: list[DocumentId] = []
        progress = await tries.run(self._scope, walk.begin(greeting))
        while True:
            for request in progress.requests:
                self._say(Ask(self._number, encode(request)))
            if walk.is_done:
                break
            answer = decode((await self._answers.expect(Answer)).answer)
            if not isinstance(answer, Nodes | Differences):
                raise RemoteProtocolError("an answer of a walk that is none")
            progress = await tries.run(self._scope, walk.receive(answer))
            if progress.found is not None:
                self._check_scope(progress.found.only_theirs)
                otherwise += progress.found.otherwise
                only_ours += progress.found.only_ours
                only_theirs += progress.found.only_theirs
        # A bucket that changed on the way may have been compared twice.
        return Found(*(tuple(dict.fromkeys(each)) for each in (otherwise, only_ours, only_theirs)))

    async def _compare_list(self) -> Found:
        """Compare with what the remote says that we may read of it."""
        theirs: dict[DocumentId, bytes] = {}
        after, is_last = "", False
        while not is_last:
            self._say(List(self._number, after))
            page = await self._answers.expect(Listed)
            self._check_scope(document for document, _ in page.leaves)
            theirs.update(page.leaves)
            if len(theirs) > self._shell.limits.walk_differences_max:
                raise RemoteProtocolError("a list names more documents than it may")
            is_last = page.is_last or not page.leaves
            after = page.leaves[-1][0] if page.leaves else ""
        otherwise: list[DocumentId] = []
        only_ours: list[DocumentId] = []
        async for document, leaf in self._own_leaves():
            their_leaf = theirs.pop(document, None)
            if their_leaf is None:
                only_ours.append(document)
            elif their_leaf != leaf[:LEAF_BYTES]:
                otherwise.append(document)
        return Found(tuple(otherwise), tuple(only_ours), tuple(theirs))

    async def _own_leaves(self) -> AsyncIterator[tuple[DocumentId, bytes]]:
        prefix, after = f"{self._scope}/" if self._scope else "", ""
        while page := await self._shell.store.leaves(prefix=prefix, after=after, limit=PAGE):
            after = page[-1].document
            for leaf in page:
                if scope_of(leaf.document) == self._scope:
                    yield leaf.document, leaf.leaf

    def _check_scope(self, documents: Iterable[DocumentId]) -> None:
        for document in documents:
            if scope_of(document) != self._scope:
                raise RemoteProtocolError(f"{document!r} is not of the scope {self._scope!r}")

    # --- exchanging --------------------------------------------------------------------------

    async def _exchange(self, found: Found, *, brings: bool = True) -> None:
        """Hold what is found to differ, and bring the remote what it lacks of that."""
        self._different = frozenset(found.otherwise)
        to_ask = deque((*found.otherwise, *found.only_theirs))
        self._to_bring.extend((document, EMPTY_VECTOR) for document in found.only_ours)
        while True:
            while to_ask and len(self._exchanging) < UNDER_WAY_MAX:
                await self._ask(to_ask)
            while self._to_bring and len(self._bringing) < UNDER_WAY_MAX:
                await self._bring()
            if not self._exchanging and not self._bringing:
                break
            message = await self._answers.next()
            if isinstance(message, Exchanged) and self._exchanging:
                await self._was_exchanged(message.parcels, brings=brings)
            elif isinstance(message, Brought) and self._bringing:
                await self._was_brought(message)
            else:
                raise RemoteProtocolError(f"{type(message).__name__} that nobody asked for")
        if self._apart:
            self.is_complete = await self._give_turns(self._apart)

    async def _ask(self, documents: deque[DocumentId]) -> None:
        """Say what we hold of the next documents."""
        some = [documents.popleft() for _ in range(min(len(documents), EXCHANGED_AT_ONCE))]
        vectors = await asyncio.gather(*(held_of(self._shell, each) for each in some))
        held: list[tuple[DocumentId, bytes]] = []
        size = 0
        for at, (document, vector) in enumerate(zip(some, vectors, strict=True)):
            if vector is None or len(vector) > VECTOR_BYTES_MAX:
                self._apart[document] = None
                continue
            size += len(document.encode()) + len(vector)
            if held and size > EXCHANGE_BYTES:
                documents.extendleft(reversed(some[at:]))
                break
            held.append((document, vector))
        if held:
            self._exchanging.append(deque(document for document, _ in held))
            await self._has_room()
            self._say(Exchange(self._number, tuple(held)))

    async def _was_exchanged(self, parcels: Sequence[Parcel], *, brings: bool) -> None:
        expected = self._exchanging[0]
        for parcel in parcels:
            if not expected or expected.popleft() != parcel.document:
                raise RemoteProtocolError(f"{parcel.document!r} was exchanged out of its turn")
        if not parcels:
            raise RemoteProtocolError("an exchange of nothing")
        if not expected:
            self._exchanging.popleft()
        self._apart.update((parcel.document, None) for parcel in parcels if parcel.is_apart)
        at_once = [parcel for parcel in parcels if not parcel.is_apart]
        await self._take(at_once)
        self._unmoved.update(parcel.document for parcel in at_once if not parcel.updates)
        if brings:
            self._to_bring.extend((parcel.document, parcel.state_vector) for parcel in at_once)

    async def _take(self, parcels: Sequence[Parcel]) -> None:
        """Take parcels in.  Raises `StoreUnavailable` where one is neither durable nor refused.

        What is refused is told to the witness, and the trie still differs.
        """
        brought = [parcel for parcel in parcels if parcel.updates]
        answers = await asyncio.gather(
            *(
                take_parcel(
                    self._shell,
                    parcel,
                    source=self._source,
                    author=REMOTE,
                    name=f"remote {self._remote}",
                )
                for parcel in brought
            )
        )
        for parcel, code in zip(brought, answers, strict=True):
            if code == codes.OTHER_LINEAGE:
                self._apart[parcel.document] = None
        if codes.TRY_AGAIN_LATER in answers:
            raise StoreUnavailable("what a remote brought could not be stored; it is asked again")

    async def _bring(self) -> None:
        """Bring the next documents, as far as the remote lacks something of them."""
        count = min(len(self._to_bring), EXCHANGED_AT_ONCE)
        some = [self._to_bring.popleft() for _ in range(count)]
        position = await self._shell.store.write([])
        made = await asyncio.gather(*(self._parcel(*each) for each in some))
        self._apart.update((parcel.document, None) for parcel in made if parcel.is_apart)
        lacking = [parcel for parcel in made if parcel.updates and not parcel.is_apart]
        at_rest = {parcel.document for parcel in made if not parcel.updates and not parcel.is_apart}
        self.alike |= at_rest & self._unmoved & self._different
        await self._clear((document, position) for document in at_rest)
        for batch in batches(lacking):
            # What was too large for a batch has become apart in it.
            self._apart.update((each.document, None) for each in batch if each.is_apart)
            brought = [each.document for each in batch if not each.is_apart]
            self._bringing.append(dict.fromkeys(brought, position))
            await self._has_room()
            self._say(Bring(self._number, batch))

    async def _parcel(self, document: DocumentId, vector: bytes) -> Parcel:
        try:
            parcel = await parcel_for(self._shell, document, vector)
        except StoreError:
            raise
        except CrdtStateError:
            return Parcel(document, is_apart=True)
        return Parcel(document, parcel.updates, is_apart=parcel.is_apart)

    async def _was_brought(self, message: Brought) -> None:
        brought = self._bringing.popleft()
        refused = {document for document, _ in message.refused}
        await self._clear(
            (document, through) for document, through in brought.items() if document not in refused
        )
        # Its own turn tells why, and what becomes of it.
        for document in brought:
            if document in refused:
                self._bring_by_itself(document)

    async def _clear(self, held: Iterable[tuple[DocumentId, Position]]) -> None:
        """The remote holds these documents through these positions."""
        writes = [ClearOutbox(self._remote, document, through) for document, through in held]
        if writes:
            await self._shell.store.write(writes)

    async def _clear_outbox(self, through: Position, differed: set[DocumentId]) -> None:
        """What did not differ is held by the remote, as far as it was digested."""
        prefix = f"{self._scope}/" if self._scope else ""
        after = prefix
        leaves = self._own_leaves()
        document = await _next_of(leaves)
        while page := await self._shell.store.outbox(self._remote, after=after, limit=PAGE):
            after = page[-1].document
            held: list[tuple[DocumentId, Position]] = []
            for entry in page:
                while document and document < entry.document:
                    document = await _next_of(leaves)
                # Without a leaf, as one that is set aside, it has not been compared.
                is_compared = document == entry.document and entry.through <= through
                if is_compared and document not in differed:
                    held.append((entry.document, entry.through))
            await self._clear(held)
            if not after.startswith(prefix):
                return


async def _next_of(leaves: AsyncIterator[tuple[DocumentId, bytes]]) -> str:
    """The next document, or "" at the end."""
    async for document, _ in leaves:
        return document
    return ""
