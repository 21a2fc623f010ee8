"""Three people type at the same places while offline; Yjs and we agree on what comes of it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING

import pytest

from crdt_state.transport.replica import Replica
from running import eventually
from stock import merged, stock_clients

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument
    from running import RunningServer

pytestmark = pytest.mark.node

PEOPLE = 3
WORDS = ("a", "word ", "😀", "👩‍👩‍👧", "漢字", "e\u0301", "\n", "𝄞 clef")


def edit(document: OpenDocument, random: Random) -> None:
    """Insert or delete near one of a few places that everybody is drawn to."""
    text = document.text("text")
    near = random.choice([0, len(text) // 2, len(text)])
    at = min(max(near + random.randint(-1, 1), 0), len(text))
    if random.random() < 0.35 and at < len(text):
        text.delete(at, min(random.randint(1, 4), len(text) - at))
    elif random.random() < 0.1:
        with document.transaction():
            text.insert(at, random.choice(WORDS))
            text.insert(at, random.choice(WORDS))
    else:
        text.insert(at, random.choice(WORDS))


def keeper(made: list[bytes]) -> Callable[[bytes, bool], None]:
    """Keeps what is edited here, not what is heard."""

    def keep(update: bytes, is_local: bool) -> None:
        if is_local:
            made.append(update)

    return keep


async def check_same_place(
    server: RunningServer, folder: Path, programs: Path, *, seeds: range, edits: int
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(Replica.open(folder / f"{number}.db"))
            for number in range(PEOPLE)
        ]
        node = await stack.enter_async_context(stock_clients(programs))
        lists: list[list[bytes]] = []
        texts: list[str] = []
        for seed in seeds:
            sys.stdout.write(f"seed {seed}\n")
            random = Random(seed)
            name = f"same place/{seed}"
            documents = [await replica.document(name) for replica in replicas]
            made: list[bytes] = []
            for document in documents:
                document.on_update(keeper(made))
            documents[0].text("text").insert(0, "base 😀 text 漢")
            for _ in range(2):  # offline, in step, offline again: on a state with a history
                links = [replica.connect(server.url) for replica in replicas]
                for _ in range(2):
                    await asyncio.gather(*(link.synced() for link in links))
                for replica, link in zip(replicas, links, strict=True):
                    await replica.disconnect(link)
                for _ in range(edits):
                    edit(random.choice(documents), random)
                assert len({str(document.text("text")) for document in documents}) == PEOPLE
            links = [replica.connect(server.url) for replica in replicas]
            for _ in range(2):
                await asyncio.gather(*(link.synced() for link in links))
            shown = {str(document.text("text")) for document in documents}
            assert len(shown) == 1, f"seed {seed}: the replicas differ"
            stock = await node.open(name, server.url, name)
            await eventually(stock.is_synced, True)
            assert await stock.text() in shown, f"seed {seed}: a Yjs client reads something else"
            for replica, link, document in zip(replicas, links, documents, strict=True):
                await replica.disconnect(link)
                document.close()
            assert len(made) > 2 * edits
            lists += [made, random.sample(made, len(made))]
            texts += [*shown, *shown]
        assert await merged(programs, lists) == texts
    assert server.complaints() == []


async def test_concurrent_edits_at_one_place_give_the_text_that_yjs_gives(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    await check_same_place(server, tmp_path, node_programs, seeds=range(4), edits=60)


@pytest.mark.full
async def test_many_concurrent_edits_at_one_place_give_the_text_that_yjs_gives(
    server: RunningServer, node_programs: Path, tmp_path: Path
) -> None:
    await check_same_place(server, tmp_path, node_programs, seeds=range(100, 160), edits=300)
