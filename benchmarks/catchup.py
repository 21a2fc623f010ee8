"""`make bench-catchup`: what it costs two replicas over real SQLite files to find and mend what
differs between them, in a scope of 10,000 and of 1,000,000 documents.

The server is a process of its own, the client is here, and between them stands a relay that
counts what passes on the socket.  A round trip is counted by what depends on what: a message that
is said after an answer was heard is one deeper than that.  The handshake and the greeting are
listed apart.  Every document has real update bytes; differences are real edits and deletions, and
the set that is found is compared with a brute-force comparison of all digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pycrdt import Doc, Text
from rich.console import Console

from benchmarks.figures import Figure, Report
from benchmarks.reference import slowness
from benchmarks.serving import serving
from crdt_state.clocks import SystemClock
from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId, Scope, document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.merkle.hashes import bucket_of, leaf_of
from crdt_state.protocol.peer.compression import COMPRESSED, Decompressor
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import Hello, State, Welcome, decode_all, encode
from crdt_state.protocol.peer.parts import FRAME_BYTES_MAX
from crdt_state.protocol.peer.scopes import (
    Answer,
    Ask,
    Bring,
    Brought,
    Exchange,
    Exchanged,
    Root,
    ScopeMessage,
    Subscribe,
)
from crdt_state.replica import worker_jobs
from crdt_state.replica.tries import Tries
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import WATERMARKS, Append, SetLeaf, SetMetadata
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.storage.sqlite_connection import configure
from crdt_state.storage.sqlite_identity import write_fact
from crdt_state.storage.sqlite_schema import migrate
from crdt_state.storage.sqlite_writing import commit_group
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from crdt_state.transport.scope_catch_up import CatchUp
from crdt_state.transport.websocket import WebSocketDial
from sync_server.settings import STORE_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from crdt_state.protocol.peer.messages import Message
    from crdt_state.transport.scope_link import ScopeFollower
    from crdt_state.transport.websocket import WebSocketConnection

SCOPE = Scope("notes")
REMOTE = "ws://catch-up.example"
SIZES = (10_000, 1_000_000)
DIFFERENCES = (0, 1, 10, 100, 1_000, 100_000)
TEMPLATES = 500
AT_ONCE = 2_000
FILLED_AT_ONCE = 50_000
"""Buckets are in the order of hashes: what is written at once shares pages of their index."""

SEED = 8

HANDSHAKES = 500
"""Documents of which the cost of a handshake each is measured."""


# --- the documents ----------------------------------------------------------------------------


def named(number: int) -> DocumentId:
    return document_id(f"notes/{number:07d}")


def written(text: str, client: int, *before: bytes, deletes: int = 0) -> bytes:
    """An update in which `client` changes a document."""
    document: Doc[Any] = Doc(client_id=client)
    for update in before:
        document.apply_update(update)
    seen = document.get_state()
    shown = document.get("text", type=Text)
    if deletes:
        del shown[0:deletes]
    shown += text
    return document.get_update(seen)


def templates() -> list[tuple[bytes, worker_jobs.Digests]]:
    """Updates that documents begin with, and their digests."""
    updates = [written(f"note {n} of somebody", 1_000 + n) for n in range(TEMPLATES)]
    return [(each, worker_jobs.digest([each], DEFAULT_LIMITS)) for each in updates]


async def fill(store: SqliteStore, count: int) -> float:
    """Write `count` documents and their leaves, then build the trie; seconds for the last."""
    begun = templates()
    for first in range(0, count, FILLED_AT_ONCE):
        numbers = range(first, min(first + FILLED_AT_ONCE, count))
        await store.write([Append(named(n), (begun[n % TEMPLATES][0],)) for n in numbers])
        last = await store.write([])
        leaves = []
        for n in numbers:
            digests = begun[n % TEMPLATES][1]
            through = last - (numbers.stop - 1 - n)
            leaf = leaf_of(named(n), digests.deep_digest)
            leaves.append(SetLeaf(named(n), through, bucket_of(named(n)), leaf))
        await store.write(leaves)
    begin = time.perf_counter()
    await tries_of(store).mend(SCOPE)
    return time.perf_counter() - begin


def become_another(ours: Path, theirs: Path) -> None:
    """Copy a store and let the copy be another replica, which holds the same documents."""
    shutil.copy(ours, theirs)
    connection = sqlite3.connect(theirs, isolation_level=None)
    write_fact(connection, "replica_id", Random(SEED).randbytes(16))
    connection.close()


def tries_of(store: SqliteStore) -> Tries:
    return Tries(store, InProcess(DEFAULT_LIMITS), set_aside=_never)


async def _never(document: DocumentId, reason: str) -> None:
    raise AssertionError(f"{document} was set aside: {reason}")


async def differ(ours: SqliteStore, theirs: SqliteStore, count: int, of: int, dice: Random) -> None:
    """Make `count` documents differ: edits and deletions on either side, and new documents."""
    numbers = dice.sample(range(of), count)
    writes: dict[SqliteStore, list[Append]] = {ours: [], theirs: []}
    for at, number in enumerate(numbers):
        store = (ours, theirs)[at % 2]
        name, client = named(number), dice.randrange(10**6, 10**9)
        if at % 10 < 2:
            name = document_id(f"notes/new-{number:07d}-{count}")
            update = written("a new note", client)
        else:
            stored = await store.read(name)
            update = written(" edited" * (at % 3), client, *stored.updates(), deletes=4)
        writes[store].append(Append(name, (update,)))
    for store, appends in writes.items():
        for at in range(0, len(appends), AT_ONCE):
            await store.write(appends[at : at + AT_ONCE])
        await tries_of(store).settle(SCOPE)


async def leaves_of(store: SqliteStore) -> dict[DocumentId, bytes]:
    found: dict[DocumentId, bytes] = {}
    after = ""
    while page := await store.leaves(prefix="notes/", after=after, limit=10_000):
        after = page[-1].document
        found.update((leaf.document, leaf.leaf) for leaf in page)
    return found


async def brute_force(ours: SqliteStore, theirs: SqliteStore) -> set[DocumentId]:
    """Documents that differ, by looking at all of them."""
    here, there = await leaves_of(ours), await leaves_of(theirs)
    return {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}


# --- the socket -------------------------------------------------------------------------------


class Relay:
    """Passes bytes on between a client and a server, and counts them."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self.url = ""
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._pass_on(source, target))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                self.bytes += len(data)
                target.write(data)
                await target.drain()
        target.close()


