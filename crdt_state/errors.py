"""Every exception of the engine, split by whose fault it is.

    CrdtStateError
    ├── UsageError                      the caller's: fix the call
    │   ├── IndexOutOfRange             (IndexError) an index outside a text or list
    │   ├── ValueNotStorable            (ValueError) a value that Yjs cannot hold
    │   ├── RootTypeConflict            (TypeError) one root used as two types
    │   ├── InvalidDocumentId           (ValueError) not a document id
    │   ├── DocumentClosed              the document, replica or transaction has ended
    │   ├── AlreadyConnected            a replica has one link to a remote
    │   ├── InvalidPattern              (ValueError) not a pattern of document ids
    │   ├── KeyNotUsable                (ValueError) no key that tokens could be checked with
    │   ├── SettingsRefused             (ValueError) settings that a server cannot start with
    │   ├── LimitExceeded               our own user asks for more than `Limits` allow
    │   ├── NotImportable               (ValueError) not a file that documents can be read from
    │   ├── NotInFormat                 (ValueError) an operation that a format has no words for
    │   ├── RevisionsSkipped            (ValueError) a peer is to be told what it has no base for
    │   └── WriteInvalid                (ValueError) a write that no store can carry out
    │       ├── FoldOutdated            the document has moved on since this fold was made
    │       └── LifeOutdated            the document lives a life already that is as great
    ├── RemoteError                     a peer's: it is told, and we go on
    │   ├── TokenRejected               a token that proves nothing here
    │   ├── RemoteProtocolError         bytes or an order of messages that the protocol forbids
    │   ├── RequestRefused              a request that is answered by a refusal; all else goes on
    │   ├── EpochOutdated               said in an epoch of a chain that has ended
    │   ├── EditRefused                 a remote does not let our own user's edit in; handed back
    │   ├── EditHandedBack              an edit of a thin client could not stay; handed back
    │   ├── OperationRefused            an operation that is not let in
    │   │   ├── OperationMalformed      not an operation in its format
    │   │   ├── OperationNotCanonical   says nothing somewhere, or one thing in two parts
    │   │   ├── OperationTooLarge       beyond a bound of `Limits`
    │   │   ├── OperationPastEnd        goes over more than its document has
    │   │   └── PairSplit               begins or ends within a surrogate pair
    │   └── UpdateRefused               an update that is not let in
    │       ├── UpdateMalformed         not an update, or one that would harm the engine
    │       ├── UpdateTooLarge          beyond a bound of `Limits`
    │       ├── DependsOnRefused        builds on a range that was refused
    │       ├── WaitedInVain            what it builds on did not come in time
    │       ├── NotHead                 a write elsewhere than at the head of a chain
    │       ├── DocumentSetAside        its whole document waits for a person to look at it
    │       ├── QuotaExceeded           the document's creator has no room left
    │       ├── LineageDeleted          the document was deleted; nothing is added to it
    │       └── WriteNotPermitted       the author may not write here
    ├── StoreError                      the disk's: nothing stored is lost, reading goes on
    │   ├── StoreInUse                  another process holds the file
    │   ├── StoreCorrupt                a checksum or a structure does not hold
    │   ├── StoreFull                   no space left
    │   ├── StoreUnavailable            an I/O error
    │   ├── EditNotStored               our own user's edit is not on the disk; it is handed back
    │   └── StoreTooNew                 written by a later version of this software
    ├── LineageEnded                    what an open document showed is over; edits are handed back
    │   └── DocumentDeleted             and nothing has come in its place
    ├── NotYetReplicated                too few others hold an edit so far; the receipt stays good
    ├── EngineFailed                    the native engine panicked: the document must be rebuilt
    ├── ObserversFailed                 (ExceptionGroup) callbacks raised after a transaction
    ├── WorkerFailed                    a worker process did not bring its job to an end
    └── DemonstrationFailed             a process of `crdt-state demo` did not do its part

Codes 4400 to 4499 are close codes of a WebSocket (RFC 6455, section 7.4.2) and are what a
stock Yjs client sees; our own client hands them back as `EditRefused.code`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AlreadyConnected",
    "CrdtStateError",
    "DemonstrationFailed",
    "DependsOnRefused",
    "DocumentClosed",
    "DocumentDeleted",
    "DocumentSetAside",
    "EditHandedBack",
    "EditNotStored",
    "EditRefused",
    "EngineFailed",
    "EpochOutdated",
    "FoldOutdated",
    "IndexOutOfRange",
    "InvalidDocumentId",
    "InvalidPattern",
    "KeyNotUsable",
    "LifeOutdated",
    "LimitExceeded",
    "LineageDeleted",
    "LineageEnded",
    "NotHead",
    "NotImportable",
    "NotInFormat",
    "NotYetReplicated",
    "ObserversFailed",
    "OperationMalformed",
    "OperationNotCanonical",
    "OperationPastEnd",
    "OperationRefused",
    "OperationTooLarge",
    "PairSplit",
    "QuotaExceeded",
    "RemoteError",
    "RemoteProtocolError",
    "RequestRefused",
    "RevisionsSkipped",
    "RootTypeConflict",
    "SettingsRefused",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreTooNew",
    "StoreUnavailable",
    "TokenRejected",
    "UpdateMalformed",
    "UpdateRefused",
    "UpdateTooLarge",
    "UsageError",
    "ValueNotStorable",
    "WaitedInVain",
    "WorkerFailed",
    "WriteInvalid",
    "WriteNotPermitted",
]


class CrdtStateError(Exception):
    """The root of all errors that this package raises on purpose."""


class UsageError(CrdtStateError):
    """The caller asked for something that cannot be; nothing has changed."""


class IndexOutOfRange(UsageError, IndexError):
    """An index outside a text or list, checked before anything happened."""

    def __init__(self, what: str, index: int, length: int) -> None:
        super().__init__(f"{what} {index} is outside 0..{length}")
        self.index = index
        self.length = length


class ValueNotStorable(UsageError, ValueError):
    """A value that Yjs cannot hold, with the path at which it stands."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class RootTypeConflict(UsageError, TypeError):
    """One root of a document used as two types."""

    def __init__(self, name: str, existing: str, asked: str) -> None:
        super().__init__(
            f"root {name!r} of this document is a {existing}, not a {asked}; "
            f"use another name, or read it as a {existing}"
        )
        self.name = name
        self.existing = existing
        self.asked = asked


