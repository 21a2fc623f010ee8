"""One document over our own protocol, as the side that dials; what a link follows.

1. The channel is opened anew on every connection that the line makes.
2. The outbox is cleared by acknowledgements of what is durable at the remote alone.
3. What the remote has of a later life takes the place of what is here; where it refuses what was
   edited here, the document gives way.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crdt_state.errors import CrdtStateError, DocumentClosed
from crdt_state.replica.giving_way import give_way, head_of_state
from crdt_state.replica.succession import held_by, succeed
from crdt_state.storage.contract import ClearOutbox, Sequence
from crdt_state.sync.exchange import Progress
from crdt_state.transport import codes
from crdt_state.transport.channel import (
    NOTHING_TO_BRING,
    Channel,
)
from crdt_state.transport.conversation import (
    REMOTE,
)
from crdt_state.transport.fetching import End, Fetching
from crdt_state.transport.peer_connection import PeerConnection
from crdt_state.transport.peer_line import report
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.showing import Showing

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life
    from crdt_state.protocol.peer.messages import Awareness
    from crdt_state.replica.document_core import Refusal
    from crdt_state.transport.conversation import Tie
    from crdt_state.transport.peer_line import PeerLine

__all__ = ["PeerConversation"]


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
        self._channel_over: asyncio.Future[End] | None = None
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
            report(f"the link to {self._tie.remote} about {self.document!r} goes on", error)
            return Progress.OFFLINE, self._backoff.failed()
        if code == codes.GONE:
            return Progress.OFFLINE, 0.0  # the line is dialled again, after a wait of its own
        self.last_error = f"closed with {code}{f' ({reason})' if reason else ''}"
        if not is_by_peer:
            # We ended it, for what the remote said: that refuses nothing of ours.
            return Progress.OFFLINE, self._backoff.failed()
        progress = Progress.REFUSED if code in codes.REFUSES_US else Progress.OFFLINE
        if code == codes.FORBIDDEN:
            self.unwelcome_seconds = limits.reconnect_seconds_max
            self._may_need_a_token = True
        elif code in codes.REFUSES_THE_DOCUMENT | codes.REFUSES_WHAT_WE_BRING | {codes.TOO_BIG}:
            # Asking again soon cannot help; a person may have helped by much later.
            seconds = self._shell.random.uniform(0.5, 1.0) * limits.refused_seconds
            self.unwelcome_seconds = seconds
            return progress, seconds
        return progress, self._backoff.failed()

    async def _talk(self, wire: PeerConnection) -> End:
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
                end: End = await over
            finally:
                self._leave_channel(channel)
            if channel.successor is not None:
                return await self._succeed(wire, channel.successor)
            if end.code == codes.OTHER_LINEAGE:
                if end.is_by_peer:
                    await asyncio.sleep(self._backoff.failed())
                return End(codes.GONE, end.reason, is_by_peer=True)  # opened anew, it is told more
            has_refused = (
                end.is_by_peer and channel.has_sent and end.code in codes.REFUSES_WHAT_WE_BRING
            )
            if known is not None and has_refused:
                return await self._give_way(wire, end)
            return end
        finally:
            shell.leave(document, self._keeper)

    def _leave_channel(self, channel: Channel) -> None:
        if not channel.is_over:
            channel.close(codes.CLOSED, "")
        if self._showing is not None:
            self._showing.end()
        self._channel, self._showing = None, None

    # --- when the remote holds a later life of the document ----------------------------------

    async def _succeed(self, wire: PeerConnection, life: Life) -> End:
        """Let the document be what the remote holds of a later life; how this then goes on."""
        shell, tie = self._shell, self._tie
        content: bytes | None = None
        if not life.is_deleted:
            fetched = await Fetching(wire, self.document, life).fetch()
            if isinstance(fetched, End):
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
        return End(codes.GONE, "", is_by_peer=True)

    # --- when the remote refuses what we bring -----------------------------------------------

    async def _give_way(self, wire: PeerConnection, end: End) -> End:
        """Let the document be what the remote holds; how the conversation then goes on."""
        document, remote = self.document, self._tie.remote
        if await self._tie.remotes.others_who_hold(document, remote):
            return end  # they would bring the same again
        known = self._shell.core.get(document)
        if known is None:
            return End(codes.TRY_AGAIN_LATER, "the document fell out of use", is_by_peer=True)
        fetched = await Fetching(wire, document, known.life).fetch()
        if isinstance(fetched, End):
            return fetched
        state = await self._shell.workers.merge(fetched) if fetched else NOTHING_TO_BRING
        refused = await give_way(
            self._shell, known, state, remote=remote, code=end.code, reason=end.reason
        )
        if refused is None:
            return end
        self._tie.was_refused(refused)
        self._tell_waiters(refused)
        return End(codes.GONE, end.reason, is_by_peer=True)

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
        if code == codes.TOO_BIG and not by_peer:
            # The remote was not asked: it has said in its greeting that it refuses this.
            code, by_peer = codes.TOO_LARGE, True
        if self._channel_over is not None and not self._channel_over.done():
            self._channel_over.set_result(End(code, reason, by_peer))

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
