"""`crdt_state.transport.room` and `member`: who is sent what, in which order, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from crdt_state.errors import DocumentSetAside, StoreFull, WorkerFailed
from crdt_state.identifiers import ClientId, DocumentId
from crdt_state.lib0 import Reader
from crdt_state.limits import Limits
from crdt_state.model.awareness import AwarenessEntry, decode_awareness, encode_awareness
from crdt_state.protocol.ywebsocket import (
    AwarenessUpdate,
    Message,
    PermissionDenied,
    SyncStep1,
    Update,
    decode,
)
from crdt_state.replica.admission import ANYONE
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.farewell import Farewells
from crdt_state.transport.listener import Traffic
from crdt_state.transport.member import Member
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.room import MERGED_UPDATES_MAX, NOTHING_NEW, Room
from hostile import deleting, update
from wired import BROKEN, IMPATIENT, NOTES, GatedStore, Shell, opened_shell, text_of, turn, typed

NARROW = replace(IMPATIENT, peer_queue_bytes_max=500, peer_slow_seconds_max=60.0)


class Guest:
    """A member, and the other end of its connection."""

    def __init__(self, room: Room, shell: Shell) -> None:
        ours, self.end = memory_pair("server", "guest")
        self.member = Member(ours, shell.new_source(), ANYONE, shell.limits)
        self.room = room
        self.shell = shell
        room.join(self.member)

    @property
    def ours(self) -> MemoryConnection:
        assert isinstance(self.member.connection, MemoryConnection)
        return self.member.connection

    def take(self, encoded: bytes) -> None:
        self.shell.take(encoded, source=self.member.source)

    def heard(self) -> list[Message]:
        """What has come so far."""
        frames = list(self.end._inbox)
        self.end._inbox.clear()
        self.end._taken.set()
        return [decode(frame) for frame in frames]

    def updates(self) -> list[bytes]:
        return [message.update for message in self.heard() if isinstance(message, Update)]

    async def ended(self) -> ConnectionEnded:
        try:
            while True:
                await self.end.receive()
        except ConnectionEnded as ended:
            return ended


@asynccontextmanager
async def opened_room(
    limits: Limits = IMPATIENT, store: GatedStore | None = None
) -> AsyncIterator[tuple[Shell, Room]]:
    async with opened_shell(store, limits=limits, is_listening=True) as shell:
        traffic = Traffic()
        room = Room(NOTES, shell, traffic, Farewells(limits, traffic))
        await shell.use(NOTES, room.source, room)
        yield shell, room
        await room.close(1000, "the end of the test")


def entry(client: int, clock: int, text: str = '{"x":1}') -> bytes:
    return encode_awareness([AwarenessEntry(ClientId(client), clock, text)])


async def test_who_joins_is_greeted_with_our_vector_and_who_is_here() -> None:
    async with opened_room() as (shell, room):
        first = Guest(room, shell)
        assert first.heard() == [SyncStep1(b"\0")]
        room.receive_awareness(first.member.source, entry(1, 1))
        second = Guest(room, shell)
        assert second.heard() == [SyncStep1(b"\0"), AwarenessUpdate(entry(1, 1))]


async def test_everyone_but_the_author_is_sent_what_is_durable() -> None:
    store = GatedStore()
    async with opened_room(store=store) as (shell, room):
        guests = [Guest(room, shell) for _ in range(3)]
        for guest in guests:
            guest.heard()
        store.gate.clear()
        guests[0].take(typed("a"))
        await turn()
        assert [guest.updates() for guest in guests] == [[], [], []]
        store.gate.set()
        await shell.settled(NOTES)
        assert [guest.updates() for guest in guests] == [[], [typed("a")], [typed("a")]]


async def test_two_authors_in_one_tick_are_each_sent_the_others_update() -> None:
    async with opened_room() as (shell, room):
        ada, bob, eve = (Guest(room, shell) for _ in range(3))
        for guest in (ada, bob, eve):
            guest.heard()
        ada.take(typed("a", client=1))
        bob.take(typed("b", client=2))
        await shell.settled(NOTES)
        assert ada.updates() == [typed("b", client=2)]
        assert bob.updates() == [typed("a", client=1)]
        assert sorted(text_of(eve.updates())) == ["a", "b"]


async def test_a_ticks_updates_are_merged_into_one_frame() -> None:
    async with opened_room() as (shell, room):
        ada, bob = Guest(room, shell), Guest(room, shell)
        bob.heard()
        for at in range(MERGED_UPDATES_MAX + 1):
            ada.take(typed("a", at=at))
        await shell.settled(NOTES)
        updates = bob.updates()
        assert len(updates) == 2
        assert text_of(updates) == "a" * (MERGED_UPDATES_MAX + 1)


async def test_a_refused_author_is_told_why_and_sent_away_alone() -> None:
    async with opened_room() as (shell, room):
        ada, bob = Guest(room, shell), Guest(room, shell)
        ada.heard()
        ada.take(BROKEN)
        await turn()
        assert not room.is_here(ada.member)
        assert any(isinstance(message, PermissionDenied) for message in ada.heard())
        assert (await ada.ended()).code == 4422
        assert room.is_here(bob.member)


@pytest.mark.parametrize(
    ("error", "code"), [(StoreFull("no space left"), 1013), (DocumentSetAside("aside"), 4423)]
)
async def test_when_the_document_falls_out_of_use_everybody_is_sent_away(
    error: Exception, code: int
) -> None:
    async with opened_room() as (shell, room):
        guests = [Guest(room, shell) for _ in range(3)]
        room.lost(error, [])
        assert room.is_over
        for guest in guests:
            assert (await guest.ended()).code == code


# --- awareness ----------------------------------------------------------------------------------


async def test_an_entry_vanishes_with_its_connection_and_only_it() -> None:
    async with opened_room() as (shell, room):
        ada, bob, eve = (Guest(room, shell) for _ in range(3))
        room.receive_awareness(ada.member.source, entry(1, 1))
        room.receive_awareness(bob.member.source, entry(2, 1))
        eve.heard()
        room.leave(ada.member)
        (farewell,) = eve.heard()
        assert isinstance(farewell, AwarenessUpdate)
        assert [(e.client, e.is_gone) for e in decode_awareness(farewell.payload)] == [(1, True)]
        room.leave(ada.member)
        assert eve.heard() == []


async def test_who_asks_is_told_who_is_here() -> None:
    async with opened_room() as (shell, room):
        ada, bob = Guest(room, shell), Guest(room, shell)
        bob.heard()
        room.answer_awareness(bob.member)
        assert bob.end._inbox[-1] == NOTHING_NEW
        bob.heard()
        room.receive_awareness(ada.member.source, entry(1, 1))
        bob.heard()
        room.answer_awareness(bob.member)
        assert bob.heard() == [AwarenessUpdate(entry(1, 1))]


async def test_a_sign_of_life_changes_nothing() -> None:
    async with opened_room() as (shell, room):
        ada = Guest(room, shell)
        ada.heard()
        room.show_life()
        (life,) = ada.heard()
        assert isinstance(life, AwarenessUpdate)
        assert Reader(life.payload).varuint() == 0


# --- those who are slow -------------------------------------------------------------------------


def held_differences(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """From now on, a difference is made at once and handed out when the gate is opened."""
    gate, difference = asyncio.Event(), shell.difference

    async def held(document: DocumentId, state_vector: bytes) -> bytes:
        made = await difference(document, state_vector)
        await gate.wait()
        return made

    monkeypatch.setattr(shell, "difference", held)
    return gate


async def type_until_behind(ada: Guest, slow: Guest, count: int = 40) -> None:
    for at in range(count):
        ada.take(typed("x" * 30, at=30 * at))
        await ada.shell.settled(NOTES)
    assert slow.member.is_behind


async def test_what_is_written_for_who_does_not_read_is_bounded() -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow, 200)
        assert slow.ours.buffered_bytes < NARROW.peer_queue_bytes_max + 200


async def test_awareness_for_who_does_not_read_is_bounded_too() -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        for clock in range(1, 300):
            room.receive_awareness(ada.member.source, entry(1, clock))
            room.show_life()
        assert slow.ours.buffered_bytes < NARROW.peer_queue_bytes_max + 200
        slow.heard()
        await turn()
        (caught_up, present) = slow.heard()
        assert isinstance(caught_up, Update)
        assert present == AwarenessUpdate(entry(1, 299)), "the latest, once it reads again"


async def test_a_large_message_is_not_put_behind_what_nobody_has_read() -> None:
    limits = replace(NARROW, peer_queue_bytes_max=100_000)
    async with opened_room(limits) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        slow.heard()
        for clock in range(1, 5):
            room.receive_awareness(ada.member.source, entry(1, clock, f'"{"x" * 60_000}"'))
        assert 60_000 < slow.ours.buffered_bytes < limits.peer_queue_bytes_max
        assert slow.member.is_behind
        slow.heard()
        await turn()
        (_, present) = slow.heard()
        assert present == AwarenessUpdate(entry(1, 4, f'"{"x" * 60_000}"'))
        for clock in range(5, 7):
            room.receive_awareness(ada.member.source, entry(2, clock, f'"{"x" * 60_000}"'))
            slow.heard()
        assert not slow.member.is_behind, "who reads is sent large ones as they come"


async def test_many_who_join_and_do_not_read_cost_little_however_much_awareness_there_is() -> None:
    async with opened_room() as (shell, room):
        ada = Guest(room, shell)
        for client in range(1, 101):
            room.receive_awareness(ada.member.source, entry(client, 1, f'"{"x" * 60_000}"'))
        late = [Guest(room, shell) for _ in range(20)]
        await turn()
        assert all(guest.ours.buffered_bytes < 200_000 for guest in late)
        seen = set()
        while len(seen) < 100:
            heard = [each for each in late[0].heard() if isinstance(each, AwarenessUpdate)]
            assert heard, f"it was shown {len(seen)} of them, and no more comes"
            seen |= {each.client for said in heard for each in decode_awareness(said.payload)}
            await turn()


async def test_who_left_while_somebody_did_not_read_is_gone_for_that_one_too() -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, ben, slow = Guest(room, shell), Guest(room, shell), Guest(room, shell)
        room.receive_awareness(ben.member.source, entry(2, 1))
        await type_until_behind(ada, slow)
        ben.heard()
        await turn()
        room.leave(ben.member)
        slow.heard()
        await turn()
        (_, farewell) = slow.heard()
        assert farewell == AwarenessUpdate(entry(2, 1, "null"))


async def test_who_reads_again_is_brought_up_to_date_deletions_included() -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow)
        ada.take(update(deletes=deleting((1, 0, 30))))
        await shell.settled(NOTES)
        updates = slow.updates()
        await turn()
        updates += slow.updates()
        assert not slow.member.is_behind
        assert text_of(updates) == "x" * 30 * 39
        ada.take(typed("y", at=1_200))
        await shell.settled(NOTES)
        assert slow.updates() == [typed("y", at=1_200)]


async def test_what_is_delivered_while_someone_catches_up_follows_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow)
        gate = held_differences(shell, monkeypatch)
        updates = slow.updates()
        await turn()
        for at in range(5):
            ada.take(typed("z", at=1_200 + at))
            await shell.settled(NOTES)
        ada.take(update(deletes=deleting((1, 0, 30))))
        await shell.settled(NOTES)
        assert slow.updates() == [], "not before what it builds on"
        gate.set()
        await turn()
        updates += slow.updates()
        assert text_of(updates) == "x" * 30 * 39 + "z" * 5
        assert not slow.member.is_behind


async def test_what_is_too_much_to_keep_meanwhile_is_made_up_for_by_another_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow)
        gate = held_differences(shell, monkeypatch)
        updates = slow.updates()
        await turn()
        for at in range(100):
            ada.take(typed("z" * 30, at=1_200 + 30 * at))
            await shell.settled(NOTES)
        gate.set()
        for _ in range(10):
            await turn()
            updates += slow.updates()
        assert len(text_of(updates)) == 1_200 + 3_000
        assert not slow.member.is_behind


async def test_who_takes_nothing_for_too_long_is_sent_away() -> None:
    limits = replace(NARROW, peer_slow_seconds_max=0.0)
    async with opened_room(limits) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        for at in range(40):
            ada.take(typed("x" * 30, at=30 * at))
            await shell.settled(NOTES)
        await turn()
        assert not room.is_here(slow.member)
        assert (await slow.ended()).code == 4408
        assert room.is_here(ada.member)


async def test_who_takes_a_little_is_waited_for() -> None:
    ours, theirs = memory_pair()
    member = Member(ours, 1, ANYONE, IMPATIENT)
    for _ in range(5):
        ours.send(b"x")
    draining = asyncio.create_task(member.drained(0.0))
    for _ in range(5):
        await theirs.receive()
        await asyncio.sleep(0)
    assert await draining


async def test_who_cannot_be_brought_up_to_date_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened_room(NARROW) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow)

        async def fail(*_: object) -> bytes:
            raise WorkerFailed("died", "it ended")

        with monkeypatch.context() as patched:
            patched.setattr(shell, "difference", fail)
            slow.heard()
            await turn()
        assert not room.is_here(slow.member), "rather than staying with a gap"
        assert (await slow.ended()).code == 1013


async def test_who_leaves_while_it_catches_up_is_not_written_to() -> None:
    store = GatedStore(limits=NARROW)
    async with opened_room(NARROW, store) as (shell, room):
        ada, slow = Guest(room, shell), Guest(room, shell)
        await type_until_behind(ada, slow)
        room.leave(slow.member)
        slow.heard()
        await turn()
        assert slow.heard() == []
