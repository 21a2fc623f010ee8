"""What pycrdt does that shapes our code.  A failure here is news from upstream, not a defect.

When one of these fails after an upgrade, the code that works around it can go: each test names
that code.  What kills or stalls a process is shown in tests/replica/test_hostile_shapes.py.
"""

from __future__ import annotations

import gc
import weakref
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pycrdt
import pytest

from bare_child import Fate, fate_of

if TYPE_CHECKING:
    from collections.abc import Callable

Doc = pycrdt.Doc[Any]


def text_in(doc: Doc, content: str = "") -> pycrdt.Text:
    text = doc.get("text", type=pycrdt.Text)
    if content:
        text.insert(0, content)
    return text


def panics(function: Callable[[], object]) -> bool:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is checked below
        function()
    return caught.typename == "PanicException" and not isinstance(caught.value, Exception)


# --- text: the reason for model/text.py and model/code_points.py


def test_text_counts_bytes_of_utf8_but_slices_code_points() -> None:
    text = text_in(Doc(), "a😀b")
    assert len(text) == 6
    assert text[1:2] == "😀"
    text.insert(5, "x")
    assert str(text) == "a😀xb"
    del text[1:5]
    assert str(text) == "axb"


def test_deltas_count_bytes_of_utf8_and_an_embedded_value_as_one() -> None:
    text = text_in(Doc(), "😀中")
    deltas: list[Any] = []
    text.observe(lambda event: deltas.append(event.delta))
    text.insert_embed(4, {"image": 1})
    del text[5:8]
    assert deltas == [
        [{"retain": 4}, {"insert": {"image": 1.0}}],
        [{"retain": 5}, {"delete": 3}],
    ]


def test_an_index_inside_a_character_raises_nothing_and_does_something_else() -> None:
    text = text_in(Doc(), "😀bc")
    text.insert(2, "x")
    assert str(text) != "😀bc"
    assert str(text) == "😀bcx"


def test_deleting_past_the_end_panics_and_has_deleted(capfd: pytest.CaptureFixture[str]) -> None:
    doc = Doc()
    text = text_in(doc, "abc")
    assert panics(lambda: text.__delitem__(slice(1, 99)))
    assert str(text) == "a"
    capfd.readouterr()


def test_a_lone_surrogate_panics_in_a_map_and_raises_in_a_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    doc = Doc()
    with pytest.raises(UnicodeEncodeError):
        text_in(doc, "\ud800")
    mapping = doc.get("map", type=pycrdt.Map)
    assert panics(lambda: mapping.__setitem__("key", "\ud800"))
    capfd.readouterr()


def test_sticky_indexes_are_right_for_ascii_only(capfd: pytest.CaptureFixture[str]) -> None:
    # The reason for NativeText.neighbours, byte_before and byte_behind.
    text = text_in(Doc(client_id=5), "😀中")
    text.insert(4, "x")
    ends = text.sticky_index(4, pycrdt.Assoc.AFTER)
    assert ends.to_json()["item"] == {"client": 5, "clock": 3}
    begins = text.sticky_index(5, pycrdt.Assoc.AFTER)
    assert begins.to_json()["item"] == {"client": 5, "clock": 2}
    # Unit 1 of the first block is the second half of a pair; its byte would be 2 or 4, not 1.
    middle = text.sticky_index(1, pycrdt.Assoc.AFTER)
    assert (middle.to_json()["item"]["clock"], middle.get_index()) == (1, 1)
    assert panics(lambda: text.sticky_index(99, pycrdt.Assoc.AFTER))
    nowhere = pycrdt.StickyIndex.decode(b"\x00\x4d\x00\x00", text)
    assert panics(nowhere.get_index)
    capfd.readouterr()


# --- order: the reason for model/waiting.py and the pending table

# Client 1 types "a"; client 3 types "b", "c", "d", each its own update.
FIRST = bytes.fromhex("0101010004010474657874016100")
SECOND = bytes.fromhex("0101030004010474657874016200")
THIRD = bytes.fromhex("010103014401000163" + "00")
FOURTH = bytes.fromhex("01010302c401000300016400")


def test_of_two_updates_that_wait_for_a_third_one_may_wait_for_ever() -> None:
    shown = []
    for order in permutations((FIRST, SECOND, THIRD, FOURTH)):
        doc = Doc()
        for update in order:
            doc.apply_update(update)
        doc.apply_update(b"\x00\x00")
        shown.append(len(str(text_in(doc))))
    # Yjs shows all four in all 24 orders.
    assert set(shown) == {3, 4}


def test_an_encoding_leaves_out_what_waits() -> None:
    doc = Doc()
    doc.apply_update(THIRD)
    assert doc.get_update() == b"\x00\x00"
    doc.apply_update(FIRST)
    doc.apply_update(SECOND)
    assert len(str(text_in(doc))) == 3


# --- states: the reason for model/state.py and the digests of integrated documents


def test_a_deletion_leaves_the_state_vector_as_it_was_and_is_sent_every_time() -> None:
    doc = Doc(client_id=1)
    text = text_in(doc, "abc")
    before = doc.get_state()
    del text[0:1]
    assert doc.get_state() == before
    assert doc.get_update(before) == b"\x00\x01\x01\x01\x00\x01"


