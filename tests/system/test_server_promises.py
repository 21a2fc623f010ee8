"""Who is let in, who is sent away and with what code, and how the server ends."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AbstractAsyncContextManager, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from crdt_state.clocks import WallTime
from crdt_state.identifiers import DocumentId, path_of
from crdt_state.model.engine import NativeDocument
from crdt_state.protocol.ywebsocket import (
    Message,
    PermissionDenied,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    encode,
)
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.security.tokens import parse_keys, sign
from crdt_state.transport.replica import Replica
from pushing import fetch
from running import RunningServer, eventually
from stock import stock_clients

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a secret of the tests, long enough"
ANSWER_SECONDS_MAX = 20.0


def token(
    access: Access = Access.WRITE,
    *,
    identity: str = "ana",
    pattern: str = "team/**",
    seconds: float = 3600,
) -> str:
    ends = WallTime(time.time_ns() // 1_000 + round(seconds * 1_000_000))
    grant = Grant(identity, (Right(pattern, access),), expires_at=ends)
    return sign(grant, parse_keys(SECRET), now=WallTime(time.time_ns() // 1_000))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that asks for tokens."""
    settings = {"CRDT_STATE_JWT_SECRET": SECRET, "CRDT_STATE_JWT_LEEWAY_SECONDS": "0"}
    with RunningServer(tmp_path_factory.mktemp("guarded"), settings) as server:
        yield server


def dial(
    server: RunningServer, document: DocumentId, query: str = "", **options: Any
) -> AbstractAsyncContextManager[ClientConnection]:
    return connect(server.url + path_of(document) + query, compression=None, **options)


async def receive(wire: ClientConnection, kind: type[Message]) -> Any:
    """The next message of this kind."""
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        while not isinstance(message := decode(await wire.recv(decode=False)), kind):
            pass
    return message


async def ending(wire: ClientConnection) -> tuple[int, str, str | None]:
    """Code and reason of a connection's end, and the permission denied before it."""
    denied: list[str] = []

    async def listen() -> None:
        while True:
            message = decode(await wire.recv(decode=False))
            if isinstance(message, PermissionDenied):
                denied.append(message.reason)

    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(listen(), ANSWER_SECONDS_MAX)
    frame = closed.value.rcvd
    assert frame is not None
    return frame.code, frame.reason, denied[0] if denied else None


def typed(text: str) -> bytes:
    document = NativeDocument(client_id=77)
    with document.transaction():
        document.text("text").insert(0, text)
    return document.encode()


@pytest.mark.parametrize("path", ["/", "/team/notes", "/-/api/documents"])
@pytest.mark.parametrize("body", [None, b'{"a": 1}'])
def test_a_post_is_told_that_everything_here_is_read_only(
    guarded: RunningServer, path: str, body: bytes | None
) -> None:
    connection = HTTPConnection("127.0.0.1", guarded.port, timeout=ANSWER_SECONDS_MAX)
    with closing(connection):
        connection.request("POST", path, body=body)
        response = connection.getresponse()
        assert (response.status, response.getheader("Allow")) == (405, "GET")
        assert response.getheader("Content-Type") == "application/problem+json"
        assert "edited over WebSocket" in json.loads(response.read())["detail"]


# --- tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("", 4401, "a token is required"),
        ("?token=nonsense", 4401, "not a signed JSON Web Token"),
        (f"?token={token(seconds=-5)}", 4401, "expired"),
        (f"?token={token(pattern='others/**')}", 4403, "no right to read"),
    ],
    ids=["none", "nonsense", "expired", "for other documents"],
)
async def test_without_a_right_to_read_nobody_is_let_in(
    query: str, code: int, reason: str, guarded: RunningServer, room: DocumentId
) -> None:
    async with dial(guarded, room, query) as wire:
        ended = await ending(wire)
    assert ended[0] == code
    assert reason in ended[1]
    assert ended[1] == ended[2]
    assert "eyJ" not in guarded.log.read_text()


