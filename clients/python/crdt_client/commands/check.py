"""`crdt-state check`: reads everything and opens every document, to find what does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import JsonOption, StoreOption, reading, summaries
from crdt_client.commands.terminal import counted, note, printable, progress, show, write_json
from crdt_state.errors import CrdtStateError, RemoteError, StoreCorrupt, WorkerFailed
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.head import Head
from crdt_state.replica.document_core import DocumentCore
from crdt_state.replica.workers import WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crdt_state.identifiers import DocumentId
    from crdt_state.replica.workers import Workers
    from crdt_state.storage.contract import Store, StoredDocument

__all__ = ["check", "problems_of"]

HELP = f"""Check the integrity of a store.

First the file: its pages, every checksum, every count.  Then every document is opened in a
process of its own, and what the store knows of it is compared with what is inside.  Works beside
a running server, and changes nothing.

\b
Examples:
  crdt-state check
  crdt-state check --store /var/lib/crdt-state --json
  crdt-state check || crdt-state dump --all -o rescued/

{EXIT_CODES}
"""


def check(*, as_json: JsonOption = False, store: StoreOption = None) -> None:
    """The command; its words are `HELP`."""
    carry_out(_check(as_json=as_json, store=store))


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
    return [] if stored is None else await problems_of(stored, workers)


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
