"""Where foreign bytes are integrated: in worker processes on a server, inline in an application.

Inspection of one update cannot prevent that many small ones together make the native engine
overflow its stack, or work for half a minute with the interpreter's lock held.
So a server never integrates in its own process.  It asks a small pool of processes, each started
by executing a fresh interpreter: a fork would copy open documents and locks.

1. Only the job that did it fails when a process dies, panics, or passes its bound of time or
   memory.  The process is ended by its id and replaced when the next job needs one.
2. A process that has served before never costs a document its name: where it died, the job is
   carried out again in a fresh one, and only that verdict counts.
3. A cancelled call ends the process it was waiting for, so its place is free at once.
4. No process outlives its parent: it ends when its input does, by an alarm at the latest.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

from crdt_state.errors import (
    DocumentClosed,
    LimitExceeded,
    UpdateMalformed,
    UpdateTooLarge,
    WorkerFailed,
)
from crdt_state.replica import worker_jobs
from crdt_state.replica.operable_text import OperableText
from crdt_state.replica.text_sessions import Inline, Remote
from crdt_state.replica.worker_jobs import (
    FOLDED_PARTS,
    FRAME_HEADER_BYTES,
    Digests,
    Folded,
    Kind,
    Repaired,
    Status,
    decode_message,
    encode_message,
    encode_splits,
    error_of,
    failures_named,
    folded_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from crdt_state.identifiers import ClientId
    from crdt_state.limits import Limits
    from crdt_state.replica.text_sessions import TextSession

__all__ = ["Digests", "Folded", "InProcess", "Repaired", "WorkerProcesses", "Workers"]


class Workers(Protocol):
    """Who carries out jobs on a document's bytes.

    Every job may raise `UpdateMalformed` and `UpdateTooLarge` (bytes that do not decode),
    `WorkerFailed` (see its causes), `LimitExceeded` (too many jobs wait) and `DocumentClosed`
    (after `close`).
    """

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        """Integrate a whole document, in the order of its log, into one state."""

    async def diff(self, state: bytes, vector: bytes) -> bytes:
        """What of one update is not in an encoded state vector; its delete set whole."""

    async def merge(self, updates: Sequence[bytes]) -> bytes:
        """One update for many, without integrating: keeps what waits for others."""

    async def as_json(self, updates: Sequence[bytes]) -> bytes:
        """The document's roots as UTF-8 JSON; values of bytes as `{"base64": …}`."""

    async def digest(self, updates: Sequence[bytes]) -> Digests:
        """What two replicas compare."""

    async def repair(
        self, updates: Sequence[bytes], splits: Sequence[tuple[int, int]]
    ) -> Repaired | None:
        """Repair the surrogate pairs that the last of `updates` cuts; None: nothing alive is."""

    async def open_text(
        self, updates: Sequence[bytes], name: str, client_id: ClientId
    ) -> TextSession:
        """Hold a text of a whole document open, to be edited under `client_id`."""

    async def close(self) -> None:
        """End them; jobs that are not done raise `DocumentClosed`."""


