"""How a command finds and opens a store."""

from __future__ import annotations

import random
import secrets
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crdt_state.errors import StoreCorrupt, StoreInUse, StoreUnavailable, UsageError
from crdt_state.replica.document_core import SET_ASIDE
from crdt_state.storage.sqlite import SqliteStore
from sync_server.settings import STORE_FILE, default_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crdt_state.identifiers import DocumentId
    from crdt_state.limits import Limits
    from crdt_state.storage.contract import Store, StoredDocument, Summary

__all__ = [
    "DocumentMissing",
    "JsonOption",
    "StoreOption",
    "locate",
    "new_dice",
    "reading",
    "stored_document",
    "summaries",
    "trouble",
    "writing",
]

STORE_VARIABLE = "CRDT_STATE_STORE"
FILE_SUFFIXES = {".db", ".sqlite", ".sqlite3"}
PAGE_DOCUMENTS = 1_000

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        metavar="PATH",
        help="The store: its folder or file.  [default: that of `crdt-state serve`]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Lines of JSON for programs.")]


class DocumentMissing(UsageError):
    """A document that the store does not hold."""

    def __init__(self, document: str) -> None:
        super().__init__(
            f"there is no document {document!r}; `crdt-state list` names what there is"
        )


def locate(store: Path | None) -> Path:
    """The file of a store that is named by its folder, by its file, or not at all."""
    place = default_store() if store is None else store
    if place.is_file() or (place.suffix in FILE_SUFFIXES and not place.is_dir()):
        return place
    return place / STORE_FILE


@asynccontextmanager
async def reading(store: Path | None, limits: Limits) -> AsyncIterator[SqliteStore]:
    """Open a store beside whoever else uses it.  Raises `StoreError`."""
    file = _existing(locate(store))
    opened = await SqliteStore.open(file, random=new_dice(), limits=limits, read_only=True)
    try:
        yield opened
    finally:
        await opened.close()


async def writing(store: Path | None, limits: Limits, *, is_made: bool = False) -> SqliteStore:
    """Open a store for oneself, and with `is_made` make it; whoever asked closes it.

    Raises `StoreError`.
    """
    file = locate(store)
    if is_made:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{file.parent} cannot be made ({error.strerror})") from error
    else:
        _existing(file)
    try:
        return await SqliteStore.open(file, random=new_dice(), limits=limits)
    except StoreInUse as error:
        raise StoreInUse(
            f"{file} is open in another program, such as a running server; stop that one first.  "
            "list, show, dump and check work beside it, and a server compacts by itself"
        ) from error


async def summaries(store: Store, prefix: str = "") -> AsyncIterator[Summary]:
    """Every document's line, in the order of ids."""
    after = ""
    while page := await store.list(prefix=prefix, after=after, limit=PAGE_DOCUMENTS):
        for summary in page:
            yield summary
        after = page[-1].document


async def stored_document(store: Store, document: DocumentId) -> StoredDocument:
    """All of a document.  Raises `DocumentMissing`."""
    stored = await store.read(document)
    if stored is None or stored.life.is_deleted:
        raise DocumentMissing(document)
    return stored


async def trouble(store: Store, summary: Summary) -> str | None:
    """Why a person should look at a document, or None."""
    try:
        stored = await store.read(summary.document)
        aside = None if stored is None else stored.metadata.get(SET_ASIDE)
        if aside is not None:
            return f"set aside: {aside.decode(errors='replace')}"
        if summary.quarantined_updates:
            newest = (await store.quarantine(summary.document))[-1]
            return f"{summary.quarantined_updates:,} refused, the last: {newest.reason}"
    except StoreCorrupt as error:
        return f"damaged: {error}"
    return None


def new_dice() -> random.Random:
    """Randomness for ids and marks."""
    return random.Random(secrets.randbits(128))  # noqa: S311 - names, no secrets


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise StoreUnavailable(
            f"there is no store at {file}; name one with --store or {STORE_VARIABLE}, or make one "
            "with `crdt-state serve` or `crdt-state import`"
        )
    return file
