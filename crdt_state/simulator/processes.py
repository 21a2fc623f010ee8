"""Processes of the simulation: which task belongs to whom, so that one of them can be killed.

Whatever a process starts, directly or by a callback, inherits its context, and the context says
whose it is.  A process that is killed gets no chance to say goodbye: its disk and its network are
off before its tasks learn of it.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["Process", "StillRunning", "current_process", "new_task"]

R = TypeVar("R")

ROUNDS_MAX = 200
"""Within so many turns a task that is cancelled again and again has ended, or is a fault."""

_owner: ContextVar[Process | None] = ContextVar("process", default=None)


class StillRunning(AssertionError):
    """A task went on though it was cancelled."""


class Process:
    """Tasks with a common end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._context = copy_context()
        self._context.run(_owner.set, self)

    def start(self, work: Coroutine[Any, Any, R], name: str) -> asyncio.Task[R]:
        """Run `work` as part of this process."""
        loop = asyncio.get_running_loop()
        return self._context.run(lambda: loop.create_task(work, name=name))

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task that this process has started."""
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        if self.is_dead:
            task.cancel()

    def kill(self) -> None:
        """Let nothing more be done; `ended` waits until everything has stopped."""
        self.is_dead = True
        for task in tuple(self.tasks):
            task.cancel()

    async def ended(self) -> None:
        """Wait until no task is left.  Raises `StillRunning`."""
        for _ in range(ROUNDS_MAX):
            if not self.tasks:
                return
            if self.is_dead:
                self.kill()
            await asyncio.sleep(0)
        names = ", ".join(task.get_name() for task in self.tasks)
        raise StillRunning(f"{self.name} does not end: {names}")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if self.is_dead and not task.cancelled():
            task.exception()  # nobody is left to hear of it


def new_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, R] | Generator[Any, None, R],
    **options: Any,
) -> asyncio.Task[R]:
    """A task factory that knows whose the task is."""
    task: asyncio.Task[R] = asyncio.Task(work, loop=loop, **options)
    owner = _owner.get()
    if owner is not None:
        owner.adopt(task)
    return task


def current_process() -> Process | None:
    """Whose code runs now; None in what the world itself does."""
    return _owner.get()
