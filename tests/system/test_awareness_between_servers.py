"""People with stock Yjs clients at servers that are peers of one another see each other."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING

import pytest

from lines import Line
from running import RunningServer, eventually
from stock import StockClient, stock_clients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.node

ROOM = "team/plan"
RENEWED_SECONDS_MAX = 60.0
"""A stock client raises its clock every 15 seconds, and shows itself by that to who lost it."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def lines() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def meshed(
    names: str, folder: Path, stack: ExitStack, lines: AsyncExitStack
) -> dict[str, RunningServer]:
    """Servers that dial one another."""
    doors = {name: await lines.enter_async_context(Line()) for name in names}
    servers = {}
    for name in names:
        (folder / name).mkdir()
        settings = {
            "CRDT_STATE_PEERS": ",".join(doors[other].url for other in names if other != name),
            "CRDT_STATE_ADVERTISE": doors[name].url,
            "CRDT_STATE_LIMITS__RECONNECT_SECONDS_MAX": "0.5",
        }
        servers[name] = stack.enter_context(RunningServer(folder / name, settings))
        doors[name].target = servers[name].port
    return servers


async def sees(who: StockClient, *others: StockClient, seconds: float = 20.0) -> None:
    """Wait until somebody sees themselves and these, and nobody else."""

    async def seen() -> dict[int, str]:
        return {client: state["name"] for client, state in (await who.present()).items()}

    expected = {other.client_id: other.name for other in (who, *others)}
    await eventually(seen, expected, seconds=seconds, what=f"what {who.name} sees")


@pytest.mark.full
async def test_people_at_two_servers_see_each_other_and_a_killed_one_takes_its_own_along(
    tmp_path: Path, node_programs: Path, stack: ExitStack, lines: AsyncExitStack
) -> None:
    servers = await meshed("ab", tmp_path, stack, lines)
    async with stock_clients(node_programs) as node:
        ana = await node.open("ana", servers["a"].url, ROOM)
        ben = await node.open("ben", servers["b"].url, ROOM)
        bea = await node.open("bea", servers["b"].url, ROOM)
        for person in (ana, ben, bea):
            await person.do("presence", {"name": person.name})
        for person in (ana, ben, bea):
            await sees(person, *{ana, ben, bea} - {person})

        servers["a"].kill()
        await sees(ben, bea)
        await sees(bea, ben)
        servers["a"].start()
        await ana.do("presence", {"name": "ana"})
        for person in (ana, ben, bea):
            await sees(person, *{ana, ben, bea} - {person}, seconds=RENEWED_SECONDS_MAX)
        cid = await node.open("cid", servers["a"].url, ROOM)
        await cid.do("presence", {"name": "cid"})
        await sees(cid, ana, ben, bea)
        await ben.do("vanish")
        await sees(ana, bea, cid)
    for server in servers.values():
        assert server.complaints() == []
