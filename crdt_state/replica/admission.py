"""Whether an inspected update may go into a document, and the table of those that wait.

    update ──► inspect ──► admit ──┬─► Admitted      log it, then `head.take`
                                   ├─► NothingNew    forget it
                                   ├─► Waits         keep it pending until what is missing is held
                                   ├─► Parted        it waits only in parts; a verdict for each
                                   └─► UpdateRefused quarantine it; its author's range ends

1. What is held is ignored, never refused: honest peers bring ranges of others.
2. A client id belongs to the identity that first writes it, where identities exist.  Nobody else
   adds to it but a peer with the right to relay, and not even that peer by GC structs, which
   say nothing of what they stand for and silence whoever really owns those counters.
3. Nothing that needs a refused range waits for ever: it is refused too.
4. Bounds are per document and cheap; they count only what is new.
5. An update with gaps is decided in parts (`model/gaps`), so that nothing waits for what it does
   not need.  A part of what several clients wrote tells no more whose they are than the whole.

Without authentication `Author.identity` is None and rule 2 is off.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt_state.errors import (
    DependsOnRefused,
    UpdateMalformed,
    UpdateRefused,
    UpdateTooLarge,
    WriteNotPermitted,
)
from crdt_state.model.gaps import parts_of
from crdt_state.model.inspect import Erasing, Survey, Typing, claimed_range, inspect
from crdt_state.model.ranges import COUNTER_MAX
from crdt_state.model.stroke import STROKE_KEY, Stroke

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crdt_state.clocks import WallTime
    from crdt_state.limits import Limits
    from crdt_state.model.head import Head
    from crdt_state.model.inspect import Inspection

__all__ = [
    "ADMITTED",
    "ANYONE",
    "NOTHING_NEW",
    "Admitted",
    "Author",
    "Held",
    "NothingNew",
    "Parted",
    "Pending",
    "Refused",
    "Verdict",
    "Waits",
    "admit",
    "admit_many",
    "ends",
]


class Author(NamedTuple):
    """Who sent an update, as far as it matters here; `identity` is None without authentication.

    `may_claim` says whether a client id of nobody's is its own when an update brings no other.
    """

    identity: str | None = None
    may_write: bool = True
    may_relay: bool = False
    may_claim: bool = True


ANYONE = Author()


class Admitted(NamedTuple):
    """It goes in.

    `binds` is a client id that from now on belongs to the author.  `splits` are second halves
    of surrogate pairs from which it cuts the first: repair them in the same commit.
    """

    binds: int | None = None
    splits: tuple[tuple[int, int], ...] = ()


class NothingNew(NamedTuple):
    """All that it brings is held."""


class Waits(NamedTuple):
    """It goes in once each client's counter in the vector has reached what `missing` says."""

    missing: Mapping[int, int]


class Refused(NamedTuple):
    """It does not go in, and of each client in `ends` nothing does from that counter on."""

    error: UpdateRefused
    ends: Mapping[int, int]


class Parted(NamedTuple):
    """In place of the update stand its parts, decided in this order as `author`'s.

    Each that goes in can be integrated behind those before it.
    """

    parts: tuple[tuple[bytes, Admitted | NothingNew | Waits | Refused], ...]
    author: Author


Verdict: TypeAlias = Admitted | NothingNew | Waits | Refused | Parted

STROKES_MAX = 256
_STROKE_END_MAX = COUNTER_MAX - 0x80

ADMITTED = Admitted()
NOTHING_NEW = NothingNew()


def admit(
    head: Head, inspection: Inspection, author: Author, limits: Limits
) -> Admitted | NothingNew | Waits:
    """Decide about one update; changes nothing.

    Raises `WriteNotPermitted`, `DependsOnRefused`, `UpdateTooLarge` (a bound of the document),
    `UpdateMalformed` (it does not fit this document).
    """
    if head.holds(inspection):
        return NOTHING_NEW
    if not author.may_write:
        raise WriteNotPermitted("this peer may read the document, but not write to it")
    vector = head.vector
    if isinstance(inspection, Erasing):
        return _admit_erasing(head, inspection, limits)
    fresh = _fresh(head, inspection)
    needs = inspection.needs
    if head.refused:
        _refuse_dependents(head, fresh, needs)
    missing = {client: end for client, end in needs.items() if vector.get(client, 0) < end}
    if author.identity is not None and head.owners:
        _await_owners(head, inspection, author, fresh, missing)
    if missing:
        return Waits(missing)
    _check_bounds(head, inspection, limits)
    binds = _binds(head, fresh, author)
    splits = head.splits(inspection)
    return Admitted(binds, splits) if splits or binds is not None else ADMITTED


