"""Whole scopes over a line to a remote, as the side that dials.

    ScopeLink        all scopes of one link, on whatever connection there is
    ScopeFollower    one of them: subscribes, catches up, and takes in what changes

1. A watermark is kept only when everything through it is durable here; a kill before that, or a
   document that the remote would not show, asks again.
2. A catch-up through the trie brings both sides in step, and takes what the remote was found to
   hold out of its outbox.
3. What is under way is bounded, and what has been heard and not taken in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from crdt_state.errors import CrdtStateError, RemoteProtocolError
from crdt_state.lib0 import Reader, encode_varuint
from crdt_state.protocol.peer.scopes import (
    MARK_BYTES,
    Ended,
    News,
    Root,
    ScopeMessage,
    Since,
    Subscribe,
    Unsubscribe,
)
from crdt_state.storage.contract import NOTHING, WATERMARKS, SetMetadata
from crdt_state.sync.exchange import Progress
from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.scope_catch_up import CatchUp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from crdt_state.identifiers import DocumentId, Scope
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import Sequence as Position
    from crdt_state.transport.peer_connection import PeerConnection

__all__ = ["ScopeFollower", "ScopeLink"]

M = TypeVar("M", bound=ScopeMessage)

TOLD_MAX = 100
"""Of documents that cannot be brought in step; a remote may claim it of all of them."""

TWO_CONTENTS = (
    "holds another content of it under the same edits, and neither can be mended by the other: a "
    "client id was used twice, as by a copy of a store that both were written to, or one has "
    "decayed; keep one as a copy, and seed the document anew"
)


class ScopeLink:
    """The scopes of one link."""

    def __init__(
        self,
        shell: ReplicaShell,
        remote: str,
        source: int,
        *,
        changed: Callable[[], None],
        give_turns: Callable[[Iterable[DocumentId]], Awaitable[bool]],
        bring: Callable[[DocumentId], None],
    ) -> None:
        """`changed` is called when one is further.

        `give_turns` exchanges what is too large, and `bring`, some time, a document of which the
        remote refused something.
        """
        self.shell = shell
        self.remote = remote
        self.source = source
        self.changed = changed
        self.give_turns = give_turns
        self.bring = bring
        self.followers: dict[Scope, ScopeFollower] = {}
        self._by_number: dict[int, ScopeFollower] = {}
        self._next_number = 0
        self._wire: PeerConnection | None = None
        self._heard = 0
        self._room = asyncio.Event()
        self._room.set()

    def subscribe(self, scope: Scope) -> ScopeFollower:
        """Keep a scope in step from now on; a second call changes nothing."""
        follower = self.followers.get(scope)
        if follower is None:
            follower = self.followers[scope] = ScopeFollower(self, scope)
            if self._wire is not None:
                follower.begin(self._wire)
        return follower

    def begin(self, wire: PeerConnection) -> None:
        """There is a connection, on which we have said `Hello`."""
        self._wire = wire
        self._next_number = 0
        for follower in self.followers.values():
            follower.begin(wire)

    async def end(self) -> None:
        """The connection has ended."""
        self._wire = None
        self._by_number.clear()
        await asyncio.gather(*(follower.end() for follower in self.followers.values()))
        self._heard = 0
        self._room.set()

    def hear(self, message: ScopeMessage) -> None:
        """The remote said something."""
        follower = self._by_number.get(message.subscription)
        if follower is not None:  # else it has been given up, and the remote does not know yet
            self._heard += 1
            if self._heard > self.shell.limits.scope_messages_max:
                self._room.clear()
            follower.hear(message)

    async def has_room(self) -> None:
        """Wait until most of what was heard has been taken in."""
        await self._room.wait()

    def took(self) -> None:
        """A follower has taken one message to deal with it."""
        self._heard -= 1
        if self._heard <= self.shell.limits.scope_messages_max // 2:
            self._room.set()

    def is_catching_up(self, scope: Scope) -> bool:
        """Whether what is owed of a scope's documents is about to be exchanged as a whole."""
        follower = self.followers.get(scope)
        return follower is not None and follower.is_comparing

    def number_for(self, follower: ScopeFollower) -> int:
        """A new number for a subscription."""
        number = self._next_number
        self._next_number += 1
        self._by_number[number] = follower
        return number

    def give_up(self, number: int) -> None:
        """Pass over what still comes under a number."""
        follower = self._by_number.pop(number, None)
        if follower is not None:
            follower.forget()


