"""Change events as async iterators: in order, bounded, and honest about gaps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.text import Insert, Retain
from crdt_state.replica.events import EventsMissed, changes
from model.documents import document

if TYPE_CHECKING:
    from crdt_state.model.text import TextEvent


async def test_events_come_in_order_and_end_with_the_block() -> None:
    text = document().text("text")
    async with changes(text) as events:
        text.append("a")
        text.append("b")
        first, second = await anext(events), await anext(events)
        assert [first.delta, second.delta] == [(Insert("a"),), (Retain(1), Insert("b"))]
    text.append("c")
    assert [event async for event in events] == []


async def test_a_reader_that_waits_is_woken() -> None:
    text = document().text("text")
    async with changes(text) as events:
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not reading.done()
        text.append("a")
        assert (await reading).delta == (Insert("a"),)


async def test_a_slow_reader_is_told_what_it_missed_and_goes_on() -> None:
    text = document().text("text")
    limits = replace(DEFAULT_LIMITS, events_waiting_max=2)
    async with changes(text, limits=limits) as events:
        for letter in "abcde":
            text.append(letter)
        got = [await anext(events) for _ in range(3)]
        text.append("f")
        got.append(await anext(events))
    told: list[TextEvent | EventsMissed] = list(got)
    assert [getattr(event, "delta", event) for event in told] == [
        (Insert("a"),),
        (Retain(1), Insert("b")),
        EventsMissed(3),
        (Retain(5), Insert("f")),
    ]


async def test_closing_wakes_the_reader_and_lets_what_waits_be_read() -> None:
    text = document().text("text")
    events = changes(text)
    text.append("a")
    events.close()
    text.append("b")
    assert len([event async for event in events]) == 1
    idle = changes(text)
    reading = asyncio.ensure_future(anext(idle, None))
    await asyncio.sleep(0)
    idle.close()
    assert await reading is None


async def test_a_cancelled_reader_loses_nothing() -> None:
    text = document().text("text")
    async with changes(text) as events:
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        text.append("a")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await anext(events)).delta == (Insert("a"),)


async def test_two_readers_of_one_iterator_are_refused() -> None:
    async with changes(document().text("text")) as events:
        reading = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="each its own"):
            await anext(events)
        events.close()
        assert await reading is None
