"""What a server promises to ShareDB clients, kept by real kills and beside every other client."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.clocks import WallTime
from crdt_state.identifiers import DocumentId
from crdt_state.limits import Limits
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.security.tokens import parse_keys, sign
from crdt_state.transport.link import Wire
from crdt_state.transport.replica import Replica
from running import RunningServer, eventually
from stock import StockClient, stock_clients
from thin_stock import PROGRAM, StockThin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument
    from stock import StockClients

pytestmark = pytest.mark.node

PLAIN = "http://sharejs.org/types/text-unicode"
RICH = "http://sharejs.org/types/rich-text/v1"
JSON0 = "http://sharejs.org/types/JSONv0"
EMBEDDED = "\ufffc"
SECRET = "a secret of the tests, long enough"
FAMILY = "👩‍👩‍👧"
HEBREW = "שלום"
TAGS = 0xE000  # characters for private use, of which each is written once


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that nobody kills; each test has a document of its own."""
    settings = {"CRDT_STATE_RICH_TEXT": "rich", "CRDT_STATE_REPLICA_PROTOCOL": "true"}
    with RunningServer(tmp_path_factory.mktemp("calm"), settings) as server:
        yield server
        assert server.complaints() == []


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks for tokens."""
    settings = {
        "CRDT_STATE_JWT_SECRET": SECRET,
        "CRDT_STATE_JWT_LEEWAY_SECONDS": "0",
        "CRDT_STATE_LIMITS__IDENTITY_DOCUMENTS_MAX": "2",
    }
    with RunningServer(tmp_path_factory.mktemp("guarded"), settings) as server:
        yield server
        assert server.complaints() == []


@pytest.fixture
async def thin(node_programs: Path) -> AsyncIterator[StockClients]:
    """ShareDB clients; none of them ever had to doubt what it was told."""
    async with stock_clients(node_programs, PROGRAM) as clients:
        yield clients
        assert await clients.call("any", "warnings") == []


@pytest.fixture
async def yjs(node_programs: Path) -> AsyncIterator[StockClients]:
    """Yjs clients."""
    async with stock_clients(node_programs) as clients:
        yield clients


@asynccontextmanager
async def in_python(
    server: RunningServer, room: str, path: Path, wire: Wire = Wire.Y_WEBSOCKET
) -> AsyncIterator[tuple[Replica, OpenDocument]]:
    async with Replica.open(path, limits=Limits(reconnect_seconds_max=0.5)) as replica:
        document = await replica.document(room)
        replica.connect(server.url, wire=wire)
        yield replica, document


def endpoint(server: RunningServer, speaks: str = "", token: str = "") -> str:
    return f"{server.url}/-/sharedb{speaks and '/' + speaks}{token and '?token=' + token}"


async def dialled(
    thin: StockClients,
    name: str,
    room: str,
    server: RunningServer,
    speaks: str = "",
    token: str = "",
) -> StockThin:
    client = StockThin(thin, name, *room.split("/", 1))
    await client.dial(endpoint(server, speaks, token))
    return client


async def subscribed(
    thin: StockClients,
    name: str,
    room: str,
    server: RunningServer,
    speaks: str = "",
    token: str = "",
) -> StockThin:
    client = await dialled(thin, name, room, server, speaks, token)
    await client.do("subscribe")
    await expect(client, "subscribe")
    return client


async def expect(client: StockThin, what: str, code: str | None = None) -> None:
    """Wait until that is answered, and so."""
    answers: list[str | None] = []

    async def heard() -> list[str | None]:
        answers.extend(
            code for name, code in await client.events() if name == f"{client.key} {what}"
        )
        return answers

    await eventually(heard, [code], what=f"the answer to {client.name}: {what}")


def plain_of(delta: list[dict[str, Any]]) -> str:
    return "".join(
        each["insert"] if isinstance(each["insert"], str) else EMBEDDED for each in delta
    )


def normal(delta: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A delta in which what is formatted alike is in one piece."""
    found: list[dict[str, Any]] = []
    for each in delta:
        last = found[-1] if found else {}
        are_texts = isinstance(each["insert"], str) and isinstance(last.get("insert"), str)
        if are_texts and each.get("attributes") == last.get("attributes"):
            last["insert"] += each["insert"]
        else:
            found.append(dict(each))
    return found


