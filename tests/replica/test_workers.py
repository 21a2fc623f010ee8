from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pycrdt
import pytest

from crdt_state.errors import (
    DocumentClosed,
    LimitExceeded,
    UpdateMalformed,
    UpdateTooLarge,
    WorkerFailed,
)
from crdt_state.lib0 import CodingError, encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model import engine
from crdt_state.model.engine import EMPTY_UPDATE, EMPTY_VECTOR
from crdt_state.model.head import Head
from crdt_state.replica import worker_jobs, worker_process
from crdt_state.replica.workers import InProcess, WorkerProcesses, Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or waits on a pidfd")
SECONDS_FOR_A_KILL = 10.0


def edits() -> list[bytes]:
    """Three updates of one client: a text, more text, a map entry."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
    text = document.get("text", type=pycrdt.Text)
    entries = document.get("map", type=pycrdt.Map)
    made: list[bytes] = []
    document.observe(lambda event: made.append(event.update))
    text += "hello "
    text += "world 😀"
    entries["blob"] = b"\0\xff"
    return made


def deep_value() -> bytes:
    """60 KB: an `Any` nested 30,000 deep, as one map entry."""
    nested = b"\x75\x01" * 30_000 + b"\x75\x00"
    return b"\x01\x01\x07\x00\x28\x01\x01m\x01k\x01" + nested + b"\x00"


def crowded_key(clients: int) -> list[bytes]:
    """One map key, written by so many clients that do not know of each other."""
    head = b"\x28\x01\x01m\x01k\x01\x7d"
    return [
        b"\x01\x01" + encode_varuint(client) + b"\x00" + head + b"\x01\x00"
        for client in range(1, clients + 1)
    ]


def long_text(size: int) -> bytes:
    return b"\x01\x01\x01\x00\x04\x01\x01t" + encode_string("a" * size) + b"\x00"


PANICKING = bytes.fromhex("010201fffffeff0f2701036d6170017a020400010d02717100")
"""A counter near 2^32: yrs asks for item 922,337,203 of one."""

STALLING = crowded_key(40_000)
"""About 25 seconds of native work with the interpreter's lock held."""


@asynccontextmanager
async def pool(**named: Any) -> AsyncIterator[WorkerProcesses]:
    async with WorkerProcesses(DEFAULT_LIMITS, **named) as workers:
        yield workers


async def until(is_so: Callable[[], object]) -> None:
    """Let the loop go on until something in this process is so."""
    while not is_so():  # noqa: ASYNC110  nothing announces it
        await asyncio.sleep(0)


async def until_running(workers: WorkerProcesses) -> None:
    await until(lambda: workers.process_ids and workers.jobs_running)


