"""`crdt_state.model.showing`: what people read is what the containers show."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from crdt_state.model.showing import shown
from offline_sites import ForeignProgram, Site, meet

NAME = "one"


def edit(site: Site, random: Random) -> None:
    """One edit of one of the kinds."""
    document, value = site.document, random.randrange(6)
    match random.randrange(7):
        case 0:
            document.counter(NAME).add(value - 3)
        case 1:
            document.set(NAME).add(value)
        case 2:
            document.set(NAME).discard(value)
        case 3:
            document.register(NAME).set({"n": value})
        case 4:
            document.multi_value_register(NAME).set([value])
        case 5:
            document.movable_list(NAME).append(value)
        case _:
            todo = document.movable_list(NAME)
            if len(todo):
                todo.move(random.randrange(len(todo)), random.randrange(len(todo)))
                todo[random.randrange(len(todo))] = value


def values_of(site: Site) -> dict[str, Any]:
    """What the containers themselves show."""
    document = site.document
    return {
        f"{NAME}#counter": document.counter(NAME).value,
        f"{NAME}#set": list(document.set(NAME)),
        f"{NAME}#register": document.register(NAME).value,
        f"{NAME}#multi": list(document.multi_value_register(NAME).values),
        f"{NAME}#movable": list(document.movable_list(NAME)),
    }


@pytest.mark.parametrize("seed", range(20))
def test_conflicts_and_all_it_is_what_the_containers_show(seed: int) -> None:
    random = Random(seed)
    sites = [Site(number) for number in range(3)]
    for _ in range(4):
        for _ in range(30):
            edit(random.choice(sites), random)
        meet(*sites)
        content = shown(sites[0].document.as_json())
        expected = values_of(sites[0])
        # A root that nobody wrote to is not in the document.
        assert len(content) >= 3
        assert content == {root: expected[root] for root in content}


def test_a_set_of_bytes_and_tuples_is_a_list() -> None:
    site = Site(1)
    site.document.set("s").update([b"\0", (1, "a"), None, True, 1])
    found = shown(site.document.as_json())["s#set"]
    assert found == [{"base64": "AA=="}, [1, "a"], None, True, 1]


def test_what_a_foreign_program_made_of_it_counts_as_little_as_in_the_containers() -> None:
    site, foreign = Site(1), ForeignProgram()
    foreign.push("a#set", {"no": "element"}, 1, 1.0, 2, 1)
    foreign.push("a#register", "no row", [1, 2, "early"], [5, 1, "late"], [-1, 1, "never"])
    foreign.push("a#movable", [1], [3, 1, "here"])
    foreign.put("a#counter", {"00": [3, 1], "11": "nonsense", "22": [True, 0]})
    foreign.push("b#counter", "a list where a map should be")
    foreign.push("c#other", 1)
    meet(site, foreign)
    assert shown(site.document.as_json()) == {
        "a#set": [1, 2],
        "a#register": "late",
        "a#movable": ["here"],
        "a#counter": 2,
        "b#counter": ["a list where a map should be"],
        "c#other": [1],
    }
