"""The replica for scripts and notebooks: no `async`, no `await`.

    with BlockingReplica.open("notes.db") as replica:
        note = replica.document("notes/today")
        note.text("text").insert(0, "Hello")
        replica.connect("ws://localhost:1234").synced(timeout=10)

One background thread runs the event loop, and documents are touched in that thread only: each
call goes there, is carried out, and brings its result or its error back.  So it works beside a
loop that already runs here, as in Jupyter.

A `with note.transaction():` block goes there once: while it runs, the thread serves this block
alone, so its calls come at once, its reads see its writes, and nobody gets in between.  As with a
transaction in a coroutine, the rest of the replica stands still meanwhile: do not wait inside.

1. Nothing of a document, a container or a link is read or written outside the thread.
2. A replica that is not closed is closed when the interpreter ends, or when nothing refers to it.
3. What an event callback does (it runs in the thread) is carried out at once; waiting there, or
   inside a transaction, is refused instead of never ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from crdt_state import DEFAULT_LIMITS, Limits, Replica, Wire
from crdt_state.errors import CrdtStateError, DocumentClosed, UsageError
from crdt_state.replica.events import EventsMissed, changes

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Coroutine
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from crdt_state import Link, OpenDocument, Progress
    from crdt_state.errors import LineageEnded
    from crdt_state.model.counter import Counter
    from crdt_state.model.document import Document
    from crdt_state.model.list import List
    from crdt_state.model.map import Map
    from crdt_state.model.movable import MovableList
    from crdt_state.model.register import LwwRegister, MultiValueRegister
    from crdt_state.model.set import Set
    from crdt_state.model.text import Text
    from crdt_state.replica.events import Changes, Observable

__all__ = ["BlockingChanges", "BlockingDocument", "BlockingLink", "BlockingReplica"]

ResultT = TypeVar("ResultT")
ContainerT = TypeVar("ContainerT")
EventT = TypeVar("EventT")

MAIN_THREAD_SECONDS = 0.25
"""How often the thread looks whether the main thread has ended, to close what was left open."""


class BlockingReplica:
    """A `Replica` whose calls return when they are done.  Made by `open`; close it, or use `with`.

    Several threads may use it: their calls are carried out one after the other.
    """

    def __init__(self, thread: _LoopThread, replica: Replica) -> None:
        """For `open`."""
        self._thread = thread
        self._replica = replica
        self._close = weakref.finalize(self, thread.end)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Self:
        """Open the replica in the file `path`, as `Replica.open` does.  Raises `StoreError`."""
        thread = _LoopThread()
        try:
            replica = thread.run(_opened(path, limits))
        except BaseException:
            thread.end()
            raise
        thread.closes(replica)
        return cls(thread, replica)

    def document(self, name: str) -> BlockingDocument:
        """Open a document.  Raises as `Replica.document`."""
        return self._opened(self._replica.document(name))

    def delete(self, name: str) -> None:
        """End a document, here and everywhere, as `Replica.delete` does."""
        self._thread.run(self._replica.delete(name))

    def seed(self, name: str, fill: Callable[[Document], object]) -> BlockingDocument:
        """Begin a document with new content, as `Replica.seed` does.

        `fill` runs in the background thread, with an empty document.
        """
        return self._opened(self._replica.seed(name, fill))

    def recreate(self, name: str) -> BlockingDocument:
        """Begin a deleted document anew, empty, as `Replica.recreate` does."""
        return self._opened(self._replica.recreate(name))

    def ended(self) -> tuple[LineageEnded, ...]:
        """What others ended and has edits of ours that wait for a choice; see `Replica.ended`."""
        return self._thread.run(_all_of(self._replica.ended()))

    def adopt(self, ended: LineageEnded) -> None:
        """Let go of what was edited here, as `Replica.adopt` does."""
        self._thread.run(self._replica.adopt(ended))

    def keep_as_copy(self, ended: LineageEnded, name: str) -> BlockingDocument:
        """Keep it as a document of its own, as `Replica.keep_as_copy` does."""
        return self._opened(self._replica.keep_as_copy(ended, name))

    def rebase(self, ended: LineageEnded) -> tuple[str, ...]:
        """Make the edits once more on what has come in the place, as `Replica.rebase` does."""
        return self._thread.run(self._replica.rebase(ended))

    def connect(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        wire: Wire = Wire.REPLICA,
        scopes: Iterable[str] = (),
    ) -> BlockingLink:
        """Keep in step with a server, in the background, as `Replica.connect` does."""
        connect = partial(self._replica.connect, url, token=token, wire=wire, scopes=tuple(scopes))
        link = self._thread.call(connect)
        return BlockingLink(self, self._thread, link)

    def disconnect(self, link: BlockingLink) -> None:
        """End a link, as its `close` does."""
        link.close()

    def close(self) -> None:
        """Hang up, make everything durable, let go of the file; a second call changes nothing."""
        self._close()

    def _opened(self, opening: Coroutine[Any, Any, OpenDocument]) -> BlockingDocument:
        return BlockingDocument(self, self._thread, self._thread.run(opening))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class BlockingLink:
    """A `Link`.  Made by `BlockingReplica.connect`."""

    def __init__(self, replica: BlockingReplica, thread: _LoopThread, link: Link) -> None:
        """For `BlockingReplica`, which stays open while this is held."""
        self.link = link
        self._replica = replica
        self._thread = thread

    @property
    def progress(self) -> Progress:
        """How far the link is, as `Link.progress` tells."""
        return self._thread.call(lambda: self.link.progress)

    @property
    def last_error(self) -> str | None:
        """Why a connection last ended or could not be made."""
        return self._thread.call(lambda: self.link.last_error)

    def synced(self, timeout: float | None = None) -> None:
        """Return when the remote holds all that is here, and all that it held is here.

        Raises `TimeoutError` after `timeout` seconds; it says what last went wrong.
        """
        try:
            self._thread.run(_within(timeout, self.link.synced()))
        except TimeoutError:
            reason = self.last_error or "the remote has not answered yet"
            raise TimeoutError(f"not in sync after {timeout} s: {reason}") from None

    def close(self) -> None:
        """Hang up, for good; what is not confirmed stays owed for the next time."""
        self._thread.run(self.link.close())

    def watch(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Call back, in the background thread, when `progress` changes; gives the off switch."""
        return self._thread.bound(self._thread.call(partial(self.link.watch, callback)))


