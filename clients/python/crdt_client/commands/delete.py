"""`crdt-state delete`: ends a document, for everybody who has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import (
    DocumentMissing,
    JsonOption,
    StoreOption,
    new_dice,
    writing,
)
from crdt_client.commands.terminal import bytes_text, note, show, write_json
from crdt_state.clocks import SystemClock
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.transport.replica import Replica

if TYPE_CHECKING:
    from pathlib import Path

    from crdt_state.storage.contract import Summary

__all__ = ["delete"]

HELP = f"""Delete one document, here and for everybody who has it.

It cannot be taken back.  Whoever comes next with a copy of it learns that it was deleted; what they
edited meanwhile is offered to them as a copy, and is not merged.  A program begins it anew with
`Replica.recreate`.

For a store that no server has open: stop the server first.

\b
Examples:
  crdt-state delete notes/today
  crdt-state delete notes/today --yes --store ./data

{EXIT_CODES}
"""


def delete(
    document: Annotated[str, typer.Argument(help="The document's id.", show_default=False)],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    carry_out(_delete(document, is_sure=yes, as_json=as_json, store=store))


async def _delete(name: str, *, is_sure: bool, as_json: bool, store: Path | None) -> Exit:
    document = document_id(name)
    opened = await writing(store, DEFAULT_LIMITS)
    replica = Replica(
        opened,
        incarnation=opened.incarnation,
        limits=DEFAULT_LIMITS,
        clock=SystemClock(),
        dice=new_dice(),
    )
    async with replica:
        summary = await opened.summary(document)
        if summary is None:
            raise DocumentMissing(document)
        if not is_sure and not typer.confirm(_question(summary), err=True):
            note("nothing was deleted", style="dim")
            return Exit.FINE
        await replica.delete(document)
    if as_json:
        write_json({"document": document, "deleted": True})
    else:
        show(f"{document}: deleted")
    return Exit.FINE


def _question(summary: Summary) -> str:
    size = bytes_text(summary.log_bytes + summary.checkpoint_bytes)
    return f"Delete {summary.document} ({size}) for everybody who has it?"
