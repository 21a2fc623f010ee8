"""`crdt_state.transport.showing`: awareness from replica to replica, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from crdt_state.clocks import Instant
from crdt_state.identifiers import ClientId, DocumentId
from crdt_state.model.awareness import (
    Awareness,
    AwarenessEntry,
    decode_awareness,
    encode_awareness,
)
from crdt_state.protocol.ywebsocket import AwarenessUpdate, decode, encode
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.link import Wire
from crdt_state.transport.listener import Visit
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.neighbourhood import Neighbourhood
from transport.test_neighbours import LIMITS, A, B, C, Net, Site, chain, mesh, sites, write
from wired import HANGS_AFTER_SECONDS, IMPATIENT, GatedStore, opened_replica

D = "ws://d:1"


class Visitor:
    """Somebody with a y-websocket client at a site."""

    def __init__(self, net: Net, address: str, client: int) -> None:
        self.client = client
        self.clock = 0
        self.said: list[tuple[int, bool]] = []
        """Every client that was told of, and whether it was there; signs of life left out."""
        ours, self.end = memory_pair("server", f"visitor {client}")
        listener = net.sites[address].listener
        net.conversations.append(
            asyncio.create_task(listener.converse(ours, Visit("/notes", None)))
        )
        self.stock = Awareness(ClientId(client))
        """What a stock client makes of it: it ignores a clock that it has seen."""
        self._reading = asyncio.create_task(self._read(self.end))
        self.show()

    def show(self) -> None:
        self.clock += 1
        entry = AwarenessEntry(ClientId(self.client), self.clock, f'{{"n":{self.clock}}}')
        self.end.send(encode(AwarenessUpdate(encode_awareness([entry]))))

    @property
    def seen(self) -> set[int]:
        return {client for client, is_here in dict(self.said).items() if is_here}

    async def _read(self, end: MemoryConnection) -> None:
        try:
            while True:
                message = decode(await end.receive())
                if isinstance(message, AwarenessUpdate):
                    self.stock.apply(message.payload, now=Instant(0.0))
                    self.said += [
                        (each.client, not each.is_gone)
                        for each in decode_awareness(message.payload)
                    ]
        except ConnectionEnded:
            pass


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANGS_AFTER_SECONDS):
        while not condition():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)


async def quiet(*visitors: Visitor) -> None:
    """Return when nobody has been told anything for a long while of turns."""
    before: list[int] = []
    while before != (before := [len(visitor.said) for visitor in visitors]):
        for _ in range(500):
            await asyncio.sleep(0)


def star(site: Site) -> Neighbourhood:
    return Neighbourhood.star(B, [A, C], address=site.address)


def gossip(site: Site) -> Neighbourhood:
    return Neighbourhood.gossip([A, B, C], address=site.address, round_seconds=3_600.0)


def primaries(site: Site) -> Neighbourhood:
    return Neighbourhood.multi_primary([A, B], [C], address=site.address, round_seconds=0.01)


@pytest.mark.parametrize("topology", [mesh, star, gossip, primaries, chain])
async def test_people_at_different_members_of_a_topology_see_each_other(topology: Any) -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(topology(site))
        people = [Visitor(net, address, number) for number, address in enumerate((A, B, C), 1)]
        for person in people:
            others = {1, 2, 3} - {person.client}
            await eventually(lambda person=person, others=others: person.seen == others)  # type: ignore[misc]
        for person in people:
            person.show()
        await quiet(*people)
        assert not [said for person in people for said in person.said if not said[1]]
        await people[0].end.close()
        await eventually(lambda: [person.seen for person in people[1:]] == [{3}, {2}])


async def test_people_at_the_ends_of_a_chain_of_four_see_each_other() -> None:
    async with sites(A, B, C, D) as net:
        for site in net.sites.values():
            site.join(chain(site, (A, B, C, D)))
        first, last = Visitor(net, A, 1), Visitor(net, D, 4)
        await eventually(lambda: (first.seen, last.seen) == ({4}, {1}))
        await first.end.close()
        await eventually(lambda: last.seen == set())
        assert last.said == [(1, True), (1, False)]


async def test_a_cut_line_takes_people_along_and_brings_them_back_when_it_is_mended() -> None:
    async with sites(A, B) as net:
        for site in net.sites.values():
            site.join(Neighbourhood.mesh([A, B], address=site.address, round_seconds=3_600.0))
        one, other = Visitor(net, A, 1), Visitor(net, B, 2)
        await eventually(lambda: (one.seen, other.seen) == ({2}, {1}))
        late = Visitor(net, B, 3)
        await eventually(lambda: late.seen == {1, 2})
        await net.part(A, B)
        await eventually(lambda: (one.seen, other.seen, late.seen) == (set(), {3}, {2}))
        net.cut.clear()
        await eventually(lambda: (one.seen, other.seen, late.seen) == ({2, 3}, {1, 3}, {1, 2}))


async def test_in_a_mesh_nobody_flickers_and_each_move_is_told_once() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(mesh(site, seconds=0.01))
        people = [Visitor(net, address, number) for number, address in enumerate((A, B, C), 1)]
        await eventually(lambda: all(len(person.seen) == 2 for person in people))
        for _ in range(50):
            for person in people:
                person.show()
            await quiet(*people)
        for person in people:
            assert all(is_here for _, is_here in person.said)
            assert len(person.said) <= 2 * 51


async def test_a_document_of_an_application_and_a_visitor_of_a_server_behind_another() -> None:
    async with sites(A, B) as net, opened_replica(limits=LIMITS, seed=9) as phone:
        link = net.sites[A].replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        note = await phone.document("notes")
        phone.connect(A, dial=net.dialling("phone"), wire=Wire.REPLICA)
        note.presence.show({"name": "Ada"})
        visitor = Visitor(net, B, 2)
        await eventually(lambda: visitor.seen == {note.client_id})
        await eventually(lambda: note.presence.states.get(2) == {"n": 1})
        note.close()
        await eventually(lambda: visitor.seen == set())
        await eventually(lambda: not link.carries_awareness)
        await eventually(lambda: "notes" not in link._conversations)


async def test_an_application_that_was_cut_off_is_seen_again_as_soon_as_it_is_back() -> None:
    async with sites(A, B) as net, opened_replica(limits=LIMITS, seed=9) as phone:
        net.sites[A].replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        note = await phone.document("notes")
        phone.connect(A, dial=net.dialling("phone"), wire=Wire.REPLICA)
        note.presence.show({"name": "Ada"})
        near, far = Visitor(net, A, 1), Visitor(net, B, 2)
        people = {1, 2, note.client_id}
        await eventually(lambda: near.seen | far.seen == people)
        await net.part("phone", A)
        await eventually(lambda: (near.seen, far.seen) == ({2}, {1}))
        net.cut.clear()
        for visitor in (near, far):
            await eventually(lambda visitor=visitor: note.client_id in visitor.stock.states)  # type: ignore[misc]


async def test_people_who_come_need_no_place_among_what_is_owed() -> None:
    limits = replace(LIMITS, link_conversations_max=1)
    async with sites(A, B, limits=limits) as net:
        here, there = (net.sites[address].replica for address in (A, B))
        link = here.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        await link.synced()
        await link.close()
        await write(net.sites[A], "x", DocumentId("slow"))
        await here.let_go_of_closed()
        assert isinstance(there.store, GatedStore)
        there.store.gate.clear()
        link = here.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        await eventually(lambda: list(link._turns) == ["slow"])
        visitors = Visitor(net, A, 1), Visitor(net, B, 2)
        await eventually(lambda: visitors[1].seen == {1})
        assert list(link._turns) == ["slow", "notes"]
        there.store.gate.set()


async def test_of_two_channels_one_ends_when_the_other_has_shown_who_is_here() -> None:
    async with sites(A, B) as net:
        lesser, greater = sorted((A, B), key=lambda at: net.sites[at].replica.store.replica_id)
        stalled = net.stall(lesser)
        for site in net.sites.values():
            site.join(Neighbourhood.mesh([A, B], address=site.address, round_seconds=3_600.0))
        here, there = (net.sites[at].replica for at in (greater, lesser))
        links = here._links, there._links
        await eventually(lambda: all(len(each) == 1 and each[0].is_up for each in links))
        link = here._links[0]
        stalled.clear()
        one, other = Visitor(net, greater, 1), Visitor(net, lesser, 2)
        await eventually(lambda: all("notes" in each[0]._conversations for each in links))
        await eventually(lambda: (one.seen, other.seen) == ({2}, {1}))
        for _ in range(20):
            link.look_again()
            await quiet(one, other)
        stalled.set()
        await eventually(lambda: (link.look_again(), "notes" in link._conversations)[1] is False)
        await quiet(one, other)
        assert (one.said, other.said) == ([(2, True)], [(1, True)])


async def test_in_gossip_people_do_not_come_and_go_with_the_dice() -> None:
    async with sites(A, B, C) as net:
        for site in net.sites.values():
            site.join(
                Neighbourhood.gossip([A, B, C], address=site.address, fan_out=1, round_seconds=0.01)
            )
        people = [Visitor(net, address, number) for number, address in enumerate((A, B, C), 1)]
        await eventually(lambda: all(len(person.seen) == 2 for person in people))
        before = [len(person.said) for person in people]
        rounds = [site.replica.neighbours for site in net.sites.values()]
        await eventually(lambda: all(each is not None and each.rounds > 40 for each in rounds))
        await quiet(*people)
        for person, count in zip(people, before, strict=True):
            assert [said for said in person.said[count:] if not said[1]] == []


async def test_a_visitor_sees_the_application_that_it_visits() -> None:
    async with sites(A) as net:
        note = await net.sites[A].replica.document("notes")
        note.presence.show({"name": "Ada"})
        visitor = Visitor(net, A, 2)
        await eventually(lambda: visitor.seen == {note.client_id})
        await eventually(lambda: note.presence.states.get(2) == {"n": 1})


async def test_a_channel_for_people_leaves_its_place_to_what_is_owed_and_stays() -> None:
    limits = replace(LIMITS, link_conversations_max=1)
    async with sites(A, B, limits=limits) as net:
        site = net.sites[A]
        link = site.replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        await link.synced()
        await link.close()
        for number in range(10):
            await write(site, "x", DocumentId(f"other-{number}"))
        await site.replica.let_go_of_closed()
        here, there = Visitor(net, A, 1), Visitor(net, B, 2)
        await eventually(lambda: len(site.replica.gatherings) == 1)
        link = site.replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        await eventually(lambda: (here.seen, there.seen) == ({2}, {1}))
        await link.synced()
        assert [said for said in here.said + there.said if not said[1]] == []
        assert list(link._turns) == ["notes"]


async def test_documents_with_people_of_one_link_are_bounded() -> None:
    limits = replace(LIMITS, link_gatherings_max=0)
    async with sites(A, B, limits=limits) as net:
        link = net.sites[A].replica.connect(B, dial=net.dialling(A), wire=Wire.REPLICA)
        visitor = Visitor(net, A, 1)
        await eventually(lambda: link.is_up)
        await quiet(visitor)
        assert not link._conversations


def test_hops_are_enough_for_the_longest_chain() -> None:
    assert IMPATIENT.awareness_hops_max > 16
