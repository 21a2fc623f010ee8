"""`crdt_state.transport.memory`: two ends of a connection, as every adapter has them."""

from __future__ import annotations

import asyncio

import pytest

from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.memory import memory_pair
from wired import turn, until


async def test_messages_arrive_in_order_in_both_directions() -> None:
    one, other = memory_pair("client", "server")
    assert (one.remote_address, other.remote_address) == ("server", "client")
    for message in (b"a", b"b", b""):
        one.send(message)
        other.send(message * 2)
    assert [await other.receive() for _ in range(3)] == [b"a", b"b", b""]
    assert [await one.receive() for _ in range(3)] == [b"aa", b"bb", b""]


async def test_who_waits_is_woken_by_a_message_and_by_the_end() -> None:
    one, other = memory_pair()
    waiting = asyncio.create_task(other.receive())
    await turn()
    one.send(b"a")
    assert await waiting == b"a"
    waiting = asyncio.create_task(other.receive())
    await turn()
    await one.close(4401, "expired")
    with pytest.raises(ConnectionEnded) as caught:
        await waiting
    assert (caught.value.code, caught.value.reason) == (4401, "expired")


async def test_what_was_sent_before_the_end_is_still_received() -> None:
    one, other = memory_pair()
    one.send(b"a")
    await one.close()
    one.send(b"too late")
    assert await other.receive() == b"a"
    for end in (one, other):
        with pytest.raises(ConnectionEnded):
            await end.receive()


async def test_a_cut_loses_what_was_on_the_way() -> None:
    one, other = memory_pair()
    one.send(b"a")
    one.cut()
    with pytest.raises(ConnectionEnded) as caught:
        await other.receive()
    assert caught.value.code == 1006


async def test_the_first_end_counts() -> None:
    one, other = memory_pair()
    await one.close(4401, "expired")
    await other.close(1000)
    with pytest.raises(ConnectionEnded) as caught:
        await one.receive()
    assert caught.value.code == 4401


async def test_buffered_bytes_are_what_the_other_end_has_not_taken() -> None:
    one, other = memory_pair()
    one.send(b"abc")
    one.send(b"de")
    assert (one.buffered_bytes, other.buffered_bytes) == (5, 0)
    drained = asyncio.create_task(one.drained())
    await other.receive()
    await turn()
    assert one.buffered_bytes == 2
    assert not drained.done()
    await other.receive()
    await until(drained.done)


async def test_who_waits_for_a_drain_is_woken_by_the_end() -> None:
    one, other = memory_pair()
    one.send(b"abc")
    drained = asyncio.create_task(one.drained())
    await turn()
    await other.close()
    await until(drained.done)
