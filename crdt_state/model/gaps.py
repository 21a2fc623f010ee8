"""An update of which something is missing, cut into what can go in now and what waits for what.

A client that holds back what it could not integrate sends it along, behind Skips, with all that
it edited itself.  As a whole such an update waits for every gap to be filled.  That would be too
much: what else its author wrote would wait too, and so would what fills a gap, where that is
built on what the update has before the gap.  So it is cut into parts by what they wait for.

1. The parts say together what the update says; only structs that are held already are left out.
2. A struct is never cut.  A deleted range is, where its parts have to wait for different things.
3. All of a part waits for the same counters.  What waits for nothing is one part, the first.
4. At most `parts_max` parts wait.  Whatever would make more waits in one, for all that it needs.
5. Time and memory are linear in the bytes, some microseconds a struct.

Of clients in `barred` nothing may go in, or (`are_collected_barred_only`) no GC struct: what the
update brings of that counts as missing, and waits in a part of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from crdt_state.lib0 import encode_varuint
from crdt_state.model.portions import Section, Stretch, in_order
from crdt_state.model.ranges import Range, merged
from crdt_state.model.state import encode_deletes
from crdt_state.model.update import GC, SKIP, UNBOUNDED, UpdateReader

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from crdt_state.model.ranges import Place
    from crdt_state.model.update import Struct

__all__ = ["parts_of"]

# What counters wait for: an index into `_Needs`, or one of these.
_NOTHING: Final = 0
_MANY: Final = 1
_MISSING: Final = -1

# How many counters of vectors may be joined, for each part allowed; then all is one too many.
_COUNTERS_PER_PART: Final = 256


def parts_of(
    update: bytes,
    vector: Mapping[int, int],
    *,
    parts_max: int,
    barred: Container[int] = (),
    are_collected_barred_only: bool = False,
) -> list[bytes]:
    """`update` in parts, for a document that holds `vector`; itself where there is nothing to cut.

    For updates that `inspect` has let through: circles would be left out.
    """
    cut = _Cutting(update, vector, parts_max)
    cut.read(barred, are_collected_barred_only=are_collected_barred_only)
    return cut.parts()


class _Line:
    """What the counters of one client wait for: from each of `starts` on, what stands in `whats`.

    From `end` on everything is missing.
    """

    __slots__ = ("end", "starts", "whats")

    def __init__(self, held: int) -> None:
        self.starts = [0]
        self.whats = [_NOTHING]
        self.end = held

    def extend(self, clock: int, end: int, what: int) -> None:
        if clock > self.end:
            self._mark(self.end, _MISSING)
        self._mark(max(clock, self.end), what)
        self.end = end

    def at(self, counter: int) -> int:
        if counter >= self.end:
            return _MISSING
        return self.whats[bisect_right(self.starts, counter) - 1]

    def cut(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(start, end, what, mark) of the pieces of a range; `mark` tells one gap from another."""
        index = bisect_right(self.starts, start)
        while start < min(end, self.end):
            until = self.starts[index] if index < len(self.starts) else self.end
            yield start, min(end, until), self.whats[index - 1], self.starts[index - 1]
            start = until
            index += 1
        if start < end:
            yield start, end, _MISSING, self.end

    def _mark(self, start: int, what: int) -> None:
        if self.starts[-1] == start:
            self.whats[-1] = what
        elif self.whats[-1] != what:
            self.starts.append(start)
            self.whats.append(what)


class _Needs:
    """State vectors by number, each once.  0 is the empty one, 1 is whatever was one too many."""

    def __init__(self, count_max: int) -> None:
        self._count_left = count_max
        self._counters_left = count_max * _COUNTERS_PER_PART
        self._vectors: list[Mapping[int, int]] = [{}, {}]
        self._numbers: dict[frozenset[Place], int] = {}
        self._joined: dict[tuple[int, int], int] = {}

    def of(self, client: int, counter: int) -> int:
        return self._number({client: counter})

    def both(self, one: int, other: int) -> int:
        """What says both, counter by counter."""
        if other in (one, _NOTHING):
            return one
        if one == _NOTHING:
            return other
        if _MANY in (one, other):
            return _MANY
        found = self._joined.get((one, other))
        if found is None:
            vector, more = dict(self._vectors[one]), self._vectors[other]
            self._counters_left -= len(vector) + len(more)
            for client, counter in more.items():
                vector[client] = max(counter, vector.get(client, 0))
            found = self._joined[one, other] = self._number(vector)
            if self._counters_left < 0:
                self._count_left = 0
        return found

    def _number(self, vector: Mapping[int, int]) -> int:
        key = frozenset(vector.items())
        number = self._numbers.get(key)
        if number is None:
            if self._count_left <= 0:
                return _MANY
            self._count_left -= 1
            number = self._numbers[key] = len(self._vectors)
            self._vectors.append(vector)
        return number


class _Part:
    """Stretches and deletes that wait for the same."""

    __slots__ = ("deletes", "sections")

    def __init__(self) -> None:
        self.sections: dict[int, list[Stretch]] = {}
        self.deletes: list[Range] = []

    def encoded(self, update: bytes) -> bytes:
        # Clients as Yjs writes them, so that what waits is known again when it is sent again.
        sections = [
            _encoded(client, self.sections[client], update)
            for client in sorted(self.sections, reverse=True)
        ]
        deletes = encode_deletes(merged(self.deletes))
        return b"".join([encode_varuint(len(sections)), *sections, deletes])