class InProcess:
    """The jobs carried out inline, by whoever asks.

    For an application in its own process, which trusts whom it works with; the same calls
    happen in the same order.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._is_closed = False

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.fold(updates, self._limits)

    async def diff(self, state: bytes, vector: bytes) -> bytes:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.diff(state, vector, self._limits)

    async def merge(self, updates: Sequence[bytes]) -> bytes:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.merge(updates, self._limits)

    async def as_json(self, updates: Sequence[bytes]) -> bytes:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.as_json(updates, self._limits)

    async def digest(self, updates: Sequence[bytes]) -> Digests:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.digest(updates, self._limits)

    async def repair(
        self, updates: Sequence[bytes], splits: Sequence[tuple[int, int]]
    ) -> Repaired | None:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return worker_jobs.repair(updates, splits, self._limits)

    async def open_text(
        self, updates: Sequence[bytes], name: str, client_id: ClientId
    ) -> TextSession:
        """See `Workers`."""
        self._check_open()
        with failures_named():
            return Inline(OperableText(updates, name, client_id, self._limits))

    async def close(self) -> None:
        """See `Workers`."""
        self._is_closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise DocumentClosed(CLOSED)


class WorkerProcesses:
    """A pool of at most `count` processes, started when jobs need them.

    `seconds_max` bounds the wall time of one job, without its time in the queue; None takes it
    from `limits`.
    """

    def __init__(self, limits: Limits, *, count: int = 2, seconds_max: float | None = None) -> None:
        if count < 1:
            raise ValueError(f"a pool of {count} workers could never do anything; give at least 1")
        self._limits = limits
        self._seconds_max = limits.worker_seconds_max if seconds_max is None else seconds_max
        self._free_places = asyncio.Semaphore(count)
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._holding: _Holding | None = None
        """The process of all sessions."""
        self._starting_sessions = asyncio.Lock()
        self._sessions_opened = 0
        self._is_closed = False
        self.jobs_waiting = 0
        self.jobs_running = 0
        self.processes_started = 0

    async def fold(self, updates: Sequence[bytes]) -> Folded:
        """See `Workers`."""
        return folded_of(await self._carry_out(Kind.FOLD, updates))

    async def diff(self, state: bytes, vector: bytes) -> bytes:
        """See `Workers`."""
        (difference,) = await self._carry_out(Kind.DIFF, (state, vector))
        return difference

    async def merge(self, updates: Sequence[bytes]) -> bytes:
        """See `Workers`."""
        (merged,) = await self._carry_out(Kind.MERGE, updates)
        return merged

    async def as_json(self, updates: Sequence[bytes]) -> bytes:
        """See `Workers`."""
        (text,) = await self._carry_out(Kind.AS_JSON, updates)
        return text

    async def digest(self, updates: Sequence[bytes]) -> Digests:
        """See `Workers`."""
        shallow, deep, vector = await self._carry_out(Kind.DIGEST, updates)
        return Digests(shallow, deep, vector)

    async def repair(
        self, updates: Sequence[bytes], splits: Sequence[tuple[int, int]]
    ) -> Repaired | None:
        """See `Workers`."""
        parts = await self._carry_out(Kind.REPAIR, (encode_splits(splits), *updates))
        if not parts:
            return None
        return Repaired(folded_of(parts[:FOLDED_PARTS]), tuple(parts[FOLDED_PARTS:]))

    async def open_text(
        self, updates: Sequence[bytes], name: str, client_id: ClientId
    ) -> TextSession:
        """See `Workers`."""
        self._check_open()
        self._sessions_opened += 1
        number = self._sessions_opened

        async def opened(holding: _Holding) -> TextSession:
            return await Remote.open(
                number, holding.ask, self._limits, updates=updates, name=name, client_id=client_id
            )

        async with self._starting_sessions:
            holding = await self._held()
        try:
            return await opened(holding)
        except WorkerFailed as error:
            if error.cause != "ended":
                raise
        async with self._starting_sessions:
            # Nobody else comes in before it: where a fresh process ends, it is by this document.
            return await opened(await self._held())

    async def _held(self) -> _Holding:
        """The process of the sessions, a fresh one where it has ended."""
        if self._holding is None or not self._holding.is_alive:
            self._holding = _Holding(await self._start(), self)
        return self._holding

    async def close(self) -> None:
        """See `Workers`."""
        self._is_closed = True
        for process in (*self._idle, *self._busy):
            self.end(process)
        if self._holding is not None:
            self._holding.end()
        self._idle.clear()
        # Who waits in the queue finds out when its turn comes; who runs, by the end of its pipe.
        while self._ending:
            await asyncio.wait(self._ending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The processes that are alive: idle ones, busy ones, that of the sessions."""
        held = (
            () if self._holding is None or not self._holding.is_alive else (self._holding.process,)
        )
        return tuple(process.id for process in (*self._idle, *self._busy, *held))

    async def _carry_out(self, kind: Kind, parts: Sequence[bytes]) -> list[bytes]:
        self._check_open()
        waiting_max = self._limits.worker_jobs_waiting_max
        if self.jobs_waiting >= waiting_max:
            raise LimitExceeded("worker_jobs_waiting_max", waiting_max, self.jobs_waiting + 1)
        self.jobs_waiting += 1
        try:
            await self._free_places.acquire()
        finally:
            self.jobs_waiting -= 1
        self.jobs_running += 1
        try:
            status, reply = decode_message(await self._answer(encode_message(kind, parts)))
        finally:
            self.jobs_running -= 1
            self._free_places.release()
        if status != Status.DONE:
            raise error_of(status, reply)
        return reply

    async def _answer(self, request: bytes) -> bytes:
        """The reply to a request, from a process that was free or a fresh one."""
        process = self._take_idle()
        if process is not None:
            try:
                return await self._ask(process, request)
            except WorkerFailed as error:
                # It may have died of what it did before, or in its sleep.
                if error.cause not in _MAYBE_OF_EARLIER_JOBS:
                    raise
        self._check_open()
        return await self._ask(await self._start(), request)

    async def _ask(self, process: _Process, request: bytes) -> bytes:
        self._busy.add(process)
        try:
            reply, is_leaving = await process.ask(request, self._seconds_max)
        except BaseException as error:
            self.end(process)
            if self._is_closed and isinstance(error, WorkerFailed):
                raise DocumentClosed(CLOSED) from error
            raise
        else:
            if is_leaving or self._is_closed:
                self.end(process)
            else:
                self._idle.append(process)
            return reply
        finally:
            self._busy.discard(process)

    def _take_idle(self) -> _Process | None:
        self._check_open()
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            self.end(process)
        return None

    async def _start(self) -> _Process:
        process = await _Process.start(self._limits, self._seconds_max)
        self.processes_started += 1
        if self._is_closed:
            self.end(process)
            raise DocumentClosed(CLOSED)
        return process

    async def exchange(self, process: _Process, request: bytes) -> list[bytes]:
        """The parts of a reply, from a process that holds sessions; ended where it fails."""
        try:
            reply, is_leaving = await process.ask(request, self._seconds_max)
            if is_leaving:
                self.end(process)
        except BaseException as error:
            self.end(process)
            if self._is_closed and isinstance(error, WorkerFailed):
                raise DocumentClosed(CLOSED) from error
            raise
        status, parts = decode_message(reply)
        if status != Status.DONE:
            raise error_of(status, parts)
        return parts

    def end(self, process: _Process) -> None:
        """Kill it now, and let a task collect what is left of it."""
        process.kill()
        task = asyncio.create_task(process.ended())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _check_open(self) -> None:
        if self._is_closed:
            raise DocumentClosed(CLOSED)