class InvalidDocumentId(UsageError, ValueError):
    """Not a document id."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{shown!r} is not a document id: {reason}")
        self.reason = reason


class DocumentClosed(UsageError):
    """Used after its end."""


class AlreadyConnected(UsageError):
    """A replica has one link to a remote: use that one, or close it first."""

    def __init__(self, remote: str) -> None:
        super().__init__(
            f"this replica is connected to {remote} already; use the link that `connect` gave, "
            f"or close it first"
        )
        self.remote = remote


class InvalidPattern(UsageError, ValueError):
    """Not a pattern of document ids."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{shown!r} is not a pattern of document ids: {reason}")
        self.reason = reason


class KeyNotUsable(UsageError, ValueError):
    """No key that tokens could be checked with; the text never holds any of the key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SettingsRefused(UsageError, ValueError):
    """Settings that a server cannot start with; `problems` holds one sentence for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LimitExceeded(UsageError):
    """Our own user asks for more than `Limits` allow; nothing has changed."""

    def __init__(self, limit: str, allowed: float, asked: float) -> None:
        super().__init__(f"{asked:,} is more than {limit} = {allowed:,} allows")
        self.limit = limit
        self.allowed = allowed
        self.asked = asked


class NotImportable(UsageError, ValueError):
    """A file or folder that no documents can be read from; nothing was imported."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class RevisionsSkipped(UsageError, ValueError):
    """What a peer is to be told is made on `base`, and `following` is all that it can be at."""

    def __init__(self, document: str, following: int, base: int) -> None:
        super().__init__(
            f"{document!r}: what is on {base:,} cannot be told to whoever is at {following:,}; "
            f"tell what is between them first"
        )
        self.document = document
        self.following = following
        self.base = base


class NotInFormat(UsageError, ValueError):
    """An operation that a format has no words for: `path` is where in it, `what` that is."""

    def __init__(self, format_name: str, path: str, what: str) -> None:
        super().__init__(f"{path}: {format_name} has no {what}")
        self.format_name = format_name
        self.path = path
        self.what = what


class WriteInvalid(UsageError, ValueError):
    """A write that no store can carry out; nothing of its call was written."""


class FoldOutdated(WriteInvalid):
    """The document was folded further, or forgotten, since this fold was made: drop the fold."""


class LifeOutdated(WriteInvalid):
    """The document has had this life, or a greater one, meanwhile: look at it again."""


class RemoteError(CrdtStateError):
    """Something a peer did; the replica itself is well."""


class TokenRejected(RemoteError):
    """A token that proves nothing here; `code` is the close code a stock client sees.

    `reason` never holds any of the token and fits a close frame (RFC 6455: 123 bytes).
    """

    code = 4401

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RemoteProtocolError(RemoteError):
    """Bytes, or an order of messages, that the protocol forbids: the conversation ends."""

    def __init__(self, reason: str, *, code: int = 4400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class RequestRefused(RemoteError):
    """One request of a peer, answered by a refusal; `code` is a word of the protocol it speaks."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class EpochOutdated(RemoteError):
    """A frame or a configuration of an epoch that has ended: whoever sent it has to catch up."""

    code = 4420

    def __init__(self, epoch: int, current: int) -> None:
        super().__init__(f"epoch {epoch} has ended; this is epoch {current}")
        self.epoch = epoch
        self.current = current


