"""Bugs to be planted: each breaks one line of production, as somebody might by mistake.

The checkers know none of them.  A bug that no checker finds is a hole in the checkers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from crdt_state.errors import StoreError
from crdt_state.identifiers import ClientId
from crdt_state.replica import open_document, succession
from crdt_state.replica.admission import Pending
from crdt_state.replica.compaction import Compaction
from crdt_state.replica.document_core import DocumentCore
from crdt_state.replica.peers import Peers
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import InProcess
from crdt_state.simulator import processes, stores
from crdt_state.storage import sqlite_identity
from crdt_state.storage.contract import Append, ClearOutbox, Forget, Release
from crdt_state.sync.acknowledging import Sent
from crdt_state.transport import peer_conversation
from crdt_state.transport.channel import Channel
from crdt_state.transport.conversation import Conversation
from crdt_state.transport.room import Room

if TYPE_CHECKING:
    import pytest


def says_saved_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def settled(self: ReplicaShell, document: str) -> None:
        """Nothing is waited for."""

    patch.setattr(ReplicaShell, "settled", settled)


def answers_the_barrier_from_memory(patch: pytest.MonkeyPatch) -> None:
    settled, receive = ReplicaShell.settled, ReplicaShell.receive

    async def settled_at_once(self: ReplicaShell, document: Any) -> None:
        if not self._is_listening:
            await settled(self, document)

    def receive_and_count(
        self: ReplicaShell, document: Any, source: int, author: Any, update: bytes, *, name: str
    ) -> None:
        receive(self, document, source, author, update, name=name)
        self.encodings.appended(document, [update])

    patch.setattr(ReplicaShell, "settled", settled_at_once)
    patch.setattr(ReplicaShell, "receive", receive_and_count)


def delivers_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def write(self: ReplicaShell, batch: Any) -> None:
        self._deliver(batch)
        with contextlib.suppress(StoreError):
            self.last = max(self.last, await self.store.write(batch.writes))
        self._wake_readers()

    patch.setattr(ReplicaShell, "_write", write)


def drops_what_is_pending_at_a_fold(patch: pytest.MonkeyPatch) -> None:
    writes = Compaction.writes

    def writes_and_release(self: Compaction, stored: Any, folded: Any) -> Any:
        known = self._shell.core.get(stored.document)
        if known is not None:
            known.pending = Pending(known.limits)
        numbers = tuple(held.number for held in stored.pending)
        return [Release(stored.document, numbers), *writes(self, stored, folded)]

    patch.setattr(Compaction, "writes", writes_and_release)


def loses_the_end_of_the_log_at_a_fold(patch: pytest.MonkeyPatch) -> None:
    fold = InProcess.fold

    async def fold_most(self: InProcess, updates: Any) -> Any:
        return await fold(self, updates[:-1] or updates)

    patch.setattr(InProcess, "fold", fold_most)


def uses_a_client_id_again(patch: pytest.MonkeyPatch) -> None:
    def draw(dice: Any) -> ClientId:
        process = processes._owner.get()
        assert process is not None
        return ClientId(1 + sum(process.name.partition(" ")[0].encode()))

    patch.setattr(open_document, "draw_client_id", draw)


def clears_the_outbox_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    talk = Conversation._talk

    async def talk_and_clear(self: Conversation, connection: Any) -> None:
        shell = self._shell
        clear = ClearOutbox(self._tie.remote, self.document, shell.last)
        await shell.store.write([clear])
        await talk(self, connection)

    patch.setattr(Conversation, "_talk", talk_and_clear)


def brings_nobody_up_to_date(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: Room, member: Any) -> None:
        if await member.drained(self._shell.limits.peer_slow_seconds_max):
            member.is_behind = False

    patch.setattr(Room, "_bring_up_to_date", forget)


def does_not_sync_commits(patch: pytest.MonkeyPatch) -> None:
    configure = stores.configure

    def configure_badly(connection: Any, *arguments: Any, **options: Any) -> None:
        configure(connection, *arguments, **options)
        connection.execute("PRAGMA synchronous = OFF")

    patch.setattr(stores, "configure", configure_badly)


def goes_on_after_a_restore(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite_identity, "agrees", lambda marks, mark: True)


# --- over our own protocol ----------------------------------------------------------------------


def acknowledges_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: Channel) -> None:
        self._settled, size, self._unsettled_bytes = self._received, self._unsettled_bytes, 0
        if size:
            self._wire.grant(self.number, size)
        self._settling = None
        self._acknowledge()

    patch.setattr(Channel, "_settle", settle)


def acknowledges_what_waits_as_applied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DocumentCore, "waits", lambda self, whole: False)


def counts_what_was_left_out_as_held(patch: pytest.MonkeyPatch) -> None:
    add = Sent.add

    def add_and_forget(self: Sent, number: int, position: int, *, floor: int) -> None:
        add(self, number, position, floor=position - 1)

    patch.setattr(Sent, "add", add_and_forget)


def takes_what_was_sent_for_what_is_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Channel, "holds_through", lambda self: self._shell.last)


def brings_no_peer_up_to_date(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: Channel) -> None:
        self._is_behind, self._catching_up = False, None

    patch.setattr(Channel, "_come_back", forget)


# --- lives of documents -------------------------------------------------------------------------


def lets_a_tombstone_resurrect(patch: pytest.MonkeyPatch) -> None:
    async def bury_all(self: Peers, now: Any) -> int:
        lines = [line for line in await self._store.list(with_deleted=True) if line.is_deleted]
        await self._store.write([Forget(line.document) for line in lines])
        return len(lines)

    patch.setattr(Peers, "bury", bury_all)


def merges_two_lineages(patch: pytest.MonkeyPatch) -> None:
    make = succession._Step.make

    async def make_and_carry_over(self: Any, stored: Any) -> Any:
        writes, error = await make(self, stored)
        if stored is not None and stored.updates() and not self.life.is_deleted:
            owed = self.shell.core.remotes()
            writes.append(Append(stored.document, tuple(stored.updates()), owed))
        return writes, error

    patch.setattr(succession._Step, "make", make_and_carry_over)


def sets_nothing_aside(patch: pytest.MonkeyPatch) -> None:
    def held_by(remote: str, remotes: Any) -> Any:
        return lambda stored: stored.last

    patch.setattr(peer_conversation, "held_by", held_by)
