"""Taking in an update that somebody brought, over whichever wire, where rights or quotas say no.

A stock client answers our step 1 whether it may write or not, and a peer repeats what it is not
sure of.  Only what would change something is an offence.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import NotHead, QuotaExceeded, WriteNotPermitted
from crdt_state.model.inspect import inspect
from crdt_state.replica.inbox import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.admission import Author
    from crdt_state.replica.shell import ReplicaShell

__all__ = ["take_update"]


async def take_update(
    shell: ReplicaShell,
    document: DocumentId,
    update: bytes,
    *,
    source: int,
    author: Author,
    name: str,
    is_here: Callable[[], bool],
) -> None:
    """Let `shell` receive an update, or see that it adds nothing; as long as its bringer `is_here`.

    Raises `WriteNotPermitted`, `NotHead` and `QuotaExceeded` for what would add something, and what
    else `ReplicaShell.receive` raises.
    """

    def bring() -> None:
        shell.receive(document, source, author, update, name=name)

    asked: set[str] = set()
    while is_here():
        try:
            bring()
        except (WriteNotPermitted, NotHead):
            if await _is_news(shell, document, update):
                raise
        except QuotaExceeded as error:
            if error.is_counted:
                # What came before it is held, and counted, once it is durable.
                await shell.settled(document)
                if not await _is_news(shell, document, update):
                    return
            if error.creator in asked:
                raise
            # Again for another creator, where somebody else has begun the document meanwhile.
            asked.add(error.creator)
            await shell.recount(error.creator)
            continue
        return


async def _is_news(shell: ReplicaShell, document: DocumentId, update: bytes) -> bool:
    """Whether an update would add something.  Raises `UpdateRefused` for a bad one."""
    known = shell.core.get(document)
    if known is not None and known.pending.knows(update):
        return False
    if len(update) > LARGE_BYTES:
        inspection = await asyncio.to_thread(inspect, update, shell.limits)
    else:
        inspection = inspect(update, shell.limits)
    known = shell.core.get(document)
    return known is None or not known.head.holds(inspection)