class BlockingDocument:
    """An `OpenDocument`.  Made by `BlockingReplica.document`.

    Its containers are used as those of a `Document`, and typed as such; behind them each call
    goes to the background thread.  Views and iterators come back as lists.
    """

    def __init__(
        self, replica: BlockingReplica, thread: _LoopThread, document: OpenDocument
    ) -> None:
        """For `BlockingReplica`, which stays open while this, or a container, is held."""
        self._replica = replica
        self._thread = thread
        self._document = document

    @property
    def id(self) -> str:
        """Its document id."""
        return self._document.id

    def text(self, name: str) -> Text:
        """As `Document.text`; the next ones as those of the same names."""
        return self._container(self._document.text, name)

    def map(self, name: str) -> Map:
        """A map."""
        return self._container(self._document.map, name)

    def list(self, name: str) -> List:
        """A list."""
        return self._container(self._document.list, name)

    def counter(self, name: str) -> Counter:
        """A counter."""
        return self._container(self._document.counter, name)

    def set(self, name: str) -> Set:
        """A set."""
        return self._container(self._document.set, name)

    def movable_list(self, name: str) -> MovableList:
        """A list whose elements can be moved."""
        return self._container(self._document.movable_list, name)

    def register(self, name: str) -> LwwRegister:
        """A register in which the last write shows."""
        return self._container(self._document.register, name)

    def multi_value_register(self, name: str) -> MultiValueRegister:
        """A register that shows its conflicts."""
        return self._container(self._document.multi_value_register, name)

    @contextmanager
    def transaction(self, origin: object = None) -> Iterator[None]:
        """Edits that belong together: one update, one event for each container.

        Raises what `Document.transaction` does.
        """
        with (
            self._thread.serving(),
            self._thread.inside(lambda: self._document.transaction(origin)),
        ):
            yield

    def saved(self) -> None:
        """Every edit made so far is on the disk.  Raises `EditNotStored`."""
        self._thread.run(self._document.saved())

    def changes(
        self, container: Observable[EventT], *, timeout: float | None = None
    ) -> BlockingChanges[EventT]:
        """The events of a container of this document, from now on; see `BlockingChanges`."""
        inner = _inner(container)
        begun = self._thread.call(lambda: changes(inner, limits=self._document.limits))
        return BlockingChanges(self, self._thread, begun, timeout)

    def as_json(self) -> dict[str, Any]:
        """Every root as JSON values."""
        return self._thread.call(self._document.as_json)

    def encode(self) -> bytes:
        """All of it as one Yjs update."""
        return self._thread.call(self._document.encode)

    def close(self) -> None:
        """End; what was edited will still be stored."""
        self._thread.call(self._document.close)

    def __repr__(self) -> str:
        return f"<BlockingDocument {self.id!r}>"

    def _container(self, kind: Callable[[str], ContainerT], name: str) -> ContainerT:
        inner = self._thread.call(partial(kind, name))
        # It has every method of what it stands for, so to readers and type checkers it is that.
        return cast("ContainerT", _Container(self, self._thread, inner))


