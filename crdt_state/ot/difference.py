"""The operation that makes one document of another: short, and found in bounded time.

What both begin and end with is left alone first; where somebody has typed, that is nearly all.
A long middle is cut at lines that are there once in either document, in the same order: the
anchors of Bram Cohen's patience diff.  What lies between them is compared character by character
with the greedy algorithm of E. Myers, "An O(ND) difference algorithm and its variations" (1986),
which finds a shortest script.

After `Limits.diff_comparisons_max` comparisons over all, a part that has not been compared counts
as replaced as a whole.  What is the same is found in slices, at the speed of comparing memory.

Where attributes alone differ they are set.  Embeds are compared by their values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_state.limits import DEFAULT_LIMITS, Limits
from crdt_state.ot import attributes
from crdt_state.ot.operation import Draft, Embed, Operation, Order, length_of
from crdt_state.ot.pieces import Pieces, pieces_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.ot.operation import Document

__all__ = ["diff"]

LONG: Final = 2_048
"""From how many characters on a middle is cut at lines first."""

EMBEDS: Final = range(0xD800, 0xE000)
"""Lone surrogates, which no text holds: in what is compared, one for each value of an embed.

Where there are more values than that, the last one stands for several.
"""


def diff(old: Document, new: Document, *, limits: Limits = DEFAULT_LIMITS) -> Operation:
    """The operation that makes `new` of `old`.

    Raises `UsageError` for an operation that is no document.
    """
    length_of(old)
    length_of(new)
    spelling: dict[Embed, str] = {}
    before, after = _compared_as(old, spelling), _compared_as(new, spelling)
    reading, writing = Pieces(old), Pieces(new)
    draft = Draft(Order.INSERTIONS_FIRST)
    at = 0
    for part in _changed(before, after, _Allowance(limits.diff_comparisons_max)):
        _keep(draft, reading, writing, part.old - at)
        _insert(draft, writing, part.new_length)
        _delete(draft, reading, part.old_length)
        at = part.old_end
    _keep(draft, reading, writing, len(before) - at)
    return draft.operation()


# --- documents ----------------------------------------------------------------------------------


def _compared_as(document: Document, spelling: dict[Embed, str]) -> str:
    """A document as text; `spelling` says how its embeds are spelt, and is added to."""
    if isinstance(document, str):
        return document
    return "".join(
        spelling.setdefault(content, chr(EMBEDS[min(len(spelling), len(EMBEDS) - 1)]))
        if isinstance(content := piece.content, Embed)
        else content
        for piece in pieces_of(document)
    )


def _keep(draft: Draft, reading: Pieces, writing: Pieces, count: int) -> None:
    """Go over what is spelt alike, and set the attributes that differ."""
    while count > 0:
        step = min(count, reading.left, writing.left)
        old, new = reading.take(step), writing.take(step)
        if old.content == new.content:
            draft.retain(step, attributes.difference(old.attributes, new.attributes))
        else:
            draft.push(new)
            draft.delete(step)
        count -= step


def _delete(draft: Draft, reading: Pieces, count: int) -> None:
    draft.delete(count)
    while count > 0:
        step = min(count, reading.left)
        reading.skip(step)
        count -= step


def _insert(draft: Draft, writing: Pieces, count: int) -> None:
    while count > 0:
        step = min(count, writing.left)
        draft.push(writing.take(step))
        count -= step


# --- texts --------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """From where to where something stands in the old text, and in the new."""

    old: int
    old_end: int
    new: int
    new_end: int

    @property
    def old_length(self) -> int:
        """How many characters of the old text that are."""
        return self.old_end - self.old

    @property
    def new_length(self) -> int:
        """How many characters of the new text that are."""
        return self.new_end - self.new


class _Allowance:
    """How many comparisons are left."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def _changed(old: str, new: str, allowance: _Allowance) -> Iterator[_Part]:
    """What is otherwise in the new text, from front to back."""
    whole = _trimmed(old, new, _Part(0, len(old), 0, len(new)))
    parts = [whole]
    if min(whole.old_length, whole.new_length) >= LONG:
        parts = [_trimmed(old, new, part) for part in _between_anchors(old, new, whole)]
    # The short ones first: one that is long must not use up what all others need.
    scripts = {
        part: _script(old, new, part, allowance)
        for part in sorted(parts, key=lambda part: part.old_length + part.new_length)
    }
    for part in parts:
        yield from scripts[part]


def _trimmed(old: str, new: str, part: _Part) -> _Part:
    """`part` without what both begin and end with."""
    most = min(part.old_length, part.new_length)
    first = _run(old, part.old, new, part.new, most)
    last = _run(old, part.old_end, new, part.new_end, most - first, is_backward=True)
    return _Part(part.old + first, part.old_end - last, part.new + first, part.new_end - last)


