"""Unmodified npm `sharedb` clients, stock Yjs clients and Python replicas in one text."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect

from crdt_state.clocks import WallTime
from crdt_state.identifiers import DocumentId
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.security.tokens import parse_keys, sign
from crdt_state.transport import codes
from crdt_state.transport.replica import Replica
from crdt_state.transport.sharedb_room import EMBEDDED
from crdt_state.transport.sharedb_visit import SHAREDB_PATH
from running import RunningServer, eventually
from stock import stock_clients
from thin_stock import PROGRAM, StockThin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument
    from stock import StockClient, StockClients

pytestmark = pytest.mark.node

SECRET = "a secret of the tests, long enough"
PLAIN = "text-unicode"
RICH = "rich-text"
FAMILY = "👩\u200d👩\u200d👧"
HEBREW = "שלום"


async def thin(
    node: StockClients,
    name: str,
    server: RunningServer,
    room: str,
    kind: str | None = None,
    query: str = "",
) -> StockThin:
    """A client that has dialled, at the place where texts are shown as `kind`."""
    collection, _, key = room.partition("/")
    client = StockThin(node, name, collection, key)
    await client.dial(place(server, kind) + query)
    return client


def place(server: RunningServer, kind: str | None = None) -> str:
    return server.url + SHAREDB_PATH + (f"/{kind}" if kind else "")


def plain(data: Any) -> Any:
    """What a client shows, as a plain text shows it."""
    if not isinstance(data, dict):
        return data
    inserts = [each["insert"] for each in data["ops"]]
    return "".join(each if isinstance(each, str) else EMBEDDED for each in inserts)


async def shown(who: StockThin | StockClient | OpenDocument) -> Any:
    """The text that somebody shows; None while a client waits for an answer."""
    if isinstance(who, StockThin):
        return plain(await who.data())
    if hasattr(who, "clients"):
        return await who.text()
    return str(who.text("text"))


async def all_show(expected: str, *everyone: Any) -> None:
    for who in everyone:
        await eventually(lambda who=who: shown(who), expected, what=f"what {who} shows")


async def agreed(everyone: list[Any], is_complete: Callable[[str], bool]) -> str:
    """What everyone shows, once it is the same and complete."""
    found: list[Any] = []

    async def is_so() -> bool:
        found[:] = [await shown(who) for who in everyone]
        same = all(each is not None and each == found[0] for each in found)
        return same and is_complete(found[0])

    try:
        await eventually(is_so, True)
    except AssertionError:
        raise AssertionError(f"they show {found!r}") from None
    return str(found[0])


async def test_everyone_edits_one_text_and_all_end_equal(
    shared_server: RunningServer, node_programs: Path, tmp_path: Path, room: DocumentId
) -> None:
    server = shared_server
    async with (
        Replica.open(tmp_path / "a.db") as replica,
        stock_clients(node_programs) as yjs,
        stock_clients(node_programs, PROGRAM) as node,
    ):
        ann = await thin(node, "ann", server, room)
        bob = await thin(node, "bob", server, room, PLAIN)
        cat = await thin(node, "cat", server, room, RICH)
        document = await replica.document(room)
        replica.connect(server.url)
        yan = await yjs.open("yan", server.url, room)
        everyone: list[Any] = [ann, bob, cat, yan, document]
        assert await ann.ask("subscribe") is None
        assert (await ann.show())["type"] is None
        assert await ann.ask("create", f"{FAMILY}\r\n{HEBREW}", PLAIN) is None
        assert await bob.ask("subscribe") is None
        assert await cat.ask("subscribe") is None
        assert [(await each.show())["type"] for each in (ann, bob, cat)] == [PLAIN, PLAIN, RICH]
        await all_show(f"{FAMILY}\r\n{HEBREW}", *everyone)
        # Each at a place of its own, all at once; indices count what each client's type counts.
        await ann.do("submit", [f"<ann{FAMILY}>"])
        await bob.do("submit", [7, "<bob é>"])
        await cat.do(
            "submit",
            {"ops": [{"retain": len(FAMILY.encode("utf-16-le")) // 2 + 6}, {"insert": "<cat 𝄞>"}]},
        )
        await yan.do("insert", len(FAMILY.encode("utf-16-le")) // 2, "<yan 😀>")
        document.text("text").insert(9, f"<python {HEBREW}>")
        for each in (ann, bob, cat):
            assert await each.outcome(f"{each.key} submitted") is None
        text = await agreed(
            everyone,
            lambda text: all(f"<{n}" in text for n in ("ann", "bob", "cat", "yan", "python")),
        )
        # Then many at the same place, each before it has heard of the others.
        length = len(text)
        for round_ in range(5):
            for index, each in enumerate((ann, bob, cat, yan)):
                await each.do("scribble", 0.5, 0, f"[{index}{round_}{FAMILY}]")
                length += 4 + len(FAMILY)
            document.text("text").insert(len(str(document.text("text"))) // 2, f"[p{round_}]")
            length += 4
        text = await agreed(everyone, lambda text: len(text) == length)
        assert await cat.ask("submit", {"ops": [{"retain": 1}, {"delete": 3}]}) is None
        await all_show(text[0] + text[4:], *everyone)
    assert server.complaints() == []


async def subscribed(node: StockClients, name: str, server: RunningServer, room: str) -> StockThin:
    client = await thin(node, name, server, room)
    assert await client.ask("subscribe") is None
    return client


async def test_what_was_submitted_without_a_line_arrives_once_when_it_is_back(
    shared_server: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    server = shared_server
    async with stock_clients(node_programs, PROGRAM) as node:
        ann = await subscribed(node, "ann", server, room)
        assert await ann.ask("create", "begun;", PLAIN) is None
        bob = await subscribed(node, "bob", server, room)
        await ann.do("submit", ["in flight;"])
        await ann.cut()
        for number in range(5):
            await ann.do("submit", [f"offline {number};"])
            assert await bob.ask("submit", [f"meanwhile {number};"]) is None
        await ann.dial(place(server))
        text = await agreed([ann, bob], lambda text: text.count("offline") == 5)
        assert sorted(text.split(";")) == sorted(
            ["", "begun", "in flight"]
            + [f"{what} {number}" for number in range(5) for what in ("offline", "meanwhile")]
        )


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed_with_submissions_in_flight(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    room = DocumentId("notes/kills")
    async with (
        Replica.open(tmp_path / "a.db") as replica,
        stock_clients(node_programs, PROGRAM) as node,
    ):
        ann = await subscribed(node, "ann", server, room)
        assert await ann.ask("create", "", PLAIN) is None
        bob = await subscribed(node, "bob", server, room)
        document = await replica.document(room)
        link = replica.connect(server.url)
        expected: list[str] = []
        for round_ in range(4):
            for number in range(4):
                for who in (ann, bob):
                    expected.append(f"{who.name}{round_}{number}")
                    await who.do("submit", [f"{expected[-1]};"])
                expected.append(f"python{round_}{number}")
                document.text("text").append(f"{expected[-1]};")
            server.kill()
            server.start()
            for who in (ann, bob):
                await who.cut()
                await who.dial(place(server))
        text = await agreed([ann, bob, document], lambda text: all(tag in text for tag in expected))
        assert sorted(text.split(";")) == sorted(["", *expected])
        await link.synced()
    assert server.complaints() == []


async def test_a_plain_and_a_rich_editor_share_a_text(
    shared_server: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    server = shared_server
    async with stock_clients(node_programs, PROGRAM) as node:
        quill = await thin(node, "quill", server, room, RICH)
        area = await thin(node, "area", server, room, PLAIN)
        ops = [{"insert": "bold", "attributes": {"bold": True}}, {"insert": {"image": "cat"}}]
        assert await quill.ask("subscribe") is None
        assert await quill.ask("create", ops, RICH) is None
        assert await area.ask("subscribe") is None
        assert (await area.show())["data"] == f"bold{EMBEDDED}"
        assert await area.ask("submit", [2, "plain", 2, {"d": 1}]) is None
        bold = {"bold": True}
        await eventually(
            quill.data,
            {
                "ops": [
                    {"insert": "bo", "attributes": bold},
                    {"insert": "plain"},
                    {"insert": "ld", "attributes": bold},
                ]
            },
        )
        formatting = {"ops": [{"retain": 2}, {"retain": 5, "attributes": bold}]}
        assert await quill.ask("submit", formatting) is None
        await eventually(quill.data, {"ops": [{"insert": "boplainld", "attributes": bold}]})
        assert await area.data() == "boplainld"


async def test_a_cursor_is_shown_moves_with_the_text_and_goes_with_its_client(
    shared_server: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    server = shared_server
    async with stock_clients(node_programs, PROGRAM) as node:
        ann = await thin(node, "ann", server, room, RICH)
        assert await ann.ask("subscribe") is None
        assert await ann.ask("create", [{"insert": "0123456789"}], RICH) is None
        bob = await thin(node, "bob", server, room, RICH)
        assert await bob.ask("subscribe") is None
        for who in (ann, bob):
            await who.do("listen")
            assert await who.outcome(f"{room.partition('/')[2]} listen") is None
        await ann.do("present", "cursor", {"index": 4, "length": 2})
        assert await ann.outcome("cursor shown") is None
        await eventually(lambda: bob.do("gathered"), {"cursor": {"index": 4, "length": 2}})
        assert await bob.ask("submit", {"ops": [{"insert": "abc"}]}) is None
        await eventually(lambda: bob.do("gathered"), {"cursor": {"index": 7, "length": 2}})
        await ann.cut()
        await eventually(lambda: bob.do("gathered"), {})


async def test_what_is_wrong_is_refused_and_the_rest_goes_on(
    shared_server: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    server = shared_server
    async with stock_clients(node_programs, PROGRAM) as node:
        ann = await subscribed(node, "ann", server, room)
        assert await ann.ask("create", "text", "http://sharejs.org/types/text-unicode") is None
        bob = await thin(node, "bob", server, room)
        assert await bob.ask("create", "again", PLAIN) == Code.DOC_ALREADY_CREATED
        assert await ann.ask("del") == Code.NOT_PERMITTED
        for verb, what in (("query", "query"), ("snapshot", "snapshot")):
            await ann.clients.call("ann", verb, *(() if verb == "query" else (room, "x", 1)))
            assert await ann.outcome(what) == Code.DATABASE_METHOD_NOT_IMPLEMENTED
        assert await ann.ask("submit", ["still here: "]) is None
        assert await ann.data() == "still here: text"


async def test_a_text_that_a_yjs_program_has_made_is_there_for_the_others(
    shared_server: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    server = shared_server
    async with (
        stock_clients(node_programs) as yjs,
        stock_clients(node_programs, PROGRAM) as node,
    ):
        yan = await yjs.open("yan", server.url, room)
        await yan.do("insert", 0, "by yjs")
        await eventually(yan.is_synced, True)
        late = await thin(node, "late", server, room)

        async def fetched() -> Any:
            assert await late.ask("fetch") is None
            return await late.data()

        await eventually(fetched, "by yjs")
        assert await late.ask("submit", ["and by an operation, unsubscribed; "]) is None
        await eventually(yan.text, "and by an operation, unsubscribed; by yjs")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks for tokens."""
    settings = {"CRDT_STATE_JWT_SECRET": SECRET, "CRDT_STATE_JWT_LEEWAY_SECONDS": "0"}
    with RunningServer(tmp_path_factory.mktemp("guarded"), settings) as server:
        yield server


