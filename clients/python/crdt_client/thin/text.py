"""A text in an application's hands: shown, edited and observed, with a connection or without.

    text.insert(0, "hello ")
    text.observe(lambda change: editor.apply(change))
    await text.saved()

Places are in code points; an embed is one.  Everything happens in one event loop: an edit shows at
once and waits for nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from crdt_client.thin.conversation import Acknowledged, Changed, CursorsMoved, Standing
from crdt_client.thin.messages import HandedBack
from crdt_client.thin.progress import Progress
from crdt_state.errors import (
    DocumentClosed,
    EditHandedBack,
    ObserversFailed,
    RequestRefused,
    UsageError,
)
from crdt_state.ot import Attributes, Delete, Insert, Operation, Retain, length_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import TypeVar

    from crdt_client.thin.conversation import Conversation, Event
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot import Document, Embed
    from crdt_state.ot.formats import Format

    T = TypeVar("T")

__all__ = ["ThinText"]

EMBED_SHOWN: Final = "\ufffc"
"""What Unicode has for an object in a text."""

STANDINGS: Final = {
    Standing.REFUSED: Progress.REFUSED,
    Standing.FOLLOWING: Progress.IN_STEP,
}


class ThinText:
    """One document of a `ThinClient`; `ThinClient.open` makes it.

    1. What was edited is in the document, at the server, or handed back: never nowhere.
    2. Observers are told of what others do, never of one's own edits.
    """

    def __init__(
        self,
        document_id: DocumentId,
        talk: Conversation,
        *,
        touched: Callable[[ThinText], None],
        kept: Callable[[], Awaitable[None]],
        close: Callable[[ThinText], Awaitable[None]],
        handed_back: Callable[[ThinText, HandedBack], None] | None,
    ) -> None:
        """`touched` after every edit, `kept` writes down, `close` lets go of the document."""
        self.document_id = document_id
        self.handed_back: list[HandedBack] = []
        """Edits that could not stay, the oldest first, where no callback was given for them.

        They are here until whoever shows them to the user takes them out, and nowhere else.
        """
        self._talk = talk
        self._thin = talk.thin
        self._touched = touched
        self._kept = kept
        self._close = close
        self._hand_back = handed_back
        self._is_connecting = False
        self._is_closed = False
        self._observers: list[Callable[[Operation], None]] = []
        self._cursor_observers: list[Callable[[], None]] = []
        self._saving: dict[asyncio.Future[None], int] = {}
        """Who waits, and after how many acknowledgements all that was edited by then is saved."""
        self._stepping: list[asyncio.Future[None]] = []

    # --- what is shown ---------------------------------------------------------------------------

    @property
    def format(self) -> Format:
        """What this client speaks of it."""
        return self._thin.format

    @property
    def document(self) -> Document:
        """What the user sees: a string, or of rich text an operation that only inserts."""
        return self._thin.document

    def __str__(self) -> str:
        """The text alone, an embed as U+FFFC."""
        document = self._thin.document
        if isinstance(document, str):
            return document
        return "".join(
            each.content if isinstance(each.content, str) else EMBED_SHOWN
            for each in document.components
            if type(each) is Insert
        )

    def __len__(self) -> int:
        return length_of(self._thin.document)

    @property
    def progress(self) -> Progress:
        """How far it is with the server."""
        standing = self._talk.standing
        if standing in STANDINGS:
            return STANDINGS[standing]
        if standing is Standing.APART:
            return Progress.CONNECTING if self._is_connecting else Progress.OFFLINE
        return Progress.CATCHING_UP

    @property
    def last_error(self) -> str | None:
        """Why the server does not show it, while it is REFUSED."""
        refusal = self._talk.refusal
        return None if refusal is None else f"{refusal.message} ({refusal.code})"

    @property
    def is_saved(self) -> bool:
        """Whether everything that was edited here is durable at the server."""
        return self._thin.is_settled

    # --- editing ---------------------------------------------------------------------------------

    def edit(self, operation: Operation) -> None:
        """Change what is shown, in code points.

        Raises `OperationRefused` for what is no operation on it, and `LimitExceeded` where too much
        waits for the server already; nothing has changed then.
        """
        self._check_open()
        self._thin.edit(operation)
        self._talk.pointing.is_due |= bool(self._thin.cursor)
        self._touched(self)

    def insert(self, at: int, content: str | Embed, attributes: Attributes | None = None) -> None:
        """Insert a text or an embed.  Raises as `edit`."""
        self.edit(Operation.of(Retain(at), Insert(content, attributes)))

    def delete(self, at: int, count: int = 1) -> None:
        """Delete so many characters.  Raises as `edit`."""
        self.edit(Operation.of(Retain(at), Delete(count)))

    # --- cursors ---------------------------------------------------------------------------------

    @property
    def cursor(self) -> tuple[int, ...]:
        """The user's own cursor: nothing, a place, or both ends of a selection."""
        return self._thin.cursor

    def place_cursor(self, *positions: int) -> None:
        """The user's cursor stands there, or a selection reaches from one to the other.

        Others are shown it in rich text; without a position they are shown none.  Raises
        `UsageError` outside the text.
        """
        self._check_open()
        if len(positions) > 2:
            raise UsageError("a cursor has one position, and a selection two")
        self._thin.place_cursor(*positions)
        self._talk.pointing.is_due = True
        self._touched(self)

    @property
    def cursors(self) -> dict[str, tuple[int, ...]]:
        """Others' cursors, by the names that they are shown under."""
        return dict(self._thin.cursors)

    # --- following -------------------------------------------------------------------------------

    def observe(self, callback: Callable[[Operation], None]) -> Callable[[], None]:
        """Call `callback(change)` after whatever others did to what is shown; the off switch.

        Also after an edit was taken out again because it could not stay.
        """
        return _subscribe(self._observers, callback)

    def observe_cursors(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` after others have moved, shown or hidden `cursors`; the off switch."""
        return _subscribe(self._cursor_observers, callback)

    async def in_step(self) -> None:
        """Return when the document is as the server has it, and told of everything.

        Waits through disconnections.  Raises `RequestRefused` where the server does not show it,
        and `DocumentClosed`.
        """
        self._check_open()
        self._raise_refusal()
        if self.progress is not Progress.IN_STEP:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._stepping.append(waiter)
            await waiter

    async def saved(self) -> None:
        """Return when everything edited before this call is durable at the server.

        Waits through disconnections.  Raises `EditHandedBack` where something could not stay, and
        `DocumentClosed`.
        """
        self._check_open()
        if not self._thin.is_settled:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # What is in flight, and what waits behind it: all of that goes with the second.
            self._saving[waiter] = 2
            await waiter

    async def kept(self) -> None:
        """Return when everything edited before this call is in this client's own file.

        Raises `StoreFull` and `StoreUnavailable`, and `UsageError` of a client without a store.
        """
        self._check_open()
        await self._kept()

    async def close(self) -> None:
        """Let go of the document; a second call changes nothing.

        What waits for the server is in the client's store, where it has one, and is sent when the
        document is opened again; without a store it is gone, so wait for `saved` first.
        """
        if not self._is_closed:
            await self._close(self)

    # --- for the client --------------------------------------------------------------------------

    def happened(self, events: Iterable[Event], *, is_connecting: bool) -> None:
        """Tell everybody of what the wire has brought.

        Raises `ObserversFailed`, after everybody has been told.
        """
        self._is_connecting = is_connecting
        failures: list[Exception] = []
        for event in events:
            match event:
                case Changed(operation):
                    _call_all(self._observers, failures, operation)
                case CursorsMoved():
                    _call_all(self._cursor_observers, failures)
                case Acknowledged():
                    self._saving = {each: left - 1 for each, left in self._saving.items()}
                case HandedBack():
                    self._give_back(event, failures)
        self._wake()
        if failures:
            raise ObserversFailed(f"callbacks of {self.document_id!r} failed", failures)

    def ended(self) -> None:
        """The document was let go of."""
        self._is_closed = True
        reason = f"{self.document_id!r} was closed before that; open it again"
        _fail([*self._saving, *self._stepping], lambda: DocumentClosed(reason))
        self._saving.clear()
        self._stepping.clear()

    # --- parts -----------------------------------------------------------------------------------

    def _give_back(self, back: HandedBack, failures: list[Exception]) -> None:
        _fail(self._saving, lambda: EditHandedBack(self.document_id, back.why.value, back))
        self._saving.clear()
        if self._hand_back is None:
            self.handed_back.append(back)
            return
        try:
            self._hand_back(self, back)
        except Exception as error:
            # Nowhere else is it any more.
            self.handed_back.append(back)
            failures.append(error)

    def _wake(self) -> None:
        for waiter, left in list(self._saving.items()):
            if left <= 0 or self._thin.is_settled:
                del self._saving[waiter]
                _succeed(waiter)
        stepping, self._stepping = self._stepping, []
        for waiter in stepping:
            if self.progress is Progress.IN_STEP:
                _succeed(waiter)
            elif self.progress is Progress.REFUSED:
                _fail([waiter], self._refusal)
            else:
                self._stepping.append(waiter)

    def _refusal(self) -> RequestRefused:
        refusal = self._talk.refusal
        if refusal is None:
            raise AssertionError("asked for while it is refused")
        return RequestRefused(refusal.code, refusal.message)

    def _raise_refusal(self) -> None:
        if self.progress is Progress.REFUSED:
            raise self._refusal()

    def _check_open(self) -> None:
        if self._is_closed:
            raise DocumentClosed(f"{self.document_id!r} is closed; open it again")


def _call_all(
    callbacks: Iterable[Callable[..., None]], failures: list[Exception], *told: Operation
) -> None:
    for callback in tuple(callbacks):
        try:
            callback(*told)
        except Exception as error:
            failures.append(error)


def _subscribe(callbacks: list[T], callback: T) -> Callable[[], None]:
    callbacks.append(callback)

    def stop() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return stop


def _succeed(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiters: Iterable[asyncio.Future[None]], error: Callable[[], Exception]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error())
