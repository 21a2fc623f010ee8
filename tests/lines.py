"""TCP lines between processes that a test can cut and mend; each is a port of 127.0.0.1.

Whoever dials a line's port talks to its target as long as the line is whole.  Cut, it drops what
is open and whoever dials.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

__all__ = ["Line"]

CHUNK = 64 * 1024


class Line:
    """One line; use it as an async context manager, and set `target` to a port."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self.is_whole = True
        self.carried_bytes = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where to dial it."""
        return f"ws://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Drop what is open, and whoever dials."""
        self.is_whole = False
        for writer in tuple(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """Let through again whoever dials."""
        self.is_whole = True

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*self._tasks)

    def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Tasks of our own: the loop reports those of the library when a test ends.
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_whole:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for each in (writer, far_writer):
                each.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                self.carried_bytes += len(data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