class BlockingChanges(Generic[EventT]):
    """Events one after the other, waited for; an iterator, and a context manager.

    The iteration ends when nothing has happened for `timeout` seconds, or after `close`.  Where
    too many waited to be read, `EventsMissed` stands in their place.
    """

    def __init__(
        self,
        document: BlockingDocument,
        thread: _LoopThread,
        begun: Changes[EventT],
        timeout: float | None,
    ) -> None:
        """For `BlockingDocument.changes`."""
        self._document = document
        self._thread = thread
        self._begun = begun
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventT | EventsMissed:
        try:
            event = self._thread.run(_within(self._timeout, _next_of(self._begun)))
        except (TimeoutError, _Ended):
            raise StopIteration from None
        return cast("EventT | EventsMissed", event)

    def close(self) -> None:
        """Stop listening."""
        self._thread.call(self._begun.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Container:
    """Stands for a container: carries every use of it out in the thread."""

    def __init__(self, document: BlockingDocument, thread: _LoopThread, inner: Any) -> None:
        self._document = document
        self._thread = thread
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        # Methods are found without a way to the thread; properties are read there.
        if callable(getattr(type(self._inner), name, None)):
            return self._thread.bound(getattr(self._inner, name))
        return self._thread.call(lambda: _plain(self._thread, getattr(self._inner, name)))

    def __repr__(self) -> str:
        return cast("str", self._special("__repr__"))

    def __str__(self) -> str:
        return cast("str", self._special("__str__"))

    def __len__(self) -> int:
        return cast("int", self._special("__len__"))

    def __int__(self) -> int:
        return cast("int", self._special("__int__"))

    def __bool__(self) -> bool:
        return self._thread.call(lambda: bool(self._inner))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._thread.call(lambda: list(self._inner)))

    def __contains__(self, item: object) -> bool:
        return self._thread.call(lambda: item in self._inner)

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._special("__setitem__", key, value)

    def __delitem__(self, key: Any) -> None:
        self._special("__delitem__", key)

    def _special(self, name: str, *given: Any) -> Any:
        return self._thread.bound(getattr(self._inner, name))(*given)


