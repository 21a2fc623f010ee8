"""The simulated world: machines on a network, people who edit, and what befalls them.

    plan ──► sessions and faults at their times ──► calm ──► everybody in step? ──► checkers

Whatever goes wrong by itself also ends by itself; after the last of it the weather is calm, every
machine is up, and then everything has to come right within `QUIET_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from crdt_state.errors import CrdtStateError, EditRefused, LineageEnded
from crdt_state.lineage import BORN
from crdt_state.model.inspect import inspect
from crdt_state.replica import worker_jobs
from crdt_state.replica.open_document import OpenDocument
from crdt_state.replica.receipts import Level
from crdt_state.simulator.acts import Acts
from crdt_state.simulator.checkers import Probe, Violation, life_now, stored_now
from crdt_state.simulator.faults import Faults
from crdt_state.simulator.ledger import Ledger
from crdt_state.simulator.lives import Lives
from crdt_state.simulator.machine import LIMITS, Machine
from crdt_state.simulator.network import Network
from crdt_state.simulator.plan import DOCUMENTS
from crdt_state.simulator.processes import current_process
from crdt_state.simulator.weather import CALM
from crdt_state.simulator.workload import Person, shown
from crdt_state.sync.exchange import Progress
from crdt_state.transport.link import Wire

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life
    from crdt_state.replica.receipts import Receipt
    from crdt_state.simulator.checkers import Checkers
    from crdt_state.simulator.ledger import Entry
    from crdt_state.simulator.plan import Plan, Session
    from crdt_state.simulator.trace import Trace
    from crdt_state.transport.replica import Replica

__all__ = ["World"]

R = TypeVar("R")

QUIET_SECONDS = 300.0
"""So long after the weather has calmed everybody may take to be in step."""

TOLD_SECONDS = 60.0
"""So long a listener may take to tell those who are in step with it."""

OPENED_AGAIN_MAX = 3
"""So often somebody goes on in a document whose life has ended under their hands."""

BACKUP_SECONDS = 40.0
LOOK_SECONDS = 5.0


class World:
    """Carries out one plan."""

    def __init__(self, plan: Plan, checkers: Checkers, trace: Trace) -> None:
        self.plan = plan
        self.checkers = checkers
        self.trace = trace
        self.ledger: Ledger = checkers.ledger
        self.random = Random(f"world {plan.seed}")  # noqa: S311 - to be repeated
        self.network = Network(self.random, plan.weather, trace)
        self.lives = Lives(checkers, plan.topology)
        self.acts = Acts(self)
        self.machines = {
            name: Machine(
                name,
                plan.topology,
                plan.wire,
                network=self.network,
                checkers=checkers,
                lives=self.lives,
                documents=self.documents,
                trace=trace,
                weather=plan.weather,
                random=self.random,
            )
            for name in plan.topology.hosts
        }
        self.happened: Counter[str] = Counter()
        self.edits = 0
        self.faults = Faults(self)
        self._updates: list[bytes] = []
        self._sessions: dict[asyncio.Task[None], None] = {}
        self._work: list[asyncio.Task[None]] = []

    @property
    def clients(self) -> list[Machine]:
        """Machines that people edit at."""
        return [m for name, m in self.machines.items() if self.plan.topology.dialled_by(name)]

    def documents(self) -> Sequence[DocumentId]:
        """All that there are, copies included."""
        return (*DOCUMENTS, *self.acts.copies)

    async def run(self) -> None:
        """From the beginning to the last check.  Raises `Violation`."""
        asyncio.get_running_loop().set_exception_handler(self._reported)
        self.trace.note("wire", self.plan.wire.value)
        for machine in self.machines.values():
            await machine.start()
        await self._live()
        await self._calm_down()
        await self._come_in_step()
        self._compare()
        await self._end()

    def fail_if_found(self) -> None:
        """Raise what was found where nobody could be told."""
        if self.checkers.found:
            raise self.checkers.found[0]

    def take_away(self, machine: Machine, *, since: float) -> None:
        """The simulation takes from a machine what it has promised since then."""
        self.ledger.taken_away(machine.name, since)
        self.lives.taken_away(machine.name, since)
        machine.taken_away_at = asyncio.get_running_loop().time()

    def _reported(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process, error = current_process(), context.get("exception")
        ill = any(m.disk.refuses for m in self.machines.values() if m.process is process)
        whose = "the world" if process is None else process.name
        self.trace.note("reported", whose, type(error).__name__)
        self.checkers.reported(context["message"], error, is_disk_ill=ill)

    # --- while things go wrong ---------------------------------------------------------------

    async def _live(self) -> None:
        plan = self.plan
        agenda: list[tuple[float, int, Coroutine[object, object, None] | None]] = []
        for session in plan.sessions:
            agenda.append((session.at, len(agenda), self._visit(session)))
        for fault in plan.faults:
            agenda.append((fault.at, len(agenda), self.faults.befall(fault)))
        for act in plan.acts:
            agenda.append((act.at, len(agenda), self.acts.befall(act)))
        at = LOOK_SECONDS
        while at < plan.seconds:
            agenda.append((at, len(agenda), None))
            at += LOOK_SECONDS
        loop = asyncio.get_running_loop()
        backed_up = 0.0
        agenda.sort(key=lambda entry: entry[:2])
        try:
            while agenda:
                at, _, work = agenda[0]
                await asyncio.sleep(at - loop.time())
                self.fail_if_found()
                agenda.pop(0)
                if work is not None:
                    self._work.append(loop.create_task(work))
                    continue
                self._look()
                if at - backed_up >= BACKUP_SECONDS:
                    backed_up = at
                    for machine in self.machines.values():
                        machine.back_up(loop.time())
        finally:
            for _, _, work in agenda:
                if work is not None:
                    work.close()
        for task in self._work:
            await task
        self.fail_if_found()

    def _look(self) -> None:
        for machine in self.machines.values():
            if machine.shell is not None:
                self.checkers.bounded(machine.name, machine.shell)
            self._look_at_lives(machine)

    def _look_at_lives(self, machine: Machine) -> None:
        for document in self.documents():
            if machine.store is not None:
                self.lives.looks(machine.name, machine.store, document)
        for document, opening in machine.opened.items():
            self.acts.notice(machine, opening)
            known = None if machine.shell is None else machine.shell.core.get(document)
            if opening.is_closed or known is None:
                continue
            if known.life.lineage != machine.lineages[document]:
                what = f"{machine.name} has {document!r} open in a lineage that has ended"
                raise Violation("told", what)

    async def _visit(self, session: Session) -> None:
        """Let somebody edit, as soon as the machine is up."""
        machine = self.machines[session.host]
        while machine.replica is None:
            await machine.came_up.wait()
        self.begin_session(machine, self._edit(machine, machine.replica, session))

    def begin_session(self, machine: Machine, work: Coroutine[object, object, None]) -> None:
        """Let somebody do something at a machine, which may be for long."""
        process = machine.process
        if process is None:
            work.close()
            return
        # Ended when it has waited for what it waits for, or with its process.
        task = process.start(work, "session")
        self._sessions[task] = None
        task.add_done_callback(self._sessions.pop)

    async def _edit(self, machine: Machine, replica: Replica, session: Session) -> None:
        dice = Random(session.seed)  # noqa: S311 - to be repeated
        person = Person(self.ledger, machine.name, dice, asyncio.get_running_loop().time)
        left = session.edits
        try:
            for _ in range(1 + OPENED_AGAIN_MAX):
                opening = await self.acts.open(machine, replica, session.document, dice)
                try:
                    while left:
                        left -= 1
                        self._edit_once(machine, person, opening, session.container)
                        if dice.random() < 0.15:
                            await asyncio.sleep(dice.uniform(0.0, 1.0))
                    await self._wait(machine, opening, session, dice)
                except CrdtStateError:
                    if not isinstance(opening.error, LineageEnded):
                        raise
                    await self.acts.was_told(machine, replica, opening, dice)
                else:
                    return
        except Violation as violation:
            self.checkers.note(violation)
        except EditRefused as error:
            self.checkers.note(Violation("accepted", str(error)))
        except CrdtStateError as error:
            # Closed by another session, or the disk is ill: who edits is told, and begins anew.
            self.trace.note("not edited", machine.name, type(error).__name__)

    async def _wait(
        self, machine: Machine, opening: OpenDocument, session: Session, dice: Random
    ) -> None:
        if session.waits_for == "saved":
            await self._save(machine, opening, dice)
        elif session.waits_for == "synced":
            await self.sync(machine)
        if session.closes:
            opening.close()

    async def open(self, machine: Machine, replica: Replica, document: DocumentId) -> OpenDocument:
        """Open a document at a machine, and have what is delivered there looked at."""
        opening = await replica.document(document)
        before = machine.opened.get(document)
        if before is not opening:
            if before is not None:
                self.acts.notice(machine, before)
            machine.opened[document] = opening
            known = replica.core.get(document)
            machine.lineages[document] = (BORN if known is None else known.life).lineage
            opening.on_update(lambda update, _: self._updates.append(update))
            if machine.store is not None:
                probe = Probe(self.checkers, machine.name, document, machine.store)
                await replica.use(document, machine.probe_source(document), probe)
        return opening

    def _edit_once(
        self, machine: Machine, person: Person, opening: OpenDocument, container: str
    ) -> None:
        self._updates.clear()
        entry = person.edit(opening, container, machine.lineages[opening.id])
        self.edits += 1
        for update in self._updates:
            self.trace.note("edit", machine.name, opening.id, container, update)
        if entry is not None and self._updates:
            entry.reach = dict(inspect(self._updates[-1], LIMITS, merged=True).vector)
            machine.made.append(entry)

    async def _save(self, machine: Machine, opening: OpenDocument, dice: Random) -> None:
        made = [entry for entry in machine.made if entry.opening is opening]
        receipt = await opening.commit()
        if machine.store is not None:
            self.checkers.keeps(machine.name, machine.store, made)
            self.ledger.promised(made, machine.name, asyncio.get_running_loop().time())
            self.trace.note("saved", machine.name, opening.id, len(made))
        if self.plan.wire is Wire.REPLICA:
            level = dice.choice((Level.DURABLE, Level.APPLIED))
            await receipt.reached(level)
            self._take_at_its_word(machine, receipt, made, level)

    def _take_at_its_word(
        self, machine: Machine, receipt: Receipt, made: list[Entry], level: Level
    ) -> None:
        """Who has said that it holds these edits has to, as a machine that listens would know."""
        for there in self.machines.values():
            if there.store is None or there.store.replica_id not in receipt.holders:
                continue
            kept = [entry for entry in made if entry.at > there.taken_away_at]
            self.checkers.keeps(there.name, there.store, kept)
            self.ledger.promised(kept, there.name, asyncio.get_running_loop().time())
            self.trace.note(level.value, machine.name, there.name, receipt.document, len(kept))
            self.checkers.passed["receipts"] += 1

    async def sync(self, machine: Machine) -> None:
        """Wait until every remote holds what was made or stored here, as each promises."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        name = machine.name
        for link, remote in zip(machine.links, machine.remotes, strict=True):
            made = {id(entry): entry for entry in machine.made}
            made |= {
                id(entry): entry
                for entry in self.ledger
                if entry.host == name and name in entry.kept_by
            }
            lives = self.lives.promised(name, after=self.machines[remote].taken_away_at)
            while True:
                try:
                    await link.synced()
                    break
                except LineageEnded as ended:
                    self.trace.note("told of", name, ended.document)
            there = self.machines[remote]
            kept = [
                entry
                for entry in made.values()
                # What a remote confirmed and then lost with an older state, nobody owes it.
                if _may_be_promised(entry, name) and entry.at > there.taken_away_at
            ]
            if there.store is not None and there.taken_away_at < began:
                self.checkers.keeps(remote, there.store, kept)
                self.ledger.promised(kept, remote, loop.time())
                for document, life in lives.items():
                    self.lives.promise(remote, document, life, loop.time())
                    self.lives.looks(remote, there.store, document)
                self.trace.note("synced", name, remote, len(kept))

    # --- when the weather has calmed ---------------------------------------------------------

    async def _calm_down(self) -> None:
        self.trace.note("calm")
        self.network.calm_down(CALM)
        for machine in self.machines.values():
            machine.disk.refuses = {}
            if not machine.is_up:
                await machine.start()

    async def _come_in_step(self) -> None:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                # First without anybody asking: who has a document open is told of everything.
                await self._be_told()
                # Then without anybody opening anything: what is owed is brought by links alone.
                for machine in self.clients:
                    await self._within(machine, self.sync(machine))
                if self._sessions:
                    await asyncio.wait(tuple(self._sessions))
                await self.faults.tell_the_rest()
                for machine in self.clients:
                    await self._within(machine, self._open_everything(machine))
                while await self._settle() or not self._are_in_step():
                    await asyncio.sleep(1.0)
                    self.fail_if_found()
        except TimeoutError:
            raise Violation("quiescence", self._who_lags()) from None
        self.checkers.passed["quiescence"] += 1

    async def _be_told(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + TOLD_SECONDS
        while lacking := self._who_lacks():
            if loop.time() >= end:
                raise Violation("quiescence", lacking)
            await asyncio.sleep(1.0)

    def _who_lacks(self) -> str | None:
        for machine in self.clients:
            for link, remote in zip(machine.links, machine.remotes, strict=True):
                there = self.machines[remote].shell
                for document, opening in machine.opened.items():
                    is_told = link.progress_of(document) is Progress.IN_SYNC
                    if opening.is_closed or not is_told or there is None or machine.shell is None:
                        continue
                    known, theirs = machine.shell.core.get(document), there.core.get(document)
                    if known is None or theirs is None:
                        continue
                    is_same = known.head.vector == theirs.head.vector
                    if not is_same or known.life != theirs.life:
                        return (
                            f"{machine.name} shows {document!r} as in sync with {remote} and was "
                            f"not told of all of it within {TOLD_SECONDS:.0f} s"
                        )
        return None

    async def _within(self, machine: Machine, work: Coroutine[object, object, R]) -> R:
        """Do something as part of a machine's process."""
        if machine.process is None:
            raise AssertionError(f"{machine.name} was never started")
        return await machine.process.start(work, "healing")

    async def _open_everything(self, machine: Machine) -> None:
        if machine.replica is not None:
            for document in self.documents():
                with suppress(LineageEnded):  # deleted, or ended while it was being opened
                    await self.open(machine, machine.replica, document)

    async def _settle(self) -> bool:
        """Have everybody choose about what has ended; whether there was anything to choose."""
        if self.plan.wire is not Wire.REPLICA:
            return False
        has_chosen = False
        for machine in self.clients:
            has_chosen |= await self._within(machine, self.acts.settle(machine))
        return has_chosen

    def _are_in_step(self) -> bool:
        if any(link.progress is not Progress.IN_SYNC for m in self.clients for link in m.links):
            return False
        return all(map(self._is_in_step, self.documents()))

    def _is_in_step(self, document: DocumentId) -> bool:
        lives = set(self._lives_of(document).values())
        if len(lives) > 1:
            return False
        if lives.pop().is_deleted:
            return True
        return len(set(self._vectors(document).values())) == 1

    def is_gone(self, document: DocumentId) -> bool:
        """Whether a document is deleted everywhere, so that to ask for it again tells nothing."""
        return all(life.is_deleted for life in self._lives_of(document).values())

    def _lives_of(self, document: DocumentId) -> dict[str, Life]:
        return {
            name: life_now(machine.store, document)
            for name, machine in self.machines.items()
            if machine.store is not None
        }

    def _vectors(self, document: DocumentId) -> dict[str, bytes]:
        found = {}
        for machine in self.clients:
            found[machine.name] = machine.opened[document].state_vector()
        for name, machine in self.machines.items():
            known = None if machine.shell is None else machine.shell.core.get(document)
            if known is not None:
                found[f"{name}'s head"] = known.head.state_vector()
        return found

    def _who_lags(self) -> str:
        lag = [
            f"{m.name}: {link.progress.value} ({link.last_error})"
            for m in self.clients
            for link in m.links
        ]
        for document in self.documents():
            lives = self._lives_of(document)
            if len(set(lives.values())) > 1:
                lag += [f"{name} has {life} of {document!r}" for name, life in lives.items()]
        return f"not in step {QUIET_SECONDS:.0f} s after the weather had calmed; {'; '.join(lag)}"

    def _compare(self) -> None:
        for document in self.documents():
            life = self.lives.agreed(document, self._lives_of(document))
            self.trace.note("life", document, str(life))
            for machine in self.machines.values():
                self._look_at_lives(machine)
            if life.is_deleted:
                continue
            digests = {}
            # Of those who dial one store for each document: reading them all takes as long as
            # all that went before.
            witness = self.random.choice(self.clients)
            for machine in self.machines.values():
                if machine.store is not None and (machine is witness or not machine.remotes):
                    stored = stored_now(machine.store, document)
                    updates = [] if stored is None else stored.updates()
                    digest = worker_jobs.digest(updates, LIMITS).deep_digest
                    digests[f"{machine.name}'s store"] = digest
            for machine in self.clients:
                digests[machine.name] = machine.opened[document].deep_digest()
            self.checkers.converged(document, digests)
            for name, digest in digests.items():
                self.trace.note("digest", document, name, digest)
            for machine in self.clients:
                contents = shown(machine.opened[document])
                self.checkers.shows(document, machine.name, contents, life.lineage)

    async def _end(self) -> None:
        self.checkers.sent_within(
            LIMITS.peer_queue_bytes_max,
            buffered=self.network.buffered_bytes_most,
            message=self.network.message_bytes_most,
        )
        for machine in self.machines.values():
            if machine.store is not None:
                findings = [finding async for finding in machine.store.verify()]
                if findings:
                    raise Violation("verified", f"{machine.name}: {findings[0].what}")
                self.checkers.passed["verified"] += 1
        for machine in self.clients:
            await machine.stop()
        for machine in self.machines.values():
            if machine.is_up:
                await machine.stop()
        self.fail_if_found()
        self.checkers.passed["silence"] += 1
        self.checkers.passed["accepted"] += 1


def _may_be_promised(entry: Entry, host: str) -> bool:
    """Whether an edit was stored at `host`, or is in a document that would tell if it was not."""
    if host in entry.kept_by:
        return True
    return isinstance(entry.opening, OpenDocument) and not entry.opening.is_closed
