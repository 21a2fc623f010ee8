"""A server, thin clients and people at the CRDT, in one thread, with a wire that goes wrong.

The wire is JSON in two queues for each connection: what goes one way stays in order, and nothing
else is sure.  A connection that is cut loses what is in either queue.  The server commits when the
dice say so, which may fail; it is restarted from what it has stored, at times in a later epoch.

What it does around `Revisions` is what every shell has to do: apply, collect the revision, commit,
publish; end a source's older connection when it resumes on another.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crdt_client.thin import HandedBack, News, Phase, Resume, ThinDocument
from crdt_state.bridge import (
    Accepted,
    Floor,
    Malformed,
    Moved,
    OutOfOrder,
    Repeated,
    Revisions,
    Stale,
    decode,
    encode,
    epoch_of,
)
from crdt_state.limits import Limits
from crdt_state.ot import (
    EMPTY,
    Attributes,
    Delete,
    Embed,
    Insert,
    Operation,
    Retain,
    apply,
    compose,
    length_of,
    rich_text,
    text_unicode,
)
from crdt_state.ot.formats import RICH_TEXT, TEXT_UNICODE, Format
from ot.operations import PIECES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from crdt_state.bridge import Revision
    from crdt_state.ot import Component, Document

__all__ = ["CALM", "ComposingRevisions", "Run", "Weather", "in_plain", "wrong_side"]

LIMITS = Limits(
    revisions_kept_max=120,
    revision_sources_max=2,
    revision_base_revisions_max=60,
    revision_base_components_max=2_000,
    revision_catch_up_bytes_max=4_000,
)
"""Small enough that runs come to all of them."""

NAMES = ("bold", "列")
VALUES: tuple[Any, ...] = (True, "x", {"deep": [1, None]})


class ComposingRevisions(Revisions):
    """A mutant: composes the history before it rebases on it."""

    def _missed(self, base: int, spoken: Format) -> list[Operation]:
        missed = super()._missed(base, spoken)
        composed = EMPTY
        for operation in missed:
            composed = compose(composed, operation, order=spoken.order)
        return [composed]


def wrong_side(spoken: Format) -> Format:
    """A mutant: what a server takes for a format, on the other side."""
    return replace(spoken, incoming=spoken.incoming.other)


def right_side(spoken: Format) -> Format:
    return spoken


@dataclass(frozen=True)
class Weather:
    """How often, of all that happens, something goes wrong."""

    cuts: float = 0.02
    failures: float = 0.1
    restarts: float = 0.004
    epochs: float = 0.2
    floors: float = 0.012
    forgets: float = 0.1
    slow_disks: float = 0.4
    """How many runs have one that commits a tenth as often."""


CALM = Weather(0, 0, 0, 0, 0, 0, 0)


# --- the wire -------------------------------------------------------------------------------


def operation_out(spoken: Format, operation: Operation) -> Any:
    """An operation in the measure of a format, as its JSON."""
    if spoken.is_plain:
        return text_unicode.encode(operation)
    return rich_text.encode_units(operation)


def operation_in(spoken: Format, wire: Any) -> Operation:
    if spoken.is_plain:
        return text_unicode.decode(wire)
    return rich_text.decode_units(wire)


def document_out(spoken: Format, document: Document) -> Any:
    if spoken.is_plain:
        assert isinstance(document, str)
        return document
    if isinstance(document, str):
        document = Operation.of(Insert(document))
    return rich_text.encode(document, EMPTY)


def document_in(spoken: Format, wire: Any) -> Document:
    return wire if spoken.is_plain else rich_text.decode(wire, EMPTY)


def in_plain(document: Document) -> str:
    """A document's text alone."""
    if isinstance(document, str):
        return document
    assert document.is_plain
    return "".join(str(each.content) for each in document.components)


