"""`crdt_state.transport.websocket_server` and `websocket`: over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus

from crdt_state.clocks import WallTime
from crdt_state.errors import TokenRejected
from crdt_state.limits import Limits
from crdt_state.protocol.ywebsocket import PermissionDenied, SyncStep1, Update, decode, encode
from crdt_state.security.grant import EVERYTHING, Grant
from crdt_state.security.tokens import NoAuthentication
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.listener import Listener
from crdt_state.transport.origin import OriginRules
from crdt_state.transport.websocket import WebSocketConnection, WebSocketDial
from crdt_state.transport.websocket_server import Answer, Asked, WebSocketServer, _token
from wired import IMPATIENT, GatedStore, opened_shell, turn, typed, until

SOCKETS = replace(IMPATIENT, close_seconds_max=1.0, drain_seconds_max=5.0)


class Recording:
    """Remembers the tokens it was shown."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        self.tokens.append(token)
        return EVERYTHING


class Site:
    """A server on a port of its own."""

    def __init__(self, server: WebSocketServer, port: int, listener: Listener) -> None:
        self.server = server
        self.port = port
        self.listener = listener
        self.url = f"ws://127.0.0.1:{port}"


@asynccontextmanager
async def site(limits: Limits = SOCKETS, authentication: Any = None) -> AsyncIterator[Site]:
    async def answer(asked: Asked) -> Answer | None:
        if asked.target == "/" and asked.method == "GET":
            return Answer(200, (("Content-Type", "text/plain"),), b"okay")
        return None

    async with opened_shell(GatedStore(limits=limits), limits=limits, is_listening=True) as shell:
        listener = Listener(shell, authentication or NoAuthentication())
        server = WebSocketServer(
            listener,
            limits,
            host="127.0.0.1",
            port=0,
            rules=OriginRules(frozenset(), frozenset()),
            answer=answer,
        )
        port = await server.start()
        try:
            yield Site(server, port, listener)
        finally:
            await server.drain()


async def greeted(wire: ClientConnection) -> ClientConnection:
    message = await wire.recv()
    assert isinstance(message, bytes)
    assert isinstance(decode(message), SyncStep1)
    return wire


async def http_get(port: int, path: str, *headers: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_plain_requests_are_answered_beside_websockets() -> None:
    async with site() as here:
        answer = await http_get(here.port, "/")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\nokay")
        async with connect(f"{here.url}/notes") as wire:
            await greeted(wire)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"PUT /notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"DELETE /notes HTTP/1.0\r\n\r\n",
    ],
)
async def test_what_would_change_something_is_answered_and_its_body_not_kept(
    request_: bytes,
) -> None:
    async with site() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(request_)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n")
        assert here.server.intake.unfinished_bytes == 0
        writer.close()
        await until(lambda: here.server._per_address.total() == 0)
        async with connect(f"{here.url}/notes") as wire:
            await greeted(wire)


async def test_two_clients_meet_over_sockets() -> None:
    async with (
        site() as here,
        connect(f"{here.url}/notes") as one,
        connect(f"{here.url}/notes") as other,
    ):
        await greeted(one)
        await greeted(other)
        await one.send(encode(Update(typed("hi"))))
        assert await other.recv() == encode(Update(typed("hi")))


async def test_a_foreign_page_is_refused_in_the_handshake() -> None:
    async with site() as here:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{here.url}/notes", origin="https://elsewhere.example")  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
        assert here.server.origins_refused == 1


async def test_text_is_not_for_us() -> None:
    async with site() as here, connect(f"{here.url}/notes") as wire:
        await greeted(wire)
        await wire.send("text")
        with pytest.raises(ConnectionClosed) as caught:
            await wire.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1003


async def test_a_message_beyond_the_bound_ends_the_connection() -> None:
    async with (
        site(replace(SOCKETS, message_bytes_max=1_000)) as here,
        connect(f"{here.url}/notes") as wire,
    ):
        await greeted(wire)
        await wire.send(b"\0" * 1_001)
        with pytest.raises(ConnectionClosed) as caught:
            await wire.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_sockets_of_one_address_are_bounded_and_counted_down() -> None:
    async with site(replace(SOCKETS, connections_per_address_max=2)) as here:
        one = await greeted(await connect(f"{here.url}/notes"))
        other = await greeted(await connect(f"{here.url}/notes"))
        with pytest.raises((OSError, EOFError, ConnectionClosed, Exception)):
            await connect(f"{here.url}/notes")
        assert here.server.addresses_refused == 1
        await one.close()
        await turn(50)
        await (await greeted(await connect(f"{here.url}/notes"))).close()
        await other.close()


async def test_who_says_nothing_is_not_waited_for() -> None:
    async with site(replace(SOCKETS, handshake_seconds_max=0.05)) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        assert await reader.read() == b""
        writer.close()
        await turn(50)
        assert here.server._per_address.total() == 0


async def test_a_drain_says_goodbye_and_closes_the_door() -> None:
    async with site() as here:
        wire = await greeted(await connect(f"{here.url}/notes"))
        await here.server.drain()
        with pytest.raises(ConnectionClosed) as caught:
            await wire.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        with pytest.raises(OSError, match=r"."):
            await connect(f"{here.url}/notes")


