"""An open document: its containers, its transactions, and what it tells about its changes.

Sans-I/O: the state comes in as updates, edits go out as updates through `on_update`, and who
persists, sends or merges them is somebody else.  Containers are roots with deterministic names,
so two replicas that have never met name the same ones.

1. Each local transaction that changed something gives exactly one update.
2. A write is checked before its transaction begins.  An exception between two writes of one
   transaction rolls nothing back: what was written before it is committed.
3. When a callback runs, every container is up to date and no transaction is open.
4. A client id is used for one opening only; after `EngineFailed` the document is rebuilt from
   the log under a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from crdt_state.errors import LimitExceeded, ObserversFailed, RootTypeConflict, UsageError
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.model.callbacks import subscribe
from crdt_state.model.container import Cause, Container
from crdt_state.model.counter import Counter
from crdt_state.model.engine import NativeDocument, RootKind
from crdt_state.model.layout import KIND_SUFFIXES, kind_of_root
from crdt_state.model.list import List
from crdt_state.model.map import Map
from crdt_state.model.movable import MovableList
from crdt_state.model.register import LwwRegister, MultiValueRegister
from crdt_state.model.set import Set
from crdt_state.model.state import EMPTY_VECTOR
from crdt_state.model.text import Text
from crdt_state.model.undo import UndoStack
from crdt_state.model.values import check_key
from crdt_state.model.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from crdt_state.clocks import HybridClock, Instant
    from crdt_state.identifiers import ClientId, DocumentId, Incarnation
    from crdt_state.model.values import Codec

__all__ = ["Document", "UpdateCallback"]

UpdateCallback: TypeAlias = "Callable[[bytes, bool], None]"
"""`callback(update, is_local)`."""

AnyContainer = TypeVar("AnyContainer", bound=Container[Any, Any])

# Origins inside the engine; what an application calls an origin travels in the `Cause`.
LOCAL = 1
REMOTE = 2


class Document:
    """One document, open under one client id, until `close`, which gives its memory back.

    `state` is every update it is made of, in any order.  `clock` gives the stamps of registers.
    Raises `UpdateMalformed`, `EngineFailed`.
    """

    def __init__(
        self,
        document_id: DocumentId,
        state: Iterable[bytes] = (),
        *,
        client_id: ClientId,
        incarnation: Incarnation,
        clock: HybridClock,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.id = document_id
        self.client_id = client_id
        self.incarnation = incarnation
        self.clock = clock
        self.limits = limits
        self.transactions_begun = 0
        self._depth = 0
        self._operations = 0
        self._containers: dict[str, Container[Any, Any]] = {}
        self._update_callbacks: list[UpdateCallback] = []
        self._waiting = Waiting(limits)
        self._native, held = _opened(client_id, state)
        try:
            for update in held:
                self._integrate(update, Cause(is_local=False))
        except BaseException:
            self._native.close()
            raise
        self._native.observe(self._committed)
        self._scope = self._native.transaction()

    # --- containers

    def text(self, name: str) -> Text:
        """The Yjs text `name`.  Raises `RootTypeConflict`, as every one of these does."""
        return self._plain(Text, name, lambda: Text(self, self._native.text(name), name))

    def map(self, name: str, *, codec: Codec | None = None) -> Map:
        """The Yjs map `name`: of two writes to one key at once, one remains."""
        return self._plain(Map, name, lambda: Map(self, self._native.map(name), name, codec=codec))

    def list(self, name: str, *, codec: Codec | None = None) -> List:
        """The Yjs array `name`."""
        return self._plain(
            List, name, lambda: List(self, self._native.array(name), name, codec=codec)
        )

    def counter(self, name: str) -> Counter:
        """A number that everybody may add to."""
        return self._on_map(Counter, name)

    def set(self, name: str, *, codec: Codec | None = None) -> Set:
        """A set in which an add wins over a remove at the same time."""
        return self._on_array(Set, name, codec)

    def movable_list(self, name: str, *, codec: Codec | None = None) -> MovableList:
        """A list whose elements can be moved without being doubled."""
        return self._on_array(MovableList, name, codec)

    def register(self, name: str, *, codec: Codec | None = None) -> LwwRegister:
        """One value; the latest write shows."""
        return self._on_array(LwwRegister, name, codec)

    def multi_value_register(self, name: str, *, codec: Codec | None = None) -> MultiValueRegister:
        """One value; writes at the same time all show, until the next write."""
        return self._on_array(MultiValueRegister, name, codec)

    def roots(self) -> dict[str, str | None]:
        """Every root, by the name it has in Yjs, with its kind; None where nothing tells.

        Kinds are `text`, `map`, `list`, `xml`, or one of ours (`counter`, `set`, …), which
        their names tell (PROTOCOL.md).
        """
        kinds: dict[str, str | None] = {}
        for name, kind in self._native.roots().items():
            ours = kind_of_root(name)
            kinds[name] = ours[1] if ours else kind and kind.value
        return kinds

    # --- changing

    def transaction(self, origin: object = None) -> Transaction:
        """A context in which edits belong together: one update, one event for each container.

        Inside another transaction it is part of that, whose `origin` counts.  `origin` is
        handed to the events: anything that tells callbacks who changed something.
        """
        return Transaction(self, origin)

    def apply(self, update: bytes, *, origin: object = None) -> None:
        """Integrate what a peer wrote.

        What waits for other updates is not shown and not in `encode` until they have come.
        Raises `UpdateMalformed` and, when it is beyond a bound or too much waits already,
        `UpdateTooLarge` (nothing has changed); `EngineFailed` (rebuild the document);
        `ObserversFailed` (the update is in); `UsageError` inside a transaction.
        """
        if self._native.in_transaction:
            raise UsageError("updates are applied between transactions, not inside one")
        self._integrate(update, Cause(is_local=False, origin=origin))

    def undo_stack(
        self,
        *containers: Container[Any, Any],
        now: Callable[[], Instant],
        capture_seconds: float = 0.5,
    ) -> UndoStack:
        """Undo and redo for the edits that are made here, from now on, in `containers`.

        Edits less than `capture_seconds` apart, by `now`, are undone together.
        """
        for container in containers:
            if self._containers.get(self._root_of(container)) is not container:
                raise UsageError(f"{container!r} is not a container of this document")
        return UndoStack(
            self,
            self._native,
            containers,
            now=now,
            capture_seconds=capture_seconds,
            local_origin=LOCAL,
        )

    # --- watching

    def on_update(self, callback: UpdateCallback) -> Callable[[], None]:
        """Call `callback(update, is_local)` after each transaction that changed something.

        It runs before any `observe` callback of a container.  Returns the off switch.
        """
        return subscribe(self._update_callbacks, callback)

    def later(self, callback: Callable[..., None], *arguments: object) -> None:
        """Run an application's callback when all containers are up to date (for containers)."""
        self._native.later(callback, *arguments)

    # --- reading the whole

    def encode(self, since: bytes = EMPTY_VECTOR) -> bytes:
        """What is not covered by the state vector `since`, as one update."""
        return self._native.encode(since)

    def state_vector(self) -> bytes:
        """How far each client is held."""
        return self._native.state_vector()

    def digest(self) -> bytes:
        """16 bytes that are equal where the state is (`NativeDocument.digest`)."""
        return self._native.digest()

    def deep_digest(self) -> bytes:
        """`digest` that also sees a client id used twice (`NativeDocument.deep_digest`)."""
        return self._native.deep_digest()

    def as_json(self, kinds: Mapping[str, RootKind] | None = None) -> dict[str, Any]:
        """Every root as JSON values, those that only Yjs programs make included.

        Ours appear in their layout on Yjs types.  See `NativeDocument.as_json`.
        """
        named = {
            name: root_kind
            for name, container in self._containers.items()
            if (root_kind := _ROOT_KINDS.get(container.kind)) is not None
        }
        return self._native.as_json({**named, **(kinds or {})})

    @property
    def is_broken(self) -> bool:
        """Whether the engine panicked: rebuild from the log under a new client id."""
        return self._native.is_broken

    def close(self) -> None:
        """Let go of the memory; every later call raises `DocumentClosed`."""
        self._update_callbacks.clear()
        self._native.close()

    def __repr__(self) -> str:
        return f"<Document {self.id!r} as client {self.client_id}>"

    # --- private

    def _plain(
        self, kind: type[AnyContainer], name: str, make: Callable[[], AnyContainer]
    ) -> AnyContainer:
        ours = kind_of_root(check_key(name, limits=self.limits, path="name"))
        if ours is not None:
            raise RootTypeConflict(name, ours[1], kind.kind)
        return self._once(kind, name, make)

    def _on_array(self, kind: type[ArrayKind], name: str, codec: Codec | None) -> ArrayKind:
        root = self._ours(kind.kind, name)
        return self._once(
            kind, root, lambda: kind(self, self._native.array(root), name, codec=codec)
        )

    def _on_map(self, kind: type[Counter], name: str) -> Counter:
        root = self._ours(kind.kind, name)
        return self._once(kind, root, lambda: kind(self, self._native.map(root), name))

    def _ours(self, kind: str, name: str) -> str:
        """The root of one of our kinds."""
        root = check_key(name, limits=self.limits, path="name") + _SUFFIX_OF[kind]
        return check_key(root, limits=self.limits, path="name")

    def _once(
        self, kind: type[AnyContainer], root: str, make: Callable[[], AnyContainer]
    ) -> AnyContainer:
        container = self._containers.get(root)
        if container is None:
            container = self._containers[root] = make()
        if not isinstance(container, kind):
            raise RootTypeConflict(root, container.kind, kind.kind)
        return container

    def _root_of(self, container: Container[Any, Any]) -> str:
        return container.name + _SUFFIX_OF.get(container.kind, "")

    def _integrate(self, update: bytes, cause: Cause) -> None:
        """Apply `update`, and what waited for it, as soon as what it depends on is there."""
        found = self._waiting.read(update)
        if self._waiting.misses(found):
            # It does not hear of one's own edits.
            self._waiting.refresh(self._native.state_vector())
        failures: list[Exception] = []
        for ready in self._waiting.admit(update, found):
            try:
                self._native.apply(ready, REMOTE, cause)
            except ObserversFailed as error:
                failures.extend(error.exceptions)
        if failures:
            raise ObserversFailed("callbacks failed; the update is in", failures)

    def _committed(self, update: bytes, cause: Cause) -> None:
        if not cause.is_local or cause.is_undo:
            for container in self._containers.values():
                container.forget()
        for callback in tuple(self._update_callbacks):
            self._native.later(callback, update, cause.is_local)

    def enter(self, origin: object) -> None:
        """Begin, or be part of what has begun (for `Transaction`)."""
        if self._depth == 0:
            scope = self._native.transaction(LOCAL, Cause(is_local=True, origin=origin))
            scope.__enter__()
            self._scope = scope
            self._operations = 0
            self.transactions_begun += 1
        elif self._operations >= self.limits.transaction_operations_max:
            allowed = self.limits.transaction_operations_max
            raise LimitExceeded("transaction_operations_max", allowed, self._operations + 1)
        self._operations += 1
        self._depth += 1

    def leave(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, at the outermost (for `Transaction`)."""
        self._depth -= 1
        if self._depth == 0:
            self._scope.__exit__(error_type, error, traceback)


class Transaction:
    """`with document.transaction():`; see `Document.transaction`."""

    __slots__ = ("_document", "_origin")

    def __init__(self, document: Document, origin: object) -> None:
        self._document = document
        self._origin = origin

    def __enter__(self) -> None:
        self._document.enter(self._origin)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._document.leave(error_type, error, traceback)


def _opened(client_id: ClientId, state: Iterable[bytes]) -> tuple[NativeDocument, list[bytes]]:
    """A document of what can be integrated of `state`, and the updates that lack something.

    A store gives updates in an order in which none lacks anything, so this looks closer only
    where the engine did not give out just what came in.
    """
    native = NativeDocument(client_id)
    unsure = []
    try:
        for update in state:
            native.apply(update, REMOTE)
            if native.last_update != update:
                unsure.append(update)
        held = [update for update in unsure if native.lacks(update)]
        if not held:
            return native, []
        # The engine must not keep what waits (see `NativeDocument.apply`), and does not encode it.
        encoded = native.encode()
    except BaseException:
        native.close()
        raise
    native.close()
    fresh = NativeDocument(client_id)
    fresh.apply(encoded, REMOTE)
    return fresh, held


ArrayKind = TypeVar("ArrayKind", Set, MovableList, LwwRegister, MultiValueRegister)

_SUFFIX_OF = {kind: suffix for suffix, kind in KIND_SUFFIXES.items()}
_ROOT_KINDS = {"text": RootKind.TEXT, "map": RootKind.MAP, "list": RootKind.LIST}
