"""`crdt_state.replica.admission`: who may bring what, what waits, and where documents end."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from pycrdt import Doc, Text

import hostile
import reference
from crdt_state.clocks import WallTime
from crdt_state.errors import (
    DependsOnRefused,
    UpdateMalformed,
    UpdateRefused,
    UpdateTooLarge,
    WriteNotPermitted,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.replica.admission import (
    ADMITTED,
    ANYONE,
    NOTHING_NEW,
    STROKES_MAX,
    Admitted,
    Author,
    NothingNew,
    Parted,
    Pending,
    Refused,
    Waits,
    admit,
    admit_many,
    ends,
)
from hostile import deleting, gc, nested, section, skip, string, update, value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.replica.admission import Verdict

ADA, BOB = Author("ada"), Author("bob")
READER = Author("eve", may_write=False)
RELAY = Author("relay", may_relay=True)

# Five bytes as a varint, as nearly all of Yjs's are: strokes are looked up by five bytes.
TYPIST = 3_456_789_012

HELLO = update(section(1, 0, string("hello")))


def decide(head: Head, encoded: bytes, author: Author = ANYONE) -> Verdict:
    (verdict,) = admit_many(head, [encoded], author, DEFAULT_LIMITS)
    return verdict


def typing(count: int, *, client: int = TYPIST, at: int = 0) -> list[bytes]:
    """The updates of `count` key presses of pycrdt."""
    document: Doc = Doc(client_id=client)
    text = document.get("text", type=Text)
    text += "__"
    updates = [document.get_update()]
    subscription = document.observe(lambda event: updates.append(event.update))
    for press in range(count):
        text.insert(at + press, "x")
    document.unobserve(subscription)
    return updates


def waiting(verdict: Verdict) -> list[dict[int, int]]:
    """What each waiting part of an update misses."""
    assert isinstance(verdict, Parted)
    return [dict(part.missing) for _, part in verdict.parts if isinstance(part, Waits)]


def admitted(verdicts: Iterable[Verdict]) -> int:
    return sum(isinstance(verdict, Admitted) for verdict in verdicts)


# --- what is new, what waits ---------------------------------------------------------------------


def test_an_update_seen_twice_is_nothing_new() -> None:
    head = Head()
    assert decide(head, HELLO) is ADMITTED
    assert decide(head, HELLO) is NOTHING_NEW


def test_an_update_waits_for_what_it_refers_to() -> None:
    head = Head()
    reply = update(section(2, 0, string("!", origin=(1, 4))))
    assert decide(head, reply) == Waits({1: 5})
    assert head.vector == {}
    decide(head, HELLO)
    assert decide(head, reply) is ADMITTED


def test_deletes_wait_for_what_they_delete() -> None:
    head = Head()
    erased = update(deletes=deleting((1, 2, 2)))
    assert decide(head, erased) == Waits({1: 4})
    decide(head, HELLO)
    assert decide(head, erased) is ADMITTED
    assert decide(head, erased) is NOTHING_NEW


def test_a_reader_may_bring_what_is_held_and_nothing_else() -> None:
    head = Head()
    verdict = decide(head, HELLO, READER)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, WriteNotPermitted)
    assert head.refused == {}
    decide(head, HELLO, ADA)
    assert decide(head, HELLO, READER) is NOTHING_NEW
    erased = decide(head, update(deletes=deleting((1, 0, 1))), READER)
    assert isinstance(erased, Refused)


@pytest.mark.parametrize("seed", [11, 12])
def test_shuffled_sessions_end_as_pycrdt_ends(data_folder, seed: int) -> None:
    random = Random(seed)
    waited = 0
    for session in random.sample(reference.sessions(data_folder), 250):
        updates = session.updates * 2
        random.shuffle(updates)
        head, document = Head(), Doc()
        pending = Pending(DEFAULT_LIMITS)
        number = 0
        for arrived in updates:
            todo = [arrived]
            while todo:
                encoded = todo.pop()
                verdict = decide(head, encoded)
                parts = verdict.parts if isinstance(verdict, Parted) else [(encoded, verdict)]
                for part, decided in parts:
                    if isinstance(decided, Waits):
                        waited += 1
                        if not pending.knows(part):
                            number += 1
                            pending.hold(number, part, decided.missing, WallTime(0))
                    elif isinstance(decided, Admitted):
                        document.apply_update(part)
                        todo += [held.update for held in pending.ready(head.vector, head.vector)]
        assert len(pending) == 0
        assert pending.size == 0
        assert str(document.get("text", type=Text)) == session.text
    assert waited > 100


# --- whose range it is ---------------------------------------------------------------------------


def test_a_client_id_belongs_to_whoever_writes_it_first() -> None:
    head = Head()
    assert decide(head, HELLO, ADA) == Admitted(binds=1)
    assert head.owners == {1: "ada"}
    more = update(section(1, 5, string("!", origin=(1, 4))))
    assert decide(head, more, BOB) == Waits({1: 6})
    assert decide(head, more, ADA) is ADMITTED
    assert decide(head, more, BOB) is NOTHING_NEW


def test_without_identities_nothing_is_bound() -> None:
    head = Head()
    decide(head, HELLO)
    assert head.owners == {}
    assert decide(head, update(section(1, 5, string("!", origin=(1, 4))))) is ADMITTED


def test_ranges_of_others_that_are_held_are_ignored() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    both = update(section(2, 0, string("bob", origin=(1, 4))), section(1, 0, string("hello")))
    assert decide(head, both, BOB) == Admitted(binds=2)


def test_a_peer_with_the_right_relays_and_owns_nothing() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    assert decide(head, update(section(1, 5, string("!", origin=(1, 4)))), RELAY) is ADMITTED
    assert decide(head, update(section(7, 0, string("new"))), RELAY) is ADMITTED
    assert head.owners == {1: "ada"}
    assert decide(head, update(section(7, 3, string("!", origin=(7, 2)))), BOB) == Admitted(7)


def test_a_state_with_the_ranges_of_many_binds_none_of_them() -> None:
    head = Head()
    both = update(section(2, 0, string("b")), section(1, 0, string("a")))
    assert decide(head, both, BOB) is ADMITTED
    assert head.owners == {}


def test_a_gc_struct_cannot_silence_somebody_else() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    silencing = hostile.silencing_gc(1, 5)
    assert len(silencing) <= 11
    assert decide(head, silencing, BOB) == Waits({1: 1_005})
    assert decide(head, silencing, RELAY) == Waits({1: 1_005})
    assert decide(head, update(section(1, 5, string("!", origin=(1, 4)))), ADA) is ADMITTED
    # Its owner may: that is text that was deleted before it was ever sent.
    assert decide(head, update(section(1, 6, gc(3))), ADA) is ADMITTED


def test_a_relayed_gc_struct_waits_only_for_the_collected_part() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    relayed = update(section(1, 5, gc(2), string("!", origin=(1, 4))))
    assert waiting(decide(head, relayed, RELAY)) == [{1: 7}, {1: 7}]
    decide(head, update(section(1, 5, string("ab", origin=(1, 4)))), ADA)
    assert decide(head, relayed, RELAY) is ADMITTED


def test_what_is_somebody_elses_does_not_hold_up_what_is_ones_own() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    both = update(section(2, 0, string("hi")), section(1, 5, string("!", origin=(1, 4))))
    verdict = decide(head, both, BOB)
    assert waiting(verdict) == [{1: 6}]
    assert head.vector == {1: 5, 2: 2}
    assert head.owners == {1: "ada"}, "an update of two tells of neither whose it is"


def test_a_part_of_what_several_wrote_claims_no_client() -> None:
    head = Head()
    apart = update(
        section(5, 0, string("ab"), skip(2), string("ef", origin=(5, 3))),
        section(7, 0, string("hi")),
    )
    verdict = decide(head, apart, BOB)
    assert isinstance(verdict, Parted)
    assert waiting(verdict) == [{5: 4}]
    assert not verdict.author.may_claim
    decide(head, update(section(5, 2, string("cd", origin=(5, 1)))), RELAY)
    assert decide(head, verdict.parts[1][0], verdict.author) is ADMITTED
    assert head.vector == {5: 6, 7: 2}
    assert head.owners == {}
    refused = decide(head, update(section(9, 0, string("x", parent=(5, 0)))), verdict.author)
    assert isinstance(refused, Refused)
    assert refused.ends == {}, "nor does it end anybody's range"


def test_parts_of_what_one_wrote_are_its_own() -> None:
    head = Head()
    apart = update(section(5, 0, string("ab"), skip(2), string("ef", origin=(5, 3))))
    assert waiting(decide(head, apart, BOB)) == [{5: 4}]
    assert head.owners == {5: "bob"}


def test_a_refused_part_ends_its_range_and_the_parts_behind_it() -> None:
    head = Head()
    apart = update(section(5, 0, string("ab", parent=(6, 0)), skip(2), string("ef", origin=(5, 3))))
    decide(head, update(section(6, 0, string("no container"))), ADA)
    verdict = decide(head, apart, BOB)
    assert isinstance(verdict, Parted)
    first, second = (decided for _, decided in verdict.parts)
    assert isinstance(first, Refused)
    assert isinstance(first.error, UpdateMalformed)
    assert first.ends == {5: 0}
    assert isinstance(second, Refused)
    assert isinstance(second.error, DependsOnRefused)


# --- refusals and what follows -------------------------------------------------------------------


def test_after_a_refusal_the_range_is_closed() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    broken = update(section(1, 5, string("abc", origin=(1, 4))))[:-3]
    verdict = decide(head, broken, ADA)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpdateMalformed)
    assert verdict.ends == {1: 5}
    for later in (
        update(section(1, 8, string("!", origin=(1, 7)))),
        update(section(2, 0, string("!", origin=(1, 6)))),
        update(deletes=deleting((1, 6, 1))),
    ):
        following = decide(head, later, BOB)
        assert isinstance(following, Refused)
        assert isinstance(following.error, DependsOnRefused)
    assert decide(head, HELLO, ADA) is NOTHING_NEW
    assert decide(head, update(deletes=deleting((1, 4, 1))), BOB) is ADMITTED


def test_nobody_ends_the_range_of_somebody_else() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    broken = update(section(1, 5, string("abc", origin=(1, 4))))[:-3]
    verdict = decide(head, broken, BOB)
    assert isinstance(verdict, Refused)
    assert verdict.ends == {}
    assert head.refused == {}
    foreign = inspect(
        update(section(1, 5, string("!")), section(3, 0, string("x"))), DEFAULT_LIMITS
    )
    assert ends(head, foreign, BOB) == {}
    assert ends(head, foreign, ADA) == {1: 5}


def test_garbage_ends_nothing() -> None:
    head = Head()
    for noise in (b"", b"\xff" * 20, b"\x02\x01\x01\x00"):
        verdict = decide(head, noise)
        assert isinstance(verdict, Refused)
        assert verdict.ends == {}


# --- bounds of a document ------------------------------------------------------------------------


def refused_by(swarm: Iterable[bytes], limits: Limits) -> tuple[int, UpdateRefused]:
    """How many updates of a swarm were admitted, and why the next was not."""
    head = Head()
    count = 0
    for encoded in swarm:
        (verdict,) = admit_many(head, [encoded], ANYONE, limits)
        if isinstance(verdict, Refused):
            return count, verdict.error
        assert isinstance(verdict, Admitted)
        count += 1
    raise AssertionError(f"all {count} were admitted")


@pytest.mark.parametrize("swarm", ["nesting", "hidden nesting"])
def test_nesting_ends_at_its_bound(swarm: str) -> None:
    count, error = refused_by(hostile.SWARMS[swarm](1_000), DEFAULT_LIMITS)
    assert count == DEFAULT_LIMITS.document_nesting_max
    assert isinstance(error, UpdateTooLarge)
    assert error.limit == "document_nesting_max"


@pytest.mark.parametrize(
    "swarm", ["clients on one key", "one client on one key", "clients at one place"]
)
def test_writers_at_one_place_end_at_their_bound(swarm: str) -> None:
    count, error = refused_by(hostile.SWARMS[swarm](40_000), DEFAULT_LIMITS)
    assert abs(count - DEFAULT_LIMITS.document_writers_per_place_max) <= 1
    assert isinstance(error, UpdateTooLarge)
    assert error.limit == "document_writers_per_place_max"


def test_containers_and_bytes_end_at_their_bounds() -> None:
    many = [update(section(9, n, nested(parent="map", key=f"k{n}"))) for n in range(9)]
    count, error = refused_by(many, replace(DEFAULT_LIMITS, document_containers_max=5))
    assert (count, error.limit) == (5, "document_containers_max")
    size = sum(map(len, typing(30)[:11]))
    count, error = refused_by(typing(30), replace(DEFAULT_LIMITS, document_bytes_max=size))
    assert (count, error.limit) == (11, "document_bytes_max")


def test_a_state_sent_again_and_again_counts_once() -> None:
    limits = replace(DEFAULT_LIMITS, document_writers_per_place_max=3)
    head = Head()
    text = [string("a")]
    for number in range(20):
        text.append(string("b", origin=(1, number)))
        state = update(section(1, 0, *text), section(2, 0, string("x", parent="other")))
        (verdict,) = admit_many(head, [state], ANYONE, limits)
        assert verdict is ADMITTED


def test_inserting_into_what_is_no_container_is_refused() -> None:
    head = Head()
    decide(head, HELLO)
    inside = update(section(2, 0, value(parent=(1, 2), key="k")))
    verdict = decide(head, inside)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpdateMalformed)


def test_inserting_into_a_container_that_was_deleted_is_honest() -> None:
    head = Head()
    decide(head, update(section(1, 0, nested(parent="map", key="k"))))
    decide(head, update(deletes=deleting((1, 0, 1))))
    folded = Head.of_state(
        update(section(1, 0, gc(1)), deletes=deleting((1, 0, 1))), DEFAULT_LIMITS
    )
    inside = update(section(2, 0, value(parent=(1, 0), key="x")))
    assert decide(head, inside) is ADMITTED
    assert decide(folded, inside) is ADMITTED


def test_a_text_by_twenty_thousand_clients_passes() -> None:
    head = Head()
    updates = [update(section(1, 0, string("a")))]
    updates += [
        update(section(client, 0, string("a", origin=(client - 1, 0))))
        for client in range(2, 20_001)
    ]
    verdicts = admit_many(head, updates, ANYONE, DEFAULT_LIMITS)
    assert admitted(verdicts) == len(head.vector) == 20_000
    assert len(head.strokes) <= STROKES_MAX
    state = head.state_vector()
    assert Head.decode(head.encode()).state_vector() == state


# --- typing in a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("author", [ANYONE, ADA, RELAY])
def test_typing_in_a_batch_ends_in_the_same_head_as_one_by_one(author: Author, at: int) -> None:
    updates = typing(400, at=at)
    together, alone = Head(), Head()
    verdicts = admit_many(together, updates, author, DEFAULT_LIMITS)
    for encoded in updates:
        inspection = inspect(encoded, DEFAULT_LIMITS)
        verdict = admit(alone, inspection, author, DEFAULT_LIMITS)
        assert isinstance(verdict, Admitted)
        alone.take(inspection, owner=None if verdict.binds is None else author.identity)
    assert admitted(verdicts) == 401
    assert together == alone
    assert together.vector == {TYPIST: 402}
    assert [stroke.end for stroke in together.strokes.values()] == [402]


def test_a_stroke_does_not_let_somebody_else_type() -> None:
    updates = typing(20)
    head = Head()
    assert admitted(admit_many(head, updates[:10], ADA, DEFAULT_LIMITS)) == 10
    assert head.strokes
    assert isinstance(decide(head, updates[10], BOB), Waits)
    assert isinstance(decide(head, updates[10], READER), Refused)
    head.refuse(TYPIST, head.vector[TYPIST])
    assert isinstance(decide(head, updates[10], ADA), Refused)


def test_a_stroke_that_the_document_has_passed_is_not_followed() -> None:
    updates = typing(20)
    head = Head()
    admit_many(head, updates[:10], ADA, DEFAULT_LIMITS)
    assert decide(head, update(section(TYPIST, 11, gc(5))), ADA) is ADMITTED
    assert decide(head, updates[10], ADA) is NOTHING_NEW
    assert head.vector == {TYPIST: 16}


def test_a_stroke_ends_where_the_document_is_full() -> None:
    updates = typing(20)
    size = sum(map(len, updates[:15]))
    limits = replace(DEFAULT_LIMITS, document_bytes_max=size)
    verdicts = admit_many(Head(), updates, ADA, limits)
    assert admitted(verdicts) == 15
    assert isinstance(verdicts[15], Refused)


@pytest.mark.parametrize("seed", [4])
def test_mutants_of_typing_are_never_taken_for_it(seed: int) -> None:
    random = Random(seed)
    updates = typing(600)
    taken = 0
    head = Head()
    for encoded in updates:
        for _ in range(10):
            mutant = hostile.mutate(encoded, random, updates)
            once, plain = head.copy(), head.copy()
            once.strokes = {key: stroke.copy() for key, stroke in head.strokes.items()}
            verdict = decide(once, mutant, ADA)
            plainly = decide(plain, mutant, ADA)
            assert type(verdict) is type(plainly), mutant.hex()
            assert once == plain, mutant.hex()
            taken += isinstance(verdict, Admitted)
        assert isinstance(decide(head, encoded, ADA), Admitted)
    assert taken > 50


def test_verdicts_that_change_nothing_leave_the_head_alone() -> None:
    head = Head()
    decide(head, HELLO, ADA)
    before = head.encode()
    for encoded in (
        HELLO,
        update(section(2, 0, string("!", origin=(1, 9)))),
        update(section(1, 5, string("!", origin=(1, 4)))),
    ):
        assert isinstance(decide(head, encoded, BOB), NothingNew | Waits)
        assert head.encode() == before


# --- the table of those that wait ----------------------------------------------------------------


def test_what_waits_is_ready_when_all_it_misses_is_held() -> None:
    pending = Pending(DEFAULT_LIMITS)
    pending.hold(1, b"one", {1: 5, 2: 3}, WallTime(0))
    pending.hold(2, b"two", {1: 4}, WallTime(0))
    assert pending.ready({1: 3}, [1]) == []
    assert [held.number for held in pending.ready({1: 5}, [1])] == [2]
    assert pending.knows(b"one")
    assert not pending.knows(b"two")
    assert [held.number for held in pending.ready({1: 5, 2: 9}, [2])] == [1]
    assert len(pending) == pending.size == 0


def test_waiting_is_bounded_in_count_and_bytes() -> None:
    pending = Pending(replace(DEFAULT_LIMITS, pending_updates_max=2, pending_bytes_max=10))
    pending.hold(1, b"12345", {1: 1}, WallTime(0))
    with pytest.raises(UpdateTooLarge) as refusal:
        pending.hold(2, b"123456", {1: 1}, WallTime(0))
    assert refusal.value.limit == "pending_bytes_max"
    pending.hold(2, b"1", {1: 1}, WallTime(0))
    with pytest.raises(UpdateTooLarge) as refusal:
        pending.hold(3, b"1", {1: 1}, WallTime(0))
    assert refusal.value.limit == "pending_updates_max"


def test_what_waits_for_a_refused_range_is_doomed() -> None:
    pending = Pending(DEFAULT_LIMITS)
    pending.hold(1, b"one", {1: 5}, WallTime(0))
    pending.hold(2, b"two", {1: 9, 2: 1}, WallTime(0))
    assert [held.number for held in pending.doomed(1, 5)] == [2]
    assert pending.ready({2: 1}, [2]) == []
    assert [held.number for held in pending.ready({1: 5}, [1])] == [1]


def test_what_waits_too_long_expires() -> None:
    pending = Pending(replace(DEFAULT_LIMITS, pending_seconds_max=10.0))
    pending.hold(1, b"one", {1: 5}, WallTime(0))
    pending.hold(2, b"two", {1: 5}, WallTime(5_000_000))
    assert pending.expired(WallTime(10_000_000)) == []
    assert [held.number for held in pending.expired(WallTime(10_000_001))] == [1]
    assert [held.number for held in pending.ready({1: 5}, [1])] == [2]


def test_the_table_stays_small_over_many_that_come_and_go() -> None:
    pending = Pending(DEFAULT_LIMITS)
    pending.hold(0, b"stays", {1: 10**6, 2: 10**6}, WallTime(0))
    for number in range(1, 3_000):
        pending.hold(number, b"%d" % number, {1: number, number + 10: 1}, WallTime(0))
        assert len(pending.ready({1: number, number + 10: 1}, [1, number + 10])) == 1
    entries = sum(map(len, pending._lines.values())) + len(pending._by_age)
    assert entries < 200
    assert len(pending) == 1


def test_ready_looks_only_at_the_front_of_a_line() -> None:
    pending = Pending(replace(DEFAULT_LIMITS, pending_updates_max=100_000))
    for number in range(20_000):
        pending.hold(number, b"%d" % number, {1: number + 1}, WallTime(0))
    order = []
    for counter in range(1, 20_001):
        order += [held.number for held in pending.ready({1: counter}, [1])]
    assert order == list(range(20_000))
