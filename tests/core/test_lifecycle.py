"""One life, driven by hand: every decision that shells and driver ask the core for."""

from __future__ import annotations

import math

import pytest

from graceful.core.budget import Settings, Timeline
from graceful.core.inflight import Exchange, Hold, Kind, Policy
from graceful.core.lifecycle import FEW, RECENT, Cause, LifecycleCore, Refusal
from graceful.core.phases import IllegalTransition, Phase
from graceful.core.records import PhaseChanged, Rung, Straggler

T = 100.0
"""When the signal comes. With the defaults: delay to 105, drain to 126, clean-up to 129."""


class Half:
    """A draw that can be set; it begins in the middle."""

    value = 0.5

    def __call__(self) -> float:
        return self.value


class Named(Exchange):
    """An exchange that can be named, as those of the shells."""

    def __init__(
        self, kind: Kind = "http", path: str = "/", *, policy: Policy = "reconnect"
    ) -> None:
        self.kind = kind
        self.policy = policy
        self.path = path
        self.began = T

    def describe(self) -> dict[str, str]:
        return {"method": "GET", "path": self.path, "client": "10.0.0.1:5000"}

    def stack(self) -> str:
        return "File app.py, line 1"


def starting(settings: Settings | None = None) -> LifecycleCore:
    return LifecycleCore(settings or Settings(), Half())


def serving(settings: Settings | None = None) -> LifecycleCore:
    core = starting(settings)
    core.started(0.0)
    return core


def stopping(settings: Settings | None = None) -> LifecycleCore:
    """A core that has been serving and got SIGTERM at `T`."""
    core = serving(settings)
    core.climb("SIGTERM", T)
    return core


def draining(settings: Settings | None = None) -> LifecycleCore:
    core = stopping(settings)
    core.delay_over(T + core.settings.propagation_delay)
    return core


def deadlines(core: LifecycleCore) -> Timeline:
    assert core.timeline is not None
    return core.timeline


def climbed(answer: tuple[Rung, PhaseChanged | None] | None) -> Rung:
    assert answer is not None
    return answer[0]


def begin(core: LifecycleCore, at: float, kind: Kind = "http") -> Exchange:
    """A request comes, as a shell would report it: tracked, then asked about."""
    exchange = Named(kind)
    core.tracker.begin(exchange, at)
    core.late_request(exchange, at)
    return exchange


# -- a whole life --------------------------------------------------------------------------


def test_the_whole_choreography() -> None:
    """SIGTERM, delay served, drained, closed: each phase in order, with its reason and limit."""
    core = starting()
    changes = [core.started(0.0)]
    changes.append((core.climb("SIGTERM", T) or (None, None))[1])
    changes.append(core.delay_over(105.0))
    changes.append(core.drained(107.5))
    changes.append(core.closed(108.0))
    assert changes == [
        PhaseChanged(Phase.STARTING, Phase.SERVING, "start-up complete", 0.0, 0, 0, None),
        PhaseChanged(Phase.SERVING, Phase.LAME_DUCK, "SIGTERM", 0.0, 0, 0, 5.0),
        PhaseChanged(Phase.LAME_DUCK, Phase.DRAINING, "propagation delay served", 5.0, 0, 0, 21.0),
        PhaseChanged(
            Phase.DRAINING, Phase.CLOSING, "everything in flight has finished", 7.5, 0, 0, 21.5
        ),
        PhaseChanged(Phase.CLOSING, Phase.STOPPED, "clean-up done", 8.0, 0, 0, None),
    ]


def test_a_fresh_core_has_no_end() -> None:
    """Before anybody asks for the end there is no cause, no rung and no deadline."""
    core = starting()
    assert (core.phase, core.cause, core.rung, core.timeline) == (Phase.STARTING, None, 0, None)
    assert core.remaining(1e9) == math.inf
    assert not core.dirty


def test_phase_changes_count_work_and_streams_apart() -> None:
    """Holds and ordinary exchanges are work in flight; streams are counted by themselves."""
    core = serving()
    begin(core, 1.0)
    begin(core, 1.0, "sse")
    begin(core, 1.0, "websocket")
    core.tracker.hold(Hold("export", 1.0))
    change = core.climb("SIGTERM", T)
    assert change is not None
    assert change[1] is not None
    assert (change[1].in_flight, change[1].streams) == (2, 2)


def test_a_phase_that_is_entered_late_has_no_time_left() -> None:
    """A drain that begins after its own deadline lasts up to 0 s, not a negative time."""
    change = stopping().delay_over(130.0)
    assert change is not None
    assert change.lasts_up_to == 0.0


