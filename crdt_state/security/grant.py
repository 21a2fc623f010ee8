"""What somebody may do: rights to documents as values, and the patterns they are written in.

A pattern is written like a document's URL path, part by part between slashes:

    notes/today     this document
    notes/*         every document directly below `notes`: a star stands for any characters
                    but a slash, at least one where it is the whole part
    room-*          `room-1`, and `room-` too
    notes/**        everything below `notes`, however deep, but not `notes` itself
    **              every document

`**` is only allowed as the whole last part, so that matching is one walk without backtracking:
its cost is bounded by the length of the id, which a stranger chooses.  What a URL would
percent-encode may be, and a star, a question mark or a percent sign that is meant literally
must be (`%2A`); `pattern_of` writes an id so, and whoever puts ids of others into tokens has
to use it (`quote` of any language does the same), or an id such as `*` grants far more than
itself.

1. What no right covers is not allowed.
2. The right to write includes the right to read.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from crdt_state.errors import InvalidPattern
from crdt_state.identifiers import DOCUMENT_ID_BYTES_MAX, path_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crdt_state.clocks import WallTime
    from crdt_state.identifiers import DocumentId, Scope

__all__ = ["Access", "Right", "Grant", "EVERYTHING", "pattern_of"]

STAR = "*"
ANY_DEPTH = "**"
BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Percent-encoding triples what it encodes; beyond this no pattern can match an id.
PATTERN_CHARACTERS_MAX = 3 * DOCUMENT_ID_BYTES_MAX


class Access(Enum):
    """What a right allows; the values are what stands in a token."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Right:
    """Access to the documents that `pattern` covers.

    Raises `InvalidPattern` when made from anything else than a pattern.
    """

    pattern: str
    access: Access
    _parts: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)
    _is_any_depth: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        *parts, last = _split(self.pattern)
        is_any_depth = last == ANY_DEPTH
        if not is_any_depth:
            parts.append(last)
        pieces = tuple(_pieces(self.pattern, part) for part in parts)
        object.__setattr__(self, "_parts", pieces)
        object.__setattr__(self, "_is_any_depth", is_any_depth)

    def covers(self, document: DocumentId) -> bool:
        """Whether `document` is one of those the pattern stands for."""
        return self.covers_parts(document.split("/"))

    def covers_parts(self, parts: Sequence[str]) -> bool:
        """Answer `covers` for a document that is already split at its slashes."""
        required = len(self._parts)
        if len(parts) <= required if self._is_any_depth else len(parts) != required:
            return False
        return all(map(_part_matches, self._parts, parts))

    def covers_scope(self, scope: Scope) -> bool:
        """Whether every document directly below `scope` is one of those."""
        parts = scope.split("/") if scope else []
        if self._is_any_depth:
            parents = self._parts
        elif self._parts[-1] != ("", ""):
            return False
        else:
            parents = self._parts[:-1]
        if len(parents) > len(parts) if self._is_any_depth else len(parents) != len(parts):
            return False
        return all(map(_part_matches, parents, parts))

    @property
    def prefix(self) -> str:
        """What every id that the pattern covers begins with; for reading a sorted list."""
        literal = []
        for pieces in self._parts:
            literal.append(pieces[0])
            if len(pieces) > 1:
                return "/".join(literal)
        if self._is_any_depth:
            literal.append("")
        return "/".join(literal)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one peer may do, until `expires_at`.

    `identity` is who it is, None where nobody asked.  `may_relay` is the right to bring what
    others wrote (servers and gossiping peers have it, people's editors do not).
    """

    identity: str | None
    rights: tuple[Right, ...]
    expires_at: WallTime | None = None
    may_relay: bool = False

    def may_read(self, document: DocumentId) -> bool:
        """Whether `document` may be read."""
        parts = document.split("/")
        return any(right.covers_parts(parts) for right in self.rights)

    def may_read_all(self, scope: Scope) -> bool:
        """Whether one right alone lets every document of `scope` be read."""
        return any(right.covers_scope(scope) for right in self.rights)

    def may_write(self, document: DocumentId) -> bool:
        """Whether `document` may be edited."""
        parts = document.split("/")
        return any(
            right.access is Access.WRITE and right.covers_parts(parts) for right in self.rights
        )

    def prefixes(self, asked: str = "") -> tuple[str, ...]:
        """Prefixes, sorted and none within another, of whatever may be read below `asked`.

        An id that begins with one of them may still not be readable; all others are not.
        """
        found: list[str] = []
        for prefix in sorted(right.prefix for right in self.rights):
            if prefix.startswith(asked):
                narrowed = prefix
            elif asked.startswith(prefix):
                narrowed = asked
            else:
                continue
            # Sorted, so whatever encloses a prefix stands before it.
            if not found or not narrowed.startswith(found[-1]):
                found.append(narrowed)
        return tuple(found)


def pattern_of(document: DocumentId) -> str:
    """Write `document` as the pattern that covers it and nothing else."""
    return path_of(document).removeprefix("/")


def _split(pattern: str) -> list[str]:
    if not pattern:
        raise InvalidPattern(pattern, "it is empty; '**' stands for every document")
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        reason = f"it is longer than {PATTERN_CHARACTERS_MAX} characters"
        raise InvalidPattern(pattern, reason)
    if BROKEN_ESCAPE.search(pattern):
        raise InvalidPattern(pattern, "a '%' needs two hexadecimal digits; '%25' is a percent sign")
    parts = pattern.split("/")
    if "" in parts:
        raise InvalidPattern(pattern, "a part between slashes is empty; begin without a slash")
    if any(ANY_DEPTH in part for part in parts[:-1]) or (
        ANY_DEPTH in parts[-1] and parts[-1] != ANY_DEPTH
    ):
        raise InvalidPattern(pattern, "'**' may only stand alone as the last part")
    return parts


def _pieces(pattern: str, part: str) -> tuple[str, ...]:
    """Split a part into the literal texts between its stars; one piece means no star."""
    if "?" in part:
        raise InvalidPattern(pattern, "'?' is no wildcard; write '%3F' for a question mark")
    try:
        texts = [unquote_to_bytes(text).decode() for text in part.split(STAR)]
    except UnicodeError:
        raise InvalidPattern(pattern, "it is not UTF-8") from None
    if any("/" in text for text in texts):
        raise InvalidPattern(pattern, "'%2F' would hide a slash; write the slash")
    if texts in (["."], [".."]):
        raise InvalidPattern(pattern, "'.' and '..' are not names")
    return tuple(unicodedata.normalize("NFC", text) for text in texts)


def _part_matches(pieces: tuple[str, ...], part: str) -> bool:
    if len(pieces) == 1:
        return part == pieces[0]
    first, *middle, last = pieces
    if not (part.startswith(first) and part.endswith(last)):
        return False
    at, end = len(first), len(part) - len(last)
    for piece in middle:
        # The leftmost place is always right: it leaves the most room for what follows.
        found = part.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


# Here, because making a right needs the functions above.
EVERYTHING = Grant(identity=None, rights=(Right(ANY_DEPTH, Access.WRITE),), may_relay=True)
"""Every document: what everybody has where authentication is off."""
