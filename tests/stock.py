"""Unmodified npm `yjs` and `y-websocket` in Node, moved from Python."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ["StockClient", "StockClients", "merged", "stock_clients"]

CALL_SECONDS_MAX = 20.0
LINE_BYTES_MAX = 64 * 1024 * 1024


class StockClients:
    """One Node process with any number of clients in it (a program of tests/js)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._calls = itertools.count()
        self._lock = asyncio.Lock()

    async def open(self, name: str, url: str, room: str, **params: str) -> StockClient:
        """A client that connects to `room` at once; `params` go into the URL's query."""
        number = await self.call(name, "open", url, room, params)
        return StockClient(self, name, number)

    async def call(self, client: str, verb: str, *operands: Any) -> Any:
        """One verb of one client, and what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock, asyncio.timeout(CALL_SECONDS_MAX):
            call = next(self._calls)
            asked = {"call": call, "client": client, "verb": verb, "with": operands}
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            line = await self._process.stdout.readline()
        answer = json.loads(line)
        assert answer["call"] == call
        assert "error" not in answer, answer["error"]
        return answer["value"]


@dataclass(frozen=True)
class StockClient:
    """One client: a Y.Doc and its provider.  Indices are UTF-16, as JavaScript counts."""

    clients: StockClients
    name: str
    client_id: int

    async def do(self, verb: str, *operands: Any) -> Any:
        """insert, delete, put, push, presence, present, disconnect, connect, vanish, link."""
        return await self.clients.call(self.name, verb, *operands)

    async def text(self) -> str:
        """The root text."""
        return str((await self.show())["text"])

    async def show(self) -> dict[str, Any]:
        """The roots `text`, `map`, `array`."""
        shown: dict[str, Any] = await self.do("show")
        return shown

    async def present(self) -> dict[int, Any]:
        """Awareness: client id -> state."""
        return {int(client): state for client, state in (await self.do("present")).items()}

    async def is_synced(self) -> bool:
        """Whether the provider says so."""
        return bool((await self.do("link"))["synced"])

    async def closes(self) -> list[tuple[int, str]]:
        """Code and reason of every end of a connection so far."""
        return [(code, reason) for code, reason in (await self.do("link"))["closes"]]


@asynccontextmanager
async def stock_clients(
    programs: Path, program: str = "clients.mjs"
) -> AsyncIterator[StockClients]:
    """A Node process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(programs / program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield StockClients(process)
    finally:
        process.kill()
        await process.wait()


async def merged(programs: Path, lists: Sequence[Sequence[bytes]]) -> list[str]:
    """The root text `text` that stock Yjs shows after each list of updates."""
    process = await asyncio.create_subprocess_exec(
        "node", str(programs / "merge.mjs"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    asked = json.dumps([[update.hex() for update in updates] for updates in lists])
    said, _ = await process.communicate(asked.encode())
    assert process.returncode == 0
    found = json.loads(said)
    assert not any(document["is_waiting"] for document in found), "an update is missing"
    return [document["text"] for document in found]
