"""`crdt-state import`: documents from files, and from the stores of other Yjs servers."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crdt_client.commands.outcome import EXIT_CODES, Exit, carry_out, usage_error
from crdt_client.commands.stores import JsonOption, StoreOption, locate, new_dice, reading, writing
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
from crdt_client.importing.foreign import ForeignDocument
from crdt_client.importing.importer import Importer, Outcome, Result, importing_limits
from crdt_client.importing.source import Format, leveldb_script, open_source
from crdt_state.clocks import SystemClock
from crdt_state.errors import NotImportable
from crdt_state.limits import DEFAULT_LIMITS
from crdt_state.replica.shell import ReplicaShell
from crdt_state.replica.workers import WorkerProcesses
from crdt_state.storage.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.progress import Progress

    from crdt_state.storage.contract import Store

__all__ = ["import_documents"]

STDIN = "-"

HELP = f"""Import documents from files and from other Yjs servers.

What a file holds is seen from its content: one Yjs update of version 1 (named by --as, or by the
file's name, percent-decoded and without .bin), lines of JSON, a folder that `crdt-state dump
--all` wrote or any folder of .bin files, the SQLite file of pycrdt-store or of Hocuspocus.

y-websocket keeps its documents in LevelDB, which only Node's libraries read: let the program that
--leveldb-script prints write them as lines of JSON, each {{"name": "…", "update": "<base64>"}}.

Every document is inspected and opened in a process of its own first.  One that is refused leaves
no trace and is reported; the others go on.  Importing the same again changes nothing.  What has
nothing in common with the document of that id takes its place; what was there goes to quarantine.

\b
Examples:
  crdt-state import today.bin --as notes/today
  crdt-state import backup/ ystore.db hocuspocus.sqlite
  crdt-state import ystore.db --prefix lab/ --rehearse
  crdt-state import hocuspocus.sqlite --rename 'team//plan=team/plan'
  crdt-state import --leveldb-script > dump_leveldb.mjs
  npm install y-leveldb yjs
  node dump_leveldb.mjs ./yjs-data > documents.ndjson
  crdt-state import documents.ndjson

{EXIT_CODES}
"""


def import_documents(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", help="Files and folders; - is one update from stdin."),
    ] = None,
    *,
    name: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="The document of a single update.")
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Put this before every id.")] = "",
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Another id for one of their names."),
    ] = None,
    wanted: Annotated[
        Format | None, typer.Option("--format", help="What it is, if its content misleads.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Report, but write nothing.")
    ] = False,
    script: Annotated[
        bool, typer.Option("--leveldb-script", help="Print the program for y-websocket's LevelDB.")
    ] = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The command; its words are `HELP`."""
    if script:
        sys.stdout.write(leveldb_script())
        raise typer.Exit(Exit.FINE)
    if not paths:
        usage_error("name at least one file or folder to import")
    if name is not None and len(paths) > 1:
        usage_error("--as names one document, so give one update file")
    if STDIN in paths and name is None:
        usage_error("an update from stdin has no name; give it one with --as")
    for path in paths:
        if path != STDIN and not Path(path).exists():
            usage_error(f"there is no file or folder {path}")
    renames = dict(_renaming(text) for text in rename or ())
    command = _Import(paths, name, prefix, renames, wanted, is_rehearsal=rehearse, as_json=as_json)
    carry_out(command.run(store))


class _Import:
    """One run of the command."""

    def __init__(
        self,
        paths: list[str],
        name: str | None,
        prefix: str,
        renames: dict[str, str],
        wanted: Format | None,
        *,
        is_rehearsal: bool,
        as_json: bool,
    ) -> None:
        self._paths = paths
        self._name = name
        self._prefix = prefix
        self._renames = renames
        self._wanted = wanted
        self._is_rehearsal = is_rehearsal
        self._as_json = as_json
        self._limits = importing_limits(DEFAULT_LIMITS)
        self._counts: Counter[Outcome] = Counter()
        self._unreadable = 0

    async def run(self, store: Path | None) -> Exit:
        """Import everything; say how it went."""
        async with self._store(store) as opened:
            shell = ReplicaShell(
                opened,
                WorkerProcesses(self._limits, count=1),
                limits=self._limits,
                clock=SystemClock(),
                random=new_dice(),
                # Whoever lets a split surrogate pair in first repairs it, and that is us.
                is_listening=True,
            )
            async with shell:
                importer = Importer(
                    shell,
                    prefix=self._prefix,
                    renames=self._renames,
                    is_rehearsal=self._is_rehearsal,
                )
                with progress() as display:
                    for path in self._paths:
                        await self._take(path, importer, display)
        if not self._as_json:
            self._sum_up(locate(store))
        is_wrong = self._counts[Outcome.REFUSED] or self._unreadable
        return Exit.WRONG if is_wrong else Exit.FINE

    @asynccontextmanager
    async def _store(self, store: Path | None) -> AsyncIterator[Store]:
        """The store to write to; the shell closes what is not only read."""
        if not self._is_rehearsal:
            yield await writing(store, self._limits, is_made=True)
        elif locate(store).is_file():
            async with reading(store, self._limits) as opened:
                yield opened
        else:
            yield MemoryStore(random=new_dice(), limits=self._limits)

    async def _take(self, path: str, importer: Importer, display: Progress) -> None:
        task = display.add_task(printable(f"importing {path}"), total=None, at="")
        try:
            if path == STDIN:
                foreign = ForeignDocument(self._name or "", (_read_stdin(),))
                self._report(path, await importer.take(foreign, source="stdin"))
                return
            with open_source(
                Path(path), self._limits, wanted=self._wanted, name=self._name
            ) as source:
                display.update(task, total=source.count)
                for foreign in source.documents:
                    display.update(task, at=printable(foreign.name))
                    self._report(path, await importer.take(foreign, source=source.format.value))
                    display.update(task, advance=1)
        except NotImportable as error:
            self._unreadable += 1
            complain(str(error))
        except OSError as error:
            self._unreadable += 1
            complain(f"{path}: it cannot be read ({error.strerror})")

    def _report(self, path: str, result: Result) -> None:
        self._counts[result.outcome] += 1
        name = result.document or result.name
        if self._as_json:
            write_json(
                {
                    "source": path,
                    "name": result.name,
                    "document": result.document,
                    "outcome": result.outcome.value,
                    "updates": result.updates,
                    "bytes": result.size,
                    "pending": result.waiting,
                    "is_another_history": result.is_another,
                    "reason": result.reason,
                }
            )
        elif result.outcome is Outcome.REFUSED:
            complain(f"{name!r} refused: {result.reason}")
        elif result.outcome is Outcome.IMPORTED:
            waiting = f", {result.waiting:,} pending" if result.waiting else ""
            another = "; another history, what was there is set aside" if result.is_another else ""
            show(
                f"{name}: {counted(result.updates, 'update')}, {bytes_text(result.size)}"
                f"{waiting}{another}"
            )

    def _sum_up(self, place: Path) -> None:
        verb = "would be imported" if self._is_rehearsal else "imported"
        note(
            f"{counted(self._counts[Outcome.IMPORTED], 'document')} {verb}, "
            f"{self._counts[Outcome.UNCHANGED]:,} unchanged, "
            f"{self._counts[Outcome.REFUSED]:,} refused; the store is {place}",
            style="dim",
        )


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not (equals and old and new):
        usage_error(f"--rename {text!r} is not like OLD=NEW")
    return old, new


def _read_stdin() -> bytes:
    size_max = DEFAULT_LIMITS.document_bytes_max
    data = sys.stdin.buffer.read(size_max + 1)
    if len(data) > size_max:
        raise NotImportable("stdin", f"it is larger than document_bytes_max = {size_max:,}")
    return data
