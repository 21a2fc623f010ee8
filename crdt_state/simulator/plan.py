"""What will be tried in a simulation: who edits when, and what goes wrong when.  Values only.

A plan is drawn from a seed before anything runs.  Each entry brings a seed of its own, so that
leaving one out (to find the shortest history that still fails) changes no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING

from crdt_state.identifiers import DocumentId
from crdt_state.simulator.weather import Kind
from crdt_state.transport.link import Wire

if TYPE_CHECKING:
    from crdt_state.simulator.weather import Weather

__all__ = [
    "CONTAINERS",
    "DEEDS",
    "DOCUMENTS",
    "EDITS",
    "Act",
    "Deed",
    "Fault",
    "Plan",
    "Session",
    "Topology",
    "draw_plan",
    "star",
]

DOCUMENTS = tuple(
    map(
        DocumentId,
        ("top", "notes/today", "notes/tomorrow", "plans/2026/spring", "plans/2026/fall", "ñ/ü 1"),
    )
)

CONTAINERS = (
    "text",
    "counter",
    "set",
    "map",
    "list",
    "movable_list",
    "register",
    "multi_value_register",
)

SECONDS = 240.0
"""How long people edit and things go wrong."""

READINGS = 3
"""So often the one who only reads opens each document."""

EDITS = 1_150
"""So many are tried; some are cut short by what goes wrong, and a thousand are made."""


class Deed(Enum):
    """How people end a life of a document; the value is the word for it."""

    DELETE = "deletion"
    SEED = "seed"


DEEDS = (Deed.DELETE,) * 4 + (Deed.SEED,) * 2
"""What is done in each plan.  Whoever comes upon what was deleted may begin it anew besides."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Who dials whom; who is dialled listens."""

    hosts: tuple[str, ...]
    dials: tuple[tuple[str, str], ...]

    def listens(self, host: str) -> bool:
        """Whether others dial `host`."""
        return any(to == host for _, to in self.dials)

    def dialled_by(self, host: str) -> tuple[str, ...]:
        """Whom `host` dials."""
        return tuple(to for by, to in self.dials if by == host)


def star(clients: int) -> Topology:
    """One hub that everybody dials."""
    names = tuple(f"client-{number}" for number in range(1, clients + 1))
    return Topology(("hub", *names), tuple((name, "hub") for name in names))


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody opens a document, edits one container some times, and may wait for it."""

    at: float
    host: str
    document: DocumentId
    container: str
    edits: int
    waits_for: str
    """"nothing", "saved" or "synced"."""
    closes: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Act:
    """Somebody ends the life of a document, whatever that is by then."""

    at: float
    host: str
    document: DocumentId
    deed: Deed
    waits_for: str
    """"nothing" or "synced"."""
    seed: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong at `host`, for `seconds` where it passes by itself."""

    at: float
    kind: Kind
    host: str
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run depends on."""

    seed: int
    weather: Weather
    wire: Wire
    """What every link of it speaks."""
    topology: Topology
    seconds: float
    sessions: tuple[Session, ...]
    faults: tuple[Fault, ...]
    acts: tuple[Act, ...] = ()
    """Only carried out where the wire names lineages."""

    @property
    def edits(self) -> int:
        """How many edits are tried."""
        return sum(session.edits for session in self.sessions)


def draw_plan(
    seed: int,
    weather: Weather,
    *,
    topology: Topology | None = None,
    edits: int = EDITS,
    wire: Wire | None = None,
) -> Plan:
    """The plan of a seed; `wire` instead of the one that would be drawn."""
    random = Random(f"plan {seed}")  # noqa: S311 - to be repeated, not to be secret
    chosen = topology or star(4)
    *writers, reader = [host for host in chosen.hosts if chosen.dialled_by(host)]
    # Who never edits never asks whether an edit has arrived, and is told of others' all the same.
    sessions = [
        Session(
            at=random.uniform(0.0, SECONDS),
            host=reader,
            document=document,
            container=CONTAINERS[0],
            edits=0,
            waits_for="nothing",
            closes=False,
            seed=random.getrandbits(64),
        )
        for document in DOCUMENTS
        for _ in range(READINGS)
    ]
    left = edits
    while left > 0:
        count = min(left, random.randint(4, 20))
        left -= count
        sessions.append(
            Session(
                at=random.uniform(0.0, SECONDS),
                host=random.choice(writers),
                document=_busy(random),
                container=random.choice(CONTAINERS),
                edits=count,
                waits_for=random.choice(("nothing", "saved", "saved", "synced")),
                closes=random.random() < 0.3,
                seed=random.getrandbits(64),
            )
        )
    faults = [
        Fault(
            at=random.uniform(2.0, SECONDS),
            kind=random.choices(tuple(weather.weights), tuple(weather.weights.values()))[0],
            host=random.choice(chosen.hosts),
            seconds=random.uniform(*weather.stay_seconds),
            seed=random.getrandbits(64),
        )
        for _ in range(weather.faults)
    ]
    return Plan(
        seed,
        weather,
        # With dice of its own: to force a wire changes nothing else of a plan.
        wire or Random(f"wire {seed}").choice(tuple(Wire)),  # noqa: S311
        chosen,
        SECONDS,
        tuple(sorted(sessions, key=lambda session: session.at)),
        tuple(sorted(faults, key=lambda fault: fault.at)),
        _draw_acts(seed, writers),
    )


def _draw_acts(seed: int, hosts: list[str]) -> tuple[Act, ...]:
    # With dice of their own, as the wire: they change nothing else of a plan.
    random = Random(f"acts {seed}")  # noqa: S311
    acts = [
        Act(
            at=random.uniform(SECONDS / 20, SECONDS),
            host=random.choice(hosts),
            document=_busy(random),
            deed=deed,
            waits_for=random.choice(("nothing", "nothing", "synced")),
            seed=random.getrandbits(64),
        )
        for deed in DEEDS
    ]
    return tuple(sorted(acts, key=lambda act: act.at))


def _busy(random: Random) -> DocumentId:
    # Some documents are everybody's, others hardly anybody's.
    return DOCUMENTS[min(random.randrange(7), random.randrange(7)) % 6]
