"""What must hold, whatever the weather.

`durable`       what a store has promised to keep is in it, when it promised and at every opening
`order`         what is delivered is in the log already, in that order
`incarnation`   a store that was put back begins a new incarnation, and no other does
`bounds`        queues and tables stay within `Limits`
`accepted`      nobody refuses what honest people edit
`quiescence`    after the weather has calmed, everybody is in step within bounded time
`convergence`   then every document is the same everywhere: contents and deep digests
`kept`          every promised edit that nobody replaced shows
`invented`      nothing shows that nobody wrote, and nothing shows twice
`apart`         nothing of one lineage of a document shows in another, but what was rebased
`verified`      every store's own check finds nothing, and what it did not find did no harm
`silence`       no task of a replica failed without an answer, and nobody is told of a loss
                while the disk is well

Of lives, `lives` has three more (`lives`, `tombstones`, `told`).  What a store has promised of a
lineage it need not keep when it has a greater life of the document.

They look at stores, documents and deliveries only; they know nothing of how a replica works.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import apsw

from crdt_state.errors import EditNotStored, StoreError
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.lineage import BORN
from crdt_state.model.inspect import inspect
from crdt_state.replica.succession import copies
from crdt_state.storage.contract import NOTHING
from crdt_state.storage.sqlite_reading import (
    life_of,
    read_document,
    read_quarantine,
    read_since,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Sequence as Many

    from crdt_state.identifiers import DocumentId
    from crdt_state.lineage import Life, Lineage
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.replica.succession import Copy
    from crdt_state.simulator.ledger import Entry as Written
    from crdt_state.simulator.ledger import Ledger
    from crdt_state.simulator.stores import SimulatedStore
    from crdt_state.storage.contract import Entry, Sequence, StoredDocument

__all__ = [
    "CHECKERS",
    "VALUES_OF_ONE",
    "Checkers",
    "Probe",
    "Violation",
    "copies_now",
    "life_now",
    "stored_now",
    "tags_in",
    "vector_of",
    "vector_of_all",
]

CHECKERS = (
    "durable",
    "receipts",
    "order",
    "incarnation",
    "bounds",
    "accepted",
    "quiescence",
    "convergence",
    "kept",
    "invented",
    "apart",
    "lives",
    "tombstones",
    "told",
    "verified",
    "silence",
)

MESSAGES_BEYOND_BOUND = 4
"""What may still be written when a line is at its bound: a state, and what goes behind it."""

REMEMBERED_UPDATES = 4_096

VALUES_OF_ONE = {"map", "register"}
"""Of writes at the same time one shows, so an edit that nobody replaced need not."""


class Violation(AssertionError):
    """Something that must hold does not; `checker` has noticed."""

    def __init__(self, checker: str, what: str) -> None:
        super().__init__(f"{checker}: {what}")
        self.checker = checker


class Checkers:
    """All of them; `passed` counts how often each had something to look at and was content."""

    def __init__(self, ledger: Ledger) -> None:
        self.passed: Counter[str] = Counter()
        self.ledger = ledger
        self.found: list[Violation] = []

    def note(self, violation: Violation) -> None:
        """Something was found where nobody can be told by an exception."""
        self.found.append(violation)

    def reported(self, what: str, error: BaseException | None, *, is_disk_ill: bool) -> None:
        """A replica told its event loop of something, because nobody else was left to be told."""
        # Whoever closes a document without waiting is told so when the disk does not take it.
        if not (isinstance(error, EditNotStored) and is_disk_ill):
            self.note(Violation("silence", f"{what}: {error!r}"))

    # --- promises ----------------------------------------------------------------------------

    async def opened(self, host: str, store: SimulatedStore, *, expects_new: bool) -> None:
        """A store has been opened."""
        if store.is_new_incarnation is not expects_new:
            was = "began a new incarnation" if store.is_new_incarnation else "went on as before"
            self._fail("incarnation", f"the store of {host} {was}")
        if expects_new:
            self.passed["incarnation"] += 1
        documents: dict[DocumentId, list[Written]] = {}
        for entry in self.ledger:
            if host in entry.kept_by:
                documents.setdefault(entry.document, []).append(entry)
        for entries in documents.values():
            self.keeps(host, store, entries)

    def keeps(self, host: str, store: SimulatedStore, entries: Iterable[Written]) -> None:
        """A store holds all of these, but for those whose life of the document has ended there."""
        vectors: dict[DocumentId, Mapping[int, int]] = {}
        lives: dict[DocumentId, Life] = {}
        for entry in entries:
            document = entry.document
            if document not in vectors:
                stored = stored_now(store, document)
                vectors[document] = vector_of(stored)
                lives[document] = BORN if stored is None else stored.life
            if lives[document] > entry.life:
                continue
            # Of a lesser life it would hold nothing of these.
            vector = vectors[document] if lives[document] == entry.life else {}
            lost = [client for client, end in entry.reach.items() if vector.get(client, 0) < end]
            if lost:
                self._fail(
                    "durable",
                    f"{host} promised to keep {entry.tag!r} of {entry.container} in "
                    f"{entry.document!r} ({entry.host} made it), and does not hold it",
                )
        if vectors:
            self.passed["durable"] += 1

    # --- bounds ------------------------------------------------------------------------------

    def bounded(self, host: str, shell: ReplicaShell) -> None:
        """Look at everything of a replica that could grow."""
        limits = shell.limits
        message = 4 * 1024  # what one tick may add beyond a bound before anybody waits
        for what, size, most in (
            ("waiting for the writer", shell.core.waiting_bytes, limits.writer_queue_bytes_max),
            ("cached states", shell.encodings.size, limits.encodings_cached_bytes_max),
        ):
            if size > most + 8 * message:
                self._fail("bounds", f"{size:,} bytes {what} at {host}, with a bound of {most:,}")
        self.passed["bounds"] += 1

    def sent_within(self, queue_bytes_max: int, *, buffered: int, message: int) -> None:
        """No line has ever buffered more than its bound and the messages on top of it."""
        most = queue_bytes_max + MESSAGES_BEYOND_BOUND * message
        if buffered > most:
            self._fail("bounds", f"{buffered:,} bytes waited to be sent, with a bound of {most:,}")

    # --- at the end --------------------------------------------------------------------------

    def converged(self, document: DocumentId, digests: Mapping[str, bytes]) -> None:
        """A document has one deep digest everywhere."""
        if len(set(digests.values())) > 1:
            shown = ", ".join(f"{where} {digest.hex()[:8]}" for where, digest in digests.items())
            self._fail("convergence", f"{document!r} differs: {shown}")
        self.passed["convergence"] += 1

    def shows(
        self,
        document: DocumentId,
        where: str,
        contents: Mapping[str, Any],
        lineage: Lineage = BORN.lineage,
    ) -> None:
        """What a document shows was written, all that was promised is there, and nothing twice."""
        for container, content in contents.items():
            written = self.ledger.of(document, container, lineage)
            promised = [entry for entry in written.values() if entry.kept_by]
            if container == "counter":
                self._counts(document, where, content, written.values(), promised)
                continue
            tags = tags_in(content)
            strangers = sorted(set(tags) - written.keys())
            twice = [tag for tag, count in Counter(tags).items() if count > 1]
            for tag in strangers:
                if others := self.ledger.lineages_of(document, container, tag):
                    self._fail(
                        "apart",
                        f"{container} in {document!r} at {where}: {tag!r} was written in lineage "
                        f"{others[0].hex()}, and this is {lineage.hex()}",
                    )
            if lineage != BORN.lineage:
                self.passed["apart"] += 1
            if strangers or twice:
                what = f"nobody wrote {strangers[0]!r}" if strangers else f"{twice[0]!r} is twice"
                self._fail("invented", f"{container} in {document!r} at {where}: {what}")
            self.passed["invented"] += 1
            seen = set(tags)
            if container in VALUES_OF_ONE:
                if promised and not seen:
                    self._fail("kept", f"{container} in {document!r} at {where} is empty")
            else:
                for entry in promised:
                    if not entry.is_replaced and entry.tag not in seen:
                        self._fail(
                            "kept",
                            f"{entry.tag!r} of {entry.host} is missing from {container} in "
                            f"{document!r} at {where}; {sorted(entry.kept_by)} promised to keep it",
                        )
            self.passed["kept"] += 1

    def _counts(
        self,
        document: DocumentId,
        where: str,
        value: int,
        written: Iterable[Written],
        promised: Many[Written],
    ) -> None:
        least = sum(entry.amount for entry in promised)
        most = sum(entry.amount for entry in written)
        if value < least:
            self._fail("kept", f"the counter in {document!r} at {where} is {value}, not {least}")
        if value > most:
            self._fail("invented", f"the counter in {document!r} at {where}: {value} > {most}")
        self.passed["kept"] += 1
        self.passed["invented"] += 1

    def _fail(self, checker: str, what: str) -> None:
        raise Violation(checker, what)


class Probe:
    """A subscriber that looks whether what it is told is in the log already, and in order."""

    def __init__(
        self, checkers: Checkers, host: str, document: DocumentId, store: SimulatedStore
    ) -> None:
        self._checkers = checkers
        self._host = host
        self._document = document
        self._store = store
        stored = stored_now(store, document)
        self._last = NOTHING if stored is None else stored.last

    def deliver(self, deltas: Many[Delta]) -> None:
        """These are durable, it says."""
        entries = _log_behind(self._store, self._document, self._last)
        rows = iter(entries)
        if all(any(entry.update == delta.update for entry in rows) for delta in deltas):
            self._checkers.passed["order"] += 1
        elif not self._was_folded():
            found = Violation(
                "order",
                f"what was delivered of {self._document!r} at {self._host} is not in the log, "
                f"or not in that order",
            )
            self._checkers.note(found)
        if entries:
            self._last = entries[-1].sequence

    def _was_folded(self) -> bool:
        """Whether rows that it has not seen are in a checkpoint by now."""
        stored = stored_now(self._store, self._document)
        point = None if stored is None else stored.checkpoint
        return point is not None and point.through > self._last

    def refused(self, refusal: Refusal) -> None:
        """Somebody else's trouble."""

    def lost(self, error: Exception, own_edits: Many[bytes]) -> None:
        """Whoever asked for this probe asks again."""