def test_start_up_that_ends_twice_changes_nothing() -> None:
    """A second app of the process is ready as well; a signal may also have overtaken it."""
    core = serving()
    assert core.started(1.0) is None
    assert stopping().started(101.0) is None
    core = starting()
    core.climb("SIGTERM", T)
    assert core.started(101.0) is None
    assert core.phase is Phase.CLOSING


def test_late_reports_of_the_driver_change_nothing() -> None:
    """A signal may overtake the driver between its look at the phase and its report."""
    core = draining()
    assert core.delay_over(106.0) is None
    core.drained(107.0)
    assert core.drained(107.0) is None
    assert core.delay_over(107.0) is None
    core.closed(108.0)
    assert core.closed(108.0) is None
    assert core.drained(108.0) is None
    assert core.phase is Phase.STOPPED


def test_a_start_up_that_failed_ends_the_life() -> None:
    """STARTING goes straight to STOPPED, and the drain report is empty and clean."""
    core = starting()
    change = core.closed(1.0)
    assert change is not None
    assert change.new is Phase.STOPPED
    assert core.report(1.0).clean


# -- the ladder ----------------------------------------------------------------------------


def test_the_first_rung_begins_the_choreography() -> None:
    """Lame duck at once, deadlines from this moment, a cause that came by signal."""
    core = serving()
    rung = climbed(core.climb("SIGTERM", T))
    assert rung == Rung(
        1,
        "SIGTERM",
        "unready now; serving until the propagation delay is over, then drain",
        0.0,
    )
    assert core.phase is Phase.LAME_DUCK
    assert core.cause == Cause("SIGTERM", signal=True)
    assert core.timeline == Timeline.start(core.settings, T)


def test_the_second_rung_skips_the_rest_of_the_delay() -> None:
    """Draining from here on; the drain keeps its deadline, so it gains what was skipped."""
    core = stopping()
    answer = core.climb("SIGTERM", 102.0)
    rung = climbed(answer)
    assert (rung.rung, rung.after) == (2, 2.0)
    assert rung.effect == "the rest of the propagation delay is skipped; draining"
    assert core.phase is Phase.DRAINING
    assert (deadlines(core).delay_ends, deadlines(core).drain_deadline) == (102.0, 126.0)


def test_the_third_rung_cuts() -> None:
    """No time is left for work; clean-up keeps its three seconds; the end stays."""
    core = stopping()
    core.climb("SIGTERM", 102.0)
    rung = climbed(core.climb("SIGINT", 103.0))
    assert (rung.rung, rung.cause) == (3, "SIGINT")
    assert rung.effect == "what is in flight is cut now"
    assert core.remaining(103.0) == 0.0
    assert deadlines(core).cleanup_deadline == 106.0
    assert deadlines(core).exits_at == 129.0
    assert core.phase is Phase.DRAINING


def test_the_fourth_signal_changes_nothing() -> None:
    """There is no rung above the third, and none below the one that was reached."""
    core = stopping()
    core.climb("SIGTERM", 102.0)
    core.climb("SIGTERM", 103.0)
    before = core.timeline
    assert core.climb("SIGTERM", 104.0) is None
    assert core.climb("SIGINT", 105.0, hurry=True) is None
    assert core.climb_to(1, Cause("code"), 106.0) is None
    assert core.climb_to(7, Cause("code"), 106.0) is None
    assert (core.rung, core.timeline) == (3, before)


def test_ctrl_c_begins_at_the_second_rung() -> None:
    """Nobody waits for the balancer of a laptop; the next Ctrl-C cuts."""
    core = serving()
    assert climbed(core.climb("SIGINT", T, hurry=True)).rung == 2
    assert core.phase is Phase.DRAINING
    assert (deadlines(core).delay_ends, deadlines(core).drain_deadline) == (100.0, 126.0)
    assert climbed(core.climb("SIGINT", 100.1, hurry=True)).rung == 3


def test_a_repeated_signal_under_a_managing_parent_is_the_same_rung() -> None:
    """systemd signals parent and worker, and the parent signals the worker again."""
    core = serving()
    core.climb("SIGTERM", T, managed=True)
    assert core.climb("SIGTERM", 100.999, managed=True) is None
    assert core.rung == 1
    assert climbed(core.climb("SIGTERM", 101.0, managed=True)).rung == 2


def test_repetitions_do_not_put_off_the_next_rung() -> None:
    """The second that makes a signal the same counts from the one that climbed."""
    core = serving()
    core.climb("SIGTERM", T, managed=True)
    core.climb("SIGTERM", 100.6, managed=True)
    assert climbed(core.climb("SIGTERM", 101.2, managed=True)).rung == 2
    assert core.climb("SIGTERM", 102.1, managed=True) is None


