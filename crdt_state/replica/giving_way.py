"""What becomes of a document when a remote refuses what was edited here.

Asking again cannot help: the remote has ended the range of our client id.  So what the remote
does not hold is set aside, and the document becomes again what the remote holds, in one commit;
who has it open is handed the edit back, and goes on under a new client id.

1. Nothing is thrown away that is not in our quarantine, and nothing of what the remote holds.
2. The whole of what the remote lacks is set aside, not the refused part alone: one transaction
   deletes as well as inserts, and half of it must not be left behind.
3. Only to be called where every other remote is still owed the document (`Remotes`), and then it
   stays so: each is brought what is left, and brings again what it holds beyond that.  Where one
   of them holds all of it, what was set aside would come back at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from crdt_state.errors import CrdtStateError, EditRefused, RemoteProtocolError
from crdt_state.model.head import Head
from crdt_state.model.inspect import inspect
from crdt_state.model.state import encode_state_vector
from crdt_state.replica.admission import Admitted, Author, NothingNew, admit
from crdt_state.replica.attachment import kept_text
from crdt_state.replica.inbox import LARGE_BYTES
from crdt_state.storage.contract import ClearOutbox, Fold, SetAside

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.limits import Limits
    from crdt_state.replica.document_core import DocumentCore
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.storage.contract import StoredDocument, Write

__all__ = ["give_way", "head_of_state"]

AnyResult = TypeVar("AnyResult")

RELAY = Author(identity=None, may_write=True, may_relay=True)


async def give_way(
    shell: ReplicaShell,
    known: DocumentCore,
    state: bytes,
    *,
    remote: str,
    code: int,
    reason: str,
) -> EditRefused | None:
    """Let a document in use be what `remote` holds: `state`, all of it as one update.

    Returns what its users were told, or None where nothing had to change: the remote holds all of
    it, or the document fell out of use meanwhile.  Raises `UpdateRefused` and
    `RemoteProtocolError` for a state that is not let in, and `StoreError`; then nothing has
    changed.
    """
    theirs = await head_of_state(state, shell.limits)
    refused: EditRefused | None = None

    async def make(stored: StoredDocument | None) -> tuple[list[Write], CrdtStateError]:
        nonlocal refused
        if stored is None:
            raise _NothingRefused
        ours = await shell.difference(known.document, encode_state_vector(theirs.vector))
        inspection = await _off_the_loop(ours, lambda: inspect(ours, shell.limits, merged=True))
        if theirs.holds(inspection):
            raise _NothingRefused
        refused = EditRefused(
            known.document, remote=remote, code=code, reason=reason, updates=(ours,)
        )
        theirs.inherit(known.head)
        source = f"local, refused by {remote}"
        writes: list[Write] = [
            *known.folded(),
            SetAside(known.document, ours, code, reason, source, shell.clock.wall()),
            *await kept_text(shell, stored, is_replaced=True),
            Fold(known.document, state, theirs.encode(), stored.last),
            ClearOutbox(remote, known.document, stored.last),
        ]
        return writes, refused

    try:
        return refused if await shell.replace(known, make) else None
    except _NothingRefused:
        return None


async def head_of_state(state: bytes, limits: Limits) -> Head:
    """The head of all that a remote holds, which is let in as any other update would be.

    Raises `UpdateRefused` and `RemoteProtocolError`.
    """
    return await _off_the_loop(state, lambda: _read(state, limits))


async def _off_the_loop(update: bytes, read: Callable[[], AnyResult]) -> AnyResult:
    """Read what is large in a thread, so that the event loop goes on with others."""
    return await asyncio.to_thread(read) if len(update) > LARGE_BYTES else read()


class _NothingRefused(CrdtStateError):
    """The remote holds all that we hold."""


def _read(state: bytes, limits: Limits) -> Head:
    head = Head()
    inspection = inspect(state, limits, merged=True)
    verdict = admit(head, inspection, RELAY, limits)
    if not isinstance(verdict, Admitted | NothingNew):
        raise RemoteProtocolError("the remote's state lacks what it builds on")
    head.take(inspection)
    return head
