"""Decides; never does.  Same calls, same results.

A replica's documents in use, what arrived for them, and the one commit that is under way.
Whoever holds a core (the shell) calls `receive` as things arrive, `decide` once a
tick, `take_batch` when the disk is free, writes the batch, and then says `persisted` or `failed`.

1. Nothing is delivered or counted as durable before `persisted`.
2. A batch is everything that was decided while the previous one was being written.
3. When a commit fails, every document in it is forgotten here: what it let in is not on the
   disk, so its head is no longer true.
4. Whatever goes wrong over one document's updates is that document's trouble: it falls out of
   use, and the others are decided and written as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import (
    DocumentClosed,
    DocumentSetAside,
    LineageDeleted,
    WriteNotPermitted,
)
from crdt_state.replica.document_core import (
    LOCAL,
    Delta,
    DocumentCore,
    Effort,
    Refusal,
    Turn,
)
from crdt_state.replica.quotas import Quotas
from crdt_state.topology.contract import HOPS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.limits import Limits
    from crdt_state.replica.admission import Author
    from crdt_state.replica.forwarding import Forwarding
    from crdt_state.storage.contract import Write

__all__ = ["Batch", "Decided", "Delivery", "Lost", "ReplicaCore"]


DECIDED_BYTES_PER_TICK = 64 * 1024
"""How much is decided before others get their turn: 5 ms of typing, 100 ms at worst.

Once for documents with little to decide and once for the others, so that who types does not wait
for those who paste.
"""

SHORT_BYTES = 2 * 1024

ABSENT = -3
"""The source of a remote that is not connected: nobody's, so whatever comes is owed to it."""


class Delivery(NamedTuple):
    """Updates of one document that are durable now, in the order of the log.

    `answered` are the tokens of `ask` whose time has come; `revised` is the revision of its text
    that is durable now, where something was staged.
    """

    document: DocumentId
    deltas: list[Delta]
    answered: list[object]
    revised: int | None


class Lost(NamedTuple):
    """A document that fell out of use before its time, and what that takes along."""

    document: DocumentId
    own_edits: list[bytes]
    asked: list[object]


class Decided(NamedTuple):
    """What a tick's decisions have for others at once.

    `large` are documents whose next update has to be prepared (`DocumentCore.prepare`), which may
    take seconds, and then `resume`d; `unfinished` those that another tick has to go on with,
    without anything else happening.  `quiet` are documents for which nothing is to be written,
    `failed` those that could not be decided about, each with the reason.
    """

    refusals: list[Refusal]
    answered: list[object]
    split: list[DocumentId]
    quiet: list[DocumentId]
    failed: list[tuple[DocumentId, Exception]]
    large: list[DocumentId]
    unfinished: list[DocumentId]


@dataclass(frozen=True, slots=True)
class Batch:
    """One commit: its writes, and what follows from each document's part once it is durable."""

    writes: list[Write]
    turns: dict[DocumentId, Turn]

    @property
    def updates(self) -> int:
        """How many updates it adds to logs."""
        return sum(len(turn.deltas) for turn in self.turns.values())