def test_ctrl_c_is_no_repetition_of_a_parents_sigterm() -> None:
    """A person at the terminal is in a hurry, also when the parent's signal came first."""
    core = serving()
    core.climb("SIGTERM", T, managed=True)
    assert climbed(core.climb("SIGINT", 100.1, managed=True, hurry=True)).rung == 2
    assert core.climb("SIGINT", 100.2, managed=True, hurry=True) is None


def test_without_a_parent_each_signal_counts() -> None:
    """A person who signals twice within a second means it."""
    core = serving()
    core.climb("SIGTERM", T)
    assert climbed(core.climb("SIGTERM", T)).rung == 2


def test_code_climbs_without_becoming_a_signal() -> None:
    """`lifecycle.terminate()` is the same ladder, but the process may not be ended by force."""
    core = serving()
    assert climbed(core.climb_to(1, Cause("terminate()"), T)).cause == "terminate()"
    assert core.cause == Cause("terminate()", signal=False)
    assert core.climb_to(1, Cause("terminate()"), 101.0) is None
    assert core.climb_to(0, Cause("terminate()"), 101.0) is None


def test_a_signal_after_code_makes_the_stop_one_by_signal() -> None:
    """The first cause keeps its text and the end its time; force is allowed from here on."""
    core = serving()
    core.climb_to(1, Cause("terminate()"), T)
    core.climb("SIGTERM", 103.0)
    assert core.cause == Cause("terminate()", signal=True)
    assert core.rung == 2
    assert deadlines(core).exits_at == 129.0
    core.climb_to(3, Cause("terminate()"), 104.0)
    assert core.cause == Cause("terminate()", signal=True)


def test_a_jump_to_the_third_rung_cuts_at_once() -> None:
    """Code may ask for the cut directly."""
    core = serving()
    assert climbed(core.climb_to(3, Cause("code"), T)).rung == 3
    assert core.phase is Phase.DRAINING
    assert core.remaining(T) == 0.0


def test_a_signal_during_start_up_lets_it_finish() -> None:
    """Nobody was sent here, so there is no delay: closing at once, and the log says what waits."""
    core = starting()
    rung = climbed(core.climb("SIGTERM", T))
    assert rung.effect == "start-up is finished first, then the process stops"
    assert core.phase is Phase.CLOSING
    assert (deadlines(core).delay_ends, deadlines(core).cleanup_deadline) == (100.0, 124.0)
    assert not core.ready
    second = climbed(core.climb("SIGTERM", 101.0))
    assert second.effect == "already closing; what still runs keeps its time limit"


@pytest.mark.parametrize("rungs", [1, 2])
def test_a_rung_with_nothing_left_to_skip_says_so(rungs: int) -> None:
    """The log never claims 'unready now' of a process that has been draining for a while."""
    core = serving()
    core.shutdown("lifespan.shutdown", T)
    for _ in range(rungs):
        effect = climbed(core.climb("SIGTERM", 101.0)).effect
        assert effect == "already draining; the third rung cuts what is in flight"
    assert core.phase is Phase.DRAINING
    assert (core.cause or Cause("")).signal


def test_a_signal_after_the_end_changes_nothing() -> None:
    """A process that has stopped has no ladder any more."""
    core = draining()
    core.drained(106.0)
    core.closed(107.0)
    assert core.climb("SIGTERM", 108.0) is None
    assert core.rung == 1


# -- operators -----------------------------------------------------------------------------


def test_an_operator_takes_the_process_out_and_back() -> None:
    """Unready without an end of its own; `recover` undoes it; both may come again."""
    core = serving()
    for at in (10.0, 20.0):
        change = core.lame_duck(at)
        assert change is not None
        assert (change.reason, change.lasts_up_to) == ("operator", None)
        assert core.lame_duck(at + 1) is None
        assert not core.ready
        assert core.remaining(at + 1) == math.inf
        assert core.recover(at + 2) is not None
        assert core.ready


def test_recover_is_refused_after_a_signal() -> None:
    """Also when an operator had asked for lame duck first: a signal can't be taken back."""
    core = serving()
    core.lame_duck(90.0)
    core.climb("SIGTERM", T)
    with pytest.raises(RuntimeError, match="cannot recover: SIGTERM asked this process to stop"):
        core.recover(101.0)
    assert core.phase is Phase.LAME_DUCK


def test_recover_is_refused_while_serving() -> None:
    """There is nothing to recover from."""
    with pytest.raises(IllegalTransition, match="'recover' cannot happen while serving"):
        serving().recover(1.0)


def test_lame_duck_is_harmless_once_a_stop_has_begun() -> None:
    """An operator who comes late gets what was wished for; before serving it is an error."""
    core = draining()
    assert core.lame_duck(106.0) is None
    with pytest.raises(IllegalTransition):
        starting().lame_duck(1.0)


