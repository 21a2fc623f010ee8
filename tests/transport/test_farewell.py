"""`crdt_state.transport.farewell`: a reason at once, and the close in due time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from crdt_state.clocks import WallTime
from crdt_state.errors import TokenRejected
from crdt_state.protocol.ywebsocket import PermissionDenied, SyncStep1, decode
from crdt_state.security.grant import Access, Grant, Right
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.farewell import KEPT, Departure, Farewells
from crdt_state.transport.listener import Listener, Traffic, Visit
from crdt_state.transport.memory import memory_pair
from wired import IMPATIENT, opened_shell, turn

PATIENT = replace(IMPATIENT, refused_close_seconds=1.0)


class Hourglass:
    """A `sleep` that ends when the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.ran_out = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.ran_out.wait()


class Farewell:
    """One connection that is sent away, and what comes out at its other end."""

    def __init__(self, code: int) -> None:
        self.glass = Hourglass()
        self.traffic = Traffic()
        self.told: list[Departure] = []
        self.farewells = Farewells(
            PATIENT, self.traffic, sleep=self.glass.sleep, sent_away=self.told.append
        )
        self.ours, self.end = memory_pair("server", "guest")
        self.departure = Departure("address guest", "/notes", code, "not you")
        self.closing = asyncio.ensure_future(self.farewells.say(self.ours, self.departure))

    async def code(self) -> int:
        with pytest.raises(ConnectionEnded) as caught:
            await self.end.receive()
        await self.closing
        return caught.value.code


@pytest.mark.parametrize("code", sorted(KEPT))
async def test_the_reason_comes_at_once_and_the_close_later(code: int) -> None:
    farewell = Farewell(code)
    assert decode(await farewell.end.receive()) == PermissionDenied("not you")
    await turn()
    assert farewell.glass.asked == [1.0]
    assert not farewell.closing.done()
    farewell.glass.ran_out.set()
    assert await farewell.code() == code
    assert farewell.told == [farewell.departure]
    assert (farewell.traffic.rejected, farewell.traffic.tokens_rejected) == (1, code == 4401)


@pytest.mark.parametrize("code", [1012, 1013, 4400, 4408, 4413, 4422, 4424])
async def test_who_is_to_come_again_or_to_give_way_is_not_kept(code: int) -> None:
    farewell = Farewell(code)
    await farewell.closing
    assert farewell.glass.asked == []
    assert len(farewell.told) == farewell.traffic.rejected == (code >= 4400)


async def test_what_is_sent_meanwhile_is_thrown_away() -> None:
    farewell = Farewell(4401)
    await turn()
    for _ in range(100):
        farewell.end.send(b"let me in")
    await turn(200)
    assert farewell.end.buffered_bytes == 0
    assert not farewell.closing.done()
    farewell.glass.ran_out.set()
    await farewell.closing


async def test_who_hangs_up_first_is_gone_at_once() -> None:
    farewell = Farewell(4401)
    await turn()
    await farewell.end.close()
    await turn()
    assert farewell.closing.done()


async def test_a_drain_keeps_nobody() -> None:
    farewell = Farewell(4401)
    await farewell.end.receive()
    await turn()
    farewell.farewells.cut_short()
    assert await farewell.code() == 4401
    ours, end = memory_pair()
    await farewell.farewells.say(ours, farewell.departure)
    assert decode(await end.receive()) == PermissionDenied("not you")
    assert len(farewell.glass.asked) == 1, "who comes later is not kept either"


class Doorkeeper:
    """Knows one token."""

    def grant(self, token: str | None, *, now: WallTime) -> Grant:
        if token is None:
            raise TokenRejected("a token is required")
        return Grant("ada", (Right("public/**", Access.READ),), None)


async def test_who_is_kept_counts_as_a_connection_and_holds_nothing_else() -> None:
    glass = Hourglass()
    told: list[Departure] = []
    async with opened_shell(limits=PATIENT, is_listening=True) as shell:
        listener = Listener(shell, Doorkeeper(), sleep=glass.sleep, sent_away=told.append)
        ends, conversations = [], []
        for path, token in (("/notes", None), ("/notes", "secret"), ("/a//b", "secret")):
            ours, end = memory_pair("server", "guest")
            ends.append(end)
            talk = listener.converse(ours, Visit(path, token))
            conversations.append(asyncio.create_task(talk))
        await turn()
        assert len(glass.asked) == listener.traffic.connections == 3
        assert (listener.rooms, listener._accounts, len(shell.core)) == ({}, {}, 0)
        assert [(each.name, each.path, each.code) for each in told] == [
            ("address guest", "/notes", 4401),
            ("identity ada", "/notes", 4403),
            ("identity ada", "/a//b", 4404),
        ]
        await listener.drain()
        await asyncio.gather(*conversations)
        assert listener.traffic.connections == 0


async def test_a_member_whose_right_ended_is_told_and_not_listened_to() -> None:
    glass = Hourglass()

    class Ended:
        def grant(self, token: str | None, *, now: WallTime) -> Grant:
            return Grant("ada", (Right("**", Access.READ),), now)

    async with opened_shell(limits=PATIENT, is_listening=True) as shell:
        listener = Listener(shell, Ended(), sleep=glass.sleep)
        ours, end = memory_pair("server", "guest")
        talk = asyncio.create_task(listener.converse(ours, Visit("/notes", "token")))
        assert isinstance(decode(await end.receive()), SyncStep1)
        assert isinstance(decode(await end.receive()), PermissionDenied)
        received = listener.traffic.messages_received
        for _ in range(10):
            end.send(b"\xff")
        await turn()
        assert listener.traffic.messages_received == received
        assert not talk.done()
        glass.ran_out.set()
        await talk
        assert listener.traffic.rejected == 1
