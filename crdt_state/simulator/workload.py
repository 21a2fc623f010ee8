"""People who edit: one container of one open document, a few times, with tags of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdt_state.lineage import LINEAGE_ZERO
from crdt_state.simulator.plan import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from crdt_state.lineage import Lineage
    from crdt_state.model.document import Document
    from crdt_state.simulator.ledger import Entry, Ledger

__all__ = ["Person", "shown"]

KEYS = ("colour", "size", "name")
AMOUNT_MAX = 9


class Person:
    """Edits on behalf of `host`."""

    def __init__(self, ledger: Ledger, host: str, dice: Random, time: Callable[[], float]) -> None:
        self._ledger = ledger
        self._host = host
        self._dice = dice
        self._time = time
        self._lineage = LINEAGE_ZERO

    def edit(
        self, document: Document, container: str, lineage: Lineage = LINEAGE_ZERO
    ) -> Entry | None:
        """One edit, in one transaction; its entry, where it writes something."""
        self._lineage = lineage
        verb: Callable[[Document], Entry | None] = getattr(self, f"_{container}")
        return verb(document)

    def _text(self, document: Document) -> Entry | None:
        text = document.text("text")
        size = len(text)
        if size and self._dice.random() < 0.25:
            at = self._dice.randrange(size)
            self._replaced(document, "text", text[at])
            text.delete(at)
            return None
        if size and self._dice.random() < 0.1:
            text.format(self._dice.randrange(size), 1, {"bold": True})
            return None
        entry = self._wrote(document, "text")
        # Most people type on where they are; the rest jump about.
        text.insert(size if self._dice.random() < 0.5 else self._dice.randint(0, size), entry.tag)
        return entry

    def _counter(self, document: Document) -> Entry:
        amount = self._dice.randint(1, AMOUNT_MAX)
        entry = self._wrote(document, "counter", amount=amount)
        document.counter("counter").increment(amount)
        return entry

    def _set(self, document: Document) -> Entry | None:
        elements = document.set("set")
        if len(elements) and self._dice.random() < 0.25:
            tag = self._dice.choice(list(elements))
            self._replaced(document, "set", tag)
            elements.discard(tag)
            return None
        entry = self._wrote(document, "set")
        elements.add(entry.tag)
        return entry

    def _map(self, document: Document) -> Entry:
        values = document.map("map")
        key = self._dice.choice(KEYS)
        if key in values:
            self._replaced(document, "map", values[key])
        entry = self._wrote(document, "map")
        values[key] = entry.tag
        return entry

    def _list(self, document: Document) -> Entry | None:
        values = document.list("list")
        if len(values) and self._dice.random() < 0.25:
            at = self._dice.randrange(len(values))
            self._replaced(document, "list", values[at])
            del values[at]
            return None
        entry = self._wrote(document, "list")
        values.insert(self._dice.randint(0, len(values)), entry.tag)
        return entry

    def _movable_list(self, document: Document) -> Entry | None:
        values = document.movable_list("movable")
        size = len(values)
        act = self._dice.random()
        if size > 1 and act < 0.35:
            values.move(self._dice.randrange(size), self._dice.randrange(size))
            return None
        if size and act < 0.5:
            at = self._dice.randrange(size)
            self._replaced(document, "movable_list", values[at])
            del values[at]
            return None
        entry = self._wrote(document, "movable_list")
        if size and act < 0.6:
            at = self._dice.randrange(size)
            self._replaced(document, "movable_list", values[at])
            # Of two values given to one element at once, one shows.
            entry.is_replaced = True
            values[at] = entry.tag
        else:
            values.insert(self._dice.randint(0, size), entry.tag)
        return entry

    def _register(self, document: Document) -> Entry:
        entry = self._wrote(document, "register")
        document.register("register").set(entry.tag)
        return entry

    def _multi_value_register(self, document: Document) -> Entry:
        register = document.multi_value_register("multi")
        for tag in register.values:
            self._replaced(document, "multi_value_register", tag)
        entry = self._wrote(document, "multi_value_register")
        register.set(entry.tag)
        return entry

    def _wrote(self, document: Document, container: str, *, amount: int = 1) -> Entry:
        may_be_astral = document.id == DOCUMENTS[-1]
        tag = self._ledger.new_tag(self._host, container, may_be_astral=may_be_astral)
        return self._ledger.wrote(
            document.id,
            container,
            tag,
            host=self._host,
            opening=document,
            at=self._time(),
            amount=amount,
            lineage=self._lineage,
        )

    def _replaced(self, document: Document, container: str, tag: Any) -> None:
        self._ledger.replaced(document.id, container, tag, self._lineage)


def shown(document: Document) -> dict[str, Any]:
    """What people see of a document, by container."""
    return {
        "text": str(document.text("text")),
        "counter": document.counter("counter").value,
        "set": sorted(document.set("set")),
        "map": dict(sorted(document.map("map").items())),
        "list": list(document.list("list")),
        "movable_list": list(document.movable_list("movable")),
        "register": document.register("register").value,
        "multi_value_register": sorted(document.multi_value_register("multi").values),
    }