@pytest.mark.parametrize(
    ("ducked_at", "delay_ends"), [(97.0, 102.0), (95.0, 100.0), (10.0, 100.0), (100.0, 105.0)]
)
def test_lame_duck_that_was_served_counts_towards_the_delay(
    ducked_at: float, delay_ends: float
) -> None:
    """Balancers have been looking since the operator's flip; only the rest is waited for."""
    core = serving()
    core.lame_duck(ducked_at)
    answer = core.climb("SIGTERM", T)
    assert answer is not None
    assert answer[1] is None, "no phase change: it was lame duck already"
    assert deadlines(core).delay_ends == delay_ends
    assert deadlines(core).drain_deadline == delay_ends + 21.0


def test_a_signal_dated_before_the_operators_call_gets_no_longer_delay() -> None:
    """A signal's time is its arrival; the delay never exceeds its setting."""
    core = serving()
    core.lame_duck(T + 2)
    core.climb("SIGTERM", T)
    assert core.timeline == Timeline.start(core.settings, T)


def test_a_signal_dated_before_what_code_has_begun_gives_no_negative_times() -> None:
    """In a log nothing happens before the stop began, and lame duck lasted no less than 0 s."""
    core = serving()
    core.lame_duck(T)
    core.climb_to(1, Cause("terminate()"), T)
    answer = core.climb("SIGINT", T - 0.5, hurry=True)
    assert climbed(answer).after == 0.0
    assert core.phase is Phase.DRAINING
    assert core.report(T).lame_duck_seconds == 0.0


# -- retire and shutdown -------------------------------------------------------------------


def test_a_retiring_worker_stays_ready_to_its_end() -> None:
    """The port goes on being served by siblings: 200 in DRAINING, CLOSING and STOPPED."""
    core = serving()
    change = core.retire("max_requests", T)
    assert change is not None
    assert (change.new, change.reason, change.lasts_up_to) == (Phase.DRAINING, "max_requests", 21.0)
    assert core.ready
    assert core.retiring
    assert deadlines(core).delay_ends == T
    core.drained(101.0)
    assert core.ready
    core.closed(102.0)
    assert core.ready
    assert core.rung == 0


def test_a_worker_that_was_not_ready_does_not_become_so_by_retiring() -> None:
    """Out of an operator's lame duck, or during start-up, readiness stays 503."""
    ducked = serving()
    ducked.lame_duck(90.0)
    ducked.retire("HUP", T)
    assert ducked.phase is Phase.DRAINING
    assert not ducked.ready
    young = starting()
    young.retire("HUP", T)
    assert young.phase is Phase.CLOSING
    assert not young.ready


def test_a_retiring_worker_is_unready_with_its_instance() -> None:
    """The port is not to be served any more, so no probe may say so."""
    core = serving()
    core.retire("HUP", T)
    core.instance_goes()
    assert not core.ready


def test_retire_is_harmless_once_a_stop_has_begun() -> None:
    """The stop goes on as it began; after the end there is nothing to retire."""
    core = stopping()
    assert core.retire("HUP", 101.0) is None
    assert not core.retiring
    ended = starting()
    ended.closed(1.0)
    assert ended.retire("HUP", 2.0) is None
    assert (ended.retiring, ended.cause) == (False, None)


def test_the_flip_of_a_retiring_worker_is_none() -> None:
    """It never flipped, so nothing is said about lame duck or late requests."""
    core = serving()
    core.retire("HUP", T)
    begin(core, 101.0)
    report = core.report(103.0)
    assert (report.lame_duck_seconds, report.last_request_after) == (0.0, None)
    assert report.drain_seconds == 3.0


def test_a_plain_shutdown_drains_without_a_delay() -> None:
    """The listener is gone already; the process is not ours to end by force."""
    core = serving()
    change = core.shutdown("lifespan.shutdown", T)
    assert change is not None
    assert (change.new, change.lasts_up_to) == (Phase.DRAINING, 21.0)
    assert core.cause == Cause("lifespan.shutdown", signal=False)
    assert not core.ready


def test_a_shutdown_out_of_an_operators_lame_duck_drains() -> None:
    """Its timeline begins there."""
    core = serving()
    core.lame_duck(90.0)
    core.shutdown("lifespan.shutdown", T)
    assert core.phase is Phase.DRAINING
    assert deadlines(core).drain_deadline == 121.0


def test_a_shutdown_during_start_up_closes() -> None:
    """Nothing has been served."""
    core = starting()
    core.shutdown("lifespan.shutdown", T)
    assert core.phase is Phase.CLOSING


