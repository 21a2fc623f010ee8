"""Large updates of one client, cut so that the engine does not choke on them."""

from __future__ import annotations

import pycrdt

from crdt_state.lib0 import encode_varuint
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.inspect import inspect, pieces
from hostile import deleting, section, string, update


def letters(client: int, count: int) -> list[bytes]:
    return [string("a", origin=(client, at - 1) if at else None) for at in range(count)]


def typed(client: int, count: int, deletes: bytes = b"\0") -> bytes:
    return update(
        encode_varuint(count) + encode_varuint(client) + b"\0" + b"".join(letters(client, count)),
        deletes=deletes,
    )


def state_after(updates: list[bytes]) -> bytes:
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    for each in updates:
        document.apply_update(each)
    return document.get_update()


def test_the_pieces_together_are_the_update() -> None:
    whole = typed(5, 2_500, deleting((5, 10, 20), (5, 2_000, 5)))
    parts = pieces(whole, 1_000)
    assert [inspect(part, DEFAULT_LIMITS).vector for part in parts] == [
        {5: 1_000},
        {5: 2_000},
        {5: 2_500},
    ]
    assert state_after(parts) == state_after([whole])


def test_what_is_small_or_of_several_clients_stays_whole() -> None:
    small = typed(5, 1_000)
    both = update(section(6, 0, *letters(6, 900)), section(5, 0, *letters(5, 900)))
    assert pieces(small, 1_000) == [small]
    assert pieces(both, 1_000) == [both]


def test_only_deletes_stay_whole() -> None:
    deletes = update(deletes=deleting((5, 0, 1)))
    assert pieces(deletes, 1_000) == [deletes]
