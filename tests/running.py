"""A real server in a process of its own, which a test may kill and start again.

It runs what `crdt-state serve` runs, on a port of 127.0.0.1 that the system chose at the first
start and that later starts keep, on a store in a folder of the test's.  It counts as ready when
it has said so in its log and `/ready` answers; nothing is slept through, every wait has a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["RunningServer", "eventually"]

PROGRAM = """\
import sys
from sync_server.server import run
from sync_server.settings import load
sys.exit(run(load()))
"""
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.01


class RunningServer:
    """One server over one store; use it as a context manager, started."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are environment variables as `crdt-state serve` reads them."""
        self.store = folder / "store"
        self.log = folder / "server.log"
        self.port = 0
        self.starts = 0
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect, without a document id."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id while it runs."""
        return self._running().pid

    def start(self) -> None:
        """Start, and return when it serves."""
        assert self._process is None, "it runs already"
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("HOST", "PORT") and not name.startswith("CRDT_STATE_")
        }
        environment |= {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "CRDT_STATE_STORE": str(self.store),
            "CRDT_STATE_LOG_FORMAT": "json",
            **self._settings,
        }
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                env=environment,
            )
        self.starts += 1
        try:
            self._await(lambda: self._port_announced(said), START_SECONDS_MAX)
            self._await(self._is_ready, START_SECONDS_MAX)
        except BaseException:
            self.kill()  # nobody else knows of it yet
            raise

    def configure(self, settings: Mapping[str, str]) -> None:
        """Other settings, from its next start on."""
        self._settings |= settings

    def kill(self) -> None:
        """SIGKILL: it cannot prepare for that."""
        process = self._running()
        process.kill()
        process.wait(STOP_SECONDS_MAX)
        self._process = None

    def terminate(self) -> None:
        """Send SIGTERM and return at once: it begins to drain."""
        self._running().terminate()

    def exit_code(self) -> int:
        """Wait for its end."""
        code = self._running().wait(STOP_SECONDS_MAX)
        self._process = None
        return code

    def restart(self) -> None:
        """Kill it, and start it again on the same port and store."""
        self.kill()
        self.start()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of an HTTP GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far, over all its starts; only events of this name if given."""
        lines = self.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if name is None or event["event"] == name]

    def complaints(self) -> list[str]:
        """Lines of the log that a healthy server does not write: errors and tracebacks."""
        return [
            line
            for line in self.log.read_text().splitlines()
            if not line.startswith("{") or json.loads(line)["level"] in ("error", "critical")
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS_MAX)
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it does not run"
        return self._process

    def _port_announced(self, said: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(said)
            for line in log.read().splitlines(keepends=True):
                if line.endswith(b"\n") and b'"event": "listening"' in line:
                    address = json.loads(line)["connect"].removeprefix("ws://").partition("/")[0]
                    self.port = int(address.rpartition(":")[2])
                    return True
        return False

    def _is_ready(self) -> bool:
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def _await(self, holds: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not holds():
            code = self._running().poll()
            if code is not None or time.monotonic() > until:
                state = "still runs" if code is None else f"ended with {code}"
                raise AssertionError(
                    f"the server {state}; it said:\n{self.log.read_text()[-4_000:]}"
                )
            time.sleep(POLL_SECONDS)


async def eventually(
    read: Callable[[], Any], expected: Any, *, seconds: float = 20.0, what: str = "it"
) -> None:
    """Look at `read()`, which may be a coroutine, until it equals `expected`; fail at the bound.

    For what no one announces: what a process of somebody else shows.
    """

    until = time.monotonic() + seconds
    while True:
        found = read()
        if inspect.isawaitable(found):
            found = await found
        if found == expected:
            return
        if time.monotonic() > until:
            raise AssertionError(f"{what} is {found!r} after {seconds} s, not {expected!r}")
        await asyncio.sleep(POLL_SECONDS)