@dataclass
class Company:
    """Everyone at one text, each of whom shows it in another way."""

    plain: list[StockThin] = field(default_factory=list)
    rich: list[StockThin] = field(default_factory=list)
    yjs: list[StockClient] = field(default_factory=list)
    python: list[OpenDocument] = field(default_factory=list)

    async def differences(self) -> list[Any]:
        """What is not as it is for the first of them; `[]` once everybody ends equal."""
        shown = [await each.show() for each in (*self.plain, *self.rich)]
        found: list[Any] = [each for each in shown if each["pending"] or not each["subscribed"]]
        found += [each["version"] for each in shown if each["version"] != shown[0]["version"]]
        plain, rich = shown[: len(self.plain)], shown[len(self.plain) :]
        deltas = [normal(await each.do("delta")) for each in self.yjs]
        deltas += [[] if each["data"] is None else each["data"]["ops"] for each in rich]
        texts = [*map(plain_of, deltas), *[f"{each['data']}" for each in plain]]
        found += [each for each in deltas if each != deltas[0]]
        found += [each for each in texts if each != texts[0]]
        without = [text.replace(EMBEDDED, "") for text in texts]
        without += [str(each.text("text")) for each in self.python]
        return found + [each for each in without if each != without[0]]

    async def end_equal(self) -> str:
        """Wait until they do; gives what a plain text shows."""
        await eventually(self.differences, [], what="what differs", seconds=30)
        if self.plain:
            return str((await self.plain[0].show())["data"])
        return plain_of(await self.yjs[0].do("delta"))


# --- everyday ------------------------------------------------------------------------------------


async def test_a_text_is_created_subscribed_to_and_edited_by_everyone(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId, tmp_path: Path
) -> None:
    ana = await subscribed(thin, "ana", room, calm)
    assert (await ana.show())["type"] is None
    await ana.do("create", "the cat", PLAIN)
    await expect(ana, "created")
    ben = await subscribed(thin, "ben", room, calm)
    assert await ben.data() == "the cat"
    async with in_python(calm, room, tmp_path / "a.db", Wire.REPLICA) as (_, document):
        eva = await yjs.open("eva", calm.url, room)
        company = Company([ana, ben], [], [eva], [document])
        await company.end_equal()
        await ana.do("submit", [4, "black "])
        await expect(ana, "submitted")
        assert await company.end_equal() == "the black cat"
        await eva.do("insert", 0, "see ")
        document.text("text").append("!")
        await ben.do("submit", [{"d": 1}])
        await eventually(ana.data, "see he black cat!")
        assert await company.end_equal() == "see he black cat!"
    # Whoever comes later is shown the same.
    assert await (await subscribed(thin, "dan", room, calm)).data() == "see he black cat!"


async def test_what_many_write_at_once_in_all_scripts_is_there_once(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId, tmp_path: Path
) -> None:
    begun = f"1 {FAMILY}\r\n2 {HEBREW}\r\n"
    ana = await subscribed(thin, "ana", room, calm)
    await ana.do("create", begun, PLAIN)
    others = [await subscribed(thin, name, room, calm) for name in ("ben", "cid")]
    rich = await subscribed(thin, "dan", room, calm, "rich-text")
    async with in_python(calm, room, tmp_path / "a.db") as (_, document):
        eva = await yjs.open("eva", calm.url, room)
        company = Company([ana, *others], [rich], [eva], [document])
        await company.end_equal()
        words = [f"<{n} {word}>" for n, word in enumerate([FAMILY, "😀", "\r\n", HEBREW, "é", "𝄞"])]
        for word in words[:3]:
            for client, mark in zip(company.plain, "abc", strict=True):
                await client.do("write", 0.5, mark + word)
            await rich.do("write", 0.5, "d" + word, {"bold": True})
            await eva.do("write", 0.5, "e" + word)
        for word in words[3:]:
            document.text("text").insert(3, "f" + word)
            await ana.do("write", 0.9, "a" + word)
            await rich.do("write", 0.1, "d" + word)
        text = await company.end_equal()
    written = [mark + word for mark in "abcde" for word in words[:3]]
    written += [mark + word for mark in "fad" for word in words[3:]]
    # Of words that were written at one place, one may stand within the other.
    assert Counter(text) == Counter("".join([begun, *written]))


