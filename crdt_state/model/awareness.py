"""Who is here and where their cursor stands: y-protocols' awareness as two state tables.

An update is (lib0 coding; https://github.com/yjs/y-protocols/blob/master/awareness.js)

    varuint   how many entries follow
    each:     varuint client id · varuint clock · string, the state as JSON; `null` means gone

and is never stored.  An entry replaces an older one of its client when its clock is greater.
`Awareness` is what a client keeps: its own state and those of others.  It reads no clock: the time
is an argument.  What is kept of everyone at a document is `awareness_room`'s.

1. An entry with a clock already seen changes nothing, except that `null` says that the client is
   gone.
2. Nobody but ourselves changes or removes our own entry; a peer that says we are gone is
   contradicted with a higher clock.
3. Tables are bounded (`Limits.awareness_*`): what does not fit is ignored and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from crdt_state.clocks import Instant
from crdt_state.errors import LimitExceeded, RemoteProtocolError, ValueNotStorable
from crdt_state.identifiers import ClientId
from crdt_state.lib0 import CodingError, Reader, encode_string, encode_varuint
from crdt_state.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "GONE",
    "OUTDATED_SECONDS",
    "RENEW_SECONDS",
    "Awareness",
    "AwarenessChange",
    "AwarenessEntry",
    "decode_awareness",
    "encode_awareness",
]

OUTDATED_SECONDS = 30.0
"""A client that has not raised its clock for so long is taken for gone (y-protocols)."""

RENEW_SECONDS = OUTDATED_SECONDS / 2
"""How often a client raises its clock even though nothing changed (y-protocols)."""

GONE = "null"

CLOCK_MAX = 2**52
"""Our own clock is not driven beyond this by what others say about us."""

State: TypeAlias = Any
"""What JSON holds; a dictionary, unless a foreign program chose otherwise."""


@dataclass(frozen=True, slots=True)
class AwarenessEntry:
    """One client's state as it travels; `text` is JSON, kept as it came for whom we pass it on."""

    client: ClientId
    clock: int
    text: str

    @property
    def is_gone(self) -> bool:
        """Whether the entry says that its client has left."""
        return self.text == GONE


@dataclass(frozen=True, slots=True)
class AwarenessChange:
    """What an update did: clients that came, changed their state, left, or only showed life."""

    added: tuple[ClientId, ...] = ()
    updated: tuple[ClientId, ...] = ()
    removed: tuple[ClientId, ...] = ()
    renewed: tuple[ClientId, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)


def encode_awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    """The update that carries `entries`."""
    parts = [
        encode_varuint(entry.client) + encode_varuint(entry.clock) + encode_string(entry.text)
        for entry in entries
    ]
    return encode_varuint(len(parts)) + b"".join(parts)


def decode_awareness(update: bytes, *, limits: Limits = DEFAULT_LIMITS) -> list[AwarenessEntry]:
    """The entries of `update`, each with a state that is JSON.

    Raises `RemoteProtocolError` for anything else, and for a state larger than
    `Limits.awareness_bytes_max`: one unreadable state would break every browser it is sent to.
    """
    try:
        reader = Reader(update)
        count = reader.varuint()
        if count > limits.awareness_clients_max:
            allowed = f"awareness_clients_max = {limits.awareness_clients_max}"
            raise RemoteProtocolError(f"{count} awareness entries are more than {allowed} allows")
        entries = [
            AwarenessEntry(ClientId(reader.varuint()), reader.varuint(), _checked(reader, limits))
            for _ in range(count)
        ]
        reader.finish()
    except CodingError as error:
        raise RemoteProtocolError(f"not an awareness update: it {error}") from None
    return entries


@dataclass(slots=True)
class _Known:
    """What a client keeps of one client; `state` is None when it is gone."""

    clock: int
    text: str
    state: State | None
    seen: Instant


