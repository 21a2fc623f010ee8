"""Panics of the engine, told from other errors and answered.

A panic surfaces as a `BaseException` whose class is made inside the extension; it says that the
engine stopped half way.  A call on a document goes through `guarded`, one on bytes alone through
`from_bytes`, and what only lets go of something through `let_go`.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from crdt_state.errors import EngineFailed, UpdateMalformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_state.errors import DocumentClosed

__all__ = ["from_bytes", "guarded", "is_panic", "let_go"]

P = ParamSpec("P")
R = TypeVar("R")


class _Failing(Protocol):
    """What can end by a panic."""

    why_unusable: EngineFailed | DocumentClosed | None

    def fail(self, error: BaseException) -> EngineFailed:
        """End because of a panic; return what to raise."""


Fallible = TypeVar("Fallible", bound=_Failing)


def is_panic(error: BaseException) -> bool:
    """Whether the engine panicked: its exception class cannot be imported."""
    return type(error).__name__ == "PanicException"


def guarded(
    method: Callable[Concatenate[Fallible, P], R],
) -> Callable[Concatenate[Fallible, P], R]:
    """Refuse the call on a broken or closed document; end the document when the engine panics."""

    @wraps(method)
    def call(self: Fallible, /, *arguments: P.args, **named: P.kwargs) -> R:
        if self.why_unusable is not None:
            raise self.why_unusable
        try:
            return method(self, *arguments, **named)
        except BaseException as error:
            if is_panic(error):
                raise self.fail(error) from None
            raise

    return call


def from_bytes(function: Callable[..., bytes], *arguments: bytes) -> bytes:
    """Call a function of the engine that has no state.

    Raises `UpdateMalformed`, `EngineFailed`.
    """
    try:
        return function(*arguments)
    except ValueError as error:
        raise UpdateMalformed(str(error)) from None
    except BaseException as error:
        if is_panic(error):
            raise EngineFailed(f"the engine panicked: {error}") from None
        raise


def let_go(function: Callable[[], object]) -> None:
    """Let go of something of a document that may be broken: a second panic adds nothing."""
    try:
        function()
    except BaseException as error:
        if not is_panic(error):
            raise