def _admit_erasing(head: Head, erasing: Erasing, limits: Limits) -> Admitted | Waits:
    """`admit` for deletes alone: anybody who may write may delete what is there."""
    client, end = erasing.client, erasing.end
    if end > head.refused.get(client, end):
        _refuse_dependents(head, {}, {client: end})
    if head.vector.get(client, 0) < end:
        return Waits({client: end})
    _check_size(head, erasing, limits)
    if head.second_halves:
        splits = head.splits(erasing)
        if splits:
            return Admitted(None, splits)
    return ADMITTED


def ends(head: Head, inspection: Inspection, author: Author) -> Mapping[int, int]:
    """Which ranges end when this update is refused: the author's own, never somebody else's.

    Client id -> the first counter that is not let in any more, for `head.refuse`.
    """
    vector = head.vector
    fresh = _fresh(head, inspection)
    return {
        client: vector.get(client, 0)
        for client in fresh
        if _is_own(head, client, author, alone=len(fresh) == 1)
    }


def admit_many(
    head: Head, updates: Iterable[bytes], author: Author, limits: Limits
) -> list[Verdict]:
    """Inspect, admit and take what one author sent within a tick, in order.

    A refusal is an answer here, not an error, and has already ended its ranges in `head`.  When
    the commit of what was admitted fails, this head is wrong: rebuild it from the store.
    """
    verdicts: list[Verdict] = []
    strokes = head.strokes
    for update in updates:
        stroke = strokes.get(update[STROKE_KEY])
        if stroke is not None:
            units = stroke.units(update)
            if units and _may_continue(head, stroke, len(update), author, limits):
                head.take_stroke(stroke, units, len(update))
                verdicts.append(ADMITTED)
                continue
        verdicts.append(_admit_one(head, update, author, limits))
    return verdicts


def _may_continue(head: Head, stroke: Stroke, size: int, author: Author, limits: Limits) -> bool:
    """Whether typing may go on as predicted: every rule of `admit`, by fewer questions."""
    return (
        head.vector.get(stroke.client) == stroke.end
        and author.may_write
        and not head.refused
        and not head.second_halves
        and (author.identity is None or head.owners.get(stroke.client) == author.identity)
        and head.size + size <= limits.document_bytes_max
        and stroke.end < _STROKE_END_MAX
    )


def _admit_one(head: Head, update: bytes, author: Author, limits: Limits) -> Verdict:
    inspection, verdict = _decide(head, update, author, limits)
    # A survey, because the other shapes have nothing that could be told apart.
    if isinstance(verdict, Waits) and isinstance(inspection, Survey):
        return _part(head, inspection, author, limits) or verdict
    return verdict


def _part(head: Head, survey: Survey, author: Author, limits: Limits) -> Parted | None:
    """Decide in parts about an update that waits as a whole; None where it is all one part."""
    if survey.structs + len(survey.deletes) < 2:
        return None
    fresh = _fresh(head, survey)
    parts = parts_of(
        survey.update,
        head.vector,
        parts_max=limits.pending_parts_max,
        barred=_foreign(head, author, fresh),
        are_collected_barred_only=author.may_relay,
    )
    if parts == [survey.update]:
        return None
    if len(fresh) > 1:
        author = author._replace(may_claim=False)
    decided = []
    for part in parts:
        _, verdict = _decide(head, part, author, limits)
        decided.append((part, verdict))
    return Parted(tuple(decided), author)


