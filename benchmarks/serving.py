"""A real server as a child process, on a free port and a store of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Serving", "serving"]

PROGRAM = (
    "import sys\n"
    "from sync_server.server import run\n"
    "from sync_server.settings import load\n"
    "sys.exit(run(load({'port': 0, 'store': sys.argv[1], 'log_format': 'json'})))\n"
)
START_SECONDS_MAX = 30


class Serving:
    """Where the server listens, and its process."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.process = psutil.Process(pid)

    def resident_bytes(self) -> int:
        """Resident memory of the server and its workers."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)

    def cpu_seconds(self) -> float:
        """CPU time of the server itself so far."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextlib.asynccontextmanager
async def serving(store: Path) -> AsyncIterator[Serving]:
    """Start a server, wait until it listens, and end it by SIGTERM."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(store), stderr=asyncio.subprocess.PIPE
    )
    if child.stderr is None:
        raise AssertionError("the child was started with a pipe")
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            port = await _port_said(child.stderr)
        reading = asyncio.create_task(_read_on(child.stderr))
        yield Serving(port, child.pid)
        reading.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


async def _port_said(lines: asyncio.StreamReader) -> int:
    seen = []
    while line := await lines.readline():
        seen.append(line.decode(errors="replace"))
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if said.get("event") == "listening":
                address = str(said["connect"]).split("/")[2]
                return int(address.rsplit(":", 1)[1])
    raise RuntimeError("the server did not start:\n" + "".join(seen))


async def _read_on(lines: asyncio.StreamReader) -> None:
    while await lines.readline():
        pass
