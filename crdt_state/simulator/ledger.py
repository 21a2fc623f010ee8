"""What was written by whom, and which stores have promised to keep it.

Every edit brings a tag that nobody else ever writes: a character, an element, a value.  So what
is in a document can be held against what was written, and what was promised against both.

1. A store's promise counts from the moment it was given (`saved`, or `synced` for the remote).
2. It ends only where the simulation itself took what was promised away: an older state put back,
   a damaged file replaced; and with the lineage that the edit was made in, which is `lives`'
   business.  A loss of power ends no promise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crdt_state.lineage import LINEAGE_ZERO, Life, Lineage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crdt_state.identifiers import DocumentId

__all__ = ["UNBORN", "Entry", "Ledger"]

UNBORN = Lineage(b"unborn")
"""The lineage of what a person seeds, until a store has taken it."""

FIRST_CHARACTER = 0x4E00
FIRST_ASTRAL_CHARACTER = 0x20000
ASTRAL_EVERY = 3
"""One character in so many lies beyond the first plane, and is two code units to Yjs."""


@dataclass(slots=True, eq=False)
class Entry:
    """One edit that wrote something."""

    document: DocumentId
    container: str
    tag: str
    amount: int
    host: str
    opening: object
    """The open document it was made in: handed back, an edit is in none of its promises."""
    at: float
    """When it was made."""
    lineage: Lineage = LINEAGE_ZERO
    """The one of its document that it was made in."""
    reach: dict[int, int] = field(default_factory=dict)
    """How far the update that holds it reaches, by client id."""
    is_replaced: bool = False
    """Whether somebody deleted or overwrote it, successfully or not."""
    kept_by: dict[str, float] = field(default_factory=dict)
    """Which stores promised to keep it, and when."""
    is_rebased: bool = False
    """Whether somebody has made it once more in a later lineage."""

    @property
    def life(self) -> Life:
        """The life that it counts in."""
        return Life(self.lineage)


class Ledger:
    """All entries, by document, lineage and container."""

    def __init__(self) -> None:
        self._entries: dict[tuple[DocumentId, Lineage, str], dict[str, Entry]] = {}
        self._next = 0

    def new_tag(self, host: str, container: str, *, may_be_astral: bool = False) -> str:
        """A tag that nobody has written: for a text one character, else a word."""
        self._next += 1
        if container != "text":
            return f"{host} {self._next}"
        is_astral = may_be_astral and self._next % ASTRAL_EVERY == 0
        return chr((FIRST_ASTRAL_CHARACTER if is_astral else FIRST_CHARACTER) + self._next)

    def wrote(
        self,
        document: DocumentId,
        container: str,
        tag: str,
        *,
        host: str,
        opening: object,
        at: float,
        amount: int = 1,
        lineage: Lineage = LINEAGE_ZERO,
    ) -> Entry:
        """An edit is being made."""
        entry = Entry(document, container, tag, amount, host, opening, at, lineage)
        if lineage != UNBORN:
            self.enter(entry)
        return entry

    def enter(self, entry: Entry) -> None:
        """An edit counts in its document and lineage from now on."""
        place = entry.document, entry.lineage, entry.container
        self._entries.setdefault(place, {})[entry.tag] = entry

    def replaced(
        self, document: DocumentId, container: str, tag: str, lineage: Lineage = LINEAGE_ZERO
    ) -> None:
        """An edit that deletes or overwrites `tag` is being made."""
        entry = self.of(document, container, lineage).get(tag)
        if entry is not None:
            entry.is_replaced = True

    def promised(self, entries: Iterable[Entry], store: str, at: float) -> None:
        """`store` keeps these from now on."""
        for entry in entries:
            entry.kept_by.setdefault(store, at)

    def taken_away(self, store: str, since: float) -> None:
        """What `store` promised after `since` is not there any more, and that is our doing."""
        for entry in self:
            if entry.kept_by.get(store, since) > since:
                del entry.kept_by[store]

    def of(
        self, document: DocumentId, container: str, lineage: Lineage = LINEAGE_ZERO
    ) -> dict[str, Entry]:
        """What was written into one container in one lineage, by its tag."""
        return self._entries.get((document, lineage, container), {})

    def made_in(self, document: DocumentId, lineage: Lineage) -> list[Entry]:
        """What was written in one lineage of a document."""
        return [
            entry
            for place, entries in self._entries.items()
            if place[:2] == (document, lineage)
            for entry in entries.values()
        ]

    def lineages_of(self, document: DocumentId, container: str, tag: str) -> list[Lineage]:
        """In which lineages of a document somebody wrote this tag."""
        return [
            lineage
            for (each, lineage, place), entries in self._entries.items()
            if (each, place) == (document, container) and tag in entries
        ]

    def kept_by(self, store: str, document: DocumentId) -> list[Entry]:
        """What `store` has promised to keep of a document."""
        return [entry for entry in self if entry.document == document and store in entry.kept_by]

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            yield from entries.values()
