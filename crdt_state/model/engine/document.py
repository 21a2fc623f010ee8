"""One Yjs document in the engine's memory: its transactions, its roots, and its state in bytes."""

from __future__ import annotations

import hashlib
import json
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pycrdt

from crdt_state.errors import (
    DocumentClosed,
    EngineFailed,
    ObserversFailed,
    RootTypeConflict,
    UpdateMalformed,
    UsageError,
)
from crdt_state.model.callbacks import subscribe
from crdt_state.model.engine.array import NativeArray
from crdt_state.model.engine.content import content_of
from crdt_state.model.engine.delivery import Delivery
from crdt_state.model.engine.guard import guarded
from crdt_state.model.engine.kinds import kinds_in, likeliest
from crdt_state.model.engine.map import NativeMap
from crdt_state.model.engine.text import NativeText
from crdt_state.model.engine.ties import Ties, weakly
from crdt_state.model.engine.undo import NativeUndo
from crdt_state.model.engine.updates import diff, loaded
from crdt_state.model.state import (
    DIGEST_BYTES,
    EMPTY_UPDATE,
    EMPTY_VECTOR,
    decode_delete_set,
    decode_state_vector,
    digest_of,
    encode_state_vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from crdt_state.model.engine.container import NativeContainer, Shared
    from crdt_state.model.engine.kinds import RootKind
    from crdt_state.model.state import DeleteSet

__all__ = ["NativeDocument", "NativeTransaction"]

_NO_STRUCTS = b"\x00"

R = TypeVar("R")
Container = TypeVar("Container", NativeText, NativeMap, NativeArray)


class NativeDocument:
    """One Yjs document in the engine's memory.

    `client_id` is 1 to 2^53 - 1 and must never have been used before in this document.  An
    origin is a small integer, 0 being nobody's; it, or the `cause` given beside it, is what
    callbacks get with every update and change.
    """

    def __init__(self, client_id: int) -> None:
        self.client_id = client_id
        self.why_unusable: EngineFailed | DocumentClosed | None = None
        self.last_update = EMPTY_UPDATE
        """What the last transaction that changed something gave."""
        self.committed = 0
        """How many transactions have changed something."""
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id)
        self._ties = Ties()
        subscription = self._doc.observe(weakly(self._committed, gone=None))
        self._ties.tie(partial(self._doc.unobserve, subscription))
        self._let_go = weakref.finalize(self, self._ties.release)
        self._let_go.atexit = False
        self._depth = 0
        self._cause: Any = 0
        self._delivery = Delivery()
        self._update_callbacks: list[Callable[[bytes, Any], None]] = []
        self._named: dict[str, NativeContainer[Any]] = {}
        self._undos: list[NativeUndo] = []

    @property
    def is_broken(self) -> bool:
        """Whether the engine panicked here: drop this and rebuild from the log."""
        return isinstance(self.why_unusable, EngineFailed)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._depth > 0

    def transaction(self, origin: int = 0, cause: object = None) -> NativeTransaction:
        """A context in which writes belong together; inside another one it is part of that.

        An exception inside does not undo what was written before it.
        """
        return NativeTransaction(self, origin, origin if cause is None else cause)

    def apply(self, update: bytes, origin: int = 0, cause: object = None) -> None:
        """Integrate an update, in a transaction of its own.

        What it depends on must have been applied: the engine remembers updates that wait for
        others, but leaves some of them waiting for ever, and panics over others.

        Raises `UpdateMalformed` (nothing has changed), `EngineFailed`, `ObserversFailed`.
        """
        if self._depth:
            raise UsageError("updates are applied between transactions, not inside one")
        with self.transaction(origin, cause):
            self._apply(update)

    @guarded
    def _apply(self, update: bytes) -> None:
        try:
            self._doc.apply_update(update)
        except ValueError as error:
            raise UpdateMalformed(str(error)) from None

    # --- its state in bytes

    @guarded
    def lacks(self, update: bytes) -> bool:
        """Whether something of `update`, or something that it deletes, is not here yet."""
        state = self._doc.get_state()
        rest = diff(update, state)
        if not rest.startswith(_NO_STRUCTS):
            return True
        held = decode_state_vector(state)
        deletes = decode_delete_set(rest)
        return any(ranges[-1][1] > held.get(client, 0) for client, ranges in deletes.items())

    @guarded
    def encode(self, since: bytes = EMPTY_VECTOR) -> bytes:
        """What is not covered by the state vector `since`, and the whole delete set.

        Updates that wait for dependencies are not in it.  Raises `UpdateMalformed`.
        """
        try:
            return self._doc.get_update(since)
        except ValueError as error:
            raise UpdateMalformed(f"not a state vector: {error}") from None

    @guarded
    def state_vector(self) -> bytes:
        """The state vector; clients in ascending order."""
        return encode_state_vector(decode_state_vector(self._doc.get_state()))

    def delete_set(self) -> DeleteSet:
        """What is deleted, by whatever cause."""
        return decode_delete_set(self.encode(self.state_vector()))

    def digest(self) -> bytes:
        """16 bytes that are equal where the state is equal, deletions included.

        Two documents in which one (client id, counter) stands for different things may be
        given the same digest; see `deep_digest`.
        """
        return digest_of(decode_state_vector(self.state_vector()), self.delete_set())

    def deep_digest(self) -> bytes:
        """`digest`, over the live content as well: sees counters that were used twice."""
        content = json.dumps(
            self._content({}, formatted=True),
            sort_keys=True,
            ensure_ascii=False,
            separators=(",", ":"),
        )
        found = hashlib.sha256(self.digest() + content.encode(errors="surrogatepass"))
        return found.digest()[:DIGEST_BYTES]

    # --- roots and what they hold

    @guarded
    def roots(self) -> dict[str, RootKind | None]:
        """The kind of every root that was named here or came from a peer, sorted by name.

        The name of a type is not written in an update, so a root that came from a peer is
        recognised by what it holds: keys make a map; characters and embedded values a text;
        XML nodes an XML fragment; anything else a list; nothing is None.  A text may hold
        nothing but nested containers too: such a root is called a list, and can be named as a
        text.
        """
        unnamed = self._kinds_of_unnamed()
        kinds = {name: likeliest(possible) for name, possible in unnamed.items()}
        kinds.update((name, container.kind) for name, container in self._named.items())
        return dict(sorted(kinds.items()))

    def text(self, name: str) -> NativeText:
        """The root `name` as a text.  Raises `RootTypeConflict`."""
        return self._root(name, NativeText)

    def map(self, name: str) -> NativeMap:
        """The root `name` as a map.  Raises `RootTypeConflict`."""
        return self._root(name, NativeMap)

    def array(self, name: str) -> NativeArray:
        """The root `name` as a list.  Raises `RootTypeConflict`."""
        return self._root(name, NativeArray)

    def as_json(self, kinds: Mapping[str, RootKind] | None = None) -> dict[str, Any]:
        """Every root that holds something, and every root in `kinds`, as JSON values.

        A text is its string, an XML fragment the list of its nodes (`tag`, `attributes`,
        `children`; a text node is its string, or its runs where it is formatted), bytes are
        `{"base64": …}`, a subdocument is `{"guid": …}`, and what JSON lacks (NaN, Infinity,
        undefined) is None.  `kinds` decides for roots that can be read in two ways.
        """
        return self._content(kinds or {}, formatted=False)

    @guarded
    def _root(self, name: str, container_type: type[Container]) -> Container:
        named = self._named.get(name)
        if named is None:
            is_there = name in set(self._doc.keys())
            possible = self._kinds_of_unnamed()[name] if is_there else ()
            if possible and container_type.kind not in possible:
                raise RootTypeConflict(name, possible[0].value, container_type.kind.value)
            named = self._named[name] = container_type(self, name, len(self._named))
        if not isinstance(named, container_type):
            raise RootTypeConflict(name, named.kind.value, container_type.kind.value)
        return named

    def _kinds_of_unnamed(self) -> dict[str, tuple[RootKind, ...]]:
        # Guessed on a copy: guessing fixes types (`kinds_in`), and observing a root as another
        # type than it has panics.
        names = sorted(set(self._doc.keys()) - self._named.keys())
        if not names:
            return {}
        copy = loaded(self._doc.get_update())
        return {name: kinds_in(copy, name) for name in names}

    @guarded
    def _content(self, kinds: Mapping[str, RootKind], *, formatted: bool) -> dict[str, Any]:
        return content_of(loaded(self._doc.get_update()), kinds, formatted=formatted)

    # --- watching and undoing

    def observe(self, callback: Callable[[bytes, Any], None]) -> Callable[[], None]:
        """Call `callback(update, origin or cause)` after each transaction that changed something.

        Returns the function that ends it.
        """
        return subscribe(self._update_callbacks, callback)

    def later(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run `callback` behind all callbacks of this transaction; called from one of them."""
        self._delivery.later(callback, *arguments)

    def undo(
        self, *, capture_milliseconds: int, origins: Iterable[int], timestamp: Callable[[], int]
    ) -> NativeUndo:
        """An undo manager for transactions of these origins; see `NativeUndo`."""
        if self.why_unusable is not None:
            raise self.why_unusable
        undo = NativeUndo(self, capture_milliseconds, origins, timestamp)
        self._undos.append(undo)
        return undo

    def end_undo(self, undo: NativeUndo) -> None:
        """Let go of an undo manager."""
        if undo in self._undos:
            self._undos.remove(undo)
            undo.release()

    # --- for transactions, containers and undo managers

    @guarded
    def begin(self, origin: int, cause: object) -> None:
        """Enter a transaction."""
        if self._depth == 0:
            self._cause = cause
            transaction = self._doc.transaction(origin)
            transaction.__enter__()
            self._ties.transaction = transaction
        self._depth += 1

    def end(self) -> list[Exception]:
        """Leave a transaction; commit and deliver at the outermost.  What callbacks raised."""
        self._depth -= 1
        if self._depth:
            return []
        transaction, self._ties.transaction = self._ties.transaction, None
        if transaction is not None and self.why_unusable is None:
            self._commit(transaction)
        return self._delivery.deliver()

    @guarded
    def call(self, function: Callable[[], R]) -> R:
        """Run something native under this document's guard."""
        return function()

    def call_with_events(self, cause: object, function: Callable[[], R]) -> R:
        """Run something native that opens its own transaction (undo), then deliver."""
        if self._depth:
            raise UsageError("undo and redo happen between transactions, not inside one")
        self._cause = cause
        try:
            return self.call(function)
        finally:
            failures = self._delivery.deliver()
            if failures:
                raise ObserversFailed("callbacks failed; the change is made", failures)

    def record(self, ordinal: int, callback: Callable[..., None], event: object) -> None:
        """Deliver `callback(event, cause)` when the transaction has ended."""
        self._delivery.tell_event(ordinal, callback, event, self._cause)

    def native_root(self, name: str, shared_type: type[Shared]) -> Shared:
        """The engine's own object for a root."""
        shared: Shared = self._doc.get(name, type=shared_type)
        return shared

    def tie(self, end: Callable[[], object]) -> Callable[[], None]:
        """Have `end`, which must not hold this document, run when memory is given back."""
        return self._ties.tie(end)

    @guarded
    def _commit(self, transaction: pycrdt.Transaction) -> None:
        transaction.__exit__(None, None, None)

    def _committed(self, event: pycrdt.TransactionEvent) -> None:
        self.committed += 1
        if self.why_unusable is not None:
            return
        update = self.last_update = event.update
        for callback in self._update_callbacks:
            self._delivery.tell_update(callback, update, self._cause)

    # --- its end

    def fail(self, error: BaseException) -> EngineFailed:
        """End this document because of a panic; return what to raise."""
        failure = EngineFailed(f"the engine panicked, rebuild the document: {error}")
        self.why_unusable = failure
        self._delivery.clear()
        self._release()
        return failure

    def close(self) -> None:
        """Let go of the native document; every later call raises `DocumentClosed`."""
        if isinstance(self.why_unusable, DocumentClosed):
            return
        was_usable = self.why_unusable is None
        self.why_unusable = DocumentClosed("this document is closed; open it again")
        if was_usable:
            self._release()

    def _release(self) -> None:
        self._update_callbacks.clear()
        self._let_go()
        for undo in self._undos:
            undo.release()
        self._undos.clear()
        for container in self._named.values():
            container.release()
        self._named.clear()
        # Whoever still holds this object holds no native memory.
        self._doc = pycrdt.Doc()


class NativeTransaction:
    """`with document.transaction(origin):`; see `NativeDocument.transaction`."""

    __slots__ = ("_cause", "_document", "_origin")

    def __init__(self, document: NativeDocument, origin: int, cause: object) -> None:
        self._document = document
        self._origin = origin
        self._cause = cause

    def __enter__(self) -> None:
        self._document.begin(self._origin, self._cause)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failures = self._document.end()
        if failures and error is None:
            raise ObserversFailed("callbacks failed; the transaction is committed", failures)
        if failures and error is not None:
            # The error of the block is the one its author waits for.
            error.add_note(f"and callbacks failed after the commit: {failures!r}")
