"""Bytes that may be under way at once, shared in the order of asking.

A large document that is sent to hundreds of peers at the same moment is copied for each of them.
So large answers take their size from a budget and give it back when they have left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Budget"]


class Budget:
    """`total` bytes.  Who asks for more than there is waits; first come, first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def spend(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes, or all there are where it is more, while the context lasts."""
        size = min(size, self._total)
        if self._waiting or size > self._left:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(size)
                raise
        else:
            self._left -= size
        try:
            yield
        finally:
            self._give_back(size)

    def _give_back(self, size: int) -> None:
        self._left += size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():  # whoever waited was cancelled
                self._waiting.popleft()
                continue
            if wanted > self._left:
                break
            self._waiting.popleft()
            self._left -= wanted
            turn.set_result(None)