def test_integration_deletes_what_no_update_names() -> None:
    here, there = Doc(client_id=1), Doc(client_id=2)
    for doc, value in ((here, "here"), (there, "there")):
        doc.get("map", type=pycrdt.Map)["key"] = value
    updates = [doc.get_update() for doc in (here, there)]
    assert all(update.endswith(b"\x00") for update in updates)
    here.apply_update(updates[1])
    assert here.get_update(here.get_state()) == b"\x00\x01\x01\x01\x00\x01"
    # And a conflict goes to the higher client id, not to the later write.
    assert here.get("map", type=pycrdt.Map)["key"] == "there"


def test_nested_containers_made_under_one_key_at_once_lose_one_of_them() -> None:
    here, there = Doc(client_id=1), Doc(client_id=2)
    for doc, value in ((here, "here"), (there, "there")):
        doc.get("map", type=pycrdt.Map)["key"] = pycrdt.Array([value])
    here.apply_update(there.get_update())
    assert here.get("map", type=pycrdt.Map).to_py() == {"key": ["there"]}


def test_a_deleted_key_of_a_map_stays_in_the_state_for_ever() -> None:
    doc = Doc(client_id=1)
    mapping = doc.get("map", type=pycrdt.Map)
    for number in range(100):
        mapping[f"a rather long key {number}"] = 1
    size = len(doc.get_update())
    mapping.clear()
    assert len(doc.get_update()) > size / 2


# --- what the rest of model/engine is built on


def test_numbers_come_back_as_floats_and_buffers_as_bytearrays() -> None:
    mapping = Doc().get("map", type=pycrdt.Map)
    mapping["value"] = [1, 2**53, b"x"]
    found = mapping["value"]
    assert [type(part) for part in found] == [float, int, bytearray]


def test_an_exception_does_not_roll_a_transaction_back() -> None:
    doc = Doc()
    text = text_in(doc)
    with pytest.raises(ZeroDivisionError), doc.transaction():
        raise text.insert(0, "kept") or ZeroDivisionError
    assert str(text) == "kept"


def test_roots_that_came_from_a_peer_have_no_type_until_they_are_named() -> None:
    source, copy = Doc(), Doc()
    text_in(source, "abc")
    copy.apply_update(source.get_update())
    assert dict(copy.items()) == {"text": None}


def test_the_first_naming_of_a_root_fixes_its_type_and_observing_another_panics(
    capfd: pytest.CaptureFixture[str],
) -> None:
    doc = Doc()
    doc.get("root", type=pycrdt.Map)
    text = doc.get("root", type=pycrdt.Text)
    text.observe(lambda _: None)
    assert panics(lambda: text.insert(0, "x"))
    capfd.readouterr()


def test_a_document_with_a_live_observer_is_never_collected() -> None:
    fates = []
    for is_observed in (True, False):
        doc = Doc()
        subscription = doc.observe(lambda _, doc=doc: None)
        if not is_observed:
            doc.unobserve(subscription)
        found = weakref.ref(doc)
        del doc, subscription
        gc.collect()
        fates.append(found() is not None)
        if found() is not None:
            survivor = found()
            assert survivor is not None
            survivor.unobserve(survivor._subscriptions[0])
            del survivor
    assert fates == [True, False]


def test_observing_a_text_costs_a_walk_through_it() -> None:
    # Its wrapper computes the delta whether or not it is read: so Text observes on demand.
    doc = Doc()
    text = text_in(doc, "x")
    seen: list[Any] = []
    text.observe(seen.append)
    text.insert(0, "y")
    assert [sorted(type(event).__slots__) for event in seen] == [
        ["delta", "path", "target", "transaction"]
    ]


def test_an_undo_manager_asks_for_the_time_once_for_each_captured_transaction() -> None:
    # UndoStack decides in that call to which step an edit belongs.
    doc, asked = Doc(), []

    def now() -> int:
        asked.append(1)
        return 1_000

    text, other = text_in(doc), doc.get("other", type=pycrdt.Text)
    manager = pycrdt.UndoManager(scopes=[text], capture_timeout_millis=500, timestamp=now)
    manager.include_origin(1)
    asked.clear()
    for origin, target in ((1, text), (2, text), (1, other), (1, text)):
        with doc.transaction(origin=origin):
            target.insert(0, "x")
    assert len(asked) == 2
    assert len(manager.undo_stack) == 1


def test_the_second_version_of_the_format_is_accepted_and_stores_nothing() -> None:
    second = bytes.fromhex("00000101000001040805746578746104010101000001010000")
    doc = Doc()
    doc.apply_update(second)
    assert doc.get_update() == b"\x00\x00"


def test_values_nested_30_000_deep_kill_the_process() -> None:
    nested = b"\x01\x01\x01\x00\x08\x01\x05array\x01" + b"\x75\x01" * 30_000 + b"\x7e\x00"
    assert fate_of([nested], seconds=20.0).fate is Fate.DIED
