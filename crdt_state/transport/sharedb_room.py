"""Everyone who is at one text by operations, through one listener.

What is published is worded once for each type, and told to all; who is slow is sent away, comes
back, and is caught up by its version.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from crdt_state.bridge import Moved
from crdt_state.ot import Delete, Insert, Operation, Retain, rich_text, text_unicode
from crdt_state.ot.formats import FORMATS
from crdt_state.protocol.sharedb.parts import Create, Edit, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import Operation as Change
from crdt_state.protocol.sharedb.text_types import RICH_TEXT, TEXT_UNICODE, TextType, text_type
from crdt_state.transport.websocket import text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.bridge import Revision
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot import Component, Document
    from crdt_state.ot.formats import Format
    from crdt_state.ot.json_values import Json
    from crdt_state.replica.attachment import Attachment

__all__ = ["EMBEDDED", "Guest", "News", "SharedbRoom", "Told", "source_of", "spoken_in"]

EMBEDDED = "\ufffc"
"""What a plain text shows in the place of something embedded (OBJECT REPLACEMENT CHARACTER)."""

NOBODY = "crdt"
"""Who made what came by the CRDT."""

GONE_KEPT_MAX = 64
"""Of how many who have gone it is remembered, to be told again."""

BETWEEN = "\n"
"""Between an identity and the name that its client has drawn; neither has one."""


class Told(NamedTuple):
    """A change as everyone is told it, and the identity of who made it."""

    change: Change
    identity: str | None

    def to(self, identity: str | None, own: str) -> Change:
        """As a client of `identity` that calls itself `own` is told it.

        It knows its own by the name that it has drawn, so nobody else's may look the same.
        """
        change = self.change
        if change.source != own or self.identity == identity:
            return change
        name = f"{own} of another"
        return Change(change.document, change.version, name, change.sequence, change.change)


class News:
    """Revisions as they are told in each type, worded once for all."""

    def __init__(self, room: SharedbRoom, revisions: Sequence[Revision], *, begins: bool) -> None:
        """`begins` where there was no document before the first of them."""
        self.through = revisions[-1].number
        """The last of them."""
        self._room = room
        self._revisions = revisions
        self._begins = begins
        self._worded: dict[str, list[Told]] = {}
        self._frames: dict[str, bytes] = {}

    def framed(self, text: str) -> bytes:
        """The frame of a message, made once for all who are sent it."""
        frame = self._frames.get(text)
        if frame is None:
            frame = self._frames[text] = text_frame(text)
        return frame

    def of(self, kind: TextType) -> list[Told]:
        """As somebody is told them who speaks that type."""
        worded = self._worded.get(kind.name)
        if worded is None:
            worded = self._room.changes(self._revisions, kind)
            if self._begins:
                worded[0] = _as_creation(worded[0], self._revisions[0], kind)
            self._worded[kind.name] = worded
        return worded


class Guest(Protocol):
    """A connection in a room.  These are calls that must not wait."""

    def told(self, document: DocumentId, news: News) -> None:
        """These have been published."""

    def shown(self, presence: Presence) -> None:
        """Somebody else shows where they are."""

    def asked(self, document: DocumentId) -> None:
        """Somebody wants to be shown who is there."""

    def put_out(self, document: DocumentId, error: Exception) -> None:
        """The room has ended."""


class SharedbRoom:
    """The guests of one document; a follower of its attachment."""

    def __init__(
        self,
        attachment: Attachment,
        default: TextType,
        *,
        source: int,
        ended: Callable[[SharedbRoom], None],
    ) -> None:
        """`default` is the type of a text that was not created here; `ended` is told of that."""
        self.attachment = attachment
        self.source = source
        self._ended = ended
        self.document = attachment.document
        self.guests: dict[int, Guest] = {}
        self.listeners: dict[int, Guest] = {}
        """Those who want to be shown presence."""
        self._gone: dict[str, Presence] = {}
        """Who showed themselves last and does not any more, by id."""
        self._default = default
        self._was_there = attachment.is_there

    @property
    def type(self) -> TextType:
        """The type of the document."""
        return self._default if self.attachment.type is None else text_type(self.attachment.type)

    def snapshot(self, kind: TextType) -> Snapshot:
        """What is durable, as somebody is shown it who speaks that type."""
        revisions = self.attachment.revisions
        if not self._was_there:
            return Snapshot(revisions.published)
        content = content_of(revisions.published_document, kind)
        return Snapshot(revisions.published, kind.uri, content)

    def changes(self, revisions: Sequence[Revision], kind: TextType) -> list[Told]:
        """Revisions as they are told."""
        return [self._told(revision, kind) for revision in revisions]

    # --- as a follower --------------------------------------------------------------------------

    def published(self, revisions: Sequence[Revision]) -> None:
        """Tell everyone."""
        news = News(self, revisions, begins=not self._was_there)
        self._was_there = True
        for number, guest in tuple(self.guests.items()):
            try:
                guest.told(self.document, news)
            except Exception as error:
                # It has missed something, so it has to come again; the others have not.
                self.guests.pop(number, None)
                guest.put_out(self.document, error)

    def detached(self, error: Exception) -> None:
        """Put everyone out."""
        self._ended(self)
        guests = {**self.guests, **self.listeners}
        self.guests.clear()
        self.listeners.clear()
        for guest in guests.values():
            guest.put_out(self.document, error)

    # --- presence -------------------------------------------------------------------------------

    def show(self, presence: Presence, source: int, name: str) -> bool:
        """Show everyone else where somebody is; False where that place cannot be found any more."""
        moved = self._moved(presence, name)
        if moved is None:
            return False
        self._gone.pop(moved.id, None)
        if moved.value is None:
            if len(self._gone) >= GONE_KEPT_MAX:
                del self._gone[next(iter(self._gone))]
            self._gone[moved.id] = moved
        for number, guest in tuple(self.listeners.items()):
            if number != source:
                guest.shown(moved)
        return True

    def ask_all(self, source: int) -> None:
        """Ask everyone else to show themselves again."""
        for number, guest in tuple(self.listeners.items()):
            if number != source:
                guest.asked(self.document)

    def tell_gone(self, guest: Guest) -> None:
        """Tell a guest again who has gone.

        A stock client that is told so beside an edit misses it, asks everybody to show themselves
        again, and would wait for ever for those who are not there to do it.
        """
        published = self.attachment.revisions.published
        for presence in self._gone.values():
            guest.shown(replace(presence, version=published))

    def _moved(self, presence: Presence, name: str) -> Presence | None:
        value, version = presence.value, presence.version
        if version is None or not isinstance(value, dict) or type(value.get("index")) is not int:
            # Whoever is shown a version behind its own waits for changes that have passed.
            return replace(presence, version=self.attachment.revisions.published)
        index, length = value["index"], value.get("length", 0)
        if type(length) is not int or length < 0:
            return None
        moved = self.attachment.revisions.moved(
            (index, index + length), version, spoken_in(RICH_TEXT), name
        )
        if not isinstance(moved, Moved):
            return None
        start, end = moved.positions
        there: dict[str, Json] = {**value, "index": start, "length": end - start}
        return replace(presence, value=there, version=moved.number)

    def _told(self, revision: Revision, kind: TextType) -> Told:
        whose, source, sequence = "", NOBODY, None
        if revision.source is not None:
            whose, _, source = revision.source.rpartition(BETWEEN)
            sequence = revision.sequence
        if kind is TEXT_UNICODE:
            wire: Json = text_unicode.encode(plain(revision.operation))
        else:
            wire = rich_text.encode_units(revision.in_units)
        change = Change(self.document, revision.number - 1, source, sequence, Edit(wire))
        return Told(change, whose or None)


def _as_creation(told: Told, revision: Revision, kind: TextType) -> Told:
    said = told.change
    begun = content_of(revision.operation, kind)
    create = Create(kind.uri, begun or None)
    change = Change(said.document, said.version, said.source, said.sequence, create)
    return Told(change, told.identity)


def spoken_in(kind: TextType) -> Format:
    """The format of a type."""
    return FORMATS[kind.name]


def plain(operation: Operation) -> Operation:
    """An operation as a plain text shows it: without formatting, a character for each embed."""
    if operation.is_plain:
        return operation
    return Operation.of(*map(_plain_component, operation.components))


def content_of(document: Document, kind: TextType) -> Json:
    """A document as a snapshot shows it."""
    assert isinstance(document, Operation)  # noqa: S101 - an attachment keeps nothing else
    if kind is RICH_TEXT:
        return kind.write_content(document)
    return kind.write_content(plain(document))


def _plain_component(component: Component) -> Component:
    if type(component) is Delete:
        return component
    if type(component) is Retain:
        return Retain(component.count)
    content = component.content
    return Insert(content if isinstance(content, str) else EMBEDDED)


def source_of(identity: str | None, name: str) -> str:
    """By what the revisions of a client are known: its own name, and whose it is."""
    return name if identity is None else f"{identity}{BETWEEN}{name}"
