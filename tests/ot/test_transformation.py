"""Operations made at once: both orders end equal, over lists too, and positions go along."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_state.ot import (
    EMPTY,
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Order,
    Retain,
    Side,
    apply,
    check,
    compose,
    length_of,
    rebase,
    rebase_all,
    transform,
    transform_position,
)
from ot.operations import applied, documents, operations, sequences

PLAIN_TEXTS = documents(is_rich=False)
RICH_DOCUMENTS = documents(is_rich=True)
DOCUMENTS = st.booleans().flatmap(lambda is_rich: documents(is_rich=is_rich))
ORDERS = st.sampled_from(Order)
SIDES = st.sampled_from(Side)
LEFT, RIGHT = Side

BOLD = Attributes.of({"bold": True})


# --- one against one ------------------------------------------------------------------------


def assert_both_orders_end_equal(document, one: Operation, other: Operation, order: Order) -> None:
    """TP1."""
    other_after = transform(other, one, RIGHT, order=order)
    one_after = transform(one, other, LEFT, order=order)
    check(other_after, apply(document, one))
    check(one_after, apply(document, other))
    assert applied(document, [one, other_after]) == applied(document, [other, one_after])


@settings(deadline=None, max_examples=100)
@given(PLAIN_TEXTS, ORDERS, st.data())
def test_texts_end_equal_in_both_orders(document, order, data: st.DataObject) -> None:
    one, other = data.draw(operations(document)), data.draw(operations(document))
    assert_both_orders_end_equal(document, one, other, order)


@settings(deadline=None, max_examples=100)
@given(RICH_DOCUMENTS, ORDERS, st.data())
def test_documents_with_attributes_and_embeds_end_equal_in_both_orders(
    document, order, data: st.DataObject
) -> None:
    one, other = data.draw(operations(document)), data.draw(operations(document))
    assert_both_orders_end_equal(document, one, other, order)


def test_at_one_place_the_insertion_of_the_left_stands_in_front() -> None:
    one, other = Operation.of(Retain(1), Insert("x")), Operation.of(Retain(1), Insert("yy"))
    assert transform(one, other, LEFT) == one
    assert transform(one, other, RIGHT) == Operation.of(Retain(3), Insert("x"))


def test_of_one_attribute_the_left_has_the_say() -> None:
    one = Operation.of(Retain(2, Attributes.of({"bold": True, "link": "a"})))
    other = Operation.of(Retain(1, Attributes.of({"bold": None})))
    assert transform(one, other, LEFT) == one
    assert transform(one, other, RIGHT) == Operation.of(
        Retain(1, Attributes.of({"link": "a"})),
        Retain(1, Attributes.of({"bold": True, "link": "a"})),
    )


def test_what_the_other_has_deleted_is_neither_deleted_nor_formatted_again() -> None:
    other = Operation.of(Retain(1), Delete(3))
    assert transform(Operation.of(Delete(2)), other, LEFT) == Operation.of(Delete(1))
    assert transform(Operation.of(Retain(3, BOLD)), other, LEFT) == Operation.of(Retain(1, BOLD))
    assert transform(Operation.of(Retain(2), Insert("x")), other, LEFT) == Operation.of(
        Retain(1), Insert("x")
    )


def test_an_embed_is_one_character_to_others() -> None:
    other = Operation.of(Insert(Embed.of({"image": "cat.png"})))
    assert transform(Operation.of(Insert("x")), other, RIGHT) == Operation.of(
        Retain(1), Insert("x")
    )


def test_the_order_of_an_insertion_among_deletions_says_where_others_insert() -> None:
    among = Operation.of(Delete(1), Insert("x"), Delete(1))
    first = Operation.of(Insert("x"), Delete(2))
    other = Operation.of(Retain(1), Insert("y"))
    assert apply("ab", among) == apply("ab", first) == "x"
    assert applied("ab", [other, transform(among, other, LEFT)]) == "xy"
    late = Operation.of(Retain(2), Insert("y"))
    assert applied("ab", [late, transform(among, late, LEFT)]) == "xy"
    assert applied("abc", [among, transform(other, among, RIGHT)]) == "xyc"
    early = Operation.of(Delete(2), Insert("x"))
    assert applied("ab", [other, transform(early, other, LEFT)]) == "yx"


@settings(deadline=None)
@given(DOCUMENTS, ORDERS, SIDES, st.data())
def test_against_nothing_an_operation_stays_as_it_is(document, order, side, data) -> None:
    operation = data.draw(operations(document))
    assert transform(operation, EMPTY, side) == operation
    assert transform(EMPTY, operation, side, order=order) == EMPTY
    assert side.other.other is side is not side.other


# --- lists ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, ORDERS, SIDES, st.data())
def test_two_lists_end_equal_in_both_orders(document, order, side, data: st.DataObject) -> None:
    mine, theirs = data.draw(sequences(document)), data.draw(sequences(document))
    rebased = rebase_all(mine, theirs, side, order=order)
    assert (len(rebased.mine), len(rebased.theirs)) == (len(mine), len(theirs))
    assert applied(document, [*mine, *rebased.theirs]) == applied(
        document, [*theirs, *rebased.mine]
    )
    swapped = rebase_all(theirs, mine, side.other, order=order)
    assert (swapped.mine, swapped.theirs) == (rebased.theirs, rebased.mine)


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, ORDERS, SIDES, st.data())
def test_one_operation_is_rebased_as_a_list_of_one(document, order, side, data) -> None:
    operation, history = data.draw(operations(document)), data.draw(sequences(document, most=5))
    rebased = rebase(operation, history, side, order=order)
    assert rebased == rebase_all([operation], history, side, order=order).mine[0]
    check(rebased, applied(document, history))
    assert rebase(operation, [], side) == operation


class Server:
    """Gives operations their order: each is rebased on what its author did not know."""

    def __init__(self, document, incoming: Side, order: Order) -> None:
        self.document = document
        self.history: list[tuple[Operation, object]] = []
        self.incoming = incoming
        self.order = order

    def submit(self, operation: Operation, revision: int, author: object) -> None:
        missed = [each for each, _ in self.history[revision:]]
        operation = rebase(operation, missed, self.incoming, order=self.order)
        check(operation, self.document)
        self.document = apply(self.document, operation)
        self.history.append((operation, author))


class Client:
    """Has one operation under way at most, and any number waiting behind it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.document = server.document
        self.revision = 0
        self.waiting: list[Operation] = []
        self.is_under_way = False

    def edit(self, operation: Operation) -> None:
        self.document = apply(self.document, operation)
        self.waiting.append(operation)

    def send(self) -> None:
        if self.waiting and not self.is_under_way:
            self.is_under_way = True
            self.server.submit(self.waiting[0], self.revision, self)

    def receive(self) -> None:
        news = self.server.history[self.revision :]
        for operation, author in news:
            if author is self:
                self.waiting.pop(0)
                self.is_under_way = False
                continue
            rebased = rebase_all(
                self.waiting, [operation], self.server.incoming, order=self.server.order
            )
            self.waiting = list(rebased.mine)
            self.document = applied(self.document, rebased.theirs)
        self.revision += len(news)


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, ORDERS, SIDES, st.data())
def test_clients_with_several_in_hand_end_where_the_server_does(
    document, order, incoming, data: st.DataObject
) -> None:
    server = Server(document, incoming, order)
    clients = [Client(server) for _ in range(3)]
    for _ in range(data.draw(st.integers(0, 12))):
        client = data.draw(st.sampled_from(clients))
        match data.draw(st.sampled_from("eesr")):
            case "e":
                client.edit(data.draw(operations(client.document)))
            case "s":
                client.send()
            case _:
                client.receive()
    while any(client.waiting for client in clients):
        for client in clients:
            client.send()
            client.receive()
    for client in clients:
        client.receive()
        assert client.document == server.document


