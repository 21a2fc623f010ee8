"""`crdt_state.replica.document_core`: what one document lets in, and what is then written."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text, merge_updates

from crdt_state.clocks import WallTime
from crdt_state.errors import DependsOnRefused, StoreCorrupt, UpdateMalformed, UpdateTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.inspect import inspect
from crdt_state.model.state import decode_state_vector
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.awaited import fingerprint
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
from hostile import deleting, gc, section, skip, string, update
from wired import BROKEN, NOTES, typed

NOW = WallTime(1_700_000_000_000_000)
DAY = 24 * 3600 * 1_000_000
ADA, BOB = Author("ada"), Author("bob")
RELAY = Author("relay", may_relay=True)


def bring(
    core: DocumentCore, *updates: bytes, author: Author = ANYONE, source: int = 7, now: int = NOW
) -> list[Refusal]:
    for each in updates:
        core.arrive(source, author, each, name=name_of(author, "peer"))
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
    later = typed("later", at=300)
    bring(core, later)
    assert core.waits(fingerprint(later))
    refusals = bring(core, typed("x" * 200))
    assert {type(refusal.error) for refusal in refusals} == {UpdateTooLarge, DependsOnRefused}
    (told,) = [refusal for refusal in refusals if refusal.source == NOBODY]
    assert told.wholes == (fingerprint(later),), "whoever brought it is told"
    assert not core.waits(fingerprint(later))
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


@pytest.mark.parametrize("may_claim", [True, False])
@pytest.mark.parametrize("author", [ANYONE, ADA, RELAY, Author("a name with spaces")])
def test_an_author_is_known_again_by_its_stored_name(author: Author, may_claim: bool) -> None:
    author = author._replace(may_claim=may_claim)
    assert author_named(name_of(author, "127.0.0.1")) == author


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


# --- updates with gaps ---------------------------------------------------------------------------

GAPPED = update(
    section(5, 0, string("0123456789"), skip(10), string("0123456789", origin=(5, 19))),
    section(7, 0, string("own")),
    deletes=deleting((5, 12, 10), (7, 0, 1)),
)
"""What a stock client sends that holds back what it could not integrate."""

GAP = typed("abcdefghij", client=5, at=10)
LIVE = typed("!", client=7, at=3)


def assert_whole(core: DocumentCore, log: list[bytes], whole: Doc[Any]) -> None:
    """Everything is in, nothing waits, and the log can be integrated update by update."""
    assert len(core.pending) == 0
    assert core.pending.size == 0
    document: Doc[Any] = Doc()
    for entry in log:
        held = decode_state_vector(document.get_state())
        wanted = inspect(entry, DEFAULT_LIMITS).needs
        assert all(held.get(client, 0) >= end for client, end in wanted.items())
        document.apply_update(entry)
    assert core.head.vector == decode_state_vector(whole.get_state())
    assert decode_state_vector(document.get_state()) == core.head.vector
    assert str(document.get("text", type=Text)) == str(whole.get("text", type=Text))


def test_what_lacks_nothing_does_not_wait_for_the_gaps_beside_it() -> None:
    core = fresh()
    assert bring(core, GAPPED) == []
    assert core.head.vector == {5: 10, 7: 3}
    assert bring(core, LIVE) == []
    assert core.head.vector == {5: 10, 7: 4}
    assert len(core.pending) == 2, "what is behind the gap, and what deletes in it"


@pytest.mark.parametrize("with_all", [False, True])
@pytest.mark.parametrize("order", list(permutations([GAPPED, GAP, LIVE, GAPPED])))
def test_an_update_with_gaps_goes_in_whatever_the_order(
    order: tuple[bytes, ...], with_all: bool
) -> None:
    core = fresh()
    log: list[bytes] = []
    for each in [order] if with_all else [[one] for one in order]:
        assert bring(core, *each) == []
        log += core.unstaged_updates()
        core.take()
    whole: Doc[Any] = Doc()
    for each_update in (GAP, GAPPED, LIVE):
        whole.apply_update(each_update)
    assert len(str(whole.get("text", type=Text))) == 23
    assert_whole(core, log, whole)
    assert core.head.deletes.covers(5, 12, 22)


async def test_parts_that_wait_are_stored_by_themselves_and_known_again() -> None:
    core = fresh()
    bring(core, GAPPED)
    stored = await stored_after(core)
    assert len(stored.pending) == 2
    again = fresh(stored)
    bring(again, GAPPED)
    assert not again.has_gathered(), "what waits is not stored twice"
    bring(again, GAP)
    assert again.head.vector == {5: 30, 7: 3}
    assert len(again.pending) == 0


async def test_parts_of_what_several_wrote_claim_nothing_after_a_restart_either() -> None:
    core = fresh()
    bring(core, GAPPED, author=ADA)
    again = fresh(await stored_after(core))
    bring(again, GAP, author=RELAY, source=8)
    assert again.head.vector == {5: 30, 7: 3}
    assert again.head.owners == {}
    bring(again, LIVE, author=BOB, source=9)
    assert again.head.owners == {7: "bob"}


def test_a_refusal_of_a_part_names_the_update_that_was_sent() -> None:
    core = fresh(limits=replace(DEFAULT_LIMITS, pending_updates_max=0))
    (refusal,) = bring(core, GAPPED)
    assert refusal.update == GAPPED
    assert isinstance(refusal.error, UpdateTooLarge)
    assert core.head.vector == {5: 10, 7: 3}
    kept = [write.update for write in writes_of(core) if isinstance(write, SetAside)]
    assert len(kept) == 2
    assert GAPPED not in kept, "what went in is not set aside"


def test_gaps_without_number_stay_within_the_bounds() -> None:
    gaps = 20_000
    hostile = update(section(5, 1, *(string("a"), skip(1)) * gaps))
    core = fresh()
    for _ in range(2):
        assert bring(core, hostile) == []
        assert len(core.pending) <= DEFAULT_LIMITS.pending_parts_max
        assert core.pending.size < 2 * len(hostile)
    bring(core, update(section(5, 0, gc(2 * gaps))))
    assert core.head.vector == {5: 2 * gaps}
    assert len(core.pending) == 0


class Edit(NamedTuple):
    """One step of a history: who does it, and where, as a fraction of the text's length."""

    who: int
    is_deleting: bool
    at: float
    hears: int