def test_a_shutdown_within_the_delay_skips_its_rest() -> None:
    """The server's own stop overtakes: cause and end stay those of the signal."""
    core = stopping()
    assert core.shutdown("lifespan.shutdown", 102.0) is not None
    assert core.cause == Cause("SIGTERM", signal=True)
    assert (deadlines(core).delay_ends, deadlines(core).drain_deadline) == (102.0, 126.0)


def test_a_shutdown_during_the_drain_changes_nothing() -> None:
    """`lifespan.shutdown` is how a drain usually ends."""
    core = draining()
    before = core.timeline
    assert core.shutdown("lifespan.shutdown", 110.0) is None
    assert core.timeline is before


# -- what shells ask -----------------------------------------------------------------------


def test_readiness_is_the_phases() -> None:
    """Ready while serving only."""
    core = starting()
    assert not core.ready
    core.started(0.0)
    assert core.ready
    core.climb("SIGTERM", T)
    assert not core.ready


def test_remaining_runs_down_to_zero() -> None:
    """Seconds to the drain deadline, never negative."""
    core = stopping()
    assert core.remaining(T) == 26.0
    assert core.remaining(125.5) == 0.5
    assert core.remaining(126.0) == 0.0
    assert core.remaining(500.0) == 0.0


@pytest.mark.parametrize(
    ("elapsed", "draw", "closes"),
    [
        (0.0, 0.0, False),
        (1.0, 0.19, True),
        (1.0, 0.2, False),
        (2.5, 0.49, True),
        (2.5, 0.5, False),
        (5.0, 0.999, True),
    ],
)
def test_connections_close_with_a_growing_chance(elapsed: float, draw: float, closes: bool) -> None:
    """In lame duck it is drawn for each response: 0 at the flip, certain at its end."""
    half = Half()
    core = LifecycleCore(Settings(), half)
    core.started(0.0)
    core.climb("SIGTERM", T)
    half.value = draw
    assert core.closes_connection(T + elapsed) is closes


def test_connections_close_by_phase() -> None:
    """Never before the flip, always from the drain on."""
    core = starting()
    assert not core.closes_connection(0.0)
    core.started(0.0)
    assert not core.closes_connection(0.0)
    core.shutdown("x", T)
    assert core.closes_connection(T)
    core.drained(T)
    assert core.closes_connection(T)


def test_without_a_delay_every_response_of_lame_duck_closes() -> None:
    """Also one whose time was taken a moment before the flip."""
    core = stopping(Settings(propagation_delay=0.0))
    assert core.closes_connection(T)
    assert core.closes_connection(T - 0.001)


def test_new_streams_are_turned_away_from_the_drain_on() -> None:
    """In lame duck they are still let in."""
    core = stopping()
    assert core.admits_streams
    core.delay_over(105.0)
    assert not core.admits_streams


def test_requests_are_served_until_the_drain() -> None:
    """Lame duck serves everything."""
    assert serving().late_request(Named(), 1.0) is None
    assert stopping().late_request(Named(), 101.0) is None


@pytest.mark.parametrize(("at", "served"), [(105.0, True), (125.99, True), (126.0, False)])
def test_without_measurements_late_requests_are_served_to_the_deadline(
    at: float, served: bool
) -> None:
    """Nothing is known of what requests need, so only the deadline itself is too late."""
    core = draining()
    assert (core.late_request(Named(), at) is None) is served
    assert core.tally.late_refused == (0 if served else 1)


def test_a_late_request_needs_the_median_of_what_requests_needed() -> None:
    """Where half of the requests took up to a second, less than that left means 503 at once."""
    core = draining()
    for duration in (0.01, 0.01, 1.0, 1.0, 1.0):
        core.tracker.latency.observe(duration)
    slow = core.tracker.latency.quantile(0.5)
    assert slow is not None
    assert 0.7 < slow < 1.03
    assert core.late_request(Named(), 126.0 - slow - 0.001) is None
    assert core.late_request(Named(), 126.0 - slow + 0.001) == Refusal(retry_after=1)
    assert core.tally.late_refused == 1


def test_after_the_drain_every_request_is_refused() -> None:
    """CLOSING has time for clean-up only, however much of the drain is left."""
    core = draining()
    core.drained(106.0)
    assert core.late_request(Named(), 106.0) == Refusal()


def test_the_stream_window_never_takes_more_than_four_fifths_of_the_drain() -> None:
    """Told last, a client's stream still has time to end."""
    assert serving().window == 5.0
    assert serving(Settings(drain_timeout=5.0)).window == 4.0


