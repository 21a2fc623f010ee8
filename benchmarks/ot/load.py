"""The load generator, one program for all servers: `load.mjs`, which says what its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ot.subjects import PROGRAMS
from crdt_state.ot import text_unicode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.ot.subjects import Subject

__all__ = ["Crowd", "Load", "LoadFailed", "Measured", "loading"]

PACKAGES = Path(__file__).parents[2] / "tests" / "js" / "node_modules"
COLLECTION = "bench"
WARM_SHARE = 1 / 3
"""Of the measured time, how long it goes before that: engines compile what they see often."""


class LoadFailed(Exception):
    """A server could not be measured: it refuses, forgets, is gone, or is none of this wire."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many documents, and how many clients are at each."""

    documents: int
    clients: int

    def __str__(self) -> str:
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return clients if self.documents == 1 else f"{self.documents} x {clients}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.  Shares are of one processor; `told` counts operations of others, of all clients."""

    operations_per_second: float
    told_per_second: float
    p50_seconds: float
    p99_seconds: float
    server_share: float
    load_share: float


class Load:
    """The program, which measures one run after another."""

    def __init__(self, child: asyncio.subprocess.Process, seconds: float) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._input, self._output = child.stdin, child.stdout
        self._seconds = seconds
        self._names = count()

    async def measure(self, subject: Subject, crowd: Crowd) -> Measured:
        """Let a crowd edit documents of its own.  Raises `LoadFailed`."""
        asked = {
            "url": subject.url,
            "collection": COLLECTION,
            "documents": [f"text-{next(self._names)}" for _ in range(crowd.documents)],
            "clients": crowd.clients,
            "type": text_unicode.URI,
            "warm": self._seconds * WARM_SHARE,
            "seconds": self._seconds,
        }
        self._input.write(json.dumps(asked).encode() + b"\n")
        await self._said(subject)
        begun = subject.cpu_seconds()
        await self._said(subject)
        used = subject.cpu_seconds() - begun
        found = await self._said(subject)
        return Measured(
            operations_per_second=found["operations"] / found["seconds"],
            told_per_second=found["told"] / found["seconds"],
            p50_seconds=found["p50"],
            p99_seconds=found["p99"],
            server_share=used / found["seconds"],
            load_share=found["processors"],
        )

    async def _said(self, subject: Subject) -> dict[str, Any]:
        line = await self._output.readline()
        if not line:
            raise LoadFailed("the load generator ended")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise LoadFailed(f"{subject.name} could not be measured: {said['error']}")
        return said


@contextlib.asynccontextmanager
async def loading(seconds: float) -> AsyncIterator[Load]:
    """Start the program; each of its runs is measured for so many seconds."""
    if shutil.which("node") is None:
        raise LoadFailed("Node is not installed; the load generator and ShareDB need it")
    if not all((PACKAGES / name).is_dir() for name in ("ot-text-unicode", "sharedb", "ws")):
        raise LoadFailed("the Node packages are not installed; run `npm ci` in tests/js")
    child = await asyncio.create_subprocess_exec(
        "node",
        str(PROGRAMS / "load.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Load(child, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()