EDITS = st.lists(
    st.builds(Edit, st.integers(0, 3), st.booleans(), st.floats(0, 0.99), st.integers(0, 3)),
    min_size=1,
    max_size=25,
)


@given(EDITS, st.randoms(use_true_random=False), st.booleans())
def test_whatever_is_delivered_however_merged_all_of_it_goes_in(
    edits: list[Edit], dice: Random, with_live: bool
) -> None:
    documents: list[Doc[Any]] = [Doc(client_id=number) for number in (9, 5, 7, 6)]
    updates: list[bytes] = []
    for document in documents:
        document.observe(lambda event: updates.append(event.update))
    for edit in edits:
        document = documents[edit.who]
        text = document.get("text", type=Text)
        size = len(str(text))
        at = int(edit.at * size)
        if edit.is_deleting and size:
            del text[at : min(at + 2, size)]
        else:
            text.insert(at, "abc")
        if edit.hears != edit.who:
            other = documents[edit.hears]
            other.apply_update(document.get_update(other.get_state()))
    whole: Doc[Any] = Doc()
    for document in documents:
        whole.apply_update(document.get_update())
    assert len(updates) >= len(edits)
    deliveries = [
        merge_updates(*dice.sample(updates, dice.randint(1, len(updates))))
        for _ in range(dice.randint(1, 4))
    ]
    deliveries += updates if with_live else [merge_updates(*updates[::2]), *updates[1::2]]
    deliveries += dice.sample(deliveries, len(deliveries) // 2)
    dice.shuffle(deliveries)
    core = fresh()
    log: list[bytes] = []
    while deliveries:
        count = dice.randint(1, 3)
        assert bring(core, *deliveries[:count], source=dice.randrange(1, 4)) == []
        del deliveries[:count]
        log += core.unstaged_updates()
        core.take()
    assert_whole(core, log, whole)
    assert all(
        core.head.deletes.covers(*deleted)
        for each in updates
        for deleted in inspect(each, DEFAULT_LIMITS, merged=True).deletes
    )
