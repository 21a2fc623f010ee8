"""Text in code points: against plain lists, over several replicas, at every bad index."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.errors import IndexOutOfRange, UsageError, ValueNotStorable
from crdt_state.model.document import Document
from crdt_state.model.text import Delete, Delta, Insert, Retain, Text, TextEvent
from model.documents import assert_converged, document, updates_of

ALPHABET = "ab \n" + "é" + "中文" + "😀🏳" + "\u0301\u200d\ufe0f" + "👩‍👩‍👧" + "\ufffc"
WORDS = st.text(alphabet=ALPHABET, max_size=6)

Model = list[Any]
"""One entry for each code point, and the value itself for an embedded value."""


def model_of(text: Text) -> Model:
    model: Model = []
    for run in text.runs():
        model.extend(run.content if isinstance(run.content, str) else [run.content])
    return model


def applied(delta: Delta, before: Model) -> Model:
    after, at = [], 0
    for operation in delta:
        match operation:
            case Retain(count):
                after.extend(before[at : at + count])
                at += count
            case Delete(count):
                assert at + count <= len(before)
                at += count
            case Insert(content):
                after.extend(content if isinstance(content, str) else [content])
    return after + before[at:]


def edit(data: st.DataObject, text: Text, model: Model) -> None:
    """One random edit, made in both."""
    index = data.draw(st.integers(0, len(model)))
    count = data.draw(st.integers(0, min(5, len(model) - index)))
    match data.draw(st.sampled_from(["insert", "insert", "delete", "replace", "embed", "format"])):
        case "insert":
            word = data.draw(WORDS)
            text.insert(index, word)
            model[index:index] = word
        case "delete":
            text.delete(index, count)
            del model[index : index + count]
        case "replace":
            word = data.draw(WORDS)
            text.replace(index, count, word)
            model[index : index + count] = word
        case "embed":
            text.insert_embed(index, {"image": count})
            model.insert(index, {"image": count})
        case "format":
            text.format(index, count, {"bold": True})


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_a_text_does_what_a_list_of_code_points_does(data: st.DataObject) -> None:
    source = document()
    text, model = source.text("text"), []
    followed: Model = []

    def follow(event: TextEvent) -> None:
        followed[:] = applied(event.delta, followed)

    if data.draw(st.booleans()):
        text.observe(follow)
        is_followed = True
    else:
        is_followed = False
    for _ in range(data.draw(st.integers(1, 10))):
        with source.transaction():
            for _ in range(data.draw(st.integers(1, 3))):
                edit(data, text, model)
                assert len(text) == len(model)
                assert str(text) == "".join(part for part in model if isinstance(part, str))
        assert model_of(text) == model
        if is_followed:
            assert followed == model


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_three_replicas_converge_and_their_events_tell_the_whole_story(
    data: st.DataObject,
) -> None:
    replicas = [document(client) for client in (1, 2, 3)]
    texts = [replica.text("text") for replica in replicas]
    stories: list[Model] = [[], [], []]
    edits = 0
    outboxes = [updates_of(replica) for replica in replicas]

    def following(story: Model) -> Any:
        return lambda event: story.__setitem__(slice(None), applied(event.delta, story))

    for text, story in zip(texts, stories, strict=True):
        text.observe(following(story))
    for _ in range(data.draw(st.integers(2, 10))):
        who = data.draw(st.integers(0, 2))
        edit(data, texts[who], model_of(texts[who]))
        whose = data.draw(st.integers(0, 2))
        if whose != who and outboxes[whose]:
            replicas[who].apply(data.draw(st.sampled_from(outboxes[whose])))
        for text, story in zip(texts, stories, strict=True):
            assert model_of(text) == story
            assert len(text) == len(story)
    for replica in replicas:
        everything = [update for outbox in outboxes for update in outbox]
        edits = len(everything)
        for update in data.draw(st.permutations(everything)):
            replica.apply(update)
    assert_converged(*replicas)
    assert edits == 0 or stories[0] == stories[1] == stories[2] == model_of(texts[0])


def test_the_examples_of_every_measure() -> None:
    text = document().text("text")
    text.append("a😀中e\u0301")
    assert (len(text), str(text), text[1], text[-1], text[1:3]) == (
        5,
        "a😀中e\u0301",
        "😀",
        "\u0301",
        "😀中",
    )
    text.delete(1)
    assert str(text) == "a中e\u0301"
    text[1:2] = "😀😀"
    assert str(text) == "a😀😀e\u0301"
    del text[-1]
    del text[0:2]
    assert str(text) == "😀e"
    assert "😀" in text
    text[0] = "x"
    text.clear()
    assert str(text) == ""
    text.clear()


@pytest.mark.parametrize("content", ["", "abc", "a😀中"])
def test_a_bad_index_is_refused_before_anything_happens(content: str) -> None:
    source = document()
    text = source.text("text")
    text.append(content)
    updates = updates_of(source)
    size = len(content)
    for call in (
        lambda: text.insert(size + 1, "x"),
        lambda: text.insert(-1, "x"),
        lambda: text.delete(size, 1),
        lambda: text.delete(0, size + 1),
        lambda: text.delete(0, -1),
        lambda: text.delete(-1, 1),
        lambda: text.replace(0, size + 1, "x"),
        lambda: text.format(0, size + 1, {"bold": True}),
        lambda: text.insert_embed(size + 1, {}),
        lambda: text.edit([Retain(size + 1)]),
        lambda: text.edit([Insert("x"), Retain(size), Delete(1)]),
        lambda: text.position(size + 1),
        lambda: text[size],
        lambda: text.__delitem__(slice(0, size + 1)),
        lambda: text.__setitem__(slice(size + 1, size + 1), "x"),
    ):
        with pytest.raises(IndexOutOfRange):
            call()
    assert str(text) == content
    assert updates == []


def test_what_a_text_cannot_hold_is_refused_before_anything_happens() -> None:
    source = document()
    text = source.text("text")
    updates = updates_of(source)
    with pytest.raises(ValueNotStorable, match=r"text\[2\].*surrogate"):
        text.append("ab\ud83d")
    with pytest.raises(ValueNotStorable, match="int"):
        text.append(5)  # type: ignore[arg-type]
    with pytest.raises(ValueNotStorable, match=r"attributes"):
        text.insert(0, "x", {"when": object()})
    with pytest.raises(ValueNotStorable, match="string"):
        text.insert_embed(0, "x")
    with pytest.raises(ValueNotStorable):
        text.edit([Insert("fine"), Insert({"n": float("nan")})])
    with pytest.raises(UsageError):
        text.edit(["not an operation"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="step"):
        text[::2] = "x"
    assert (len(text), updates) == (0, [])


def test_formatting_is_kept_in_runs_and_taken_away_by_none() -> None:
    text = document().text("text")
    text.append("a😀bc")
    text.format(1, 2, {"bold": True, "size": 2})
    assert text.runs() == (
        Insert("a"),
        Insert("😀b", {"bold": True, "size": 2}),
        Insert("c"),
    )
    text.insert(2, "中")
    text.insert(0, "plain", {})
    text.format(0, len(text), {"size": None})
    assert text.runs() == (Insert("plaina"), Insert("😀中b", {"bold": True}), Insert("c"))


def test_a_delta_is_carried_out_in_one_transaction() -> None:
    source = document()
    text = source.text("text")
    text.append("one two")
    updates = updates_of(source)
    events: list[TextEvent] = []
    text.observe(events.append)
    delta = (
        Retain(3, {"bold": True}),
        Insert("中"),
        Delete(1),
        Insert({"image": 1}),
        Retain(2),
        Delete(1),
    )
    text.edit(delta)
    assert (
        text.runs()
        == (
            Insert("one中", {"bold": True}),
            Insert({"image": 1}, {"bold": True}),
            Insert("tw"),
        )
        or str(text) == "one中tw"
    )
    assert (len(updates), len(events)) == (1, 1)
    assert applied(events[0].delta, list("one two")) == [*"one中", {"image": 1}, *"tw"]


def test_what_was_written_and_taken_back_in_one_transaction_is_no_event() -> None:
    source = document()
    text = source.text("text")
    text.append("😀")
    events: list[TextEvent] = []
    text.observe(events.append)
    with source.transaction("nothing"):
        text.insert(0, "中")
        text.delete(0)
    other = document(2, [source.encode()])
    other.text("text").insert(1, "é")
    source.apply(other.encode(), origin="peer")
    assert events == [TextEvent(delta=(Retain(1), Insert("é")), is_local=False, origin="peer")]


def test_reads_inside_a_transaction_see_its_writes() -> None:
    source = document()
    text = source.text("text")
    with source.transaction():
        text.append("😀")
        text.append("x")
        assert (len(text), text[1], str(text)) == (2, "x", "😀x")


def test_a_text_that_a_peer_changed_is_read_anew(replicas: tuple[Document, Document]) -> None:
    here, there = replicas
    here.text("text").append("中")
    there.apply(here.encode())
    there.text("text").insert(0, "😀")
    here.apply(there.encode())
    here.text("text").insert(2, "x")
    assert str(here.text("text")) == "😀中x"


@pytest.fixture
def replicas() -> tuple[Document, Document]:
    return document(1), document(2)
