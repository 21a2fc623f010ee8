"""A large update cut into several, each whole, in an order in which each can be integrated.

Limits bind what one author adds in one go.  What somebody edited for weeks without a network is
one long difference that is beyond them, though no edit was; so it is sent in portions.

1. Applied in order, no portion waits for a later one.
2. A struct is never cut: what is too large as it was made stays too large.
3. Deletes come last, all together: they may be of anything.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from crdt_state.lib0 import encode_varuint
from crdt_state.model.ranges import merged
from crdt_state.model.state import encode_deletes
from crdt_state.model.update import UNBOUNDED, UpdateReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from crdt_state.model.ranges import Place, Range

__all__ = ["Section", "Stretch", "in_order", "portions"]


def portions(update: bytes, size_max: int) -> list[bytes]:
    """`update` in portions of about `size_max` bytes of structs; larger where one struct is.

    For updates that `inspect` has let through; linear in the bytes, some microseconds a struct.
    """
    if len(update) <= size_max:
        return [update]
    reader = UpdateReader(update, UNBOUNDED)
    sections: dict[int, Section] = {}
    for struct in reader.structs():
        section = sections.get(struct.client)
        if section is None:
            section = sections[struct.client] = Section(struct.client, struct.clock)
        for place in (struct.origin, struct.right_origin, struct.parent):
            if isinstance(place, tuple) and place[0] != struct.client:
                section.links.append((len(section.stretches), place))
        section.end = struct.clock + struct.length
        section.stretches.append(Stretch(struct.clock, section.end, struct.at, struct.end))
    deletes = merged(reader.deletes())
    cut = _Cut(size_max)
    for section, index in in_order(sections):
        stretch = section.stretches[index]
        cut.add(section.client, stretch.clock, update[stretch.at : stretch.until])
    return cut.finished(deletes)


class Stretch:
    """Counters `clock` to `end - 1`: structs in a row, from byte `at` to byte `until`.

    `structs` is how many; none where the update passes over these counters.
    """

    __slots__ = ("at", "clock", "end", "structs", "until")

    def __init__(self, clock: int, end: int, at: int, until: int, structs: int = 1) -> None:
        self.clock = clock
        self.end = end
        self.at = at
        self.until = until
        self.structs = structs


class Section:
    """The stretches of one client, and by their index what they refer to of others.

    `end` is the counter behind the last that the section brings.
    """

    __slots__ = ("client", "end", "links", "next_link", "next_stretch", "reached", "stretches")

    def __init__(self, client: int, clock: int) -> None:
        self.client = client
        self.reached = clock
        self.end = clock
        self.stretches: list[Stretch] = []
        self.links: list[tuple[int, Place]] = []
        self.next_stretch = 0
        self.next_link = 0


def in_order(sections: Mapping[int, Section]) -> Iterator[tuple[Section, int]]:
    """Each stretch by its section and index there, behind all that it refers to."""
    # Client -> (counter awaited, who waits), the least first: each is woken only once.
    waiting: dict[int, list[tuple[int, int]]] = {}
    ready = deque(sections)
    while ready:
        section = sections[ready.popleft()]
        awaited: Place | None = None
        while section.next_stretch < len(section.stretches):
            awaited = _awaited(section, sections)
            if awaited is not None:
                break
            index = section.next_stretch
            section.reached = section.stretches[index].end
            section.next_stretch += 1
            yield section, index
        if awaited is not None:
            heappush(waiting.setdefault(awaited[0], []), (awaited[1], section.client))
        heap = waiting.get(section.client, [])
        while heap and heap[0][0] < section.reached:
            ready.append(heappop(heap)[1])


def _awaited(section: Section, sections: Mapping[int, Section]) -> Place | None:
    """The place that the next stretch refers to and that is not there yet, if any."""
    links = section.links
    while section.next_link < len(links) and links[section.next_link][0] <= section.next_stretch:
        place = links[section.next_link][1]
        other = sections.get(place[0])
        if other is not None and other.reached <= place[1] < other.end:
            return place
        section.next_link += 1
    return None


class _Cut:
    """Gathers structs into updates."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._sections: dict[int, tuple[int, list[bytes]]] = {}
        self._done: list[bytes] = []

    def add(self, client: int, clock: int, coded: bytes) -> None:
        """Take the next struct."""
        if self._size and self._size + len(coded) > self._size_max:
            self._done.append(self._encoded(()))
        self._sections.setdefault(client, (clock, []))[1].append(coded)
        self._size += len(coded)

    def finished(self, deletes: Iterable[Range]) -> list[bytes]:
        """All portions; the last one holds the deletes."""
        return [*self._done, self._encoded(deletes)]

    def _encoded(self, deletes: Iterable[Range]) -> bytes:
        parts = [encode_varuint(len(self._sections))]
        for client, (clock, structs) in self._sections.items():
            parts += [encode_varuint(len(structs)), encode_varuint(client), encode_varuint(clock)]
            parts += structs
        self._sections, self._size = {}, 0
        return b"".join(parts) + encode_deletes(deletes)
