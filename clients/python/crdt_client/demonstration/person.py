"""One replica in a process of its own: does what the stage says, and tells how it goes.

Run as `python -m crdt_client.demonstration.person NUMBER FILE URL SEED`.  Commands come in on
stdin and answers go out on stdout, a line of JSON each (`child` has the other end).  The end of
stdin ends the process, so that it never outlives the stage.

During the replay each transaction is made on exactly its parents (`schedule` says how).  The
document itself says how much has come: the last transaction of each segment adds the segment's
length to a counter, in the same update as the text, so counter minus own is what has come of the
other's.  What a person sends is held on their line until the other may hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from threading import Thread
from typing import TYPE_CHECKING, Any

import orjson

from crdt_client.demonstration.line import Line
from crdt_client.demonstration.quarrel import Quarreller, contents_of
from crdt_client.demonstration.schedule import Segment, segments_of
from crdt_client.demonstration.trace import PEOPLE, generate, read_reference
from crdt_state import DEFAULT_LIMITS, Progress, Replica
from crdt_state.errors import DemonstrationFailed
from crdt_state.identifiers import CLIENT_ID_MAX
from crdt_state.transport.websocket import WebSocketDial

if TYPE_CHECKING:
    from crdt_state import Link, OpenDocument

__all__ = ["LIMITS", "QUARREL", "TYPED", "PersonProcess", "main", "typed_contents"]

TYPED = "demo/typed"
QUARREL = "demo/quarrel"
LIMITS = replace(
    DEFAULT_LIMITS,
    reconnect_seconds_max=1.0,
    confirm_seconds=1.0,
    log_updates_before_fold=5_000,
    log_bytes_before_fold=1024 * 1024,
)
"""For people who type an hour in ten seconds: nobody wants to watch half a minute of backoff, and
the log is not asked about or folded as often as if the typing had taken its time."""

SWITCH_SECONDS = 0.0005
"""Three threads of a person hand each other small things: the loop, the store, the listener."""

STATUS_SECONDS = 0.1
BURST = 4
EXCERPT_BEFORE, EXCERPT_AFTER = 150, 30


def typed_contents(document: OpenDocument) -> dict[str, Any]:
    """What the replayed document holds, as plain values."""
    return {
        "text": str(document.text("text")),
        "transactions": document.counter("transactions").value,
    }


class PersonProcess:
    """What answers the stage's commands; each `do_…` method is one."""

    def __init__(self, number: int, seed: int) -> None:
        self._number = number
        self._dice = Random(f"{seed}/{number}")  # noqa: S311 - made-up edits
        self._line = Line(WebSocketDial(LIMITS))
        self._connected = asyncio.Event()
        self._came = asyncio.Event()
        self._made = 0
        self._of = 0
        self._others_made = 0
        self._unpublished: deque[tuple[int, int]] = deque()
        self._shown = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._replica: Replica
        self._link: Link
        self._typed: OpenDocument
        self._quarrel: OpenDocument | None = None
        self._quarreller: Quarreller | None = None

    async def run(self, file: Path, url: str) -> None:
        """Be there until the stage goes away."""
        ended = asyncio.Event()
        async with Replica.open(file, limits=LIMITS) as self._replica:
            self._typed = await self._open_typed()
            self._link = self._replica.connect(url, dial=self._line)
            self._link.watch(self._progressed)
            telling = asyncio.create_task(self._tell_status())
            Thread(target=self._listen, args=(asyncio.get_running_loop(), ended)).start()
            await ended.wait()
            for task in (telling, *self._tasks):
                task.cancel()

    # --- commands ----------------------------------------------------------------------------

    async def do_replay(
        self, typist: int | None, data: str | None, seed: int, transactions: int
    ) -> dict[str, Any]:
        """Type one person's part of the trace, or read along until it has all come."""
        trace = read_reference(Path(data)) if data else generate(seed, transactions)
        counter = self._typed.counter("transactions")
        stop = counter.observe(lambda _: self._came.set())
        edits = 0
        if typist is not None:
            segments = segments_of(trace)[typist]
            self._of = sum(len(segment.transactions) for segment in segments)
            self._line.hold()
            for segment in segments:
                await self._until_come(segment.needs)
                edits += self._type(segment)
                # Once it is stored it is in the queue of the line, which this mark ends.
                await self._typed.saved()
                self._unpublished.append((segment.released_after, self._line.mark()))
                self._publish()
                _say({"made": self._made})
        await self._until_come(len(trace.transactions) - self._made)
        self._line.flow()
        stop()
        return {"edits": edits}

    async def do_peer(self, made: int) -> None:
        """The other typist has made so many transactions."""
        self._others_made = made
        self._publish()

    async def do_quarrel(self, times: int) -> None:
        """Edit where everybody does, in small bursts that are stored each by itself."""
        if self._quarrel is None:
            self._quarrel = await self._replica.document(QUARREL)
            self._quarreller = Quarreller(self._number, self._quarrel, self._dice)
        if self._quarreller is None:
            raise AssertionError("made together with its document")
        for start in range(0, times, BURST):
            self._quarreller.edit(min(BURST, times - start))
            await self._quarrel.saved()

    async def do_cut(self) -> None:
        """Lose the network."""
        self._line.cut()

    async def do_mend(self) -> None:
        """Have it back; returns when the server is in reach again."""
        self._connected.clear()
        self._line.mend()
        await self._connected.wait()

    async def do_sync(self) -> None:
        """Be in sync with the server."""
        await self._link.synced()

    async def do_tell(self) -> dict[str, Any]:
        """Everything that this replica holds, and what its person remembers having done."""
        quarreller, quarrel = self._quarreller, self._quarrel
        return {
            TYPED: typed_contents(self._typed),
            QUARREL: None if quarrel is None else contents_of(quarrel),
            "ledger": None if quarreller is None else asdict(quarreller.ledger),
            "status": self._status(),
        }

    # --- the replay --------------------------------------------------------------------------

    async def _open_typed(self) -> OpenDocument:
        """Open the document, as a client on the right side of the other typist.

        Where both have typed in one place at once, Yjs puts the lower client id first, and the
        trace's end content the first person.  Client ids are drawn at each opening, so it is
        opened until the first person has one of the lower half, and the second of the upper.
        """
        while True:
            opened = await self._replica.document(TYPED)
            is_upper = opened.client_id > CLIENT_ID_MAX // 2
            if self._number >= PEOPLE or is_upper == (self._number == 1):
                return opened
            opened.close()

    async def _until_come(self, needs: int) -> None:
        counter = self._typed.counter("transactions")
        while (come := counter.value - self._made) < needs:
            self._came.clear()
            await self._came.wait()
        if come > needs:
            raise DemonstrationFailed(
                f"{come:,} transactions of the other have come where the trace has {needs:,}: "
                "the next edit would not be made on its parents"
            )

    def _type(self, segment: Segment) -> int:
        text, counter = self._typed.text("text"), self._typed.counter("transactions")
        edits = 0
        for number, transaction in enumerate(segment.transactions, start=1):
            with self._typed.transaction():
                for position, deleted, inserted in transaction.patches:
                    text.delete(position, deleted)
                    text.insert(position, inserted)
                    edits += 1
                if number == len(segment.transactions):
                    counter.add(number)
        self._made += len(segment.transactions)
        return edits

    def _publish(self) -> None:
        while self._unpublished and self._unpublished[0][0] <= self._others_made:
            self._line.release(self._unpublished.popleft()[1])

    # --- telling -----------------------------------------------------------------------------

    def _progressed(self, progress: Progress) -> None:
        if progress in (Progress.CATCHING_UP, Progress.IN_SYNC):
            self._connected.set()

    async def _tell_status(self) -> None:
        while True:
            _say({"status": self._status()})
            await asyncio.sleep(STATUS_SECONDS)

    def _status(self) -> dict[str, Any]:
        document = self._quarrel or self._typed
        text = str(document.text("text"))
        at = _common(text, self._shown)
        if text != self._shown:
            self._shown = text
        else:
            at = len(text) // 2 if self._quarrel is not None else len(text)
        return {
            "progress": self._link.progress.value,
            "made": self._made,
            "of": self._of,
            "quarrels": 0 if self._quarreller is None else self._quarreller.ledger.edits,
            "sent": self._line.bytes_sent,
            "received": self._line.bytes_received,
            "reconnections": self._line.reconnections,
            "before": text[max(0, at - EXCERPT_BEFORE) : at],
            "after": text[at : at + EXCERPT_AFTER],
        }

    # --- listening ---------------------------------------------------------------------------

    def _listen(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        """In a thread of its own: not every event loop can read a pipe."""
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(self._begin, orjson.loads(line))
        loop.call_soon_threadsafe(ended.set)

    def _begin(self, command: dict[str, Any]) -> None:
        task = asyncio.create_task(self._carry_out(**command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, number: int, do: str, given: dict[str, Any]) -> None:
        try:
            answer = await getattr(self, f"do_{do}")(**given)
        except Exception as error:  # the stage is told, whatever it was
            _say({"number": number, "error": f"{type(error).__name__}: {error}"})
        else:
            _say({"number": number, "answer": answer})


def _common(text: str, other: str) -> int:
    """How many characters both begin with; by halves, because this is done ten times a second."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def _say(what: dict[str, Any]) -> None:
    # A stage that is gone also closes our stdin, which ends us in good order.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
        sys.stdout.buffer.flush()


def main(arguments: list[str]) -> None:
    """The process."""
    number, file, url, seed = arguments
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(PersonProcess(int(number), int(seed)).run(Path(file), url))


if __name__ == "__main__":
    main(sys.argv[1:])
