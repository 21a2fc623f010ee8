"""Who is at a document, through all connections of a replica: who tells, and who is told.

    members of rooms ─┐                              ┌─► members of rooms
    an open document ─┼─► Gathering (awareness_room) ┼─► an open document
    other replicas ───┘                              └─► other replicas, by route

What somebody tells goes on to everybody else at the document, whichever way they came: so people
at two replicas that are connected see each other, and those at the ends of a line of them.

1. What is not newer than what is known is not passed on; so nothing goes in circles.
2. An entry goes neither back to the replica that brought it nor to the one where it began, with one
   hop less than it came with, and to no other replica once none is left.
3. What a replica tells of clients that began here is not believed: it is what was said here, late.
4. A peer that may not relay tells of itself alone: where it got an entry is not said.
5. Where a topology has the say, it says which of its members are shown what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from crdt_state.model.awareness import decode_awareness
from crdt_state.model.awareness_room import AwarenessRoom, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crdt_state.identifiers import ClientId, DocumentId, ReplicaId
    from crdt_state.limits import Limits
    from crdt_state.model.awareness import AwarenessEntry
    from crdt_state.model.awareness_room import News
    from crdt_state.replica.core import ReplicaCore
    from crdt_state.storage.contract import Store

    Tell = Callable[[int, list[AwarenessEntry]], None]
    """Takes the source that told, and what it told."""

__all__ = ["Gathering", "Gatherings", "Shown"]


class Shown(NamedTuple):
    """An entry on its way to another replica."""

    entry: AwarenessEntry
    origin: ReplicaId
    hops: int

    @property
    def client(self) -> ClientId:
        """Whom it is about."""
        return self.entry.client

    @property
    def clock(self) -> int:
        """Its clock."""
        return self.entry.clock

    @property
    def text(self) -> str:
        """Its state."""
        return self.entry.text


class _Replica(NamedTuple):
    """Another replica at the document."""

    peer: ReplicaId
    show: Callable[[list[Shown]], None]


class Gathering:
    """Everyone at one document.  Connections are known by their sources."""

    def __init__(self, document: DocumentId, gatherings: Gatherings) -> None:
        self.document = document
        self._gatherings = gatherings
        self._room = AwarenessRoom(limits=gatherings.limits)
        self._crowds: dict[int, Tell] = {}
        self._replicas: dict[int, _Replica] = {}
        self._guests: dict[int, None] = {}
        self._residents: dict[int, Callable[[], None]] = {}
        self._changes = 0

    def __len__(self) -> int:
        """How many clients are here."""
        return len(self._room)

    # --- coming and going --------------------------------------------------------------------

    def arrive(self, source: int, *, is_guest: bool = True) -> None:
        """A connection has come that will tell; guests have come to us, others were dialled."""
        self._room.join(source)
        if is_guest:
            self._guests[source] = None

    def listen(self, source: int, tell: Tell) -> None:
        """Tell somebody of all news from now on."""
        self._crowds[source] = tell

    def reside(self, source: int, tell: Tell, renew: Callable[[], None]) -> None:
        """A user of this replica itself, whom others are not to take for gone.

        `renew` shows them again with a greater clock.
        """
        self.arrive(source)
        self.listen(source, tell)
        self._residents[source] = renew
        if len(self._room):
            tell(source, self.entries())

    def meet(
        self,
        source: int,
        peer: ReplicaId,
        show: Callable[[list[Shown]], None],
        *,
        is_guest: bool,
    ) -> None:
        """Another replica is at the document, by a channel: it is shown who is here, and tells."""
        self.arrive(source, is_guest=is_guest)
        self._replicas[source] = _Replica(peer, show)
        present = self._shown_to(peer, self._room.states())
        if present:
            show(present)

    def renew(self) -> None:
        """A remote that we have dialled may remember our own users as gone: show them anew."""
        for renew in tuple(self._residents.values()):
            renew()

    def leave(self, source: int) -> None:
        """A connection has ended, and what it told of goes with it.  A second call does nothing."""
        if source not in self._crowds and not self._room.has_joined(source):
            return
        for table in (self._crowds, self._replicas, self._guests, self._residents):
            table.pop(source, None)
        self._tell(source, self._room.leave(source))
        self._gatherings.left(self)

    @property
    def is_over(self) -> bool:
        """Whether nobody is here any more, or told."""
        return not (self._room.connections or self._crowds)

    # --- telling -----------------------------------------------------------------------------

    def entries(self, *, but: int | None = None) -> list[AwarenessEntry]:
        """Who is here, without those of one connection."""
        return [
            news.entry
            for news in self._room.states()
            if but is None or self._room.owner_of(news.entry.client) != but
        ]

    def receive(self, source: int, payload: bytes) -> None:
        """Take in what a client's connection says.  Raises `RemoteProtocolError`."""
        self._receive(source, payload, None)

    def receive_from(
        self, source: int, payload: bytes, *, origin: ReplicaId, hops: int, may_relay: bool
    ) -> None:
        """Take in what a replica says.  Raises `RemoteProtocolError`."""
        replica = self._replicas.get(source)
        if replica is None:
            return
        if not may_relay:
            origin, hops = replica.peer, min(hops, self._gatherings.limits.awareness_hops_max)
        if origin != self._gatherings.me:
            self._receive(source, payload, Route(origin, replica.peer, hops))

    def _receive(self, source: int, payload: bytes, route: Route | None) -> None:
        entries = decode_awareness(payload, limits=self._gatherings.limits)
        if not self._room.has_joined(source):
            return
        owners = {entry.client: self._room.owner_of(entry.client) for entry in entries}
        self._tell(source, self._room.receive(source, entries, route))
        for entry in entries:
            owner = owners[entry.client]
            if entry.is_gone and owner in self._residents and owner != source:
                self._crowds[owner](source, [entry])  # who is here contradicts it

    def _tell(self, author: int, news: list[News]) -> None:
        if not news:
            return
        entries = [each.entry for each in news]
        for source, tell in tuple(self._crowds.items()):
            if source != author:
                tell(author, entries)
        for source, replica in tuple(self._replicas.items()):
            if source != author:
                shown = self._shown_to(replica.peer, news)
                if shown:
                    replica.show(shown)
        if self._room.changes != self._changes:
            self._changes = self._room.changes
            self._gatherings.changed(self.document)

    def _shown_to(self, peer: ReplicaId, news: Iterable[News]) -> list[Shown]:
        """What of `news` goes on to another replica."""
        return [self._onward(each) for each in news if self._goes_to(peer, each.route)]

    def _onward(self, news: News) -> Shown:
        hops_max = self._gatherings.limits.awareness_hops_max
        if news.route is None:
            return Shown(news.entry, self._gatherings.me, hops_max)
        return Shown(news.entry, news.route.origin, min(news.route.hops, hops_max) - 1)

    def _goes_to(self, peer: ReplicaId | None, route: Route | None) -> bool:
        if route is not None and (route.hops <= 0 or peer in (route.via, route.origin)):
            return False
        forwarding = self._gatherings.core.forwarding
        return forwarding is None or forwarding.shows(route, peer)

    # --- for whoever dials -------------------------------------------------------------------

    def concerns(self, source: int, peer: ReplicaId | None, *, is_to_member: bool) -> bool:
        """Whether awareness has to pass between here and a remote, by its link's source.

        Members of a topology pass on what comes by it; anybody else does it for their guests.
        """
        if not (is_to_member or self._guests):
            return False
        if self._room.has_told(source):
            return True
        return any(self._goes_to(peer, route) for route in self._room.routes)


