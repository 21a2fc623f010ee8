"""What people see of the demonstration: a live picture on a terminal, else plain lines.

1. Control characters of a text never reach the terminal (`terminal.printable`).
2. Nothing here is waited for: the stage tells, and the picture is drawn by its own thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crdt_client.commands.terminal import bytes_text, printable
from crdt_client.demonstration.quarrel import author_of
from crdt_client.demonstration.stage import NAMES, Scene

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from crdt_client.demonstration.verdict import Report, Verdict

__all__ = ["LiveAudience", "PlainAudience", "verdict_picture"]

SCENES = (Scene.TYPING, Scene.QUARREL, Scene.VISIT)
COLOURS = dict(zip(NAMES, ("cyan", "magenta", "yellow"), strict=True))
PROGRESS_STYLES = {
    "in sync": "green",
    "catching up": "yellow",
    "connecting": "red",
    "refused": "bold red",
    "offline": "bold red",
}
SERVER_STYLES = {"up": "green", "starting": "yellow", "killed": "bold red"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EXCERPT_LINES = 3
WIDTH_MAX = 100


class PlainAudience:
    """One line for what matters, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._scene = ""
        self._quarters = 0
        self._steps = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to put away."""

    def scene(self, scene: str, steps: int) -> None:
        """See `Audience`."""
        self._scene, self._steps, self._quarters = scene, steps, 0
        self._say(scene)

    def step(self, done: int, remark: str = "") -> None:
        """See `Audience`; a remark is always said, other steps every quarter."""
        quarters = 4 * done // self._steps
        if remark:
            self._say(f"  round {done} of {self._steps}: {remark}")
        elif quarters > self._quarters and self._steps > 1:
            self._say(f"  {done:,} of {self._steps:,} transactions")
        self._quarters = quarters

    def server(self, state: str, kills: int) -> None:
        """See `Audience`."""
        if state != "starting":
            self._say("  the server was killed" if state == "killed" else "  the server listens")

    def person(self, name: str, status: dict[str, Any]) -> None:
        """See `Audience`; too much for lines."""

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)


class LiveAudience:
    """The picture: what has been done, the server, and each person's text where it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._scene = -1
        self._done = 0
        self._steps = 1
        self._remark = ""
        self._server = ("starting", 0)
        self._statuses: dict[str, dict[str, Any]] = {}
        self._live = Live(
            console=console,
            get_renderable=self.picture,
            refresh_per_second=12,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    # --- what is told ------------------------------------------------------------------------

    def scene(self, scene: str, steps: int) -> None:
        """See `Audience`."""
        self._scene, self._done, self._steps, self._remark = SCENES.index(scene), 0, steps, ""

    def step(self, done: int, remark: str = "") -> None:
        """See `Audience`."""
        self._done = done
        self._remark = remark or self._remark

    def server(self, state: str, kills: int) -> None:
        """See `Audience`."""
        self._server = (state, kills)

    def person(self, name: str, status: dict[str, Any]) -> None:
        """See `Audience`."""
        self._statuses[name] = status

    # --- what is shown -----------------------------------------------------------------------

    def picture(self) -> RenderableType:
        """How it stands now."""
        state, kills = self._server
        style = SERVER_STYLES[state]
        title = Text.assemble(
            ("crdt-state demo", "bold"), f"  {time.monotonic() - self._began:.0f} s "
        )
        footer = Text.assemble(
            " server ", ("●", style), (f" {state}", style), f"  killed {kills} times "
        )
        return Panel(
            Group(self._scenes(), *(self._portrait(name) for name in NAMES)),
            title=title,
            subtitle=footer,
            title_align="left",
            subtitle_align="right",
            box=ROUNDED,
            width=min(WIDTH_MAX, self._console.width),
        )

    def _scenes(self) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=1)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_column(width=18)
        grid.add_column(width=15, justify="right")
        for number, scene in enumerate(SCENES):
            if number < self._scene:
                grid.add_row(Text("✓", "green"), scene, "", "")
            elif number > self._scene:
                grid.add_row(Text("·", "dim"), Text(scene, "dim"), "", "")
            else:
                count = f"{self._done:,}/{self._steps:,}"
                bar = ProgressBar(total=self._steps, completed=self._done, width=18)
                grid.add_row(Text("▸", "bold"), Text(scene, "bold"), bar, count)
        grid.add_row("", Text(self._remark, "dim italic"), "", "")
        return grid

    def _portrait(self, name: str) -> Panel:
        status = self._statuses.get(name, {})
        progress = status.get("progress", "starting")
        style = PROGRESS_STYLES.get(progress, "dim")
        head = Text.assemble(
            (name, f"bold {COLOURS[name]}"), " ", ("●", style), (f" {progress} ", style)
        )
        return Panel(
            _excerpt(status, self._console.width),
            title=head,
            title_align="left",
            subtitle=Text(_figures(status), "dim"),
            subtitle_align="right",
            height=EXCERPT_LINES + 2,
            border_style=COLOURS[name],
            box=ROUNDED,
        )


