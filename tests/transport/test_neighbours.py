"""Replicas that dial one another, over connections in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import NotHead, UsageError
from crdt_state.identifiers import DocumentId, ReplicaId
from crdt_state.limits import Limits
from crdt_state.protocol.peer.messages import Member, Members, Told
from crdt_state.replica.forwarding import member_name
from crdt_state.security.grant import EVERYTHING, Access, Grant, Right
from crdt_state.topology.contract import HOPS_MAX
from crdt_state.topology.gossip import Gossip
from crdt_state.transport.link import Wire
from crdt_state.transport.listener import Listener, Visit
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.neighbourhood import Neighbourhood
from crdt_state.transport.replica import Replica
from running import eventually
from wired import HANGS_AFTER_SECONDS, IMPATIENT, NOTES, opened_replica, text_of

LIMITS = replace(IMPATIENT, link_look_seconds=0.0)


@dataclass(frozen=True)
class Granting:
    """Gives everybody the same."""

    everybody: Grant

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        return self.everybody


class Site:
    """A replica that listens and dials."""

    def __init__(self, replica: Replica, net: Net, address: str, grant: Grant) -> None:
        self.replica = replica
        self.address = address
        self.listener = Listener(replica, Granting(grant))
        self.updates: list[tuple[int, bytes]] = []
        self._net = net

    def join(self, neighbourhood: Neighbourhood) -> None:
        self.replica.join(neighbourhood, dial=self._net.dialling(self.address))

    async def holds(self, document: DocumentId = NOTES) -> str:
        stored = await self.replica.store.read(document)
        return "" if stored is None else text_of(stored.updates())


class Net:
    """Who can be dialled, and which pairs cannot reach each other."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.cut: set[frozenset[str]] = set()
        self.conversations: list[asyncio.Task[None]] = []
        self.open: list[tuple[frozenset[str], MemoryConnection]] = []
        self.dialled: list[tuple[str, str]] = []
        self._stalled: dict[str, asyncio.Event] = {}

    def stall(self, who: str) -> asyncio.Event:
        """While this is not set, whoever dials from there hears nothing more."""
        gate = self._stalled[who] = asyncio.Event()
        gate.set()
        return gate

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
            if who in self._stalled:
                receive, gate = theirs.receive, self._stalled[who]

                async def receive_later() -> bytes:
                    message = await receive()
                    await gate.wait()
                    return message

                theirs.receive = receive_later  # type: ignore[method-assign]
            return theirs

        return dial

    async def part(self, *pair: str) -> None:
        """Cut what connects two."""
        self.cut.add(frozenset(pair))
        for between, connection in self.open:
            if between == frozenset(pair):
                await connection.close(1006)


@asynccontextmanager
async def sites(
    *addresses: str, limits: Limits = LIMITS, grant: Grant = EVERYTHING
) -> AsyncIterator[Net]:
    net = Net()
    async with AsyncExitStack() as stack:
        for number, address in enumerate(addresses):
            replica = await stack.enter_async_context(
                opened_replica(limits=limits, seed=100 + number)
            )
            net.sites[address] = Site(replica, net, address, grant)
        yield net
    for conversation in net.conversations:
        conversation.cancel()
    await asyncio.gather(*net.conversations, return_exceptions=True)


async def write(site: Site, text: str, document: DocumentId = NOTES) -> None:
    opened = await site.replica.document(document)
    opened.text("text").insert(0, text)
    await opened.saved()
    opened.close()


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


def chain(site: Site, order: Sequence[str] = (A, B, C), epoch: int = 1) -> Neighbourhood:
    return Neighbourhood.chain(order, epoch, address=site.address)


async def test_a_chain_has_acknowledged_what_all_of_its_members_hold() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(chain(site))
        head = net.sites[A]
        await write(head, "hello")
        receipt = await (await head.replica.document(NOTES)).commit()
        await receipt.reached("acknowledged", seconds_max=HANGS_AFTER_SECONDS)
        assert receipt.holders == {net.sites[name].replica.store.replica_id for name in (B, C)}
        await shows(net, lambda text: text == "hello", at=[C])


