"""People who end lives of documents and begin others, and who choose what becomes of their edits.

    act of the plan ──► delete, seed ──► others are told ──► adopt, keep as a copy or rebase
    somebody comes upon a deleted document ──► leaves it, or begins it anew

What they mean to do is written down first (`lives`), and what they made once more by choosing, or
kept as a copy, is entered in the ledger as theirs.  Only where the wire names lineages.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace as with_changes
from random import Random
from typing import TYPE_CHECKING, Any

from crdt_state.errors import CrdtStateError, DocumentDeleted, LineageEnded, UsageError
from crdt_state.identifiers import DocumentId
from crdt_state.lineage import LINEAGE_ZERO, Lineage
from crdt_state.model.inspect import inspect
from crdt_state.simulator.checkers import VALUES_OF_ONE, Violation, tags_in
from crdt_state.simulator.ledger import UNBORN
from crdt_state.simulator.lives import RECREATION
from crdt_state.simulator.machine import LIMITS
from crdt_state.simulator.plan import CONTAINERS, DOCUMENTS, Deed
from crdt_state.simulator.workload import Person, shown
from crdt_state.transport.link import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.model.document import Document
    from crdt_state.replica.open_document import OpenDocument
    from crdt_state.simulator.ledger import Entry
    from crdt_state.simulator.machine import Machine
    from crdt_state.simulator.plan import Act
    from crdt_state.simulator.world import World
    from crdt_state.transport.replica import Replica

__all__ = ["Acts"]

BEGUN_ANEW = 0.6
"""Of those who come upon a deleted document, how many do so."""

CHOSEN_AT_ONCE = 0.6
"""Of those who are told that a lineage has ended, how many."""

SEEDED_CONTAINERS = 3
ADOPTION, COPY, REBASE = "adoption", "copy", "rebase"


class Acts:
    """Carries out the acts of a plan, and what follows from them."""

    def __init__(self, world: World) -> None:
        self.copies: list[DocumentId] = []
        """Documents that keep what was edited in a lineage that has ended."""
        self._world = world
        self._dice = Random(f"choices {world.plan.seed}")  # noqa: S311 - to be repeated

    async def befall(self, act: Act) -> None:
        """One act, as soon as the machine is up."""
        world = self._world
        if world.plan.wire is not Wire.REPLICA:
            return
        machine = world.machines[act.host]
        while machine.replica is None:
            await machine.came_up.wait()
        world.begin_session(machine, self._carry_out(machine, machine.replica, act))

    async def _carry_out(self, machine: Machine, replica: Replica, act: Act) -> None:
        world, dice = self._world, Random(act.seed)  # noqa: S311 - to be repeated
        world.trace.note("act", act.deed.value, machine.name, act.document)
        try:
            if act.deed is Deed.DELETE:
                will = world.lives.will(machine.name, act.document, act.deed.value, [])
                await replica.delete(act.document)
                world.lives.is_over(will)
            else:
                await self._seed(machine, replica, act.document, dice)
            if act.waits_for == "synced":
                await world.sync(machine)
        except Violation as violation:
            world.checkers.note(violation)
        except CrdtStateError as error:
            world.trace.note("not done", machine.name, type(error).__name__)

    def seed_what_was_lost(self, dice: Random) -> None:
        """Somebody brings documents back from elsewhere that a machine has lost."""
        world = self._world
        machine = dice.choice(world.clients)
        document = dice.choice(DOCUMENTS)
        replica = machine.replica
        if world.plan.wire is Wire.REPLICA and replica is not None:
            world.begin_session(machine, self._bring_back(machine, replica, document, dice))

    async def _bring_back(
        self, machine: Machine, replica: Replica, document: DocumentId, dice: Random
    ) -> None:
        self._world.trace.note("brings back", machine.name, document)
        try:
            await self._seed(machine, replica, document, dice)
        except CrdtStateError as error:
            self._world.trace.note("not done", machine.name, type(error).__name__)

    # --- lives that begin --------------------------------------------------------------------

    async def open(
        self, machine: Machine, replica: Replica, document: DocumentId, dice: Random
    ) -> OpenDocument:
        """Open a document; where it is deleted, some begin it anew, and the others are told so."""
        world = self._world
        try:
            return await world.open(machine, replica, document)
        except DocumentDeleted:
            if dice.random() >= BEGUN_ANEW:
                raise
        world.trace.note("begins anew", machine.name, document)
        if dice.random() < 0.5:
            will = world.lives.will(machine.name, document, RECREATION, [])
            await replica.recreate(document)
            world.lives.is_over(will)
        else:
            await self._seed(machine, replica, document, dice)
        return await world.open(machine, replica, document)

    async def _seed(
        self, machine: Machine, replica: Replica, document: DocumentId, dice: Random
    ) -> None:
        world, name = self._world, machine.name
        person = Person(world.ledger, name, dice, asyncio.get_running_loop().time)
        entries: list[Entry] = []
        will = world.lives.will(name, document, Deed.SEED.value, entries)

        def fill(empty: Document) -> None:
            updates: list[bytes] = []
            empty.on_update(lambda update, _: updates.append(update))
            for container in dice.sample(CONTAINERS, SEEDED_CONTAINERS):
                entry = person.edit(empty, container, UNBORN)
                world.edits += 1
                if entry is not None:
                    entry.reach = dict(inspect(updates[-1], LIMITS, merged=True).vector)
                    entries.append(entry)

        await replica.seed(document, fill)
        world.lives.is_over(will)

    # --- lives that others ended -------------------------------------------------------------

    def notice(self, machine: Machine, opening: OpenDocument) -> None:
        """Hold what a document that has ended tells against what was edited in it."""
        error = opening.error
        if isinstance(error, LineageEnded) and opening not in machine.noticed:
            machine.noticed[opening] = None
            made = [entry for entry in machine.made if entry.opening is opening]
            self._world.lives.handed_back(machine.name, error, made)

    async def was_told(
        self, machine: Machine, replica: Replica, opening: OpenDocument, dice: Random
    ) -> None:
        """Somebody learns that what they have open has ended, and chooses, now or later."""
        self.notice(machine, opening)
        error = opening.error
        if isinstance(error, LineageEnded):
            self._world.trace.note("told", machine.name, opening.id, len(error.updates))
            if error.has_copy and dice.random() < CHOSEN_AT_ONCE:
                await self._choose(machine, replica, error, dice)

    async def settle(self, machine: Machine) -> bool:
        """Choose about all that is set aside here, and open all that is not; whether there was."""
        replica = machine.replica
        if replica is None:
            return False
        offered = [ended async for ended in replica.ended()]
        for ended in offered:
            try:
                await self._choose(machine, replica, ended, self._dice)
            except LineageEnded as error:  # of what it was to be rebased onto
                self._world.trace.note("not chosen", machine.name, type(error).__name__)
        has_opened = False
        for document in self._world.documents():
            opened = machine.opened.get(document)
            is_to_be_opened = opened is None or opened.is_closed
            if is_to_be_opened and not self._world.is_gone(document):
                try:
                    await self._world.open(machine, replica, document)
                except DocumentDeleted:
                    continue
                except LineageEnded:
                    pass  # it has ended while it was being opened
                has_opened = True
        return bool(offered) or has_opened

    async def _choose(
        self, machine: Machine, replica: Replica, ended: LineageEnded, dice: Random
    ) -> None:
        key = ended.document, ended.lineage
        if key in machine.choosing:
            return
        machine.choosing[key] = None
        offered = self._world.lives.offered(machine.name, ended)
        choices = [ADOPTION, COPY]
        if not any(entry.is_rebased for entry in offered):  # or it would be there twice
            choices.append(REBASE)
        try:
            await self._do(dice.choice(choices), machine, replica, ended, offered)
        except UsageError as error:
            if machine.store is None:
                return  # it is being stopped in good order, and whoever is told later chooses
            if not self._world.lives.has_chosen(machine.name, ended):
                what = f"{machine.name} was offered edits of {ended.document!r}: {error}"
                raise Violation("told", what) from error
        finally:
            del machine.choosing[key]

    async def _do(
        self,
        choice: str,
        machine: Machine,
        replica: Replica,
        ended: LineageEnded,
        offered: Sequence[Entry],
    ) -> None:
        self._world.trace.note("chooses", machine.name, ended.document, choice)
        if choice == REBASE:
            try:
                is_whole = await self._rebase(machine, replica, ended)
            except (DocumentDeleted, UsageError) as error:
                self._world.trace.note("not rebased", machine.name, type(error).__name__)
                is_whole = False
            if is_whole:
                self._chose(machine, ended, choice)
                return
            choice = COPY
        if choice == COPY:
            await self._keep(machine, replica, ended, offered)
        else:
            await replica.adopt(ended)
        self._chose(machine, ended, choice)

    def _chose(self, machine: Machine, ended: LineageEnded, choice: str) -> None:
        now = asyncio.get_running_loop().time()
        self._world.lives.chose(machine.name, ended, choice, now)

    async def _keep(
        self, machine: Machine, replica: Replica, ended: LineageEnded, offered: Sequence[Entry]
    ) -> None:
        world, document = self._world, DocumentId(ended.document)
        name = DocumentId(f"copies/{len(self.copies) + 1}")
        self.copies.append(name)
        kept = []
        for entry in world.ledger.made_in(document, Lineage(ended.lineage)):
            copy = with_changes(entry, document=name, lineage=LINEAGE_ZERO, kept_by={})
            world.ledger.enter(copy)
            if entry in offered:
                kept.append(copy)
        opening = await replica.keep_as_copy(ended, name)
        now = asyncio.get_running_loop().time()
        world.ledger.promised(kept, machine.name, now)
        world.checkers.shows(name, machine.name, shown(opening))

    async def _rebase(self, machine: Machine, replica: Replica, ended: LineageEnded) -> bool:
        """Whether all of it could be made once more."""
        world = self._world
        onto = await world.open(machine, replica, DocumentId(ended.document))
        watch = _Rebasing(world, machine, onto, ended)
        stop = onto.on_update(watch.updated)
        try:
            passed_over = await replica.rebase(ended)
        finally:
            stop()
        now = asyncio.get_running_loop().time()
        world.ledger.promised(watch.made, machine.name, now)
        if not passed_over:
            watch.has_made(world.lives.fresh(machine.name, ended))
        return not passed_over


class _Rebasing:
    """Enters in the ledger what a rebase makes once more, and what it takes away."""

    def __init__(
        self, world: World, machine: Machine, onto: OpenDocument, ended: LineageEnded
    ) -> None:
        self.made: list[Entry] = []
        self._ledger = world.ledger
        self._checkers = world.checkers
        self._machine = machine
        self._onto = onto
        self._from = Lineage(ended.lineage)
        self._lineage = machine.lineages[onto.id]
        self._task = asyncio.current_task()
        self._before = shown(onto)

    def updated(self, update: bytes, is_local: bool) -> None:
        """The document has changed; others may edit it meanwhile, here as well."""
        try:
            self._updated(update, is_local)
        except Violation as violation:
            self._checkers.note(violation)

    def _updated(self, update: bytes, is_local: bool) -> None:
        before, self._before = self._before, shown(self._onto)
        if is_local and asyncio.current_task() is self._task:
            reach = dict(inspect(update, LIMITS, merged=True).vector)
            for container, content in self._before.items():
                if container == "counter":
                    self._count(content - before[container], reach)
                else:
                    self._compare(container, before[container], content, reach)

    def has_made(self, offered: Sequence[Entry]) -> None:
        """All that was offered is in the later lineage now, by whomever."""
        for entry in offered:
            there = self._ledger.of(self._onto.id, entry.container, self._lineage)
            may_be_hidden = entry.is_replaced or entry.container in {"counter", *VALUES_OF_ONE}
            if not may_be_hidden and entry.tag not in there:
                what = f"{entry.tag!r} of {entry.container} in {self._onto.id!r} was not rebased"
                raise Violation("told", what)

    def _count(self, amount: int, reach: dict[int, int]) -> None:
        written = self._ledger.of(self._onto.id, "counter", self._from).values()
        if not 0 <= amount <= sum(entry.amount for entry in written):
            raise Violation("apart", f"{amount} was added to the counter of {self._onto.id!r}")
        if amount:
            for entry in written:
                entry.is_rebased = True
            tag = self._ledger.new_tag(self._machine.name, "counter")
            self._make("counter", tag, reach, amount)

    def _compare(self, container: str, before: Any, after: Any, reach: dict[int, int]) -> None:
        ledger, document = self._ledger, self._onto.id
        written = ledger.of(document, container, self._from)
        there = ledger.of(document, container, self._lineage)
        had, has = Counter(tags_in(before)), Counter(tags_in(after))
        for tag in had - has:
            ledger.replaced(document, container, tag, self._lineage)
        for tag in has - had:
            if tag not in written:
                raise Violation("apart", f"{tag!r} in {document!r} was rebased from nowhere")
            written[tag].is_rebased = True
            if tag not in there:
                self._make(container, tag, reach)

    def _make(self, container: str, tag: str, reach: dict[int, int], amount: int = 1) -> None:
        entry = self._ledger.wrote(
            self._onto.id,
            container,
            tag,
            host=self._machine.name,
            opening=self._onto,
            at=asyncio.get_running_loop().time(),
            amount=amount,
            lineage=self._lineage,
        )
        entry.reach = reach
        self.made.append(entry)
        self._machine.made.append(entry)