@dataclass
class Witnessed:
    """What passed between the two, and what it depended on."""

    relay: Relay
    handshake_bytes: int = 0
    greeting_bytes: int = 0
    batch_bytes: int = 0
    named_bytes: int = 0
    found: set[DocumentId] = field(default_factory=set)
    found_at: tuple[int, float] | None = None
    """Bytes and CPU seconds when the walk had come to its end."""
    root_at: float = 0.0
    found_depth: int = 0
    held_depth: int = 0
    acknowledged_depth: int = 0
    depth: int = 0
    _asked: dict[str, deque[int]] = field(default_factory=dict)
    _exchanging: deque[tuple[int, int]] = field(default_factory=deque)
    _unwritten: deque[int] = field(default_factory=deque)
    _untaken: deque[int] = field(default_factory=deque)
    """Of what has been heard and not taken by the follower, how deep each is."""

    def follow(self, follower: ScopeFollower) -> None:
        """Count what is said next as one deeper than what the follower has taken."""
        following = follower.next

        async def taken() -> ScopeMessage:
            message = await following()
            self.depth = max(self.depth, self._untaken.popleft())
            return message

        follower.next = taken  # type: ignore[method-assign]

    @contextlib.contextmanager
    def saying(self) -> Iterator[None]:
        """Note how deep each message is when it is made, not when it is written."""
        say = SyncProtocol.say_of_scope

        def noted(protocol: SyncProtocol, message: ScopeMessage) -> None:
            self._unwritten.append(self.depth + 1)
            say(protocol, message)

        exchange = CatchUp._exchange

        async def exchanged(catching: CatchUp, *arguments: Any, **options: Any) -> None:
            self.found_at = self.found_at or (self.relay.bytes, time.process_time())
            await exchange(catching, *arguments, **options)

        SyncProtocol.say_of_scope = noted  # type: ignore[method-assign]
        CatchUp._exchange = exchanged  # type: ignore[method-assign]
        try:
            yield
        finally:
            SyncProtocol.say_of_scope = say  # type: ignore[method-assign]
            CatchUp._exchange = exchange  # type: ignore[method-assign]

    async def dial(self, url: str) -> WebSocketConnection:
        connection = await WebSocketDial(DEFAULT_LIMITS)(url)
        self.handshake_bytes = self.relay.bytes
        send, receive = connection.send, connection.receive
        outward, inward = Decompressor(FRAME_BYTES_MAX), Decompressor(FRAME_BYTES_MAX)

        def watched_send(frame: bytes) -> None:
            messages = messages_of(frame, outward)
            self._count(frame, messages)
            for message in messages:
                self._said(message)
            send(frame)

        async def watched_receive() -> bytes:
            frame = await receive()
            messages = messages_of(frame, inward)
            self._count(frame, messages)
            for message in messages:
                self._heard(message)
            return frame

        connection.send, connection.receive = watched_send, watched_receive  # type: ignore[method-assign]
        return connection

    def _said(self, message: Any) -> None:
        if isinstance(message, Hello):
            self.greeting_bytes += len(encode(message))
        if not isinstance(message, ScopeMessage):
            return
        answer = {Ask: Answer, Bring: Brought, Subscribe: Root}
        kind = answer.get(type(message))
        # The first is said with the greeting, and the roots are shown in its answer.
        depth = self._unwritten.popleft()
        if isinstance(message, Subscribe):
            depth = 0
        if kind is not None:
            self._asked.setdefault(kind.__name__, deque()).append(depth)
        if isinstance(message, Exchange | Bring) and not self.found_depth:
            self.found_depth = depth - 1
        if isinstance(message, Exchange):
            self.found |= {name for name, _ in message.held}
            self._exchanging.append((depth, len(message.held)))
        elif isinstance(message, Bring):
            self.acknowledged_depth = max(self.acknowledged_depth, depth)

    def _heard(self, message: Any) -> None:
        if isinstance(message, Welcome):
            self.greeting_bytes += len(encode(message))
        if not isinstance(message, ScopeMessage):
            return
        if isinstance(message, Root):
            self.root_at = time.process_time()
        asked = self._asked.get(type(message).__name__)
        depth = self.depth
        if isinstance(message, Exchanged):
            depth, left = self._exchanging.popleft()
            self.held_depth = max(self.held_depth, depth)
            left -= len(message.parcels)
            if left:
                self._exchanging.appendleft((depth, left))
        elif asked:
            depth = asked.popleft()
        self._untaken.append(depth)

    def _count(self, frame: bytes, messages: list[Any]) -> None:
        """What of a frame is batches: by their share of what it holds before it is compressed."""
        batches = [each for each in messages if isinstance(each, Exchanged | Bring)]
        if not batches:
            return
        share = sum(len(encode(each)) for each in batches) / sum(len(encode(m)) for m in messages)
        self.batch_bytes += round(share * len(frame))
        parcels = [parcel for batch in batches for parcel in batch.parcels]
        self.found |= {parcel.document for parcel in parcels}
        self.named_bytes += sum(len(p.document) + len(p.state_vector) + 4 for p in parcels)

    def besides_deltas(self, total: int) -> int:
        """Bytes but for the updates, at most: names are counted as if nothing were compressed."""
        spent = total - self.handshake_bytes - self.greeting_bytes
        return spent - self.batch_bytes + min(self.named_bytes, self.batch_bytes)


