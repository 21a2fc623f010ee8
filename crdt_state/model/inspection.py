"""What an update was found to do: three values with one reading interface.

`Typing` is one run of text and `Erasing` one deleted range, what live editing mostly sends;
`Survey` is everything else.  They hold what admission asks each time; what it asks seldom
(placements, cuts, pairs) is read from the bytes again when asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt_state.model.crowd import anchor_of, crowded, is_contested
from crdt_state.model.ranges import Range, Run
from crdt_state.model.update import GC, SKIP, TYPE, UNBOUNDED, UpdateReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crdt_state.model.ranges import Place

__all__ = ["Container", "Erasing", "Inspection", "Placement", "Survey", "Typing"]

_BEYOND_BASIC_PLANE = re.compile("[\U00010000-\U0010ffff]+")


class Container(NamedTuple):
    """A nested type that an update makes: the place of its item."""

    client: int
    clock: int


class Placement(NamedTuple):
    """Counters `start` to `end - 1` of `client`, and what says in which container they are.

    `parent` is a root's name or the place of a container's item; where it is None they are
    beside `beside`, which may be one place or two.
    """

    client: int
    start: int
    end: int
    parent: str | Place | None
    beside: tuple[Place, ...]
    is_container: bool


class Typing(NamedTuple):
    """One run of text without a character beyond the basic plane, and no deletes."""

    update: bytes
    client: int
    start: int
    end: int
    origin: Place
    right_origin: Place | None
    anchor: bytes

    @property
    def vector(self) -> Mapping[int, int]:
        """Client -> the counter behind what the update brings."""
        return {self.client: self.end}

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The structs it brings, without Skips."""
        return (Range(self.client, self.start, self.end),)

    @property
    def collected(self) -> tuple[Range, ...]:
        """The part of `ranges` that is GC structs."""
        return ()

    @property
    def skipped(self) -> tuple[Range, ...]:
        """What its Skip structs pass over."""
        return ()

    @property
    def deletes(self) -> tuple[Range, ...]:
        """What it deletes."""
        return ()

    @property
    def needs(self) -> Mapping[int, int]:
        """Client -> the counter up to which a document must hold that client's structs."""
        needs = {self.client: self.start} if self.start else {}
        for place in (self.origin, self.right_origin):
            if place is not None and place[0] != self.client:
                needs[place[0]] = max(needs.get(place[0], 0), place[1] + 1)
        return needs

    @property
    def roots(self) -> frozenset[str]:
        """Names of roots that it writes to explicitly."""
        return frozenset()

    def crowd(self, vector: Mapping[int, int]) -> Mapping[bytes, int]:
        """Contested places -> how many structs beyond `vector` it puts there; see `crowded`."""
        if not self.anchor or self.end <= vector.get(self.client, 0):
            return {}
        return {self.anchor: 1}

    @property
    def containers(self) -> tuple[Container, ...]:
        """The nested types it makes."""
        return ()

    @property
    def parents(self) -> frozenset[Place]:
        """Items of other updates that must hold a nested type."""
        return frozenset()

    @property
    def second_halves(self) -> tuple[Run, ...]:
        """Where second halves of surrogate pairs stand in what it brings."""
        return ()

    def cuts_beyond(self, vector: Mapping[int, int]) -> tuple[Place, ...]:
        """Counters before which structs beyond `vector` need a boundary: beside what they insert.

        The ends of `deletes` need one too.
        """
        if self.end <= vector.get(self.client, 0):
            return ()
        cuts = [(self.origin[0], self.origin[1] + 1)]
        if self.right_origin is not None:
            cuts.append(self.right_origin)
        return tuple(cuts)

    def placements(self) -> Iterator[Placement]:
        """In which container what it brings belongs."""
        beside = (self.origin,) if self.right_origin is None else (self.origin, self.right_origin)
        yield Placement(self.client, self.start, self.end, None, beside, is_container=False)


