"""The running server under attack over our own protocol: it lives, answers, and loses nothing.

What hostile updates do is `test_hostile`'s; here the frames, the numbers and the promises around
them are wrong.  An honest bystander writes meanwhile (tests/siege.py says what holds throughout).
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.identifiers import DocumentId, ReplicaId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.peer.messages import (
    Acknowledge,
    Authenticate,
    Awareness,
    Barrier,
    Close,
    Credit,
    Held,
    Open,
    Part,
    Passed,
    State,
    Updates,
    Welcome,
    encode,
)
from hostile import mutate, section, string, update
from raw_replica import HELLO, PATH, RawReplica
from siege import BUSY_WAIT_SECONDS_MAX, WAIT_SECONDS_MAX, Siege

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.protocol.peer.messages import Message
    from running import RunningServer

MALFORMED = 4400
SOMEBODY = ReplicaId(b"s" * 16)
FRAME_BYTES = 100_000


def typed(client: int, text: str = "x") -> bytes:
    return update(section(client, 0, string(text)))


def honest_messages(channel: int) -> list[Message]:
    """One of each that a dialler may say, and some that it may not."""
    return [
        HELLO,
        Authenticate(""),
        Credit(1_000),
        Part(0, 5, b"x"),
        Open(channel, DocumentId("hostile/a"), b"\0"),
        State(channel, b"\0", 0),
        Updates(channel, 1, (typed(1), typed(2))),
        Acknowledge(channel, 0, 0),
        Held(channel, SOMEBODY, 1),
        Awareness(channel, SOMEBODY, 0, b"\1\1\1\2{}"),
        Barrier(channel),
        Passed(channel),
        Close(channel, 1000, ""),
    ]


def frames_of(messages: Sequence[Message]) -> list[bytes]:
    """Messages in as few frames as they fit."""
    frames, frame = [], bytearray()
    for message in messages:
        frame += encode(message)
        if len(frame) > FRAME_BYTES:
            frames.append(bytes(frame))
            frame.clear()
    return [*frames, bytes(frame)]


# --- the attacks --------------------------------------------------------------------------------
#
# Each takes the port and a scale between 0 and 1, which is 1 in full.


async def mutants(port: int, scale: float) -> None:
    """Random and mutated frames, before and behind the greeting and within a channel."""
    random = Random(20_240_611)
    print(f"mutants of seed {20_240_611}")  # noqa: T201
    outcomes: dict[int | None, int] = {}

    async def attack(number: int) -> None:
        if number % 10 == 0:
            peer = await RawReplica.connect(port, PATH)
        else:
            met = peer = await RawReplica.meet(port, number)
            await met.open(0, f"hostile/{number % 50}")
        known = [encode(message) for message in honest_messages(0)]
        for _ in range(8):
            frame = random.choice(known)
            is_random = random.random() < 0.2
            peer.send(random.randbytes(random.randrange(60)) if is_random else frame)
            peer.send(mutate(frame, random, known))
        peer.send(b"\xff")  # which is none, whatever came before
        async with asyncio.timeout(30):
            code = await peer.gone()
        outcomes[code] = outcomes.get(code, 0) + 1

    count = round(4_000 * scale)
    for at in range(0, count, 40):
        await asyncio.gather(*(attack(number) for number in range(at, at + 40)))
    assert outcomes
    assert set(outcomes) <= {MALFORMED, 4404, 4406, 4413}, outcomes


async def random_bytes_in_a_channel(port: int, scale: float) -> None:
    """Updates that are none: each ends its channel, and the connection goes on."""
    peer = await RawReplica.meet(port)
    random = Random(7)
    for number in range(max(5, round(2_000 * scale))):
        assert await peer.open(2 * number, f"hostile/none-{number % 20}") is not None
        peer.say(Updates(2 * number, 1, (random.randbytes(random.randrange(1, 200)),)))
        closed = await peer.hear(Close)
        assert closed is not None
        peer.say(Close(2 * number, 1000, ""))
    assert not peer.ended.done()
    peer.hang_up()


async def never_reading(port: int, scale: float) -> None:
    """Peers that open large documents, give credit without end, and read nothing."""
    writer = await RawReplica.meet(port)
    for number in range(max(2, round(20 * scale))):
        assert await writer.open(2 * number, f"hostile/large-{number}") is not None
        chunk = 60_000
        for at in range(16):
            origin = (9, at * chunk - 1) if at else None
            text = update(section(9, at * chunk, string("z" * chunk, origin=origin)))
            writer.say(Updates(2 * number, at + 1, (text,)))
        assert await writer.passed(2 * number)
    deaf = [await RawReplica.meet(port, number) for number in range(max(5, round(60 * scale)))]
    for peer in deaf:
        peer.stop_reading()
        for number in range(20):
            document = DocumentId(f"hostile/large-{number}")
            peer.say(Credit(2**50), Open(2 * number, document, b"\0"))
    await asyncio.sleep(2 * scale)  # for the server to run into its bounds, if it has none
    assert await writer.passed(0)
    for peer in [*deaf, writer]:
        peer.hang_up()


async def half_parts(port: int, scale: float) -> None:
    """Large messages that are begun and never ended, and half a frame."""
    waiting = [await RawReplica.meet(port, number) for number in range(max(4, round(300 * scale)))]
    for peer in waiting:
        for transfer in range(4):
            peer.say(Part(transfer, 4_000_000, b"p" * 60_000))
            for sent in range(1, 6):
                peer.say(Part(transfer, 4_000_000 - 60_000 * sent, b"p" * 60_000))
        await peer.written()
        peer.write(b"\x82\xfe\xff\xff\0\0\0\0half")
    greedy = await RawReplica.meet(port)
    greedy.say(Part(0, 2**40, b"p"))
    assert await greedy.gone() == 4413
    many = await RawReplica.meet(port)
    many.say(*(Part(transfer, 10, b"p") for transfer in range(20)))
    assert await many.gone() == MALFORMED
    for peer in waiting:
        peer.hang_up()


async def channels_without_end(port: int, scale: float) -> None:
    """100,000 documents on one connection; 100,000 that are opened and closed at once."""
    count = round(100_000 * scale)
    opening = await RawReplica.meet(port)
    opens = [Open(2 * n, DocumentId(f"hostile/many/{n}"), b"\0") for n in range(count)]
    for frame in frames_of(opens):
        opening.send(frame)
        await opening.written()
    if count > DEFAULT_LIMITS.channels_max:
        assert await opening.gone() == MALFORMED
    opening.hang_up()
    restless = await RawReplica.meet(port)
    for at in range(0, count, 500):
        messages: list[Message] = []
        for number in range(at, min(count, at + 500)):
            messages.append(Open(2 * number, DocumentId(f"hostile/many/{number % 7}"), b"\0"))
            messages.append(Close(2 * number, 1000, ""))
        restless.say(*messages)
        await restless.written()
    last = 2 * count
    assert await restless.open(last, "hostile/last") is not None or restless.heard
    restless.hang_up()


async def floods(port: int, scale: float) -> None:
    """Awareness, barriers, tokens, reports, credit: as many as a frame holds, again and again."""
    count = round(200_000 * scale)
    document = "hostile/floods"
    awareness = [
        Awareness(0, SOMEBODY, 0, b"\1" + bytes([client]) + bytes([clock]) + b"\2{}")
        for client in range(100)
        for clock in range(1, 100)
    ]
    tokens = [Authenticate(f"token {number}") for number in range(count)]
    held = [Held(0, ReplicaId(number.to_bytes(16)), 1) for number in range(count)]
    credit = [Credit(2**53 - 1)] * count
    for messages in (awareness, tokens, held, credit):
        peer = await RawReplica.meet(port)
        await peer.open(0, document)
        for frame in frames_of(messages):
            peer.send(frame)
            await peer.written()
        if await peer.passed(0):
            peer.hang_up()
        else:
            assert peer.close_code in (MALFORMED, 4401, 4413)
    barriers = await RawReplica.meet(port)
    await barriers.open(0, document)
    for frame in frames_of([Updates(0, 1, (typed(77),))] + [Barrier(0)] * count):
        barriers.send(frame)
    assert await barriers.gone() == MALFORMED


async def untrue_numbers(port: int, scale: float) -> None:
    """Acknowledgements from the future, answers to no question, credit that there was not."""
    lies: list[list[Message]] = [
        [Acknowledge(0, 1, 1)],
        [Acknowledge(0, 2**53 - 1, 2**53 - 1)],
        [Updates(0, 2, (typed(1),))],
        [Updates(2, 1, (typed(1),))],
        [Updates(0, 1, ())],
        [Passed(0), Passed(0)],  # the server asks once
        [State(0, b"\0", 0)],
        [Open(0, DocumentId("hostile/again"), b"\0")],
        [Open(3, DocumentId("hostile/odd"), b"\0")],
        [Credit(0)],
        [HELLO],
        [Close(4, 1000, "")],
    ]
    for lie in lies:
        peer = await RawReplica.meet(port)
        await peer.open(0, "hostile/numbers")
        peer.say(*lie)
        assert await peer.gone() == MALFORMED, lie
    overdrawn = await RawReplica.meet(port)
    await overdrawn.open(0, "hostile/credit")
    # More at once than there is credit for and one message beyond it, before any is durable.
    chunk = typed(3, "y" * 60_000)
    for number in range(1, round(3_000 * scale)):
        overdrawn.say(Updates(0, number, (chunk,)))
    await overdrawn.written()
    if not await overdrawn.passed(0):
        assert overdrawn.close_code in (MALFORMED, None)
    overdrawn.hang_up()
    again = await RawReplica.connect(port, PATH)
    again.say(HELLO, HELLO)
    assert await again.gone() == MALFORMED
    early = await RawReplica.connect(port, PATH)
    early.say(
        Welcome(
            version=1,
            replica=SOMEBODY,
            incarnation=HELLO.incarnation,
            message_bytes_max=1,
            update_bytes_max=1,
            credit=1,
        )
    )
    assert await early.gone() == MALFORMED


ATTACKS = {
    "mutants": mutants,
    "random bytes in a channel": random_bytes_in_a_channel,
    "peers that never read": never_reading,
    "half parts": half_parts,
    "channels without end": channels_without_end,
    "floods": floods,
    "untrue numbers": untrue_numbers,
}


@pytest.mark.full
@pytest.mark.alone
@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_over_our_own_protocol_harms_nobody_else(
    server: RunningServer, name: str
) -> None:
    async with Siege(server, name, wait_seconds_max=WAIT_SECONDS_MAX) as siege:
        await ATTACKS[name](siege.port, 1.0)


async def test_a_little_of_every_attack_over_our_own_protocol_harms_nobody_else(
    server: RunningServer,
) -> None:
    name = "a little of every attack over our own protocol"
    async with Siege(server, name, wait_seconds_max=BUSY_WAIT_SECONDS_MAX) as siege:
        for attack in ATTACKS.values():
            await attack(siege.port, 0.02)
