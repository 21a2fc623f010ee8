"""A server of a few texts, made of the machine under test, and stock ShareDB clients at it.

The server is as simple as can be: all that it knows is in memory, and what is not to be answered
yet is held (`Server.held`).  Frames go through the pipes of one Node process
(tests/js/sharedb.mjs); a call ends when both sides have nothing more to say.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crdt_state.errors import OperationRefused
from crdt_state.identifiers import DocumentId
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.ot import EMPTY, Document, apply, transform
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.conversation import Answerable, Asked, ShareDbProtocol
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import Operation
from crdt_state.protocol.sharedb.requests import (
    Fetch,
    PresenceRequest,
    PresenceSubscribe,
    Submit,
    Subscribe,
)
from crdt_state.protocol.sharedb.text_types import TEXT_UNICODE, TextType, text_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CALL_SECONDS_MAX = 20.0
LINE_BYTES_MAX = 64 * 1024 * 1024
EPOCH = 7 * 2**32
"""Where the versions of this server begin: far from zero, and beyond 32 bits."""


@dataclass
class Text:
    """One document, and all that was made of it; version `floor` is the oldest that is known."""

    floor: int
    type: TextType | None = None
    content: Document = ""
    log: list[Operation] = field(default_factory=list)
    start: Document = ""
    """What it was at the floor."""

    @property
    def version(self) -> int:
        return self.floor + len(self.log)

    def snapshot(self) -> Snapshot:
        if self.type is None:
            return Snapshot(self.version)
        return Snapshot(self.version, self.type.uri, self.type.write_content(self.content))

    def since(self, version: int) -> list[Operation] | None:
        """What was made on `version` and later ones, if that is known."""
        if not self.floor <= version <= self.version:
            return None
        return self.log[version - self.floor :]


class Server:
    """Texts by document id, and the connections at them."""

    def __init__(self, epoch: int = EPOCH) -> None:
        self.epoch = epoch
        self.texts: dict[DocumentId, Text] = {}
        self.connections: dict[str, ShareDbProtocol] = {}
        self.held: set[type[Any]] = set()
        self.waiting: list[tuple[ShareDbProtocol, Asked]] = []
        self.asked: list[Asked] = []
        self.heard: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.shown: dict[tuple[DocumentId, str], Presence] = {}
        self.readers_refused = self.writers_refused = False
        self._names = itertools.count()

    def connect(self, client: str) -> None:
        protocol = ShareDbProtocol(f"source-{next(self._names)}", DEFAULT_LIMITS)
        self.connections[client] = protocol

    def disconnect(self, client: str) -> None:
        for gone in self.connections.pop(client).end():
            self.present(gone)

    def text(self, document: DocumentId) -> Text:
        return self.texts.setdefault(document, Text(self.epoch))

    def receive(self, client: str, frame: str) -> None:
        self.heard.append({"client": client, **json.loads(frame)})
        protocol = self.connections.get(client)
        if protocol is None:
            return  # what was under way when the line was cut
        for asked in protocol.receive(frame):
            self.asked.append(asked)
            if type(asked) in self.held:
                self.waiting.append((protocol, asked))
            else:
                self.answer(protocol, asked)

    def release(self) -> None:
        self.held.clear()
        waiting, self.waiting = self.waiting, []
        for protocol, asked in waiting:
            self.answer(protocol, asked)

    def frames(self) -> list[tuple[str, str]]:
        found = []
        for client, protocol in self.connections.items():
            for frame in protocol.frames_to_send():
                self.said.append({"client": client, **json.loads(frame)})
                found.append((client, frame))
        return found

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, protocol: ShareDbProtocol, asked: Asked) -> None:
        match asked:
            case Fetch() | Subscribe():
                self.show(protocol, asked)
            case Submit():
                self.submit(protocol, asked)
            case Presence():
                protocol.accept(asked)
                self.present(asked)
            case PresenceSubscribe():
                protocol.listen(asked)
                for (document, _), presence in self.shown.items():
                    if document == asked.document:
                        protocol.show_presence(presence)
            case PresenceRequest():
                for each in self.connections.values():
                    if each is not protocol:
                        each.ask_for_presence(asked.document)

    def show(self, protocol: ShareDbProtocol, asked: Fetch | Subscribe) -> None:
        if self.readers_refused:
            protocol.refuse(asked, Code.SNAPSHOT_READS_REJECTED, "you may not read this")
            return
        text = self.text(asked.document)
        since = None if asked.version is None else text.since(asked.version)
        if since is None:
            protocol.show(asked, text.snapshot())
        else:
            protocol.catch_up(asked, since)

    def submit(self, protocol: ShareDbProtocol, submit: Submit) -> None:
        if self.writers_refused:
            protocol.refuse(submit, Code.NOT_PERMITTED, "you may not write this")
            return
        text = self.text(submit.document)
        for done in text.log:
            if (done.source, done.sequence) == (submit.source, submit.sequence):
                before = text.since(submit.base) if submit.base is not None else []
                assert before is not None
                protocol.acknowledge(
                    submit, done.version, [each for each in before if each.version < done.version]
                )
                return
        before = [] if submit.base is None else text.since(submit.base)
        if before is None:
            code = (
                Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
                if submit.base is not None and submit.base < text.floor
                else Code.OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT
            )
            protocol.begin_anew(submit, text.snapshot(), code, "not of this history")
            return
        change = self.changed(protocol, submit, text, before)
        if change is None:
            return
        committed = Operation(
            submit.document, text.version, submit.source or "", submit.sequence, change
        )
        text.log.append(committed)
        for each in self.connections.values():
            each.tell(committed)
        protocol.acknowledge(submit, committed.version, before)

    def changed(
        self, protocol: ShareDbProtocol, submit: Submit, text: Text, before: list[Operation]
    ) -> Edit | Create | Delete | None:
        """Change the text as submitted; None where something else was answered."""
        match submit.change:
            case Create(name, data):
                if text.type is not None:
                    protocol.refuse(submit, Code.DOC_ALREADY_CREATED, "it is there already")
                    return None
                text.type = text_type(name)
                empty: Document = "" if text.type is TEXT_UNICODE else EMPTY
                text.content = apply(empty, text.type.read_content(data))
                return Create(text.type.uri, text.type.write_content(text.content))
            case Delete():
                if text.type is None:
                    protocol.refuse(submit, Code.DOC_DOES_NOT_EXIST, "it is not there")
                    return None
                text.type, text.content = None, ""
                return Delete()
            case Edit(wire):
                if text.type is None:
                    protocol.refuse(submit, Code.DOC_DOES_NOT_EXIST, "it is not there")
                    return None
                try:
                    return self.edited(protocol, submit, text, before, wire)
                except OperationRefused as error:
                    protocol.refuse(submit, Code.OT_OP_BADLY_FORMED, str(error))
        return None

    def edited(
        self,
        protocol: ShareDbProtocol,
        submit: Submit,
        text: Text,
        before: list[Operation],
        wire: Any,
    ) -> Edit | None:
        kind = text.type
        assert kind is not None
        if not all(isinstance(each.change, Edit) for each in before):
            protocol.refuse(submit, Code.DOC_WAS_DELETED, "it was deleted meanwhile")
            return None
        start = text.floor + len(text.log) - len(before)
        document = self.content_at(text, start)
        operation = kind.read(wire, document)
        for each in before:
            assert isinstance(each.change, Edit)
            other = kind.read(each.change.operation, document)
            document = apply(document, other)
            operation = transform(operation, other, kind.incoming, order=kind.order)
        if not operation.components:
            protocol.dismiss(submit)
            return None
        change = Edit(kind.write(operation, text.content))
        text.content = apply(text.content, operation)
        return change

    def content_at(self, text: Text, version: int) -> Document:
        document = text.start
        for each in text.log[: version - text.floor]:
            if isinstance(each.change, Create):
                kind = text_type(each.change.type)
                empty: Document = "" if kind is TEXT_UNICODE else EMPTY
                document = apply(empty, kind.read_content(each.change.data))
            elif isinstance(each.change, Edit):
                assert text.type is not None
                document = apply(document, text.type.read(each.change.operation, document))
        return document

    def present(self, presence: Presence) -> None:
        if presence.value is None:
            self.shown.pop((presence.document, presence.id), None)
        else:
            self.shown[presence.document, presence.id] = presence
        for each in self.connections.values():
            each.show_presence(presence)

    def refuse(self, kind: type[Any], code: Code, reason: str) -> None:
        """Refuse what of a kind is held."""
        refused: list[tuple[ShareDbProtocol, Answerable]] = []
        kept: list[tuple[ShareDbProtocol, Asked]] = []
        for protocol, asked in self.waiting:
            if isinstance(asked, kind):
                refused.append((protocol, asked))  # type: ignore[arg-type]
            else:
                kept.append((protocol, asked))
        self.waiting = kept
        for protocol, answerable in refused:
            protocol.refuse(answerable, code, reason)


class Stock:
    """A Node process with stock clients in it, at one server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.server = Server()
        self._process = process
        self._calls = itertools.count()

    def begin(self) -> None:
        """Another server, and no clients."""
        self.server = Server()
        self._write({"reset": True})

    async def open(self, client: str) -> None:
        """Connect a client, for the first time or again."""
        self.server.connect(client)
        self._write({"client": client, "open": True})
        await self.settle()

    async def cut(self, client: str) -> None:
        """Lose a client's line; what the server has said by now is lost with it."""
        self.server.disconnect(client)
        self._write({"client": client, "close": True})
        await self.settle()

    async def do(self, client: str, verb: str, *operands: Any) -> Any:
        """One verb of one client, until nothing more is said; what it answers."""
        value = await self._call(client, verb, *operands)
        await self.settle()
        return value

    async def events(self, client: str) -> list[list[Any]]:
        found: list[list[Any]] = await self.do(client, "events")
        return found

    async def show(self, client: str, key: str, collection: str = "notes") -> dict[str, Any]:
        found: dict[str, Any] = await self.do(client, "show", collection, key)
        return found

    async def settle(self) -> None:
        """Carry frames in both directions until there are none."""
        for _ in range(100):
            frames = self.server.frames()
            for client, frame in frames:
                self._write({"client": client, "frame": frame})
            before = len(self.server.heard)
            await self._call("nobody", "settle")
            if not frames and len(self.server.heard) == before:
                return
        raise AssertionError("client and server never come to rest")

    async def _call(self, client: str, verb: str, *operands: Any) -> Any:
        assert self._process.stdout is not None
        call = next(self._calls)
        self._write({"call": call, "client": client, "verb": verb, "with": operands})
        async with asyncio.timeout(CALL_SECONDS_MAX):
            while True:
                line = json.loads(await self._process.stdout.readline())
                if "frame" in line:
                    self.server.receive(line["client"], line["frame"])
                    continue
                assert line["call"] == call
                assert "error" not in line, line["error"]
                return line["value"]

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")


@asynccontextmanager
async def stock_sharedb(programs: Path) -> AsyncIterator[Stock]:
    """A Node process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "sharedb.mjs",
        cwd=programs,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield Stock(process)
    finally:
        process.kill()
        await process.wait()
