"""A stock Yjs program in Node reads what Python wrote and writes what Python reads."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from crdt_state.errors import RootTypeConflict
from crdt_state.lib0 import VARUINT_MAX
from crdt_state.model.layout import TIME_MAX, kind_of_root, next_stamp, stamp_from
from offline_sites import START, Site, meet


def content(site: Site) -> dict[str, Any]:
    document = site.document
    return {
        "text": str(document.text("text")),
        "map": dict(document.map("map")),
        "list": list(document.list("array")),
        "counter": document.counter("likes").value,
        "set": list(document.set("tags")),
        "movableList": list(document.movable_list("todo")),
        "register": document.register("title").value,
        "multiValueRegister": list(document.multi_value_register("owner").values),
    }


def edited() -> tuple[Site, Site]:
    """Two sites with a document that holds every kind, conflicts included."""
    one, two = Site(1), Site(2)
    first = one.document
    first.text("text").insert(0, "naïve 漢字 👩‍👩‍👧")
    first.map("map").update(a=1, b=[True, None, 2.5])
    first.list("array").extend([1, "two", {"three": 3}])
    first.counter("likes").add(5)
    first.set("tags").update(["old", 7])
    first.movable_list("todo").extend("abcd")
    first.register("title").set("first")
    meet(one, two)
    second = two.document
    two.time.advance(1)
    second.counter("likes").add(-2)
    for site in (one, two):
        site.document.set("tags").add("both")
    first.movable_list("todo").move(0, 3)
    second.movable_list("todo").move(0, 2)
    second.movable_list("todo")[2] = "A"
    first.register("title").set("earlier")
    second.register("title").set("later")
    first.multi_value_register("owner").set("ann")
    second.multi_value_register("owner").set("bob")
    meet(one, two)
    return one, two


@pytest.mark.node
def test_node_reads_what_python_wrote_and_python_reads_what_node_wrote(
    node_programs: Path,
) -> None:
    one, two = edited()
    before = content(one)
    assert before == content(two)
    assert before["movableList"] == ["b", "c", "A", "d"]
    state = b64encode(one.document.encode()).decode()
    ran = subprocess.run(
        ["node", "layout.mjs"],
        cwd=node_programs,
        input=json.dumps({"update": state}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert answer["read"] == before
    for site in (one, two):
        site.document.apply(b64decode(answer["update"]))
        after = content(site)
        assert after == answer["then"]
        assert after["text"] == "🐝 " + before["text"]
        assert after["map"] == {**before["map"], "node": [1.5, None, {"a": True}]}
        assert after["list"] == [*before["list"], "from Node"]
        assert after["counter"] == before["counter"] + 7
        assert set(after["set"]) == {7, "both", "node"}
        assert after["register"] == {"by": "Node"}
        assert after["multiValueRegister"] == ["node"]
        assert after["movableList"] == ["replaced", "A", "b", "d", "last"]


def test_the_kind_of_a_root_is_read_off_its_name() -> None:
    assert kind_of_root("likes#counter") == ("likes", "counter")
    assert kind_of_root("a#b#movable") == ("a#b", "movable list")
    for plain in ("text", "#", "likes#", "likes#other", "counter"):
        assert kind_of_root(plain) is None


def test_a_root_of_one_kind_is_not_opened_as_a_plain_one() -> None:
    with pytest.raises(RootTypeConflict):
        Site(1).document.map("likes#counter")


def test_containers_of_one_name_and_different_kinds_do_not_meet() -> None:
    document = Site(1).document
    document.set("x").add(1)
    document.counter("x").add(2)
    document.text("x").insert(0, "three")
    assert list(document.set("x")) == [1]
    assert document.counter("x").value == 2
    assert document.as_json()["x"] == "three"


def test_stamps_are_pairs_of_numbers_within_their_ranges() -> None:
    assert stamp_from(5, 6) == (5, 6)
    for time, writer in ((5.5, 6), (-1, 6), (5, -6), (2**53, 6), (5, 2**53), (True, 6), ("5", 6)):
        assert stamp_from(time, writer) is None


def test_a_stamp_is_later_than_what_was_seen_and_never_beyond_its_range() -> None:
    site = Site(1)
    clock, writer = site.clock, site.document.client_id
    assert next_stamp(clock, writer) == (START, writer)
    assert next_stamp(clock, writer, seen=START + 100) == (START + 101, writer)
    assert next_stamp(clock, writer, seen=VARUINT_MAX) == (TIME_MAX, writer)
