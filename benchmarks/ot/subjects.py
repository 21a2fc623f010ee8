"""The servers that are measured: ours with a store on the disk, and ShareDB in memory.

Each is started anew for every round, and the other one is not there meanwhile: what a server does
in the background after a run is its own affair, and must not slow the other one down.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["OURS", "PROGRAMS", "SHAREDB", "Subject", "elsewhere", "ours", "sharedb"]

OURS = "crdt-state"
SHAREDB = "ShareDB"
PROGRAMS = Path(__file__).parent
START_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that runs: what it is called, where it listens, and its CPU seconds so far."""

    name: str
    url: str
    cpu_seconds: Callable[[], float]


@contextlib.asynccontextmanager
async def ours(store: Path) -> AsyncIterator[Subject]:
    """Our server, with a store in this folder."""
    async with serving(store) as server:
        url = f"ws://127.0.0.1:{server.port}/-/sharedb"
        yield Subject(OURS, url, server.cpu_seconds)


@contextlib.asynccontextmanager
async def elsewhere(url: str) -> AsyncIterator[Subject]:
    """A server that somebody else has started, in the place of ours."""
    yield Subject(OURS, url, lambda: float("nan"))


@contextlib.asynccontextmanager
async def sharedb() -> AsyncIterator[Subject]:
    """The npm package, as `sharedb.mjs` sets it up."""
    child = await asyncio.create_subprocess_exec(
        "node", str(PROGRAMS / "sharedb.mjs"), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await child.stdout.readline()
        if not line:
            raise RuntimeError("ShareDB did not start")
        process = psutil.Process(child.pid)

        def cpu_seconds() -> float:
            times = process.cpu_times()
            return float(times.user + times.system)

        yield Subject(SHAREDB, f"ws://127.0.0.1:{int(line)}", cpu_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()
