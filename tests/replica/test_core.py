"""`crdt_state.replica.core`: batches, barriers, failures; no loop, no store."""

from __future__ import annotations

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import DocumentClosed, DocumentSetAside, WriteNotPermitted
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.core import Batch, ReplicaCore
from crdt_state.replica.document_core import LOCAL, DocumentCore
from crdt_state.storage.contract import Append
from wired import BROKEN, NOTES, OTHER, typed

NOW = WallTime(0)
PEER = 7


def core_with(*documents: str) -> ReplicaCore:
    core = ReplicaCore(DEFAULT_LIMITS)
    for name in documents or (NOTES,):
        core.open(DocumentCore(name, None, DEFAULT_LIMITS))  # type: ignore[arg-type]
    return core


def receive(core: ReplicaCore, update: bytes, document: str = NOTES, source: int = PEER) -> None:
    core.receive(document, source, ANYONE, update, name="peer")  # type: ignore[arg-type]


def batch_of(core: ReplicaCore) -> Batch:
    batch = core.take_batch()
    assert batch is not None
    return batch


def test_nothing_is_delivered_before_its_commit() -> None:
    core = core_with()
    receive(core, typed("a"))
    decided = core.decide(NOW)
    assert decided.answered == []
    batch = batch_of(core)
    assert [write for write in batch.writes if isinstance(write, Append)] == [
        Append(NOTES, (typed("a"),))
    ]
    (delivery,) = core.persisted(batch)
    assert [delta.update for delta in delivery.deltas] == [typed("a")]


def test_a_batch_is_all_that_was_decided_while_the_last_was_written() -> None:
    core = core_with(NOTES, OTHER)
    receive(core, typed("a"))
    core.decide(NOW)
    first = batch_of(core)
    receive(core, typed("b", at=1))
    core.decide(NOW)
    receive(core, typed("c", at=2))
    receive(core, typed("x"), OTHER)
    core.decide(NOW)
    assert core.take_batch() is None, "one commit at a time"
    core.persisted(first)
    second = batch_of(core)
    assert second.updates == 3
    assert list(second.turns) == [NOTES, OTHER]


def test_who_asks_is_answered_by_the_commit_that_holds_what_came_before() -> None:
    core = core_with()
    assert core.ask(NOTES, "nothing under way")
    receive(core, typed("a"))
    assert not core.ask(NOTES, "arrived")
    core.decide(NOW)
    assert not core.ask(NOTES, "gathered")
    batch = batch_of(core)
    assert not core.ask(NOTES, "being written")
    (delivery,) = core.persisted(batch)
    assert delivery.answered == ["arrived", "gathered", "being written"]
    assert core.ask(NOTES, "durable")


def test_who_repeats_what_is_being_written_waits_for_that_commit() -> None:
    core = core_with()
    receive(core, typed("a"))
    core.decide(NOW)
    batch = batch_of(core)
    receive(core, typed("a"))
    assert not core.ask(NOTES, "again")
    decided = core.decide(NOW)
    assert decided.answered == [], "what it repeats is not on the disk yet"
    assert decided.quiet == []
    (delivery,) = core.persisted(batch)
    assert delivery.answered == ["again"]


def test_what_adds_nothing_is_answered_at_once_and_calls_for_no_commit() -> None:
    core = core_with()
    receive(core, typed("a"))
    core.decide(NOW)
    core.persisted(batch_of(core))
    receive(core, typed("a"))
    core.ask(NOTES, "again")
    decided = core.decide(NOW)
    assert decided.answered == ["again"]
    assert decided.quiet == [NOTES]
    assert core.take_batch() is None


def test_a_failed_commit_takes_its_documents_and_hands_back_our_own_edits() -> None:
    core = core_with(NOTES, OTHER)
    receive(core, typed("mine"), source=LOCAL)
    receive(core, typed("theirs", client=2))
    core.decide(NOW)
    batch = batch_of(core)
    core.ask(NOTES, "written")
    receive(core, typed("later", at=4), source=LOCAL)
    core.decide(NOW)
    receive(core, typed("last", at=9), source=LOCAL)
    core.ask(NOTES, "arrived")
    receive(core, typed("x"), OTHER)
    (lost,) = core.failed(batch)
    assert lost.document == NOTES
    assert lost.own_edits == [typed("mine"), typed("later", at=4), typed("last", at=9)]
    assert lost.asked == ["written", "arrived"]
    assert core.get(NOTES) is None
    assert core.busy() == [OTHER], "the others go on"
    core.decide(NOW)
    assert batch_of(core).updates == 1
    with pytest.raises(DocumentClosed, match="not in use"):
        receive(core, typed("y"))


