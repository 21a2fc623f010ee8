"""`crdt_state.model.rebasing`: edits made once more, on a document that shares no history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_state.limits import Limits
from crdt_state.model.document import Document
from crdt_state.model.rebasing import Change, rebase, replayed
from model.documents import document

texts = st.text("abcd ", max_size=12)


def carried_out(text: str, changes: list[Change]) -> str:
    for at, deleted, new in changes:
        text = text[:at] + "".join(new) + text[at + deleted :]
    return text


def replay(base: str, ours: str, onto: str, most: int = 10_000) -> str:
    return carried_out(onto, replayed(base, ours, onto, most=most))


@given(texts, texts, st.sampled_from([0, 10_000]))
def test_on_what_was_there_before_the_edits_give_what_is_here(
    base: str, ours: str, most: int
) -> None:
    assert replay(base, ours, base, most) == ours
    assert replay(base, ours, ours, most) == ours, "both have edited alike"


@given(texts, texts)
def test_who_edited_nothing_changes_nothing(base: str, onto: str) -> None:
    assert replay(base, base, onto) == onto


@given(texts, texts, texts)
def test_nothing_is_doubled_that_all_three_have(base: str, ours: str, onto: str) -> None:
    found = replay(base, ours, onto)
    for letter in "abcd":
        most = onto.count(letter) + max(0, len(ours))
        assert found.count(letter) <= most


@pytest.mark.parametrize(
    ("base", "ours", "onto", "expected"),
    [
        ("hello world", "hello big world", "Hello world!", "Hello big world!"),
        ("abcde", "abe", "abcXde", "abXe"),
        ("abc def", "abc1 def", "XYZ def", "XYZ1 def"),
        ("abc", "abc!", "", "!"),
        ("", "new", "other", "newother"),
        ("same", "same and ours", "same and ours", "same and ours"),
    ],
)
def test_edits_go_where_their_neighbours_are(
    base: str, ours: str, onto: str, expected: str
) -> None:
    assert replay(base, ours, onto) == expected


def three(fill: Any, edit: Any, other: Any = None) -> tuple[Document, Document, Document]:
    """What was common, what was edited here, and a document of its own with the same content."""
    base = document(1)
    fill(base)
    ours = document(2, [base.encode()])
    edit(ours)
    onto = document(3)
    (other or fill)(onto)
    return base, ours, onto


def test_text_is_edited_and_not_doubled() -> None:
    def fill(each: Document) -> None:
        each.text("t").insert(0, "hello 🌍 world")

    base, ours, onto = three(fill, lambda each: each.text("t").replace(8, 5, "moon"))
    assert rebase(base, ours, onto) == ()
    assert str(onto.text("t")) == "hello 🌍 moon"
    assert rebase(base, ours, onto) == ()
    assert str(onto.text("t")) == "hello 🌍 moon"


def test_formats_and_embedded_values_are_passed_over_and_named() -> None:
    def edit(each: Document) -> None:
        each.text("formatted").insert(0, "bold", {"b": True})
        each.text("embedded").insert_embed(0, {"image": "x"})
        each.text("plain").insert(0, "plain")

    base, ours, onto = three(lambda _: None, edit)
    assert rebase(base, ours, onto) == ("embedded", "formatted")
    assert str(onto.text("formatted")) == "bold"
    assert str(onto.text("plain")) == "plain"
    assert len(onto.text("embedded")) == 0


def test_values_of_every_kind_follow() -> None:
    def fill(each: Document) -> None:
        each.map("m").update({"kept": 1, "gone": 2, "changed": [3]})
        each.list("l").extend([1, {"a": 1}, 3])
        each.movable_list("v").extend(["x", "y", "z"])
        each.set("s").update(["in", "out"])
        each.counter("c").add(10)
        each.register("r").set("before")
        each.multi_value_register("mv").set("before")

    def edit(each: Document) -> None:
        del each.map("m")["gone"]
        each.map("m").update({"changed": [4], "new": None})
        each.list("l").insert(1, True)
        del each.list("l")[2]
        each.movable_list("v").move(0, 2)
        each.set("s").remove("out")
        each.set("s").add("added")
        each.counter("c").add(-3)
        each.register("r").set("after")
        each.multi_value_register("mv").set("after")

    def other(each: Document) -> None:
        fill(each)
        each.map("m")["theirs"] = "stays"
        each.list("l").append(4)
        each.set("s").add("theirs")
        each.counter("c").add(100)

    base, ours, onto = three(fill, edit, other)
    assert rebase(base, ours, onto) == ()
    assert dict(onto.map("m")) == {"kept": 1, "changed": [4], "new": None, "theirs": "stays"}
    assert list(onto.list("l")) == [1, True, 3, 4]
    assert list(onto.movable_list("v")) == list(ours.movable_list("v")) == ["y", "z", "x"]
    assert set(onto.set("s")) == {"in", "added", "theirs"}
    assert onto.counter("c").value == 107
    assert onto.register("r").value == "after"
    assert onto.multi_value_register("mv").values == ("after",)


def test_a_root_of_another_kind_is_passed_over() -> None:
    base, ours, onto = three(
        lambda _: None,
        lambda each: each.text("x").insert(0, "text"),
        lambda each: each.map("x").update({"a": 1}),
    )
    assert rebase(base, ours, onto) == ("x",)
    assert dict(onto.map("x")) == {"a": 1}


def test_what_is_too_long_to_compare_is_replaced_in_one_piece() -> None:
    limits = Limits(rebase_comparisons_max=4)
    onto = document(3, limits=limits)
    onto.text("t").insert(0, "abcdef")
    base = document(1)
    base.text("t").insert(0, "abcdef")
    ours = document(2, [base.encode()])
    ours.text("t").insert(3, "1")
    ours.text("t").insert(1, "2")
    assert rebase(base, ours, onto) == ()
    assert str(onto.text("t")) == "a2bc1def"
