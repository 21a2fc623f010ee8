"""Where ShareDB clients of one listener are received: rooms, names, and who decides.

One replica decides about the revisions of its texts (`authority`): with two, there would be two
orders.  Where this one does not, clients are told who does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crdt_state.errors import CrdtStateError, LineageDeleted, RemoteProtocolError, RequestRefused
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.names import name_of
from crdt_state.protocol.sharedb.text_types import TEXT_UNICODE, TextType
from crdt_state.transport import codes
from crdt_state.transport.sharedb_room import SharedbRoom
from crdt_state.transport.sharedb_visit import SharedbVisit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.security.grant import Grant
    from crdt_state.transport.farewell import Farewells
    from crdt_state.transport.listener import Account, Counted, Listener, Traffic

__all__ = ["SharedbDesk"]

NAME_BYTES = 16


class SharedbDesk:
    """The ShareDB clients of a listener."""

    def __init__(
        self,
        listener: Listener,
        *,
        types: Mapping[str, TextType] | None = None,
        authority: str | None = None,
    ) -> None:
        """`types` are those of collections; `authority` is who decides, None where we do."""
        self.visits: dict[SharedbVisit, None] = {}
        self._listener = listener
        self._types = dict(types or {})
        self._authority = authority
        self._rooms: dict[DocumentId, SharedbRoom] = {}
        self._opening: dict[DocumentId, asyncio.Task[SharedbRoom]] = {}
        self._users: dict[DocumentId, int] = {}
        self._known: dict[str, SharedbVisit] = {}

    @property
    def shell(self) -> ReplicaShell:
        """The replica."""
        return self._listener.shell

    @property
    def traffic(self) -> Traffic:
        """See `Listener`."""
        return self._listener.traffic

    @property
    def farewells(self) -> Farewells:
        """See `Listener`."""
        return self._listener.farewells

    async def receive(
        self, connection: Counted, grant: Grant, *, name: str, speaks: TextType | None
    ) -> None:
        """One conversation.  Raises `ConnectionEnded`, `RemoteError`, `CrdtStateError`."""
        if self._authority is not None:
            raise RemoteProtocolError(
                f"operations on texts are taken at {self._authority}", code=codes.NOT_HEAD
            )
        visit = SharedbVisit(self, connection, grant, name=name, speaks=speaks)
        self.visits[visit] = None
        try:
            await visit.run()
        finally:
            self.visits.pop(visit, None)

    # --- rooms ----------------------------------------------------------------------------------

    async def enter(self, document: DocumentId) -> SharedbRoom:
        """The room of a document, until it is `left`.  Raises `RequestRefused`."""
        self._users[document] = self._users.get(document, 0) + 1
        try:
            room = self._rooms.get(document)
            if room is None:
                task = self._opening.get(document)
                if task is None:
                    task = asyncio.create_task(self._open(document))
                    self._opening[document] = task
                room = await asyncio.shield(task)
        except LineageDeleted as error:
            self.left(document)
            raise RequestRefused(Code.DOC_WAS_DELETED, str(error)) from None
        except CrdtStateError as error:
            self.left(document)
            raise RequestRefused(Code.UNKNOWN_ERROR, str(error)) from None
        except BaseException:
            self.left(document)
            raise
        return room

    def left(self, document: DocumentId) -> None:
        """Somebody has left a document's room."""
        users = self._users[document] - 1
        if users:
            self._users[document] = users
            return
        del self._users[document]
        self._close(document)

    async def _open(self, document: DocumentId) -> SharedbRoom:
        try:
            attachment = await self.shell.attachments.use(document)
            default = self._types.get(name_of(document)[0], TEXT_UNICODE)
            source = self.shell.new_source()
            room = SharedbRoom(attachment, default, source=source, ended=self._forget)
            self._rooms[document] = room
            attachment.follow(room.source, room)
            return room
        finally:
            del self._opening[document]
            if document not in self._users:
                # Everybody who waited for it has given up.
                self._close(document)

    def _forget(self, room: SharedbRoom) -> None:
        """A room has ended by itself."""
        if self._rooms.get(room.document) is room:
            del self._rooms[room.document]
            self.shell.attachments.leave(room.document)

    def _close(self, document: DocumentId) -> None:
        room = self._rooms.pop(document, None)
        if room is not None:
            room.attachment.unfollow(room.source)
            self.shell.attachments.leave(document)

    def check_type(self, document: DocumentId, kind: TextType, spoken: TextType | None) -> None:
        """Raise `RequestRefused` where documents of this collection, or there, have another."""
        expected = spoken or self._types.get(name_of(document)[0])
        if expected is not None and expected is not kind:
            raise RequestRefused(
                Code.DOC_TYPE_NOT_RECOGNIZED,
                f"documents of {name_of(document)[0]!r} are created as {expected.uri} here",
            )

    # --- names ----------------------------------------------------------------------------------

    def draw_name(self) -> str:
        """A name for a client that brings none."""
        return self.shell.random.randbytes(NAME_BYTES).hex()

    def known_as(self, name: str, visit: SharedbVisit) -> None:
        """A client has said who it is: it is not at any other connection any more."""
        before, self._known[name] = self._known.get(name), visit
        if before is not None and before is not visit:
            before.supersede()

    def forget(self, name: str, visit: SharedbVisit) -> None:
        """A client has left."""
        if self._known.get(name) is visit:
            del self._known[name]

    # --- identities -----------------------------------------------------------------------------

    def arrive(self, name: str) -> Account:
        """See `Listener`."""
        return self._listener.arrive(name)

    def depart(self, name: str) -> None:
        """See `Listener`."""
        self._listener.depart(name)

    async def take_in(self, size: int, account: Account) -> None:
        """See `Listener`."""
        await self._listener.take_in(size, 1, account)
