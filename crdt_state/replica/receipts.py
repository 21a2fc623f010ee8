"""Who else holds what was edited here: receipts, and the table of what peers have said.

A peer's word is a position in our own log: it holds a document through that position.  A receipt is
a position too, so it is fulfilled by comparing two numbers, for whatever level it is asked about.

    durable      another replica has fsynced it
    applied      another replica has integrated it: nothing that it depends on is missing there
    replicated   so many other replicas, each named by its id, have fsynced it
    acknowledged all members of a chain's epoch have fsynced it

1. A level is reached because a peer said so, itself or by a relay that names it, and never because
   something was sent.
2. What a replica said in one incarnation counts for nothing in the next.
3. A time-out ends the wait and not the receipt; a refusal ends the receipt.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from crdt_state.errors import NotYetReplicated, UsageError
from crdt_state.storage.contract import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId

__all__ = ["Holders", "Holdings", "Level", "Receipt", "Replication", "Talker"]

REPLICAS_MAX = 10_000
"""Replicas whose incarnation is remembered; of one that is not, nothing said before counts."""


class Level(Enum):
    """How far an edit has come beyond this replica's own disk."""

    DURABLE = "durable"
    APPLIED = "applied"
    REPLICATED = "replicated"
    ACKNOWLEDGED = "acknowledged"
    """By a chain, of whose members nobody is left out; so `others` count for nothing."""


