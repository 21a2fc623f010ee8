"""Which remotes this replica has ever been connected to, so that each is owed what it lacks.

An edit that is made while nobody is connected, in a document that is closed again, is found by a
later link in the outbox alone.  So every remote that was ever connected is owed from the moment
the replica opens, by name, whether a link to it exists or not.

1. A remote is on the list only when every document that was here before it is in its outbox.
2. What is on the list is owed; what is taken off it is owed nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crdt_state.errors import LimitExceeded, StoreCorrupt
from crdt_state.storage.contract import Append, ClearOutbox, SetMetadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from crdt_state.identifiers import DocumentId, Incarnation, ReplicaId
    from crdt_state.limits import Limits
    from crdt_state.replica.core import ReplicaCore
    from crdt_state.storage.contract import Store, Write

__all__ = ["Remotes"]

KEY = "remotes"
"""Metadata of the replica: the list, as a JSON array of addresses."""

MET = "met/"
"""Metadata of the replica: which replica and incarnation a remote, by its address, was last."""

PAGE = 1_000


class Remotes:
    """The list of a replica; at most `Limits.remotes_max` long."""

    def __init__(self, store: Store, core: ReplicaCore, limits: Limits) -> None:
        self._store = store
        self._core = core
        self._limits = limits
        self._known: dict[str, None] = {}

    async def load(self) -> None:
        """Owe everyone on the list from now on.  Raises `StoreError`."""
        value = await self._store.metadata(KEY)
        if value is None:
            return
        try:
            self._known = dict.fromkeys(map(str, json.loads(value)))
        except (ValueError, TypeError) as error:
            raise StoreCorrupt(f"the list of remotes cannot be read: {error}") from error
        for remote in self._known:
            self._core.add_remote(remote)

    def __contains__(self, remote: str) -> bool:
        return remote in self._known

    def check_room(self, remote: str) -> None:
        """Raise `LimitExceeded` where there is no room for one more."""
        most = self._limits.remotes_max
        if remote not in self._known and len(self._known) >= most:
            raise LimitExceeded("remotes_max", most, len(self._known) + 1)

    async def add(self, remote: str) -> None:
        """Put a remote on the list; where it is new, owe it everything that is here.

        The core owes it what is new already.  Raises `StoreError`, `LimitExceeded`.
        """
        if remote in self._known:
            return
        await self._owe_everything(remote, is_again=False)
        # Last, so that a kill on the way begins this anew.
        self.check_room(remote)
        self._known[remote] = None
        try:
            await self._store.write([self._list()])
        except BaseException:
            del self._known[remote]
            raise

    async def met(self, remote: str, replica: ReplicaId, incarnation: Incarnation) -> bool:
        """A remote has said who it is; whether it is owed everything again.

        So it is when it is another replica than it was, or lives another life: what it confirmed
        before, it may no longer hold.  Raises `StoreError`.
        """
        key, who = MET + remote, replica + incarnation
        before = await self._store.metadata(key)
        if before == who:
            return False
        if before is not None:
            await self._owe_everything(remote, is_again=True)
        await self._store.write([SetMetadata(key, who)])
        return before is not None

    async def _owe_everything(self, remote: str, *, is_again: bool) -> None:
        after = ""
        while page := await self._store.list(after=after, limit=PAGE, with_deleted=True):
            after = page[-1].document
            await self._store.write(
                [Append(line.document, (), (remote,), is_again=is_again) for line in page]
            )

    async def forget(self, remote: str) -> None:
        """Take a remote off the list, and what it is owed out of the outbox."""
        self._core.remove_remote(remote)
        # First, so that a remote whose outbox is being emptied never counts as known.
        if self._known.pop(remote, "") is None:
            await self._store.write([self._list(), SetMetadata(MET + remote, None)])
        while page := await self._store.outbox(remote, limit=PAGE):
            await self._store.write(
                [ClearOutbox(remote, entry.document, entry.through) for entry in page]
            )

    async def forget_one_of(self, remotes: Sequence[str]) -> None:
        """Forget the one of these that is on the list for longest, to make room for another."""
        for remote in self._known:
            if remote in remotes:
                await self.forget(remote)
                return

    async def others_who_hold(self, document: DocumentId, remote: str) -> list[str]:
        """Remotes other than `remote` that hold all that is durable of `document`."""
        return [
            other
            for other in self._known
            if other != remote and not await self._is_owed(other, document)
        ]

    async def only_here(self) -> AsyncIterator[DocumentId]:
        """Documents with something that no remote is known to hold, in the order of ids."""
        after = ""
        first, *others = self._known or (None,)
        while True:
            if first is None:
                documents = [
                    line.document for line in await self._store.list(after=after, limit=PAGE)
                ]
            else:
                page = await self._store.outbox(first, after=after, limit=PAGE)
                documents = [entry.document for entry in page]
            if not documents:
                return
            after = documents[-1]
            for document in documents:
                if all([await self._is_owed(other, document) for other in others]):
                    yield document

    async def _is_owed(self, remote: str, document: DocumentId) -> bool:
        # Every prefix of an id comes before it, and few ids lie between the longest and itself.
        after = document[:-1]
        while page := await self._store.outbox(remote, after=after, limit=PAGE):
            after = page[-1].document
            if after >= document:
                return any(entry.document == document for entry in page)
        return False

    def _list(self) -> Write:
        return SetMetadata(KEY, json.dumps(list(self._known)).encode())
