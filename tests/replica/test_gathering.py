"""`crdt_state.replica.gathering`: who is told of whom, within one replica and between several."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from crdt_state.errors import RemoteProtocolError
from crdt_state.identifiers import ClientId, DocumentId, ReplicaId
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.awareness import AwarenessEntry, encode_awareness
from crdt_state.replica.core import ReplicaCore
from crdt_state.replica.forwarding import Forwarding, member_name
from crdt_state.replica.gathering import Gathering, Gatherings, Shown
from crdt_state.storage.memory import MemoryStore
from crdt_state.topology.chain import Chain
from crdt_state.topology.mesh import Mesh
from crdt_state.topology.star import Star

NOTES = DocumentId("notes")
SOMEBODY = ReplicaId(b"?" * 16)


def entry(client: int, clock: int, text: str = "{}") -> bytes:
    return encode_awareness([AwarenessEntry(ClientId(client), clock, text)])


class Site:
    """A replica with people at one document."""

    def __init__(self, name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.name = name
        store = MemoryStore(random=Random(name))
        self.core = ReplicaCore(limits)
        self.gatherings = Gatherings(store, self.core, limits)
        self.replica = self.gatherings.me
        self.seen: list[tuple[int, int, str]] = []
        self.people = 0
        self.at.listen(1, self.look)

    @property
    def at(self) -> Gathering:
        return self.gatherings.of(NOTES)

    def look(self, _: int, entries: list[AwarenessEntry]) -> None:
        self.seen += [(each.client, each.clock, each.text) for each in entries]

    def person(self) -> int:
        """The source of somebody who has come."""
        self.people += 1
        source = 100 + self.people
        self.at.arrive(source)
        return source

    @property
    def here(self) -> set[int]:
        return {each.client for each in self.at.entries()}


class Net:
    """Sites, and lines on which what is said waits until it is carried."""

    def __init__(self, *sites: Site, dice: Random | None = None) -> None:
        self.sites = sites
        self.dice = dice or Random(1)
        self.lines: dict[tuple[Site, int], tuple[Site, int]] = {}
        self.waiting: dict[tuple[Site, int], list[Shown]] = {}
        self.carried: Counter[tuple[str, str]] = Counter()
        self._source = 1_000

    def connect(self, one: Site, other: Site) -> None:
        """Let two have a channel that `one` has opened."""
        ends = []
        for site in (one, other):
            self._source += 1
            ends.append((site, self._source))
        self.lines[ends[0]], self.lines[ends[1]] = ends[1], ends[0]
        for (me, source), (peer, _), is_dialled in ((*ends, True), (*ends[::-1], False)):
            end = (me, source)
            show = lambda shown, end=end: self.waiting.setdefault(end, []).extend(shown)  # noqa: E731
            me.at.meet(source, peer.replica, show, is_guest=not is_dialled)

    def cut(self, one: Site, other: Site) -> None:
        """End all channels between two."""
        for end, far in tuple(self.lines.items()):
            if {end[0], far[0]} == {one, other}:
                self.waiting.pop(end, None)
                del self.lines[end]
                end[0].at.leave(end[1])

    def kill(self, site: Site) -> None:
        for other in self.sites:
            if other is not site:
                self.cut(site, other)

    def carry(self) -> None:
        """Carry all that is said, in the order of the dice, until nobody says anything."""
        for _ in range(10_000):
            ready = [end for end, shown in self.waiting.items() if shown]
            if not ready:
                return
            end = self.dice.choice(ready)
            shown = self.waiting[end].pop(0)
            site, source = self.lines[end]
            self.carried[end[0].name, site.name] += 1
            site.at.receive_from(
                source,
                encode_awareness([shown.entry]),
                origin=shown.origin,
                hops=shown.hops,
                may_relay=True,
            )
        raise AssertionError("what is said goes in circles")


def trio(topology: str = "") -> tuple[Net, Site, Site, Site]:
    sites = a, b, c = Site("a"), Site("b"), Site("c")
    names = {site.replica: member_name(site.name) for site in sites}
    rules = {
        "mesh": Mesh(),
        "star": Star(member_name("b")),
        "chain": Chain((member_name("a"), member_name("b"), member_name("c")), 1),
    }
    for site in sites if topology else ():
        site.core.forwarding = Forwarding(member_name(site.name), rules[topology], Random(1))
        site.core.forwarding.names = {
            replica: name for replica, name in names.items() if replica != site.replica
        }
    return Net(*sites), a, b, c


# --- a line ----------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["", "chain", "star"])
def test_people_at_the_ends_of_a_line_see_each_other(topology: str) -> None:
    net, a, b, c = trio(topology)
    net.connect(a, b)
    net.connect(b, c)
    a.at.receive(a.person(), entry(1, 1))
    c.at.receive(c.person(), entry(3, 1))
    net.carry()
    assert [site.here for site in (a, b, c)] == [{1, 3}] * 3
    assert net.carried == {("a", "b"): 1, ("b", "c"): 1, ("c", "b"): 1, ("b", "a"): 1}


def test_who_comes_late_is_shown_at_once_who_is_here() -> None:
    net, a, b, c = trio()
    a.at.receive(a.person(), entry(1, 5))
    net.connect(b, c)
    net.connect(b, a)
    net.carry()
    assert c.seen == [(1, 5, "{}")]
    shown: list[Shown] = []
    c.at.meet(7, SOMEBODY, shown.extend, is_guest=True)
    (told,) = shown
    assert (told.entry.client, told.origin) == (1, a.replica)
    assert told.hops == DEFAULT_LIMITS.awareness_hops_max - 2


def test_it_is_passed_on_so_often_and_no_more() -> None:
    limits = replace(DEFAULT_LIMITS, awareness_hops_max=1)
    sites = a, b, c, d = tuple(Site(name, limits) for name in "abcd")
    net = Net(*sites)
    for one, other in ((a, b), (b, c), (c, d)):
        net.connect(one, other)
    a.at.receive(a.person(), entry(1, 1))
    net.carry()
    assert [site.here for site in sites] == [{1}, {1}, {1}, set()]


def test_a_peer_cannot_lengthen_the_way() -> None:
    site = Site("a")
    shown: list[Shown] = []
    site.at.meet(7, ReplicaId(b"p" * 16), shown.extend, is_guest=True)
    site.at.meet(8, ReplicaId(b"q" * 16), shown.extend, is_guest=True)
    site.at.receive_from(7, entry(1, 1), origin=SOMEBODY, hops=10**9, may_relay=True)
    assert [each.hops for each in shown] == [DEFAULT_LIMITS.awareness_hops_max - 1]


def test_nothing_goes_back_to_whom_it_came_from_or_to_where_it_began() -> None:
    site = Site("a")
    shown: dict[bytes, list[Shown]] = {name: [] for name in (b"p", b"q", b"o", b"r")}
    for number, (name, told) in enumerate(shown.items()):
        site.at.meet(number + 7, ReplicaId(name * 16), told.extend, is_guest=True)
    site.at.meet(20, ReplicaId(b"p" * 16), shown[b"p"].extend, is_guest=True)
    site.at.receive_from(7, entry(1, 1), origin=ReplicaId(b"o" * 16), hops=3, may_relay=True)
    assert [len(told) for told in shown.values()] == [0, 1, 0, 1]


def test_what_began_here_is_not_believed_from_others() -> None:
    net, a, b, _ = trio()
    net.connect(a, b)
    a.at.meet(7, SOMEBODY, lambda _: None, is_guest=True)
    a.at.receive_from(7, entry(1, 9), origin=a.replica, hops=3, may_relay=True)
    net.carry()
    assert (a.here, b.here) == (set(), set())


def test_who_may_not_relay_tells_of_itself_alone() -> None:
    site = Site("a")
    shown: list[Shown] = []
    phone = ReplicaId(b"p" * 16)
    site.at.meet(7, phone, lambda _: None, is_guest=True)
    site.at.meet(8, SOMEBODY, shown.extend, is_guest=True)
    site.at.receive_from(7, entry(1, 1), origin=SOMEBODY, hops=3, may_relay=False)
    assert [each.origin for each in shown] == [phone]


def test_what_is_no_awareness_is_the_peers_fault() -> None:
    site = Site("a")
    with pytest.raises(RemoteProtocolError):
        site.at.receive(site.person(), b"\xff")


# --- loss ------------------------------------------------------------------------------------


def test_who_came_through_a_lost_replica_is_gone_everywhere_and_only_they() -> None:
    net, a, b, c = trio()
    net.connect(a, b)
    net.connect(b, c)
    for number, site in enumerate((a, b, c), 1):
        site.at.receive(site.person(), entry(number, 4))
    net.carry()
    net.kill(a)
    net.carry()
    assert [site.here for site in (b, c)] == [{2, 3}] * 2
    assert c.seen[-1] == (1, 4, "null"), "with the clock that it had, so that it may come back"


def test_a_replica_that_returns_shows_its_people_again() -> None:
    net, a, b, _ = trio()
    net.connect(a, b)
    a.at.receive(a.person(), entry(1, 4))
    net.carry()
    net.cut(a, b)
    assert b.here == set()
    net.connect(a, b)
    net.carry()
    assert b.here == {1}


def test_the_last_of_two_channels_with_one_replica_takes_its_people_along() -> None:
    net, a, b, _ = trio()
    net.connect(a, b)
    net.connect(b, a)
    a.at.receive(a.person(), entry(1, 1))
    net.carry()
    first, second = (source for site, source in net.lines if site is b)
    b.at.leave(first)
    assert b.here == {1}
    b.at.leave(second)
    assert b.here == set()
    assert b.seen == [(1, 1, "{}"), (1, 1, "null")], "not a flicker in between"


def test_of_two_equal_ways_one_may_end_and_nobody_flickers() -> None:
    sites = a, b, c, d = tuple(Site(name) for name in "abcd")
    net = Net(*sites)
    for one, other in ((a, b), (a, c), (b, d), (c, d)):
        net.connect(one, other)
    a.at.receive(a.person(), entry(1, 1))
    net.carry()
    net.kill(b)
    net.carry()
    assert d.seen == [(1, 1, "{}")]
    net.kill(c)
    assert d.here == set()


@pytest.mark.parametrize("seed", range(30))
def test_a_ring_of_replicas_keeps_no_ghost(seed: int) -> None:
    dice = Random(seed)
    sites = tuple(Site(str(number)) for number in range(5))
    net = Net(*sites, dice=dice)
    for one, other in zip(sites, (*sites[1:], sites[0]), strict=True):
        net.connect(one, other)
    net.connect(sites[1], sites[3])
    person = sites[0].person()
    for clock in range(1, 4):
        sites[0].at.receive(person, entry(1, clock))
        net.carry()
    assert [site.here for site in sites] == [{1}] * 5
    net.kill(sites[0])
    net.carry()
    assert [site.here for site in sites[1:]] == [set()] * 4


# --- a mesh ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "messages"), [("mesh", 2), ("", 4)])
def test_in_a_mesh_an_entry_crosses_each_line_as_often_as_it_has_to(
    topology: str, messages: int
) -> None:
    net, a, b, c = trio(topology)
    for one, other in ((a, b), (b, c), (c, a)):
        net.connect(one, other)
    person = a.person()
    for clock in range(1, 101):
        a.at.receive(person, entry(1, clock))
        net.carry()
    assert [site.here for site in (a, b, c)] == [{1}] * 3
    assert net.carried["a", "b"] == net.carried["a", "c"] == 100
    assert sum(net.carried.values()) <= 100 * messages
    assert not [said for said in b.seen + c.seen if said[2] == "null"]


@pytest.mark.parametrize("topology", ["mesh", ""])
def test_in_a_mesh_a_killed_replica_takes_its_people_along_and_brings_them_back(
    topology: str,
) -> None:
    net, a, b, c = trio(topology)
    for one, other in ((a, b), (b, c), (c, a)):
        net.connect(one, other)
    for number, site in enumerate((a, b, c), 1):
        site.at.receive(site.person(), entry(number, 1))
    net.carry()
    for site in (b, c):
        site.seen.clear()
    net.kill(a)
    net.carry()
    assert [site.here for site in (b, c)] == [{2, 3}] * 2
    net.connect(a, b)
    net.connect(c, a)
    net.carry()
    assert [site.here for site in (a, b, c)] == [{1, 2, 3}] * 3
    assert [site.seen for site in (b, c)] == [[(1, 1, "null"), (1, 1, "{}")]] * 2


def test_whoever_is_no_member_of_a_mesh_is_shown_everybody() -> None:
    net, a, b, c = trio("mesh")
    phone = Site("phone")
    net = Net(a, b, c, phone)
    for one, other in ((a, b), (b, c), (c, a), (phone, b)):
        net.connect(one, other)
    a.at.receive(a.person(), entry(1, 1))
    phone.at.receive(phone.person(), entry(9, 1))
    net.carry()
    assert [site.here for site in net.sites] == [{1, 9}] * 4


# --- within one replica ----------------------------------------------------------------------


def test_a_user_who_is_taken_for_gone_hears_of_it() -> None:
    site = Site("a")
    heard: list[AwarenessEntry] = []
    site.at.reside(0, lambda _, entries: heard.extend(entries), lambda: None)
    site.at.receive(0, entry(1, 3))
    site.at.receive(site.person(), entry(1, 3, "null"))
    assert [each.is_gone for each in heard] == [True]
    assert site.here == {1}


def test_a_document_that_everybody_has_left_is_forgotten() -> None:
    net, a, b, _ = trio()
    net.connect(a, b)
    a.at.receive(a.person(), entry(1, 1))
    net.carry()
    net.cut(a, b)
    for source in (1, 101, 101):
        a.gatherings.leave(NOTES, source)
    assert len(a.gatherings) == 0


def test_a_link_is_wanted_where_somebody_is_to_be_shown_or_was_shown() -> None:
    net, a, b, _ = trio()
    net.connect(a, b)
    (source,) = (source for site, source in net.lines if site is a)
    assert not a.at.concerns(source, b.replica, is_to_member=True)
    b.at.receive(b.person(), entry(2, 1))
    net.carry()
    assert a.at.concerns(source, b.replica, is_to_member=True)
    assert not a.at.concerns(source, b.replica, is_to_member=False), "nobody has come here"
    person = a.person()
    assert a.at.concerns(source, b.replica, is_to_member=False)
    assert not a.at.concerns(99, b.replica, is_to_member=True), "all that is here is from there"
    a.at.receive(person, entry(1, 1))
    assert a.at.concerns(99, b.replica, is_to_member=True)
