"""Pushes given updates into documents through a server's y-websocket door, until each is held.

A visitor is one bare connection: no replica, no store, no outbox.  It sends what it is given,
then a step 1; the answer is the barrier that says that all before it is durable.  When the
server goes away before that, everything is sent again to the next one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from crdt_state.identifiers import DocumentId, path_of
from crdt_state.protocol.ywebsocket import SyncStep1, SyncStep2, Update, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

__all__ = ["Pushed", "fetch", "push"]

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
RETRY_SECONDS = 0.02
TRIES_MAX = 500
EMPTY_VECTOR = b"\x00"


@dataclass
class Pushed:
    """What it took; `confirmed` are the documents of which every barrier was answered."""

    confirmed: set[str] = field(default_factory=set)
    updates_sent: int = 0
    interruptions: int = 0


async def push(
    url: str,
    documents: Mapping[str, Sequence[bytes]],
    *,
    random: Random,
    at_once: int,
    confirmed: Callable[[Pushed], None] = lambda _: None,
) -> Pushed:
    """Bring every update of `documents` twice, over two connections in independent shuffles.

    `at_once` documents are on their way at a time; `confirmed` is called after each.
    """
    pushed = Pushed()
    waiting = list(documents)
    random.shuffle(waiting)

    async def work() -> None:
        while waiting:
            name = waiting.pop()
            shuffles = [random.sample(documents[name], len(documents[name])) for _ in range(2)]
            await asyncio.gather(*(_bring(url, name, updates, pushed) for updates in shuffles))
            pushed.confirmed.add(name)
            confirmed(pushed)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return pushed


async def fetch(url: str, name: str) -> bytes:
    """Everything the server holds of one document, as one update."""
    async with connect(
        url + path_of(DocumentId(name)), compression=None, max_size=MESSAGE_BYTES_MAX
    ) as wire:
        await wire.send(encode(SyncStep1(EMPTY_VECTOR)))
        while True:
            message = decode(await wire.recv(decode=False))
            if isinstance(message, SyncStep2):
                return message.update


async def _bring(url: str, name: str, updates: Sequence[bytes], pushed: Pushed) -> None:
    for _ in range(TRIES_MAX):
        try:
            await _visit(url + path_of(DocumentId(name)), updates, pushed)
        except (OSError, ConnectionClosed, InvalidHandshake):
            pushed.interruptions += 1
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
    raise AssertionError(f"{name} could not be brought in {TRIES_MAX} tries")


async def _visit(url: str, updates: Sequence[bytes], pushed: Pushed) -> None:
    async with connect(url, compression=None, max_size=MESSAGE_BYTES_MAX) as wire:
        for update in updates:
            await wire.send(encode(Update(update)))
            pushed.updates_sent += 1
        await wire.send(encode(SyncStep1(EMPTY_VECTOR)))
        while True:
            if isinstance(decode(await wire.recv(decode=False)), SyncStep2):
                return
