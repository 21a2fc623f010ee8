"""What waits comes in when it can, and what was asked is answered when it is true, not before.

Each of these was broken once, and seen only by real sessions pushed through a real server.
"""

from __future__ import annotations

from random import Random

from crdt_state.clocks import WallTime
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.engine import NativeDocument
from crdt_state.replica.admission import Author
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.document_core import DocumentCore
from crdt_state.storage.memory import MemoryStore

NOTES = DocumentId("notes")
NOW = WallTime(1_700_000_000_000_000)
PEER = 7


def typed(count: int) -> list[bytes]:
    """Updates of one client, each behind the one before."""
    document = NativeDocument(client_id=1)
    updates: list[bytes] = []
    document.observe(lambda update, _: updates.append(update))
    text = document.text("text")
    for number in range(count):
        with document.transaction():
            text.insert(0, str(number % 10))
    return updates


def in_use() -> ReplicaCore:
    core = ReplicaCore(DEFAULT_LIMITS)
    core.open(DocumentCore(NOTES, None, DEFAULT_LIMITS))
    return core


def receive(core: ReplicaCore, update: bytes) -> None:
    core.receive(NOTES, PEER, Author(), update, name="address here")


async def test_an_update_overtaken_within_its_tick_by_what_it_lacked_does_not_stay_behind() -> None:
    first, second, third = typed(3)
    core = in_use()
    for update in (third, second, first):
        receive(core, update)
    core.decide(NOW)
    batch = core.take_batch()
    assert batch is not None
    store = MemoryStore(random=Random(1))
    await store.write(batch.writes)
    stored = await store.read(NOTES)
    assert stored is not None
    assert [entry.update for entry in stored.log] == [first, second, third]
    assert stored.pending == ()


def test_a_barrier_is_not_answered_with_the_turn_before_what_it_is_behind() -> None:
    first, second = typed(2)
    core = in_use()
    receive(core, first)
    core.decide(NOW)
    receive(core, second)
    assert not core.ask(NOTES, "barrier")
    # The disk is free before the tick ends: the first goes alone.
    batch = core.take_batch()
    assert batch is not None
    assert batch.updates == 1
    core.decide(NOW)
    (delivery,) = core.persisted(batch)
    assert delivery.answered == []
    batch = core.take_batch()
    assert batch is not None
    (delivery,) = core.persisted(batch)
    assert [delta.update for delta in delivery.deltas] == [second]
    assert delivery.answered == ["barrier"]


def test_whoever_waits_for_what_is_lost_before_it_was_decided_is_told() -> None:
    (first,) = typed(1)
    core = in_use()
    receive(core, first)
    core.ask(NOTES, "barrier")
    assert core.abandon(NOTES).asked == ["barrier"]
