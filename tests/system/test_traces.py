"""Keystrokes of real documents, typed into replicas, end as their traces end.

Client, server and store are the real ones: a replica in a file types, its link brings it to a
server in another process, and a replica that has never seen the document reads it from there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import data
from crdt_state.replica.admission import Author
from crdt_state.transport.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from crdt_state.replica.open_document import OpenDocument
    from running import RunningServer

TURN = 50
"""Transactions between two looks at the network, as a typist's program has them."""

MEETINGS = 20


IN_THE_SAMPLE = ("friendsforever_flat", "json-crdt-patch", "sveltecomponent")
"""Of these the beginning runs in every `make test`; the largest takes longer to read than that."""


async def read_fresh(server: RunningServer, path: Path, name: str) -> str:
    """What somebody reads who has nothing yet."""
    async with Replica.open(path) as replica:
        document = await replica.document(name)
        await replica.connect(server.url).synced()
        return str(document.text("text"))


# --- one person ------------------------------------------------------------------------------


async def type_and_check(server: RunningServer, folder: Path, trace: data.Trace) -> None:
    """Type a sequential trace while connected; the server is killed halfway."""
    name = f"traces/{trace.name}"
    killed: asyncio.Task[None] | None = None
    async with Replica.open(folder / "typist.db") as replica:
        document = await replica.document(name)
        text = document.text("text")
        link = replica.connect(server.url)
        if trace.start:
            text.insert(0, trace.start)
        for number, transaction in enumerate(trace.transactions):
            if len(transaction.patches) > 1:
                with document.transaction():
                    apply(document, transaction)
            else:
                apply(document, transaction)
            if number % TURN == 0:
                await replica.has_room()
                await asyncio.sleep(0)
            if number == len(trace.transactions) // 2:
                await link.synced()
                killed = asyncio.create_task(asyncio.to_thread(server.restart))
        assert killed is not None
        await killed
        await link.synced()
        assert await replica.store.outbox(link.remote) == ()
        assert str(text) == trace.end
    server.restart()
    assert await read_fresh(server, folder / "reader.db", name) == trace.end
    assert server.complaints() == []


def apply(document: OpenDocument, transaction: data.Transaction) -> None:
    text = document.text("text")
    for position, deleted, inserted in transaction.patches:
        if deleted:
            text.delete(position, deleted)
        if inserted:
            text.insert(position, inserted)


@pytest.mark.parametrize("name", IN_THE_SAMPLE)
async def test_the_beginning_of_a_trace_ends_as_it_should(
    name: str, server: RunningServer, data_folder: Path, tmp_path: Path
) -> None:
    await type_and_check(server, tmp_path, data.trace(data_folder, name).prefix(1_000))


async def test_the_beginning_of_a_trace_in_wide_characters_ends_as_it_should(
    server: RunningServer, data_folder: Path, tmp_path: Path
) -> None:
    trace = data.trace(data_folder, "sveltecomponent").prefix(1_000).spelt(data.as_emoji)
    assert len(trace.end.encode()) > 1.8 * len(trace.end)
    await type_and_check(server, tmp_path, trace)


@pytest.mark.full
@pytest.mark.parametrize("name", data.SEQUENTIAL)
async def test_a_whole_trace_ends_as_it_should(
    name: str, server: RunningServer, data_folder: Path, tmp_path: Path
) -> None:
    await type_and_check(server, tmp_path, data.trace(data_folder, name))


@pytest.mark.full
@pytest.mark.parametrize("spell", [data.as_emoji, data.as_cjk])
async def test_a_whole_trace_in_wide_characters_ends_as_it_should(
    spell: data.Spelling, server: RunningServer, data_folder: Path, tmp_path: Path
) -> None:
    trace = data.trace(data_folder, "sveltecomponent").spelt(spell)
    await type_and_check(server, tmp_path, trace)


# --- two at once -----------------------------------------------------------------------------


class Person:
    """One agent of a concurrent trace, on a replica of its own that is offline but for meetings."""

    def __init__(self, replica: Replica, document: OpenDocument, *, agents: int) -> None:
        self.replica = replica
        self.document = document
        self.made: list[bytes] = []
        """One update for each transaction of this agent, in order."""
        self.knows = [0] * agents
        """How many transactions of each agent are in the document."""
        self._source = replica.new_source()
        document.on_update(self._keep)

    def _keep(self, update: bytes, is_local: bool) -> None:
        if is_local:
            self.made.append(update)

    async def hear(self, people: Sequence[Person], version: Sequence[int]) -> None:
        """Take in exactly what `version` has beyond what is known."""
        news = [
            update
            for person, known, wanted in zip(people, self.knows, version, strict=True)
            for update in person.made[known:wanted]
        ]
        for update in news:
            self.replica.receive(
                self.document.id, self._source, Author(may_relay=True), update, name="by hand"
            )
        if news:
            await self.replica.settled(self.document.id)
            self.knows = list(version)


