"""What the guard costs: µs per update, for typing, and for other small updates.

The typing is made here by pycrdt, key by key; a batch is what one author sends within a tick.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from pycrdt import Doc, Map, Text

from benchmarks.figures import Figure
from crdt_state.clocks import SystemClock
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.protocol.ywebsocket import Update, decode, encode_update
from crdt_state.replica.admission import ADMITTED, Author, admit_many
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.document_core import DocumentCore
from crdt_state.security.rate import Rate
from crdt_state.storage.contract import Usage
from crdt_state.transport.listener import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AUTHOR = Author("ada")
NOTHING_STORED = Usage(0, 0)
BATCH = 64


YJS_CLIENT = 3_456_789_012
"""Yjs draws 32 bits, pycrdt 53; the bytes of a key press are otherwise the same."""


def typing(count: int, *, jumps: int = 0, client: int | None = None) -> list[bytes]:
    """The updates of `count` key presses; with `jumps`, the cursor moves after so many."""
    document: Doc[Any] = Doc(client_id=client)
    text = document.get("text", type=Text)
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    at = 0
    for press in range(count):
        if jumps and press % jumps == 0:
            at = press // 2
        text.insert(at, "abcdefgh "[press % 9])
        at += 1
    document.unobserve(subscription)
    return updates


def erasing(count: int) -> tuple[bytes, list[bytes]]:
    """A text, and the updates of `count` deletions of its last character."""
    document: Doc[Any] = Doc()
    text = document.get("text", type=Text)
    text += "x" * count
    state = document.get_update()
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    for left in range(count, 0, -1):
        del text[left - 1]
    document.unobserve(subscription)
    return state, updates


def setting(count: int) -> list[bytes]:
    """The updates of `count` writes to ten keys of a map."""
    document: Doc[Any] = Doc()
    values = document.get("map", type=Map)
    updates: list[bytes] = []
    subscription = document.observe(lambda event: updates.append(event.update))
    for number in range(count):
        values[f"key-{number % 10}"] = number
    document.unobserve(subscription)
    return updates


def microseconds(run: Callable[[], int], repeats: int = 5) -> float:
    """The best of several runs, per update; `run` returns how many updates it handled."""
    best = float("inf")
    for _ in range(repeats):
        begin = perf_counter()
        count = run()
        best = min(best, (perf_counter() - begin) / count)
    return best * 1e6


def admitting(updates: list[bytes], batch: int, before: bytes | None = None) -> float:
    """µs per update when `batch` of them come at once."""

    def run() -> int:
        head = Head()
        if before is not None:
            head.take(inspect(before, DEFAULT_LIMITS), owner=AUTHOR.identity)
        admitted = 0
        for start in range(0, len(updates), batch):
            verdicts = admit_many(head, updates[start : start + batch], AUTHOR, DEFAULT_LIMITS)
            admitted += sum(type(verdict) is type(ADMITTED) for verdict in verdicts)
        if admitted != len(updates):
            raise AssertionError(f"{admitted} of {len(updates)} admitted")
        return admitted

    return microseconds(run)


def inspecting(updates: list[bytes]) -> float:
    """µs per update for reading alone."""

    def run() -> int:
        for update in updates:
            inspect(update, DEFAULT_LIMITS)
        return len(updates)

    return microseconds(run)


def receiving(updates: list[bytes], batch: int) -> float:
    """µs per update from a frame to its place in the next commit.

    Everything a server does with it but reading the socket and writing the disk: decoding,
    rights, rate, counting, backpressure, inspection, admission.
    """
    frames = [encode_update(update) for update in updates]
    document = document_id("bench/guard")
    clock = SystemClock()

    def run() -> int:
        core = ReplicaCore(DEFAULT_LIMITS)
        core.open(DocumentCore(document, None, DEFAULT_LIMITS))
        # As a listener does when somebody comes: the quota is then part of what is measured.
        core.quotas.count("ada", NOTHING_STORED, before=NOTHING_STORED, now=clock.now())
        rate, traffic = Rate(DEFAULT_LIMITS, clock.now()), Traffic()
        admitted = 0
        for start in range(0, len(frames), batch):
            for frame in frames[start : start + batch]:
                traffic.messages_received += 1
                traffic.bytes_received += len(frame)
                message = decode(frame)
                if not isinstance(message, Update):
                    raise TypeError("only updates are measured")
                core.receive(document, 1, AUTHOR, message.update, name="identity ada")
                if rate.take(len(frame), clock.now()):
                    raise AssertionError("the rate is not what is measured")
                if core.waiting_bytes > DEFAULT_LIMITS.writer_queue_bytes_max:
                    raise AssertionError("the queue is not what is measured")
            core.decide(clock.wall())
            gathered = core.take_batch()
            if gathered is not None:
                admitted += gathered.updates
                core.persisted(gathered)
        if admitted != len(frames):
            raise AssertionError(f"{admitted} of {len(frames)} admitted")
        return admitted

    return microseconds(run)


def measure() -> Iterator[Figure]:
    """The whole path of an update, and the guard's share of it."""
    keys = typing(10_000)
    text, deletions = erasing(5_000)
    yield Figure("guard_busy", receiving(keys, 256), "µs", "typing, 256 in a tick, whole path")
    yield Figure("guard_alone", receiving(keys, 1), "µs", "typing, one in a tick, whole path")
    yield Figure("inspect_typing", inspecting(keys), "µs", "reading alone")
    yield Figure("admit_typing", admitting(keys, BATCH), "µs", f"{BATCH} at once")
    jumping = admitting(typing(10_000, jumps=10), BATCH)
    yield Figure("admit_jumping", jumping, "µs", "the cursor moves every ten keys")
    yield Figure("admit_erasing", admitting(deletions, BATCH, text), "µs", f"{BATCH} at once")
    yield Figure("admit_map", admitting(setting(5_000), BATCH), "µs", "ten keys of a map")
