"""`crdt_state.replica.presence`: our state beside those of others."""

from __future__ import annotations

from crdt_state.clocks import ManualClock
from crdt_state.identifiers import ClientId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.awareness import (
    OUTDATED_SECONDS,
    RENEW_SECONDS,
    AwarenessChange,
    AwarenessEntry,
    decode_awareness,
    encode_awareness,
)
from crdt_state.replica.presence import Presence
from wired import Reports


class Person:
    """One presence, and what it sent."""

    def __init__(self, client: int, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.presence = Presence(ClientId(client), self.clock, DEFAULT_LIMITS)
        self.sent: list[bytes] = []
        self.stop = self.presence.attach(self.sent.append)
        self.changes: list[AwarenessChange] = []
        self.deafen = self.presence.observe(self.changes.append)

    def hear(self, payload: bytes) -> None:
        self.presence.receive(decode_awareness(payload))


async def test_what_is_shown_reaches_every_link_and_the_other_side() -> None:
    ada, bob = Person(1), Person(2)
    second: list[bytes] = []
    ada.presence.attach(second.append)
    ada.presence.show({"name": "Ada"})
    assert second == ada.sent
    bob.hear(ada.sent[-1])
    assert bob.presence.states == {1: {"name": "Ada"}}
    assert bob.changes[-1].added == (1,)
    ada.presence.leave()
    bob.hear(ada.sent[-1])
    assert bob.presence.states == {}
    assert bob.changes[-1].removed == (1,)


async def test_nothing_is_said_of_who_shows_nothing() -> None:
    ada = Person(1)
    ada.presence.renew()
    ada.presence.leave()
    ada.presence.tend()
    assert ada.sent == []


async def test_what_is_renewed_is_news_to_who_took_us_for_gone() -> None:
    ada, bob = Person(1), Person(2)
    ada.presence.show({"name": "Ada"})
    bob.hear(ada.sent[-1])
    bob.hear(encode_awareness([AwarenessEntry(ClientId(1), 1, "null")]))
    assert bob.presence.states == {}
    ada.presence.renew()
    bob.hear(ada.sent[-1])
    assert bob.presence.states == {1: {"name": "Ada"}}


async def test_our_own_entry_is_renewed_and_silent_ones_are_forgotten() -> None:
    clock = ManualClock()
    ada, bob = Person(1, clock), Person(2, clock)
    ada.presence.show({"name": "Ada"})
    bob.hear(ada.sent[-1])
    clock.advance(RENEW_SECONDS + 1)
    ada.presence.tend()
    assert len(ada.sent) == 2
    clock.advance(OUTDATED_SECONDS)
    bob.presence.tend()
    assert bob.presence.states == {}


async def test_a_peer_that_says_we_are_gone_is_contradicted_at_once() -> None:
    ada, bob = Person(1), Person(1)
    ada.presence.show({"name": "Ada"})
    bob.presence.show({"name": "Ada"})
    bob.presence.leave()
    ada.hear(bob.sent[-1])
    assert ada.presence.states == {1: {"name": "Ada"}}
    assert len(ada.sent) == 2


async def test_a_callback_that_fails_harms_neither_the_link_nor_other_callbacks() -> None:
    reports = Reports()
    ada, bob = Person(1), Person(2)
    bob.deafen()

    def fail(_: AwarenessChange) -> None:
        raise RuntimeError("an application's mistake")

    bob.presence.observe(fail)
    bob.presence.observe(bob.changes.append)
    ada.presence.show({"name": "Ada"})
    bob.hear(ada.sent[-1])
    bob.hear(encode_awareness([AwarenessEntry(ClientId(1), 1, "null")]))
    assert len(bob.changes) == 2
    assert len(reports) == 2


async def test_off_switches_may_be_used_twice() -> None:
    ada = Person(1)
    for switch in (ada.stop, ada.stop, ada.deafen, ada.deafen):
        switch()
    ada.presence.show({"name": "Ada"})
    assert ada.sent == []


async def test_who_left_may_return_with_the_same_clock() -> None:
    ada, bob = Person(1), Person(2)
    ada.presence.show({"name": "Ada"})
    bob.hear(ada.sent[-1])
    bob.hear(encode_awareness([AwarenessEntry(ClientId(1), 1, "null")]))
    assert bob.presence.states == {}
    assert bob.changes[-1].removed == (1,)
    bob.hear(ada.sent[-1])
    assert bob.presence.states == {1: {"name": "Ada"}}