class ScopeFollower:
    """One scope of a link."""

    def __init__(self, link: ScopeLink, scope: Scope) -> None:
        self.scope = scope
        self.progress = Progress.OFFLINE
        self.last_error: str | None = None
        self.is_comparing = True
        """Whether it is not known yet in which documents the two sides differ."""
        self._link = link
        self._shell = link.shell
        self._alike: set[DocumentId] = set()
        """What differed when it was last compared, and could not be brought in step."""
        self._key = f"{WATERMARKS}{link.remote}\n{scope}"
        self._backoff = Backoff(link.shell.limits, link.shell.random)
        self._inbox: deque[ScopeMessage] = deque()
        self._has_heard = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def in_step(self) -> None:
        """Wait until all that the remote has told of is durable here."""
        if self.progress is not Progress.IN_SYNC:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def begin(self, wire: PeerConnection) -> None:
        """Subscribe over a new connection."""
        self._task = asyncio.create_task(self._follow(wire), name=f"scope {self.scope}")

    async def end(self) -> None:
        """The connection has gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.forget()
        self._show(Progress.OFFLINE)

    def close(self, error: Exception) -> None:
        """Tell who waits that nothing more will come."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)

    def hear(self, message: ScopeMessage) -> None:
        """The remote said something."""
        self._inbox.append(message)
        self._has_heard.set()

    def forget(self) -> None:
        """Let go of what has been heard and not taken."""
        while self._inbox:
            self._inbox.popleft()
            self._link.took()

    # --- one connection ----------------------------------------------------------------------

    async def _follow(self, wire: PeerConnection) -> None:
        """Subscribe, again and again, as long as the connection is there."""
        while True:
            number = self._link.number_for(self)
            progress = Progress.OFFLINE
            try:
                self._show(Progress.CATCHING_UP)
                await _Attendance(self, self._link, wire, number).attend()
            except _Again:
                wire.protocol.say_of_scope(Unsubscribe(number))
                self._link.give_up(number)
                continue
            except _Refused as refusal:
                self.last_error = f"ended with {refusal.message.code} ({refusal.message.reason})"
                if refusal.message.code in codes.REFUSES_US:
                    progress = Progress.REFUSED
            except (CrdtStateError, ConnectionEnded) as error:
                self.last_error = str(error)
                wire.protocol.say_of_scope(Unsubscribe(number))
                wire.touch()
            except Exception as error:
                self.last_error = repr(error)
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"following the scope {self.scope!r} failed", "exception": error}
                )
            self._link.give_up(number)
            self.is_comparing = False  # what is owed must not wait for a scope that is refused
            self._show(progress)
            await asyncio.sleep(self._backoff.failed())

    async def next(self) -> ScopeMessage:
        """What the remote says next."""
        while not self._inbox:
            self._has_heard.clear()
            await self._has_heard.wait()
        self._link.took()
        message = self._inbox.popleft()
        if isinstance(message, Ended):
            raise _Refused(message)
        return message

    async def expect(self, kind: type[M]) -> M:
        """What the remote says next, which has to be of a kind."""
        message = await self.next()
        if not isinstance(message, kind):
            raise RemoteProtocolError(
                f"{type(message).__name__} of a scope, where {kind.__name__} was next"
            )
        return message

    def arrived(self) -> None:
        """All that the remote has told of is durable here."""
        self._backoff.succeeded()
        self.is_comparing = False
        self._show(Progress.IN_SYNC)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def watermark(self) -> tuple[bytes, int]:
        """Through where the remote's log is known, and whose that is; nothing at first."""
        value = await self._shell.store.metadata(self._key)
        if value is None:
            return b"", 0
        return value[:MARK_BYTES], Reader(value, MARK_BYTES).varuint()

    async def position(self) -> Position:
        """Through where our log reaches at least."""
        return await self._shell.store.write([])

    async def keep_watermark(self, mark: bytes, after: int) -> None:
        """Everything through `after` is durable here."""
        await self._shell.store.write([SetMetadata(self._key, mark + encode_varuint(after))])

    def is_to_compare_again(self, alike: set[DocumentId]) -> bool:
        """Whether to look once more at what differed though neither side had anything to bring.

        Of what does so twice in a row the witness is told.  Never twice in a row: a remote could
        claim it of others every time.
        """
        for document in sorted(alike & self._alike)[:TOLD_MAX]:
            self._shell.witness.unsound(document, f"{self._link.remote} {TWO_CONTENTS}")
        is_first, self._alike = bool(alike) and not self._alike, alike
        return is_first

    async def keep_no_watermark(self) -> None:
        """Something is missing: the next subscription compares."""
        await self._shell.store.write([SetMetadata(self._key, None)])

    def _show(self, progress: Progress) -> None:
        if progress is not self.progress:
            self.progress = progress
            self._link.changed()


