"""What every managing parent says for its whole instance: that it serves, is told to stop, is gone.

The report is the parent's own with the numbers that its workers have left on the board. What a
signal means is `core.managing`'s; when there is something to say, and to whom else, the parent's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .board import Board, Order, Slot
from .core.budget import Settings
from .core.lifecycle import Cause
from .core.records import DrainReport, Record, Started, Straggler
from .lifecycle import Lifecycle

__all__ = ["climb", "say_gone", "say_started", "summed"]

NOTHING: Mapping[str, object] = {}


def say_started(
    lifecycle: Lifecycle,
    settings: Settings,
    server: str,
    own: Mapping[str, object] = NOTHING,
    own_sources: Mapping[str, str] | None = None,
) -> None:
    """The instance serves: say with which settings.

    Args:
        lifecycle: of the parent's process.
        settings: those in force.
        server: name and version.
        own: settings of the server's that matter, too.
        own_sources: where those come from that are no defaults.
    """
    lifecycle.tell(lifecycle.core.started(lifecycle.clock()))
    in_force = {**settings.values(), "drain_timeout": settings.drain, **own}
    lifecycle.tell(Started(in_force, {**settings.sources, **(own_sources or {})}, server))


def climb(
    lifecycle: Lifecycle, board: Board, rung: int, cause: str, at: float
) -> tuple[Record | None, ...]:
    """Climb to `rung`, and have all workers climb; nothing when already there or above.

    The board is written here, and what is returned is to be told afterwards: a log that blocks must
    keep no worker from hearing.
    """
    climbed = lifecycle.core.climb_to(rung, Cause(cause, signal=True), at)
    if climbed is None:
        return ()
    board.climb(Order(lifecycle.core.rung, at, cause))
    return climbed


def say_gone(lifecycle: Lifecycle, report: DrainReport) -> None:
    """All workers are gone: say how it went, once, for all of them."""
    core, now = lifecycle.core, lifecycle.clock()
    for step in (core.delay_over, core.drained, core.closed):
        lifecycle.tell(step(now))
    lifecycle.tell(report)


def summed(report: DrainReport, slots: Sequence[Slot]) -> DrainReport:
    """Return the report of the instance: that of the arbiter with the numbers of all workers."""

    def total(name: str) -> int:
        return int(sum(getattr(slot, name) for slot in slots))

    def longest(name: str) -> float | None:
        found = max((getattr(slot, name) for slot in slots), default=-1)
        return None if found < 0 else found

    cut = tuple(_cut_by(slots))
    last, short = longest("last_request_after"), any(slot.too_short for slot in slots)
    return replace(
        report,
        in_flight_at_signal=total("in_flight"),
        served=total("served"),
        late_refused=total("late_refused"),
        streams_at_drain=total("streams"),
        told=total("told"),
        streams_left_to_finish=total("finishing"),
        farewells_failed=total("farewells_failed"),
        last_request_after=last,
        delay_too_short=short,
        p50=longest("p50"),
        p99=longest("p99"),
        clean=not cut,
        cut=cut,
        warnings=(*report.warnings, *_too_short(last, report.propagation_delay, short=short)),
    )


def _cut_by(slots: Sequence[Slot]) -> list[Straggler]:
    """Name each worker that has cut something, or was killed before it could tell."""
    found: list[Straggler] = []
    for slot in slots:
        if slot.cut:
            found += [_straggler(slot, "cut, see above")] * int(slot.cut)
        elif not slot.reported and slot.in_flight:
            found.append(_straggler(slot, f"killed with up to {slot.in_flight:.0f} in flight"))
    return found


def _straggler(slot: Slot, text: str) -> Straggler:
    return Straggler("worker", f"{slot.pid:.0f}: {text}", "", 0.0, "draining")


def _too_short(last: float | None, delay: float, *, short: bool) -> list[str]:
    if not short or last is None:
        return []
    return [
        f"last request {last:.1f} s after readiness flipped; propagation_delay is {delay:g} s: "
        "the balancer had not moved, raise it"
    ]
