"""What a receipt calls durable is on the other replica's disk, whenever that one is killed.

A client streams over our own protocol to a server that is killed by SIGKILL at moments drawn from
a seed; after each kill its file is read before anybody could bring anything again.  Losses of power
are simulated: there the receiving disk forgets whatever was not synced.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state import Replica
from crdt_state.identifiers import document_id
from crdt_state.simulator.plan import draw_plan
from crdt_state.simulator.simulation import run
from crdt_state.simulator.weather import STORM, Kind
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.transport.link import Wire
from sync_server.settings import STORE_FILE
from wired import text_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.replica.receipts import Receipt
    from running import RunningServer

DOCUMENTS = ("stream/one", "stream/two", "stream/three")
AT_ONCE = 50
"""Receipts of one stream that are waited for before it goes on."""

LOSSES = replace(STORM, name="losses", weights={Kind.POWER: 1}, faults=15, stay_seconds=(1.0, 4.0))


class Stream:
    """Edits of one document, without end, and which of them a receipt has called durable."""

    def __init__(self, document: OpenDocument) -> None:
        self.document = document
        self.durable: set[str] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._waiting: set[asyncio.Task[None]] = set()

    async def flow(self) -> None:
        number = 0
        while True:
            await self._room.acquire()
            number += 1
            token = f"<{number}>"
            self.document.text("text").append(token)
            receipt = await self.document.commit()
            task = asyncio.create_task(self._hold(receipt, token))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _hold(self, receipt: Receipt, token: str) -> None:
        try:
            await receipt.reached("durable")
            self.durable.add(token)
        finally:
            self._room.release()

    async def end(self) -> None:
        for task in tuple(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


async def text_on_disk(server: RunningServer, name: str) -> str:
    store = await SqliteStore.open(server.store / STORE_FILE, random=Random(1))
    try:
        stored = await store.read(document_id(name))
        return "" if stored is None else text_of(stored.updates())
    finally:
        await store.close()


async def kill_again_and_again(server: RunningServer, path: Path, *, kills: int, seed: int) -> None:
    """Kill the server while a client streams to it; what was called durable is there each time."""
    random = Random(seed)
    async with Replica.open(path) as replica:
        link = replica.connect(server.url)
        streams = [Stream(await replica.document(name)) for name in DOCUMENTS]
        flows = [asyncio.create_task(stream.flow()) for stream in streams]
        for _ in range(kills):
            before = sum(len(stream.durable) for stream in streams)
            async with asyncio.timeout(60):
                while sum(len(stream.durable) for stream in streams) <= before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0.0, 0.3))
            server.kill()
            for stream in streams:
                durable = set(stream.durable)
                there = await text_on_disk(server, stream.document.id)
                lost = sorted(token for token in durable if token not in there)
                assert not lost, f"{len(lost)} of {len(durable)} are gone (seed {seed}): {lost[:3]}"
            await asyncio.to_thread(server.start)
        for flow in flows:
            flow.cancel()
        await asyncio.gather(*flows, return_exceptions=True)
        await link.synced()
        for stream in streams:
            await stream.end()
            there = await replica.store.read(stream.document.id)
            assert there is not None
            assert str(stream.document.text("text")) == text_of(there.updates())
            assert len(stream.durable) > kills, "hardly anything was called durable"


async def test_what_a_receipt_calls_durable_survives_a_few_kills_of_the_other_side(
    server: RunningServer, tmp_path: Path
) -> None:
    await kill_again_and_again(server, tmp_path / "client.db", kills=3, seed=1)


@pytest.mark.full
async def test_what_a_receipt_calls_durable_survives_two_hundred_kills_of_the_other_side(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    for number in range(10):
        path = tmp_path / f"client-{number}.db"
        await kill_again_and_again(serve(), path, kills=20, seed=100 + number)


def losses_of_power(seed: int) -> int:
    """Let the hub of a simulation lose its power again and again; how often it did."""
    plan = draw_plan(seed, LOSSES, wire=Wire.REPLICA, edits=600)
    faults = tuple(replace(fault, host="hub") for fault in plan.faults)
    outcome = run(replace(plan, faults=faults))
    assert outcome.is_good, f"{outcome.failure} (seed {seed})"
    assert outcome.passed["receipts"] > 10, "hardly anything was promised"
    return sum("power lost hub" in line for line in outcome.history)


def test_what_a_receipt_calls_durable_survives_some_losses_of_power() -> None:
    assert losses_of_power(1) >= 5


@pytest.mark.full
def test_what_a_receipt_calls_durable_survives_two_hundred_losses_of_power() -> None:
    losses, seed = 0, 1_000
    while losses < 200:
        losses += losses_of_power(seed)
        seed += 1
    assert seed <= 1_040, f"{seed - 1_000} simulations for {losses} losses"