async def test_a_token_is_taken_from_the_query_a_subprotocol_or_a_header(
    guarded: RunningServer, room: DocumentId
) -> None:
    bearer = token()
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"?token={bearer}", {}),
        ("", {"subprotocols": ["crdt-state", f"token.{bearer}"]}),
        ("", {"additional_headers": {"Authorization": f"Bearer {bearer}"}}),
    ]
    for query, options in ways:
        async with dial(guarded, room, query, **options) as wire:
            await wire.send(encode(SyncStep1(b"\x00")))
            assert (await receive(wire, SyncStep2)).update == b"\x00\x00"
    assert bearer not in guarded.log.read_text()


async def test_an_open_connection_ends_with_its_token(
    guarded: RunningServer, room: DocumentId
) -> None:
    began = time.monotonic()
    async with dial(guarded, room, f"?token={token(seconds=2)}") as wire:
        await wire.send(encode(Update(typed("in time"))))
        await wire.send(encode(SyncStep1(b"\x00")))
        await receive(wire, SyncStep2)
        code, reason, _ = await ending(wire)
    assert code == 4401
    assert "expired" in reason
    assert time.monotonic() - began < 5


async def test_our_client_brings_a_new_token_when_its_old_one_has_expired(
    guarded: RunningServer, tmp_path: Path, room: DocumentId
) -> None:
    brought: list[str] = []

    def fresh() -> str:
        brought.append(token(seconds=3600 if brought else 2))
        return brought[-1]

    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(room)
        link = replica.connect(guarded.url, token=fresh)
        document.text("text").append("first ")
        await link.synced()
        await eventually(lambda: len(brought) > 1, True)
        document.text("text").append("second")
        await link.synced()
    async with dial(guarded, room, f"?token={token(Access.READ)}") as wire:
        await wire.send(encode(SyncStep1(b"\x00")))
        reader = NativeDocument(client_id=1)
        reader.apply((await receive(wire, SyncStep2)).update)
    assert reader.text("text").string() == "first second"


async def test_who_may_only_read_reads_and_is_sent_away_when_it_writes(
    guarded: RunningServer, room: DocumentId
) -> None:
    async with dial(guarded, room, f"?token={token()}") as writer:
        await writer.send(encode(Update(typed("written"))))
        await writer.send(encode(SyncStep1(b"\x00")))
        state = (await receive(writer, SyncStep2)).update
    async with dial(guarded, room, f"?token={token(Access.READ)}") as reader:
        await reader.send(encode(SyncStep1(b"\x00")))
        assert (await receive(reader, SyncStep2)).update == state
        # A stock client answers our step 1 with what it holds; that is no offence.
        await reader.send(encode(SyncStep2(state)))
        await reader.send(encode(SyncStep1(b"\x00")))
        assert (await receive(reader, SyncStep2)).update == state
        other = NativeDocument(client_id=78)
        with other.transaction():
            other.text("text").insert(0, "smuggled")
        await reader.send(encode(Update(other.encode())))
        code, reason, denied = await ending(reader)
    assert code == 4403
    assert "no right to write" in reason
    assert denied == reason
    async with dial(guarded, room, f"?token={token()}") as again:
        await again.send(encode(SyncStep1(b"\x00")))
        assert (await receive(again, SyncStep2)).update == state


