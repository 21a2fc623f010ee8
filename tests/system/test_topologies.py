"""Replicas in processes of their own, which find one another without a server in the middle.

Each process is what `crdt-state serve` runs.  People edit at each of them; lines between them are
cut and mended; processes are killed.  In the end everybody shows the same.
"""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.identifiers import DocumentId, path_of
from crdt_state.limits import Limits
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from lines import Line
from running import RunningServer, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from crdt_state.replica.receipts import Receipt
    from crdt_state.transport.link import Link

DOCUMENTS = [DocumentId(f"team/{name}") for name in ("plan", "notes", "list")]
AGREE_SECONDS_MAX = 60.0

QUICK = {
    "CRDT_STATE_REPLICA_PROTOCOL": "true",
    "CRDT_STATE_LIMITS__RECONNECT_SECONDS_MAX": "0.5",
}


class Person:
    """Somebody who edits at one replica, and keeps a list of what they wrote."""

    def __init__(self, replica: Replica, name: str, dice: Random) -> None:
        self._replica = replica
        self._name = name
        self._dice = dice
        self._count = itertools.count()
        self.wrote: dict[DocumentId, list[str]] = {each: [] for each in DOCUMENTS}

    async def receipts(self) -> list[Receipt]:
        """One for each document that was ever edited."""
        edited = [document for document, tags in self.wrote.items() if tags]
        return [await (await self._replica.document(each)).commit() for each in edited]

    async def edit(self, times: int) -> None:
        """Write so many tags into documents that the dice choose."""
        for _ in range(times):
            document = self._dice.choice(DOCUMENTS)
            tag = f"<{self._name}{next(self._count)}>"
            opened = await self._replica.document(document)
            text = opened.text("text")
            text.insert(self._dice.randint(0, len(text)), tag)
            opened.set("tags").add(tag)
            self.wrote[document].append(tag)


def shown(server: RunningServer) -> dict[str, Any]:
    """What a replica shows of every document."""
    found = {}
    for document in DOCUMENTS:
        status, body = server.get(f"/-/api/json{path_of(document)}")
        found[document] = json.loads(body) if status == 200 else None
    return found


async def assert_all_show_the_same(servers: Sequence[RunningServer], people: list[Person]) -> None:
    """All replicas show the same, and every edit is in it."""
    expected = {
        document: sorted(tag for person in people for tag in person.wrote[document])
        for document in DOCUMENTS
    }

    def tags(server: RunningServer) -> dict[str, list[str]]:
        return {
            document: sorted(content["tags#set"]) if content else []
            for document, content in shown(server).items()
        }

    assert any(expected.values()), "nobody has edited anything"
    for server in servers:
        await eventually(
            partial(tags, server),
            expected,
            seconds=AGREE_SECONDS_MAX,
            what=server.store.parent.name,
        )
    first, *others = map(shown, servers)
    for other in others:
        assert other == first


@pytest.fixture
def seed() -> int:
    seed = Random().getrandbits(32)
    sys.stdout.write(f"seed {seed}\n")
    return seed


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def lines() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def started(stack: ExitStack, folder: Path, settings: dict[str, str]) -> RunningServer:
    folder.mkdir()
    return stack.enter_context(RunningServer(folder, QUICK | settings))


async def person_at(
    lines: AsyncExitStack,
    server: RunningServer,
    folder: Path,
    name: str,
    dice: Random,
    wire: Wire = Wire.Y_WEBSOCKET,
) -> tuple[Person, Link]:
    """Somebody with a replica of their own, connected to one of the replicas."""
    limits = Limits(reconnect_seconds_max=0.5)
    replica = await lines.enter_async_context(Replica.open(folder / f"{name}.db", limits=limits))
    return Person(replica, name, dice), replica.connect(server.url, wire=wire)


class Net:
    """Replicas with a line from each to each, and a person at every one."""

    def __init__(self) -> None:
        self.servers: dict[str, RunningServer] = {}
        self.people: dict[str, tuple[Person, Link]] = {}
        self._lines: dict[tuple[str, str], Line] = {}

    @classmethod
    async def of(
        cls,
        names: str,
        settings: dict[str, str],
        folder: Path,
        stack: ExitStack,
        lines: AsyncExitStack,
        dice: Random,
    ) -> Net:
        net = cls()
        for pair in itertools.permutations(names, 2):
            net._lines[pair] = await lines.enter_async_context(Line())
        for name in names:
            peers = ",".join(line.url for (who, _), line in net._lines.items() if who == name)
            own = settings | {"CRDT_STATE_PEERS": peers}
            net.servers[name] = started(stack, folder / name, own)
        for (_, other), line in net._lines.items():
            line.target = net.servers[other].port
        for name, server in net.servers.items():
            net.people[name] = await person_at(lines, server, folder, name, dice)
        return net

    @property
    def everybody(self) -> list[Person]:
        return [person for person, _ in self.people.values()]

    async def all_edit(self, times: int) -> None:
        """Everybody edits, and the replica at which they do holds it."""
        for person, link in self.people.values():
            await person.edit(times)
            await link.synced()

    def part(self, *groups: str) -> None:
        """Cut every line between different groups."""
        of = {name: group for group in groups for name in group}
        for (who, whom), line in self._lines.items():
            if of[who] != of[whom]:
                line.cut()

    def heal(self) -> None:
        """Mend every line."""
        for line in self._lines.values():
            line.mend()

    async def assert_all_show_the_same(self) -> None:
        await assert_all_show_the_same([*self.servers.values()], self.everybody)

    def assert_no_complaints(self) -> None:
        for server in self.servers.values():
            assert server.complaints() == []