async def test_a_broken_link_stops_acknowledgements_until_a_later_epoch() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(chain(site))
        head = net.sites[A]
        await write(head, "hello")
        await shows(net, lambda text: text == "hello")
        await net.part(B, C)
        await write(head, "more ")
        receipt = await (await head.replica.document(NOTES)).commit()
        await receipt.reached("durable", seconds_max=HANGS_AFTER_SECONDS)
        assert not receipt.has_reached("acknowledged")
        for address in (A, B):
            site = net.sites[address]
            assert site.replica.neighbours is not None
            await site.replica.neighbours.close()
            site.join(chain(site, (A, B), 2))
        await receipt.reached("acknowledged", seconds_max=HANGS_AFTER_SECONDS)


async def test_an_edit_elsewhere_than_at_the_head_is_handed_back_with_where_to_write() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(chain(site))
        document = await net.sites[B].replica.document(NOTES)
        with pytest.raises(NotHead, match="write to ws://a:1"):
            document.text("text").insert(0, "hello")
        assert await net.sites[B].replica.store.read(NOTES) is None


async def test_a_peer_that_is_no_member_brings_nothing_in_but_at_the_head() -> None:
    async with sites(A, B, C) as net, opened_replica(limits=LIMITS, seed=9) as phone:
        for site in net.sites.values():
            site.join(chain(site))
        document = await phone.document(NOTES)
        document.text("text").insert(0, "hello")
        link = phone.connect(B, dial=net.dialling("phone"), wire=Wire.REPLICA)
        await eventually(lambda: "4421" in str(link.last_error), True)
        await link.close()
        assert await net.sites[B].replica.store.read(NOTES) is None
        link = phone.connect(A, dial=net.dialling("phone"), wire=Wire.REPLICA)
        await link.synced()
        await shows(net, lambda text: text == "hello", at=[C])


async def test_what_is_said_in_an_older_epoch_is_refused() -> None:
    async with sites(A, B) as net:
        old, new = net.sites[A], net.sites[B]
        new.join(chain(new, (B, A), 2))
        old.join(chain(old, (A, B), 1))
        await write(old, "from an epoch that has ended")
        neighbours = old.replica.neighbours
        assert neighbours is not None
        await eventually(lambda: "4420" in str([each.last_error for each in neighbours.seen]), True)
        assert await new.replica.store.read(NOTES) is None


async def test_several_primaries_take_writes_and_others_are_brought_them() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            primaries = Neighbourhood.multi_primary(
                [A, B], [C], address=site.address, round_seconds=0.01
            )
            site.join(primaries)
        await write(net.sites[A], "a")
        await shows(net, lambda text: text == "a")
        await write(net.sites[C], "c")
        await shows(net, lambda text: text == "ca")


@pytest.mark.parametrize(("hops_max", "is_owed"), [(1, False), (2, True)])
async def test_in_gossip_an_edit_is_sent_on_so_often_and_no_more(
    hops_max: int, is_owed: bool
) -> None:
    async with sites(A, B, C) as net:
        net.cut.add(frozenset((A, C)))
        for site in net.sites.values():
            gossip = Neighbourhood.gossip([A, B, C], address=site.address, round_seconds=3_600.0)
            site.join(replace(gossip, topology=Gossip(hops_max=hops_max)))
        neighbours = net.sites[B].replica.neighbours
        assert neighbours is not None
        await eventually(lambda: [each.is_connected for each in neighbours.seen], [True, True])
        await net.part(B, C)  # what is owed stays owed
        await write(net.sites[A], "hello")
        await shows(net, lambda text: text == "hello", at=[B])
        owed = [e.document for e in await net.sites[B].replica.store.outbox(C)]
        assert owed == ([NOTES] if is_owed else [])


async def test_along_a_line_of_links_hops_are_counted_down() -> None:
    async with sites(A, B) as net, opened_replica(limits=LIMITS, seed=9) as phone:
        link = net.sites[A].replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        document = await phone.document(NOTES)
        document.text("text").insert(0, "hello")
        phone.connect(A, dial=net.dialling("phone"), wire=Wire.REPLICA)
        seen = await net.sites[B].replica.document(NOTES)
        await eventually(lambda: str(seen.text("text")), "hello")
        cores = [replica.core.get(NOTES) for replica in (phone, *map(at(net), (A, B)))]
        found = [core.hops_left for core in cores if core is not None]
        assert found == [HOPS_MAX, HOPS_MAX - 1, HOPS_MAX - 2]
        await link.close()


def at(net: Net) -> Callable[[str], Replica]:
    return lambda address: net.sites[address].replica


