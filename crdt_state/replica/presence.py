"""Who else has a document open: awareness with a clock and somebody to send to.

Presence is never stored.  Whom it shows, and to whom, is its document's gathering's to say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from crdt_state.model.awareness import Awareness, encode_awareness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crdt_state.clocks import Clock
    from crdt_state.identifiers import ClientId
    from crdt_state.limits import Limits
    from crdt_state.model.awareness import AwarenessChange, AwarenessEntry

__all__ = ["Presence"]

AnyCallback = TypeVar("AnyCallback")


class Presence:
    """Our state beside those of others, at one document."""

    def __init__(self, client: ClientId, clock: Clock, limits: Limits) -> None:
        self._awareness = Awareness(client, limits=limits)
        self._clock = clock
        self._senders: list[Callable[[bytes], None]] = []
        self._callbacks: list[Callable[[AwarenessChange], None]] = []

    @property
    def states(self) -> dict[ClientId, Any]:
        """Every state that is shown now, our own included, by client id."""
        return self._awareness.states

    def show(self, state: dict[str, Any]) -> None:
        """Show `state` to everyone at this document.  Raises `ValueNotStorable`."""
        self._send(self._awareness.set_local(state, now=self._clock.now()))

    def leave(self) -> None:
        """Show nothing any more."""
        farewell = self._awareness.leave(now=self._clock.now())
        if farewell is not None:
            self._send(farewell)

    def observe(self, callback: Callable[[AwarenessChange], None]) -> Callable[[], None]:
        """Call back when somebody comes, changes or leaves; returns the off switch."""
        self._callbacks.append(callback)
        return lambda: _forget(self._callbacks, callback)

    # --- for the gathering -------------------------------------------------------------------

    def attach(self, send: Callable[[bytes], None]) -> Callable[[], None]:
        """Send what we show through `send` as well; returns the off switch."""
        self._senders.append(send)
        return lambda: _forget(self._senders, send)

    def renew(self) -> None:
        """Show what we show once more, with a raised clock.

        Peers that took us for gone when the last connection ended ignore the clock they knew us by.
        """
        state = self._awareness.local
        if state is not None:
            self._send(self._awareness.set_local(state, now=self._clock.now()))

    def receive(self, entries: Sequence[AwarenessEntry]) -> None:
        """Take in what is news at the document."""
        change = self._awareness.apply(encode_awareness(entries), now=self._clock.now())
        # Late word of them does not come this far, and who comes back may have its old clock.
        self._awareness.forget(entry.client for entry in entries if entry.is_gone)
        if self._awareness.client in change.updated:
            # A peer took us for gone; our clock is above its word now.
            self._send(self._awareness.encode([self._awareness.client]))
        self._tell(change)

    def tend(self) -> None:
        """Renew our own entry and forget silent ones; to be called every few seconds."""
        now = self._clock.now()
        renewed = self._awareness.renew(now=now)
        if renewed is not None:
            self._send(renewed)
        self._tell(self._awareness.expired(now))

    def _send(self, payload: bytes) -> None:
        for send in tuple(self._senders):
            send(payload)

    def _tell(self, change: AwarenessChange) -> None:
        if change:
            for callback in tuple(self._callbacks):
                try:
                    callback(change)
                except Exception as error:
                    # An application's own trouble; the link that called us goes on.
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": "a callback on presence failed", "exception": error}
                    )


def _forget(callbacks: list[AnyCallback], callback: AnyCallback) -> None:
    if callback in callbacks:
        callbacks.remove(callback)
