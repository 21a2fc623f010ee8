"""A document that an application has open in its own process, tied to its replica.

What its user edits goes to the replica as one update a transaction; what others edit comes in
after it has become durable.  When an edit cannot be stored, this object has shown what is not
true: it closes, and hands the edit back.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    DocumentDeleted,
    EditNotStored,
    EditRefused,
    EngineFailed,
    LineageEnded,
    ObserversFailed,
    UpdateMalformed,
    UpdateRefused,
)
from crdt_state.identifiers import draw_client_id
from crdt_state.model.document import Document
from crdt_state.model.surrogates import heal
from crdt_state.replica.admission import Author
from crdt_state.replica.document_core import LOCAL
from crdt_state.replica.presence import Presence
from crdt_state.replica.receipts import Level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from crdt_state.clocks import HybridClock
    from crdt_state.identifiers import DocumentId, Incarnation
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.receipts import Receipt, Replication
    from crdt_state.replica.shell import ReplicaShell

__all__ = ["OpenDocument"]

# Not a relay: what a transaction brings is this client id's own, so its refusal ends that range.
OWN_USER = Author(identity=None, may_write=True, may_relay=False)
OWN_NAME = "local"


class OpenDocument(Document):
    """A `Document` whose edits are stored.  Made by `Replica.document`."""

    def __init__(
        self,
        shell: ReplicaShell,
        document: DocumentId,
        state: Sequence[bytes],
        *,
        incarnation: Incarnation,
        stamps: HybridClock,
        size: int,
    ) -> None:
        super().__init__(
            document,
            state,
            client_id=draw_client_id(shell.random),
            incarnation=incarnation,
            clock=stamps,
            limits=shell.limits,
        )
        self.size = size
        """Bytes that its state took in the store when it was opened."""
        self.presence = Presence(self.client_id, shell.clock, shell.limits)
        self._shell = shell
        self._error: Exception | None = None
        self._receipts: weakref.WeakKeyDictionary[Receipt, None] = weakref.WeakKeyDictionary()
        self._is_closed = False
        self._postponed: list[bytes] = []
        self._refused: list[Refusal] = []
        self._is_within = False
        self.on_update(self._edited)
        gathering = shell.gatherings.of(document)
        gathering.reside(
            LOCAL, lambda _, entries: self.presence.receive(entries), self.presence.renew
        )
        self._stop_presenting = self.presence.attach(
            lambda payload: gathering.receive(LOCAL, payload)
        )

    @classmethod
    async def open(
        cls,
        shell: ReplicaShell,
        document: DocumentId,
        *,
        incarnation: Incarnation,
        stamps: HybridClock,
    ) -> OpenDocument:
        """Open a document, new or stored.

        Raises `StoreError`, `DocumentDeleted`, and `EngineFailed` where its bytes make the engine
        panic; the document is then set aside.
        """
        entrance = _Entrance()
        await shell.use(document, LOCAL, entrance)
        try:
            await shell.settled(document)
            stored = await shell.store.read(document)
            updates = [] if stored is None else stored.updates()
            known = shell.core.get(document)
            if stored is not None and stored.life.is_deleted:
                raise DocumentDeleted(document, stored.life.lineage)  # noqa: TRY301 - one way out
            if known is not None and known.head.splits_seen:
                updates = heal(updates, shell.limits)
            opened = cls(
                shell,
                document,
                updates,
                incarnation=incarnation,
                stamps=stamps,
                size=sum(map(len, updates)),
            )
        except EngineFailed as error:
            shell.leave(document, LOCAL)
            await shell.set_aside(document, f"opening it failed: {error}")
            raise
        except BaseException:
            shell.leave(document, LOCAL)
            raise
        if entrance.error is not None:
            # A commit failed meanwhile, and what was read may be from before or after it.
            opened.close()
            raise entrance.error
        # What was delivered since the read is at the entrance; some of it may be in what was
        # read, and applying it twice changes nothing.
        shell.hand_over(document, LOCAL, opened)
        opened.deliver(entrance.deltas)
        if opened._error is not None:
            raise opened._error
        return opened

    # --- what people use ---------------------------------------------------------------------

    async def saved(self) -> None:
        """Every edit made so far is on the disk.

        Raises `EditNotStored` with the edits that are not, and never will be, `EditRefused` with
        those that a remote did not let in, and `LineageEnded` where the document was deleted or
        begun anew elsewhere.
        """
        if self._error is not None:
            raise self._error
        if self._is_closed:
            raise DocumentClosed(f"{self.id!r} was closed")
        try:
            await self._shell.settled(self.id)
        except CrdtStateError:
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    async def commit(
        self, replication: Replication | None = None, *, seconds_max: float | None = None
    ) -> Receipt:
        """A receipt for every edit made so far, which is then on the disk.

        With `replication` this also waits, for `seconds_max` at most, until so many other
        replicas hold them.  Raises what `saved` does, and `NotYetReplicated`, after which the
        edits are as safe here as before and still on their way.
        """
        await self.saved()
        known = self._shell.core.get(self.id)
        through = self._shell.last if known is None else known.through
        receipt = self._shell.holdings.of(self.id).receipt(through)
        self._receipts[receipt] = None
        if replication is not None and replication.others:
            await receipt.reached(Level.DURABLE, replication.others, seconds_max=seconds_max)
        return receipt

    def close(self) -> None:
        """End; what was edited will still be stored.

        Where the disk fails just then, nobody is left to be told: it is reported to the event
        loop.  Who wants to know awaits `saved` first.
        """
        if not self._is_closed:
            self._is_closed = True
            self.presence.leave()
            self._stop_presenting()
            self._shell.gatherings.leave(self.id, LOCAL)
            self._shell.leave(self.id, LOCAL)
            super().close()

    @property
    def is_closed(self) -> bool:
        """Whether this object has ended; `Replica.document` makes a new one."""
        return self._is_closed

    @property
    def error(self) -> Exception | None:
        """Why this object has ended by itself, with the edits that are handed back, or None."""
        return self._error

    # --- as a subscriber ---------------------------------------------------------------------

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """Integrate what others edited."""
        self._apply(deltas)

    def refused(self, refusal: Refusal) -> None:
        """An edit of ours that the replica itself does not let in is handed back."""
        if refusal.source != LOCAL:
            return
        self._refused.append(refusal)
        if len(self._refused) == 1:
            # What was edited since builds on it, and is refused right behind it.
            asyncio.get_running_loop().call_soon(self._end_refused)

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """What this object shows is not what is stored."""
        if isinstance(error, EditRefused | LineageEnded):
            error = error.with_more(own_edits)
        elif own_edits:
            error = EditNotStored(str(error), tuple(own_edits))
        self._end(error)

    # --- private -----------------------------------------------------------------------------

    def _edited(self, update: bytes, is_local: bool) -> None:
        if not is_local:
            return
        try:
            self._shell.receive(self.id, LOCAL, OWN_USER, update, name=OWN_NAME)
        except (UpdateRefused, DocumentClosed) as error:
            self._end(EditNotStored(str(error), (update,)))
            raise

    def _apply(self, deltas: Sequence[Delta]) -> None:
        self._postponed += [delta.update for delta in deltas if delta.source != LOCAL]
        if self._is_within or self._is_closed:
            return
        updates, self._postponed = self._postponed, []
        for update in updates:
            try:
                self.apply(update)
            except ObserversFailed as error:
                # A callback of the application failed; the update is in, and the writer that
                # called us has nothing to do with it.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a callback on {self.id!r} failed", "exception": error}
                )
            except (EngineFailed, UpdateMalformed) as error:
                self._end(error)
                return

    def enter(self, origin: object) -> None:
        """Begin a transaction; what others edit waits for its end.

        Raises `NotHead` in a chain, elsewhere than at its head.
        """
        if self._shell.core.gate is not None:
            self._shell.core.gate(LOCAL)
        super().enter(origin)
        self._is_within = True

    def leave(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End a transaction."""
        try:
            super().leave(error_type, error, traceback)
        finally:
            if not self._depth:
                self._is_within = False
                self._apply(())

    def _end_refused(self) -> None:
        updates = tuple(refusal.update for refusal in self._refused)
        self._end(EditNotStored(self._refused[0].error.reason, updates))

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        for receipt in tuple(self._receipts):
            receipt.fail(error)
        self.close()


class _Entrance:
    """Stands in for a document while it is being read."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.error: Exception | None = None

    def deliver(self, deltas: Sequence[Delta]) -> None:
        self.deltas.extend(deltas)

    def refused(self, refusal: Refusal) -> None:
        """Nobody here has edited anything yet."""

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """The document has to be opened again."""
        self.error = error
