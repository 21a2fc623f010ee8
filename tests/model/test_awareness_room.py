"""Everyone at one document: who owns an entry, and by which ways it is known."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.clocks import Instant
from crdt_state.identifiers import ClientId, ReplicaId
from crdt_state.limits import Limits
from crdt_state.model.awareness import (
    Awareness,
    AwarenessEntry,
    decode_awareness,
    encode_awareness,
)
from crdt_state.model.awareness_room import AwarenessRoom, News, Route

ALICE, BOB = ClientId(1), ClientId(2)
START = Instant(100.0)


def entry(client: int, clock: int, text: str) -> list[AwarenessEntry]:
    return [AwarenessEntry(ClientId(client), clock, text)]


def shown(news: Iterable[News]) -> list[tuple[int, int, str]]:
    return [(each.entry.client, each.entry.clock, each.entry.text) for each in news]


def room_with(*connections: str) -> AwarenessRoom:
    room = AwarenessRoom()
    for connection in connections:
        room.join(connection)
    return room


def test_the_room_passes_on_what_is_new_and_shows_it_to_who_comes_later() -> None:
    room = room_with("a", "b")
    assert shown(room.receive("a", entry(ALICE, 1, '{"n":1}'))) == [(ALICE, 1, '{"n":1}')]
    assert shown(room.states()) == [(ALICE, 1, '{"n":1}')]


def test_an_echo_is_not_passed_on_and_gives_no_ownership() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"))
    assert room.receive("b", entry(ALICE, 1, "{}")) == []
    assert room.leave("b") == []
    assert len(room) == 1
    assert shown(room.leave("a")) == [(ALICE, 1, "null")]


@pytest.mark.parametrize("clock", [0, 1, 2, 100])
def test_null_from_another_is_ignored_at_any_clock(clock: int) -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"))
    assert room.receive("b", entry(ALICE, clock, "null")) == []
    assert len(room) == 1


def test_the_owner_may_leave_with_the_same_or_a_higher_clock() -> None:
    for clock in (1, 2):
        room = room_with("a")
        room.receive("a", entry(ALICE, 1, "{}"))
        assert shown(room.receive("a", entry(ALICE, clock, "null"))) == [(ALICE, clock, "null")]
        assert len(room) == 0
        assert room.leave("a") == []


def test_an_entry_belongs_to_the_connection_that_last_raised_its_clock() -> None:
    room = room_with("a", "a again")
    room.receive("a", entry(ALICE, 1, "{}"))
    room.receive("a again", entry(ALICE, 2, "{}"))
    assert room.leave("a") == []
    assert shown(room.leave("a again")) == [(ALICE, 2, "null")]


def test_an_entry_vanishes_with_its_connection_and_only_it() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"))
    room.receive("b", entry(BOB, 1, "{}"))
    assert shown(room.leave("a")) == [(ALICE, 1, "null")]
    assert shown(room.states()) == [(BOB, 1, "{}")]


def test_a_late_echo_leaves_no_ghost_and_a_reconnected_client_shows_at_once() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 3, "{}"))
    room.leave("a")
    assert room.receive("b", entry(ALICE, 3, "{}")) == []
    assert shown(room.states()) == []
    room.join("a again")
    assert shown(room.receive("a again", entry(ALICE, 3, "{}"))) == [(ALICE, 3, "{}")]


def test_a_room_is_bounded_and_counts_what_it_ignores() -> None:
    room = AwarenessRoom(limits=Limits(awareness_clients_max=2, awareness_total_bytes_max=11))
    room.join("a")
    for client in (1, 2, 3):
        room.receive("a", entry(client, 1, "{}"))
    assert (len(room), room.entries_ignored) == (2, 1)
    assert room.receive("a", entry(1, 2, '{"a":"bc"}')) == []
    assert room.entries_ignored == 2
    room.leave("a")
    for client in range(100):
        room.join(client)
        room.receive(client, entry(client + 10, 1, "{}"))
        room.leave(client)
    assert len(room._gone) <= 2
    assert room._bytes == 0


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_room_and_clients_agree_whoever_comes_and_goes(seed: int) -> None:
    """A seeded crowd: after everything has been delivered, all see exactly who is here."""
    dice = random.Random(seed)
    room = AwarenessRoom()
    here: dict[int, Awareness] = {}
    seen = 0

    def heard(number: int, update: bytes) -> list[News]:
        return room.receive(number, decode_awareness(update))

    def spread(news: list[News], *, but: int) -> None:
        for other, awareness in here.items():
            if other != but:
                awareness.apply(encode_awareness(each.entry for each in news), now=START)

    for step in range(600):
        number = dice.randrange(1, 9)
        if number not in here:
            joined = here[number] = Awareness(ClientId(number + 10 * step))
            room.join(number)
            joined.apply(encode_awareness(each.entry for each in room.states()), now=START)
            spread(heard(number, joined.set_local({"n": step}, now=START)), but=number)
        elif dice.random() < 0.3:
            del here[number]
            spread(room.leave(number), but=number)
        elif dice.random() < 0.3:
            # What a stock client does with everything it hears.
            spread(heard(number, here[number].encode()), but=number)
        else:
            spread(heard(number, here[number].set_local({"n": step}, now=START)), but=number)
        expected = {awareness.client: awareness.local for awareness in here.values()}
        seen += len(expected)
        assert {each.entry.client for each in room.states()} == set(expected)
        for awareness in here.values():
            assert awareness.states == expected
    assert seen > 1000


# --- between replicas ------------------------------------------------------------------------

FAR, A, B, C = (ReplicaId(name * 16) for name in (b"f", b"a", b"b", b"c"))


def by(via: ReplicaId, hops: int) -> Route:
    return Route(FAR, via, hops)


def test_what_two_told_from_equally_far_stays_when_one_of_them_is_gone() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"), by(A, 5))
    assert room.receive("b", entry(ALICE, 1, "{}"), by(B, 5)) == []
    assert room.leave("a") == []
    assert shown(room.leave("b")) == [(ALICE, 1, "null")]


def test_what_another_told_from_farther_away_is_no_reason_to_keep_it() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"), by(A, 5))
    room.receive("b", entry(ALICE, 1, "{}"), by(B, 4))
    assert shown(room.leave("a")) == [(ALICE, 1, "null")]


def test_a_lost_way_is_passed_over_while_there_is_another() -> None:
    room = room_with("a", "b", "c")
    for name, via in (("a", A), ("b", B), ("c", C)):
        room.receive(name, entry(ALICE, 1, "{}"), by(via, 5))
    assert room.receive("b", entry(ALICE, 1, "null"), by(B, 5)) == []
    assert room.receive("a", entry(ALICE, 1, "null"), by(A, 5)) == []
    gone = room.receive("c", entry(ALICE, 1, "null"), by(C, 5))
    assert gone == [News(AwarenessEntry(ALICE, 1, "null"), by(A, 5))], "the way that it came"


def test_one_who_leaves_is_gone_by_every_way() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"), by(A, 5))
    room.receive("b", entry(ALICE, 1, "{}"), by(B, 5))
    assert shown(room.receive("a", entry(ALICE, 2, "null"), by(A, 5))) == [(ALICE, 2, "null")]
    assert room.receive("b", entry(ALICE, 1, "{}"), by(B, 5)) == []
    assert shown(room.states()) == []


def test_a_greater_clock_has_to_be_told_by_every_way_anew() -> None:
    room = room_with("a", "b")
    room.receive("a", entry(ALICE, 1, "{}"), by(A, 5))
    room.receive("b", entry(ALICE, 1, "{}"), by(B, 5))
    assert shown(room.receive("b", entry(ALICE, 2, "{}"), by(B, 5))) == [(ALICE, 2, "{}")]
    assert room.leave("a") == []
    assert shown(room.leave("b")) == [(ALICE, 2, "null")]


def test_no_replica_keeps_whom_our_own_clients_showed() -> None:
    room = room_with("ours", "b")
    room.receive("ours", entry(ALICE, 1, "{}"))
    room.receive("b", entry(ALICE, 1, "{}"), by(B, 1_000))
    assert shown(room.leave("ours")) == [(ALICE, 1, "null")]


def test_by_how_many_ways_somebody_is_known_is_bounded() -> None:
    room = AwarenessRoom(limits=Limits(awareness_ways_max=3))
    for number in range(100):
        room.join(number)
        room.receive(number, entry(ALICE, 1, "{}"), by(A, 5))
    assert len(room._owned[ALICE].others) == 2
    for number in range(100):
        room.leave(number)
    assert (len(room), room.connections, room._bytes, room.routes) == (0, 0, 0, {})


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_replicas_that_pass_on_leave_no_ghost_whatever_is_cut(seed: int) -> None:
    """Any replicas, connected in any way: who is cut off from a client sees it no more."""
    dice = random.Random(seed)
    count = dice.randrange(2, 7)
    rooms = [AwarenessRoom() for _ in range(count)]
    pairs = [(one, other) for one in range(count) for other in range(one)]
    lines = {pair for pair in pairs if dice.random() < 0.6}
    for one, other in lines:
        rooms[one].join(other)
        rooms[other].join(one)
    waiting: dict[tuple[int, int], list[News]] = {}

    def pass_on(me: int, but: int, news: list[News]) -> None:
        for other in range(count):
            if news and other != but and (max(me, other), min(me, other)) in lines:
                waiting.setdefault((me, other), []).extend(news)

    def settle(steps: int = 1_000) -> None:
        """Lines are as fast as the dice say; each keeps its order."""
        while waiting and steps:
            steps -= 1
            me, other = dice.choice(sorted(waiting))
            first, *rest = waiting.pop((me, other))
            if rest:
                waiting[me, other] = rest
            hops = 32 if first.route is None else first.route.hops - 1
            route = Route(FAR, FAR, hops)
            pass_on(other, me, rooms[other].receive(me, [first.entry], route))

    rooms[0].join("client")
    for clock in range(1, 4):
        pass_on(0, -1, rooms[0].receive("client", entry(ALICE, clock, "{}")))
        settle()
    for pair in sorted(lines):
        if 0 in pair:
            lines.discard(pair)
            for me, other in (pair, pair[::-1]):
                waiting.pop((me, other), None)
                pass_on(me, other, rooms[me].leave(other))
            settle(dice.randrange(4))
    settle()
    assert not waiting, "it goes on for ever"
    assert [len(room) for room in rooms] == [1] + [0] * (count - 1)