def test_an_abandoned_document_leaves_the_commit_under_way_alone() -> None:
    core = core_with()
    receive(core, typed("a"))
    core.ask(NOTES, "first")
    core.decide(NOW)
    batch = batch_of(core)
    receive(core, typed("b", at=1), source=LOCAL)
    core.ask(NOTES, "second")
    lost = core.abandon(NOTES)
    assert lost.own_edits == [typed("b", at=1)]
    assert lost.asked == ["second"]
    assert core.is_busy(NOTES), "it must not be read again before that commit has ended"
    (delivery,) = core.persisted(batch)
    assert delivery.answered == ["first"]
    assert not core.is_busy(NOTES)
    assert core.waiting_bytes == 0


def test_a_failed_commit_of_an_abandoned_document_is_no_error() -> None:
    core = core_with()
    receive(core, typed("a"))
    core.decide(NOW)
    batch = batch_of(core)
    core.abandon(NOTES)
    assert [lost.document for lost in core.failed(batch)] == [NOTES]


def test_what_goes_wrong_over_one_document_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_with(NOTES, OTHER)
    receive(core, typed("a"), source=LOCAL)
    receive(core, typed("x"), OTHER)

    def broken(*_: object) -> None:
        raise KeyError("a mistake in the engine")

    known = core.get(NOTES)
    assert known is not None
    monkeypatch.setattr(known, "_decide_run", broken)
    decided = core.decide(NOW)
    assert [(document, type(error)) for document, error in decided.failed] == [(NOTES, KeyError)]
    assert core.abandon(NOTES).own_edits == [typed("a")], "handed back although undecided"
    assert list(batch_of(core).turns) == [OTHER]


def test_documents_are_decided_in_the_order_in_which_updates_came() -> None:
    names = [f"document {number}" for number in range(50)]
    core = core_with(*names)
    for name in reversed(names):
        receive(core, BROKEN, name)
    assert [refusal.document for refusal in core.decide(NOW).refusals] == names[::-1]


def test_waiting_bytes_count_what_arrived_gathered_was_refused_and_is_being_written() -> None:
    core = core_with()
    receive(core, typed("a"))
    receive(core, BROKEN * 1_000, source=8)
    assert core.waiting_bytes == len(typed("a")) + 1_000
    core.decide(NOW)
    assert core.waiting_bytes == len(typed("a")) + 1_000, "the refused one goes to the quarantine"
    batch = batch_of(core)
    assert core.waiting_bytes == len(typed("a")) + 1_000
    core.persisted(batch)
    assert core.waiting_bytes == 0


def test_a_withheld_document_waits_while_others_are_written() -> None:
    core = core_with(NOTES, OTHER)
    receive(core, typed("a"))
    receive(core, typed("x"), OTHER)
    core.decide(NOW)
    core.withhold(NOTES)
    first = batch_of(core)
    assert list(first.turns) == [OTHER]
    core.persisted(first)
    assert core.take_batch() is None
    assert not core.ask(NOTES, "barrier"), "withheld is not durable"
    core.release(NOTES)
    assert list(batch_of(core).turns) == [NOTES]


def test_a_busy_document_cannot_be_closed() -> None:
    core = core_with()
    receive(core, typed("a"))
    with pytest.raises(DocumentClosed, match="under way"):
        core.close(NOTES)
    core.decide(NOW)
    core.persisted(batch_of(core))
    core.close(NOTES)
    assert len(core) == 0


def test_a_document_set_aside_and_a_reader_are_refused_at_once() -> None:
    core = core_with()
    with pytest.raises(WriteNotPermitted):
        core.receive(NOTES, PEER, Author("eve", may_write=False), typed("a"), name="eve")
    known = core.get(NOTES)
    assert known is not None
    known.set_aside = "it killed a worker"
    with pytest.raises(DocumentSetAside, match="killed a worker"):
        receive(core, typed("a"))


def test_a_remote_is_owed_what_others_brought_and_not_what_it_brought() -> None:
    core = core_with(NOTES, OTHER)
    core.add_remote("ws://remote", PEER)
    receive(core, typed("a"), source=PEER)
    receive(core, typed("b"), OTHER, source=LOCAL)
    core.decide(NOW)
    owed = {
        write.document: write.unsent_to
        for write in batch_of(core).writes
        if isinstance(write, Append)
    }
    assert owed == {NOTES: (), OTHER: ("ws://remote",)}
