"""Random lives: whatever happens in whatever order, the promises of the core hold.

Hypothesis plays platform, operator, clients, driver and clock against one `LifecycleCore`, and
after each step every invariant is checked against a model that is kept beside it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from graceful.core.budget import Settings, Timeline, check
from graceful.core.inflight import Exchange, Hold, Kind, Policy
from graceful.core.lifecycle import Cause, LifecycleCore
from graceful.core.phases import TRAITS, IllegalTransition, Phase
from graceful.core.records import PhaseChanged, Rung

ORDER = list(Phase)
CLOSE = 1e-6
"""Seconds that floating point may be off by."""

MOSTLY = st.sampled_from([True] * 7 + [False])
RARELY = st.sampled_from([False] * 3 + [True])

BUDGETS = [
    Settings(),
    Settings(propagation_delay=0.0),
    Settings(pre_stop=7.0, stream_window=1.0),
    Settings(grace_period=90.0, propagation_delay=20.0, drain_timeout=10.0),
    Settings(grace_period=0.6, propagation_delay=0.1, cleanup_timeout=0.1, exit_margin=0.1),
]


def place(phase: Phase) -> int:
    return ORDER.index(phase)


class Life(RuleBasedStateMachine):
    """One process, from its start to its end and into its next life."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.begin_life(Settings(), 0, starts=False)

    @initialize(
        settings=st.sampled_from(BUDGETS),
        seed=st.integers(0, 1000),
        starts=MOSTLY,
        now=st.floats(0.0, 1e5),
    )
    def first_life(self, settings: Settings, seed: int, starts: bool, now: float) -> None:
        assert check(settings) == []
        self.now = now
        self.begin_life(settings, seed, starts)

    def begin_life(self, settings: Settings, seed: int, starts: bool) -> None:
        self.core = LifecycleCore(settings, random.Random(seed).random)
        self.live: list[Exchange] = []
        self.over: list[Exchange] = []
        self.holds: list[Hold] = []
        self.phase = Phase.STARTING  # as it was after the last step
        self.timeline: Timeline | None = None
        self.rung = 0
        self.signalled = False
        self.stays_ready = False
        self.ducked_at = 0.0
        self.served: int | None = None  # ordinary exchanges that have ended since the cause
        self.refused = 0
        self.ducked = False  # an operator's lame duck holds, nobody has asked for the end
        if starts:  # otherwise whatever comes first meets a process that is still starting
            self.saw(self.core.started(self.now))
            self.phase = Phase.SERVING

    # -- the model's view of an answer --------------------------------------------------------

    def saw(self, change: PhaseChanged | None) -> None:
        """A change is reported exactly when the phase has changed."""
        if change is None:
            assert self.core.phase is self.phase
            return
        assert (change.old, change.new) == (self.phase, self.core.phase)
        assert change.old is not change.new
        assert change.after >= 0
        assert change.lasts_up_to is None or change.lasts_up_to >= 0
        assert change.in_flight is not None
        assert change.streams is not None
        assert change.in_flight + change.streams == len(self.core.tracker)

    def saw_climb(self, answer: tuple[Rung, PhaseChanged | None] | None, cause: str) -> None:
        if answer is None:
            assert self.core.rung == self.rung
            self.saw(None)
            return
        rung, change = answer
        assert rung.rung == self.core.rung > self.rung
        assert rung.cause == cause
        assert rung.after >= 0
        self.saw(change)

    def asked_to_end(self) -> None:
        """From here on served requests belong to the stop."""
        if self.served is None and self.core.cause is not None:
            self.served = 0

    # -- time and clients ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0, 4.0, 25.0]) | st.floats(0.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        kind=st.sampled_from(["http", "http", "websocket", "sse"]),
        policy=st.sampled_from(["reconnect", "finish"]),
    )
    def a_request_comes(self, kind: Kind, policy: Policy) -> None:
        exchange = Exchange()
        exchange.kind, exchange.policy = kind, policy
        self.core.tracker.begin(exchange, self.now)
        refusal = self.core.late_request(exchange, self.now)
        if not TRAITS[self.phase].stopping:
            assert refusal is None
        elif self.phase is not Phase.DRAINING or self.core.remaining(self.now) == 0:
            assert refusal is not None
        if refusal is None:
            self.live.append(exchange)
            return
        assert refusal.retry_after >= 1
        self.refused += 1
        exchange.kind = "sse"  # a refusal is nothing that was served
        self.core.tracker.end(exchange, self.now)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def an_exchange_ends(self, data: st.DataObject) -> None:
        exchange = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.core.tracker.end(exchange, self.now)
        assert exchange not in self.core.tracker.live
        self.over.append(exchange)
        if self.served is not None and exchange.timed:
            self.served += 1

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def an_exchange_ends_again(self, data: st.DataObject) -> None:
        self.core.tracker.end(data.draw(st.sampled_from(self.over)), self.now)

    @precondition(lambda self: any(e.kind == "http" for e in self.live))
    @rule(data=st.data())
    def an_exchange_becomes_a_stream(self, data: st.DataObject) -> None:
        ordinary = [e for e in self.live if e.kind == "http"]
        exchange = data.draw(st.sampled_from(ordinary))
        exchange.kind = "sse"

    @rule()
    def background_work_begins(self) -> None:
        hold = Hold("work", self.now)
        self.core.tracker.hold(hold)
        self.holds.append(hold)

    @precondition(lambda self: self.holds)
    @rule()
    def background_work_ends(self) -> None:
        self.core.tracker.release(self.holds.pop())

    # -- the platform, code and operators --------------------------------------------------------

    @rule(managed=st.booleans(), hurry=RARELY, earlier=st.sampled_from([0.0, 0.0, 0.2]))
    def a_signal_comes(self, managed: bool, hurry: bool, earlier: float) -> None:
        # Signals are dated back to their arrival; one of a blocked process may be a while ago.
        at = max(0.0, self.now - earlier)
        answer = self.core.climb("SIGTERM", at, managed=managed, hurry=hurry)
        self.saw_climb(answer, "SIGTERM")
        if answer:
            self.signalled = True
            assert not hurry or self.core.rung >= 2
            assert self.core.rung == 1 or self.core.remaining(at) == 0 or self.delay_left(at) == 0
        elif not managed and self.phase is not Phase.STOPPED:
            assert self.core.rung == 3
        self.asked_to_end()

    @rule(
        how=st.sampled_from(["code", "code", "retire", "shutdown", "shutdown"]),
        rung=st.sampled_from([1, 1, 1, 0, 2, 3, 4]),
    )
    def something_else_asks_for_the_end(self, how: str, rung: int) -> None:
        if how == "code":
            self.code_climbs(rung)
        elif how == "retire":
            self.the_worker_is_retired()
        else:
            self.the_server_stops_by_itself()

    def code_climbs(self, rung: int) -> None:
        first = self.core.timeline is None
        starting, ducked, served = self.phase is Phase.STARTING, self.ducked, self.ducked_for()
        answer = self.core.climb_to(rung, Cause("code"), self.now)
        if answer and first and rung == 1:
            delay = self.core.settings.propagation_delay
            expected = 0.0 if starting else max(0.0, delay - served) if ducked else delay
            assert self.delay_left(self.now) == pytest.approx(expected, abs=CLOSE)
        self.saw_climb(answer, "code")
        self.asked_to_end()

    @precondition(lambda self: self.phase not in (Phase.STARTING, Phase.STOPPED))
    @rule()
    def an_operator_asks_for_lame_duck(self) -> None:
        change = self.core.lame_duck(self.now)
        self.saw(change)
        self.ducked = self.core.cause is None
        if change:
            self.ducked_at = self.now

    def ducked_for(self) -> float:
        return self.now - self.ducked_at

    def delay_left(self, now: float) -> float:
        return max(0.0, self.core.timeline.delay_ends - now) if self.core.timeline else 0.0

    @rule()
    def an_operator_recovers(self) -> None:
        if self.ducked:
            self.saw(self.core.recover(self.now))
            assert self.core.phase is Phase.SERVING
            self.phase = Phase.SERVING  # the one step back
            self.ducked = False
        else:
            with pytest.raises(RuntimeError):
                self.core.recover(self.now)

    def the_worker_is_retired(self) -> None:
        ready, fresh = self.core.ready, self.core.cause is None
        change = self.core.retire("HUP", self.now)
        self.saw(change)
        assert self.core.ready is ready, "retiring never changes readiness"
        if change is not None:
            assert fresh
            self.stays_ready = ready
            self.signalled = True
            assert self.delay_left(self.now) == 0
        self.asked_to_end()

    def the_server_stops_by_itself(self) -> None:
        self.saw(self.core.shutdown("lifespan.shutdown", self.now))
        assert self.core.phase not in (Phase.STARTING, Phase.SERVING, Phase.LAME_DUCK)
        assert self.core.phase is Phase.STOPPED or self.delay_left(self.now) == 0
        self.asked_to_end()

    # -- the driver ------------------------------------------------------------------------------

    @precondition(lambda self: self.phase is not Phase.STOPPED)
    @rule()
    def start_up_is_complete(self) -> None:
        self.saw(self.core.started(self.now))

    @precondition(lambda self: self.phase is Phase.STARTING)
    @rule()
    def start_up_fails(self) -> None:
        self.saw(self.core.closed(self.now))
        assert self.core.phase is Phase.STOPPED

    def due(self) -> bool:
        timeline = self.core.timeline
        return timeline is not None and self.now >= timeline.delay_ends

    @precondition(lambda self: self.phase is Phase.LAME_DUCK and self.due())
    @rule()
    def the_delay_is_over(self) -> None:
        self.saw(self.core.delay_over(self.now))
        assert self.core.phase is Phase.DRAINING

    @precondition(lambda self: self.phase is Phase.DRAINING)
    @rule()
    def farewells_are_said(self) -> None:
        plan = self.core.farewells()
        offsets = [offset for offset, _ in plan]
        assert offsets == sorted(offsets)
        assert all(
            0 <= offset <= self.core.window <= self.core.settings.drain for offset in offsets
        )
        told = [exchange for _, exchange in plan]
        assert told == [
            e for e in self.live if e.is_stream and e.policy == "reconnect" and not e.told
        ]
        for exchange in told:
            exchange.told = True
        self.core.tally.told += len(told)
        assert self.core.farewells() == []
        assert 50 <= self.core.retry_delay_ms() <= 1000

    @precondition(lambda self: self.phase is Phase.DRAINING)
    @rule()
    def the_drain_is_over(self) -> None:
        if len(self.core.tracker):
            if self.core.remaining(self.now) > 0:
                return
            left = self.core.stragglers(self.now, stacks=True)
            assert len(left) == len(self.core.tracker)
            assert all(straggler.age >= 0 for straggler in left)
            self.core.tally.cut += [s for s in left if s.kind != "hold"]
            self.core.tally.holds += [s.name for s in left if s.kind == "hold"]
            for exchange in self.live:
                exchange.cut = True
        self.saw(self.core.drained(self.now))
        assert self.core.phase is Phase.CLOSING

    @precondition(lambda self: self.phase is Phase.CLOSING)
    @rule()
    def clean_up_is_done(self) -> None:
        self.saw(self.core.closed(self.now))
        assert self.core.phase is Phase.STOPPED

    @precondition(lambda self: place(self.phase) >= place(Phase.DRAINING))
    @rule(data=st.data())
    def a_report_comes_late(self, data: st.DataObject) -> None:
        late: list[Callable[[float], PhaseChanged | None]] = [self.core.delay_over]
        if self.phase is not Phase.DRAINING:
            late.append(self.core.drained)
        if self.phase is Phase.STOPPED:
            late.append(self.core.closed)
        self.saw(data.draw(st.sampled_from(late))(self.now))
        assert self.core.phase is self.phase

    @precondition(lambda self: self.phase in (Phase.SERVING, Phase.LAME_DUCK))
    @rule()
    def a_step_out_of_order_is_refused(self) -> None:
        for step in (self.core.drained, self.core.closed):
            with pytest.raises(IllegalTransition):
                step(self.now)

    @precondition(lambda self: self.phase is Phase.STOPPED)
    @rule(settings=st.sampled_from(BUDGETS), seed=st.integers(0, 1000), starts=MOSTLY)
    def a_new_life_begins(self, settings: Settings, seed: int, starts: bool) -> None:
        self.everybody_leaves()
        self.begin_life(settings, seed, starts)

    def everybody_leaves(self) -> None:
        for exchange in (*self.live, *self.over):
            self.core.tracker.end(exchange, self.now)
        for hold in self.holds:
            self.core.tracker.release(hold)
        assert len(self.core.tracker) == 0
        assert self.core.stragglers(self.now, stacks=False) == []

    def teardown(self) -> None:
        self.everybody_leaves()

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def the_phase_never_goes_back(self) -> None:
        assert place(self.core.phase) >= place(self.phase)
        self.phase = self.core.phase
        if self.core.cause is not None:
            self.ducked = False

    @invariant()
    def the_end_is_never_later_than_the_budget(self) -> None:
        timeline, settings = self.core.timeline, self.core.settings
        assert (timeline is None) == (self.core.cause is None)
        if timeline is None:
            return
        assert timeline.began == timeline.signalled - settings.pre_stop
        assert timeline.exits_at == timeline.began + settings.grace_period - settings.exit_margin
        assert timeline.delay_ends <= timeline.drain_deadline <= timeline.cleanup_deadline
        assert timeline.cleanup_deadline <= timeline.exits_at + CLOSE
        assert timeline.delay_ends <= timeline.signalled + settings.propagation_delay

    @invariant()
    def no_deadline_ever_moves_later(self) -> None:
        before, after = self.timeline, self.core.timeline
        self.timeline = after
        if before is None:
            return
        assert after is not None, "a stop that has begun is never forgotten"
        assert (after.began, after.signalled) == (before.began, before.signalled)
        assert after.exits_at == before.exits_at
        assert after.delay_ends <= before.delay_ends
        assert after.drain_deadline <= before.drain_deadline
        assert after.cleanup_deadline <= before.cleanup_deadline

    @invariant()
    def the_rung_never_goes_down(self) -> None:
        assert self.rung <= self.core.rung <= 3
        self.rung = self.core.rung
        if self.rung:
            assert place(self.core.phase) >= place(Phase.LAME_DUCK)
        if self.rung >= 2:
            assert place(self.core.phase) >= place(Phase.DRAINING)

    @invariant()
    def force_needs_a_signal(self) -> None:
        assert (self.core.cause is not None and self.core.cause.signal) == self.signalled

    @invariant()
    def readiness_is_the_tables_or_a_retiring_workers(self) -> None:
        assert self.core.traits is TRAITS[self.core.phase]
        assert self.core.ready == (TRAITS[self.core.phase].ready or self.stays_ready)
        assert self.core.admits_streams == (place(self.core.phase) < place(Phase.DRAINING))

    @invariant()
    def time_left_is_never_negative(self) -> None:
        left = self.core.remaining(self.now)
        assert left >= 0
        assert math.isinf(left) == (self.core.timeline is None)
        if self.core.rung == 3:
            assert left == 0

    @invariant()
    def connections_close_by_phase(self) -> None:
        closes = self.core.closes_connection(self.now)
        if place(self.core.phase) >= place(Phase.DRAINING):
            assert closes
        elif self.core.phase is not Phase.LAME_DUCK:
            assert not closes

    @invariant()
    def what_is_in_flight_is_what_has_not_ended(self) -> None:
        tracker = self.core.tracker
        assert list(tracker.live) == self.live
        assert len(tracker) == len(self.live) + len(self.holds)
        assert tracker.streams() == [each for each in self.live if each.is_stream]

    @invariant()
    def a_report_can_be_made_at_any_time(self) -> None:
        report = self.core.report(self.now)
        assert report.seconds >= 0
        assert report.lame_duck_seconds >= 0
        assert report.drain_seconds >= 0
        assert report.in_flight_at_signal >= 0
        assert report.late_refused == self.refused
        if self.served is not None:
            assert report.served == self.served
        assert report.served >= 0
        assert report.streams_at_drain >= report.told - self.core.tally.told
        assert report.last_request_after is None or report.last_request_after >= 0
        if report.delay_too_short:
            assert (report.last_request_after or 0) >= report.propagation_delay * 0.8 > 0
            assert report.warnings
            assert self.core.rung == 1
        if report.p50 is not None and report.p99 is not None:
            assert report.p50 <= report.p99
        assert report.clean == (not report.cut and not report.holds)
        assert report.exit_status == (0 if report.clean else 70)
        last = self.core.report(self.now, by_watchdog=True)
        assert (last.clean, last.exit_status, last.outcome) == (False, 70, "left_by_watchdog")


def test_random_lives_keep_every_promise() -> None:
    """Whatever platform, operator, clients and driver do, in any order: the invariants hold."""
    run_state_machine_as_test(
        Life, settings=hypothesis_settings(max_examples=400, stateful_step_count=50, deadline=None)
    )
