"""Unmodified npm `yjs` and `y-websocket` clients and Python replicas in one document."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from crdt_state.transport.replica import Replica
from running import RunningServer, eventually
from stock import stock_clients

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument

pytestmark = pytest.mark.node

ROOM = "team notes/café"


def shown(document: OpenDocument) -> dict[str, Any]:
    """What a stock client's `show` shows, of a Python document."""
    return {
        "text": str(document.text("text")),
        "map": dict(document.map("map")),
        "array": list(document.list("array")),
    }


async def test_text_map_and_array_converge(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    async with (
        Replica.open(tmp_path / "a.db") as one,
        Replica.open(tmp_path / "b.db") as two,
        stock_clients(node_programs) as node,
    ):
        ours = [await one.document(ROOM), await two.document(ROOM)]
        links = [one.connect(server.url), two.connect(server.url)]
        ana = await node.open("ana", server.url, ROOM)
        ben = await node.open("ben", server.url, ROOM)
        await ana.do("insert", 0, "from node: 👩‍👩‍👧 and 𝄞\n")
        ours[0].text("text").insert(0, "from python: 😀é漢\n")
        await ben.do("put", "title", {"en": "Notes", "emoji": ["🎈", 1, 2.5, None, True]})
        ours[1].map("map")["count"] = 7
        await ana.do("push", ["x", {"deep": [1, "😀"]}])
        ours[1].list("array").extend([3, "y", None, False])
        await asyncio.gather(*(link.synced() for link in links))

        async def all_equal() -> bool:
            views = [await ana.show(), await ben.show(), *map(shown, ours)]
            return all(view == views[0] for view in views)

        def complete() -> tuple[int, int, int]:
            view = shown(ours[0])
            return len(view["text"]), len(view["map"]), len(view["array"])

        both = len("from node: 👩‍👩‍👧 and 𝄞\n" + "from python: 😀é漢\n")
        await eventually(complete, (both, 2, 6))
        await eventually(all_equal, True)
        # An edit at an index behind the emoji, from either side: both count it right.
        text = str(ours[0].text("text"))
        ours[0].text("text").insert(text.index("漢"), "here>")
        await eventually(ana.text, text.replace("漢", "here>漢"))
        at = len((await ana.text()).partition(" and")[0].encode("utf-16-le")) // 2
        await ana.do("insert", at, "<there")
        await eventually(
            lambda: str(ours[1].text("text")),
            text.replace("漢", "here>漢").replace(" and", "<there and"),
        )
        await eventually(all_equal, True)
    assert server.complaints() == []


async def test_a_peers_awareness_vanishes_with_it_and_only_it(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    async with (
        Replica.open(tmp_path / "a.db") as one,
        Replica.open(tmp_path / "b.db") as two,
        stock_clients(node_programs) as node,
    ):
        first, second = await one.document(ROOM), await two.document(ROOM)
        links = [one.connect(server.url), two.connect(server.url)]
        ana = await node.open("ana", server.url, ROOM)
        ben = await node.open("ben", server.url, ROOM)
        first.presence.show({"name": "first 😀"})
        second.presence.show({"name": "second"})
        await ana.do("presence", {"name": "ana", "cursor": [1, 2]})
        await ben.do("presence", {"name": "ben"})
        states = {
            first.client_id: {"name": "first 😀"},
            second.client_id: {"name": "second"},
            ana.client_id: {"name": "ana", "cursor": [1, 2]},
            ben.client_id: {"name": "ben"},
        }
        watchers = {
            first.client_id: lambda: first.presence.states,
            second.client_id: lambda: second.presence.states,
            ana.client_id: ana.present,
            ben.client_id: ben.present,
        }

        async def everyone_sees(expected: dict[int, Any]) -> None:
            for who in expected:
                await eventually(watchers[who], expected, what=f"what {who} sees")

        await everyone_sees(states)
        await ben.do("vanish")  # no farewell
        del states[ben.client_id]
        await everyone_sees(states)
        await two.disconnect(links[1])
        del states[second.client_id]
        await everyone_sees(states)
        await ana.do("disconnect")  # with a farewell
        del states[ana.client_id]
        await everyone_sees(states)
        # A stock client that comes back ignores clocks it has seen, and so do others its own: it
        # sees and is seen as soon as somebody says something new.  Ours do so when they come
        # back (the next test).
        await ben.do("connect")
        await ben.do("presence", {"name": "ben again"})
        first.presence.show({"name": "first again"})
        states[ben.client_id] = {"name": "ben again"}
        states[first.client_id] = {"name": "first again"}
        await everyone_sees(states)
    assert server.complaints() == []


async def test_everyone_reconnects_after_the_server_was_killed(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    async with (
        Replica.open(tmp_path / "a.db") as replica,
        stock_clients(node_programs) as node,
    ):
        document = await replica.document(ROOM)
        link = replica.connect(server.url)
        ana = await node.open("ana", server.url, ROOM)
        document.presence.show({"name": "python"})
        await ana.do("insert", 0, "a")
        await eventually(lambda: str(document.text("text")), "a")
        expected = "a"
        for round_ in range(2):
            server.kill()
            # What both write while there is no server.
            await ana.do("insert", 0, f"node {round_} 😀 ")
            document.text("text").append(f" python {round_} 漢")
            await document.saved()
            await asyncio.to_thread(server.start)
            await link.synced()
            await eventually(ana.is_synced, True)
            expected = f"node {round_} 😀 {expected} python {round_} 漢"
            await eventually(ana.text, expected)
            await eventually(lambda: str(document.text("text")), expected)
        await eventually(ana.present, {ana.client_id: {}, document.client_id: {"name": "python"}})
    assert server.complaints() == []


async def test_a_client_that_is_refused_comes_back_slowly_and_is_logged_once(
    serve: Callable[..., RunningServer], node_programs: Path
) -> None:
    server = serve(CRDT_STATE_JWT_SECRET="0123456789abcdef" * 4)
    async with stock_clients(node_programs) as node:
        ana = await node.open("ana", server.url, ROOM, token="nonsense")

        async def refusals() -> int:
            return len(await ana.closes())

        await eventually(refusals, 1, what="the first close")
        began = time.monotonic()
        await eventually(refusals, 3, what="the third close")
        # By itself it would be back in a tenth of a second, twenty times in this while.
        assert time.monotonic() - began > 1.5
        assert {code for code, _ in await ana.closes()} == {4401}
    (line,) = server.events("connection refused")
    assert (line["code"], line["peer"], line["again"]) == (4401, "address 127.0.0.1", 0)
    assert "nonsense" not in server.log.read_text()
    assert server.complaints() == []
