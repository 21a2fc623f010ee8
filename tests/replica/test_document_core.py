"""`crdt_state.replica.document_core`: what one document lets in, and what is then written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import DependsOnRefused, StoreCorrupt, UpdateMalformed, UpdateTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.document_core import (
    NOBODY,
    SET_ASIDE,
    DocumentCore,
    Refusal,
    author_named,
    name_of,
)
from crdt_state.storage.contract import Append, Hold, Release, SetAside, StoredDocument, Write
from crdt_state.storage.memory import MemoryStore
from wired import BROKEN, NOTES, typed

NOW = WallTime(1_700_000_000_000_000)
DAY = 24 * 3600 * 1_000_000
ADA, BOB = Author("ada"), Author("bob")
RELAY = Author("relay", may_relay=True)


def bring(
    core: DocumentCore, *updates: bytes, author: Author = ANYONE, source: int = 7, now: int = NOW
) -> list[Refusal]:
    for update in updates:
        core.arrive(source, author, update, name=name_of(author, "peer"))
    return core.decide(WallTime(now))


def writes_of(core: DocumentCore) -> list[Write]:
    return core.writes(core.take(), ())


async def stored_after(*cores: DocumentCore) -> StoredDocument:
    store = MemoryStore()
    for core in cores:
        await store.write(writes_of(core))
    stored = await store.read(NOTES)
    assert stored is not None
    return stored


def fresh(stored: StoredDocument | None = None, limits: Limits = DEFAULT_LIMITS) -> DocumentCore:
    return DocumentCore(NOTES, stored, limits)


def test_what_adds_nothing_has_no_effect() -> None:
    core = fresh()
    bring(core, typed("a"))
    core.take()
    bring(core, typed("a"), typed("a"))
    assert not core.has_gathered()


def test_what_lacks_something_waits_and_goes_in_behind_it() -> None:
    core = fresh()
    bring(core, typed("b", at=1))
    (hold,) = writes_of(core)
    assert isinstance(hold, Hold)
    bring(core, typed("a"))
    (append,) = writes_of(core)
    assert append == Append(NOTES, (typed("a"), typed("b", at=1)), (), (hold.number,))
    assert len(core.pending) == 0


def test_who_is_overtaken_within_one_tick_is_not_left_behind() -> None:
    core = fresh()
    bring(core, typed("b", at=1), typed("a"))
    assert core.head.vector == {1: 2}
    assert len(core.pending) == 0


async def test_an_update_that_waited_within_one_turn_leaves_no_row_behind() -> None:
    core = fresh()
    bring(core, typed("b", at=1))
    bring(core, typed("a"))
    stored = await stored_after(core)
    assert stored.pending == ()
    assert stored.updates() == [typed("a"), typed("b", at=1)]


def test_the_same_bytes_wait_once() -> None:
    core = fresh()
    bring(core, typed("b", at=1), typed("b", at=1))
    assert len(core.pending) == 1
    assert len(writes_of(core)) == 1


def test_what_waited_longer_than_the_bound_is_let_go() -> None:
    core = fresh()
    bring(core, typed("b", at=1))
    core.take()
    late = NOW + round(DEFAULT_LIMITS.pending_seconds_max * 1_000_000) + 1
    bring(core, typed("x", client=2), now=late)
    assert len(core.pending) == 0
    assert Release(NOTES, (1,)) in writes_of(core)


def test_beyond_the_bound_of_the_pending_table_updates_are_refused() -> None:
    core = fresh(limits=replace(DEFAULT_LIMITS, pending_updates_max=2))
    refusals = bring(core, *(typed("b", client=client, at=1) for client in (1, 2, 3)))
    assert [type(refusal.error) for refusal in refusals] == [UpdateTooLarge]
    assert len(core.pending) == 2


def test_a_refusal_ends_the_range_and_what_waits_for_it() -> None:
    core = fresh(limits=replace(DEFAULT_LIMITS, value_depth_max=1, update_bytes_max=100))
    bring(core, typed("later", at=300))
    refusals = bring(core, typed("x" * 200))
    assert [type(refusal.error) for refusal in refusals] == [UpdateTooLarge]
    assert len(core.pending) == 0, "what depended on it waits no longer"
    writes = writes_of(core)
    assert any(isinstance(write, SetAside) for write in writes)
    assert [type(r.error) for r in bring(core, typed("a", at=1))] == [DependsOnRefused]
    assert not core.has_gathered(), "a refusal that follows from another is not stored"


async def test_refusals_and_owners_survive_a_restart() -> None:
    core = fresh()
    bring(core, typed("a", client=1), author=ADA)
    bring(core, typed("x" * 9, client=2)[:-1], author=ADA, source=8)
    again = fresh(await stored_after(core))
    assert again.head.owners == {1: "ada"}
    assert again.head.refused == core.head.refused != {}


def test_refusals_are_remembered_within_a_bound() -> None:
    core = fresh(limits=replace(DEFAULT_LIMITS, document_refusals_max=5, update_bytes_max=50))
    for client in range(1, 20):
        bring(core, typed("x" * 60, client=client), source=client)
    assert len(core.head.refused) == 5


async def test_what_waits_for_its_owner_still_does_after_a_restart() -> None:
    core = fresh()
    bring(core, typed("a", client=1), author=ADA)
    bring(core, typed("b", client=1, at=1), author=BOB, source=8)
    assert len(core.pending) == 1
    again = fresh(await stored_after(core))
    bring(again, typed("x", client=3), author=BOB)
    assert again.head.vector[1] == 1, "nobody but Ada adds to her client id"
    bring(again, typed("b", client=1, at=1), author=ADA)
    assert again.head.vector[1] == 2
    assert len(again.pending) == 0


async def test_what_waits_for_its_owner_alone_goes_when_the_owner_has_brought_it() -> None:
    core = fresh()
    bring(core, typed("a", client=1), author=ADA)
    bring(core, typed("ab", client=1), author=BOB, source=8)
    again = fresh(await stored_after(core))
    assert len(again.pending) == 1
    bring(again, typed("b", client=1, at=1), author=ADA)
    assert len(again.pending) == 0


async def test_what_a_relay_brought_keeps_its_right_while_it_waits() -> None:
    core = fresh()
    bring(core, typed("a", client=1), author=ADA)
    bring(core, typed("c", client=1, at=2), author=RELAY, source=8)
    again = fresh(await stored_after(core))
    bring(again, typed("b", client=1, at=1), author=ADA)
    assert again.head.vector[1] == 3


async def test_pending_that_could_go_in_at_a_restart_goes_in_at_the_next_tick() -> None:
    store = MemoryStore()
    await store.write(
        [
            Hold(NOTES, 3, typed("b", at=1), "address peer", NOW),
            Append(NOTES, (typed("a"),)),
        ]
    )
    again = fresh(await store.read(NOTES))
    bring(again, typed("x", client=2))
    assert again.head.vector == {1: 2, 2: 1}
    await store.write(writes_of(again))
    stored = await store.read(NOTES)
    assert stored is not None
    assert stored.pending == ()


async def test_lowered_bounds_keep_no_document_closed() -> None:
    core = fresh()
    bring(core, *(typed("b", client=client, at=1) for client in (1, 2, 3)))
    stored = await stored_after(core)
    again = fresh(stored, replace(DEFAULT_LIMITS, pending_updates_max=1))
    assert len(again.pending) == 1
    bring(again, typed("a", client=9), typed("z", client=8, at=1))
    numbers = [write.number for write in writes_of(again) if isinstance(write, Hold)]
    assert all(number > 3 for number in numbers), "rows that are not in memory keep their numbers"


async def test_a_log_that_is_not_let_in_is_named() -> None:
    store = MemoryStore()
    await store.write([Append(NOTES, (typed("a"), BROKEN))])
    with pytest.raises(StoreCorrupt) as caught:
        fresh(await store.read(NOTES))
    assert (caught.value.document, caught.value.sequence) == (NOTES, 2)


async def test_a_document_that_was_set_aside_stays_so() -> None:
    stored = StoredDocument(NOTES, 0, None, (), (), {SET_ASIDE: b"it killed a worker"})  # type: ignore[arg-type]
    assert fresh(stored).set_aside == "it killed a worker"


@pytest.mark.parametrize(
    "first", [typed("a"), typed("b", at=1), BROKEN], ids=["let in", "waits", "refused"]
)
async def test_whoever_brings_the_first_that_is_stored_is_the_creator(first: bytes) -> None:
    core = fresh()
    bring(core, b"\0\0", author=BOB)
    assert (core.exists, core.creator) == (False, None)
    bring(core, first, author=ADA)
    assert (core.exists, core.creator) == (True, "ada")
    bring(core, typed("c", client=2), author=BOB)
    stored = await stored_after(core)
    assert stored.creator == core.creator == "ada"
    again = fresh(stored)
    assert (again.exists, again.creator) == (True, "ada")


async def test_what_nobody_in_particular_began_has_no_creator() -> None:
    core = fresh()
    bring(core, typed("a"))
    bring(core, typed("b", client=2), author=ADA)
    assert (core.exists, core.creator) == (True, None)
    assert (await stored_after(core)).creator is None


def test_what_waited_comes_from_nobody() -> None:
    core = fresh()
    bring(core, typed("b", at=1), source=7)
    bring(core, typed("a"), source=8)
    assert [delta.source for delta in core.take().deltas] == [8, NOBODY]


@pytest.mark.parametrize("author", [ANYONE, ADA, RELAY, Author("a name with spaces")])
def test_an_author_is_known_again_by_its_stored_name(author: Author) -> None:
    found = author_named(name_of(author, "127.0.0.1"))
    assert (found.identity, found.may_relay) == (author.identity, author.may_relay)


def test_sources_that_take_turns_are_decided_in_order() -> None:
    core = fresh()
    for number, letter in enumerate("abcdef"):
        core.arrive(7 + number % 2, ANYONE, typed(letter, at=number), name="peer")
    assert core.decide(NOW) == []
    assert core.head.vector == {1: 6}
    assert [delta.source for delta in core.take().deltas] == [7, 8] * 3


def test_malformed_bytes_are_handed_to_the_quarantine_with_their_source() -> None:
    core = fresh()
    (refusal,) = bring(core, BROKEN)
    assert isinstance(refusal.error, UpdateMalformed)
    (aside,) = (write for write in writes_of(core) if isinstance(write, SetAside))
    assert (aside.update, aside.source, aside.code) == (BROKEN, "address peer", 4422)
