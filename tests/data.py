"""Reads the editing traces of the data folder: keystrokes of real documents, in code points.

(`reference` reads the Yjs sessions and documents.)
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = [
    "CONCURRENT",
    "SEQUENTIAL",
    "Spelling",
    "Patch",
    "Trace",
    "Transaction",
    "as_cjk",
    "as_emoji",
    "trace",
]

SEQUENTIAL = ("automerge-paper", "friendsforever_flat", "json-crdt-patch", "sveltecomponent")
CONCURRENT = "friendsforever_concurrent"

Spelling: TypeAlias = "Callable[[str], str]"


class Patch(NamedTuple):
    """At `position`, delete so many code points, then insert."""

    position: int
    deleted: int
    inserted: str


class Transaction(NamedTuple):
    """What one agent did at once, on exactly the state that `parents` (indices) make."""

    patches: tuple[Patch, ...]
    agent: int = 0
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """A document's history and its outcome."""

    name: str
    start: str
    end: str
    transactions: tuple[Transaction, ...]
    agents: int = 1

    def prefix(self, count: int) -> Trace:
        """Only the first transactions of a sequential trace, with what they lead to."""
        assert self.agents == 1
        text = self.start
        for transaction in self.transactions[:count]:
            for position, deleted, inserted in transaction.patches:
                text = text[:position] + inserted + text[position + deleted :]
        return Trace(self.name, self.start, text, self.transactions[:count])

    def spelt(self, spell: Callable[[str], str]) -> Trace:
        """The same keystrokes with every character spelt otherwise, one for one."""
        return Trace(
            self.name,
            spell(self.start),
            spell(self.end),
            tuple(
                transaction._replace(
                    patches=tuple(
                        patch._replace(inserted=spell(patch.inserted))
                        for patch in transaction.patches
                    )
                )
                for transaction in self.transactions
            ),
            self.agents,
        )


def trace(folder: Path, name: str) -> Trace:
    """The trace of this name."""
    read = json.loads(gzip.decompress((folder / "editing-traces" / f"{name}.json.gz").read_bytes()))
    transactions = tuple(
        Transaction(
            tuple(Patch(*patch) for patch in entry["patches"]),
            entry.get("agent", 0),
            tuple(entry.get("parents", ())),
        )
        for entry in read["txns"]
    )
    agents = read.get("numAgents", 1)
    return Trace(name, read.get("startContent", ""), read["endContent"], transactions, agents)


def as_emoji(text: str) -> str:
    """Every ASCII letter as an emoji: two UTF-16 units and four UTF-8 bytes each."""
    return text.translate(_letters_from(0x1F400))


def as_cjk(text: str) -> str:
    """Every ASCII letter as a CJK character: one UTF-16 unit and three UTF-8 bytes each."""
    return text.translate(_letters_from(0x4E00))


def _letters_from(first: int) -> dict[int, int]:
    letters: Iterable[int] = [*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]
    return {letter: first + number for number, letter in enumerate(letters)}
