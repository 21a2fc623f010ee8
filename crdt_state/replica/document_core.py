"""What one document in use lets in, and what is then to be written: one document's decisions.

Bytes only; no `Doc` is loaded.  Updates come in with their author and source, wait for the end
of the tick, are decided in the order of their arrival, and gather in a `Turn` until the writer
takes it.  The head runs ahead of the disk by what has been admitted and not yet committed;
when that commit fails, this object is thrown away and made anew from the store.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import (
    DependsOnRefused,
    StoreCorrupt,
    UpdateMalformed,
    UpdateRefused,
    UpdateTooLarge,
    WaitedInVain,
)
from crdt_state.lineage import BORN
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.replica.admission import (
    ADMITTED,
    Admitted,
    Author,
    Parted,
    Pending,
    Refused,
    Verdict,
    Waits,
    admit,
    admit_many,
)
from crdt_state.replica.awaited import Awaited, Fingerprint, fingerprint
from crdt_state.replica.inbox import Inbox, Run
from crdt_state.storage.contract import NOTHING, Append, Hold, Release, SetAside, SetMetadata
from crdt_state.topology.contract import HOPS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.replica.admission import Held
    from crdt_state.storage.contract import PendingEntry, StoredDocument, Write

__all__ = [
    "LOCAL",
    "NOBODY",
    "REPAIR",
    "SUBMITTED",
    "SET_ASIDE",
    "Delta",
    "DocumentCore",
    "Effort",
    "Refusal",
    "Turn",
    "author_named",
    "name_of",
]

LOCAL = 0
"""The source of what this replica's own user edits; peers have greater numbers."""

SUBMITTED = -4
"""The source of what was made of operations (`replica/attachment`): to be sent to everybody."""

NOBODY = -1
"""The source of what waited in the pending table: whoever brought it may be gone."""

REPAIR = -2
"""The source of a repair: to be sent to everybody, each update by itself and in order.

Merged into one, its parts would be integrated in an order in which stock yrs cuts wrongly.
"""

SET_ASIDE = "set-aside"
"""Key of a document's metadata: why the whole document was set aside."""

OWNER, REFUSED = "owner/", "refused/"

BEARER = "bearer "
"""Stands before the name of an author who brought what several wrote: `Author.may_claim`."""


class Delta(NamedTuple):
    """One admitted update, and where it came from."""

    source: int
    update: bytes


REFUSALS_KEPT_MAX = 8
"""Of one peer and tick; the first has it sent away, and the rest tells a person nothing new."""


class Refusal(NamedTuple):
    """One update that was not let in, or of which a part was not; `source` is to be told.

    Where that has waited before, the source is `NOBODY`, and whoever brought one of `wholes`.
    """

    document: DocumentId
    source: int
    update: bytes
    error: UpdateRefused
    wholes: tuple[Fingerprint, ...] = ()


@dataclass(slots=True)
class Turn:
    """What one document adds to the next commit."""

    deltas: list[Delta] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    others: list[Write] = field(default_factory=list)
    splits: list[tuple[int, int]] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    size: int = 0
    staged: int = 0
    """How many of the first deltas may be written, where that has to be said (`stage`)."""
    behind: list[Write] = field(default_factory=list)
    """What is written behind the staged deltas."""
    revised: int | None = None
    """The revision of the text that is durable by this."""

    def __bool__(self) -> bool:
        return bool(self.deltas or self.others or self.behind)


def name_of(author: Author, address: str) -> str:
    """What is stored as the source of an update: its author's identity, else the address."""
    bearer = "" if author.may_claim else BEARER
    if author.identity is None:
        return f"{bearer}address {address}"
    return f"{bearer}{'relay' if author.may_relay else 'identity'} {author.identity}"


def author_named(name: str) -> Author:
    """The author of an update that has waited, as far as the stored name says.

    With its right to relay: what a relay brought must not be taken for its own later on.
    """
    kind, _, value = name.removeprefix(BEARER).partition(" ")
    identity = value if kind in ("identity", "relay") else None
    may_claim = not name.startswith(BEARER)
    return Author(identity=identity, may_relay=kind == "relay", may_claim=may_claim)


@dataclass(slots=True)
class Effort:
    """How much may still be decided in one go, in bytes; shared by documents."""

    left: int