@dataclass
class Connection:
    """Two queues; `is_open` until it is cut."""

    client: Client
    up: deque[str] = field(default_factory=deque)
    down: deque[str] = field(default_factory=deque)
    is_open: bool = True
    is_subscribed: bool = False
    name: str | None = None
    source: str | None = None

    def cut(self) -> None:
        """What is under way is lost, both ways."""
        self.is_open = False
        self.is_subscribed = False
        self.up.clear()
        self.leave()

    def leave(self) -> None:
        """The client is gone, and the server has not seen that yet: it reads what was sent."""
        self.down.clear()
        if self.client.connection is self:
            self.client.connection = None
            self.client.thin.disconnected()

    @property
    def is_left(self) -> bool:
        return self.client.connection is not self


class Client:
    """A thin client, its connection, and the edits that were handed back to its user."""

    def __init__(self, spoken: Format, source: str) -> None:
        self.thin = ThinDocument(spoken, source, limits=LIMITS)
        self.connection: Connection | None = None
        self.handed_back: list[HandedBack] = []
        self.shown = self.thin.document
        """What an editor shows that is told of every change."""

    def restart(self) -> None:
        """As a process that is killed: what it wrote down last is all that is left."""
        if self.connection is not None:
            self.connection.cut()
        self.thin = ThinDocument.restore(self.thin.export(), limits=LIMITS)
        assert self.thin.document == self.shown

    def edit(self, operation: Operation) -> None:
        self.thin.edit(operation)
        self.shown = apply(self.shown, operation)

    def send(self) -> None:
        if self.connection is None:
            return
        message = self.thin.to_send()
        if isinstance(message, Resume):
            wire: Any = ["resume", message.name, message.source, message.revision]
        elif message is not None:
            operation = operation_out(self.thin.format, message.operation)
            wire = ["submit", message.source, message.sequence, message.base, operation]
        else:
            return
        self.connection.up.append(json.dumps(wire))

    def hear(self, frame: str) -> None:
        spoken = self.thin.format
        changes: tuple[Operation, ...] = ()
        match json.loads(frame):
            case ["revision", *news]:
                changes = (self.thin.receive(self._news(news)),)
            case ["since", many]:
                changes = self.thin.caught_up([self._news(news) for news in many])
            case ["snapshot", number, document, sequence]:
                rejoined = self.thin.snapshot(number, document_in(spoken, document), sequence)
                changes = (rejoined.change,)
                if rejoined.handed_back is not None:
                    self.handed_back.append(rejoined.handed_back)
            case ["repeated", sequence, number]:
                self.thin.acknowledged(sequence, number)
            case ["stale", sequence]:
                self.thin.stale(sequence)
            case ["cursor", name, positions, number]:
                assert self.thin.show_cursor(name, positions, number)
            case other:
                raise AssertionError(other)
        for change in changes:
            self.shown = apply(self.shown, change)
        assert self.shown == self.thin.document

    def _news(self, wire: Any) -> News:
        number, operation, source, sequence = wire
        return News(number, operation_in(self.thin.format, operation), source, sequence)


