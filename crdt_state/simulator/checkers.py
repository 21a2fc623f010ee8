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
`verified`      every store's own check finds nothing, and what it did not find did no harm
`silence`       no task of a replica failed without an answer

They look at stores, documents and deliveries only; they know nothing of how a replica works.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import apsw

from crdt_state.errors import StoreError
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.inspect import inspect
from crdt_state.storage.sqlite_reading import read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.document_core import Delta, Refusal
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.simulator.ledger import Entry, Ledger
    from crdt_state.simulator.stores import SimulatedStore
    from crdt_state.storage.contract import StoredDocument

__all__ = ["CHECKERS", "Checkers", "Probe", "Violation", "stored_now"]

CHECKERS = (
    "durable",
    "order",
    "incarnation",
    "bounds",
    "accepted",
    "quiescence",
    "convergence",
    "kept",
    "invented",
    "verified",
    "silence",
)

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

    # --- promises ----------------------------------------------------------------------------

    async def opened(self, host: str, store: SimulatedStore, *, expects_new: bool) -> None:
        """A store has been opened."""
        if store.is_new_incarnation is not expects_new:
            was = "began a new incarnation" if store.is_new_incarnation else "went on as before"
            self._fail("incarnation", f"the store of {host} {was}")
        if expects_new:
            self.passed["incarnation"] += 1
        documents: dict[DocumentId, list[Entry]] = {}
        for entry in self.ledger:
            if host in entry.kept_by:
                documents.setdefault(entry.document, []).append(entry)
        for entries in documents.values():
            self.keeps(host, store, entries)

    def keeps(self, host: str, store: SimulatedStore, entries: Iterable[Entry]) -> None:
        """A store holds all of these."""
        vectors: dict[DocumentId, Mapping[int, int]] = {}
        for entry in entries:
            if entry.document not in vectors:
                vectors[entry.document] = vector_of(stored_now(store, entry.document))
            vector = vectors[entry.document]
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

    # --- at the end --------------------------------------------------------------------------

    def converged(self, document: DocumentId, digests: Mapping[str, bytes]) -> None:
        """A document has one deep digest everywhere."""
        if len(set(digests.values())) > 1:
            shown = ", ".join(f"{where} {digest.hex()[:8]}" for where, digest in digests.items())
            self._fail("convergence", f"{document!r} differs: {shown}")
        self.passed["convergence"] += 1

    def shows(self, document: DocumentId, where: str, contents: Mapping[str, Any]) -> None:
        """What a document shows was written, all that was promised is there, and nothing twice."""
        for container, content in contents.items():
            written = self.ledger.of(document, container)
            promised = [entry for entry in written.values() if entry.kept_by]
            if container == "counter":
                self._counts(document, where, content, written.values(), promised)
                continue
            tags = _tags(content)
            strangers = set(tags) - written.keys()
            twice = [tag for tag, count in Counter(tags).items() if count > 1]
            if strangers or twice:
                what = f"nobody wrote {min(strangers)!r}" if strangers else f"{twice[0]!r} is twice"
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
        written: Iterable[Entry],
        promised: Sequence[Entry],
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
        self._last = 0 if stored is None else int(stored.last)

    def deliver(self, deltas: Sequence[Delta]) -> None:
        """These are durable, it says."""
        stored = stored_now(self._store, self._document)
        if stored is None:
            self._wrong("something was delivered of a document that is not there")
            return
        folded = 0 if stored.checkpoint is None else int(stored.checkpoint.through)
        rows = iter([entry for entry in stored.log if entry.sequence > self._last])
        if folded <= self._last:
            for delta in deltas:
                if not any(entry.update == delta.update for entry in rows):
                    self._wrong("what was delivered is not in the log, or not in that order")
                    return
            self._checkers.passed["order"] += 1
        self._last = int(stored.last)

    def refused(self, refusal: Refusal) -> None:
        """Somebody else's trouble."""

    def lost(self, error: Exception, own_edits: Sequence[bytes]) -> None:
        """Whoever asked for this probe asks again."""

    def _wrong(self, what: str) -> None:
        self._checkers.note(Violation("order", f"{what} ({self._document!r} at {self._host})"))


def stored_now(store: SimulatedStore, document: DocumentId) -> StoredDocument | None:
    """What a store holds of a document, read beside its owner and in spite of an ill disk."""
    refuses, store.disk.refuses = store.disk.refuses, {}
    try:
        return read_document(store.connection, document)
    except (apsw.Error, StoreError) as error:
        raise Violation("durable", f"{document!r} cannot be read: {error}") from error
    finally:
        store.disk.refuses = refuses


def vector_of(stored: StoredDocument | None) -> dict[int, int]:
    """How far each client is in a stored document."""
    vector: dict[int, int] = {}
    for update in [] if stored is None else stored.updates():
        for client, end in _reach(update):
            vector[client] = max(end, vector.get(client, 0))
    return vector


@lru_cache(maxsize=REMEMBERED_UPDATES)
def _reach(update: bytes) -> tuple[tuple[int, int], ...]:
    # Every store holds the same updates, and is looked at again and again.
    return tuple(inspect(update, DEFAULT_LIMITS, merged=True).vector.items())


def _tags(content: Any) -> list[str]:
    if content is None:
        return []
    if isinstance(content, dict):
        return list(content.values())
    if isinstance(content, list):
        return content
    # A text is its characters; a register's one value is a word.
    return list(content) if " " not in content else [content]


def reports_into(checkers: Checkers) -> Any:
    """An exception handler for the loop: what a replica reports of itself is a finding."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        checkers.note(Violation("silence", f"{context.get('message')}: {error!r}"))

    return report
