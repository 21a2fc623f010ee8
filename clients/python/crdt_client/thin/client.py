"""A thin client: texts of a server, edited with a connection or without, and no CRDT here.

    async with ThinClient("ws://localhost:1234", store=Path("notes")) as client:
        text = await client.open("notes/today", format=TEXT_UNICODE)
        text.insert(0, "hello ")
        await text.saved()

One connection for all documents, dialled again for ever.  It speaks ShareDB's protocol
(`PROTOCOL.md`, section 4); what is said is decided by `ThinWire` and `ThinDocument`, and carried
here.

1. With a `store`, nothing is submitted before it is written down as submitted: a client that is
   killed goes on where it was, and nothing is applied twice.
2. What cannot stay in a document is given to `handed_back`, or waits in `ThinText.handed_back`.
"""

from __future__ import annotations

import asyncio
from random import SystemRandom
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from crdt_client.thin.document import ThinDocument
from crdt_client.thin.kept import Keeper
from crdt_client.thin.progress import Progress
from crdt_client.thin.text import ThinText
from crdt_client.thin.wire import Heard, ThinWire
from crdt_state.errors import (
    CrdtStateError,
    DocumentClosed,
    InvalidDocumentId,
    ObserversFailed,
    RemoteProtocolError,
    RequestRefused,
    UsageError,
)
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.transport import codes
from crdt_state.transport.connection import ConnectionEnded
from crdt_state.transport.reconnect import Backoff
from crdt_state.transport.websocket import WebSocketDial
from crdt_state.transport.websocket_text import TextDial

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from random import Random
    from types import TracebackType

    from crdt_client.thin.messages import HandedBack
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot.formats import Format
    from crdt_state.transport.websocket_text import TextConnection

__all__ = ["SHAREDB_PATH", "ThinClient"]

SHAREDB_PATH: Final = "/-/sharedb"
"""Where a server speaks ShareDB's protocol, unless its address has a path of its own."""

NAME_BITS: Final = 96
"""Of names that nobody else may have."""


