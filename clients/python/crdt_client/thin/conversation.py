"""One document of a thin client over ShareDB's wire: no socket, no clock, no task.

    APART ── Subscribe ──► ASKED ── answered ──► FOLLOWING
                             │                      │  Delete, or a refusal that asks for it
                             └──────► ANEW ◄────────┘
                                       └── a snapshot ──► FOLLOWING
    any ── refused ──► REFUSED ── ask_again ──► APART

A *version* is that of the document which a change was made on, so the change of version v makes
revision v + 1, and a snapshot of version v is revision v (`PROTOCOL.md`, section 4.4).

1. While ANEW, nothing that is told counts but a snapshot: it begins there, whatever came before.
2. **Whether a snapshot has what was in flight** the wire does not say.  It has not, where there is
   no document, and where the server has refused it: whatever was made of an earlier sending would
   have been told before, as it is submitted by who is told of everything.  Else it is in doubt,
   and handed back (`ThinDocument.snapshot`).
3. What is edited where there is no document creates it.
4. A version from which a server has told what does not fit is not named again: the document is
   loaded anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt_client.thin.messages import HandedBack, News, Resume, Submit
from crdt_client.thin.pointing import Pointing
from crdt_client.thin.wording import (
    content_of,
    document_of_content,
    operation_of,
    operation_of_content,
    words_of,
)
from crdt_state.errors import OperationRefused, RemoteProtocolError, RequestRefused
from crdt_state.ot import EMPTY
from crdt_state.protocol.sharedb import requests
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Failure, Presence
from crdt_state.protocol.sharedb.replies import (
    Fetched,
    Operation,
    PresenceRequested,
    Refusal,
    Reply,
    Subscribed,
)
from crdt_state.protocol.sharedb.text_types import text_type

if TYPE_CHECKING:
    from crdt_client.thin.document import ThinDocument
    from crdt_client.thin.messages import Rejoined
    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.ot import Document
    from crdt_state.ot import Operation as Change
    from crdt_state.protocol.sharedb.parts import Snapshot
    from crdt_state.protocol.sharedb.requests import Request

__all__ = ["Acknowledged", "Changed", "CursorsMoved", "Event", "Standing", "Conversation"]


class Standing(Enum):
    """How far a document is on its connection."""

    APART = "nothing has been asked"
    ASKED = "it has asked for what has come since its revision"
    FOLLOWING = "it is told of everything"
    ANEW = "what it was is over, and what there is now has not come"
    REFUSED = "the server does not show it"


@dataclass(frozen=True, slots=True)
class Changed:
    """What somebody else has done to what is shown, in code points."""

    operation: Change


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What was in flight is durable at the server."""


@dataclass(frozen=True, slots=True)
class CursorsMoved:
    """Others' cursors have come, gone or been moved by their users."""


Event: TypeAlias = Changed | Acknowledged | CursorsMoved | HandedBack

LOADED_ANEW: Final = frozenset(
    {
        Code.NO_OP,
        Code.DOC_DOES_NOT_EXIST,
        Code.DOC_WAS_DELETED,
        Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND,
        Code.OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT,
    }
)
"""Refusals of an operation on that base, and not of what it does: it is made once more."""


