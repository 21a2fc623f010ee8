"""`crdt-state show`: what is inside one document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out
from crdt_client.commands.stores import (
    DocumentMissing,
    JsonOption,
    StoreOption,
    reading,
    stored_document,
    trouble,
)
from crdt_client.commands.terminal import (
    bytes_text,
    complain,
    counted,
    note,
    write_json,
    write_text,
)
from crdt_state.errors import UsageError, WorkerFailed
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.model.showing import shown
from crdt_state.model.state import decode_state_vector
from crdt_state.replica.workers import WorkerProcesses

if TYPE_CHECKING:
    from pathlib import Path


__all__ = ["show_document"]

HELP = f"""Show one document as JSON, or one of its texts.

A root whose name ends in #counter, #set, #register, #multi or #movable is shown as its value.
The content goes to stdout, everything about it to stderr.  The document is opened in a process
of its own, so one that would harm whoever opens it ends only that.

\b
Examples:
  crdt-state show notes/today
  crdt-state show notes/today --text text > today.txt
  crdt-state show notes/today --json | jq .digest
  crdt-state show notes/today --raw

{EXIT_CODES}
"""


def show_document(
    document: Annotated[str, typer.Argument(help="The document's id.", show_default=False)],
    *,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="ROOT", help="Only the characters of this root."),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Counters, sets, registers and movable lists as they lie on Yjs types."
        ),
    ] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    carry_out(_show(document, root=text, is_raw=raw, as_json=as_json, store=store))


async def _show(
    name: str, *, root: str | None, is_raw: bool, as_json: bool, store: Path | None
) -> Exit:
    document = document_id(name)
    async with reading(store, DEFAULT_LIMITS) as opened:
        stored = await stored_document(opened, document)
        summary = await opened.summary(document)
        if summary is None:  # forgotten between the two reads
            raise DocumentMissing(document)
        reason = await trouble(opened, summary)
    updates = stored.updates()
    async with WorkerProcesses(DEFAULT_LIMITS, count=1) as workers:
        try:
            content = orjson.loads(await workers.as_json(updates))
            digests = await workers.digest(updates)
        except WorkerFailed as error:
            complain(f"{document!r} cannot be opened: {error}")
            return Exit.WRONG
    if root is not None:
        write_text(_text_of(content, root, name))
        return Exit.FINE
    if not is_raw:
        content = shown(content)
    clients = len(decode_state_vector(digests.vector))
    if as_json:
        described = {**summary.in_numbers(), "creator": summary.creator, "trouble": reason}
        described |= {
            "clients": clients,
            "state_vector_bytes": len(digests.vector),
            "digest": digests.digest.hex(),
            "deep_digest": digests.deep_digest.hex(),
            "content": content,
        }
        write_json(described)
        return Exit.FINE
    size = sum(map(len, updates))
    note(
        f"{document}: {bytes_text(size)}, {counted(len(stored.log), 'update')} in the log, "
        f"{len(stored.pending):,} pending\n"
        f"state vector of {counted(clients, 'client')} in {bytes_text(len(digests.vector))}, "
        f"digest {digests.digest.hex()}",
        style="dim",
    )
    if reason is not None:
        complain(reason)
    write_text(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")
    return Exit.FINE


def _text_of(content: dict[str, object], root: str, document: str) -> str:
    if root not in content:
        roots = ", ".join(sorted(content)) or "none"
        raise UsageError(f"{document!r} has no root {root!r}; its roots are: {roots}")
    value = content[root]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(run, dict) and "insert" in run for run in value):
        # A formatted text: runs of characters, and embeds that are none.
        return "".join(run["insert"] for run in value if isinstance(run["insert"], str))
    raise UsageError(f"root {root!r} of {document!r} is no text; leave --text out to see it")
