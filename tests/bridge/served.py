"""A text on the production server, under simulated network, disk and time, edited from both sides.

Three thin clients in two formats, and two replicas that speak y-websocket, edit one text.  Lines
are cut, clogged and slow, the server is killed and loses its power; then all is calm, and everybody
has to show the same.  What runs is what runs in production, from the SQL to `ThinClient`; beneath
it is the simulator's (crdt_state/simulator).
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from bridge.simulated import edit, place
from crdt_client.thin import ThinClient
from crdt_client.thin import progress as thin_progress
from crdt_state.errors import CrdtStateError
from crdt_state.identifiers import DocumentId, draw_incarnation
from crdt_state.limits import Limits
from crdt_state.ot import Delete, Insert, Operation, Retain
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE, Format
from crdt_state.replica.operable_text import document_of
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import InProcess
from crdt_state.security.tokens import NoAuthentication
from crdt_state.simulator.clocks import SimulatedClock
from crdt_state.simulator.disks import Disk
from crdt_state.simulator.loop import SimulatedLoop
from crdt_state.simulator.network import Network
from crdt_state.simulator.processes import Process, new_task
from crdt_state.simulator.remembering import remembered
from crdt_state.simulator.stores import SimulatedStore
from crdt_state.simulator.trace import Trace
from crdt_state.simulator.vfs import in_the_dark
from crdt_state.simulator.weather import CALM, STORM
from crdt_state.storage.memory import MemoryStore
from crdt_state.transport.link import Wire
from crdt_state.transport.listener import Listener
from crdt_state.transport.replica import Replica
from crdt_state.transport.sharedb_room import plain

if TYPE_CHECKING:
    from crdt_client.thin.text import ThinText
    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.simulator.network import SimulatedConnection
    from crdt_state.transport.link import Link
    from crdt_state.transport.listener import Visit

__all__ = ["Served"]

DOCUMENT = DocumentId("notes/today")
SERVER = "server"
FORMATS = (TEXT_UNICODE, RICH_TEXT, TEXT_UNICODE)
YJS = 2
STEPS = 260
QUIET_SECONDS = 400.0
LOOK_SECONDS = 1.0
TURNS_MAX = 2_000_000
WEATHER = replace(STORM, name="text", spike=0.02, spike_seconds=3.0)

LIMITS = Limits(
    log_updates_before_fold=40,
    log_bytes_before_fold=4 * 1024,
    revisions_kept_max=150,
    revision_base_revisions_max=100,
    reconnect_seconds_max=2.0,
    confirm_seconds=1.0,
    confirm_seconds_max=4.0,
)
"""Small enough that runs come to folds, floors and budgets."""


class Spoken:
    """A simulated connection in text, as `TextDial` gives one."""

    def __init__(self, connection: SimulatedConnection) -> None:
        self._connection = connection

    async def receive(self) -> str:
        return (await self._connection.receive()).decode()

    def send(self, message: str) -> None:
        self._connection.send(message.encode())

    async def drained(self) -> None:
        await self._connection.drained()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)


class Server:
    """The server's machine."""

    def __init__(self, network: Network, dice: Random) -> None:
        self.disk = Disk()
        self.starts = 0
        self._network = network
        self._dice = dice
        self._clock = SimulatedClock(asyncio.get_running_loop().time, skew_seconds=0.0, drift=0.0)
        self._process = Process(SERVER)
        self._store: SimulatedStore | None = None
        self._shell: ReplicaShell | None = None

    async def start(self) -> None:
        self.starts += 1
        self._process = Process(f"{SERVER} {self.starts}")
        await asyncio.wait([self._process.start(self._begin(), "begin")])

    async def _begin(self) -> None:
        dice = Random(self._dice.getrandbits(64))
        store = self._store = await SimulatedStore.on(self.disk, random=dice, limits=LIMITS)
        shell = self._shell = ReplicaShell(
            store,
            InProcess(LIMITS),
            limits=LIMITS,
            clock=self._clock,
            random=dice,
            is_listening=True,
        )
        await shell.__aenter__()
        listener = Listener(shell, NoAuthentication())
        process = self._process

        def accept(connection: SimulatedConnection, visit: Visit) -> None:
            process.start(self._converse(listener, connection, visit), "conversation")

        self._network.listen(SERVER, accept)

    @staticmethod
    async def _converse(listener: Listener, connection: SimulatedConnection, visit: Visit) -> None:
        try:
            await listener.converse(connection, visit)
        finally:
            await connection.close()

    async def end(self, *, power: bool) -> None:
        """`kill -9`, or the power goes off."""
        left = None if power else self.disk.after_kill()
        self.disk.is_off = True
        self._network.vanish(SERVER)
        self._process.kill()
        if self._store is not None:
            self._store.abandon()
        await self._process.ended()
        self.disk = Disk(self.disk.after_loss(self._dice) if left is None else left)


@dataclass
class Thin:
    client: ThinClient
    text: ThinText
    format: Format


@dataclass
class Yjs:
    replica: Replica
    document: OpenDocument
    link: Link


