"""One document as another program left it: a value that every source yields."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ForeignDocument"]


@dataclass(frozen=True, slots=True)
class ForeignDocument:
    """A name, which need not be a document id of ours, and updates nobody has inspected.

    `problem` says why there is nothing to import; then `updates` is empty.
    """

    name: str
    updates: tuple[bytes, ...] = ()
    problem: str | None = None
