"""Operations on a text: values that say what changes from the front to the back.

    Operation.of(Retain(3), Insert("new"), Delete(2))

goes over three characters, inserts three, deletes two, and leaves the rest as it is.  Counts are
of code points, whatever a format counts on its wire (`units`); an embed counts one.

1. Two neighbours that could be one component are one.  Nothing is empty, and nothing at the end
   only goes over what stays.
2. Insertions and deletions at one place keep their order.  It makes no difference to what an
   operation does, but to where it lets others insert: of a text that is deleted in two parts around
   an insertion, what somebody else inserts into the second part comes after that insertion.

The formats differ in the second.  text-unicode keeps the order of what is composed, and rich-text
puts insertions first whenever it makes an operation.  A client of either transforms what waits in
its hands by the rule of its format, so a server that follows another ends with another text: hence
`Order`, which the functions that make operations take.

A document is a `str`, or an operation that only inserts, which may hold attributes and embeds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, cast, final

from crdt_state.errors import (
    OperationMalformed,
    OperationNotCanonical,
    OperationPastEnd,
    OperationTooLarge,
    UsageError,
)
from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot.attributes import Attributes
from crdt_state.ot.json_values import Json, check_text, text_of, value_of

__all__ = [
    "EMPTY",
    "Component",
    "Delete",
    "Document",
    "Draft",
    "Embed",
    "Insert",
    "Operation",
    "Order",
    "Retain",
    "check",
    "check_reach",
    "length_of",
    "part",
]


class Order(enum.Enum):
    """In which order insertions and deletions at one place come in an operation that is made."""

    AS_MADE = "as made"
    INSERTIONS_FIRST = "insertions first"


@final
@dataclass(frozen=True, slots=True)
class Embed:
    """Something that is no text and takes one place in it: an image, a formula.

    `text` is its JSON object as `json_values` writes it; make one with `of`.
    """

    text: str

    @classmethod
    def of(cls, value: object, path: str = "embed", *, limits: Limits = DEFAULT_LIMITS) -> Embed:
        """The embed that a dictionary says; `path` is where it stands, for the error.

        Raises `OperationMalformed` and `OperationTooLarge`.
        """
        if not isinstance(value, dict):
            raise OperationMalformed(path, f"an embed is an object, not {type(value).__name__}")
        if not value:
            raise OperationMalformed(path, "an embed without a key does not say what it is")
        return cls(text_of(value, path, limits=limits))

    @property
    def value(self) -> dict[str, Json]:
        """Its JSON object; a new one every time."""
        value: dict[str, Json] = value_of(self.text)
        return value

    def __len__(self) -> int:
        return 1


@final
@dataclass(frozen=True, slots=True)
class Retain:
    """Goes over `count` code points; `attributes` are set on them, None takes one away."""

    count: int
    attributes: Attributes | None = None


@final
@dataclass(frozen=True, slots=True)
class Insert:
    """Inserts text or an embed, with `attributes`, none of which is None."""

    content: str | Embed
    attributes: Attributes | None = None


@final
@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes `count` code points."""

    count: int


Component: TypeAlias = Retain | Insert | Delete


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """A change of a text.  Make one with `of`: `components` are taken to be canonical."""

    components: tuple[Component, ...] = ()

    @classmethod
    def of(cls, *components: Component) -> Operation:
        """The operation that these components say: merged, and without what says nothing.

        Raises `UsageError` for a count below zero.
        """
        draft = Draft()
        for component in components:
            if type(component) is not Insert and component.count < 0:
                raise UsageError(f"a count of {component.count}: nothing goes backwards")
            draft.push(component)
        return draft.operation()

    @property
    def reach(self) -> int:
        """How many code points a document has at least, to which this can be applied."""
        return sum(each.count for each in self.components if type(each) is not Insert)

    @property
    def growth(self) -> int:
        """How many code points longer a document becomes; negative where it becomes shorter."""
        inserted = sum(len(each.content) for each in self.components if type(each) is Insert)
        return inserted - sum(each.count for each in self.components if type(each) is Delete)

    @property
    def is_document(self) -> bool:
        """Whether this only inserts, and so is also a document."""
        return all(type(each) is Insert for each in self.components)

    @property
    def is_plain(self) -> bool:
        """Whether there are neither attributes nor embeds in it."""
        return not any(_is_rich(each) for each in self.components)


Document: TypeAlias = str | Operation

EMPTY: Final = Operation()
"""Changes nothing; as a document, it has no content."""


