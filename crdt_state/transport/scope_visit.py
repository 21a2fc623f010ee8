"""Whole scopes over one connection, as the side that listens.

What is asked is answered in the order in which it came, one message after another; between two of
them nothing is kept but where each subscription stands.

1. Nothing of a document that the peer may not read is said, not even a hash above it.
2. A sequence is said only when everything through it has been.
3. What has been heard and not dealt with is bounded; beyond it no more is read.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from typing import TYPE_CHECKING

from crdt_state.errors import CrdtStateError, RemoteProtocolError, UpdateRefused
from crdt_state.identifiers import scope_of
from crdt_state.merkle.answering import answer, greet
from crdt_state.merkle.messages import CompareBuckets, CompareNodes, SendNodes, decode, encode
from crdt_state.protocol.peer.scopes import (
    LEAF_BYTES,
    Answer,
    Ask,
    Bring,
    Brought,
    Ended,
    Exchange,
    Exchanged,
    List,
    Listed,
    News,
    Parcel,
    Root,
    Since,
    Subscribe,
    Unsubscribe,
    batches,
)
from crdt_state.storage.contract import Sequence
from crdt_state.transport import codes
from crdt_state.transport.scope_intake import parcel_for, take_parcel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from collections.abc import Sequence as Many

    from crdt_state.identifiers import DocumentId, Scope
    from crdt_state.protocol.peer.scopes import ScopeMessage
    from crdt_state.replica.admission import Author
    from crdt_state.replica.document_core import Delta
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.security.grant import Grant
    from crdt_state.transport.peer_connection import PeerConnection

__all__ = ["WALK_BYTES_MAX", "ScopeVisit"]

WALK_BYTES_MAX = 120 * 1024
"""Of a message of a walk: it fits a frame."""

EXCHANGED_AT_ONCE = 128
"""Documents that one `Exchange` may name."""

NEWS_DOCUMENTS = 256
NEWS_BYTES = 8 * 1024
"""Of one document, and a quarter of all: what is more is exchanged by states."""

LISTED_DOCUMENTS = 512
LISTED_BYTES = 48 * 1024
ECHOES_MAX = 10_000


class _Subscription:
    """Where one scope stands with the peer."""

    def __init__(self, visit: ScopeVisit, number: int, scope: Scope) -> None:
        self.number = number
        self.scope = scope
        self.after = Sequence(0)
        self.is_waiting = False
        """Whether the peer wants to be told the next."""
        self.is_changed = False
        """Whether something of the scope has become durable since the log was last looked at."""
        self.is_kicked = False
        self.echoes: dict[DocumentId, Sequence] = {}
        """Documents in which the peer alone has changed something, and through where that is so."""
        self.by_others: set[DocumentId] = set()
        self._visit = visit
        self._is_caught_up = False

    def changed(self, document: DocumentId, deltas: Many[Delta]) -> None:
        """See `ScopeWatcher`."""
        self.is_changed = True
        if not self._is_caught_up:
            pass  # what others brought before may not have been told
        elif deltas and all(self._visit.is_from_peer(delta.source) for delta in deltas):
            if document not in self.by_others and len(self.echoes) < ECHOES_MAX:
                self.echoes[document] = self._visit.last
        elif len(self.by_others) < ECHOES_MAX:
            self.by_others.add(document)
            self.echoes.pop(document, None)
        else:
            self.tells_from_before()
        if self.is_waiting and not self.is_kicked:
            self.is_kicked = True
            self._visit.take(Since(self.number, self.after))

    def is_all_told(self) -> None:
        """Everything that is durable was told: from here on it is known who brings what."""
        self._is_caught_up = True
        self.echoes.clear()
        self.by_others.clear()

    def tells_from_before(self) -> None:
        """Something older will be told, of which it is not known who brought it."""
        self._is_caught_up = False
        self.echoes.clear()

    def is_echo(self, document: DocumentId, last: Sequence) -> bool:
        """Whether all that is new of a document, through `last`, is what the peer has brought.

        Somebody else's may be on the disk already, and not delivered.
        """
        through = self.echoes.get(document)
        return through is not None and last <= through


class ScopeVisit:
    """The scopes that one peer keeps in step."""

    def __init__(
        self,
        shell: ReplicaShell,
        wire: PeerConnection,
        *,
        grant: Callable[[], Grant],
        author: Callable[[DocumentId], Author],
        name: Callable[[], str],
        is_from_peer: Callable[[int], bool],
        was_forgotten: Callable[[], Awaitable[bool]],
    ) -> None:
        """`grant`, `author` and `name` say what counts now; `is_from_peer` knows its channels.

        `was_forgotten`: what the peer holds and we do not may have been deleted.
        """
        self._was_forgotten = was_forgotten
        self._shell = shell
        self._wire = wire
        self._grant = grant
        self._author = author
        self._name = name
        self._is_from_channel = is_from_peer
        self._source = shell.new_source()
        self._subscriptions: dict[int, _Subscription] = {}
        self._greatest = -1
        self._heard: deque[ScopeMessage] = deque()
        self._working: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def last(self) -> Sequence:
        """The greatest sequence that has been delivered."""
        return self._shell.last

    def is_from_peer(self, source: int) -> bool:
        """Whether a source is this peer."""
        return source == self._source or self._is_from_channel(source)

    def take(self, message: ScopeMessage) -> None:
        """The peer said something; it is dealt with in its turn."""
        self._heard.append(message)
        if len(self._heard) > self._shell.limits.scope_messages_max:
            self._room.clear()
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="scopes")

    async def has_room(self) -> None:
        """Wait until most of what was said has been dealt with."""
        await self._room.wait()

    def grant_changed(self) -> None:
        """The peer brought a new token: what it was told before was by another right."""
        for subscription in tuple(self._subscriptions.values()):
            self._end(
                subscription, codes.TRY_AGAIN_LATER, "the rights have changed; subscribe again"
            )

    async def close(self) -> None:
        """The connection has ended."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        for subscription in tuple(self._subscriptions.values()):
            self._forget(subscription)

    # --- one message after another -----------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._heard:
                message = self._heard.popleft()
                if len(self._heard) <= self._shell.limits.scope_messages_max // 2:
                    self._room.set()
                await self._wire.has_room()
                await self._take(message)
        finally:
            self._working = None

    async def _take(self, message: ScopeMessage) -> None:
        subscription = self._subscriptions.get(message.subscription)
        try:
            if isinstance(message, Subscribe):
                await self._subscribe(message)
            elif subscription is not None:  # else it ended, and the peer does not know yet
                await self._deal_with(subscription, message)
        except (RemoteProtocolError, UpdateRefused) as error:
            self._refuse(message.subscription, error.code, error.reason)
        except CrdtStateError as error:
            self._refuse(message.subscription, codes.TRY_AGAIN_LATER, str(error))
        except Exception as error:
            self._refuse(message.subscription, codes.TRY_AGAIN_LATER, "something went wrong here")
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a scope of a peer failed", "exception": error}
            )

    async def _deal_with(self, subscription: _Subscription, message: ScopeMessage) -> None:
        match message:
            case Ask(_, request):
                await self._answer(subscription, request)
            case Since(_, after):
                await self._tell_news(subscription, Sequence(after))
            case Exchange(_, held):
                await self._exchange(subscription, held)
            case Bring(_, parcels):
                await self._be_brought(subscription, parcels)
            case List(_, after):
                await self._list(subscription, after)
            case Unsubscribe():
                self._forget(subscription)

    async def _subscribe(self, asked: Subscribe) -> None:
        if asked.subscription <= self._greatest:
            raise RemoteProtocolError("a subscription's number is greater than those before")
        self._greatest = asked.subscription
        if len(self._subscriptions) >= self._shell.limits.scopes_max:
            raise RemoteProtocolError("more than scopes_max on one connection", code=codes.TOO_MANY)
        scope = asked.scope
        if not self._may_see(scope):
            raise RemoteProtocolError(f"no right to read in {scope!r}", code=codes.FORBIDDEN)
        subscription = _Subscription(self, asked.subscription, scope)
        self._subscriptions[asked.subscription] = subscription
        self._shell.watching.watch(scope, subscription)
        # What comes behind the sequence that a `Root` names is told, and by whom is known from here
        # on.  Writes are carried out in order: the log reaches at least so far.
        subscription.is_all_told()
        last = await self._shell.store.write([])
        mark = self._mark()
        if asked.mark == mark and asked.after <= last and not await self._was_forgotten():
            subscription.tells_from_before()
            await self._tell_news(subscription, Sequence(asked.after), is_first=True)
        elif not self._grant().may_read_all(scope):
            self._say(Root(asked.subscription, mark, last, b""))
        else:
            await self._show_root(subscription, asked.root, mark, last)

    async def _show_root(
        self, subscription: _Subscription, theirs: bytes, mark: bytes, last: Sequence
    ) -> None:
        scope, tries = subscription.scope, self._shell.tries
        await tries.settle(scope)
        root = await tries.root(scope)
        greeting = await tries.run(scope, greet(theirs))
        node = b"" if greeting is None else encode(greeting)
        self._say(Root(subscription.number, mark, last, root, node))
        if not node:
            await self._tell_news(subscription, last)

    def _mark(self) -> bytes:
        """What a sequence belongs to: a life of this replica, and what the peer may read."""
        rights = sorted(right.pattern for right in self._grant().rights)
        digest = hashlib.sha256("\n".join(rights).encode()).digest()
        return self._shell.store.incarnation + digest[:8]

    def _may_see(self, scope: Scope) -> bool:
        return bool(self._grant().may_read_all(scope) or self._grant().prefixes(_prefix_of(scope)))

    # --- what is asked -----------------------------------------------------------------------

    async def _answer(self, subscription: _Subscription, request: bytes) -> None:
        if not self._grant().may_read_all(subscription.scope):
            raise RemoteProtocolError("no right to read all of this scope", code=codes.FORBIDDEN)
        asked = decode(request)
        if not isinstance(asked, CompareNodes | SendNodes | CompareBuckets):
            raise RemoteProtocolError("a walk is asked with requests")
        steps = answer(asked, message_bytes_max=WALK_BYTES_MAX)
        answered = await self._shell.tries.run(subscription.scope, steps)
        self._say(Answer(subscription.number, encode(answered)))

    async def _tell_news(
        self, subscription: _Subscription, after: Sequence, *, is_first: bool = False
    ) -> None:
        subscription.is_kicked = False
        subscription.is_waiting = True
        subscription.after = after
        while True:
            subscription.is_changed = False
            heads = await self._shell.store.heads(
                subscription.scope, subscription.after, limit=NEWS_DOCUMENTS, size=NEWS_BYTES
            )
            news = [
                head
                for head in heads.heads
                if not subscription.is_echo(head.document, head.last)
                and self._may_read(head.document)
            ]
            if news or is_first:
                break
            subscription.after = heads.through
            if heads.is_all and not subscription.is_changed:
                subscription.is_all_told()
                return
        subscription.is_waiting = False
        parcels = (
            Parcel(head.document, head.updates or (), is_apart=head.updates is None)
            for head in news
        )
        # What does not fit into one message comes with the next: the log has not gone on.
        batch = next(batches(parcels), ())
        is_whole = len(batch) == len(news)
        through = heads.through if is_whole else news[len(batch) - 1].last
        self._say(News(subscription.number, through, heads.is_all and is_whole, batch))

    async def _exchange(
        self, subscription: _Subscription, held: Many[tuple[DocumentId, bytes]]
    ) -> None:
        if len(held) > EXCHANGED_AT_ONCE:
            raise RemoteProtocolError(f"more than {EXCHANGED_AT_ONCE} documents exchanged at once")
        parcels = await asyncio.gather(
            *(self._parcel(subscription.scope, document, vector) for document, vector in held)
        )
        for batch in batches(parcels):
            self._say(Exchanged(subscription.number, batch))
            await self._wire.has_room()

    async def _parcel(self, scope: Scope, document: DocumentId, vector: bytes) -> Parcel:
        if scope_of(document) != scope or not self._may_read(document):
            raise RemoteProtocolError(
                f"no right to read {document!r} in {scope!r}", code=codes.FORBIDDEN
            )
        return await parcel_for(self._shell, document, vector)

    async def _be_brought(self, subscription: _Subscription, parcels: Many[Parcel]) -> None:
        for parcel in parcels:
            if scope_of(parcel.document) != subscription.scope:
                raise RemoteProtocolError(f"{parcel.document!r} is of another scope")
        answers = await asyncio.gather(*map(self._take_parcel, parcels))
        pairs = zip(parcels, answers, strict=True)
        refused = tuple((parcel.document, code) for parcel, code in pairs if code)
        self._say(Brought(subscription.number, refused))

    async def _take_parcel(self, parcel: Parcel) -> int:
        if not self._may_read(parcel.document):
            return codes.FORBIDDEN  # or the answer would tell what is there
        if await self._was_forgotten() and await self._is_missing(parcel.document):
            return codes.OTHER_LINEAGE  # its own channel tells what is new from what was deleted
        return await take_parcel(
            self._shell,
            parcel,
            source=self._source,
            author=self._author(parcel.document),
            name=self._name(),
        )

    async def _is_missing(self, document: DocumentId) -> bool:
        return await self._shell.store.summary(document) is None

    async def _list(self, subscription: _Subscription, after: str) -> None:
        await self._shell.tries.settle(subscription.scope)
        prefix = _prefix_of(subscription.scope)
        leaves: list[tuple[DocumentId, bytes]] = []
        size, is_last = 0, False
        while not leaves and not is_last:
            page = await self._shell.store.leaves(
                prefix=prefix, after=after, limit=LISTED_DOCUMENTS
            )
            is_last = len(page) < LISTED_DOCUMENTS
            for leaf in page:
                after = leaf.document
                if scope_of(after) != subscription.scope or not self._may_read(after):
                    continue
                leaves.append((after, leaf.leaf[:LEAF_BYTES]))
                size += len(after.encode()) + LEAF_BYTES
                if size > LISTED_BYTES:
                    is_last = False
                    break
        self._say(Listed(subscription.number, is_last, tuple(leaves)))

    def _may_read(self, document: DocumentId) -> bool:
        return self._grant().may_read(document)

    # --- the end of one ----------------------------------------------------------------------

    def _refuse(self, number: int, code: int, reason: str) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is not None:
            self._forget(subscription)
        self._say(Ended(number, code, reason))

    def _end(self, subscription: _Subscription, code: int, reason: str) -> None:
        self._forget(subscription)
        self._say(Ended(subscription.number, code, reason))

    def _forget(self, subscription: _Subscription) -> None:
        self._subscriptions.pop(subscription.number, None)
        self._shell.watching.unwatch(subscription.scope, subscription)

    def _say(self, message: ScopeMessage) -> None:
        self._wire.protocol.say_of_scope(message)
        self._wire.touch()


def _prefix_of(scope: Scope) -> str:
    return f"{scope}/" if scope else ""
