"""A ShareDB server of revisions on a loopback socket: what a shell does around both machines.

It keeps what it knows in memory and commits at once, unless it is told to hold.  What goes wrong is
decided by `fate`, which is asked for every message that arrives.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from crdt_client.thin.wording import content_of, operation_of, operation_of_content, words_of
from crdt_state.bridge import (
    Accepted,
    Floor,
    Malformed,
    Moved,
    OutOfOrder,
    Repeated,
    Revisions,
    Stale,
    epoch_of,
)
from crdt_state.errors import OperationRefused
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.ot import EMPTY, Document, Insert
from crdt_state.ot import Operation as Change
from crdt_state.ot.formats import FORMATS, RICH_TEXT, TEXT_UNICODE, Format
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.conversation import Asked, ShareDbProtocol
from crdt_state.protocol.sharedb.parts import Create, Edit, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import Operation
from crdt_state.protocol.sharedb.requests import (
    Fetch,
    PresenceSubscribe,
    Submit,
    Subscribe,
)
from crdt_state.protocol.sharedb.text_types import text_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from websockets.http11 import Request, Response

    from crdt_state.bridge import Revision


class Fate(Enum):
    """What becomes of a message, and of the connection that it came on."""

    HEARD = "heard"
    LOST = "the line was cut before it"
    UNANSWERED = "the line was cut behind it"


@dataclass
class Text:
    """One document: its revisions, and whether there is one at all."""

    spoken: Format
    revisions: Revisions
    is_there: bool = False
    created: dict[int, Create] = field(default_factory=dict)
    """Which versions were creations."""

    @property
    def document(self) -> Document:
        return self.revisions.published_document

    def snapshot(self) -> Snapshot:
        number = self.revisions.published
        if not self.is_there:
            return Snapshot(number)
        content = text_type(self.spoken.uri).write_content(self.document)
        return Snapshot(number, self.spoken.uri, content)

    def told(self, document: DocumentId, revision: Revision) -> Operation:
        """A revision, as it is said."""
        version = revision.number - 1
        counted = revision.in_units if self.spoken.counts_units else revision.operation
        change = self.created.get(version) or Edit(words_of(counted, self.spoken))
        if revision.source is None:
            return Operation(document, version, "yjs", None, change)
        return Operation(document, version, revision.source, revision.sequence, change)


class ThinServer:
    """Documents of collections `notes` (plain) and `rich`, and who is connected."""

    def __init__(self) -> None:
        self.texts: dict[DocumentId, Text] = {}
        self.url = ""
        self.is_shut = False
        """Whether whoever connects is cut off at once."""
        self.fate: Callable[[], Fate] = lambda: Fate.HEARD
        self.holds = False
        """Whether submissions wait for `release`."""
        self.refuses_edits: Code | None = None
        self.refuses_readers = False
        self.refuses_clients = False
        """Whether no token is good enough."""
        self.held: list[tuple[ShareDbProtocol, Submit]] = []
        self.heard: list[Asked] = []
        self.tokens: list[str | None] = []
        self.has_heard = asyncio.Event()
        self._connections: dict[ServerConnection, ShareDbProtocol] = {}
        self._count = 0

    def text(self, name: str) -> Text:
        document = DocumentId(name)
        if document not in self.texts:
            spoken = RICH_TEXT if name.startswith("rich") else TEXT_UNICODE
            empty: Document = "" if spoken.is_plain else EMPTY
            self.texts[document] = Text(spoken, Revisions(Floor.of_epoch(1), [], empty))
        return self.texts[document]

    # --- what somebody else does -----------------------------------------------------------------

    def write(self, name: str, operation: Change) -> None:
        """Somebody at the CRDT does this."""
        text = self.text(name)
        text.is_there = True
        revision = text.revisions.observed(operation)
        self._publish(DocumentId(name), text, revision)
        self._flush()

    def raise_floor(self, name: str) -> None:
        """Forget all revisions."""
        revisions = self.text(name).revisions
        revisions.raise_floor(revisions.published)

    def begin_epoch(self, name: str, content: str) -> None:
        """The text is another one from now on, and its revisions begin anew."""
        text = self.text(name)
        floor = text.revisions.floor_of_epoch(epoch_of(text.revisions.head) + 1)
        document: Document = content if text.spoken.is_plain else Change.of(Insert(content))
        text.revisions = Revisions(floor, [], document)
        for protocol in self._connections.values():
            protocol.replace(DocumentId(name), text.snapshot())
        self._flush()

    def shut(self) -> None:
        """Cut everybody off, and let nobody in until `reopen`."""
        self.is_shut = True
        self.cut()

    def reopen(self) -> None:
        self.is_shut = False

    def cut(self) -> None:
        """Every line is cut."""
        for wire in list(self._connections):
            self._cut(wire)

    def release(self) -> None:
        """Answer what was held."""
        self.holds = False
        held, self.held = self.held, []
        for protocol, submit in held:
            self._submit(protocol, submit)
        self._flush()

    async def until_heard(self, kind: type[Any], count: int = 1) -> None:
        """Return when so many requests of a kind have been heard."""
        while sum(isinstance(each, kind) for each in self.heard) < count:
            self.has_heard.clear()
            await self.has_heard.wait()

    # --- connections -----------------------------------------------------------------------------

    async def converse(self, wire: ServerConnection) -> None:
        if self.is_shut:
            wire.transport.abort()
            return
        assert wire.request is not None
        assert wire.request.path == "/-/sharedb"
        self.tokens.append(wire.request.headers.get("Authorization"))
        self._count += 1
        protocol = ShareDbProtocol(f"connection-{self._count}", DEFAULT_LIMITS)
        self._connections[wire] = protocol
        try:
            async for frame in wire:
                fate = self.fate()
                if wire not in self._connections:
                    return
                if fate is not Fate.LOST:
                    for asked in protocol.receive(frame):
                        self.heard.append(asked)
                        self._answer(protocol, asked)
                    self.has_heard.set()
                if fate is not Fate.HEARD:
                    self._cut(wire)
                self._flush()
        except ConnectionClosed:
            pass
        finally:
            self._leave(wire)
            self._flush()

    def admit(self, wire: ServerConnection, _request: Request) -> Response | None:
        return wire.respond(401, "this token proves nothing") if self.refuses_clients else None

    def _cut(self, wire: ServerConnection) -> None:
        self._leave(wire)
        wire.transport.abort()

    def _leave(self, wire: ServerConnection) -> None:
        protocol = self._connections.pop(wire, None)
        if protocol is not None:
            for gone in protocol.end():
                self._show(gone)

    def _flush(self) -> None:
        for wire, protocol in self._connections.items():
            for frame in protocol.frames_to_send():
                broadcast((wire,), frame)

    # --- answers ---------------------------------------------------------------------------------

    def _answer(self, protocol: ShareDbProtocol, asked: Asked) -> None:
        match asked:
            case Fetch() | Subscribe():
                self._tell(protocol, asked)
            case Submit():
                if self.holds:
                    self.held.append((protocol, asked))
                else:
                    self._submit(protocol, asked)
            case Presence():
                protocol.accept(asked)
                self._show(asked)
            case PresenceSubscribe():
                protocol.listen(asked)
                for other in self._connections.values():
                    if other is not protocol:
                        other.ask_for_presence(asked.document)

    def _tell(self, protocol: ShareDbProtocol, asked: Fetch | Subscribe) -> None:
        if self.refuses_readers:
            protocol.refuse(asked, Code.SNAPSHOT_READS_REJECTED, "you may not read this")
            return
        text = self.text(asked.document)
        since = None if asked.version is None else text.revisions.since(asked.version)
        if since is None or isinstance(since, Stale):
            protocol.show(asked, text.snapshot())
        else:
            protocol.catch_up(asked, [text.told(asked.document, each) for each in since])

    def _submit(self, protocol: ShareDbProtocol, submit: Submit) -> None:
        if self.refuses_edits is not None:
            protocol.refuse(submit, self.refuses_edits, "not this")
            return
        text, source = self.text(submit.document), submit.source
        spoken, revisions = text.spoken, text.revisions
        assert source is not None
        base = revisions.published if submit.base is None else submit.base
        try:
            if isinstance(submit.change, Create):
                assert text_type(submit.change.type).name == spoken.name
                data = submit.change.data
                operation = operation_of_content(data, spoken, limits=DEFAULT_LIMITS)
            else:
                assert isinstance(submit.change, Edit)
                words = submit.change.operation
                operation = operation_of(words, spoken, limits=DEFAULT_LIMITS)
        except OperationRefused as error:
            protocol.refuse(submit, Code.OT_OP_BADLY_FORMED, str(error))
            return
        decision = revisions.submit(base, source, submit.sequence, operation, spoken)
        if isinstance(submit.change, Create) and text.is_there:
            if not isinstance(decision, Repeated):
                protocol.refuse(submit, Code.DOC_ALREADY_CREATED, "it is there")
                return
        elif not text.is_there and isinstance(submit.change, Edit):
            protocol.refuse(submit, Code.DOC_DOES_NOT_EXIST, "it is not there")
            return
        match decision:
            case Accepted(made):
                if isinstance(submit.change, Create):
                    text.is_there = True
                    created = Create(spoken.uri, content_of(operation, spoken))
                    text.created[revisions.head] = created
                revision = revisions.observed(made, source, submit.sequence)
                self._publish(submit.document, text, revision)
                self._acknowledge(protocol, submit, text, revision.number)
            case Repeated(number):
                self._acknowledge(protocol, submit, text, number)
            case Stale(reason):
                code = Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
                protocol.begin_anew(submit, text.snapshot(), code, reason.value)
            case Malformed(error):
                protocol.refuse(submit, Code.OT_OP_BADLY_FORMED, str(error))
            case OutOfOrder():
                raise AssertionError(decision)

    def _publish(self, document: DocumentId, text: Text, revision: Revision) -> None:
        text.revisions.persisted(revision.number)
        for protocol in self._connections.values():
            protocol.tell(text.told(document, revision))

    def _acknowledge(
        self, protocol: ShareDbProtocol, submit: Submit, text: Text, number: int
    ) -> None:
        base = number - 1 if submit.base is None else submit.base
        since = text.revisions.since(base)
        if isinstance(since, Stale):
            code = Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
            protocol.begin_anew(submit, text.snapshot(), code, since.reason.value)
            return
        before = [text.told(submit.document, each) for each in since if each.number < number]
        protocol.acknowledge(submit, number - 1, before)

    def _show(self, presence: Presence) -> None:
        if presence.value is not None:
            text = self.text(presence.document)
            assert presence.version is not None
            start, length = presence.value["index"], presence.value["length"]
            moved = text.revisions.moved((start, start + length), presence.version, text.spoken)
            if not isinstance(moved, Moved):
                return
            start, end = moved.positions
            value = {"index": start, "length": end - start}
            presence = replace(presence, value=value, version=moved.number)
        for protocol in self._connections.values():
            protocol.show_presence(presence)


@asynccontextmanager
async def thin_server() -> AsyncIterator[ThinServer]:
    """A server on a free port of this machine."""
    assert set(FORMATS.values()) == {TEXT_UNICODE, RICH_TEXT}
    server = ThinServer()
    async with serve(
        server.converse, "127.0.0.1", 0, compression=None, process_request=server.admit
    ) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}"
        yield server
        server.shut()