def versions(trace: data.Trace) -> list[tuple[int, ...]]:
    """For each transaction, how many of each agent's are in the state it was made on.

    An agent's transactions are a chain, so that these numbers say exactly which.
    """
    after: list[tuple[int, ...]] = []
    before: list[tuple[int, ...]] = []
    made = [0] * trace.agents
    for transaction in trace.transactions:
        parents = [after[parent] for parent in transaction.parents]
        known = [max(counts) for counts in zip([0] * trace.agents, *parents, strict=True)]
        assert known[transaction.agent] == made[transaction.agent], "not a chain"
        before.append(tuple(known))
        made[transaction.agent] += 1
        known[transaction.agent] += 1
        after.append(tuple(known))
    return before


def meetings(trace: data.Trace, before: Sequence[tuple[int, ...]], count: int) -> set[int]:
    """Some transactions that everything after is made on and that are made on everything before.

    There everybody may hear everything without changing what anybody's next state is.
    """
    total = len(trace.transactions)
    least_parent_after = [total] * (total + 1)
    for number in range(total - 1, -1, -1):
        parents = trace.transactions[number].parents
        least_parent_after[number] = min([least_parent_after[number + 1], *parents])
    critical = [
        number
        for number in range(total)
        if sum(before[number]) == number and least_parent_after[number + 1] >= number
    ]
    assert len(critical) > count
    step = len(critical) // count
    return set(critical[step::step])


async def replay_and_check(
    server: RunningServer,
    folder: Path,
    trace: data.Trace,
    tell: Callable[[str], None],
    *,
    count: int | None,
) -> None:
    name = f"traces/{trace.name}"
    before = versions(trace)
    meets_after = meetings(trace, before, MEETINGS)
    if count is not None:
        count = min(meeting for meeting in meets_after if meeting >= count) + 1
    total = len(trace.transactions) if count is None else count
    async with Replica.open(folder / "0.db") as one, Replica.open(folder / "1.db") as two:
        people = [
            Person(replica, await replica.document(name), agents=trace.agents)
            for replica in (one, two)
        ]
        # At one place of this trace both insert at once, and Yjs orders that by client id; its end
        # content is the outcome for agents in the order of their numbers.
        people.sort(key=lambda person: person.document.client_id)
        merges = met = 0
        for number, transaction in enumerate(trace.transactions[:total]):
            person = people[transaction.agent]
            merges += person.knows != list(before[number])
            await person.hear(people, before[number])
            assert person.knows == list(before[number])
            apply(person.document, transaction)
            person.knows[transaction.agent] += 1
            assert len(person.made) == person.knows[transaction.agent]
            if number % TURN == 0:
                await asyncio.sleep(0)
            if number in meets_after:
                met += 1
                if met % 7 == 0:
                    server.restart()
                await meet(server, people)
        await meet(server, people)
        texts = {str(person.document.text("text")) for person in people}
        assert len(texts) == 1
    server.restart()
    fresh = await read_fresh(server, folder / "reader.db", name)
    tell(f"{total:,} transactions, {merges:,} of them after hearing news, {met} meetings")
    assert merges
    assert met
    assert {fresh} == texts
    if count is None:
        assert fresh == trace.end
    assert server.complaints() == []


async def meet(server: RunningServer, people: Sequence[Person]) -> None:
    """Everybody is brought in step through the server, and hangs up."""
    links = [person.replica.connect(server.url) for person in people]
    # Those who synchronised first hear what the others brought when they ask again.
    for _ in range(2):
        await asyncio.gather(*(link.synced() for link in links))
    for person, link in zip(people, links, strict=True):
        await person.replica.disconnect(link)
        person.knows = [len(other.made) for other in people]


async def test_the_beginning_of_the_concurrent_trace_converges(
    server: RunningServer, data_folder: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    trace = data.trace(data_folder, data.CONCURRENT)
    await replay_and_check(server, tmp_path, trace, tell, count=1_500)


@pytest.mark.full
async def test_the_concurrent_trace_ends_as_it_should(
    server: RunningServer, data_folder: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    trace = data.trace(data_folder, data.CONCURRENT)
    await replay_and_check(server, tmp_path, trace, tell, count=None)