class EditRefused(RemoteError):
    """A remote does not let in what was edited here; `updates` hands it back.

    Sibling of `EditNotStored`.  What the remote does not hold was set aside, and the document is
    again as the remote holds it.  `code` is the close code by which `remote` refused.  Where the
    document was open it is closed: open it again, and make the edit again in another form.
    """

    def __init__(
        self, document: str, *, remote: str, code: int, reason: str, updates: tuple[bytes, ...]
    ) -> None:
        super().__init__(
            f"{remote} refused what was edited in {document!r} ({code}: {reason}); it was set "
            f"aside; open the document again and make the edit in a form that is let in"
        )
        self.document = document
        self.remote = remote
        self.code = code
        self.reason = reason
        self.updates = updates

    def with_more(self, updates: Sequence[bytes]) -> EditRefused:
        """The same, handing back `updates` as well."""
        if not updates:
            return self
        return EditRefused(
            self.document,
            remote=self.remote,
            code=self.code,
            reason=self.reason,
            updates=(*self.updates, *updates),
        )


class EditHandedBack(RemoteError):
    """What was edited by a thin client could not stay in the document, which is without it.

    `handed_back` says why, and has the edit with the text that it was made in
    (`crdt_client.thin.HandedBack`): it is the user's to make it again.
    """

    def __init__(self, document: str, why: str, handed_back: object) -> None:
        super().__init__(f"{document!r}: an edit could not stay in the document: {why}")
        self.document = document
        self.handed_back = handed_back


class OperationRefused(RemoteError):
    """An operation that is not let in; `path` says where in it the reason lies."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class OperationMalformed(OperationRefused):
    """Not an operation in its format, or one that its kind of document cannot hold."""


class OperationNotCanonical(OperationRefused):
    """Says nothing in some place, or one thing in two parts; there is one way to say it."""


class OperationTooLarge(OperationRefused):
    """Beyond a bound of `Limits`; `limit` names it."""

    def __init__(self, path: str, limit: str, allowed: int, found: int) -> None:
        super().__init__(path, f"{found:,} is more than {limit} = {allowed:,} allows")
        self.limit = limit
        self.allowed = allowed
        self.found = found


class OperationPastEnd(OperationRefused):
    """Goes over `reach` characters of a document of `length`, in the measure of its format."""

    def __init__(self, path: str, reach: int, length: int) -> None:
        super().__init__(path, f"it goes to {reach:,} in a document of {length:,}")
        self.reach = reach
        self.length = length


class PairSplit(OperationRefused):
    """Begins or ends within a surrogate pair; `unit` is the second half that it stands before."""

    def __init__(self, path: str, unit: int) -> None:
        super().__init__(path, f"unit {unit:,} is the second half of a surrogate pair")
        self.unit = unit


class UpdateRefused(RemoteError):
    """An update that is not let in; `code` is the close code a stock client sees."""

    code = 4422

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpdateMalformed(UpdateRefused):
    """Not a Yjs update, or one of a shape that would harm the engine."""

    code = 4422


class UpdateTooLarge(UpdateRefused):
    """Beyond a bound of `Limits`; `limit` names it."""

    code = 4413

    def __init__(self, limit: str, allowed: float, found: float) -> None:
        super().__init__(f"{found:,} is more than {limit} = {allowed:,} allows")
        self.limit = limit
        self.allowed = allowed
        self.found = found


class WaitedInVain(UpdateRefused):
    """What it builds on did not come in time; to be brought again, with all of that."""

    code = 1013


class DependsOnRefused(UpdateRefused):
    """Builds on a range of a client id that was refused earlier, so it can never apply."""

    code = 4424


class WriteNotPermitted(UpdateRefused):
    """The author may not write to this document."""

    code = 4403


class QuotaExceeded(UpdateRefused):
    """No room for more in the documents of one creator; `limit` names the bound.

    Nothing is held against its author: the same update may be brought again once there is room.
    `is_counted` is False where nobody has asked the store yet how much room there is.
    """

    code = 4430

    def __init__(
        self, creator: str, limit: str, allowed: float, *, is_counted: bool = True
    ) -> None:
        # Whoever reads this may be a stranger to the creator, so it does not say who that is.
        super().__init__(
            f"its creator has reached {limit} = {allowed:,}; free some room, and bring it again"
        )
        self.creator = creator
        self.limit = limit
        self.allowed = allowed
        self.is_counted = is_counted


class NotHead(UpdateRefused):
    """A write elsewhere than at the head of a chain; `head` is the member to write to."""

    code = 4421

    def __init__(self, head: bytes, address: str = "") -> None:
        where = address or f"member {head.hex()}"
        super().__init__(f"writes enter this chain at its head: write to {where}")
        self.head = head
        self.address = address


class DocumentSetAside(UpdateRefused):
    """The whole document was set aside after it harmed a worker; a person has to look at it."""

    code = 4423


class LineageDeleted(UpdateRefused):
    """An update to a document that was deleted; to begin it anew is somebody's own decision."""

    code = 4404


