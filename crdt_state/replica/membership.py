"""What two members of a topology say of themselves to each other, before anything else.

A replica takes part by having a `Membership`; whoever runs connections asks it what to say, and
gives it what was heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crdt_state.identifiers import DocumentId, ReplicaId
    from crdt_state.protocol.peer.messages import Member, Members

__all__ = ["Membership"]


class Membership(Protocol):
    """One replica's part in a topology, as its connections see it.  Nothing here waits."""

    def says(self) -> Member:
        """What this replica says of itself."""

    def heard(self, replica: ReplicaId, said: Member, *, may_relay: bool) -> None:
        """What the replica at the other end says of itself.

        Raises `EpochOutdated` where that is of an epoch that has ended.
        """

    def tells(self) -> Members:
        """Some of those that this replica knows."""

    def heard_of(self, tales: Members) -> None:
        """Whom the replica at the other end, which may relay, knows."""

    def opened(self, document: DocumentId) -> None:
        """Another replica has come for a document."""
