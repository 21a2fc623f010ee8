"""Reads documents in a process of its own with pycrdt and bare WebSockets, nothing of ours.

    python reading_child.py < {"url": "ws://…", "rooms": ["…" …], "at_once": 40}

One line a room on standard output: {"room", "text", "map", "array"} of the roots of these names.
The few bytes of y-websocket that it takes are written out here, so that a mistake in our codec
cannot hide itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import quote

import pycrdt
from websockets.asyncio.client import connect

SYNC_STEP_1_OF_NOTHING = bytes([0, 0, 1, 0])
SYNC_STEP_2 = bytes([0, 1])


def _payload(frame: bytes) -> bytes:
    size = shift = 0
    for at in range(2, len(frame)):
        size |= (frame[at] & 0x7F) << shift
        shift += 7
        if frame[at] < 0x80:
            payload = frame[at + 1 :]
            if len(payload) == size:
                return payload
            break
    raise ValueError("a step 2 of another length than it says")


async def _read(url: str, room: str) -> dict[str, Any]:
    async with connect(f"{url}/{quote(room)}", compression=None, max_size=2**26) as wire:
        await wire.send(SYNC_STEP_1_OF_NOTHING)
        while not (frame := await wire.recv(decode=False)).startswith(SYNC_STEP_2):
            pass
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    text = document.get("text", type=pycrdt.Text)
    map_ = document.get("map", type=pycrdt.Map)
    array = document.get("array", type=pycrdt.Array)
    document.apply_update(_payload(frame))
    return {"room": room, "text": str(text), "map": map_.to_py(), "array": array.to_py()}


async def _main() -> None:
    asked = json.load(sys.stdin)
    waiting = list(asked["rooms"])

    async def work() -> None:
        while waiting:
            line = json.dumps(await _read(asked["url"], waiting.pop()))
            sys.stdout.write(f"{line}\n")

    async with asyncio.TaskGroup() as group:
        for _ in range(asked["at_once"]):
            group.create_task(work())


if __name__ == "__main__":
    asyncio.run(_main())
