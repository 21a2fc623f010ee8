"""An answer about buckets, read beside its request: which documents, and what to ask again.

1. What an answer names was asked about, and is named once.
2. An answer that leaves something out has dealt with something: a part, or a difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import RemoteProtocolError
from crdt_state.merkle.hashes import bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.merkle.messages import CompareBuckets, Differences, Part

__all__ = ["Found", "Rest", "read_differences"]


@dataclass(frozen=True, slots=True)
class Found:
    """Documents that both hold but not alike, that we alone hold, that the peer alone holds."""

    otherwise: tuple[DocumentId, ...]
    only_ours: tuple[DocumentId, ...]
    only_theirs: tuple[DocumentId, ...]

    def __len__(self) -> int:
        return len(self.otherwise) + len(self.only_ours) + len(self.only_theirs)


class Rest(NamedTuple):
    """What is to be asked again of a bucket: all of it, or with full hashes beyond `after`."""

    bucket: int
    is_full: bool
    after: str = ""


def read_differences(request: CompareBuckets, answer: Differences) -> tuple[Found, list[Rest]]:
    """What the answer to `request` names.  Raises `RemoteProtocolError` if it is no such answer."""
    parts = request.parts
    dealt_with = parts[: answer.answered + answer.is_inside]
    if answer.answered + answer.is_inside > len(parts) or not dealt_with:
        raise RemoteProtocolError("an answer about buckets deals with none, or with too many")
    entries = [document for part in dealt_with for document, _ in part.entries]
    numbers = sorted((*answer.otherwise, *answer.lacking))
    if numbers and numbers[-1] >= len(entries):
        raise RemoteProtocolError("an answer about buckets counts entries that it was not sent")
    if len(numbers) != len(set(numbers)):
        raise RemoteProtocolError("an answer about buckets names an entry twice")
    _check_more(dealt_with, answer.more)
    _check_alike(request, answer)
    found = Found(
        tuple(entries[number] for number in answer.otherwise),
        tuple(entries[number] for number in answer.lacking),
        answer.more,
    )
    rests = list(_rests(request, answer))
    if answer.is_inside:
        rests.append(_rest_inside(dealt_with, numbers, answer.more))
    return found, rests


def _rests(request: CompareBuckets, answer: Differences) -> Iterator[Rest]:
    """What is left of the parts dealt with to their ends, and those that were not begun."""
    for index in answer.alike:
        yield Rest(request.parts[index].number, is_full=True)
    for part in request.parts[: answer.answered]:
        if not part.is_last:
            yield Rest(part.number, is_full=True, after=part.entries[-1][0])
    for part in request.parts[answer.answered + answer.is_inside :]:
        yield Rest(part.number, request.is_full, part.after)


def _rest_inside(
    dealt_with: tuple[Part, ...], numbers: list[int], more: tuple[DocumentId, ...]
) -> Rest:
    """What is left of the part that the answer ends in: what comes after all it names there."""
    part = dealt_with[-1]
    *_, end = accumulate(len(each.entries) for each in dealt_with)
    first = end - len(part.entries)
    named: list[str] = [part.entries[number - first][0] for number in numbers if number >= first]
    if more and bucket_of(more[-1]) == part.number:
        named.append(more[-1])
    if not named:
        raise RemoteProtocolError("an answer about buckets ends in one of which it says nothing")
    return Rest(part.number, is_full=True, after=max(named))


def _check_more(parts: tuple[Part, ...], more: tuple[DocumentId, ...]) -> None:
    by_number = {part.number: part for part in parts}
    before = (-1, "")
    sent: set[DocumentId] = set()
    for document in more:
        here = (bucket_of(document), document)
        if here <= before:
            raise RemoteProtocolError("documents are not sorted by bucket and id")
        part = by_number.get(here[0])
        if part is None or not part.covers(document):
            raise RemoteProtocolError("an answer about buckets names a document of another one")
        if here[0] != before[0]:
            sent = {name for name, _ in part.entries}
        if document in sent:
            raise RemoteProtocolError("a document that was sent is named as one that was not")
        before = here


def _check_alike(request: CompareBuckets, answer: Differences) -> None:
    for index in answer.alike:
        if index >= answer.answered or request.is_full or not request.parts[index].is_whole:
            raise RemoteProtocolError("a bucket is called alike that cannot be")
