"""`crdt_state.sync.exchange`: what an answer confirms, and what it does not."""

from __future__ import annotations

import pytest

from crdt_state.errors import RemoteProtocolError, UpdateMalformed
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model import engine
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.model.state import EMPTY_UPDATE, decode_state_vector
from crdt_state.sync.exchange import Exchange
from hostile import deleting, section, string, update
from wired import BROKEN, typed


class Remote:
    """A y-websocket server as far as an exchange sees it: it answers from what it holds."""

    def __init__(self) -> None:
        self.state = EMPTY_UPDATE

    def take(self, *updates: bytes) -> None:
        self.state = engine.merge([self.state, *updates])

    def answer(self, state_vector: bytes) -> bytes:
        return engine.diff(self.state, state_vector)


class Local:
    """An exchange with the head it asks by."""

    def __init__(self) -> None:
        self.head = Head()
        self.exchange = Exchange(DEFAULT_LIMITS)

    def send(self, *updates: bytes) -> None:
        for each in updates:
            self.head.take(inspect(each, DEFAULT_LIMITS, merged=True))
            self.exchange.sent(each)


def deletes(client: int, start: int, end: int) -> bytes:
    return update(deletes=deleting((client, start, end - start)))


def test_what_the_remote_holds_is_confirmed() -> None:
    local, remote = Local(), Remote()
    local.send(typed("a"), typed("b", at=1), typed("x", client=2))
    remote.take(typed("a"), typed("b", at=1), typed("x", client=2))
    assert local.exchange.owes
    question = local.exchange.ask(local.head)
    assert not local.exchange.owes
    assert local.exchange.is_asking
    assert decode_state_vector(question) == {1: 1}, "all but the last counter of each client"
    assert local.exchange.answered(remote.answer(question))
    assert not local.exchange.owes
    assert not local.exchange.is_asking


def test_what_the_remote_lacks_is_owed_again() -> None:
    local, remote = Local(), Remote()
    local.send(typed("a"), typed("b", at=1))
    remote.take(typed("a"))
    assert not local.exchange.answered(remote.answer(local.exchange.ask(local.head)))
    assert local.exchange.owes
    remote.take(typed("b", at=1))
    assert local.exchange.answered(remote.answer(local.exchange.ask(local.head)))


def test_a_remote_that_lost_its_store_confirms_nothing() -> None:
    local, remote = Local(), Remote()
    local.send(typed("abc"))
    assert not local.exchange.answered(remote.answer(local.exchange.ask(local.head)))


def test_a_deletion_is_confirmed_only_when_the_answer_names_it() -> None:
    local, remote = Local(), Remote()
    local.send(typed("abc"), deletes(1, 1, 2))
    remote.take(typed("abc"))
    assert not local.exchange.answered(remote.answer(local.exchange.ask(local.head)))
    assert local.exchange.owes
    remote.take(deletes(1, 0, 3))
    assert local.exchange.answered(remote.answer(local.exchange.ask(local.head)))


def test_what_is_sent_after_a_question_needs_another_one() -> None:
    local, remote = Local(), Remote()
    local.send(typed("a"))
    remote.take(typed("a"))
    question = local.exchange.ask(local.head)
    local.send(typed("b", at=1))
    assert local.exchange.answered(remote.answer(question)), "the first question is confirmed"
    assert local.exchange.owes, "and the second update is not"


def test_the_first_answer_confirms_nothing() -> None:
    local = Local()
    local.exchange.begin()
    local.send(typed("a"))
    assert not local.exchange.answered(typed("a"))
    assert local.exchange.owes


def test_answers_are_taken_in_the_order_of_questions() -> None:
    local, remote = Local(), Remote()
    local.exchange.begin()
    local.send(typed("a"))
    remote.take(typed("a"))
    question = local.exchange.ask(local.head)
    assert not local.exchange.answered(EMPTY_UPDATE)
    assert local.exchange.is_asking
    assert local.exchange.answered(remote.answer(question))


def test_a_question_about_nothing_is_confirmed_by_any_answer() -> None:
    local = Local()
    local.exchange.ask(local.head)
    assert local.exchange.answered(EMPTY_UPDATE)


def test_an_answer_that_nobody_asked_for_ends_the_conversation() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked"):
        Exchange(DEFAULT_LIMITS).answered(EMPTY_UPDATE)


def test_one_question_at_a_time() -> None:
    local = Local()
    local.exchange.ask(local.head)
    with pytest.raises(AssertionError):
        local.exchange.ask(local.head)


def test_an_answer_that_is_no_update_is_refused() -> None:
    local = Local()
    local.exchange.ask(local.head)
    with pytest.raises(UpdateMalformed):
        local.exchange.answered(BROKEN)


def test_a_question_never_asks_from_the_middle_of_a_pair() -> None:
    local, remote = Local(), Remote()
    smile = update(section(1, 0, string("a\N{GRINNING FACE}")))
    local.send(smile)
    remote.take(smile)
    question = local.exchange.ask(local.head)
    assert decode_state_vector(question) == {1: 1}
    assert local.exchange.answered(remote.answer(question))
