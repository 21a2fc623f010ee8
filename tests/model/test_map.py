"""The map is exactly the Yjs map of its name, and feels like a dictionary."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from crdt_state.errors import ValueNotStorable
from crdt_state.model.map import KeyChange, Map, MapEvent
from crdt_state.model.values import Codec
from offline_sites import ForeignProgram, Site, meet


def settings(site: Site) -> Map:
    return site.document.map("map")


def test_a_map_is_a_mutable_mapping() -> None:
    colours = settings(Site(1))
    assert isinstance(colours, MutableMapping)
    colours["b"] = 2.0
    colours.update(a=[1, b"x"], c=None)
    assert dict(colours) == {"a": [1, b"x"], "b": 2, "c": None}
    assert list(colours) == ["a", "b", "c"]
    assert colours.pop("b") == 2
    assert colours.setdefault("a", 5) == [1, b"x"]
    assert colours.get("never") is None
    assert "c" in colours
    assert 1 not in colours
    del colours["c"]
    assert len(colours) == 1
    colours.clear()
    assert not colours


def test_a_key_that_is_not_there_is_a_key_error() -> None:
    colours = settings(Site(1))
    with pytest.raises(KeyError):
        colours["a"]
    with pytest.raises(KeyError):
        del colours["a"]


def test_a_map_equals_only_itself_and_can_be_a_key() -> None:
    site = Site(1)
    assert settings(site) == settings(site)
    assert settings(site) != site.document.map("other")
    assert {settings(site): 1}[settings(site)] == 1


def test_it_is_the_yjs_map_of_that_name() -> None:
    site, foreign = Site(1), ForeignProgram()
    settings(site)["ours"] = 1
    foreign.put("map", {"theirs": [1.0, {"x": b"y"}]})
    meet(site, foreign)
    assert dict(settings(site)) == {"ours": 1, "theirs": [1, {"x": b"y"}]}
    assert foreign.document.map("map").items() == [("ours", 1), ("theirs", [1, {"x": b"y"}])]


def test_of_two_writes_to_one_key_one_remains_and_everywhere_the_same() -> None:
    one, two = Site(1), Site(2)
    settings(one)["a"] = 1
    settings(two)["a"] = 2
    meet(one, two)
    assert settings(one)["a"] == settings(two)["a"]


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"k": 1, "v": {1}}, "value of 'v'"),
        ({"k": 1, 2: 3}, "key"),
        ({"k": [0, 2**60]}, "value of 'k'[1]"),
    ],
)
def test_nothing_is_put_where_one_part_is_refused(bad: dict[Any, Any], path: str) -> None:
    site = Site(1)
    with pytest.raises(ValueNotStorable) as refused:
        settings(site).update(bad)
    assert refused.value.path == path
    assert site.made == []


def test_many_puts_in_one_call_are_one_update() -> None:
    site = Site(1)
    settings(site).update({str(number): number for number in range(50)})
    settings(site).clear()
    assert len(site.made) == 2


def test_events_tell_each_key_before_and_after() -> None:
    one, two = Site(1), Site(2)
    settings(one).update(a=1, b=2)
    meet(one, two)
    events: list[MapEvent] = []
    settings(one).observe(events.append)
    with two.document.transaction():
        settings(two)["c"] = [1]
        settings(two)["a"] = 3
        del settings(two)["b"]
        settings(two)["fleeting"] = 1
        del settings(two)["fleeting"]
    meet(one, two)
    [event] = events
    assert not event.is_local
    assert event.keys == {
        "a": KeyChange("update", 1, 3),
        "b": KeyChange("delete", 2, None),
        "c": KeyChange("add", None, [1]),
    }


def test_a_codec_stands_between_the_application_and_every_value() -> None:
    codec = Codec("frozenset", sorted, frozenset)
    groups = Site(1).document.map("groups", codec=codec)
    groups["a"] = {2, 1}
    assert groups["a"] == frozenset({1, 2})
    assert dict(groups.items()) == {"a": frozenset({1, 2})}
