"""`crdt_state.simulator.network`: ordered, complete as long as it lasts, and then cut somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest

from crdt_state.simulator.loop import SimulatedLoop
from crdt_state.simulator.network import KEEPALIVE_SECONDS, Network, SimulatedConnection
from crdt_state.simulator.trace import Trace
from crdt_state.simulator.weather import STORM
from crdt_state.transport.connection import ConnectionEnded

Pair = tuple[Network, SimulatedConnection, SimulatedConnection]


def with_a_line(use: Callable[[Pair], Awaitable[None]], *, seed: int = 1) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        network = Network(Random(seed), replace(STORM, spike=0.3), Trace(loop.time))
        accepted: list[SimulatedConnection] = []
        network.listen("hub", lambda connection, _: accepted.append(connection))
        here = await network.dial("client", "ws://hub/notes")
        await use((network, here, accepted[0]))

    loop = SimulatedLoop(turns_max=100_000)
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


async def received(connection: SimulatedConnection) -> list[bytes]:
    """Everything that arrives until the end."""
    found: list[bytes] = []
    while True:
        try:
            found.append(await connection.receive())
        except ConnectionEnded:
            return found


SENT = [b"%d" % number for number in range(50)]


def test_what_is_sent_before_a_goodbye_arrives_in_order() -> None:
    async def use(pair: Pair) -> None:
        network, here, there = pair
        for message in SENT:
            here.send(message)
        assert here.buffered_bytes == sum(map(len, SENT))
        await here.close(4401, "expired")
        assert await received(there) == SENT
        with pytest.raises(ConnectionEnded, match="4401"):
            await there.receive()
        assert not network.lines

    with_a_line(use)


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_loses_the_end_of_what_was_under_way_and_nothing_in_between(seed: int) -> None:
    async def use(pair: Pair) -> None:
        network, here, there = pair
        for message in SENT:
            here.send(message)
        await asyncio.sleep(0.2)
        assert network.cut_one(Random(seed))
        here.send(b"too late")
        found = await received(there)
        assert found == SENT[: len(found)]
        assert await received(here) == []

    with_a_line(use, seed=seed)


def test_what_is_held_arrives_when_it_is_free_again() -> None:
    async def use(pair: Pair) -> None:
        network, here, there = pair
        network.part("client", "hub", KEEPALIVE_SECONDS / 2)
        for message in SENT:
            here.send(message)
        await asyncio.sleep(KEEPALIVE_SECONDS / 4)
        assert here.buffered_bytes == sum(map(len, SENT))
        with pytest.raises(OSError, match="does not answer"):
            await network.dial("client", "ws://hub/notes")
        assert [await there.receive() for _ in SENT] == SENT
        await here.drained()
        assert here.buffered_bytes == 0

    with_a_line(use)


def test_a_line_that_is_held_for_too_long_is_given_up_at_both_ends() -> None:
    async def use(pair: Pair) -> None:
        network, here, there = pair
        network.hold_one(Random(1), KEEPALIVE_SECONDS, both=False)
        await received(here)
        await received(there)
        assert asyncio.get_running_loop().time() >= KEEPALIVE_SECONDS
        assert not network.lines

    with_a_line(use)


def test_a_host_that_vanishes_says_nothing_any_more() -> None:
    async def use(pair: Pair) -> None:
        network, here, there = pair
        network.vanish("hub")
        there.send(b"goodbye")
        assert await received(here) == []
        with pytest.raises(OSError, match="does not answer"):
            await network.dial("client", "ws://hub/notes")

    with_a_line(use)
