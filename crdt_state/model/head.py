"""What admission must know of a document, without loading it.

A `Head` holds the state vector, the deletes that updates named, and what is counted against a
document's bounds.  It is derived: from a full state (`of_state`), or by taking one inspected
update after the other.  Two things in it are not: to which identity a client id is bound, and
where refused ranges begin; whoever keeps a document stores those (`encode` carries them too).

1. `vector` names only counters that are integrated: an update is taken when nothing that it
   needs is missing.
2. Counts never exceed the truth, so that no honest document is refused.
3. A document of plain text costs two numbers per client and two per run of deletes.

Bytes of a head, version 1 (integers are lib0 varints):

    1, size, splits seen, then eight byte strings, each after its length:
    vector     as Yjs codes it
    owners     count, identity …, count, (client, index of identity) …
    refused    as a state vector
    deletes    count, (client, count, (start less the end before, length) …) …
    pairs      count, (client, first, pairs) …
    containers count, (client, clock, depth of what is inside) …
    depths     count, (client, count, (first counter, depth) …) …
    crowd      count, (place as byte string, count) …
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from crdt_state.errors import StoreCorrupt, UpdateMalformed
from crdt_state.lib0 import CodingError, Reader, encode_bytes, encode_string, encode_varuint
from crdt_state.model.crowd import crowded
from crdt_state.model.inspect import inspect
from crdt_state.model.inspection import Erasing, Survey, Typing
from crdt_state.model.ranges import Intervals, PairTable, Range, Run
from crdt_state.model.state import decode_state_vector, encode_state_vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from crdt_state.limits import Limits
    from crdt_state.model.inspection import Inspection, Placement
    from crdt_state.model.ranges import Place
    from crdt_state.model.stroke import Stroke

__all__ = ["Head"]

FORMAT = 1


class _Placed(NamedTuple):
    """A run of new structs, and how deep the container is in which it stands; roots are 0."""

    client: int
    start: int
    depth: int
    is_container: bool


class Head:
    """One document's; changed by `take`, `take_stroke` and `refuse` alone.

    `vector`, `owners`, `refused`, `size` (bytes of the updates taken), `splits_seen` (surrogate
    pairs that updates cut) and `second_halves` are for reading.  `strokes` is a cache: what the
    next key press of each who types looks like.
    """

    __slots__ = (
        "_crowd",
        "_deletes",
        "_nesting",
        "_stored_deletes",
        "owners",
        "refused",
        "second_halves",
        "size",
        "splits_seen",
        "strokes",
        "vector",
    )

    def __init__(self) -> None:
        self.vector: dict[int, int] = {}
        self.size = 0
        self.splits_seen = 0
        self.strokes: dict[bytes, Stroke] = {}
        self.owners: dict[int, str] = {}
        self.refused: dict[int, int] = {}
        self.second_halves = PairTable()
        self._deletes: Intervals | None = Intervals()
        self._stored_deletes = b""
        self._nesting = _Nesting()
        self._crowd: dict[bytes, int] = {}

    @classmethod
    def of_state(cls, state: bytes, limits: Limits) -> Head:
        """From the full state of an integrated document; 3 µs a struct, so for workers.

        Raises `UpdateMalformed` where `state` is none.
        """
        head = cls()
        head.take(inspect(state, limits, merged=True))
        return head

    # --- what it knows ------------------------------------------------------------------------

    @property
    def deletes(self) -> Intervals:
        """What updates deleted by name.  Decoded when first asked for."""
        if self._deletes is None:
            self._deletes = _decode_deletes(self._stored_deletes)
            self._stored_deletes = b""
        return self._deletes

    @property
    def containers(self) -> int:
        """How many nested types there are."""
        return len(self._nesting.containers)

    def state_vector(self) -> bytes:
        """The state vector as Yjs codes it."""
        return encode_state_vector(self.vector)

    def aligned(self, vector: Mapping[int, int]) -> dict[int, int]:
        """`vector` with no counter inside a surrogate pair: such a one is lowered by one.

        An engine that is asked for what comes after half a character writes nonsense for the
        other half (yrs an item without length, Yjs U+FFFD).
        """
        if not self.second_halves:
            return dict(vector)
        return {
            client: counter - ((client, counter) in self.second_halves)
            for client, counter in vector.items()
        }

    def covers(self, vector: Mapping[int, int], deletes: Iterable[Range]) -> bool:
        """Whether all of this is integrated and deleted here."""
        held = self.vector
        return all(held.get(client, 0) >= counter for client, counter in vector.items()) and all(
            self.deletes.covers(client, start, end) for client, start, end in deletes
        )

    def holds(self, inspection: Inspection) -> bool:
        """Whether an update adds nothing."""
        if isinstance(inspection, Typing):
            return self.vector.get(inspection.client, 0) >= inspection.end
        if isinstance(inspection, Erasing):
            return self.deletes.covers(inspection.client, inspection.start, inspection.end)
        return self.covers(inspection.vector, inspection.deletes)

    def crowd_at(self, place: bytes) -> int:
        """How many structs contest this place, at least; see `model/crowd`."""
        return self._crowd.get(place, 0)

    def is_container(self, place: Place) -> bool:
        """Whether the item at this place is known to hold a nested type."""
        return place in self._nesting.containers

    def nesting(self, inspection: Inspection) -> int:
        """How deep the deepest nested type that this update makes would be; 1 is in a root."""
        if not inspection.containers:
            return 0
        placed = self._nesting.place(inspection, self.vector)
        return max((here.depth + 1 for here in placed if here.is_container), default=0)

    def splits(self, inspection: Inspection) -> tuple[Place, ...]:
        """(client, counter) of second halves of surrogate pairs from which it cuts the first.

        Ask before `take`.  Pairs that were deleted whole before are not meant.
        """
        pairs = self.second_halves
        brings = isinstance(inspection, Survey) and inspection.has_pairs
        if not pairs and not brings:
            return ()
        own = PairTable(inspection.second_halves)
        cuts = set(inspection.cuts_beyond(self.vector))
        for client, start, end in inspection.deletes:
            for cut in ((client, start), (client, end)):
                is_inside = cut in pairs or cut in own
                if is_inside and not self.deletes.covers(client, start, end):
                    cuts.add(cut)
        return tuple(
            (client, counter)
            for client, counter in sorted(cuts)
            if ((client, counter) in pairs or (client, counter) in own)
            and not self.deletes.covers(client, counter - 1, counter + 1)
        )

    # --- what changes it ----------------------------------------------------------------------

    def take(self, inspection: Inspection, *, owner: str | None = None) -> None:
        """Go on to the document with this update; whoever calls has admitted it.

        `owner` binds the client ids that are new here to an identity.
        """
        vector = self.vector
        self.size += len(inspection.update)
        self.splits_seen += len(self.splits(inspection))
        if isinstance(inspection, Erasing):
            self.deletes.add(inspection.client, inspection.start, inspection.end)
            return
        nesting = self._nesting
        if nesting.containers or inspection.containers:
            nesting.take(nesting.place(inspection, vector))
        for place, count in inspection.crowd(vector).items():
            crowded(self._crowd, place, count)
        for run in inspection.second_halves:
            self._add_pairs(run)
        if isinstance(inspection, Typing):
            client = inspection.client
            if inspection.end > vector.get(client, 0):
                vector[client] = inspection.end
                if owner is not None:
                    self.owners.setdefault(client, owner)
            return
        self.deletes.add_all(inspection.deletes)
        for client, end in inspection.vector.items():
            if end > vector.get(client, 0):
                vector[client] = end
                if owner is not None:
                    self.owners.setdefault(client, owner)

    def take_stroke(self, stroke: Stroke, units: int, size: int) -> None:
        """Take an update of `size` bytes that a stroke predicted.

        What it brings stands beside what the stroke's client wrote last, so in the same
        container, and at a place that nobody else contests.
        """
        stroke.advance(units)
        self.vector[stroke.client] = stroke.end
        self.size += size

    def refuse(self, client: int, counter: int) -> None:
        """Let in nothing of `client` from `counter` on.  What is held stays."""
        counter = max(counter, self.vector.get(client, 0))
        self.refused[client] = min(counter, self.refused.get(client, counter))

    def inherit(self, other: Head) -> None:
        """Take over what no state tells: bindings and refusals."""
        self.owners.update(other.owners)
        for client, counter in other.refused.items():
            self.refuse(client, counter)

    def copy(self) -> Head:
        """An independent head of the same document."""
        return Head.decode(self.encode())

    def _add_pairs(self, run: Run) -> None:
        client, first, count = run
        held = self.vector.get(client, 0)
        # Only what is new: held text does not change, whatever a later update says it is.
        known = min(count, max(0, (held - first + 1) // 2))
        if known < count:
            self.second_halves.add(Run(client, first + 2 * known, count - known))

    # --- bytes --------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The head in bytes."""
        stored = self._stored_deletes if self._deletes is None else _encode_deletes(self._deletes)
        sections = (
            self.state_vector(),
            _encode_owners(self.owners),
            encode_state_vector(self.refused),
            stored,
            _encode_rows(tuple(self.second_halves.runs())),
            self._nesting.encode_containers(),
            self._nesting.encode_depths(),
            b"".join(
                [encode_varuint(len(self._crowd))]
                + [
                    encode_bytes(place) + encode_varuint(count)
                    for place, count in self._crowd.items()
                ]
            ),
        )
        return b"".join(
            [
                encode_varuint(FORMAT),
                encode_varuint(self.size),
                encode_varuint(self.splits_seen),
                *map(encode_bytes, sections),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Head:
        """A head from its bytes.  Raises `StoreCorrupt`."""
        reader = Reader(data)
        try:
            version = reader.varuint()
            if version != FORMAT:
                raise StoreCorrupt(
                    f"a head of format {version}, where this software writes {FORMAT}"
                )
            head = cls()
            head.size = reader.varuint()
            head.splits_seen = reader.varuint()
            sections = [Reader(reader.bytes()) for _ in range(8)]
            reader.finish()
            vector, owners, refused, deletes, pairs, containers, depths, crowd = sections
            head.vector = decode_state_vector(vector.data)
            head.owners = _decode_owners(owners)
            head.refused = decode_state_vector(refused.data)
            head._deletes = None
            head._stored_deletes = deletes.data
            head.second_halves = _decode_pairs(pairs)
            head._nesting = _Nesting.decode(containers, depths)
            for _ in range(crowd.varuint()):
                place = crowd.bytes()
                head._crowd[place] = crowd.varuint()
            crowd.finish()
        except (CodingError, UpdateMalformed) as error:
            raise StoreCorrupt(f"the head of a document does not decode: {error}") from None
        return head

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # it changes


class _Nesting:
    """Where nested types are and how deep.  Empty, and free, where there are none."""

    __slots__ = ("containers", "depths")

    def __init__(self) -> None:
        # Place of a container's item -> how deep what is inside stands; 1 for a type in a root.
        self.containers: dict[Place, int] = {}
        # Client -> (first counters, depths), both ascending by counter; 0 before the first.
        self.depths: dict[int, tuple[list[int], list[int]]] = {}

    def place(self, inspection: Inspection, vector: Mapping[int, int]) -> Iterator[_Placed]:
        """How deep each struct beyond `vector` stands, in the order of each client's counters."""
        runs: dict[int, list[Placement]] = {}
        for placement in inspection.placements():
            if placement.end > vector.get(placement.client, 0):
                runs.setdefault(placement.client, []).append(placement)
        return _Placing(self, runs).placed()

    def take(self, placed: Iterable[_Placed]) -> None:
        """Remember what `place` found."""
        for client, start, depth, is_container in placed:
            if is_container:
                self.containers[client, start] = depth + 1
            known = self.depths.get(client)
            if known is None:
                if depth:
                    self.depths[client] = ([start], [depth])
            elif known[1][-1] != depth and start > known[0][-1]:
                known[0].append(start)
                known[1].append(depth)

    def depth(self, place: Place) -> int:
        """How deep the container is in which this place stands."""
        known = self.depths.get(place[0])
        if known is None:
            return 0
        index = bisect_right(known[0], place[1])
        return known[1][index - 1] if index else 0

    def encode_containers(self) -> bytes:
        return _encode_rows(
            tuple((client, clock, depth) for (client, clock), depth in self.containers.items())
        )

    def encode_depths(self) -> bytes:
        parts = [encode_varuint(len(self.depths))]
        for client, (starts, depths) in self.depths.items():
            parts += [encode_varuint(client), encode_varuint(len(starts))]
            for start, depth in zip(starts, depths, strict=True):
                parts += [encode_varuint(start), encode_varuint(depth)]
        return b"".join(parts)

    @classmethod
    def decode(cls, containers: Reader, depths: Reader) -> _Nesting:
        nesting = cls()
        for _ in range(containers.varuint()):
            place = (containers.varuint(), containers.varuint())
            nesting.containers[place] = containers.varuint()
        containers.finish()
        for _ in range(depths.varuint()):
            client = depths.varuint()
            runs = [(depths.varuint(), depths.varuint()) for _ in range(depths.varuint())]
            if not runs:
                raise CodingError("a client without depths")
            nesting.depths[client] = ([run[0] for run in runs], [run[1] for run in runs])
        depths.finish()
        return nesting


class _Placing:
    """Finds how deep the new structs of one update stand.

    A struct stands where its neighbour stands, whoever wrote that and wherever in the update
    it is.  `inspect` refused circles, so that following neighbours ends; it is followed with a
    list instead of recursion.
    """

    def __init__(self, nesting: _Nesting, runs: Mapping[int, list[Placement]]) -> None:
        self._nesting = nesting
        self._runs = runs
        self._starts = {client: [run.start for run in found] for client, found in runs.items()}
        self._depths: dict[Place, int] = {}

    def placed(self) -> Iterator[_Placed]:
        for client, found in self._runs.items():
            for run in found:
                yield _Placed(client, run.start, self._depth(run), run.is_container)

    def _depth(self, run: Placement) -> int:
        path = [run]
        while path:
            last = path[-1]
            depth = self._depth_or_first(last)
            if isinstance(depth, int):
                self._depths[last.client, last.start] = depth
                path.pop()
            else:
                path.append(depth)
        return self._depths[run.client, run.start]

    def _depth_or_first(self, run: Placement) -> int | Placement:
        """How deep this run stands, or the run that must be placed before that is known."""
        if isinstance(run.parent, str):
            return 0
        if run.parent is not None:
            return self._inside(run.parent)
        depth = 0
        # Hostile structs have neighbours in two containers: then the deeper one counts.
        for place in run.beside:
            found = self._run_at(place)
            if found is None:
                depth = max(depth, self._nesting.depth(place))
                continue
            known = self._depths.get((found.client, found.start))
            if known is None:
                return found
            depth = max(depth, known)
        return depth

    def _inside(self, parent: Place) -> int | Placement:
        """The depth inside a container, or the run to be placed first."""
        found = self._run_at(parent)
        if found is None:
            return self._nesting.containers.get(parent, 0)
        depth = self._depths.get((found.client, found.start))
        return found if depth is None else depth + 1

    def _run_at(self, place: Place) -> Placement | None:
        """The new run that holds this place, if one does."""
        starts = self._starts.get(place[0])
        if starts is None:
            return None
        index = bisect_right(starts, place[1]) - 1
        if index < 0:
            return None
        run = self._runs[place[0]][index]
        return run if place[1] < run.end else None


def _encode_rows(rows: tuple[tuple[int, int, int], ...]) -> bytes:
    parts = [encode_varuint(len(rows))]
    for row in rows:
        parts += map(encode_varuint, row)
    return b"".join(parts)


def _encode_owners(owners: Mapping[int, str]) -> bytes:
    identities = {identity: index for index, identity in enumerate(dict.fromkeys(owners.values()))}
    parts = [encode_varuint(len(identities)), *map(encode_string, identities)]
    parts.append(encode_varuint(len(owners)))
    for client, identity in owners.items():
        parts += [encode_varuint(client), encode_varuint(identities[identity])]
    return b"".join(parts)


def _decode_owners(reader: Reader) -> dict[int, str]:
    identities = [reader.string() for _ in range(reader.varuint())]
    owners: dict[int, str] = {}
    for _ in range(reader.varuint()):
        client = reader.varuint()
        index = reader.varuint()
        if index >= len(identities):
            raise CodingError(f"identity {index} of {len(identities)}")
        owners[client] = identities[index]
    reader.finish()
    return owners


def _decode_pairs(reader: Reader) -> PairTable:
    table = PairTable()
    for _ in range(reader.varuint()):
        run = Run(reader.varuint(), reader.varuint(), reader.varuint())
        if not run.first or not run.pairs:
            raise CodingError("a surrogate pair without a first half")
        table.add(run)
    reader.finish()
    return table


def _encode_deletes(deletes: Intervals) -> bytes:
    by_client: dict[int, list[Range]] = {}
    for deleted in deletes.ranges():
        by_client.setdefault(deleted.client, []).append(deleted)
    parts = [encode_varuint(len(by_client))]
    for client, ranges in by_client.items():
        parts += [encode_varuint(client), encode_varuint(len(ranges))]
        before = 0
        for _, start, end in ranges:
            parts += [encode_varuint(start - before), encode_varuint(end - start)]
            before = end
    return b"".join(parts)


def _decode_deletes(data: bytes) -> Intervals:
    reader = Reader(data)
    deletes = Intervals()
    try:
        for _ in range(reader.varuint()):
            client = reader.varuint()
            before = 0
            for _ in range(reader.varuint()):
                start = before + reader.varuint()
                before = start + reader.varuint()
                deletes.add(client, start, before)
        reader.finish()
    except CodingError as error:
        raise StoreCorrupt(
            f"the deletes in the head of a document do not decode: {error}"
        ) from None
    return deletes
