"""Everyone at one document, seen from a replica that many connections come to: who tells of whom.

An entry belongs to the connection that last raised its clock, and vanishes with it.  Between
replicas the same entry may come by several ways.  So it also has a *route*: at which replica it
was told of first, which replica brought it, and how often it may still be passed on.  That is the
distance vector with sequence numbers of Babel (RFC 8966, section 2.4): a client's clock is the
number, what is left of the hops the distance.

1. An entry belongs to the connection that last raised its clock.
2. Equal and older clocks are ignored, and so is `null` from anyone but the owner.  (A stock
   client echoes what it hears, and sends `null` for others whom it takes for gone.)
3. An entry vanishes with its connection, and only it; but where another replica has told the same
   clock with as many hops left or more, the entry becomes that connection's and nobody is told.
4. Who holds an entry by somebody's word is farther from where it began than that one.  So replicas
   never hold an entry by one another's word, and none is left when where it began is gone.

A client that reconnects shows itself again with the clock it had.  This is accepted from a
connection that came after the entry vanished, and only from such: on an older one it is a late
echo, which would leave a ghost behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.awareness import GONE, AwarenessEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.identifiers import ClientId, ReplicaId

__all__ = ["AwarenessRoom", "News", "Route"]


class Route(NamedTuple):
    """How an entry came here from another replica."""

    origin: ReplicaId
    """The replica that told of it first."""
    via: ReplicaId
    """The replica that brought it."""
    hops: int
    """How often it may still be passed on, as that one said."""


class News(NamedTuple):
    """An entry and how it came; no route where its client is at this replica itself."""

    entry: AwarenessEntry
    route: Route | None


@dataclass(slots=True)
class _Owned:
    """What is kept of one client that is here."""

    entry: AwarenessEntry
    owner: Hashable
    route: Route | None
    """That by which the clock was first heard, whoever the owner has become since."""
    others: dict[Hashable, None] = field(default_factory=dict)
    """Connections that may become its owner."""


@dataclass(slots=True)
class _Connection:
    """`arrived` counts arrivals and departures; `clients` are the entries owned."""

    arrived: int
    clients: dict[ClientId, None] = field(default_factory=dict)
    also: dict[ClientId, None] = field(default_factory=dict)
    """Entries of which this is among the `others`."""


class AwarenessRoom:
    """The states of everyone at one document; see the module for what holds."""

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.entries_ignored = 0
        self._limits = limits
        self._owned: dict[ClientId, _Owned] = {}
        self._connections: dict[Hashable, _Connection] = {}
        self._gone: dict[ClientId, tuple[int, int]] = {}
        """Clients that left: their clock, and when, as counted by `_moment`; oldest first."""
        self._moment = 0
        self._bytes = 0
        self.routes: Counter[Route | None] = Counter()
        """Of those who are here, how many came by which."""
        self.changes = 0
        """Raised whenever somebody comes or goes, or comes to be known by another connection."""

    def __len__(self) -> int:
        return len(self._owned)

    @property
    def connections(self) -> int:
        """How many have joined and not left."""
        return len(self._connections)

    def has_joined(self, connection: Hashable) -> bool:
        """Whether a connection has joined and not left."""
        return connection in self._connections

    def join(self, connection: Hashable) -> None:
        """A connection has come."""
        self._moment += 1
        self._connections[connection] = _Connection(self._moment)

    def states(self) -> Iterator[News]:
        """Everyone who is here."""
        return (News(owned.entry, owned.route) for owned in self._owned.values())

    def owner_of(self, client: ClientId) -> Hashable | None:
        """The connection that a client's entry belongs to."""
        owned = self._owned.get(client)
        return None if owned is None else owned.owner

    def has_told(self, connection: Hashable) -> bool:
        """Whether anybody is here by the word of a connection."""
        known = self._connections.get(connection)
        return known is not None and bool(known.clients or known.also)

    def receive(
        self, connection: Hashable, entries: Iterable[AwarenessEntry], route: Route | None = None
    ) -> list[News]:
        """Take in what `connection` sent; what of it is news to all others.

        With a `route` it is a replica, which has told of others' clients, too.
        """
        news = []
        for entry in entries:
            known = self._owned.get(entry.client)
            if self._accepts(connection, entry, route):
                # That somebody is gone goes the way that they came.
                news.append(News(entry, known.route if entry.is_gone and known else route))
        return news

    def leave(self, connection: Hashable) -> list[News]:
        """A connection has gone, and its entries with it; what is news to all others."""
        self._moment += 1
        gone = self._connections.pop(connection, None)
        if gone is None:
            return []
        for client in gone.also:
            del self._owned[client].others[connection]
        farewells = []
        for client in sorted(gone.clients):
            owned = self._owned[client]
            if not self._hand_on(owned):
                # With its own clock, as y-protocols does: a greater one would make peers ignore
                # the client when it comes back.
                entry = AwarenessEntry(client, owned.entry.clock, GONE)
                farewells.append(News(entry, owned.route))
                self._vanish(client, entry.clock)
        return farewells

    # --- what is let in ----------------------------------------------------------------------

    def _accepts(self, connection: Hashable, entry: AwarenessEntry, route: Route | None) -> bool:
        known = self._owned.get(entry.client)
        if known is None:
            return not entry.is_gone and self._appears(connection, entry, route)
        if entry.clock < known.entry.clock:
            return False
        if entry.is_gone:
            return self._takes_away(connection, known, entry)
        if entry.clock == known.entry.clock:
            self._note_other(connection, known, route)
            return False
        size = len(entry.text) - len(known.entry.text)
        if size > 0 and self._bytes + size > self._limits.awareness_total_bytes_max:
            self.entries_ignored += 1
            return False
        self.changes += known.owner != connection
        self._disown(known)
        self._own(connection, entry, route)
        return True

    def _appears(self, connection: Hashable, entry: AwarenessEntry, route: Route | None) -> bool:
        """Whether `entry`, of a client that is not here, is let in; if so, it is."""
        clock, moment = self._gone.get(entry.client, (-1, 0))
        has_come_since = self._connections[connection].arrived > moment
        if entry.clock < clock or (entry.clock == clock and not has_come_since):
            return False
        if (
            len(self._owned) >= self._limits.awareness_clients_max
            or self._bytes + len(entry.text) > self._limits.awareness_total_bytes_max
        ):
            self.entries_ignored += 1
            return False
        self._gone.pop(entry.client, None)
        self.changes += 1
        self._own(connection, entry, route)
        return True

    def _takes_away(self, connection: Hashable, known: _Owned, entry: AwarenessEntry) -> bool:
        """Whether a `null` is the owner's, and nobody else holds the entry."""
        if known.owner != connection:
            if connection in known.others:  # it has lost the entry, and we have it from another
                del known.others[connection]
                del self._connections[connection].also[entry.client]
            return False
        del self._connections[connection].clients[entry.client]
        # With its own clock it says that a way to the client was lost, with a greater one that
        # the client has left.
        if entry.clock == known.entry.clock and self._hand_on(known):
            return False
        self._forget_others(known)
        self._vanish(entry.client, entry.clock)
        return True

    # --- whose it is -------------------------------------------------------------------------

    def _note_other(self, connection: Hashable, known: _Owned, route: Route | None) -> None:
        """Another connection tells what is known; it may come to be needed."""
        if route is None or known.route is None or route.hops < known.route.hops:
            return  # an echo, or somebody who may have it from us
        is_new = connection != known.owner and connection not in known.others
        if is_new and len(known.others) < self._limits.awareness_ways_max - 1:
            known.others[connection] = None
            self._connections[connection].also[known.entry.client] = None

    def _hand_on(self, owned: _Owned) -> bool:
        """Make an entry, whose owner no longer holds it, another's; whether there is one."""
        other = next(iter(owned.others), None)
        if other is None:
            return False
        client = owned.entry.client
        del owned.others[other]
        del self._connections[other].also[client]
        owned.owner = other
        self.changes += 1
        self._connections[other].clients[client] = None
        return True

    def _own(self, connection: Hashable, entry: AwarenessEntry, route: Route | None) -> None:
        self._owned[entry.client] = _Owned(entry, connection, route)
        self.routes[route] += 1
        self._connections[connection].clients[entry.client] = None
        self._bytes += len(entry.text)

    def _disown(self, known: _Owned) -> None:
        """Before a greater clock: whoever told the old one has told nothing of it yet."""
        del self._connections[known.owner].clients[known.entry.client]
        self._forget_others(known)
        self._leave_route(known)
        self._bytes -= len(known.entry.text)

    def _leave_route(self, known: _Owned) -> None:
        self.routes[known.route] -= 1
        if not self.routes[known.route]:
            del self.routes[known.route]

    def _forget_others(self, known: _Owned) -> None:
        for other in known.others:
            del self._connections[other].also[known.entry.client]
        known.others.clear()

    def _vanish(self, client: ClientId, clock: int) -> None:
        known = self._owned.pop(client)
        self._leave_route(known)
        self._bytes -= len(known.entry.text)
        self._gone[client] = (clock, self._moment)
        self.changes += 1
        if len(self._gone) > self._limits.awareness_clients_max:
            del self._gone[next(iter(self._gone))]