class Gatherings:
    """The gatherings of one replica: one for each document at which somebody is."""

    def __init__(self, store: Store, core: ReplicaCore, limits: Limits) -> None:
        self.core = core
        self.limits = limits
        self._store = store
        self._documents: dict[DocumentId, Gathering] = {}
        self._watchers: list[Callable[[DocumentId], None]] = []

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def me(self) -> ReplicaId:
        """The replica that has these."""
        return self._store.replica_id

    def of(self, document: DocumentId) -> Gathering:
        """The gathering at a document; whoever asks comes to it, or has come, and leaves again."""
        gathering = self._documents.get(document)
        if gathering is None:
            gathering = self._documents[document] = Gathering(document, self)
        return gathering

    def find(self, document: DocumentId) -> Gathering | None:
        """The gathering at a document, where there is one."""
        return self._documents.get(document)

    def leave(self, document: DocumentId, source: int) -> None:
        """A connection at a document has ended; see `Gathering.leave`."""
        gathering = self._documents.get(document)
        if gathering is not None:
            gathering.leave(source)

    def documents(self) -> tuple[DocumentId, ...]:
        """The documents at which somebody is."""
        return tuple(self._documents)

    def watch(self, callback: Callable[[DocumentId], None]) -> None:
        """Call back when who is at a document has changed."""
        self._watchers.append(callback)

    def changed(self, document: DocumentId) -> None:
        """For gatherings: who is there has changed."""
        for callback in self._watchers:
            callback(document)

    def left(self, gathering: Gathering) -> None:
        """For gatherings: somebody has left."""
        if gathering.is_over and self._documents.get(gathering.document) is gathering:
            del self._documents[gathering.document]
        self.changed(gathering.document)
