"""How the kinds of containers lie on Yjs roots: their names, and the stamps inside them.

A text, map or list is exactly the Yjs root of its name.  The other kinds live in roots whose name
is the container's name and a suffix, so that they never mix with a plain root, and whoever lists
the roots of a document can tell what each of them is.  PROTOCOL.md shows what lies in them.

Sets, registers and movable lists are Yjs arrays of rows, one row per write: a writer deletes the
rows it replaces and inserts its own.  The Yjs id of a row is the unique tag of the literature, so
"remove what was observed" is what an array's delete does.  A map with a key per write would keep
every key for ever, while the deleted rows of an array merge into runs.

A stamp is a pair of numbers, (hybrid time in microseconds, client id of the writer); the greater
pair wins.  One client id is one opening of a document, so no two writers share a stamp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crdt_state.clocks import HybridTime
from crdt_state.identifiers import CLIENT_ID_MAX
from crdt_state.lib0 import VARUINT_MAX

if TYPE_CHECKING:
    from crdt_state.clocks import HybridClock
    from crdt_state.identifiers import ClientId

__all__ = [
    "COUNTER",
    "KIND_SUFFIXES",
    "MOVABLE_LIST",
    "MULTI_VALUE_REGISTER",
    "REGISTER",
    "SET",
    "TIME_MAX",
    "Stamp",
    "kind_of_root",
    "next_stamp",
    "stamp_from",
]

COUNTER: Final = "#counter"
SET: Final = "#set"
MOVABLE_LIST: Final = "#movable"
REGISTER: Final = "#register"
MULTI_VALUE_REGISTER: Final = "#multi"

KIND_SUFFIXES: Final = {
    COUNTER: "counter",
    SET: "set",
    MOVABLE_LIST: "movable list",
    REGISTER: "register",
    MULTI_VALUE_REGISTER: "multi-value register",
}

TIME_MAX: Final = VARUINT_MAX
"""Greater times are not numbers that every program reads alike; year 2255."""


class Stamp(NamedTuple):
    """When and by whom; compares by time, then by writer."""

    time: int
    writer: int


def kind_of_root(root: str) -> tuple[str, str] | None:
    """The container's name and kind that `root` is for, or None for a plain Yjs root."""
    name, mark, suffix = root.rpartition("#")
    kind = KIND_SUFFIXES.get(mark + suffix)
    return None if kind is None else (name, kind)


def stamp_from(time: Any, writer: Any) -> Stamp | None:
    """The stamp of two values found in a row, or None where a foreign program wrote nonsense."""
    if type(time) is not int or type(writer) is not int:
        return None
    if not (0 <= time <= TIME_MAX and 0 <= writer <= CLIENT_ID_MAX):
        return None
    return Stamp(time, writer)


def next_stamp(clock: HybridClock, writer: ClientId, *, seen: int | None = None) -> Stamp:
    """A stamp for a write that must show over everything up to the time `seen`.

    A hostile time at the end of the range cannot be topped; the write shows all the same,
    because it deletes the rows it has seen.
    """
    after = None if seen is None else HybridTime(seen)
    return Stamp(min(clock.next(after=after), TIME_MAX), writer)
