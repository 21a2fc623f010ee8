"""`crdt_state.replica.awaited`: which updates that were brought still wait, in whole or in part."""

from __future__ import annotations

import pytest

from crdt_state.errors import UpdateTooLarge
from crdt_state.replica.awaited import Awaited, fingerprint

ONE, OTHER = fingerprint(b"one"), fingerprint(b"other")


def test_an_update_waits_as_long_as_any_of_its_rows_does() -> None:
    awaited = Awaited(10)
    awaited.link(1, [ONE])
    awaited.link(2, [ONE])
    assert awaited.waits(ONE)
    assert awaited.unlink(1) == (ONE,)
    assert awaited.waits(ONE)
    assert awaited.unlink(2) == (ONE,)
    assert not awaited.waits(ONE)


def test_a_row_is_everybodys_who_brought_it() -> None:
    awaited = Awaited(10)
    awaited.link(1, [ONE])
    awaited.link(1, [OTHER, ONE])
    assert awaited.unlink(1) == (ONE, OTHER)
    assert not awaited.waits(OTHER)


def test_of_a_row_that_nobody_here_brought_nobody_is_told() -> None:
    assert Awaited(10).unlink(1) == ()


def test_what_is_kept_is_bounded_and_what_was_let_go_of_makes_room() -> None:
    awaited = Awaited(2)
    awaited.link(1, [ONE])
    awaited.link(1, [OTHER])
    with pytest.raises(UpdateTooLarge, match="pending_updates_max"):
        awaited.link(2, [ONE])
    awaited.unlink(1)
    awaited.unlink(2)
    awaited.link(3, [ONE, OTHER])
    assert awaited.waits(ONE)