async def test_one_document_is_plain_for_some_and_rich_for_others(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId, tmp_path: Path
) -> None:
    rich = await subscribed(thin, "ana", room, calm, "rich-text")
    await rich.do("create", [{"insert": "bold", "attributes": {"bold": True}}], RICH)
    await expect(rich, "created")
    plain = await subscribed(thin, "ben", room, calm, "text-unicode")
    assert await plain.data() == "bold"
    async with in_python(calm, room, tmp_path / "a.db") as (_, document):
        eva = await yjs.open("eva", calm.url, room)
        company = Company([plain], [rich], [eva], [document])
        await rich.do("submit", [{"retain": 2}, {"insert": {"image": "cat.png"}}])
        assert await company.end_equal() == f"bo{EMBEDDED}ld"
        await plain.do("submit", [3, "😀"])
        await company.end_equal()
        assert (await rich.data())["ops"] == [
            {"insert": "bo", "attributes": {"bold": True}},
            {"insert": {"image": "cat.png"}},
            {"insert": "😀"},
            {"insert": "ld", "attributes": {"bold": True}},
        ]
        await eva.do("format", 0, 2, {"bold": None, "italic": True})
        await eva.do("embed", 0, {"video": {"id": 7}})
        await rich.do("submit", [{"retain": 5}, {"retain": 1, "attributes": {"link": "x"}}])
        await company.end_equal()
        await plain.do("submit", [3, {"d": 1}])  # the picture
        assert await company.end_equal() == f"{EMBEDDED}bo😀ld"
    await eventually(lambda: has_type(plain), "text-unicode")
    assert await has_type(rich) == "rich-text"


async def has_type(client: StockThin) -> Any:
    return (await client.show())["type"]


