"""Runs a replica's part in a topology: dials whom it should, and lets go of whom it should not.

    every round   whom to talk to? ── connect, disconnect;   with whom to compare? ── compare
    in between    who has answered a dial is known by name; what is owed follows the rule

Both sides of a pair dial, because only who dials can bring a document that the other has not
opened; that each thing is sent over one of the two connections is the links' (`link`).

1. Who is configured is dialled again and again, whether it ever answers or not.
2. A peer that is wanted no longer has a whole round to finish what is under way.
3. This replica is not its own peer, even where its address is among those that it was told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import CrdtStateError, LimitExceeded, NotHead, UsageError
from crdt_state.protocol.peer.messages import Member, Members, Told
from crdt_state.replica.forwarding import Forwarding, member_name
from crdt_state.topology.chain import Chain
from crdt_state.topology.gossip import Gossip
from crdt_state.topology.members import Member as Known
from crdt_state.topology.members import MemberList
from crdt_state.transport.neighbourhood import member_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from crdt_state.clocks import Instant
    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.replica.remotes import Remotes
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.sync.exchange import Progress
    from crdt_state.transport.link import Link
    from crdt_state.transport.neighbourhood import Neighbourhood

__all__ = ["Neighbour", "Neighbours"]


class Neighbour(NamedTuple):
    """A member that this replica dials, for people to look at."""

    address: str
    replica: ReplicaId | None
    """Known once it has answered."""
    is_connected: bool
    progress: Progress
    last_error: str | None


class Neighbours:
    """The part of one replica in one topology."""

    def __init__(
        self,
        shell: ReplicaShell,
        remotes: Remotes,
        neighbourhood: Neighbourhood,
        *,
        connect: Callable[[str], Link],
        closed: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """For `Replica.join`; `closed` is called when this has ended."""
        self.neighbourhood = neighbourhood
        self._topology = neighbourhood.topology
        self._me = member_name(neighbourhood.address)
        self._chain = self._topology if isinstance(self._topology, Chain) else None
        self._shell = shell
        self._remotes = remotes
        self._connect = connect
        self._closed = closed
        self._sleep = sleep
        self._forwarding = Forwarding(self._me, self._topology, shell.random)
        self._links: dict[str, Link] = {}
        self._leaving: set[str] = set()
        self._silent_since: dict[str, Instant] = {}
        limits = shell.limits
        self._known = MemberList(limits.members_max, limits.member_address_bytes_max)
        self._own: set[str] = set()
        """Addresses at which this replica itself was found."""
        self.rounds = 0
        """How many have begun and ended."""
        self._rounds: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take part, in the background."""
        self._shell.core.forwarding = self._forwarding
        self._shell.membership = self
        if self._chain is not None:
            self._shell.core.gate = self._check_entry
            self._shell.holdings.is_acknowledged = self._is_acknowledged
        self._rounds = asyncio.create_task(self._go_round(), name="neighbours")

    async def close(self) -> None:
        """Take part no longer; who is dialled is hung up on.  What they are owed stays owed."""
        if self._rounds is None:
            return
        self._rounds.cancel()
        await asyncio.gather(self._rounds, return_exceptions=True)
        self._rounds = None
        for address in tuple(self._links):
            await self._hang_up(address)
        core = self._shell.core
        core.forwarding = core.gate = self._shell.membership = None
        self._shell.holdings.is_acknowledged = None
        self._closed()

    @property
    def seen(self) -> tuple[Neighbour, ...]:
        """Whom this replica dials, in the order of addresses."""
        return tuple(
            Neighbour(address, link.peer, link.is_up, link.progress, link.last_error)
            for address, link in sorted(self._links.items())
        )

    # --- what members say of themselves ------------------------------------------------------

    def says(self) -> Member:
        """See `Membership`."""
        return Member(0 if self._chain is None else self._chain.epoch, self.neighbourhood.address)

    def heard(self, replica: ReplicaId, said: Member, *, may_relay: bool) -> None:
        """See `Membership`."""
        if self._chain is not None:
            self._chain.check_epoch(said.epoch)
        if said.address and may_relay:
            with suppress(UsageError):
                address = member_address(said.address)
                if self.neighbourhood.learns or address in self.neighbourhood.peers:
                    self._knows(replica, address)

    def tells(self) -> Members:
        """See `Membership`."""
        limits, random = self._shell.limits, self._shell.random
        found = [
            Told(each.replica, each.address, each.seen)
            for each in self._known.told(limits.members_told_max - 1, random)
        ]
        if self.neighbourhood.address:
            found.append(
                Told(self._shell.store.replica_id, self.neighbourhood.address, self._seen())
            )
        return Members(tuple(found))

    def heard_of(self, tales: Members) -> None:
        """See `Membership`.  Addresses that are none are passed over."""
        limits = self._shell.limits
        if len(self._known) > limits.members_max - 2 * limits.members_told_max:
            return  # the last places are for those whom we meet
        found = []
        for replica, text, seen in tales.members[: limits.members_told_max]:
            with suppress(UsageError):
                address = member_address(text)
                if self.neighbourhood.learns or address in self.neighbourhood.peers:
                    found.append(Known(replica, address, seen))
        self._known = self._known.merged(found, me=self._shell.store.replica_id)
        self._name_known()

    def _knows(self, replica: ReplicaId, address: str) -> None:
        """It has been learned at first hand which replica lives at a member's address."""
        if address in self.neighbourhood.peers:
            with suppress(LimitExceeded):
                self._known = self._known.configured(replica, address)
        self._known = self._known.met(replica, address, self._seen())
        self._name_known()

    def _name_known(self) -> None:
        self._forwarding.names = {
            each.replica: member_name(each.address) for each in self._known.members
        }
        self._shell.holdings.look()

    def _seen(self) -> int:
        return self._shell.clock.wall() // 1_000_000

    # --- a chain -----------------------------------------------------------------------------

    def opened(self, document: DocumentId) -> None:
        """See `Membership`.  Down a chain goes what anybody has open, so that word comes back."""
        link = self._successor()
        if link is not None:
            link.bring(document)

    def _successor(self) -> Link | None:
        name = None if self._chain is None else self._chain.successor(self._me)
        return next((link for at, link in self._links.items() if member_name(at) == name), None)

    def _is_talked_about(self, document: DocumentId) -> bool:
        """Whether anybody but the successor has a document open, and may wait for word of it."""
        link = self._successor()
        holders = self._shell.holdings.of(document)
        return link is not None and any(each != link.peer for each in holders.peers())

    def _check_entry(self, source: int) -> None:
        """Raise `NotHead` unless what a source brings enters here: at the head, or by members."""
        chain, names = self._chain, self._forwarding.names
        if chain is None or self._me == chain.head:
            return
        bringer = self._shell.core.bringers.get(source)
        if bringer is not None and names.get(bringer) in chain.order:
            return
        if any(link.source == source for link in self._links.values()):
            return
        raise NotHead(chain.head, self.neighbourhood.order[0])

    def _is_acknowledged(self, held_by: Collection[ReplicaId]) -> bool:
        names = self._forwarding.names
        found = {names[replica] for replica in held_by if replica in names}
        return self._chain is not None and self._chain.is_acknowledged({*found, self._me})

    # --- rounds ------------------------------------------------------------------------------

    async def _go_round(self) -> None:
        while True:
            try:
                await self._go_once(self.rounds)
            except CrdtStateError as error:
                _report("a round of a topology failed; the next one is tried", error)
            self.rounds += 1
            await self._sleep(self.neighbourhood.round_seconds)

    async def _go_once(self, turn: int) -> None:
        """One round: whom to talk to, and whom to compare with."""
        shell = self._shell
        await self._forget_silent()
        by_name = {member_name(address): address for address in self._addresses()}
        wanted = self._wanted(by_name)
        self._forwarding.members = {address: name for name, address in by_name.items()}
        self._forwarding.peers = wanted
        addresses = [by_name[name] for name in wanted if name in by_name]
        for address in tuple(self._links):
            if address in addresses:
                self._leaving.discard(address)
            elif address in self._leaving and not self._is_to_stay(address):
                await self._hang_up(address)
            else:
                self._leaving.add(address)
        for address in addresses:
            if address not in self._links:
                await self._dial(address)
        connected = [member_name(address) for address, link in self._links.items() if link.is_up]
        partner = self._topology.anti_entropy_partner(self._me, connected, turn, shell.random)
        if partner is not None:
            self._links[by_name[partner]].compare()
        tales = self.tells()
        for link in self._links.values():
            link.tell(tales)

    def _addresses(self) -> list[str]:
        """Where members are dialled: those that were configured, and as many learned as may be."""
        configured = [a for a in self.neighbourhood.peers if a not in self._own]
        if not self.neighbourhood.learns:
            return configured
        known = {*configured, *self._own, self.neighbourhood.address}
        learned = [each.address for each in self._known.members if each.address not in known]
        if not isinstance(self._topology, Gossip):
            # All of them are dialled at once, and each of them is owed.
            learned = learned[: max(0, self._shell.limits.remotes_max // 2 - len(configured))]
        return configured + list(dict.fromkeys(learned))

    async def _forget_silent(self) -> None:
        """Forget members that were only heard of and do not answer."""
        now, limits = self._shell.clock.now(), self._shell.limits
        for address, link in tuple(self._links.items()):
            if link.is_up or address in self.neighbourhood.peers:
                self._silent_since.pop(address, None)
            elif now - self._silent_since.setdefault(address, now) >= limits.member_forget_seconds:
                del self._silent_since[address]
                self._known = self._known.without(
                    each.replica for each in self._known.members if each.address == address
                )
                await self._hang_up(address)
                await self._remotes.forget(address)

    def _wanted(self, members: Collection[ReplicaId]) -> tuple[ReplicaId, ...]:
        """Whom to talk to, and who talks to this one: what is new here has to come to them."""
        dice = self._shell.random
        wanted = self._topology.neighbours(self._me, members, dice)
        if isinstance(self._topology, Gossip):
            return wanted  # drawn, so nobody knows who draws whom
        everybody = {*members, self._me}
        return wanted + tuple(
            other
            for other in members
            if other not in wanted
            and self._me in self._topology.neighbours(other, everybody - {other}, dice)
        )

    def _is_to_stay(self, address: str) -> bool:
        """Whether people see each other by a link that is wanted no longer, within bounds.

        In gossip others are drawn in every round, and people would come and go with them.
        """
        is_room = len(self._links) <= self._shell.limits.remotes_max // 2
        return is_room and address not in self._own and self._links[address].carries_awareness

    async def _dial(self, address: str) -> None:
        try:
            link = self._connect(address)
        except LimitExceeded:
            # Among very many, who was not met for longest is forgotten: what it lacks by then
            # it is owed all the same, when it is next connected.
            await self._remotes.forget_one_of(
                [known for known in self._forwarding.members if known not in self._links]
            )
            link = self._connect(address)
        self._links[address] = link
        if self._chain is not None and member_name(address) == self._chain.successor(self._me):
            link.lasts = self._is_talked_about
        link.line_changed = lambda: self._learn(address, link)

    def _learn(self, address: str, link: Link) -> None:
        """Which replica lives at an address, once it has said so."""
        if link.is_to_itself:
            self._own.add(address)
            self._leaving.add(address)
        elif link.peer is not None:
            self._knows(link.peer, address)

    async def _hang_up(self, address: str) -> None:
        self._leaving.discard(address)
        link = self._links.pop(address)
        with suppress(CrdtStateError):
            await link.close()
        if address in self._own:
            await self._remotes.forget(address)


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
