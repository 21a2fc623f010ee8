"""What holds for every kind alike: copies are never stale, and an undo undoes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crdt_state.clocks import Instant
from crdt_state.errors import ValueNotStorable
from crdt_state.model.container import Event
from crdt_state.model.inspect import inspect
from offline_sites import Site, meet


def test_a_callback_that_applies_and_writes_meets_no_stale_copy() -> None:
    one, two = Site(1), Site(2)
    tags = one.document.set("tags")
    todo = one.document.movable_list("todo")
    tags.update(["a", "b"])
    todo.extend("abc")
    meet(one, two)
    two.document.set("tags").discard("a")
    two.document.set("tags").add("x")
    two.document.movable_list("todo").insert(0, "first")
    calls: list[Event] = []

    def apply_and_write(event: Event) -> None:
        calls.append(event)
        for update in two.made:
            one.document.apply(update)
        tags.discard("b")
        tags.add("y")
        todo.move(0, 3)
        del todo[0]

    one.document.counter("likes").observe(apply_and_write)
    one.document.counter("likes").increment()
    assert len(calls) == 1
    assert list(tags) == ["x", "y"]
    assert list(todo) == ["b", "c", "first"]
    meet(one, two)
    assert list(two.document.set("tags")) == ["x", "y"]
    assert list(two.document.movable_list("todo")) == ["b", "c", "first"]


def test_a_write_from_an_update_callback_meets_no_stale_copy() -> None:
    one, two = Site(1), Site(2)
    one.document.set("tags").update("abc")
    meet(one, two)
    tags = two.document.set("tags")

    def answer(update: bytes, is_local: bool) -> None:
        if not is_local and "z" not in tags:
            tags.discard("b")
            tags.add("z")

    two.document.on_update(answer)
    one.document.set("tags").discard("a")
    one.document.set("tags").add("q")
    for update in one.made[-2:]:
        two.document.apply(update)
    assert list(tags) == ["c", "z", "q"] or list(tags) == ["c", "q", "z"]
    meet(one, two)
    assert list(one.document.set("tags")) == list(tags)


def test_every_edit_of_every_kind_is_undone_and_done_again() -> None:
    site = Site(1)
    document = site.document
    tags, title = document.set("tags"), document.register("title")
    owner, todo = document.multi_value_register("owner"), document.movable_list("todo")
    likes, values, colours = document.counter("c"), document.list("array"), document.map("map")
    todo.extend("abc")
    now = [0.0]
    stack = document.undo_stack(
        tags, title, owner, todo, likes, values, colours, now=lambda: Instant(now[0])
    )

    def content() -> tuple[Any, ...]:
        return (
            list(tags),
            title.value,
            owner.values,
            list(todo),
            likes.value,
            list(values),
            dict(colours),
        )

    edits: list[Callable[[], object]] = [
        lambda: tags.update(["a", "b"]),
        lambda: tags.discard("a"),
        lambda: title.set(1),
        lambda: title.set(2),
        lambda: owner.set("ann"),
        lambda: todo.move(0, 2),
        lambda: todo.__setitem__(0, "B"),
        lambda: todo.__delitem__(1),
        lambda: likes.add(5),
        lambda: values.append(1),
        lambda: colours.update(a=1),
        lambda: colours.update(a=2),
    ]
    states = [content()]
    for edit in edits:
        now[0] += 10
        edit()
        states.append(content())
    assert len({repr(state) for state in states}) == len(edits) + 1
    for state in reversed(states[:-1]):
        now[0] += 10
        stack.undo()
        assert content() == state
    for state in states[1:]:
        now[0] += 10
        stack.redo()
        assert content() == state
    reopened = Site(2, state=[document.encode()]).document
    assert list(reopened.movable_list("todo")) == list(todo)


def test_an_undo_leaves_what_others_did_meanwhile() -> None:
    one, two = Site(1), Site(2)
    stack = one.document.undo_stack(
        one.document.set("tags"), one.document.movable_list("todo"), now=lambda: Instant(0.0)
    )
    with one.document.transaction():
        one.document.set("tags").add("mine")
        one.document.movable_list("todo").append("mine")
    two.document.set("tags").add("theirs")
    two.document.movable_list("todo").append("theirs")
    meet(one, two)
    stack.undo()
    meet(one, two)
    for site in (one, two):
        assert list(site.document.set("tags")) == ["theirs"]
        assert list(site.document.movable_list("todo")) == ["theirs"]


def test_the_deepest_value_of_every_kind_passes_the_guard_of_a_peer() -> None:
    site = Site(1)
    document = site.document
    writes: list[Callable[[Any], None]] = [
        lambda value: document.map("map").update(a=value),
        document.list("array").append,
        document.set("tags").add,
        document.movable_list("todo").append,
        document.register("title").set,
        document.multi_value_register("owner").set,
    ]
    for write in writes:
        deepest: Any = ()
        while True:
            try:
                write(deepest)
            except ValueNotStorable:
                break
            deepest = (deepest,)
    assert len(site.made) == sum((64, 64, 64, 63, 63, 64))
    for update in site.made:
        inspect(update, document.limits)
