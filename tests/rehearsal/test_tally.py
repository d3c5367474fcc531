"""Counting outcomes."""

from __future__ import annotations

from graceful.rehearsal.schedule import Kind
from graceful.rehearsal.tally import Tally

from .findings import LOSS


def test_outcomes_are_counted_by_kind_and_latencies_are_of_the_good_ones() -> None:
    """A request that was refused at once must not make the app look quick."""
    tally = Tally()
    tally.ok(Kind.QUICK, 0.001)
    tally.ok(Kind.QUICK, 0.003)
    tally.lost(Kind.POST, LOSS)
    assert tally.total == 3
    assert tally.requests() == {"post": {"reset": 1}, "quick": {"ok": 2}}
    assert tally.latency() == {"quick": {"p50": 0.001, "p99": 0.003, "max": 0.003}}
    assert tally.losses == [LOSS]
