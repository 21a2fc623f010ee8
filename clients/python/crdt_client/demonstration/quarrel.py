"""Three people in one place: edits that clash on purpose, and a ledger that knows the outcome.

Every character a person inserts is theirs alone and used once, so that whatever the merged order
is, one can tell a lost character from a deleted one and from a doubled one.  The ledger is plain
Python about what was done; nothing in it has met a CRDT.
"""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from crdt_state.model.document import Document

__all__ = ["Contents", "Ledger", "Quarreller", "author_of", "contents_of", "disagreements"]

ALPHABETS = (0x4E00, 0x5E00, 0x6E00)
"""Where each person's characters begin in CJK Unified Ideographs: 4,096 for each."""
ALPHABET_SIZE = 4_096
SHARED = ("tea", "coffee", "cake")

Contents = dict[str, Any]


@dataclass(slots=True)
class Ledger:
    """What one person did, in plain values; goes through JSON."""

    inserted: str = ""
    deleted: str = ""
    counted: int = 0
    own_elements: list[str] = field(default_factory=list)
    own_keys: dict[str, int] = field(default_factory=dict)
    last_words: list[str] = field(default_factory=list)
    edits: int = 0


class Quarreller:
    """One of the three, at their own opening of the document."""

    def __init__(self, person: int, document: Document, dice: Random) -> None:
        self.ledger = Ledger()
        self._name = f"p{person}"
        self._alphabet = ALPHABETS[person]
        self._dice = dice
        self._text = document.text("text")
        self._counter = document.counter("votes")
        self._set = document.set("guests")
        self._map = document.map("seats")

    def edit(self, times: int) -> None:
        """Insert and delete in the middle, where the others do; and vote, invite, take seats."""
        for _ in range(times):
            draw = self._dice.random()
            if draw < 0.5:
                self._insert()
            elif draw < 0.7:
                self._delete()
            elif draw < 0.82:
                self._vote()
            elif draw < 0.92:
                self._invite()
            else:
                self._take_seat()
            self.ledger.edits += 1

    @property
    def place(self) -> int:
        """The middle of the text, which is one and the same place while nobody has edited."""
        return len(self._text) // 2

    def _insert(self) -> None:
        used = len(self.ledger.inserted)
        count = min(self._dice.randint(1, 4), ALPHABET_SIZE - used)
        new = "".join(chr(self._alphabet + used + step) for step in range(count))
        self._text.insert(self.place, new)
        self.ledger.inserted += new

    def _delete(self) -> None:
        start = max(0, self.place - self._dice.randint(0, 6))
        count = min(self._dice.randint(1, 5), len(self._text) - start)
        self.ledger.deleted += self._text[start : start + count]
        self._text.delete(start, count)

    def _vote(self) -> None:
        amount = self._dice.choice((-2, -1, 1, 2, 3))
        self._counter.add(amount)
        self.ledger.counted += amount

    def _invite(self) -> None:
        shared = self._dice.choice(SHARED)
        if shared in self._set and self._dice.random() < 0.5:
            self._set.discard(shared)
        else:
            self._set.add(shared)
        if self.ledger.own_elements and self._dice.random() < 0.3:
            self._set.remove(self.ledger.own_elements.pop(0))
        else:
            own = f"{self._name}-{self.ledger.edits}"
            self._set.add(own)
            self.ledger.own_elements.append(own)

    def _take_seat(self) -> None:
        key, value = f"{self._name}-{self._dice.randint(1, 9)}", self._dice.randint(1, 1_000)
        self._map[key] = value
        self.ledger.own_keys[key] = value
        word = f"{self._name} at edit {self.ledger.edits}"
        self._map["last word"] = word
        self.ledger.last_words.append(word)


def author_of(character: str) -> int | None:
    """Whose a character is; None for what nobody here inserts."""
    for person, begin in enumerate(ALPHABETS):
        if begin <= ord(character) < begin + ALPHABET_SIZE:
            return person
    return None


def contents_of(document: Document) -> Contents:
    """Everything in the document, as plain values that are equal where the contents are."""
    return {
        "text": str(document.text("text")),
        "votes": document.counter("votes").value,
        "guests": list(document.set("guests")),
        "seats": dict(sorted(document.map("seats").items())),
    }


def disagreements(contents: Contents, ledgers: Sequence[Ledger]) -> list[str]:
    """What the contents are not, in sentences, by what everybody remembers having done."""
    found = []
    inserted = Tally("".join(ledger.inserted for ledger in ledgers))
    deleted = set("".join(ledger.deleted for ledger in ledgers))
    expected = Tally({one: count for one, count in inserted.items() if one not in deleted})
    shown: Tally[str] = Tally(contents["text"])
    for what, difference in (("lost", expected - shown), ("too many", shown - expected)):
        if difference:
            found.append(f"{difference.total():,} characters of the text are {what}")
    votes = sum(ledger.counted for ledger in ledgers)
    if contents["votes"] != votes:
        found.append(f"the counter says {contents['votes']:,}, and {votes:,} were counted")
    own = {element for ledger in ledgers for element in ledger.own_elements}
    if set(contents["guests"]) - set(SHARED) != own:
        found.append("the set does not hold what its members' owners put in and left in")
    return found + _seat_disagreements(contents["seats"], ledgers)


def _seat_disagreements(seats: Mapping[str, Any], ledgers: Sequence[Ledger]) -> list[str]:
    words = {word for ledger in ledgers for word in ledger.last_words}
    own = {key: value for ledger in ledgers for key, value in ledger.own_keys.items()}
    found = []
    if {key: value for key, value in seats.items() if key != "last word"} != own:
        found.append("the map does not hold what was last written to keys that one person writes")
    if words and seats.get("last word") not in words:
        found.append("the map's contested key holds what nobody wrote")
    return found
