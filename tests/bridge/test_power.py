"""The server loses its power between a commit and its acknowledgement, and everybody resends.

Clients write tags of one character each, every one once.  The power fails at a step of the disk
that dice name, while operations are under way; what a client has been told by then is compared
with what it and others are told over all later starts.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bridge.served import DOCUMENT, LIMITS, SERVER, WEATHER, Served, Server, Spoken
from crdt_client.thin import ThinClient
from crdt_client.thin import progress as thin_progress
from crdt_state.bridge import decode
from crdt_state.ot import Insert, Operation, Retain
from crdt_state.ot.formats import TEXT_UNICODE
from crdt_state.replica import attachment
from crdt_state.simulator.network import Network
from crdt_state.simulator.trace import Trace
from crdt_state.simulator.weather import CALM

if TYPE_CHECKING:
    from crdt_client.thin.text import ThinText
    from crdt_state.bridge import Revision
    from crdt_state.limits import Limits

CLIENTS = 3
IN_A_RUN = 4
RUNS = 25
MUTANT_RUNS = 8
FIRST_TAG = 0x4E00
STEPS_MAX = 60
PATIENCE_SECONDS = 120.0
GLANCE_SECONDS = 0.001
CALM_SECONDS = 400.0


class Hearing(Spoken):
    """A client's connection, of which a run keeps what is told by it."""

    def __init__(self, connection: Any, run: Losing) -> None:
        super().__init__(connection)
        self._run = run

    async def receive(self) -> str:
        message = await super().receive()
        self._run.hear(json.loads(message))
        return message


class Losing(Served):
    """One run, in which the power fails again and again."""

    def __init__(self, seed: int, *, losses: int) -> None:
        super().__init__(seed, is_rich=False)
        self.losses = losses
        self.wanted = losses
        self.tags: list[str] = []
        self.text = ""
        self.told: dict[int, tuple[Any, ...]] = {}
        """By number, whose operation it was said to be."""
        self.content: dict[int, Any] = {}
        self.reused: list[int] = []
        self.acknowledged: set[int] = set()
        self._thins: list[tuple[ThinClient, ThinText]] = []

    def hear(self, message: Any) -> None:
        """Keep what a number stands for, and whether it has ever stood for something else."""
        if message.get("a") != "op" or "error" in message or "v" not in message:
            return
        number = message["v"]
        if "op" not in message and "create" not in message:
            self.acknowledged.add(number)
        said = (message.get("src"), message.get("seq"))
        if self.told.setdefault(number, said) != said:
            self.reused.append(number)
        if "op" in message and self.content.setdefault(number, message["op"]) != message["op"]:
            self.reused.append(number)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        weather = replace(WEATHER, spike=0.0)
        network = Network(self.dice, weather, Trace(loop.time))
        server = Server(network, self.dice)
        await server.start()
        for number in range(CLIENTS):
            self._thins.append(await self._writer(network, number))
        self._write()  # before it is there, two may create it, and one of them is handed its text
        async with asyncio.timeout(CALM_SECONDS):
            while not (self.acknowledged and self._is_in_step()):  # noqa: ASYNC110
                await asyncio.sleep(1.0)
        while self.losses:
            await self._lose_power(server)
            self.losses -= 1
        network.calm_down(CALM)
        until = loop.time() + CALM_SECONDS
        while loop.time() < until and not self._is_in_step():  # noqa: ASYNC110
            await asyncio.sleep(1.0)
        self.shown = [text.document for _, text in self._thins]
        self.text = str(self.shown[0])
        self.starts = server.starts
        for client, _ in self._thins:
            await client.__aexit__(None, None, None)
        await server.end(power=False)

    async def _writer(self, network: Network, number: int) -> tuple[ThinClient, ThinText]:
        async def dial(url: str) -> Spoken:
            return Hearing(await network.dial(f"thin-{number}", url), self)

        client = ThinClient(
            f"ws://{SERVER}/-/sharedb/{TEXT_UNICODE.name}",
            limits=replace(LIMITS, revisions_kept_max=5_000, revision_base_revisions_max=5_000),
            random=type(self.dice)(self.dice.getrandbits(64)),
            handed_back=lambda _text, _back: self._count(),
            dial=dial,
        )
        await client.__aenter__()
        return client, await client.open(DOCUMENT, format=TEXT_UNICODE)

    async def _lose_power(self, server: Server) -> None:
        dice, disk, loop = self.dice, server.disk, asyncio.get_running_loop()
        until, syncs = loop.time() + PATIENCE_SECONDS, 0
        is_behind_a_commit = dice.random() < 0.5
        if not is_behind_a_commit:
            disk.lost_at = disk.steps + dice.randint(1, STEPS_MAX)
        while not disk.is_off and loop.time() < until:
            syncs = disk.syncs
            self._write()
            pause = loop.time() + dice.uniform(0.0, 0.2)
            while loop.time() < pause and disk.syncs == syncs:  # noqa: ASYNC110
                await asyncio.sleep(GLANCE_SECONDS)
            if is_behind_a_commit and disk.syncs > syncs and dice.random() < 0.3:
                break  # it is committed, and what acknowledges it is under way
        assert disk.is_off or disk.syncs > syncs, "nothing was written to the disk"
        await server.end(power=True)
        self._write()
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        await server.start()

    def _write(self) -> None:
        _, text = self.dice.choice(self._thins)
        tag = chr(FIRST_TAG + len(self.tags))
        at = self.dice.randint(0, len(str(text.document)))
        text.edit(Operation.of(*([Retain(at)] if at else []), Insert(tag)))
        self.tags.append(tag)

    def _is_in_step(self) -> bool:
        in_step = thin_progress.Progress.IN_STEP
        return all(
            text.progress is in_step and text.document == self._thins[0][1].document
            for _, text in self._thins
        )


