from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import serve

from crdt_state.clocks import ManualClock
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.transport.intake import (
    LARGE_PART_BYTES,
    ROUND_SECONDS,
    Intake,
    MeteredConnection,
)
from crdt_state.transport.websocket import WebSocketConnection
from raw_peer import RawPeer, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from websockets.asyncio.server import ServerConnection

MEGABYTE = 1024 * 1024


@asynccontextmanager
async def listening(
    handler: Callable[[ServerConnection], Awaitable[None]], limits: Limits = DEFAULT_LIMITS
) -> AsyncIterator[tuple[int, Intake]]:
    shared = Intake(limits)

    class Connection(MeteredConnection):
        intake = shared

    async with serve(
        handler,
        "127.0.0.1",
        0,
        create_connection=Connection,
        compression=None,
        ping_interval=None,
        max_size=limits.message_bytes_max,
        close_timeout=0.1,
    ) as server:
        (listener,) = server.sockets
        try:
            yield listener.getsockname()[1], shared
        finally:
            await RawPeer.all_hang_up()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what no one announces
            await asyncio.sleep(0)


async def test_messages_arrive_whole_and_in_order_however_they_are_sliced() -> None:
    sent = [bytes([number % 256]) * size for number, size in enumerate([1, 10, 5_000, 100_000] * 9)]
    received: list[bytes] = []

    async def collect(wire: ServerConnection) -> None:
        received.extend([await wire.recv(decode=False) for _ in sent])

    async with listening(collect) as (port, intake):
        peer = await RawPeer.connect(port, "")
        peer.send(*sent)
        await until(lambda: len(received) == len(sent))
        assert received == sent
        await peer.gone()
        assert intake.unfinished_bytes == 0


async def test_what_nobody_takes_is_not_read_on() -> None:
    taken = asyncio.Event()
    wires: list[Any] = []
    received = 0

    async def wait_first(wire: ServerConnection) -> None:
        nonlocal received
        wires.append(wire)
        await taken.wait()
        async for _ in wire:
            received += 1

    async with listening(wait_first) as (port, _):
        peer = await RawPeer.connect(port, "")
        peer.write(frame(b"tiny") * 60_000)
        await until(lambda: bool(wires) and wires[0].recv_messages.paused)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(wires[0].recv_messages.frames) < 1_000
        assert len(wires[0]._backlog) < MEGABYTE
        taken.set()
        await until(lambda: received == 60_000)


async def test_a_peer_that_pings_and_never_reads_is_not_answered_for_ever() -> None:
    wires: list[Any] = []
    limits = dataclasses.replace(DEFAULT_LIMITS, peer_queue_bytes_max=MEGABYTE)

    async def keep(wire: ServerConnection) -> None:
        wires.append(wire)
        await wire.wait_closed()

    async with listening(keep, limits) as (port, _):
        peer = await RawPeer.connect(port, "")
        peer.stop_reading()
        ping = frame(b"p" * 125, opcode=9)
        peer.write(ping * 60_000)

        def written() -> int:
            return int(wires[0].transport.get_write_buffer_size())

        await until(lambda: bool(wires) and written() > MEGABYTE)
        for _ in range(300):
            await asyncio.sleep(0)
        assert written() < 2 * MEGABYTE
        peer.transport.resume_reading()
        await until(lambda: peer.bytes_received > 60_000 * 125)


async def test_what_is_kept_of_messages_in_parts_counts_with_unfinished_frames() -> None:
    limits = dataclasses.replace(DEFAULT_LIMITS, unfinished_bytes_max=4 * LARGE_PART_BYTES)

    async def keep(wire: ServerConnection) -> None:
        connection = WebSocketConnection(wire, limits)
        async for message in wire:
            connection.holds(int(message))

    async with listening(keep, limits) as (port, intake):
        peers = [await RawPeer.connect(port, "") for _ in range(3)]
        for peer in peers[:2]:
            peer.send(b"%d" % (2 * LARGE_PART_BYTES))
        await until(lambda: intake.unfinished_bytes == 4 * LARGE_PART_BYTES)
        peers[2].send(b"%d" % (LARGE_PART_BYTES + 1))
        await peers[2].gone()
        assert intake.cut_off == 1
        peers[0].send(b"0")
        await until(lambda: intake.unfinished_bytes == 2 * LARGE_PART_BYTES)
        await RawPeer.all_hang_up()
        await until(lambda: intake.unfinished_bytes == 0)


async def test_unfinished_frames_of_all_together_are_bounded() -> None:
    limits = dataclasses.replace(DEFAULT_LIMITS, unfinished_bytes_max=8 * LARGE_PART_BYTES)

    async def read(wire: ServerConnection) -> None:
        async for message in wire:
            await wire.send(message)

    async with listening(read, limits) as (port, intake):
        honest = await RawPeer.connect(port, "")
        peers = [await RawPeer.connect(port, "") for _ in range(6)]
        for peer in peers:
            peer.write(frame(b"h" * 2 * LARGE_PART_BYTES, size=30 * MEGABYTE))
        await until(lambda: intake.cut_off > 0)
        assert intake.unfinished_bytes <= limits.unfinished_bytes_max + LARGE_PART_BYTES
        assert not honest.ended.done()
        before = honest.bytes_received
        honest.send(b"I am small")
        await until(lambda: honest.bytes_received > before)
        await RawPeer.all_hang_up()
        await until(lambda: intake.unfinished_bytes == 0)


SLICE_SECONDS = (
    ROUND_SECONDS / 7.5
)  # the eighth begins before the round is over, the ninth does not


class Endless:
    """Stands for a connection that always has more to be parsed, which takes its time."""

    def __init__(self, name: str, turns: list[str], intake: Intake, clock: ManualClock) -> None:
        self.name, self.turns, self.intake, self.clock = name, turns, intake, clock

    def take_turn(self) -> None:
        self.turns.append(self.name)
        self.clock.advance(SLICE_SECONDS)
        self.intake.wants_a_turn(self)  # type: ignore[arg-type]


async def test_everybody_gets_a_turn_before_anybody_gets_two_and_rounds_are_short() -> None:
    clock = ManualClock()
    intake = Intake(DEFAULT_LIMITS, now=clock.now)
    turns: list[str] = []
    names = [str(number) for number in range(3 * 8)]
    for name in names:
        intake.wants_a_turn(Endless(name, turns, intake, clock))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert len(turns) == 8
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns == names
    assert intake._round is not None
    intake._round.cancel()
