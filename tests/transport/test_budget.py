from __future__ import annotations

import asyncio

import pytest

from crdt_state.transport.budget import Budget


class Answers:
    """Tasks that each hold some bytes of one budget until they are told to end."""

    def __init__(self, total: int) -> None:
        self.budget = Budget(total)
        self.under_way: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, size: int) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, size))
        await turn()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await turn()

    async def _hold(self, name: str, size: int) -> None:
        async with self.budget.spend(size):
            self.under_way.append(name)
            await self._ends[name].wait()
            self.under_way.remove(name)


async def turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_no_more_is_under_way_than_the_budget_allows() -> None:
    answers = Answers(10)
    for name, size in (("a", 6), ("b", 4), ("c", 1)):
        await answers.begin(name, size)
    assert answers.under_way == ["a", "b"]
    await answers.end("b")
    assert answers.under_way == ["a", "c"]
    for name in ("a", "c"):
        await answers.end(name)


async def test_a_small_one_does_not_overtake_a_large_one_that_waits() -> None:
    answers = Answers(10)
    for name, size in (("a", 6), ("large", 9), ("small", 1)):
        await answers.begin(name, size)
    assert answers.under_way == ["a"]
    await answers.end("a")
    assert answers.under_way == ["large", "small"]
    for name in ("large", "small"):
        await answers.end(name)


async def test_what_is_larger_than_the_budget_goes_alone() -> None:
    answers = Answers(10)
    for name, size in (("huge", 1_000), ("small", 1)):
        await answers.begin(name, size)
    assert answers.under_way == ["huge"]
    await answers.end("huge")
    assert answers.under_way == ["small"]
    await answers.end("small")


@pytest.mark.parametrize("has_its_turn", [False, True])
async def test_who_is_cancelled_while_waiting_takes_nothing_along(has_its_turn: bool) -> None:
    answers = Answers(10)
    for name, size in (("a", 10), ("b", 10), ("c", 10)):
        await answers.begin(name, size)
    if has_its_turn:
        answers._ends["a"].set()
        await asyncio.sleep(0)
    answers.tasks["b"].cancel()
    if not has_its_turn:
        await answers.end("a")
    await turn()
    assert answers.under_way == ["c"]
    await answers.end("c")
