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

from crdt_state.errors import CrdtStateError, LimitExceeded
from crdt_state.replica.forwarding import Forwarding, member_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from crdt_state.identifiers import ReplicaId
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
        self._shell = shell
        self._remotes = remotes
        self._connect = connect
        self._closed = closed
        self._sleep = sleep
        self._forwarding = Forwarding(self._me, self._topology, shell.random)
        self._links: dict[str, Link] = {}
        self._leaving: set[str] = set()
        self._own: set[str] = set()
        """Addresses at which this replica itself was found."""
        self._rounds: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take part, in the background."""
        self._shell.core.forwarding = self._forwarding
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
        self._shell.core.forwarding = None
        self._closed()

    @property
    def seen(self) -> tuple[Neighbour, ...]:
        """Whom this replica dials, in the order of addresses."""
        return tuple(
            Neighbour(address, link.peer, link.is_up, link.progress, link.last_error)
            for address, link in sorted(self._links.items())
        )

    # --- rounds ------------------------------------------------------------------------------

    async def _go_round(self) -> None:
        turn = 0
        while True:
            try:
                await self._go_once(turn)
            except CrdtStateError as error:
                _report("a round of a topology failed; the next one is tried", error)
            turn += 1
            await self._sleep(self.neighbourhood.round_seconds)

    async def _go_once(self, turn: int) -> None:
        """One round: whom to talk to, and whom to compare with."""
        shell = self._shell
        by_name = {
            member_name(address): address
            for address in self.neighbourhood.peers
            if address not in self._own
        }
        wanted = self._topology.neighbours(self._me, by_name, shell.random)
        self._forwarding.members = {address: name for name, address in by_name.items()}
        self._forwarding.peers = wanted
        addresses = [by_name[name] for name in wanted if name in by_name]
        for address in tuple(self._links):
            if address in addresses:
                self._leaving.discard(address)
            elif address in self._leaving:
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
        link.line_changed = lambda: self._learn(address, link)

    def _learn(self, address: str, link: Link) -> None:
        """Which replica lives at an address, once it has said so."""
        if link.is_to_itself:
            self._own.add(address)
            self._leaving.add(address)
        elif link.peer is not None:
            self._forwarding.names[link.peer] = member_name(address)

    async def _hang_up(self, address: str) -> None:
        self._leaving.discard(address)
        link = self._links.pop(address)
        with suppress(CrdtStateError):
            await link.close()
        if address in self._own:
            await self._remotes.forget(address)


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