def test_farewells_are_planned_for_streams_that_should_move() -> None:
    """Ordinary work, streams that must finish and those already told are left out."""
    core = draining()
    begin(core, 100.0)
    first, second = begin(core, 100.0, "sse"), begin(core, 100.0, "websocket")
    core.tracker.begin(Named("stream", policy="finish"), 100.0)
    told = begin(core, 100.0, "sse")
    told.told = True
    assert core.farewells() == [(0.0, first), (0.75, second)]
    assert core.farewells() == [(0.0, first), (0.75, second)], "a question changes nothing"


def test_a_cut_leaves_no_time_to_spread_farewells() -> None:
    """On the third rung everybody is told at once."""
    core = draining()
    streams = [begin(core, 100.0, "sse") for _ in range(3)]
    core.climb_to(3, Cause("code"), 106.0)
    assert core.farewells() == [(0.0, stream) for stream in streams]


def test_retry_delays_come_from_the_window_in_force() -> None:
    """At a draw of 1/2 a tenth of it: 5 s, or 2 s where the drain is only 2.5 s."""
    assert serving().retry_delay_ms() == 500
    assert serving(Settings(drain_timeout=2.5)).retry_delay_ms() == 200


def test_a_short_budget_is_said_once_and_only_with_enough_evidence() -> None:
    """A hundred exchanges, of which more than one in a hundred outlast the drain of 1 s."""
    core = serving(Settings(drain_timeout=1.0))
    for _ in range(FEW - 1):
        core.tracker.latency.observe(2.0)
    assert core.budget_is_short() is None
    core.tracker.latency.observe(2.0)
    p99 = core.budget_is_short()
    assert p99 is not None
    assert p99 == core.tracker.latency.quantile(0.99)
    assert core.budget_is_short() is None
    assert core.report(10.0).warnings == (
        f"p99 of requests here is {p99:.1f} s but the drain is 1 s: raise grace_period",
    )


def test_a_budget_that_covers_the_p99_is_not_mentioned() -> None:
    """Neither while serving nor in the report."""
    core = serving()
    for _ in range(FEW):
        core.tracker.latency.observe(0.1)
    assert core.budget_is_short() is None
    assert core.report(10.0).warnings == ()


# -- the end -------------------------------------------------------------------------------


def test_a_straggler_whose_stack_can_not_be_had_is_named_all_the_same() -> None:
    """A look into running code meets whatever is there."""

    class Torn(Named):
        def stack(self) -> str:
            raise ReferenceError("weakly-referenced object no longer exists")

    straggler = draining().straggler(Torn("http", "/"), 106.0, stacks=True)
    assert "ReferenceError" in straggler.stack


def test_stragglers_are_named_with_age_phase_and_stack() -> None:
    """Exchanges and holds; the stack only where it is asked for."""
    core = draining()
    core.tracker.begin(Named("http", "/slow"), 98.0)
    core.tracker.hold(Hold("export", 101.0))
    straggler = Straggler(
        "http", "GET /slow", "10.0.0.1:5000", 28.0, "draining", "File app.py, line 1"
    )
    hold = Straggler("hold", "export", "", 25.0, "draining")
    assert core.stragglers(126.0, stacks=True) == [straggler, hold]
    assert [s.stack for s in core.stragglers(126.0, stacks=False)] == ["", ""]


@pytest.mark.parametrize(("seen", "age"), [(None, 26.0), (90.0, 36.0)])
def test_a_straggler_that_nobody_has_dated(seen: float | None, age: float) -> None:
    """It is as old as what saw it first: a probe, or the end of SERVING."""
    core = serving()
    undated = Named("http", "/slow")
    undated.began, undated.seen = None, seen
    core.tracker.live[undated] = None
    core.lame_duck(T)
    core.climb("SIGTERM", 110.0)
    core.delay_over(115.0)
    straggler = core.straggler(undated, 126.0, stacks=False)
    assert (straggler.age, straggler.older) == (age, True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a\nFORGED", r"GET /a\nFORGED"),
        ("/\x1b[31m", r"GET /\x1b[31m"),
        ("/a\u2028b", r"GET /a\u2028b"),
        ("/\udc80", r"GET /\udc80"),
        ("/grüße", "GET /grüße"),
    ],
)
def test_a_name_cannot_forge_a_log_line(path: str, name: str) -> None:
    """What is not printable is escaped; what a person can read is left alone."""
    core = draining()
    assert core.straggler(Named("http", path), 106.0, stacks=False).name == name


def test_an_unnamed_exchange_has_an_empty_name() -> None:
    """The base class knows neither method nor path; no stray blank is left."""
    exchange = Exchange()
    exchange.began = T
    assert draining().straggler(exchange, 106.0, stacks=False).name == ""


