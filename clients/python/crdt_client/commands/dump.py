"""`crdt-state dump`: documents as Yjs updates, which every Yjs program reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out, usage_error
from crdt_client.commands.stores import (
    JsonOption,
    StoreOption,
    reading,
    stored_document,
    summaries,
)
from crdt_client.commands.terminal import (
    bytes_text,
    complain,
    counted,
    is_terminal,
    note,
    printable,
    progress,
    write_bytes,
    write_json,
)
from crdt_client.importing.folder import FolderWriter
from crdt_state.errors import RemoteError, StoreCorrupt, WorkerFailed
from crdt_state.identifiers import document_id
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.workers import WorkerProcesses

if TYPE_CHECKING:
    from crdt_state.storage.contract import StoredDocument
    from crdt_state.storage.sqlite import SqliteStore

__all__ = ["dump"]

STDOUT = "-"

HELP = f"""Write documents as Yjs updates (version 1).

One document becomes one file.  With --all, every document becomes a file in a folder, with an
index.json of their ids and hashes; `crdt-state import` reads such a folder.  Updates that wait
for others (pending) are not part of a document yet and are left out.

\b
Examples:
  crdt-state dump notes/today -o today.bin
  crdt-state dump notes/today -o - | gzip > today.bin.gz
  crdt-state dump --all -o backup/

{EXIT_CODES}
"""


def dump(
    document: Annotated[
        str | None, typer.Argument(help="The document's id.", show_default=False)
    ] = None,
    *,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PATH", help="A file, a folder (--all), or -."),
    ],
    everything: Annotated[bool, typer.Option("--all", help="Every document of the store.")] = False,
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Do not open documents, only merge their bytes."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    if (document is None) is not everything:
        usage_error("name one document, or take --all")
    if document is None:
        if output == STDOUT:
            usage_error("--all writes a folder; name one with --output")
        folder = Path(output)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            usage_error(f"{folder} is not an empty folder; take another one")
        carry_out(_dump_all(folder, is_merged=merged, as_json=as_json, store=store))
    if output == STDOUT and is_terminal():
        usage_error("an update is bytes, not text for a terminal; use --output FILE, or a pipe")
    if output != STDOUT and Path(output).exists() and not force:
        usage_error(f"{output} exists; take another name, or --force")
    carry_out(_dump_one(document, output, is_merged=merged, as_json=as_json, store=store))


async def _dump_one(
    name: str, output: str, *, is_merged: bool, as_json: bool, store: Path | None
) -> Exit:
    document = document_id(name)
    async with (
        reading(store, DEFAULT_LIMITS) as opened,
        WorkerProcesses(DEFAULT_LIMITS, count=1) as workers,
    ):
        stored = await stored_document(opened, document)
        try:
            update = await _update_of(stored, workers, is_merged=is_merged)
        except (RemoteError, WorkerFailed) as error:
            complain(f"{document!r} cannot be opened: {error}; --merged does without")
            return Exit.WRONG
    if output == STDOUT:
        write_bytes(update)
        return Exit.FINE
    _save(Path(output), update)
    if as_json:
        write_json({"document": document, "file": output, "bytes": len(update)})
    else:
        note(f"{document}: {bytes_text(len(update))} in {output}")
    return Exit.FINE


def _save(file: Path, update: bytes) -> None:
    """Write a file whole or not at all: nobody reads half a document."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(update)
    partial.replace(file)


async def _dump_all(folder: Path, *, is_merged: bool, as_json: bool, store: Path | None) -> Exit:
    written = failed = 0
    async with (
        reading(store, DEFAULT_LIMITS) as opened,
        WorkerProcesses(DEFAULT_LIMITS, count=1) as workers,
    ):
        writer = FolderWriter.begin(folder)
        with progress() as display:
            task = display.add_task("dumping", total=await _count(opened), at="")
            async for summary in summaries(opened):
                document = summary.document
                try:
                    stored = await stored_document(opened, document)
                    update = await _update_of(stored, workers, is_merged=is_merged)
                except (RemoteError, StoreCorrupt, WorkerFailed) as error:
                    failed += 1
                    complain(f"{document!r} is not in the folder: {error}")
                    continue
                finally:
                    display.update(task, advance=1, at=printable(document))
                writer.add(document, update)
                written += 1
                if as_json:
                    write_json({"document": document, "bytes": len(update)})
        writer.finish()
    if not as_json:
        note(
            f"{counted(written, 'document')} in {folder}"
            + (f", {failed:,} failed" if failed else "")
        )
    return Exit.WRONG if failed else Exit.FINE


async def _update_of(stored: StoredDocument, workers: WorkerProcesses, *, is_merged: bool) -> bytes:
    if is_merged:
        return await workers.merge(stored.updates())
    return (await workers.fold(stored.updates())).state


async def _count(store: SqliteStore) -> int:
    return sum([1 async for _ in summaries(store)])