async def test_in_a_star_the_hub_passes_on_what_one_brings() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(Neighbourhood.star(A, [B, C], address=site.address))
        await write(net.sites[B], "hello")
        await shows(net, lambda text: text == "hello")


def told_of_b_alone(site: Site, *, learns: bool) -> Neighbourhood:
    found = Neighbourhood.mesh([B], address=site.address, round_seconds=0.01)
    return found.learning() if learns else found


async def test_members_that_know_one_of_them_come_to_know_all() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(told_of_b_alone(site, learns=True))
        await eventually(lambda: {(A, C), (C, A)} <= set(net.dialled), True)
        await net.part(A, B)
        await net.part(B, C)
        await write(net.sites[A], "hello")
        await shows(net, lambda text: text == "hello", at=[C])


async def test_without_peer_exchange_nobody_is_dialled_who_was_not_configured() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(told_of_b_alone(site, learns=False))
        await write(net.sites[A], "hello")
        await eventually(lambda: {(A, B), (C, B)} <= set(net.dialled), True)
        for site in net.sites.values():
            assert site.replica.neighbours is not None
            await eventually(partial(rounds_of, site), True)
        assert not {(A, C), (C, A), (B, A), (B, C)} & set(net.dialled)


def rounds_of(site: Site) -> bool:
    assert site.replica.neighbours is not None
    return site.replica.neighbours.rounds > 5


async def test_who_may_not_relay_is_not_believed_about_members() -> None:
    grant = Grant("ana", (Right("**", Access.WRITE),), may_relay=False)
    async with sites(B, grant=grant) as net, opened_replica(limits=LIMITS, seed=9) as other:
        site = net.sites[B]
        site.join(Neighbourhood.mesh([], address=B, round_seconds=0.01).learning())
        liar = Neighbourhood.mesh([B], address="ws://liar:1", round_seconds=0.01)
        other.join(liar, dial=net.dialling("liar"))
        neighbours = other.neighbours
        assert neighbours is not None
        await eventually(lambda: [each.is_connected for each in neighbours.seen], [True])
        await eventually(partial(rounds_of, site), True)
        assert site.replica.neighbours is not None
        assert site.replica.neighbours.seen == ()


@pytest.mark.parametrize("address", ["http://a:1", "ws://a:1/x", "ws://ana:b@a:1", "", "x" * 3_000])
async def test_tales_of_what_is_no_address_are_passed_over(address: str) -> None:
    async with sites(A) as net:
        site = net.sites[A]
        site.join(Neighbourhood.mesh([], address=A).learning())
        neighbours = site.replica.neighbours
        assert neighbours is not None
        neighbours.heard_of(Members((Told(ReplicaId(b"?" * 16), address, 1),)))
        assert [told.address for told in neighbours.tells().members] == [A]


async def test_made_up_members_leave_places_for_those_who_are_met() -> None:
    async with sites(A) as net:
        site = net.sites[A]
        site.join(Neighbourhood.mesh([B], address=A).learning())
        neighbours = site.replica.neighbours
        assert neighbours is not None
        for number in range(100):
            tales = tuple(
                Told(ReplicaId(bytes([1, number, each]) + bytes(13)), f"ws://{number}-{each}:1", 1)
                for each in range(64)
            )
            neighbours.heard_of(Members(tales))
        met = ReplicaId(b"B" * 16)
        neighbours.heard(met, Member(0, B), may_relay=True)
        core = site.replica.core
        assert core.forwarding is not None
        assert core.forwarding.names[met] == member_name(B)
        assert len(core.forwarding.names) < site.replica.limits.members_max


async def test_a_member_that_has_come_for_a_document_is_told_there_and_owed_no_more() -> None:
    async with sites(A, B) as net, opened_replica(limits=LIMITS, seed=9) as phone:
        here, there = net.sites[A].replica, net.sites[B].replica
        for site in net.sites.values():
            site.join(Neighbourhood.mesh([A, B], address=site.address))
        opened = await there.document(NOTES)
        await there._links[0].synced()
        document = await phone.document(NOTES)
        document.text("text").insert(0, "hello")
        await phone.connect(A, dial=net.dialling("phone"), wire=Wire.REPLICA).synced()
        await eventually(lambda: str(opened.text("text")), "hello")
        await eventually(partial(here.store.outbox, B), ())
        (link,) = here._links
        assert NOTES not in link._conversations
