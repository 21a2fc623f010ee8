"""The list is exactly the Yjs array of its name, and feels like a list."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.errors import IndexOutOfRange, UsageError, ValueNotStorable
from crdt_state.model.list import List, ListEvent, ValuesInserted
from offline_sites import ForeignProgram, Site, followed, meet

INDEX = st.integers(-4, 12)
EDITS = st.lists(
    st.tuples(st.just("insert"), INDEX, st.integers(0, 99))
    | st.tuples(st.just("set"), INDEX, st.integers(0, 99))
    | st.tuples(st.just("delete"), INDEX, st.just(0))
    | st.tuples(st.just("splice"), INDEX, INDEX),
    max_size=25,
)


def items(site: Site) -> List:
    return site.document.list("array")


def inserting(site: Site, value: int) -> Callable[[int], None]:
    return lambda index: items(site).insert(index, value)


@given(EDITS)
def test_a_list_does_what_a_python_list_does(edits: list[tuple[str, int, int]]) -> None:
    site, model, told = Site(1), [], []

    def follow(event: ListEvent) -> None:
        told[:] = followed(told, event.delta)

    items(site).observe(follow)
    for verb, index, other in edits:
        size = len(model)
        match verb:
            case "insert" if -size <= index <= size:
                model.insert(index, other)
                items(site).insert(index, other)
            case "set" if -size <= index < size:
                model[index] = other
                items(site)[index] = other
            case "delete" if -size <= index < size:
                del model[index]
                del items(site)[index]
            case "splice":
                model[index:other] = [1, 2]
                items(site)[index:other] = [1, 2]
            case _:
                verb_with_index = items(site).pop if verb != "insert" else inserting(site, other)
                with pytest.raises(IndexOutOfRange):
                    verb_with_index(index)
        assert list(items(site)) == model == told
        assert items(site)[-3:] == model[-3:]


def test_a_list_is_a_mutable_sequence() -> None:
    todo = items(Site(1))
    assert isinstance(todo, MutableSequence)
    todo.extend(["a", "b", "c"])
    todo += ["d"]
    assert todo.pop() == "d"
    todo.remove("a")
    assert todo.index("c") == 1
    assert todo.count("b") == 1
    assert "b" in todo
    todo.reverse()
    assert list(todo) == ["c", "b"]
    todo.clear()
    assert not todo


@pytest.mark.parametrize("index", [3, -4, 100])
def test_an_index_outside_the_list_is_refused_before_anything_happens(index: int) -> None:
    site = Site(1)
    items(site).extend([1, 2, 3])
    for attempt in (
        lambda: items(site)[index],
        lambda: items(site).__setitem__(index, 0),
        lambda: items(site).__delitem__(index),
        lambda: items(site).pop(index),
        lambda: items(site).insert(4 if index > 0 else index, 0),
    ):
        with pytest.raises(IndexOutOfRange):
            attempt()
    assert len(site.made) == 1


def test_an_index_into_an_empty_list_is_an_index_error_too() -> None:
    with pytest.raises(IndexError):
        items(Site(1)).pop()


def test_nothing_is_inserted_where_one_value_is_refused() -> None:
    site = Site(1)
    with pytest.raises(ValueNotStorable) as refused:
        items(site).extend([1, [2, {3}]])
    assert refused.value.path == "value 1[1]"
    assert site.made == []


def test_a_slice_with_steps_is_read_only() -> None:
    todo = items(Site(1))
    todo.extend(range(6))
    assert todo[::2] == [0, 2, 4]
    with pytest.raises(UsageError):
        del todo[::2]


def test_it_is_the_yjs_array_of_that_name() -> None:
    site, foreign = Site(1), ForeignProgram()
    items(site).extend([1, "two"])
    meet(site, foreign)
    foreign.push("array", 3.0, None)
    meet(site, foreign)
    assert list(items(site)) == foreign.rows("array") == [1, "two", 3, None]


def test_inserts_at_one_place_at_the_same_time_all_stay_and_are_not_interleaved() -> None:
    one, two = Site(1), Site(2)
    for value in ("a", "b", "c"):
        items(one).append(value)
    for value in ("x", "y", "z"):
        items(two).append(value)
    meet(one, two)
    assert list(items(one)) == list(items(two))
    assert "".join(items(one)) in {"abcxyz", "xyzabc"}


def test_reads_inside_a_transaction_see_its_writes_and_one_event_comes() -> None:
    site = Site(1)
    events: list[ListEvent] = []
    items(site).observe(events.append)
    with site.document.transaction():
        items(site).extend([1, 2, 3])
        del items(site)[0]
        assert list(items(site)) == [2, 3]
    assert [event.delta for event in events] == [(ValuesInserted((2, 3)),)]
    assert len(site.made) == 1
