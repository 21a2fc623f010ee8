"""Child processes of the stage: a server that is killed and comes back, people that are asked.

1. Whatever happens, a child that was started is ended and waited for, with all that it started.
2. A child is in a session of its own: Ctrl-C reaches the stage alone, which ends the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any

import orjson

from crdt_state.errors import DemonstrationFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PersonChild", "ServerChild"]

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
ANSWER_SECONDS_MAX = 120.0
LINE_BYTES_MAX = 16 * 1024 * 1024
PACKAGE = "crdt_client.demonstration"


class ServerChild:
    """A real server on a port that the system chose once, over one store."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "server"
        self._log = folder / "server.log"
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.kills = 0

    @property
    def url(self) -> str:
        """Where people connect."""
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, on the same port and store as before, and return when it listens.

        Raises `DemonstrationFailed`.
        """
        said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await _spawn(
                "serving", str(self._store), str(self.port), stdout=DEVNULL, stderr=log.fileno()
            )
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not self._has_announced(said):
                    if self._process.returncode is not None:
                        raise self._failure("ended instead of listening")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise self._failure("did not listen in time") from None

    async def kill(self) -> None:
        """SIGKILL: it cannot prepare for that."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            _sweep(self._process.pid)
            self._process = None
            self.kills += 1

    async def stop(self) -> None:
        """Let it drain and end; be rougher when it does not."""
        if self._process is not None:
            await _end(self._process, lambda process: process.terminate())
            self._process = None

    def _has_announced(self, said: int) -> bool:
        with self._log.open("rb") as log:
            log.seek(said)
            for line in log.read().splitlines(keepends=True):
                if line.endswith(b"\n") and b'"event": "listening"' in line:
                    address = orjson.loads(line)["connect"].split("/")[2]
                    self.port = int(address.rpartition(":")[2])
                    return True
        return False

    def _failure(self, what: str) -> DemonstrationFailed:
        end = self._log.read_text(errors="replace")[-2_000:]
        return DemonstrationFailed(f"the server {what}; it said:\n{end}")


class PersonChild:
    """One replica in a process of its own, and the questions that it has yet to answer."""

    def __init__(self, name: str, told: Callable[[dict[str, Any]], None]) -> None:
        """`told` is called with everything it says that is no answer."""
        self.name = name
        self._told = told
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def start(self, number: int, file: Path, url: str, seed: int) -> None:
        """Start; it is there once it answers."""
        with file.with_suffix(".log").open("ab") as log:
            self._process = await _spawn(
                "person",
                *map(str, (number, file, url, seed)),
                stdout=PIPE,
                stderr=log.fileno(),
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def ask(self, do: str, **given: Any) -> Any:
        """Have it do something, and return what it answers.

        Raises `DemonstrationFailed` when it fails, ends, or takes too long.
        """
        if self._process is None or self._process.stdin is None:
            raise DemonstrationFailed(f"{self.name} was not started")
        if self._reading is None or self._reading.done():
            raise DemonstrationFailed(f"the process of {self.name} has ended")
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(
            orjson.dumps({"number": number, "do": do, "given": given}) + b"\n"
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await answer
        except TimeoutError:
            raise DemonstrationFailed(f"{self.name} does not finish: {do}") from None
        finally:
            self._asked.pop(number, None)

    async def stop(self) -> None:
        """Let it close its replica and end; be rougher when it does not."""
        if self._process is not None:
            await _end(self._process, _close_stdin)
        if self._reading is not None:
            await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("it was started with a pipe")
        while line := await process.stdout.readline():
            said = orjson.loads(line)
            if "number" not in said:
                self._told(said)
                continue
            answer = self._asked.get(said["number"])
            if answer is None or answer.done():
                continue
            if "error" in said:
                answer.set_exception(DemonstrationFailed(f"{self.name}: {said['error']}"))
            else:
                answer.set_result(said["answer"])
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(
                    DemonstrationFailed(f"the process of {self.name} ended in the middle")
                )


async def _spawn(module: str, *arguments: str, stdout: int, stderr: int) -> Any:
    # What configures somebody's server must not configure this one.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOST", "PORT") and not name.startswith("CRDT_STATE_")
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"{PACKAGE}.{module}",
        *arguments,
        stdin=PIPE,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
        limit=LINE_BYTES_MAX,
    )


async def _end(
    process: asyncio.subprocess.Process, ask: Callable[[asyncio.subprocess.Process], None]
) -> None:
    try:
        with contextlib.suppress(ProcessLookupError):
            ask(process)
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    _sweep(process.pid)


def _close_stdin(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _sweep(leader: int) -> None:
    """End whatever the child had started itself and is still there: its process group."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