class Erasing(NamedTuple):
    """One deleted range and nothing else; the members mean what they mean in `Typing`."""

    update: bytes
    client: int
    start: int
    end: int

    @property
    def vector(self) -> Mapping[int, int]:
        """Nothing."""
        return {}

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Nothing."""
        return ()

    @property
    def collected(self) -> tuple[Range, ...]:
        """Nothing."""
        return ()

    @property
    def skipped(self) -> tuple[Range, ...]:
        """Nothing."""
        return ()

    @property
    def deletes(self) -> tuple[Range, ...]:
        """The one range."""
        return (Range(self.client, self.start, self.end),)

    @property
    def needs(self) -> Mapping[int, int]:
        """What it deletes must be there."""
        return {self.client: self.end}

    @property
    def roots(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def crowd(self, vector: Mapping[int, int]) -> Mapping[bytes, int]:
        """Nothing."""
        return {}

    @property
    def containers(self) -> tuple[Container, ...]:
        """None."""
        return ()

    @property
    def parents(self) -> frozenset[Place]:
        """None."""
        return frozenset()

    @property
    def second_halves(self) -> tuple[Run, ...]:
        """None."""
        return ()

    def cuts_beyond(self, vector: Mapping[int, int]) -> tuple[Place, ...]:
        """None: it has no structs."""
        return ()

    def placements(self) -> Iterator[Placement]:
        """None."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Survey:
    """Any other update; the members mean what they mean in `Typing`."""

    update: bytes
    vector: Mapping[int, int]
    ranges: tuple[Range, ...]
    collected: tuple[Range, ...]
    skipped: tuple[Range, ...]
    deletes: tuple[Range, ...]
    needs: Mapping[int, int]
    roots: frozenset[str]
    containers: tuple[Container, ...]
    parents: frozenset[Place]
    places: Mapping[bytes, int]
    structs: int
    has_pairs: bool

    @property
    def second_halves(self) -> tuple[Run, ...]:
        """Where second halves of surrogate pairs stand in what it brings."""
        return tuple(self._second_halves()) if self.has_pairs else ()

    def cuts_beyond(self, vector: Mapping[int, int]) -> tuple[Place, ...]:
        """See `Typing`."""
        return tuple(dict.fromkeys(self._cuts(vector)))

    def crowd(self, vector: Mapping[int, int]) -> Mapping[bytes, int]:
        """Contested places -> how many structs beyond `vector` it puts there; see `crowded`."""
        if all(start >= vector.get(client, 0) for client, start, _ in self.ranges):
            return self.places
        crowd: dict[bytes, int] = {}
        for struct in UpdateReader(self.update, UNBOUNDED).structs():
            if struct.clock >= vector.get(struct.client, 0) and is_contested(struct):
                crowded(crowd, anchor_of(self.update, struct))
        return crowd

    def placements(self) -> Iterator[Placement]:
        """In which container each run of what it brings belongs; GC and Skip are in none."""
        for struct in UpdateReader(self.update, UNBOUNDED).structs():
            if struct.kind not in (GC, SKIP):
                beside = tuple(
                    place for place in (struct.origin, struct.right_origin) if place is not None
                )
                yield Placement(
                    struct.client,
                    struct.clock,
                    struct.clock + struct.length,
                    struct.parent,
                    beside,
                    struct.kind == TYPE,
                )

    def _second_halves(self) -> Iterator[Run]:
        for struct in UpdateReader(self.update, UNBOUNDED).structs():
            if struct.text is None or len(struct.text) == struct.length:
                continue
            pairs = 0
            for found in _BEYOND_BASIC_PLANE.finditer(struct.text):
                count = found.end() - found.start()
                yield Run(struct.client, struct.clock + found.start() + pairs + 1, count)
                pairs += count

    def _cuts(self, vector: Mapping[int, int]) -> Iterator[Place]:
        for struct in UpdateReader(self.update, UNBOUNDED).structs():
            if struct.clock + struct.length <= vector.get(struct.client, 0):
                continue
            if struct.origin is not None:
                yield (struct.origin[0], struct.origin[1] + 1)
            if struct.right_origin is not None:
                yield struct.right_origin


Inspection: TypeAlias = Typing | Erasing | Survey
