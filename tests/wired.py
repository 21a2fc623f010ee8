"""Replicas in one process for tests: no disk, no sockets, no time that passes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any

from pycrdt import Doc, Text

from crdt_state.clocks import ManualClock
from crdt_state.errors import StoreError
from crdt_state.identifiers import DocumentId
from crdt_state.lib0 import encode_string
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.replica.admission import ANYONE, Author
from crdt_state.replica.core import Batch
from crdt_state.replica.document_core import Delta, Refusal, name_of
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import InProcess
from crdt_state.security.tokens import NoAuthentication
from crdt_state.storage.contract import Append, Write
from crdt_state.storage.contract import Sequence as StoreSequence
from crdt_state.storage.memory import MemoryStore
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.listener import Listener, Visit
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.replica import Replica
from hostile import item, section, update

NOTES = DocumentId("notes")
OTHER = DocumentId("other")

SEEDS = count(1_000)

BROKEN = b"\xff"
"""Bytes that are no update."""

HANGS_AFTER_SECONDS = 300.0
"""No test waits for time; one that waits for what never comes fails by this."""

IMPATIENT = replace(
    DEFAULT_LIMITS,
    confirm_seconds=0.0,
    reconnect_seconds_min=0.0,
    reconnect_seconds_max=0.0,
    refused_close_seconds=0.0,
    close_seconds_max=0.0,
)
"""Every wait that only spares the network takes no time."""


def typed(text: str, *, client: int = 1, at: int = 0) -> bytes:
    """An update in which `client` puts `text` behind what it wrote before (`at` code units)."""
    origin = (client, at - 1) if at else None
    return update(section(client, at, item(4, encode_string(text), origin=origin)))


def text_of(updates: Sequence[bytes]) -> str:
    """What a bare engine shows of the text `text` in these updates."""
    document: Doc[Any] = Doc()
    for each in updates:
        document.apply_update(each)
    return str(document.get("text", type=Text))


async def turn(times: int = 25) -> None:
    """Let everything that is ready run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], *, turns: int = 2_000) -> None:
    """Let the others run until something holds; fails instead of hanging."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"still not so after {turns} turns of the loop")


class GatedStore(MemoryStore):
    """A store whose writes wait at a gate, as on a slow disk, and whose reads can as well."""

    def __init__(self, **options: Any) -> None:
        # Each is another replica, as stores that are drawn by dice are.
        super().__init__(**{"random": Random(next(SEEDS)), **options})
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self.reading.set()
        self.returning = asyncio.Event()
        """Whether who writes learns of the commit, which others can read already."""
        self.returning.set()
        self.writes: list[list[Write]] = []
        self._shuts_behind_one = False

    def let_one_through(self) -> None:
        """Open the gate for exactly one write."""
        self._shuts_behind_one = True
        self.gate.set()

    async def write(self, writes: Sequence[Write]) -> StoreSequence:
        fault = self.fault
        await self.gate.wait()
        if self._shuts_behind_one:
            self._shuts_behind_one = False
            self.gate.clear()
        if fault is not None and self.fault is None:
            raise fault
        result = await super().write(writes)
        self.writes.append(list(writes))
        await self.returning.wait()
        return result

    async def read(self, document: DocumentId) -> Any:
        stored = await super().read(document)
        await self.reading.wait()
        return stored

    def appended(self, document: DocumentId = NOTES) -> list[bytes]:
        """Every update in the log of a document, in order."""
        return [
            each
            for writes in self.writes
            for write in writes
            if isinstance(write, Append) and write.document == document
            for each in write.updates
        ]


@dataclass
class Watcher:
    """A subscriber that keeps what it is told."""

    deltas: list[Delta] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    losses: list[tuple[Exception, list[bytes]]] = field(default_factory=list)
    fails: bool = False

    def deliver(self, deltas: Sequence[Delta]) -> None:
        if self.fails:
            raise RuntimeError("a subscriber with a fault")
        self.deltas += deltas

    def refused(self, refusal: Refusal) -> None:
        if self.fails:
            raise RuntimeError("a subscriber with a fault")
        self.refusals.append(refusal)

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        self.losses.append((error, list(own_edits)))

    @property
    def updates(self) -> list[bytes]:
        return [delta.update for delta in self.deltas]


class Witnessing:
    """Keeps what a replica tells."""

    def __init__(self) -> None:
        self.commits = 0
        self.failures: list[StoreError] = []
        self.folds: list[tuple[DocumentId, int]] = []
        self.aside: list[tuple[DocumentId, str]] = []
        self.repairs: list[DocumentId] = []
        self.unsounds: list[tuple[DocumentId, str]] = []
        self.refusals: list[Refusal] = []

    def committed(self, batch: Batch, seconds: float) -> None:
        self.commits += 1

    def commit_failed(self, error: StoreError) -> None:
        self.failures.append(error)

    def store_failed(self, error: StoreError) -> None:
        self.failures.append(error)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def folded(self, document: DocumentId, updates: int, state_bytes: int) -> None:
        self.folds.append((document, updates))

    def set_aside(self, document: DocumentId, reason: str) -> None:
        self.aside.append((document, reason))

    def repaired(self, document: DocumentId) -> None:
        self.repairs.append(document)

    def unsound(self, document: DocumentId, what: str) -> None:
        self.unsounds.append((document, what))


class Shell(ReplicaShell):
    """A replica over a gated store, with what it told at hand."""

    store: GatedStore
    witness: Witnessing

    def take(
        self,
        encoded: bytes,
        *,
        document: DocumentId = NOTES,
        source: int = 7,
        author: Author = ANYONE,
    ) -> None:
        """Receive an update as from a peer."""
        self.receive(document, source, author, encoded, name=name_of(author, "peer"))


@asynccontextmanager
async def opened_shell(
    store: GatedStore | None = None,
    *,
    limits: Limits = IMPATIENT,
    is_listening: bool = False,
    workers: InProcess | None = None,
    seed: int = 1,
) -> AsyncIterator[Shell]:
    """A running replica."""
    shell = Shell(
        store or GatedStore(limits=limits),
        workers or InProcess(limits),
        limits=limits,
        clock=ManualClock(),
        random=Random(seed),
        is_listening=is_listening,
        witness=Witnessing(),
    )
    await shell.__aenter__()
    await turn(3)
    try:
        async with asyncio.timeout(HANGS_AFTER_SECONDS):
            yield shell
    finally:
        async with asyncio.timeout(HANGS_AFTER_SECONDS):
            await shell.close()


class Reports:
    """What reached the event loop's exception handler, so that a test can expect it."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.contexts.append(context))

    def __len__(self) -> int:
        return len(self.contexts)


