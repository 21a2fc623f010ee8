"""One writer, and 1, 10 or 100 readers of one document: durable updates a second."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.load import Peer, typed
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving import Serving

__all__ = ["measure"]

IN_FLIGHT = 256
SECONDS = 4.0
WRITER = 77


async def _rate(server: Serving, readers: int, updates: list[bytes]) -> tuple[float, float]:
    """Updates a second that reached every reader, and the generator's share of a processor."""
    document = f"bench/fanout-{readers}"
    peers = [await Peer.connect(server.port, document, watched=WRITER) for _ in range(readers)]
    writer = await Peer.connect(server.port, document, watched=WRITER)
    began, cpu = time.perf_counter(), time.process_time()
    sent = 0
    while sent < len(updates) and time.perf_counter() - began < SECONDS:
        slowest = min(peers, key=lambda peer: peer.seen)
        if sent - slowest.seen >= IN_FLIGHT:
            await slowest.wait_until_seen(sent - IN_FLIGHT + 1)
            continue
        room = IN_FLIGHT - (sent - slowest.seen)
        writer.send_updates(updates[sent : sent + room])
        sent = min(len(updates), sent + room)
        await asyncio.sleep(0)
    for peer in peers:
        await peer.wait_until_seen(sent)
    seconds = time.perf_counter() - began
    share = (time.process_time() - cpu) / seconds
    for peer in [*peers, writer]:
        peer.close()
    return sent / seconds, share


async def _measure() -> list[Figure]:
    updates = typed(200_000, WRITER)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as server:
            for readers in (1, 10, 100):
                rate, share = await _rate(server, readers, updates)
                note = f"{rate * readers:,.0f} deliveries/s; generator {share:.0%} of a processor"
                figures.append(Figure(f"fanout_{readers}", rate, "updates/s", note))
    return figures


def measure() -> Iterator[Figure]:
    """Fan-out, readers and writer on one machine with the server."""
    yield from asyncio.run(_measure())
