"""What has become of a text, found by comparing it word by word.

By characters, a shortest difference finds letters of one word in another, and an edit that is
transformed over it lands in the middle of that.  People move, replace and delete words; so every
word is one character of what is compared.  Words that were replaced are looked into for what they
begin and end with, and for what is between where most of its letters are still there.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Final

from crdt_state.ot import Delete, Insert, Operation, Retain, diff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crdt_state.limits import Limits
    from crdt_state.ot import Component, Document

__all__ = ["difference_by_words", "is_same_text"]

WORD: Final = re.compile(r"(?:(?![\u2e80-\U0010ffff])\w)+ ?|.", re.DOTALL)
"""A word of an alphabet with the blank behind it, or any one character.

Scripts beyond U+2E80 put nothing between words.
"""

SURROGATES: Final = range(0xD800, 0xE000)
SPELLING_MAX: Final = 0x10FFFF - len(SURROGATES)
"""How many words can be told apart."""


def difference_by_words(old: Document, new: Document, *, limits: Limits) -> Operation:
    """The operation that makes `new` of `old`, so that what stays stays where people see it."""
    numbers: dict[str, str] = {}
    numbered = _numbers()

    def spelt(text: str) -> str:
        words = WORD.findall(text)
        return "".join(
            numbers.get(word) or numbers.setdefault(word, next(numbered)) for word in words
        )

    if sum(len(WORD.findall(text)) for text in _texts(old, new)) > SPELLING_MAX:
        return diff(old, new, limits=limits)
    before, after = _each_text(old, spelt), _each_text(new, spelt)
    coarse = diff(before, after, limits=limits)
    words = {number: word for word, number in numbers.items()}
    return _spelt_out(coarse, before, words, limits)


def is_same_text(length: int, change: Operation) -> bool:
    """Whether at least half of a text of `length` is still there after `change`."""
    return 2 * _deleted(change) <= length


def _numbers() -> Iterator[str]:
    """Characters that no text has to have: each stands for one word."""
    return (chr(number) for number in count(1) if number not in SURROGATES)


def _texts(*documents: Document) -> Iterator[str]:
    for document in documents:
        if isinstance(document, str):
            yield document
            continue
        for component in document.components:
            if type(component) is Insert and isinstance(component.content, str):
                yield component.content


def _each_text(document: Document, spelt: Callable[[str], str]) -> Document:
    """A document with every text spelt otherwise."""
    if isinstance(document, str):
        return spelt(document)
    return Operation.of(
        *(
            Insert(spelt(each.content), each.attributes)
            if type(each) is Insert and isinstance(each.content, str)
            else each
            for each in document.components
        )
    )


def _spelt_out(
    coarse: Operation, before: Document, words: dict[str, str], limits: Limits
) -> Operation:
    """An operation on words as one on characters."""
    old = list(_pieces(before, words))
    made: list[Component] = []
    at = 0
    for component in coarse.components:
        if type(component) is Insert:
            content = component.content
            if isinstance(content, str):
                content = "".join(words[number] for number in content)
            made.append(Insert(content, component.attributes))
            continue
        gone = old[at : at + component.count]
        at += component.count
        if type(component) is Retain:
            made.append(Retain(sum(len(piece.content) for piece in gone), component.attributes))
        elif made and type(last := made[-1]) is Insert:
            # Insertions come first in a difference.
            made[-1:] = _replacement(gone, last, limits)
        else:
            made.append(Delete(sum(len(piece.content) for piece in gone)))
    return Operation.of(*made)


def _pieces(before: Document, words: dict[str, str]) -> Iterator[Insert]:
    """What each character of a numbered document stands for: a word, or an embed."""
    components = (Insert(before),) if isinstance(before, str) else before.components
    for component in components:
        if type(component) is not Insert:
            continue
        if isinstance(component.content, str):
            for number in component.content:
                yield Insert(words[number], component.attributes)
        else:
            yield component


def _replacement(gone: list[Insert], new: Insert, limits: Limits) -> list[Component]:
    """What replaces the one by the other, and keeps what people see as kept."""
    size = sum(len(piece.content) for piece in gone)
    texts = [piece.content for piece in gone if piece.attributes == new.attributes]
    old, content = "".join(text for text in texts if isinstance(text, str)), new.content
    if len(old) < size or not isinstance(content, str):
        return [new, Delete(size)]
    most = min(size, len(content))
    start = next((i for i in range(most) if old[i] != content[i]), most)
    most -= start
    end = next((i for i in range(most) if old[-1 - i] != content[-1 - i]), most)
    was, becomes = old[start : size - end], content[start : len(content) - end]
    fine = diff(was, becomes, limits=limits)
    if 2 * _deleted(fine) >= len(was):
        fine = Operation.of(Insert(becomes), Delete(len(was)))
    within = [
        Insert(each.content, new.attributes) if type(each) is Insert else each
        for each in fine.components
    ]
    return [Retain(start), *within, Retain(size - start - fine.reach)]


def _deleted(change: Operation) -> int:
    return sum(each.count for each in change.components if type(each) is Delete)
