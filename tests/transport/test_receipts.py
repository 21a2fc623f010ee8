"""Receipts: who else holds what was edited here, by what replicas have said themselves."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdt_state.errors import EditRefused, LineageEnded, NotYetReplicated, UsageError
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.protocol.peer.messages import Acknowledge
from crdt_state.replica.receipts import Level, Replication
from crdt_state.transport.link import Wire
from wired import (
    IMPATIENT,
    NOTES,
    GatedStore,
    connected,
    opened_replica,
    opened_server,
    text_of,
    turn,
    until,
)


async def test_a_receipt_is_durable_when_the_server_has_committed_and_not_before() -> None:
    store = GatedStore()
    async with opened_server(store) as server, opened_replica() as one:
        connected(one, server)
        document = await one.document("notes")
        await until(lambda: len(server.listener.rooms) == 1)
        store.gate.clear()
        document.text("text").insert(0, "hello")
        receipt = await document.commit()
        assert len(one.store.appended()) == 1  # type: ignore[attr-defined]
        waiting = asyncio.create_task(receipt.reached("durable"))
        await turn(200)
        assert not waiting.done()
        assert not receipt.has_reached(Level.DURABLE)
        store.gate.set()
        await waiting
        assert receipt.holders == {server.shell.store.replica_id}
        assert text_of(store.appended()) == "hello"


async def test_what_waits_at_the_server_is_durable_and_not_applied() -> None:
    async with opened_server() as server, opened_replica() as one, opened_replica(seed=3) as other:
        link = connected(other, server)
        document = await other.document("notes")
        document.text("text").insert(0, "a")
        receipt = await document.commit()
        await receipt.reached("applied")
        await link.synced()
        await other.disconnect(link)
        connected(one, server)
        mine = await one.document("notes")
        await until(lambda: str(mine.text("text")) == "a")
        receipt = await mine.commit()
        await receipt.reached(Level.APPLIED)
        assert receipt.has_reached("durable")


async def test_a_time_out_ends_the_wait_and_not_the_receipt() -> None:
    async with opened_server() as server, opened_replica() as one:
        server.is_down = True
        connected(one, server)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        with pytest.raises(NotYetReplicated, match="0 of 1 other replicas"):
            await document.commit(Replication.synchronous(), seconds_max=0.01)
        receipt = await document.commit()
        with pytest.raises(NotYetReplicated):
            await receipt.reached(seconds_max=0.01)
        server.is_down = False
        await receipt.reached()


async def test_nothing_new_is_held_by_whoever_held_it_before() -> None:
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        await link.synced()
        other = await one.document("other")
        other.text("text").insert(0, "this moves our log on")
        await other.saved()
        await (await document.commit()).reached("applied")


async def test_a_relay_names_the_others_who_hold_it() -> None:
    async with (
        opened_server() as server,
        opened_replica() as one,
        opened_replica(seed=3) as two,
        opened_replica(seed=4) as three,
    ):
        for each in (one, two, three):
            connected(each, server)
        document = await one.document("notes")
        await two.document("notes")
        document.text("text").insert(0, "hello")
        receipt = await document.commit()
        await receipt.reached("replicated", 2)
        assert receipt.holders == {server.shell.store.replica_id, two.store.replica_id}
        with pytest.raises(NotYetReplicated, match="2 of 3"):
            await receipt.reached("replicated", 3, seconds_max=0.01)
        await three.document("notes")
        await receipt.reached("replicated", 3)
        assert three.store.replica_id in receipt.holders


async def test_a_relays_report_counts_though_another_document_has_been_committed_since() -> None:
    async with (
        opened_server() as server,
        opened_replica() as one,
        opened_replica(seed=3) as two,
    ):
        links = [connected(each, server) for each in (one, two)]
        document, seen = await one.document("notes"), await two.document("notes")
        document.text("text").insert(0, "hello")
        other = await one.document("other")
        await links[0].synced()
        await until(lambda: str(seen.text("text")) == "hello")
        await links[1].synced()
        other.text("text").insert(0, "this moves our log on")
        await other.saved()
        receipt = await document.commit()
        await receipt.reached("replicated", 2, seconds_max=30)
        assert two.store.replica_id in receipt.holders


async def test_the_same_replica_over_two_ways_counts_once() -> None:
    async with opened_server() as server, opened_replica() as one:
        one.connect("ws://server", dial=server.dial, wire=Wire.REPLICA)
        one.connect(
            "ws://server:2", dial=lambda url: server.dial(url.replace(":2", "")), wire=Wire.REPLICA
        )
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        receipt = await document.commit()
        await receipt.reached()
        await turn(200)
        assert len(receipt.holders) == 1


async def test_a_refusal_ends_a_receipt_with_its_error() -> None:
    small = replace(IMPATIENT, update_bytes_max=1_000)
    async with opened_server(limits=small) as server, opened_replica() as one:
        connected(one, server)
        document = await one.document("notes")
        document.text("text").insert(0, "x" * 5_000)
        receipt = await document.commit()
        with pytest.raises(EditRefused):
            await receipt.reached()
        with pytest.raises(EditRefused):
            await receipt.reached(seconds_max=0.01)


async def test_a_server_that_lost_its_store_is_owed_everything_again() -> None:
    async with opened_replica() as one:
        async with opened_server(GatedStore()) as server:
            link = connected(one, server)
            for name in ("a", "b", "c"):
                document = await one.document(name)
                document.text("text").insert(0, name)
                await link.synced()
                document.close()
            await one.let_go_of_closed()
            assert await one.store.outbox(link.remote) == ()
            await link.close()
        async with opened_server(GatedStore()) as server:
            link = connected(one, server)
            await until(lambda: link._line is not None and link._line.is_up)
            await link.synced()
            stored = {line.document for line in await server.shell.store.list()}
            assert stored == {"a", "b", "c"}


async def test_what_was_said_in_another_life_counts_no_more() -> None:
    store = GatedStore()
    async with opened_replica() as one:
        document = await one.document("notes")
        async with opened_server(store) as server:
            link = connected(one, server)
            document.text("text").insert(0, "hello")
            receipt = await document.commit()
            await receipt.reached()
            await link.close()
        async with opened_server(store.restored(Random(9))) as server:  # type: ignore[arg-type]
            server.is_down = True
            link = connected(one, server)
            assert receipt.has_reached("durable"), "nobody has told us otherwise yet"
            server.shell.store.fault = None
            server.is_down = False
            await until(lambda: link._line is not None and link._line.is_up)
            await receipt.reached()
            assert NOTES in {line.document for line in await server.shell.store.list()}


async def test_a_receipt_of_the_next_life_may_have_the_position_at_which_the_last_one_ended() -> (
    None
):
    async with opened_server() as server, opened_replica() as one:
        connected(one, server)
        document = await one.document("notes")
        ended = await document.commit()
        one.holdings.of(document.id).end(LineageEnded("notes", b""))
        following = await document.commit()
        assert following.position == ended.position
        await following.reached()
        assert following.holders == {server.shell.store.replica_id}
        assert not ended.has_reached()
        assert ended.holders == frozenset()
        with pytest.raises(LineageEnded):
            await ended.reached()


async def test_what_nobody_asks_about_is_forgotten() -> None:
    async with opened_server() as server, opened_replica() as one:
        link = connected(one, server)
        document = await one.document("notes")
        document.text("text").insert(0, "hello")
        receipt = await document.commit(Replication.quorum(3))
        await link.synced()
        await link.close()
        document.close()
        del receipt
        gc.collect()
        await turn()
        assert len(one.holdings) == 0
        await until(lambda: len(server.shell.holdings) == 0)


async def test_what_is_only_here_is_told_until_some_remote_holds_it() -> None:
    async with opened_server() as server, opened_server() as second, opened_replica() as one:
        for name in ("a", "b"):
            (await one.document(name)).text("text").insert(0, name)
            await (await one.document(name)).saved()
        assert [document async for document in one.only_here()] == ["a", "b"]
        link = connected(one, server)
        second.is_down = True
        other = one.connect("ws://second", dial=second.dial, wire=Wire.REPLICA)
        await link.synced()
        await until(lambda: other.last_error is not None)
        assert [document async for document in one.only_here()] == []
        server.is_down = True
        await link.close()
        (await one.document("b")).text("text").append("more")
        await (await one.document("b")).saved()
        assert [document async for document in one.only_here()] == ["b"]


def test_a_majority_counts_ourselves() -> None:
    assert [Replication.quorum(members).others for members in (1, 2, 3, 4, 5)] == [0, 1, 1, 2, 2]
    assert Replication.asynchronous().others == 0
    for wrong in (Replication.quorum, Replication.synchronous):
        with pytest.raises(UsageError):
            wrong(0)


async def test_a_level_that_is_none_is_named() -> None:
    async with opened_replica(limits=DEFAULT_LIMITS) as one:
        receipt = await (await one.document("notes")).commit()
        with pytest.raises(UsageError, match="'durable', 'applied', 'replicated'"):
            await receipt.reached("everywhere")


async def test_an_acknowledgement_says_nothing_of_what_the_same_commit_brought() -> None:
    async with opened_server() as server, opened_replica() as replica:
        link = connected(replica, server)
        first, other = await replica.document("d/1"), await replica.document("d/2")
        await link.synced()
        held: list[Any] = []
        channel = link._conversations[first.id].channel
        hear = channel.hear

        def hold_back(message: Any) -> None:
            if isinstance(message, Acknowledge):
                held.append(message)
            else:
                hear(message)

        channel.hear = hold_back
        first.text("text").insert(0, "one")
        await first.saved()
        waiting = asyncio.create_task(link.synced())
        await until(lambda: bool(held))
        acknowledged = held[-1]
        server.shell.store.gate.clear()  # what follows never comes to the server's disk
        first.text("text").insert(3, "two")
        other.text("text").insert(0, "in the same commit, behind it")
        await first.saved()
        await turn(50)
        hear(acknowledged)
        await turn(50)
        assert first.id in [entry.document for entry in await replica.store.outbox(link.remote)]
        waiting.cancel()
        server.shell.store.gate.set()