class ThinClient:
    """One user's texts at one server; from `async with` to its end."""

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        tls: ssl.SSLContext | None = None,
        store: Path | None = None,
        handed_back: Callable[[ThinText, HandedBack], None] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        random: Random | None = None,
        dial: Callable[[str], Awaitable[TextConnection]] | None = None,
    ) -> None:
        """`url` as `ws://host:port`; a function for a token is asked anew for each connection.

        A text is shown there in the format in which it was created; at `/-/sharedb/rich-text` and
        `/-/sharedb/text-unicode` every text is, in that one.  `dial` takes the place of both.

        `store` is a folder that is this client's own: what waits for the server survives there.
        Of `random` are drawn names that nobody else may have, and waits.  Raises `UsageError`.
        """
        self.url = _address(url)
        self.last_error: str | None = None
        """Why a connection last ended or could not be made."""
        self._limits = limits
        self._random = SystemRandom() if random is None else random
        self._hand_back = handed_back
        self._dial = dial or TextDial(WebSocketDial(limits, token=token, tls=tls))
        self._backoff = Backoff(limits, self._random)
        self._wire = ThinWire(self._draw(), cursor=self._draw(), limits=limits)
        self._texts: dict[DocumentId, ThinText] = {}
        self._keeper = None if store is None else Keeper(store)
        self._progress = Progress.OFFLINE
        self._watchers: list[Callable[[Progress], None]] = []
        self._to_send = asyncio.Event()
        self._opening = asyncio.Lock()
        self._stay: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ThinClient:
        """Take the store, and begin to dial.  Raises `StoreInUse` and other `StoreError`s."""
        if self._stay is not None:
            raise UsageError("this client has been used already; make another")
        if self._keeper is not None:
            self._wire.source = await self._keeper.begin(self._wire.source)
        self._stay = asyncio.create_task(self._stay_connected(), name=f"thin client {self.url}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up; what is edited and not saved stays in the store, where there is one."""
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.gather(self._stay, return_exceptions=True)
        for text in tuple(self._texts.values()):
            self._let_go(text)
        if self._keeper is not None:
            await self._keeper.end()

    # --- documents -------------------------------------------------------------------------------

    async def open(self, name: str, *, format: Format) -> ThinText:  # noqa: A002 - what it is
        """A document, as this client left it; empty where it has not seen it.

        Returns at once, with a connection or without: `ThinText.in_step` waits for the server's.
        A document that is open already is given again.  Raises `InvalidDocumentId`,
        `LimitExceeded`, and `UsageError` for another format than it was opened or kept in.
        """
        document = document_id(name)
        async with self._opening:
            self._check_open()
            text = self._texts.get(document)
            if text is None:
                return await self._opened(document, format)
        _check_format(document, text.format, format)
        return text

    async def kept(self) -> list[DocumentId]:
        """Documents of the store, open or not; edits of one that nobody opens wait."""
        return [] if self._keeper is None else await self._keeper.documents()

    # --- what people look at ---------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the connection is; of its documents each has its own."""
        return self._progress

    def watch(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Call back whenever `progress` changes; the off switch."""
        self._watchers.append(callback)

        def stop() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return stop

    # --- documents, within -----------------------------------------------------------------------

    async def _opened(self, document: DocumentId, spoken: Format) -> ThinText:
        thin = await self._loaded(document)
        self._check_open()
        if thin is None:
            thin = ThinDocument(spoken, self._draw(), limits=self._limits)
        _check_format(document, thin.format, spoken)
        try:
            talk = self._wire.add(document, thin)
        except RequestRefused as error:
            raise InvalidDocumentId(document, error.reason) from None
        text = ThinText(
            document,
            talk,
            touched=self._touched,
            kept=self._kept,
            close=self._close,
            handed_back=self._hand_back,
        )
        self._texts[document] = text
        text.happened((), is_connecting=self._is_connecting)
        self._to_send.set()
        return text

    async def _loaded(self, document: DocumentId) -> ThinDocument | None:
        data = None if self._keeper is None else await self._keeper.load(document)
        return None if data is None else ThinDocument.restore(data, limits=self._limits)

    def _touched(self, text: ThinText) -> None:
        self._wire.touch(text.document_id)
        self._write_soon(text.document_id)
        self._to_send.set()

    async def _close(self, text: ThinText) -> None:
        async with self._opening:
            if self._texts.get(text.document_id) is not text:
                return
            self._let_go(text)
            if self._keeper is not None:
                await self._keeper.kept()

    def _let_go(self, text: ThinText) -> None:
        self._write_soon(text.document_id)
        del self._texts[text.document_id]
        self._wire.remove(text.document_id)
        self._to_send.set()
        text.ended()

    def _write_soon(self, document: DocumentId) -> None:
        if self._keeper is not None:
            self._keeper.changed(document, self._wire.conversations[document].thin.export)

    async def _kept(self) -> None:
        if self._keeper is None:
            raise UsageError("this client has no store; give it a folder: store=Path(...)")
        await self._keeper.kept()

    def _check_open(self) -> None:
        if self._stay is None or self._stay.done():
            raise DocumentClosed("documents are opened within `async with` of their client")

    # --- the connection --------------------------------------------------------------------------

    @property
    def _is_connecting(self) -> bool:
        return self._progress in {Progress.CONNECTING, Progress.CATCHING_UP}

    async def _stay_connected(self) -> None:
        while True:
            if self._progress is not Progress.REFUSED:
                self._show(Progress.CONNECTING)
            progress = Progress.OFFLINE
            try:
                await self._dial_and_talk()
            except (ConnectionEnded, OSError, CrdtStateError) as error:
                self.last_error = str(error) or type(error).__name__
                if isinstance(error, ConnectionEnded) and error.code in codes.REFUSES_US:
                    progress = Progress.REFUSED
            except Exception as error:
                self.last_error = repr(error)
                _report(f"the connection to {self.url} failed, and is made again", error)
            self._show(progress)
            await asyncio.sleep(self._backoff.failed())

    async def _dial_and_talk(self) -> None:
        connection = await self._dial(self.url)
        code, reason = codes.CLOSED, ""
        self._wire.connected()
        self._to_send.set()
        both = [
            asyncio.create_task(self._listen(connection)),
            asyncio.create_task(self._speak(connection)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                if task.done():
                    task.result()
        except RemoteProtocolError as error:
            code, reason = error.code, error.reason
            raise
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._tell(self._wire.disconnected())
            await connection.close(code, reason)

    async def _listen(self, connection: TextConnection) -> None:
        try:
            async with asyncio.timeout(self._limits.handshake_seconds_max):
                while not self._wire.is_greeted:
                    self._hear(await connection.receive())
        except TimeoutError:
            raise OSError("nobody has greeted") from None
        self._show(Progress.CATCHING_UP)
        self._look_how_far()
        # Documents that the server would not show are asked for again, each time later.
        patience = Backoff(self._limits, self._random)
        asking = asyncio.create_task(self._ask_again(patience))
        try:
            while True:
                self._hear(await connection.receive())
        finally:
            asking.cancel()

    async def _ask_again(self, patience: Backoff) -> None:
        while True:
            await asyncio.sleep(self._limits.reconnect_seconds_max + patience.failed())
            self._wire.ask_again()
            self._to_send.set()

    def _hear(self, frame: str) -> None:
        self._tell(self._wire.receive(frame))
        self._to_send.set()
        self._look_how_far()

    def _look_how_far(self) -> None:
        texts = self._texts.values()
        if self._progress is Progress.CATCHING_UP and all(
            text.progress in {Progress.IN_STEP, Progress.REFUSED} for text in texts
        ):
            self._backoff.succeeded()
            self._show(Progress.IN_STEP)

    async def _speak(self, connection: TextConnection) -> None:
        while True:
            self._to_send.clear()
            frames = self._wire.frames_to_send()
            submitted = [each.submits for each in frames if each.submits is not None]
            if submitted and self._keeper is not None:
                for document in submitted:
                    self._write_soon(document)
                await self._keeper.kept()
            for frame in frames:
                connection.send(frame.text)
            await connection.drained()
            await self._to_send.wait()

    # --- parts -----------------------------------------------------------------------------------

    def _tell(self, heard: list[Heard]) -> None:
        for document, events in heard:
            text = self._texts.get(document)
            if text is None:
                continue
            try:
                text.happened(events, is_connecting=self._is_connecting)
            except ObserversFailed as error:
                _report(f"callbacks of {document!r} failed; the change is in", error)

    def _show(self, progress: Progress) -> None:
        if progress is self._progress:
            return
        self._progress = progress
        self._tell([Heard(document, []) for document in self._texts])
        for callback in tuple(self._watchers):
            try:
                callback(progress)
            except Exception as error:
                _report("a callback for progress failed", error)

    def _draw(self) -> str:
        return f"{self._random.getrandbits(NAME_BITS):0{NAME_BITS // 4}x}"


def _check_format(document: DocumentId, found: Format, wanted: Format) -> None:
    if found is not wanted:
        raise UsageError(
            f"{document!r} is {found.name} here, and cannot be opened as {wanted.name}"
        )


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss"} or not parts.netloc:
        raise UsageError(f"{url!r} is not the address of a server; it begins with ws:// or wss://")
    path = SHAREDB_PATH if parts.path in {"", "/"} else parts.path
    return urlunsplit(parts._replace(path=path))


def _report(what: str, error: Exception) -> None:
    """Let whoever runs the event loop know of what nobody expects."""
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
