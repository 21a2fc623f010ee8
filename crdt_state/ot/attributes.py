"""Attributes of text and embeds, and what becomes of them when operations meet.

On what is inserted they say how it is: bold, a link.  On what is gone over they are a change:
None takes one away, what is not named stays.  The rules are Quill's
(https://github.com/slab/delta, `AttributeMap`): each attribute is one value, set as a whole.

Every function takes None for no attributes, and returns it rather than none at all.  Where Quill
compares objects by identity (its `invert`), values are compared here, so nothing is set to what
it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from crdt_state.errors import OperationMalformed, OperationTooLarge
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot.json_values import Json, check_key, text_of, value_of

__all__ = ["Attributes", "composed", "difference", "inverted", "transformed"]

NULL = "null"


@final
class Attributes(Mapping[str, Json]):
    """At least one attribute by name; as a mapping, with Python's values.

    A value like any other: equal where JavaScript finds the values equal, hashable, unchanging.
    """

    __slots__ = ("texts",)

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts` holds each value as `json_values` writes it; make one with `of`."""
        self.texts = texts

    @classmethod
    def of(
        cls, values: object, path: str = "attributes", *, limits: Limits = DEFAULT_LIMITS
    ) -> Attributes:
        """The attributes that a dictionary says; `path` is where it stands, for the error.

        Raises `OperationMalformed` and `OperationTooLarge`.
        """
        if not isinstance(values, Mapping):
            raise OperationMalformed(path, f"attributes are an object, not {type(values).__name__}")
        if not values:
            raise OperationMalformed(path, "there are none: they are left out then")
        if len(values) > limits.operation_attributes_max:
            raise OperationTooLarge(
                path, "operation_attributes_max", limits.operation_attributes_max, len(values)
            )
        names = sorted(check_key(name, path, limits=limits) for name in values)
        return cls(
            {name: text_of(values[name], f"{path}[{name!r}]", limits=limits) for name in names}
        )

    @property
    def takes_away(self) -> bool:
        """Whether one of them is None."""
        return NULL in self.texts.values()

    def __getitem__(self, name: str) -> Json:
        return value_of(self.texts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attributes) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(frozenset(self.texts.items()))

    def __repr__(self) -> str:
        return f"Attributes.of({dict(self)!r})"


def composed(
    first: Attributes | None, second: Attributes | None, *, keeps_removals: bool
) -> Attributes | None:
    """What setting `first`, then `second`, comes to.

    `keeps_removals` where that is a change again; content itself has nothing to take away.
    """
    if second is None:
        return first
    texts = dict(second.texts) if first is None else {**first.texts, **second.texts}
    if not keeps_removals:
        texts = {name: text for name, text in texts.items() if text != NULL}
    return _made(texts)


def transformed(
    mine: Attributes | None, theirs: Attributes | None, *, wins: bool
) -> Attributes | None:
    """What is left to set of `mine` where `theirs` has been set meanwhile.

    Whoever `wins` has the say about what both set.
    """
    if mine is None or theirs is None or wins:
        return mine
    return _made({name: text for name, text in mine.texts.items() if name not in theirs.texts})


def inverted(change: Attributes | None, before: Attributes | None) -> Attributes | None:
    """The change that undoes `change` on what had the attributes `before`."""
    if change is None:
        return None
    had = {} if before is None else before.texts
    return _made(
        {
            name: had.get(name, NULL)
            for name, text in change.texts.items()
            if had.get(name, NULL) != text
        }
    )


def difference(old: Attributes | None, new: Attributes | None) -> Attributes | None:
    """The change that makes `new` of `old`."""
    had = {} if old is None else old.texts
    has = {} if new is None else new.texts
    removed = {name: NULL for name in had if name not in has}
    return _made(removed | {name: text for name, text in has.items() if had.get(name) != text})


def _made(texts: dict[str, str]) -> Attributes | None:
    return Attributes(dict(sorted(texts.items()))) if texts else None