async def test_a_text_is_spoken_of_in_the_type_that_it_was_created_with(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    key = room.partition("/")[2]
    for collection, kind, other in (("rich", "rich-text", PLAIN), ("plain", "text-unicode", JSON0)):
        client = await subscribed(thin, "ana", f"{collection}/{key}", calm)
        await client.do("create", "x" if other == PLAIN else {}, other)
        await expect(client, "created", "ERR_DOC_TYPE_NOT_RECOGNIZED")
        await client.do(
            "create",
            [{"insert": "x"}] if kind == "rich-text" else "x",
            RICH if kind == "rich-text" else PLAIN,
        )
        await expect(client, "created")
        again = await subscribed(thin, "ben", f"{collection}/{key}", calm)
        assert await has_type(again) == kind


async def test_a_text_that_a_yjs_program_made_is_subscribed_to(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId
) -> None:
    early = await subscribed(thin, "ana", room, calm)
    eva = await yjs.open("eva", calm.url, room)
    await eva.do("insert", 0, "made elsewhere")
    await eva.do("format", 0, 4, {"bold": True})
    late = await subscribed(thin, "ben", room, calm)
    rich = await subscribed(thin, "cid", room, calm, "rich-text")
    company = Company([early, late], [rich], [eva])
    assert await company.end_equal() == "made elsewhere"
    await early.do("submit", ["It was "])
    assert await company.end_equal() == "It was made elsewhere"
    await late.do("create", "x", PLAIN)
    await expect(late, "created", "ERR_DOC_ALREADY_CREATED")


async def test_a_document_without_a_text_has_none_however_often_it_is_asked_for(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId
) -> None:
    eva = await yjs.open("eva", calm.url, room)
    await eva.do("put", "title", "a map alone")
    ana = await subscribed(thin, "ana", room, calm)
    assert await has_type(ana) is None
    await eva.do("put", "title", "and another time")
    await eventually(eva.is_synced, True)
    await ana.cut()
    ben = await subscribed(thin, "ben", room, calm)
    assert await has_type(ben) is None
    await ana.dial(endpoint(calm))
    await ben.do("create", "a text", PLAIN)
    await expect(ben, "created")
    assert await Company([ana, ben], [], [eva]).end_equal() == "a text"
    assert [event for event in await ana.events() if event[1]] == []


async def test_a_client_that_has_not_subscribed_is_acknowledged_behind_what_others_did(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    ana = await dialled(thin, "ana", room, calm)
    await ana.do("create", "one", PLAIN)
    await expect(ana, "created")
    ben = await subscribed(thin, "ben", room, calm)
    for word in (" two", " three"):
        await ben.do("write", 0.99, word)
        await expect(ben, "submitted")
    await ana.do("submit", ["zero "])
    await expect(ana, "submitted")
    assert await ana.data() == "zero one two three"
    assert not (await ana.show())["subscribed"]
    await ben.do("unsubscribe")
    await expect(ben, "unsubscribe")
    await ana.do("submit", [{"d": 5}])
    await expect(ana, "submitted")
    assert await ben.data() == "zero one two three"
    await ben.do("fetch")
    await expect(ben, "fetch")
    assert await ben.data() == "one two three"


async def test_documents_are_subscribed_to_and_fetched_in_bulk(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    rooms = [f"{room}-{n}" for n in range(3)]
    writers = [await dialled(thin, "ana", each, calm) for each in rooms]
    for client in writers:
        await client.do("create", client.key, PLAIN)
        await expect(client, "created")
    readers = [StockThin(thin, "ben", client.collection, client.key) for client in writers]
    await readers[0].dial(endpoint(calm))
    keys = [each.key for each in readers]
    await thin.call("ben", "fetchAll", "team", *keys)
    for reader in readers:
        await eventually(reader.data, reader.key)
    await thin.call("ben", "subscribeAll", "team", *keys)
    for reader in readers:
        await eventually(lambda reader=reader: is_subscribed(reader), True)
    await readers[0].cut()
    for client in writers:
        await client.do("submit", ["> "])
        await expect(client, "submitted")
    await readers[0].dial(endpoint(calm))  # the stock client asks for all of them in one bulk
    for reader in readers:
        await eventually(reader.data, f"> {reader.key}")
    await thin.call("ben", "unsubscribeAll", "team", *keys)
    for reader in readers:
        await eventually(lambda reader=reader: is_subscribed(reader), False)


async def is_subscribed(client: StockThin) -> bool:
    return bool((await client.show())["subscribed"])


# --- lines that are cut, servers that are killed -------------------------------------------------


async def test_what_was_edited_offline_arrives_once_after_a_reconnection(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId
) -> None:
    ana = await subscribed(thin, "ana", room, calm)
    await ana.do("create", "begin", PLAIN)
    rich = await subscribed(thin, "ben", room, calm, "rich-text")
    eva = await yjs.open("eva", calm.url, room)
    company = Company([ana], [rich], [eva])
    await company.end_equal()
    for round_ in range(3):
        await ana.do("submit", [f"(sent {round_})"])  # perhaps it has arrived, perhaps not
        await ana.cut()
        await rich.cut()
        await ana.do("submit", [f"(plain {round_} {FAMILY})"])
        await rich.do("submit", [{"insert": f"(rich {round_})", "attributes": {"bold": True}}])
        await eva.do("insert", 0, f"(yjs {round_} {HEBREW})")
        await ana.dial(endpoint(calm))
        await rich.dial(endpoint(calm, "rich-text"))
        text = await company.end_equal()
        for who in ("sent", "plain", "rich", "yjs"):
            assert text.count(f"({who} {round_}") == 1
    failed = [event for each in (ana, rich) for event in await each.events() if event[1]]
    assert failed == []


@pytest.mark.parametrize("has_followed", [True, False])
async def test_what_was_created_offline_arrives_with_all_that_was_edited_there(
    calm: RunningServer, thin: StockClients, room: DocumentId, has_followed: bool
) -> None:
    room = DocumentId(room.replace("[", "-").replace("]", ""))
    ana = StockThin(thin, "ana", *room.split("/", 1))
    if has_followed:
        await subscribed(thin, "ana", room, calm)
        await ana.cut()
    await ana.do("create", "begun ", PLAIN)
    await ana.do("write", 0.99, "offline")
    await ana.dial(endpoint(calm))
    await ana.do("write", 0.99, " and on")
    await ana.cut()  # perhaps it was created, perhaps not
    await ana.do("write", 0.99, " and on")
    await ana.dial(endpoint(calm))
    await ana.do("subscribe")
    ben = await subscribed(thin, "ben", room, calm)
    assert await Company([ana, ben]).end_equal() == "begun offline and on and on"
    assert [event for event in await ana.events() if event[1]] == []


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed_with_operations_in_flight(
    serve: Callable[..., RunningServer],
    thin: StockClients,
    yjs: StockClients,
    room: DocumentId,
    tmp_path: Path,
) -> None:
    server = serve()
    ana = await subscribed(thin, "ana", room, server)
    await ana.do("create", "|", PLAIN)
    ben = await subscribed(thin, "ben", room, server)
    rich = await subscribed(thin, "cid", room, server, "rich-text")
    async with in_python(server, room, tmp_path / "a.db") as (_, document):
        eva = await yjs.open("eva", server.url, room)
        company = Company([ana, ben], [rich], [eva], [document])
        await company.end_equal()
        count = 0
        for round_ in range(2):
            for n in range(5):
                for client in (ana, ben, rich, eva):
                    await client.do("write", n / 5, chr(TAGS + count))
                    count += 1
                if n == 2 + round_:
                    server.kill()
            await asyncio.to_thread(server.start)
            for client in (ana, ben):
                await client.dial(endpoint(server))
            await rich.dial(endpoint(server, "rich-text"))
        text = await company.end_equal()
    assert Counter(text) == Counter(["|", *[chr(TAGS + n) for n in range(count)]])
    failed = [event for each in (ana, ben, rich) for event in await each.events() if event[1]]
    assert failed == []
    assert server.complaints() == []


async def test_a_client_that_comes_again_under_its_id_ends_its_old_connection(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    old = await subscribed(thin, "ana", room, calm)
    await old.do("create", "x", PLAIN)
    await expect(old, "created")
    new = StockThin(thin, "ben", old.collection, old.key)
    await thin.call("ben", "assume", await thin.call("ana", "id"))
    await new.dial(endpoint(calm))
    await new.do("subscribe")
    await eventually(new.data, "x")
    await eventually(lambda: closed_with(old), [1013])
    assert await closed_with(new) == []


async def closed_with(client: StockThin) -> list[int]:
    return [code for code, _ in await client.closes()]


# --- presence ------------------------------------------------------------------------------------


async def test_others_are_shown_where_somebody_is_as_long_as_they_are_there(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    ana = await subscribed(thin, "ana", room, calm, "rich-text")
    await ana.do("create", [{"insert": "the 😀 cat"}], RICH)
    await expect(ana, "created")
    ben = await subscribed(thin, "ben", room, calm, "rich-text")
    plain = await subscribed(thin, "cid", room, calm, "text-unicode")
    for client in (ana, ben):
        await client.do("listen")
        await expect(client, "listen")
    await ana.do("present", "cursor", {"index": 7, "length": 3, "name": "Ana"})
    await eventually(
        lambda: ben.do("gathered"), {"cursor": {"index": 7, "length": 3, "name": "Ana"}}
    )
    await plain.do("submit", [{"d": 4}, "😀"])
    await eventually(
        lambda: ben.do("gathered"), {"cursor": {"index": 5, "length": 3, "name": "Ana"}}
    )
    # Who listens from now on is shown everybody, where they are by now.
    dan = await subscribed(thin, "dan", room, calm, "rich-text")
    await dan.do("listen")
    await eventually(
        lambda: dan.do("gathered"), {"cursor": {"index": 5, "length": 3, "name": "Ana"}}
    )
    await ben.do("present", "other", {"index": 0, "length": 0})
    await eventually(lambda: ana.do("gathered"), {"other": {"index": 0, "length": 0}})
    for _ in range(5):
        # It is told of both at once: the edit, and that somebody has gone.
        await plain.do("submit", ["..."])
        await ana.cut()
        for client in (ben, dan):
            await eventually(lambda client=client: is_shown(client, "cursor"), False)
        # It comes back, and shows itself again.
        await ana.dial(endpoint(calm, "rich-text"))
        for client in (ben, dan):
            await eventually(lambda client=client: is_shown(client, "cursor"), True)
    await plain.do("submit", ["..."])
    await ben.do("present", "other", None)
    await eventually(lambda: is_shown(dan, "other"), False)
    await plain.do("present", "mine", {"index": 0, "length": 0})
    await eventually(
        lambda: has_noted(plain, ["mine shown", "ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE"]), True
    )


async def is_shown(client: StockThin, name: str) -> bool:
    return name in await client.do("gathered")


async def has_noted(client: StockThin, event: list[Any]) -> bool:
    return event in await client.events()


async def test_who_shows_where_they_are_without_following_the_text_is_gone_when_they_are(
    calm: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    ana = await dialled(thin, "ana", room, calm, "rich-text")
    await ana.do("create", [{"insert": "the cat"}], RICH)
    await expect(ana, "created")
    ben = await subscribed(thin, "ben", room, calm, "rich-text")
    await ben.do("listen")
    await expect(ben, "listen")
    await ana.do("present", "cursor", {"index": 4, "length": 0})
    await eventually(lambda: is_shown(ben, "cursor"), True)
    await ana.cut()
    await eventually(lambda: is_shown(ben, "cursor"), False)


# --- what is refused -----------------------------------------------------------------------------


async def test_what_cannot_be_done_is_refused_and_the_client_goes_on(
    calm: RunningServer, thin: StockClients, yjs: StockClients, room: DocumentId
) -> None:
    ana = await dialled(thin, "ana", room, calm, "rich-text")
    ben = await dialled(thin, "ben", room, calm, "rich-text")
    await ana.do("ingest", {"v": 1, "type": RICH, "data": {"ops": [{"insert": "invented"}]}})
    await ana.do("submit", [{"insert": "x"}])
    await expect(ana, "submitted", "ERR_DOC_DOES_NOT_EXIST")
    await eventually(lambda: has_type(ana), None)
    for unknown in (JSON0, PLAIN):
        await ana.do("create", {} if unknown == JSON0 else "x", unknown)
        await expect(ana, "created", "ERR_DOC_TYPE_NOT_RECOGNIZED")
    await ana.do("create", [{"insert": "a😀b"}], RICH)
    await expect(ana, "created")
    await ben.do("create", [{"insert": "mine"}], RICH)
    await expect(ben, "created", "ERR_DOC_ALREADY_CREATED")
    for client in (ana, ben):
        await client.do("subscribe")
    eva = await yjs.open("eva", calm.url, room)
    company = Company([], [ana, ben], [eva])
    assert await company.end_equal() == "a😀b"
    for wrong in ([{"retain": 2}, {"insert": "x"}], [{"retain": 99}, {"insert": "x"}]):
        await ana.do("submit", wrong)
        await expect(ana, "submitted", "ERR_OT_OP_NOT_APPLIED")
        assert await company.end_equal() == "a😀b"
    await ana.do("del")
    await expect(ana, "deleted", "ERR_NOT_PERMITTED")
    await ana.do("submit", [{"retain": 4}, {"insert": "!"}])
    assert await company.end_equal() == "a😀b!"
    refused = "ERR_DATABASE_METHOD_NOT_IMPLEMENTED"
    await thin.call("ana", "query")
    await thin.call("ana", "follow")
    await ana.do("snapshot", 1)
    await ana.do("snapshotAt", 1)
    heard: list[Any] = []

    async def all_heard() -> list[Any]:
        heard.extend(await ana.events())
        return sorted(event for event in heard if event[0] in ("query", "follow", "snapshot"))

    await eventually(
        all_heard,
        [
            ["follow", "ERR_DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE"],
            ["query", refused],
            ["snapshot", refused],
            ["snapshot", refused],
        ],
    )
    assert await closed_with(ana) == []


def token(
    access: Access = Access.WRITE,
    *,
    identity: str = "ana",
    pattern: str = "team/**",
    seconds: float = 3600,
) -> str:
    now = time.time_ns() // 1_000
    ends = WallTime(now + round(seconds * 1_000_000))
    grant = Grant(identity, (Right(pattern, access),), expires_at=ends)
    return sign(grant, parse_keys(SECRET), now=WallTime(now))


async def test_a_token_bounds_what_may_be_read_and_written_and_for_how_long(
    guarded: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    ana = await subscribed(thin, "ana", room, guarded, token=token())
    await ana.do("create", "hers", PLAIN)
    await expect(ana, "created")
    for name, bad in (("nobody", ""), ("stranger", "nonsense")):
        refused = await dialled(thin, name, room, guarded, token=bad)
        await eventually(lambda refused=refused: closed_with(refused), [4401], what=name)
    reader = await subscribed(thin, "reader", room, guarded, token=token(Access.READ))
    assert await reader.data() == "hers"
    await reader.do("submit", ["not "])
    await expect(reader, "submitted", "ERR_NOT_PERMITTED")
    await eventually(reader.data, "hers")
    elsewhere = await dialled(thin, "elsewhere", room, guarded, token=token(pattern="other/**"))
    for what in ("subscribe", "fetch"):
        await elsewhere.do(what)
        await expect(elsewhere, what, "ERR_SNAPSHOT_READS_REJECTED")
    assert (await elsewhere.show())["data"] is None
    brief = await subscribed(thin, "brief", room, guarded, token=token(seconds=1))
    await eventually(lambda: closed_with(brief), [4401])
    await brief.dial(endpoint(guarded, token=token()))
    await ana.do("submit", ["still "])
    assert await Company([ana, reader, brief]).end_equal() == "still hers"


async def test_what_a_client_creates_counts_for_its_identity(
    guarded: RunningServer, thin: StockClients, room: DocumentId
) -> None:
    shown = token(identity="bea")
    for key, data, answer in (
        ("empty", "", None),
        ("begun", "text", None),
        ("beyond", "text", "ERR_LIMIT_EXCEEDED"),
    ):
        bea = await dialled(thin, "bea", f"{room}-{key}", guarded, token=shown)
        await bea.do("create", data, PLAIN)
        await expect(bea, "created", answer)
    bea = StockThin(thin, "bea", *f"{room}-empty".split("/", 1))
    await bea.do("submit", ["there is room for more of the same"])
    await expect(bea, "submitted")


async def test_a_document_that_was_deleted_is_refused(
    calm: RunningServer, thin: StockClients, room: DocumentId, tmp_path: Path
) -> None:
    ana = await subscribed(thin, "ana", room, calm)
    await ana.do("create", "old", PLAIN)
    await expect(ana, "created")
    async with in_python(calm, room, tmp_path / "a.db", Wire.REPLICA) as (replica, document):
        await eventually(lambda: str(document.text("text")), "old")
        await replica.delete(room)
        await eventually(lambda: closed_with(ana), [1013])
        await ana.do("submit", ["very "])
        await ana.dial(endpoint(calm))
        await expect(ana, "submitted", "ERR_DOC_WAS_DELETED")
        ben = await dialled(thin, "ben", room, calm)
        await ben.do("subscribe")
        await expect(ben, "subscribe", "ERR_DOC_WAS_DELETED")
        await ben.do("create", "new", PLAIN)
        await expect(ben, "created", "ERR_DOC_WAS_DELETED")
        await replica.recreate(room)
        again = await replica.document(room)
        again.text("text").insert(0, "begun anew")
        await eventually(lambda: calm.get(f"/-/api/json/{room}")[0], 200)
        cid = await subscribed(thin, "cid", room, calm)
        await eventually(cid.data, "begun anew")
        for client in (ana, ben):
            await client.cut()
            await client.dial(endpoint(calm))
        assert await Company([ana, ben, cid], [], [], [again]).end_equal() == "begun anew"


async def test_in_a_topology_clients_are_told_who_takes_operations(
    serve: Callable[..., RunningServer], thin: StockClients, room: DocumentId
) -> None:
    server = serve(
        CRDT_STATE_REPLICA_PROTOCOL="true",
        CRDT_STATE_PEERS="ws://127.0.0.1:9",
        CRDT_STATE_ADVERTISE="ws://here.example",
        CRDT_STATE_OPERATIONS_AT="ws://there.example",
    )
    ana = await dialled(thin, "ana", room, server)
    await eventually(lambda: closed_with(ana), [4421])
    assert "ws://there.example" in (await ana.closes())[0][1]
    server.terminate()
    assert server.exit_code() == 0
    server.configure({"CRDT_STATE_OPERATIONS_AT": "ws://here.example"})
    server.start()
    await ana.dial(endpoint(server))
    await ana.do("create", "taken here", PLAIN)
    await expect(ana, "created")


# --- a storm -------------------------------------------------------------------------------------

EDITS = 60
KILLS = 2
SPICE = ["a", "é", "\r\n", "😀", FAMILY, HEBREW, "𝄞"]


class Storm:
    """Everybody edits without waiting for anybody; lines are cut and the server is killed."""

    def __init__(self, server: RunningServer, room: str, seed: int) -> None:
        self.server = server
        self.dice = Random(seed)
        self.room = room
        self.company = Company()
        self.speaks: dict[str, str] = {"ana": "text-unicode", "ben": "rich-text", "cid": ""}
        self.away: set[str] = set()
        self.tags = itertools.count(TAGS)
        self.written: set[Any] = set()
        self.embedded: set[Any] = set()
        self.erased: set[Any] = set()
        self.erased_unseen = 0
        """How often somebody erased what is embedded who cannot see what it is."""
        self.edits = 0

    async def begin(self, thin: StockClients, yjs: StockClients) -> None:
        server, company = self.server, self.company
        for name, speaks in self.speaks.items():
            kind = company.rich if speaks == "rich-text" else company.plain
            kind.append(await subscribed(thin, name, self.room, server, speaks))
        for name in ("eva", "flo"):
            company.yjs.append(await yjs.open(name, server.url, self.room))
        await company.plain[0].do("create", "begin", PLAIN)
        await company.end_equal()

    @property
    def thin(self) -> list[StockThin]:
        return [*self.company.plain, *self.company.rich]

    async def rage(self) -> None:
        # Each time it is back before it is killed again, and people have edited meanwhile.
        kills = [self.dice.randint(n + 4, n + EDITS // KILLS - 12) for n in self.parts()]
        starting: asyncio.Task[None] | None = None
        while self.edits < EDITS:
            if kills and self.edits >= kills[0]:
                back_at = kills.pop(0) + self.dice.randint(2, 10)
                self.server.kill()
                starting = asyncio.create_task(asyncio.to_thread(self.server.start))
            if starting is not None and self.edits >= back_at:
                await starting
                starting = None
                await self.mend()
            draw = self.dice.random()
            if draw < 0.85:
                await self.edit(self.dice.choice([*self.thin, *self.company.yjs]))
            elif draw < 0.95:
                await self.cut_or_mend_thin()
            else:
                client = self.dice.choice(self.company.yjs)
                await client.do(self.dice.choice(["vanish", "connect", "connect"]))
        self.away.clear()
        await self.mend()
        for client in self.company.yjs:
            await client.do("connect")

    @staticmethod
    def parts() -> range:
        """After how many edits a part of the storm begins; one kill is in each."""
        return range(0, EDITS, EDITS // KILLS)

    async def mend(self) -> None:
        """Dial for all who have lost their line and do not want to be away."""
        for client in self.thin:
            if client.name not in self.away and await client.state() == "disconnected":
                await client.dial(endpoint(self.server, self.speaks[client.name]))

    async def cut_or_mend_thin(self) -> None:
        client = self.dice.choice(self.thin)
        if client.name in self.away:
            self.away.discard(client.name)
            await self.mend()
        else:
            self.away.add(client.name)
            await client.cut()

    async def edit(self, client: StockThin | StockClient) -> None:
        place, draw = self.dice.random(), self.dice.random()
        is_rich = client not in self.company.plain
        if draw < 0.3:
            erased = await client.do("erase", place)
            if erased is not None:
                self.erased.add(_tag_of(erased))
                self.erased_unseen += erased == EMBEDDED
        elif draw < 0.4 and client in self.company.rich:
            await client.do("format", place, {"bold": self.dice.choice([True, None])})
        elif draw < 0.5 and is_rich:
            tag = chr(next(self.tags))
            if await client.do("write", place, {"image": tag}) is not False:
                self.embedded.add(tag)
        else:
            tag = chr(next(self.tags))
            if await client.do("write", place, tag + self.dice.choice(SPICE)) is not False:
                self.written.add(tag)
        self.edits += 1

    async def check(self, thin: StockClients, path: Path) -> None:
        """Everybody ends equal, and what was written is there once, or was erased."""
        text = await self.company.end_equal()
        delta = await self.company.yjs[0].do("delta")
        assert Counter(filter(_tag_of, text)) == Counter(self.written - self.erased)
        shown = [_tag_of(each["insert"]) for each in delta if isinstance(each["insert"], dict)]
        lacking = Counter(self.embedded - self.erased)
        lacking.subtract(Counter(shown))
        assert set(lacking.values()) <= {0, 1}, lacking
        assert sum(lacking.values()) <= self.erased_unseen, lacking
        for client in self.thin:
            failed = [event for event in await client.events() if event[1]]
            assert failed == [], client.name
        late = await subscribed(thin, "late", self.room, self.server)
        assert await late.data() == text
        async with in_python(self.server, self.room, path) as (_, document):
            self.company.plain.append(late)
            self.company.python.append(document)
            assert await self.company.end_equal() == text
        assert self.edits >= EDITS


def _tag_of(character: Any) -> str | None:
    if isinstance(character, dict):
        return str(character["image"])
    is_tag = len(character) == 1 and TAGS <= ord(character) < 0xF900
    return character if is_tag else None


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(3, 13))]
)
async def test_everybody_ends_equal_after_a_storm(
    serve: Callable[..., RunningServer],
    thin: StockClients,
    yjs: StockClients,
    tell: Callable[[str], None],
    tmp_path: Path,
    seed: int,
) -> None:
    tell(f"seed {seed}")
    server = serve()
    storm = Storm(server, "team/storm", seed)
    await storm.begin(thin, yjs)
    await storm.rage()
    await storm.check(thin, tmp_path / "late.db")
    assert server.starts == 1 + KILLS
    assert server.complaints() == []
