"""The report of a whole instance: that of its managing parent, with the numbers of all workers.

For every parent that has a board. Pure sums over what the workers have left there; nothing here
reads the board or tells anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .board import Slot
from .core.records import DrainReport, Straggler

__all__ = ["summed"]


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
