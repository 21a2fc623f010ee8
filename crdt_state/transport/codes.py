"""Close codes: those of WebSocket that are used here, and our own.

What each asks of the other side is in PROTOCOL.md, section 1.5.  An error that has a code of its
own (crdt_state/errors.py) is the one to raise; these are for who closes without one, and for who
reads why it was closed.

RFC 6455, section 7.4.1.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLOSED",
    "DEPENDS_ON_REFUSED",
    "EXPIRED",
    "FORBIDDEN",
    "GOING_AWAY",
    "GONE",
    "HARMFUL",
    "INTERNAL",
    "MALFORMED",
    "NOT_BINARY",
    "NOT_HEAD",
    "NOT_WEBSOCKET",
    "NO_DOCUMENT",
    "NO_ROOM",
    "OTHER_LINEAGE",
    "REFUSES_THE_DOCUMENT",
    "REFUSES_US",
    "REFUSES_WHAT_WE_BRING",
    "RESTARTING",
    "SET_ASIDE",
    "TOO_BIG",
    "TOO_LARGE",
    "TOO_MANY",
    "TOO_SLOW",
    "TRY_AGAIN_LATER",
    "VERSION_UNKNOWN",
]

CLOSED: Final = 1000
GOING_AWAY: Final = 1001
NOT_WEBSOCKET: Final = 1002
NOT_BINARY: Final = 1003
GONE: Final = 1006
"""Nobody sends it: the connection has ended without a word."""
TOO_BIG: Final = 1009
"""A message that the other side does not take."""
INTERNAL: Final = 1011
RESTARTING: Final = 1012
TRY_AGAIN_LATER: Final = 1013
"""The disk or the machine is to blame, or something takes the document's place."""

MALFORMED: Final = 4400
EXPIRED: Final = 4401
FORBIDDEN: Final = 4403
NO_DOCUMENT: Final = 4404
"""It is no document's id, or the document was deleted."""
VERSION_UNKNOWN: Final = 4406
TOO_SLOW: Final = 4408
OTHER_LINEAGE: Final = 4409
TOO_LARGE: Final = 4413
"""An update beyond a bound."""
NOT_HEAD: Final = 4421
HARMFUL: Final = 4422
"""An update that is malformed, or would harm the engine."""
SET_ASIDE: Final = 4423
DEPENDS_ON_REFUSED: Final = 4424
TOO_MANY: Final = 4429
NO_ROOM: Final = 4430

REFUSES_WHAT_WE_BRING: Final = frozenset({TOO_LARGE, HARMFUL, DEPENDS_ON_REFUSED})
REFUSES_THE_DOCUMENT: Final = frozenset({NO_DOCUMENT, OTHER_LINEAGE, NOT_HEAD, SET_ASIDE, NO_ROOM})
"""Or any more of it: what we hold is as good as before, and may be let in another day."""
REFUSES_US: Final = frozenset({EXPIRED, FORBIDDEN, TOO_MANY}) | REFUSES_THE_DOCUMENT
