"""How far a thin client, or one of its documents, is with its server."""

from __future__ import annotations

from enum import Enum

__all__ = ["Progress"]


class Progress(Enum):
    """The least first."""

    OFFLINE = "offline"
    """Without a connection; edits wait."""
    REFUSED = "refused"
    """The server answers and does not let us in, or does not show the document: `last_error`."""
    CONNECTING = "connecting"
    CATCHING_UP = "catching up"
    IN_STEP = "in step"
    """It is told of everything; whether all that was edited has arrived, `saved` tells."""
