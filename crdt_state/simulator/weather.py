"""Weathers: how often which misfortune comes, and how long it stays.  Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["WEATHERS", "Kind", "Weather"]


class Kind(Enum):
    """What can go wrong; the value is the word for it."""

    CUT = "connection cut"
    PARTITION = "partition"
    HALF_OPEN = "half-open connection"
    CLOG = "clogged connection"
    KILL = "process killed"
    POWER = "power lost"
    RESTART = "orderly restart"
    ABSENCE = "long absence"
    DISK_ERROR = "disk errors"
    DISK_FULL = "disk full"
    BIT_FLIP = "bit flipped at rest"
    OLD_BACKUP = "old backup restored"
    CLOCK_JUMP = "clock jump"
    LIE = "lying peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a simulation draws its plan and its network's behaviour from."""

    name: str
    faults: int
    weights: dict[Kind, int]
    """Of the kinds, against one another."""
    delay_seconds: tuple[float, float]
    """Of one message on an ordinary line, least and most."""
    spike: float
    """The share of messages that take `spike_seconds` at most."""
    spike_seconds: float
    stay_seconds: tuple[float, float]
    """How long what passes by itself stays, least and most."""
    skew_seconds: float
    """How far clocks are ahead or behind, at most."""
    drift: float


CALM = Weather(
    name="calm",
    faults=0,
    weights={},
    delay_seconds=(0.005, 0.05),
    spike=0.0,
    spike_seconds=0.0,
    stay_seconds=(0.0, 0.0),
    skew_seconds=1.0,
    drift=1e-5,
)

RAIN = Weather(
    name="rain",
    faults=12,
    weights={
        Kind.CUT: 6,
        Kind.PARTITION: 2,
        Kind.HALF_OPEN: 2,
        Kind.CLOG: 3,
        Kind.KILL: 1,
        Kind.RESTART: 2,
        Kind.ABSENCE: 1,
        Kind.CLOCK_JUMP: 1,
    },
    delay_seconds=(0.005, 0.2),
    spike=0.02,
    spike_seconds=2.0,
    stay_seconds=(1.0, 20.0),
    skew_seconds=60.0,
    drift=1e-4,
)

STORM = Weather(
    name="storm",
    faults=30,
    weights={
        Kind.CUT: 4,
        Kind.PARTITION: 3,
        Kind.HALF_OPEN: 3,
        Kind.CLOG: 3,
        Kind.KILL: 3,
        Kind.POWER: 4,
        Kind.RESTART: 2,
        Kind.ABSENCE: 2,
        Kind.DISK_ERROR: 3,
        Kind.DISK_FULL: 2,
        Kind.BIT_FLIP: 1,
        Kind.OLD_BACKUP: 1,
        Kind.CLOCK_JUMP: 2,
        Kind.LIE: 2,
    },
    delay_seconds=(0.005, 0.4),
    spike=0.05,
    spike_seconds=5.0,
    stay_seconds=(1.0, 40.0),
    skew_seconds=7_200.0,
    drift=1e-3,
)

WEATHERS = {weather.name: weather for weather in (CALM, RAIN, STORM)}