def query(access: Access = Access.WRITE, *, seconds: float = 3600.0) -> str:
    now = time.time_ns() // 1_000
    ends = WallTime(now + round(seconds * 1_000_000))
    grant = Grant("ana", (Right("team/**", access),), expires_at=ends)
    return f"?token={sign(grant, parse_keys(SECRET), now=WallTime(now))}"


async def test_who_may_read_follows_and_cannot_write(
    guarded: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    async with stock_clients(node_programs, PROGRAM) as node:
        ann = await thin(node, "ann", guarded, room, query=query())
        assert await ann.ask("subscribe") is None
        assert await ann.ask("create", "text", PLAIN) is None
        bob = await thin(node, "bob", guarded, room, query=query(Access.READ))
        assert await bob.ask("subscribe") is None
        assert await bob.ask("submit", ["not "]) == Code.NOT_PERMITTED
        assert await ann.ask("submit", ["the "]) is None
        await eventually(bob.data, "the text")
        elsewhere = await thin(node, "eve", guarded, "other/room", query=query())
        assert await elsewhere.ask("fetch") == Code.SNAPSHOT_READS_REJECTED


async def test_who_brings_no_token_or_whose_token_expires_is_sent_away(
    guarded: RunningServer, node_programs: Path, room: DocumentId
) -> None:
    async with stock_clients(node_programs, PROGRAM) as node:
        ann = await thin(node, "ann", guarded, room)
        assert await ann.outcome("closed") == codes.EXPIRED
        bob = await thin(node, "bob", guarded, room, query=query(seconds=2.0))
        assert await bob.ask("subscribe") is None
        assert await bob.outcome("closed") == codes.EXPIRED


async def test_who_comes_again_under_its_name_ends_its_older_connection(
    shared_server: RunningServer,
) -> None:
    greeting = json.dumps({"a": "hs", "id": "again", "protocol": 1, "protocolMinor": 2})
    async with connect(place(shared_server)) as one, connect(place(shared_server)) as other:
        await one.send(greeting)
        await one.recv()
        await other.send(greeting)
        await other.recv()
        await asyncio.wait_for(one.wait_closed(), 20)
        assert one.close_code == codes.TRY_AGAIN_LATER
        await other.send('{"a": "pp"}')
        assert json.loads(await other.recv()) == {"a": "pp"}
