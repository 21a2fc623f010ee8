"""What two people typed at once: the reference trace, or one made up here.

A transaction was made on a version of the text: everything its author had typed before, and a
certain number of the other's transactions.  Because the trace's people never forget what they
have seen, that one number (`needs`) says the whole ancestry.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from crdt_state.errors import NotImportable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "PEOPLE",
    "Patch",
    "Trace",
    "Transaction",
    "find_reference",
    "generate",
    "read_reference",
]

PEOPLE = 2
REFERENCE = Path("editing-traces", "friendsforever_concurrent.json.gz")
DATA_VARIABLE = "CRDT_STATE_DATA"
GENERATED_TRANSACTIONS = 8_000
WORDS = [
    "the",
    "café",
    "opens",
    "at",
    "nine",
    "🙂",
    "and",
    "東京",
    "sleeps",
    "while",
    "🎈🎈",
    "drift",
    "over",
    "naïve",
    "old",
    "quiet",
    "rooms",
]


class Patch(NamedTuple):
    """At code point `position`, `deleted` code points make room for `inserted`."""

    position: int
    deleted: int
    inserted: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """One person's edit, made on all of their own and the first `needs` of the other's."""

    person: int
    needs: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Who typed what on what, in an order in which causes come first, and what it comes to."""

    name: str
    transactions: tuple[Transaction, ...]
    end: str


def find_reference(root: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The reference trace: in the folder that `CRDT_STATE_DATA` names, else beside `root`.

    None where there is none.  Raises `NotImportable` when the variable names a folder without it.
    """
    named = environment.get(DATA_VARIABLE)
    path = Path(named or root.parent / "shared" / "data") / REFERENCE
    if path.is_file():
        return path
    if named:
        raise NotImportable(str(path), f"there is no such file; {DATA_VARIABLE} names its folder")
    return None


def read_reference(path: Path) -> Trace:
    """A trace in the format of josephg/editing-traces, kind `concurrent`, of two people.

    Raises `NotImportable`, `OSError`.
    """
    try:
        data = json.loads(gzip.decompress(path.read_bytes()))
        return Trace(path.name.partition(".")[0], tuple(_linear(data["txns"])), data["endContent"])
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise NotImportable(str(path), f"not a concurrent editing trace: {error}") from error


def _linear(rows: Sequence[Mapping[str, Any]]) -> Iterable[Transaction]:
    """Turn the graph of `parents` into one number a transaction."""
    made = [0] * PEOPLE
    versions: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        person = row["agent"]
        if person not in range(PEOPLE) or any(parent >= number for parent in row["parents"]):
            raise ValueError(f"transaction {number} is not by one of two people on earlier ones")
        seen = [
            max(versions[parent][one] for parent in row["parents"]) if row["parents"] else 0
            for one in range(PEOPLE)
        ]
        if seen[person] != made[person]:
            raise ValueError(f"transaction {number} forgets what its own author typed before")
        yield Transaction(
            person, seen[1 - person], tuple(Patch(*patch) for patch in row["patches"])
        )
        made[person] += 1
        seen[person] = made[person]
        versions.append(tuple(seen))


def generate(seed: int, transactions: int = GENERATED_TRANSACTIONS) -> Trace:
    """Two people at the two sides of one line, each on a version that lacks some of the other's.

    What it comes to is known without any merging: neither edits across the line, so each side is
    what its author typed there, a plain string; only positions on the right depend on how much
    of the left side its author had seen.
    """
    dice = Random(seed)  # noqa: S311 - a made-up text
    sides = ["", ""]
    lengths_of_left = [0, 0]  # after each transaction on the left; the first one draws the line
    made, needs = [1, 0], [0, 1]
    made_up = [Transaction(0, 0, (Patch(0, 0, "\n"),))]
    person = 1
    while len(made_up) < transactions:
        if dice.random() < 0.1:
            person = 1 - person
        if dice.random() < 0.05:
            needs[person] = dice.randint(needs[person], made[1 - person])
        offset = 0 if person == 0 else lengths_of_left[needs[1]] + 1
        at, deleted, inserted = _typed(sides[person], dice)
        sides[person] = sides[person][:at] + inserted + sides[person][at + deleted :]
        made_up.append(Transaction(person, needs[person], (Patch(offset + at, deleted, inserted),)))
        made[person] += 1
        if person == 0:
            lengths_of_left.append(len(sides[0]))
    return Trace(f"generated from seed {seed}", tuple(made_up), "\n".join(sides))


def _typed(text: str, dice: Random) -> Patch:
    # Mostly at the end, as people do, and now and then somewhere else.
    at = len(text) if dice.random() < 0.8 else dice.randint(0, len(text))
    deleted = min(dice.randint(1, 6), len(text) - at) if dice.random() < 0.3 else 0
    return Patch(at, deleted, "" if deleted and dice.random() < 0.7 else dice.choice(WORDS) + " ")
