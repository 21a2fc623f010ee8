"""Directs the demonstration: starts everybody, has them edit, cuts, kills, and compares.

Nobody here touches a document: the people are other processes, and the server is a third
program.  Only the visitor, who comes last with an empty file, is a replica of this process.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from crdt_client.demonstration.child import PersonChild, ServerChild
from crdt_client.demonstration.line import Line
from crdt_client.demonstration.person import LIMITS, QUARREL, TYPED, typed_contents
from crdt_client.demonstration.quarrel import Ledger, contents_of
from crdt_client.demonstration.trace import PEOPLE, Trace
from crdt_client.demonstration.verdict import Report, Verdict, judge
from crdt_state import Replica
from crdt_state.errors import DemonstrationFailed
from crdt_state.transport.websocket import WebSocketDial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from pathlib import Path

__all__ = ["NAMES", "Audience", "Play", "Scene", "Stage"]

NAMES = ("Ada", "Ben", "Cleo")
VISITOR = "visitor"


class Scene:
    """What is shown, one after the other."""

    TYPING = "two people type one text at once"
    QUARREL = "three people edit in one place, offline"
    VISIT = "a visitor comes with an empty file"


class Audience(Protocol):
    """Who is told what happens on the stage."""

    def scene(self, scene: str, steps: int) -> None:
        """A scene begins, of so many steps; the one before has ended."""

    def step(self, done: int, remark: str = "") -> None:
        """So much of the scene is done."""

    def server(self, state: str, kills: int) -> None:
        """The server is `up`, `killed` or `starting`."""

    def person(self, name: str, status: dict[str, Any]) -> None:
        """What a person's process tells of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What is to be played; without a `reference` file the trace is made from the seed."""

    trace: Trace
    reference: Path | None
    seed: int
    rounds: int = 4
    edits_offline: int = 80
    edits_online: int = 120
    """In each round, by each person."""


