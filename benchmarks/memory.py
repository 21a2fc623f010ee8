"""What a server holds: for each idle connection, and for each document that nobody has open."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.load import Peer, typed
from benchmarks.serving import serving
from crdt_state.identifiers import document_id
from crdt_state.storage.contract import Append
from crdt_state.storage.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure"]

CONNECTIONS = 1_000
DOCUMENTS = 100_000


async def _idle_connections(folder: Path) -> Figure:
    async with serving(folder) as server:
        first = await Peer.connect(server.port, "bench/idle", watched=0)
        before = server.resident_bytes()
        peers = [
            await Peer.connect(server.port, "bench/idle", watched=0) for _ in range(CONNECTIONS)
        ]
        each = (server.resident_bytes() - before) / CONNECTIONS
        for peer in [first, *peers]:
            peer.close()
    return Figure("idle_connection", each / 1024, "KiB", f"{CONNECTIONS:,} at one document")


async def _closed_documents(folder: Path) -> Figure:
    async with serving(folder / "empty") as server:
        empty = server.resident_bytes()
    full = folder / "full"
    full.mkdir()
    store = await SqliteStore.open(full / "replica.db", random=Random(1))
    (update,) = typed(1, 77)
    for start in range(0, DOCUMENTS, 1_000):
        ids = range(start, start + 1_000)
        await store.write([Append(document_id(f"bench/{n}"), (update,)) for n in ids])
    await store.close()
    async with serving(full) as server:
        each = max(0, server.resident_bytes() - empty) / DOCUMENTS
    return Figure("closed_document", each / 1024, "KiB", f"{DOCUMENTS:,} on the disk")


def measure() -> Iterator[Figure]:
    """Resident memory, as the system counts it, workers included."""
    with tempfile.TemporaryDirectory() as folder:
        yield asyncio.run(_idle_connections(Path(folder) / "idle"))
        yield asyncio.run(_closed_documents(Path(folder)))
