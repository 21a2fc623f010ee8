"""Cursors of one document over ShareDB's wire: this user's, and those of others.

Of text-unicode the stock type cannot move a position, so nothing is said of its cursors; nor in a
collection whose name has a dot (crdt_state/protocol/sharedb/names.py).

1. One word of one's own cursor is under way at a time: a user who moves it faster than a server
   answers is shown where it is by then.
2. It is said while the server knows the text that it stands in, and only then.
3. Others' are shown at the version that they are said of; those of a later one are held until it
   has come, and there is one for each who shows one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_client.thin.document import Phase
from crdt_state.protocol.sharedb.names import name_of
from crdt_state.protocol.sharedb.parts import Presence
from crdt_state.protocol.sharedb.requests import PresenceSubscribe, PresenceUnsubscribe

if TYPE_CHECKING:
    from crdt_client.thin.document import ThinDocument
    from crdt_state.identifiers import DocumentId
    from crdt_state.ot.json_values import Json
    from crdt_state.protocol.sharedb.requests import Request

__all__ = ["Pointing"]


class Pointing:
    """What is said of cursors; the cursors themselves are the document's (`ThinDocument`)."""

    def __init__(self, document: DocumentId, thin: ThinDocument, name: str) -> None:
        """`name` is what this user's cursor is shown under; nobody else has it."""
        self.is_due = False
        """Whether the user's cursor is to be said, as soon as it means something."""
        self._document = document
        self._thin = thin
        self._name = name
        self._is_spoken = not thin.format.is_plain and "." not in name_of(document)[0]
        self._number = 0
        self._is_shown = False
        """Whether others have been told of one, on this connection."""
        self._is_under_way = False
        self._has_asked = False
        self._held: dict[str, Presence] = {}

    def connected(self) -> None:
        """On a new connection nobody has been told of anything."""
        self.is_due = True
        self._is_shown = self._is_under_way = self._has_asked = False
        self._held.clear()

    def requests_to_send(self) -> list[Request]:
        """What is to be said now of a document that is told of everything."""
        if not self._is_spoken:
            return []
        requests: list[Request] = []
        if not self._has_asked:
            self._has_asked = True
            self._number += 1
            requests.append(PresenceSubscribe(self._document, self._number))
        if self.is_due and not self._is_under_way:
            shown = self._shown()
            if shown is not None:
                requests.append(shown)
        return requests

    def farewell(self) -> list[Request]:
        """What is said at the end of a document on a connection that goes on."""
        requests: list[Request] = []
        if self._is_shown:
            requests.append(self._presence(None, None))
        if self._has_asked:
            self._number += 1
            requests.append(PresenceUnsubscribe(self._document, self._number))
        return requests

    def hear(self, presence: Presence) -> bool:
        """Somebody's cursor, or the answer to one's own; whether others' cursors have changed."""
        name = presence.id
        if name == self._name:
            self._is_under_way = False
            return False
        if presence.value is None:
            self._held.pop(name, None)
            was_there = name in self._thin.cursors
            self._thin.hide_cursor(name)
            return was_there
        if presence.version is None:
            return False
        if presence.version == self._thin.revision and self._thin.phase is Phase.LIVE:
            return self._show(presence)
        is_known = name in self._held
        is_to_come = self._thin.phase is not Phase.LIVE or presence.version > self._thin.revision
        if is_to_come and (is_known or len(self._held) < self._thin.limits.thin_cursors_max):
            self._held[name] = presence
        return False

    def refused(self) -> None:
        """The server does not show the user's cursor; where it goes next is said again."""
        self._is_under_way = False

    def moved_on(self) -> bool:
        """The document is at another revision: show what was held for it."""
        revision = self._thin.revision
        if not self._held or self._thin.phase is not Phase.LIVE:
            return False
        due = [name for name, each in self._held.items() if (each.version or 0) <= revision]
        shown = [self._show(self._held.pop(name)) for name in due]
        return any(shown)

    def _show(self, presence: Presence) -> bool:
        positions = _positions(presence.value)
        if positions is None or presence.version is None:
            return False
        return self._thin.show_cursor(presence.id, positions, presence.version)

    def _shown(self) -> Presence | None:
        """The user's cursor as it is to be said now, if it is."""
        said = self._thin.cursor_to_send()
        if said is None:
            return None
        self.is_due = False
        revision, positions = said
        if not positions:
            return self._presence(None, None) if self._is_shown else None
        start = min(positions)
        self._is_shown = True
        return self._presence({"index": start, "length": max(positions) - start}, revision)

    def _presence(self, value: Json, version: int | None) -> Presence:
        self._number += 1
        self._is_under_way = True
        self._is_shown = value is not None
        return Presence(
            document=self._document,
            id=self._name,
            value=value,
            number=self._number,
            version=version,
            type=self._thin.format.uri,
        )


def _positions(value: Json) -> tuple[int, ...] | None:
    """Where a value of rich-text points to, in units; None if it is none."""
    if not isinstance(value, dict):
        return None
    index, length = value.get("index"), value.get("length", 0)
    if type(index) is not int or type(length) is not int or index < 0 or length < 0:
        return None
    return (index, index + length) if length else (index,)
