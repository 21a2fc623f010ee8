"""Everyone who is at one document through one listener.

What has become durable goes to everyone but its author: merged within the tick, encoded once,
and written without waiting for anybody.  A peer that does not keep up is left out until its
buffer is empty and then brought up to date from the document's state, or closed.

1. Nobody is waited for, and what is written for one connection is bounded by
   `Limits.peer_queue_bytes_max` beyond the state it asked for, or by one message.
2. Whoever stays in the room has been sent all that was delivered, in an order that is safe.
3. A connection that was sent away is not listened to any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import (
    CrdtStateError,
    EngineFailed,
    LineageEnded,
    UpdateMalformed,
    UpdateRefused,
)
from crdt_state.identifiers import path_of
from crdt_state.model import engine
from crdt_state.model.awareness import encode_awareness
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    SyncStep1,
    encode,
    encode_update,
)
from crdt_state.replica.document_core import REPAIR
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.transport import codes
from crdt_state.transport.farewell import Departure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.model.awareness import AwarenessEntry
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.transport.farewell import Farewells
    from crdt_state.transport.listener import Traffic
    from crdt_state.transport.member import Member

__all__ = ["Room"]

MERGED_UPDATES_MAX = 256
MERGED_BYTES_MAX = 64 * 1024
"""Beyond this a merge saves little and holds up everybody."""

NOTHING_NEW = encode(AwarenessUpdate(b"\x00"))
"""An awareness update without entries: a sign of life that changes nothing."""


class Room:
    """The members of one document; a subscriber of the replica."""

    def __init__(
        self, document: DocumentId, shell: ReplicaShell, traffic: Traffic, farewells: Farewells
    ) -> None:
        self.document = document
        self.source = shell.new_source()
        self.members: dict[int, Member] = {}
        self.seats: dict[int, None] = {}
        """Replicas that have come for the document by channels of their own, by their source."""
        self.opening: asyncio.Future[None] | None = None
        """Set by the listener: done when the replica has loaded the document."""
        self.awaited_by = 0
        """How many wait for that; they will join."""
        self.is_over = False
        """Whether the document fell out of use: nobody may join any more."""
        self._shell = shell
        self._traffic = traffic
        self._farewells = farewells
        self._tasks: dict[asyncio.Future[None], None] = {}

    # --- coming and going --------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """Let a member in and greet it: our state vector, and who else is here."""
        self.members[member.source] = member
        known = self._shell.core.get(self.document)
        vector = engine.EMPTY_VECTOR if known is None else known.head.state_vector()
        member.connection.send(encode(SyncStep1(vector)))
        gathering = self._shell.gatherings.of(self.document)
        if len(self.members) == 1:
            gathering.listen(self.source, self._tell_members)
        gathering.arrive(member.source)
        if len(gathering):
            self._show(member, gathering.entries())

    def leave(self, member: Member) -> None:
        """A member's connection has ended; its awareness goes with it."""
        if self.members.pop(member.source, None) is None:
            return
        self._shell.gatherings.leave(self.document, member.source)
        if not self.members:
            self._shell.gatherings.leave(self.document, self.source)

    def seat(self, source: int) -> None:
        """A replica has come: it has updates and awareness by its own channel."""
        self.seats[source] = None

    def unseat(self, source: int) -> None:
        """A replica has left."""
        self.seats.pop(source, None)

    # --- awareness ---------------------------------------------------------------------------

    def receive_awareness(self, source: int, payload: bytes) -> None:
        """Pass on what is new.  Raises `RemoteProtocolError`."""
        self._shell.gatherings.of(self.document).receive(source, payload)

    def answer_awareness(self, member: Member) -> None:
        """Tell one member who is here."""
        present = self._shell.gatherings.of(self.document).entries()
        if present:
            self._show(member, present)
        else:
            member.connection.send(NOTHING_NEW)

    def _tell_members(self, author: int, entries: list[AwarenessEntry]) -> None:
        """Show everyone but the author what is new; who is slow, the latest of it later."""
        others = [member for source, member in self.members.items() if source != author]
        frame = encode(AwarenessUpdate(encode_awareness(entries)))
        self._keeping_up(others, len(frame))
        ready = []
        for member in others:
            if member.is_behind or member.unshown:
                member.unshown.put(entries)
            else:
                ready.append(member)
        self._send(ready, frame)

    def _show(self, member: Member, entries: list[AwarenessEntry]) -> None:
        """Show one member all of these: at once what is little, the rest as it reads."""
        is_under_way = member.is_behind or bool(member.unshown)
        member.unshown.put(entries)
        if not is_under_way:
            self._send_some(member)
            if member.unshown:
                self._start(self._show_the_rest(member))

    def _send_some(self, member: Member) -> None:
        shown = encode_awareness(member.unshown.take(LARGE_BYTES))
        self._send([member], encode(AwarenessUpdate(shown)))

    async def _show_the_rest(self, member: Member) -> None:
        """Show what a member has not been shown, a part whenever it has read the one before."""
        while member.unshown and self.is_here(member):
            if member.connection.buffered_bytes <= LARGE_BYTES:
                self._send_some(member)
            elif not await member.drained(self._shell.limits.peer_slow_seconds_max):
                self._drop_as_slow(member)

    def show_life(self) -> None:
        """Say something to everyone, so that nobody takes a quiet server for a dead one."""
        members = self._keeping_up(self.members.values(), len(NOTHING_NEW))
        self._send(members, NOTHING_NEW)

    # --- as a subscriber ---------------------------------------------------------------------

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """Send what is durable to everyone but its author."""
        authors = {delta.source for delta in deltas}
        others = [member for source, member in self.members.items() if source not in authors]
        if others:
            self._send_updates(others, deltas)
        if len(authors) > 1:
            for source in authors & self.members.keys():
                theirs = [delta for delta in deltas if delta.source != source]
                self._send_updates([self.members[source]], theirs)

    def refused(self, refusal: Refusal) -> None:
        """Tell the author, by closing its connection with the error's code and reason."""
        member = self.members.get(refusal.source)
        if member is not None:
            self.send_away(member, refusal.error.code, refusal.error.reason)

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """Send everyone away: stock clients come back and offer again what was not stored."""
        self.is_over = True
        code = (
            error.code if isinstance(error, UpdateRefused | LineageEnded) else codes.TRY_AGAIN_LATER
        )
        for member in tuple(self.members.values()):
            self.send_away(member, code, str(error))

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye to everyone."""
        for member in tuple(self.members.values()):
            self.send_away(member, code, reason)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- sending -----------------------------------------------------------------------------

    def _send_updates(self, members: list[Member], deltas: Sequence[Delta]) -> None:
        ready = self._keeping_up(members, sum(len(delta.update) for delta in deltas))
        if len(ready) < len(members):
            for member in members:
                if member.is_behind:
                    member.shortfall.miss(deltas)
        if ready:
            for frame in self._frames(deltas):
                self._send(ready, frame)

    def _frames(self, deltas: Sequence[Delta]) -> list[bytes]:
        updates = [delta.update for delta in deltas]
        if len(updates) == 1 or any(delta.source == REPAIR for delta in deltas):
            return [encode_update(update) for update in updates]
        try:
            frames: list[bytes] = []
            for start in range(0, len(updates), MERGED_UPDATES_MAX):
                part = updates[start : start + MERGED_UPDATES_MAX]
                if sum(map(len, part)) > MERGED_BYTES_MAX:
                    frames += map(encode_update, part)
                else:
                    frames.append(encode_update(engine.merge(part)))
        except (EngineFailed, UpdateMalformed):
            # Each of them was let in by itself, so each can be sent by itself.
            return [encode_update(update) for update in updates]
        return frames

    def _send(self, members: list[Member], frame: bytes) -> None:
        if members:
            self._traffic.write(members, frame)

    # --- those who are slow ------------------------------------------------------------------

    def _keeping_up(self, members: Collection[Member], size: int) -> list[Member]:
        """Those to whom `size` bytes may be written; who may not, is brought up to date later."""
        most = self._shell.limits.peer_queue_bytes_max
        for member in members:
            if member.is_behind:
                continue
            waiting = member.connection.buffered_bytes
            # A message beyond the bound goes to who has next to nothing waiting, and only there.
            if waiting > most or (waiting > LARGE_BYTES and waiting + size > most):
                member.is_behind = True
                self._start(self._bring_up_to_date(member))
        return [member for member in members if not member.is_behind]

    async def _bring_up_to_date(self, member: Member) -> None:
        try:
            rest = await self._send_what_was_missed(member)
        except CrdtStateError as error:
            self.send_away(member, codes.TRY_AGAIN_LATER, str(error))
            return
        if rest:
            for frame in self._frames(rest):
                self._send([member], frame)
        await self._show_the_rest(member)

    async def _send_what_was_missed(self, member: Member) -> list[Delta]:
        while True:
            if not await member.drained(self._shell.limits.peer_slow_seconds_max):
                self._drop_as_slow(member)
                return []
            known = self._shell.core.get(self.document)
            if known is None or not self.is_here(member):
                return []
            vector = engine.encode_state_vector(member.shortfall.catching_up(known.head.vector))
            update = await self._shell.difference(self.document, vector)
            self._send([member], encode_update(update))
            rest = member.shortfall.caught_up()
            if rest is not None:
                member.is_behind = False
                self._traffic.resynchronised += 1
                return rest

    def _drop_as_slow(self, member: Member) -> None:
        self._traffic.dropped_as_slow += 1
        self.send_away(member, codes.TOO_SLOW, "this connection does not read fast enough")

    # --- those who have to go ----------------------------------------------------------------

    def is_here(self, member: Member) -> bool:
        """Whether this member has neither left nor been sent away."""
        return self.members.get(member.source) is member

    def send_away(self, member: Member, code: int, reason: str) -> None:
        """Close a member's connection, in the background; it is not here any more."""
        if not self.is_here(member):
            return
        self.leave(member)
        departure = Departure(member.name, path_of(self.document), code, reason)
        member.farewell = self._start(self._farewells.say(member.connection, departure))

    def _start(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task
