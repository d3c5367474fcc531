"""How farewells, closes and reconnects are spread; randomness is an argument here."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.pacing import (
    MAX_GAP,
    MIN_RETRY_MS,
    close_probability,
    farewell_offsets,
    retry_delay_ms,
)

ALMOST_ONE = math.nextafter(1.0, 0.0)


def lowest() -> float:
    return 0.0


def highest() -> float:
    return ALMOST_ONE


@pytest.mark.parametrize("count", [0, -1])
def test_nobody_to_tell_gives_no_offsets(count: int) -> None:
    """Without streams there is no plan, and no division by zero."""
    assert farewell_offsets(count, 5.0, lowest) == []


def test_a_single_stream_is_told_at_once() -> None:
    """One farewell has nothing to be spread against."""
    assert farewell_offsets(1, 5.0, highest) == [0.0]


def test_ten_streams_take_half_of_each_gap_at_the_lowest_draw() -> None:
    """The gap is window / count times 1/2 when the draw is 0."""
    assert farewell_offsets(10, 5.0, lowest) == [i * 0.25 for i in range(10)]


def test_gaps_are_capped_at_a_second() -> None:
    """Two streams in a window of a minute wait half a second to a second, as in NATS."""
    assert farewell_offsets(2, 60.0, lowest) == [0.0, MAX_GAP / 2]
    assert farewell_offsets(2, 60.0, lambda: 0.5) == [0.0, MAX_GAP * 0.75]
    assert farewell_offsets(2, 60.0, highest) == [0.0, MAX_GAP]


def test_two_hundred_streams_fill_the_window_evenly() -> None:
    """At a window of 5 s no slot of 100 ms holds more than a tenth of the farewells."""
    offsets = farewell_offsets(200, 5.0, random.Random(1).random)
    slots = [0] * 50
    for offset in offsets:
        slots[int(offset * 10)] += 1
    assert max(slots) <= 20
    assert 2.5 <= offsets[-1] < 5.0


def test_a_hundred_thousand_streams_still_fit_into_the_window() -> None:
    """Many small steps add up to less than the window, also at the highest draw."""
    offsets = farewell_offsets(100_000, 5.0, highest)
    assert len(offsets) == 100_000
    assert offsets[-1] < 5.0


def test_a_window_of_zero_tells_everybody_at_once() -> None:
    """The third rung asks for the farewells without any spread."""
    assert farewell_offsets(3, 0.0, highest) == [0.0, 0.0, 0.0]


@given(
    count=st.integers(0, 400),
    window=st.floats(0.001, 600.0),
    seed=st.integers(0, 2**32),
)
def test_offsets_keep_their_promises(count: int, window: float, seed: int) -> None:
    """One offset for each stream, sorted, inside the window, no gap above a second."""
    offsets = farewell_offsets(count, window, random.Random(seed).random)
    assert len(offsets) == count
    assert offsets == sorted(offsets)
    assert all(0.0 <= offset < window for offset in offsets)
    nominal = min(window / max(count, 1), MAX_GAP)
    for earlier, later in pairwise(offsets):
        gap = later - earlier
        assert nominal * 0.4999 <= gap <= nominal * 1.0001 <= MAX_GAP * 1.0001


@pytest.mark.parametrize(
    ("elapsed", "delay", "chance"),
    [
        (-0.5, 5.0, 0.0),
        (0.0, 5.0, 0.0),
        (1.0, 5.0, 0.2),
        (2.5, 5.0, 0.5),
        (5.0, 5.0, 1.0),
        (6.0, 5.0, 1.0),
        (0.0, 0.0, 1.0),
        (-0.5, 0.0, 1.0),
    ],
)
def test_the_chance_of_a_close_grows_from_0_to_1(
    elapsed: float, delay: float, chance: float
) -> None:
    """Linear over the delay, 1 after it and without one, also for a response dated before it."""
    assert close_probability(elapsed, delay) == chance


def test_a_retry_delay_is_drawn_up_to_a_fifth_of_the_window() -> None:
    """At a window of 5 s clients are told to wait up to 1000 ms, each its own time."""
    assert retry_delay_ms(5.0, lambda: 0.25) == 250
    assert retry_delay_ms(5.0, highest) == 1000


def test_a_retry_delay_is_never_nothing() -> None:
    """A client that was told 0 would redial in the same instant as its peers."""
    assert retry_delay_ms(5.0, lowest) == MIN_RETRY_MS
    assert retry_delay_ms(0.0, highest) == MIN_RETRY_MS
    assert retry_delay_ms(5.0, lambda: 0.05) == MIN_RETRY_MS
    assert retry_delay_ms(5.0, lambda: 0.051) == MIN_RETRY_MS + 1


@given(window=st.floats(0.0, 600.0), seed=st.integers(0, 2**32))
def test_a_retry_delay_stays_between_its_bounds(window: float, seed: int) -> None:
    """From 50 ms to a fifth of the window (or 50 ms where that is less), in whole milliseconds."""
    delay = retry_delay_ms(window, random.Random(seed).random)
    assert MIN_RETRY_MS <= delay <= max(MIN_RETRY_MS, round(window * 200))
