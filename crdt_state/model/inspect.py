"""What an update would do, read from its bytes before anything native sees them.

`inspect` answers with a value that says which counters the update brings, which it deletes, what
must be held before it can be integrated whole, and what admission counts per document.  Three
shapes of it share one reading interface: `Typing` (one run of text, what live editing mostly
sends) and `Erasing` (one deleted range) are recognised by a pattern in a microsecond or two;
everything else is a `Survey`, made by walking the grammar of `model/update`.

1. On any bytes whatsoever, only `UpdateMalformed` or `UpdateTooLarge` is raised.
2. Time and memory are linear in the bytes; nothing recurses.
3. What is let through here, Yjs 13.6 and yrs decode, and it is integrated whole as soon as a
   document holds what `needs` says: structs that wait for each other in a circle are refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeAlias

from crdt_state.errors import UpdateMalformed, UpdateTooLarge
from crdt_state.identifiers import CLIENT_ID_MAX
from crdt_state.lib0 import encode_varuint
from crdt_state.model.crowd import anchor_of, crowded, is_contested, short_anchor
from crdt_state.model.inspection import Container, Erasing, Inspection, Survey, Typing
from crdt_state.model.ranges import COUNTER_MAX, Range, merged
from crdt_state.model.state import EMPTY_UPDATE, encode_deletes
from crdt_state.model.update import (
    DELETED,
    GC,
    SKIP,
    STRING,
    TYPE,
    UNBOUNDED,
    UpdateReader,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crdt_state.limits import Limits
    from crdt_state.model.ranges import Place
    from crdt_state.model.update import Struct

__all__ = [
    "Erasing",
    "Inspection",
    "Survey",
    "Typing",
    "claimed_range",
    "inspect",
    "pieces",
]


def inspect(update: bytes, limits: Limits, *, merged: bool = False) -> Inspection:
    """Read an update without applying it.

    `merged` is for states and for merges of several authors' updates: the bounds on what one
    author adds do not apply to them, everything else does.  About 1 µs for typing, 3 µs a
    struct otherwise: read long ones (from some 100 KB) outside the thread that serves.

    Raises `UpdateMalformed`, `UpdateTooLarge`.
    """
    if len(update) < _SHORT:
        short = _recognise(update)
        if short is not None:
            return short
    bounds = UNBOUNDED if merged else limits
    if len(update) > bounds.update_bytes_max:
        raise UpdateTooLarge("update_bytes_max", bounds.update_bytes_max, len(update))
    return _Walk(update, bounds, limits).survey()


def claimed_range(update: bytes) -> Range | None:
    """Whose counters a refused update claims, as far as its first bytes tell; for one author.

    Where the update itself could not be read, the range is one counter long.
    """
    found = _HEADER.match(update)
    if found is None:
        return None
    client, clock = _number(found[1]), _number(found[2])
    if client > CLIENT_ID_MAX or clock >= COUNTER_MAX:
        return None
    return Range(client, clock, clock + 1)


def pieces(update: bytes, structs_max: int) -> list[bytes]:
    """An update of one client as several, to be applied in this order.

    yrs joins the letters of one transaction in time and memory that grow with the square of their
    number (65,000 structs of one letter: 9 s and 2 GB; in pieces of 1,000: 0.2 s).  An update of
    several clients comes back whole: its sections may need each other.
    """
    reader = UpdateReader(update, UNBOUNDED)
    cut: list[tuple[int, int, list[bytes]]] = []
    for struct in reader.structs():
        if cut and cut[-1][0] != struct.client:
            return [update]
        if not cut or len(cut[-1][2]) >= structs_max:
            cut.append((struct.client, struct.clock, []))
        cut[-1][2].append(update[struct.at : struct.end])
    if len(cut) < 2:
        return [update]
    deletes = list(merged(reader.deletes()))
    *first, last = cut
    return [*(_encoded([section], []) for section in first), _encoded([last], deletes)]


# --- typing ------------------------------------------------------------------------------------

_SHORT = 256

# A varint of up to 8 bytes, in its shortest form.
_V = rb"([\x00-\x7f]|[\x80-\xff]{1,7}[\x01-\x7f])"

_HEADER = re.compile(rb"\x01" + _V.replace(b"(", b"(?:", 1) + _V + _V, re.DOTALL)
_TYPING = re.compile(
    rb"\x01\x01" + _V + _V + rb"(\x84" + _V + _V + rb"|\xc4" + _V + _V + _V + _V + rb")"
    + _V + rb"(.+)\x00",
    re.DOTALL,
)  # fmt: skip
_ERASING = re.compile(rb"\x00\x01" + _V + rb"\x01" + _V + _V, re.DOTALL)


def _number(digits: bytes) -> int:
    size = len(digits)
    if size == 1:
        return digits[0]
    if size == 2:
        return digits[0] & 0x7F | digits[1] << 7
    value = 0
    for byte in reversed(digits):
        value = value << 7 | byte & 0x7F
    return value


def _recognise(update: bytes) -> Typing | Erasing | None:
    """The compact value for live typing, or None for whatever is not plainly that."""
    if not update.startswith(b"\x01\x01"):
        return _recognise_erasing(update)
    found = _TYPING.fullmatch(update)
    if found is None:
        return None
    client_, clock_, place, c0, k0, c1, k1, c2, k2, size_, text = found.groups()
    client, start = _number(client_), _number(clock_)
    size = len(text)
    if _number(size_) != size:
        return None
    if not text.isascii():
        size = _units(text)
    end = start + size
    origin_client, origin_counter = (c0, k0) if c0 is not None else (c1, k1)
    origin = (
        client if origin_client == client_ else _number(origin_client),
        _number(origin_counter),
    )
    right_origin = None if c2 is None else (_number(c2), _number(k2))
    # Whatever is not plainly in order is for the walk, which says what is wrong.
    is_plain = (
        size
        and client <= CLIENT_ID_MAX
        and end <= COUNTER_MAX
        and _is_earlier(origin, client, start)
        and (right_origin is None or _is_earlier(right_origin, client, start))
    )
    if not is_plain:
        return None
    anchor = b"" if origin == (client, start - 1) else short_anchor(place[1:])
    return Typing(update, client, start, end, origin, right_origin, anchor)


def _units(text: bytes) -> int:
    """UTF-16 units of a text without surrogate pairs; 0 where it is something else."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return 0
    return len(decoded) if max(decoded) <= "\uffff" else 0


