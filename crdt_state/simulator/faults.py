"""What goes wrong, kind by kind: each begins, stays, and is over."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import apsw

from crdt_state.errors import StoreError
from crdt_state.simulator.checkers import Violation, stored_now
from crdt_state.simulator.disks import Disk
from crdt_state.simulator.liar import Liar
from crdt_state.simulator.machine import LIMITS
from crdt_state.simulator.network import KEEPALIVE_SECONDS
from crdt_state.simulator.plan import DOCUMENTS
from crdt_state.simulator.stores import MARK, STORE, SimulatedStore, copied_mark
from crdt_state.simulator.weather import Kind
from crdt_state.transport.link import Wire

if TYPE_CHECKING:
    from crdt_state.simulator.machine import Machine
    from crdt_state.simulator.plan import Fault
    from crdt_state.simulator.world import World

__all__ = ["Faults"]

STEPS_UNTIL_LOSS_MAX = 24
"""Of a disk: within a commit or two."""

LOSS_SECONDS_MAX = 4.0
DISK_ANSWERS = (
    {"write": apsw.SQLITE_IOERR_WRITE},
    {"sync": apsw.SQLITE_IOERR_FSYNC},
    {"read": apsw.SQLITE_IOERR_READ},
    {"write": apsw.SQLITE_IOERR_WRITE, "sync": apsw.SQLITE_IOERR_FSYNC},
)
TOKEN_BYTES = 16

SEEDED_ANEW = 0.7
"""How often somebody brings a document back from elsewhere when a machine has lost its store."""


class Faults:
    """Carries out the faults of a plan, and counts those that came to anything."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._busy: set[str] = set()
        self._liars: list[Liar] = []

    async def befall(self, fault: Fault) -> None:
        """One fault, from its beginning until it has passed."""
        dice = Random(fault.seed)  # noqa: S311 - to be repeated
        if fault.kind in _OF_THE_NETWORK:
            is_real = await self._disturb(fault, dice)
        elif fault.kind is Kind.LIE:
            is_real = await self._lie(dice)
        else:
            machine = self._whom(fault.host)
            if machine is None:
                return
            self._busy.add(machine.name)
            self._world.trace.note("fault", fault.kind.value, machine.name)
            try:
                is_real = await self._hit(machine, fault, dice)
            finally:
                self._busy.discard(machine.name)
        if is_real:
            self._world.happened[fault.kind.value] += 1

    def _whom(self, host: str) -> Machine | None:
        """The machine that was meant, or the next that is up and not in trouble already."""
        names = list(self._world.machines)
        at = names.index(host)
        for name in names[at:] + names[:at]:
            machine = self._world.machines[name]
            if machine.is_up and name not in self._busy:
                return machine
        return None

    # --- the network -------------------------------------------------------------------------

    async def _disturb(self, fault: Fault, dice: Random) -> bool:
        network = self._world.network
        self._world.trace.note("fault", fault.kind.value)
        match fault.kind:
            case Kind.CUT:
                return network.cut_one(dice)
            case Kind.CLOG:
                seconds = min(fault.seconds, KEEPALIVE_SECONDS / 2)
                return network.hold_one(dice, seconds, both=dice.random() < 0.3)
            case Kind.HALF_OPEN:
                return network.hold_one(dice, KEEPALIVE_SECONDS, both=False)
            case _:
                one, other = dice.choice(self._world.plan.topology.dials)
                network.part(one, other, fault.seconds)
                return True

    # --- machines ----------------------------------------------------------------------------

    async def _hit(self, machine: Machine, fault: Fault, dice: Random) -> bool:
        match fault.kind:
            case Kind.CLOCK_JUMP:
                most = self._world.plan.weather.skew_seconds
                machine.clock.jump(dice.uniform(-most, most))
                return True
            case Kind.DISK_ERROR | Kind.DISK_FULL:
                is_full = fault.kind is Kind.DISK_FULL
                answers = {"write": apsw.SQLITE_FULL} if is_full else dice.choice(DISK_ANSWERS)
                machine.disk.refuses = dict(answers)
                await asyncio.sleep(fault.seconds)
                machine.disk.refuses = {}
                return True
            case Kind.KILL:
                await machine.kill()
            case Kind.POWER:
                machine.cut_power(within_steps=dice.randint(1, STEPS_UNTIL_LOSS_MAX))
                await asyncio.sleep(dice.uniform(0.0, LOSS_SECONDS_MAX))
                await machine.lose_power()
            case Kind.RESTART | Kind.ABSENCE:
                await machine.stop()
            case Kind.BIT_FLIP:
                await self._go_down(machine, dice)
                await self._flip_a_bit(machine, dice)
            case Kind.OLD_BACKUP:
                if not machine.backups:
                    return False
                await self._go_down(machine, dice)
                self._put_back(machine, dice)
            case _:
                raise AssertionError(f"nobody knows how to do {fault.kind}")
        is_lost = not machine.disk.names  # and it begins with nothing
        if fault.kind is not Kind.RESTART:
            await asyncio.sleep(fault.seconds * (2 if fault.kind is Kind.ABSENCE else 0.3))
        await machine.start()
        if is_lost and dice.random() < SEEDED_ANEW:
            self._world.acts.seed_what_was_lost(dice)
        return True

    async def _go_down(self, machine: Machine, dice: Random) -> None:
        """Let it end, and remember what it has held."""
        world = self._world
        if dice.random() < 0.5:
            await machine.stop()
            machine.put_back(machine.disk.after_kill())
        else:
            await machine.kill()
        if world.plan.wire is Wire.REPLICA:
            files = Disk(machine.disk.after_kill())
            store = await SimulatedStore.on(files, random=dice, limits=LIMITS)
            try:
                for document in world.documents():
                    world.lives.remember(machine.name, store, document)
            finally:
                store.abandon()

    def _put_back(self, machine: Machine, dice: Random) -> None:
        """Restore an older backup, with the file that holds the mark, without it, or over it."""
        at, files = dice.choice(machine.backups)
        left = dict(files)
        mark = left.pop(MARK, b"")
        mark_now = machine.disk.after_kill().get(MARK, b"")
        way = dice.randrange(3)
        if way == 0:
            left[MARK] = copied_mark(mark, dice)
        elif way == 1 and mark[:TOKEN_BYTES] != mark_now[:TOKEN_BYTES]:
            left[MARK] = mark_now
        machine.put_back(left)
        machine.expects_new_incarnation = True
        self._world.take_away(machine, since=at)

    async def _flip_a_bit(self, machine: Machine, dice: Random) -> None:
        """Damage the file at rest; its own check has to notice, or no document may differ."""
        files = machine.disk.after_kill()
        sound = await _documents_in(files, dice)
        content = bytearray(files[STORE])
        if not content:
            return
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        files[STORE] = bytes(content)
        damaged = await _documents_in(files, dice)
        self._world.trace.note("noticed" if damaged is None else "not noticed", machine.name)
        if damaged is None:
            # A person keeps the file, begins a new one, and lets others bring what they hold.
            machine.put_back({})
            self._world.take_away(machine, since=-1.0)
        elif damaged == sound:
            machine.put_back(files)
        else:
            raise Violation("verified", f"a flipped bit at {machine.name} was not noticed")

    # --- lies --------------------------------------------------------------------------------

    async def _lie(self, dice: Random) -> bool:
        world = self._world
        remote = dice.choice(world.plan.topology.dials)[1]
        liar = Liar(
            world.network,
            world.ledger,
            dice,
            remote=remote,
            document=dice.choice(DOCUMENTS),
            wire=world.plan.wire,
        )
        world.trace.note("fault", Kind.LIE.value, liar.document)
        await liar.lie()
        await liar.say_the_second_first()
        if liar.was_lied_to:
            what = f"{remote} said that it had integrated what builds on what it does not hold"
            raise Violation("receipts", what)
        self._liars.append(liar)
        return True

    async def tell_the_rest(self) -> None:
        """Let every liar bring what its other words have waited for."""
        world = self._world
        for liar in self._liars:
            machine = world.machines[liar.remote]
            is_forgotten = machine.taken_away_at >= liar.said_at or not liar.was_taken_in
            if await liar.say_the_first(both=is_forgotten) and machine.store is not None:
                world.checkers.keeps(machine.name, machine.store, liar.entries)
                now = asyncio.get_running_loop().time()
                world.ledger.promised(liar.entries, machine.name, now)


_OF_THE_NETWORK = {Kind.CUT, Kind.CLOG, Kind.HALF_OPEN, Kind.PARTITION}


async def _documents_in(files: dict[str, bytes], dice: Random) -> list[object] | None:
    """What a copy of these files holds, or None where it is noticed that they are damaged."""
    try:
        store = await SimulatedStore.on(Disk(files), random=dice, limits=LIMITS)
    except StoreError:
        return None
    try:
        if [finding async for finding in store.verify()]:
            return None
        return [stored_now(store, document) for document in DOCUMENTS]
    finally:
        store.abandon()