async def test_an_identity_fills_its_quota_and_nobody_elses(tmp_path: Path) -> None:
    settings = {
        "CRDT_STATE_JWT_SECRET": SECRET,
        "CRDT_STATE_LIMITS__IDENTITY_DOCUMENTS_MAX": "1",
    }
    first, second = DocumentId("team/first"), DocumentId("team/second")
    state = typed("kept")
    with RunningServer(tmp_path, settings) as server:
        for document in (first, second):
            async with dial(server, document, f"?token={token()}") as wire:
                await wire.send(encode(Update(state)))
                if document == first:
                    await wire.send(encode(SyncStep1(b"\x00")))
                    assert (await receive(wire, SyncStep2)).update == state
                else:
                    code, reason, denied = await ending(wire)
                    assert code == 4430
                    assert "identity_documents_max = 1" in reason
                    assert denied == reason
        async with dial(server, second, f"?token={token(identity='bob')}") as wire:
            await wire.send(encode(Update(state)))
            await wire.send(encode(SyncStep1(b"\x00")))
            assert (await receive(wire, SyncStep2)).update == state
        assert b"crdt_state_quotas_exceeded_total 1.0" in server.get("/metrics")[1]
        assert server.complaints() == []


@pytest.mark.node
async def test_a_stock_client_with_the_right_to_read_follows_and_cannot_write(
    guarded: RunningServer, node_programs: Path, tmp_path: Path, room: DocumentId
) -> None:
    async with (
        Replica.open(tmp_path / "notes.db") as replica,
        stock_clients(node_programs) as node,
    ):
        document = await replica.document(room)
        link = replica.connect(guarded.url, token=token())
        reader = await node.open("ana", guarded.url, room, token=token(Access.READ))
        document.text("text").append("for all to read")
        await eventually(reader.text, "for all to read")
        await reader.do("insert", 0, "mine: ")
        await eventually(lambda: _codes(reader), {4403})
        await link.synced()
        assert str(document.text("text")) == "for all to read"
    assert guarded.complaints() == []


async def _codes(client: Any) -> set[int]:
    return {code for code, _ in await client.closes()}


async def test_our_client_says_why_it_may_not_write_and_delivers_once_it_may(
    guarded: RunningServer, tmp_path: Path, room: DocumentId
) -> None:
    access = Access.READ
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(room)
        link = replica.connect(guarded.url, token=lambda: token(access))
        await link.synced()
        document.text("text").append("kept")
        delivered = asyncio.create_task(link.synced())
        await eventually(lambda: "no right to write" in (link.last_error or ""), True)
        assert not delivered.done()
        assert [entry.document for entry in await replica.store.outbox(link.remote)] == [room]
        access = Access.WRITE
        await asyncio.wait_for(delivered, ANSWER_SECONDS_MAX)
        assert await replica.store.outbox(link.remote) == ()


