"""What a thin client says, what it is told, and what it hands back, as values.

Operations of `Resume`, `Submit` and `News` are in the measure of the client's format; what its
user sees is in code points.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdt_state.ot import Document, Operation

__all__ = ["HandedBack", "News", "Rejoined", "Resume", "Submit", "Why"]


@dataclass(frozen=True, slots=True)
class Resume:
    """Tell me of everything after `revision`, or where I can go on from; I am `source`.

    Whoever is told so ends every other connection of this `name` first, and reads nothing more from
    it: what is still under way there is sent again here.
    """

    name: str
    source: str
    revision: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Operation number `sequence` of `source`, made on revision `base`."""

    source: str
    sequence: int
    base: int
    operation: Operation


@dataclass(frozen=True, slots=True)
class News:
    """A revision, as a server publishes it; `source` is None where the CRDT brought it."""

    number: int
    operation: Operation
    source: str | None = None
    sequence: int = 0


class Why(enum.Enum):
    """Why an edit could not stay in the document."""

    REFUSED = "the server has refused it"
    IN_DOUBT = "nobody knows whether the server has applied a part of it"
    ANOTHER_TEXT = "most of the text that it was made in is gone"


@dataclass(frozen=True, slots=True)
class HandedBack:
    """An edit that is not in the document any more; it is the user's to make it again.

    `operation` makes of `before` what was shown, so the user can be shown both.
    """

    why: Why
    before: Document
    operation: Operation


@dataclass(frozen=True, slots=True)
class Rejoined:
    """A document that goes on from another state than it had.

    `change` is what that does to what is shown.
    """

    change: Operation
    handed_back: HandedBack | None = None
