"""A document of a thin client: what its user sees, and what of it the server does not know yet.

    known ── in flight ──► ── waiting ──► document
      │                                      │
    the server's at `revision`       what the user sees

An edit shows at once.  One operation is in flight, and everything that is edited meanwhile waits as
one operation behind it.  What the server publishes is transformed over both, and both over it, on
the side and in the order of the format.  All three are in the format's measure, so nothing but what
is shown has to be converted.

1. What is in flight is sent again after every interruption, under its source and sequence, until
   its fate is known; one source and sequence never stand for two contents.
2. An edit is in `document`, in the server's document, or in a `HandedBack`: never nowhere.
3. A message that is refused (`RemoteProtocolError`) has changed nothing.

**When its revision is out of reach** the server sends its document.  What the user had edited is
made once more on it: what differs is found by comparing words, and the edits are transformed over
that, so they stay beside the text that they were made beside.  Two cases are handed back: where
less than half of the text is still there, the places mean nothing any more; and where nobody knows
whether what was in flight is in there (`sequence` of `snapshot`), text would be there twice.  From
a snapshot on the client goes by another source, made of its name and a number: whatever of the old
one is still under way can never be taken for what is sent from now on.

**For the queue to survive** the process, `export` after every edit that shall, and after `to_send`
before what that gave is sent: else what was sent is, after a restart, sent as something new.
"""

from __future__ import annotations

import enum
from copy import copy
from typing import TYPE_CHECKING

