"""How long the first reader of a large document waits after a restart of the server."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.load import Peer
from benchmarks.serving import serving
from crdt_state.protocol.ywebsocket import SyncStep1, encode, encode_update

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure"]

DATA = Path(os.environ.get("CRDT_STATE_DATA", Path(__file__).parents[2] / "shared" / "data"))


async def _measure(update: bytes) -> Iterator[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as server:
            writer = await Peer.connect(server.port, "bench/b4", watched=0)
            began = time.perf_counter()
            writer.send(encode_update(update))
            writer.has_state.clear()
            writer.send(encode(SyncStep1(b"\x00")))
            await writer.has_state.wait()
            stored = (time.perf_counter() - began) * 1000
            writer.close()
        async with serving(Path(folder)) as server:
            figures.append(await _join(server.port, "cold_join", "first after a restart"))
            # The first opening has found the log worth a fold; the fold itself takes a moment.
            await _folded(server.port)
            figures.append(await _join(server.port, "warm_join", "document in use before"))
        async with serving(Path(folder)) as server:
            figures.append(await _join(server.port, "cold_join_folded", "restart after a fold"))
    figures.append(Figure("store_document", stored, "ms", f"{len(update):,} bytes at once"))
    return iter(figures)


async def _join(port: int, name: str, note: str) -> Figure:
    began = time.perf_counter()
    reader = await Peer.connect(port, "bench/b4", watched=0)
    milliseconds = (time.perf_counter() - began) * 1000
    reader.close()
    return Figure(name, milliseconds, "ms", f"{note}; {reader.bytes_received:,} bytes")


async def _folded(port: int) -> None:
    address = f"http://localhost:{port}/-/api/head/bench/b4"
    for _ in range(100):
        with urllib.request.urlopen(address) as answer:  # noqa: ASYNC210 - nothing else runs
            if json.load(answer)["log_updates"] == 0:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("the log was not folded")


def measure() -> Iterator[Figure]:
    """From the connection until the whole of `b4-update.bin` has come (the 260,000-edit text)."""
    path = DATA / "yjs-documents" / "b4-update.bin"
    if not path.is_file():
        raise SystemExit(f"no reference data at {DATA}; name its folder in CRDT_STATE_DATA")
    yield from asyncio.run(_measure(path.read_bytes()))
