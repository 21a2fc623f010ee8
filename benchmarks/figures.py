"""A measured figure, the floor it must not fall below, and the table that shows both."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

__all__ = ["Figure", "Floor", "Report", "floors", "is_met"]

FLOORS = Path(__file__).with_name("floors.toml")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit; `name` is also its key in `floors.toml`."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Floor:
    """What a figure must reach (`at_least`) or stay under (`at_most`).

    `at_reference`: on a machine of the reference's speed (`benchmarks/reference.py`).
    """

    at_least: float | None = None
    at_most: float | None = None
    at_reference: bool = False

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:,.6g}"
        return f"≤ {self.at_most:,.6g}"

    def here(self, slowness: float) -> Floor:
        """The same on a machine that takes `slowness` times as long for the reference."""
        if not self.at_reference:
            return self
        if self.at_least is not None:
            return Floor(at_least=self.at_least / slowness)
        return Floor(at_most=None if self.at_most is None else self.at_most * slowness)


def floors() -> dict[str, Floor]:
    """The floors kept in the repository, by the names of figures."""
    return {name: Floor(**bounds) for name, bounds in tomllib.loads(FLOORS.read_text()).items()}


def is_met(figure: Figure, floor: Floor | None) -> bool:
    """Whether a figure reaches its floor; one without a floor always does."""
    if floor is None:
        return True
    if floor.at_least is not None:
        return figure.value >= floor.at_least
    return floor.at_most is None or figure.value <= floor.at_most


class Report:
    """Figures beside their floors: a table, and how many of them do not meet theirs."""

    def __init__(self, title: str) -> None:
        self.table = Table("figure", "value", "unit", "floor here", "", "note", title=title)
        self.table.columns[0].overflow = "fold"
        for column in (1, 3):
            self.table.columns[column].justify = "right"
        self.missed = 0
        self._floors = floors()

    def add(self, figure: Figure, slowness: float = 1.0) -> None:
        """A row more; floors of times and rates are scaled by `slowness`."""
        kept = self._floors.get(figure.name)
        floor = None if kept is None else kept.here(slowness)
        met = is_met(figure, floor)
        self.missed += not met
        mark = "" if floor is None else "met" if met else "MISSED"
        value = f"{figure.value:,.2f}" if figure.value < 1000 else f"{figure.value:,.0f}"
        self.table.add_row(figure.name, value, figure.unit, str(floor or ""), mark, figure.note)
