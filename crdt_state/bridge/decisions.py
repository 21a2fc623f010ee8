"""What `Revisions` answers, as values: whoever asked does it, or says it to a client."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from crdt_state.errors import OperationRefused
    from crdt_state.ot import Document, Operation

__all__ = [
    "Accepted",
    "Decision",
    "Malformed",
    "Moved",
    "OutOfOrder",
    "Reason",
    "Repeated",
    "Snapshot",
    "Stale",
]


class Reason(enum.Enum):
    """Why nothing can be said from a base on: its client needs a snapshot."""

    OTHER_EPOCH = "it is of another epoch"
    ABOVE_HEAD = "it is above the head"
    BELOW_FLOOR = "it is below the floor"
    BEYOND_BUDGET = "too much has come since"


@dataclass(frozen=True, slots=True)
class Accepted:
    """To be applied to the text as it is now, and then `observed`, before anything else is.

    `operation` is in code points, and may be `EMPTY`: others have deleted what it was about.  It
    is observed all the same, so that its source is answered.
    """

    operation: Operation


@dataclass(frozen=True, slots=True)
class Repeated:
    """Applied already, as revision `number`: to be acknowledged, once that is durable."""

    number: int


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """Not the sequence that is `expected` of its source: it has been passed, or one is missing."""

    expected: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The base is not in reach; the client is to go on from a snapshot."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Malformed:
    """No operation on the text at its base; `error` says what of it is not."""

    error: OperationRefused


Decision: TypeAlias = Accepted | Repeated | OutOfOrder | Stale | Malformed


@dataclass(frozen=True, slots=True)
class Moved:
    """Positions of a base as they are in revision `number`, in the same measure."""

    number: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The document at revision `number`, from which a client goes on.

    `sequence` is the last of that client's source that is in it, 0 if there is none, and None if
    that has been forgotten.
    """

    number: int
    document: Document
    sequence: int | None
