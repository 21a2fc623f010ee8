"""`transport.peer_conversation` and `peer_line`: a remote that does not do as it should."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.identifiers import Incarnation, ReplicaId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.peer.conversation import Role, SyncProtocol
from crdt_state.protocol.peer.messages import (
    Barrier,
    Close,
    Hello,
    Message,
    Open,
    Passed,
    Updates,
    Welcome,
)
from crdt_state.protocol.ywebsocket import SyncStep1
from crdt_state.protocol.ywebsocket import encode as encode_for_yjs
from crdt_state.sync.exchange import Progress
from crdt_state.transport.channel import Channel
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.memory import MemoryConnection, memory_pair
from crdt_state.transport.replica import Replica
from wired import (
    IMPATIENT,
    NOTES,
    GatedStore,
    connected,
    opened_replica,
    opened_server,
    turn,
    until,
)


class ByHand:
    """A remote whose every word a test says."""

    def __init__(self) -> None:
        self.ends: list[MemoryConnection] = []
        self.protocol = SyncProtocol(Role.LISTENER, DEFAULT_LIMITS)
        self.heard: list[Message] = []

    async def dial(self, url: str) -> MemoryConnection:
        ours, theirs = memory_pair("client", url)
        self.ends.append(theirs)
        return ours

    def send(self) -> None:
        while frames := self.protocol.frames_to_send():
            for frame in frames:
                self.ends[-1].send(frame)

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of a kind; barriers are answered as they come."""
        while True:
            for at, message in enumerate(self.heard):
                if isinstance(message, kind):
                    return self.heard.pop(at)
            for message in self.protocol.receive(await self.ends[-1].receive()):
                if isinstance(message, Barrier):
                    self.protocol.say(Passed(message.channel))
                else:
                    self.heard.append(message)
            self.send()

    async def welcome(
        self, *, update_bytes_max: int = 1 << 24, message_bytes_max: int = 1 << 25
    ) -> None:
        await until(lambda: bool(self.ends))
        await self.hear(Hello)
        self.protocol.greet(
            Welcome(
                version=1,
                replica=ReplicaId(b"s" * 16),
                incarnation=Incarnation(b"j" * 16),
                message_bytes_max=message_bytes_max,
                update_bytes_max=update_bytes_max,
                credit=1 << 20,
            )
        )
        self.send()

    def joined(self, replica: Replica) -> Link:
        return replica.connect("ws://remote", dial=self.dial, wire=Wire.REPLICA)


async def test_what_a_remote_says_wrongly_refuses_nothing_of_ours() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        document = await replica.document("notes")
        document.text("text").insert(0, "the work of an hour")
        link = remote.joined(replica)
        await remote.welcome()
        asked: Open = await remote.hear(Open)
        remote.protocol.answer(asked.channel, b"\xff\xff", 0)
        remote.send()
        assert (await remote.hear(Close)).code == 4422
        again: Open = await remote.hear(Open)
        remote.protocol.answer(again.channel, b"\x00", 0)
        remote.send()
        await turn(200)
        assert link.refusals == ()
        assert str((await replica.document("notes")).text("text")) == "the work of an hour"


async def test_a_part_of_a_commit_does_not_stand_for_all_of_it() -> None:
    remote, store = ByHand(), GatedStore()
    async with opened_replica(store) as replica:
        document = await replica.document("notes")
        link = remote.joined(replica)
        await remote.welcome()
        asked: Open = await remote.hear(Open)
        remote.protocol.answer(asked.channel, b"\x00", 0)
        remote.send()
        await turn(50)
        store.gate.clear()
        for number in range(4):  # the first is a commit of its own, the other three are one
            text = "".join(Random(number).choices("abcdef", k=40_000))
            document.text("text").insert(0, text)
            await turn(20)
        store.gate.set()
        receipt = await document.commit()
        synced = asyncio.create_task(link.synced())
        for expected in range(1, 5):
            assert (await remote.hear(Updates)).first == expected
        remote.protocol.acknowledge(asked.channel, 2, 2)
        remote.send()
        await turn(100)
        assert not receipt.has_reached("durable")
        assert not synced.done()
        assert [entry.document for entry in await store.outbox(link.remote)] == [NOTES]
        remote.protocol.acknowledge(asked.channel, 4, 4)
        remote.send()
        hearing = asyncio.create_task(remote.hear(Close))  # answers the barrier on the way
        await synced
        hearing.cancel()
        assert receipt.has_reached("applied")


async def test_a_part_of_a_state_does_not_stand_for_what_was_edited_before_it() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        document = await replica.document("notes")
        document.text("text").insert(0, "".join(Random(1).choices("abcdef", k=40_000)))
        early = await document.commit()
        document.text("text").insert(0, "later")
        await document.saved()
        link = remote.joined(replica)
        await remote.welcome(update_bytes_max=30_000)
        asked: Open = await remote.hear(Open)
        remote.protocol.answer(asked.channel, b"\x00", 0)
        remote.send()
        brought = 0
        while brought < 2:
            brought += len((await remote.hear(Updates)).updates)
        remote.protocol.acknowledge(asked.channel, 1, 1)
        remote.send()
        synced = asyncio.create_task(link.synced())
        await turn(100)
        assert not early.has_reached("durable")
        assert not synced.done()
        remote.protocol.acknowledge(asked.channel, brought, brought)
        remote.send()
        hearing = asyncio.create_task(remote.hear(Close))
        await early.reached("applied")
        await synced
        hearing.cancel()


