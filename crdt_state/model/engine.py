"""The native engine behind one door: the only file that imports pycrdt.

What is above this file knows Yjs updates as bytes and never meets a native object.  This file
knows nothing of code points, types or users: text is counted in bytes of UTF-8 as the engine
counts it, and every check of an index or a value has been made before a call arrives here.

1. A panic of the engine becomes `EngineFailed` and ends that `NativeDocument`: whatever it held
   may be half done.  Bytes that do not decode become `UpdateMalformed` and change nothing.
2. Callbacks run after the outermost transaction has been committed, never inside the engine: the
   document's first, then the containers' in the order of their naming.  So they may read and
   write, and what they raise harms neither the transaction nor one another.  What they pass to
   `later` runs behind all of them; that is where an application's own callbacks belong.
3. A transaction that changed something gives exactly one update.
4. `close` takes every observer away: a native document that is observed is never collected.
"""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64encode
from collections import deque
from enum import Enum
from functools import wraps
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeAlias, TypeVar

import pycrdt

from crdt_state.errors import (
    DocumentClosed,
    EngineFailed,
    ObserversFailed,
    RootTypeConflict,
    UpdateMalformed,
    UsageError,
)
from crdt_state.lib0 import Reader, encode_varuint
from crdt_state.model.state import (
    DIGEST_BYTES,
    EMPTY_UPDATE,
    EMPTY_VECTOR,
    DeleteSet,
    decode_delete_set,
    decode_state_vector,
    digest_of,
    encode_state_vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "EMPTY_UPDATE",
    "EMPTY_VECTOR",
    "DeleteSet",
    "Place",
    "RootKind",
    "merge",
    "fold",
    "diff",
    "state_vector_of",
    "encode_state_vector",
    "decode_state_vector",
    "decode_delete_set",
    "digest_of",
    "NativeDocument",
    "NativeText",
    "NativeMap",
    "NativeArray",
    "NativeUndo",
]

_NO_STRUCTS: Final = b"\x00"
MERGE_WIDTH: Final = 64  # The engine's merge is quadratic in how many it is given.
SAFE_INTEGER: Final = 2**53

Place: TypeAlias = tuple[int, int]
"""A client id and one of its counters: one UTF-16 unit, for ever."""

P = ParamSpec("P")
R = TypeVar("R")
Shared = TypeVar("Shared", pycrdt.Text, pycrdt.Map[Any], pycrdt.Array[Any])


class RootKind(Enum):
    """What a root is, as far as one can see from what it holds."""

    TEXT = "text"
    MAP = "map"
    LIST = "list"
    XML = "xml"


# --- bytes in, bytes out ----------------------------------------------------------------------


def merge(updates: Sequence[bytes]) -> bytes:
    """One update that says what all of `updates` say, without loading a document.

    Nothing is dropped, not even what waits for dependencies.  Above some thousands of updates
    `fold` is both faster and smaller.  Raises `UpdateMalformed`, `EngineFailed`.
    """
    level = list(updates)
    if not level:
        return EMPTY_UPDATE
    while len(level) > 1:
        level = [
            _from_bytes(pycrdt.merge_updates, *level[start : start + MERGE_WIDTH])
            for start in range(0, len(level), MERGE_WIDTH)
        ]
    return level[0]


def fold(updates: Iterable[bytes]) -> bytes:
    """One update for all of `updates`, through a document; none before what it depends on.

    Updates that wait for dependencies are left out: keep them elsewhere.  Raises
    `UpdateMalformed`, `EngineFailed`.
    """
    document = NativeDocument(client_id=1)
    try:
        for update in updates:
            document.apply(update)
        return document.encode()
    finally:
        document.close()


def diff(update: bytes, state_vector: bytes) -> bytes:
    """What of `update` is not covered by `state_vector`; its deletes all stay.

    Raises `UpdateMalformed`, `EngineFailed`.
    """
    return _from_bytes(pycrdt.get_update, update, state_vector)