async def test_a_drain_ends_although_a_peer_does_not_take_part() -> None:
    limits = replace(SOCKETS, close_seconds_max=0.05, drain_seconds_max=0.5)
    async with site(limits) as here:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        lines = [
            "GET /notes HTTP/1.1",
            f"Host: 127.0.0.1:{here.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            key,
            "Sec-WebSocket-Version: 13",
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        await reader.readuntil(b"\r\n\r\n")
        await here.server.drain()
        writer.close()


@pytest.mark.parametrize(
    ("query", "headers", "token"),
    [
        ("", [], None),
        ("token=abc", [], "abc"),
        ("token=a%2Eb&other=1", [], "a.b"),
        ("", [("Sec-WebSocket-Protocol", "crdt-state, token.abc")], "abc"),
        ("", [("Authorization", "Bearer abc")], "abc"),
        ("", [("Authorization", "bearer  abc ")], "abc"),
        ("", [("Authorization", "Basic abc")], None),
        ("token=first", [("Authorization", "Bearer second")], "first"),
    ],
)
def test_a_token_is_found_where_clients_put_it(
    query: str, headers: list[tuple[str, str]], token: str | None
) -> None:
    assert _token(query, Headers(headers)) == token


async def test_the_dial_brings_a_fresh_token_each_time_and_not_in_the_url() -> None:
    authentication = Recording()
    tokens = iter(["one", "two"])
    async with site(authentication=authentication) as here:
        dial = WebSocketDial(SOCKETS, token=lambda: next(tokens))
        for _ in range(2):
            connection = await dial(f"{here.url}/notes")
            assert isinstance(decode(await connection.receive()), SyncStep1)
            await connection.close()
        assert authentication.tokens == ["one", "two"]


async def test_a_chosen_subprotocol_keeps_browsers_connected() -> None:
    async with (
        site() as here,
        connect(f"{here.url}/notes", subprotocols=["token.abc", "crdt-state"]) as wire,  # type: ignore[list-item]
    ):
        assert wire.subprotocol == "crdt-state"


async def test_dialling_fails_with_what_a_link_answers_to() -> None:
    dial = WebSocketDial(SOCKETS)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"."):
            await dial(f"ws://127.0.0.1:{closed.getsockname()[1]}/notes")
    async with site() as here:
        with pytest.raises(ConnectionEnded) as caught:
            await dial(f"{here.url}/")
        assert caught.value.code == 1002


async def test_a_connection_that_does_not_read_drains_when_it_does() -> None:
    async with site() as here:
        client = await (WebSocketDial(SOCKETS))(f"{here.url}/notes")
        await client.receive()
        (room,) = here.listener.rooms.values()
        (member,) = room.members.values()
        ours = member.connection
        assert isinstance(ours, WebSocketConnection)
        frame = encode(Update(typed("x" * 4_000_000)))
        for _ in range(6):
            ours.send(frame)
        assert ours.buffered_bytes > 1_000_000
        draining = asyncio.create_task(ours.drained())
        await turn(20)
        assert not draining.done()
        for _ in range(6):
            assert await client.receive() == frame
        await draining
        await client.close()


async def test_waiting_for_a_drain_ends_with_the_connection() -> None:
    async with site() as here:
        client = await (WebSocketDial(SOCKETS))(f"{here.url}/notes")
        await client.receive()
        (room,) = here.listener.rooms.values()
        (member,) = room.members.values()
        ours = member.connection
        assert isinstance(ours, WebSocketConnection)
        for _ in range(6):
            ours.send(b"\0" * 4_000_000)
        draining = asyncio.create_task(ours.drained())
        await turn(20)
        client.wire.transport.abort()
        await draining


class Nobody:
    """Grants nothing to anybody."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        raise TokenRejected("a token is required")


async def test_what_the_refused_send_is_not_kept_and_they_hear_the_code() -> None:
    limits = replace(SOCKETS, refused_close_seconds=60.0)
    async with (
        site(limits, Nobody()) as here,
        connect(f"{here.url}/notes", max_queue=None) as wire,
    ):
        (ours,) = here.server._server.connections  # type: ignore[union-attr]
        assert isinstance(decode(await wire.recv(decode=False)), PermissionDenied)
        for _ in range(100):  # many more than the library lets wait
            await wire.send(b"\0" * 100_000)
        await (await wire.ping())
        assert len(ours.recv_messages.frames) == 0
        assert here.server._per_address.total() == 1
        await here.server.drain()
        with pytest.raises(ConnectionClosed) as caught:
            await wire.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4401


async def test_a_refused_client_that_hangs_up_is_gone_at_once() -> None:
    limits = replace(SOCKETS, refused_close_seconds=60.0)
    async with site(limits, Nobody()) as here, connect(f"{here.url}/notes") as wire:
        assert isinstance(decode(await wire.recv(decode=False)), PermissionDenied)
        await wire.close()
        await until(lambda: not here.listener.traffic.connections)


async def test_what_many_do_not_read_is_held_once() -> None:
    async with site() as here:
        clients = [await connect(f"{here.url}/notes", max_size=None) for _ in range(3)]
        for client in clients:
            await greeted(client)
        (room,) = here.listener.rooms.values()
        members = list(room.members.values())
        large = encode(Update(typed("x" * 8_000_000)))
        written: list[bytes] = []
        for member in members:
            transport = member.connection.wire.transport  # type: ignore[union-attr,attr-defined]
            write = transport.write
            transport.write = lambda data, write=write: (written.append(data), write(data))
        here.listener.traffic.write(members, large)
        assert len({id(frame) for frame in written}) == 1 < len(written)
        small = encode(Update(typed("small")))
        here.listener.traffic.write(members, small)
        for client in clients:
            assert [await client.recv(), await client.recv()] == [large, small]
            await client.close()


async def test_a_large_message_to_many_skips_who_is_going() -> None:
    async with site() as here:
        one, other = await connect(f"{here.url}/notes"), await connect(f"{here.url}/notes")
        await greeted(one)
        await greeted(other)
        (room,) = here.listener.rooms.values()
        going, staying = room.members.values()
        going.connection.wire.transport.abort()  # type: ignore[attr-defined]
        large = encode(Update(typed("x" * 1_000_000)))
        here.listener.traffic.write([going, staying], large)
        assert await other.recv() == large
        await other.close()
