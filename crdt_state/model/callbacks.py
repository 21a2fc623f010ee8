"""Lists of callbacks, from which each can be taken out again by whoever put it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["subscribe"]

Callback = TypeVar("Callback")


def subscribe(callbacks: list[Callback], callback: Callback) -> Callable[[], None]:
    """Put `callback` in; the function that is returned takes it out, if it is still there."""
    callbacks.append(callback)

    def unsubscribe() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return unsubscribe
