"""Texts that stay open while operations come: where they are held, and what is said of them.

A job (`worker_jobs`) needs nothing of an earlier one; a session does.  The sessions of a server
have one process to themselves.  When it ends, all of them end, and whoever has one opens it anew
from what is stored; so one document may cost others the time of that, and nothing else.

In a request the first part is the session's number, then:

    open    client id, name, updates            ──► document
    apply   updates                             ──► operation
    edit    operations                          ──► update
    close                                       ──► nothing

Numbers are varints; documents and operations are as in crdt_state/ot/coding.py.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from crdt_state.errors import CrdtStateError, WorkerFailed
from crdt_state.identifiers import ClientId
from crdt_state.lib0 import Reader, encode_varuint
from crdt_state.ot.coding import encode_operation, read_operation
from crdt_state.replica.operable_text import OperableText
from crdt_state.replica.worker_jobs import Kind, failures_named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from crdt_state.limits import Limits
    from crdt_state.ot import Operation

    Ask: TypeAlias = Callable[[Kind, Sequence[bytes]], Awaitable[list[bytes]]]

__all__ = ["Inline", "Remote", "Sessions", "TextSession"]


class TextSession(Protocol):
    """One text that is held open somewhere.

    Every call may raise what a job may (`Workers`); the session has ended then.
    """

    document: Operation
    """What the text was when it was opened."""

    async def apply(self, updates: Sequence[bytes]) -> Operation:
        """See `OperableText.apply`."""

    async def edit(self, operations: Sequence[Operation]) -> bytes:
        """See `OperableText.edit`."""

    async def close(self) -> None:
        """Let go of it; raises nothing."""


class Inline:
    """A session in this process, for an application that trusts whom it works with."""

    def __init__(self, text: OperableText) -> None:
        self.document = text.document
        self._text = text

    async def apply(self, updates: Sequence[bytes]) -> Operation:
        """See `OperableText.apply`."""
        with failures_named():
            return self._text.apply(updates)

    async def edit(self, operations: Sequence[Operation]) -> bytes:
        """See `OperableText.edit`."""
        with failures_named():
            return self._text.edit(operations)

    async def close(self) -> None:
        """Let go of it."""
        self._text.close()


class Sessions:
    """The sessions of one process, by their numbers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._texts: dict[int, OperableText] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def perform(self, kind: int, parts: Sequence[bytes]) -> tuple[bytes, ...]:
        """Carry out a coded request.  Raises what `worker_jobs.perform` raises."""
        number, *rest = parts
        at = _number_in(number)
        with failures_named():
            match kind:
                case Kind.OPEN_TEXT:
                    client_id, name, *updates = rest
                    client = ClientId(_number_in(client_id))
                    text = OperableText(updates, name.decode(), client, self._limits)
                    self._texts[at] = text
                    return (encode_operation(text.document),)
                case Kind.APPLY_TEXT:
                    return (encode_operation(self._text(at).apply(rest)),)
                case Kind.EDIT_TEXT:
                    return (self._text(at).edit([self._operation(each) for each in rest]),)
                case Kind.CLOSE_TEXT:
                    if (closed := self._texts.pop(at, None)) is not None:
                        closed.close()
                    return ()
                case _:
                    raise ValueError(f"no session knows the kind {kind}")

    def _text(self, number: int) -> OperableText:
        text = self._texts.get(number)
        if text is None:
            raise WorkerFailed("ended", f"session {number} has ended")
        return text

    def _operation(self, data: bytes) -> Operation:
        return _operation_in(data, self._limits)


class Remote:
    """A session in another process, which is asked by `ask`."""

    def __init__(self, number: int, document: Operation, ask: Ask, limits: Limits) -> None:
        self.document = document
        self._number = encode_varuint(number)
        self._ask = ask
        self._limits = limits

    @classmethod
    async def open(
        cls,
        number: int,
        ask: Ask,
        limits: Limits,
        *,
        updates: Sequence[bytes],
        name: str,
        client_id: ClientId,
    ) -> Remote:
        """Have the text `name` of a document opened there."""
        parts = (encode_varuint(number), encode_varuint(client_id), name.encode(), *updates)
        (document,) = await ask(Kind.OPEN_TEXT, parts)
        return cls(number, _operation_in(document, limits), ask, limits)

    async def apply(self, updates: Sequence[bytes]) -> Operation:
        """See `OperableText.apply`."""
        (operation,) = await self._ask(Kind.APPLY_TEXT, (self._number, *updates))
        return _operation_in(operation, self._limits)

    async def edit(self, operations: Sequence[Operation]) -> bytes:
        """See `OperableText.edit`."""
        coded = map(encode_operation, operations)
        (update,) = await self._ask(Kind.EDIT_TEXT, (self._number, *coded))
        return update

    async def close(self) -> None:
        """See `TextSession`."""
        with suppress(CrdtStateError):  # where its process has ended, so has it
            await self._ask(Kind.CLOSE_TEXT, (self._number,))


def _number_in(data: bytes) -> int:
    reader = Reader(data)
    number = reader.varuint()
    reader.finish()
    return number


def _operation_in(data: bytes, limits: Limits) -> Operation:
    reader = Reader(data)
    operation = read_operation(reader, limits=limits)
    reader.finish()
    return operation
