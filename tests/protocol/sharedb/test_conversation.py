"""`crdt_state.protocol.sharedb.conversation`: what is asked, what is answered, in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.errors import RemoteProtocolError, RevisionsSkipped
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.conversation import Phase, ShareDbProtocol
from crdt_state.protocol.sharedb.parts import (
    Change,
    Create,
    Delete,
    Edit,
    Failure,
    Presence,
    Snapshot,
)
from crdt_state.protocol.sharedb.replies import (
    BulkFetched,
    BulkSubscribed,
    BulkUnsubscribed,
    Fetched,
    Greeting,
    Init,
    Operation,
    Pong,
    PresenceRequested,
    PresenceSubscribed,
    PresenceUnsubscribed,
    QueryUnsubscribed,
    Refusal,
    Reply,
    Subscribed,
    Unsubscribed,
    decode_reply,
)
from crdt_state.protocol.sharedb.requests import (
    BulkFetch,
    BulkSubscribe,
    BulkUnsubscribe,
    Fetch,
    Handshake,
    Ping,
    PresenceRequest,
    PresenceSubscribe,
    PresenceUnsubscribe,
    QueryFetch,
    QuerySubscribe,
    QueryUnsubscribe,
    Request,
    SnapshotFetch,
    SnapshotFetchByTimestamp,
    Submit,
    Subscribe,
    Unsubscribe,
    encode_request,
)
from crdt_state.protocol.sharedb.text_types import DEFAULT, RICH_TEXT, TEXT_UNICODE

A, B = DocumentId("notes/a"), DocumentId("notes/b")
SMALL = replace(DEFAULT_LIMITS, channels_max=3, sharedb_submits_max=3, sharedb_presences_max=2)
START = 7 * 2**32
SHOWN = Snapshot(START, TEXT_UNICODE.uri, "cat")
CURSOR = Presence(
    document=A, id="x", value={"index": 1, "length": 0}, number=0, version=1, type=RICH_TEXT.uri
)


class Peer:
    """The machine, and a client that says and reads messages as values."""

    def __init__(self, limits: Limits = SMALL, *, came_back_as: str | None = None) -> None:
        self.protocol = ShareDbProtocol("me", limits)
        self.ask(Handshake(came_back_as, 1, 2))
        self.heard()

    def ask(self, *requests: Request) -> list[Any]:
        return [asked for each in requests for asked in self.protocol.receive(encode_request(each))]

    def ask_one(self, request: Request) -> Any:
        (asked,) = self.ask(request)
        return asked

    def heard(self) -> list[Reply]:
        return [decode_reply(each, DEFAULT_LIMITS) for each in self.protocol.frames_to_send()]

    def refused(self) -> Failure:
        (refusal,) = self.heard()
        assert isinstance(refusal, Refusal)
        return refusal.failure

    def follow(self, document: DocumentId = A) -> None:
        self.protocol.show(self.ask_one(Subscribe(document)), replace(SHOWN))
        self.heard()


@pytest.fixture
def peer() -> Peer:
    return Peer()


def made(
    version: int,
    text: str = "x",
    *,
    document: DocumentId = A,
    source: str = "other",
    sequence: int | None = 1,
    change: Change | None = None,
) -> Operation:
    return Operation(document, START + version, source, sequence, change or Edit([text]))


def own(version: int, sequence: int = 1) -> Operation:
    return made(version, source="me", sequence=sequence)


def acknowledged(version: int, sequence: int = 1) -> Operation:
    return Operation(A, START + version, "me", sequence, None)


def edit(base: int, sequence: int = 1, *, source: str | None = None) -> Submit:
    return Submit(A, START + base, source, sequence, Edit(["x"]))


# --- the greeting ---------------------------------------------------------------------------------


def test_a_handshake_is_answered_and_names_the_source() -> None:
    protocol = ShareDbProtocol("me", SMALL)
    assert protocol.phase is Phase.BEGINNING
    assert protocol.receive(encode_request(Handshake(None, 1, 2))) == []
    assert protocol.phase is Phase.READY
    (frame,) = protocol.frames_to_send()
    assert decode_reply(frame, SMALL) == Greeting("me", 1, 2, DEFAULT)
    assert protocol.frames_to_send() == []


def test_who_comes_back_keeps_its_source() -> None:
    peer = Peer(came_back_as="before")
    assert peer.protocol.source == "before"
    assert peer.ask_one(edit(0)).source == "before"


def test_the_handshake_is_said_again_behind_an_init(peer: Peer) -> None:
    peer.protocol.greet()
    assert peer.ask(Handshake(None, 1, 2), Handshake("me", 1, 3)) == []
    greeting = Greeting("me", 1, 2, DEFAULT)
    assert peer.heard() == [Init("me", 1, 2, DEFAULT), greeting, greeting]


def test_a_second_handshake_does_not_make_another_of_it(peer: Peer) -> None:
    peer.ask(Handshake("another", 1, 2))
    assert peer.refused().code == Code.CLIENT_ID_BADLY_FORMED
    assert peer.protocol.source == "me"


@pytest.mark.parametrize(("major", "minor"), [(0, 2), (1, 0), (1, 1), (2, 0)])
def test_another_version_is_refused(major: int, minor: int) -> None:
    protocol = ShareDbProtocol("me", SMALL)
    protocol.receive(encode_request(Handshake(None, major, minor)))
    (frame,) = protocol.frames_to_send()
    assert "ERR_PROTOCOL_VERSION_NOT_SUPPORTED" in frame
    assert protocol.phase is Phase.BEGINNING


def test_nothing_is_heard_before_the_handshake() -> None:
    protocol = ShareDbProtocol("me", SMALL)
    for request in (Ping(), Subscribe(A), edit(0)):
        assert protocol.receive(encode_request(request)) == []
    frames = [json.loads(frame) for frame in protocol.frames_to_send()]
    assert [frame["error"]["code"] for frame in frames] == [Code.MESSAGE_BADLY_FORMED] * 3
    assert frames[1]["a"] == "s"
    assert frames[1]["d"] == "a"


# --- what is answered at once ---------------------------------------------------------------------


def test_a_ping_is_answered(peer: Peer) -> None:
    assert peer.ask(Ping()) == []
    assert peer.heard() == [Pong()]


def test_what_is_not_there_is_refused_by_its_number(peer: Peer) -> None:
    for request, code in (
        (QueryFetch(4), Code.DATABASE_METHOD_NOT_IMPLEMENTED),
        (QuerySubscribe(5), Code.DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE),
        (SnapshotFetch(6), Code.DATABASE_METHOD_NOT_IMPLEMENTED),
        (SnapshotFetchByTimestamp(7), Code.DATABASE_METHOD_NOT_IMPLEMENTED),
    ):
        assert peer.ask(request) == []
        (refusal,) = peer.heard()
        assert isinstance(refusal, Refusal)
        assert refusal.asked["id"] == request.id
        assert refusal.failure.code == code
    assert peer.ask(QueryUnsubscribe(5)) == []
    assert peer.heard() == [QueryUnsubscribed(5)]


def test_an_unknown_action_is_answered_and_the_connection_goes_on(peer: Peer) -> None:
    assert peer.protocol.receive('{"a":"zz","c":"notes"}') == []
    assert peer.refused().code == Code.MESSAGE_BADLY_FORMED
    peer.ask(Ping())
    assert peer.heard() == [Pong()]


@pytest.mark.parametrize("frame", ["", "5", "[]", "nonsense"])
def test_what_is_no_message_ends_the_connection(peer: Peer, frame: str) -> None:
    with pytest.raises(RemoteProtocolError):
        peer.protocol.receive(frame)


# --- reading --------------------------------------------------------------------------------------


def test_a_subscription_is_answered_by_a_snapshot_and_then_by_what_is_new(peer: Peer) -> None:
    asked = peer.ask_one(Subscribe(A))
    peer.protocol.tell(made(-1))
    peer.protocol.show(asked, SHOWN)
    peer.protocol.tell(made(0))
    assert peer.heard() == [Subscribed(A, SHOWN), made(0)]


def test_a_subscription_from_a_version_is_answered_behind_what_was_missed(peer: Peer) -> None:
    asked = peer.ask_one(Subscribe(A, START))
    peer.protocol.catch_up(asked, [made(0), made(1)])
    peer.protocol.tell(made(1))
    peer.protocol.tell(made(2))
    assert peer.heard() == [made(0), made(1), Subscribed(A), made(2)]


def test_what_would_leave_a_gap_is_not_told(peer: Peer) -> None:
    asked = peer.ask_one(Subscribe(A, START))
    for changes in ([made(1)], [made(0), made(2)], [made(0), made(0)]):
        with pytest.raises(RevisionsSkipped):
            peer.protocol.catch_up(asked, changes)
    assert peer.heard() == []
    peer.protocol.catch_up(asked, [])
    with pytest.raises(RevisionsSkipped, match=r"tell what is between them first"):
        peer.protocol.tell(made(1))
    assert peer.heard() == [Subscribed(A)]


def test_who_has_no_version_cannot_be_caught_up(peer: Peer) -> None:
    with pytest.raises(ValueError, match="needs a snapshot"):
        peer.protocol.catch_up(peer.ask_one(Subscribe(A)), [])


def test_nothing_is_told_of_what_is_not_followed(peer: Peer) -> None:
    peer.follow()
    assert peer.ask(Unsubscribe(A)) == [Unsubscribe(A)]
    peer.protocol.tell(made(0))
    peer.protocol.replace(A, SHOWN)
    peer.protocol.tell(made(0, document=B))
    assert peer.heard() == [Unsubscribed(A)]
    assert peer.ask(Unsubscribe(A)) == [], "nothing is left to be ended"
    assert peer.heard() == [Unsubscribed(A)]


def test_an_answer_that_comes_too_late_follows_nothing(peer: Peer) -> None:
    first = peer.ask_one(Subscribe(A))
    peer.ask(Unsubscribe(A))
    peer.protocol.show(first, SHOWN)
    peer.protocol.tell(made(0))
    assert peer.heard() == [Unsubscribed(A), Subscribed(A, SHOWN)]
    old, new = peer.ask(Subscribe(A), Subscribe(A))
    peer.protocol.refuse(old, Code.SNAPSHOT_READS_REJECTED, "no")
    peer.protocol.show(new, SHOWN)
    peer.heard()
    peer.protocol.tell(made(0))
    assert peer.heard() == [made(0)]


def test_a_bulk_is_asked_and_answered_document_by_document(peer: Peer) -> None:
    bulk = BulkSubscribe("notes", (("a", START), ("..", 0), ("b", 3)))
    first, second = peer.ask(bulk)
    assert (first, second) == (Subscribe(A, START, True), Subscribe(B, 3, True))
    (refused,) = peer.heard()
    assert isinstance(refused, BulkSubscribed)
    assert [key for key, _ in refused.shown or ()] == [".."]
    peer.protocol.refuse(second, Code.SNAPSHOT_READS_REJECTED, "no")
    peer.protocol.catch_up(first, [made(0)])
    failure = Failure(Code.SNAPSHOT_READS_REJECTED, "no")
    assert peer.heard() == [
        BulkSubscribed("notes", (("b", failure),)),
        made(0),
        BulkSubscribed("notes", None, ("a",)),
    ]
    assert peer.ask(BulkUnsubscribe("notes", (("a", None), ("..", None), ("b", None)))) == [
        Unsubscribe(A)
    ]
    assert peer.heard() == [BulkUnsubscribed("notes", ("a", "..", "b"))]


def test_a_bulk_fetch_is_answered_as_one(peer: Peer) -> None:
    (asked,) = peer.ask(BulkFetch("notes", (("a", None),)))
    peer.protocol.show(asked, SHOWN)
    assert peer.heard() == [BulkFetched("notes", (("a", SHOWN),))]
    assert peer.ask(BulkFetch("notes", ())) == []
    assert peer.heard() == [BulkFetched("notes", ())]


def test_a_fetch_follows_nothing(peer: Peer) -> None:
    peer.protocol.show(peer.ask_one(Fetch(A)), SHOWN)
    peer.protocol.tell(made(0))
    assert peer.heard() == [Fetched(A, SHOWN)]


def test_a_fetch_may_say_what_was_told_and_moves_a_follower(peer: Peer) -> None:
    peer.follow()
    peer.protocol.tell(made(0))
    peer.protocol.catch_up(peer.ask_one(Fetch(A, START)), [made(0), made(1)])
    peer.protocol.tell(made(1))
    peer.protocol.tell(made(2))
    assert peer.heard() == [made(0), made(0), made(1), Fetched(A), made(2)]


def test_a_connection_follows_so_many_documents_and_no_more(peer: Peer) -> None:
    names = [DocumentId(f"notes/{name}") for name in "abcd"]
    assert len(peer.ask(*map(Subscribe, names))) == 3
    assert peer.refused().code == Code.LIMIT_EXCEEDED
    assert peer.ask(BulkSubscribe("notes", (("d", None),))) == []
    (answer,) = peer.heard()
    assert isinstance(answer, BulkSubscribed)
    peer.ask(Subscribe(A), Unsubscribe(B), Subscribe(names[3]))
    assert peer.heard() == [Unsubscribed(B)]


# --- writing --------------------------------------------------------------------------------------


def test_a_submission_is_asked_with_its_source(peer: Peer) -> None:
    assert peer.ask_one(edit(0)) == edit(0, source="me")
    assert peer.ask_one(edit(0, source="before")) == edit(0, source="before")
    assert peer.ask_one(Submit(A, None, None, 2, Delete())).change == Delete()
    assert peer.heard() == []


def test_a_creation_names_its_type_in_full(peer: Peer) -> None:
    created = peer.ask_one(Submit(A, None, None, 1, Create("rich-text", [])))
    assert created.change == Create(RICH_TEXT.uri, [])
    assert peer.ask(Submit(A, None, None, 2, Create(DEFAULT, {}))) == []
    assert peer.refused().code == Code.DOC_TYPE_NOT_RECOGNIZED


def test_an_edit_without_a_base_is_refused(peer: Peer) -> None:
    assert peer.ask(Submit(A, None, None, 1, Edit([]))) == []
    assert peer.refused().code == Code.MESSAGE_BADLY_FORMED


def test_an_acknowledgement_comes_behind_what_came_before(peer: Peer) -> None:
    asked = peer.ask_one(edit(0))
    with pytest.raises(RevisionsSkipped):
        peer.protocol.acknowledge(asked, START + 2, [made(0)])
    with pytest.raises(RevisionsSkipped):
        peer.protocol.acknowledge(asked, START + 2, [made(0), made(1), made(2)])
    assert peer.heard() == []
    peer.protocol.acknowledge(asked, START + 2, [made(0), made(1)])
    assert peer.heard() == [made(0), made(1), acknowledged(2)]


def test_a_follower_is_not_told_twice_what_came_before(peer: Peer) -> None:
    peer.follow()
    asked = peer.ask_one(edit(0))
    peer.protocol.tell(made(0))
    peer.protocol.acknowledge(asked, START + 2, [made(0), made(1)])
    peer.protocol.tell(own(2))
    peer.protocol.tell(made(3))
    assert peer.heard() == [made(0), made(1), acknowledged(2), made(3)]


def test_a_submission_that_is_told_is_acknowledged_by_that(peer: Peer) -> None:
    peer.follow()
    asked = peer.ask_one(edit(0))
    peer.protocol.tell(made(0))
    peer.protocol.tell(own(1))
    peer.protocol.acknowledge(asked, START + 1, [made(0)])
    assert peer.heard() == [made(0), acknowledged(1)]


def test_a_submission_sent_again_is_acknowledged_where_it_was_made(peer: Peer) -> None:
    asked, subscribe = peer.ask(edit(0), Subscribe(A, START))
    peer.protocol.acknowledge(asked, START + 1, [made(0)])
    peer.protocol.catch_up(subscribe, [made(0), own(1), made(2)])
    assert peer.heard() == [
        made(0),
        acknowledged(1),
        made(0),
        own(1),
        made(2),
        Subscribed(A),
    ]


def test_a_submission_among_what_was_missed_is_acknowledged_by_that(peer: Peer) -> None:
    asked, subscribe = peer.ask(edit(0), Subscribe(A, START))
    peer.protocol.catch_up(subscribe, [made(0), own(1), made(2)])
    peer.protocol.acknowledge(asked, START + 1)
    assert peer.heard() == [made(0), acknowledged(1), made(2), Subscribed(A)]


def test_an_old_submission_sent_again_by_a_follower_is_acknowledged(peer: Peer) -> None:
    peer.follow()
    peer.protocol.tell(made(0))
    peer.protocol.tell(made(1))
    peer.heard()
    peer.protocol.acknowledge(peer.ask_one(edit(0)), START)
    assert peer.heard() == [acknowledged(0)]
    peer.protocol.tell(made(2))
    assert peer.heard() == [made(2)]


def test_what_others_made_under_the_same_number_is_told(peer: Peer) -> None:
    peer.follow()
    peer.ask(edit(0))
    peer.protocol.tell(made(0, source="other", sequence=1))
    peer.protocol.tell(made(1, source="me", sequence=None))
    assert peer.heard() == [made(0), made(1, source="me", sequence=None)]


def test_a_creation_is_acknowledged_where_it_was_made(peer: Peer) -> None:
    asked = peer.ask_one(Submit(A, None, None, 1, Create("text-unicode", "x")))
    peer.protocol.acknowledge(asked, START)
    assert peer.heard() == [acknowledged(0)]


def test_the_same_submission_is_asked_once_while_it_is_under_way(peer: Peer) -> None:
    asked = peer.ask_one(edit(0))
    assert peer.ask(edit(0)) == []
    peer.protocol.acknowledge(asked, START)
    assert peer.ask(edit(0)) == [edit(0, source="me")]


def test_a_refused_submission_says_which(peer: Peer) -> None:
    asked = peer.ask_one(edit(0, 4))
    peer.protocol.refuse(asked, Code.NOT_PERMITTED, "you may not write here")
    peer.protocol.refuse(asked, Code.NOT_PERMITTED, "said once")
    (refusal,) = peer.heard()
    assert isinstance(refusal, Refusal)
    assert refusal.asked == {"a": "op", "c": "notes", "d": "a", "v": START, "src": "me", "seq": 4}
    assert refusal.failure == Failure(Code.NOT_PERMITTED, "you may not write here")


def test_nothing_left_is_said_once(peer: Peer) -> None:
    asked = peer.ask_one(edit(0, 4))
    peer.protocol.dismiss(asked)
    peer.protocol.dismiss(asked)
    assert peer.refused().code == Code.NO_OP


def test_so_many_submissions_are_under_way_and_no_more(peer: Peer) -> None:
    assert len(peer.ask(*[edit(0, number) for number in range(5)])) == 3
    refusals = peer.heard()
    assert len(refusals) == 2
    assert all(isinstance(each, Refusal) for each in refusals)


def test_the_last_number_is_refused(peer: Peer) -> None:
    assert peer.ask(edit(0, 2**53 - 2)) != []
    assert peer.ask(edit(0, 2**53 - 1)) == []
    assert peer.refused().code == Code.CONNECTION_SEQ_INTEGER_OVERFLOW


# --- another history ------------------------------------------------------------------------------


def gone(version: int) -> Operation:
    return Operation(A, START + version, "the server", None, Delete())


def impossible(version: int) -> Operation:
    return Operation(A, START + version, "the server", None, Edit([]))


def test_a_version_of_another_history_is_ended_before_the_snapshot(peer: Peer) -> None:
    peer.protocol.show(peer.ask_one(Subscribe(A, START - 5)), SHOWN)
    peer.protocol.tell(made(0))
    assert peer.heard() == [gone(-5), Subscribed(A, SHOWN), made(0)]


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_version_above_the_head_is_made_to_be_forgotten(peer: Peer, ahead: int) -> None:
    peer.protocol.show(peer.ask_one(Fetch(A, START + ahead)), SHOWN)
    assert peer.heard() == [gone(ahead), impossible(ahead + 1), Fetched(A, SHOWN)]


def test_a_follower_is_told_that_a_history_is_over(peer: Peer) -> None:
    peer.follow()
    later = Snapshot(START + 2**32, TEXT_UNICODE.uri, "new")
    peer.protocol.replace(A, later)
    peer.protocol.tell(replace(made(0), version=later.version))
    assert peer.heard() == [gone(0), Fetched(A, later), replace(made(0), version=later.version)]


def test_what_is_under_way_is_let_go_with_its_history(peer: Peer) -> None:
    peer.follow()
    asked = peer.ask_one(edit(0))
    peer.protocol.replace(A, replace(SHOWN, version=START + 9))
    peer.heard()
    peer.protocol.refuse(asked, Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND, "too old")
    assert peer.heard() == [], "the client does not wait for it any more, and would throw"
    peer.protocol.tell(own(9))
    assert peer.heard() == [own(9)], "its editor was told that it is lost, and it was not"


def test_a_deletion_is_not_given_up_with_its_history(peer: Peer) -> None:
    peer.follow()
    under_way = peer.ask_one(Submit(A, START, None, 1, Delete()))
    peer.protocol.replace(A, replace(SHOWN, version=START + 9))
    peer.heard()
    peer.protocol.refuse(under_way, Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND, "too old")
    assert peer.refused().code == Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
    assert peer.ask(Submit(A, START + 1, None, 2, Delete())) != [], "as the client sends it next"


def test_a_base_of_another_history_is_refused_with_a_snapshot(peer: Peer) -> None:
    peer.follow()
    asked = peer.ask_one(edit(0))
    snapshot = replace(SHOWN, version=START + 9)
    peer.protocol.begin_anew(asked, snapshot, Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND, "too old")
    refusal, *rest = peer.heard()
    assert isinstance(refusal, Refusal)
    assert refusal.failure.code == Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
    assert rest == [gone(0), Fetched(A, snapshot)]
    assert peer.ask(edit(0, 2)) == [], "sent before the client knew"
    assert peer.ask(edit(9, 3)) != []
    peer.ask(Fetch(A))
    assert peer.ask(edit(0, 4)) != [], "what it says behind a load counts"


def test_what_was_said_before_a_follower_knew_is_taken_so(peer: Peer) -> None:
    peer.follow()
    peer.protocol.tell(made(0))
    peer.protocol.replace(A, replace(SHOWN, version=START + 9))
    assert peer.ask(edit(0), edit(1, 2)) == [], "it has given them up by now"
    assert peer.ask(Fetch(A, START + 1), Subscribe(A, START)) == [
        Fetch(A, START + 9), Subscribe(A, START + 9),
    ]  # fmt: skip
    assert peer.ask(edit(9, 3)) != []


def test_a_history_of_lesser_versions_is_told_from_the_one_before(peer: Peer) -> None:
    peer.follow()
    peer.protocol.replace(A, replace(SHOWN, version=5))
    assert peer.ask(edit(0), Submit(A, 4, None, 2, Edit([]))) == []
    assert peer.ask(Submit(A, 5, None, 3, Edit([])), Submit(A, 6, None, 4, Edit([]))) != []
    assert peer.ask(Fetch(A, START), Fetch(A, 6)) == [Fetch(A, 5), Fetch(A, 6)]


def test_a_subscriber_that_was_begun_anew_before_the_answer_is_where_it_was_brought(
    peer: Peer,
) -> None:
    asked = peer.ask_one(edit(0))
    subscribe = peer.ask_one(Subscribe(A, START))
    snapshot = replace(SHOWN, version=START + 9)
    peer.protocol.begin_anew(asked, snapshot, Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND, "too old")
    peer.heard()
    peer.protocol.show(subscribe, snapshot)
    assert peer.heard() == [Subscribed(A, snapshot)], "it is there already"
    peer.protocol.tell(made(9))
    assert peer.heard() == [made(9)]
    peer.protocol.replace(A, replace(SHOWN, version=3))
    assert peer.heard()[:2] == [gone(10), impossible(11)]


def test_a_subscription_named_a_version_before_an_acknowledgement_was_read(peer: Peer) -> None:
    peer.protocol.acknowledge(peer.ask_one(edit(0)), START + 1, [made(0)])
    subscribe = peer.ask_one(Subscribe(A, START))
    peer.heard()
    later = replace(SHOWN, version=START + 2**32)
    peer.protocol.show(subscribe, later)
    assert peer.heard() == [gone(2), Subscribed(A, later)]
    peer.ask(Unsubscribe(A))
    subscribe = peer.ask_one(Subscribe(A, START + 2))
    peer.heard()
    peer.protocol.show(subscribe, replace(later, version=START + 2**33))
    assert peer.heard()[0] == gone(2**32), "where it was when it unsubscribed"


def test_what_a_client_is_at_is_forgotten_at_some_number(peer: Peer) -> None:
    for number in range(10):
        document = DocumentId(f"notes/{number}")
        peer.protocol.show(peer.ask_one(Fetch(document)), SHOWN)
    assert len(peer.protocol._reached) == SMALL.channels_max


def test_a_refused_creation_begins_nothing_anew(peer: Peer) -> None:
    asked = peer.ask_one(Submit(A, None, None, 1, Create("text-unicode", "x")))
    peer.protocol.begin_anew(asked, SHOWN, Code.DOC_ALREADY_CREATED, "it is there")
    assert peer.refused().code == Code.DOC_ALREADY_CREATED


def test_bases_that_were_let_go_are_forgotten_at_some_number(peer: Peer) -> None:
    for number in range(10):
        document = DocumentId(f"notes/{number}")
        asked = peer.ask_one(Submit(document, START, None, 1, Edit(["x"])))
        peer.protocol.begin_anew(asked, SHOWN, Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND, "too old")
    assert peer.ask(Submit(document, START, None, 2, Edit(["x"]))) == []
    assert peer.ask(Submit(DocumentId("notes/0"), START, None, 2, Edit(["x"]))) != []
    assert len(peer.protocol._anew) == SMALL.channels_max


# --- presence -------------------------------------------------------------------------------------


def test_presence_is_asked_with_its_source_and_answered_as_it_was(peer: Peer) -> None:
    asked = peer.ask_one(CURSOR)
    assert asked == replace(CURSOR, source="me")
    peer.protocol.accept(asked)
    assert peer.heard() == [asked]


def test_others_are_shown_to_who_listens(peer: Peer) -> None:
    other = replace(CURSOR, source="other")
    peer.protocol.show_presence(other)
    assert peer.heard() == []
    asked = peer.ask_one(PresenceSubscribe(A, 1))
    peer.protocol.listen(asked)
    peer.protocol.show_presence(other)
    peer.protocol.show_presence(replace(CURSOR, source="me"))
    peer.protocol.show_presence(replace(other, document=B))
    peer.protocol.ask_for_presence(A)
    peer.protocol.ask_for_presence(B)
    assert peer.heard() == [PresenceSubscribed(A, 1), other, PresenceRequested(A)]
    assert peer.ask(PresenceUnsubscribe(A, 2)) == [PresenceUnsubscribe(A, 2)]
    assert peer.ask(PresenceUnsubscribe(A, 3)) == []
    peer.protocol.show_presence(other)
    assert peer.heard() == [PresenceUnsubscribed(A, 2), PresenceUnsubscribed(A, 3)]


def test_who_comes_back_is_asked_to_show_itself_again() -> None:
    peer = Peer(came_back_as="before")
    peer.protocol.listen(peer.ask_one(PresenceSubscribe(A, 1)))
    assert peer.heard() == [PresenceSubscribed(A, 1), PresenceRequested(A)]


def test_a_request_for_presence_is_answered_without_a_channel(peer: Peer) -> None:
    assert peer.ask(PresenceRequest(A)) == []
    peer.ask(PresenceSubscribe(A, 1))
    assert peer.ask(PresenceRequest(A)) == [PresenceRequest(A)]
    assert peer.heard() == [PresenceRequested(), PresenceRequested()]


def test_a_position_has_a_type_that_can_move_it_and_a_version(peer: Peer) -> None:
    for wrong, code in (
        (replace(CURSOR, type=TEXT_UNICODE.uri), Code.TYPE_DOES_NOT_SUPPORT_PRESENCE),
        (replace(CURSOR, type=None), Code.TYPE_DOES_NOT_SUPPORT_PRESENCE),
        (replace(CURSOR, type="x"), Code.DOC_TYPE_NOT_RECOGNIZED),
        (replace(CURSOR, version=None), Code.MESSAGE_BADLY_FORMED),
    ):
        assert peer.ask(wrong) == []
        (refusal,) = peer.heard()
        assert isinstance(refusal, Refusal)
        assert refusal.failure.code == code
        assert refusal.asked["pv"] == 0
        assert refusal.asked["id"] == "x"
    assert peer.protocol.end() == []


def test_a_presence_is_no_larger_than_awareness_is(peer: Peer) -> None:
    most = SMALL.awareness_bytes_max - 2
    assert peer.ask(replace(CURSOR, value="x" * most)) != []
    assert peer.ask(replace(CURSOR, value="x" * (most + 1))) == []
    assert peer.refused().code == Code.LIMIT_EXCEEDED
    (left,) = peer.protocol.end()
    assert left.value is None


def test_who_leaves_needs_no_type(peer: Peer) -> None:
    assert peer.ask(Presence(document=A, id="x", value=None, number=3)) != []


def test_at_the_end_all_that_was_shown_is_gone(peer: Peer) -> None:
    second = replace(CURSOR, id="y", document=B)
    refused = peer.ask(CURSOR, second)[1]
    peer.protocol.refuse(refused, Code.NOT_PERMITTED, "no")
    (left,) = peer.protocol.end()
    assert left == replace(CURSOR, source="me", value=None, number=CURSOR.number + 1)
    assert peer.protocol.end() == []


def test_so_many_presences_are_kept_and_no_more(peer: Peer) -> None:
    cursors = [replace(CURSOR, id=name) for name in "abc"]
    assert len(peer.ask(*cursors)) == 2
    assert peer.refused().code == Code.LIMIT_EXCEEDED
    assert len(peer.ask(*[PresenceSubscribe(DocumentId(f"n/{i}"), i) for i in range(3)])) == 2
    assert peer.refused().code == Code.LIMIT_EXCEEDED
    peer.ask(replace(CURSOR, id="a", value=None))
    assert peer.ask(cursors[2]) != []
    asked = peer.ask_one(PresenceSubscribe(DocumentId("n/0"), 9))
    peer.protocol.refuse(asked, Code.NOT_PERMITTED, "no")
    assert peer.refused().code == Code.NOT_PERMITTED
    assert peer.ask(PresenceSubscribe(DocumentId("n/9"), 10)) != []


# --- nonsense -------------------------------------------------------------------------------------


def test_whatever_is_said_is_answered_or_ends_the_connection() -> None:
    seed = Random().randrange(2**30)
    dice = Random(seed)
    peer = Peer(DEFAULT_LIMITS)
    values: list[Any] = [
        None, True, -1, 0, 5, 2**53, 1.5, "", "a", "notes", "notes.a", "rich-text", [], ["a"],
        {}, {"a": 1}, [[]], {"type": "rich-text"}, "x" * 300, "\u00e9\u0301",
    ]  # fmt: skip
    keys = ["c", "d", "v", "b", "id", "ch", "seq", "op", "create", "del", "src", "p", "pv", "t"]
    actions = ["hs", "f", "s", "u", "bf", "bs", "bu", "op", "pp", "p", "ps", "pu", "pr", "qf", "nt"]
    answered = asked = 0
    for _ in range(2_000):
        raw = {key: dice.choice(values) for key in dice.sample(keys, dice.randint(0, len(keys)))}
        raw["a"] = dice.choice([*actions, *values])
        if dice.random() < 0.7:
            raw |= {"c": "notes", "d": "a", "ch": "notes.a"}
        found = peer.protocol.receive(json.dumps(raw))
        said = peer.protocol.frames_to_send()
        is_again = raw["a"] == "op" and not found
        assert found or said or is_again, f"seed {seed}: {raw}"
        answered += bool(said)
        asked += bool(found)
        for each in found:
            if isinstance(each, Submit):
                peer.protocol.refuse(each, Code.UNKNOWN_ERROR, "a test")
        peer.protocol.frames_to_send()
    assert answered > 500, f"seed {seed}"
    assert asked > 50, f"seed {seed}"