def state_vector_of(update: bytes) -> bytes:
    """The state vector of a document that holds `update` and nothing else.

    Raises `UpdateMalformed`, `EngineFailed`.
    """
    return _from_bytes(pycrdt.get_state, update)


def _from_bytes(function: Callable[..., bytes], *arguments: bytes) -> bytes:
    """Call a function of the engine that has no state."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UpdateMalformed(str(error)) from None
    except BaseException as error:
        if _is_panic(error):
            raise EngineFailed(f"the engine panicked: {error}") from None
        raise


def _try_native(function: Callable[[], object]) -> None:
    """Let go of something of a document that may be broken: a second panic adds nothing."""
    try:
        function()
    except BaseException as error:
        if not _is_panic(error):
            raise


def _is_panic(error: BaseException) -> bool:
    # The class is made inside the extension and cannot be imported.
    return type(error).__name__ == "PanicException"


# --- a document -------------------------------------------------------------------------------


def _guarded(
    method: Callable[Concatenate[NativeDocument, P], R],
) -> Callable[Concatenate[NativeDocument, P], R]:
    """Refuse the call on a broken or closed document; end the document when the engine panics."""

    @wraps(method)
    def guarded(self: NativeDocument, /, *arguments: P.args, **named: P.kwargs) -> R:
        if self.why_unusable is not None:
            raise self.why_unusable
        try:
            return method(self, *arguments, **named)
        except BaseException as error:
            if _is_panic(error):
                raise self.fail(error) from None
            raise

    return guarded


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
        self._subscription = self._doc.observe(self._committed)
        self._scope: pycrdt.Transaction | None = None
        self._depth = 0
        self._cause: Any = 0
        self._update_callbacks: list[Callable[[bytes, Any], None]] = []
        self._updates: list[tuple[Callable[..., None], object, Any]] = []
        self._events: list[tuple[int, Callable[..., None], object, Any]] = []
        self._later: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._failures: list[Exception] = []
        self._is_delivering = False
        self._named: dict[str, _NativeContainer[Any]] = {}
        self._kinds: dict[str, RootKind | None] = {}
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

    @_guarded
    def lacks(self, update: bytes) -> bool:
        """Whether something of `update`, or something that it deletes, is not here yet."""
        state = self._doc.get_state()
        rest = diff(update, state)
        if not rest.startswith(_NO_STRUCTS):
            return True
        held = decode_state_vector(state)
        deletes = decode_delete_set(rest)
        return any(ranges[-1][1] > held.get(client, 0) for client, ranges in deletes.items())

    @_guarded
    def _apply(self, update: bytes) -> None:
        try:
            self._doc.apply_update(update)
        except ValueError as error:
            raise UpdateMalformed(str(error)) from None

    @_guarded
    def encode(self, since: bytes = EMPTY_VECTOR) -> bytes:
        """What is not covered by the state vector `since`, and the whole delete set.

        Updates that wait for dependencies are not in it.  Raises `UpdateMalformed`.
        """
        try:
            return self._doc.get_update(since)
        except ValueError as error:
            raise UpdateMalformed(f"not a state vector: {error}") from None

    @_guarded
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
            self._content(formatted=True), sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        found = hashlib.sha256(self.digest() + content.encode(errors="surrogatepass"))
        return found.digest()[:DIGEST_BYTES]

    # --- watching

    def observe(self, callback: Callable[[bytes, Any], None]) -> Callable[[], None]:
        """Call `callback(update, origin or cause)` after each transaction that changed something.

        Returns the function that ends it.
        """
        self._update_callbacks.append(callback)

        def unobserve() -> None:
            if callback in self._update_callbacks:
                self._update_callbacks.remove(callback)

        return unobserve

    def _committed(self, event: pycrdt.TransactionEvent) -> None:
        self.committed += 1
        if self.why_unusable is not None:
            return
        update = self.last_update = event.update
        self._updates.extend((callback, update, self._cause) for callback in self._update_callbacks)

    def record(self, ordinal: int, callback: Callable[..., None], event: object) -> None:
        """Deliver `callback(event, cause)` when the transaction has ended (for containers)."""
        self._events.append((ordinal, callback, event, self._cause))

    def later(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run `callback` behind all callbacks of this transaction; called from one of them."""
        self._later.append((callback, arguments))

    # --- transactions, from inside

    @_guarded
    def begin(self, origin: int, cause: object) -> None:
        """Enter a transaction (for `NativeTransaction`)."""
        if self._depth == 0:
            self._cause = cause
            scope = self._doc.transaction(origin)
            scope.__enter__()
            self._scope = scope
        self._depth += 1

    def end(self) -> list[Exception]:
        """Leave a transaction; commit and deliver at the outermost (for `NativeTransaction`)."""
        self._depth -= 1
        if self._depth:
            return []
        scope, self._scope = self._scope, None
        if scope is not None and self.why_unusable is None:
            self._commit(scope)
        return self._deliver()

    @_guarded
    def _commit(self, scope: pycrdt.Transaction) -> None:
        scope.__exit__(None, None, None)

    def _deliver(self) -> list[Exception]:
        """Run callbacks; what failed of them, at the outermost delivery."""
        updates, self._updates = self._updates, []
        events, self._events = self._events, []
        # The engine's own order between containers changes from run to run.
        events.sort(key=itemgetter(0))
        for callback, update, cause in updates:
            self._run(callback, update, cause)
        for _, callback, event, cause in events:
            self._run(callback, event, cause)
        if self._is_delivering:
            # A callback wrote: what follows from that stands behind what is being delivered.
            return []
        self._is_delivering = True
        try:
            while self._later:
                later, arguments = self._later.popleft()
                self._run(later, *arguments)
        finally:
            self._is_delivering = False
        failures, self._failures = self._failures, []
        return failures

    def _run(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # An application's: all are raised together.
            self._failures.append(error)

    def fail(self, error: BaseException) -> EngineFailed:
        """End this document because of a panic; return what to raise."""
        failure = EngineFailed(f"the engine panicked, rebuild the document: {error}")
        self.why_unusable = failure
        self._updates.clear()
        self._events.clear()
        self._later.clear()
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
        scope, self._scope = self._scope, None
        if scope is not None:
            # An open transaction locks the document against everything that lets go of it.
            _try_native(lambda: scope.__exit__(None, None, None))
        for undo in self._undos:
            undo.release()
        self._undos.clear()
        for container in self._named.values():
            container.release()
        self._named.clear()
        _try_native(lambda: self._doc.unobserve(self._subscription))
        # Whoever still holds this object holds no native memory.
        self._doc = pycrdt.Doc()

    # --- roots

    @_guarded
    def kind_of(self, name: str) -> RootKind | None:
        """What the root `name` is; None when it holds nothing and nobody here has named it.

        The name of a type is not written in an update, so a root that came from a peer is
        recognised by what it holds: keys make a map; characters and embedded values a text;
        XML nodes an XML fragment; anything else a list.  A text may hold nothing but nested
        containers too: such a root is called a list, and can be named as a text.
        """
        container = self._named.get(name)
        if container is not None:
            return container.kind
        return _likeliest(self._kinds_of_unnamed().get(name, ()))

    @_guarded
    def roots(self) -> dict[str, RootKind | None]:
        """The kind of every root that was named here or came from a peer, sorted by name."""
        unnamed = self._kinds_of_unnamed()
        kinds = {name: _likeliest(possible) for name, possible in unnamed.items()}
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

    @_guarded
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

    def native_root(self, name: str, shared_type: type[Shared]) -> Shared:
        """The engine's own object for a root (for containers)."""
        shared: Shared = self._doc.get(name, type=shared_type)
        return shared

    def _kinds_of_unnamed(self) -> dict[str, tuple[RootKind, ...]]:
        # The first naming of a root fixes its type inside the engine for good, and observing it
        # as another type panics then.  So the guess is made on a copy.
        names = sorted(set(self._doc.keys()) - self._named.keys())
        if not names:
            return {}
        copy: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
        copy.apply_update(self._doc.get_update())
        return {name: _kinds_in(copy, name) for name in names}

    # --- content

    def as_json(self, kinds: Mapping[str, RootKind] | None = None) -> dict[str, Any]:
        """Every root that holds something, and every root in `kinds`, as JSON values.

        A text is its string, an XML fragment the list of its nodes (`tag`, `attributes`,
        `children`; a text node is its string, or its runs where it is formatted), bytes are
        `{"base64": …}`, a subdocument is `{"guid": …}`, and what JSON lacks (NaN, Infinity,
        undefined) is None.  `kinds` decides for roots that can be read in two ways.
        """
        return self._content(formatted=False, kinds=kinds)

    @_guarded
    def _content(
        self, *, formatted: bool, kinds: Mapping[str, RootKind] | None = None
    ) -> dict[str, Any]:
        copy: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
        copy.apply_update(self._doc.get_update())
        asked = kinds or {}
        content = {}
        for name in sorted({*copy.keys(), *asked}):
            kind = asked.get(name) or _likeliest(_kinds_in(copy, name))
            if kind is not None:
                content[name] = _root_as_json(copy, name, kind, formatted=formatted)
        return content

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

    @_guarded
    def call(self, function: Callable[[], R]) -> R:
        """Run something native under this document's guard (for containers)."""
        return function()

    def call_with_events(self, cause: object, function: Callable[[], R]) -> R:
        """Run something native that opens its own transaction (undo), then deliver."""
        if self._depth:
            raise UsageError("undo and redo happen between transactions, not inside one")
        self._cause = cause
        try:
            return self.call(function)
        finally:
            failures = self._deliver()
            if failures:
                raise ObserversFailed("callbacks failed; the change is made", failures)


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


# --- containers -------------------------------------------------------------------------------


class _NativeContainer(Generic[Shared]):
    """What the three kinds of container share.  Writes need an open transaction."""

    kind: RootKind
    shared_type: type[Shared]

    def __init__(self, document: NativeDocument, name: str, ordinal: int) -> None:
        self.document = document
        self.name = name
        self.ordinal = ordinal
        self._shared: Shared = document.native_root(name, self.shared_type)
        self._subscription: pycrdt.Subscription | None = None
        self._callbacks: list[Callable[[Any, Any], None]] = []

    def observe(self, callback: Callable[[Any, Any], None]) -> Callable[[], None]:
        """Call `callback(change, origin or cause)` after each transaction that changed this root.

        Returns the function that ends it.
        """
        if self._subscription is None:
            self._subscription = self._call(lambda: self._shared.observe(self._changed))
        self._callbacks.append(callback)

        def unobserve() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unobserve

    def release(self) -> None:
        """Take the native observer away."""
        self._callbacks.clear()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            _try_native(lambda: self._shared.unobserve(subscription))
        del self._shared

    def track_by(self, undo: NativeUndo) -> None:
        """Let an undo manager watch this root."""
        undo.expand(self._shared)

    def _changed(self, event: Any) -> None:
        if self.document.why_unusable is not None:
            return
        change = self._change_of(event)
        for callback in self._callbacks:
            self.document.record(self.ordinal, callback, change)

    def _change_of(self, event: Any) -> object:
        raise NotImplementedError

    def _call(self, function: Callable[[], R]) -> R:
        return self.document.call(function)

    def __len__(self) -> int:
        return self._call(lambda: len(self._shared))


class NativeText(_NativeContainer[pycrdt.Text]):
    """A text; every index and length is in bytes of UTF-8, an embedded value counts 1.

    The caller vouches that indexes lie between characters and inside the text: the engine
    does not check, and a wrong one loses text.
    """

    kind = RootKind.TEXT
    shared_type = pycrdt.Text

    # The copy in which places are looked up, and the state that it is of.
    _lookup: tuple[int, pycrdt.Doc[Any], pycrdt.Text] | None = None

    def string(self) -> str:
        """The characters, without embedded values."""
        return self._call(lambda: str(self._shared))

    def runs(self) -> list[tuple[Any, dict[str, Any] | None]]:
        """Strings and embedded values with their attributes, adjacent equal ones joined."""
        return self._call(lambda: _runs_of(self._shared))

    def insert(self, index: int, text: str, attributes: dict[str, Any] | None = None) -> None:
        """Insert characters; without `attributes` they take those that hold at `index`."""
        self._call(lambda: self._shared.insert(index, text, attributes))

    def insert_embed(
        self, index: int, value: Any, attributes: dict[str, Any] | None = None
    ) -> None:
        """Insert a value that counts 1."""
        self._call(lambda: self._shared.insert_embed(index, value, attributes))

    def delete(self, index: int, length: int) -> None:
        """Delete `length` bytes."""
        self._call(lambda: self._shared.__delitem__(slice(index, index + length)))

    def format(self, index: int, length: int, attributes: dict[str, Any]) -> None:
        """Set attributes over `length` bytes; None takes one away."""
        self._call(lambda: self._shared.format(index, index + length, attributes))

    # The engine's own positions count bytes between its blocks and UTF-16 units inside them, so
    # they are right for ASCII only; and one that names what is not there panics.  So places are
    # found on a copy, by what an insert next to them says, or by cutting a block at them.

    def neighbours(self, index: int) -> tuple[Place | None, Place | None]:
        """Between which (client id, counter) an insert at byte `index` comes.

        Either may be deleted; None is the beginning or the end of the text.
        """

        def insert_in_copy() -> bytes:
            copy, text = self._copy()
            before = copy.get_state()
            text.insert(index, "x")
            return copy.get_update(before)

        return _origins_of(self._call(insert_in_copy))

    def byte_before(self, place: Place) -> int:
        """How many bytes lie before `place` now; before where it was, if it is deleted.

        `place` must begin a character.  Raises `UpdateMalformed` where it is nowhere.
        """
        return self._find(place, lambda copy, text: _cut_before(copy, text, _encoded(place)))

    def byte_behind(self, place: Place) -> int:
        """How many bytes lie up to the end of `place` now; before where it was, if deleted.

        `place` must end a character.  Raises `UpdateMalformed` where it is nowhere.
        """
        return self._find(place, lambda copy, text: _mark_behind(copy, text, _encoded(place)))

    def forget_places(self) -> None:
        """Look places up in a new copy: what was asked for may have torn a character."""
        self._lookup = None

    def _find(self, place: Place, find: Callable[[pycrdt.Doc[Any], pycrdt.Text], int]) -> int:
        client, counter = place
        if counter >= decode_state_vector(self.document.state_vector()).get(client, 0):
            raise UpdateMalformed(f"counter {counter} of client {client} is not held here")
        if self._lookup is None or self._lookup[0] != self.document.committed:
            self._lookup = (self.document.committed, *self._call(self._copy))
        _, copy, text = self._lookup
        try:
            return find(copy, text)
        except BaseException as error:
            self._lookup = None
            if _is_panic(error):
                raise UpdateMalformed(f"client {client} wrote nothing at {counter}") from None
            raise

    def release(self) -> None:
        """Take the native observer away."""
        self._lookup = None
        super().release()

    def _copy(self) -> tuple[pycrdt.Doc[Any], pycrdt.Text]:
        copy: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1)
        update = self.document.encode()
        copy.apply_update(update)
        used = decode_state_vector(copy.get_state())
        if 1 in used:
            unused = next(client for client in range(2, len(used) + 3) if client not in used)
            copy = pycrdt.Doc(client_id=unused)
            copy.apply_update(update)
        return copy, copy.get(self.name, type=pycrdt.Text)

    def _change_of(self, event: Any) -> list[dict[str, Any]]:
        # Lists of {"retain": n} | {"insert": str | value} | {"delete": n}, + "attributes".
        return [
            {key: _plain(value) for key, value in operation.items()} for operation in event.delta
        ]