# --- origin and host -------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1.nip.io"])
async def test_a_web_page_from_elsewhere_cannot_reach_a_local_server(
    origin: str, shared_server: RunningServer, room: DocumentId
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dial(shared_server, room, origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_a_page_of_this_host_is_welcome(
    shared_server: RunningServer, room: DocumentId
) -> None:
    async with dial(shared_server, room, origin=f"http://127.0.0.1:{shared_server.port}") as wire:
        await wire.send(encode(SyncStep1(b"\x00")))
        await receive(wire, SyncStep2)


async def test_a_name_that_was_rebound_to_this_address_is_refused(
    shared_server: RunningServer,
) -> None:
    status, body = await asyncio.to_thread(
        shared_server.get, "/", {"Host": f"evil.example:{shared_server.port}"}
    )
    assert status == 403
    assert b"evil.example" in body


# --- ids and frames --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/%ff"])
async def test_a_path_that_names_no_document_ends_in_4404(
    path: str, shared_server: RunningServer
) -> None:
    async with connect(shared_server.url + path, compression=None) as wire:
        assert (await ending(wire))[0] == 4404


async def test_what_belongs_to_the_engine_is_no_document(shared_server: RunningServer) -> None:
    async with connect(shared_server.url + "/-/secret", compression=None) as wire:
        assert (await ending(wire))[0] == 4404


async def test_a_broken_frame_ends_its_conversation_and_no_other(
    shared_server: RunningServer, room: DocumentId
) -> None:
    async with dial(shared_server, room) as honest, dial(shared_server, room) as broken:
        await broken.send(b"\x00\x07nonsense")
        assert (await ending(broken))[0] == 4400
        await honest.send(encode(Update(typed("still here"))))
        await honest.send(encode(SyncStep1(b"\x00")))
        await receive(honest, SyncStep2)
    assert await fetch(shared_server.url, room) == typed("still here")
    assert shared_server.complaints() == []


# --- durable before anybody hears of it ------------------------------------------------------


@pytest.mark.parametrize("heard", [Update, SyncStep2], ids=["forwarded", "confirmed"])
async def test_what_is_heard_of_an_update_is_heard_after_it_is_on_the_disk(
    heard: type[Message], server: RunningServer, room: DocumentId
) -> None:
    """The kill comes as soon as somebody hears; a large update makes the commit take a while."""
    text = ""
    author = NativeDocument(client_id=77)
    made: list[bytes] = []
    author.observe(lambda update, _: made.append(update))
    for number in range(2):
        part = f"{number}" * 2_000_000
        text += part
        with author.transaction():
            author.text("text").insert(len(text) - len(part), part)
        async with (
            dial(server, room, max_size=None) as writer,
            dial(server, room, max_size=None) as other,
        ):
            for wire in (writer, other):
                await wire.send(encode(SyncStep1(b"\x00")))
                await receive(wire, SyncStep2)
            listening = other if heard is Update else writer
            await writer.send(encode(Update(made[-1])))
            await writer.send(encode(SyncStep1(author.state_vector())))
            await receive(listening, heard)
            server.kill()
        await asyncio.to_thread(server.start)
        reader = NativeDocument(client_id=1)
        reader.apply(await fetch(server.url, room))
        found = reader.text("text").string()
        is_all_there = found == text
        assert is_all_there, f"{len(found):,} of {len(text):,} characters are there"
    assert server.complaints() == []


# --- its end ---------------------------------------------------------------------------------


async def test_sigterm_drains(server: RunningServer, room: DocumentId) -> None:
    other = DocumentId(f"{room}/other")
    async with dial(server, room) as one, dial(server, other) as two:
        for wire in (one, two):
            await wire.send(encode(Update(typed("the last words"))))
            await wire.send(encode(SyncStep1(b"\x00")))
            await receive(wire, SyncStep2)
        server.terminate()
        for wire in (one, two):
            code, reason, _ = await ending(wire)
            assert code == 1012
            assert "reconnect" in reason
    assert await asyncio.to_thread(server.exit_code) == 0
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        async with dial(server, room):
            pass
    await asyncio.to_thread(server.start)
    assert await fetch(server.url, room) == typed("the last words")
    assert server.complaints() == []


async def test_what_arrived_before_sigterm_is_stored_though_nobody_asked(
    server: RunningServer, tmp_path: Path, room: DocumentId
) -> None:
    async with Replica.open(tmp_path / "notes.db") as replica:
        document = await replica.document(room)
        link = replica.connect(server.url)
        await link.synced()
        for number in range(50):
            document.text("text").append(f"{number};")
        await document.saved()
        server.terminate()
        assert await asyncio.to_thread(server.exit_code) == 0
        await asyncio.to_thread(server.start)
        await link.synced()
        text = str(document.text("text"))
    reader = NativeDocument(client_id=1)
    reader.apply(await fetch(server.url, room))
    assert reader.text("text").string() == text == "".join(f"{number};" for number in range(50))
    assert server.complaints() == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_no_worker_outlives_a_server_that_was_killed(
    server: RunningServer, room: DocumentId
) -> None:
    async with dial(server, room) as wire:
        await wire.send(encode(Update(typed("for a worker"))))
        await wire.send(encode(SyncStep1(b"\x00")))
        await receive(wire, SyncStep2)
    status, body = await asyncio.to_thread(server.get, f"/-/api/json{path_of(room)}")
    workers = _children(server.pid)
    assert (status, bool(workers)) == (200, True), body
    server.kill()
    await eventually(lambda: [pid for pid in workers if _is_alive(pid)], [])


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except OSError:
        return False