def stored_now(store: SimulatedStore, document: DocumentId) -> StoredDocument | None:
    """What a store holds of a document, read beside its owner and in spite of an ill disk."""
    with _beside_its_owner(store, document):
        return read_document(store.connection, document)


def life_now(store: SimulatedStore, document: DocumentId) -> Life:
    """Which life of a document a store has, read as `stored_now` reads."""
    with _beside_its_owner(store, document):
        row = store.connection.execute(
            "SELECT life, life_checksum, deleted_at FROM documents WHERE name = ?", (document,)
        ).fetchone()
        return BORN if row is None else life_of(document, *row)


def copies_now(store: SimulatedStore, document: DocumentId) -> dict[bytes, Copy]:
    """What a store has set aside of ended lineages of a document, the last copy of each."""
    with _beside_its_owner(store, document):
        entries = read_quarantine(store.connection, document, 0, -1)
    return {copy.lineage: copy for copy in copies(entries)}


def _log_behind(store: SimulatedStore, document: DocumentId, after: Sequence) -> tuple[Entry, ...]:
    with _beside_its_owner(store, document):
        return read_since(store.connection, document, after)


@contextmanager
def _beside_its_owner(store: SimulatedStore, document: DocumentId) -> Iterator[None]:
    refuses, store.disk.refuses = store.disk.refuses, {}
    try:
        yield
    except (apsw.Error, StoreError) as error:
        raise Violation("durable", f"{document!r} cannot be read: {error}") from error
    finally:
        store.disk.refuses = refuses


def vector_of(stored: StoredDocument | None) -> dict[int, int]:
    """How far each client is in a stored document."""
    return vector_of_all([] if stored is None else stored.updates())


def vector_of_all(updates: Iterable[bytes]) -> dict[int, int]:
    """How far each client is in all of these together."""
    vector: dict[int, int] = {}
    for update in updates:
        for client, end in _reach(update):
            vector[client] = max(end, vector.get(client, 0))
    return vector


@lru_cache(maxsize=REMEMBERED_UPDATES)
def _reach(update: bytes) -> tuple[tuple[int, int], ...]:
    # Every store holds the same updates, and is looked at again and again.
    return tuple(inspect(update, DEFAULT_LIMITS, merged=True).vector.items())


def tags_in(content: Any) -> list[str]:
    """What one container shows, tag by tag."""
    if content is None:
        return []
    if isinstance(content, dict):
        return list(content.values())
    if isinstance(content, list):
        return content
    # A text is its characters; a register's one value is a word.
    return list(content) if " " not in content else [content]
