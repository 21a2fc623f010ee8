"""A thin client: what its user sees, what is sent, and what becomes of edits that cannot stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_client.thin import HandedBack, News, Phase, Rejoined, Resume, Submit, ThinDocument, Why
from crdt_state.errors import (
    LimitExceeded,
    OperationMalformed,
    OperationPastEnd,
    RemoteProtocolError,
    StoreCorrupt,
    UsageError,
)
from crdt_state.limits import Limits
from crdt_state.ot import EMPTY, Attributes, Delete, Insert, Operation, Retain, apply
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE, Format

START = 2**32
TEXT = "a😀e\u0301\r\n\0\u05e9\u05dc"
BOLD = Attributes.of({"bold": True})


def insertion(text: str, at: int = 0) -> Operation:
    return Operation.of(Retain(at), Insert(text))


def live(document="abc", spoken: Format = TEXT_UNICODE, **bounds: int) -> ThinDocument:
    """A client that has come upon `document` at `START`."""
    thin = ThinDocument(spoken, "me", limits=replace(Limits(), **bounds))
    thin.connected()
    assert thin.to_send() == Resume("me", "me", 0)
    thin.snapshot(START, document, 0)
    return thin


def sent(thin: ThinDocument) -> Submit:
    message = thin.to_send()
    assert isinstance(message, Submit)
    return message


def echo(message: Submit, number: int) -> News:
    return News(number, message.operation, message.source, message.sequence)


# --- edits ----------------------------------------------------------------------------------


def test_an_edit_shows_at_once_and_is_sent_on_the_revision_it_was_made_on() -> None:
    thin = live()
    thin.edit(insertion("x", 1))
    assert thin.document == "axbc"
    assert thin.in_flight is None
    assert sent(thin) == Submit("me~1", 1, START, insertion("x", 1))
    assert thin.in_flight == 1
    assert not thin.is_settled


def test_one_operation_is_in_flight_and_the_rest_is_one_behind_it() -> None:
    thin = live()
    thin.edit(insertion("x"))
    first = sent(thin)
    thin.edit(insertion("y", 1))
    thin.edit(insertion("z", 2))
    assert thin.to_send() is None
    assert thin.receive(echo(first, START + 1)) == EMPTY
    assert sent(thin) == Submit("me~1", 2, START + 1, insertion("yz", 1))
    assert thin.document == "xyzabc"


def test_an_acknowledgement_without_a_revision_is_as_good() -> None:
    thin = live()
    thin.edit(insertion("x"))
    sent(thin)
    thin.acknowledged(9, START + 1)
    assert not thin.is_settled
    thin.acknowledged(1, START + 1)
    assert (thin.is_settled, thin.revision) == (True, START + 1)
    thin.acknowledged(1, START + 1)
    assert thin.revision == START + 1


def test_an_acknowledgement_of_something_else_is_an_error() -> None:
    thin = live()
    thin.receive(News(START + 1, insertion("y")))
    thin.edit(insertion("x"))
    sent(thin)
    with pytest.raises(RemoteProtocolError, match="behind"):
        thin.acknowledged(1, START + 1)


def test_others_edits_are_transformed_over_what_is_in_flight_and_what_waits() -> None:
    thin = live()
    thin.edit(insertion("x", 1))
    first = sent(thin)
    thin.edit(insertion("y", 4))
    assert thin.document == "axbcy"
    change = thin.receive(
        News(START + 1, Operation.of(Insert("1"), Delete(1), Retain(2), Delete(0)))
    )
    assert change == Operation.of(Insert("1"), Delete(1))
    assert thin.document == "1xbcy"
    thin.receive(echo(replace(first, operation=insertion("x", 1)), START + 2))
    assert sent(thin).operation == insertion("y", 4)


@pytest.mark.parametrize(
    ("spoken", "shown"), [(TEXT_UNICODE, "mineothersabc"), (RICH_TEXT, "othersmineabc")]
)
def test_whose_insertion_stands_in_front_is_a_matter_of_the_format(spoken, shown: str) -> None:
    document = "abc" if spoken.is_plain else Operation.of(Insert("abc"))
    thin = live(document, spoken)
    thin.edit(insertion("mine"))
    thin.receive(News(START + 1, insertion("others")))
    expected = shown if spoken.is_plain else Operation.of(Insert(shown))
    assert thin.document == expected


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        (TEXT_UNICODE, Operation.of(Delete(1), Insert("x"))),
        (RICH_TEXT, Operation.of(Insert("x"), Delete(1))),
    ],
)
def test_what_waits_is_composed_in_the_order_of_the_format(spoken, expected: Operation) -> None:
    thin = live("abc" if spoken.is_plain else Operation.of(Insert("abc")), spoken)
    thin.edit(Operation.of(Delete(1), Insert("x")))
    assert sent(thin).operation == expected


@pytest.mark.parametrize(("spoken", "shown"), [(TEXT_UNICODE, "xy"), (RICH_TEXT, "xy")])
def test_what_is_in_flight_is_transformed_in_the_order_of_the_format(spoken, shown) -> None:
    thin = live("abc" if spoken.is_plain else Operation.of(Insert("abc")), spoken)
    thin.edit(Operation.of(Delete(1), Retain(1), Insert("x"), Delete(1)))
    sent(thin)
    thin.receive(News(START + 1, Operation.of(Retain(1), Delete(1))))
    thin.receive(News(START + 2, insertion("y", 1)))
    assert thin.document == (shown if spoken.is_plain else Operation.of(Insert(shown)))


def test_rich_text_is_sent_and_heard_in_units_and_shown_in_code_points() -> None:
    thin = live(Operation.of(Insert("😀b")), RICH_TEXT)
    thin.edit(insertion("👧", 1))
    assert sent(thin).operation == Operation.of(Retain(2), Insert("\ud83d\udc67"))
    change = thin.receive(News(START + 1, Operation.of(Retain(2), Delete(1))))
    assert change == Operation.of(Retain(2), Delete(1))
    assert thin.document == Operation.of(Insert("😀👧"))
    change = thin.receive(News(START + 2, Operation.of(Retain(2, BOLD))))
    assert change == Operation.of(Retain(1, BOLD))


def test_an_edit_that_does_not_fit_changes_nothing() -> None:
    thin = live()
    with pytest.raises(OperationPastEnd):
        thin.edit(insertion("x", 4))
    with pytest.raises(OperationMalformed):
        thin.edit(Operation.of(Insert("x", BOLD)))
    assert (thin.document, thin.to_send()) == ("abc", None)


def test_what_waits_is_bounded_and_the_edit_beyond_is_refused_at_once() -> None:
    thin = live(thin_waiting_characters_max=5, operation_components_max=4)
    thin.disconnected()
    thin.edit(insertion("12345"))
    with pytest.raises(LimitExceeded, match="thin_waiting_characters_max"):
        thin.edit(insertion("6"))
    thin.edit(Operation.of(Delete(5)))
    thin.edit(insertion("x", 1))
    thin.edit(insertion("y", 3))
    with pytest.raises(LimitExceeded, match="operation_components_max"):
        thin.edit(insertion("z"))
    assert thin.document == "axbyc"


def test_a_source_has_a_name() -> None:
    with pytest.raises(UsageError, match="name"):
        ThinDocument(TEXT_UNICODE, "")


# --- connections ----------------------------------------------------------------------------


def test_without_a_connection_nothing_is_sent_and_edits_are_composed() -> None:
    thin = ThinDocument(TEXT_UNICODE, "me")
    thin.edit(insertion("ab"))
    thin.edit(insertion("c", 2))
    assert (thin.phase, thin.to_send(), thin.document) == (Phase.AWAY, None, "abc")
    thin.connected()
    assert thin.to_send() == Resume("me", "me", 0)
    assert thin.to_send() is None
    assert thin.snapshot(START, "", 0) == Rejoined(EMPTY)
    assert sent(thin).operation == insertion("abc")


def test_after_a_reconnection_what_was_in_flight_is_sent_under_the_same_number() -> None:
    thin = live()
    thin.edit(insertion("x", 2))
    first = sent(thin)
    thin.disconnected()
    thin.edit(insertion("y"))
    thin.connected()
    assert thin.to_send() == Resume("me", "me~1", START)
    deletion = Operation.of(Delete(1))
    assert thin.caught_up([News(START + 1, deletion)]) == (Operation.of(Retain(1), Delete(1)),)
    again = sent(thin)
    assert (again.source, again.sequence) == (first.source, first.sequence)
    assert (again.base, again.operation) == (START + 1, insertion("x", 1))
    assert thin.document == "ybxc"


def test_what_had_arrived_before_the_cut_is_found_when_catching_up() -> None:
    thin = live()
    thin.edit(insertion("x"))
    first = sent(thin)
    thin.disconnected()
    thin.connected()
    thin.to_send()
    news = [News(START + 1, insertion("1", 3)), echo(first, START + 2), News(START + 3, EMPTY)]
    assert thin.caught_up(news) == (insertion("1", 4), EMPTY, EMPTY)
    assert (thin.is_settled, thin.revision, thin.document) == (True, START + 3, "xabc1")


def test_a_revision_heard_twice_counts_once() -> None:
    thin = live()
    thin.receive(News(START + 1, insertion("x")))
    assert thin.receive(News(START + 1, insertion("x"))) == EMPTY
    assert thin.document == "xabc"


@pytest.mark.parametrize(
    "news",
    [
        News(START + 2, EMPTY),
        News(START + 1, insertion("x", 4)),
        News(START + 1, Operation.of(Insert("x", BOLD))),
        News(START + 1, Operation((Insert("x"), Insert("y")))),
    ],
)
def test_a_revision_that_does_not_follow_or_fit_changes_nothing(news: News) -> None:
    thin = live()
    thin.edit(insertion("z"))
    before = thin.export()
    with pytest.raises(RemoteProtocolError):
        thin.receive(news)
    assert (thin.export(), thin.document) == (before, "zabc")


def test_where_one_of_many_revisions_does_not_fit_none_has_changed_anything() -> None:
    thin = live()
    thin.edit(insertion("z"))
    sent(thin)
    thin.disconnected()
    thin.connected()
    thin.to_send()
    thin.show_cursor("ann", (1,), START)
    before = thin.export()
    with pytest.raises(RemoteProtocolError):
        thin.caught_up([News(START + 1, insertion("x")), News(START + 2, insertion("x", 9))])
    assert (thin.export(), thin.document, thin.phase) == (before, "zabc", Phase.RESUMING)
    assert thin.caught_up([News(START + 1, insertion("x"))]) == (insertion("x", 1),)


def test_what_nobody_asked_for_is_an_error() -> None:
    thin = live()
    with pytest.raises(RemoteProtocolError):
        thin.caught_up([])
    thin.disconnected()
    with pytest.raises(RemoteProtocolError):
        thin.receive(News(START + 1, EMPTY))
    with pytest.raises(RemoteProtocolError):
        thin.snapshot(START + 1, "", 0)


def test_an_acknowledgement_beyond_what_has_been_heard_is_an_error() -> None:
    thin = live()
    thin.edit(insertion("x"))
    sent(thin)
    with pytest.raises(RemoteProtocolError, match="behind"):
        thin.acknowledged(1, START + 2)


# --- out of reach ---------------------------------------------------------------------------


def test_what_is_stale_is_sent_again_on_the_revision_that_was_heard_meanwhile() -> None:
    thin = live()
    thin.edit(insertion("x"))
    sent(thin)
    thin.receive(News(START + 1, EMPTY))
    thin.stale(1)
    assert sent(thin) == Submit("me~1", 1, START + 1, insertion("x"))


def test_what_is_stale_with_nothing_heard_since_asks_to_resume() -> None:
    thin = live()
    thin.edit(insertion("x"))
    sent(thin)
    thin.stale(7)
    assert thin.to_send() is None
    thin.stale(1)
    assert thin.to_send() == Resume("me", "me~1", START)
    assert thin.phase is Phase.RESUMING


def rejoining(document, spoken: Format = TEXT_UNICODE) -> ThinDocument:
    """One that has an "x" in flight and a "y" waiting, and is about to be told of a snapshot."""
    thin = live(document, spoken)
    thin.edit(insertion("x", 2))
    sent(thin)
    thin.edit(insertion("y", 3))
    thin.disconnected()
    thin.connected()
    thin.to_send()
    return thin


def test_edits_are_made_once_more_on_the_servers_document_beside_what_they_stood_beside() -> None:
    thin = rejoining("one two three")
    rejoined = thin.snapshot(2 * START, "zero one three", 0)
    assert rejoined.handed_back is None
    assert thin.document == "zero onxye three"
    assert apply("onxye two three", rejoined.change) == thin.document
    message = sent(thin)
    assert (message.base, message.operation) == (2 * START, insertion("xy", 7))


def test_after_a_snapshot_a_client_goes_by_another_source_from_one_on() -> None:
    thin = rejoining("one two three")
    thin.snapshot(2 * START, "one two three", 0)
    message = sent(thin)
    assert (message.source, message.sequence) == ("me~2", 1)


def test_what_is_in_the_snapshot_already_is_not_sent_again() -> None:
    thin = rejoining("one two three")
    thin.snapshot(2 * START, "onxe two three four", 1)
    assert thin.document == "onxye two three four"
    assert sent(thin).operation == insertion("y", 3)


def test_what_may_be_in_the_snapshot_or_not_is_handed_back() -> None:
    thin = rejoining("one two three")
    rejoined = thin.snapshot(2 * START, "onxe two three", None)
    assert rejoined.handed_back == HandedBack(Why.IN_DOUBT, "one two three", insertion("xy", 2))
    assert (thin.document, thin.to_send(), thin.is_settled) == ("onxe two three", None, True)


def test_where_nothing_was_in_flight_nothing_is_in_doubt() -> None:
    thin = live("one two three")
    thin.edit(insertion("x", 2))
    assert thin.snapshot(2 * START, "one two", None).handed_back is None
    assert thin.document == "onxe two"


def test_edits_of_a_text_that_is_gone_are_handed_back() -> None:
    thin = rejoining("one two three")
    rejoined = thin.snapshot(2 * START, "ZZZZ", 0)
    assert rejoined.handed_back == HandedBack(Why.ANOTHER_TEXT, "one two three", insertion("xy", 2))
    assert (thin.document, thin.to_send()) == ("ZZZZ", None)
    assert apply("onxye two three", rejoined.change) == "ZZZZ"


def test_attributes_are_made_once_more_too() -> None:
    thin = live(Operation.of(Insert("one 😀")), RICH_TEXT)
    thin.edit(Operation.of(Retain(4), Retain(1, BOLD)))
    thin.snapshot(2 * START, Operation.of(Insert("😀one 😀")), 0)
    assert thin.document == Operation.of(Insert("😀one "), Insert("😀", BOLD))
    assert sent(thin).operation == Operation.of(Retain(6), Retain(2, BOLD))


def test_a_document_of_another_format_is_none() -> None:
    thin = live()
    with pytest.raises(RemoteProtocolError, match="text-unicode"):
        thin.snapshot(2 * START, Operation.of(Insert("x")), 0)
    assert thin.document == "abc"


def test_what_is_refused_is_handed_back_and_what_waited_behind_it_stays() -> None:
    thin = live()
    thin.edit(insertion("bad", 1))
    sent(thin)
    thin.edit(insertion("good", 6))
    thin.edit(insertion("inside", 2))
    assert thin.refused(9) is None
    rejoined = thin.refused(1)
    assert rejoined is not None
    assert rejoined.handed_back == HandedBack(Why.REFUSED, "abc", insertion("bad", 1))
    assert thin.document == "ainsidebcgood"
    message = sent(thin)
    assert apply("abc", message.operation) == thin.document
    assert (message.source, message.sequence) == ("me~2", 1)


def test_what_was_sent_and_not_written_down_is_somebody_elses_after_a_restart() -> None:
    thin = live()
    restored = ThinDocument.restore(thin.export())
    thin.edit(insertion("x"))
    message = sent(thin)
    restored.edit(insertion("y"))
    restored.connected()
    restored.to_send()
    restored.caught_up([echo(message, START + 1)])
    assert restored.document == "yxabc"
    again = sent(restored)
    assert (again.source, again.sequence) == ("me~2", 1)


# --- cursors --------------------------------------------------------------------------------


def test_the_users_cursor_goes_behind_what_is_typed_and_stays_before_what_others_insert() -> None:
    thin = live()
    thin.place_cursor(1, 3)
    thin.edit(insertion("x", 1))
    assert thin.cursor == (2, 4)
    thin.receive(News(START + 1, insertion("1", 1)))
    assert thin.document == "ax1bc"
    assert thin.cursor == (2, 5)


def test_a_cursor_is_sent_once_the_server_knows_the_text_it_stands_in() -> None:
    thin = live(Operation.of(Insert("😀b")), RICH_TEXT)
    thin.place_cursor(1)
    assert thin.cursor_to_send() == (START, (2,))
    thin.edit(insertion("x"))
    assert thin.cursor_to_send() is None
    message = sent(thin)
    thin.receive(echo(message, START + 1))
    assert thin.cursor_to_send() == (START + 1, (3,))


def test_others_cursors_go_along_with_what_the_server_does_not_know() -> None:
    thin = live(Operation.of(Insert("😀b")), RICH_TEXT)
    thin.edit(insertion("👧", 1))
    assert thin.show_cursor("ann", (2, 3), START)
    assert thin.cursors == {"ann": (1, 3)}
    thin.receive(News(START + 1, insertion("\ud83d\ude00")))
    assert thin.cursors == {"ann": (2, 4)}
    thin.hide_cursor("ann")
    thin.hide_cursor("ann")
    assert thin.cursors == {}


def test_a_cursor_that_means_nothing_here_is_not_shown() -> None:
    thin = live(Operation.of(Insert("😀")), RICH_TEXT, thin_cursors_max=1)
    assert not thin.show_cursor("ann", (0,), START + 1)
    assert not thin.show_cursor("ann", (3,), START)
    assert not thin.show_cursor("ann", (1,), START)
    assert thin.show_cursor("ann", (2,), START)
    assert not thin.show_cursor("bob", (2,), START)
    assert thin.show_cursor("ann", (0,), START)
    plain = live()
    assert not plain.show_cursor("ann", (4,), START)
    assert not plain.show_cursor("ann", (-1,), START)


def test_the_users_cursor_stands_within_the_text() -> None:
    thin = live()
    with pytest.raises(UsageError):
        thin.place_cursor(4)
    thin.place_cursor(3)
    thin.snapshot(2 * START, "a", 0)
    assert thin.cursor == (1,)


def test_who_is_away_sees_nobodys_cursor() -> None:
    thin = live()
    thin.show_cursor("ann", (1,), START)
    thin.disconnected()
    assert thin.cursors == {}
    assert not thin.show_cursor("ann", (1,), START)


# --- what survives --------------------------------------------------------------------------


@pytest.mark.parametrize("spoken", [TEXT_UNICODE, RICH_TEXT])
def test_what_waits_survives_a_restart_and_is_sent_as_it_would_have_been(spoken: Format) -> None:
    document = TEXT if spoken.is_plain else Operation.of(Insert(TEXT, BOLD))
    thin = live(document, spoken)
    thin.edit(insertion("😀", 2))
    first = sent(thin)
    thin.edit(Operation.of(Retain(3), Delete(2)))
    restored = ThinDocument.restore(thin.export())
    assert (restored.document, restored.revision) == (thin.document, START)
    assert restored.export() == thin.export()
    assert (restored.phase, restored.format) == (Phase.AWAY, spoken)
    restored.connected()
    assert restored.to_send() == Resume("me", "me~1", START)
    restored.caught_up([])
    assert restored.to_send() == first
    restored.receive(echo(first, START + 1))
    assert sent(restored).sequence == 2


def test_a_saved_state_is_coded_as_its_module_says() -> None:
    thin = ThinDocument(TEXT_UNICODE, "me")
    thin.edit(insertion("é"))
    data = bytes.fromhex("01 0c 746578742d756e69636f6465 02 6d65 00 01 00 00 00 00 01 01 02 c3a9")
    assert thin.export() == data
    for end in range(len(data)):
        with pytest.raises(StoreCorrupt):
            ThinDocument.restore(data[:end])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("02 0c 746578742d756e69636f6465 02 6d65 00 01 00 00 00 00 00", "format 2"),
        ("01 01 78 02 6d65 00 01 00 00 00 00 00", "not known"),
        ("01 0c 746578742d756e69636f6465 00 00 01 00 00 00 00 00", "no source"),
        ("01 0c 746578742d756e69636f6465 02 6d65 00 00 00 00 00 00 00", "sequence 0"),
        ("01 0c 746578742d756e69636f6465 02 6d65 00 01 00 01 00 00 00", "none of text-unicode"),
        ("01 0c 746578742d756e69636f6465 02 6d65 00 01 00 00 00 02 00", "flag 2"),
        ("01 0c 746578742d756e69636f6465 02 6d65 00 01 00 00 00 00 01 03 01", "goes to 1"),
        ("01 0c 746578742d756e69636f6465 02 6d65 00 01 00 00 00 00 00 00", "left over"),
    ],
)
def test_what_is_no_saved_state_is_corrupt(text: str, reason: str) -> None:
    with pytest.raises(StoreCorrupt, match=reason):
        ThinDocument.restore(bytes.fromhex(text))
