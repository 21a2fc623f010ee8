"""Texts that were cut inside a surrogate pair: seeing it in the bytes, and repairing it.

Yjs counts UTF-16 units, so a JavaScript client can insert between the two halves of a character
beyond U+FFFF, or delete one of them.  What the engines do then was measured (yjs 13.6, yrs 0.28):

- Yjs replaces both halves by U+FFFD wherever an item is cut inside a pair.  Every Yjs replica
  does the same, so Yjs agrees with itself.
- yrs leaves the whole character in the left piece, and a right piece that is one unit shorter
  than it says.  A later cut or deletion in that run takes *neighbouring* characters away, and
  loading the same state afresh shows another text.

Two answers follow.

`heal` makes bytes safe to integrate.  A pair that these very updates cut becomes two U+FFFD, which
is what Yjs makes of it and takes the same two units; then yrs shows what Yjs shows.

`plan_repair` gives people their character back, everywhere.  First both halves are deleted, as a
whole, while yrs still holds them in one piece; then comes what cut them; then the character
again, between the dead halves (unless its author had deleted a half).  The new item's client id is
derived from the place of the pair: whoever repairs it makes the same bytes, so two replicas that
repair at once do not double the character.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

from crdt_state.identifiers import CLIENT_ID_MAX
from crdt_state.lib0 import encode_string, encode_varuint
from crdt_state.model.inspect import inspect
from crdt_state.model.ranges import Intervals, PairTable, Range, merged
from crdt_state.model.state import encode_deletes
from crdt_state.model.update import HAS_ORIGIN, HAS_RIGHT_ORIGIN, STRING, UpdateReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crdt_state.limits import Limits
    from crdt_state.model.update import Struct

__all__ = ["Split", "heal", "plan_repair", "repairing_client"]

Split = tuple[int, int]
"""(client, counter): a cut just before this counter, which is the second half of a pair."""

PAIR = re.compile("[\U00010000-\U0010ffff]")
PAIR_BYTES = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
REPLACEMENT = "\ufffd"


def heal(updates: Iterable[bytes], limits: Limits) -> list[bytes]:
    """The same updates, with U+FFFD twice for each pair that one of them cuts.

    Nothing else changes, and every counter stays.  Raises `UpdateMalformed` for what is not an
    update.
    """
    updates = list(updates)
    if not any(map(PAIR_BYTES.search, updates)):
        # Nearly every document: one scan at the speed of memory.
        return updates
    pairs = _pairs_in(updates, limits)
    cut = {place for update in updates for place in _cuts(update, limits) if place in pairs}
    if not cut:
        return updates
    clients = {client for client, _ in cut}
    return [_without(cut, clients, update, limits) for update in updates]


def plan_repair(
    updates: Sequence[bytes], splits: Iterable[Split], limits: Limits
) -> tuple[bytes, ...] | None:
    """What to store and send in place of the last of `updates`, which makes these `splits`.

    `updates` are the whole document, that last one included.  The plan is in order and its
    parts must not be merged: the halves' deletion, the update itself (healed), the characters.
    None when no half of these pairs is alive, so that there is nothing to repair.
    """
    wanted = sorted(set(splits))
    characters = _characters_at(set(wanted), updates, limits)
    deleted = Intervals(
        Range(*here)
        for update in updates
        for here in _deletes(update, limits)
        if here.client in {client for client, _ in wanted}
    )
    halves: list[Range] = []
    returning: list[tuple[Split, str]] = []
    for split in wanted:
        client, second = split
        is_first_dead = deleted.covers(client, second - 1, second)
        is_second_dead = deleted.covers(client, second, second + 1)
        if split not in characters or (is_first_dead and is_second_dead):
            continue
        halves.append(Range(client, second - 1, second + 1))
        if not (is_first_dead or is_second_dead):
            returning.append((split, characters[split]))
    if not halves:
        return None
    plan = [_deletion(halves), heal(updates, limits)[-1]]
    if returning:
        plan.append(_insertion(returning))
    return tuple(plan)


def repairing_client(split: Split) -> int:
    """The client id under which the pair at `split` is repaired, by whomever."""
    client, counter = split
    place = client.to_bytes(8, "little") + counter.to_bytes(8, "little")
    digest = sha256(b"crdt-state surrogate repair" + place).digest()
    return int.from_bytes(digest[:8], "little") % CLIENT_ID_MAX + 1


# --- reading ------------------------------------------------------------------------------------


def _pairs_in(updates: Iterable[bytes], limits: Limits) -> PairTable:
    """Every second half that stands in these bytes."""
    return PairTable(
        run
        for update in updates
        if PAIR_BYTES.search(update)
        for run in inspect(update, limits, merged=True).second_halves
    )


def _pairs_of(struct: Struct) -> Iterator[tuple[int, re.Match[str]]]:
    """(counter of the second half, where in the text) for each pair of a struct."""
    text = struct.text
    if text is None or text.isascii():
        return
    # Each pair before this one makes the count of units one greater than that of code points.
    for before, found in enumerate(PAIR.finditer(text)):
        yield struct.clock + found.start() + before + 1, found


def _cuts(update: bytes, limits: Limits) -> Iterator[Split]:
    """Every place before which this update divides what another struct wrote in one piece."""
    reader = UpdateReader(update, limits)
    for struct in reader.structs():
        if struct.origin is not None:
            client, counter = struct.origin
            yield client, counter + 1
        if struct.right_origin is not None:
            yield struct.right_origin
    for client, start, end in reader.deletes():
        yield client, start
        yield client, end


def _deletes(update: bytes, limits: Limits) -> Iterator[Range]:
    reader = UpdateReader(update, limits)
    for _ in reader.structs():
        pass
    yield from reader.deletes()


def _characters_at(
    splits: set[Split], updates: Iterable[bytes], limits: Limits
) -> dict[Split, str]:
    """The characters whose halves these places divide, as far as the bytes still hold them."""
    characters = {}
    for update in updates:
        if PAIR_BYTES.search(update):
            for struct in UpdateReader(update, limits).structs():
                for second, found in _pairs_of(struct):
                    if (struct.client, second) in splits:
                        characters[struct.client, second] = found[0]
    return characters


# --- writing ------------------------------------------------------------------------------------


def _without(cut: set[Split], clients: set[int], update: bytes, limits: Limits) -> bytes:
    """`update` with U+FFFD twice for each pair in `cut`."""
    if not PAIR_BYTES.search(update):
        return update
    pieces: list[bytes] = []
    done = 0
    for struct in UpdateReader(update, limits).structs():
        if struct.client not in clients:
            continue
        harmed = [found for second, found in _pairs_of(struct) if (struct.client, second) in cut]
        if harmed:
            pieces.append(update[done : struct.content_at])
            pieces.append(encode_string(_replaced(struct.text or "", harmed)))
            done = struct.end
    pieces.append(update[done:])
    return b"".join(pieces)


def _replaced(text: str, harmed: Iterable[re.Match[str]]) -> str:
    pieces: list[str] = []
    done = 0
    for found in harmed:
        pieces.append(text[done : found.start()])
        pieces.append(REPLACEMENT * 2)
        done = found.end()
    pieces.append(text[done:])
    return "".join(pieces)


def _deletion(halves: Iterable[Range]) -> bytes:
    """An update that only deletes these ranges."""
    no_structs = b"\0"
    return no_structs + encode_deletes(merged(halves))


def _insertion(returning: Sequence[tuple[Split, str]]) -> bytes:
    """An update that puts each character between the halves that it had."""
    pieces = [encode_varuint(len(returning))]
    for split, character in returning:
        client, second = split
        one_struct_from_zero = (1, repairing_client(split), 0)
        pieces += map(encode_varuint, one_struct_from_zero)
        pieces.append(bytes([HAS_ORIGIN | HAS_RIGHT_ORIGIN | STRING]))
        pieces += map(encode_varuint, (client, second - 1, client, second))
        pieces.append(encode_string(character))
    no_deletes = b"\0"
    return b"".join((*pieces, no_deletes))
