"""One connection of a thin client to a ShareDB server, for all of its documents, without a socket.

    wire = ThinWire("7f3a9c", cursor="ada", limits=DEFAULT_LIMITS)
    talk = wire.add(DocumentId("notes/today"), ThinDocument(TEXT_UNICODE, "b81d"))
    wire.connected()
    ...carry `frames_to_send`, and tell it what comes: `receive`

It greets with an id of its own, the same on every connection, and names the source of each
submission, which is its document's.  Of documents that have nothing to say nothing is looked at:
`touch` one after it was edited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_client.thin.conversation import Conversation, Standing
from crdt_state.errors import LimitExceeded, RemoteProtocolError, RequestRefused
from crdt_state.protocol.sharedb.conversation import MAJOR, MINOR
from crdt_state.protocol.sharedb.names import document_of, document_of_channel
from crdt_state.protocol.sharedb.parts import Presence
from crdt_state.protocol.sharedb.replies import (
    Fetched,
    Greeting,
    Init,
    Operation,
    PresenceRequested,
    Refusal,
    Subscribed,
    decode_reply,
)
from crdt_state.protocol.sharedb.requests import Handshake, Submit, encode_request

if TYPE_CHECKING:
    from crdt_client.thin.conversation import Event
    from crdt_client.thin.document import ThinDocument
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.protocol.sharedb.json_fields import JsonObject
    from crdt_state.protocol.sharedb.replies import Reply

__all__ = ["Frame", "Heard", "ThinWire"]


class Frame(NamedTuple):
    """One text message."""

    text: str
    submits: DocumentId | None = None
    """Of which document it submits something: that is to be written down before it is sent."""


class Heard(NamedTuple):
    """What a message was about, and what it did there."""

    document: DocumentId
    events: list[Event]


NOTHING: Final[list[Heard]] = []


class ThinWire:
    """Many documents on one connection at a time.  After every call, send `frames_to_send`."""

    def __init__(self, source: str, *, cursor: str, limits: Limits) -> None:
        """`source` is this client's id, `cursor` what its user's cursors are shown under."""
        self.source = source
        self.conversations: dict[DocumentId, Conversation] = {}
        self.is_greeted = False
        """Whether both sides have greeted on this connection."""
        self._cursor = cursor
        self._limits = limits
        self._touched: dict[DocumentId, None] = {}
        self._out: list[Frame] = []

    # --- documents -------------------------------------------------------------------------------

    def add(self, document: DocumentId, thin: ThinDocument) -> Conversation:
        """Keep a document in step from now on.

        Raises `RequestRefused` for one that has no name there, and `LimitExceeded`.
        """
        collection, _, key = document.partition("/")
        document_of(collection, key)
        if len(self.conversations) >= self._limits.channels_max:
            allowed = self._limits.channels_max
            raise LimitExceeded("channels_max", allowed, allowed + 1)
        talk = Conversation(document, thin, self._cursor, self._limits)
        self.conversations[document] = talk
        if self.is_greeted:
            talk.connected()
            self.touch(document)
        return talk

    def remove(self, document: DocumentId) -> None:
        """Let go of a document."""
        talk = self.conversations.pop(document)
        self._touched.pop(document, None)
        if self.is_greeted:
            self._out += [Frame(encode_request(each)) for each in talk.farewell()]
        talk.disconnected()

    def touch(self, document: DocumentId) -> None:
        """Something was done to it, so it may have something to say."""
        self._touched[document] = None

    def ask_again(self) -> None:
        """Ask once more for the documents that the server did not show."""
        for document, talk in self.conversations.items():
            if talk.standing is Standing.REFUSED:
                talk.ask_again()
                self.touch(document)

    # --- the connection --------------------------------------------------------------------------

    def connected(self) -> None:
        """There is a connection."""
        self.is_greeted = False
        self._out = [Frame(encode_request(Handshake(self.source, MAJOR, MINOR)))]

    def disconnected(self) -> list[Heard]:
        """There is none any more."""
        self.is_greeted = False
        self._out.clear()
        self._touched.clear()
        return [
            Heard(document, talk.disconnected()) for document, talk in self.conversations.items()
        ]

    def frames_to_send(self) -> list[Frame]:
        """What is to be sent now, in this order."""
        out, self._out = self._out, []
        if not self.is_greeted:
            return out
        touched, self._touched = self._touched, {}
        for document in touched:
            for request in self.conversations[document].requests_to_send():
                submits = document if isinstance(request, Submit) else None
                out.append(Frame(encode_request(request), submits))
        return out

    def receive(self, frame: str) -> list[Heard]:
        """What a message does, by document.

        Raises `RemoteProtocolError`: the connection ends, and what was told before it counts.
        """
        reply = decode_reply(frame, self._limits)
        match reply:
            case Greeting():
                return self._hear_greeting(reply)
            case Init():
                self._out.append(Frame(encode_request(Handshake(self.source, MAJOR, MINOR))))
                return NOTHING
            case Refusal() if reply.asked.get("a") == "hs":
                raise RemoteProtocolError(f"not let in: {reply.failure.message}")
        document = _document_of(reply)
        talk = None if document is None else self.conversations.get(document)
        if document is None or talk is None:
            return NOTHING  # said before the server knew that it was let go of
        try:
            events = talk.hear(reply)
        except RemoteProtocolError:
            talk.failed()
            raise
        self.touch(document)
        return [Heard(document, events)]

    def _hear_greeting(self, greeting: Greeting) -> list[Heard]:
        if greeting.major != MAJOR:
            raise RemoteProtocolError(f"version {greeting.major} of ShareDB's protocol")
        if self.is_greeted:
            return NOTHING
        self.is_greeted = True
        for document, talk in self.conversations.items():
            talk.connected()
            self.touch(document)
        return NOTHING


def _document_of(reply: Reply) -> DocumentId | None:
    """What a message is about."""
    match reply:
        case Operation() | Fetched() | Subscribed() | Presence() | PresenceRequested():
            return reply.document
        case Refusal(asked=asked):
            return _document_asked(asked)
        case _:
            return None


def _document_asked(asked: JsonObject) -> DocumentId | None:
    collection, key, channel = asked.get("c"), asked.get("d"), asked.get("ch")
    try:
        if isinstance(collection, str) and isinstance(key, str):
            return document_of(collection, key)
        return document_of_channel(channel) if isinstance(channel, str) else None
    except RequestRefused:
        return None