@dataclass(frozen=True, slots=True)
class Replication:
    """How many other replicas have to hold an edit before a commit returns.

    `asynchronous()` none, `synchronous(n)` so many, `quorum(members)` the majority of so many
    replicas, of which this one is one.
    """

    others: int

    @classmethod
    def asynchronous(cls) -> Replication:
        """Return as soon as it is on our own disk."""
        return cls(0)

    @classmethod
    def synchronous(cls, others: int = 1) -> Replication:
        """Return when so many others hold it."""
        if others < 1:
            raise UsageError(f"{others} other replicas cannot be waited for; ask for 1 or more")
        return cls(others)

    @classmethod
    def quorum(cls, members: int) -> Replication:
        """Return when most of `members` replicas hold it, this one included."""
        if members < 1:
            raise UsageError(f"a quorum of {members} members is none; this replica is one")
        return cls(members // 2)


class Talker(Protocol):
    """Whoever talks with one replica about one document."""

    peer: ReplicaId
    """That replica."""
    is_confirmed: bool
    """Whether that replica has answered what was asked when they began."""

    def speak(self) -> None:
        """Say to the table how far the peer holds the document now."""

    def heard(self, replica: ReplicaId, durable: Sequence) -> None:
        """Another replica has been heard to hold the document through `durable`."""


@dataclass(slots=True)
class _Held:
    """How far one replica holds one document, in positions of our log."""

    durable: int = 0
    applied: int = 0


class Holders:
    """Who else holds one document, by what they have said; lives as long as somebody has it."""

    def __init__(
        self, document: DocumentId, replicas_max: int, holdings: Holdings | None = None
    ) -> None:
        self.document = document
        self._replicas_max = replicas_max
        self._holdings = holdings
        self._held: dict[ReplicaId, _Held] = {}
        self._talkers: dict[Talker, None] = {}
        # Not a set: in which order they are told must not depend on where they lie in memory.
        self._receipts: weakref.WeakKeyDictionary[Receipt, None] = weakref.WeakKeyDictionary()

    def join(self, talker: Talker) -> None:
        """Somebody begins to talk with a replica about the document."""
        self._talkers[talker] = None

    def leave(self, talker: Talker) -> None:
        """That has ended; what was said stays said."""
        self._talkers.pop(talker, None)

    def said(self, replica: ReplicaId, durable: Sequence, applied: Sequence) -> None:
        """`replica` holds the document through these positions."""
        held = self._held.get(replica)
        if held is None:
            held = _Held()
        elif durable <= held.durable and applied <= held.applied:
            return
        # The one that has had no news for longest is forgotten; it counts again when it has.
        self._held.pop(replica, None)
        if len(self._held) >= self._replicas_max:
            del self._held[next(iter(self._held))]
        self._held[replica] = held
        held.durable = max(held.durable, durable)
        held.applied = max(held.applied, applied)
        for receipt in tuple(self._receipts):
            receipt.look()
        for talker in tuple(self._talkers):
            talker.heard(replica, durable)

    def ask(self) -> None:
        """Have everybody who talks with somebody say how far that is now."""
        for talker in tuple(self._talkers):
            talker.speak()

    def peers(self) -> list[ReplicaId]:
        """With whom the document is talked about now."""
        return [talker.peer for talker in self._talkers]

    def talkers_with(self, replica: ReplicaId) -> list[Talker]:
        """Who talks with this replica about the document now."""
        return [talker for talker in self._talkers if talker.peer == replica]

    def forget(self, replica: ReplicaId) -> None:
        """What this replica said counts no more."""
        self._held.pop(replica, None)

    def end(self, error: Exception) -> None:
        """The life of the document that there are receipts of has ended."""
        self._held.clear()
        for receipt in tuple(self._receipts):
            receipt.end(error)

    def durable(self) -> list[tuple[ReplicaId, Sequence]]:
        """Which other replicas hold the document on their disks, and through which position."""
        return [(replica, Sequence(held.durable)) for replica, held in self._held.items()]

    def through(self, position: Sequence, level: Level) -> set[ReplicaId]:
        """Which other replicas have said that they hold it through `position` at this level."""
        return {
            replica
            for replica, held in self._held.items()
            if (held.applied if level is Level.APPLIED else held.durable) >= position
        }

    def has_reached(self, position: Sequence, level: Level, others: int) -> bool:
        """Whether so many others, or all of a chain, have said that they hold it."""
        found = self.through(position, level)
        if level is not Level.ACKNOWLEDGED:
            return len(found) >= others
        rule = None if self._holdings is None else self._holdings.is_acknowledged
        return rule is not None and rule(found)

    def look(self) -> None:
        """Tell those whose wait is over."""
        for receipt in tuple(self._receipts):
            receipt.look()

    def receipt(self, position: Sequence) -> Receipt:
        """A receipt for everything of the document through `position`."""
        receipt = Receipt(self, position)
        self._receipts[receipt] = None
        # A position may be that of another document's commit, of which nothing was sent.
        self.ask()
        return receipt


class Holdings:
    """The holders of every document that is talked about or has a receipt."""

    def __init__(self, replicas_max: int) -> None:
        """`replicas_max` are remembered of each document."""
        self._replicas_max = replicas_max
        self._documents: weakref.WeakValueDictionary[DocumentId, Holders] = (
            weakref.WeakValueDictionary()
        )
        self._incarnations: dict[ReplicaId, Incarnation] = {}
        self.is_acknowledged: Callable[[Collection[ReplicaId]], bool] | None = None
        """Whether what these others hold is held by all of a chain, where there is one."""

    def __len__(self) -> int:
        return len(self._documents)

    def of(self, document: DocumentId) -> Holders:
        """The holders of a document; keep the result as long as they matter."""
        holders = self._documents.get(document)
        if holders is None:
            holders = self._documents[document] = Holders(document, self._replicas_max, self)
        return holders

    def look(self) -> None:
        """Tell those whose wait is over, because who has to hold it has changed."""
        for holders in tuple(self._documents.values()):
            holders.look()

    def met(self, replica: ReplicaId, incarnation: Incarnation) -> None:
        """A replica has told which life of it this is: what it said in another counts no more."""
        before = self._incarnations.pop(replica, None)
        if len(self._incarnations) >= REPLICAS_MAX:
            del self._incarnations[next(iter(self._incarnations))]
        self._incarnations[replica] = incarnation
        if before != incarnation:
            for holders in tuple(self._documents.values()):
                holders.forget(replica)


class Receipt:
    """What was edited in one document until a moment: durable here, and how far elsewhere."""

    def __init__(self, holders: Holders, position: Sequence) -> None:
        self.document = holders.document
        self.position = position
        """In the log of this replica."""
        self._holders = holders
        self._error: Exception | None = None
        # Not told by its position: the next life may begin at the same one.
        self._has_ended = False
        self._waiting: dict[asyncio.Future[None], tuple[Level, int]] = {}

    @property
    def holders(self) -> frozenset[ReplicaId]:
        """The other replicas that are known to hold it on their disks."""
        if self._has_ended:
            return frozenset()
        return frozenset(self._holders.through(self.position, Level.DURABLE))

    def has_reached(self, level: Level | str = Level.DURABLE, others: int = 1) -> bool:
        """Whether at least so many `others` have said that they hold it at this level.

        Never again where its life of the document has ended.
        """
        asked = _level(level)
        return not self._has_ended and self._holders.has_reached(self.position, asked, others)

    async def reached(
        self,
        level: Level | str = Level.DURABLE,
        others: int = 1,
        *,
        seconds_max: float | None = None,
    ) -> None:
        """Wait until so many `others` have said that they hold it at this level.

        Raises `NotYetReplicated` after `seconds_max`, after which the receipt is as good as
        before, and the error of a replica that refused the edit.
        """
        asked = _level(level)
        if self._error is not None:
            raise self._error
        if self.has_reached(asked, others):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = (asked, others)
        try:
            async with asyncio.timeout(seconds_max):
                await waiter
        except TimeoutError:
            found = len(self._holders.through(self.position, asked))
            raise NotYetReplicated(self.document, asked.value, others, found) from None
        finally:
            self._waiting.pop(waiter, None)

    def look(self) -> None:
        """Tell those whose wait is over."""
        for waiter, (level, others) in tuple(self._waiting.items()):
            if not waiter.done() and self.has_reached(level, others):
                waiter.set_result(None)

    def end(self, error: Exception) -> None:
        """Its life of the document has ended: what peers say from now on is of another."""
        self._has_ended = True
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """It will never be held by others: tell everyone who waits, and who will."""
        if self._error is None:
            self._error = error
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_exception(error)


def _level(level: Level | str) -> Level:
    try:
        return Level(level)
    except ValueError:
        names = ", ".join(repr(each.value) for each in Level)
        raise UsageError(f"{level!r} is no level of a receipt; the levels are {names}") from None
