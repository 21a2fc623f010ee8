"""The awareness of one channel between replicas: what is shown to the peer, and what it shows.

A peer that does not keep up is shown the latest of each client once its connection has drained, in
messages that are small enough for others to go on in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_state.model.awareness import encode_awareness
from crdt_state.transport.unshown import Unshown

if TYPE_CHECKING:
    from crdt_state.identifiers import ReplicaId
    from crdt_state.model.awareness import AwarenessEntry
    from crdt_state.protocol.peer.messages import Awareness
    from crdt_state.replica.gathering import Shown
    from crdt_state.replica.shell import ReplicaShell
    from crdt_state.transport.channel import Channel
    from crdt_state.transport.peer_connection import PeerConnection

__all__ = ["Showing"]

SHOWN_BYTES = 32 * 1024
"""About what one message shows; a single state may be larger."""


class Showing:
    """One channel's place at the gathering of its document."""

    def __init__(self, shell: ReplicaShell, wire: PeerConnection, channel: Channel) -> None:
        self._gatherings = shell.gatherings
        self._wire = wire
        self._channel = channel
        self._unshown: Unshown[Shown] = Unshown(shell.limits)
        self._is_over = False

    def begin(self, *, is_dialled: bool) -> None:
        """Show the peer who is here, and be told from now on."""
        gathering = self._gatherings.of(self._channel.document)
        if is_dialled:
            gathering.renew()
        gathering.meet(
            self._channel.source, self._channel.peer, self._show, is_guest=not is_dialled
        )

    def end(self) -> None:
        """The channel is over; who was known by it alone is gone.  A second call does nothing."""
        if not self._is_over:
            self._is_over = True
            self._gatherings.leave(self._channel.document, self._channel.source)

    def heard(self, message: Awareness) -> None:
        """The peer shows somebody.  Raises `RemoteProtocolError`."""
        self._gatherings.of(self._channel.document).receive_from(
            self._channel.source,
            message.payload,
            origin=message.origin,
            hops=message.hops,
            may_relay=self._channel.author.may_relay,
        )

    def _show(self, news: list[Shown]) -> None:
        self._unshown.put(news)
        self._show_some()

    def _show_some(self) -> None:
        while self._unshown and not self._is_over:
            if not self._wire.keeps_up:
                self._wire.when_drained(self._show_some)
                return
            together: dict[tuple[ReplicaId, int], list[AwarenessEntry]] = {}
            for entry, origin, hops in self._unshown.take(SHOWN_BYTES):
                together.setdefault((origin, hops), []).append(entry)
            for (origin, hops), entries in together.items():
                self._wire.show(self._channel.number, origin, hops, encode_awareness(entries))
            if self._unshown:
                self._wire.flush()  # so that it counts before more is said