def test_the_report_of_a_clean_stop() -> None:
    """Every number of a stop in which one request was in flight and one stream moved."""
    core = serving()
    before, request = begin(core, 98.0), begin(core, 99.0)
    core.tracker.end(before, 99.5)
    stream = begin(core, 99.0, "sse")
    core.climb("SIGTERM", T)
    late = begin(core, 101.0)
    core.tracker.end(late, 101.5)
    core.delay_over(105.0)
    core.tally.told += 1
    core.tracker.end(stream, 106.0)
    core.tracker.end(request, 107.0)
    core.drained(107.0)
    report = core.report(108.0)
    assert (report.cause, report.clean, report.outcome) == ("SIGTERM", True, "finished")
    assert (report.seconds, report.grace_period, report.propagation_delay) == (8.0, 30.0, 5.0)
    assert (report.lame_duck_seconds, report.drain_seconds) == (5.0, 3.0)
    assert (report.in_flight_at_signal, report.streams_at_drain) == (2, 1)
    assert (report.served, report.told, report.late_refused) == (2, 1, 0)
    assert (report.last_request_after, report.delay_too_short) == (1.0, False)
    assert (report.cut, report.holds, report.warnings) == ((), (), ())
    assert (report.p50, report.p99) == (
        core.tracker.latency.quantile(0.5),
        core.tracker.latency.quantile(0.99),
    )


def test_the_report_of_a_cut_names_what_was_cut() -> None:
    """Something cut, or a hold that was not released, makes it unclean; so does the watchdog."""
    core = draining()
    straggler = core.straggler(begin(core, 99.0), 126.0, stacks=False)
    core.tally.cut.append(straggler)
    core.tally.holds.append("export")
    core.tally.warnings.append("told")
    change = core.drained(126.0)
    assert change is not None
    assert change.reason == "what was left has been cut"
    report = core.report(127.0)
    assert (report.clean, report.exit_status) == (False, 70)
    assert (report.cut, report.holds, report.warnings) == ((straggler,), ("export",), ("told",))
    assert core.report(127.0, by_watchdog=True).outcome == "left_by_watchdog"


def test_a_report_before_anything_happened_is_empty() -> None:
    """The watchdog may ask in any state."""
    report = starting().report(50.0)
    assert (report.cause, report.seconds, report.drain_seconds) == ("", 0.0, 0.0)
    assert (report.served, report.last_request_after, report.p50) == (0, None, None)


def test_a_report_within_lame_duck_counts_it_so_far() -> None:
    """Its end is not known yet."""
    assert stopping().report(103.0).lame_duck_seconds == 3.0


def test_a_life_whose_clock_begins_at_zero_is_reported_in_full() -> None:
    """Zero is a time like any other."""
    core = serving()
    core.climb("SIGTERM", 0.0)
    begin(core, 1.5)
    core.delay_over(5.0)
    report = core.report(6.0)
    assert (report.last_request_after, report.lame_duck_seconds) == (1.5, 5.0)
    cut = serving()
    cut.climb("SIGINT", 0.0, hurry=True)
    assert cut.report(6.0).lame_duck_seconds == 0.0


# -- was the delay long enough? ------------------------------------------------------------


@pytest.mark.parametrize(("after", "too_short"), [(3.999, False), (4.0, True), (6.0, True)])
def test_requests_in_the_last_fifth_say_that_the_delay_is_too_short(
    after: float, too_short: bool
) -> None:
    """The balancer had not moved by then; the warning has both numbers."""
    core = stopping()
    begin(core, T + 0.5)
    begin(core, T + after)
    core.delay_over(105.0)
    report = core.report(107.0)
    assert report.delay_too_short is too_short
    assert report.last_request_after == pytest.approx(after)
    expected = (
        f"last request {after:.1f} s after readiness flipped; propagation_delay is 5 s: "
        "the balancer had not moved, raise it"
    )
    assert report.warnings == ((expected,) if too_short else ())


def test_requests_before_the_flip_do_not_count() -> None:
    """Only what came to an unready process says anything."""
    core = serving()
    begin(core, 99.0)
    core.climb("SIGTERM", T)
    assert core.report(107.0).last_request_after is None


def test_a_refused_request_counts_as_an_arrival() -> None:
    """It came, whether its shell tracked it or not."""
    core = draining()
    core.drained(105.5)
    assert core.late_request(Named(), 106.0) is not None
    assert core.report(107.0).last_request_after == 6.0


def test_a_skipped_delay_says_nothing_about_the_balancer() -> None:
    """Hurried, retired, without a delay or without a signal: no verdict."""
    hurried = stopping()
    begin(hurried, 104.5)
    hurried.climb("SIGTERM", 104.6)
    assert not hurried.report(107.0).delay_too_short
    without = stopping(Settings(propagation_delay=0.0))
    begin(without, 100.5)
    assert not without.report(107.0).delay_too_short
    plain = serving()
    plain.shutdown("lifespan.shutdown", T)
    begin(plain, 104.5)
    assert not plain.report(107.0).delay_too_short


