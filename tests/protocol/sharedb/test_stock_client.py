"""The unmodified npm `sharedb` client takes what the machine says, and says what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from crdt_state.identifiers import DocumentId
from crdt_state.ot import apply, rich_text, text_unicode
from crdt_state.protocol.sharedb.codes import CODES, Code
from crdt_state.protocol.sharedb.parts import Create, Edit, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import Operation
from crdt_state.protocol.sharedb.requests import Fetch, Submit, Subscribe
from protocol.sharedb.scripted_server import EPOCH, Server, Stock, Text, stock_sharedb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]

A = DocumentId("notes/a")
PLAIN, RICH = text_unicode.URI, rich_text.URI


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(node_programs: Path) -> AsyncIterator[Stock]:
    async with stock_sharedb(node_programs) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def stock(node: Stock) -> AsyncIterator[Stock]:
    node.begin()
    yield node
    assert await node.do("nobody", "warnings") == []


async def written(stock: Stock, *clients: str, text: str = "the cat") -> None:
    """`notes/a` is a plain text, and these clients follow it."""
    for client in clients:
        await stock.open(client)
    await stock.do(clients[0], "create", "notes", "a", text, PLAIN)
    for client in clients:
        await stock.do(client, "subscribe", "notes", "a")
        await stock.events(client)
    stock.server.said.clear()


async def assert_all_show(stock: Stock, text: Any, *clients: str, key: str = "a") -> None:
    for client in clients:
        shown = await stock.show(client, key)
        assert shown["data"] == text, client
        assert not shown["pending"], client
        assert shown["version"] == stock.server.text(DocumentId(f"notes/{key}")).version, client


def edit_by_somebody(server: Server, wire: Any) -> None:
    """An edit that came from elsewhere, as those of Yjs clients do."""
    text = server.text(A)
    assert text.type is not None
    text.content = apply(text.content, text.type.read(wire, text.content))
    change = Operation(A, text.version, "somebody", None, Edit(wire))
    text.log.append(change)
    for protocol in server.connections.values():
        protocol.tell(change)


async def test_a_client_connects_and_pings(stock: Stock) -> None:
    await stock.open("one")
    assert await stock.do("one", "state") == "connected"
    assert await stock.do("one", "id") == "source-0"
    await stock.do("one", "ping")
    assert await stock.events("one") == [["pong", None]]


async def test_a_client_gets_along_with_init(stock: Stock) -> None:
    stock.server.connect("one")
    stock.server.connections["one"].greet()
    stock._write({"client": "one", "open": True})
    await stock.settle()
    assert [each["a"] for each in stock.server.said] == ["init", "hs", "hs"]
    assert await stock.do("one", "state") == "connected"
    assert await stock.events("one") == []


async def test_what_is_created_and_edited_by_one_is_seen_by_others(stock: Stock) -> None:
    await written(stock, "one", "two")
    await stock.do("one", "submit", "notes", "a", [4, "black "])
    await stock.do("two", "submit", "notes", "a", [{"d": 3}, "my"])
    await assert_all_show(stock, "my black cat", "one", "two")
    assert (await stock.show("one", "a"))["version"] == EPOCH + 3
    assert await stock.events("one") == [["a submitted", None]]


async def test_one_submits_what_it_created_without_having_subscribed(stock: Stock) -> None:
    await written(stock, "one", "two")
    await stock.do("two", "unsubscribe", "notes", "a")
    await stock.do("one", "submit", "notes", "a", [7, "s"])
    await stock.do("two", "submit", "notes", "a", [{"d": 3}, "two"])
    await assert_all_show(stock, "two cats", "one", "two")
    assert await stock.events("two") == [["a unsubscribe", None], ["a submitted", None]]


async def test_what_does_not_exist_has_a_version_and_its_creation_is_told(stock: Stock) -> None:
    for client in ("one", "two"):
        await stock.open(client)
        await stock.do(client, "subscribe", "notes", "a")
        shown = await stock.show(client, "a")
        assert (shown["type"], shown["version"]) == (None, EPOCH)
    await stock.do("one", "create", "notes", "a", "new", PLAIN)
    await assert_all_show(stock, "new", "one", "two")


async def test_truly_concurrent_edits_end_equal(stock: Stock) -> None:
    await written(stock, "one", "two", text="ac")
    stock.server.held = {Submit}
    await stock.do("one", "submit", "notes", "a", [1, "1"])
    await stock.do("two", "submit", "notes", "a", [1, "2"])
    await stock.do("two", "submit", "notes", "a", ["<"])
    stock.server.release()
    await stock.settle()
    shown = (await stock.show("one", "a"))["data"]
    assert sorted(shown) == sorted("<a12c")
    await assert_all_show(stock, shown, "one", "two")


async def test_quill_deltas_with_emoji_attributes_and_embeds_end_equal(stock: Stock) -> None:
    for client in ("one", "two"):
        await stock.open(client)
    await stock.do("one", "create", "notes", "a", [{"insert": "a😀c\n"}], RICH)
    for client in ("one", "two"):
        await stock.do(client, "subscribe", "notes", "a")
    stock.server.held = {Submit}
    bold = {"ops": [{"retain": 3, "attributes": {"bold": True}}]}
    await stock.do("one", "submit", "notes", "a", bold)
    cat = {"ops": [{"retain": 3}, {"insert": {"image": "cat.png"}}]}
    await stock.do("two", "submit", "notes", "a", cat)
    stock.server.release()
    await stock.settle()
    expected = {
        "ops": [
            {"insert": "a😀", "attributes": {"bold": True}},
            {"insert": {"image": "cat.png"}},
            {"insert": "c\n"},
        ]
    }
    await assert_all_show(stock, expected, "one", "two")


async def test_edits_by_nobody_of_this_protocol_are_taken(stock: Stock) -> None:
    await written(stock, "one")
    edit_by_somebody(stock.server, [7, "!"])
    await stock.settle()
    await assert_all_show(stock, "the cat!", "one")


async def test_a_document_is_deleted_and_created_again(stock: Stock) -> None:
    await written(stock, "one", "two")
    await stock.do("one", "del", "notes", "a")
    assert (await stock.show("two", "a"))["type"] is None
    assert await stock.events("two") == [["a del", None]]
    await stock.do("two", "create", "notes", "a", "again", PLAIN)
    await assert_all_show(stock, "again", "one", "two")


async def test_a_bulk_is_answered_document_by_document(stock: Stock) -> None:
    await written(stock, "one")
    await stock.open("two")
    await stock.do("two", "subscribeAll", "notes", "a", "b", "..")
    found = {event: error for event, error in await stock.events("two") if "load" not in event}
    assert found == {
        "a subscribe": None,
        "b subscribe": None,
        ".. subscribe": "ERR_MESSAGE_BADLY_FORMED",
    }
    assert {each["a"] for each in stock.server.said} == {"hs", "bs"}
    await assert_all_show(stock, "the cat", "two")
    await stock.do("two", "fetchAll", "notes", "a", "b")
    assert {event for event, error in await stock.events("two") if not error} >= {
        "a fetch",
        "b fetch",
    }
    await stock.do("two", "unsubscribeAll", "notes", "a", "b")
    assert await stock.events("two") == [["a unsubscribe", None], ["b unsubscribe", None]]
    assert not (await stock.show("two", "a"))["subscribed"]


async def test_a_client_that_comes_back_is_told_what_it_missed_in_one_bulk(stock: Stock) -> None:
    await written(stock, "one", "two")
    await stock.do("two", "create", "notes", "b", "b", PLAIN)
    await stock.do("two", "subscribe", "notes", "b")
    await stock.cut("two")
    await stock.do("one", "submit", "notes", "a", [7, "s"])
    stock.server.heard.clear()
    await stock.open("two")
    await assert_all_show(stock, "the cats", "one", "two")
    (bulk,) = [each for each in stock.server.heard if each["a"] == "bs"]
    assert bulk["b"] == {"a": EPOCH + 1, "b": EPOCH + 1}
    assert (await stock.show("two", "a"))["subscribed"]
    assert (await stock.show("two", "b"))["subscribed"]


async def test_what_was_lost_on_the_way_there_is_sent_again(stock: Stock) -> None:
    await written(stock, "one", "two")
    await stock.cut("two")
    await stock.do("two", "submit", "notes", "a", [7, "?"])
    await stock.do("one", "submit", "notes", "a", [7, "s"])
    await stock.open("two")
    shown = (await stock.show("one", "a"))["data"]
    assert sorted(shown) == sorted("the cats?")
    await assert_all_show(stock, shown, "one", "two")
    assert await stock.events("two") == [["a submitted", None]]


@pytest.mark.parametrize("is_subscription_first", [False, True])
async def test_what_was_stored_and_not_acknowledged_is_not_applied_twice(
    stock: Stock, is_subscription_first: bool
) -> None:
    await written(stock, "one", "two")
    stock.server.held = {Submit}
    await stock.do("one", "submit", "notes", "a", [4, "black "])
    await stock.do("two", "submit", "notes", "a", [7, "s"])
    stock.server.release()  # both are stored, and nobody hears of it
    await stock.cut("two")
    await stock.do("one", "submit", "notes", "a", [{"d": 3}, "my"])
    if is_subscription_first:
        stock.server.held = {Submit}
    await stock.open("two")
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, "my black cats", "one", "two")
    assert await stock.events("two") == [["a submitted", None]]
    assert len(stock.server.text(A).log) == 4


async def test_a_creation_that_was_not_acknowledged_is_sent_again(stock: Stock) -> None:
    await stock.open("one")
    stock.server.held = {Submit}
    await stock.do("one", "create", "notes", "a", "mine", PLAIN)
    stock.server.release()
    await stock.cut("one")
    await stock.open("one")
    assert await stock.events("one") == [["a create", None], ["a created", None]]
    await stock.do("one", "submit", "notes", "a", [4, "!"])
    assert (await stock.show("one", "a"))["data"] == "mine!"


async def test_who_creates_what_is_there_gets_an_error_and_what_is_there(stock: Stock) -> None:
    await written(stock, "one")
    await stock.open("two")
    await stock.do("two", "create", "notes", "a", "another", PLAIN)
    await assert_all_show(stock, "the cat", "two")
    assert ["a created", Code.DOC_ALREADY_CREATED] in await stock.events("two")


async def test_nothing_left_of_an_operation_is_no_version(stock: Stock) -> None:
    await written(stock, "one", "two")
    stock.server.held = {Submit}
    await stock.do("one", "submit", "notes", "a", [{"d": 4}])
    await stock.do("two", "submit", "notes", "a", [{"d": 4}])
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, "cat", "one", "two")
    assert await stock.events("two") == [["a submitted", None]]
    assert len(stock.server.text(A).log) == 2
    await stock.do("two", "submit", "notes", "a", ["fat "])
    await assert_all_show(stock, "fat cat", "one", "two")


async def test_an_edit_that_is_refused_is_taken_back_and_its_editor_told(stock: Stock) -> None:
    await written(stock, "one")
    stock.server.writers_refused = True
    for operation in ([7, "s"], [{"d": 4}]):
        await stock.do("one", "submit", "notes", "a", operation)
        await assert_all_show(stock, "the cat", "one")
        events = await stock.events("one")
        assert ["a submitted", Code.NOT_PERMITTED] in events
    assert ["a load", None] in events, "what cannot be inverted makes it load the document"


async def test_who_may_not_read_is_told(stock: Stock) -> None:
    await written(stock, "one")
    stock.server.readers_refused = True
    await stock.open("two")
    await stock.do("two", "subscribe", "notes", "a")
    await stock.do("two", "fetch", "notes", "a")
    await stock.do("two", "subscribeAll", "notes", "b", "c")
    code = Code.SNAPSHOT_READS_REJECTED
    assert await stock.events("two") == [
        ["a subscribe", code],
        ["a fetch", code],
        ["b subscribe", code],
        ["c subscribe", code],
    ]


async def test_an_operation_that_its_type_does_not_know_is_refused(stock: Stock) -> None:
    await written(stock, "one")
    stock.server.held = {Submit}
    await stock.do("one", "submit", "notes", "a", [7, "s"])
    stock.server.refuse(Submit, Code.OT_OP_BADLY_FORMED, "it is none")
    await stock.settle()
    assert ["a submitted", Code.OT_OP_BADLY_FORMED] in await stock.events("one")
    await assert_all_show(stock, "the cat", "one")


async def test_a_type_that_is_no_text_is_refused(stock: Stock) -> None:
    await stock.open("one")
    await stock.do("one", "create", "notes", "a", {"a": 1}, "http://sharejs.org/types/JSONv0")
    assert ["a created", Code.DOC_TYPE_NOT_RECOGNIZED] in await stock.events("one")
    assert (await stock.show("one", "a"))["type"] is None


async def test_queries_and_old_snapshots_are_refused(stock: Stock) -> None:
    await stock.open("one")
    for verb in ("query", "follow"):
        await stock.do("one", verb)
    await stock.do("one", "snapshot", "notes", "a", 1)
    await stock.do("one", "snapshotAt", "notes", "a", 1_000)
    assert await stock.events("one") == [
        ["query", Code.DATABASE_METHOD_NOT_IMPLEMENTED],
        ["follow", Code.DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE],
        ["snapshot", Code.DATABASE_METHOD_NOT_IMPLEMENTED],
        ["snapshot", Code.DATABASE_METHOD_NOT_IMPLEMENTED],
    ]


# --- histories that are not the client's ----------------------------------------------------------


def another_history(server: Server, floor: int, text: str) -> None:
    """What `notes/a` was is over."""
    kind = server.text(A).type
    assert kind is not None
    server.texts[A] = Text(floor, kind, text, start=text)


@pytest.mark.parametrize("floor", [EPOCH + 100, EPOCH, 2 * 2**32])
@pytest.mark.parametrize("kind", [PLAIN, RICH])
@pytest.mark.parametrize("waiting", [0, 1, 2])
async def test_who_comes_back_to_another_history_takes_it(
    stock: Stock, floor: int, kind: str, waiting: int
) -> None:
    rich = kind == RICH
    await stock.open("one")
    await stock.do("one", "create", "notes", "a", [{"insert": "old"}] if rich else "old", kind)
    await stock.do("one", "subscribe", "notes", "a")
    await stock.do("one", "submit", "notes", "a", {"ops": [{"insert": "x"}]} if rich else ["x"])
    await stock.cut("one")
    await stock.events("one")
    text = stock.server.text(A)
    new = [{"insert": "new"}] if rich else "new"
    stock.server.texts[A] = Text(
        floor, text.type, "new" if not rich else text.type.read_content(new)
    )
    if waiting:
        await stock.do("one", "submit", "notes", "a", {"ops": [{"insert": "y"}]} if rich else ["y"])
    stock.server.held = {Submit} if waiting < 2 else {Submit, Subscribe}
    await stock.open("one")
    if waiting == 2:
        await stock.do("one", "submit", "notes", "a", {"ops": [{"insert": "z"}]} if rich else ["z"])
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, {"ops": new} if rich else new, "one")
    events = await stock.events("one")
    told = [error for event, error in events if event == "a submitted"]
    assert len(told) == waiting
    assert None not in told, "what is lost is told to its editor"
    await stock.do("one", "submit", "notes", "a", {"ops": [{"insert": "!"}]} if rich else ["!"])
    await assert_all_show(stock, {"ops": [{"insert": "!new"}]} if rich else "!new", "one")
    assert (await stock.show("one", "a"))["subscribed"]


@pytest.mark.parametrize("floor", [EPOCH + 100, 2 * 2**32, 8 * 2**32])
@pytest.mark.parametrize("is_editing", [False, True])
async def test_a_history_that_ends_under_a_follower_is_replaced(
    stock: Stock, floor: int, is_editing: bool
) -> None:
    await written(stock, "one")
    stock.server.held = {Submit}
    if is_editing:
        await stock.do("one", "submit", "notes", "a", [7, "s"])
    another_history(stock.server, floor, "new")
    stock.server.connections["one"].replace(A, stock.server.text(A).snapshot())
    await stock.settle()
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, "new", "one")
    events = await stock.events("one")
    if is_editing:
        assert ["a submitted", Code.DOC_WAS_DELETED] in events
    await stock.do("one", "submit", "notes", "a", [3, "!"])
    await assert_all_show(stock, "new!", "one")


@pytest.mark.parametrize("floor", [EPOCH + 100, 2 * 2**32])
@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_deletion_does_not_reach_another_history(
    stock: Stock, floor: int, is_sent: bool
) -> None:
    await written(stock, "one")
    stock.server.held = {Submit}
    if not is_sent:
        await stock.cut("one")
    await stock.do("one", "del", "notes", "a")
    another_history(stock.server, floor, "new")
    if is_sent:
        stock.server.connections["one"].replace(A, stock.server.text(A).snapshot())
    else:
        await stock.open("one")
    await stock.settle()
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, "new", "one")
    (told,) = [error for event, error in await stock.events("one") if event == "a deleted"]
    assert told is not None


@pytest.mark.parametrize("operations", [[[7, "s"]], [[{"d": 4}]], [[7, "s"], ["so "]]])
async def test_a_base_below_the_floor_is_refused_with_a_snapshot(
    stock: Stock, operations: list[Any]
) -> None:
    await written(stock, "one")
    stock.server.held = {Submit}
    for operation in operations:
        await stock.do("one", "submit", "notes", "a", operation)
    another_history(stock.server, EPOCH + 50, "the cat")
    stock.server.release()
    await stock.settle()
    await assert_all_show(stock, "the cat", "one")
    events = await stock.events("one")
    assert ["a submitted", Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND] in events
    told = [error for event, error in events if event == "a submitted"]
    assert len(told) == len(operations)
    assert None not in told
    assert not [event for event, _ in events if "error" in event]
    await stock.do("one", "submit", "notes", "a", [7, "!"])
    await assert_all_show(stock, "the cat!", "one")


async def test_a_version_that_the_server_forgot_is_fetched_as_a_snapshot(stock: Stock) -> None:
    await written(stock, "one")
    await stock.do("one", "unsubscribe", "notes", "a")
    another_history(stock.server, EPOCH + 50, "new")
    await stock.do("one", "fetch", "notes", "a")
    await assert_all_show(stock, "new", "one")


# --- presence -------------------------------------------------------------------------------------


async def gathered(stock: Stock, *clients: str) -> None:
    for client in clients:
        await stock.open(client)
    await stock.do(clients[0], "create", "notes", "a", [{"insert": "the cat\n"}], RICH)
    for client in clients:
        await stock.do(client, "subscribe", "notes", "a")
        await stock.do(client, "listen", "notes", "a")
        await stock.events(client)


async def present(stock: Stock, client: str) -> Any:
    return await stock.do(client, "gathered", "notes", "a")


async def test_a_cursor_is_seen_by_others_and_moves_with_the_text(stock: Stock) -> None:
    await gathered(stock, "one", "two")
    await stock.do("one", "present", "notes", "a", "cursor", {"index": 4, "length": 3})
    assert await stock.events("one") == [["cursor shown", None]]
    assert await present(stock, "two") == {"cursor": {"index": 4, "length": 3}}
    assert await present(stock, "one") == {}
    await stock.do("two", "submit", "notes", "a", {"ops": [{"insert": "so "}]})
    assert await present(stock, "two") == {"cursor": {"index": 7, "length": 3}}
    await stock.do("one", "submit", "notes", "a", {"ops": [{"retain": 7}, {"insert": "x"}]})
    assert await present(stock, "two") == {"cursor": {"index": 8, "length": 3}}, (
        "its own operation moves it differently, and is known by the source"
    )
    await stock.do("one", "present", "notes", "a", "cursor", None)
    assert await present(stock, "two") == {}


async def test_who_comes_later_sees_who_is_there(stock: Stock) -> None:
    await gathered(stock, "one")
    await stock.do("one", "present", "notes", "a", "cursor", {"index": 1, "length": 0})
    await stock.open("two")
    await stock.do("two", "subscribe", "notes", "a")
    await stock.do("two", "listen", "notes", "a")
    assert await present(stock, "two") == {"cursor": {"index": 1, "length": 0}}


async def test_who_is_gone_is_gone_and_who_comes_back_shows_itself_again(stock: Stock) -> None:
    await gathered(stock, "one", "two")
    await stock.do("one", "present", "notes", "a", "cursor", {"index": 1, "length": 0})
    await stock.cut("one")
    assert await present(stock, "two") == {}
    await stock.open("one")
    assert await present(stock, "two") == {"cursor": {"index": 1, "length": 0}}
    await stock.do("two", "unlisten", "notes", "a")
    assert await stock.events("two") == [["a unlisten", None]]


async def test_presence_of_a_later_version_waits_for_it(stock: Stock) -> None:
    await gathered(stock, "one", "two")
    version = stock.server.text(A).version
    stock.server.said.clear()
    stock.server.connections["two"].show_presence(
        Presence(
            document=A,
            id="x",
            value={"index": 9, "length": 0},
            number=1,
            version=version + 1,
            type=RICH,
            source="other",
        )
    )
    await stock.settle()
    assert await present(stock, "two") == {}
    edit_by_somebody(stock.server, {"ops": [{"insert": "so "}]})
    await stock.settle()
    assert await present(stock, "two") == {"x": {"index": 9, "length": 0}}


async def test_presence_without_a_document_and_in_plain_text_is_refused(stock: Stock) -> None:
    await written(stock, "one")
    await stock.do("one", "channel", "everywhere")
    await stock.do("one", "present", "notes", "a", "cursor", {"index": 1, "length": 0})
    assert await stock.events("one") == [
        ["channel", Code.MESSAGE_BADLY_FORMED],
        ["cursor shown", Code.TYPE_DOES_NOT_SUPPORT_PRESENCE],
    ]


# --- what the package says ------------------------------------------------------------------------


async def test_every_code_of_the_package_has_a_meaning(stock: Stock) -> None:
    assert set(await stock.do("nobody", "codes")) == set(CODES)


async def test_all_that_was_asked_was_seen(stock: Stock) -> None:
    await written(stock, "one")
    assert {type(each) for each in stock.server.asked} == {Submit, Subscribe}
    await stock.do("one", "fetch", "notes", "a")
    assert isinstance(stock.server.asked[-1], Fetch)
    assert isinstance(stock.server.text(A).log[0].change, Create)
    assert isinstance(stock.server.text(A).snapshot(), Snapshot)
