"""One ShareDB client that has come: what it asks, done on attached texts.

What it asks of one connection is done in that order.  Whatever is wrong with one document is
answered as a refusal; what is wrong with the peer closes the connection.

1. Who comes again under a name ends the connection that it had before (`bridge`, 4).
2. A submission is acknowledged when its revision is durable, behind all that comes before it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.bridge import Accepted, Malformed, OutOfOrder, Reason, Repeated, Stale
from crdt_state.errors import (
    CrdtStateError,
    LimitExceeded,
    OperationPastEnd,
    OperationRefused,
    OperationTooLarge,
    PairSplit,
    QuotaExceeded,
    RemoteProtocolError,
    RequestRefused,
    RevisionsSkipped,
    WriteNotPermitted,
)
from crdt_state.ot import rich_text, text_unicode
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.conversation import Phase, ShareDbProtocol
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Presence
from crdt_state.protocol.sharedb.requests import (
    Fetch,
    PresenceRequest,
    PresenceSubscribe,
    PresenceUnsubscribe,
    Submit,
    Subscribe,
    Unsubscribe,
)
from crdt_state.protocol.sharedb.text_types import TEXT_UNICODE, text_type
from crdt_state.replica.admission import Author
from crdt_state.replica.attachment import Submission
from crdt_state.transport import codes
from crdt_state.transport.farewell import Departure
from crdt_state.transport.sharedb_room import SharedbRoom, source_of, spoken_in
from crdt_state.transport.websocket import text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.bridge import Decision, Revision
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot import Operation
    from crdt_state.protocol.sharedb.conversation import Asked
    from crdt_state.protocol.sharedb.parts import Snapshot
    from crdt_state.protocol.sharedb.replies import Operation as Change
    from crdt_state.protocol.sharedb.text_types import TextType
    from crdt_state.security.grant import Grant
    from crdt_state.transport.listener import Counted
    from crdt_state.transport.sharedb_desk import SharedbDesk
    from crdt_state.transport.sharedb_room import News

__all__ = ["SHAREDB_PATH", "SharedbVisit"]

SHAREDB_PATH = "/-/sharedb"
"""Where ShareDB's clients speak their protocol; behind a slash may stand a type's name."""


_UNANSWERED = Unsubscribe | PresenceUnsubscribe | PresenceRequest


class _Awaited(NamedTuple):
    """A submission that was applied before, as a revision that is not durable yet."""

    submit: Submit
    number: int


class SharedbVisit:
    """A conversation with a ShareDB client, from its greeting to its end."""

    def __init__(
        self,
        desk: SharedbDesk,
        connection: Counted,
        grant: Grant,
        *,
        name: str,
        speaks: TextType | None,
    ) -> None:
        """`speaks` is the type in which every text is shown here; None: each in its own."""
        self.grant = grant
        self.name = name
        self._desk = desk
        self._shell = desk.shell
        self._connection = connection
        self._source = desk.shell.new_source()
        self._speaks = speaks
        self._drawn = desk.draw_name()
        self.protocol = ShareDbProtocol(self._drawn, desk.shell.limits)
        self._rooms: dict[DocumentId, SharedbRoom] = {}
        self._followed: set[DocumentId] = set()
        self._listens: set[DocumentId] = set()
        self._under_way: dict[DocumentId, dict[tuple[str, int], Submit]] = {}
        self._awaited: dict[DocumentId, list[_Awaited]] = {}
        self._has_less_under_way = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._farewell: asyncio.Future[None] | None = None
        self._known_as: str | None = None

    # --- the conversation -----------------------------------------------------------------------

    async def run(self) -> None:
        """Talk until the end.  Raises `ConnectionEnded`, `RemoteError`, `CrdtStateError`."""
        clock = self._shell.clock
        account = self._desk.arrive(self.name)
        try:
            if self.grant.expires_at is not None:
                seconds = (self.grant.expires_at - clock.wall()) / 1_000_000
                self._expiry = asyncio.get_running_loop().call_later(
                    max(0.0, seconds), self._send_away, codes.EXPIRED, "the token has expired"
                )
            while not self._is_sent_away():
                async with asyncio.timeout(self._patience()):
                    frame = await self._connection.receive()
                if self._is_sent_away():
                    break
                for asked in self.protocol.receive(frame):
                    await self._do(asked)
                self._take_name()
                self._flush()
                await self._desk.take_in(len(frame), account)
        except TimeoutError:
            raise RemoteProtocolError(
                "no handshake was said in time", code=codes.TOO_SLOW
            ) from None
        finally:
            self._end()
            self._desk.depart(self.name)
        if self._farewell is not None:
            # Whoever returns first closes the connection, and this one knows the reason.
            await asyncio.wait([self._farewell])

    def _is_sent_away(self) -> bool:
        return self._farewell is not None

    def _patience(self) -> float | None:
        """How long to wait for the next message: only a greeting has to come soon."""
        if self.protocol.phase is Phase.BEGINNING:
            return self._shell.limits.handshake_seconds_max
        return None

    def _take_name(self) -> None:
        if self._known_as is None and self.protocol.phase is Phase.READY:
            self._known_as = source_of(self.grant.identity, self.protocol.source)
            self._desk.known_as(self._known_as, self)

    def supersede(self) -> None:
        """The same client has come again: nothing more is read of it here."""
        self._send_away(codes.TRY_AGAIN_LATER, "the same client is here by another connection")

    async def say_goodbye(self, code: int, reason: str) -> None:
        """End the connection."""
        await self._connection.close(code, reason)

    def _send_away(self, code: int, reason: str) -> None:
        if self._farewell is None:
            self._end()
            departure = Departure(self.name, SHAREDB_PATH, code, reason)
            self._farewell = asyncio.ensure_future(
                self._desk.farewells.say_to_replica(self._connection, departure)
            )

    def _end(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._has_less_under_way.set()
        for gone in self.protocol.end():
            room = self._rooms.get(gone.document)
            if room is not None:
                room.show(gone, self._source, "")
        for document in tuple(self._rooms):
            self._leave(document)
        if self._known_as is not None:
            self._desk.forget(self._known_as, self)

    def _flush(self, framed: Callable[[str], bytes] = text_frame) -> None:
        texts = self.protocol.frames_to_send()
        if texts and self._farewell is None:
            self._connection.send_texts(texts, framed)
            if self._connection.buffered_bytes > self._shell.limits.peer_queue_bytes_max:
                self._desk.traffic.dropped_as_slow += 1
                self._send_away(codes.TOO_SLOW, "this connection does not read fast enough")

    # --- what is asked --------------------------------------------------------------------------

    async def _do(self, asked: Asked) -> None:
        try:
            match asked:
                case Fetch() | Subscribe():
                    await self._show(asked)
                case Unsubscribe(document=document):
                    self._followed.discard(document)
                    self._tidy(document)
                case Submit():
                    await self._submit(asked)
                case Presence():
                    await self._present(asked)
                case PresenceSubscribe():
                    await self._listen(asked)
                case PresenceUnsubscribe(document=document):
                    self._stop_listening(document)
                case PresenceRequest(document=document):
                    if document in self._rooms:
                        self._rooms[document].ask_all(self._source)
                        self._rooms[document].tell_gone(self)
        except RequestRefused as error:
            assert not isinstance(asked, _UNANSWERED)  # noqa: S101 - those ask for nothing
            self.protocol.refuse(asked, Code(error.code), error.reason)
            self._tidy(asked.document)

    async def _show(self, asked: Fetch | Subscribe) -> None:
        document = asked.document
        self._check_read(document)
        await self._has_created(document)
        room = await self._enter(document)
        if isinstance(asked, Subscribe):
            self._followed.add(document)
        if asked.version is None:
            self.protocol.show(asked, self._snapshot(room))
        else:
            news = room.attachment.revisions.since(asked.version)
            here = self.protocol.from_here(asked) if isinstance(news, Stale) else asked
            if here is not asked and here.version is not None:
                asked, news = here, room.attachment.revisions.since(here.version)
            if isinstance(news, Stale):
                self.protocol.show(asked, self._snapshot(room))
            else:
                self.protocol.catch_up(asked, self._worded(room, news))
        self._tidy(document)

    async def _has_created(self, document: DocumentId) -> None:
        """Wait for a creation: its client stands behind that when it is answered, else nowhere."""
        while self._farewell is None and any(
            isinstance(submit.change, Create)
            for submit in self._under_way.get(document, {}).values()
        ):
            self._has_less_under_way.clear()
            await self._has_less_under_way.wait()

    async def _submit(self, submit: Submit) -> None:
        document = submit.document
        if not self.grant.may_write(document):
            raise RequestRefused(Code.NOT_PERMITTED, f"no right to write to {document!r}")
        room = await self._enter(document)
        kind, operation, creates = self._read(submit, room)
        whose = source_of(self.grant.identity, submit.source or "")
        self._under_way.setdefault(document, {})[_named(submit)] = submit
        submission = Submission(
            base=submit.base or 0,
            source=whose,
            sequence=submit.sequence,
            operation=operation,
            spoken=spoken_in(kind),
            author=Author(self.grant.identity, may_relay=self.grant.may_relay),
            decided=lambda decision: self._decided(submit, decision),
            may_skip=True,
            creates=creates,
        )
        try:
            await self._bring(room, submission)
        except (WriteNotPermitted, QuotaExceeded, LimitExceeded) as error:
            self._is_done(submit)
            code = (
                Code.NOT_PERMITTED if isinstance(error, WriteNotPermitted) else Code.LIMIT_EXCEEDED
            )
            raise RequestRefused(code, str(error)) from None
        except CrdtStateError as error:
            self._is_done(submit)
            raise RequestRefused(Code.UNKNOWN_ERROR, str(error)) from None

    async def _bring(self, room: SharedbRoom, submission: Submission) -> None:
        """Submit, with its creator's documents counted where nobody has done that yet."""
        asked: set[str] = set()
        while True:
            try:
                room.attachment.submit(submission)
            except QuotaExceeded as error:
                if error.creator in asked:
                    self._desk.traffic.beyond_quota += 1
                    raise
                asked.add(error.creator)
                await self._shell.recount(error.creator)
            else:
                return

    def _read(self, submit: Submit, room: SharedbRoom) -> tuple[TextType, Operation, str | None]:
        """What a submission says, in the measure of its type, and what it creates."""
        limits = self._shell.limits
        match submit.change:
            case Create(name, data):
                kind = text_type(name)
                self._desk.check_type(submit.document, kind, self._speaks)
                try:
                    return kind, kind.read_content(data, limits=limits), kind.uri
                except OperationRefused as error:
                    raise _refusal_of(error) from None
            case Edit(wire):
                if not room.attachment.is_there:
                    raise RequestRefused(
                        Code.DOC_DOES_NOT_EXIST, f"{submit.document!r} was never created"
                    )
                kind = self._kind_of(room)
                try:
                    if kind is TEXT_UNICODE:
                        return kind, text_unicode.decode(wire, limits=limits), None
                    delta = {"ops": wire} if isinstance(wire, list) else wire
                    return kind, rich_text.decode_units(delta, limits=limits), None
                except OperationRefused as error:
                    raise _refusal_of(error) from None
            case Delete():
                raise RequestRefused(
                    Code.NOT_PERMITTED,
                    "documents are not deleted over this protocol; `crdt-state delete` does it",
                )

    def _decided(self, submit: Submit, decision: Decision | None) -> None:
        """A submission has been decided; what was accepted is answered by its revision."""
        room = self._rooms.get(submit.document)
        if room is None or self._farewell is not None:
            return
        try:
            self._answer(room, submit, decision)
        except CrdtStateError as error:
            self._send_away(codes.TRY_AGAIN_LATER, str(error))

    def _answer(self, room: SharedbRoom, submit: Submit, decision: Decision | None) -> None:
        document = submit.document
        match decision:
            case None:
                reason = f"{document!r} exists already"
                self.protocol.refuse(submit, Code.DOC_ALREADY_CREATED, reason)
            case Accepted():
                return
            case Repeated(number):
                if number > room.attachment.revisions.published:
                    self._awaited.setdefault(document, []).append(_Awaited(submit, number))
                    return
                self._acknowledge(room, submit, number)
            case OutOfOrder(expected):
                reason = (
                    f"submission {submit.sequence:,} came behind a later one: {expected:,} is next"
                )
                self.protocol.refuse(submit, Code.MESSAGE_BADLY_FORMED, reason)
            case Stale(reason):
                is_above = reason is Reason.ABOVE_HEAD
                code = (
                    Code.OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT
                    if is_above
                    else Code.SUBMIT_TRANSFORM_OPS_NOT_FOUND
                )
                self.protocol.begin_anew(submit, self._snapshot(room), code, reason.value)
            case Malformed(error):
                refusal = _refusal_of(error)
                self.protocol.refuse(submit, Code(refusal.code), refusal.reason)
        self._is_done(submit)
        self._flush()
        self._tidy(document)

    def _acknowledge(self, room: SharedbRoom, submit: Submit, number: int) -> None:
        revisions = room.attachment.revisions
        before = () if submit.base is None else revisions.since(submit.base)
        if isinstance(before, Stale):
            # Of the codes for a base out of reach each says that it was not applied.
            if submit.document in self._followed:
                self.protocol.replace(submit.document, self._snapshot(room))
            else:
                reason = "it was applied; what came before it cannot be told any more"
                self.protocol.refuse(submit, Code.UNKNOWN_ERROR, reason)
            return
        earlier = [each for each in before if each.number < number]
        self.protocol.acknowledge(submit, number - 1, self._worded(room, earlier))

    # --- presence -------------------------------------------------------------------------------

    async def _present(self, presence: Presence) -> None:
        self._check_read(presence.document)
        room = await self._enter(presence.document)
        name = source_of(self.grant.identity, self.protocol.source)
        if not room.show(presence, self._source, name):
            raise RequestRefused(
                Code.PRESENCE_TRANSFORM_FAILED, "that place cannot be found in the document"
            )
        self.protocol.accept(presence)
        self._tidy(presence.document)

    async def _listen(self, asked: PresenceSubscribe) -> None:
        self._check_read(asked.document)
        room = await self._enter(asked.document)
        self._listens.add(asked.document)
        room.listeners[self._source] = self
        self.protocol.listen(asked)
        room.ask_all(self._source)

    def _stop_listening(self, document: DocumentId) -> None:
        self._listens.discard(document)
        if document in self._rooms:
            self._rooms[document].listeners.pop(self._source, None)
            self._tidy(document)

    def shown(self, presence: Presence) -> None:
        """See `Guest`."""
        self.protocol.show_presence(presence)
        self._flush()

    def asked(self, document: DocumentId) -> None:
        """See `Guest`."""
        self.protocol.ask_for_presence(document)
        self._flush()

    # --- what is published ----------------------------------------------------------------------

    def told(self, document: DocumentId, news: News) -> None:
        """See `Guest`."""
        own, identity = self.protocol.source, self.grant.identity
        room = self._rooms[document]
        is_followed = document in self._followed
        try:
            for told in news.of(self._kind_of(room)):
                change = told.to(identity, own)
                submit = None
                if told.identity == identity and change.sequence is not None:
                    named = (change.source, change.sequence)
                    submit = self._under_way.get(document, {}).get(named)
                if is_followed:
                    self.protocol.tell(change)
                elif submit is not None:
                    self._acknowledge(room, submit, change.version + 1)
                if submit is not None:
                    self._is_done(submit)
            self._tell_awaited(room, news.through)
        except RevisionsSkipped as error:
            self._send_away(codes.TRY_AGAIN_LATER, str(error))
            return
        self._flush(news.framed)
        self._tidy(document)

    def _tell_awaited(self, room: SharedbRoom, through: int) -> None:
        awaited = self._awaited.pop(room.document, [])
        later = [each for each in awaited if each.number > through]
        if later:
            self._awaited[room.document] = later
        for each in awaited:
            if each.number <= through:
                self._acknowledge(room, each.submit, each.number)
                self._is_done(each.submit)

    def put_out(self, document: DocumentId, error: Exception) -> None:
        """See `Guest`: it comes back, and sends again what was lost."""
        if self._rooms.pop(document, None) is not None:
            self._desk.left(document)
        self._send_away(codes.TRY_AGAIN_LATER, str(error))

    # --- rooms ----------------------------------------------------------------------------------

    async def _enter(self, document: DocumentId) -> SharedbRoom:
        room = self._rooms.get(document)
        if room is None:
            if len(self._rooms) >= 2 * self._shell.limits.channels_max:
                raise RequestRefused(Code.LIMIT_EXCEEDED, "too many documents at once")
            room = await self._desk.enter(document)
            self._rooms[document] = room
            room.guests[self._source] = self
        return room

    def _is_done(self, submit: Submit) -> None:
        under_way = self._under_way.get(submit.document, {})
        under_way.pop(_named(submit), None)
        self._has_less_under_way.set()
        if not under_way:
            self._under_way.pop(submit.document, None)

    def _tidy(self, document: DocumentId) -> None:
        """Leave a room in which nothing is to be heard or waited for."""
        is_used = document in self._followed or document in self._listens
        is_used = is_used or self.protocol.shows(document)
        if not is_used and document not in self._under_way:
            self._leave(document)

    def _leave(self, document: DocumentId) -> None:
        room = self._rooms.pop(document, None)
        if room is not None:
            room.guests.pop(self._source, None)
            room.listeners.pop(self._source, None)
            self._desk.left(document)

    def _check_read(self, document: DocumentId) -> None:
        if not self.grant.may_read(document):
            raise RequestRefused(Code.SNAPSHOT_READS_REJECTED, f"no right to read {document!r}")

    def _kind_of(self, room: SharedbRoom) -> TextType:
        return self._speaks or room.type

    def _snapshot(self, room: SharedbRoom) -> Snapshot:
        return room.snapshot(self._kind_of(room))

    def _worded(self, room: SharedbRoom, revisions: Sequence[Revision]) -> list[Change]:
        own, identity = self.protocol.source, self.grant.identity
        news = room.changes(revisions, self._kind_of(room))
        return [told.to(identity, own) for told in news]


def _named(submit: Submit) -> tuple[str, int]:
    return submit.source or "", submit.sequence


def _refusal_of(error: OperationRefused) -> RequestRefused:
    if isinstance(error, OperationTooLarge):
        return RequestRefused(Code.LIMIT_EXCEEDED, str(error))
    is_of_text = isinstance(error, OperationPastEnd | PairSplit)
    return RequestRefused(
        Code.OT_OP_NOT_APPLIED if is_of_text else Code.OT_OP_BADLY_FORMED, str(error)
    )