def _decide(
    head: Head, update: bytes, author: Author, limits: Limits
) -> tuple[Inspection | None, Admitted | NothingNew | Waits | Refused]:
    """The verdict about one update as a whole, and what it was found to be."""
    inspection: Inspection | None = None
    try:
        inspection = inspect(update, limits)
        verdict = admit(head, inspection, author, limits)
    except UpdateRefused as error:
        ended: Mapping[int, int] = {}
        # A writer without permission may send the same counters again once it has it.
        if (
            not isinstance(error, WriteNotPermitted)
            and len(head.refused) < limits.document_refusals_max
        ):
            ended = _ends_of(head, update, inspection, author)
        before = {client: head.refused.get(client) for client in ended}
        for client, counter in ended.items():
            head.refuse(client, counter)
        # Only what has changed is to be remembered: a peer may go on building on what is refused.
        news = {client: n for client, n in ended.items() if head.refused[client] != before[client]}
        return inspection, Refused(error, news)
    if isinstance(verdict, Admitted):
        head.take(inspection, owner=None if verdict.binds is None else author.identity)
        if isinstance(inspection, Typing) and inspection.end == head.vector[inspection.client]:
            if len(head.strokes) >= STROKES_MAX:
                head.strokes.clear()
            head.strokes[update[STROKE_KEY]] = Stroke(inspection)
    return inspection, verdict


def _refuse_dependents(head: Head, fresh: Mapping[int, int], needs: Mapping[int, int]) -> None:
    refused = head.refused
    # Refused client ids are a peer's to multiply, so they are looked up, not gone through.
    for client, end in (*fresh.items(), *needs.items()):
        counter = refused.get(client)
        if counter is not None and end > counter:
            raise DependsOnRefused(
                f"client {client} was refused from counter {counter} on, and this builds on what "
                f"came after; send it again under a new client id"
            )


def _await_owners(
    head: Head,
    inspection: Inspection,
    author: Author,
    fresh: Mapping[int, int],
    missing: dict[int, int],
) -> None:
    """Make what belongs to somebody else wait until its owner's own link has covered it."""
    foreign = _foreign(head, author, fresh)
    if not foreign:
        return
    if not author.may_relay:
        missing.update(foreign)
        return
    for client, _, end in inspection.collected:
        if client in foreign and end > head.vector.get(client, 0):
            missing[client] = max(missing.get(client, 0), end)


def _foreign(head: Head, author: Author, fresh: Mapping[int, int]) -> dict[int, int]:
    """What of `fresh` belongs to somebody else."""
    if author.identity is None or not head.owners:
        return {}
    return {
        client: end
        for client, end in fresh.items()
        if head.owners.get(client, author.identity) != author.identity
    }


def _fresh(head: Head, inspection: Inspection) -> dict[int, int]:
    """Client -> the counter behind what an update brings, where that is new."""
    vector = head.vector
    return {client: end for client, end in inspection.vector.items() if end > vector.get(client, 0)}


def _check_bounds(head: Head, inspection: Inspection, limits: Limits) -> None:
    _check_size(head, inspection, limits)
    for client, counter in inspection.parents:
        # An item that is deleted may have been a container: inserting into it is honest.
        if not head.is_container((client, counter)) and not head.deletes.covers(
            client, counter, counter + 1
        ):
            raise UpdateMalformed(
                f"it inserts into the item of client {client} at {counter}, "
                f"which holds no nested type"
            )
    if inspection.containers:
        total = head.containers + len(inspection.containers)
        if total > limits.document_containers_max:
            limit = limits.document_containers_max
            raise UpdateTooLarge("document_containers_max", limit, total)
        depth = head.nesting(inspection)
        if depth > limits.document_nesting_max:
            raise UpdateTooLarge("document_nesting_max", limits.document_nesting_max, depth)
    most = limits.document_writers_per_place_max
    for place, count in inspection.crowd(head.vector).items():
        total = head.crowd_at(place) + count
        if total > most:
            raise UpdateTooLarge("document_writers_per_place_max", most, total)


def _check_size(head: Head, inspection: Inspection, limits: Limits) -> None:
    size = head.size + len(inspection.update)
    if size > limits.document_bytes_max:
        raise UpdateTooLarge("document_bytes_max", limits.document_bytes_max, size)


def _binds(head: Head, fresh: Mapping[int, int], author: Author) -> int | None:
    """The client id that this update makes the author's.

    Only an update that brings one client's structs tells whose they are; a state brought from
    a browser's own store may hold those of many.  What a relaying peer brings is not its own.
    """
    if author.identity is None or author.may_relay or not author.may_claim or len(fresh) != 1:
        return None
    (client,) = fresh
    return None if client in head.owners else client


def _is_own(head: Head, client: int, author: Author, *, alone: bool) -> bool:
    owner = head.owners.get(client)
    if owner is None:
        return alone and author.may_claim and not author.may_relay
    return owner == author.identity


