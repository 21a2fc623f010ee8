"""Every kind converges: random edits on three replicas, random delivery, duplicates.

What is compared is content, not digests: a digest says nothing about what a facade makes of it.
"""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sites import START, Site

Edit = Callable[[Site, int, int], None]
Read = Callable[[Site], Any]

LETTERS = "aé漢🐝👩‍👩‍👧"
VALUES = [None, True, 1, 1.5, "x", "🐝", b"\x00", [1, [2]], {"a": [None]}]


def any_value(number: int) -> Any:
    return VALUES[number % len(VALUES)]


def edit_text(site: Site, a: int, b: int) -> None:
    text = site.document.text("text")
    at = a % (len(text) + 1)
    if b % 3 == 0 and len(text):
        start = a % len(text)
        text.delete(start, min(1 + b % 4, len(text) - start))
    else:
        text.insert(at, LETTERS[b % len(LETTERS) :])


def edit_counter(site: Site, a: int, b: int) -> None:
    site.document.counter("likes").add(a - b)


def edit_set(site: Site, a: int, b: int) -> None:
    tags = site.document.set("tags")
    element = (None, True, 1, "x", ("p", 2))[a % 5]
    (tags.discard if b % 3 == 0 else tags.add)(element)


def edit_map(site: Site, a: int, b: int) -> None:
    shared = site.document.map("map")
    key = "abc"[a % 3]
    if b % 4 == 0 and key in shared:
        del shared[key]
    else:
        shared[key] = any_value(b)


def edit_list(site: Site, a: int, b: int) -> None:
    shared = site.document.list("array")
    if b % 3 == 0 and len(shared):
        del shared[a % len(shared)]
    elif b % 7 == 1 and len(shared):
        shared[a % len(shared)] = any_value(a)
    else:
        shared.insert(a % (len(shared) + 1), any_value(b))


def edit_movable_list(site: Site, a: int, b: int) -> None:
    todo = site.document.movable_list("todo")
    size = len(todo)
    if b % 5 == 0 or size < 3:
        todo.insert(a % (size + 1), any_value(b))
    elif b % 5 == 1:
        del todo[a % size]
    elif b % 5 == 2:
        todo[a % size] = any_value(b)
    else:
        todo.move(a % size, b % size)


def edit_register(site: Site, a: int, b: int) -> None:
    # Clocks of sites run apart, and some stand still.
    site.time.set_wall(START + a % 3 * 1_000)
    site.document.register("title").set(any_value(b))


def edit_multi_value_register(site: Site, a: int, b: int) -> None:
    site.document.multi_value_register("owner").set(any_value(a + b))


KINDS: dict[str, tuple[Edit, Read]] = {
    "text": (edit_text, lambda site: str(site.document.text("text"))),
    "counter": (edit_counter, lambda site: site.document.counter("likes").value),
    "set": (edit_set, lambda site: list(site.document.set("tags"))),
    "map": (edit_map, lambda site: dict(site.document.map("map"))),
    "list": (edit_list, lambda site: list(site.document.list("array"))),
    "movable list": (edit_movable_list, lambda site: list(site.document.movable_list("todo"))),
    "register": (edit_register, lambda site: site.document.register("title").value),
    "multi-value register": (
        edit_multi_value_register,
        lambda site: site.document.multi_value_register("owner").values,
    ),
}

NUMBER = st.integers(0, 30)
STEPS = st.lists(
    st.tuples(st.sampled_from(["edit", "edit", "edit", "deliver"]), NUMBER, NUMBER, NUMBER),
    min_size=3,
    max_size=40,
)


def run(
    kinds: Sequence[str], steps: Sequence[tuple[str, int, int, int]], dice: random.Random
) -> list[Site]:
    """Edit and deliver as `steps` say, then deliver everything to everyone, and compare."""
    # Client ids of either order, so that the writer who is later is not always the higher.
    numbers = dice.sample(range(1, 100), 3)
    sites = [Site(number, client_id=number) for number in numbers]
    for site in sites:
        # Opened before anything comes, so that every copy is kept by following.
        for kind in kinds:
            KINDS[kind][1](site)
    for step, (verb, which, a, b) in enumerate(steps):
        site = sites[which % 3]
        if verb == "edit":
            KINDS[kinds[step % len(kinds)]][0](site, a, b)
        else:
            source = sites[(which + 1 + a % 2) % 3]
            for update in dice.sample(source.made, min(len(source.made), b % 6)):
                site.document.apply(update)
    everything = [update for site in sites for update in site.made]
    for site in sites:
        for update in dice.sample(everything * 2, 2 * len(everything)):
            site.document.apply(update)
    reader = Site(200)
    for update in dice.sample(everything, len(everything)):
        reader.document.apply(update)
    opened = Site(201, state=everything)
    for kind in kinds:
        contents = [KINDS[kind][1](site) for site in (*sites, reader, opened)]
        assert all(content == contents[0] for content in contents), (kind, contents)
    assert len({site.document.deep_digest() for site in (*sites, reader, opened)}) == 1
    return sites


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_replicas_end_equal(kind: str, steps: list[tuple[str, int, int, int]], seed: int) -> None:
    sites = run([kind], steps, random.Random(seed))
    edits = sum(verb == "edit" for verb, *_ in steps)
    assert sum(len(site.made) for site in sites) <= edits
    # Counting zero, removing what is not there, and moving to the same place write nothing.
    if kind not in {"counter", "set", "movable list"}:
        assert sum(len(site.made) for site in sites) == edits


@settings(max_examples=50, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_replicas_end_equal_with_every_kind_in_one_document(
    steps: list[tuple[str, int, int, int]], seed: int
) -> None:
    run(list(KINDS), steps, random.Random(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_random_edits_reach_states_worth_comparing(kind: str) -> None:
    """That something was there to compare: contents differ between runs, and are not empty."""
    seen: Tally[str] = Tally()
    for seed in range(20):
        dice = random.Random(seed)
        steps = [
            (dice.choice(["edit", "edit", "deliver"]), *(dice.randrange(30) for _ in range(3)))
            for _ in range(60)
        ]
        sites = run([kind], steps, dice)
        assert all(site.made for site in sites)
        seen[repr(KINDS[kind][1](sites[0]))] += 1
    assert len(seen) >= 5, seen


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=1000, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_replicas_end_equal_in_full(
    kind: str, steps: list[tuple[str, int, int, int]], seed: int
) -> None:
    run([kind], steps, random.Random(seed))
