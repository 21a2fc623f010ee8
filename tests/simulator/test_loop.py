"""`crdt_state.simulator.loop`: time is counted, threads are turns, and everything ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from crdt_state.simulator.loop import DeadlockFound, LivelockFound, SimulatedLoop


def run(work, *, turns_max=10_000):
    loop = SimulatedLoop(turns_max=turns_max)
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.close()


def test_a_long_wait_takes_no_time() -> None:
    began = time.monotonic()
    _, simulated = run(asyncio.sleep(7 * 24 * 3600.0))
    assert simulated == pytest.approx(7 * 24 * 3600.0)
    assert time.monotonic() - began < 5.0


def test_timers_fire_in_the_order_of_their_times_and_then_of_their_asking() -> None:
    async def work():
        order: list[str] = []
        loop = asyncio.get_running_loop()
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
            loop.call_later(seconds, order.append, name)
        await asyncio.sleep(4.0)
        return order

    order, _ = run(work())
    assert order == ["a", "b1", "b2", "c"]


def test_what_asks_for_a_thread_is_carried_out_on_the_loop() -> None:
    async def work():
        order = ["before"]
        task = asyncio.ensure_future(asyncio.to_thread(order.append, "in the thread"))
        await asyncio.sleep(0)
        order.append("meanwhile")
        await task
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return order

    order, _ = run(work())
    assert sorted(order) == ["before", "in the thread", "meanwhile"]


def test_a_program_that_never_gets_anywhere_is_found() -> None:
    async def spin():
        for _ in range(10_000):
            await asyncio.sleep(0)

    loop = SimulatedLoop(turns_max=500)
    with pytest.raises(LivelockFound, match="500"):
        loop.run_until_complete(spin())
    end(loop)


def test_a_program_that_waits_for_nobody_is_found() -> None:
    async def wait():
        await asyncio.get_running_loop().create_future()

    loop = SimulatedLoop(turns_max=500)
    with pytest.raises(DeadlockFound):
        loop.run_until_complete(wait())
    end(loop)


def end(loop: SimulatedLoop) -> None:
    loop.turns = 0
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