class StoreError(CrdtStateError):
    """The disk's; what was stored before is still there, and reading goes on where it can."""


class StoreInUse(StoreError):
    """Another process holds the file."""


class StoreCorrupt(StoreError):
    """A checksum or a structure in the file does not hold.

    `document` and `sequence` say where, as far as that is known; a checkpoint is at the
    sequence it reaches.
    """

    def __init__(
        self, reason: str, *, document: str | None = None, sequence: int | None = None
    ) -> None:
        super().__init__(reason)
        self.document = document
        self.sequence = sequence


class StoreFull(StoreError):
    """No space left on the device."""


class StoreUnavailable(StoreError):
    """The device answered with an error."""


class EditNotStored(StoreError):
    """Our own user's edit did not reach the disk; `updates` hands it back.

    The document that it was made in is closed, because it shows what is not stored.  Open it
    again, and make the edit again if it is still wanted.
    """

    def __init__(self, reason: str, updates: tuple[bytes, ...]) -> None:
        super().__init__(f"{reason}; open the document again and repeat the edit")
        self.updates = updates


class StoreTooNew(StoreError):
    """The file was written by a later version of this software."""


class LineageEnded(CrdtStateError):
    """A document's lineage has ended: it was seeded anew elsewhere, or deleted (`DocumentDeleted`).

    `updates` are the edits made here in it that nobody else was known to hold.  Where it
    `has_copy`, the content with them was set aside, and `Replica` offers what may become of it:
    `adopt`, `keep_as_copy`, `rebase`, each of which takes this error; where it has none, its own
    user ended it, or the disk could not take one.  `lineage` is the one that ended, 16 bytes.  A
    document that was open is closed.
    """

    code = 4409
    what = "was begun anew elsewhere; what is there now is not what you edited"

    def __init__(
        self,
        document: str,
        lineage: bytes,
        updates: tuple[bytes, ...] = (),
        *,
        has_copy: bool = False,
    ) -> None:
        offer = "; your edits are set aside: adopt, keep_as_copy or rebase them" if has_copy else ""
        super().__init__(f"{document!r} {self.what}{offer}")
        self.document = document
        self.lineage = lineage
        self.updates = updates
        self.has_copy = has_copy

    def with_more(self, updates: Sequence[bytes], *, has_copy: bool = False) -> LineageEnded:
        """The same, handing back `updates` as well."""
        if not updates:
            return self
        has_copy |= self.has_copy
        return type(self)(self.document, self.lineage, (*self.updates, *updates), has_copy=has_copy)


class DocumentDeleted(LineageEnded):
    """The document was deleted; `Replica.recreate` begins it anew."""

    code = 4404
    what = "was deleted; `recreate` begins it anew"


class NotYetReplicated(CrdtStateError):
    """Fewer others hold an edit than were waited for; it is on our own disk, and on its way.

    The receipt stays good: wait again, or look at `Receipt.holders`.
    """

    def __init__(self, document: str, level: str, wanted: int, found: int) -> None:
        super().__init__(
            f"{found} of {wanted} other replicas hold the edit in {document!r} ({level}); "
            f"it is stored here and goes out when they can be reached"
        )
        self.document = document
        self.level = level
        self.wanted = wanted
        self.found = found


class EngineFailed(CrdtStateError):
    """The native engine panicked; drop the document and rebuild it from the log."""


class WorkerFailed(CrdtStateError):
    """A job on a document's bytes did not come to its end: set that document aside, go on.

    `cause` is "time" or "memory" (its worker was ended at that bound), "died" (the process
    ended by itself, as a stack overflow does), "panicked" (the native engine gave up), or "not
    started" (the interpreter did not start: no document's fault, so try again later).
    """

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(f"a worker could not finish ({cause}): {reason}")
        self.cause = cause
        self.reason = reason

    @property
    def is_by_document(self) -> bool:
        """Whether the document's bytes are to blame, and not the machine."""
        return self.cause != "not started"


class DemonstrationFailed(CrdtStateError):
    """A process of `crdt-state demo` did not do its part; says which, and what it said."""


class ObserversFailed(CrdtStateError, ExceptionGroup[Exception]):
    """Callbacks raised after a transaction: it is committed, and all of them were called."""

    def derive(self, excs: Sequence[Exception], /) -> ObserversFailed:  # type: ignore[override]
        """A group of some of these errors (for `except*`)."""
        return ObserversFailed(self.message, excs)