class Conversation:
    """What is said of one document, and what that does to it.

    After every call, send what `requests_to_send` returns.
    """

    def __init__(self, document: DocumentId, thin: ThinDocument, name: str, limits: Limits) -> None:
        """`name` is what the user's cursor is shown under."""
        self.thin = thin
        self.standing = Standing.APART
        self.refusal: Failure | None = None
        """Why the server does not show the document; set while REFUSED."""
        self.pointing = Pointing(document, thin, name)
        self._document = document
        self._limits = limits
        self._is_subscribing = False
        self._is_subscribed = False
        self._is_there: bool | None = None
        """Whether the server has such a document, once that is known."""
        self._is_not_applied = False
        """Whether the server has said that it has not applied what is in flight."""
        self._distrusts_revision = False
        self._over_at: int | None = None
        """The revision at which what the document was came to its end, until that is dealt with."""

    def connected(self) -> None:
        """There is a connection, and both sides have greeted."""
        self.standing = Standing.APART
        self.refusal = None
        self._is_subscribing = self._is_subscribed = False
        self._over_at = None
        self.pointing.connected()
        self.thin.connected()

    def disconnected(self) -> list[Event]:
        """There is none any more."""
        self.standing = Standing.APART
        had_cursors = bool(self.thin.cursors)
        self.thin.disconnected()
        return [CursorsMoved()] if had_cursors else []

    def ask_again(self) -> None:
        """Ask once more for a document that the server did not show."""
        if self.standing is Standing.REFUSED:
            self.connected()

    def failed(self) -> None:
        """What the server told of this document was an error, and ends the connection."""
        self._distrusts_revision |= self.standing is Standing.ASKED

    def requests_to_send(self) -> list[Request]:
        """What is to be said now, in this order."""
        if self.standing is Standing.REFUSED and self._is_subscribed:
            self._is_subscribed = False
            return [requests.Unsubscribe(self._document)]
        said = self._fetches()
        match self.thin.to_send():
            case Resume(revision=revision):
                said += self._question(revision)
            case Submit() as submit:
                self._is_not_applied = False
                said.append(self._submission(submit))
            case None:
                pass
        if self.standing is Standing.FOLLOWING:
            said += self.pointing.requests_to_send()
        return said

    def farewell(self) -> list[Request]:
        """What is said when the document is let go of and the connection goes on."""
        if not self._is_subscribing and not self._is_subscribed:
            return []
        return [*self.pointing.farewell(), requests.Unsubscribe(self._document)]

    def hear(self, reply: Reply) -> list[Event]:
        """What a message about this document does.  Raises `RemoteProtocolError`."""
        try:
            events = self._heard(reply)
        except OperationRefused as error:
            raise RemoteProtocolError(f"{self._document!r}: {error}") from None
        if self.pointing.moved_on():
            events.append(CursorsMoved())
        return events

    # --- saying ----------------------------------------------------------------------------------

    def _question(self, revision: int) -> list[Request]:
        if self.standing is Standing.ANEW:
            return []  # `_fetches` has the question
        self.standing = Standing.ASKED
        self._is_subscribing = True
        version = None if self._distrusts_revision else revision or None
        return [requests.Subscribe(self._document, version)]

    def _fetches(self) -> list[Request]:
        """Ask for a snapshot where none comes by itself, or where only that ends what was."""
        over_at = self._over_at
        if over_at is None or self._is_subscribing:
            return []
        self._over_at = None
        # Where its number is no greater, a server takes what is submitted on it for something that
        # was said before the client knew, and never answers; until a snapshot is asked for.
        if self.standing is Standing.FOLLOWING and self.thin.revision > over_at:
            return []
        return [requests.Fetch(self._document)]

    def _submission(self, submit: Submit) -> Request:
        spoken = self.thin.format
        change: Create | Edit
        if self._is_there is False:
            change = Create(spoken.uri, content_of(submit.operation, spoken))
        else:
            change = Edit(words_of(submit.operation, spoken))
        return requests.Submit(self._document, submit.base, submit.source, submit.sequence, change)

    # --- hearing ---------------------------------------------------------------------------------

    def _heard(self, reply: Reply) -> list[Event]:
        events: list[Event] = []
        match reply:
            case Operation():
                events = self._hear_operation(reply)
            case Subscribed(snapshot=snapshot):
                events = self._hear_answer(snapshot)
            case Fetched(snapshot=snapshot):
                if snapshot is not None and self.standing is Standing.ANEW:
                    events = self._take(snapshot)
            case Refusal():
                events = self._hear_refusal(reply)
            case Presence():
                events = [CursorsMoved()] if self.pointing.hear(reply) else []
            case PresenceRequested():
                self.pointing.is_due = True
            case _:
                pass
        return events

    def _hear_operation(self, told: Operation) -> list[Event]:
        if self.standing is Standing.ANEW and isinstance(told.change, Delete):
            self._over_at = told.version
        if self.standing not in {Standing.ASKED, Standing.FOLLOWING}:
            return []
        thin = self.thin
        source, was_in_flight = thin.source, thin.in_flight is not None
        events: list[Event] = []
        match told.change:
            case None:
                if told.source == source and told.sequence is not None:
                    thin.acknowledged(told.sequence, told.version + 1)
            case Delete():
                return self._begin_anew(told.version)
            case change:
                operation = thin.receive(self._news(told, change))
                events += [Changed(operation)] if operation.components else []
        self._is_there = True
        if was_in_flight and thin.in_flight is None and thin.source == source:
            events.append(Acknowledged())
        return events

    def _news(self, told: Operation, change: Create | Edit) -> News:
        spoken, limits = self.thin.format, self._limits
        if isinstance(change, Edit):
            operation = operation_of(change.operation, spoken, limits=limits)
        elif self._is_there:
            raise RemoteProtocolError(f"{self._document!r}: it is created, and there already")
        elif _format_of(change.type) != spoken.name:
            # A snapshot of it is refused in its own words; this is only how it comes to be told.
            raise RemoteProtocolError(f"{self._document!r}: it is created as {change.type!r}")
        else:
            operation = operation_of_content(change.data, spoken, limits=limits)
        number = told.version + 1
        if told.sequence is None:
            return News(number, operation)
        return News(number, operation, told.source, told.sequence)

    def _hear_answer(self, snapshot: Snapshot | None) -> list[Event]:
        """The answer to a subscription."""
        if not self._is_subscribing:
            raise RemoteProtocolError(f"{self._document!r}: an answer to nothing that was asked")
        self._is_subscribing = False
        self._is_subscribed = True
        if self.standing not in {Standing.ASKED, Standing.ANEW}:
            return []
        if snapshot is not None:
            return self._take(snapshot)
        if self.standing is Standing.ANEW:
            self._resume()
        else:
            self.thin.caught_up(())
            self._follow()
        return []

    def _take(self, snapshot: Snapshot) -> list[Event]:
        """Go on from a snapshot."""
        thin = self.thin
        document: Document = "" if thin.format.is_plain else EMPTY
        if snapshot.type is not None:
            found = _format_of(snapshot.type)
            if found != thin.format.name:
                what = f"it is of the type {snapshot.type!r}, and was opened as {thin.format.name}"
                return self._refuse(Failure(Code.DOC_TYPE_NOT_RECOGNIZED, what))
            document = document_of_content(snapshot.data, thin.format, limits=self._limits)
        is_known = self._is_not_applied or snapshot.type is None
        rejoined = thin.snapshot(snapshot.version, document, 0 if is_known else None)
        self._is_there = snapshot.type is not None
        self._is_not_applied = False
        self._follow()
        return _events_of(rejoined)

    def _hear_refusal(self, refusal: Refusal) -> list[Event]:
        asked, failure = refusal.asked, refusal.failure
        match asked.get("a"):
            case "op":
                is_own = asked.get("src") == self.thin.source
                sequence = asked.get("seq")
                if is_own and isinstance(sequence, int) and sequence == self.thin.in_flight:
                    return self._hear_submission_refused(sequence, failure.code)
            case "s" | "f":
                return self._refuse(failure)
            case "p":
                self.pointing.refused()
        return []

    def _hear_submission_refused(self, sequence: int, code: str) -> list[Event]:
        if code == Code.DOC_ALREADY_CREATED:
            # Somebody was faster, and is told of ahead of this, or of what is asked for now.
            self.thin.stale(sequence)
            return []
        if code not in LOADED_ANEW:
            rejoined = self.thin.refused(sequence)
            return [] if rejoined is None else _events_of(rejoined)
        self._is_not_applied = True
        return self._begin_anew(self.thin.revision)

    # --- parts -----------------------------------------------------------------------------------

    def _follow(self) -> None:
        self.standing = Standing.FOLLOWING
        self._distrusts_revision = False
        self.pointing.is_due = True

    def _begin_anew(self, over_at: int) -> list[Event]:
        if self.standing not in {Standing.ASKED, Standing.FOLLOWING}:
            return []
        self.standing = Standing.ANEW
        self._over_at = over_at
        return self._resume()

    def _resume(self) -> list[Event]:
        """Let the document ask from where it can go on."""
        had_cursors = bool(self.thin.cursors)
        self.thin.disconnected()
        self.thin.connected()
        return [CursorsMoved()] if had_cursors else []

    def _refuse(self, failure: Failure) -> list[Event]:
        self.standing = Standing.REFUSED
        self.refusal = failure
        self._is_subscribing = False
        had_cursors = bool(self.thin.cursors)
        self.thin.disconnected()
        return [CursorsMoved()] if had_cursors else []


def _format_of(name: str) -> str | None:
    """What the format of a type is called here; None for one that is not spoken."""
    try:
        return text_type(name).name
    except RequestRefused:
        return None


def _events_of(rejoined: Rejoined) -> list[Event]:
    events: list[Event] = []
    if rejoined.change.components:
        events.append(Changed(rejoined.change))
    back = rejoined.handed_back
    # Where others have done the same, nothing is left that could be made again.
    if back is not None and back.operation.components:
        events.append(back)
    return events
