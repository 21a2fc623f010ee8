"""`crdt-state list`: a line for each document, and a reason for each that is in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import JsonOption, StoreOption, reading, summaries, trouble
from crdt_client.commands.terminal import (
    bytes_text,
    counted,
    new_table,
    note,
    printable,
    progress,
    show,
    write_json,
)
from crdt_state.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from pathlib import Path

    from crdt_state.storage.contract import Summary

__all__ = ["list_documents"]

HELP = f"""List the documents of a store.

Works beside a running server.  A document in trouble is named with its reason: refused updates,
set aside because it harmed whoever opened it, or damaged on the disk.

\b
Examples:
  crdt-state list
  crdt-state list notes/ --store ./data
  crdt-state list --bad || echo "somebody should look"
  crdt-state list --json | jq -r 'select(.log_updates > 1000).document'

{EXIT_CODES}
With --bad, 1 means that there are such documents.
"""


def list_documents(
    prefix: Annotated[str, typer.Argument(help="Only ids that begin so.")] = "",
    *,
    bad: Annotated[bool, typer.Option("--bad", help="Only documents in trouble.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    carry_out(_list(prefix, bad=bad, as_json=as_json, store=store))


async def _list(prefix: str, *, bad: bool, as_json: bool, store: Path | None) -> Exit:
    found: list[tuple[Summary, str | None]] = []
    troubled = 0
    async with reading(store, DEFAULT_LIMITS) as opened:
        with progress() as display:
            task = display.add_task("reading", total=None, at="")
            async for summary in summaries(opened, prefix):
                reason = await trouble(opened, summary)
                troubled += reason is not None
                display.update(task, advance=1, at=printable(summary.document))
                if bad and reason is None:
                    continue
                if as_json:
                    write_json(
                        {**summary.in_numbers(), "creator": summary.creator, "trouble": reason}
                    )
                else:
                    found.append((summary, reason))
        place = opened.path
    if not as_json:
        _show(found)
        count = f"{counted(len(found), 'document')} in {place}"
        note(count + (f", {troubled:,} in trouble" if troubled else ""), style="dim")
    return Exit.WRONG if bad and troubled else Exit.FINE


def _show(found: list[tuple[Summary, str | None]]) -> None:
    if not found:
        return
    numbers = ("updates", "log", "checkpoint", "pending", "refused")
    table = new_table("document", *numbers, numbers=numbers)
    for summary, reason in found:
        cells = (
            f"{summary.log_updates:,}",
            bytes_text(summary.log_bytes),
            bytes_text(summary.checkpoint_bytes),
            f"{summary.pending_updates:,}",
            f"{summary.quarantined_updates:,}",
        )
        table.add_row(Text(printable(summary.document)), *cells, style="red" if reason else "")
    show(table)
    for summary, reason in found:
        if reason is not None:
            show(f"! {summary.document}: {reason}", style="red")
