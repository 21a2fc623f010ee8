"""Undo and redo of one's own edits, with the time turned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.clocks import ManualClock
from crdt_state.errors import UsageError
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.text import TextEvent
from model.documents import document, updates_of


def test_edits_close_together_are_undone_together() -> None:
    clock, source = ManualClock(now=5.0), document()
    text = source.text("text")
    stack = source.undo_stack(text, now=clock.now, capture_seconds=0.5)
    for word, pause in (("one", 0.4), ("two", 0.6), ("three", 0.0)):
        text.append(word)
        clock.advance(pause)
    assert stack.undo()
    assert str(text) == "onetwo"
    assert stack.undo()
    assert str(text) == ""
    assert not stack.undo()
    assert stack.redo()
    assert str(text) == "onetwo"
    assert stack.redo()
    assert str(text) == "onetwothree"
    assert not stack.redo()


def test_one_transaction_is_one_step_over_all_kinds_of_containers() -> None:
    clock, source = ManualClock(), document()
    containers = (
        source.text("t"),
        source.map("m"),
        source.list("l"),
        source.counter("c"),
        source.set("s"),
        source.movable_list("v"),
        source.register("r"),
        source.multi_value_register("w"),
    )
    text, mapping, values, likes, tags, movable, register, several = containers
    with source.transaction():
        register.set("before")
    stack = source.undo_stack(*containers, now=clock.now, capture_seconds=0)
    with source.transaction():
        text.append("😀")
        mapping["key"] = 1
        values.append(2)
        likes.add(-3)
        tags.add("tag")
        movable.append("element")
        register.set("after")
        several.set("value")

    def seen() -> tuple[object, ...]:
        return (
            str(text),
            dict(mapping),
            list(values),
            likes.value,
            set(tags),
            list(movable),
            register.value,
            list(several.values),
        )

    done = seen()
    assert done == ("😀", {"key": 1}, [2], -3, {"tag"}, ["element"], "after", ["value"])
    assert stack.undo()
    assert seen() == ("", {}, [], 0, set(), [], "before", [])
    assert stack.redo()
    assert seen() == done
    assert stack.undo()
    assert not stack.can_undo
    copy = document(2, [source.encode()])
    assert copy.counter("c").value == 0
    assert copy.register("r").value == "before"


def test_what_others_did_is_never_undone() -> None:
    clock, here, there = ManualClock(), document(1), document(2)
    text = here.text("text")
    stack = here.undo_stack(text, here.counter("likes"), now=clock.now)
    text.append("mine")
    here.counter("likes").add(1)
    there.apply(here.encode())
    there.text("text").insert(0, "theirs ")
    there.counter("likes").add(10)
    here.apply(there.encode())
    assert stack.undo()
    assert str(text) == "theirs "
    assert here.counter("likes").value == 10
    assert not stack.undo()
    there.apply(here.encode())
    assert str(there.text("text")) == "theirs "
    assert there.counter("likes").value == 10


def test_a_counter_is_undone_by_the_inverse_amount_and_grows_no_entry() -> None:
    clock, source = ManualClock(), document()
    likes = source.counter("likes")
    stack = source.undo_stack(likes, now=clock.now)
    likes.add(5)
    likes.add(-2)
    assert (stack.undo(), likes.value) == (True, 0)
    assert (stack.redo(), likes.value) == (True, 3)
    assert len(source.as_json()["likes#counter"]) == 1


def test_a_step_without_effect_is_skipped() -> None:
    clock, here, there = ManualClock(), document(1), document(2)
    text = here.text("text")
    stack = here.undo_stack(text, here.counter("likes"), now=clock.now, capture_seconds=0)
    text.append("first")
    here.counter("likes").add(1)
    text.append("second")
    there.apply(here.encode())
    there.text("text").delete(5, 6)
    here.apply(there.encode())
    assert stack.undo()
    assert (str(text), here.counter("likes").value) in {("", 1), ("first", 0)}
    while stack.undo():
        pass
    assert (str(text), here.counter("likes").value) == ("", 0)


def test_steps_keep_their_order_when_one_without_effect_was_skipped() -> None:
    clock, here, there = ManualClock(), document(1), document(2)
    text, likes = here.text("text"), here.counter("likes")
    stack = here.undo_stack(text, likes, now=clock.now, capture_seconds=0)
    text.append("a")
    likes.add(1)
    text.append("b")
    text.append("c")
    there.apply(here.encode())
    there.text("text").delete(2, 1)
    here.apply(there.encode())
    seen = []
    while stack.undo():
        seen.append((str(text), likes.value))
    assert seen == [("a", 1), ("a", 0), ("", 0)]


def test_a_new_edit_forgets_what_could_be_redone() -> None:
    clock, source = ManualClock(), document()
    text = source.text("text")
    stack = source.undo_stack(text, source.counter("likes"), now=clock.now)
    text.append("one")
    assert stack.undo()
    assert stack.can_redo
    source.counter("likes").add(1)
    assert not stack.can_redo
    assert not stack.redo()
    assert str(text) == ""


def test_a_split_begins_a_new_step() -> None:
    clock, source = ManualClock(), document()
    text = source.text("text")
    stack = source.undo_stack(text, now=clock.now)
    text.append("one")
    stack.split()
    text.append("two")
    assert stack.undo()
    assert str(text) == "one"


def test_containers_outside_the_stack_are_left_alone() -> None:
    clock, source = ManualClock(), document()
    text, other = source.text("text"), source.text("other")
    stack = source.undo_stack(text, now=clock.now)
    other.append("other")
    assert not stack.can_undo
    with source.transaction():
        text.append("one")
        other.append("more")
    assert stack.undo()
    assert (str(text), str(other)) == ("", "othermore")


def test_undo_is_an_event_and_an_update_like_any_other_edit_of_ours() -> None:
    clock, source = ManualClock(), document()
    text = source.text("text")
    stack = source.undo_stack(text, now=clock.now)
    text.append("中😀")
    events: list[TextEvent] = []
    text.observe(events.append)
    updates = updates_of(source)
    assert stack.undo()
    assert [(event.is_local, event.origin) for event in events] == [(True, stack)]
    assert sum(operation.count for operation in events[0].delta) == 2  # type: ignore[union-attr]
    assert len(updates) == 1
    text.append("x")
    assert str(text) == "x"


def test_steps_are_bounded_and_the_oldest_are_forgotten() -> None:
    clock = ManualClock()
    source = document(limits=replace(DEFAULT_LIMITS, undo_steps_max=5))
    values = source.list("array")
    stack = source.undo_stack(values, now=clock.now, capture_seconds=0)
    for number in range(100):
        values.append(number)
    assert stack._native.depth()[0] <= 11
    while stack.undo():
        pass
    assert list(values) == list(range(95))


def test_a_cleared_or_closed_stack_undoes_nothing() -> None:
    clock, source = ManualClock(), document()
    text = source.text("text")
    stack = source.undo_stack(text, source.counter("likes"), now=clock.now)
    text.append("one")
    stack.clear()
    assert not stack.undo()
    stack.close()
    source.counter("likes").add(1)
    text.append("two")
    assert not stack.can_undo
    assert str(text) == "onetwo"


def test_misuse_is_refused() -> None:
    clock, source, other = ManualClock(), document(), document(2)
    with pytest.raises(UsageError, match="at least one"):
        source.undo_stack(now=clock.now)
    with pytest.raises(UsageError, match="not a container of this document"):
        source.undo_stack(other.text("text"), now=clock.now)
    with pytest.raises(UsageError, match="capture_seconds"):
        source.undo_stack(source.text("text"), now=clock.now, capture_seconds=-1)
    stack = source.undo_stack(source.text("text"), now=clock.now)
    with source.transaction(), pytest.raises(UsageError, match="between transactions"):
        stack.undo()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_undoing_everything_leaves_what_others_wrote_and_redoing_brings_it_back(
    data: st.DataObject,
) -> None:
    clock, source = ManualClock(), document()
    text, likes, values = source.text("text"), source.counter("likes"), source.list("array")
    stack = source.undo_stack(text, likes, values, now=clock.now, capture_seconds=0.5)
    edits = data.draw(st.integers(1, 8))
    for _ in range(edits):
        clock.advance(data.draw(st.sampled_from([0.1, 1.0])))
        match data.draw(st.sampled_from(["text", "likes", "values", "all"])):
            case "text":
                text.insert(
                    data.draw(st.integers(0, len(text))), data.draw(st.sampled_from("a中😀"))
                )
            case "likes":
                likes.add(data.draw(st.integers(1, 9)))
            case "values":
                values.append(data.draw(st.integers(0, 9)))
            case "all":
                with source.transaction():
                    text.append("😀")
                    likes.add(1)
                    values.append(1)
    done = (str(text), likes.value, list(values))
    assert any(done)
    steps = 0
    while stack.undo():
        steps += 1
    assert (str(text), likes.value, list(values)) == ("", 0, [])
    assert 1 <= steps <= edits
    redone = 0
    while stack.redo():
        redone += 1
    assert redone == steps
    assert (str(text), likes.value, list(values)) == done
