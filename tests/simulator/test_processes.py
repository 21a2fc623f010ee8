"""`crdt_state.simulator.processes`: whatever a process has started ends with it."""

from __future__ import annotations

import asyncio

import pytest

from crdt_state.simulator.loop import SimulatedLoop
from crdt_state.simulator.processes import Process, StillRunning, new_task


def run(work) -> None:
    loop = SimulatedLoop(turns_max=100_000)
    loop.set_task_factory(new_task)
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def test_killing_ends_what_was_started_by_what_was_started_and_nothing_else() -> None:
    async def work() -> None:
        done: list[str] = []

        async def wait(name: str) -> None:
            await asyncio.sleep(10.0)
            done.append(name)

        async def start_others() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, lambda: loop.create_task(wait("by a callback")))
            await asyncio.create_task(wait("by a task"))

        process, other = Process("one"), Process("other")
        process.start(start_others(), "first")
        other.start(wait("other"), "first")
        await asyncio.sleep(2.0)
        assert len(process.tasks) == 3
        process.kill()
        await process.ended()
        await asyncio.sleep(20.0)
        assert done == ["other"]

    run(work())


def test_a_task_that_will_not_end_is_found() -> None:
    async def work() -> None:
        async def stubborn() -> None:
            for _ in range(500):
                try:
                    await asyncio.sleep(1.0)
                except asyncio.CancelledError:
                    continue

        process = Process("one")
        process.start(stubborn(), "stubborn")
        await asyncio.sleep(0)
        process.kill()
        with pytest.raises(StillRunning, match="stubborn"):
            await process.ended()
        while process.tasks:
            process.kill()
            await asyncio.sleep(0)

    run(work())
