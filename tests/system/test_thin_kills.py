"""The server is killed between a commit and its acknowledgement, and everybody resends.

Thin clients write tags of one character each, every one once; SIGKILL comes at moments drawn from
a seed, while operations are under way.  What each client was ever told of a revision is compared
over all starts (tests/bridge/test_power.py does the same for losses of power).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from crdt_client.thin import ThinClient
from crdt_client.thin import progress as thin_progress
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.ot import Insert, Operation, Retain
from crdt_state.ot.formats import TEXT_UNICODE
from crdt_state.transport.websocket import WebSocketDial
from crdt_state.transport.websocket_text import TextDial
from running import eventually

if TYPE_CHECKING:
    from crdt_client.thin.text import ThinText
    from running import RunningServer

DOCUMENT = DocumentId("notes/today")
LIMITS = replace(DEFAULT_LIMITS, reconnect_seconds_min=0.01, reconnect_seconds_max=0.05)
CLIENTS = 3
FIRST_TAG = 0x4E00
KILLS = 4
KILLS_OF_ALL = 100
IN_A_RUN = 20


class Heard:
    """What all clients were told, over all starts."""

    def __init__(self) -> None:
        self.told: dict[int, tuple[Any, ...]] = {}
        self.content: dict[int, Any] = {}
        self.acknowledged: set[int] = set()
        self.reused: list[int] = []

    def hear(self, message: Any) -> None:
        if message.get("a") != "op" or "error" in message or "v" not in message:
            return
        number = message["v"]
        if "op" not in message and "create" not in message:
            self.acknowledged.add(number)
        said = (message.get("src"), message.get("seq"))
        if self.told.setdefault(number, said) != said:
            self.reused.append(number)
        if "op" in message and self.content.setdefault(number, message["op"]) != message["op"]:
            self.reused.append(number)


class Hearing:
    """A connection, of which is kept what is told by it."""

    def __init__(self, connection: Any, heard: Heard) -> None:
        self._connection = connection
        self._heard = heard

    async def receive(self) -> str:
        message: str = await self._connection.receive()
        self._heard.hear(json.loads(message))
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def kill_again_and_again(server: RunningServer, *, kills: int, seed: int) -> None:
    random, heard, tags, back = Random(seed), Heard(), list[str](), list[object]()
    texts: list[ThinText] = []
    dialling = TextDial(WebSocketDial(LIMITS))

    async def dial(url: str) -> Any:
        return Hearing(await dialling(url), heard)

    def write() -> None:
        text, tag = random.choice(texts), chr(FIRST_TAG + len(tags))
        at = random.randint(0, len(str(text.document)))
        text.edit(Operation.of(*([Retain(at)] if at else []), Insert(tag)))
        tags.append(tag)

    def are_in_step() -> bool:
        shown = {str(text.document) for text in texts}
        in_step = thin_progress.Progress.IN_STEP
        return len(shown) == 1 and all(text.progress is in_step for text in texts)

    async with AsyncExitStack() as stack:
        for _ in range(CLIENTS):
            client = await stack.enter_async_context(
                ThinClient(
                    f"{server.url}/-/sharedb/{TEXT_UNICODE.name}",
                    limits=LIMITS,
                    random=Random(random.getrandbits(64)),
                    handed_back=lambda _text, given: back.append(given),
                    dial=dial,
                )
            )
            texts.append(await client.open(DOCUMENT, format=TEXT_UNICODE))
        write()  # before it is there, two may create it, and one of them is handed its text
        await eventually(lambda: are_in_step() and bool(heard.acknowledged), True)
        for _ in range(kills):
            acknowledged = len(heard.acknowledged)
            async with asyncio.timeout(30):
                while len(heard.acknowledged) <= acknowledged:
                    write()
                    await asyncio.sleep(random.uniform(0.0, 0.02))
            for _ in range(random.randint(1, 4)):
                write()
                await asyncio.sleep(random.choice([0.0, 0.001, 0.004]))
            server.kill()
            write()
            await asyncio.to_thread(server.start)
        await eventually(are_in_step, True, what="whether all show the same")
        shown = str(texts[0].document)
    assert len(tags) > 3 * kills
    assert len(heard.acknowledged) > kills
    assert not heard.reused, f"seed {seed}"
    assert not back
    assert Counter(shown) == Counter(tags), f"seed {seed}"


async def test_what_is_resent_after_a_few_kills_is_applied_once(server: RunningServer) -> None:
    await kill_again_and_again(server, kills=KILLS, seed=1)
    assert server.starts == 1 + KILLS


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 2 + KILLS_OF_ALL // IN_A_RUN))
async def test_what_is_resent_after_a_hundred_kills_is_applied_once(
    server: RunningServer, seed: int
) -> None:
    await kill_again_and_again(server, kills=IN_A_RUN, seed=seed)
    assert server.starts == 1 + IN_A_RUN
