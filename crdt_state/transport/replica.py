"""The replica as an application has it: open a file, edit documents, connect.

    async with Replica.open("notes.db") as replica:
        replica.connect("ws://localhost:1234")
        note = await replica.document("notes/today")
        note.text("text").insert(0, "hello")

It works at once and without a network; a link brings it in step in the background.

1. A document is open once at most: who asks while it is being opened gets the same object.
2. What is closed is let go of, also by the links, as soon as the remote holds it.
3. Every remote that was ever connected is owed what is edited, connected or not.
4. A lineage ends by `delete`, `seed` and `recreate`, and by nothing else here; of one that others
   ended, what was edited here is kept until `adopt`, `keep_as_copy` or `rebase` has decided.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import TYPE_CHECKING, Self

from crdt_state.clocks import HybridClock, SystemClock
from crdt_state.errors import AlreadyConnected, DocumentDeleted, LimitExceeded, UsageError
from crdt_state.identifiers import document_id, draw_client_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.lineage import BORN, Life
from crdt_state.model.document import Document
from crdt_state.model.rebasing import rebase
from crdt_state.replica.open_document import OpenDocument
from crdt_state.replica.remotes import Remotes
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.succession import Copy, bring, copies, held_by_nobody, succeed
from crdt_state.replica.workers import InProcess
from crdt_state.storage.contract import DropAside
from crdt_state.storage.sqlite import SqliteStore
from crdt_state.transport.link import Link, Wire
from crdt_state.transport.listening import Listening
from crdt_state.transport.neighbours import Neighbours
from crdt_state.transport.websocket import WebSocketDial

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
    from random import Random
    from types import TracebackType

    from crdt_state.clocks import Clock
    from crdt_state.errors import LineageEnded
    from crdt_state.identifiers import DocumentId, Incarnation
    from crdt_state.limits import Limits
    from crdt_state.replica.core import Batch
    from crdt_state.replica.witness import Witness
    from crdt_state.replica.workers import Workers
    from crdt_state.security.tokens import Authentication
    from crdt_state.storage.contract import Store
    from crdt_state.transport.connection import Dial
    from crdt_state.transport.neighbourhood import Neighbourhood

__all__ = ["Replica"]

PRESENCE_SECONDS = 3.0

ENTRIES = 256
"""Of the quarantine, read at once."""


class Replica(ReplicaShell):
    """A replica over a store.  `Replica.open` is the usual way to have one."""

    def __init__(
        self,
        store: Store,
        *,
        incarnation: Incarnation,
        limits: Limits,
        clock: Clock,
        dice: Random,
        workers: Workers | None = None,
        witness: Witness | None = None,
        is_listening: bool = False,
    ) -> None:
        """As `ReplicaShell`; without `workers` documents are integrated in this process."""
        super().__init__(
            store,
            workers or InProcess(limits),
            limits=limits,
            clock=clock,
            random=dice,
            is_listening=is_listening,
            witness=witness,
        )
        self._incarnation = incarnation
        self._stamps = HybridClock(clock, drift_seconds_max=limits.register_drift_seconds_max)
        self._open: dict[DocumentId, OpenDocument] = {}
        self._opening: dict[DocumentId, asyncio.Task[OpenDocument]] = {}
        self._links: list[Link] = []
        self._remotes = Remotes(store, self.core, limits)
        self._neighbours: Neighbours | None = None
        self._listenings: list[Listening] = []
        self.gatherings.watch(self._who_is_here_changed)

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        dice: Random | None = None,
    ) -> Opening:
        """Open the replica in the file `path`, which is made where there is none.

        Use the result with `async with`, or await it and call `close` yourself.  Raises
        `StoreInUse` while another process has the file, and other `StoreError`s.
        """
        return Opening(path, limits, clock or SystemClock(), dice)

    async def close(self) -> None:
        """Hang up, make everything durable, let go of the file."""
        for listening in tuple(self._listenings):
            await listening.close()
        if self._neighbours is not None:
            await self._neighbours.close()
        for link in tuple(self._links):
            await link.close()
        openings = tuple(self._opening.values())
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        for document in tuple(self._open.values()):
            document.close()
        self._open.clear()
        await super().close()

    # --- documents ---------------------------------------------------------------------------

    async def document(self, name: str) -> OpenDocument:
        """Open a document; the same object while it is open.

        Raises `InvalidDocumentId`, `DocumentDeleted`, `StoreError`, and `LimitExceeded` when the
        open documents together would take more than `Limits.open_documents_bytes_max`.  After
        `DocumentDeleted` remotes are asked whether it was begun anew, so a later call may find it.
        """
        document = document_id(name)
        opening = self._opening.get(document)
        if opening is None:
            known = self._open.get(document)
            if known is not None and not known.is_closed:
                return known
            opening = self._opening[document] = asyncio.create_task(self._open_new(document))
            opening.add_done_callback(lambda _: self._opening.pop(document))
        # One who asked and gave up must not end it for the others.
        return await asyncio.shield(opening)

    async def _open_new(self, document: DocumentId) -> OpenDocument:
        try:
            opened = await OpenDocument.open(
                self, document, incarnation=self._incarnation, stamps=self._stamps
            )
        except DocumentDeleted:
            # Somebody may have begun it anew since; who is not asked does not tell.
            for link in self._links:
                link.ask_for_life(document)
            raise
        total = opened.size + sum(
            other.size for other in self._open.values() if not other.is_closed
        )
        if total > self.limits.open_documents_bytes_max:
            opened.close()
            allowed = self.limits.open_documents_bytes_max
            raise LimitExceeded("open_documents_bytes_max", allowed, total)
        self._open[document] = opened
        for link in self._links:
            self._tie(link, opened)
        return opened

    async def let_go_of_closed(self) -> None:
        """Stop following the documents that have been closed and are in step everywhere."""
        for document, opened in tuple(self._open.items()):
            # All links or none: what one brings late, the others are to be told.
            if self._open.get(document) is not opened or not opened.is_closed:
                continue
            if any(link.needs(document) for link in self._links):
                continue
            if not self.core.is_busy(document):
                del self._open[document]
                await asyncio.gather(*(link.unfollow(document) for link in self._links))

    # --- a topology --------------------------------------------------------------------------

    @property
    def neighbours(self) -> Neighbours | None:
        """The topology that this replica takes part in."""
        return self._neighbours

    def join(
        self,
        neighbourhood: Neighbourhood,
        *,
        token: str | Callable[[], str] | None = None,
        dial: Dial | None = None,
    ) -> Neighbours:
        """Take part in a topology, in the background: dial its members, and forward by its rule.

        So that they can dial this replica, it has to `listen`.  `token` is as in `connect`.
        Raises `UsageError` where it takes part in one already.
        """
        if self._neighbours is not None:
            raise UsageError("this replica takes part in a topology already; close that first")

        def connect(url: str) -> Link:
            return self._connect(url, token=token, dial=dial, wire=Wire.REPLICA, is_to_member=True)

        def left() -> None:
            self._neighbours = None

        self._neighbours = Neighbours(
            self, self._remotes, neighbourhood, connect=connect, closed=left
        )
        self._neighbours.begin()
        return self._neighbours

    async def listen(
        self,
        host: str = "localhost",
        port: int = 0,
        *,
        authentication: Authentication | None = None,
        allowed_hosts: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> Listening:
        """Let others dial this replica, over both wires, until the result or this is closed.

        `port` 0 takes any free one: the result's `url` says which.  Without `authentication`
        everybody who reaches the address may read and write everything, so it has to be one of
        this machine only.  `allowed_hosts` are further names by which this machine is dialled.
        Raises `UsageError` where anybody could write, and `OSError` when the address cannot be had.
        """
        listening = await Listening.begin(
            self,
            host,
            port,
            authentication=authentication,
            allowed_hosts=allowed_hosts,
            tls=tls,
            closed=self._listenings.remove,
        )
        self._is_listening = True
        self._listenings.append(listening)
        return listening

    def _deliver(self, batch: Batch) -> None:
        super()._deliver(batch)
        for link in self._links:
            link.delivered(batch.turns)

    def _who_is_here_changed(self, document: DocumentId) -> None:
        for link in self._links:
            link.who_is_here_changed(document)

    # --- lineages ----------------------------------------------------------------------------

    async def delete(self, name: str) -> None:
        """End a document, here and everywhere; what others edit meanwhile is offered to them.

        It wins over every edit in the lineage that it ends, and is owed to every remote until that
        one has heard of it.  Who has the document open is told by `DocumentDeleted`.  To delete it
        twice changes nothing.  Raises `InvalidDocumentId`, `StoreError`.
        """
        await self._begin(document_id(name), Life.deleted)

    async def seed(self, name: str, fill: Callable[[Document], object]) -> OpenDocument:
        """Begin a document with new content, in place of whatever is under this id anywhere.

        `fill` is called with an empty document.  This is how content comes back that a server has
        lost: whoever still holds it from before is told, and nothing is doubled.  Raises what
        `fill` does, `InvalidDocumentId`, `StoreError`.
        """
        document = document_id(name)
        seeded = self._loose(document, [])
        try:
            fill(seeded)
            content = seeded.encode()
        finally:
            seeded.close()
        await self._begin(document, self._successor, content)
        return await self.document(document)

    async def recreate(self, name: str) -> OpenDocument:
        """Begin a deleted document anew, empty.

        Raises `UsageError` where it is not deleted, `InvalidDocumentId`, `StoreError`.
        """
        document = document_id(name)
        if not (await self._life(document)).is_deleted:
            raise UsageError(
                f"{document!r} is not deleted; `document` opens it, and `seed` begins it anew"
            )
        await self._begin(document, self._successor)
        return await self.document(document)

    async def ended(self) -> AsyncIterator[LineageEnded]:
        """Of every lineage that others ended and in which something was edited here: what was.

        Each as who had the document open was told, until `adopt`, `keep_as_copy` or `rebase` has
        decided; they outlive a restart.  `updates` is then the whole content, as one update.
        """
        after = 0
        while page := await self.store.quarantine(after=after, limit=ENTRIES):
            for entry in page:
                if copies([entry]):
                    # By now it may have been decided, or kept once more with a later edit.
                    for copy in copies(await self.store.quarantine(entry.document)):
                        if entry.number == copy.numbers[-1]:
                            yield copy.error()
            after = page[-1].number

    async def adopt(self, ended: LineageEnded) -> None:
        """Let go of what was edited here: what has come in its place counts.

        Raises `UsageError` where that has been decided already, and `StoreError`.
        """
        await self._decided(await self._copy(ended))

    async def keep_as_copy(self, ended: LineageEnded, name: str) -> OpenDocument:
        """Keep the content with what was edited here, as a document of its own called `name`.

        Raises `UsageError` where there is a document of this name, or where that has been decided
        already, `InvalidDocumentId`, `StoreError`, `UpdateRefused`.
        """
        document = document_id(name)
        copy = await self._copy(ended)
        if await self.store.read(document) is not None:
            raise UsageError(f"there is a document {document!r} already; give another name")
        await bring(self, document, [copy.whole, *ended.updates])
        await self._decided(copy)
        return await self.document(document)

    async def rebase(self, ended: LineageEnded) -> tuple[str, ...]:
        """Make the edits that were made here once more, on what has come in the place.

        By content (`model/rebasing`), as one edit of the document, which is open afterwards.
        Returns the roots of which something could not be made again; where there are any, the copy
        stays until `adopt` or `keep_as_copy`.  Raises `UsageError` where it is not known what was
        edited, or decided already, `DocumentDeleted` where nothing has come in the place, and
        `StoreError`.
        """
        copy = await self._copy(ended)
        if copy.common is None:
            raise UsageError(
                f"what others held of {ended.document!r} is not known any more; keep_as_copy "
                f"keeps all of it"
            )
        onto = await self.document(ended.document)
        base = self._loose(copy.document, [copy.common])
        ours = self._loose(copy.document, [copy.whole, *ended.updates])
        try:
            passed_over = rebase(base, ours, onto)
        finally:
            base.close()
            ours.close()
        await onto.saved()
        if not passed_over:
            await self._decided(copy)
        return passed_over

    async def _life(self, document: DocumentId) -> Life:
        stored = await self.store.read(document)
        return BORN if stored is None else stored.life

    def _successor(self, life: Life) -> Life:
        return life.successor(self.clock.wall(), self.random)

    async def _begin(
        self, document: DocumentId, following: Callable[[Life], Life], content: bytes | None = None
    ) -> None:
        """Let the life that `following` gives follow the one that there is when it happens."""
        while (life := following(before := await self._life(document))) != before:
            # Where a peer has brought a greater one meanwhile, that is the one to be followed.
            if await succeed(self, document, life, held=held_by_nobody, content=content):
                break
        for link in self._links:
            link.look_again()

    async def _copy(self, ended: LineageEnded) -> Copy:
        entries = await self.store.quarantine(document_id(ended.document))
        found = [copy for copy in copies(entries) if copy.lineage == ended.lineage]
        if not found:
            raise UsageError(f"nothing of {ended.document!r} is set aside; it has been decided")
        return found[-1]

    async def _decided(self, copy: Copy) -> None:
        await self.store.write([DropAside(copy.document, copy.numbers)])

    def _loose(self, document: DocumentId, state: list[bytes]) -> Document:
        """A document that is not stored."""
        return Document(
            document,
            state,
            client_id=draw_client_id(self.random),
            incarnation=self._incarnation,
            clock=self._stamps,
            limits=self.limits,
        )

    # --- links -------------------------------------------------------------------------------

    def connect(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        dial: Dial | None = None,
        wire: Wire = Wire.REPLICA,
        scopes: Iterable[str] = (),
    ) -> Link:
        """Keep in step with the server at `url`, in the background, until the link is closed.

        `token` is a bearer token, or a function that gives a fresh one for each connection.
        `wire` is what is spoken: our own protocol, or y-websocket with servers of others, over
        which no receipt is fulfilled.  Nothing is tried instead: where the remote does not speak
        it, the link's progress is `Progress.REFUSED`, and `last_error` says what to do.  `scopes`
        are kept in step whole, open or not, over our own protocol; see `Link.subscribe`, and its
        errors.
        Raises `ValueError` for what is no such address, `AlreadyConnected`, and `LimitExceeded`
        beyond `Limits.remotes_max`.
        """
        return self._connect(url, token=token, dial=dial, wire=wire, scopes=scopes)

    def _connect(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None,
        dial: Dial | None,
        wire: Wire,
        scopes: Iterable[str] = (),
        is_to_member: bool = False,
    ) -> Link:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(
                f"{url!r} is not the address of a server; it begins with ws:// or wss://"
            )
        if any(link.remote == url.rstrip("/") for link in self._links):
            raise AlreadyConnected(url.rstrip("/"))
        self._remotes.check_room(url.rstrip("/"))
        if dial is None:
            dial = WebSocketDial(self.limits, token=token if wire is Wire.Y_WEBSOCKET else None)
        link = Link(
            self,
            self._remotes,
            url,
            dial,
            closed=self._links.remove,
            wire=wire,
            token=token,
            is_to_member=is_to_member,
        )
        for scope in scopes:
            link.subscribe(scope)
        link.begin()
        self._links.append(link)
        for opened in self._open.values():
            if not opened.is_closed:
                self._tie(link, opened)
        return link

    async def disconnect(self, link: Link) -> None:
        """End a link, as `link.close` does; the remote stays owed what it lacks."""
        await link.close()

    def only_here(self) -> AsyncIterator[DocumentId]:
        """The documents with edits that are on no other disk yet, as far as is known.

        Of a replica that was never connected, all of them.  Raises `StoreError`.
        """
        return self._remotes.only_here()

    async def forget_remote(self, url: str) -> None:
        """Owe a remote nothing any more; to connect to it again is to begin anew.

        Raises `AlreadyConnected` while connected to it, and `StoreError`.
        """
        remote = url.rstrip("/")
        if any(link.remote == remote for link in self._links):
            raise AlreadyConnected(remote)
        await self._remotes.forget(remote)

    def _tie(self, link: Link, opened: OpenDocument) -> None:
        link.follow(opened.id)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._remotes.load()
        self._start(self._tend_presence(), "presence")
        return self

    async def _tend_presence(self) -> None:
        while True:
            await asyncio.sleep(PRESENCE_SECONDS)
            for opened in tuple(self._open.values()):
                if not opened.is_closed:
                    opened.presence.tend()
            await self.let_go_of_closed()
            for link in tuple(self._links):
                link.look_again()


class Opening:
    """A replica that is about to be opened: await it, or use it with `async with`."""

    def __init__(
        self, path: str | os.PathLike[str], limits: Limits, clock: Clock, dice: Random | None
    ) -> None:
        self._path = path
        self._limits = limits
        self._clock = clock
        self._dice = dice or random.Random(secrets.randbits(128))  # noqa: S311 - names, jitter
        self._replica: Replica | None = None

    def __await__(self) -> Generator[object, None, Replica]:
        return self._open().__await__()

    async def __aenter__(self) -> Replica:
        self._replica = await self._open()
        return self._replica

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._replica is not None:
            await self._replica.close()

    async def _open(self) -> Replica:
        store = await SqliteStore.open(self._path, random=self._dice, limits=self._limits)
        replica = Replica(
            store,
            incarnation=store.incarnation,
            limits=self._limits,
            clock=self._clock,
            dice=self._dice,
        )
        return await replica.__aenter__()
