"""The commands, put together."""

from __future__ import annotations

import io
import sys
from typing import Annotated, NoReturn

import typer

from crdt_client.commands import (
    check,
    compact,
    delete,
    demo,
    dump,
    import_documents,
    list_documents,
    serve,
    show,
    simulate,
    token,
    version,
)
from crdt_client.commands.terminal import show as write

__all__ = ["main", "new_application"]

HELP = """Offline-first documents that converge: serve them, look at them, move them.

\b
Examples:
  crdt-state demo
  crdt-state serve
  crdt-state list
  crdt-state show notes/today

`crdt-state COMMAND --help` has more of them.
"""


def new_application() -> typer.Typer:
    """The whole command line."""
    application = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        # Plain text: it looks the same at every width, in a pipe, and without colours.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, module, command in (
        ("serve", serve, serve.new_serve()),
        ("demo", demo, demo.demo),
        ("list", list_documents, list_documents.list_documents),
        ("show", show, show.show_document),
        ("dump", dump, dump.dump),
        ("import", import_documents, import_documents.import_documents),
        ("delete", delete, delete.delete),
        ("check", check, check.check),
        ("compact", compact, compact.compact),
        ("simulate", simulate, simulate.simulate),
        ("token", token, token.token),
        ("version", version, version.version),
    ):
        application.command(name, help=module.HELP)(command)
    application.callback()(_options)
    return application


def _options(
    *,
    is_version_asked: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Say which version this is, and exit; `crdt-state version` says more.",
            is_eager=True,
            callback=lambda is_asked: _say_version() if is_asked else None,
        ),
    ] = False,
) -> None:
    """Of the command line itself; they have been carried out by now."""


def _say_version() -> NoReturn:
    write(version.version_line())
    raise typer.Exit


def main() -> None:
    """Run the command line; always ends with `SystemExit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows its escape; nothing fails for it.
            stream.reconfigure(errors="backslashreplace")
    new_application()(prog_name="crdt-state")
