"""An open document: transactions, updates, callbacks, names and kinds, its end."""

from __future__ import annotations

import gc
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from crdt_state.errors import (
    DocumentClosed,
    EngineFailed,
    LimitExceeded,
    ObserversFailed,
    RootTypeConflict,
    UpdateMalformed,
    UpdateTooLarge,
    UsageError,
    ValueNotStorable,
)
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.engine import NativeDocument
from crdt_state.model.layout import KIND_SUFFIXES
from crdt_state.model.text import Insert, TextEvent
from model.documents import assert_converged, document, updates_of


def test_each_local_transaction_that_changed_something_gives_exactly_one_update() -> None:
    source = document()
    told: list[tuple[bytes, bool]] = []
    source.on_update(lambda update, is_local: told.append((update, is_local)))
    with source.transaction():
        source.text("text").append("a")
        source.map("map")["key"] = 1
        with source.transaction():
            source.list("array").append(2)
            source.counter("likes").add(3)
    with source.transaction():
        pass
    source.text("text").append("b")
    assert [is_local for _, is_local in told] == [True, True]
    copy = document(2, [update for update, _ in told])
    assert_converged(source, copy)
    assert copy.counter("likes").value == 3


def test_the_updates_of_peers_are_told_as_such_and_only_once() -> None:
    source, copy = document(1), document(2)
    source.text("text").append("a")
    told: list[bool] = []
    copy.on_update(lambda _, is_local: told.append(is_local))
    copy.apply(source.encode())
    copy.apply(source.encode())
    assert told == [False]


def test_an_exception_between_two_writes_rolls_nothing_back() -> None:
    source = document()
    updates = updates_of(source)

    def write_and_fail() -> None:
        with source.transaction():
            source.text("text").append("kept")
            source.text("text").insert(99, "refused")

    with pytest.raises(IndexError):
        write_and_fail()
    assert str(source.text("text")) == "kept"
    assert str(document(2, updates).text("text")) == "kept"


def test_an_event_carries_the_origin_of_its_transaction() -> None:
    source = document()
    events: list[TextEvent] = []
    source.text("text").observe(events.append)
    with source.transaction("the button"), source.transaction("something inside it"):
        source.text("text").append("x")
    assert events == [TextEvent(delta=(Insert("x"),), is_local=True, origin="the button")]


def test_callbacks_run_in_order_and_may_write_everywhere() -> None:
    source = document()
    text, likes = source.text("text"), source.counter("likes")
    told: list[Any] = []
    source.on_update(lambda _, is_local: told.append("update"))

    def answer(event: TextEvent) -> None:
        told.append((event.origin, str(text), likes.value))
        if event.origin is None:
            with source.transaction("answer"):
                text.insert(0, "😀")
                likes.add(1)
            assert str(text) == "😀x"

    text.observe(answer)
    likes.observe(lambda event: told.append(event.amount))
    text.append("x")
    assert told == ["update", (None, "x", 0), "update", ("answer", "😀x", 1), 1]


def test_what_a_callback_writes_is_told_after_what_it_answers() -> None:
    source = document()
    text = source.text("text")
    told: list[object] = []

    def answer(event: TextEvent) -> None:
        if event.origin is None:
            with source.transaction("answer"):
                text.append("!")
            told.append("written")

    text.observe(answer)
    text.observe(lambda event: told.append(event.origin))
    text.append("x")
    assert told == ["written", None, "answer"]


def test_a_failing_callback_is_reported_after_everybody_was_called() -> None:
    source = document()
    told: list[str] = []

    def fail(_: object) -> None:
        raise KeyError("mine")

    source.text("text").observe(fail)
    source.text("text").observe(lambda _: told.append("second"))
    source.on_update(lambda *_: told.append("update"))
    with pytest.raises(ObserversFailed) as caught:
        source.text("text").append("x")
    assert caught.group_contains(KeyError)
    assert told == ["update", "second"]
    with pytest.raises(ObserversFailed):
        source.apply(other_text("y"))
    assert sorted(str(source.text("text"))) == ["x", "y"]


def other_text(content: str, client: int = 77) -> bytes:
    other = document(client)
    other.text("text").append(content)
    return other.encode()


def test_a_callback_that_was_switched_off_is_not_called() -> None:
    source = document()
    told: list[object] = []
    off = [source.text("text").observe(told.append), source.on_update(lambda *_: told.append(1))]
    for switch in off * 2:
        switch()
    source.text("text").append("x")
    assert told == []


# --- names and kinds


def test_plain_containers_are_exactly_the_roots_of_their_names() -> None:
    source = document()
    source.text("text").append("t")
    source.map("map")["key"] = "m"
    source.list("array").append("a")
    assert source.as_json() == {"text": "t", "map": {"key": "m"}, "array": ["a"]}
    assert source.roots() == {"text": "text", "map": "map", "array": "list"}


def test_a_container_is_the_same_object_each_time() -> None:
    source = document()
    for ask in (source.text, source.map, source.list):
        assert ask(ask.__name__) is ask(ask.__name__)
    for ask in (source.counter, source.set, source.movable_list, source.register):
        assert ask("name") is ask("name")
    assert source.multi_value_register("name") is source.multi_value_register("name")


