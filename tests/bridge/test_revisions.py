"""What may enter the order of revisions, what becomes of it, and where clients stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_state.bridge import (
    Accepted,
    Floor,
    Last,
    Malformed,
    Moved,
    OutOfOrder,
    Reason,
    Repeated,
    Revision,
    Revisions,
    Snapshot,
    Stale,
    decode,
    encode,
    epoch_of,
)
from crdt_state.errors import (
    OperationMalformed,
    OperationNotCanonical,
    OperationPastEnd,
    OperationTooLarge,
    PairSplit,
    StoreCorrupt,
    UsageError,
)
from crdt_state.limits import Limits
from crdt_state.ot import EMPTY, Attributes, Delete, Insert, Operation, Order, Retain, Side
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE

START = 2**32
BOLD = Attributes.of({"bold": True})
DELETE_ALL = Operation.of(Delete(3))


def insertion(text: str, at: int = 0) -> Operation:
    return Operation.of(Retain(at), Insert(text))


def revisions_of(document="abc", *, limits: Limits | None = None, **bounds: int) -> Revisions:
    """An order that begins with `document`."""
    limits = replace(Limits(), **bounds) if limits is None else limits
    return Revisions(Floor.of_epoch(1), (), document, limits=limits)


def happened(revisions: Revisions, *operations: Operation) -> Revisions:
    """They came by the CRDT, and are durable."""
    for operation in operations:
        revisions.observed(operation)
    revisions.persisted(revisions.head)
    return revisions


def submitted(
    revisions: Revisions, base: int, source: str, sequence: int, operation: Operation
) -> int:
    """Accepted, applied and durable; gives its number."""
    decision = revisions.submit(base, source, sequence, operation, TEXT_UNICODE, may_skip=True)
    assert isinstance(decision, Accepted)
    number = revisions.observed(decision.operation, source, sequence).number
    revisions.persisted(number)
    return number


# --- numbers --------------------------------------------------------------------------------


def test_numbers_begin_above_the_epoch_and_rise_by_one() -> None:
    revisions = Revisions(Floor.of_epoch(3), (), "")
    assert revisions.head == revisions.floor == revisions.published == 3 * START
    assert revisions.observed(insertion("a")).number == 3 * START + 1
    assert revisions.observed(insertion("b")).number == 3 * START + 2
    assert epoch_of(revisions.head) == 3


@pytest.mark.parametrize("epoch", [0, -1, 2**21])
def test_an_epoch_whose_numbers_would_not_fit_is_none(epoch: int) -> None:
    with pytest.raises(UsageError, match="epoch"):
        Floor.of_epoch(epoch)


def test_the_last_number_of_all_is_not_passed() -> None:
    revisions = Revisions(Floor(2**53 - 2), (), "")
    assert revisions.observed(EMPTY).number == 2**53 - 1
    with pytest.raises(UsageError, match="no number"):
        revisions.observed(EMPTY)


# --- what comes in --------------------------------------------------------------------------


def test_an_operation_on_the_head_is_accepted_as_it_is_and_changes_nothing_yet() -> None:
    revisions = revisions_of()
    assert revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE) == Accepted(insertion("x"))
    assert (revisions.head, revisions.document) == (START, "abc")


def test_an_operation_on_an_older_base_is_rebased_on_all_that_has_come_since() -> None:
    revisions = happened(revisions_of(), insertion("12"), Operation.of(Delete(1)))
    decision = revisions.submit(START, "a", 1, insertion("x", 3), TEXT_UNICODE)
    assert decision == Accepted(insertion("x", 4))


def test_it_is_rebased_on_what_is_provisional_too() -> None:
    revisions = revisions_of()
    revisions.observed(insertion("12"))
    decision = revisions.submit(START, "a", 1, insertion("x", 1), TEXT_UNICODE)
    assert decision == Accepted(insertion("x", 3))


def test_each_format_has_its_own_side() -> None:
    revisions = happened(revisions_of(), insertion("1"))
    operation = insertion("x")
    assert revisions.submit(START, "a", 1, operation, TEXT_UNICODE) == Accepted(insertion("x"))
    assert revisions.submit(START, "a", 1, operation, RICH_TEXT) == Accepted(insertion("x", 1))
    assert (TEXT_UNICODE.incoming, RICH_TEXT.incoming) == (Side.LEFT, Side.RIGHT)


def test_each_format_has_its_own_order() -> None:
    history = Operation.of(Retain(1), Delete(1)), insertion("y", 1)
    revisions = happened(revisions_of(), *history)
    operation = Operation.of(Delete(1), Retain(1), Insert("x"), Delete(1))
    ends = {}
    for order in Order:
        other = replace(RICH_TEXT, order=order)
        decision = revisions.submit(START, "a", 1, operation, other)
        assert isinstance(decision, Accepted)
        there = revisions_of(revisions.document)
        there.observed(decision.operation)
        ends[order] = there.document
    assert ends == {Order.AS_MADE: "yx", Order.INSERTIONS_FIRST: "xy"}


def test_history_is_gone_over_step_by_step() -> None:
    history = Operation.of(Retain(1), Delete(1)), insertion("X", 1)
    revisions = happened(revisions_of(), *history)
    decision = revisions.submit(START, "a", 1, insertion("Q", 2), TEXT_UNICODE)
    assert decision == Accepted(insertion("Q", 1))
    revisions.observed(insertion("Q", 1))
    assert revisions.document == "aQXc"


def test_what_is_left_of_nothing_is_accepted_and_makes_a_revision() -> None:
    revisions = happened(revisions_of(), DELETE_ALL)
    assert revisions.submit(START, "a", 1, DELETE_ALL, TEXT_UNICODE) == Accepted(EMPTY)
    assert revisions.observed(EMPTY, "a", 1).number == START + 2


def test_units_are_counted_where_the_format_counts_them() -> None:
    revisions = happened(revisions_of("😀b"), insertion("👩\u200d👧"))
    decision = revisions.submit(START, "a", 1, insertion("x", 2), RICH_TEXT)
    assert decision == Accepted(insertion("x", 4))
    revisions.observed(decision.operation, "a", 1)
    assert revisions.document == "👩\u200d👧😀xb"
    assert revisions.submit(START, "b", 1, insertion("x", 2), TEXT_UNICODE) == Accepted(
        insertion("x", 6)
    )


def test_a_document_with_attributes_takes_attributes() -> None:
    revisions = revisions_of(Operation.of(Insert("a"), Insert("b", BOLD)))
    operation = Operation.of(Retain(2, Attributes.of({"bold": None})))
    decision = revisions.submit(START, "a", 1, operation, RICH_TEXT)
    assert decision == Accepted(operation)
    revisions.observed(operation)
    assert revisions.document == Operation.of(Insert("ab"))


# --- what is sent again ---------------------------------------------------------------------


def test_a_resend_is_answered_with_the_number_it_had() -> None:
    revisions = revisions_of()
    number = submitted(revisions, START, "a", 1, insertion("x"))
    assert revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE) == Repeated(number)
    # Whatever it is made on by now, and whatever it says.
    assert revisions.submit(number, "a", 1, insertion("y"), TEXT_UNICODE) == Repeated(number)
    assert revisions.submit(7, "a", 1, insertion("x"), TEXT_UNICODE) == Repeated(number)


def test_a_resend_of_what_is_provisional_has_a_number_that_is_not_published() -> None:
    revisions = revisions_of()
    revisions.observed(insertion("x"), "a", 1)
    decision = revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE)
    assert decision == Repeated(START + 1)
    assert revisions.published == START


def test_a_resend_is_known_below_the_floor() -> None:
    revisions = revisions_of()
    number = submitted(revisions, START, "a", 1, insertion("x"))
    happened(revisions, insertion("y"))
    revisions.raise_floor(revisions.head)
    assert revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE) == Repeated(number)


def test_a_sequence_that_skips_or_goes_back_is_out_of_order() -> None:
    revisions = revisions_of()
    submitted(revisions, START, "a", 5, insertion("x"))
    for sequence in (7, 4):
        decision = revisions.submit(START + 1, "a", sequence, insertion("x"), TEXT_UNICODE)
        assert decision == OutOfOrder(6)
    decision = revisions.submit(START + 1, "a", 7, EMPTY, TEXT_UNICODE, may_skip=True)
    assert decision == Accepted(EMPTY)
    decision = revisions.submit(START + 1, "a", 4, EMPTY, TEXT_UNICODE, may_skip=True)
    assert decision == OutOfOrder(6)


def test_nothing_is_observed_twice_of_one_source() -> None:
    revisions = revisions_of()
    submitted(revisions, START, "a", 2, insertion("x"))
    with pytest.raises(UsageError, match="applied already"):
        revisions.observed(insertion("x"), "a", 2)
    assert revisions.document == "xabc"


def test_of_too_many_sources_whoever_was_silent_longest_is_forgotten() -> None:
    revisions = revisions_of(revision_sources_max=2)
    for sequence, source in enumerate(("a", "b", "a", "c"), 1):
        submitted(revisions, revisions.head, source, sequence, insertion(source))
    revisions.raise_floor(revisions.head)
    # It cannot be known whether this was applied, and no base in reach can be as old.
    assert revisions.submit(START, "b", 2, insertion("b"), TEXT_UNICODE) == Stale(
        Reason.BELOW_FLOOR
    )
    assert revisions.snapshot("b", START) == Snapshot(START + 4, "cabaabc", None)
    # This has been made after everything that was forgotten.
    assert revisions.snapshot("d", START + 2) == Snapshot(START + 4, "cabaabc", 0)
    assert revisions.snapshot("a", START) == Snapshot(START + 4, "cabaabc", 3)


def test_who_was_forgotten_is_still_known_by_the_log() -> None:
    revisions = revisions_of(revision_sources_max=1)
    number = submitted(revisions, START, "a", 1, insertion("x"))
    submitted(revisions, START, "b", 1, insertion("y"))
    assert revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE) == Repeated(number)
    assert revisions.submit(START, "a", 3, insertion("x"), TEXT_UNICODE) == OutOfOrder(2)
    assert revisions.snapshot("a", START) == Snapshot(START + 2, revisions.document, 1)


# --- what is out of reach -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (START - 1, Reason.OTHER_EPOCH),
        (0, Reason.OTHER_EPOCH),
        (-1, Reason.OTHER_EPOCH),
        (3 * START + 1, Reason.OTHER_EPOCH),
        (2 * START, Reason.BELOW_FLOOR),
        (2 * START + 3, Reason.ABOVE_HEAD),
    ],
)
def test_a_base_that_is_not_in_the_log_is_stale(base: int, reason: Reason) -> None:
    revisions = Revisions(Floor.of_epoch(2), (), "")
    happened(revisions, insertion("x"), insertion("y"))
    revisions.raise_floor(2 * START + 1)
    assert revisions.submit(base, "a", 1, EMPTY, TEXT_UNICODE) == Stale(reason)
    assert revisions.since(base) == Stale(reason)
    assert revisions.moved([0], base, TEXT_UNICODE) == Stale(reason)


def test_a_provisional_base_is_above_the_head_as_no_client_has_seen_it() -> None:
    revisions = revisions_of()
    revisions.observed(insertion("x"))
    decision = revisions.submit(START + 1, "a", 1, EMPTY, TEXT_UNICODE)
    assert decision == Stale(Reason.ABOVE_HEAD)


def test_a_base_beyond_the_budget_of_revisions_is_stale() -> None:
    revisions = happened(revisions_of(revision_base_revisions_max=2), *[insertion("x")] * 3)
    assert revisions.submit(START + 1, "a", 1, EMPTY, TEXT_UNICODE) == Accepted(EMPTY)
    assert revisions.submit(START, "a", 1, EMPTY, TEXT_UNICODE) == Stale(Reason.BEYOND_BUDGET)
    assert revisions.since(START) == Stale(Reason.BEYOND_BUDGET)


def test_the_budget_counts_what_an_operation_grows_to_on_its_way() -> None:
    history = [insertion("x", 2 * index + 1) for index in range(40)]
    document = "a" * 100
    deletion = Operation.of(Delete(100))
    # It is cut in two by every insertion: 1 + 2 + ... + 40 of it, and 2 of each insertion.
    enough = happened(revisions_of(document, revision_base_components_max=2_000), *history)
    assert isinstance(enough.submit(START, "a", 1, deletion, TEXT_UNICODE), Accepted)
    short = happened(revisions_of(document, revision_base_components_max=1_000), *history)
    assert short.submit(START, "a", 1, deletion, TEXT_UNICODE) == Stale(Reason.BEYOND_BUDGET)
    assert isinstance(short.submit(START, "a", 1, insertion("y"), TEXT_UNICODE), Accepted)


def test_a_client_that_has_to_be_sent_too_much_is_sent_the_document() -> None:
    revisions = happened(revisions_of(revision_catch_up_bytes_max=50), *[insertion("x" * 20)] * 2)
    assert len(revisions.since(START + 1)) == 1
    assert revisions.since(START) == Stale(Reason.BEYOND_BUDGET)


# --- what does not fit the text -------------------------------------------------------------


def error_of(decision: object) -> Exception:
    assert isinstance(decision, Malformed)
    return decision.error


def test_what_goes_past_the_end_of_its_base_is_malformed() -> None:
    revisions = happened(revisions_of(), insertion("123"))
    error = error_of(revisions.submit(START, "a", 1, insertion("x", 4), TEXT_UNICODE))
    assert isinstance(error, OperationPastEnd)
    assert (error.reach, error.length) == (4, 3)
    decision = revisions.submit(START + 1, "a", 1, insertion("x", 6), TEXT_UNICODE)
    assert isinstance(decision, Accepted)


def test_the_end_is_counted_in_the_measure_of_the_format() -> None:
    revisions = happened(revisions_of("😀"), insertion("😀"), Operation.of(Delete(1)))
    assert isinstance(revisions.submit(START, "a", 1, insertion("x", 2), RICH_TEXT), Accepted)
    assert isinstance(
        error_of(revisions.submit(START, "a", 1, insertion("x", 3), RICH_TEXT)), OperationPastEnd
    )
    assert isinstance(
        error_of(revisions.submit(START, "a", 1, insertion("x", 2), TEXT_UNICODE)),
        OperationPastEnd,
    )


def test_half_a_character_is_malformed() -> None:
    revisions = happened(revisions_of("a😀"), insertion("1"))
    decision = revisions.submit(START, "a", 1, insertion("x", 2), RICH_TEXT)
    assert isinstance(error_of(decision), PairSplit)
    decision = revisions.submit(START, "a", 1, insertion("\ud83d"), RICH_TEXT)
    assert isinstance(error_of(decision), PairSplit)
    decision = revisions.submit(START, "a", 1, insertion("\ud83d"), TEXT_UNICODE)
    assert isinstance(error_of(decision), OperationMalformed)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Operation((Retain(0), Insert("x"))), OperationNotCanonical),
        (Operation((Retain(-1), Insert("x"))), OperationNotCanonical),
        (Operation((Insert("x"), Insert("y"))), OperationNotCanonical),
        (Operation((Retain(1),)), OperationNotCanonical),
        (Operation((Retain(1, BOLD),)), OperationMalformed),
        (Operation((Insert("x", BOLD),)), OperationMalformed),
    ],
)
@pytest.mark.parametrize("spoken", [TEXT_UNICODE, RICH_TEXT])
def test_what_is_no_operation_on_a_text_is_malformed(operation, error, spoken) -> None:
    revisions = happened(revisions_of(), insertion("1"))
    assert isinstance(error_of(revisions.submit(START, "a", 1, operation, spoken)), error)


@pytest.mark.parametrize(
    ("source", "sequence", "error"),
    [
        ("", 1, OperationMalformed),
        ("\ud800", 1, OperationMalformed),
        ("é" * 129, 1, OperationTooLarge),
        ("a", 0, OperationMalformed),
        ("a", 2**53, OperationMalformed),
    ],
)
def test_a_source_and_its_sequence_have_bounds(source: str, sequence: int, error: type) -> None:
    revisions = revisions_of()
    decision = revisions.submit(START, source, sequence, EMPTY, TEXT_UNICODE)
    assert isinstance(error_of(decision), error)
    with pytest.raises(error):
        revisions.observed(EMPTY, source, sequence)


def test_what_is_refused_uses_up_no_sequence() -> None:
    revisions = revisions_of()
    assert isinstance(revisions.submit(START, "a", 1, insertion("x", 9), TEXT_UNICODE), Malformed)
    assert isinstance(revisions.submit(START, "a", 1, insertion("x"), TEXT_UNICODE), Accepted)


def test_what_could_not_have_been_observed_changes_nothing() -> None:
    revisions = revisions_of()
    with pytest.raises(OperationPastEnd):
        revisions.observed(insertion("x", 4))
    with pytest.raises(OperationMalformed):
        revisions.observed(Operation.of(Insert("x", BOLD)))
    assert (revisions.head, revisions.document) == (START, "abc")


# --- provisional, durable, taken back -------------------------------------------------------


def test_what_is_provisional_is_shown_to_nobody() -> None:
    revisions = revisions_of()
    revision = revisions.observed(insertion("x"))
    assert revisions.provisional == (revision,)
    assert revisions.since(START) == ()
    assert revisions.snapshot("a", START) == Snapshot(START, "abc", 0)
    assert revisions.moved([1], START, TEXT_UNICODE) == Moved(START, (1,))
    assert revisions.persisted(revision.number) == (revision,)
    assert revisions.provisional == ()
    assert revisions.since(START) == (revision,)
    assert revisions.snapshot("a", START) == Snapshot(START + 1, "xabc", 0)


def test_a_commit_covers_what_was_there_when_it_began() -> None:
    revisions = revisions_of()
    first, second = revisions.observed(insertion("x")), revisions.observed(insertion("y"))
    assert revisions.persisted(first.number) == (first,)
    assert (revisions.document, revisions.published_document) == ("yxabc", "xabc")
    assert revisions.provisional == (second,)
    assert revisions.persisted(first.number) == ()
    with pytest.raises(UsageError, match="beyond the head"):
        revisions.persisted(second.number + 1)
    assert revisions.persisted(second.number) == (second,)


def test_after_a_failure_everything_provisional_is_gone_and_its_numbers_are_given_again() -> None:
    revisions = revisions_of("a😀")
    first = revisions.observed(insertion("x"), "a", 1)
    revisions.persisted(first.number)
    revisions.observed(insertion("😀"), "a", 2)
    revisions.observed(insertion("z"), "b", 1)
    revisions.failed()
    assert (revisions.head, revisions.document) == (first.number, "xa😀")
    assert revisions.provisional == ()
    decision = revisions.submit(first.number, "a", 2, insertion("y", 4), RICH_TEXT)
    assert decision == Accepted(insertion("y", 3))
    assert revisions.observed(decision.operation, "a", 2).number == first.number + 1
    decision = revisions.submit(first.number, "b", 9, EMPTY, TEXT_UNICODE)
    assert decision == Accepted(EMPTY)


def test_a_snapshot_waits_for_what_is_provisional_of_its_client() -> None:
    revisions = revisions_of()
    revisions.observed(insertion("x"), "a", 1)
    assert revisions.snapshot("a", START) is None
    assert revisions.snapshot("b", START) == Snapshot(START, "abc", 0)
    revisions.persisted(START + 1)
    assert revisions.snapshot("a", START) == Snapshot(START + 1, "xabc", 1)


# --- what is forgotten ----------------------------------------------------------------------


def test_the_floor_is_raised_over_what_is_durable_only() -> None:
    revisions = happened(revisions_of(), insertion("x"))
    revisions.observed(insertion("y"))
    with pytest.raises(UsageError, match="not durable"):
        revisions.raise_floor(START + 2)
    assert revisions.raise_floor(START + 1) == Floor(START + 1)
    assert (revisions.floor, revisions.head) == (START + 1, START + 2)
    assert revisions.raise_floor(START) == Floor(START + 1)


def test_the_log_is_trimmed_to_half_when_it_is_longer_than_it_may_be() -> None:
    revisions = happened(revisions_of(revisions_kept_max=4), *[insertion("x")] * 4)
    assert revisions.trim() is None
    happened(revisions, insertion("x"))
    assert revisions.is_trim_due
    assert revisions.trim() == Floor(START + 3)
    assert len(revisions.since(START + 3)) == 2
    assert not revisions.is_trim_due


def test_the_log_is_trimmed_when_it_is_larger_than_it_may_be() -> None:
    size = Revision(START + 1, insertion("x" * 50), insertion("x" * 50)).size
    revisions = happened(
        revisions_of(revisions_kept_bytes_max=4 * size), *[insertion("x" * 50)] * 4
    )
    assert not revisions.is_trim_due
    happened(revisions, insertion("x" * 50))
    assert revisions.trim() == Floor(START + 3)


def test_trimming_leaves_what_is_not_durable() -> None:
    revisions = happened(revisions_of(revisions_kept_max=2), insertion("x"))
    for _ in range(4):
        revisions.observed(insertion("y"))
    assert revisions.trim() == Floor(START + 1)
    assert len(revisions.provisional) == 4


# --- restarts -------------------------------------------------------------------------------


def restarted(revisions: Revisions, floor: bytes, log: list[bytes]) -> Revisions:
    return Revisions(
        Floor.decode(floor),
        map(decode, log),
        revisions.published_document,
        limits=revisions.limits,
    )


def test_what_was_stored_goes_on_as_it_was() -> None:
    revisions = revisions_of("😀", revision_sources_max=2)
    for sequence, source in enumerate("abc", 1):
        submitted(revisions, revisions.head, source, sequence, insertion(f"{source}😀", 1))
    log = [encode(each) for each in revisions.since(START)]
    revisions.observed(insertion("lost"))
    after = restarted(revisions, Floor.of_epoch(1).encode(), log)
    assert (after.head, after.published) == (START + 3, START + 3)
    assert after.document == revisions.published_document
    assert after.since(START) == revisions.since(START)
    assert after.submit(START, "c", 3, EMPTY, TEXT_UNICODE) == Repeated(START + 3)
    for spoken in (TEXT_UNICODE, RICH_TEXT):
        end = 2 if spoken.counts_units else 1
        before = happened(revisions_of("😀"), *[each.operation for each in after.since(START)])
        decision = after.submit(START, "d", 1, insertion("x", end), spoken)
        assert isinstance(decision, Accepted)
        assert decision == before.submit(START, "d", 1, insertion("x", end), spoken)


def test_a_restart_from_a_floor_knows_the_same_sources() -> None:
    revisions = revisions_of(revision_sources_max=2)
    for sequence, source in enumerate("abac", 1):
        submitted(revisions, revisions.head, source, sequence, insertion(source))
    floor = revisions.raise_floor(START + 3)
    assert floor.sources == (Last("b", 2, START + 2), Last("a", 3, START + 3))
    after = restarted(revisions, floor.encode(), [encode(r) for r in revisions.since(START + 3)])
    assert after.raise_floor(START + 4) == revisions.raise_floor(START + 4)
    assert after.raise_floor(START + 4).forgotten == START + 2


def test_a_log_with_a_hole_is_corrupt() -> None:
    revision = Revision(START + 2, EMPTY, EMPTY)
    with pytest.raises(StoreCorrupt, match="in the place of"):
        Revisions(Floor.of_epoch(1), [revision], "")


def test_a_later_epoch_begins_above_and_still_knows_who_submitted_what() -> None:
    revisions = revisions_of()
    number = submitted(revisions, START, "a", 1, insertion("x"))
    floor = revisions.floor_of_epoch(5)
    after = Revisions(Floor.decode(floor.encode()), (), revisions.document)
    assert after.head == 5 * START
    assert after.submit(START, "a", 1, insertion("x"), TEXT_UNICODE) == Repeated(number)
    assert after.submit(START + 1, "a", 2, EMPTY, TEXT_UNICODE) == Stale(Reason.OTHER_EPOCH)
    assert after.snapshot("a", START) == Snapshot(5 * START, "xabc", 1)


def test_an_epoch_is_later_than_the_one_before_and_follows_what_is_durable() -> None:
    revisions = revisions_of()
    with pytest.raises(UsageError, match="not later"):
        revisions.floor_of_epoch(1)
    revisions.observed(EMPTY)
    with pytest.raises(UsageError, match="durable"):
        revisions.floor_of_epoch(2)


# --- cursors --------------------------------------------------------------------------------


def test_cursors_move_with_what_has_been_published_since() -> None:
    revisions = happened(revisions_of(), insertion("12", 1), Operation.of(Delete(2)))
    moved = revisions.moved([0, 1, 3], START, TEXT_UNICODE)
    assert moved == Moved(START + 2, (0, 0, 3))


def test_a_cursor_stands_before_what_others_insert_there_and_behind_its_own() -> None:
    revisions = revisions_of()
    submitted(revisions, START, "a", 1, insertion("xy", 1))
    assert revisions.moved([1], START, TEXT_UNICODE, "b") == Moved(START + 1, (1,))
    assert revisions.moved([1], START, TEXT_UNICODE, "a") == Moved(START + 1, (3,))


def test_a_cursor_is_counted_in_the_measure_of_its_format() -> None:
    revisions = happened(revisions_of("ab"), insertion("😀"))
    assert revisions.moved([2], START, TEXT_UNICODE) == Moved(START + 1, (3,))
    assert revisions.moved([2], START, RICH_TEXT) == Moved(START + 1, (4,))


def test_a_cursor_past_the_end_or_before_the_text_is_malformed() -> None:
    revisions = happened(revisions_of("😀"), insertion("x"))
    assert isinstance(error_of(revisions.moved([2], START, TEXT_UNICODE)), OperationPastEnd)
    assert revisions.moved([2], START, RICH_TEXT) == Moved(START + 1, (3,))
    assert isinstance(error_of(revisions.moved([-1], START, TEXT_UNICODE)), OperationMalformed)


def test_more_cursors_than_can_be_moved_are_stale() -> None:
    revisions = happened(revisions_of(revision_base_components_max=9), insertion("x", 1))
    assert isinstance(revisions.moved([0] * 4, START, TEXT_UNICODE), Moved)
    assert revisions.moved([0] * 5, START, TEXT_UNICODE) == Stale(Reason.BEYOND_BUDGET)