def has_ended(process_id: int, *, within_seconds: float) -> bool:
    """Wait for the end of a process that need not be our child."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_seconds)[0])
    finally:
        os.close(descriptor)


# --- what jobs answer -------------------------------------------------------------------------


@pytest.fixture(params=["in process", "in worker processes"])
async def workers(request) -> AsyncIterator[Workers]:
    kind = InProcess if request.param == "in process" else WorkerProcesses
    async with kind(DEFAULT_LIMITS) as adapter:
        yield adapter


async def test_a_fold_is_the_document_in_one_update_with_its_head(workers: Workers) -> None:
    updates = edits()
    folded = await workers.fold(updates)
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.apply_update(folded.state)
    assert str(document.get("text", type=pycrdt.Text)) == "hello world 😀"
    assert folded.vector == document.get_state()
    assert Head.decode(folded.head) == Head.of_state(folded.state, DEFAULT_LIMITS)
    assert len(folded.digest) == len(folded.deep_digest) == 16
    assert folded.waiting == ()


async def test_a_fold_of_nothing_is_empty(workers: Workers) -> None:
    folded = await workers.fold([])
    assert (folded.state, folded.vector, folded.waiting) == (EMPTY_UPDATE, EMPTY_VECTOR, ())


async def test_a_fold_names_what_waits_for_something_else(workers: Workers) -> None:
    first, second, third = edits()
    deletes_the_unknown = b"\x00\x01\x63\x01\x00\x01"
    folded = await workers.fold([third, first, deletes_the_unknown])
    assert folded.waiting == (0, 2)
    again = await workers.fold([folded.state, third, second])
    assert again.waiting == ()


async def test_a_merge_keeps_what_waits(workers: Workers) -> None:
    first, second, third = edits()
    merged = await workers.merge([third, first])
    assert (await workers.fold([merged, second])).waiting == ()


async def test_a_difference_is_what_a_state_vector_lacks(workers: Workers) -> None:
    first, *rest = edits()
    state, known = await workers.fold([first, *rest]), await workers.fold([first])
    missing = await workers.diff(state.state, known.vector)
    assert len(missing) < len(state.state)
    assert (await workers.fold([first, missing])).digest == state.digest


async def test_json_shows_text_and_bytes(workers: Workers) -> None:
    shown = orjson.loads(await workers.as_json(edits()))
    assert shown == {"text": "hello world 😀", "map": {"blob": {"base64": "AP8="}}}


async def test_digests_do_not_depend_on_the_order_of_updates(workers: Workers) -> None:
    updates = edits()
    forwards, backwards = await workers.digest(updates), await workers.digest(updates[::-1])
    assert forwards == backwards
    assert forwards != await workers.digest(updates[:2])


async def test_a_repair_gives_the_whole_document_and_what_to_send(workers: Workers) -> None:
    first, second, _ = edits()
    # Between the halves of the character that ends "hello world 😀", counters 12 and 13.
    cut = b"\x01\x01\x02\x00\xc4\x01\x0c\x01\x0d\x01x\x00"
    repaired = await workers.repair([first, second, cut], [(1, 13)])
    assert repaired is not None
    assert len(repaired.updates) == 3
    assert repaired.folded.waiting == ()
    shown = orjson.loads(await workers.as_json([repaired.folded.state]))["text"]
    assert shown in {"hello world x😀", "hello world 😀x"}
    log = [first, second, *repaired.updates]
    assert (await workers.digest(log)).digest == repaired.folded.digest
    assert await workers.repair([*log, cut], [(1, 13)]) is None


async def test_bytes_that_are_no_update_are_refused_by_name(workers: Workers) -> None:
    with pytest.raises(UpdateMalformed):
        await workers.fold([b"\x01\x02\x03 no update"])
    assert (await workers.fold(edits())).waiting == ()


async def test_after_close_every_job_says_so(workers: Workers) -> None:
    await workers.close()
    with pytest.raises(DocumentClosed):
        await workers.fold(edits())


# --- what harms a process harms only its job --------------------------------------------------


async def test_a_value_that_kills_the_process_fails_that_job_and_the_next_one_works() -> None:
    async with pool(count=1) as workers:
        for job in (workers.fold, workers.merge, workers.as_json, workers.digest):
            with pytest.raises(WorkerFailed) as caught:
                await job([deep_value(), edits()[0]])
            assert caught.value.cause == "died"
        assert (await workers.fold(edits())).waiting == ()


async def test_a_panic_fails_that_job_and_the_process_is_replaced() -> None:
    async with pool(count=1) as workers:
        await workers.merge(edits())
        (before,) = workers.process_ids
        with pytest.raises(WorkerFailed) as caught:
            await workers.as_json([PANICKING])
        assert caught.value.cause == "panicked"
        await workers.merge(edits())
        assert before not in workers.process_ids


async def test_a_job_that_takes_too_long_is_killed_and_the_next_one_works() -> None:
    async with pool(count=1, seconds_max=0.5) as workers:
        with pytest.raises(WorkerFailed) as caught:
            await workers.fold(STALLING)
        assert caught.value.cause == "time"
        assert (await workers.fold(edits())).waiting == ()


@LINUX_ONLY
async def test_a_job_that_takes_too_much_memory_fails_and_the_next_one_works() -> None:
    limits = replace(DEFAULT_LIMITS, worker_memory_bytes_max=48 * 1024 * 1024)
    async with WorkerProcesses(limits, count=1) as workers:
        with pytest.raises(WorkerFailed) as caught:
            await workers.fold([long_text(30_000_000)])
        assert caught.value.cause == "memory"
        assert (await workers.fold(edits())).waiting == ()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(8, "little") + message


def test_a_process_that_has_grown_asks_to_be_replaced_before_it_fails_somebody_else(
    monkeypatch,
) -> None:
    mapped = iter([0, DEFAULT_LIMITS.worker_memory_bytes_max])
    monkeypatch.setattr(worker_process, "_mapped_bytes", lambda: next(mapped))
    for bound in ("_bound_memory", "_set_alarm"):
        monkeypatch.setattr(worker_process, bound, lambda _: None)
    settings = orjson.dumps({**asdict(DEFAULT_LIMITS), "seconds_max": 1.0})
    request = worker_jobs.encode_message(worker_jobs.Kind.MERGE, edits())
    stdin = BytesIO(b"".join(map(framed, (settings, request, request))))
    stdout = BytesIO()
    worker_process.serve(stdin, stdout)
    reply = worker_jobs.encode_message(worker_jobs.Status.DONE, [engine.merge(edits())])
    assert stdout.getvalue() == framed(b"") + framed(b"\x01" + reply)


async def test_a_stalled_job_does_not_hold_up_the_others() -> None:
    async with pool(count=2, seconds_max=60.0) as workers:
        stalled = asyncio.create_task(workers.fold(STALLING))
        await until_running(workers)
        for _ in range(5):
            assert (await workers.fold(edits())).waiting == ()
        assert not stalled.done()
        stalled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stalled


async def test_a_process_that_died_while_idle_costs_no_job() -> None:
    async with pool(count=1) as workers:
        await workers.merge(edits())
        os.kill(workers.process_ids[0], signal.SIGKILL)
        assert (await workers.fold(edits())).waiting == ()
        assert workers.processes_started == 2


async def test_an_interpreter_that_does_not_start_is_no_fault_of_the_document(monkeypatch) -> None:
    async with pool() as workers:
        for program in ("/no/such/interpreter", "/bin/false"):
            monkeypatch.setattr(sys, "executable", program)
            with pytest.raises(WorkerFailed) as caught:
                await workers.fold(edits())
            assert caught.value.cause == "not started"


# --- places, queue, cancellation --------------------------------------------------------------


async def test_processes_start_when_needed_stay_warm_and_never_exceed_the_count() -> None:
    async with pool(count=2) as workers:
        assert workers.process_ids == ()
        await workers.merge(edits())
        (warm,) = workers.process_ids
        await asyncio.gather(*(workers.merge(edits()) for _ in range(20)))
        assert len(workers.process_ids) == workers.processes_started == 2
        assert warm in workers.process_ids


async def test_a_cancelled_call_ends_its_process_and_frees_its_place() -> None:
    async with pool(count=1) as workers:
        stalled = asyncio.create_task(workers.fold(STALLING))
        await until_running(workers)
        (busy,) = workers.process_ids
        stalled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stalled
        assert (await workers.fold(edits())).waiting == ()
        assert busy not in workers.process_ids


async def test_a_call_cancelled_in_the_queue_takes_no_place() -> None:
    async with pool(count=1, seconds_max=2.0) as workers:
        stalled = asyncio.create_task(workers.fold(STALLING))
        await until_running(workers)
        queued = asyncio.create_task(workers.fold(edits()))
        await until(lambda: workers.jobs_waiting)
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        assert workers.jobs_waiting == 0
        stalled.cancel()
        await asyncio.gather(stalled, return_exceptions=True)
        assert (await workers.fold(edits())).waiting == ()


async def test_more_jobs_than_may_wait_are_refused_at_once() -> None:
    limits = replace(DEFAULT_LIMITS, worker_jobs_waiting_max=2)
    async with WorkerProcesses(limits, count=1) as workers:
        jobs = [asyncio.create_task(workers.merge(edits())) for _ in range(5)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
    refused = [result for result in results if isinstance(result, LimitExceeded)]
    assert [error.limit for error in refused] == ["worker_jobs_waiting_max"] * 2


async def test_close_ends_what_runs_and_what_waits() -> None:
    workers = WorkerProcesses(DEFAULT_LIMITS, count=1)
    running = asyncio.create_task(workers.fold(STALLING))
    await until_running(workers)
    waiting = asyncio.create_task(workers.merge(edits()))
    await asyncio.sleep(0)
    (busy,) = workers.process_ids
    await workers.close()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [DocumentClosed, DocumentClosed]
    with pytest.raises(ProcessLookupError):
        os.kill(busy, 0)


def test_a_pool_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WorkerProcesses(DEFAULT_LIMITS, count=0)


# --- the process itself -----------------------------------------------------------------------

PARENT = """
import asyncio, sys
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.workers import WorkerProcesses
from test_workers import STALLING, edits