def gone(seed: int, losses: int) -> Losing:
    run = Losing(seed, losses=losses)
    run.go()
    return run


def complaints(run: Losing) -> list[str]:
    """What of the promises a run has not kept."""
    found = [f"reported: {each}" for each in run.reported]
    found += [f"revision {each:,} was told as two" for each in run.reused]
    counted = Counter(run.text)
    found += [f"{tag} was applied twice" for tag in run.tags if counted[tag] > 1]
    found += [f"{tag} is missing" for tag in run.tags if not counted[tag]]
    return found if run.is_converged else [*found, "not all show the same"]


def assert_kept(run: Losing) -> None:
    assert run.starts == run.wanted + 1
    assert len(run.tags) > 3 * run.wanted
    assert len(run.told) > run.wanted, "hardly anything was told"
    assert run.acknowledged, "nothing was acknowledged"
    assert not complaints(run), f"seed {run.seed}"
    assert not run.handed_back


def test_what_is_resent_after_some_losses_of_power_is_applied_once() -> None:
    assert_kept(gone(1, IN_A_RUN))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, RUNS + 1))
def test_what_is_resent_after_a_hundred_losses_of_power_is_applied_once(seed: int) -> None:
    assert_kept(gone(seed, IN_A_RUN))


# --- broken on purpose --------------------------------------------------------------------------


def is_caught(expected: str) -> bool:
    return any(
        expected in each for seed in range(MUTANT_RUNS) for each in complaints(gone(seed, IN_A_RUN))
    )


def test_where_sources_are_forgotten_on_a_restart_something_is_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobodys(data: bytes, *, limits: Limits) -> Revision:
        return replace(decode(data, limits=limits), source=None, sequence=0)

    monkeypatch.setattr(attachment, "decode", nobodys)
    assert is_caught("applied twice")


def test_where_revisions_are_published_before_their_commit_a_number_is_told_as_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = attachment.Attachment.stage

    async def hasty(self: attachment.Attachment) -> None:
        await stage(self)
        if self._known is not None and self._error is None:
            self.persisted(self.revisions.head)

    monkeypatch.setattr(attachment.Attachment, "stage", hasty)
    assert is_caught("told as two")
