"""Stock clients edit at random, lose their lines and come back: all end with what a server has."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.identifiers import DocumentId
from crdt_state.protocol.sharedb.requests import Fetch, Submit, Subscribe
from crdt_state.protocol.sharedb.text_types import RICH_TEXT, TEXT_UNICODE, TextType
from protocol.sharedb.scripted_server import Stock, Text, stock_sharedb

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.node

A = DocumentId("notes/a")
CLIENTS = ("one", "two", "three")
STEPS = 60
RUNS = 3
RUNS_IN_FULL = 60
# What the client itself throws where a submission of which nothing was left (ERR_NO_OP) is ended
# by something else before the fetch that it asks for then is answered.  Nothing is lost by that.
OWN = "Cannot read properties of null (reading 'callbacks')"
CHARACTERS = ["a", "b", "\n", "é", "😀", "👩‍👩‍👧"]


class Storm:
    """One run: what each client writes carries its own letters, so that all can be counted."""

    def __init__(self, stock: Stock, kind: TextType, seed: int) -> None:
        self.stock = stock
        self.kind = kind
        self.dice = random.Random(seed)
        self.offline: set[str] = set()
        self.histories = 1

    async def run(self) -> None:
        for client in CLIENTS:
            await self.stock.open(client)
        await self.create("one")
        for client in CLIENTS:
            await self.stock.do(client, "subscribe", "notes", "a")
        for _ in range(STEPS):
            await self.step()
        await self.end()

    async def create(self, client: str) -> None:
        data = "begin" if self.kind is TEXT_UNICODE else [{"insert": "begin"}]
        await self.stock.do(client, "create", "notes", "a", data, self.kind.uri)

    async def step(self) -> None:
        client = self.dice.choice(CLIENTS)
        what = self.dice.random()
        if what < 0.6:
            await self.edit(client)
        elif what < 0.7:
            self.stock.server.held = set(self.dice.sample([Submit, Subscribe, Fetch], 2))
        elif what < 0.8:
            self.stock.server.release()
            await self.stock.settle()
        elif what < 0.98:
            await self.cut_or_mend(client)
        else:
            self.end_history()

    async def edit(self, client: str) -> None:
        # What is on its way may be another history, in which this place is past the end.
        await self.stock.settle()
        shown = await self.stock.show(client, "a")
        if shown["type"] is None:
            if shown["version"] is not None:  # else it waits for an answer
                await self.create(client)
            return
        if self.dice.random() < 0.05:
            await self.stock.do(client, "del", "notes", "a")
            return
        if self.kind is TEXT_UNICODE:
            length = len(shown["data"])
        else:
            length = sum(self.units(each["insert"]) for each in shown["data"]["ops"])
        await self.stock.do(client, "submit", "notes", "a", self.operation(length))

    def operation(self, length: int) -> Any:
        at = self.dice.randint(0, length)
        count = min(length - at, self.dice.randint(1, 3))
        new = self.dice.choice(CHARACTERS)
        if self.kind is TEXT_UNICODE:
            wire: list[Any] = [at] if at else []
            return wire + ([{"d": count}] if count and self.dice.random() < 0.4 else [new])
        ops: list[Any] = [{"retain": at}] if at else []
        draw = self.dice.random()
        if count and draw < 0.3:
            ops.append({"retain": count, "attributes": {"bold": self.dice.choice([True, None])}})
        elif draw < 0.5:
            ops.append({"insert": {"image": "cat.png"}})
        else:
            # In ASCII: what cuts a pair is refused, which is another test's matter.
            ops.append({"insert": self.dice.choice("abc"), "attributes": {"italic": True}})
        return {"ops": ops}

    @staticmethod
    def units(content: Any) -> int:
        return len(content) if isinstance(content, str) else 1

    async def cut_or_mend(self, client: str) -> None:
        if client in self.offline:
            self.offline.remove(client)
            await self.stock.open(client)
        else:
            self.offline.add(client)
            await self.stock.cut(client)

    def end_history(self) -> None:
        """The server is another one: of a later epoch, an earlier one, or far ahead."""
        server = self.stock.server
        old = server.text(A)
        self.histories += 1
        floor = self.dice.choice([old.version + 1_000, 3 * 2**32, 9 * 2**32]) + self.histories * 100
        new = Text(floor, old.type, old.content, start=old.content)
        server.texts[A] = new
        for protocol in server.connections.values():
            protocol.replace(A, new.snapshot())

    async def end(self) -> None:
        server = self.stock.server
        server.release()
        await self.stock.settle()
        for client in sorted(self.offline):
            await self.stock.open(client)
        text = server.text(A)
        expected = None if text.type is None else self.kind.write_content(text.content)
        for client in CLIENTS:
            shown = await self.stock.show(client, "a")
            assert shown["data"] == expected, client
            assert shown["version"] == text.version, client
            assert shown["subscribed"]
            assert not shown["pending"]
        named = [(each.source, each.sequence) for each in text.log]
        assert len(named) == len(set(named)), "a submission was applied twice"


async def ride(stock: Stock, kind: TextType, seed: int) -> int:
    stock.begin()
    storm = Storm(stock, kind, seed)
    try:
        await storm.run()
    except AssertionError as error:
        error.add_note(f"seed {seed}, {kind.name}")
        raise
    for client in CLIENTS:
        events = await stock.events(client)
        thrown = [event for event in events if event[0] == "connection error" and event[1] != OWN]
        assert not thrown, f"seed {seed}, {kind.name}: {thrown}"
    return len(stock.server.text(A).log)


def drawn_seed() -> int:
    return random.SystemRandom().randrange(2**30)


@pytest.mark.parametrize("kind", [TEXT_UNICODE, RICH_TEXT], ids=lambda kind: kind.name)
async def test_stock_clients_in_a_storm_end_equal(node_programs: Path, kind: TextType) -> None:
    async with stock_sharedb(node_programs) as stock:
        for _ in range(RUNS):
            await ride(stock, kind, drawn_seed())


@pytest.mark.full
@pytest.mark.parametrize("kind", [TEXT_UNICODE, RICH_TEXT], ids=lambda kind: kind.name)
async def test_stock_clients_in_many_storms_end_equal(node_programs: Path, kind: TextType) -> None:
    made = 0
    async with stock_sharedb(node_programs) as stock:
        for _ in range(RUNS_IN_FULL):
            made += await ride(stock, kind, drawn_seed())
    assert made > RUNS_IN_FULL