def test_streams_say_nothing_about_the_balancer() -> None:
    """Clients redial where they were: a WebSocket, or an SSE known as such later, is no arrival."""
    core = stopping()
    begin(core, 101.0)
    begin(core, 104.2, "websocket")
    late = begin(core, 104.5)
    late.kind = "sse"
    assert core.report(107.0).last_request_after == 1.0


def test_streams_that_declare_themselves_late_do_not_hide_each_other() -> None:
    """Two SSE requests come before either is known for one; the last ordinary one is found."""
    core = stopping()
    begin(core, 101.0)
    first, second = begin(core, 104.5), begin(core, 104.6)
    for stream in (first, second):
        stream.kind = "sse"
    report = core.report(107.0)
    assert (report.last_request_after, report.delay_too_short) == (1.0, False)


def test_only_recent_arrivals_are_remembered() -> None:
    """Hours of lame duck under load keep a bounded number of exchanges, the newest ones."""
    core = serving()
    core.lame_duck(10.0)
    for second in range(RECENT + 50):
        begin(core, 10.0 + second)
    assert core.report(1000.0).last_request_after == RECENT + 49.0
    assert len(core._arrivals) == RECENT


def test_known_streams_push_no_ordinary_arrival_out() -> None:
    """A herd of WebSockets that redial leaves the last ordinary request to be found."""
    core = stopping()
    begin(core, 101.0)
    for _ in range(RECENT):
        begin(core, 102.0, "websocket")
    assert core.report(107.0).last_request_after == 1.0


def test_a_recovered_process_forgets_its_arrivals() -> None:
    """The next flip is judged by what comes after it."""
    core = serving()
    core.lame_duck(10.0)
    begin(core, 14.0)
    core.recover(20.0)
    core.climb("SIGTERM", T)
    assert core.report(107.0).last_request_after is None


def test_an_arrival_dated_before_the_flip_counts_from_it() -> None:
    """Clocks of threads overlap by a moment; the report has no negative times."""
    core = stopping()
    core.late_request(Named(), T - 0.001)
    assert core.report(107.0).last_request_after == 0.0


def test_an_app_that_has_not_noticed_its_end_oversleeps() -> None:
    """A second after its farewell, once; one that winds up or has ended is left alone."""
    core = stopping()
    asleep, busy, over = (begin(core, 101.0, "websocket") for _ in range(3))
    for exchange in (asleep, busy, over):
        core.told(exchange, 105.5)
    busy.unwinding = True
    core.tracker.end(over, 105.6)
    assert core.next_oversleep() == 106.5
    assert core.oversleepers(106.4) == []
    assert core.oversleepers(106.5) == [asleep]
    assert core.oversleepers(999.0) == []
    assert core.next_oversleep() == math.inf
    assert (core.tally.told, asleep.told) == (3, True)


def test_a_farewell_wakes_who_waits() -> None:
    """The driver looks again when there is something new to wait for."""
    core = stopping()
    woken: list[str] = []
    core.tracker.on_end = lambda: woken.append("woken")
    core.told(begin(core, 101.0, "sse"), 105.5)
    assert woken == ["woken"]


def test_a_late_stream_is_turned_away_unless_it_may_finish() -> None:
    """Told ones and those that can't be resumed are left alone."""
    core = stopping()
    stream, token_stream, told = (begin(core, 101.0, "sse") for _ in range(3))
    token_stream.policy = "finish"
    core.told(told, 105.5)
    assert not core.turns_away(stream)
    core.delay_over(105.0)
    assert [core.turns_away(e) for e in (stream, token_stream, told)] == [True, False, False]


def test_a_worker_may_retire_without_a_signal() -> None:
    """At its maximum of requests nobody sent one, so nobody may end it by force."""
    core = serving()
    core.retire("limit_max_requests", 100.0, signal=False)
    assert core.cause is not None
    assert (core.ready, core.cause.signal) == (True, False)


def test_shells_may_go_the_short_way_while_the_process_serves() -> None:
    """And at no other time: the tracker knows with each change of the phase."""
    core = starting()
    assert not core.tracker.plain
    core.started(0.0)
    assert core.tracker.plain
    core.lame_duck(1.0)
    assert not core.tracker.plain
    core.recover(2.0)
    assert core.tracker.plain
    core.climb("SIGTERM", T)
    assert not core.tracker.plain
    core.delay_over(T + core.settings.propagation_delay)
    core.drained(T + 10)
    assert not core.tracker.plain