class Server:
    """A listening replica whose sockets are pairs in memory."""

    def __init__(self, shell: Shell, listener: Listener) -> None:
        self.shell = shell
        self.listener = listener
        self.conversations: list[asyncio.Task[None]] = []
        self.dials = 0
        self.is_down = False

    def visit(
        self, document: str = "notes", *, address: str = "peer", token: str | None = None
    ) -> MemoryConnection:
        """The peer's end of a new connection to a document."""
        ours, theirs = memory_pair("server", address)
        self.conversations.append(
            asyncio.create_task(self.listener.converse(ours, Visit(f"/{document}", token)))
        )
        return theirs

    async def dial(self, url: str) -> MemoryConnection:
        """As a `Dial`, for links."""
        self.dials += 1
        if self.is_down:
            raise OSError("nobody answers")
        return self.visit(url.removeprefix("ws://server/"))

    async def close(self) -> None:
        """End every conversation that is left."""
        for conversation in self.conversations:
            conversation.cancel()
        await asyncio.gather(*self.conversations, return_exceptions=True)


@asynccontextmanager
async def opened_server(
    store: GatedStore | None = None,
    *,
    limits: Limits = IMPATIENT,
    authentication: Any = None,
    sleep: Any = None,
) -> AsyncIterator[Server]:
    """A running server."""
    async with opened_shell(store, limits=limits, is_listening=True) as shell:
        options = {} if sleep is None else {"sleep": sleep}
        listener = Listener(shell, authentication or NoAuthentication(), **options)
        server = Server(shell, listener)
        try:
            yield server
        finally:
            await server.close()


@asynccontextmanager
async def opened_replica(
    store: MemoryStore | None = None, *, limits: Limits = IMPATIENT, seed: int = 2
) -> AsyncIterator[Replica]:
    """An application's replica."""
    kept = store or GatedStore(limits=limits, random=Random(seed))
    replica = Replica(
        kept, incarnation=kept.incarnation, limits=limits, clock=ManualClock(), dice=Random(seed)
    )
    await replica.__aenter__()
    try:
        async with asyncio.timeout(HANGS_AFTER_SECONDS):
            yield replica
    finally:
        async with asyncio.timeout(HANGS_AFTER_SECONDS):
            await replica.close()


def connected(replica: Replica, server: Server, wire: Wire = Wire.REPLICA) -> Link:
    """A link from a replica to a server."""
    return replica.connect("ws://server", dial=server.dial, wire=wire)
