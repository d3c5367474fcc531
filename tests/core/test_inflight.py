"""The tracker counts what is in flight, and the histogram knows how long requests take."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.inflight import (
    BATCH,
    BOUNDS,
    SAMPLE,
    Exchange,
    Hold,
    Kind,
    LatencyHistogram,
    Tracker,
)


def exchange(kind: Kind = "http") -> Exchange:
    made = Exchange()
    made.kind = kind
    return made


def test_an_exchange_is_in_flight_from_begin_to_end() -> None:
    """It counts between the two, and its beginning is remembered."""
    tracker, one = Tracker(), exchange()
    tracker.begin(one, 10.0)
    assert len(tracker) == 1
    assert one.began == 10.0
    tracker.end(one, 10.5)
    assert len(tracker) == 0
    assert tracker.served == 1
    assert tracker.latency.total == 1


def test_a_second_end_changes_nothing() -> None:
    """An exchange that has ended is counted once, however often its shell says so."""
    tracker, one = Tracker(), exchange()
    ends: list[int] = []
    tracker.on_end = lambda: ends.append(len(tracker))
    tracker.begin(one, 0.0)
    tracker.end(one, 1.0)
    tracker.end(one, 2.0)
    assert (len(tracker), tracker.served, tracker.latency.total) == (0, 1, 1)
    assert ends == [0]


def test_an_end_without_a_begin_changes_nothing() -> None:
    """A request that was refused before it was tracked is not counted as served."""
    tracker = Tracker()
    tracker.end(exchange(), 1.0)
    assert (len(tracker), tracker.served) == (0, 0)


@pytest.mark.parametrize("kind", ["websocket", "sse", "stream", "grpc"])
def test_streams_say_nothing_about_latency(kind: Kind) -> None:
    """A stream that ends is neither served nor timed."""
    tracker, one = Tracker(), exchange(kind)
    tracker.begin(one, 0.0)
    tracker.end(one, 3600.0)
    assert (tracker.served, tracker.latency.total) == (0, 0)


def test_a_cut_exchange_is_not_timed() -> None:
    """How long something took that was ended by force says nothing about its latency."""
    tracker, one = Tracker(), exchange()
    tracker.begin(one, 0.0)
    one.cut = True
    tracker.end(one, 21.0)
    assert (len(tracker), tracker.served, tracker.latency.total) == (0, 0, 0)


def test_durations_are_sorted_in_by_the_batch() -> None:
    """Whoever watches the budget is called after each full batch, and no duration is lost."""
    tracker = Tracker()
    batches: list[int] = []
    tracker.on_batch = lambda: batches.append(tracker.latency.total)
    for number in range(1, 2 * BATCH + 2):
        one = exchange()
        tracker.begin(one, 0.0)
        tracker.end(one, 0.5)
        assert tracker.served == number
    assert batches == [BATCH, 2 * BATCH]
    assert tracker.latency.total == tracker.served == 2 * BATCH + 1
    tracker.on_batch = None
    tracker.fold()
    assert tracker.latency.total == tracker.served == 2 * BATCH + 1


def time_while_wanted(tracker: Tracker, most: int) -> int:
    """Serve exchanges until none is timed any more; return how many were."""
    for number in range(most):
        if not tracker.timing:
            return number
        one = exchange()
        one.began = 0.0
        tracker.time(one, 0.5)
    return most


def test_a_process_that_serves_times_a_sample() -> None:
    """A full batch, so that few are known exactly; each one when it serves no more."""
    tracker = Tracker()
    assert (tracker.plain, tracker.timing) == (False, True)
    assert time_while_wanted(tracker, 2 * BATCH) == 2 * BATCH
    tracker.serving(True)
    assert (tracker.plain, tracker.timing) == (True, True)
    assert time_while_wanted(tracker, 2 * BATCH) == BATCH
    tracker.serving(False)
    assert (tracker.plain, tracker.timing) == (False, True)
    assert time_while_wanted(tracker, 2 * BATCH) == 2 * BATCH


def test_a_probe_asks_for_a_sample() -> None:
    """Twice is as good as once, and one that is not full is not cut short."""
    tracker = Tracker()
    tracker.serving(True)
    tracker.probed(1.0)
    assert time_while_wanted(tracker, 2 * BATCH) == BATCH
    tracker.probed(2.0)
    tracker.probed(2.5)
    assert time_while_wanted(tracker, 2 * BATCH) == SAMPLE
    assert not tracker.timing


def test_a_probe_dates_what_nobody_has_dated() -> None:
    """Once, for it is at least as old as that; what the shell knows is better."""
    tracker, dated, undated = Tracker(), exchange(), exchange()
    tracker.begin(dated, 1.0)
    tracker.live[undated] = None
    tracker.probed(5.0)
    tracker.probed(9.0)
    assert (dated.began, dated.seen) == (1.0, None)
    assert (undated.began, undated.seen) == (None, 5.0)


def test_what_nobody_has_dated_is_served_and_not_timed() -> None:
    """How long it took is not known, nor is the day when a probe saw it a beginning."""
    tracker, one, stream = Tracker(), exchange(), exchange("sse")
    one.seen = 9.0
    for undated in (one, stream):
        tracker.live[undated] = None
        tracker.end(undated, 10.0)
    assert (tracker.served, tracker.latency.total, len(tracker)) == (1, 0, 0)


def test_shells_hear_what_turns() -> None:
    """Both what is said of the phase and what is said of the sample."""
    tracker = Tracker()
    told: list[tuple[bool, bool]] = []
    tracker.on_turn.append(lambda: told.append((tracker.plain, tracker.timing)))
    tracker.serving(True)
    time_while_wanted(tracker, BATCH + 1)
    tracker.probed(1.0)
    tracker.serving(False)
    assert told == [(True, True), (True, False), (True, True), (False, True)]


def test_a_sample_that_is_full_as_the_process_serves_no_more() -> None:
    """The driver may turn both in its thread while the last of a sample is counted."""

    class Turning(Tracker):
        """Serves no more as soon as the sample is found full."""

        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            if (name, value) == ("timing", False):
                self.serving(False)
            super().__setattr__(name, value)

    tracker = Turning()
    tracker.serving(True)
    assert time_while_wanted(tracker, 2 * BATCH) == 2 * BATCH
    assert (tracker.plain, tracker.timing) == (False, True)


@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_what_is_known_for_no_request_is_not_timed(seconds: float) -> None:
    """A stream, or what was cut: however short it was, it says nothing about requests."""
    tracker, cut = Tracker(), exchange()
    cut.cut = True
    for one in (exchange("sse"), cut):
        one.began = 10.0
        tracker.time(one, 10.0 + seconds)
    assert tracker.served == 0
    one = exchange()
    one.began = 10.0
    tracker.time(one, 10.0 + seconds)
    assert tracker.served == 1


def test_what_is_refused_leaves_and_is_not_counted() -> None:
    """Who waits for the end of everything hears of it, also the second time."""
    tracker, one, heard = Tracker(), exchange(), list[int]()
    tracker.on_end = lambda: heard.append(len(tracker))
    tracker.begin(one, 1.0)
    tracker.drop(one)
    tracker.drop(one)
    assert (heard, tracker.served) == ([0, 0], 0)


def test_a_look_at_the_histogram_is_no_batch() -> None:
    """A question from inside the callback, or from a report, does not call it again."""
    tracker = Tracker()
    tracker.on_batch = lambda: pytest.fail("nobody has filled a batch")
    tracker.begin(one := exchange(), 0.0)
    tracker.end(one, 0.5)
    assert tracker.latency.total == 1
    assert tracker.served == 1


def test_whoever_waits_hears_of_each_end() -> None:
    """The callback comes after the exchange has left, and not at all while nobody waits."""
    tracker, first, second = Tracker(), exchange(), exchange("sse")
    seen: list[int] = []
    for each in (first, second):
        tracker.begin(each, 0.0)
    tracker.on_end = lambda: seen.append(len(tracker))
    tracker.end(first, 1.0)
    tracker.on_end = None
    tracker.end(second, 1.0)
    assert seen == [1]


def test_streams_are_listed_oldest_first() -> None:
    """By the kind that each exchange has at that moment."""
    tracker = Tracker()
    made = [exchange(kind) for kind in ("http", "sse", "http", "websocket")]
    for at, each in enumerate(made):
        tracker.begin(each, float(at))
    assert tracker.streams() == [made[1], made[3]]
    made[0].kind = "stream"
    assert tracker.streams() == [made[0], made[1], made[3]]


def test_a_hold_keeps_the_process_until_it_is_released() -> None:
    """Holds count as in flight, and their release wakes whoever waits; twice is harmless."""
    tracker, hold = Tracker(), Hold("export", 5.0)
    woken: list[int] = []
    tracker.hold(hold)
    assert len(tracker) == 1
    assert tracker.streams() == []
    tracker.on_end = lambda: woken.append(len(tracker))
    tracker.release(hold)
    tracker.release(hold)
    assert len(tracker) == 0
    assert woken[0] == 0
    tracker.on_end = None
    tracker.hold(hold)
    tracker.release(hold)
    assert len(tracker) == 0


def test_two_holds_of_one_name_are_two() -> None:
    """A name is for the report; each hold has to be released."""
    tracker, first, second = Tracker(), Hold("export", 0.0), Hold("export", 0.0)
    tracker.hold(first)
    tracker.hold(second)
    tracker.release(first)
    assert list(tracker.holds) == [second]


def test_an_exchange_without_a_shell_has_harmless_defaults() -> None:
    """The base class can be named, told and cut; shells override what they can do."""
    one = Exchange()
    assert not one.is_stream
    assert (one.kind, one.policy, one.told, one.cut) == ("http", "reconnect", False, False)
    assert one.describe() == {"method": "", "path": "", "client": ""}
    assert one.stack() == ""
    failures: list[Exception] = []
    one.start_farewell(lambda _, error: failures.append(error))
    one.start_cut(lambda _, error: failures.append(error))
    one.end_app()
    one.watch()
    assert failures == []


def test_an_ordinary_exchange_needs_no_dictionary() -> None:
    """Slots of the shells, and defaults on the class: that is what keeps the hot path cheap."""
    tracker, one = Tracker(), Exchange()
    tracker.live[one] = None
    del tracker.live[one]
    tracker.ended(one, 2.0)
    assert (one.began, vars(one)) == (None, {})


# -- the histogram -----------------------------------------------------------------------


def filled(durations: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.observe(duration)
    return histogram


def bucket_of(duration: float) -> int:
    return filled([duration]).counts.index(1)


def test_an_empty_histogram_knows_nothing() -> None:
    """No quantile of no durations."""
    assert LatencyHistogram().quantile(0.5) is None
    assert LatencyHistogram().total == 0


def test_buckets_are_a_factor_of_root_two_apart() -> None:
    """The bounds run from 1 ms upwards, two of them to each doubling."""
    assert BOUNDS[0] == 0.001
    assert BOUNDS[2] == 0.002
    assert BOUNDS[20] == 1.024
    assert 17 * 60 < BOUNDS[-1] < 18 * 60
    for low, high in pairwise(BOUNDS):
        assert high / low == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("seconds", "index"),
    [
        (0.0, 0),
        (0.001, 0),
        (0.0011, 1),
        (0.002, 2),
        (1.0, 20),
        (1.024, 20),
        (1048.0, 40),
        (1e9, 40),
    ],
)
def test_a_duration_falls_below_the_bound_of_its_bucket(seconds: float, index: int) -> None:
    """Nothing is lost at either end: less than a millisecond is first, hours are last."""
    assert bucket_of(seconds) == index


@given(st.floats(0.0, 1000.0))
def test_a_bucket_holds_what_lies_between_its_bounds(seconds: float) -> None:
    """The bound below is not above the duration, and the bound above is not below it."""
    index = bucket_of(seconds)
    assert seconds <= BOUNDS[index]
    assert index == 0 or seconds > BOUNDS[index - 1]


def test_many_durations_are_counted_as_each_of_them_would_be() -> None:
    """Sorting a batch first is only quicker."""
    draw = random.Random(3)
    durations = [draw.expovariate(0.01) for _ in range(500)]
    together = LatencyHistogram()
    together.observe_all(durations)
    assert together.counts == filled(durations).counts
    assert durations != sorted(durations), "the caller's list is left alone"
    together.observe_all([])
    assert together.total == 500


@pytest.mark.parametrize(
    ("q", "expected"), [(0.0, 0.001), (0.5, 0.001 + 0.5 * (math.sqrt(2e-6) - 0.001))]
)
def test_a_quantile_is_linear_inside_its_bucket(q: float, expected: float) -> None:
    """Four durations in one bucket: half of the rank is half of the way between its bounds."""
    assert filled([0.0012] * 4).quantile(q) == pytest.approx(expected)


def test_the_last_quantile_is_the_upper_bound() -> None:
    """All durations stayed below the bound of the highest bucket in use."""
    assert filled([0.0002, 0.0012]).quantile(1.0) == pytest.approx(math.sqrt(2e-6))


def test_quantiles_pass_over_empty_buckets() -> None:
    """99 quick requests and one slow: the median is quick, the last hundredth is slow."""
    histogram = filled([0.010] * 99 + [8.0])
    median, last = histogram.quantile(0.5), histogram.quantile(1.0)
    assert median is not None
    assert last is not None
    assert 0.008 <= median <= 0.0115
    assert 8.0 <= last <= 11.6


@given(
    durations=st.lists(st.floats(0.001, 1000.0, exclude_min=True), min_size=1, max_size=300),
    q=st.floats(0.0, 1.0),
)
def test_a_quantile_is_within_a_bucket_of_the_sorted_data(durations: list[float], q: float) -> None:
    """Above 1 ms the estimate is off from the sorted durations by no more than a factor of √2."""
    estimate = filled(durations).quantile(q)
    rank = max(1, math.ceil(q * len(durations)))
    exact = sorted(durations)[rank - 1]
    assert estimate is not None
    assert exact / math.sqrt(2) * (1 - 1e-9) <= estimate <= exact * math.sqrt(2) * (1 + 1e-9)


def test_quantiles_grow_with_their_share() -> None:
    """A larger share of exchanges never needed less time."""
    draw = random.Random(7)
    histogram = filled([draw.expovariate(5) for _ in range(1000)])
    values = [histogram.quantile(step / 100) or 0.0 for step in range(101)]
    assert values == sorted(values)


def test_a_handler_sets_the_policy_of_its_stream() -> None:
    """By either name; what else a declaration means is the shell's."""
    finishes, moves = Exchange(), Exchange()
    finishes.finish()
    moves.finish()
    moves.declare_stream()
    assert (finishes.policy, moves.policy) == ("finish", "reconnect")