class Served:
    """One run; `go` it, then look."""

    def __init__(
        self,
        seed: int,
        *,
        is_rich: bool,
        faults: bool = True,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self.seed = seed
        self.quiet_seconds = quiet_seconds
        self.is_rich = is_rich
        self.faults = faults
        self.dice = Random(seed)
        self.shown: list[Any] = []
        """What each of them shows at the end."""
        self.handed_back = 0
        self.reported: list[str] = []
        self.seconds = 0.0
        self.starts = 0

    @property
    def is_converged(self) -> bool:
        return all(each == self.shown[0] for each in self.shown)

    def go(self) -> None:
        loop = SimulatedLoop(turns_max=TURNS_MAX)
        loop.set_task_factory(new_task)
        loop.set_exception_handler(
            lambda _, context: self.reported.append(
                f"{context['message']}: {context.get('exception')!r}"
            )
        )
        gc.disable()
        try:
            with in_the_dark(), remembered():
                loop.run_until_complete(self._live())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.set_exception_handler(lambda *_: None)
            with suppress(Exception):
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            gc.enable()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        network = Network(self.dice, WEATHER, Trace(loop.time))
        server = Server(network, self.dice)
        await server.start()
        thins = [await self._thin(network, n, spoken) for n, spoken in enumerate(FORMATS)]
        yjs = [await self._yjs(network, number) for number in range(YJS)]
        for step in range(STEPS):
            await asyncio.sleep(self.dice.uniform(0.0, 0.5))
            self._edit_somewhere(thins, yjs)
            if self.faults and step % 20 == 19:
                await self._go_wrong(network, server)
        network.calm_down(CALM)
        until = loop.time() + self.quiet_seconds
        while loop.time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            if await self._is_settled(thins, yjs):
                break
        self.shown = [_shown(each) for each in (*thins, *yjs)]
        self.seconds, self.starts = loop.time(), server.starts
        for each in thins:
            await each.client.__aexit__(None, None, None)
        for other in yjs:
            await other.replica.close()
        await server.end(power=False)

    async def _thin(self, network: Network, number: int, spoken: Format) -> Thin:
        url = f"ws://{SERVER}/-/sharedb/{spoken.name}"
        host = f"thin-{number}"

        async def dial(url: str) -> Spoken:
            return Spoken(await network.dial(host, url))

        client = ThinClient(
            url,
            limits=LIMITS,
            random=Random(self.dice.getrandbits(64)),
            handed_back=lambda _text, _back: self._count(),
            dial=dial,
        )
        await client.__aenter__()
        return Thin(client, await client.open(DOCUMENT, format=spoken), spoken)

    async def _yjs(self, network: Network, number: int) -> Yjs:
        dice = Random(self.dice.getrandbits(64))
        store = MemoryStore(limits=LIMITS, random=dice)
        clock = SimulatedClock(asyncio.get_running_loop().time, skew_seconds=0.0, drift=0.0)
        replica = Replica(
            store, incarnation=draw_incarnation(dice), limits=LIMITS, clock=clock, dice=dice
        )
        await replica.__aenter__()
        document = await replica.document(DOCUMENT)
        dial: Any = network.dial_from(f"yjs-{number}")
        link = replica.connect(f"ws://{SERVER}", dial=dial, wire=Wire.Y_WEBSOCKET)
        return Yjs(replica, document, link)

    def _count(self) -> None:
        self.handed_back += 1

    def _edit_somewhere(self, thins: list[Thin], yjs: list[Yjs]) -> None:
        dice = self.dice
        if dice.random() < 0.6:
            thin = dice.choice(thins)
            rich = self.is_rich and not thin.format.is_plain
            operation = edit(dice, thin.text.document, is_rich=rich)
            thin.text.edit(operation)
            return
        text = dice.choice(yjs).document.text("text")
        at = place(dice, len(text))
        # Texts stay short, so that places are few.
        if len(text) - at > 3 and dice.random() < (0.4 if len(text) < 24 else 0.7):
            text.delete(at, dice.randint(2, 3))
        elif self.is_rich and len(text) - at > 3 and dice.random() < 0.3:
            text.format(at, dice.randint(1, 3), {"bold": dice.choice([True, None])})
        else:
            text.insert(at, dice.choice(["a", "bc", "é", "👩‍🚀", "שלום", "\r\n", "e\u0301"]))

    async def _go_wrong(self, network: Network, server: Server) -> None:
        dice = self.dice
        match dice.choice(["cut", "cut", "hold", "half", "kill", "power", "none"]):
            case "cut":
                network.cut_one(dice)
            case "hold":
                network.hold_one(dice, dice.uniform(0.5, 15.0), both=True)
            case "half":
                network.hold_one(dice, dice.uniform(0.5, 15.0), both=False)
            case "kill":
                await server.end(power=False)
                await asyncio.sleep(dice.uniform(0.0, 3.0))
                await server.start()
            case "power":
                await server.end(power=True)
                await asyncio.sleep(dice.uniform(0.0, 3.0))
                await server.start()

    async def _is_settled(self, thins: list[Thin], yjs: list[Yjs]) -> bool:
        for other in yjs:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await other.link.synced()
            except (TimeoutError, CrdtStateError):
                return False
        if any(each.text.progress is not thin_progress.Progress.IN_STEP for each in thins):
            return False
        first, *others = [_shown(each) for each in (*thins, *yjs)]
        return all(each == first for each in others)


def _shown(who: Thin | Yjs) -> str:
    """The characters that somebody shows; what is embedded is one."""
    if isinstance(who, Thin):
        document = who.text.document
        return document if isinstance(document, str) else _text_of(document)
    return _text_of(document_of(who.document.text("text"), LIMITS))


def _text_of(document: Operation) -> str:
    return "".join(str(each.content) for each in plain(document).components if _is_insert(each))


def _is_insert(component: Insert | Delete | Retain) -> bool:
    return type(component) is Insert
