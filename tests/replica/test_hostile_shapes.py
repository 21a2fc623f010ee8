"""Each shape that the guard and the workers exist for, shown to harm a process without them.

These are facts about pycrdt 0.14.13 (yrs 0.28).  A failure here is good news: upstream has
mended something, and a bound may be relaxed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bare_child import Fate, fate_of
from crdt_state.errors import UpdateRefused, WorkerFailed
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.inspect import inspect
from crdt_state.replica.workers import WorkerProcesses
from hostile import (
    ONE,
    SHAPES,
    deleting,
    key_swarm,
    nested,
    one_client_key_swarm,
    place_swarm,
    section,
    silencing_gc,
    string,
    update,
    value,
)

STALL_SECONDS = 1.0
HONEST = update(section(1, 0, string("hello")))


def nest(depth: int) -> bytes:
    """The swarm that nests one deeper with each update, merged into one update for speed."""
    deeper = [nested(parent=(1, above), key="k") for above in range(depth - 1)]
    return update(section(1, 0, nested(parent="map", key="k"), *deeper))


FATAL: dict[str, Sequence[bytes]] = {
    "a value nested 30,000 deep": [SHAPES["values nested 30,000 deep"]],
    "40,000 containers, one in the other, and a delete above": [
        nest(40_000),
        update(deletes=deleting((1, 0, 1))),
    ],
}
PANICS: dict[str, Sequence[bytes]] = {
    "a section without structs": [HONEST, bytes.fromhex("0100017100")],
    "a GC of no length, deleted": [bytes.fromhex("01010101000001010000")],
    "a counter near 2^32": [bytes.fromhex("010201fffffeff0f2701036d6170017a020400010d02717100")],
}
STALLS: dict[str, Sequence[bytes]] = {
    "40,000 clients on one key": [*key_swarm(40_000)],
    "40,000 clients at one place": [*place_swarm(40_000)],
    "one client 40,000 times on one key": [*one_client_key_swarm(40_000)],
}
SINGLE = [
    *FATAL["a value nested 30,000 deep"],
    *(updates[-1] for updates in PANICS.values()),
    silencing_gc(1, 5, 2**32 - 1),
    *(SHAPES[name] for name in ("a client id of 2^53", "a counter of 2^32")),
    SHAPES["version 2 of the format"],
]


@pytest.mark.parametrize("updates", FATAL.values(), ids=FATAL)
def test_it_kills_a_bare_process(updates: Sequence[bytes]) -> None:
    assert fate_of(updates, seconds=20.0).fate is Fate.DIED


@pytest.mark.parametrize("updates", PANICS.values(), ids=PANICS)
def test_it_makes_the_engine_panic(updates: Sequence[bytes]) -> None:
    assert fate_of(updates, seconds=20.0).fate is Fate.PANICKED


@pytest.mark.parametrize("updates", STALLS.values(), ids=STALLS)
def test_it_stalls_a_bare_process(updates: Sequence[bytes]) -> None:
    assert fate_of(updates, seconds=STALL_SECONDS, wants_state=False).fate is Fate.STALLED


def test_as_many_honest_updates_take_a_bare_process_no_time() -> None:
    """So that the stalls above are the shapes' doing, and not the numbers'."""
    typing = [
        HONEST,
        *(update(section(2, at, string("x", origin=last(at)))) for at in range(4_000)),
    ]
    assert fate_of(typing, seconds=10 * STALL_SECONDS, wants_state=False).fate is Fate.TAKEN


def last(at: int) -> tuple[int, int]:
    return (2, at - 1) if at else (1, 4)


def test_a_gc_struct_of_eleven_bytes_silences_somebody_else() -> None:
    more = update(section(1, 5, string(" world", origin=(1, 4))))
    silenced = fate_of([HONEST, silencing_gc(1, 5), more], seconds=20.0)
    heard = fate_of([HONEST, more], seconds=20.0)
    assert b"world" in heard.state
    assert b"world" not in silenced.state


def test_a_client_id_of_2_to_the_53_becomes_client_0() -> None:
    outcome = fate_of([SHAPES["a client id of 2^53"]], seconds=20.0)
    assert outcome.state[:4] == b"\x01\x01\x00\x00"


def test_a_counter_of_2_to_the_32_becomes_0() -> None:
    outcome = fate_of([SHAPES["a counter of 2^32"]], seconds=20.0)
    assert outcome.state == ONE


def test_an_update_of_version_2_is_taken_and_stores_nothing() -> None:
    outcome = fate_of([SHAPES["version 2 of the format"]], seconds=20.0)
    assert outcome.fate is Fate.TAKEN
    assert outcome.state == b"\x00\x00"


def test_a_value_for_a_parent_that_holds_no_type_ends_a_transaction_half_way() -> None:
    below_text = update(section(2, 0, value(parent=(1, 2), key="k")))
    assert fate_of([HONEST, below_text], seconds=20.0).fate is Fate.DIED


@pytest.mark.parametrize("hostile", SINGLE)
def test_what_one_update_can_do_is_refused_by_the_guard(hostile: bytes) -> None:
    with pytest.raises(UpdateRefused):
        inspect(hostile, DEFAULT_LIMITS)


@pytest.mark.parametrize("updates", [*FATAL.values(), *PANICS.values()], ids=[*FATAL, *PANICS])
async def test_in_a_worker_it_fails_one_job_and_the_next_one_works(
    updates: Sequence[bytes],
) -> None:
    async with WorkerProcesses(DEFAULT_LIMITS, count=1) as workers:
        with pytest.raises((WorkerFailed, UpdateRefused)) as caught:
            await workers.fold(updates)
        if isinstance(caught.value, WorkerFailed):
            assert caught.value.cause in {"died", "panicked"}
        assert (await workers.fold([HONEST])).waiting == ()