class Stage:
    """One performance in one folder; `run` it once."""

    def __init__(self, folder: Path, play: Play, audience: Audience) -> None:
        self._folder = folder
        self._play = play
        self._audience = audience
        self._dice = Random(play.seed)  # noqa: S311 - when to cut and kill
        self._server = ServerChild(folder)
        self._people = [
            PersonChild(name, partial(self._told, number)) for number, name in enumerate(NAMES)
        ]
        self._made = [0] * PEOPLE
        self._relays: set[asyncio.Task[Any]] = set()

    async def run(self) -> Verdict:
        """Play it all.  Raises `DemonstrationFailed`; leaves no process behind either way."""
        began = time.monotonic()
        try:
            await self._start()
            edits = await self._type()
            await self._quarrel()
            reports, ledgers = await self._visit(edits)
        finally:
            # One after the other, shielded: Ctrl-C while ending must not leave somebody out.
            await asyncio.shield(self._end())
        return Verdict(
            reports=tuple(reports),
            findings=tuple(judge(reports, ledgers, self._play.trace)),
            trace=self._play.trace.name,
            kills=self._server.kills,
            seconds=time.monotonic() - began,
            seed=self._play.seed,
        )

    # --- the scenes --------------------------------------------------------------------------

    async def _start(self) -> None:
        self._audience.server("starting", 0)
        await self._server.start()
        self._audience.server("up", 0)
        for number, person in enumerate(self._people):
            file = self._folder / f"{person.name.lower()}.db"
            await person.start(number, file, self._server.url, self._play.seed)
        await self._everybody("sync")

    async def _type(self) -> list[int]:
        """Two type, the third reads along; how many edits each has made."""
        play = self._play
        self._audience.scene(Scene.TYPING, len(play.trace.transactions))
        data = None if play.reference is None else str(play.reference)
        answers = await _all(
            person.ask(
                "replay",
                typist=who if who < PEOPLE else None,
                data=data,
                seed=play.seed,
                transactions=len(play.trace.transactions),
            )
            for who, person in enumerate(self._people)
        )
        await self._everybody("sync")
        return [answer["edits"] for answer in answers]

    async def _quarrel(self) -> None:
        play = self._play
        self._audience.scene(Scene.QUARREL, play.rounds)
        for number in range(1, play.rounds + 1):
            await self._everybody("cut")
            await self._everybody("quarrel", times=play.edits_offline)
            kills = number % 2 == 0
            meeting = _all(self._meet(person) for person in self._people)
            trouble = self._kill() if kills else self._cut_again()
            await _all([meeting, trouble])
            # Twice: the first time everybody has brought theirs, the second time fetched all.
            await self._everybody("sync")
            await self._everybody("sync")
            told = await self._everybody("tell")
            if any(one[QUARREL] != told[0][QUARREL] for one in told):
                raise DemonstrationFailed(f"after round {number} the contents are not equal")
            remark = "the server killed" if kills else "a line cut"
            self._audience.step(number, f"{remark} while they met; equal")

    async def _meet(self, person: PersonChild) -> None:
        await person.ask("mend")
        await person.ask("quarrel", times=self._play.edits_online)
        await person.ask("sync")

    async def _kill(self) -> None:
        """Kill the server while they bring it what they have."""
        await asyncio.sleep(self._dice.uniform(0.1, 0.5))
        await self._server.kill()
        self._audience.server("killed", self._server.kills)
        await asyncio.sleep(self._dice.uniform(0.1, 0.3))
        self._audience.server("starting", self._server.kills)
        await self._server.start()
        self._audience.server("up", self._server.kills)

    async def _cut_again(self) -> None:
        """Cut one line while they bring what they have."""
        unlucky = self._dice.choice(self._people)
        await asyncio.sleep(self._dice.uniform(0.1, 0.5))
        await unlucky.ask("cut")
        await asyncio.sleep(self._dice.uniform(0.05, 0.2))
        await unlucky.ask("mend")

    async def _visit(self, edits: list[int]) -> tuple[list[Report], list[Ledger]]:
        self._audience.scene(Scene.VISIT, 1)
        told = await self._everybody("tell")
        ledgers = [Ledger(**one["ledger"]) for one in told]
        reports = [
            Report(
                name=name,
                typed=one[TYPED],
                quarrel=one[QUARREL],
                edits=typed + ledger.edits,
                bytes_sent=one["status"]["sent"],
                bytes_received=one["status"]["received"],
                reconnections=one["status"]["reconnections"],
            )
            for name, one, typed, ledger in zip(NAMES, told, edits, ledgers, strict=True)
        ]
        line = Line(WebSocketDial(LIMITS))
        async with Replica.open(self._folder / f"{VISITOR}.db", limits=LIMITS) as replica:
            typed_document = await replica.document(TYPED)
            quarrel_document = await replica.document(QUARREL)
            link = replica.connect(self._server.url, dial=line)
            await link.synced()
            visitor = Report(
                name=VISITOR,
                typed=typed_contents(typed_document),
                quarrel=contents_of(quarrel_document),
                edits=0,
                bytes_sent=line.bytes_sent,
                bytes_received=line.bytes_received,
                reconnections=line.reconnections,
            )
        self._audience.step(1)
        return [*reports, visitor], ledgers

    async def _end(self) -> None:
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*(person.stop() for person in self._people))
        await self._server.stop()

    # --- the people --------------------------------------------------------------------------

    async def _everybody(self, do: str, **given: Any) -> list[Any]:
        return await _all(person.ask(do, **given) for person in self._people)

    def _told(self, who: int, said: dict[str, Any]) -> None:
        if "status" in said:
            self._audience.person(NAMES[who], said["status"])
        if "made" in said:
            self._made[who] = said["made"]
            self._audience.step(sum(self._made))
            relay = asyncio.create_task(self._people[1 - who].ask("peer", made=said["made"]))
            self._relays.add(relay)
            relay.add_done_callback(self._relayed)

    def _relayed(self, relay: asyncio.Task[Any]) -> None:
        self._relays.discard(relay)
        if not relay.cancelled():
            relay.exception()  # whoever is asked next fails for the same reason, and is heard


async def _all(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all; the first that fails ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(one)) for one in asked]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


async def _awaited(one: Awaitable[Any]) -> Any:
    return await one
