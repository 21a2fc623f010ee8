"""The door to the native engine: bytes, panics, callbacks, kinds of roots, digests."""

from __future__ import annotations

import gc
import weakref
from random import Random
from typing import Any

import pycrdt
import pytest

from crdt_state.errors import (
    DocumentClosed,
    EngineFailed,
    ObserversFailed,
    RootTypeConflict,
    UpdateMalformed,
    UsageError,
)
from crdt_state.model import engine
from crdt_state.model.engine import EMPTY_UPDATE, EMPTY_VECTOR, NativeDocument, RootKind


def typing_updates(count: int, *, client: int = 1) -> list[bytes]:
    document = NativeDocument(client)
    text = document.text("text")
    updates: list[bytes] = []
    document.observe(lambda update, _: updates.append(update))
    for number in range(count):
        with document.transaction():
            text.insert(0, str(number % 10))
    assert len(updates) == count
    return updates


def text_of(update: bytes) -> str:
    document = NativeDocument(99)
    document.apply(update)
    return document.text("text").string()


# --- bytes in, bytes out


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_a_merge_and_a_fold_say_what_all_of_their_updates_say(count: int) -> None:
    updates = typing_updates(count)
    expected = "".join(str(number % 10) for number in reversed(range(count)))
    shuffled = Random(count).sample(updates, count)
    assert text_of(engine.merge(shuffled)) == expected
    assert text_of(engine.fold(shuffled)) == expected


def test_merging_nothing_gives_the_empty_update() -> None:
    assert engine.merge([]) == EMPTY_UPDATE
    assert engine.fold([]) == EMPTY_UPDATE


def test_a_merge_keeps_what_waits_for_dependencies_and_a_fold_does_not() -> None:
    first, second, third = typing_updates(3)
    assert text_of(engine.merge([engine.merge([first, third]), second])) == "210"
    assert text_of(engine.fold([first, third])) == "0"
    assert text_of(engine.merge([engine.fold([first, third]), second])) == "10"


def test_a_diff_is_what_the_vector_does_not_cover() -> None:
    updates = typing_updates(10)
    whole, part = engine.merge(updates), engine.merge(updates[:4])
    rest = engine.diff(whole, engine.state_vector_of(part))
    assert len(rest) < len(whole)
    assert text_of(engine.merge([part, rest])) == text_of(whole)
    assert engine.diff(whole, engine.state_vector_of(whole)) == EMPTY_UPDATE


@pytest.mark.parametrize("damaged", [b"", b"\x01\x01", b"\xff", b"\x00"])
def test_bytes_that_are_no_update_are_refused_and_change_nothing(damaged: bytes) -> None:
    with pytest.raises(UpdateMalformed):
        engine.merge([damaged, EMPTY_UPDATE])
    with pytest.raises(UpdateMalformed):
        engine.state_vector_of(damaged)
    with pytest.raises(UpdateMalformed):
        engine.diff(damaged, EMPTY_VECTOR)
    document = NativeDocument(1)
    with pytest.raises(UpdateMalformed):
        document.apply(damaged)
    assert document.encode() == EMPTY_UPDATE
    assert not document.is_broken


def test_bytes_that_are_no_state_vector_are_refused() -> None:
    document = NativeDocument(1)
    with pytest.raises(UpdateMalformed):
        document.encode(b"\xff")
    with pytest.raises(UpdateMalformed):
        engine.diff(EMPTY_UPDATE, b"\xff")


# --- panics


def test_a_panic_ends_the_document_and_every_later_call_says_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    document = NativeDocument(1)
    text = document.text("text")
    document.undo(capture_milliseconds=500, origins=[1], timestamp=lambda: 1)
    told: list[Any] = []
    document.observe(lambda *seen: told.append(seen))
    with document.transaction():
        text.insert(0, "abc")
    told.clear()
    with pytest.raises(EngineFailed, match="rebuild"), document.transaction():
        text.delete(1, 10_000)
    assert document.is_broken
    assert told == []
    for call in (document.encode, document.state_vector, document.digest, text.string):
        with pytest.raises(EngineFailed):
            call()
    with pytest.raises(EngineFailed):
        document.apply(EMPTY_UPDATE)
    document.close()
    capfd.readouterr()  # The engine prints its panic.


def test_other_documents_live_on_after_a_panic(capfd: pytest.CaptureFixture[str]) -> None:
    broken, well = NativeDocument(1), NativeDocument(2)
    with pytest.raises(EngineFailed), broken.transaction():
        broken.text("text").delete(0, 1)
    with well.transaction():
        well.text("text").insert(0, "here")
    assert well.text("text").string() == "here"
    capfd.readouterr()


# --- transactions and callbacks