def _is_earlier(place: Place, client: int, start: int) -> bool:
    return place[0] <= CLIENT_ID_MAX and place[1] < (start if place[0] == client else COUNTER_MAX)


def _recognise_erasing(update: bytes) -> Erasing | None:
    found = _ERASING.fullmatch(update)
    if found is None:
        return None
    client, start, length = map(_number, found.groups())
    if client > CLIENT_ID_MAX or not length or start + length > COUNTER_MAX:
        return None
    return Erasing(update, client, start, start + length)


# --- everything else ---------------------------------------------------------------------------

_Sections: TypeAlias = list[tuple[int, int, list[bytes]]]


class _Section:
    """What the structs of one client in one update come to."""

    __slots__ = ("client", "end", "links", "pieces", "reach")

    def __init__(self, client: int) -> None:
        self.client = client
        self.pieces: list[list[int]] = []
        # Client -> the counter up to which this section's structs refer to it.
        self.reach: dict[int, int] = {}
        # (own counter, client, counter): from that counter on, the other client's must be there.
        self.links: list[tuple[int, int, int]] = []
        self.end = 0


class _Walk:
    """One reading of one update from front to back."""

    def __init__(self, update: bytes, bounds: Limits, limits: Limits) -> None:
        self._update = update
        self._bounds = bounds
        self._limits = limits
        self._sections: dict[int, _Section] = {}
        self._collected: list[Range] = []
        self._skipped: list[Range] = []
        self._roots: set[str] = set()
        self._containers: list[Container] = []
        self._parents: set[Place] = set()
        self._crowd: dict[bytes, int] = {}
        self._structs = 0
        self._has_pairs = False

    def survey(self) -> Survey:
        bounds = self._bounds
        reader = UpdateReader(self._update, self._limits)
        section = _Section(-1)
        for struct in reader.structs():
            if struct.client != section.client:
                if len(self._sections) >= bounds.update_clients_max:
                    limit = bounds.update_clients_max
                    raise UpdateTooLarge("update_clients_max", limit, limit + 1)
                section = self._sections[struct.client] = _Section(struct.client)
            self._structs += 1
            if self._structs > bounds.update_structs_max:
                limit = bounds.update_structs_max
                raise UpdateTooLarge("update_structs_max", limit, self._structs)
            self._take(section, struct)
        deletes: list[Range] = []
        for deleted in reader.deletes():
            deletes.append(deleted)
            if len(deletes) > bounds.update_delete_ranges_max:
                limit = bounds.update_delete_ranges_max
                raise UpdateTooLarge("update_delete_ranges_max", limit, len(deletes))
        sections = self._sections
        self._refuse_circles()
        self._refuse_childless()
        return Survey(
            update=self._update,
            vector={
                client: section.pieces[-1][1]
                for client, section in sections.items()
                if section.pieces
            },
            ranges=tuple(
                Range(client, start, end)
                for client in sorted(sections)
                for start, end in sections[client].pieces
            ),
            collected=merged(self._collected),
            skipped=merged(self._skipped),
            deletes=merged(deletes),
            needs=self._needs(deletes),
            roots=frozenset(self._roots),
            containers=tuple(self._containers),
            parents=frozenset(place for place in self._parents if not self._holds(place)),
            places=self._crowd,
            structs=self._structs,
            has_pairs=self._has_pairs,
        )

    def _take(self, section: _Section, struct: Struct) -> None:
        client, clock, kind = struct.client, struct.clock, struct.kind
        end = clock + struct.length
        if kind == SKIP:
            self._skipped.append(Range(client, clock, end))
            return
        if section.pieces and section.pieces[-1][1] == clock:
            section.pieces[-1][1] = end
        else:
            section.pieces.append([clock, end])
        if kind == GC:
            self._collected.append(Range(client, clock, end))
            return
        origin, right_origin, parent = struct.origin, struct.right_origin, struct.parent
        if origin is not None:
            self._refer(section, clock, origin)
        if right_origin is not None:
            self._refer(section, clock, right_origin)
        if isinstance(parent, str):
            self._roots.add(parent)
        elif parent is not None:
            self._refer(section, clock, parent)
            self._parents.add(parent)
        if is_contested(struct):
            crowded(self._crowd, anchor_of(self._update, struct))
        if kind == TYPE:
            self._containers.append(Container(client, clock))
        elif kind == STRING and struct.text is not None and len(struct.text) != struct.length:
            self._has_pairs = True

    def _refer(self, section: _Section, clock: int, place: Place) -> None:
        client, counter = place
        # References to one's own past hold by the order of counters alone.
        if client != section.client and counter >= section.reach.get(client, 0):
            section.reach[client] = counter + 1
            section.links.append((clock, client, counter + 1))

    def _needs(self, deletes: Iterable[Range]) -> dict[int, int]:
        needs: dict[int, int] = {}
        for section in self._sections.values():
            if section.pieces and section.pieces[-1][0]:
                needs[section.client] = section.pieces[-1][0]
        for section in self._sections.values():
            for client, counter in section.reach.items():
                if not self._brings(client, counter):
                    needs[client] = max(needs.get(client, 0), counter)
        for client, _, end in deletes:
            if not self._brings(client, end):
                needs[client] = max(needs.get(client, 0), end)
        return needs

    def _brings(self, client: int, counter: int) -> bool:
        """Whether the update holds `counter - 1`, or what it holds presupposes that."""
        section = self._sections.get(client)
        return section is not None and bool(section.pieces) and counter <= section.pieces[-1][1]

    def _holds(self, place: Place) -> bool:
        section = self._sections.get(place[0])
        if section is None:
            return False
        pieces = section.pieces
        index = bisect_right(pieces, [place[1], COUNTER_MAX]) - 1
        return index >= 0 and place[1] < pieces[index][1]

    def _refuse_childless(self) -> None:
        """Refuse inserts into an item of this update that is neither a nested type nor gone."""
        containers = {(container.client, container.clock) for container in self._containers}
        suspects = {
            place for place in self._parents if place not in containers and self._holds(place)
        }
        if not suspects:
            return
        by_client: dict[int, list[int]] = {}
        for client, counter in sorted(suspects):
            by_client.setdefault(client, []).append(counter)
        for struct in UpdateReader(self._update, UNBOUNDED).structs():
            if struct.kind not in (GC, DELETED, SKIP):
                counters = by_client.get(struct.client, [])
                index = bisect_left(counters, struct.clock)
                if index < len(counters) and counters[index] < struct.clock + struct.length:
                    raise UpdateMalformed(
                        f"not an update that can be applied: it inserts into the item of client "
                        f"{struct.client} at {counters[index]}, which holds no nested type"
                    )

    def _refuse_circles(self) -> None:
        """Refuse structs of which each waits for the other: they would wait for ever.

        Integrates the sections on paper: each goes on until it refers to something that the
        update brings and that is not in yet.
        """
        sections = self._sections
        if len(sections) < 2:
            return
        reached = {
            client: section.pieces[0][0] if section.pieces else 0
            for client, section in sections.items()
        }
        next_link = dict.fromkeys(sections, 0)
        # Client -> (counter awaited, who waits), the least first: each is woken only once.
        waiting: dict[int, list[tuple[int, int]]] = {}
        ready = deque(sections)
        done = 0
        while ready:
            client = ready.popleft()
            section = sections[client]
            links = section.links
            at = next_link[client]
            while at < len(links):
                clock, other, counter = links[at]
                if self._brings(other, counter) and counter > reached[other]:
                    reached[client] = max(reached[client], clock)
                    heappush(waiting.setdefault(other, []), (counter, client))
                    break
                at += 1
            else:
                reached[client] = section.pieces[-1][1] if section.pieces else 0
                done += 1
            next_link[client] = at
            heap = waiting.get(client)
            while heap and heap[0][0] <= reached[client]:
                ready.append(heappop(heap)[1])
        if done < len(sections):
            raise UpdateMalformed("not an update that can be applied: structs wait in a circle")


def _encoded(sections: _Sections, deletes: list[Range]) -> bytes:
    if not sections and not deletes:
        return EMPTY_UPDATE
    parts = [encode_varuint(len(sections))]
    for client, clock, structs in sections:
        parts += [encode_varuint(len(structs)), encode_varuint(client), encode_varuint(clock)]
        parts += structs
    return b"".join(parts) + encode_deletes(deletes)