def _encoded(client: int, stretches: list[Stretch], update: bytes) -> bytes:
    """One section of an update."""
    coded: list[bytes] = []
    count = 0
    clock = stretches[0].clock
    for stretch in stretches:
        if stretch.clock > clock:
            coded += [bytes([SKIP]), encode_varuint(stretch.clock - clock)]
            count += 1
        coded.append(update[stretch.at : stretch.until])
        count += stretch.structs
        clock = stretch.end
    header = map(encode_varuint, (count, client, stretches[0].clock))
    return b"".join([*header, *coded])


class _Cutting:
    """Cuts one update: `read`, then `parts`."""

    def __init__(self, update: bytes, vector: Mapping[int, int], parts_max: int) -> None:
        self._update = update
        self._vector = vector
        self._reader = UpdateReader(update, UNBOUNDED)
        self._sections: dict[int, Section] = {}
        self._barred: set[Stretch] = set()
        self._leaves_out = False
        self._lines: dict[int, _Line] = {}
        # Beside these there is what was too much, what is barred, and what deletes too much.
        self._parts_left = parts_max - 3
        self._needs = _Needs(self._parts_left)
        self._parts: dict[int, _Part] = {}
        self._withheld = _Part()

    def read(self, barred: Container[int], *, are_collected_barred_only: bool) -> None:
        """Read the structs that are not held, as few stretches as can be told apart."""
        vector = self._vector
        section = Section(-1, 0)
        held = 0
        is_last_barred = False
        for struct in self._reader.structs():
            client, clock, kind = struct.client, struct.clock, struct.kind
            if client != section.client:
                section = self._sections[client] = Section(client, clock)
                held = vector.get(client, 0)
            stretches = section.stretches
            end = clock + struct.length
            if kind == SKIP:
                stretches.append(Stretch(clock, end, struct.at, struct.end, 0))
                continue
            if end <= held:
                self._leaves_out = True
                continue
            section.end = end
            is_barred = client in barred and (kind == GC or not are_collected_barred_only)
            links = [] if is_barred else _links(struct, vector)
            if (
                links
                or not stretches
                or not stretches[-1].structs
                or is_barred is not is_last_barred
            ):
                section.links += [(len(stretches), place) for place in links]
                stretches.append(Stretch(clock, end, struct.at, struct.end))
                if is_barred:
                    self._barred.add(stretches[-1])
            else:
                last = stretches[-1]
                last.end, last.until = end, struct.end
                last.structs += 1
            is_last_barred = is_barred

    def parts(self) -> list[bytes]:
        """What goes in now, what waits for counters, what is barred, what deletes the missing."""
        for client in self._sections:
            self._lines[client] = _Line(self._vector.get(client, 0))
        for section, index in in_order(self._sections):
            stretch = section.stretches[index]
            if stretch.structs:
                self._sort(section, index, stretch)
        erasing = self._sort_deletes()
        ranks = {_NOTHING: 0, _MANY: 2}
        parts = [self._parts[what] for what in sorted(self._parts, key=lambda w: ranks.get(w, 1))]
        if self._withheld.sections:
            parts.append(self._withheld)
        parts += erasing
        if len(parts) == 1 and not self._leaves_out:
            return [self._update]
        return [part.encoded(self._update) for part in parts]

    def _sort(self, section: Section, index: int, stretch: Stretch) -> None:
        client = section.client
        line = self._lines[client]
        if stretch in self._barred:
            what, part = _MISSING, self._withheld
        else:
            what = line.whats[-1]
            # What is behind a gap presupposes what is before it.
            if stretch.clock > line.end or what == _MISSING:
                what = self._needs.of(client, stretch.clock)
            at = section.next_link - 1
            while at >= 0 and section.links[at][0] == index:
                what = self._needs.both(what, self._what(section.links[at][1]))
                at -= 1
            part = self._part(what)
        line.extend(stretch.clock, stretch.end, what)
        part.sections.setdefault(client, []).append(stretch)

    def _what(self, place: Place) -> int:
        line = self._lines.get(place[0])
        what = _MISSING if line is None else line.at(place[1])
        return self._needs.of(place[0], place[1] + 1) if what == _MISSING else what

    def _part(self, what: int) -> _Part:
        part = self._parts.get(what)
        if part is None:
            part = self._parts[what] = _Part()
        return part

    def _sort_deletes(self) -> list[_Part]:
        """Put each deleted range where what it deletes is; those of gaps are returned."""
        erasing: dict[Place, _Part] = {}
        left = self._parts_left - len(self._parts)
        rest = _Part()
        for client, start, end in merged(self._reader.deletes()):
            line = self._lines.get(client)
            if line is None:
                line = self._lines[client] = _Line(self._vector.get(client, 0))
            for here, until, what, mark in line.cut(start, end):
                if what != _MISSING:
                    part = self._part(what)
                elif (client, mark) in erasing:
                    part = erasing[client, mark]
                elif len(erasing) < left:
                    part = erasing[client, mark] = _Part()
                else:
                    part = rest
                part.deletes.append(Range(client, here, until))
        return [*erasing.values(), *([rest] if rest.deletes else [])]


def _links(struct: Struct, vector: Mapping[int, int]) -> list[Place]:
    """What a struct refers to of other clients that is not held."""
    return [
        place
        for place in (struct.origin, struct.right_origin, struct.parent)
        if isinstance(place, tuple)
        and place[0] != struct.client
        and place[1] >= vector.get(place[0], 0)
    ]
