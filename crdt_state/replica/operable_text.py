"""A text in the engine's memory, read and written by operations: the CRDT's side of `bridge`.

    updates of others ──► apply ──► the operation that they came to
    operations        ──► edit ───► the update that says the same

Nothing is trusted to be what it should: after either, the text is read from the engine.  Where
what others changed was told wrongly, what differs is found anew; where an operation had another
effect (a Yjs text lends its formatting to what is inserted), that is put right in the same
transaction's update, or nothing of it counts.

It holds foreign bytes, so on a server it lives in a worker process (`workers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdt_state.clocks import HybridClock, SystemClock
from crdt_state.errors import EngineFailed, OperationRefused
from crdt_state.identifiers import DocumentId, Incarnation
from crdt_state.model import engine, surrogates
from crdt_state.model.document import Document as CrdtDocument
from crdt_state.model.text import Delete as TextDelete
from crdt_state.model.text import Insert as TextInsert
from crdt_state.model.text import Retain as TextRetain
from crdt_state.ot import (
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    apply,
    compose,
    diff,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crdt_state.identifiers import ClientId
    from crdt_state.limits import Limits
    from crdt_state.model.text import Delta, Text

__all__ = ["OperableText", "document_of"]

CORRECTIONS_MAX = 3
"""How often what an operation came to is put right, before nothing of it counts."""


class OperableText:
    """The text `name` of one document, open under a client id of its own, until `close`."""

    def __init__(
        self, updates: Iterable[bytes], name: str, client_id: ClientId, limits: Limits
    ) -> None:
        """`updates` are the whole document.  Raises `UpdateRefused`, `EngineFailed`."""
        self._limits = limits
        clock = HybridClock(SystemClock(), drift_seconds_max=0)
        self._crdt = CrdtDocument(
            DocumentId("text"),
            surrogates.heal(updates, limits),
            client_id=client_id,
            incarnation=Incarnation(bytes(16)),
            clock=clock,
            limits=limits,
        )
        try:
            self._text: Text = self._crdt.text(name)
            self.document = document_of(self._text, limits)
            """What it is now, as the operation that inserts it."""
        except BaseException:
            self._crdt.close()
            raise

    def apply(self, updates: Sequence[bytes]) -> Operation:
        """Integrate updates that others made; gives what that has changed.

        Raises `UpdateRefused` and `EngineFailed`: it is to be closed then.
        """
        told: list[Delta] = []
        stop = self._text.observe(lambda event: told.append(event.delta))
        try:
            for update in surrogates.heal(updates, self._limits):
                self._crdt.apply(update)
        finally:
            stop()
        before, self.document = self.document, document_of(self._text, self._limits)
        if self.document == before:
            return Operation()
        try:
            change = Operation()
            for delta in told:
                change = compose(change, _operation_of(delta, self._limits))
            if apply(before, change) == self.document:
                return change
        except OperationRefused:
            pass  # told wrongly: what the text is now decides
        return diff(before, self.document, limits=self._limits)

    def edit(self, operations: Sequence[Operation]) -> bytes:
        """Carry out operations, one after another; gives one update, which does exactly that.

        Raises `EngineFailed`, where the engine could not be brought to do so: it is to be closed.
        """
        expected = self.document
        made: list[bytes] = []
        stop = self._crdt.on_update(lambda update, _: made.append(update))
        try:
            with self._crdt.transaction():
                for operation in operations:
                    self._text.edit(_delta_of(operation, expected))
                    expected = apply(expected, operation)
            for _ in range(CORRECTIONS_MAX):
                found = document_of(self._text, self._limits)
                if found == expected:
                    break
                self._text.edit(_delta_of(diff(found, expected, limits=self._limits), found))
            else:
                raise EngineFailed("a text could not be brought to what an operation makes of it")
        finally:
            stop()
        self.document = expected
        return engine.merge(made) if len(made) > 1 else b"".join(made)

    def close(self) -> None:
        """Let go of the engine's memory."""
        self._crdt.close()


def document_of(text: Text, limits: Limits) -> Operation:
    """A text as the operation that inserts it."""
    return Operation.of(
        *(Insert(_content_of(run.content, limits), _held(run.attributes)) for run in text.runs())
    )


def _content_of(value: Any, limits: Limits) -> str | Embed:
    """What is embedded by a Yjs program may be anything; it takes one place, whatever it is."""
    if isinstance(value, str):
        return value
    try:
        return Embed.of(value if isinstance(value, dict) and value else {"value": value})
    except OperationRefused:
        return Embed.of({"value": None}, limits=limits)


def _held(attributes: Mapping[str, Any] | None) -> Attributes | None:
    """Attributes that hold."""
    found = {name: value for name, value in (attributes or {}).items() if value is not None}
    return Attributes.of(found) if found else None


def _operation_of(delta: Delta, limits: Limits) -> Operation:
    """What an event tells, as an operation."""
    components: list[Retain | Insert | Delete] = []
    for part in delta:
        match part:
            case TextRetain(count, attributes):
                components.append(Retain(count, Attributes.of(attributes) if attributes else None))
            case TextDelete(count):
                components.append(Delete(count))
            case TextInsert(content, attributes):
                components.append(Insert(_content_of(content, limits), _held(attributes)))
    return Operation.of(*components)


def _delta_of(operation: Operation, document: Operation) -> Delta:
    """An operation on `document`, as the engine is told to carry it out.

    What is inserted says of each attribute that holds somewhere in the text whether it has it, for
    else the engine lends it those that hold where it comes.
    """
    held = {name: None for piece in document.components for name in _names_of(piece)}
    for component in operation.components:
        held |= dict.fromkeys(_names_of(component))
    parts: list[TextRetain | TextInsert | TextDelete] = []
    for component in operation.components:
        if type(component) is Delete:
            parts.append(TextDelete(component.count))
        elif type(component) is Retain:
            parts.append(TextRetain(component.count, _plain(component.attributes)))
        elif type(component) is Insert:
            content = component.content
            value = content.value if isinstance(content, Embed) else content
            attributes = {**held, **(_plain(component.attributes) or {})}
            parts.append(TextInsert(value, attributes or None))
    return tuple(parts)


def _names_of(component: Retain | Insert | Delete) -> Iterable[str]:
    if type(component) is Delete or component.attributes is None:
        return ()
    return component.attributes


def _plain(attributes: Attributes | None) -> dict[str, Any] | None:
    return None if attributes is None else dict(attributes)