from crdt_client.thin.messages import HandedBack, News, Rejoined, Resume, Submit, Why
from crdt_client.thin.rejoining import difference_by_words, is_same_text
from crdt_client.thin.saved import Saved
from crdt_state.errors import (
    LimitExceeded,
    OperationRefused,
    RemoteProtocolError,
    UsageError,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import (
    EMPTY,
    Insert,
    Operation,
    Retain,
    Side,
    apply,
    check,
    compose,
    diff,
    invert,
    length_of,
    point_of_unit,
    rebase_all,
    transform,
    transform_position,
    unit_of_point,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crdt_state.ot import Document
    from crdt_state.ot.formats import Format

__all__ = ["Phase", "ThinDocument"]


class Phase(enum.Enum):
    """How a client stands with its server."""

    AWAY = "away"
    """Without a connection."""
    RESUMING = "resuming"
    """It has asked, or is to ask, what has come since its revision."""
    LIVE = "live"
    """It is told of everything, in order."""


class ThinDocument:
    """One document as its user sees it; carry what `to_send` gives, and tell it what comes."""

    def __init__(self, spoken: Format, source: str, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """A document that has never been seen: empty, and edited nevertheless if one likes.

        `source` is this client's name, drawn anew for each document and never used again but by
        `restore`.
        """
        if not source:
            raise UsageError("a source has a name that nobody else has")
        empty: Document = "" if spoken.is_plain else EMPTY
        self.format = spoken
        self.limits = limits
        self.document = empty
        """What the user sees, in code points."""
        self.revision = 0
        """The last revision of the server that is in it; 0 before there is any."""
        self.phase = Phase.AWAY
        self.cursor: tuple[int, ...] = ()
        """The user's own cursor, or both ends of a selection, in code points."""
        self.cursors: dict[str, tuple[int, ...]] = {}
        """The same of others, by the names that they are shown under."""
        self._name = source
        self._renamings = 0
        self._sequence = 1
        self._known = empty
        self._in_flight: Operation | None = None
        self._waiting = EMPTY
        self._sent_on: int | None = None
        """On which revision what is in flight was sent on this connection."""
        self._has_asked = False

    @classmethod
    def restore(cls, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> ThinDocument:
        """The document that `export` wrote, without a connection.  Raises `StoreCorrupt`."""
        saved = Saved.decode(data, limits=limits)
        restored = cls(saved.format, saved.name, limits=limits)
        restored._renamings = saved.renamings
        restored._sequence = saved.sequence
        restored.revision = saved.revision
        restored._known = saved.known
        document = saved.known
        if saved.in_flight is not None:
            restored._in_flight = saved.format.in_measure(saved.in_flight, document)
            document = apply(document, saved.in_flight)
        restored._waiting = saved.format.in_measure(saved.waiting, document)
        restored.document = apply(document, saved.waiting)
        return restored

    def export(self) -> bytes:
        """All of it but cursors, as bytes."""
        between = self._after_flight()
        in_flight = self._in_flight
        if in_flight is not None:
            in_flight = self.format.in_code_points(in_flight, self._known)
        return Saved(
            format=self.format,
            name=self._name,
            renamings=self._renamings,
            sequence=self._sequence,
            revision=self.revision,
            known=self._known,
            in_flight=in_flight,
            waiting=self.format.in_code_points(self._waiting, between),
        ).encode()

    @property
    def source(self) -> str:
        """Under which name it submits now."""
        return f"{self._name}~{self._renamings}" if self._renamings else self._name

    @property
    def is_settled(self) -> bool:
        """Whether the server knows everything that was edited here."""
        return self._in_flight is None and not self._waiting.components

    @property
    def in_flight(self) -> int | None:
        """The sequence of what is in flight; None if nothing is."""
        return None if self._in_flight is None else self._sequence

    # --- the user -------------------------------------------------------------------------------

    def edit(self, operation: Operation) -> None:
        """Change what is shown.

        Raises `OperationRefused` for what is no operation on it, and `LimitExceeded` where too much
        waits for the server already; nothing has changed then.
        """
        check(operation, self.document, limits=self.limits)
        document = apply(self.document, operation)
        made = self.format.in_measure(operation, self.document)
        waiting = compose(self._waiting, made, order=self.format.order)
        self._check_bounds(waiting)
        self._waiting, self.document = waiting, document
        self._move(operation, Side.RIGHT)

    def place_cursor(self, *positions: int) -> None:
        """The user's cursor stands there, or a selection reaches from one to the other."""
        self._check_positions(positions)
        self.cursor = positions

    def cursor_to_send(self) -> tuple[int, tuple[int, ...]] | None:
        """The revision and the cursor in its measure; None while the server lacks what is edited.

        Positions of a text that it does not know would mean nothing to it.
        """
        if not self.is_settled:
            return None
        return self.revision, tuple(map(self._measured, self.cursor))

    # --- the connection -------------------------------------------------------------------------

    def connected(self) -> None:
        """There is a connection; `to_send` has the first thing to be said on it."""
        self.phase = Phase.RESUMING
        self._has_asked = False
        self._sent_on = None

    def disconnected(self) -> None:
        """There is none any more, and whatever was under way on it may be lost."""
        self.phase = Phase.AWAY
        self.cursors.clear()

    def to_send(self) -> Resume | Submit | None:
        """What is to be said now, once; None if there is nothing.  Ask after every call."""
        if self.phase is Phase.RESUMING and not self._has_asked:
            self._has_asked = True
            return Resume(self._name, self.source, self.revision)
        if self.phase is not Phase.LIVE or self._sent_on is not None:
            return None
        if self._in_flight is None:
            if not self._waiting.components:
                return None
            self._in_flight, self._waiting = self._waiting, EMPTY
        self._sent_on = self.revision
        return Submit(self.source, self._sequence, self.revision, self._in_flight)

    # --- what the server says -------------------------------------------------------------------

    def caught_up(self, news: Iterable[News]) -> tuple[Operation, ...]:
        """The answer to `Resume` where the revision was in reach: everything since.

        Gives what each changes of what is shown.  Raises `RemoteProtocolError`.
        """
        if self.phase is not Phase.RESUMING:
            raise RemoteProtocolError("an answer to nothing that was asked")
        # On another object, so that nothing has changed if one of them is refused.
        ahead = copy(self)
        ahead.cursors = self.cursors.copy()
        changes = tuple([ahead.receive(each) for each in news])
        ahead.phase = Phase.LIVE
        self.__dict__ |= ahead.__dict__
        return changes

    def receive(self, news: News) -> Operation:
        """A revision; gives what it changes of what is shown, in code points.

        One's own is the acknowledgement of what is in flight.  What is known already changes
        nothing.  Raises `RemoteProtocolError`.
        """
        if self.phase is Phase.AWAY:
            raise RemoteProtocolError("a revision without a connection")
        if news.number <= self.revision:
            return EMPTY
        self._check_next(news.number)
        if news.source == self.source:
            if self._in_flight is not None and news.sequence == self._sequence:
                self._acknowledge(news.number)
                return EMPTY
            # Sent by this client before a restart, and not written down: so it is somebody else's.
            change = self._follow(news)
            self._rename()
            return change
        return self._follow(news)

    def acknowledged(self, sequence: int, number: int) -> None:
        """What is in flight is revision `number`, if it was not heard of as such before.

        Raises `RemoteProtocolError`.
        """
        if self._in_flight is None or sequence != self._sequence:
            return
        self._check_next(number)
        self._acknowledge(number)

    def stale(self, sequence: int) -> None:
        """What is in flight was made on a revision out of reach, and was not applied.

        If newer ones have come meanwhile, it is sent again on these; else `Resume` is.
        """
        if self._in_flight is None or sequence != self._sequence or self._sent_on is None:
            return
        if self._sent_on == self.revision:
            self.phase = Phase.RESUMING
            self._has_asked = False
        self._sent_on = None

    def refused(self, sequence: int) -> Rejoined | None:
        """What is in flight is not let in: it is taken back, and what waits behind it stays.

        Gives None if that is not in flight any more.
        """
        if self._in_flight is None or sequence != self._sequence:
            return None
        operation = self.format.in_code_points(self._in_flight, self._known)
        between, order = apply(self._known, operation), self.format.order
        waiting = self.format.in_code_points(self._waiting, between)
        undo = invert(operation, self._known, order=order)
        back = HandedBack(Why.REFUSED, self._known, operation)
        waiting = transform(waiting, undo, self.format.incoming, order=order)
        return self._rejoin(self._known, waiting, back)

    def snapshot(self, number: int, document: Document, sequence: int | None) -> Rejoined:
        """Go on from the server's document at `number`.

        `sequence` is the last of this source that is in it, None if that is not known.
        """
        if self.phase is Phase.AWAY:
            raise RemoteProtocolError("a document without a connection")
        if isinstance(document, str) is not self.format.is_plain:
            raise RemoteProtocolError(f"a document that is none of {self.format.name}")
        base, waiting = self._known, self._unknown_to_server(sequence)
        if self._is_applied(sequence):
            base = self._after_flight()
        news = difference_by_words(base, document, limits=self.limits)
        back: HandedBack | None = None
        if not waiting.components:
            rebased = EMPTY
        elif self._in_flight is not None and sequence is None:
            back = HandedBack(Why.IN_DOUBT, base, waiting)
        elif not is_same_text(length_of(base), news):
            back = HandedBack(Why.ANOTHER_TEXT, base, waiting)
        if back is not None:
            rebased = EMPTY
        elif waiting.components:
            spoken = self.format
            rebased = transform(waiting, news, spoken.incoming, order=spoken.order)
        self.revision = number
        self.phase = Phase.LIVE
        return self._rejoin(document, rebased, back)

    def show_cursor(self, name: str, positions: Sequence[int], number: int) -> bool:
        """Somebody else's cursor at revision `number`, in the format's measure.

        False where it is not shown: it is of another revision, past the end, or one too many.
        """
        if number != self.revision or self.phase is not Phase.LIVE:
            return False
        if any(position < 0 for position in positions):
            return False
        if name not in self.cursors and len(self.cursors) >= self.limits.thin_cursors_max:
            return False
        moved = list(positions)
        for own in (self._in_flight, self._waiting):
            if own is not None:
                moved = [transform_position(position, own) for position in moved]
        try:
            self.cursors[name] = tuple(map(self._as_point, moved))
        except OperationRefused:
            return False
        return True

    def hide_cursor(self, name: str) -> None:
        """Somebody has gone."""
        self.cursors.pop(name, None)

    # --- parts ----------------------------------------------------------------------------------

    def _check_next(self, number: int) -> None:
        if number != self.revision + 1:
            raise RemoteProtocolError(f"revision {number:,} behind revision {self.revision:,}")

    def _check_bounds(self, waiting: Operation) -> None:
        limits = self.limits
        count = len(waiting.components)
        if count > limits.operation_components_max:
            raise LimitExceeded("operation_components_max", limits.operation_components_max, count)
        inserted = sum(len(each.content) for each in waiting.components if type(each) is Insert)
        if inserted > limits.thin_waiting_characters_max:
            most = limits.thin_waiting_characters_max
            raise LimitExceeded("thin_waiting_characters_max", most, inserted)

    def _check_positions(self, positions: Sequence[int]) -> None:
        length = length_of(self.document)
        if not all(0 <= position <= length for position in positions):
            raise UsageError(f"a cursor stands within 0..{length}, and {positions} does not")

    def _measured(self, point: int) -> int:
        return unit_of_point(point, self.document) if self.format.counts_units else point

    def _as_point(self, position: int) -> int:
        if self.format.counts_units:
            return point_of_unit(position, self.document)
        check(Operation.of(Retain(position), Insert(" ")), self.document)
        return position

    def _after_flight(self) -> Document:
        """The server's document with what is in flight."""
        if self._in_flight is None:
            return self._known
        return apply(self._known, self.format.in_code_points(self._in_flight, self._known))

    def _follow(self, news: News) -> Operation:
        """Let in what somebody else has done."""
        spoken = self.format
        own = (EMPTY if self._in_flight is None else self._in_flight, self._waiting)
        try:
            spoken.check(news.operation, limits=self.limits)
            known = apply(self._known, spoken.in_code_points(news.operation, self._known))
            rebased = rebase_all(own, [news.operation], spoken.incoming, order=spoken.order)
            change = spoken.in_code_points(rebased.theirs[0], self.document)
            document = apply(self.document, change)
        except OperationRefused as error:
            raise RemoteProtocolError(f"revision {news.number:,} does not apply: {error}") from None
        self._known, self.document, self.revision = known, document, news.number
        if self._in_flight is not None:
            self._in_flight = rebased.mine[0]
        self._waiting = rebased.mine[1]
        self._move(change, Side.LEFT)
        return change

    def _acknowledge(self, number: int) -> None:
        self._known = self._after_flight()
        self.revision = number
        self._in_flight = None
        self._sent_on = None
        self._sequence += 1

    def _move(self, change: Operation, own: Side) -> None:
        """Let cursors go along with `change`; `own` is the side of the user's."""
        self.cursor = tuple(transform_position(at, change, own) for at in self.cursor)
        for name, positions in self.cursors.items():
            self.cursors[name] = tuple(transform_position(at, change) for at in positions)

    def _rename(self) -> None:
        self._renamings += 1
        self._sequence = 1
        self._sent_on = None

    def _is_applied(self, sequence: int | None) -> bool:
        """Whether a snapshot through `sequence` of ours has what is in flight."""
        return self._in_flight is not None and sequence is not None and sequence >= self._sequence

    def _unknown_to_server(self, sequence: int | None) -> Operation:
        """What a snapshot does not have of what was edited here, in code points."""
        between = self._after_flight()
        waiting = self.format.in_code_points(self._waiting, between)
        if self._in_flight is None or self._is_applied(sequence):
            return waiting
        in_flight = self.format.in_code_points(self._in_flight, self._known)
        return compose(in_flight, waiting, order=self.format.order)

    def _rejoin(self, known: Document, waiting: Operation, back: HandedBack | None) -> Rejoined:
        """Show `known` and what is still to be sent, which is all that waits from now on."""
        document = apply(known, waiting)
        change = diff(self.document, document, limits=self.limits)
        self._known = known
        self._in_flight = None
        self._waiting = self.format.in_measure(waiting, known)
        self.document = document
        self._rename()
        self._move(change, Side.LEFT)
        return Rejoined(change, back)
