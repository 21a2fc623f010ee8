"""`crdt-state demo`: real processes that edit, lose the network, are killed, and end equal."""

from __future__ import annotations

import secrets
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from crdt_client.commands.outcome import Exit, carry_out, usage_error
from crdt_client.commands.stores import JsonOption
from crdt_client.commands.terminal import note, write_json
from crdt_client.demonstration.trace import find_reference, generate, read_reference

__all__ = ["HELP", "demo"]

HELP = """Show it: three replicas, a server that is killed, and a table that says all end equal.

Starts a real server and three replicas, each a process of its own with its own file.  Two people
type one text at once, each keystroke on exactly the version it was once typed on; then three
people insert and delete in one place, offline, while lines are cut and the server is killed with
SIGKILL and started again.  A visitor with an empty file comes last, and everybody's contents are
compared.  Takes under a minute; leaves nothing behind.

What is typed is the trace `friendsforever_concurrent` of josephg/editing-traces, where the folder
named by CRDT_STATE_DATA (or ../shared/data) has it; otherwise one is made up from the seed.

\b
Examples:
  crdt-state demo
  crdt-state demo --seed 7 --keep ./played
  crdt-state check --store ./played/server

\b
Exit codes: 0 all is equal; 1 it is not, or a part failed; 2 bad usage; 130 interrupted.
"""

ROOT = Path(__file__).parents[4]
"""Of a clone; installed elsewhere, there is no data beside it."""


def demo(
    *,
    as_json: JsonOption = False,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Repeat a run's edits and cuts.", show_default=False),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep the files, in a new or empty folder.", show_default=False
        ),
    ] = None,
) -> None:
    """The command; its words are `HELP`."""
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        usage_error(f"{keep} is not an empty folder; name one that is, or a new one")
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    carry_out(_demo(as_json=as_json, seed=chosen, keep=keep))


async def _demo(*, as_json: bool, seed: int, keep: Path | None) -> Exit:
    # Only now are they worth their time: they load the whole replica.
    from crdt_client.demonstration.display import (  # noqa: PLC0415
        LiveAudience,
        PlainAudience,
        verdict_picture,
    )
    from crdt_client.demonstration.stage import Play, Stage  # noqa: PLC0415

    reference = find_reference(ROOT)
    trace = generate(seed) if reference is None else read_reference(reference)
    if reference is None:
        note(
            "There is no reference data here, so what is typed is made up from the seed; "
            "name a folder that has it in CRDT_STATE_DATA.",
            style="yellow",
        )
    play = Play(trace=trace, reference=reference, seed=seed)
    console = Console(stderr=True)
    with ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crdt-state-")))
        else:
            folder = keep
            folder.mkdir(parents=True, exist_ok=True)
        audience = (LiveAudience if console.is_terminal else PlainAudience)(console)
        stack.enter_context(audience)
        verdict = await Stage(folder, play, audience).run()
    if as_json:
        write_json(verdict.as_json())
    else:
        Console(highlight=False).print(verdict_picture(verdict))
    if keep is not None:
        note(f"kept in {keep}", style="dim")
    return Exit.FINE if verdict.is_good else Exit.WRONG