@final
class Draft:
    """An operation in the making: components one after the other, merged where they meet.

    What is only gone over is counted, and written when something follows; so at the end it is not.
    Texts that meet are joined at the end, once, however many they are.
    """

    __slots__ = ("_has_joined", "_is_insertions_first", "_kept", "_made")

    def __init__(self, order: Order = Order.AS_MADE) -> None:
        self._is_insertions_first = order is Order.INSERTIONS_FIRST
        self._made: list[Component | _Joined] = []
        self._kept = 0
        self._has_joined = False

    def push(self, component: Component) -> None:
        """What comes next, as one component."""
        if type(component) is Insert:
            self.insert(component)
        elif type(component) is Delete:
            self.delete(component.count)
        else:
            self.retain(component.count, component.attributes)

    def retain(self, count: int, attributes: Attributes | None = None) -> None:
        """Go over `count` code points."""
        if attributes is None:
            self._kept += count
            return
        if not count:
            return
        made = self._made
        if self._kept:
            made.append(Retain(self._kept))
            self._kept = 0
        elif made and type(last := made[-1]) is Retain and last.attributes == attributes:
            made[-1] = Retain(last.count + count, attributes)
            return
        made.append(Retain(count, attributes))

    def insert(self, insert: Insert) -> None:
        """Insert text or an embed."""
        if not insert.content:
            return
        made = self._made
        if self._kept:
            made.append(Retain(self._kept))
            self._kept = 0
            made.append(insert)
            return
        at = len(made)
        if self._is_insertions_first and at and type(made[-1]) is Delete:
            at -= 1
        if not (at and self._join(at - 1, insert)):
            made.insert(at, insert)

    def delete(self, count: int) -> None:
        """Delete `count` code points."""
        if not count:
            return
        made = self._made
        if self._kept:
            made.append(Retain(self._kept))
            self._kept = 0
        elif made and type(last := made[-1]) is Delete:
            made[-1] = Delete(last.count + count)
            return
        made.append(Delete(count))

    def finish(self, component: Component | None, at: int, rest: Iterator[Component]) -> None:
        """What is left of an operation: `component` from `at` on, and `rest`."""
        if component is None:
            return
        if not at:
            self.push(component)
        elif type(component) is Insert:
            self.insert(part(component, at, len(component.content) - at, component.attributes))
        elif type(component) is Delete:
            self.delete(component.count - at)
        else:
            self.retain(component.count - at, component.attributes)
        # From the first that is written on, the rest is canonical as it is.
        while self._kept or self._is_insertions_first:
            following = next(rest, None)
            if following is None:
                return
            self.push(following)
        self._made.extend(rest)

    def operation(self) -> Operation:
        """What has been made."""
        if self._has_joined:
            for index, each in enumerate(self._made):
                if type(each) is _Joined:
                    self._made[index] = Insert("".join(each.texts), each.attributes)
        return Operation(cast("tuple[Component, ...]", tuple(self._made)))

    def _join(self, at: int, insert: Insert) -> bool:
        """Whether `insert` could be made one with the component at `at`."""
        last, text = self._made[at], insert.content
        if not isinstance(text, str):
            return False
        if type(last) is _Joined:
            if last.attributes != insert.attributes:
                return False
            last.texts.append(text)
            return True
        if type(last) is not Insert or last.attributes != insert.attributes:
            return False
        if not isinstance(last.content, str):
            return False
        self._made[at] = _Joined([last.content, text], insert.attributes)
        self._has_joined = True
        return True


@dataclass(slots=True)
class _Joined:
    """Texts that are one insertion; joined one by one, they would be copied again and again."""

    texts: list[str]
    attributes: Attributes | None


def check(
    operation: Operation, document: Document | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Refuse what is no operation, is not canonical, or cannot be applied to `document`.

    Raises `OperationMalformed`, `OperationNotCanonical`, `OperationTooLarge`, `OperationPastEnd`.
    """
    count = len(operation.components)
    if count > limits.operation_components_max:
        raise OperationTooLarge(
            "operation", "operation_components_max", limits.operation_components_max, count
        )
    before: Component | None = None
    for index, component in enumerate(operation.components):
        path = f"component {index}"
        _check_component(component, path)
        if before is not None and _is_mergeable(before, component):
            raise OperationNotCanonical(path, "it is one with the component before it")
        before = component
    if type(before) is Retain and before.attributes is None:
        raise OperationNotCanonical(f"component {count - 1}", "nothing comes after it")
    if document is not None:
        if isinstance(document, str) and not operation.is_plain:
            raise OperationMalformed("operation", "a plain text has no attributes and no embeds")
        check_reach(operation, length_of(document))


def check_reach(operation: Operation, length: int) -> None:
    """Raise `OperationPastEnd` unless a document of `length` is long enough."""
    reach = operation.reach
    if reach > length:
        raise OperationPastEnd("operation", reach, length)


def length_of(document: Document) -> int:
    """How many code points a document has, an embed counting one.

    Raises `UsageError` for an operation that does more than insert.
    """
    if isinstance(document, str):
        return len(document)
    if not document.is_document:
        raise UsageError("this operation is no document: a document only inserts")
    return document.growth


def part(insert: Insert, at: int, count: int, attributes: Attributes | None) -> Insert:
    """`count` characters of what is inserted from `at` on, with these attributes."""
    content = insert.content
    if count == len(content) and attributes is insert.attributes:
        return insert
    if isinstance(content, str):
        content = content[at : at + count]
    return Insert(content, attributes)


def _check_component(component: Component, path: str) -> None:
    if type(component) is Insert:
        if not component.content:
            raise OperationNotCanonical(path, "it inserts nothing")
        if type(component.content) is str:
            check_text(component.content, path)
        if component.attributes is not None and component.attributes.takes_away:
            raise OperationMalformed(path, "an insertion has no attribute to take away")
    elif component.count <= 0:
        raise OperationNotCanonical(path, f"a count of {component.count} says nothing")


def _is_mergeable(before: Component, after: Component) -> bool:
    if type(before) is Insert and type(after) is Insert:
        is_text = isinstance(before.content, str) and isinstance(after.content, str)
        return is_text and before.attributes == after.attributes
    if type(before) is Retain and type(after) is Retain:
        return before.attributes == after.attributes
    return type(before) is Delete and type(after) is Delete


def _is_rich(component: Component) -> bool:
    if type(component) is Delete:
        return False
    if component.attributes is not None:
        return True
    return type(component) is Insert and type(component.content) is Embed