def test_a_transaction_gives_one_update_and_one_change_for_each_container() -> None:
    document = NativeDocument(1)
    text, numbers = document.text("text"), document.array("array")
    told: list[Any] = []
    numbers.observe(lambda change, origin: told.append(("array", change, origin)))
    text.observe(lambda change, origin: told.append(("text", change, origin)))
    document.observe(lambda update, origin: told.append(("update", type(update), origin)))
    with document.transaction(7):
        numbers.insert(0, [1, 2])
        with document.transaction(9):
            text.insert(0, "é")
        text.insert(2, "x")
    assert told == [
        ("update", bytes, 7),
        ("text", [{"insert": "éx"}], 7),
        ("array", [{"insert": [1, 2]}], 7),
    ]


def test_containers_tell_in_the_order_of_their_naming() -> None:
    document = NativeDocument(1)
    names = Random(5).sample([f"list {number}" for number in range(10)], 10)
    told: list[str] = []
    for name in names:
        document.array(name).observe(lambda _, __, name=name: told.append(name))
    with document.transaction():
        for name in sorted(names):
            document.array(name).insert(0, [name])
    assert told == names


def test_a_transaction_that_changes_nothing_tells_nothing() -> None:
    document = NativeDocument(1)
    told: list[Any] = []
    document.observe(lambda *seen: told.append(seen))
    with document.transaction():
        pass
    document.apply(EMPTY_UPDATE)
    with document.transaction():
        document.text("text").insert(0, "x")
    document.apply(document.encode())
    assert len(told) == 1


def test_a_failing_callback_spares_the_transaction_and_the_other_callbacks() -> None:
    document = NativeDocument(1)
    text = document.text("text")
    told: list[bytes] = []

    def fail(_: bytes, __: int) -> None:
        raise KeyError("mine")

    document.observe(fail)
    document.observe(lambda update, _: told.append(update))
    with pytest.raises(ObserversFailed) as caught, document.transaction():
        text.insert(0, "x")
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert text.string() == "x"
    assert len(told) == 1


