"""Whether all replicas came out equal, and equal to what is known: contents, never digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crdt_client.demonstration.quarrel import Contents, Ledger, disagreements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crdt_client.demonstration.trace import Trace

__all__ = ["Finding", "Report", "Verdict", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one replica holds in the end, and what it took."""

    name: str
    typed: Contents
    quarrel: Contents
    edits: int
    bytes_sent: int
    bytes_received: int
    reconnections: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One question, and its answer: an empty `wrong` means yes."""

    question: str
    wrong: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it is as it should be."""
        return not self.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of the demonstration."""

    reports: tuple[Report, ...]
    findings: tuple[Finding, ...]
    trace: str
    kills: int
    seconds: float
    seed: int

    @property
    def is_good(self) -> bool:
        """Whether everything holds."""
        return all(finding.holds for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "equal": self.is_good,
            "trace": self.trace,
            "edits": sum(report.edits for report in self.reports),
            "bytes": sum(report.bytes_sent + report.bytes_received for report in self.reports),
            "reconnects": sum(report.reconnections for report in self.reports),
            "kills": self.kills,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "wrong": [wrong for finding in self.findings for wrong in finding.wrong],
        }


def judge(reports: Sequence[Report], ledgers: Sequence[Ledger], trace: Trace) -> list[Finding]:
    """Compare everything with everything.  Raises `ValueError` where nothing was done."""
    if len(reports) < 2 or not trace.end or not any(ledger.edits for ledger in ledgers):
        raise ValueError("nothing was edited, or by too few: there is nothing to compare")
    typed, quarrel = reports[0].typed, reports[0].quarrel
    count = len(trace.transactions)
    return [
        Finding(
            f"contents are equal in all {len(reports)} replicas",
            (
                *_differences("the typed document", {one.name: one.typed for one in reports}),
                *_differences("the quarrel", {one.name: one.quarrel for one in reports}),
            ),
        ),
        Finding(
            f"the typed text is the trace's end content ({count:,} transactions)",
            _typed_wrong(typed, trace),
        ),
        Finding(
            f"of {sum(ledger.edits for ledger in ledgers):,} edits in one place nothing is lost "
            "or doubled",
            tuple(disagreements(quarrel, ledgers)),
        ),
    ]


def _differences(what: str, contents: Mapping[str, Contents]) -> tuple[str, ...]:
    (first, expected), *others = contents.items()
    return tuple(
        f"{what}: {name} and {first} differ in {part}"
        for name, found in others
        for part in expected
        if found[part] != expected[part]
    )


def _typed_wrong(typed: Contents, trace: Trace) -> tuple[str, ...]:
    wrong = []
    if typed["text"] != trace.end:
        wrong.append(
            f"the text has {len(typed['text']):,} characters and is not the trace's end content"
        )
    if typed["transactions"] != len(trace.transactions):
        wrong.append(
            f"{typed['transactions']:,} transactions were counted of {len(trace.transactions):,}"
        )
    return tuple(wrong)