def _origins_of(update: bytes) -> tuple[Place | None, Place | None]:
    """What the one struct of `update` says it was inserted between."""
    reader = Reader(update)
    for _ in ("clients", "structs", "client", "counter"):
        reader.varuint()
    info = reader.byte()
    left = (reader.varuint(), reader.varuint()) if info & 0x80 else None
    right = (reader.varuint(), reader.varuint()) if info & 0x40 else None
    return left, right


def _cut_before(copy: pycrdt.Doc[Any], text: pycrdt.Text, place: bytes) -> int:
    """Let a block begin at `place`, so that nothing of it is counted in units; where it begins."""
    _insert_deleted(copy, b"\x41" + place)
    return _offset_of(text, place)


def _mark_behind(copy: pycrdt.Doc[Any], text: pycrdt.Text, place: bytes) -> int:
    """Put something deleted, which counts nothing, right behind `place`; where that is."""
    return _offset_of(text, _insert_deleted(copy, b"\x81" + place))


def _insert_deleted(copy: pycrdt.Doc[Any], origin: bytes) -> bytes:
    """Integrate one deleted unit; `origin` is its info byte with one neighbour.  Its place."""
    # Client 0, because of siblings behind one neighbour the lowest client comes first.
    counter = decode_state_vector(copy.get_state()).get(0, 0)
    place = _encoded((0, counter))
    # One client with one struct, of length 1; no deletes.
    copy.apply_update(b"\x01\x01" + place + origin + b"\x01" + b"\x00")
    return place