def _run(old: str, at: int, new: str, there: int, most: int, *, is_backward: bool = False) -> int:
    """How many characters, up to `most`, are the same from here on: by doubling, then halving."""
    same, size = 0, 1
    has_differed = False
    while same < most:
        size = min(size, most - same)
        start = -same - size if is_backward else same
        here, beside = at + start, there + start
        if old[here : here + size] == new[beside : beside + size]:
            same += size
        elif size == 1:
            break
        else:
            has_differed = True
        size = (size + 1) // 2 if has_differed else size * 2
    return same


def _between_anchors(old: str, new: str, part: _Part) -> Iterator[_Part]:
    """The parts before, between and behind lines that are once in both."""
    old_lines = old[part.old : part.old_end].splitlines(keepends=True)
    new_lines = new[part.new : part.new_end].splitlines(keepends=True)
    old_counts, new_counts = Counter(old_lines), Counter(new_lines)
    places = {line: index for index, line in enumerate(new_lines) if new_counts[line] == 1}
    pairs = [
        (index, places[line])
        for index, line in enumerate(old_lines)
        if old_counts[line] == 1 and line in places
    ]
    old_at = list(accumulate(map(len, old_lines), initial=part.old))
    new_at = list(accumulate(map(len, new_lines), initial=part.new))
    before, beside = part.old, part.new
    for index, place in _longest_ascent(pairs):
        yield _Part(before, old_at[index], beside, new_at[place])
        before, beside = old_at[index + 1], new_at[place + 1]
    yield _Part(before, part.old_end, beside, part.new_end)


def _longest_ascent(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """As many of the pairs as ascend also in their second number; in the first they do."""
    # The least second number in which an ascent of each length ends, and the pair that is.
    ends: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        previous.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        last[length : length + 1] = [number]
    ascent = []
    number = last[-1] if last else -1
    while number >= 0:
        ascent.append(pairs[number])
        number = previous[number]
    return ascent[::-1]


def _script(old: str, new: str, part: _Part, allowance: _Allowance) -> list[_Part]:
    """A shortest script within `part`; `part` itself, where looking for one takes too long."""
    if not part.old_length or not part.new_length:
        return [part] if part.old_length or part.new_length else []
    fronts = _fronts(old, new, part, allowance)
    if fronts is None:
        return [part]
    joined: list[_Part] = []
    for step in _steps_back(fronts, part):
        if joined and (step.old_end, step.new_end) == (joined[-1].old, joined[-1].new):
            behind = joined[-1]
            joined[-1] = _Part(step.old, behind.old_end, step.new, behind.new_end)
        else:
            joined.append(step)
    return joined[::-1]


def _fronts(old: str, new: str, part: _Part, allowance: _Allowance) -> list[dict[int, int]] | None:
    """How far into the old text each number of edits leads, on each diagonal; Myers's V.

    On diagonal k the place in the new text is k less than in the old.
    """
    old_length, new_length = part.old_length, part.new_length
    fronts: list[dict[int, int]] = []
    before = {1: 0}
    for edits in range(old_length + new_length + 1):
        front: dict[int, int] = {}
        lowest = 2 * max(0, edits - new_length) - edits
        highest = edits - 2 * max(0, edits - old_length)
        for diagonal in range(lowest, highest + 1, 2):
            here = max(before.get(diagonal + 1, -1), before.get(diagonal - 1, -2) + 1)
            there = here - diagonal
            most = min(old_length - here, new_length - there)
            if here < 0 or most < 0:
                continue
            at, beside = part.old + here, part.new + there
            same = _run(old, at, new, beside, most) if most and old[at] == new[beside] else 0
            front[diagonal] = here + same
            allowance.left -= 1 + same // 64
            if same == most and old_length - here == new_length - there:
                return [*fronts, front]
        if allowance.left <= 0:
            return None
        fronts.append(front)
        before = front
    return fronts


def _steps_back(fronts: list[dict[int, int]], part: _Part) -> Iterator[_Part]:
    """The insertions and deletions of one character that lead to the last front, last first."""
    diagonal = part.old_length - part.new_length
    for before in fronts[-2::-1]:
        inserted, deleted = before.get(diagonal + 1, -1), before.get(diagonal - 1, -2)
        if inserted > deleted:
            diagonal += 1
            here, there = part.old + inserted, part.new + inserted - diagonal
            yield _Part(here, here, there, there + 1)
        else:
            diagonal -= 1
            here, there = part.old + deleted, part.new + deleted - diagonal
            yield _Part(here, here + 1, there, there)
