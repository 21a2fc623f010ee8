"""The program of a worker process: jobs come in on its input, results go out on its output.

A frame is a length (8 bytes, little-endian) and so many bytes.  The first frame in is the limits
as JSON, and is answered by an empty frame when the process is ready.  From then on every frame in
is a request of `worker_jobs` and is answered by one reply; a reply is preceded by one byte that
says whether the process stays (0) or asks to be replaced (1).

A process that holds sessions (`text_sessions`) stays as long as it has any.

The process is made to die rather than to harm.  It may not take more memory than its bound, an
alarm ends it when a job takes too long and nobody is left to kill it, it leaves no core file, and
the end of its input ends it, so that it never outlives its parent.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import orjson

from crdt_state.errors import UpdateMalformed, UpdateTooLarge, WorkerFailed
from crdt_state.limits import Limits
from crdt_state.replica.text_sessions import Sessions
from crdt_state.replica.worker_jobs import (
    FRAME_HEADER_BYTES,
    OF_SESSIONS,
    Status,
    decode_message,
    encode_error,
    encode_message,
    perform,
)

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.platform != "win32":  # Windows has no such bounds; the parent's clock still holds there.
    import resource

__all__ = ["GRACE_SECONDS", "main", "serve"]

GRACE_SECONDS = 1.0
"""How much later than the parent's bound the process ends itself."""


def main() -> None:
    """Serve jobs on standard input and output until the input ends."""
    # A stray print, ours or a library's, must not end up between two frames.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Ctrl-C and a service manager's SIGTERM reach the whole group.  The parent drains, and then
    # closes our input; jobs that run meanwhile are part of draining.
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    serve(sys.stdin.buffer, output)


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer frame by frame until `stdin` ends or the process should be replaced."""
    first = _read_frame(stdin)
    if first is None:
        return
    settings = orjson.loads(first)
    seconds_max: float = settings.pop("seconds_max")
    limits = Limits(**settings)
    sessions = Sessions(limits)
    # What the interpreter has mapped by now is not the jobs'.
    before = _mapped_bytes()
    _bound_memory(before + limits.worker_memory_bytes_max)
    _write_frame(stdout)
    while (request := _read_frame(stdin)) is not None:
        _set_alarm(seconds_max + GRACE_SECONDS)
        reply, is_well = _answer(request, limits, sessions)
        _set_alarm(0)
        # What jobs leave mapped must not be the reason why a later one finds no memory.
        is_full = _mapped_bytes() - before > limits.worker_memory_bytes_max // 4 and not sessions
        is_leaving = is_full or not is_well
        _write_frame(stdout, bytes([is_leaving]), reply)
        if is_leaving:
            return


def _answer(request: bytes, limits: Limits, sessions: Sessions) -> tuple[bytes, bool]:
    """The reply, and whether the process is as good as new after it."""
    try:
        kind, parts = decode_message(request)
        if kind in OF_SESSIONS:
            return encode_message(Status.DONE, sessions.perform(kind, parts)), True
        return encode_message(Status.DONE, perform(kind, parts, limits)), True
    except (UpdateMalformed, UpdateTooLarge) as error:
        return encode_error(error), True
    except WorkerFailed as error:
        # A panic leaves native locks and memory in a state that nobody vouches for.
        return encode_error(error), False


def _read_frame(stdin: BinaryIO) -> bytes | None:
    header = stdin.read(FRAME_HEADER_BYTES)
    if len(header) < FRAME_HEADER_BYTES:
        return None
    size = int.from_bytes(header, "little")
    frame = stdin.read(size)
    return frame if len(frame) == size else None


def _write_frame(stdout: BinaryIO, *pieces: bytes) -> None:
    stdout.write(sum(map(len, pieces)).to_bytes(FRAME_HEADER_BYTES, "little"))
    for piece in pieces:
        stdout.write(piece)
    stdout.flush()


def _bound_memory(bytes_max: int) -> None:
    """Let allocations beyond the bound fail, and leave no core, where the system can do that."""
    if sys.platform == "win32":
        return
    for kind, amount in ((resource.RLIMIT_AS, bytes_max), (resource.RLIMIT_CORE, 0)):
        # macOS knows the name and refuses the value; the bound of time still holds there.
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (amount, amount))


def _mapped_bytes() -> int:
    """The size of the address space, which RLIMIT_AS bounds; 0 where it cannot be known."""
    if sys.platform == "win32":
        return 0
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


_set_timer: Callable[[int, float], object] | None = getattr(signal, "setitimer", None)


def _set_alarm(seconds: float) -> None:
    """Arrange that the kernel ends this process after `seconds`; 0 takes it back.

    The default action of SIGALRM needs no interpreter, so it also ends native code that never
    comes back.
    """
    if _set_timer is not None:
        _set_timer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
