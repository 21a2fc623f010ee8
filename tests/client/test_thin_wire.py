"""What a thin client says to a ShareDB server and makes of its answers, without a socket.

The server is the one that stock clients are tested at (protocol/sharedb/scripted_server.py): where
it does otherwise than ours, it does as ShareDB itself does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crdt_client.thin import RICH_TEXT, TEXT_UNICODE, HandedBack, ThinDocument, Why
from crdt_client.thin.conversation import Changed, CursorsMoved, Standing
from crdt_client.thin.wire import ThinWire
from crdt_state.errors import LimitExceeded, RemoteProtocolError, RequestRefused
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import Delete, Insert, Operation, Retain
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.requests import Submit
from protocol.sharedb.scripted_server import EPOCH, Server, Text

if TYPE_CHECKING:
    from crdt_client.thin.conversation import Event
    from crdt_state.ot.formats import Format

A = DocumentId("notes/a")
RICH = DocumentId("rich/a")
DELETE = '{"a":"op","c":"notes","d":"a","v":null,"seq":1,"del":true}'


def insertion(content: str, at: int = 0) -> Operation:
    return Operation.of(Retain(at), Insert(content))


class Line:
    """A wire of one client, and what it has brought."""

    def __init__(self, server: Server, name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.server, self.name = server, name
        self.wire = ThinWire(f"id of {name}", cursor=name, limits=limits)
        self.events: list[Event] = []

    def open(self, document: DocumentId = A, spoken: Format = TEXT_UNICODE) -> ThinDocument:
        thin = ThinDocument(spoken, f"{self.name} {document}")
        self.wire.add(document, thin)
        return thin

    def connect(self) -> None:
        self.server.connect(self.name)
        self.wire.connected()

    def cut(self) -> None:
        self.server.disconnect(self.name)
        self.wire.disconnected()

    def edit(self, operation: Operation, document: DocumentId = A) -> None:
        self.wire.conversations[document].thin.edit(operation)
        self.wire.touch(document)

    def hear(self, message: dict[str, Any]) -> None:
        for heard in self.wire.receive(json.dumps(message)):
            self.events += heard.events

    @property
    def handed_back(self) -> list[HandedBack]:
        return [each for each in self.events if isinstance(each, HandedBack)]


def settle(*lines: Line) -> None:
    """Carry frames in both directions until there are none."""
    by_name = {line.name: line for line in lines}
    server = lines[0].server
    for _ in range(100):
        is_quiet = True
        for line in lines:
            for frame in line.wire.frames_to_send():
                is_quiet = False
                server.receive(line.name, frame.text)
        for name, text in server.frames():
            is_quiet = False
            if name in by_name:
                by_name[name].hear(json.loads(text))
        if is_quiet:
            return
    raise AssertionError("client and server never come to rest")


def met(*names: str, document: DocumentId = A, spoken: Format = TEXT_UNICODE) -> list[Line]:
    """Clients that follow `the cat`."""
    server = Server()
    lines = [Line(server, name) for name in names]
    for line in lines:
        line.open(document, spoken)
        line.connect()
    settle(*lines)
    lines[0].edit(insertion("the cat"), document)
    settle(*lines)
    return lines


def assert_all_show(text: str, *lines: Line) -> None:
    for line in lines:
        thin = line.wire.conversations[A].thin
        assert (thin.document, thin.is_settled) == (text, True), line.name
        assert line.wire.conversations[A].standing is Standing.FOLLOWING
        assert thin.revision == line.server.text(A).version


def stock(line: Line, frame: str) -> None:
    """Somebody with another client says this."""
    line.server.connect("stock")
    line.server.receive("stock", '{"a":"hs","id":null,"protocol":1,"protocolMinor":2}')
    line.server.receive("stock", frame)


# --- documents ----------------------------------------------------------------------------------


def test_what_is_edited_where_there_is_nothing_creates_the_document() -> None:
    one, two = met("one", "two")
    assert_all_show("the cat", one, two)
    assert [each["a"] for each in one.server.heard if each["client"] == "one"] == ["hs", "s", "op"]
    assert "create" in one.server.heard[-1]
    assert one.server.text(A).version == EPOCH + 1
    assert two.events == [Changed(insertion("the cat"))]


def test_concurrent_edits_end_equal() -> None:
    one, two = met("one", "two")
    one.server.held = {Submit}
    one.edit(insertion("black ", 4))
    two.edit(Operation.of(Retain(3), Delete(4)))
    settle(one, two)
    one.server.release()
    settle(one, two)
    assert_all_show("theblack ", one, two)


def test_where_others_did_the_same_and_no_version_was_made_nothing_is_handed_back() -> None:
    one, two = met("one", "two")
    one.server.held = {Submit}
    for line in (one, two):
        line.edit(Operation.of(Delete(4)))
    settle(one, two)
    two.edit(insertion("s", 3))
    one.server.release()
    settle(one, two)
    assert any(each.get("error", {}).get("code") == Code.NO_OP for each in one.server.said)
    assert_all_show("cats", one, two)
    assert not two.handed_back


def test_a_document_that_is_deleted_is_empty_and_what_waits_in_it_is_handed_back() -> None:
    one, two = met("one", "two")
    one.server.held = {Submit}
    one.edit(insertion("s", 7))
    settle(one, two)
    one.server.held = set()
    stock(one, DELETE)
    one.server.release()
    settle(one, two)
    assert_all_show("", one, two)
    assert [back.why for back in one.handed_back] == [Why.ANOTHER_TEXT]
    two.edit(insertion("anew"))
    settle(one, two)
    assert_all_show("anew", one, two)


def test_a_document_that_was_deleted_and_created_meanwhile_is_loaded_anew() -> None:
    one, two = met("one", "two")
    one.cut()
    stock(two, DELETE)
    settle(two)
    two.edit(insertion("a dog"))
    settle(two)
    one.connect()
    settle(one, two)
    assert_all_show("a dog", one, two)


def test_a_history_that_goes_back_is_followed_where_its_numbers_were_used_before() -> None:
    """What is submitted on a number that was the last of another history is answered."""
    (one,) = met("one")
    one.cut()
    text = one.server.text(A)
    one.server.texts[A] = Text(EPOCH, text.type, "so the cat", [], "so the cat")
    assert text.version == EPOCH + 1
    one.connect()
    settle(one)
    assert_all_show("so the cat", one)
    for letter in "xyz":
        one.edit(insertion(letter))
        settle(one)
    assert_all_show("zyxso the cat", one)


def test_a_base_out_of_reach_is_answered_by_a_snapshot_on_which_the_edit_is_made_again() -> None:
    one, two = met("one", "two")
    one.server.held = {Submit}
    one.edit(insertion("black ", 4))
    settle(one, two)
    text = one.server.text(A)
    one.server.texts[A] = Text(text.version, text.type, text.content, [], text.content)
    two.edit(insertion("so "))
    one.server.waiting.reverse()
    settle(one, two)
    one.server.texts[A].floor += 1
    one.server.release()
    settle(one, two)
    assert sorted(str(one.wire.conversations[A].thin.document)) == sorted("so the black cat")
    assert_all_show("so the black cat", one, two)
    assert not one.handed_back


def test_a_creation_that_was_lost_with_its_process_is_made_again() -> None:
    server = Server()
    one = Line(server, "one")
    one.open()
    one.connect()
    settle(one)
    one.edit(insertion("new"))
    assert one.wire.frames_to_send()  # lost on the way
    data = one.wire.conversations[A].thin.export()
    one.cut()
    again = Line(server, "again")
    again.wire.add(A, ThinDocument.restore(data))
    again.connect()
    settle(again)
    assert_all_show("new", again)
    assert not again.handed_back


def test_what_was_lost_is_not_in_a_document_that_is_not_there() -> None:
    server = Server()
    one = Line(server, "one")
    one.open()
    one.connect()
    settle(one)
    one.edit(insertion("new"))
    assert one.wire.frames_to_send()  # lost on the way
    one.cut()
    server.texts[A] = Text(EPOCH + 2**32)
    one.connect()
    settle(one)
    assert_all_show("new", one)
    assert not one.handed_back


def test_a_revision_that_does_not_fit_ends_the_connection_and_its_number_is_not_named_again() -> (
    None
):
    one, two = met("one", "two")
    bad = {"a": "op", "c": "notes", "d": "a", "v": EPOCH + 1, "src": "x", "seq": 1}
    with pytest.raises(RemoteProtocolError, match="does not apply"):
        one.hear({**bad, "op": [90, "x"]})
    one.cut()
    one.connect()
    for frame in one.wire.frames_to_send():
        one.server.receive("one", frame.text)
    one.hear(json.loads(one.server.frames()[0][1]))
    one.wire.frames_to_send()
    with pytest.raises(RemoteProtocolError):
        one.hear({**bad, "op": ["a", "b"]})
    one.cut()
    one.server.heard.clear()
    one.connect()
    two.edit(insertion("so "))
    settle(one, two)
    assert "v" not in next(each for each in one.server.heard if each["a"] == "s")
    assert_all_show("so the cat", one, two)


def test_of_a_document_that_was_let_go_of_nothing_is_heard() -> None:
    one, two = met("one", "two")
    other = one.open(DocumentId("notes/b"))
    settle(one, two)
    assert other.revision == EPOCH
    one.wire.remove(A)
    settle(one, two)
    two.edit(insertion("so "))
    settle(one, two)
    assert A not in one.wire.conversations
    assert one.server.heard[-2]["a"] == "u"


def test_who_may_not_read_asks_again_when_told_to() -> None:
    server = Server()
    server.readers_refused = True
    one = Line(server, "one")
    one.open()
    one.connect()
    settle(one)
    talk = one.wire.conversations[A]
    assert (talk.standing, talk.refusal and talk.refusal.code) == (
        Standing.REFUSED,
        Code.SNAPSHOT_READS_REJECTED,
    )
    server.readers_refused = False
    one.wire.ask_again()
    settle(one)
    assert_all_show("", one)


def test_a_document_of_another_type_is_let_go_of() -> None:
    one, _ = met("one", "two", document=RICH, spoken=RICH_TEXT)
    other = Line(one.server, "other")
    other.open(RICH)
    other.connect()
    settle(other)
    assert other.wire.conversations[RICH].standing is Standing.REFUSED
    assert one.server.heard[-1]["a"] == "u"


def test_documents_of_one_connection_are_bounded_and_have_names() -> None:
    line = Line(Server(), "one", Limits(channels_max=1))
    with pytest.raises(RequestRefused):
        line.open(DocumentId("without-a-slash"))
    line.open()
    with pytest.raises(LimitExceeded):
        line.open(DocumentId("notes/b"))


# --- the greeting -------------------------------------------------------------------------------


def test_nothing_is_said_before_both_have_greeted() -> None:
    line = Line(Server(), "one")
    line.open()
    line.connect()
    assert [json.loads(each.text)["a"] for each in line.wire.frames_to_send()] == ["hs"]
    assert not line.wire.frames_to_send()


def test_an_init_is_answered_by_a_greeting() -> None:
    line = Line(Server(), "one")
    line.open()
    line.connect()
    line.server.connections["one"].greet()
    settle(line)
    assert [each["a"] for each in line.server.heard] == ["hs", "hs", "s"]
    assert_all_show("", line)


@pytest.mark.parametrize(
    "answer",
    [
        {"a": "hs", "error": {"code": "ERR_X", "message": "no"}},
        {"a": "hs", "id": "x", "protocol": 2, "protocolMinor": 0, "type": "t"},
    ],
)
def test_a_server_that_does_not_greet_as_expected_is_left(answer: dict[str, Any]) -> None:
    line = Line(Server(), "one")
    line.connect()
    with pytest.raises(RemoteProtocolError):
        line.hear(answer)


# --- cursors ------------------------------------------------------------------------------------


def shown(version: int, value: Any, name: str = "two") -> dict[str, Any]:
    at = {"ch": "rich.a", "c": "rich", "d": "a", "t": RICH_TEXT.uri}
    return {"a": "p", **at, "id": name, "p": value, "pv": 1, "v": version, "src": "x"}


def test_a_cursor_of_a_later_version_is_held_until_that_has_come() -> None:
    one, two = met("one", "two", document=RICH, spoken=RICH_TEXT)
    thin = one.wire.conversations[RICH].thin
    at = thin.revision
    one.hear(shown(at + 1, {"index": 2, "length": 3}))
    assert not thin.cursors
    two.edit(insertion("x"), RICH)
    settle(one, two)
    assert thin.cursors == {"two": (2, 5)}
    assert one.events[-1] == CursorsMoved()
    one.hear(shown(at, {"index": 1, "length": 0}))
    assert thin.cursors == {"two": (2, 5)}
    one.hear(shown(at + 1, None))
    assert not thin.cursors


@pytest.mark.parametrize(
    "value", [{"index": -1}, {"index": True}, {"index": 1, "length": "x"}, "here", {"index": 99}]
)
def test_a_cursor_that_is_none_is_passed_over(value: Any) -> None:
    (one,) = met("one", document=RICH, spoken=RICH_TEXT)
    thin = one.wire.conversations[RICH].thin
    one.hear(shown(thin.revision, value))
    assert not thin.cursors


def test_one_word_of_a_cursor_is_under_way_at_a_time() -> None:
    one, two = met("one", "two", document=RICH, spoken=RICH_TEXT)
    one.server.heard.clear()
    talk = one.wire.conversations[RICH]
    for position in range(5):
        talk.thin.place_cursor(position)
        talk.pointing.is_due = True
        one.wire.touch(RICH)
        for frame in one.wire.frames_to_send():
            one.server.receive("one", frame.text)
    assert [each["p"] for each in one.server.heard] == [{"index": 0, "length": 0}]
    settle(one, two)
    assert [each["p"] for each in one.server.heard][1:] == [{"index": 4, "length": 0}]
    assert two.wire.conversations[RICH].thin.cursors == {"one": (4,)}


def test_a_cursor_waits_until_the_server_knows_the_text_it_stands_in() -> None:
    one, two = met("one", "two", document=RICH, spoken=RICH_TEXT)
    one.server.held = {Submit}
    one.edit(insertion("xyz"), RICH)
    one.wire.conversations[RICH].thin.place_cursor(3)
    one.wire.conversations[RICH].pointing.is_due = True
    settle(one, two)
    assert not two.wire.conversations[RICH].thin.cursors
    one.server.release()
    settle(one, two)
    assert two.wire.conversations[RICH].thin.cursors == {"one": (3,)}