async def test_more_large_edits_than_may_be_in_parts_at_once_take_turns() -> None:
    async with opened_server() as server, opened_replica() as replica:
        for number in range(12):
            document = await replica.document(f"d{number}")
            text = "".join(Random(number).choices("abcdefgh", k=90_000))
            document.text("text").insert(0, text)
        await connected(replica, server).synced()
        assert server.dials == 1
        assert len(await server.shell.store.list()) == 12


async def test_a_connection_that_ends_while_a_document_is_loaded_is_made_again() -> None:
    store = GatedStore()
    async with opened_server() as server, opened_replica(store) as replica:
        await replica.document("first")
        link = connected(replica, server)
        await link.synced()
        store.reading.clear()
        opening = asyncio.create_task(replica.document("notes"))
        link.follow(NOTES)
        await turn(50)
        line = link._line
        assert line is not None
        broken = await line.wire()
        assert isinstance(broken.connection, MemoryConnection)
        broken.connection.cut()
        await until(lambda: line.is_up and line._wire is not broken)
        store.reading.set()
        document = await opening
        document.text("text").insert(0, "hello")
        await link.synced()
        assert server.shell.store.appended(NOTES) != []


async def test_a_remote_that_says_nothing_is_hung_up_on() -> None:
    remote = ByHand()
    limits = replace(IMPATIENT, handshake_seconds_max=0.02)
    async with opened_replica(limits=limits) as replica:
        link = remote.joined(replica)
        await until(lambda: len(remote.ends) > 1, turns=200_000)
        assert link.last_error is not None


async def test_who_has_waited_until_all_is_in_sync_sees_that_it_is() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        await replica.document("notes")
        link = remote.joined(replica)
        synced = asyncio.create_task(link.synced())
        await remote.welcome()
        asked: Open = await remote.hear(Open)
        remote.protocol.answer(asked.channel, b"\x00", 0)
        remote.send()
        hearing = asyncio.create_task(remote.hear(Close))
        await synced
        assert link.progress is Progress.IN_SYNC
        hearing.cancel()


async def test_a_remote_that_speaks_another_protocol_is_named_as_such() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        link = remote.joined(replica)
        await until(lambda: bool(remote.ends))
        remote.ends[-1].send(encode_for_yjs(SyncStep1(b"\x00")))  # as servers of Yjs documents do
        await until(lambda: link.progress is Progress.REFUSED or bool(link.last_error))
        assert link.last_error is not None
        assert "wire=Wire.Y_WEBSOCKET" in link.last_error


async def test_a_server_without_our_protocol_is_named_as_such() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        link = remote.joined(replica)
        await until(lambda: bool(remote.ends))
        await remote.ends[-1].close(4404, "not a document")
        await until(lambda: bool(link.last_error))
        assert link.last_error is not None
        assert "wire=Wire.Y_WEBSOCKET" in link.last_error


async def test_an_update_beyond_a_message_of_the_remote_is_handed_back() -> None:
    remote = ByHand()
    async with opened_replica() as replica:
        document = await replica.document("notes")
        document.text("text").insert(0, "x" * 5_000)
        await document.saved()
        link = remote.joined(replica)
        await remote.welcome(update_bytes_max=2_000, message_bytes_max=2_000)
        asked: Open = await remote.hear(Open)
        remote.protocol.answer(asked.channel, b"\x00", 0)
        remote.send()
        closed: Close = await remote.hear(Close)
        assert (closed.channel, closed.code) == (asked.channel, 1009)
        again: Open = await remote.hear(Open)  # to see what the remote holds, and give way
        remote.protocol.answer(again.channel, b"\x00", 0)
        remote.send()
        hearing = asyncio.create_task(remote.hear(Hello))
        await until(lambda: bool(link.refusals))
        hearing.cancel()
        assert [refused.code for refused in link.refusals] == [4413]
        assert len(remote.ends) == 1, "the connection went on"


async def test_what_nobody_expects_in_a_channel_is_reported_and_ends_that_channel_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = ByHand()
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with opened_replica() as replica:
        await replica.document("notes")
        await replica.document("other")
        remote.joined(replica)
        await remote.welcome()
        opened: dict[str, Open] = {}
        while len(opened) < 2:
            each: Open = await remote.hear(Open)
            opened[each.document] = each

        async def fail(_: Channel, __: bytes) -> None:
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(Channel, "_begin", fail)
            remote.protocol.answer(opened["notes"].channel, b"\x00", 0)
            remote.send()
            closed: Close = await remote.hear(Close)
        assert (closed.channel, closed.code) == (opened["notes"].channel, 1013)
        assert [str(report["exception"]) for report in reports] == ["a bug"]
        remote.protocol.answer(opened["other"].channel, b"\x00", 0)
        remote.protocol.say(Barrier(opened["other"].channel))
        remote.send()
        assert (await remote.hear(Passed)).channel == opened["other"].channel
