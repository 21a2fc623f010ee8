"""One document with one remote over y-websocket, as the side that dials sees it.

y-websocket has no acknowledgement.  What it has is that a step 1 is answered after everything
that came before it on the socket, and that the answer shows what the remote holds.  So after
sending something, we ask with a step 1 whose state vector lacks exactly the last counter of each
client id that we sent: the answer must bring that counter back, and name every deletion we sent.
Then, and only then, is what we sent confirmed.  (States are closed downwards: who holds a
client's counter n holds all below it.  An answer names all deletions whatever the vector says.)

Against our own server the answer also means *durable*, because it is made from durable rows.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import RemoteProtocolError
from crdt_state.model.inspect import inspect
from crdt_state.model.ranges import Intervals
from crdt_state.model.state import encode_state_vector

if TYPE_CHECKING:
    from crdt_state.limits import Limits
    from crdt_state.model.head import Head

__all__ = ["Exchange", "Progress"]


class Progress(Enum):
    """How far a document is with its remote, the least first."""

    OFFLINE = "offline"
    REFUSED = "refused"
    """The remote answers and does not let us in: bring another token, or ask a person there.

    The link goes on trying, and this stays until the remote lets us in or cannot be reached;
    its `last_error` has the remote's reason.
    """
    CONNECTING = "connecting"
    CATCHING_UP = "catching up"
    IN_SYNC = "in sync"


class Exchange:
    """What has been sent on one connection, and what of it is confirmed.

    1. Nothing counts as confirmed before an answer has shown the remote to hold it.
    2. At most one question is open at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.remote_vector: dict[int, int] | None = None
        """What the remote said it held; None until its step 1 has come."""
        self._sent: dict[int, int] = {}
        self._sent_deletes = Intervals()
        self._questions: deque[_Question | None] = deque()

    @property
    def is_asking(self) -> bool:
        """Whether a question about what was sent is open."""
        return any(question is not None for question in self._questions)

    @property
    def owes(self) -> bool:
        """Whether something was sent that no open question covers."""
        return bool(self._sent) or len(self._sent_deletes) > 0

    def sent(self, update: bytes) -> None:
        """Note what an update that was sent holds."""
        inspection = inspect(update, self._limits, merged=True)
        for client, end in inspection.vector.items():
            self._sent[client] = max(end, self._sent.get(client, 0))
        for client, start, end in inspection.deletes:
            self._sent_deletes.add(client, start, end)

    def begin(self) -> None:
        """Our first step 1, which asks for what we lack and is about nothing we sent."""
        self._questions.append(None)

    def ask(self, head: Head) -> bytes:
        """The state vector of a question about all that was sent; `head` is our own."""
        if self.is_asking:
            raise AssertionError("one question at a time")
        self._questions.append(_Question(self._sent, self._sent_deletes))
        wanted = dict(head.vector)
        for client, end in self._sent.items():
            wanted[client] = end - 1
        self._sent, self._sent_deletes = {}, Intervals()
        aligned = head.aligned(wanted)
        return encode_state_vector({client: end for client, end in aligned.items() if end})

    def answered(self, update: bytes) -> bool:
        """Take in a step 2; whether it confirms all that its question was about.

        What it does not confirm is owed again, so that the next question asks for it.  Answers
        come in the order of the questions.  Raises `RemoteProtocolError` for one too many.
        """
        if not self._questions:
            raise RemoteProtocolError("a sync step 2 that nobody asked for")
        question = self._questions.popleft()
        if question is None:
            return False
        answer = inspect(update, self._limits, merged=True)
        held, deleted = Intervals(answer.ranges), Intervals(answer.deletes)
        missing = {
            client: end
            for client, end in question.sent.items()
            if not held.covers(client, end - 1, end)
        }
        undeleted = [range_ for range_ in question.deletes.ranges() if not deleted.covers(*range_)]
        for client, end in missing.items():
            self._sent[client] = max(end, self._sent.get(client, 0))
        for client, start, end in undeleted:
            self._sent_deletes.add(client, start, end)
        return not missing and not undeleted


class _Question(NamedTuple):
    """What had been sent when it was asked."""

    sent: dict[int, int]
    deletes: Intervals