def test_our_kinds_of_one_name_are_different_containers() -> None:
    source = document()
    source.counter("x").add(1)
    source.set("x").add("element")
    source.register("x").set("value")
    source.text("x").append("text")
    copy = document(2, [source.encode()])
    assert copy.counter("x").value == 1
    assert set(copy.set("x")) == {"element"}
    assert str(copy.text("x")) == "text"
    assert copy.roots()["x#counter"] == "counter"


def test_a_root_used_as_two_types_is_a_clear_error() -> None:
    source = document()
    source.text("x")
    with pytest.raises(RootTypeConflict, match="is a text, not a map"):
        source.map("x")
    copy = document(2, [other_text("content")])
    with pytest.raises(RootTypeConflict, match="is a text, not a list"):
        copy.list("text")
    assert str(copy.text("text")) == "content"
    for suffix, kind in KIND_SUFFIXES.items():
        with pytest.raises(RootTypeConflict, match=kind):
            source.map("x" + suffix)


def test_a_foreign_program_that_used_the_root_of_our_kind_otherwise_is_a_clear_error() -> None:
    foreign = NativeDocument(5)
    with foreign.transaction():
        foreign.text("likes#counter").insert(0, "nonsense")
    copy = document(2, [foreign.encode()])
    with pytest.raises(RootTypeConflict):
        copy.counter("likes")


def test_a_name_that_yjs_cannot_hold_is_refused() -> None:
    source = document()
    with pytest.raises(ValueNotStorable):
        source.text("\ud800")
    with pytest.raises(ValueNotStorable):
        source.counter("x" * 5_000)
    with pytest.raises(ValueNotStorable):
        source.map(5)  # type: ignore[arg-type]


def test_a_container_can_be_named_inside_a_transaction() -> None:
    source = document(1, [other_text("content")])
    with source.transaction():
        source.map("map")["key"] = 1
        assert str(source.text("text")) == "content"
        source.list("array").append(1)
    assert_converged(source, document(2, [source.encode()]))


# --- order, limits, end


def test_updates_that_wait_for_one_another_are_shown_in_whatever_order_they_come() -> None:
    # The engine alone leaves one of two waiting updates behind: see test_pycrdt_facts.
    first, third = document(1), document(3)
    updates = updates_of(third)
    first.text("text").append("a")
    third.apply(first.encode())
    third.text("text").insert(0, "b")
    third.text("text").append("c")
    third.text("text").insert(1, "d")
    third.map("map")["key"] = 1
    third.text("text").delete(0, 2)
    everything = [first.encode(), *updates]
    for order in permutations(everything):
        copy = document(9)
        for update in order:
            copy.apply(update)
        assert_converged(third, copy)
        assert len(copy._waiting) == 0
        assert_converged(third, document(10, order))


def test_what_waits_is_bounded() -> None:
    source = document(1)
    updates = updates_of(source)
    for _ in range(40):
        source.text("text").append("x" * 100)
    limits = replace(DEFAULT_LIMITS, pending_bytes_max=1_000)
    copy = document(2, limits=limits)

    def flood() -> None:
        for update in updates[1:]:
            copy.apply(update)

    with pytest.raises(UpdateTooLarge, match="pending_bytes_max"):
        flood()
    assert str(copy.text("text")) == ""


def test_a_transaction_is_bounded() -> None:
    source = document(limits=replace(DEFAULT_LIMITS, transaction_operations_max=10))

    def flood() -> None:
        with source.transaction():
            for _ in range(100):
                source.text("text").append("x")

    with pytest.raises(LimitExceeded, match="transaction_operations_max"):
        flood()
    assert str(source.text("text")) == "x" * 9
    source.text("text").append("y")


def test_an_update_is_not_applied_inside_a_transaction() -> None:
    source = document()
    with source.transaction(), pytest.raises(UsageError, match="between transactions"):
        source.apply(other_text("x"))


def test_bytes_that_are_no_update_change_nothing() -> None:
    source = document()
    source.text("text").append("x")
    digest = source.digest()
    with pytest.raises(UpdateMalformed):
        source.apply(b"\x01\x02\x03")
    assert source.digest() == digest
    with pytest.raises(UpdateMalformed):
        document(2, [b"\xff"])


def test_after_a_panic_every_call_says_to_rebuild(capfd: pytest.CaptureFixture[str]) -> None:
    source = document()
    text = source.text("text")
    text.append("x")
    state = source.encode()
    # What no facade lets through: a delete behind the end.
    with pytest.raises(EngineFailed), source.transaction():
        source._native.text("text").delete(0, 99)
    assert source.is_broken
    with pytest.raises(EngineFailed, match="rebuild"):
        text.append("y")
    with pytest.raises(EngineFailed):
        source.encode()
    assert str(document(2, [state]).text("text")) == "x"
    source.close()
    capfd.readouterr()


def test_a_closed_document_says_so() -> None:
    source = document()
    text = source.text("text")
    text.append("x")
    source.close()
    source.close()
    for call in (source.encode, source.digest, lambda: text.append("y"), lambda: source.map("m")):
        with pytest.raises(DocumentClosed):
            call()


def test_a_document_that_does_not_open_leaves_nothing_behind() -> None:
    def natives() -> int:
        gc.collect()
        return sum(isinstance(one, NativeDocument) for one in gc.get_objects())

    states = ([b"\xff"], [other_text("x"), b"\x01"])
    before = natives()
    for state in states:
        with pytest.raises(UpdateMalformed):
            document(2, state)
    assert natives() == before