def _excerpt(status: dict[str, Any], width: int) -> Text:
    """The text around where it changes, with a bar at the place, and that place in view."""
    room = (min(width, WIDTH_MAX) - 8) * EXCERPT_LINES
    after = _coloured(status.get("after", ""))
    shown = _coloured(status.get("before", ""))
    while (beyond := shown.cell_len + after.cell_len + 1 - room) > 0 and shown:
        shown = shown[max(1, beyond // 2) :]
    after.stylize("dim")
    return Text.assemble(shown, ("▏", "bold reverse"), after)


def _coloured(text: str) -> Text:
    """One line of it; what the three insert in one place is in the colours of who did.

    Those characters are shown as letters, because not every terminal has a font for them.
    """
    line = Text()
    for character in printable(text.replace("\n", "⏎")):
        author = author_of(character)
        if author is None:
            line.append(character)
        else:
            line.append(LETTERS[ord(character) % len(LETTERS)], COLOURS[NAMES[author]])
    return line


def _figures(status: dict[str, Any]) -> str:
    made, quarrels = status.get("made", 0), status.get("quarrels", 0)
    reconnections = status.get("reconnections", 0)
    sent, received = bytes_text(status.get("sent", 0)), bytes_text(status.get("received", 0))
    return (
        f" {made + quarrels:,} edits   {sent} sent   {received} received   "
        f"{reconnections} reconnects "
    )


def verdict_picture(verdict: Verdict) -> Group:
    """The table at the end, and what was found."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("replica")
    for column in ("edits", "sent", "received", "reconnects"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("typed", "contested"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("equal", justify="center")
    first = verdict.reports[0]
    for report in verdict.reports:
        table.add_row(
            Text(report.name, COLOURS.get(report.name, "")),
            f"{report.edits:,}",
            bytes_text(report.bytes_sent),
            bytes_text(report.bytes_received),
            f"{report.reconnections:,}",
            f"{len(report.typed['text']):,}",
            f"{len(report.quarrel['text']):,}",
            Text("✓", "green") if _equal(report, first) else Text("✗", "bold red"),
        )
    lines = [_answer(finding.question, finding.wrong) for finding in verdict.findings]
    totals = verdict.as_json()
    figures = (
        f"{totals['edits']:,} edits, {bytes_text(totals['bytes'])}, "
        f"{totals['reconnects']} reconnects, {verdict.kills} kills of the server, "
        f"{verdict.seconds:.1f} s (seed {verdict.seed})"
    )
    return Group(table, *lines, Text(), Text(figures, "dim"))


def _equal(one: Report, other: Report) -> bool:
    return one.typed == other.typed and one.quarrel == other.quarrel


def _answer(question: str, wrong: tuple[str, ...]) -> Text:
    if not wrong:
        return Text.assemble(("✓ ", "bold green"), question)
    answer = Text.assemble(("✗ ", "bold red"), ("not so: ", "bold red"), question)
    for sentence in wrong:
        answer.append(f"\n    {sentence}", "red")
    return answer
