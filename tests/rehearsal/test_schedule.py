"""When requests are due and what they ask for."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from graceful.rehearsal.schedule import SLOW_SECONDS, Kind, arrivals, percentile


def test_requests_are_due_at_even_distances_whatever_happens() -> None:
    """The schedule is fixed before the first request is sent: an open loop."""
    due = [arrival.due for arrival in islice(arrivals(4, [Kind.QUICK], seed=1), 5)]
    assert due == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_same_seed_gives_the_same_requests() -> None:
    """Two runs can be compared."""
    kinds = list(Kind)
    once, again, other = (list(islice(arrivals(10, kinds, seed), 50)) for seed in (7, 7, 8))
    assert once == again
    assert once != other


def test_the_mix_is_mostly_quick_with_some_of_the_rest() -> None:
    """Seven, one and two tenths, and one fifth on fresh connections."""
    sample = list(islice(arrivals(10, list(Kind), seed=1), 10_000))
    kinds = Counter(arrival.kind for arrival in sample)
    assert kinds[Kind.QUICK] == pytest.approx(7000, abs=200)
    assert kinds[Kind.SLOW] == pytest.approx(1000, abs=200)
    assert kinds[Kind.POST] == pytest.approx(2000, abs=200)
    assert sum(arrival.fresh for arrival in sample) == pytest.approx(2000, abs=200)
    assert min(a.seconds for a in sample) >= SLOW_SECONDS[0]
    assert max(a.seconds for a in sample) <= SLOW_SECONDS[1]


def test_a_kind_that_is_left_out_never_comes() -> None:
    """The others share its part."""
    sample = islice(arrivals(10, [Kind.SLOW, Kind.POST], seed=1), 100)
    assert {arrival.kind for arrival in sample} == {Kind.SLOW, Kind.POST}


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([], 99, 0.0),
        ([5.0], 50, 5.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([1.0, 2.0], 0, 1.0),
    ],
)
def test_percentiles_are_values_that_occurred(
    values: list[float], percent: float, found: float
) -> None:
    """Nearest rank, without interpolation."""
    assert percentile(values, percent) == found
