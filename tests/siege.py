"""A server under attack, an honest bystander at it, and a watch over both.

What holds throughout is checked at the end of a siege: it is the same process and it answers; the
bystander never waited over `WAIT_SECONDS_MAX` for its barrier; the server and its workers
together never held more than `RESIDENT_BYTES_MAX`; and what the bystander wrote is there, also
after a SIGKILL and a restart.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pycrdt import Doc, Text

from raw_peer import RawPeer

if TYPE_CHECKING:
    from types import TracebackType

    from running import RunningServer

__all__ = ["RESIDENT_BYTES_MAX", "WAIT_SECONDS_MAX", "Siege", "text_of"]

WAIT_SECONDS_MAX = 1.0
"""How long a bystander may wait, in the full check."""

BUSY_WAIT_SECONDS_MAX = 5.0
"""The same where other tests' machines may be busy: a sample shows that nothing stalls."""
RESIDENT_BYTES_MAX = 1_536 * 1024 * 1024
LOOK_SECONDS = 0.05
BYSTANDER = "people/bystander"
PAGE_BYTES = 4_096


@dataclass
class Siege:
    """Use it as an async context manager around attacks; it checks at its end."""

    server: RunningServer
    name: str
    wait_seconds_max: float = WAIT_SECONDS_MAX
    waits: list[float] = field(default_factory=list)
    resident_bytes_max: int = 0

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self.server.port

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        self._pid = self.server.pid
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        program = Path(__file__).with_name("bystander_child.py")
        self._bystander = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), str(self.port), BYSTANDER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
        )
        assert self._bystander.stdout is not None
        assert await self._bystander.stdout.readline() == b"begun\n"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.monotonic() - self._began
        said, _ = await self._bystander.communicate(b"")
        await RawPeer.all_hang_up()
        self._is_over.set()
        await asyncio.to_thread(self._watch.join)
        found = json.loads(said)
        self.waits = sorted(found["waits"])
        print(f"\n{self} ({seconds:.1f} s)")  # noqa: T201
        if error is None:
            await self._check(found["text"], found["trouble"])

    def __str__(self) -> str:
        p99 = self.waits[int(len(self.waits) * 0.99)] if self.waits else 0
        return (
            f"{self.name}: bystander {len(self.waits):,} rounds, waited p99 {1000 * p99:.0f} ms, "
            f"max {1000 * self.waits[-1]:.0f} ms; "
            f"resident at most {self.resident_bytes_max / 2**20:.0f} MiB"
        )

    async def _check(self, text: str, trouble: str) -> None:
        assert trouble == ""
        assert self.server.pid == self._pid
        status, _ = await asyncio.to_thread(self.server.get, "/health")
        assert status == 200
        assert self.waits[-1] <= self.wait_seconds_max, f"{self}"
        assert self.resident_bytes_max <= RESIDENT_BYTES_MAX
        assert await text_of(self.port, BYSTANDER) == text
        await asyncio.to_thread(self.server.restart)
        assert await text_of(self.port, BYSTANDER) == text
        said = [line for line in self.server.complaints() if "document set aside" not in line]
        assert said == []

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            family = [self._pid, *_children(self._pid)]
            self.resident_bytes_max = max(self.resident_bytes_max, sum(map(_resident, family)))


async def text_of(port: int, document: str) -> str:
    """The root `text` of what the server holds."""
    peer = await RawPeer.connect(port, document)
    state = await peer.barrier()
    peer.hang_up()
    await peer.gone()
    assert state is not None
    opened: Doc[Text] = Doc()
    opened.apply_update(state)
    return str(opened.get("text", type=Text))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