class DocumentCore:
    """Decides what happens to the updates of one document.

    1. An update that adds nothing to the vector and the deletes has no effect.
    2. What of an update lacks something waits in the pending table, within its bounds.
    3. A refused update ends its client id's range; what depends on it is refused too.
    4. Its creator is whoever brought the first that leaves anything in the store.
    """

    def __init__(self, document: DocumentId, stored: StoredDocument | None, limits: Limits) -> None:
        """Build the head from the checkpoint's and the log's.  Raises `StoreCorrupt`."""
        self.document = document
        self.limits = limits
        self.head = Head()
        self.pending = Pending(limits)
        self._awaited = Awaited(limits.pending_updates_max)
        self._wholes: tuple[Fingerprint, ...] | None = None
        """Of what is being decided again; None while what has arrived is."""
        self._whole: bytes | None = None
        """Of which parts are being decided."""
        self.set_aside: str | None = None
        self.exists = stored is not None
        """Whether anything of it is stored, or will be by the next commit."""
        self.creator = None if stored is None else stored.creator
        """Whose it is; None also while nothing of it exists."""
        self.life = BORN if stored is None else stored.life
        """Which life of the document this is; it stays that as long as this object."""
        self.confirmed: set[str] = set()
        """Remotes that have said since this was built that they hold it."""
        self.through = NOTHING if stored is None else stored.last
        """Where the log was when something of it was last delivered: whoever holds it through here
        holds all of it, whatever of others has been committed since."""
        self.hops_left = HOPS_MAX
        """How often what was written last may be sent on."""
        self.is_attached = False
        """Whether what gathers is written only once it has been staged."""
        self._held = None if stored is None else stored.held
        self._inbox = Inbox()
        self._prepared: tuple[Head, Verdict] | None = None
        self._refused_of: dict[int, int] = {}
        self._asked_of_inbox: list[object] = []
        self._turn = Turn()
        self._next_pending = 1
        self._has_retried = False
        self._unowned_rows: set[str] = set()
        if stored is not None:
            self._restore(stored)

    def arrive(self, source: int, author: Author, update: bytes, *, name: str) -> None:
        """Take an update into this tick; `name` is `name_of` its author."""
        self._inbox.add(source, author, update, name)

    def is_new_to(self, remote: str) -> bool:
        """Whether a remote that is owed everything has never held any of it."""
        if remote in self.confirmed:
            return False
        return self._held is None or self._held.get(remote) == NOTHING

    def decide(self, now: WallTime, effort: Effort | None = None) -> list[Refusal]:
        """Decide what arrived, in order, until `effort` is spent; return what was refused.

        What is not decided stays, and whatever was asked behind it waits with it.  It stays also
        where `awaits_preparation`.  Without `effort` everything is decided at once.
        """
        inbox = self._inbox
        bound = effort or Effort(sys.maxsize)
        refusals: list[Refusal] = []
        self._refused_of.clear()
        if len(self.pending):
            self._forget_expired(now, refusals)
        while inbox and bound.left > 0:
            if self.awaits_preparation:
                if effort is not None:
                    break
                self.prepare()
            count = inbox.affordable(bound.left)
            # Dropped afterwards: after a failure it is still here, to be handed back.
            self._decide_run(inbox.first, count, now, refusals)
            bound.left -= inbox.drop(count)
        if not inbox:
            self._turn.asked += self._asked_of_inbox
            self._asked_of_inbox.clear()
        return refusals

    @property
    def arrived_bytes(self) -> int:
        """Bytes of what arrived and is not decided yet."""
        return self._inbox.size

    @property
    def has_arrivals(self) -> bool:
        """Whether something that arrived is not decided yet."""
        return bool(self._inbox)

    @property
    def awaits_preparation(self) -> bool:
        """Whether the next to be decided is large, so that `prepare` has to come first."""
        return bool(self._inbox) and self._inbox.first.is_large and self._prepared is None

    def prepare(self) -> None:
        """Read and admit the large update that is next, on a copy of what is known.

        May run in a thread; until it has returned, nothing else may be decided here.
        """
        head, run = self.head.copy(), self._inbox.first
        (verdict,) = admit_many(head, run.updates, run.author, self.limits)
        self._prepared = head, verdict

    def _verdicts(self, run: Run, updates: list[bytes]) -> list[Verdict]:
        if self._prepared is None:
            return admit_many(self.head, updates, run.author, self.limits)
        (self.head, verdict), self._prepared = self._prepared, None
        return [verdict]

    def _decide_run(self, run: Run, count: int, now: WallTime, refusals: list[Refusal]) -> None:
        """Decide the first `count` updates that one source brought without a break."""
        # At first every line is looked at: what waits on the disk may have been let in since.
        before = dict(self.head.vector) if len(self.pending) and self._has_retried else {}
        updates = run.updates[:count]
        turn, source = self._turn, run.source
        if not self.exists:
            self.creator = run.author.identity
        for update, verdict in zip(updates, self._verdicts(run, updates), strict=True):
            if verdict is ADMITTED:  # nearly every one
                turn.deltas.append(Delta(source, update))
                turn.size += len(update)
            else:
                self._carry_out(run, update, verdict, now, refusals)
        if len(self.pending):
            # Where nothing waited before this run, what waits now may have been overtaken
            # within it by what it lacked.
            self._has_retried = True
            self._retry_pending(before, now, refusals)
        if not self.exists:
            self.exists = bool(turn)
            if not turn:
                self.creator = None

    def take(self) -> Turn:
        """What has gathered, as far as it may be written; the next one begins with the rest."""
        turn, self._turn = self._turn, Turn()
        if (self.is_attached or turn.behind) and turn.staged < len(turn.deltas):
            # Whoever asked waits for the rest as well, and what is released may have become of it.
            rest = self._turn
            turn.deltas, rest.deltas = turn.deltas[: turn.staged], turn.deltas[turn.staged :]
            turn.released, rest.released = [], turn.released
            turn.splits, rest.splits = [], turn.splits
            turn.asked, rest.asked = [], turn.asked
            rest.size = sum(len(delta.update) for delta in rest.deltas)
            turn.size -= rest.size
        return turn

    @property
    def is_ready(self) -> bool:
        """Whether anything of what has gathered may be written."""
        turn = self._turn
        return not self.is_attached or bool(turn.staged or turn.behind) or not turn.deltas

    def staged_updates(self) -> list[bytes]:
        """What is staged and not taken, in order."""
        return [delta.update for delta in self._turn.deltas[: self._turn.staged]]

    def unstaged_updates(self) -> list[bytes]:
        """What has gathered and is not staged, in order."""
        return [delta.update for delta in self._turn.deltas[self._turn.staged :]]

    def begin(self, creator: str | None) -> None:
        """Something of it is to be staged; what does not exist is `creator`'s then."""
        if not self.exists:
            self.creator = creator
            self.exists = True

    def stage(self, count: int, update: bytes, writes: Iterable[Write], revised: int) -> None:
        """Let the next `count` that are not staged be written, and `update` behind them.

        `writes` go into the same commit, by which revision `revised` becomes durable.
        """
        turn = self._turn
        turn.staged += count
        if update:
            turn.deltas.insert(turn.staged, Delta(SUBMITTED, update))
            turn.staged += 1
            turn.size += len(update)
            self.head.take(inspect(update, self.limits, merged=True))
        turn.behind.extend(writes)
        turn.revised = revised

    def has_gathered(self) -> bool:
        """Whether a commit is called for."""
        return bool(self._turn)

    @property
    def gathered_bytes(self) -> int:
        """Bytes of updates that wait to be decided, or for the next commit."""
        return self._turn.size + self._inbox.size

    def ask(self, token: object) -> None:
        """Give `token` back once everything that has arrived or gathered is durable."""
        # A writer may take the turn before the inbox is decided.  What is in the inbox is then in
        # the next turn, and the token has to be, or a barrier would be answered too early.
        asked = self._asked_of_inbox if self._inbox else self._turn.asked
        asked.append(token)

    def take_asked(self) -> list[object]:
        """The tokens of a turn that has nothing to write, or never will be written."""
        asked = self._turn.asked + self._asked_of_inbox
        self._turn.asked = []
        self._asked_of_inbox.clear()
        return asked

    @property
    def has_splits(self) -> bool:
        """Whether this turn splits surrogate pairs."""
        return bool(self._turn.splits)

    def take_splits(self) -> list[tuple[int, int]]:
        """The boundaries inside surrogate pairs that this turn makes, which are now known."""
        splits, self._turn.splits = self._turn.splits, []
        return splits

    def repair(self, count: int, updates: tuple[bytes, ...], writes: Iterable[Write]) -> None:
        """Put `updates`, new to everybody, in place of the next `count` that are not staged."""
        first = self._turn.staged
        self._turn.deltas[first : first + count] = [Delta(REPAIR, update) for update in updates]
        self._turn.others.extend(writes)
        for update in updates:
            self.head.take(inspect(update, self.limits, merged=True))

    def own_edits(self) -> list[bytes]:
        """Our own user's edits that have arrived or gathered and are in no commit yet."""
        gathered = [delta.update for delta in self._turn.deltas if delta.source == LOCAL]
        arrived = [update for run in self._inbox if run.source == LOCAL for update in run.updates]
        return gathered + arrived

    def waits(self, whole: Fingerprint) -> bool:
        """Whether any of an update that was brought is in the pending table."""
        return self._awaited.waits(whole)

    def _forget_expired(self, now: WallTime, refusals: list[Refusal]) -> None:
        """Let go of what has waited in vain for longer than `Limits.pending_seconds_max`."""
        days = self.limits.pending_seconds_max / 86_400
        error = WaitedInVain(f"what an update builds on did not come within {days:g} days")
        self._let_go(self.pending.expired(now), error, refusals)

    def _let_go(self, given_up: list[Held], error: UpdateRefused, refusals: list[Refusal]) -> None:
        """Release what will never be let in, and say so to whoever brought it."""
        if not given_up:
            return
        numbers = tuple(held.number for held in given_up)
        self._turn.others.append(Release(self.document, numbers))
        wholes = {whole: None for number in numbers for whole in self._awaited.unlink(number)}
        update = given_up[0].update
        refusals.append(Refusal(self.document, NOBODY, update, error, tuple(wholes)))

    def folded(self) -> list[Write]:
        """The metadata that a fold makes superfluous, because the fold's head now holds it."""
        rows = [SetMetadata(key, None, self.document) for key in sorted(self._unowned_rows)]
        self._unowned_rows.clear()
        return list(rows)

    def writes(self, turn: Turn, unsent_to: Sequence[tuple[int, str]]) -> list[Write]:
        """The writes of a turn; `unsent_to` are the remotes, each with its source number.

        A remote that brought an update holds it, so it is owed only what others brought.
        """
        # What was held in this turn has to be there when it is released by the append.
        writes = list(turn.others)
        if turn.deltas:
            owed: tuple[str, ...] = ()
            if unsent_to:
                sources = {delta.source for delta in turn.deltas}
                owed = tuple(remote for source, remote in unsent_to if sources != {source})
            updates = tuple([delta.update for delta in turn.deltas])
            writes.append(Append(self.document, updates, owed, tuple(turn.released), self.creator))
        return writes + turn.behind

    # --- the verdicts ------------------------------------------------------------------------

    def _carry_out(
        self, run: Run, update: bytes, verdict: Verdict, now: WallTime, refusals: list[Refusal]
    ) -> None:
        if isinstance(verdict, Admitted):
            self._gather(run, update, verdict)
        elif isinstance(verdict, Waits):
            self._hold(run, update, verdict, now, refusals)
        elif isinstance(verdict, Refused):
            self._refuse(run, update, verdict, now, refusals)
        elif isinstance(verdict, Parted):
            self._carry_out_parts(run, update, verdict, now, refusals)

    def _carry_out_parts(
        self, run: Run, update: bytes, verdict: Parted, now: WallTime, refusals: list[Refusal]
    ) -> None:
        is_borne = run.author.may_claim and not verdict.author.may_claim
        name = BEARER + run.name if is_borne else run.name
        bearer = Run(run.source, verdict.author, name, update)
        first = len(refusals)
        self._whole = update
        for part, decided in verdict.parts:
            self._carry_out(bearer, part, decided, now, refusals)
        self._whole = None
        if run.source == NOBODY:
            return
        # Whoever sent it knows the whole only, and is told once.
        told = [refusal for refusal in refusals[first:] if refusal.source == run.source]
        others = [refusal for refusal in refusals[first:] if refusal.source != run.source]
        refusals[first:] = [each._replace(update=update) for each in told[:1]] + others

    def _gather(self, run: Run, update: bytes, verdict: Admitted) -> None:
        self._turn.deltas.append(Delta(run.source, update))
        self._turn.size += len(update)
        self._turn.splits.extend(verdict.splits)
        if verdict.binds is not None and run.author.identity is not None:
            self._remember(f"{OWNER}{verdict.binds}", run.author.identity.encode())

    def _hold(
        self, run: Run, update: bytes, verdict: Waits, now: WallTime, refusals: list[Refusal]
    ) -> None:
        wholes = (fingerprint(self._whole or update),) if self._wholes is None else self._wholes
        known = self.pending.number_of(update)
        number = self._next_pending if known is None else known
        try:
            self._awaited.link(number, wholes)
            if known is None:
                self.pending.hold(number, update, verdict.missing, now, run.name)
        except UpdateTooLarge as error:
            if known is None:
                self._awaited.unlink(number)
            self._refuse(run, update, Refused(error, {}), now, refusals)
            return
        if known is not None:
            return
        self._next_pending += 1
        self._turn.others.append(Hold(self.document, number, update, run.name, now, self.creator))
        self._turn.size += len(update)

    def _refuse(
        self, run: Run, update: bytes, verdict: Refused, now: WallTime, refusals: list[Refusal]
    ) -> None:
        error = verdict.error
        count = self._refused_of[run.source] = self._refused_of.get(run.source, 0) + 1
        is_told = run.source == LOCAL or count <= REFUSALS_KEPT_MAX
        if is_told or self._wholes:
            wholes = self._wholes or ()
            refusals.append(Refusal(self.document, run.source, update, error, wholes))
        # A refusal that follows from an earlier one tells a person nothing new.
        if is_told and not isinstance(error, DependsOnRefused):
            self._turn.others.append(
                SetAside(
                    self.document, update, error.code, error.reason, run.name, now, self.creator
                )
            )
            self._turn.size += len(update)
        for client, counter in verdict.ends.items():
            self._remember(f"{REFUSED}{client}", b"%d" % counter)
            reason = f"what it builds on of client {client} was refused: {error.reason}"
            doomed = self.pending.doomed(client, counter)
            self._let_go(doomed, DependsOnRefused(reason), refusals)

    def _remember(self, key: str, value: bytes) -> None:
        self._unowned_rows.add(key)
        self._turn.others.append(SetMetadata(key, value, self.document, self.creator))

    def _retry_pending(
        self, before: dict[int, int], now: WallTime, refusals: list[Refusal]
    ) -> None:
        # Each round lets in at least one waiting update or ends; the table is bounded.
        while True:
            vector = self.head.vector
            advanced = [client for client, end in vector.items() if before.get(client) != end]
            ready = self.pending.ready(vector, advanced) if advanced else []
            if not ready:
                return
            before = dict(vector)
            for held in ready:
                run = Run(NOBODY, author_named(held.source), held.source, held.update)
                (verdict,) = admit_many(self.head, run.updates, run.author, self.limits)
                if isinstance(verdict, Admitted):
                    self._turn.released.append(held.number)
                else:
                    self._turn.others.append(Release(self.document, (held.number,)))
                self._wholes = self._awaited.unlink(held.number)
                self._carry_out(run, held.update, verdict, now, refusals)
                self._wholes = None

    # --- from the store ----------------------------------------------------------------------

    def _restore(self, stored: StoredDocument) -> None:
        if stored.checkpoint is not None:
            self.head = Head.decode(stored.checkpoint.head)
        for entry in stored.log:
            try:
                inspection = inspect(entry.update, self.limits, merged=True)
            except UpdateRefused as error:
                raise StoreCorrupt(
                    f"the log of {self.document!r} holds what is not let in: {error.reason}",
                    document=self.document,
                    sequence=entry.sequence,
                ) from error
            self.head.take(inspection)
        for key, value in stored.metadata.items():
            if key == SET_ASIDE:
                self.set_aside = value.decode()
            elif key.startswith(OWNER):
                self.head.owners[int(key.removeprefix(OWNER))] = value.decode()
                self._unowned_rows.add(key)
            elif key.startswith(REFUSED):
                self.head.refuse(int(key.removeprefix(REFUSED)), int(value))
                self._unowned_rows.add(key)
        for held in stored.pending:
            self._next_pending = max(self._next_pending, held.number + 1)
            # Where bounds have been lowered since, the rest waits on the disk until they are not.
            with suppress(UpdateTooLarge, UpdateMalformed):
                self.pending.hold(
                    held.number, held.update, self._missing(held), held.at, held.source
                )

    def _missing(self, held: PendingEntry) -> Mapping[int, int]:
        """What an update that was stored as pending waits for now."""
        inspection = inspect(held.update, self.limits, merged=True)
        try:
            verdict = admit(self.head, inspection, author_named(held.source), self.limits)
        except UpdateRefused:
            return inspection.needs
        return verdict.missing if isinstance(verdict, Waits) else inspection.needs