class _Refused(Exception):
    """The remote ended the subscription."""

    def __init__(self, message: Ended) -> None:
        super().__init__(message.reason)
        self.message = message


class _Again(Exception):
    """The scope is to be compared once more, from the beginning."""


class _Attendance:
    """One subscription, from its `Subscribe` to its end."""

    def __init__(
        self, follower: ScopeFollower, link: ScopeLink, wire: PeerConnection, number: int
    ) -> None:
        self._follower = follower
        self._link = link
        self._shell = link.shell
        self._wire = wire
        self._number = number
        self._mark = b""
        self._root = b""
        self._rooted_at = NOTHING
        self._is_complete = True
        """Whether all that the remote has told of is here: what it would not show is asked again
        by the link, and, behind a kill, by comparing anew."""

    async def attend(self) -> None:
        """Catch up and stay in step; ends by an exception alone."""
        scope, tries = self._follower.scope, self._shell.tries
        self._mark, after = await self._follower.watermark()
        if self._mark:
            # The outbox says what is owed; the trie is asked when the mark is no longer right.
            self._follower.is_comparing = False
        else:
            self._follower.is_comparing = True
            # What is edited behind this may be in the root, and is not known to be.
            self._rooted_at = await self._follower.position()
            await tries.settle(scope)
            self._root = await tries.root(scope)
        self._say(Subscribe(self._number, scope, self._mark, after, self._root))
        while True:
            message = await self._follower.next()
            if isinstance(message, News):
                await self._take_news(message)
            elif isinstance(message, Root):
                await self._compare(message)
            else:
                raise RemoteProtocolError(f"{type(message).__name__} that nobody asked for")

    async def _take_news(self, news: News) -> None:
        catch_up = self._catch_up()
        await catch_up.take_news(news.parcels)
        await self._reached(news.through, catch_up)
        if news.is_all:
            self._follower.arrived()
        self._say(Since(self._number, news.through))

    async def _compare(self, theirs: Root) -> None:
        self._mark = theirs.mark
        self._follower.is_comparing = True
        is_said = bool(theirs.root) and not theirs.node
        """Whether the remote knows that both are equal, and goes on by itself."""
        if is_said and theirs.root != self._root:
            raise RemoteProtocolError("another root without a root node")
        catch_up = self._catch_up()
        await catch_up.compare(theirs, rooted_at=self._rooted_at)
        if self._follower.is_to_compare_again(catch_up.alike):
            raise _Again
        await self._reached(theirs.through, catch_up)
        self._follower.arrived()
        if not is_said:
            self._say(Since(self._number, theirs.through))

    async def _reached(self, through: int, catch_up: CatchUp) -> None:
        if not catch_up.is_complete:
            self._is_complete = False
            await self._follower.keep_no_watermark()
        elif self._is_complete:
            await self._follower.keep_watermark(self._mark, through)

    def _catch_up(self) -> CatchUp:
        return CatchUp(
            self._shell,
            self._follower.scope,
            self._number,
            remote=self._link.remote,
            source=self._link.source,
            say=self._say,
            has_room=self._wire.has_room,
            follower=self._follower,
            give_turns=self._link.give_turns,
            bring=self._link.bring,
        )

    def _say(self, message: ScopeMessage) -> None:
        self._wire.protocol.say_of_scope(message)
        self._wire.touch()