class _LoopThread:
    """The thread, its loop, and the ways into it: `call` for what is done at once, else `run`."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._is_ready = threading.Event()
        self._stopping = asyncio.Event()
        # Reentrant, because a finalizer may run anywhere, here as well.
        self._lock = threading.RLock()
        self._is_ended = False
        self._replica: Replica | None = None
        self._failure: Exception | None = None
        # The errand queue of the transaction that is open, for the thread which has opened it.
        self._transaction = threading.local()
        # Not a daemon: the interpreter would end it in the middle of a write.  It sees by itself
        # when the main thread has ended (`_stay`).
        self._thread = threading.Thread(target=self._live, name="crdt-state")
        self._thread.start()
        self._is_ready.wait()

    @property
    def is_here(self) -> bool:
        """Whether this is the thread itself: a callback is running."""
        return threading.current_thread() is self._thread

    def closes(self, replica: Replica) -> None:
        """Close this at the end."""
        self._replica = replica

    def call(self, work: Callable[[], ResultT]) -> ResultT:
        """Carry out in the thread; its result or error comes back."""
        if self.is_here:
            return work()
        errands: queue.SimpleQueue[_Errand] | None
        errands = getattr(self._transaction, "errands", None)
        errand = _Errand(work)
        if errands is not None:
            errands.put(errand)
        else:
            self._hand_over(errand.carry_out)
        return cast("ResultT", errand.result())

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Await in the thread.  Raises `UsageError` where that would never end."""
        if self.is_here or getattr(self._transaction, "errands", None) is not None:
            work.close()
            raise UsageError(
                "this waits for the background thread, which is busy with this very "
                "transaction or callback; do it after its end"
            )
        try:
            future = self._submit(work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C here must not leave the work behind there
            raise

    def bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, carried out in the thread, with a result that may leave it."""

        def carried_out(*given: Any, **named: Any) -> Any:
            return self.call(lambda: _plain(self, function(*given, **named)))

        return carried_out

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have the thread serve nobody but us, until the end of the block."""
        if self.is_here or getattr(self._transaction, "errands", None) is not None:
            yield  # it serves nobody else already
            return
        errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._hand_over(partial(_serve, errands))
        self._transaction.errands = errands
        try:
            yield
        finally:
            self._transaction.errands = None
            errands.put(None)

    @contextmanager
    def inside(self, open_: Callable[[], Any]) -> Iterator[None]:
        """A context manager of the thread, entered and left there, around this block."""
        context = self.call(open_)
        self.call(context.__enter__)
        try:
            yield
        except BaseException as error:
            self.call(partial(context.__exit__, type(error), error, error.__traceback__))
            raise
        self.call(partial(context.__exit__, None, None, None))

    def end(self) -> None:
        """Close the replica and end the thread; a second call changes nothing."""
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
        self._runner.get_loop().call_soon_threadsafe(self._stopping.set)
        if not self.is_here:  # the last reference may have been a callback's
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _hand_over(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._refuse_if_ended()
            self._runner.get_loop().call_soon_threadsafe(work)

    def _submit(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        with self._lock:
            self._refuse_if_ended()
            return asyncio.run_coroutine_threadsafe(work, self._runner.get_loop())

    def _refuse_if_ended(self) -> None:
        if self._is_ended:
            raise DocumentClosed("this replica is closed; open it again")

    def _live(self) -> None:
        with self._runner as runner:
            runner.run(self._stay())

    async def _stay(self) -> None:
        self._is_ready.set()
        while not self._stopping.is_set() and threading.main_thread().is_alive():
            try:
                async with asyncio.timeout(MAIN_THREAD_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        with self._lock:
            self._is_ended = True
        if self._replica is not None:
            try:
                await self._replica.close()
            except CrdtStateError as error:
                self._failure = error


class _Errand:
    """One call on its way to the thread and back."""

    __slots__ = ("_error", "_is_done", "_result", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._is_done = threading.Lock()
        self._is_done.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def carry_out(self) -> None:
        """In the thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # it belongs to whoever called
            self._error = error
        self._is_done.release()

    def result(self) -> Any:
        """In the thread that called; raises what the work raised, with both halves of the way."""
        self._is_done.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # an error and its frames must not hold each other
        return self._result


class _Ended(Exception):
    """An async iteration has ended; `StopAsyncIteration` cannot leave a coroutine."""


def _serve(errands: queue.SimpleQueue[_Errand | None]) -> None:
    while (errand := errands.get()) is not None:
        errand.carry_out()


def _plain(thread: _LoopThread, result: Any) -> Any:
    """What may leave the thread: no view or iterator that would read the container elsewhere."""
    if isinstance(result, KeysView | ItemsView | ValuesView | Iterator):
        return list(result)
    if callable(result) and not isinstance(result, type):
        return thread.bound(result)  # an off switch
    return result


def _inner(container: Observable[EventT]) -> Observable[EventT]:
    if not isinstance(container, _Container):
        raise UsageError(f"{container!r} is not a container of a BlockingDocument")
    return cast("Observable[EventT]", container._inner)  # noqa: SLF001 - of this module


async def _opened(path: str | os.PathLike[str], limits: Limits) -> Replica:
    return await Replica.open(path, limits=limits)


async def _all_of(found: AsyncIterator[ResultT]) -> tuple[ResultT, ...]:
    return tuple([each async for each in found])


async def _within(seconds: float | None, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    async with asyncio.timeout(seconds):
        return await work


async def _next_of(begun: Changes[Any]) -> Any:
    try:
        return await begun.__anext__()
    except StopAsyncIteration:
        raise _Ended from None