class Awareness:
    """The states of everyone who has a document open, seen from one client.

    Send what `set_local`, `renew` and `leave` return; give what arrives to `apply`.  Gone
    clients are remembered by their clock, so that a late update does not bring them back, up to
    `Limits.awareness_clients_max`.
    """

    def __init__(self, client: ClientId, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.client = client
        self.entries_ignored = 0
        self._limits = limits
        self._known: dict[ClientId, _Known] = {}
        self._bytes = 0

    @property
    def local(self) -> State | None:
        """Our own state, or None while we show none."""
        own = self._known.get(self.client)
        return None if own is None else own.state

    @property
    def states(self) -> dict[ClientId, State]:
        """Every state that is shown now, our own included."""
        return {
            client: known.state for client, known in self._known.items() if known.state is not None
        }

    def clock_of(self, client: ClientId) -> int | None:
        """The greatest clock seen of `client`, or None when it is unknown."""
        known = self._known.get(client)
        return None if known is None else known.clock

    def set_local(self, state: dict[str, Any], *, now: Instant) -> bytes:
        """Show `state`, a dictionary that JSON holds, as ours; the update to send.

        Raises `ValueNotStorable` for what JSON cannot hold, `LimitExceeded` for too much of it.
        """
        text = _json(state)
        size = len(text.encode())
        if size > self._limits.awareness_bytes_max:
            raise LimitExceeded("awareness_bytes_max", self._limits.awareness_bytes_max, size)
        own = self._known.get(self.client)
        # From 1: y-protocols takes an unknown client's clock for 0, and ignores what is not above.
        clock = 1 if own is None else own.clock + 1
        # Parsed anew, so that what we show does not change with the caller's object.
        self._put(self.client, _Known(clock, text, json.loads(text), now))
        return self.encode([self.client])

    def leave(self, *, now: Instant) -> bytes | None:
        """Show no state any more; the update to send, or None when none was shown."""
        own = self._known.get(self.client)
        if own is None or own.state is None:
            return None
        self._put(self.client, _Known(own.clock + 1, GONE, None, now))
        return self.encode([self.client])

    def renew(self, *, now: Instant) -> bytes | None:
        """Raise our clock when `RENEW_SECONDS` have passed; the update to send, if any."""
        own = self._known.get(self.client)
        if own is None or own.state is None or now - own.seen < RENEW_SECONDS:
            return None
        self._put(self.client, _Known(own.clock + 1, own.text, own.state, now))
        return self.encode([self.client])

    def apply(self, update: bytes, *, now: Instant) -> AwarenessChange:
        """Take in what a peer sent.

        When our own client is among `updated`, a peer believed us gone: send
        `encode([awareness.client])`.  Raises `RemoteProtocolError`; then nothing has changed.
        """
        added: list[ClientId] = []
        updated: list[ClientId] = []
        removed: list[ClientId] = []
        renewed: list[ClientId] = []
        for entry in decode_awareness(update, limits=self._limits):
            known = self._known.get(entry.client)
            if entry.client == self.client:
                if self._contradicts(entry, now):
                    updated.append(self.client)
                continue
            is_shown = known is not None and known.state is not None
            if known is not None and not _supersedes(entry, known.clock, is_shown=is_shown):
                continue
            if not self._make_room(entry):
                self.entries_ignored += 1
                continue
            before = None if known is None else known.state
            state = None if entry.is_gone else json.loads(entry.text)
            self._put(entry.client, _Known(entry.clock, entry.text, state, now))
            if state is None:
                (removed if is_shown else renewed).append(entry.client)
            elif not is_shown:
                added.append(entry.client)
            else:
                (renewed if state == before else updated).append(entry.client)
        return AwarenessChange(tuple(added), tuple(updated), tuple(removed), tuple(renewed))

    def expired(self, now: Instant) -> AwarenessChange:
        """Take those for gone who have been silent for `OUTDATED_SECONDS`."""
        return self._remove(
            client
            for client, known in self._known.items()
            if client != self.client and now - known.seen >= OUTDATED_SECONDS
        )

    def forget(self, clients: Iterable[ClientId]) -> AwarenessChange:
        """Take these for gone, without a memory of them: who told us of them is lost.

        Never ourselves; who is not known is passed over.
        """
        others = [each for each in clients if each != self.client and each in self._known]
        change = self._remove(others)
        for client in others:
            self._drop(client)
        return change

    def encode(self, clients: Iterable[ClientId] | None = None) -> bytes:
        """The update that carries the entries of `clients`, or every state shown now."""
        if clients is None:
            chosen = [client for client, known in self._known.items() if known.state is not None]
        else:
            chosen = [client for client in clients if client in self._known]
        return encode_awareness(
            AwarenessEntry(client, self._known[client].clock, self._known[client].text)
            for client in chosen
        )

    def _contradicts(self, entry: AwarenessEntry, now: Instant) -> bool:
        """Keep our own entry ahead of `entry`, which a peer sent about us; whether it rose."""
        if entry.clock > CLOCK_MAX:
            self.entries_ignored += 1
            return False
        own = self._known.get(self.client)
        if own is None:
            # An earlier life of this client id; our first state must come after it.
            self._put(self.client, _Known(entry.clock, GONE, None, now))
            return False
        if entry.clock < own.clock or (entry.clock == own.clock and not entry.is_gone):
            return False
        if own.state is None:
            own.clock = max(own.clock, entry.clock)
            return False
        own.clock = entry.clock + 1
        return True

    def _remove(self, clients: Iterable[ClientId]) -> AwarenessChange:
        removed = []
        for client in list(clients):
            known = self._known[client]
            if known.state is not None:
                removed.append(client)
                self._put(client, _Known(known.clock, GONE, None, known.seen))
        return AwarenessChange(removed=tuple(removed))

    def _make_room(self, entry: AwarenessEntry) -> bool:
        """Whether `entry` may be kept, after forgetting gone clients if that helps."""
        known = self._known.get(entry.client)
        size = len(entry.text) - (0 if known is None else len(known.text))
        if size > 0 and self._bytes + size > self._limits.awareness_total_bytes_max:
            return False
        if known is None and len(self._known) >= self._limits.awareness_clients_max:
            gone = next((client for client in self._known if self._is_forgettable(client)), None)
            if gone is None:
                return False
            self._drop(gone)
        return True

    def _is_forgettable(self, client: ClientId) -> bool:
        return client != self.client and self._known[client].state is None

    def _put(self, client: ClientId, known: _Known) -> None:
        self._drop(client)
        self._known[client] = known
        self._bytes += len(known.text)

    def _drop(self, client: ClientId) -> None:
        known = self._known.pop(client, None)
        if known is not None:
            self._bytes -= len(known.text)


def _supersedes(entry: AwarenessEntry, clock: int, *, is_shown: bool) -> bool:
    return entry.clock > clock or (entry.clock == clock and entry.is_gone and is_shown)


def _checked(reader: Reader, limits: Limits) -> str:
    """A state's JSON, checked to be what a browser's `JSON.parse` takes."""
    start = reader.at
    text = reader.string()
    if reader.at - start > limits.awareness_bytes_max:
        allowed = f"awareness_bytes_max = {limits.awareness_bytes_max}"
        raise RemoteProtocolError(f"an awareness state at byte {start} is larger than {allowed}")
    if text == GONE:
        return GONE
    try:
        state = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RemoteProtocolError(f"the awareness state at byte {start} is not JSON") from None
    return GONE if state is None else text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is Python's, not JSON's")


def _json(state: dict[str, Any]) -> str:
    try:
        return json.dumps(state, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueNotStorable("state", f"JSON cannot hold it: {error}") from None