def connected_by(server: RunningServer) -> tuple[str, list[bool]]:
    """By which topology a replica dials, and who has answered."""
    seen = json.loads(server.get("/-/api/peers")[1])
    return seen["topology"], [peer["connected"] for peer in seen["peers"]]


async def test_three_replicas_in_a_mesh_end_equal_after_a_partition(
    tmp_path: Path, stack: ExitStack, lines: AsyncExitStack, seed: int
) -> None:
    settings = {"CRDT_STATE_ROUND_SECONDS": "1"}
    net = await Net.of("abc", settings, tmp_path, stack, lines, Random(seed))
    await net.all_edit(5)
    await net.assert_all_show_the_same()
    net.part("a", "b", "c")
    await net.all_edit(10)
    assert shown(net.servers["a"]) != shown(net.servers["b"]), "they were not apart"
    net.heal()
    await net.assert_all_show_the_same()
    for server in net.servers.values():
        await eventually(partial(connected_by, server), ("mesh", [True, True]))
    net.assert_no_complaints()


@pytest.mark.parametrize("names", ["abcd", pytest.param("abcdefghij", marks=pytest.mark.full)])
async def test_replicas_that_gossip_end_equal_after_a_partition_and_a_kill(
    tmp_path: Path, stack: ExitStack, lines: AsyncExitStack, seed: int, names: str
) -> None:
    settings = {
        "CRDT_STATE_TOPOLOGY": "gossip",
        "CRDT_STATE_GOSSIP_FAN_OUT": "2",
        "CRDT_STATE_GOSSIP_ROUNDS_BETWEEN": "3",
        "CRDT_STATE_ROUND_SECONDS": "0.5",
    }
    net = await Net.of(names, settings, tmp_path, stack, lines, Random(seed))
    half = len(names) // 2
    await net.all_edit(3)
    net.part(names[:half], names[half:])
    await net.all_edit(5)
    net.servers[names[0]].kill()
    net.heal()
    net.servers[names[0]].start()
    await net.assert_all_show_the_same()
    net.assert_no_complaints()


@pytest.mark.full
async def test_a_chain_of_four_acknowledges_what_all_hold_and_goes_on_without_one_that_is_killed(
    tmp_path: Path, stack: ExitStack, lines: AsyncExitStack, seed: int
) -> None:
    names, dice = "abcd", Random(seed)
    doors = {name: await lines.enter_async_context(Line()) for name in names}

    def configured(name: str, order: str, epoch: int) -> dict[str, str]:
        return {
            "CRDT_STATE_TOPOLOGY": "chain",
            "CRDT_STATE_CHAIN": ",".join(doors[each].url for each in order),
            "CRDT_STATE_EPOCH": str(epoch),
            "CRDT_STATE_ADVERTISE": doors[name].url,
            "CRDT_STATE_ROUND_SECONDS": "1",
        }

    servers = {name: started(stack, tmp_path / name, configured(name, names, 1)) for name in names}
    for name, server in servers.items():
        doors[name].target = server.port
    person, link = await person_at(lines, servers["a"], tmp_path, "a", dice, Wire.REPLICA)

    await person.edit(5)
    for receipt in await person.receipts():
        await receipt.reached("replicated", others=4, seconds_max=AGREE_SECONDS_MAX)
    await assert_all_show_the_same([*servers.values()], [person])

    stranger, refused = await person_at(lines, servers["c"], tmp_path, "s", dice)
    await stranger.edit(1)
    await eventually(lambda: "4421" in str(refused.last_error), True, what=f"{refused.last_error}")
    await refused.close()

    await person.edit(3)
    servers["c"].kill()
    await person.edit(3)
    await link.synced()
    receipts = await person.receipts()
    await receipts[-1].reached("replicated", others=2, seconds_max=AGREE_SECONDS_MAX)
    assert not receipts[-1].has_reached("replicated", others=3)

    for name in "abd":
        servers[name].terminate()
        assert servers[name].exit_code() == 0
        servers[name].configure(configured(name, "abd", 2))
        servers[name].start()
    for receipt in receipts:
        await receipt.reached("replicated", others=3, seconds_max=AGREE_SECONDS_MAX)
    left = [servers[name] for name in "abd"]
    await assert_all_show_the_same(left, [person])

    servers["c"].start()
    await eventually(
        lambda: any("epoch 1 has ended" in str(event) for event in servers["d"].events()), True
    )
    for server in left:
        assert server.complaints() == []
