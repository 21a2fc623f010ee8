"""Taking in documents of a scope that nobody needs to have open, many at once.

Each is used only as long as this takes; what comes for many within a tick is one commit.  Batches
do not name lives (crdt_state/lineage.py): a document of any but the first is left to a channel.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    RemoteProtocolError,
    UpdateRefused,
)
from crdt_state.lineage import BORN
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.protocol.peer.scopes import Parcel
from crdt_state.transport import codes
from crdt_state.transport.channel import NOTHING_TO_BRING
from crdt_state.transport.reception import take_update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.admission import Author
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.shell import ReplicaShell

__all__ = ["held_of", "parcel_for", "take_parcel"]


class _Passing:
    """A subscriber for a moment, which keeps what becomes of one source's updates."""

    def __init__(self, source: int) -> None:
        self.code = 0
        self._source = source

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """What is durable is so for everybody."""

    def refused(self, refusal: Refusal) -> None:
        """Somebody's update was not let in."""
        if refusal.source == self._source:
            self.code = refusal.error.code

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """The document fell out of use."""
        self.code = error.code if isinstance(error, UpdateRefused) else codes.TRY_AGAIN_LATER


async def take_parcel(
    shell: ReplicaShell, parcel: Parcel, *, source: int, author: Author, name: str
) -> int:
    """Take in what a parcel brings; 0 when all of it is durable, else the code that says why not.

    Raises nothing that a document, its bytes or the store can cause.
    """
    passing, keeper = _Passing(source), shell.new_source()
    try:
        await shell.use(parcel.document, keeper, passing)
        try:
            if not _is_in_its_first_life(shell, parcel.document):
                return codes.OTHER_LINEAGE
            for update in parcel.updates:
                await take_update(
                    shell,
                    parcel.document,
                    update,
                    source=source,
                    author=author,
                    name=name,
                    is_here=lambda: not passing.code,
                )
            await shell.settled(parcel.document)
        finally:
            shell.leave(parcel.document, keeper)
    except (UpdateRefused, RemoteProtocolError) as error:
        return error.code
    except CrdtStateError:
        return passing.code or codes.TRY_AGAIN_LATER
    return passing.code


async def held_of(shell: ReplicaShell, document: DocumentId) -> bytes | None:
    """The state vector of what is held of a document; None where it needs a channel of its own.

    Raises `StoreError`.
    """
    async with _used(shell, document):
        return _vector(shell, document)


async def parcel_for(shell: ReplicaShell, document: DocumentId, vector: bytes) -> Parcel:
    """What somebody with a state vector lacks of a document, and what is held of it here.

    Raises `UpdateRefused` for what is no state vector, `StoreError`, `WorkerFailed`.
    """
    async with _used(shell, document):
        held = _vector(shell, document)
        # What the vector names has to be on the disk, whoever brought it, before it is said.
        await shell.settled(document)
        if held is None:
            return Parcel(document, is_apart=True)
        try:
            update = await shell.difference(document, vector)
        except DocumentClosed:
            return Parcel(document, is_apart=True)  # something takes its place
        updates = () if update == NOTHING_TO_BRING else (update,)
        return Parcel(document, updates, held)


@asynccontextmanager
async def _used(shell: ReplicaShell, document: DocumentId) -> AsyncIterator[None]:
    keeper = shell.new_source()
    await shell.use(document, keeper, _Passing(keeper))
    try:
        yield
    finally:
        shell.leave(document, keeper)


def _vector(shell: ReplicaShell, document: DocumentId) -> bytes | None:
    known = shell.core.get(document)
    if known is None:
        return EMPTY_VECTOR
    if known.set_aside is not None or known.life != BORN:
        return None
    return known.head.state_vector()


def _is_in_its_first_life(shell: ReplicaShell, document: DocumentId) -> bool:
    known = shell.core.get(document)
    return known is None or known.life == BORN