def _ends_of(
    head: Head, update: bytes, inspection: Inspection | None, author: Author
) -> Mapping[int, int]:
    if inspection is not None:
        return ends(head, inspection, author)
    claimed = claimed_range(update)
    if claimed is None or not _is_own(head, claimed.client, author, alone=True):
        return {}
    held = head.vector.get(claimed.client, 0)
    return {claimed.client: claimed.start} if claimed.start >= held else {}


# --- those that wait -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """An update that waits; `number` is its row in the store's pending table."""

    number: int
    update: bytes
    missing: Mapping[int, int]
    at: WallTime
    source: str = ""


class Pending:
    """The updates of one document that wait for others; bounded, and never searched as a whole.

    Each waits in one line per client it misses, ordered by counter; when a client's counter
    advances, only the front of that client's line is looked at.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: dict[int, Held] = {}
        # Number -> the clients it still misses.
        self._unmet: dict[int, set[int]] = {}
        self._lines: dict[int, list[tuple[int, int]]] = {}
        self._by_age: deque[tuple[WallTime, int]] = deque()
        self._known: dict[bytes, int] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._held)

    def knows(self, update: bytes) -> bool:
        """Whether these very bytes wait already."""
        return update in self._known

    def number_of(self, update: bytes) -> int | None:
        """By which number these very bytes wait, or None."""
        return self._known.get(update)

    def hold(
        self,
        number: int,
        update: bytes,
        missing: Mapping[int, int],
        at: WallTime,
        source: str = "",
    ) -> None:
        """Let it wait.  Raises `UpdateTooLarge` when no more may."""
        limits = self._limits
        if len(self._held) >= limits.pending_updates_max:
            limit = limits.pending_updates_max
            raise UpdateTooLarge("pending_updates_max", limit, len(self._held) + 1)
        if self.size + len(update) > limits.pending_bytes_max:
            limit = limits.pending_bytes_max
            raise UpdateTooLarge("pending_bytes_max", limit, self.size + len(update))
        self._held[number] = Held(number, update, missing, at, source)
        self._unmet[number] = set(missing)
        for client, counter in missing.items():
            heappush(self._lines.setdefault(client, []), (counter, number))
        self._by_age.append((at, number))
        self._known[update] = number
        self.size += len(update)

    def ready(self, vector: Mapping[int, int], clients: Iterable[int]) -> list[Held]:
        """Take out what misses nothing any more, now that the counters of `clients` advanced."""
        numbers: list[int] = []
        for client in clients:
            line = self._lines.get(client)
            held = vector.get(client, 0)
            while line and line[0][0] <= held:
                number = heappop(line)[1]
                unmet = self._unmet.get(number)
                if unmet is not None:
                    unmet.discard(client)
                    if not unmet:
                        numbers.append(number)
            if line is not None and not line:
                del self._lines[client]
        return [self._remove(number) for number in sorted(numbers)]

    def doomed(self, client: int, counter: int) -> list[Held]:
        """Take out what waits for counters of `client` beyond `counter`: they were refused."""
        line = self._lines.get(client, ())
        numbers = {number for awaited, number in line if awaited > counter}
        return [self._remove(number) for number in sorted(numbers) if number in self._held]

    def expired(self, now: WallTime) -> list[Held]:
        """Take out what has waited longer than `pending_seconds_max`."""
        oldest = now - round(self._limits.pending_seconds_max * 1_000_000)
        result: list[Held] = []
        while self._by_age and (
            self._by_age[0][1] not in self._held or self._by_age[0][0] < oldest
        ):
            number = self._by_age.popleft()[1]
            if number in self._held:
                result.append(self._remove(number))
        return result

    def _remove(self, number: int) -> Held:
        held = self._held.pop(number)
        del self._unmet[number]
        self._known.pop(held.update, None)
        self.size -= len(held.update)
        if len(self._lines) + len(self._by_age) > 64 + 4 * len(self._held):
            self._forget_removed()
        return held

    def _forget_removed(self) -> None:
        """Drop entries of removed updates from the lines, before they outnumber the others."""
        self._by_age = deque(entry for entry in self._by_age if entry[1] in self._held)
        self._lines = {}
        for number, clients in self._unmet.items():
            missing = self._held[number].missing
            for client in clients:
                heappush(self._lines.setdefault(client, []), (missing[client], number))
