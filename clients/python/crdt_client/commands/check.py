"""`crdt-state check`: reads everything and opens every document, to find what does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import JsonOption, StoreOption, reading, summaries, writing
from crdt_client.commands.terminal import counted, note, printable, progress, show, write_json
from crdt_state.errors import CrdtStateError, RemoteError, StoreCorrupt, WorkerFailed
from crdt_state.identifiers import scope_of
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.merkle.trie import verify
from crdt_state.model.head import Head
from crdt_state.replica.document_core import DocumentCore
from crdt_state.replica.tries import Tries
from crdt_state.replica.verification import unsoundness
from crdt_state.replica.workers import WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store, StoredDocument

__all__ = ["check", "problems_of"]

HELP = f"""Check the integrity of a store.

First the file: its pages, every checksum, every count.  Then every document is opened in a
process of its own, and what the store knows of it is compared with what is inside.  Works beside
a running server, and changes nothing.  Last, the tries by which replicas find what differs are
compared with the documents below them; `--rebuild` makes them anew (no server may be running).

\b
Examples:
  crdt-state check
  crdt-state check --store /var/lib/crdt-state --json
  crdt-state check || crdt-state dump --all -o rescued/
  crdt-state check --rebuild

{EXIT_CODES}
"""


RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="Make the tries of all documents anew, then check.")
]


def check(
    *, as_json: JsonOption = False, rebuild: RebuildOption = False, store: StoreOption = None
) -> None:
    """The command; its words are `HELP`."""
    if rebuild:
        carry_out(_rebuild(store=store))
    carry_out(_check(as_json=as_json, store=store))


async def _rebuild(*, store: Path | None) -> Exit:
    opened = await writing(store, DEFAULT_LIMITS)
    try:
        async with WorkerProcesses(DEFAULT_LIMITS) as workers:
            tries = Tries(opened, workers, set_aside=_leave_as_it_is)
            await tries.forget()
            while documents := await opened.undigested(limit=1):
                await tries.settle(scope_of(documents[0]))
    finally:
        await opened.close()
    return Exit.FINE


async def _leave_as_it_is(_document: DocumentId, _reason: str) -> None:
    """A check sets nothing aside: it names what it finds when it opens the document."""


async def _check(*, as_json: bool, store: Path | None) -> Exit:
    findings = documents = 0

    def report(document: DocumentId | None, what: str) -> None:
        nonlocal findings
        findings += 1
        if as_json:
            write_json({"document": document, "finding": what})
        else:
            show(f"{document}: {what}" if document is not None else what, style="red")

    async with (
        reading(store, DEFAULT_LIMITS) as opened,
        WorkerProcesses(DEFAULT_LIMITS, count=1) as workers,
    ):
        place = opened.path
        with progress() as display:
            task = display.add_task("checking the file", total=None, at="")
            async for finding in opened.verify():
                report(finding.document, finding.what)
            display.remove_task(task)
            total = sum([1 async for _ in summaries(opened)])
            task = display.add_task("opening documents", total=total, at="")
            async for summary in summaries(opened):
                display.update(task, at=printable(summary.document))
                for what in await _problems(opened, workers, summary.document):
                    report(summary.document, what)
                display.update(task, advance=1)
                documents += 1
            display.add_task("comparing the tries", total=None, at="")
            async for what in _problems_of_tries(opened, workers):
                report(None, what)
    if not as_json:
        verdict = counted(findings, "finding") if findings else "nothing wrong"
        note(
            f"{verdict} in {counted(documents, 'document')} of {place}",
            style="bold red" if findings else "dim",
        )
    return Exit.WRONG if findings else Exit.FINE


async def _problems(store: Store, workers: Workers, document: DocumentId) -> list[str]:
    try:
        stored = await store.read(document)
    except StoreCorrupt:
        return []  # the check of the file has named it
    if stored is None:
        return []
    found = await problems_of(stored, workers)
    leaves = await store.leaves(prefix=document, limit=1)
    if not found and leaves and leaves[0].document == document:
        unsound = await unsoundness(leaves[0], store, workers)
        found += [] if unsound is None else [unsound]
    return found


async def _problems_of_tries(store: Store, workers: Workers) -> AsyncIterator[str]:
    tries = Tries(store, workers, set_aside=_leave_as_it_is)
    after = None
    while page := await store.scopes(after=after):
        after = page[-1]
        for scope in page:
            try:
                if not (await store.stale(scope)).buckets:
                    wrong = await tries.run(scope, verify())
                    if wrong:
                        yield (
                            f"{len(wrong):,} nodes of the trie of {scope!r} are not those of its "
                            "documents; `crdt-state check --rebuild` makes them anew"
                        )
            except StoreCorrupt as error:
                yield str(error)


async def problems_of(stored: StoredDocument, workers: Workers) -> list[str]:
    """What does not hold in one document, in sentences."""
    try:
        core = DocumentCore(stored.document, stored, DEFAULT_LIMITS)
    except CrdtStateError as error:
        return [f"what the store knows of it does not hold: {error}"]
    found = list(_problems_of_checkpoint(stored))
    if core.set_aside is not None:
        found.append(f"set aside: {core.set_aside}")
    if not (updates := stored.updates()):
        return found
    try:
        folded = await workers.fold(updates)
    except (RemoteError, WorkerFailed) as error:
        return [*found, f"it cannot be opened: {error}"]
    if folded.waiting:
        found.append(f"{len(folded.waiting):,} of its updates cannot be integrated")
    inside = Head.decode(folded.head)
    if inside.vector != core.head.vector:
        found.append(
            f"its log says {len(core.head.vector):,} clients and "
            f"{sum(core.head.vector.values()):,} counters, and inside are "
            f"{len(inside.vector):,} and {sum(inside.vector.values()):,}"
        )
    elif not all(inside.deletes.covers(*deleted) for deleted in core.head.deletes.ranges()):
        found.append("something that its log deletes is not deleted inside")
    return found


def _problems_of_checkpoint(stored: StoredDocument) -> Iterator[str]:
    if stored.checkpoint is None:
        return
    known = Head.decode(stored.checkpoint.head)
    try:
        inside = Head.of_state(stored.checkpoint.state, DEFAULT_LIMITS)
    except RemoteError as error:
        yield f"its checkpoint is not a document's state: {error}"
        return
    for what, says, holds in (
        ("state vector", known.vector, inside.vector),
        ("deletes", list(known.deletes.ranges()), list(inside.deletes.ranges())),
        ("number of nested types", known.containers, inside.containers),
    ):
        if says != holds:
            yield f"the {what} kept with its checkpoint is not that of the checkpoint"
