"""One total order of revisions of one text: what may enter it, and where clients stand in it.

Two kinds of people edit the text.  Who knows operations submits one, made on a revision that is the
*base*; it is rebased on all that has come since, and given back to be applied to the CRDT.  Who
knows the CRDT edits that.  Either way a revision is made of what the text was *observed* to change,
so both get revisions, and in one order:

    submit ──► Accepted ──► apply to the text ──► observed ──┐
    an edit that came by the CRDT ───────────────► observed ─┴─► commit ──► persisted ──► publish
                                                                      └───► failed: taken back

1. Numbers of an epoch rise by one.  A number that was published never stands for anything else.
2. What is not `persisted` is *provisional*: later operations are rebased on it, and no client sees
   it.  `failed` takes back all of it, as the text is then built anew from the store.
3. Everything is looked at before anything changes: `submit` changes nothing.
4. A source's operation is applied once, however often it is sent, as long as that can be known, and
   where it cannot be known the client is told (`snapshot`).
5. Rebasing goes operation by operation, on the side and in the order of the submitter's format
   (crdt_state/ot/transformation.py).  What it may cost is bounded, so nobody reaches the square.
6. Below the floor revisions are forgotten, and the floor is raised by `raise_floor` alone.

Who may speak for a source is not known here: its connections are, to whoever has them, and of each
source one counts.

The document is kept here too, as the revisions have made it: it says what is past its end and where
pairs are, and it is what a client goes on from.  What waits for its commit is bounded by the
store's queue.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from crdt_state.bridge.decisions import (
    Accepted,
    Malformed,
    Moved,
    OutOfOrder,
    Reason,
    Repeated,
    Snapshot,
    Stale,
)
from crdt_state.bridge.revision import NUMBER_MAX, Floor, Revision, epoch_of
from crdt_state.bridge.sources import Last, Sources
from crdt_state.errors import (
    OperationMalformed,
    OperationPastEnd,
    OperationRefused,
    OperationTooLarge,
    StoreCorrupt,
    UsageError,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import (
    Side,
    apply,
    check,
    in_units,
    length_of,
    transform,
    transform_position,
    unit_of_point,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crdt_state.bridge.decisions import Decision
    from crdt_state.ot import Document, Operation
    from crdt_state.ot.formats import Format

__all__ = ["Revisions"]


class Revisions:
    """The revisions of one text above its floor, and who has submitted them."""

    def __init__(
        self,
        floor: Floor,
        revisions: Iterable[Revision],
        document: Document,
        *,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """As they were stored; `document` is the text at the last of them.

        Raises `StoreCorrupt` where they do not follow one another from the floor on.
        """
        self.limits = limits
        self.floor = floor.number
        """The number before the first that is kept: the least that a base may be."""
        self.published = floor.number
        """The last revision that is durable, which is all that clients know of."""
        self.document = document
        """The text at the head."""
        self.published_document = document
        """The text at the last revision that is durable."""
        self._log: list[Revision] = []
        self._bytes = 0
        self._at_floor = Sources(floor.sources, floor.forgotten, limits.revision_sources_max)
        self._sources = self._at_floor.copy()
        for revision in revisions:
            if revision.number != self.head + 1:
                raise StoreCorrupt(
                    f"revision {revision.number:,} is stored in the place of {self.head + 1:,}"
                )
            self._append(revision)
        self.published = self.head
        self._lengths = _lengths(self._log, document)
        """How long the text was at each number from the floor on: in code points, in units."""

    @property
    def head(self) -> int:
        """The last revision, provisional or not; the floor where there is none."""
        return self.floor + len(self._log)

    @property
    def provisional(self) -> tuple[Revision, ...]:
        """What is not durable yet: to be written by the commit that changes the text."""
        return tuple(self._log[self.published - self.floor :])

    @property
    def is_trim_due(self) -> bool:
        """Whether more is kept than is to be."""
        limits = self.limits
        is_long = len(self._log) > limits.revisions_kept_max
        return is_long or self._bytes > limits.revisions_kept_bytes_max

    # --- what clients submit --------------------------------------------------------------------

    def submit(
        self,
        base: int,
        source: str,
        sequence: int,
        operation: Operation,
        spoken: Format,
        *,
        may_skip: bool = False,
    ) -> Decision:
        """What is to become of an operation on revision `base`, in the measure of its format.

        Sequences of a source begin anywhere and rise by one; by more where it `may_skip`, because
        it numbers what it does to several texts.
        """
        try:
            self._check_source(source, sequence)
            answer = self._known(base, source, sequence, may_skip=may_skip)
            if answer is not None:
                return answer
            rebased = self._rebased(operation, base, spoken)
            if rebased is None:
                return Stale(Reason.BEYOND_BUDGET)
            made = spoken.in_code_points(rebased, self.document)
            check(made, self.document, limits=self.limits)
        except OperationRefused as error:
            return Malformed(error)
        return Accepted(made)

    def observed(
        self, operation: Operation, source: str | None = None, sequence: int = 0
    ) -> Revision:
        """Append what the text was seen to change, in code points; it is provisional.

        With the source of a submission that was accepted, even where that has changed nothing.
        Raises `UsageError`, and `OperationRefused` for what is no change of this text.
        """
        check(operation, self.document, limits=self.limits)
        if source is not None:
            self._check_source(source, sequence)
            last = self._sources.last_of(source)
            if last is not None and sequence <= last.sequence:
                raise UsageError(f"operation {sequence:,} of {source!r} was applied already")
        if self.head == NUMBER_MAX:
            raise UsageError("there is no number left for a revision")
        wide = in_units(operation, self.document)
        document = apply(self.document, operation)
        revision = Revision(
            self.head + 1, operation, operation if wide == operation else wide, source, sequence
        )
        self._append(revision)
        self.document = document
        points, units = self._lengths[-1]
        self._lengths.append((points + operation.growth, units + wide.growth))
        return revision

    # --- what becomes of it ---------------------------------------------------------------------

    def persisted(self, number: int) -> tuple[Revision, ...]:
        """Everything through `number` is durable; gives what is to be published now.

        Raises `UsageError` beyond the head.
        """
        if number > self.head:
            raise UsageError(f"revision {number:,} is beyond the head, which is {self.head:,}")
        news = tuple(self._log[self.published - self.floor : max(number - self.floor, 0)])
        if number == self.head:
            self.published_document = self.document
        else:
            for revision in news:
                self.published_document = apply(self.published_document, revision.operation)
        self.published = max(self.published, number)
        return news

    def failed(self) -> None:
        """The store could not commit: what is provisional is taken back, all of it."""
        kept = self._log[: self.published - self.floor]
        self._log, self._bytes = [], 0
        self._sources = self._at_floor.copy()
        for revision in kept:
            self._append(revision)
        self.document = self.published_document
        del self._lengths[len(kept) + 1 :]

    # --- what is forgotten ----------------------------------------------------------------------

    def trim(self) -> Floor | None:
        """Raise the floor if that is due, so that at most half remains; gives it, to be stored."""
        if not self.is_trim_due:
            return None
        limits = self.limits
        number, size = self.floor, self._bytes
        for revision in self._log[: self.published - self.floor]:
            is_short = self.head - number <= limits.revisions_kept_max // 2
            if is_short and size <= limits.revisions_kept_bytes_max // 2:
                break
            number, size = revision.number, size - revision.size
        return self.raise_floor(number)

    def raise_floor(self, number: int) -> Floor:
        """Forget the revisions through `number`; gives the floor, to be stored in their place.

        Raises `UsageError` for what is not durable.  A lower number than the floor changes nothing.
        """
        if number > self.published:
            raise UsageError(f"revision {number:,} is not durable, so it cannot be forgotten")
        if number > self.floor:
            count = number - self.floor
            for revision in islice(self._log, count):
                _record(self._at_floor, revision)
                self._bytes -= revision.size
            del self._log[:count]
            del self._lengths[:count]
            self.floor = number
        return self._floor_at(self.floor, self._at_floor)

    def floor_of_epoch(self, epoch: int) -> Floor:
        """The floor from which a new incarnation goes on, with who has submitted what.

        Raises `UsageError` for an epoch that is not later, and while something is provisional.
        """
        if epoch <= epoch_of(self.head):
            raise UsageError(f"epoch {epoch:,} is not later than epoch {epoch_of(self.head):,}")
        if self.published != self.head:
            raise UsageError("an epoch cannot end before its last revision is durable")
        return self._floor_at(Floor.of_epoch(epoch).number, self._sources)

    # --- where clients stand --------------------------------------------------------------------

    def since(self, number: int) -> tuple[Revision, ...] | Stale:
        """What has been published after `number`, for a client that is there."""
        reason = self._unreachable(number)
        if reason is not None:
            return Stale(reason)
        news = self._log[number - self.floor : self.published - self.floor]
        if sum(revision.size for revision in news) > self.limits.revision_catch_up_bytes_max:
            return Stale(Reason.BEYOND_BUDGET)
        return tuple(news)

    def snapshot(self, source: str, base: int) -> Snapshot | None:
        """The published document for a client that is at `base`, and what of it is in there.

        None as long as something of this source is provisional: whether that will be in it is not
        known yet.  Ask again when the commit has come to its end.
        """
        last = self._last_of(source, base)
        sequence: int | None = 0
        if last is not None:
            if last.number > self.published:
                return None
            sequence = last.sequence
        elif base < self._sources.forgotten:
            sequence = None
        return Snapshot(self.published, self.published_document, sequence)

    def moved(
        self,
        positions: Sequence[int],
        base: int,
        spoken: Format,
        source: str | None = None,
    ) -> Moved | Stale | Malformed:
        """Where cursors that stood so at `base` stand in what is published.

        What others insert at the very place comes behind a cursor, and what its own `source`
        inserts before it.
        """
        reason = self._unreachable(base)
        if reason is not None:
            return Stale(reason)
        length = self._length_at(base, spoken)
        for position in positions:
            if position < 0:
                return Malformed(OperationMalformed("position", "it is 0 or more"))
            if position > length:
                return Malformed(OperationPastEnd("position", position, length))
        missed = self._log[base - self.floor : self.published - self.floor]
        steps = sum(len(each.operation.components) for each in missed) * len(positions)
        if steps > self.limits.revision_base_components_max:
            return Stale(Reason.BEYOND_BUDGET)
        moved = list(positions)
        for revision in missed:
            is_own = source is not None and revision.source == source
            side = Side.RIGHT if is_own else Side.LEFT
            operation = revision.in_units if spoken.counts_units else revision.operation
            moved = [transform_position(position, operation, side) for position in moved]
        return Moved(self.published, tuple(moved))

    # --- parts ----------------------------------------------------------------------------------

    def _append(self, revision: Revision) -> None:
        self._log.append(revision)
        self._bytes += revision.size
        _record(self._sources, revision)

    def _check_source(self, source: str, sequence: int) -> None:
        try:
            size = len(source.encode())
        except UnicodeEncodeError:
            raise OperationMalformed("source", "it holds a lone surrogate") from None
        most = self.limits.revision_source_bytes_max
        if size > most:
            raise OperationTooLarge("source", "revision_source_bytes_max", most, size)
        if not source:
            raise OperationMalformed("source", "it is empty")
        if not 0 < sequence <= NUMBER_MAX:
            raise OperationMalformed("sequence", "it is 1 or more, and within 2^53 - 1")

    def _last_of(self, source: str, base: int) -> Last | None:
        """The last of a source; the log above `base` knows it too, where the table has forgotten.

        What was made on `base` has a greater number than that, if it was ever applied.
        """
        last = self._sources.last_of(source)
        if last is None and self.floor <= base < self._sources.forgotten:
            for revision in reversed(self._log[base - self.floor :]):
                if revision.source == source:
                    return Last(source, revision.sequence, revision.number)
        return last

    def _unreachable(self, base: int) -> Reason | None:
        if epoch_of(base) != epoch_of(self.published) and base < self.floor:
            return Reason.OTHER_EPOCH
        if base > self.published:
            is_same = epoch_of(base) == epoch_of(self.published)
            return Reason.ABOVE_HEAD if is_same else Reason.OTHER_EPOCH
        if base < self.floor:
            return Reason.BELOW_FLOOR
        if self.head - base > self.limits.revision_base_revisions_max:
            return Reason.BEYOND_BUDGET
        return None

    def _length_at(self, base: int, spoken: Format) -> int:
        """How long the text was at `base`, in the measure of a format."""
        points, units = self._lengths[base - self.floor]
        return units if spoken.counts_units else points

    def _known(self, base: int, source: str, sequence: int, *, may_skip: bool) -> Decision | None:
        """The answer to a submission whose operation need not be looked at."""
        last = self._last_of(source, base)
        expected = sequence if last is None else last.sequence + 1
        if last is not None and sequence == last.sequence:
            return Repeated(last.number)
        if sequence < expected:
            return OutOfOrder(expected)
        reason = self._unreachable(base)
        if reason is not None:
            return Stale(reason)
        if sequence > expected and not may_skip:
            return OutOfOrder(expected)
        return None

    def _rebased(self, operation: Operation, base: int, spoken: Format) -> Operation | None:
        """`operation` as it follows the head; None where that would cost too much.

        Counted on the way: an operation grows by what others insert into what it goes over.
        """
        spoken.check(operation, limits=self.limits)
        length = self._length_at(base, spoken)
        if operation.reach > length:
            raise OperationPastEnd("operation", operation.reach, length)
        left = self.limits.revision_base_components_max
        for other in self._missed(base, spoken):
            left -= len(operation.components) + len(other.components)
            if left < 0:
                return None
            operation = transform(operation, other, spoken.incoming, order=spoken.order)
        return operation

    def _missed(self, base: int, spoken: Format) -> list[Operation]:
        """All that has come since `base`, provisional or not, in the measure of a format."""
        news = self._log[base - self.floor :]
        return [each.in_units if spoken.counts_units else each.operation for each in news]

    @staticmethod
    def _floor_at(number: int, sources: Sources) -> Floor:
        return Floor(number, tuple(sources), sources.forgotten)


def _record(sources: Sources, revision: Revision) -> None:
    if revision.source is not None:
        sources.record(Last(revision.source, revision.sequence, revision.number))


def _lengths(log: Sequence[Revision], document: Document) -> list[tuple[int, int]]:
    """How long a text was before each revision and at last, which `document` is."""
    points = length_of(document)
    units = unit_of_point(points, document)
    lengths = [(points, units)]
    for revision in reversed(log):
        points -= revision.operation.growth
        units -= revision.in_units.growth
        lengths.append((points, units))
    return lengths[::-1]
