"""Awareness: the coding, and a client's table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.clocks import Instant
from crdt_state.errors import LimitExceeded, RemoteProtocolError, ValueNotStorable
from crdt_state.identifiers import ClientId
from crdt_state.lib0 import encode_string, encode_varuint
from crdt_state.limits import Limits
from crdt_state.model.awareness import (
    Awareness,
    AwarenessChange,
    AwarenessEntry,
    decode_awareness,
    encode_awareness,
)

ALICE, BOB, CAROL = ClientId(1), ClientId(2), ClientId(3)
START = Instant(100.0)


def entry(client: int, clock: int, text: str) -> bytes:
    return encode_awareness([AwarenessEntry(ClientId(client), clock, text)])


def shown(update: bytes | None) -> list[tuple[int, int, str]]:
    assert update is not None
    return [(entry.client, entry.clock, entry.text) for entry in decode_awareness(update)]


# --- the coding ------------------------------------------------------------------------------


def test_the_coding_is_that_of_y_protocols() -> None:
    assert entry(300, 7, '{"a":1}') == b"\x01" + b"\xac\x02" + b"\x07" + b"\x07" + b'{"a":1}'


@given(st.binary(max_size=40))
def test_any_bytes_are_entries_or_a_protocol_error(update: bytes) -> None:
    try:
        entries = decode_awareness(update)
    except RemoteProtocolError:
        return
    assert decode_awareness(encode_awareness(entries)) == entries


@pytest.mark.parametrize(
    "update",
    [
        b"",
        b"\x01",
        b"\x02" + entry(1, 1, "{}")[1:],
        entry(1, 1, "{}") + b"\x00",
        entry(1, 1, "{"),
        entry(1, 1, '{"a":NaN}'),
        entry(1, 1, "[" * 30_000),
        entry(1, 1, ""),
        encode_varuint(1) + b"\x01\x01\x02\xff\xfe",
        encode_varuint(2**40),
    ],
)
def test_what_is_not_awareness_is_a_protocol_error(update: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_awareness(update)
    with pytest.raises(RemoteProtocolError):
        Awareness(BOB).apply(update, now=START)


def test_a_state_beyond_the_limit_is_refused_with_the_limits_name() -> None:
    update = encode_varuint(1) + b"\x01\x01" + encode_string('{"a":"' + "x" * 100 + '"}')
    with pytest.raises(RemoteProtocolError, match="awareness_bytes_max = 50"):
        decode_awareness(update, limits=Limits(awareness_bytes_max=50))


# --- a client's table ------------------------------------------------------------------------


def test_a_state_reaches_the_other_side() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    update = alice.set_local({"name": "Álice 🐝"}, now=START)
    assert bob.apply(update, now=START) == AwarenessChange(added=(ALICE,))
    assert bob.states == {ALICE: {"name": "Álice 🐝"}}
    assert bob.local is None


def test_a_state_seen_twice_changes_nothing() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    update = alice.set_local({"n": 1}, now=START)
    bob.apply(update, now=START)
    assert not bob.apply(update, now=START)
    clock = alice.clock_of(ALICE)
    assert clock is not None
    for old in (clock, clock - 1):
        assert not bob.apply(entry(ALICE, old, '{"n":2}'), now=START)
    assert bob.states[ALICE] == {"n": 1}


def test_the_higher_clock_wins_in_either_order() -> None:
    first, second = entry(ALICE, 1, '{"n":1}'), entry(ALICE, 2, '{"n":2}')
    for updates in ((first, second), (second, first)):
        bob = Awareness(BOB)
        for update in updates:
            bob.apply(update, now=START)
        assert bob.states == {ALICE: {"n": 2}}


def test_one_who_leaves_is_gone_and_does_not_come_back_with_an_old_update() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    here = alice.set_local({}, now=START)
    bob.apply(here, now=START)
    farewell = alice.leave(now=START)
    assert farewell is not None
    assert bob.apply(farewell, now=START) == AwarenessChange(removed=(ALICE,))
    assert not bob.apply(here, now=START)
    assert bob.states == {}
    assert alice.leave(now=START) is None


def test_a_farewell_with_the_same_clock_is_believed_as_stock_servers_send_it() -> None:
    bob = Awareness(BOB)
    bob.apply(entry(ALICE, 5, "{}"), now=START)
    assert bob.apply(entry(ALICE, 5, "null"), now=START).removed == (ALICE,)


def test_nobody_else_removes_or_changes_our_own_state() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    bob.apply(alice.set_local({"n": 1}, now=START), now=START)
    for lie in (entry(ALICE, 1, "null"), entry(ALICE, 9, '{"n":666}')):
        assert alice.apply(lie, now=START) == AwarenessChange(updated=(ALICE,))
        assert alice.local == {"n": 1}
        bob.apply(lie, now=START)
        bob.apply(alice.encode([ALICE]), now=START)
        assert bob.states[ALICE] == {"n": 1}


def test_a_first_state_is_above_the_zero_that_stock_clients_take_us_for() -> None:
    alice = Awareness(ALICE)
    alice.set_local({}, now=START)
    assert alice.clock_of(ALICE) == 1


def test_a_lie_about_us_does_not_drive_our_clock_to_the_end_of_its_range() -> None:
    alice = Awareness(ALICE)
    alice.set_local({}, now=START)
    assert not alice.apply(entry(ALICE, 2**53 - 1, "null"), now=START)
    assert alice.clock_of(ALICE) == 1


def test_a_first_state_comes_after_what_others_remember_of_us() -> None:
    alice = Awareness(ALICE)
    alice.apply(entry(ALICE, 41, "{}"), now=START)
    assert shown(alice.set_local({}, now=START)) == [(ALICE, 42, "{}")]


def test_the_silent_expire_after_thirty_seconds_and_we_never_do() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    bob.set_local({}, now=START)
    bob.apply(alice.set_local({}, now=START), now=START)
    assert not bob.expired(Instant(START + 29.9))
    assert bob.expired(Instant(START + 30)) == AwarenessChange(removed=(ALICE,))
    assert list(bob.states) == [BOB]


def test_renewing_keeps_one_alive_without_a_change() -> None:
    alice, bob = Awareness(ALICE), Awareness(BOB)
    bob.apply(alice.set_local({}, now=START), now=START)
    assert alice.renew(now=Instant(START + 14)) is None
    renewed = alice.renew(now=Instant(START + 15))
    assert renewed is not None
    change = bob.apply(renewed, now=Instant(START + 15))
    assert change == AwarenessChange(renewed=(ALICE,))
    assert not change
    assert not bob.expired(Instant(START + 31))


def test_after_a_lost_connection_the_others_may_show_themselves_again_with_the_same_clock() -> None:
    bob = Awareness(BOB)
    bob.apply(entry(ALICE, 5, "{}"), now=START)
    assert bob.forget([ALICE, bob.client]).removed == (ALICE,)
    assert bob.apply(entry(ALICE, 5, "{}"), now=START).added == (ALICE,)


def test_what_we_show_does_not_follow_the_callers_object() -> None:
    alice = Awareness(ALICE)
    state = {"list": [1]}
    alice.set_local(state, now=START)
    state["list"].append(2)
    assert alice.local == {"list": [1]}


def test_a_state_json_cannot_hold_is_the_callers_error() -> None:
    alice = Awareness(ALICE, limits=Limits(awareness_bytes_max=20))
    with pytest.raises(ValueNotStorable):
        alice.set_local({"a": {1}}, now=START)
    with pytest.raises(ValueNotStorable):
        alice.set_local({"a": float("nan")}, now=START)
    with pytest.raises(LimitExceeded):
        alice.set_local({"a": "x" * 20}, now=START)
    assert alice.local is None


def test_a_clients_table_is_bounded_and_forgets_the_gone_first() -> None:
    bob = Awareness(BOB, limits=Limits(awareness_clients_max=3))
    for client in (10, 11, 12):
        bob.apply(entry(client, 1, "{}"), now=START)
    assert not bob.apply(entry(13, 1, "{}"), now=START)
    assert bob.entries_ignored == 1
    bob.apply(entry(11, 1, "null"), now=START)
    assert bob.apply(entry(13, 1, "{}"), now=START).added == (13,)
    assert sorted(bob.states) == [10, 12, 13]


def test_a_clients_table_is_bounded_in_bytes() -> None:
    bob = Awareness(BOB, limits=Limits(awareness_total_bytes_max=11))
    assert bob.apply(entry(10, 1, '{"a":1}'), now=START)
    assert not bob.apply(entry(11, 1, '{"a":1}'), now=START)
    assert bob.apply(entry(10, 2, "null"), now=START)
    assert bob.apply(entry(11, 1, '{"a":1}'), now=START)