async def main():
    workers = WorkerProcesses(DEFAULT_LIMITS, count=1, seconds_max=0.2)
    await workers.merge(edits())
    print(*workers.process_ids, flush=True)
    if sys.argv[1] == "stalled":
        workers._seconds_max = 60.0
        stalled = asyncio.create_task(workers.fold(STALLING))
        while not workers._busy:
            await asyncio.sleep(0)
        (process,) = workers._busy
        # What is in the pipe is read by the worker even when nobody is left to answer.
        while process._process.stdin.transport.get_write_buffer_size():
            await asyncio.sleep(0)
        print("stalled", flush=True)
        await stalled
    await asyncio.Event().wait()

asyncio.run(main())
"""


@LINUX_ONLY
@pytest.mark.parametrize("state", ["idle", "stalled"])
def test_no_process_outlives_a_parent_that_was_killed(state: str) -> None:
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, state],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": here},
    ) as parent:
        assert parent.stdout is not None
        process_id = int(parent.stdout.readline())
        os.kill(process_id, 0)
        if state == "stalled":
            assert parent.stdout.readline()
        parent.kill()
        parent.wait()
        assert has_ended(process_id, within_seconds=SECONDS_FOR_A_KILL)


def environment_of(process_id: int) -> bytes:
    return Path(f"/proc/{process_id}/environ").read_bytes()


@LINUX_ONLY
async def test_a_worker_is_given_none_of_our_secrets(monkeypatch) -> None:
    monkeypatch.setenv("CRDT_STATE_TOKEN", "a secret")
    async with pool(count=1) as workers:
        await workers.merge(edits())
        environment = environment_of(workers.process_ids[0])
    assert b"PYTHONPATH" in environment
    assert b"secret" not in environment


async def test_signals_to_the_whole_group_leave_a_worker_to_its_parent() -> None:
    async with pool(count=1) as workers:
        await workers.merge(edits())
        (process_id,) = workers.process_ids
        for name in (signal.SIGINT, signal.SIGTERM):
            os.kill(process_id, name)
        await workers.merge(edits())
        assert workers.process_ids == (process_id,)


# --- the coding -------------------------------------------------------------------------------


def test_messages_survive_their_coding() -> None:
    parts = [b"", b"one", bytes(300)]
    assert worker_jobs.decode_message(worker_jobs.encode_message(3, parts)) == (3, parts)


@pytest.mark.parametrize("message", [b"", b"\x01", b"\x01\x02\x00", b"\x01\x00\x00", b"\x01\xff"])
def test_a_message_that_ends_early_or_late_is_refused(message: bytes) -> None:
    with pytest.raises(CodingError):
        worker_jobs.decode_message(message)


@pytest.mark.parametrize(
    "error",
    [
        UpdateMalformed("not an update: ä😀"),
        UpdateTooLarge("key_bytes_max", 4_096, 5_000),
        WorkerFailed("panicked", "called `Option::unwrap()` on a `None` value"),
    ],
)
def test_errors_survive_their_coding(error) -> None:
    again = worker_jobs.error_of(*worker_jobs.decode_message(worker_jobs.encode_error(error)))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_splits_survive_their_coding() -> None:
    splits = [(2**53 - 1, 2**31), (1, 2)]
    assert worker_jobs.decode_splits(worker_jobs.encode_splits(splits)) == splits