def cpu_of(pid: int) -> float:
    """Seconds that all threads of a process have been on a processor."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


# --- the measurements -------------------------------------------------------------------------


@dataclass
class Outcome:
    """One catching up."""

    differences: int
    found_depth: int
    held_depth: int
    acknowledged_depth: int
    walk_bytes: int
    besides_bytes: int
    total_bytes: int
    handshake_bytes: int
    seconds: float
    cpu_here: float
    cpu_there: float


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, random=Random(str(path)))
    try:
        yield store
    finally:
        await store.close()


def replica_over(store: SqliteStore) -> Replica:
    return Replica(
        store,
        incarnation=store.incarnation,
        limits=DEFAULT_LIMITS,
        clock=SystemClock(),
        dice=Random(4),
    )


async def catch_up(ours: Path, theirs: Path, expected: set[DocumentId]) -> Outcome:
    """Connect once, until both are in step."""
    async with serving(theirs.parent) as server, Relay(server.port) as relay:
        watched = Witnessed(relay)
        store = await SqliteStore.open(ours, random=Random(3))
        async with replica_over(store) as replica:

            async def dial(_: str) -> WebSocketConnection:
                return await watched.dial(f"{relay.url}/-/sync")

            cpu_here, cpu_there = time.process_time(), cpu_of(server.process.pid)
            begin = time.perf_counter()
            with watched.saying():
                link = replica.connect(REMOTE, dial=dial, wire=Wire.REPLICA, scopes=[SCOPE])
                follower = link._scopes.followers[SCOPE]
                watched.follow(follower)
                await follower.in_step()
            seconds = time.perf_counter() - begin
            total = relay.bytes
            cpu_there = cpu_of(server.process.pid) - cpu_there
            await link.close()
            await store.write([SetMetadata(f"{WATERMARKS}{REMOTE}\n{SCOPE}", None)])
    if watched.found != expected:
        raise AssertionError(
            f"{len(watched.found)} documents were found to differ, by brute force "
            f"{len(expected)}; {len(watched.found ^ expected)} are in one of the sets only"
        )
    walk, at = watched.found_at or (total, time.process_time())
    spent = watched.handshake_bytes + watched.greeting_bytes
    return Outcome(
        len(expected),
        watched.found_depth,
        watched.held_depth or watched.acknowledged_depth,
        watched.acknowledged_depth,
        walk - spent,
        watched.besides_deltas(total),
        total - spent,
        spent,
        seconds,
        max(0.0, at - watched.root_at) if expected else time.process_time() - cpu_here,
        cpu_there,
    )


async def measure_scope(folder: Path, size: int, most: int) -> list[Figure]:
    """Two replicas with `size` documents, and up to `most` differences."""
    (folder / "server").mkdir()
    ours, theirs = folder / "client.db", folder / "server" / STORE_FILE
    figures: list[Figure] = []
    store = await SqliteStore.open(ours, random=Random(1))
    async with replica_over(store) as replica:
        # While it is empty, so that no outbox of a million is made first.
        await replica._remotes.add(REMOTE)
    async with opened(ours) as store:
        seconds = await fill(store, size)
    become_another(ours, theirs)
    figures.append(Figure(f"catchup_build_{size}", seconds, "s", "the trie, digests known"))
    dice = Random(SEED)
    for count in DIFFERENCES:
        if count > min(most, size // 10):
            continue
        async with opened(ours) as here, opened(theirs) as there:
            await differ(here, there, count, size, dice)
            expected = await brute_force(here, there)
        if len(expected) != count:
            raise AssertionError(f"{len(expected)} documents differ and not {count}")
        figures += _figures(size, await catch_up(ours, theirs, expected))
        async with opened(ours) as here, opened(theirs) as there:
            for store in (here, there):
                await tries_of(store).settle(SCOPE)
            if await brute_force(here, there):
                raise AssertionError("they still differ")
    figures += await measure_handshakes(theirs, size)
    return figures


def _figures(size: int, outcome: Outcome) -> Iterator[Figure]:
    name = f"catchup_{size}_{outcome.differences}"
    if not outcome.differences:
        yield Figure(f"{name}_bytes", outcome.total_bytes, "bytes", "1 round trip")
    else:
        note = f"{outcome.walk_bytes:,} bytes until it is known"
        yield Figure(f"{name}_trips_found", outcome.found_depth, "round trips", note)
        note = f"what we edited is acknowledged after {outcome.acknowledged_depth}"
        yield Figure(f"{name}_trips_held", outcome.held_depth, "round trips", note)
        note = f"besides the deltas, of {outcome.total_bytes:,} bytes in all"
        yield Figure(f"{name}_besides", outcome.besides_bytes / 1024, "KiB", note)
        yield Figure(f"{name}_cpu", 1_000 * outcome.cpu_here, "ms", "CPU of the walk, client")
    note = (
        f"server's CPU {outcome.cpu_there:.3f} s; greeting {outcome.handshake_bytes:,} bytes apart"
    )
    yield Figure(f"{name}_seconds", outcome.seconds, "s", note)


async def measure_handshakes(theirs: Path, size: int) -> list[Figure]:
    """What an exchange of states for each document costs, where nothing differs."""
    async with opened(theirs) as store:
        names = [named(n) for n in range(HANDSHAKES)]
        updates = [(await store.read(name)).updates() for name in names]
    vectors = [worker_jobs.digest(each, DEFAULT_LIMITS).vector for each in updates]
    async with serving(theirs.parent) as server, Relay(server.port) as relay:
        connection = await WebSocketDial(DEFAULT_LIMITS)(f"{relay.url}/-/sync")
        protocol = SyncProtocol(Role.DIALLER, DEFAULT_LIMITS)
        protocol.greet(
            Hello(
                version_min=1,
                version_max=1,
                replica=ReplicaId(bytes(16)),
                incarnation=Incarnation(bytes(16)),
                message_bytes_max=DEFAULT_LIMITS.message_bytes_max,
                update_bytes_max=DEFAULT_LIMITS.update_bytes_max,
                credit=DEFAULT_LIMITS.peer_credit_bytes,
            )
        )
        send_all(connection, protocol)
        protocol.receive(await connection.receive())
        begin, spent, answered = time.perf_counter(), 0, 0
        for name, vector in zip(names, vectors, strict=True):
            protocol.open(name, vector)
        spent += send_all(connection, protocol)
        while answered < HANDSHAKES:
            frame = await connection.receive()
            spent += len(frame)
            answered += sum(isinstance(heard, State) for heard in protocol.receive(frame))
        seconds = time.perf_counter() - begin
        await connection.close()
    each = f"of {HANDSHAKES} measured, times {size:,}"
    return [
        Figure(f"handshakes_{size}_bytes", spent / HANDSHAKES * size / 1024, "KiB", each),
        Figure(f"handshakes_{size}_seconds", seconds / HANDSHAKES * size, "s", each),
    ]


def send_all(connection: WebSocketConnection, protocol: SyncProtocol) -> int:
    size = 0
    while frames := protocol.frames_to_send():
        for frame in frames:
            connection.send(frame)
            size += len(frame)
    return size


def measure_marking(folder: Path) -> Iterator[Figure]:
    """What keeping documents undigested adds to a group commit of 100 updates."""
    update = written("some words", 5)
    names = [named(n) for n in range(20_000)]

    def prepared(path: Path, *, marks: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        configure(connection, DEFAULT_LIMITS, is_writer=True)
        migrate(connection)
        if not marks:
            for index in ("documents_undigested", "documents_by_place", "checkpoints_by_through"):
                connection.execute(f"DROP INDEX {index}")
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            commit_group(connection, [[Append(name, (update,))] for name in some], DEFAULT_LIMITS)
        return connection

    both = prepared(folder / "without.db", marks=False), prepared(folder / "with.db", marks=True)
    for what, step in (("one", 0), ("hundred", 1)):
        taken: tuple[list[float], list[float]] = ([], [])
        for turn in range(200):
            first = turn * 97 % (len(names) - 100)
            calls = [[Append(names[first + step * n], (update,))] for n in range(100)]
            for connection, times in zip(both, taken, strict=True):
                connection.execute("UPDATE documents SET digested = last WHERE last > digested")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                begin = time.perf_counter()
                commit_group(connection, calls, DEFAULT_LIMITS)
                times.append(time.perf_counter() - begin)
        without, with_marks = map(statistics.median, taken)
        note = f"{1_000 * without:.2f} ms without, {1_000 * with_marks:.2f} ms with, to {what}"
        yield Figure(f"catchup_mark_{what}", 100 * (with_marks / without - 1), "%", note)
    for connection in both:
        connection.close()


def measure_digests() -> Iterator[Figure]:
    """What digesting one document costs a worker."""
    for size in (20, 17_000, 223_000):
        updates = [written("x" * max(1, size - 15), 5)]
        taken = []
        for _ in range(9):
            begin = time.perf_counter()
            worker_jobs.digest(updates, DEFAULT_LIMITS)
            taken.append(time.perf_counter() - begin)
        length = sum(map(len, updates))
        yield Figure(f"digest_{size}", 1_000 * min(taken), "ms", f"a document of {length:,} bytes")


def messages_of(frame: bytes, stream: Decompressor) -> list[Message]:
    """What a frame says, also where it is compressed."""
    return decode_all(stream.messages(frame) if frame[0] == COMPRESSED else frame)


def main(arguments: list[str]) -> int:
    """Measure scopes of the sizes given, or of all; the exit code says whether floors were met.

    A size may be followed by a colon and the most differences.
    """
    console, times, table = Console(), slowness(), Report("catching up by scope")

    def report(figures: Iterable[Figure]) -> None:
        for figure in figures:
            table.add(figure, times)

    with console.status("measuring marks and digests …"), tempfile.TemporaryDirectory() as folder:
        report(measure_marking(Path(folder)))
        report(measure_digests())
    for argument in arguments or map(str, SIZES):
        size, _, most = argument.partition(":")
        with console.status(f"measuring {size} …"), tempfile.TemporaryDirectory() as folder:
            wanted = int(most or DIFFERENCES[-1])
            report(asyncio.run(measure_scope(Path(folder), int(size), wanted)))
    console.print(table.table)
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
