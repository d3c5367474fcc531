"""What observers are told, as frozen records. Data only; how it is shown belongs to observers.

Times are seconds; `after` counts from the moment the process learnt that it must stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .phases import Phase

__all__ = [
    "BudgetShort",
    "DrainReport",
    "ExchangeCut",
    "FarewellsSent",
    "Fault",
    "Notice",
    "PhaseChanged",
    "Record",
    "Rung",
    "Started",
    "Straggler",
]


@dataclass(frozen=True, slots=True)
class Started:
    """The process serves; every value in force and where it came from."""

    settings: Mapping[str, object]
    sources: Mapping[str, str]
    server: str


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The process moved to another phase."""

    old: Phase
    new: Phase
    reason: str
    after: float
    in_flight: int | None
    """None = said by a parent: it is its workers that know."""
    streams: int | None
    lasts_up_to: float | None
    """Seconds that the new phase may last; None when nothing bounds it."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A signal (or code) climbed the ladder."""

    rung: int
    cause: str
    effect: str
    after: float
    flipped_in: float | None = None
    """Seconds from the arrival of the signal in this process to the readiness flip."""


@dataclass(frozen=True, slots=True)
class FarewellsSent:
    """All streams that could be told to reconnect have been told."""

    told: int
    left_to_finish: int
    failed: int
    window: float
    after: float


@dataclass(frozen=True, slots=True)
class Straggler:
    """What was still in flight when the drain deadline passed, or when the watchdog left."""

    kind: str
    name: str
    """Method and path without the query, escaped so that it can't forge a log line."""
    client: str
    age: float
    """Seconds since it began."""
    phase: str
    stack: str = ""
    older: bool = False
    """Nobody read a clock when it began: `age` counts from the first probe that found it in flight,
    or from the end of SERVING, so it is older than that."""


@dataclass(frozen=True, slots=True)
class ExchangeCut:
    """Work in flight was ended by force at the drain deadline."""

    stragglers: tuple[Straggler, ...]
    after: float


@dataclass(frozen=True, slots=True)
class BudgetShort:
    """Requests here take longer than the drain allows; said once while serving."""

    p99: float
    drain: float
    requests: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should know once: a limit of this set-up and what to do."""

    text: str
    level: Literal["info", "warning"] = "warning"


@dataclass(frozen=True, slots=True)
class Fault:
    """Code of the user's (hook, check, farewell) failed or hung, or a server is not as it was when
    it was tested; the stop went on without it."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The whole stop in numbers. `clean` is what the exit status says."""

    cause: str
    clean: bool
    seconds: float
    """From the signal to the end."""
    grace_period: float
    propagation_delay: float
    lame_duck_seconds: float
    drain_seconds: float
    in_flight_at_signal: int
    streams_at_drain: int
    served: int
    """Ordinary exchanges that ended after the signal."""
    late_refused: int
    told: int
    farewells_failed: int
    streams_left_to_finish: int
    """Streams whose policy is `finish`, open when the drain began."""
    last_request_after: float | None
    """Seconds from the readiness flip to the last ordinary request; None when none came."""
    delay_too_short: bool
    """Ordinary requests were still arriving in the last fifth of the propagation delay."""
    p50: float | None
    p99: float | None
    cut: tuple[Straggler, ...] = ()
    holds: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    outcome: Literal["finished", "left_by_watchdog"] = "finished"

    @property
    def exit_status(self) -> int:
        """0 when everything finished, 70 (EX_SOFTWARE of sysexits.h) when something was cut."""
        return 0 if self.clean else 70


Record = (
    Started
    | PhaseChanged
    | Rung
    | FarewellsSent
    | ExchangeCut
    | BudgetShort
    | Notice
    | Fault
    | DrainReport
)
