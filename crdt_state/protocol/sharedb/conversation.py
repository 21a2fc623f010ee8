"""One connection of a ShareDB client, as tables: no documents, no socket, no clock, no task.

    BEGINNING ── hs ──► READY ── anything, and hs again ──► READY

    document:   (none) ── Subscribe ──► ASKED ── answered ──► FOLLOWED ── Unsubscribe ──► (none)
    submission: (none) ── Submit ──► under way ── acknowledged or refused ──► (none)

`receive` says what is asked of the server; it answers each in its own time with one of the verbs
below.  After every call, send what `frames_to_send` returns.

1. Whatever is asked is answered once, but for submissions that the client has given up with the
   history they were made in; nothing of a document that is not followed is told.
2. Of one document, everything is said in the order of its versions, each change once, without a
   gap (`RevisionsSkipped` where the server would leave one).
3. A submission of this connection is acknowledged behind everything that comes before it, never
   told as somebody else's.
4. What the peer makes us keep is bounded: documents followed, submissions under way, presences.

**What the npm client (sharedb 5.2) needs to be so**, as its source shows and the tests prove:

- It begins with `hs`, again behind an `init`, and goes on when the answer says protocol 1, JSON0 as
  the default type, and an id that is a string.  It brings that id along when it comes back; its
  numbers of submissions (`seq`) go on as well.
- A *version* of a change is that of the document it was made on; the document is then at the next
  one.  Versions are only compared and counted up by one, so they may begin anywhere below 2^53.  A
  document that does not exist has one too.
- An operation with its version as expected is applied; with a lesser one passed over; with a
  greater one, the client fetches from its own version on.  So sending twice is harmless.
- One submission of a document is under way at a time.  The acknowledgement is an `op` with its own
  `src` and `seq`, and its `v` has to be what the client is at: what others did has to come first,
  also where nothing is subscribed.  Else the client warns, fetches, and waits for ever where the
  fetch does not show its own change.  Only of a creation the version is taken as it is.
- When it comes back, it sends again what was under way, on the version that it is at, and behind
  it subscribes from that version on: to several documents by one bulk for each collection.  What
  it submitted may be among the changes that answer the subscription; it takes that for an
  acknowledgement, and passes over a later one.
- A snapshot is taken where the client has no document, and no submission under way.  Where it has
  one, a greater version makes it fetch from its own version, again and again; a lesser one is
  ignored.  **No code of an error makes it load a document anew** that it has:
  a refused submission is taken back by inverting it where its type can (text-unicode can invert
  what only inserts), and only else by loading the document.
- What does: the change `del` on the version that it is at.  Where something is under way or waits,
  all of that is handed back to its editors with ERR_DOC_WAS_DELETED, and the client fetches without
  a version.  Where nothing is, the document is gone, and the next snapshot is taken, if its version
  is greater.  Where it is not, an operation on a document that is gone makes the client fetch
  without a version (its document emits ERR_DOC_DOES_NOT_EXIST once).  `_begin_anew` says all that.
  A deletion under way alone survives it: it has to be refused, and then the client loads anew.
- An `f` that answers nothing is taken for an answer, an `s` without a question throws.
- In answers to bulks each document is taken by itself, so they may come apart, and refusals too.
  A document that was refused stays among those that the client asks for when it comes back: so one
  that cannot be named must not spoil the bulk.
- ERR_NO_OP is heeded for the submission under way alone, and answered by a fetch from the client's
  version; without one under way it throws.  It throws as well (`error` of the connection, and
  nothing is lost) where something else ends that submission before the fetch is answered, as the
  deletion of the document does.  A server that gives even what does nothing a version avoids that.
- Presence is a message of its own `id`s, numbered by `pv`; its answer is the same message.  What
  comes from others is held back until the document is at its `v`.  Whether an operation was its
  shower's own (then it moves differently) is told by `src`, so that has to be the same in both.
- A client shows itself again when it is asked (`pr`), and never by itself: after a reconnection it
  has to be asked, which this does behind the answer to `ps`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

import orjson

from crdt_state.errors import RequestRefused, RevisionsSkipped
from crdt_state.protocol.sharedb.codes import Code
from crdt_state.protocol.sharedb.json_fields import NUMBER_MAX, parse
from crdt_state.protocol.sharedb.names import document_of, name_of
from crdt_state.protocol.sharedb.parts import Create, Delete, Edit, Failure, Presence, Snapshot
from crdt_state.protocol.sharedb.replies import (
    BulkFetched,
    BulkSubscribed,
    BulkUnsubscribed,
    Fetched,
    Greeting,
    Init,
    Operation,
    Pong,
    PresenceRequested,
    PresenceSubscribed,
    PresenceUnsubscribed,
    QueryUnsubscribed,
    Refusal,
    Reply,
    Subscribed,
    Unsubscribed,
    encode_reply,
)
from crdt_state.protocol.sharedb.requests import (
    BulkFetch,
    BulkSubscribe,
    BulkUnsubscribe,
    Fetch,
    Handshake,
    Ping,
    PresenceRequest,
    PresenceSubscribe,
    PresenceUnsubscribe,
    QueryFetch,
    QuerySubscribe,
    QueryUnsubscribe,
    Request,
    SnapshotFetch,
    SnapshotFetchByTimestamp,
    Submit,
    Subscribe,
    Unsubscribe,
    address_of,
    object_of,
    read_request,
)
from crdt_state.protocol.sharedb.text_types import DEFAULT, text_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits

__all__ = ["MAJOR", "MINOR", "Answerable", "Asked", "Phase", "ShareDbProtocol"]

MAJOR: Final = 1
MINOR: Final = 2
"""Below 1.2, a client does not know that nothing was left of an operation."""

NOBODY: Final = "the server"
"""Who makes what nobody made; without a sequence it is no client's submission."""

