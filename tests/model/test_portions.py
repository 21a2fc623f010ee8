"""`crdt_state.model.portions`: several updates in place of one, none of which has to wait."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pycrdt import Doc, Text

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.inspect import inspect
from crdt_state.model.portions import portions


def edited_by_three(seed: int, *, edits: int = 200) -> bytes:
    """A text that three authors wrote, deleting on the way, as one update."""
    dice = Random(seed)
    documents: list[Doc[Any]] = [Doc(client_id=number) for number in (9, 5, 7)]
    for _ in range(edits):
        document = dice.choice(documents)
        text = document.get("text", type=Text)
        size = len(str(text))
        if size > 5 and dice.random() < 0.3:
            at = dice.randrange(size - 2)
            del text[at : at + 2]
        else:
            text.insert(dice.randint(0, size), "x" * dice.randint(1, 30))
        if dice.random() < 0.5:
            dice.choice(documents).apply_update(document.get_update())
    for document in documents[1:]:
        documents[0].apply_update(document.get_update())
    return documents[0].get_update()


@pytest.mark.parametrize("seed", range(25))
def test_each_portion_can_be_integrated_when_its_turn_comes(seed: int) -> None:
    update = edited_by_three(seed)
    whole: Doc[Any] = Doc()
    whole.apply_update(update)
    parts = portions(update, 100)
    assert len(parts) > 5
    document: Doc[Any] = Doc()
    vector: dict[int, int] = {}
    for part in parts:
        inspection = inspect(part, DEFAULT_LIMITS)
        assert all(vector.get(client, 0) >= end for client, end in inspection.needs.items())
        vector |= inspection.vector
        document.apply_update(part)
    assert str(document.get("text", type=Text)) == str(whole.get("text", type=Text))
    assert vector == inspect(update, DEFAULT_LIMITS, merged=True).vector
    assert inspect(parts[-1], DEFAULT_LIMITS).deletes == inspect(update, DEFAULT_LIMITS).deletes
    assert all(not inspect(part, DEFAULT_LIMITS).deletes for part in parts[:-1])


def test_a_portion_is_no_larger_than_asked_unless_one_struct_is() -> None:
    update = edited_by_three(1)
    for size_max in (50, 200, 1_000):
        sizes = [len(part) for part in portions(update, size_max)[:-1]]
        # The counts, client ids and clocks of three sections come on top.
        assert max(sizes) <= size_max + 3 * 20


def test_what_is_small_enough_stays_as_it_is() -> None:
    update = edited_by_three(2)
    assert portions(update, len(update)) == [update]
    assert portions(b"\0\0", 10) == [b"\0\0"]


def test_a_large_struct_is_not_cut() -> None:
    document: Doc[Any] = Doc(client_id=1)
    text = document.get("text", type=Text)
    text += "x" * 1_000
    assert portions(document.get_update(), 100) == [document.get_update()]
