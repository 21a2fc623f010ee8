"""`crdt-state compact`: folds logs into checkpoints now, as a server does in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import (
    DocumentMissing,
    JsonOption,
    StoreOption,
    new_dice,
    summaries,
    trouble,
    writing,
)
from crdt_client.commands.terminal import (
    bytes_text,
    complain,
    counted,
    note,
    printable,
    progress,
    show,
    write_json,
)
from crdt_state.clocks import SystemClock
from crdt_state.errors import EngineFailed, RemoteError, StoreCorrupt, WorkerFailed
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import WorkerProcesses

if TYPE_CHECKING:
    from pathlib import Path

    from crdt_state.identifiers import DocumentId
    from crdt_state.storage.contract import Summary

__all__ = ["compact"]

HELP = f"""Fold the logs of documents into checkpoints, now.

A server does this by itself in the background; for a store that no server has open, this does.
Nothing of a document is lost by it, pending updates included.

\b
Examples:
  crdt-state compact
  crdt-state compact notes/today
  crdt-state compact --store ./data --json

{EXIT_CODES}
"""


def compact(
    document: Annotated[
        str | None, typer.Argument(help="Only this document.", show_default=False)
    ] = None,
    *,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    carry_out(_compact(document, as_json=as_json, store=store))


async def _compact(name: str | None, *, as_json: bool, store: Path | None) -> Exit:
    only = None if name is None else document_id(name)
    # Its background tasks are not started: two folds of one document would meet.
    shell = ReplicaShell(
        await writing(store, DEFAULT_LIMITS),
        WorkerProcesses(DEFAULT_LIMITS, count=1),
        limits=DEFAULT_LIMITS,
        clock=SystemClock(),
        random=new_dice(),
    )
    folded = failed = before = after = 0
    try:
        due = await _due(shell, only)
        with progress() as display:
            task = display.add_task("folding", total=len(due), at="")
            for summary in due:
                document = summary.document
                display.update(task, at=printable(document))
                try:
                    folding = await _fold(shell, summary)
                except _NotFolded as reason:
                    failed += 1
                    complain(f"{document!r} stays as it is: {reason}")
                except (EngineFailed, RemoteError, StoreCorrupt, WorkerFailed) as error:
                    failed += 1
                    complain(f"{document!r} stays as it is: {error}")
                else:
                    folded += 1
                    before += _size(summary)
                    after += _size(folding)
                    _report(summary, folding, as_json=as_json)
                display.update(task, advance=1)
    finally:
        await shell.workers.close()
        await shell.store.close()
    if not as_json:
        note(
            f"{counted(folded, 'document')} folded, "
            f"from {bytes_text(before)} to {bytes_text(after)}"
            + (f"; {failed:,} failed" if failed else ""),
            style="dim",
        )
    return Exit.WRONG if failed else Exit.FINE


async def _due(shell: ReplicaShell, only: DocumentId | None) -> list[Summary]:
    if only is None:
        return [summary async for summary in summaries(shell.store) if _is_worth_it(summary)]
    summary = await shell.store.summary(only)
    if summary is None:
        raise DocumentMissing(only)
    return [summary] if summary.log_updates else []


def _is_worth_it(summary: Summary) -> bool:
    """Whether there is more than one update to be made one of."""
    return summary.log_updates > 1 or (summary.log_updates == 1 and summary.checkpoint_bytes > 0)


async def _fold(shell: ReplicaShell, summary: Summary) -> Summary:
    """Fold one log; what the list says of it afterwards."""
    if not await shell.compaction.fold(summary.document):
        raise _NotFolded(await trouble(shell.store, summary) or "nothing of it can be folded yet")
    return await shell.store.summary(summary.document) or summary


class _NotFolded(Exception):
    """Why a document was passed over."""


def _size(summary: Summary) -> int:
    return summary.log_bytes + summary.checkpoint_bytes


def _report(before: Summary, after: Summary, *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "document": before.document,
                "log_updates": before.log_updates,
                "bytes_before": _size(before),
                "bytes_after": _size(after),
            }
        )
    else:
        show(
            f"{before.document}: {counted(before.log_updates, 'update')}, "
            f"{bytes_text(_size(before))} -> {bytes_text(_size(after))}"
        )