def _offset_of(text: pycrdt.Text, place: bytes) -> int:
    return pycrdt.StickyIndex.decode(b"\x00" + place + b"\x00", text).get_index()


def _encoded(place: Place) -> bytes:
    return encode_varuint(place[0]) + encode_varuint(place[1])


class NativeMap(_NativeContainer[pycrdt.Map[Any]]):
    """A map from strings to values.  Nested containers are read as plain values."""

    kind = RootKind.MAP
    shared_type = pycrdt.Map

    def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`."""
        return self._call(lambda: _plain(self._shared.get(key, default)))

    def keys(self) -> list[str]:
        """The keys, sorted."""
        return self._call(lambda: sorted(self._shared.keys()))

    def items(self) -> list[tuple[str, Any]]:
        """Keys and values, sorted by key."""
        return self._call(
            lambda: sorted((key, _plain(value)) for key, value in self._shared.items())
        )

    def __contains__(self, key: str) -> bool:
        return self._call(lambda: key in self._shared)

    def set(self, key: str, value: Any) -> None:
        """Put a value at `key`."""
        self._call(lambda: self._shared.__setitem__(key, value))

    def delete(self, key: str) -> None:
        """Delete `key`, which must be there."""
        self._call(lambda: self._shared.__delitem__(key))

    def _change_of(self, event: Any) -> dict[str, tuple[str, Any, Any]]:
        # key -> ("add" | "update" | "delete", old value, new value)
        return {
            key: (
                change["action"],
                _plain(change.get("oldValue")),
                _plain(change.get("newValue")),
            )
            for key, change in event.keys.items()
        }


class NativeArray(_NativeContainer[pycrdt.Array[Any]]):
    """A list of values.  Nested containers are read as plain values.

    Access by index walks from the front, so reading all of n items takes time in n times the
    number of the engine's blocks; a facade that reads often keeps its own copy by events.
    """

    kind = RootKind.LIST
    shared_type = pycrdt.Array

    def get(self, index: int) -> Any:
        """The value at `index`."""
        return self._call(lambda: _plain(self._shared[index]))

    def values(self) -> list[Any]:
        """All values."""
        return self._call(lambda: [_plain(value) for value in self._shared])

    def insert(self, index: int, values: Sequence[Any]) -> None:
        """Insert values, the first at `index`."""

        def insert_all() -> None:
            self._shared[index:index] = list(values)

        self._call(insert_all)

    def delete(self, index: int, length: int) -> None:
        """Delete `length` values."""
        self._call(lambda: self._shared.__delitem__(slice(index, index + length)))

    def _change_of(self, event: Any) -> list[dict[str, Any]]:
        # Lists of {"retain": n} | {"insert": [value, …]} | {"delete": n}.
        return [
            {key: _plain(value) for key, value in operation.items()} for operation in event.delta
        ]


Container = TypeVar("Container", NativeText, NativeMap, NativeArray)


class NativeUndo:
    """Undo and redo of transactions of some origins, in some containers.

    `timestamp` is asked once, inside the commit, for each transaction that is captured; it
    gives milliseconds above 0.  Transactions less than `capture_milliseconds` apart by it are
    one step.  It must not raise.
    """

    def __init__(
        self,
        document: NativeDocument,
        capture_milliseconds: int,
        origins: Iterable[int],
        timestamp: Callable[[], int],
    ) -> None:
        self._document = document
        self._capture_milliseconds = capture_milliseconds
        self._origins = tuple(origins)
        self._timestamp = timestamp
        self._scopes: list[Any] = []
        self._manager = self._new_manager([], [])

    def expand(self, shared: Any) -> None:
        """Watch this root too (for containers)."""
        self._scopes.append(shared)
        self._document.call(lambda: self._manager.expand_scope(shared))

    def keep(self, steps: int) -> None:
        """Forget all but the newest `steps` that can be undone."""

        def keep_newest() -> None:
            undo_stack = self._manager.undo_stack
            kept = undo_stack[max(0, len(undo_stack) - steps) :]
            self._manager = self._new_manager(kept, self._manager.redo_stack)

        self._document.call(keep_newest)

    def _new_manager(
        self, undo_stack: list[pycrdt.StackItem[Any]], redo_stack: list[pycrdt.StackItem[Any]]
    ) -> pycrdt.UndoManager:
        manager = pycrdt.UndoManager(
            capture_timeout_millis=self._capture_milliseconds,
            timestamp=self._timestamp,
            undo_stack=undo_stack,
            redo_stack=redo_stack,
        )
        for origin in self._origins:
            manager.include_origin(origin)
        for shared in self._scopes:
            manager.expand_scope(shared)
        return manager

    def depth(self) -> tuple[int, int]:
        """How many steps can be undone and redone."""
        return self._document.call(
            lambda: (len(self._manager.undo_stack), len(self._manager.redo_stack))
        )

    def undo(self, cause: object) -> bool:
        """Undo one step; whether there was one."""
        return self._document.call_with_events(cause, lambda: bool(self._manager.undo()))

    def redo(self, cause: object) -> bool:
        """Redo one step; whether there was one."""
        return self._document.call_with_events(cause, lambda: bool(self._manager.redo()))

    def clear(self) -> None:
        """Forget all steps."""
        self._document.call(lambda: self._manager.clear())  # noqa: PLW0108 - it may be gone

    def release(self) -> None:
        """Let go of the native manager."""
        self._scopes.clear()
        _try_native(lambda: delattr(self, "_manager"))


# --- what the engine gives back, as Python values -----------------------------------------------


def _plain(value: Any) -> Any:
    """A value of the engine as a plain one: integral numbers are int, buffers are bytes.

    Iterative, because a peer decides how deep it is.
    """
    holder: list[Any] = [value]
    work: list[tuple[Any, Any]] = [(holder, 0)]
    while work:
        place, key = work.pop()
        one = place[key] = _plain_once(place[key])
        if type(one) is list:
            work.extend((one, index) for index in range(len(one)))
        elif type(one) is dict:
            work.extend((one, name) for name in one)
    return holder[0]


def _plain_once(value: Any) -> Any:
    """One level of `_plain`: what is inside is still the engine's."""
    match value:
        case bool() | str() | int() | None:
            return value
        case float():
            return _plain_number(value)
        case bytearray():
            return bytes(value)
        case list() | tuple():
            return list(value)
        case dict():
            return dict(value)
        case _:
            return _plain_shared(value)


def _plain_number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= SAFE_INTEGER else number


def _plain_shared(value: Any) -> Any:  # noqa: PLR0911 - one return for each shared type
    match value:
        case pycrdt.Text():
            return str(value)
        case pycrdt.Map():
            return dict(value.items())
        case pycrdt.Array():
            return list(value)
        case pycrdt.XmlElement():
            return {
                "tag": value.tag,
                "attributes": dict(sorted(value.attributes, key=itemgetter(0))),  # type: ignore[call-overload]
                "children": list(value.children),
            }
        case pycrdt.XmlText():
            return _runs_as_json(value)
        case pycrdt.XmlFragment():
            return list(value.children)
        case pycrdt.Doc():
            return {"guid": value.guid}
        case _:
            raise EngineFailed(f"the engine gave back an unknown {type(value).__name__}")


def _runs_of(text: pycrdt.Text | pycrdt.XmlText) -> list[tuple[Any, dict[str, Any] | None]]:
    runs: list[tuple[Any, dict[str, Any] | None]] = []
    for raw, raw_attributes in text.diff():
        found = {
            key: value for key, value in _plain(raw_attributes or {}).items() if value is not None
        }
        attributes = found or None
        content = _plain(raw)
        if runs and isinstance(content, str) and isinstance(runs[-1][0], str):
            before, before_attributes = runs[-1]
            if before_attributes == attributes:
                runs[-1] = (before + content, attributes)
                continue
        runs.append((content, attributes))
    return runs


def _runs_as_json(text: pycrdt.Text | pycrdt.XmlText) -> Any:
    """The string where there is nothing but characters, else the runs as a Quill delta."""
    runs = _runs_of(text)
    if all(isinstance(content, str) and attributes is None for content, attributes in runs):
        return "".join(content for content, _ in runs)
    return [
        {"insert": content} if attributes is None else {"insert": content, "attributes": attributes}
        for content, attributes in runs
    ]


def _likeliest(kinds: tuple[RootKind, ...]) -> RootKind | None:
    return kinds[0] if kinds else None


def _kinds_in(copy: pycrdt.Doc[Any], name: str) -> tuple[RootKind, ...]:
    """What a root can be by what it holds, likeliest first.

    `copy` is not used for anything that observes: this names the root as several types.
    """
    if len(copy.get(name, type=pycrdt.Map)):
        return (RootKind.MAP,)
    chunks = [content for content, _ in copy.get(name, type=pycrdt.Text).diff()]
    if any(not isinstance(content, _SHARED) for content in chunks):
        return (RootKind.TEXT,)
    length = len(copy.get(name, type=pycrdt.Array))
    if not length:
        return ()
    if len(chunks) < length:
        # Values that a text does not show.
        return (RootKind.LIST,)
    is_xml = all(isinstance(content, _XML) for content in chunks)
    return (RootKind.XML if is_xml else RootKind.LIST, RootKind.TEXT)


_XML = (pycrdt.XmlElement, pycrdt.XmlText, pycrdt.XmlFragment)
_SHARED = (pycrdt.Text, pycrdt.Map, pycrdt.Array, pycrdt.Doc, *_XML)


def _root_as_json(copy: pycrdt.Doc[Any], name: str, kind: RootKind, *, formatted: bool) -> Any:
    match kind:
        case RootKind.TEXT:
            text = copy.get(name, type=pycrdt.Text)
            return _json_of(_runs_as_json(text) if formatted else str(text))
        case RootKind.MAP:
            return _json_of(copy.get(name, type=pycrdt.Map))
        case RootKind.LIST | RootKind.XML:
            return _json_of(copy.get(name, type=pycrdt.Array))


def _json_of(value: Any) -> Any:
    """`_plain`, with what JSON cannot say said otherwise."""
    holder: list[Any] = [_plain(value)]
    work: list[tuple[Any, Any]] = [(holder, 0)]
    while work:
        place, key = work.pop()
        one = place[key]
        if isinstance(one, bytes):
            place[key] = {"base64": b64encode(one).decode()}
        elif isinstance(one, float) and not math.isfinite(one):
            place[key] = None
        elif type(one) is list:
            work.extend((one, index) for index in range(len(one)))
        elif type(one) is dict:
            work.extend((one, name) for name in one)
    return holder[0]