class ReplicaCore:
    """The documents in use of one replica."""

    def __init__(self, limits: Limits) -> None:
        self.quotas = Quotas(limits)
        self._documents: dict[DocumentId, DocumentCore] = {}
        self.forwarding: Forwarding | None = None
        """The rule of a topology, where there is one."""
        self.bringers: dict[int, ReplicaId] = {}
        """Which replica brings under a source, of those that have dialled this one."""
        self.hops: dict[tuple[DocumentId, int], int] = {}
        """How often what a source brings of a document may be sent on, where it has said so."""
        self.gate: Callable[[int], None] | None = None
        """Raises `UpdateRefused` for a source whose updates do not enter at this replica."""
        self._remotes: dict[str, int] = {}
        # In the order of arrival, so that the same calls have the same results.
        self._arrived: dict[DocumentId, None] = {}
        self._gathered: set[DocumentId] = set()
        self._withheld: set[DocumentId] = set()
        self._preparing: set[DocumentId] = set()
        self._writing: Batch | None = None
        self.waiting_bytes = 0

    # --- documents ---------------------------------------------------------------------------

    def open(self, opened: DocumentCore) -> None:
        """Begin to use a document that was built from what the store holds of it."""
        self._documents[opened.document] = opened

    def get(self, document: DocumentId) -> DocumentCore | None:
        """A document in use."""
        return self._documents.get(document)

    def pending_updates(self) -> int:
        """How many updates of documents in use wait for what they depend on."""
        return sum(len(known.pending) for known in self._documents.values())

    def is_busy(self, document: DocumentId) -> bool:
        """Whether something of this document waits to be decided or written."""
        return (
            document in self._arrived
            or document in self._gathered
            or (self._writing is not None and document in self._writing.turns)
        )

    def close(self, document: DocumentId) -> None:
        """End the use of a document that is not busy."""
        if self.is_busy(document):
            raise DocumentClosed(f"{document!r} has updates under way; wait until it is settled")
        self._documents.pop(document, None)

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def is_writing(self) -> bool:
        """Whether a commit is under way."""
        return self._writing is not None

    # --- remotes -----------------------------------------------------------------------------

    def add_remote(self, remote: str, source: int = ABSENT) -> None:
        """From now on, what others than `source` bring is owed to `remote` (the outbox)."""
        self._remotes[remote] = source

    def remote_left(self, remote: str, source: int) -> None:
        """`source` is no longer `remote`, which is owed what anybody brings until it is back."""
        if self._remotes.get(remote) == source:
            self._remotes[remote] = ABSENT

    def remotes(self) -> tuple[str, ...]:
        """Everybody who is owed what is new."""
        return tuple(self._remotes)

    def remove_remote(self, remote: str) -> None:
        """Nothing new is owed to this remote."""
        self._remotes.pop(remote, None)

    # --- the life of an update ---------------------------------------------------------------

    def receive(
        self, document: DocumentId, source: int, author: Author, update: bytes, *, name: str
    ) -> None:
        """An update has come for a document in use.

        Raises what `check` raises at once; all other refusals come out of `decide`.
        """
        known = self.check(document, source, author, len(update))
        known.arrive(source, author, update, name=name)
        self._arrived[document] = None
        self.waiting_bytes += len(update)

    def check(self, document: DocumentId, source: int, author: Author, size: int) -> DocumentCore:
        """The document, if `author` may add `size` bytes to it by what `source` brings.

        Raises `DocumentClosed`, `WriteNotPermitted`, `NotHead`, `QuotaExceeded`,
        `DocumentSetAside` and `LineageDeleted`.
        """
        known = self._documents.get(document)
        if known is None:
            raise DocumentClosed(f"{document!r} is not in use; open it first")
        if known.set_aside is not None:
            raise DocumentSetAside(f"the document was set aside: {known.set_aside}")
        if known.life.is_deleted:
            raise LineageDeleted(f"{document!r} was deleted; nothing is added to it")
        if not author.may_write:
            raise WriteNotPermitted(f"no right to write to {document!r}")
        if self.gate is not None:
            self.gate(source)
        if author.identity is not None or known.creator is not None:
            self.quotas.charge(known, author, size)
        return known

    def staged(self, document: DocumentId) -> None:
        """Something of this document has been staged, and calls for a commit."""
        known = self._documents.get(document)
        if known is not None and known.has_gathered():
            self._gathered.add(document)
            self._weigh()

    def decide(self, now: WallTime) -> Decided:
        """Decide what arrived, as much as one tick allows; the rest comes first in the next."""
        decided = Decided([], [], [], [], [], [], [])
        short, long = Effort(DECIDED_BYTES_PER_TICK), Effort(DECIDED_BYTES_PER_TICK)
        for document in tuple(self._arrived):
            if document in self._preparing:
                continue
            is_short = self._documents[document].arrived_bytes <= SHORT_BYTES
            effort = short if is_short else long
            if effort.left <= 0:
                decided.unfinished.append(document)
                continue
            del self._arrived[document]
            self._decide_one(document, now, effort, decided)
        self._weigh()
        return decided

    def _decide_one(
        self, document: DocumentId, now: WallTime, effort: Effort, decided: Decided
    ) -> None:
        known = self._documents[document]
        try:
            decided.refusals.extend(known.decide(now, effort))
        except Exception as error:
            # Foreign bytes led here.  Unknown as it is, it must not stop the other documents;
            # whoever holds this core reports it and abandons this one.
            decided.failed.append((document, error))
            return
        if known.has_arrivals:
            self._arrived[document] = None
            if not known.awaits_preparation:
                decided.unfinished.append(document)
            elif document not in self._withheld:
                self._preparing.add(document)
                decided.large.append(document)
        if known.has_gathered():
            self._gathered.add(document)
            if known.has_splits and document not in self._withheld:
                decided.split.append(document)
        elif known.has_arrivals:
            pass  # whatever was asked waits with them
        elif (turn := self._turn_being_written(document)) is not None:
            # What arrived added nothing; what it repeats may still be on its way to the disk.
            turn.asked.extend(known.take_asked())
        else:
            decided.answered.extend(known.take_asked())
            if document not in self._gathered:
                decided.quiet.append(document)

    def resume(self, document: DocumentId) -> None:
        """The large update that was next for this document is prepared."""
        self._preparing.discard(document)

    def ask(self, document: DocumentId, token: object) -> bool:
        """Whether all that has been received for `document` is durable.

        Where it is not, `token` comes back in `Decided`, `Delivery` or `Lost` when it is.
        """
        known = self._documents.get(document)
        if known is not None and (document in self._arrived or document in self._gathered):
            known.ask(token)
            return False
        turn = self._turn_being_written(document)
        if turn is not None:
            turn.asked.append(token)
            return False
        return True

    def withhold(self, document: DocumentId) -> None:
        """Keep what gathered for this document out of batches until `release`."""
        self._withheld.add(document)

    def release(self, document: DocumentId) -> None:
        """What gathered for this document may be written again."""
        self._withheld.discard(document)

    def is_withheld(self, document: DocumentId) -> bool:
        """Whether what gathers for this document is kept out of batches."""
        return document in self._withheld

    def take_batch(self) -> Batch | None:
        """The next commit, or None where nothing gathered or one is still being written."""
        ready = {
            document
            for document in self._gathered - self._withheld
            if self._documents[document].is_ready
        }
        if self._writing is not None or not ready:
            return None
        self._gathered -= ready
        turns = {document: self._documents[document].take() for document in sorted(ready)}
        self._gathered |= {each for each in ready if self._documents[each].has_gathered()}
        remotes = [(source, remote) for remote, source in self._remotes.items()]
        writes: list[Write] = []
        for document, turn in turns.items():
            owed = remotes
            sources = {delta.source for delta in turn.deltas}
            hops = {source: self._hops_left(document, source) for source in sorted(sources)}
            if hops:
                self._documents[document].hops_left = max(hops.values())
            if self.forwarding is not None:
                owed = self.forwarding.narrowed(remotes, hops, self.bringers)
            writes += self._documents[document].writes(turn, owed)
        self._writing = Batch(writes, turns)
        return self._writing

    def _hops_left(self, document: DocumentId, source: int) -> int:
        hops_max = HOPS_MAX if self.forwarding is None else self.forwarding.hops_max
        return min(self.hops.get((document, source), hops_max), hops_max)

    def hops_beyond(self, document: DocumentId) -> int:
        """How often whoever is sent what was last written of a document may send it on.

        Of one that was read from the store nobody knows any more how it came: as if edited here.
        """
        known = self._documents.get(document)
        return 0 if known is None else max(0, known.hops_left - 1)

    def persisted(self, batch: Batch) -> list[Delivery]:
        """`batch` is on the disk: deliver what it holds."""
        self._finish(batch)
        return [
            Delivery(document, turn.deltas, turn.asked, turn.revised)
            for document, turn in batch.turns.items()
        ]

    def failed(self, batch: Batch) -> list[Lost]:
        """`batch` is not on the disk: its documents, and our own user's edits that were in it.

        The documents are no longer in use, and whatever had arrived for them meanwhile is gone.
        """
        self._finish(batch)
        lost: list[Lost] = []
        for document, turn in batch.turns.items():
            own = [delta.update for delta in turn.deltas if delta.source == LOCAL]
            later = self.abandon(document)
            lost.append(Lost(document, own + later.own_edits, turn.asked + later.asked))
        return lost

    def abandon(self, document: DocumentId) -> Lost:
        """Forget a document at once, and whatever has arrived for it and is in no commit yet.

        A commit that is under way goes on; `ask` says when it has ended.
        """
        known = self._documents.pop(document, None)
        self._arrived.pop(document, None)
        self._gathered.discard(document)
        self._withheld.discard(document)
        self._preparing.discard(document)
        self._weigh()
        if known is None:
            return Lost(document, [], [])
        return Lost(document, known.own_edits(), known.take_asked())

    def busy(self) -> list[DocumentId]:
        """Documents with something that waits to be decided or written."""
        writing = self._writing.turns.keys() if self._writing else set()
        return sorted(self._arrived.keys() | self._gathered | writing)

    def _turn_being_written(self, document: DocumentId) -> Turn | None:
        return None if self._writing is None else self._writing.turns.get(document)

    def _finish(self, batch: Batch) -> None:
        if batch is not self._writing:
            raise AssertionError("only the batch under way can end")
        self._writing = None
        self._weigh()

    def _weigh(self) -> None:
        # At the end of each tick, which mostly has one document to weigh.
        waiting = 0
        if self._writing is not None:
            for turn in self._writing.turns.values():
                waiting += turn.size
        for document in self._gathered:
            waiting += self._documents[document].gathered_bytes
        for document in self._arrived:
            if document not in self._gathered:
                waiting += self._documents[document].gathered_bytes
        self.waiting_bytes = waiting
