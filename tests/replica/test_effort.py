"""A tick decides only so much, so that one document never holds up the others."""

from __future__ import annotations

from crdt_state.clocks import WallTime
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.admission import ANYONE
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.document_core import REFUSALS_KEPT_MAX, DocumentCore
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.storage.contract import Append, SetAside
from hostile import SHAPES, section, string, update

NOW = WallTime(1_000_000)
BUSY, QUIET = DocumentId("busy"), DocumentId("quiet")
PEER = 7
LARGE = update(section(5, 0, string("x" * LARGE_BYTES)))


def core_with(*documents: DocumentId) -> ReplicaCore:
    core = ReplicaCore(DEFAULT_LIMITS)
    for document in documents:
        core.open(DocumentCore(document, None, DEFAULT_LIMITS))
    return core


def bring(core: ReplicaCore, document: DocumentId, *updates: bytes) -> None:
    for each in updates:
        core.receive(document, PEER, ANYONE, each, name="address here")


def typing(client: int, count: int) -> list[bytes]:
    return [
        update(section(client, at, string("x", origin=(client, at - 1) if at else None)))
        for at in range(count)
    ]


def gathered(core: ReplicaCore, document: DocumentId) -> list[bytes]:
    known = core.get(document)
    assert known is not None
    return known.unstaged_updates()


def test_who_brings_much_is_decided_in_several_ticks_in_order() -> None:
    core = core_with(BUSY)
    updates = typing(1, 5_000)
    bring(core, BUSY, *updates)
    ticks = 1
    while core.decide(NOW).unfinished:
        assert 0 < len(gathered(core, BUSY)) < len(updates)
        ticks += 1
    assert ticks > 2
    assert gathered(core, BUSY) == updates


def test_who_brings_little_does_not_wait_for_who_brings_much() -> None:
    core = core_with(BUSY, QUIET)
    bring(core, BUSY, *typing(1, 5_000))
    bring(core, QUIET, *typing(2, 1))
    assert core.decide(NOW).unfinished == [BUSY]
    assert gathered(core, QUIET) == typing(2, 1)


def test_a_barrier_waits_for_what_is_not_decided_yet() -> None:
    core = core_with(BUSY)
    bring(core, BUSY, *typing(1, 5_000))
    assert not core.ask(BUSY, "durable?")
    assert core.decide(NOW).unfinished
    batch = core.take_batch()
    assert batch is not None
    (delivery,) = core.persisted(batch)
    assert delivery.answered == []
    while core.decide(NOW).unfinished:
        pass
    rest = core.take_batch()
    assert rest is not None
    (delivery,) = core.persisted(rest)
    assert delivery.answered == ["durable?"]


def test_what_is_not_decided_yet_counts_against_the_queue() -> None:
    core = core_with(BUSY)
    updates = typing(1, 5_000)
    bring(core, BUSY, *updates)
    core.decide(NOW)
    assert core.waiting_bytes == sum(map(len, updates))


def test_a_large_update_is_prepared_while_others_are_decided() -> None:
    core = core_with(BUSY, QUIET)
    bring(core, BUSY, LARGE, *typing(1, 3))
    assert core.decide(NOW).large == [BUSY]
    bring(core, QUIET, *typing(2, 1))
    decided = core.decide(NOW)
    assert decided.large == decided.unfinished == []
    assert gathered(core, QUIET) == typing(2, 1)
    assert core.is_busy(BUSY)
    known = core.get(BUSY)
    assert known is not None
    before = known.head
    known.prepare()
    assert known.head is before
    assert known.head.vector == {}
    core.resume(BUSY)
    core.decide(NOW)
    assert gathered(core, BUSY) == [LARGE, *typing(1, 3)]
    assert known.head.vector == {5: LARGE_BYTES, 1: 3}


def test_a_large_update_waits_for_a_repair_that_is_under_way() -> None:
    core = core_with(BUSY)
    core.withhold(BUSY)
    bring(core, BUSY, LARGE)
    assert core.decide(NOW).large == []
    core.release(BUSY)
    assert core.decide(NOW).large == [BUSY]


def test_a_document_dropped_while_its_large_update_is_prepared_begins_anew() -> None:
    core = core_with(BUSY)
    bring(core, BUSY, LARGE)
    assert core.decide(NOW).large == [BUSY]
    core.abandon(BUSY)
    core.open(DocumentCore(BUSY, None, DEFAULT_LIMITS))
    bring(core, BUSY, *typing(1, 1))
    core.decide(NOW)
    assert gathered(core, BUSY) == typing(1, 1)


def test_of_a_flood_of_refused_updates_a_few_are_kept_and_told() -> None:
    core = core_with(BUSY)
    bring(core, BUSY, *[SHAPES["a GC of no length"]] * 500)
    refusals = core.decide(NOW).refusals
    assert len(refusals) == REFUSALS_KEPT_MAX
    batch = core.take_batch()
    assert batch is not None
    assert sum(isinstance(write, SetAside) for write in batch.writes) == REFUSALS_KEPT_MAX
    assert not any(isinstance(write, Append) for write in batch.writes)