class _Holding:
    """The process that holds sessions; one request at a time."""

    def __init__(self, process: _Process, workers: WorkerProcesses) -> None:
        self.process = process
        self._workers = workers
        self._one = asyncio.Lock()
        self._has_answered = False
        self._has_ended = False

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen to end."""
        return not self._has_ended and self.process.is_alive

    async def ask(self, kind: Kind, parts: Sequence[bytes]) -> list[bytes]:
        """The parts of its reply.  A call that is cancelled ends every session.

        What ends by itself a process that has answered before counts as nobody's fault.
        """
        async with self._one:
            if not self.is_alive:
                raise WorkerFailed("ended", "the process of the sessions is gone")
            try:
                reply = await self._workers.exchange(self.process, encode_message(kind, parts))
            except BaseException as error:
                self._has_ended = not isinstance(error, UpdateMalformed | UpdateTooLarge)
                is_maybe_of_others = (
                    isinstance(error, WorkerFailed)
                    and error.cause in _MAYBE_OF_EARLIER_JOBS
                    and self._has_answered
                )
                if is_maybe_of_others:
                    raise WorkerFailed("ended", str(error)) from error
                raise
            self._has_answered = True
            return reply

    def end(self) -> None:
        """Kill it."""
        self._workers.end(self.process)


CLOSED = "these workers have been closed"

_MAYBE_OF_EARLIER_JOBS = ("died", "memory")

# --- one process --------------------------------------------------------------------------------

PROGRAM = "crdt_state.replica.worker_process"
LAST_WORDS_BYTES_MAX = 4_096
LAST_WORDS_SHOWN = 300
DYING_SECONDS_MAX = 5.0
KEPT_ENVIRONMENT = (
    "DYLD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "TMPDIR",
)


class _Process:
    """A started worker process and its three pipes (see `worker_process` for the frames)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._last_words = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, limits: Limits, seconds_max: float) -> _Process:
        """Execute a fresh interpreter and wait until it is ready.

        Raises `WorkerFailed` with the cause "not started", which is no document's fault.
        """
        try:
            # -P: a file of the folder that we happen to stand in must not become a module.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
            )
        except OSError as error:
            raise WorkerFailed("not started", f"{sys.executable}: {error}") from error
        self = cls(process)
        try:
            settings = orjson.dumps({**asdict(limits), "seconds_max": seconds_max})
            await self._exchange(settings, limits.worker_start_seconds_max)
        except BaseException as error:
            self.kill()
            await self.ended()
            if isinstance(error, WorkerFailed):
                raise WorkerFailed("not started", error.reason) from error
            raise
        return self

    @property
    def id(self) -> int:
        """The id that the system gave it."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    async def ask(self, request: bytes, seconds_max: float) -> tuple[bytes, bool]:
        """The reply to a request, and whether the process wants to be replaced."""
        frame = await self._exchange(request, seconds_max)
        return frame[1:], frame[:1] != b"\0"

    def kill(self) -> None:
        """End it now."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> None:
        """Wait until it has ended and its pipes are closed."""
        await self._process.wait()
        await self._listening
        _input_of(self._process).close()

    async def _exchange(self, frame: bytes, seconds_max: float) -> bytes:
        stdin, stdout = _input_of(self._process), _output_of(self._process)
        try:
            async with asyncio.timeout(seconds_max):
                stdin.write(len(frame).to_bytes(FRAME_HEADER_BYTES, "little"))
                stdin.write(frame)
                await stdin.drain()
                header = await stdout.readexactly(FRAME_HEADER_BYTES)
                return await stdout.readexactly(int.from_bytes(header, "little"))
        except TimeoutError:
            raise WorkerFailed("time", f"it took longer than {seconds_max:g} seconds") from None
        except (ConnectionError, asyncio.IncompleteReadError):
            raise await self._failure() from None

    async def _failure(self) -> WorkerFailed:
        """What a process died of whose pipe has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DYING_SECONDS_MAX):
                await self._process.wait()
                await self._listening
        words = self._last_words.decode(errors="replace").strip()
        cause = "memory" if any(sign in words for sign in _SIGNS_OF_NO_MEMORY) else "died"
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        reason = f"the process ended with {how}"
        return WorkerFailed(cause, f"{reason}: {words[-LAST_WORDS_SHOWN:]}" if words else reason)

    async def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101  it was asked for as a pipe
        while chunk := await stderr.read(LAST_WORDS_BYTES_MAX):
            self._last_words = (self._last_words + chunk)[-LAST_WORDS_BYTES_MAX:]


_SIGNS_OF_NO_MEMORY = ("memory allocation of", "MemoryError")
"""The last words of the native engine, and of the interpreter, when an allocation fails."""


def _input_of(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    assert process.stdin is not None  # noqa: S101  it was asked for as a pipe
    return process.stdin


def _output_of(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    assert process.stdout is not None  # noqa: S101  it was asked for as a pipe
    return process.stdout


def _environment() -> dict[str, str]:
    """What a worker needs of ours: where its modules are, and none of our secrets."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    here = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join([here, *(path for path in sys.path if path)])
    return kept