class Server:
    """What a shell does around `Revisions`; its text is what a CRDT would hold."""

    def __init__(
        self,
        document: Document,
        make: Callable[..., Revisions] = Revisions,
        heard_as: Callable[[Format], Format] = right_side,
    ) -> None:
        self.make = make
        self.heard_as = heard_as
        self.connections: list[Connection] = []
        self.waiting: list[tuple[Connection, str, int]] = []
        """Who asked for a snapshot while something of theirs was provisional."""
        self.repeated: list[tuple[Connection, int, int]] = []
        """Who is to be answered again once that is durable."""
        self.disk_floor = Floor.of_epoch(1).encode()
        self.disk_log: list[bytes] = []
        self.disk_text = document
        self.concurrent = 0
        self.lost: set[str] = set()
        """What people at the CRDT have written and no commit has brought to the disk."""
        self.seen: set[str] = set()
        """What has happened in this run, by name."""
        self.text = document
        self.revisions = self._restored()

    def hear(self, connection: Connection, frame: str) -> None:
        match json.loads(frame):
            case ["resume", name, source, revision]:
                for other in self.connections:
                    if other is not connection and other.name == name:
                        other.cut()
                connection.name, connection.source = name, source
                self._resume(connection, source, revision)
            case ["submit", source, sequence, base, wire]:
                self._submit(connection, source, sequence, base, wire)

    def edit(self, operation: Operation) -> None:
        """Somebody at the CRDT does this to the text as it is now."""
        if self.revisions.published != self.revisions.head or any(
            not each.thin.is_settled for each in self._clients()
        ):
            self.concurrent += 1
        self.text = apply(self.text, operation)
        self.revisions.observed(operation)

    def commit(self) -> None:
        """Write what is provisional, then publish it."""
        provisional = self.revisions.provisional
        if not provisional:
            return
        # Not all at once: a commit takes what there was when it began.
        through = provisional[len(provisional) // 2]
        written = [each for each in provisional if each.number <= through.number]
        self.disk_log += map(encode, written)
        for each in written:
            self.disk_text = apply(self.disk_text, each.operation)
        news = self.revisions.persisted(through.number)
        assert news == tuple(written)
        assert self.revisions.published_document == self.disk_text
        for revision in news:
            for connection in self.connections:
                if connection.is_subscribed and not connection.is_left:
                    self._say(connection, "revision", *self._wire(connection, revision))
        self._answer_waiting()
        if (floor := self.revisions.trim()) is not None:
            self._store_floor(floor)

    def fail(self) -> None:
        """The commit fails: the text is built anew, and who waits for an answer is cut off."""
        provisional = self.revisions.provisional
        self._lose()
        self.revisions.failed()
        self.text = self.disk_text
        if provisional:
            self.seen.add("failed commit")
        lost = {each.source for each in provisional}
        for connection in list(self.connections):
            if connection.source in lost:
                connection.cut()
        self.waiting.clear()
        self.repeated.clear()

    def restart(self, *, in_next_epoch: bool) -> None:
        if self.revisions.provisional:
            self.seen.add("lost provisional")
        self._lose()
        for connection in self.connections:
            connection.cut()
        self.connections.clear()
        self.waiting.clear()
        self.repeated.clear()
        self.text = self.disk_text
        self.revisions = self._restored()
        if in_next_epoch:
            self.seen.add("epoch")
            epoch = epoch_of(self.revisions.head) + 1
            self.disk_floor = self.revisions.floor_of_epoch(epoch).encode()
            self.disk_log.clear()
            self.revisions = self._restored()

    def raise_floor(self) -> None:
        self._store_floor(self.revisions.raise_floor(self.revisions.published))
        self.seen.add("floor")

    def accept(self, client: Client) -> None:
        connection = Connection(client)
        client.connection = connection
        self.connections.append(connection)
        client.thin.connected()

    def _clients(self) -> list[Client]:
        return [each.client for each in self.connections if each.is_open]

    def _restored(self) -> Revisions:
        log = [decode(data) for data in self.disk_log]
        floor = Floor.decode(self.disk_floor)
        assert [encode(each) for each in log] == self.disk_log
        return self.make(floor, log, self.disk_text, limits=LIMITS)

    def _store_floor(self, floor: Floor) -> None:
        self.disk_floor = floor.encode()
        self.disk_log = [data for data in self.disk_log if decode(data).number > floor.number]

    def _lose(self) -> None:
        for revision in self.revisions.provisional:
            if revision.source is None:
                for component in revision.operation.components:
                    if type(component) is Insert:
                        self.lost |= set(
                            component.content if type(component.content) is str else ""
                        )

    def _submit(
        self, connection: Connection, source: str, sequence: int, base: int, wire: Any
    ) -> None:
        spoken = connection.client.thin.format
        operation = operation_in(spoken, wire)
        connection.source = source
        before = self.revisions.head
        decision = self.revisions.submit(base, source, sequence, operation, self.heard_as(spoken))
        assert self.revisions.head == before
        match decision:
            case Accepted(made):
                self.concurrent += base < self.revisions.head
                self.text = apply(self.text, made)
                self.revisions.observed(made, source, sequence)
            case Repeated(number):
                self.seen.add("repeated")
                self.repeated.append((connection, sequence, number))
                self._answer_waiting()
            case Stale():
                self.seen.add("stale")
                self._say(connection, "stale", sequence)
            case Malformed() | OutOfOrder():
                raise AssertionError(decision)

    def _resume(self, connection: Connection, source: str, revision: int) -> None:
        news = self.revisions.since(revision)
        if not isinstance(news, Stale):
            connection.is_subscribed = True
            self._say(connection, "since", [self._wire(connection, each) for each in news])
            return
        snapshot = self.revisions.snapshot(source, revision)
        if snapshot is None:
            self.seen.add("snapshot waits")
            self.waiting.append((connection, source, revision))
            return
        self.seen.add("snapshot")
        connection.is_subscribed = True
        document = document_out(connection.client.thin.format, snapshot.document)
        self._say(connection, "snapshot", snapshot.number, document, snapshot.sequence)

    def _answer_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for connection, source, revision in waiting:
            if connection.is_open:
                self._resume(connection, source, revision)
        repeated, self.repeated = self.repeated, []
        for connection, sequence, number in repeated:
            if number > self.revisions.published:
                self.repeated.append((connection, sequence, number))
            elif connection.is_open:
                self._say(connection, "repeated", sequence, number)

    def _wire(self, connection: Connection, revision: Revision) -> list[Any]:
        spoken = connection.client.thin.format
        operation = revision.in_units if spoken.counts_units else revision.operation
        return [
            revision.number,
            operation_out(spoken, operation),
            revision.source,
            revision.sequence,
        ]

    def _say(self, connection: Connection, *message: Any) -> None:
        if connection.is_open and not connection.is_left:
            connection.down.append(json.dumps(message))


# --- people ---------------------------------------------------------------------------------


def place(dice: Random, length: int) -> int:
    """Where somebody edits: at few places, as people do who work on one sentence."""
    if dice.random() < 0.5:
        return min(length, dice.choice((0, 1, 2, 3)))
    return dice.randint(0, length)


def content(dice: Random, *, is_rich: bool) -> str | Embed:
    if is_rich and dice.random() < 0.1:
        return Embed.of({"image": dice.choice(("cat.png", "dog.png"))})
    return "".join(dice.choices(PIECES, k=dice.randint(1, 2)))


def attributes(dice: Random, *, is_change: bool) -> Attributes:
    values = (None, *VALUES) if is_change else VALUES
    return Attributes.of({dice.choice(NAMES): dice.choice(values)})


def edit(dice: Random, document: Document, *, is_rich: bool) -> Operation:
    """What somebody does to a document, at one or two places."""
    length = length_of(document)
    at = place(dice, length)
    components: list[Component] = [Retain(at)]
    left = length - at
    # Texts stay short, so that places are few.
    shrinks = 0.6 if length > 24 else 0.4
    for _ in range(dice.randint(1, 2)):
        count = min(left, dice.randint(1, 4))
        if is_rich and dice.random() < 0.3:
            components.append(Retain(count, attributes(dice, is_change=True)))
            left -= count
        elif dice.random() < shrinks:
            components.append(Delete(count))
            left -= count
        else:
            has = attributes(dice, is_change=False) if is_rich and dice.random() < 0.4 else None
            components.append(Insert(content(dice, is_rich=is_rich), has))
        if dice.random() < 0.3:
            step = min(left, dice.randint(0, 2))
            components.append(Retain(step))
            left -= step
    return Operation.of(*components)


def tags() -> Iterator[str]:
    """Characters of which each is there once, half of them pairs."""
    for number in range(10_000):
        yield chr((0x5000 if number % 2 else 0x20000) + number)


class Run:
    """One history, drawn from dice: until 40 operations were concurrent, then healed.

    With `only_tags` everybody only inserts, and each time something that nobody else has.
    """

    def __init__(
        self,
        dice: Random,
        *,
        is_rich: bool,
        weather: Weather = Weather(),
        make: Callable[..., Revisions] = Revisions,
        heard_as: Callable[[Format], Format] = right_side,
        formats: Sequence[Format] | None = None,
        concurrent: int = 40,
        only_tags: bool = False,
    ) -> None:
        self.dice = dice
        self.tags = tags() if only_tags else None
        self.written: list[str] = []
        self.is_rich = is_rich
        self.weather = weather
        self.concurrent = concurrent
        self.commits = 0.1 if dice.random() < weather.slow_disks else 1.0
        text = "".join(dice.choices(PIECES, k=4))
        document: Document = Operation.of(Insert(text)) if is_rich else text
        self.server = Server(document, make, heard_as)
        if formats is None:
            plain = (TEXT_UNICODE, RICH_TEXT, dice.choice((TEXT_UNICODE, RICH_TEXT)))
            formats = (RICH_TEXT,) * 3 if is_rich else plain
        self.clients = [Client(spoken, f"client-{i}") for i, spoken in enumerate(formats)]

    def go(self) -> None:
        steps = 0
        while self.server.concurrent < self.concurrent:
            self._step()
            steps += 1
            assert steps < 20_000, "nothing comes of it"
        self.heal()

    def heal(self) -> None:
        """No more goes wrong, and everything arrives."""
        for _ in range(1_000):
            for client in self.clients:
                if client.connection is None:
                    self.server.accept(client)
                client.send()
            is_quiet = not self.server.revisions.provisional
            for connection in list(self.server.connections):
                is_quiet = is_quiet and not connection.up and not connection.down
                self._deliver(connection, everything=True)
            self.server.commit()
            if is_quiet and all(
                each.thin.is_settled and each.thin.phase is Phase.LIVE for each in self.clients
            ):
                return
        raise AssertionError("it does not come to rest")

    @property
    def is_converged(self) -> bool:
        """Whether everybody shows what the server holds."""
        text = self.server.text
        assert text == self.server.disk_text == self.server.revisions.document
        if self.is_rich:
            return all(client.thin.document == text for client in self.clients)
        return all(in_plain(client.thin.document) == text for client in self.clients)

    def _step(self) -> None:
        dice, weather, server = self.dice, self.weather, self.server
        if dice.random() < weather.cuts and server.connections:
            connection = dice.choice(server.connections)
            if dice.random() < 0.5:
                connection.cut()
            elif not connection.is_left:
                connection.leave()
        if dice.random() < weather.restarts:
            server.restart(in_next_epoch=dice.random() < weather.epochs)
        if dice.random() < weather.floors:
            server.raise_floor()
        server.connections = [each for each in server.connections if each.is_open]
        client = dice.choice(self.clients)
        match dice.choice("eeesssddddddddddooCCxp"):
            case "e":
                client.edit(self._edit(client.thin.document))
            case "s":
                if client.connection is None:
                    server.accept(client)
                client.send()
            case "d":
                if server.connections:
                    self._deliver(dice.choice(server.connections), everything=False)
            case "o":
                server.edit(self._edit(server.text))
            case "C":
                if dice.random() < self.commits:
                    if dice.random() < weather.failures:
                        server.fail()
                    else:
                        server.commit()
            case "x":
                if dice.random() < weather.forgets:
                    client.restart()
            case "p":
                self._point(client)

    def _edit(self, document: Document) -> Operation:
        if self.tags is None:
            return edit(self.dice, document, is_rich=self.is_rich)
        self.written.append(next(self.tags))
        at = place(self.dice, length_of(document))
        return Operation.of(Retain(at), Insert(self.written[-1]))

    def _point(self, client: Client) -> None:
        """A client shows where its cursor is, to everybody."""
        thin, revisions = client.thin, self.server.revisions
        thin.place_cursor(self.dice.randint(0, length_of(thin.document)))
        said = thin.cursor_to_send()
        if said is None or thin.phase is not Phase.LIVE:
            return
        for connection in self.server.connections:
            other = connection.client.thin
            if connection.client is client or not connection.is_subscribed:
                continue
            if other.format is not thin.format:
                continue
            moved = revisions.moved(said[1], said[0], thin.format, thin.source)
            if isinstance(moved, Moved):
                self.server._say(connection, "cursor", thin.source, moved.positions, moved.number)

    def _deliver(self, connection: Connection, *, everything: bool) -> None:
        for _ in range(10_000 if everything else 1):
            ways = [way for way in (connection.up, connection.down) if way]
            if not ways or not connection.is_open:
                return
            way = self.dice.choice(ways)
            frame = way.popleft()
            if way is connection.up:
                self.server.hear(connection, frame)
            else:
                connection.client.hear(frame)
                connection.client.send()
        assert not everything
