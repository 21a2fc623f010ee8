"""What is written, and where: results on stdout, everything about them on stderr.

1. Nothing that came from a document, a file or a peer reaches a terminal with control characters.
2. Progress shows only on a terminal, never on stdout, and not beside the reader of a pipe.
3. Lines of JSON hold the data as it is; only tables and sentences are made for the eye.
"""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "bytes_text",
    "complain",
    "counted",
    "is_terminal",
    "new_table",
    "note",
    "printable",
    "progress",
    "show",
    "write_bytes",
    "write_json",
    "write_text",
]

WIDTH_OF_A_PIPE = 100_000
"""Where nobody looks, no line is cut or broken."""

# Zero-width joiners make one picture of several; they are part of honest text.
KEPT = {"\u200c", "\u200d"}
ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_terminal() -> bool:
    """Whether somebody looks at stdout."""
    return sys.stdout.isatty()


def printable(text: str, *, keep: str = "") -> str:
    """`text` with whatever a terminal might obey, or show as nothing, written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in keep
        or character in KEPT
        or unicodedata.category(character) not in ESCAPED_CATEGORIES
        else character.encode("unicode_escape").decode()
        for character in text
    )


def bytes_text(size: int) -> str:
    """A count of bytes for the eye: `0 B`, `4.6 KiB`, `1.2 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def counted(number: int, noun: str) -> str:
    """`1 update`, `2,048 updates`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def show(result: Table | str, *, style: str = "") -> None:
    """Write a result for the eye to stdout."""
    if isinstance(result, str):
        _write(Text(printable(result, keep="\n"), style=style))
    else:
        _write(result)


def note(text: str, *, style: str = "") -> None:
    """Write something about the result to stderr."""
    _write(Text(printable(text, keep="\n"), style=style), is_result=False)


def complain(text: str) -> None:
    """Write an error, or a finding, to stderr."""
    message = Text("error: ", style="bold red")
    message.append(printable(text, keep="\n"), style="not bold default")
    _write(message, is_result=False)


def _write(what: Table | Text, *, is_result: bool = True) -> None:
    console = _live_console(is_result=is_result) or Console(stderr=not is_result)
    if not console.is_terminal:
        console = Console(stderr=not is_result, width=WIDTH_OF_A_PIPE)
    console.print(what, highlight=False)


def _live_console(*, is_result: bool) -> Console | None:
    """The console of the progress display, where what is written would land in its middle."""
    if not _displays or (is_result and not is_terminal()):
        return None
    return _displays[-1].console


def new_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without a frame; `numbers` are the columns that stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        is_number = column in numbers
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return table


def write_json(value: Mapping[str, object]) -> None:
    """Write one line of JSON to stdout."""
    line = orjson.dumps(value).decode()
    console = _live_console(is_result=True)
    if console is None:
        sys.stdout.write(line + "\n")
    else:
        console.print(Text(printable(line)), highlight=False, soft_wrap=True)


def write_text(text: str) -> None:
    """Write a document's text to stdout: as it is into a pipe, harmless on a terminal."""
    if not is_terminal():
        sys.stdout.write(text)
        return
    sys.stdout.write(printable(text, keep="\n\t"))
    if not text.endswith("\n"):
        sys.stdout.write("\n")


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on a terminal that vanishes at its end.

    A task's field `at` says what is being worked on.  What is written meanwhile stands above it.
    """
    console = Console(stderr=True)
    is_seen = console.is_terminal and not _is_piped()
    display = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(
            "{task.fields[at]}",
            markup=False,
            style="dim",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=console,
        transient=True,
        expand=True,
        # Results go where stdout leads, which may be a file while we are on a terminal.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not is_seen,
    )
    if not is_seen:
        yield display
        return
    with display:
        _displays.append(display)
        try:
            yield display
        finally:
            _displays.remove(display)


def _is_piped() -> bool:
    """Whether stdout is read by a program, which may write to the same terminal as we do."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):  # not a file of the system, as in tests
        return False


_displays: list[Progress] = []
"""The display that is live, if one is: it owns the lines at the bottom of the terminal."""
