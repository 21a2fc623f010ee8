"""Thin clients over real sockets that are cut at any moment: all end equal, and nothing is lost.

The order of events is the sockets' to choose, so a seed repeats what is done, not all that happens.
"""

from __future__ import annotations

import asyncio
import shutil
from random import Random
from typing import TYPE_CHECKING

import pytest

from bridge.simulated import edit, place, tags
from client.test_thin_client import SECONDS_MAX, client_at, until_all_show
from client.thin_server import Fate, ThinServer, thin_server
from crdt_client.thin import RICH_TEXT, TEXT_UNICODE, ThinClient, ThinText
from crdt_state.ot import Insert, Operation, Retain, apply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_state.ot import Document
    from crdt_state.ot.formats import Format

SEEDS = range(6)
"""Of each storm; `pytest -k "[3-"` runs one."""


class Person:
    """Somebody at one client, whose process may be killed."""

    def __init__(self, server: ThinServer, folder: Path | None) -> None:
        self.server = server
        self.folder = folder
        self.lives = 0
        self.client: ThinClient
        self.text: ThinText
        self.shown: Document
        self.handed_back: list[str] = []

    async def begin(self, name: str, spoken: Format) -> None:
        self.client = client_at(self.server, store=self.folder)
        await self.client.__aenter__()
        self.text = await self.client.open(name, format=spoken)
        self.shown = self.text.document
        self.text.observe(self._observed)

    async def end(self) -> None:
        self.handed_back += [written(back.operation) for back in self.text.handed_back]
        self.text.handed_back.clear()
        assert self.shown == self.text.document
        await self.client.__aexit__(None, None, None)

    async def be_killed(self) -> None:
        """Go on from what was in the files at some moment, in another process."""
        assert self.folder is not None
        # What is shown is then written down, and what was sent was before.
        await self.text.kept()
        self.lives += 1
        copy = self.folder.with_name(f"{self.folder.name} {self.lives}")
        shutil.copytree(self.folder, copy)
        name, spoken = self.text.document_id, self.text.format
        await self.end()
        self.folder = copy
        await self.begin(name, spoken)

    def edit(self, operation: Operation) -> None:
        self.text.edit(operation)
        self.shown = apply(self.shown, operation)

    def _observed(self, change: Operation) -> None:
        self.shown = apply(self.shown, change)


def written(operation: Operation) -> str:
    return "".join(str(each.content) for each in operation.components if type(each) is Insert)


def cutting(dice: Random, rate: float) -> Callable[[], Fate]:
    return lambda: dice.choice((Fate.LOST, Fate.UNANSWERED)) if dice.random() < rate else Fate.HEARD


async def turns(dice: Random) -> None:
    for _ in range(dice.choice((0, 1, 2, 5, 20))):
        await asyncio.sleep(0)


@pytest.mark.parametrize("spoken", [TEXT_UNICODE, RICH_TEXT], ids=lambda each: each.name)
@pytest.mark.parametrize("seed", SEEDS)
async def test_three_who_are_cut_off_at_any_moment_end_equal(seed: int, spoken: Format) -> None:
    dice = Random(seed)
    name = "notes/storm" if spoken.is_plain else "rich/storm"
    async with asyncio.timeout(SECONDS_MAX), thin_server() as server:
        people = [Person(server, None) for _ in range(3)]
        for person in people:
            await person.begin(name, spoken)
        server.fate = cutting(dice, 0.1)
        for _ in range(60):
            person = dice.choice(people)
            person.edit(edit(dice, person.text.document, is_rich=not spoken.is_plain))
            if dice.random() < 0.05:
                server.cut()
            if dice.random() < 0.1 and server.text(name).is_there:
                held = server.text(name).document
                server.write(name, edit(dice, held, is_rich=not spoken.is_plain))
            await turns(dice)
        server.fate = lambda: Fate.HEARD
        await until_all_show(server, name, *(person.text for person in people))
        assert server.text(name).revisions.published - server.text(name).revisions.floor > 10
        for person in people:
            assert not person.text.handed_back
            await person.end()


@pytest.mark.parametrize("spoken", [TEXT_UNICODE, RICH_TEXT], ids=lambda each: each.name)
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_written_is_there_once_or_handed_back(
    seed: int, spoken: Format, tmp_path: Path
) -> None:
    dice = Random(seed)
    name = "notes/storm" if spoken.is_plain else "rich/storm"
    unused, everything = tags(), []
    async with asyncio.timeout(SECONDS_MAX), thin_server() as server:
        people = [Person(server, tmp_path / f"person {i}") for i in range(3)]
        for person in people:
            await person.begin(name, spoken)
        server.fate = cutting(dice, 0.1)
        for _ in range(60):
            person = dice.choice(people)
            everything.append(next(unused))
            at = place(dice, len(person.text))
            person.edit(Operation.of(Retain(at), Insert(everything[-1])))
            if dice.random() < 0.05:
                server.raise_floor(name)
            if dice.random() < 0.05:
                await person.be_killed()
            await turns(dice)
        server.fate = lambda: Fate.HEARD
        await until_all_show(server, name, *(person.text for person in people))
        text = str(people[0].text)
        for person in people:
            await person.end()
    back = "".join("".join(person.handed_back) for person in people)
    assert len(set(text)) == len(text), "something is there twice"
    assert set(text) | set(back) == set(everything)
    assert len(text) > len(everything) / 2