def test_a_server_that_orders_otherwise_than_a_client_ends_elsewhere() -> None:
    operation = Operation.of(Delete(1), Retain(1), Insert("x"), Delete(1))
    history = [Operation.of(Retain(1), Delete(1)), Operation.of(Retain(1), Insert("y"))]
    ends = {
        order: applied("abc", [*history, rebase(operation, history, RIGHT, order=order)])
        for order in Order
    }
    assert ends == {Order.AS_MADE: "yx", Order.INSERTIONS_FIRST: "xy"}


def test_composing_the_history_first_ends_elsewhere() -> None:
    document, operation = "abc", Operation.of(Retain(2), Insert("Q"))
    history = [Operation.of(Retain(1), Delete(1)), Operation.of(Retain(1), Insert("X"))]
    step_by_step = rebase(operation, history, LEFT)
    at_once = transform(operation, compose(*history), LEFT)
    assert applied(document, [*history, step_by_step]) == "aQXc"
    assert applied(document, [*history, at_once]) == "aXQc"


# --- positions ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, SIDES, st.data())
def test_a_position_is_where_an_insertion_there_would_come(document, side, data) -> None:
    operation = data.draw(operations(document))
    position = data.draw(st.integers(0, length_of(document)))
    marked = transform(Operation.of(Retain(position), Insert("|")), operation, side)
    moved = transform_position(position, operation, side)
    assert marked == Operation.of(Retain(moved), Insert("|"))
    assert 0 <= moved <= length_of(apply(document, operation))


@pytest.mark.parametrize(
    ("position", "left", "right"),
    [(0, 0, 0), (2, 2, 5), (3, 5, 5), (4, 5, 5), (5, 5, 5), (6, 6, 6)],
)
def test_positions_are_moved_by_insertions_and_fall_together_over_deletions(
    position: int, left: int, right: int
) -> None:
    operation = Operation.of(Retain(2), Insert("xyz"), Delete(3))
    assert transform_position(position, operation) == left
    assert transform_position(position, operation, RIGHT) == right


@settings(deadline=None)
@given(DOCUMENTS, SIDES, st.data())
def test_positions_keep_their_order(document, side, data: st.DataObject) -> None:
    operation = data.draw(operations(document))
    moved = [transform_position(at, operation, side) for at in range(length_of(document) + 1)]
    assert moved == sorted(moved)
