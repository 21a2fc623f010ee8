"""Replicas that dial one another, over connections in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from crdt_state.errors import UsageError
from crdt_state.identifiers import DocumentId
from crdt_state.limits import Limits
from crdt_state.security.tokens import NoAuthentication
from crdt_state.transport.listener import Listener, Visit
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.neighbourhood import Neighbourhood
from crdt_state.transport.replica import Replica
from running import eventually
from wired import HANGS_AFTER_SECONDS, IMPATIENT, NOTES, opened_replica

LIMITS = replace(IMPATIENT, link_look_seconds=0.0)


class Site:
    """A replica that listens and dials."""

    def __init__(self, replica: Replica, net: Net, address: str) -> None:
        self.replica = replica
        self.address = address
        self.listener = Listener(replica, NoAuthentication())
        self.updates: list[tuple[int, bytes]] = []
        self._net = net

    def join(self, neighbourhood: Neighbourhood) -> None:
        self.replica.join(neighbourhood, dial=self._net.dialling(self.address))

    async def holds(self, document: DocumentId = NOTES) -> str:
        stored = await self.replica.store.read(document)
        if stored is None:
            return ""
        opened = await self.replica.document(document)
        return str(opened.text("text"))


class Net:
    """Who can be dialled, and which pairs cannot reach each other."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.cut: set[frozenset[str]] = set()
        self.conversations: list[asyncio.Task[None]] = []
        self.open: list[tuple[frozenset[str], MemoryConnection]] = []
        self.dialled: list[tuple[str, str]] = []

    def dialling(self, who: str) -> Callable[[str], object]:
        async def dial(url: str) -> MemoryConnection:
            whom = url.removesuffix("/-/sync")
            site = self.sites.get(whom)
            if site is None or frozenset((who, whom)) in self.cut:
                await asyncio.sleep(0)
                raise OSError("nobody answers")
            self.dialled.append((who, whom))
            ours, theirs = memory_pair(whom, who)
            self.open.append((frozenset((who, whom)), theirs))
            task = asyncio.create_task(site.listener.converse(ours, Visit("/-/sync", None)))
            self.conversations.append(task)
            return theirs

        return dial

    async def part(self, *pair: str) -> None:
        """Cut what connects two."""
        self.cut.add(frozenset(pair))
        for between, connection in self.open:
            if between == frozenset(pair):
                await connection.close(1006)


@asynccontextmanager
async def sites(*addresses: str, limits: Limits = LIMITS) -> AsyncIterator[Net]:
    net = Net()
    async with AsyncExitStack() as stack:
        for number, address in enumerate(addresses):
            replica = await stack.enter_async_context(
                opened_replica(limits=limits, seed=100 + number)
            )
            net.sites[address] = Site(replica, net, address)
        yield net
    for conversation in net.conversations:
        conversation.cancel()
    await asyncio.gather(*net.conversations, return_exceptions=True)


async def write(site: Site, text: str, document: DocumentId = NOTES) -> None:
    opened = await site.replica.document(document)
    opened.text("text").insert(0, text)
    await opened.saved()


async def shows(
    net: Net, expected: Callable[[str], bool], *, at: Sequence[str] | None = None
) -> None:
    """Wait until those at these addresses, or all, show the expected."""
    async with asyncio.timeout(HANGS_AFTER_SECONDS):
        while True:
            found = [await net.sites[address].holds() for address in at or net.sites]
            if all(map(expected, found)):
                return
            await asyncio.sleep(0)


A, B, C = "ws://a:1", "ws://b:1", "ws://c:1"


def mesh(site: Site, *, seconds: float = 3_600.0) -> Neighbourhood:
    return Neighbourhood.mesh([A, B, C], address=site.address, round_seconds=seconds)


async def test_in_a_mesh_everybody_is_brought_what_one_edits() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(mesh(site))
        await write(net.sites[B], "hello")
        await shows(net, lambda text: text == "hello")


async def test_in_a_mesh_what_a_member_brought_is_owed_to_no_other() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(mesh(site))
        await write(net.sites[A], "hello")
        await shows(net, lambda text: text == "hello")
        await net.part(A, B)
        await net.part(B, C)
        await write(net.sites[A], "more ")
        await shows(net, lambda text: text == "more hello", at=[C])
        await net.sites[C].replica.flush()
        assert [e.document for e in await net.sites[A].replica.store.outbox(B)] == [NOTES]
        assert await net.sites[C].replica.store.outbox(B) == ()


async def test_what_a_broken_line_withholds_comes_by_comparing_with_others() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(mesh(site, seconds=0.01))
        await write(net.sites[A], "hello")
        await shows(net, lambda text: text == "hello")
        await net.part(A, C)
        await write(net.sites[A], "more ")
        await shows(net, lambda text: text == "more hello")


async def test_a_replica_that_finds_itself_among_its_peers_lets_go_of_that_address() -> None:
    async with sites(A) as net:
        site = net.sites[A]
        site.replica.join(
            Neighbourhood.mesh([A], round_seconds=0.01), dial=net.dialling("somewhere")
        )
        neighbours = site.replica.neighbours
        assert neighbours is not None
        await eventually(lambda: (bool(net.dialled), neighbours.seen), (True, ()))


async def test_a_replica_takes_part_in_one_topology_at_a_time() -> None:
    async with sites(A) as net:
        site = net.sites[A]
        site.join(mesh(site))
        with pytest.raises(UsageError, match="already"):
            site.join(mesh(site))
        assert site.replica.neighbours is not None
        await site.replica.neighbours.close()
        site.join(mesh(site))
