"""Keystrokes of real documents, typed as operations, while somebody reads along by the CRDT.

The client, the server and the store are the real ones: a thin client, which knows no CRDT, types; a
replica that speaks y-websocket reads along; and at the end one that has never seen the text.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import data
from crdt_client.thin import TEXT_UNICODE, ThinClient
from crdt_state.ot import EMPTY, Delete, Insert, Operation, Retain, compose
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from running import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from running import RunningServer

AT_ONCE = 50
"""Transactions between two looks at the network, as a typist's program has them."""

SECONDS_MAX = 120.0


async def type_and_check(
    server: RunningServer, folder: Path, trace: data.Trace, tell: Callable[[str], None]
) -> None:
    name = f"traces/{trace.name}"
    began = time.perf_counter()
    async with (
        Replica.open(folder / "along.db") as along,
        ThinClient(f"{server.url}/-/sharedb/text-unicode") as client,
    ):
        reading = await along.document(name)
        along.connect(server.url, wire=Wire.Y_WEBSOCKET)
        text = await client.open(name, format=TEXT_UNICODE)
        if trace.start:
            text.insert(0, trace.start)
        for number, transaction in enumerate(trace.transactions):
            text.edit(operation_of(transaction))
            if number % AT_ONCE == 0:
                await text.saved()
        await text.saved()
        assert str(text) == trace.end
        assert not text.handed_back
        await eventually(lambda: str(reading.text("text")) == trace.end, True, seconds=SECONDS_MAX)
    took = time.perf_counter() - began
    tell(f"{name}: {len(trace.transactions):,} transactions in {took:.1f} s")
    server.restart()
    async with Replica.open(folder / "late.db") as late:
        document = await late.document(name)
        await late.connect(server.url).synced()
        assert str(document.text("text")) == trace.end
    assert server.complaints() == []


def operation_of(transaction: data.Transaction) -> Operation:
    operation = EMPTY
    for position, deleted, inserted in transaction.patches:
        parts: list[Retain | Insert | Delete] = [Retain(position)]
        if deleted:
            parts.append(Delete(deleted))
        if inserted:
            parts.append(Insert(inserted))
        operation = compose(operation, Operation.of(*parts))
    return operation


async def test_the_beginning_of_a_trace_is_typed_as_operations(
    server: RunningServer, data_folder: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    trace = data.trace(data_folder, "json-crdt-patch").prefix(1_000)
    await type_and_check(server, tmp_path, trace, tell)


@pytest.mark.full
@pytest.mark.parametrize("name", data.SEQUENTIAL)
async def test_a_whole_trace_is_typed_as_operations(
    name: str, server: RunningServer, data_folder: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    await type_and_check(server, tmp_path, data.trace(data_folder, name), tell)