def test_the_error_of_a_block_is_not_hidden_by_a_failing_callback() -> None:
    document = NativeDocument(1)

    def fail(_: bytes, __: int) -> None:
        raise KeyError("mine")

    document.observe(fail)

    def write_and_fail() -> None:
        with document.transaction():
            document.text("text").insert(0, "x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        write_and_fail()
    assert "KeyError" in caught.value.__notes__[0]
    assert document.text("text").string() == "x"


def test_a_callback_may_write_and_its_write_is_told_after_its_cause() -> None:
    document = NativeDocument(1)
    text = document.text("text")
    told: list[int] = []

    def answer(_: bytes, origin: int) -> None:
        document.later(told.append, origin)
        if origin == 1:
            with document.transaction(2):
                text.insert(0, "answer")

    document.observe(answer)
    with document.transaction(1):
        text.insert(0, "x")
    assert told == [1, 2]
    assert text.string() == "answerx"


def test_an_update_is_not_applied_inside_a_transaction() -> None:
    document = NativeDocument(1)
    with document.transaction(), pytest.raises(UsageError):
        document.apply(EMPTY_UPDATE)


def test_a_closed_document_is_collected_although_it_was_observed() -> None:
    document = NativeDocument(1)
    document.observe(lambda *_: None)
    document.text("text").observe(lambda *_: None)
    document.undo(capture_milliseconds=500, origins=[1], timestamp=lambda: 1).expand(
        document.text("text")._shared
    )
    native, mine = weakref.ref(document._doc), weakref.ref(document)
    gc.collect()
    assert native() is not None
    document.close()
    document.close()
    gc.collect()
    assert native() is None
    with pytest.raises(DocumentClosed):
        document.encode()
    del document
    gc.collect()
    assert mine() is None


@pytest.mark.parametrize("is_left_open", [False, True], ids=["at rest", "in a transaction"])
def test_a_document_that_nobody_closed_is_collected_although_it_was_observed(
    *, is_left_open: bool
) -> None:
    def abandoned() -> tuple[weakref.ref[Any], ...]:
        document = NativeDocument(1)
        text = document.text("text")
        told: list[Any] = []
        # Callbacks that hold the document, as those of every caller do.
        document.observe(lambda *_: told.append(document))
        text.observe(lambda *_: told.append(text))
        undo = document.undo(
            capture_milliseconds=500, origins=[1], timestamp=lambda: document.committed + 1
        )
        text.track_by(undo)
        with document.transaction(1):
            text.insert(0, "x")
        assert told == [document, text]
        assert undo.depth() == (1, 0)
        if is_left_open:
            document.begin(1, 1)
            text.insert(0, "y")
        return weakref.ref(document), weakref.ref(document._doc), weakref.ref(undo)

    gone = abandoned()
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_an_undo_manager_that_was_ended_lets_go_of_the_engines_own() -> None:
    document = NativeDocument(1)
    undo = document.undo(capture_milliseconds=500, origins=[1], timestamp=lambda: 1)
    document.text("text").track_by(undo)
    native = weakref.ref(undo._manager)
    document.end_undo(undo)
    document.end_undo(undo)
    assert native() is None
    with document.transaction(1):
        document.text("text").insert(0, "x")


# --- kinds of roots


def a_document_of_every_kind() -> bytes:
    source: pycrdt.Doc[Any] = pycrdt.Doc(client_id=5)
    text = source.get("text", type=pycrdt.Text)
    text += "héllo"
    text.insert_embed(0, {"image": 1})
    text.format(3, 5, {"bold": True})
    source.get("map", type=pycrdt.Map)["key"] = pycrdt.Map({"deep": pycrdt.Array([1, 2.5])})
    source.get("list", type=pycrdt.Array).extend([1, "a", None, b"\x01"])
    source.get("nested", type=pycrdt.Array).append(pycrdt.Map({"a": 1}))
    source.get("embeds", type=pycrdt.Text).insert_embed(0, {"image": 1})
    element = pycrdt.XmlElement("p", {"z": "1", "a": "2"}, ["hi"])
    source.get("xml", type=pycrdt.XmlFragment).children.append(element)
    gone = source.get("gone", type=pycrdt.Text)
    gone += "x"
    gone.clear()
    return source.get_update()


def test_the_kind_of_a_root_that_came_from_a_peer_is_told_by_what_it_holds() -> None:
    document = NativeDocument(1)
    document.apply(a_document_of_every_kind())
    assert document.roots() == {
        "embeds": RootKind.TEXT,
        "gone": None,
        "list": RootKind.LIST,
        "map": RootKind.MAP,
        "nested": RootKind.LIST,
        "text": RootKind.TEXT,
        "xml": RootKind.XML,
    }
    # Looking must not have fixed a type inside the engine: each still observes as what it is.
    told: list[Any] = []
    document.text("text").observe(lambda change, _: told.append(change))
    document.map("map").observe(lambda change, _: told.append(change))
    with document.transaction():
        document.text("text").insert(0, "x")
        document.map("map").set("new", 1)
    assert told == [[{"insert": "x"}], {"new": ("add", None, 1)}]


def test_everything_is_readable_as_json() -> None:
    document = NativeDocument(1)
    document.apply(a_document_of_every_kind())
    assert document.as_json() == {
        "embeds": "",
        "list": [1, "a", None, {"base64": "AQ=="}],
        "map": {"key": {"deep": [1, 2.5]}},
        "nested": [{"a": 1}],
        "text": "héllo",
        "xml": [{"tag": "p", "attributes": {"a": "2", "z": "1"}, "children": ["hi"]}],
    }
    assert document.as_json({"gone": RootKind.TEXT})["gone"] == ""


def test_a_root_used_as_two_types_is_an_error_and_stays_usable_as_what_it_is() -> None:
    document = NativeDocument(1)
    document.apply(a_document_of_every_kind())
    for ask in (document.map, document.array):
        with pytest.raises(RootTypeConflict, match="is a text"):
            ask("text")
    with pytest.raises(RootTypeConflict):
        document.text("map")
    assert document.text("text").string() == "héllo"
    with pytest.raises(RootTypeConflict):
        document.array("text")
    # What holds nothing can become anything.
    assert len(document.array("gone")) == 0


# --- digests


def test_a_digest_is_the_same_however_the_state_was_reached() -> None:
    updates = [*typing_updates(20), a_document_of_every_kind()]
    digests = set()
    for seed in range(5):
        document = NativeDocument(100 + seed)
        for update in Random(seed).sample(updates * 2, len(updates) * 2):
            document.apply(update)
        digests.add((document.digest(), document.deep_digest()))
    assert len(digests) == 1


def test_a_digest_sees_a_deletion_that_the_state_vector_does_not() -> None:
    document = NativeDocument(1)
    with document.transaction():
        document.text("text").insert(0, "abc")
    vector, digest = document.state_vector(), document.digest()
    with document.transaction():
        document.text("text").delete(0, 1)
    assert document.state_vector() == vector
    assert document.digest() != digest
    assert document.delete_set() == {1: ((0, 1),)}


def test_only_the_deep_digest_sees_a_counter_used_twice() -> None:
    documents = []
    for word in ("one", "two"):
        document = NativeDocument(1)
        with document.transaction():
            document.text("text").insert(0, word)
        documents.append(document)
    first, second = documents
    assert first.digest() == second.digest()
    assert first.deep_digest() != second.deep_digest()


def test_an_undo_manager_forgets_its_oldest_steps() -> None:
    document = NativeDocument(1)
    numbers = document.array("array")
    time = 0

    def later() -> int:
        nonlocal time
        time += 10_000
        return time

    undo = document.undo(capture_milliseconds=500, origins=[1], timestamp=later)
    numbers.track_by(undo)
    for number in range(10):
        with document.transaction(1):
            numbers.insert(number, [number])
    assert undo.depth() == (10, 0)
    undo.keep(3)
    assert undo.depth() == (3, 0)
    while undo.undo(2):
        pass
    assert numbers.values() == [0, 1, 2, 3, 4, 5, 6]
