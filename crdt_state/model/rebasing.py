"""Making the edits between two states of a document once more, on a third that shares no history.

    base ── what was edited here ──► ours
    base ── whatever else        ──► onto          then onto ── the same edits ──► onto

The three are compared by content, because their Yjs ids have nothing to do with each other:

    text, list, movable list   what was inserted and deleted, at the place that its nearest
                               unchanged neighbour has in `onto`; a move is a delete and an insert
    map                        keys set and deleted           set        elements added and removed
    counter                    the difference                 registers  the value, where it changed

1. What `onto` says already is not said again: an edit that both sides have made alike is made once.
   So where `onto` is `ours` by now nothing happens, but for counters.
2. What cannot be done well is passed over and named: formats and embedded values of a text, XML,
   several values at once of a register, a root that `onto` uses as another kind.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from crdt_state.errors import RootTypeConflict
from crdt_state.model.layout import kind_of_root
from crdt_state.model.values import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from crdt_state.model.document import Document
    from crdt_state.model.list import List
    from crdt_state.model.movable import MovableList
    from crdt_state.model.text import Text

    Step = Callable[[Document, Document, Document, str], bool]

__all__ = ["Change", "rebase", "replayed"]

Item = TypeVar("Item")


class Change(NamedTuple):
    """In a sequence: delete so many items at `at`, and put `new` there."""

    at: int
    deleted: int
    new: Sequence[Any]


def rebase(base: Document, ours: Document, onto: Document) -> tuple[str, ...]:
    """Make on `onto`, in one transaction, the edits that lead from `base` to `ours`.

    Returns the roots of which something was passed over, by their names in Yjs.
    """
    kinds = {**onto.roots(), **_told(base), **_told(ours)}
    passed_over = []
    with onto.transaction():
        for root in sorted({*base.roots(), *ours.roots()}):
            named = kind_of_root(root)
            step = _STEPS.get(kinds[root] or "")
            try:
                is_whole = step is not None and step(base, ours, onto, named[0] if named else root)
            except RootTypeConflict:
                is_whole = False
            if not is_whole:
                passed_over.append(root)
    return tuple(passed_over)


def _told(document: Document) -> dict[str, str]:
    return {root: kind for root, kind in document.roots().items() if kind is not None}


# --- sequences -------------------------------------------------------------------------------


def replayed(
    base: Sequence[Hashable], ours: Sequence[Hashable], onto: Sequence[Hashable], *, most: int
) -> list[Change]:
    """Changes that make on `onto` the edits from `base` to `ours`, to be carried out in order.

    They come from the last place to the first, so that none moves the place of another.  Where
    more than `most` pairs of items would have to be compared, what lies between the first and the
    last difference counts as replaced.
    """
    theirs = list(_changes(base, onto, most))
    made = set(map(_key, theirs))
    blocks = list(_unchanged(len(base), theirs))
    found: list[Change] = []
    # The last first, and deletions before insertions: so they are in order also at one place.
    for change in reversed([*_changes(base, ours, most)]):
        if _key(change) in made:
            continue
        end = change.at + change.deleted
        for start, there, count in blocks:
            first, last = max(start, change.at), min(start + count, end)
            if first < last:
                found.append(Change(there + first - start, last - first, ()))
        if change.new:
            found.append(Change(_place(change.at, blocks), 0, change.new))
    return sorted(found, key=lambda each: each.at, reverse=True)


def _key(change: Change) -> tuple[int, int, tuple[Any, ...]]:
    return change.at, change.deleted, tuple(change.new)


def _changes(before: Sequence[Hashable], after: Sequence[Hashable], most: int) -> Iterator[Change]:
    first = 0
    shorter = min(len(before), len(after))
    while first < shorter and before[first] == after[first]:
        first += 1
    same = 0
    while same < shorter - first and before[-1 - same] == after[-1 - same]:
        same += 1
    old, new = before[first : len(before) - same], after[first : len(after) - same]
    if not old and not new:
        return
    if len(old) * len(new) > most:
        yield Change(first, len(old), new)
        return
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for what, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if what != "equal":
            yield Change(first + old_from, old_to - old_from, new[new_from:new_to])


def _unchanged(length: int, changes: list[Change]) -> Iterator[tuple[int, int, int]]:
    """What the changes leave: where it begins before and after them, and how long it is."""
    at = there = 0
    for change in changes:
        yield at, there, change.at - at
        there += change.at - at + len(change.new)
        at = change.at + change.deleted
    yield at, there, length - at


def _place(at: int, blocks: list[tuple[int, int, int]]) -> int:
    """Where something goes that stood at `at`: behind the last unchanged item before it.

    Where there is none, before the first behind it.
    """
    place = None
    for start, there, count in blocks:
        if start < at and count:
            place = there + min(at - start, count)
        elif start >= at and place is None:
            return there
    return place or 0


# --- one kind each; whether nothing was passed over ------------------------------------------


def _text(base: Document, ours: Document, onto: Document, name: str) -> bool:
    text: Text = onto.text(name)
    runs = (*base.text(name).runs(), *ours.text(name).runs(), *text.runs())
    if not all(isinstance(run.content, str) for run in runs):
        return False
    before, after = str(base.text(name)), str(ours.text(name))
    most = onto.limits.rebase_comparisons_max
    for change in replayed(before, after, str(text), most=most):
        if change.deleted:
            text.delete(change.at, change.deleted)
        else:
            text.insert(change.at, "".join(change.new))
    return not any(run.attributes for run in ours.text(name).runs())


def _list(base: Document, ours: Document, onto: Document, name: str) -> bool:
    return _values(list(base.list(name)), list(ours.list(name)), onto.list(name), onto)


def _movable_list(base: Document, ours: Document, onto: Document, name: str) -> bool:
    before, after = list(base.movable_list(name)), list(ours.movable_list(name))
    return _values(before, after, onto.movable_list(name), onto)


def _values(
    before: list[Any], after: list[Any], target: List | MovableList, onto: Document
) -> bool:
    values: dict[Hashable, Any] = {identity_of(value): value for value in after}
    keys = [[identity_of(value) for value in each] for each in (before, after, list(target))]
    for change in replayed(*keys, most=onto.limits.rebase_comparisons_max):
        if change.deleted:
            del target[change.at : change.at + change.deleted]
        else:
            target.insert_all(change.at, [values[key] for key in change.new])
    return True


def _map(base: Document, ours: Document, onto: Document, name: str) -> bool:
    before, after, target = base.map(name), ours.map(name), onto.map(name)
    for key in sorted({*before, *after}):
        if _at(before, key) == _at(after, key) or _at(after, key) == _at(target, key):
            continue
        if key in after:
            target[key] = after[key]
        else:
            del target[key]
    return True


def _at(values: Any, key: str) -> Hashable:
    return identity_of(values[key]) if key in values else _at


def _set(base: Document, ours: Document, onto: Document, name: str) -> bool:
    before, after, target = base.set(name), ours.set(name), onto.set(name)
    target.difference_update([element for element in before if element not in after])
    target.update([each for each in after if each not in before and each not in target])
    return True


def _counter(base: Document, ours: Document, onto: Document, name: str) -> bool:
    difference = ours.counter(name).value - base.counter(name).value
    if difference:
        onto.counter(name).add(difference)
    return True


def _register(base: Document, ours: Document, onto: Document, name: str) -> bool:
    before, after, target = base.register(name), ours.register(name), onto.register(name)
    value = identity_of(after.value)
    has_changed = after.is_set and not (before.is_set and identity_of(before.value) == value)
    if has_changed and not (target.is_set and identity_of(target.value) == value):
        target.set(after.value)
    return True


def _multi_value_register(base: Document, ours: Document, onto: Document, name: str) -> bool:
    before, after, target = (
        {identity_of(value): value for value in document.multi_value_register(name).values}
        for document in (base, ours, onto)
    )
    if after.keys() in (before.keys(), target.keys()):
        return True
    if len(after) != 1:
        return False
    onto.multi_value_register(name).set(next(iter(after.values())))
    return True


_STEPS: dict[str, Step] = {
    "text": _text,
    "map": _map,
    "list": _list,
    "counter": _counter,
    "set": _set,
    "movable list": _movable_list,
    "register": _register,
    "multi-value register": _multi_value_register,
}
