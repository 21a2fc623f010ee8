"""Text messages over a WebSocket: what arrives, and what a peer may not send."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.websocket import WebSocketDial
from crdt_state.transport.websocket_text import TextConnection, TextDial


async def dialled(port: int) -> TextConnection:
    return await TextDial(WebSocketDial(DEFAULT_LIMITS))(f"ws://127.0.0.1:{port}")


async def test_text_goes_both_ways_until_one_side_closes() -> None:
    async def echo(wire: ServerConnection) -> None:
        async for message in wire:
            assert isinstance(message, str)
            await wire.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        connection = await dialled(server.sockets[0].getsockname()[1])
        connection.send("hello 😀")
        await connection.drained()
        assert await connection.receive() == "hello 😀"
        await connection.close()
        with pytest.raises(ConnectionEnded) as ended:
            await connection.receive()
        assert ended.value.code == codes.CLOSED
        connection.send("nobody hears this")


async def test_a_binary_message_ends_the_connection() -> None:
    seen: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def binary(wire: ServerConnection) -> None:
        await wire.send(b"bytes")
        await wire.wait_closed()
        seen.set_result(wire.close_code)

    async with serve(binary, "127.0.0.1", 0) as server:
        connection = await dialled(server.sockets[0].getsockname()[1])
        with pytest.raises(ConnectionEnded, match="binary"):
            await connection.receive()
        assert await seen == codes.NOT_BINARY


async def test_where_nobody_listens_it_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - each system words it in its own way
        await dialled(1)