Asked: TypeAlias = (
    Fetch
    | Subscribe
    | Unsubscribe
    | Submit
    | Presence
    | PresenceSubscribe
    | PresenceUnsubscribe
    | PresenceRequest
)
"""What is asked of the server."""

_Asking = TypeVar("_Asking", Fetch, Subscribe)

Answerable: TypeAlias = Fetch | Subscribe | Submit | Presence | PresenceSubscribe
"""What waits for an answer of the server; all else has been answered."""

# What is not there to be asked for.
REFUSED: Final[dict[type[Request], tuple[Code, str]]] = {
    QueryFetch: (Code.DATABASE_METHOD_NOT_IMPLEMENTED, "there are no queries here"),
    QuerySubscribe: (Code.DATABASE_DOES_NOT_SUPPORT_SUBSCRIBE, "there are no queries here"),
    SnapshotFetch: (
        Code.DATABASE_METHOD_NOT_IMPLEMENTED,
        "no snapshots of old versions are kept here; fetch the document",
    ),
    SnapshotFetchByTimestamp: (
        Code.DATABASE_METHOD_NOT_IMPLEMENTED,
        "no snapshots of old times are kept here; fetch the document",
    ),
}


class Phase(Enum):
    """How far the greeting is."""

    BEGINNING = "nothing was said"
    READY = "a handshake was said"


class _Named(NamedTuple):
    """By what a submission is known for ever."""

    document: DocumentId
    source: str
    sequence: int


@dataclass(slots=True)
class _Followed:
    """A document that was subscribed to."""

    asked: Subscribe
    at: int | None
    """The version that the client is at behind all that was said; None: not known, or none."""
    is_answered: bool = False
    """Only then what is new is told."""


class _Anew(NamedTuple):
    """That a client was at one version of a document, and was brought to one of another history."""

    was_at: int
    brought_to: int

    def is_before(self, version: int) -> bool:
        """Whether what is said of `version` was said before the client knew."""
        return version == self.was_at or version < self.brought_to


