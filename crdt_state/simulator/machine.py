"""One host: a disk, a clock, and from time to time a process that runs a replica.

A host that is dialled listens; one that dials has a link to each remote.  Both can be: then it is
a replica that listens.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from crdt_state.errors import CrdtStateError, StoreCorrupt, StoreError
from crdt_state.limits import Limits
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import InProcess
from crdt_state.security.tokens import NoAuthentication
from crdt_state.simulator.checkers import Violation
from crdt_state.simulator.clocks import SimulatedClock
from crdt_state.simulator.disks import Disk
from crdt_state.simulator.processes import Process
from crdt_state.simulator.stores import SimulatedStore
from crdt_state.transport.listener import Listener
from crdt_state.transport.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Lineage
    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.simulator.checkers import Checkers
    from crdt_state.simulator.ledger import Entry
    from crdt_state.simulator.lives import Lives
    from crdt_state.simulator.network import Network, SimulatedConnection
    from crdt_state.simulator.plan import Topology
    from crdt_state.simulator.trace import Trace
    from crdt_state.simulator.weather import Weather
    from crdt_state.transport.link import Link, Wire
    from crdt_state.transport.listener import Visit

__all__ = ["LIMITS", "Machine"]

LIMITS = Limits(
    # Small, so that a few minutes of editing meet every bound.
    log_updates_before_fold=40,
    log_bytes_before_fold=8 * 1024,
    wal_bytes_before_checkpoint=128 * 1024,
    peer_queue_bytes_max=768,
    writer_queue_bytes_max=4 * 1024,
    encodings_cached_bytes_max=8 * 1024,
    confirm_seconds=1.0,
    link_conversations_max=2,
    reconnect_seconds_max=4.0,
    refused_seconds=20.0,
    confirm_seconds_max=4.0,
    quarantine_entries_max=50,
)

OPEN_AGAIN_SECONDS = 5.0
BACKUPS_KEPT = 4


class Machine:
    """A host of the simulation; `is_up` while its process runs."""

    def __init__(
        self,
        name: str,
        topology: Topology,
        wire: Wire,
        *,
        network: Network,
        checkers: Checkers,
        lives: Lives,
        documents: Callable[[], Sequence[DocumentId]],
        trace: Trace,
        weather: Weather,
        random: Random,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.disk = Disk()
        self.random = random
        self.clock = SimulatedClock(
            loop.time,
            skew_seconds=random.uniform(-weather.skew_seconds, weather.skew_seconds),
            drift=random.uniform(-weather.drift, weather.drift),
        )
        self.life = 0
        self.came_up = asyncio.Event()
        """Set while its replica runs."""
        self.expects_new_incarnation = False
        self.backups: list[tuple[float, dict[str, bytes]]] = []
        self.links: list[Link] = []
        self.opened: dict[DocumentId, OpenDocument] = {}
        """What people have open, or had last."""
        self.lineages: dict[DocumentId, Lineage] = {}
        """Of what people have open, the lineage."""
        self.noticed: dict[OpenDocument, None] = {}
        """Documents that have ended, of which somebody has looked at what they tell."""
        self.choosing: dict[tuple[str, bytes], None] = {}
        """Documents and their ended lineages, of which somebody is choosing what becomes."""
        self.made: list[Entry] = []
        """What was edited here in this life."""
        self.taken_away_at = -1.0
        """When the simulation last took away what this machine had promised to keep."""
        self.process: Process | None = None
        self.store: SimulatedStore | None = None
        """Its store, while nothing has begun to close it."""
        self._held: SimulatedStore | None = None
        self.shell: ReplicaShell | None = None
        self._probes: dict[DocumentId, int] = {}
        self._listens = topology.listens(name)
        self.remotes = topology.dialled_by(name)
        self._wire = wire
        self._network = network
        self._checkers = checkers
        self._lives = lives
        self._documents = documents
        self._trace = trace

    @property
    def is_up(self) -> bool:
        """Whether its replica runs."""
        return self.shell is not None

    @property
    def replica(self) -> Replica | None:
        """Its replica, where it runs and people edit there."""
        return self.shell if isinstance(self.shell, Replica) else None

    def probe_source(self, document: DocumentId) -> int:
        """By which number this life's replica knows the probe at a document."""
        if document not in self._probes:
            if self.shell is None:
                raise AssertionError(f"{self.name} is down")
            self._probes[document] = self.shell.new_source()
        return self._probes[document]

    # --- coming up ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring its process up; where the disk is ill, try until it works."""
        self.life += 1
        self.process = Process(f"{self.name} life {self.life}")
        self.disk.on_loss = self._power_failed
        self._trace.note("starts", self.name, self.life)
        begun = self.process.start(self._begin(), "begin")
        await asyncio.wait([begun])
        if not begun.cancelled():
            begun.result()

    async def _begin(self) -> None:
        while True:
            try:
                await self._open()
            except StoreCorrupt:
                raise  # nobody has damaged it on purpose, or somebody would have looked before
            except StoreError as error:
                self._trace.note("cannot start", self.name, type(error).__name__)
                await asyncio.sleep(OPEN_AGAIN_SECONDS)
            else:
                return

    async def _open(self) -> None:
        dice = Random(self.random.getrandbits(64))  # noqa: S311 - simulated
        store = await SimulatedStore.on(self.disk, random=dice, limits=LIMITS)
        try:
            await self._checkers.opened(self.name, store, expects_new=self.expects_new_incarnation)
            now = asyncio.get_running_loop().time()
            self._lives.opened(self.name, store, self._documents(), now)
            store.watcher = _Watcher(self.name, store, self._lives, self._checkers)
            shell: ReplicaShell
            if self.remotes:
                shell = Replica(
                    store,
                    incarnation=store.incarnation,
                    limits=LIMITS,
                    clock=self.clock,
                    dice=dice,
                )
            else:
                shell = ReplicaShell(
                    store,
                    InProcess(LIMITS),
                    limits=LIMITS,
                    clock=self.clock,
                    random=dice,
                    is_listening=True,
                )
            await shell.__aenter__()
        except BaseException:
            store.abandon()
            raise
        self.expects_new_incarnation = False
        self.store = self._held = store
        self.shell = shell
        self.came_up.set()
        if isinstance(shell, Replica):
            for remote in self.remotes:
                dial: Any = self._network.dial_from(self.name)
                self.links.append(shell.connect(f"ws://{remote}", dial=dial, wire=self._wire))
        if self._listens:
            self._listen(shell)

    def _listen(self, shell: ReplicaShell) -> None:
        listener = Listener(shell, NoAuthentication())
        process = self._running()
        process.start(listener.show_life(), "signs of life")

        def accept(connection: SimulatedConnection, visit: Visit) -> None:
            process.start(self._converse(listener, connection, visit), "conversation")

        self.listener = listener
        self._network.listen(self.name, accept)

    async def _converse(
        self, listener: Listener, connection: SimulatedConnection, visit: Visit
    ) -> None:
        try:
            await listener.converse(connection, visit)
        finally:
            # What a server's socket does when its handler has returned.
            await connection.close()

    # --- going down --------------------------------------------------------------------------

    async def stop(self) -> None:
        """End in good order: nothing is lost, and nothing goes on."""
        process, shell = self._running(), self.shell
        self._trace.note("stops", self.name)
        if shell is None:
            await self.kill()
            return
        self.store = None
        await asyncio.wait([process.start(self._close(shell), "end")])
        self._down()
        self._network.vanish(self.name)
        # A server's handlers are ended by whoever runs them.
        process.kill()
        await process.ended()

    async def _close(self, shell: ReplicaShell) -> None:
        if self._listens:
            await self.listener.drain()
        with suppress(CrdtStateError):  # a full or ill disk; what was promised is on it
            await shell.close()

    async def kill(self) -> None:
        """End the process as `kill -9` does; what the system has been given stays."""
        process = self._running()
        left = self.disk.after_kill()
        self._trace.note("killed", self.name)
        self._drop(process)
        self.disk = self._disk_with(left)
        await process.ended()

    def cut_power(self, *, within_steps: int) -> None:
        """Let the power fail within the next steps of the disk; see `power_returns`."""
        self.disk.lost_at = self.disk.steps + within_steps

    async def lose_power(self) -> None:
        """The power is off now, whether or not it failed in a step of the disk; wait for it."""
        process = self._running()
        if not self.disk.is_off:
            self._power_failed()
        await process.ended()
        self.disk = self._disk_with(self.disk.after_loss(self.random))

    def _power_failed(self) -> None:
        """From one moment to the next, in the middle of whatever the disk was doing."""
        self._trace.note("power lost", self.name, self.disk.steps)
        self._drop(self._running())

    def _drop(self, process: Process) -> None:
        self.disk.is_off = True
        self._network.vanish(self.name)
        process.kill()
        if self._held is not None:
            self._held.abandon()
        self._down()

    def _down(self) -> None:
        self.came_up.clear()
        self.store = self._held = self.shell = None
        self.links = []
        self.opened = {}
        self.lineages = {}
        self.noticed = {}
        self.choosing = {}
        self.made = []
        self._probes = {}

    def _running(self) -> Process:
        if self.process is None:
            raise AssertionError(f"{self.name} was never started")
        return self.process

    # --- its disk ----------------------------------------------------------------------------

    def back_up(self, at: float) -> None:
        """Copy its files, as a program for backups does."""
        if not self.disk.is_off:
            self.backups.append((at, self.disk.after_kill()))
            del self.backups[:-BACKUPS_KEPT]

    def put_back(self, files: dict[str, bytes]) -> None:
        """Give it these files, while it is down."""
        self.disk = self._disk_with(files)

    def _disk_with(self, files: dict[str, bytes]) -> Disk:
        disk = Disk(files)
        disk.refuses = dict(self.disk.refuses)
        return disk


class _Watcher:
    """Has `Lives` look at a store's lives; what it finds is noted, for nobody here would hear."""

    def __init__(self, host: str, store: SimulatedStore, lives: Lives, checkers: Checkers) -> None:
        self._host = host
        self._store = store
        self._lives = lives
        self._checkers = checkers

    def is_ending(self, document: DocumentId) -> None:
        try:
            self._lives.is_ending(self._host, self._store, document)
        except Violation as violation:
            self._checkers.note(violation)

    def has_ended(self, document: DocumentId) -> None:
        now = asyncio.get_running_loop().time()
        try:
            self._lives.has_ended(self._host, self._store, document, now)
        except Violation as violation:
            self._checkers.note(violation)