class ShareDbProtocol:
    """One connection.  `receive` what came, answer what is asked, tell what is new, in order."""

    def __init__(self, source: str, limits: Limits) -> None:
        """`source` names this connection's changes, unless its client brings an id of its own."""
        self.phase = Phase.BEGINNING
        self.source = source
        """What the client's changes name; final when `phase` is READY.

        It is the client's own word: who stores what was submitted under it, to know it when it
        comes again, has to keep those of different identities apart.
        """
        self._limits = limits
        self._has_come_back = False
        self._followed: dict[DocumentId, _Followed] = {}
        self._submits: dict[_Named, int | None] = {}
        """Those under way, with the base of each that ends with the history it was made in."""
        self._anew: dict[DocumentId, _Anew] = {}
        self._reached: dict[DocumentId, int] = {}
        """Of documents that are not followed, what the client is at behind all that was said."""
        self._listens: dict[DocumentId, PresenceSubscribe] = {}
        self._shown: dict[tuple[DocumentId, str], Presence] = {}
        self._out: list[str] = []

    def greet(self) -> None:
        """Say `init`, as ShareDB's own server does; no client of this version needs it."""
        self._say(Init(self.source, MAJOR, MINOR, DEFAULT))

    def frames_to_send(self) -> list[str]:
        """What is to be sent now, each as one text message."""
        out, self._out = self._out, []
        return out

    # --- hearing ---------------------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> list[Asked]:
        """What a message asks of the server.

        Raises `RemoteProtocolError`: the connection ends.  What is wrong otherwise is answered.
        """
        raw = parse(frame, self._limits)
        try:
            return self._hear(read_request(raw, self._limits))
        except RequestRefused as error:
            self._say(Refusal(address_of(raw), Failure(error.code, error.reason)))
            return []

    def _hear(self, request: Request) -> list[Asked]:
        if self.phase is Phase.BEGINNING and not isinstance(request, Handshake):
            raise RequestRefused(Code.MESSAGE_BADLY_FORMED, "the first message is a handshake")
        refused = REFUSED.get(type(request))
        if refused is not None:
            raise RequestRefused(*refused)
        return self._HEARD[type(request)](self, request)

    def _hear_handshake(self, handshake: Handshake) -> list[Asked]:
        if handshake.major != MAJOR or handshake.minor < MINOR:
            raise RequestRefused(
                Code.PROTOCOL_VERSION_NOT_SUPPORTED,
                f"version {handshake.major}.{handshake.minor} is not spoken; "
                f"{MAJOR}.{MINOR} is, and later ones of {MAJOR}",
            )
        if handshake.source is not None and handshake.source != self.source:
            if self.phase is Phase.READY:
                raise RequestRefused(
                    Code.CLIENT_ID_BADLY_FORMED, f"this connection is {self.source!r} already"
                )
            self.source = handshake.source
        self._has_come_back |= handshake.source is not None and self.phase is Phase.BEGINNING
        self.phase = Phase.READY
        self._say(Greeting(self.source, MAJOR, MINOR, DEFAULT))
        return []

    def _hear_ping(self, _ping: Ping) -> list[Asked]:
        self._say(Pong())
        return []

    def _hear_query_end(self, request: QueryUnsubscribe) -> list[Asked]:
        self._say(QueryUnsubscribed(request.id))
        return []

    def _hear_fetch(self, request: Fetch) -> list[Asked]:
        return [self._since_begun_anew(request)]

    def _hear_bulk(self, request: BulkFetch | BulkSubscribe) -> list[Asked]:
        """Each document by itself: of a thousand, one that cannot be named is refused alone."""
        asked: list[Asked] = []
        refused: list[tuple[str, Failure]] = []
        for key, version in request.versions:
            try:
                document = document_of(request.collection, key)
                if isinstance(request, BulkFetch):
                    asked += self._hear_fetch(Fetch(document, version, is_in_bulk=True))
                else:
                    asked += self._hear_subscribe(Subscribe(document, version, is_in_bulk=True))
            except RequestRefused as error:
                refused.append((key, Failure(error.code, error.reason)))
        answer = BulkFetched if isinstance(request, BulkFetch) else BulkSubscribed
        if refused or not request.versions:
            self._say(answer(request.collection, tuple(refused)))
        return asked

    def _hear_bulk_unsubscribe(self, request: BulkUnsubscribe) -> list[Asked]:
        keys = tuple([key for key, _ in request.versions])
        ended: list[Asked] = []
        for key in keys:
            try:
                ended += self._unsubscribe(document_of(request.collection, key))
            except RequestRefused:
                continue  # nothing was ever subscribed under such a name
        self._say(BulkUnsubscribed(request.collection, keys))
        return ended

    def _hear_subscribe(self, request: Subscribe) -> list[Asked]:
        document = request.document
        if document not in self._followed and len(self._followed) >= self._limits.channels_max:
            raise RequestRefused(
                Code.LIMIT_EXCEEDED,
                f"more than channels_max = {self._limits.channels_max:,} documents are followed",
            )
        request = self._since_begun_anew(request)
        # It named its version before it had read what was said since.
        at = None if request.version is None else self._position(document)
        self._followed[document] = _Followed(request, request.version if at is None else at)
        self._reached.pop(document, None)
        return [request]

    def _since_begun_anew(self, request: _Asking) -> _Asking:
        """A question as the client would ask it behind all that was said to it."""
        if request.version is None:
            self._anew.pop(request.document, None)
            self._reached.pop(request.document, None)
            return request
        anew = self._anew.get(request.document)
        if anew is None or not anew.is_before(request.version):
            return request
        return replace(request, version=anew.brought_to)

    def _hear_unsubscribe(self, request: Unsubscribe) -> list[Asked]:
        self._say(Unsubscribed(request.document))
        return self._unsubscribe(request.document)

    def _unsubscribe(self, document: DocumentId) -> list[Asked]:
        followed = self._followed.pop(document, None)
        if followed is None:
            return []
        if followed.at is not None:
            self._move(document, followed.at)
        return [Unsubscribe(document)]

    def _hear_submit(self, request: Submit) -> list[Asked]:
        if request.sequence >= NUMBER_MAX:
            raise RequestRefused(
                Code.CONNECTION_SEQ_INTEGER_OVERFLOW, "submissions are numbered below 2^53 - 1"
            )
        if request.base is None and isinstance(request.change, Edit):
            raise RequestRefused(
                Code.MESSAGE_BADLY_FORMED, "an operation says on which version it was made ('v')"
            )
        ends_with = None if isinstance(request.change, Delete) else request.base
        if isinstance(request.change, Create):
            change = replace(request.change, type=text_type(request.change.type).uri)
            # It is made on whatever is there, also where that was another version meanwhile.
            request = replace(request, change=change, base=None)
        source = request.source or self.source
        request = replace(request, source=source)
        named = _Named(request.document, source, request.sequence)
        if named in self._submits:
            return []  # said twice, and answered once
        anew = self._anew.get(request.document)
        if anew is not None and ends_with is not None and anew.is_before(ends_with):
            return []  # given up by now
        if len(self._submits) >= self._limits.sharedb_submits_max:
            raise RequestRefused(
                Code.LIMIT_EXCEEDED,
                f"more than sharedb_submits_max = {self._limits.sharedb_submits_max:,} "
                f"submissions under way",
            )
        self._submits[named] = ends_with
        return [request]

    def _hear_presence(self, presence: Presence) -> list[Asked]:
        presence = replace(presence, source=self.source)
        named = (presence.document, presence.id)
        if presence.value is None:
            self._shown.pop(named, None)
            return [presence]
        if presence.type is None or not text_type(presence.type).has_presence:
            raise RequestRefused(
                Code.TYPE_DOES_NOT_SUPPORT_PRESENCE,
                f"the type {presence.type!r} cannot move a position past an operation",
            )
        if presence.version is None:
            raise RequestRefused(
                Code.MESSAGE_BADLY_FORMED, "a position is one as of some version ('v')"
            )
        size = len(orjson.dumps(presence.value))
        if size > self._limits.awareness_bytes_max:
            raise RequestRefused(
                Code.LIMIT_EXCEEDED,
                f"a presence of {size:,} bytes; awareness_bytes_max = "
                f"{self._limits.awareness_bytes_max:,}",
            )
        if named not in self._shown:
            self._check_presences(len(self._shown))
        self._shown[named] = presence
        return [presence]

    def _hear_presence_subscribe(self, request: PresenceSubscribe) -> list[Asked]:
        if request.document not in self._listens:
            self._check_presences(len(self._listens))
        self._listens[request.document] = request
        return [request]

    def _hear_presence_unsubscribe(self, request: PresenceUnsubscribe) -> list[Asked]:
        self._say(PresenceUnsubscribed(request.document, request.sequence))
        return [request] if self._listens.pop(request.document, None) else []

    def _hear_presence_request(self, request: PresenceRequest) -> list[Asked]:
        self._say(PresenceRequested())
        return [request] if request.document in self._listens else []

    def _check_presences(self, count: int) -> None:
        if count >= self._limits.sharedb_presences_max:
            raise RequestRefused(
                Code.LIMIT_EXCEEDED,
                f"more than sharedb_presences_max = {self._limits.sharedb_presences_max:,} "
                f"presences on one connection",
            )

    _HEARD: ClassVar[dict[type[Request], Callable[[ShareDbProtocol, Any], list[Asked]]]] = {
        Handshake: _hear_handshake,
        Fetch: _hear_fetch,
        Subscribe: _hear_subscribe,
        Unsubscribe: _hear_unsubscribe,
        BulkFetch: _hear_bulk,
        BulkSubscribe: _hear_bulk,
        BulkUnsubscribe: _hear_bulk_unsubscribe,
        Submit: _hear_submit,
        Ping: _hear_ping,
        Presence: _hear_presence,
        PresenceSubscribe: _hear_presence_subscribe,
        PresenceUnsubscribe: _hear_presence_unsubscribe,
        PresenceRequest: _hear_presence_request,
        QueryUnsubscribe: _hear_query_end,
    }

    # --- answering -------------------------------------------------------------------------------

    def refuse(self, asked: Answerable, code: Code, reason: str) -> None:
        """Say that it is not done, and why."""
        failure = Failure(code, reason)
        match asked:
            case Submit():
                if not self._is_ended(asked):
                    return
            case Subscribe(document=document):
                followed = self._followed.get(document)
                if followed is not None and followed.asked is asked:
                    del self._followed[document]
            case PresenceSubscribe(document=document):
                if self._listens.get(document) is asked:
                    del self._listens[document]
            case Presence(document=document, id=name):
                if self._shown.get((document, name)) is asked:
                    del self._shown[document, name]
            case _:
                pass
        if isinstance(asked, Fetch | Subscribe) and asked.is_in_bulk:
            collection, key = name_of(asked.document)
            answer = BulkFetched if isinstance(asked, Fetch) else BulkSubscribed
            self._say(answer(collection, ((key, failure),)))
        else:
            self._say(Refusal(address_of(object_of(asked)), failure))

    def show(self, asked: Fetch | Subscribe, snapshot: Snapshot) -> None:
        """Answer by what the document is.

        Where the client names a version it has a document, or had one: then this is for one that
        cannot be brought to the head by changes (below the floor, above the head, of another
        history).  What the client has under way or waiting is handed back to its editors.
        """
        version = asked.version
        if version is not None:
            at = self._position(asked.document)
            version = version if at is None else at
        is_there = version != asked.version and version == snapshot.version
        if version is not None and not is_there:
            self._begin_anew(asked.document, version, snapshot)
        self._answer(asked, snapshot)
        self._follow(asked, snapshot.version)

    def from_here(self, asked: Fetch | Subscribe) -> Fetch | Subscribe:
        """A question as the client would ask it behind all that was said since; answer that."""
        at = self._position(asked.document)
        if at is None or asked.version is None:
            return asked
        now = replace(asked, version=at)
        followed = self._followed.get(asked.document)
        if isinstance(now, Subscribe) and followed is not None and followed.asked is asked:
            followed.asked = now
        return now

    def catch_up(self, asked: Fetch | Subscribe, changes: Sequence[Operation]) -> None:
        """Answer by all that was made on the client's version and later ones, to the head.

        Raises `RevisionsSkipped`, having said nothing.
        """
        at = asked.version
        if at is None:
            raise ValueError(f"{asked.document!r}: a client without a version needs a snapshot")
        following = _following(asked.document, at, changes)
        for change in changes:
            self._tell(change)
        self._answer(asked, None)
        self._follow(asked, following)

    def acknowledge(self, submit: Submit, version: int, before: Sequence[Operation] = ()) -> None:
        """Say that a submission, or the first sending of it, was made on `version`.

        `before` is all that was made on its base and later ones, up to `version`; what a
        subscriber has been told of that may be left out.  Where it has been acknowledged, as
        something that was told, nothing is said.  Raises `RevisionsSkipped`, having said nothing.
        """
        named = _named(submit)
        if named not in self._submits:
            return
        at = submit.base
        told = self._told(submit.document)
        if told is not None:
            before = [change for change in before if change.version >= told]
            at = told if at is None else max(at, told)
        if at is not None and at < version:
            at = _following(submit.document, at, before)
            if at != version:
                raise RevisionsSkipped(submit.document, at, version)
        for change in before:
            self._tell(change)
        self._acknowledge(named, version)
        self._move(submit.document, version + 1 if told is None else max(told, version + 1))

    def dismiss(self, submit: Submit) -> None:
        """Say that nothing was left of a submission: it has made no version.

        The client fetches what is new before it is done with it.
        """
        if self._is_ended(submit):
            failure = Failure(Code.NO_OP, "nothing is left of it: others have done the same")
            self._say(Refusal(address_of(object_of(submit)), failure))

    def begin_anew(self, submit: Submit, snapshot: Snapshot, code: Code, reason: str) -> None:
        """Refuse a submission whose base is not of this history, and make the client load anew."""
        if _named(submit) not in self._submits:
            return
        self.refuse(submit, code, reason)
        if submit.base is not None:
            at = self._position(submit.document)
            self._begin_anew(submit.document, submit.base if at is None else at, snapshot)
            self._say(Fetched(submit.document, snapshot))
            self._move(submit.document, snapshot.version)

    def accept(self, presence: Presence) -> None:
        """Answer presence that is shown to others, or was passed over as outdated."""
        self._say(presence)

    def shows(self, document: DocumentId) -> bool:
        """Whether the client shows somebody at a document, who is gone when it is."""
        return any(shown == document for shown, _ in self._shown)

    def listen(self, asked: PresenceSubscribe) -> None:
        """Answer that others' presence will be shown; show what there is behind it."""
        self._say(PresenceSubscribed(asked.document, asked.sequence))
        if self._has_come_back:
            # What it showed ended with its last connection, and it does not know.
            self._say(PresenceRequested(asked.document))

    # --- telling ---------------------------------------------------------------------------------

    def tell(self, change: Operation) -> None:
        """Tell of a change if its document is followed; changes come in order.

        One that is a submission of this connection is acknowledged by that.  Raises
        `RevisionsSkipped`.
        """
        told = self._told(change.document)
        if told is None or change.version < told:
            return
        if change.version > told:
            raise RevisionsSkipped(change.document, told, change.version)
        self._tell(change)
        self._move(change.document, told + 1)

    def replace(self, document: DocumentId, snapshot: Snapshot) -> None:
        """Tell whoever follows that what the document was is over, and what it is now."""
        told = self._told(document)
        if told is not None:
            self._begin_anew(document, told, snapshot)
            self._say(Fetched(document, snapshot))
            self._move(document, snapshot.version)

    def show_presence(self, presence: Presence) -> None:
        """Show somebody else, if this client listens at that document."""
        if presence.document in self._listens and presence.source != self.source:
            self._say(presence)

    def ask_for_presence(self, document: DocumentId) -> None:
        """Ask the client to show itself again, if it listens at that document."""
        if document in self._listens:
            self._say(PresenceRequested(document))

    def end(self) -> list[Presence]:
        """What others are to be shown when the connection has ended: that its people are gone."""
        # What is not numbered behind what was shown is passed over.
        gone = [replace(each, value=None, number=each.number + 1) for each in self._shown.values()]
        self._shown.clear()
        return gone

    # --- saying ----------------------------------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        self._out.append(encode_reply(reply))

    def _tell(self, change: Operation) -> None:
        named = None
        if change.sequence is not None:
            named = _Named(change.document, change.source, change.sequence)
        if named is not None and named in self._submits:
            self._acknowledge(named, change.version)
        else:
            self._say(change)

    def _is_ended(self, submit: Submit) -> bool:
        """End a submission without having stored it; False where it was not under way."""
        named = _named(submit)
        is_under_way = named in self._submits
        self._submits.pop(named, None)
        return is_under_way

    def _acknowledge(self, named: _Named, version: int) -> None:
        del self._submits[named]
        self._say(Operation(named.document, version, named.source, named.sequence, None))

    def _answer(self, asked: Fetch | Subscribe, snapshot: Snapshot | None) -> None:
        document = asked.document
        if not asked.is_in_bulk:
            answer = Fetched if isinstance(asked, Fetch) else Subscribed
            self._say(answer(document, snapshot))
            return
        collection, key = name_of(document)
        in_bulk = BulkFetched if isinstance(asked, Fetch) else BulkSubscribed
        if snapshot is None:
            self._say(in_bulk(collection, None, (key,)))
        else:
            self._say(in_bulk(collection, ((key, snapshot),)))

    def _follow(self, asked: Fetch | Subscribe, at: int) -> None:
        """Remember what an answer has brought the client to."""
        self._move(asked.document, at)
        followed = self._followed.get(asked.document)
        if followed is not None:
            followed.is_answered |= followed.asked is asked

    def _move(self, document: DocumentId, at: int) -> None:
        followed = self._followed.get(document)
        if followed is not None:
            followed.at = at
            return
        self._reached.pop(document, None)
        if len(self._reached) >= self._limits.channels_max:
            del self._reached[next(iter(self._reached))]
        self._reached[document] = at

    def _position(self, document: DocumentId) -> int | None:
        """What the client is at behind all that was said, as far as that is known."""
        followed = self._followed.get(document)
        return self._reached.get(document) if followed is None else followed.at

    def _told(self, document: DocumentId) -> int | None:
        """What a follower is at, once it is told what is new."""
        followed = self._followed.get(document)
        return None if followed is None or not followed.is_answered else followed.at

    def _begin_anew(self, document: DocumentId, version: int, snapshot: Snapshot) -> None:
        """Make a client that is at `version` take the snapshot that is said next, or ask for one.

        What it has under way it gives up, so nothing is to be said of that any more; if it is
        stored all the same, it is told as a change like others.
        """
        for named, ends_with in list(self._submits.items()):
            if named.document == document and ends_with is not None and ends_with <= version:
                del self._submits[named]
        self._say(Operation(document, version, NOBODY, None, Delete()))
        if snapshot.version <= version:
            # It would not go back.  What cannot be applied to a document that is gone makes it
            # forget what it was at.
            self._say(Operation(document, version + 1, NOBODY, None, Edit([])))
        self._anew.pop(document, None)
        if len(self._anew) >= self._limits.channels_max:
            del self._anew[next(iter(self._anew))]
        self._anew[document] = _Anew(version, snapshot.version)


def _named(submit: Submit) -> _Named:
    # Whoever received it has given it a source.
    return _Named(submit.document, submit.source or "", submit.sequence)


def _following(document: DocumentId, at: int, changes: Sequence[Operation]) -> int:
    """The version behind changes that follow on `at` without a gap; else `RevisionsSkipped`."""
    for change in changes:
        if change.version != at:
            raise RevisionsSkipped(document, at, change.version)
        at += 1
    return at
