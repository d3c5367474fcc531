"""One life of one process: phases, budget, tracker and pacing joined into decisions.

Contract for shells: ask, then do what the answer says. Nothing here waits or sends. `now` is
seconds on a monotonic clock, the same one in every call.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from .budget import Settings, Timeline
from .inflight import Exchange, Tracker
from .pacing import Draw, close_probability, farewell_offsets, retry_delay_ms
from .phases import TRAITS, Event, Phase, Traits, next_phase
from .records import DrainReport, PhaseChanged, Rung, Straggler

__all__ = ["Cause", "LifecycleCore", "Refusal", "Tally", "plain"]

SAME_RUNG: Final = 1.0
"""Seconds. systemd signals parent and workers at once and the parent signals again (uvicorn's
supervisor within 0.5 s), so under a managing parent a signal this close is the same rung."""

PATIENCE: Final = 1.0
"""Seconds in which an app must have noticed that its stream is over; then it is cancelled."""

LAST_FIFTH: Final = 0.2
"""Share of the propagation delay in which a request means that the balancer had not moved."""

FEW: Final = 100
"""Fewer exchanges than this say nothing about a 99th percentile."""

RECENT: Final = 256
"""How many arrivals since the flip are remembered: an SSE request is known for a stream only when
its response starts, and the last ordinary request has to be found behind all such ones then."""

RUNGS: Final = {
    1: (Event.TERMINATE, "unready now; serving until the propagation delay is over, then drain"),
    2: (Event.HURRY, "the rest of the propagation delay is skipped; draining"),
    3: (Event.CUT, "what is in flight is cut now"),
}

TOO_LATE: Final = {
    Phase.STARTING: "start-up is finished first, then the process stops",
    Phase.DRAINING: "already draining; the third rung cuts what is in flight",
    Phase.CLOSING: "already closing; what still runs keeps its time limit",
}
"""The effect of a rung that has nothing left to do in its phase (the cut of a drain has)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a process stops, in the words of the log."""

    text: str
    signal: bool = False
    """The platform (or a person) sent a signal; only then may the process be ended by force."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer a late request with 503, this `Retry-After` (whole seconds) and close."""

    retry_after: int = 1


@dataclass(slots=True)
class Tally:
    """What shells and driver count for the drain report."""

    told: int = 0
    farewells_failed: int = 0
    streams_left_to_finish: int = 0
    late_refused: int = 0
    cut: list[Straggler] = field(default_factory=list[Straggler])
    holds: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


class LifecycleCore:
    """The decisions of one life. Not thread-safe: the owner serialises what moves the phase."""

    def __init__(self, settings: Settings, draw: Draw) -> None:
        self.settings = settings
        self.phase = Phase.STARTING
        self.tracker = Tracker()
        self.tally = Tally()
        self.timeline: Timeline | None = None
        self.cause: Cause | None = None
        self.rung = 0
        self.retiring = False
        self._draw = draw
        self._last_signal = -math.inf
        self._duck_since: float | None = None  # when readiness flipped
        self._drain_since: float | None = None
        self._served_until = 0.0
        self._arrivals: deque[tuple[float, Exchange]] = deque(maxlen=RECENT)
        self._told: deque[tuple[float, Exchange]] = deque()
        self._stays_ready = False
        self._in_flight_at_signal = 0
        self._served_at_signal = 0
        self._streams_at_drain = 0
        self._short_budget_said = False

    # -- what moves the phase ------------------------------------------------------------

    def started(self, now: float) -> PhaseChanged | None:
        """Start-up is complete. Nothing changes when it was already, or when a signal was first."""
        return self._fire(Event.STARTED, now, "start-up complete")

    def climb(
        self, cause: str, now: float, *, managed: bool = False, hurry: bool = False
    ) -> tuple[Rung, PhaseChanged | None] | None:
        """A signal arrived: return the rung it climbed, None when it is the same rung again.

        Args:
            cause: the signal's name, for the log.
            managed: a parent process manages this one and may repeat the platform's signal.
            hurry: begin at the second rung (Ctrl-C: nobody waits for the balancer of a laptop).
        """
        again = managed and now - self._last_signal < SAME_RUNG
        rung = max(self.rung if again else self.rung + 1, 2 if hurry else 1)
        climbed = self.climb_to(rung, Cause(cause, signal=True), now)
        if climbed:
            self._last_signal = now
        return climbed

    def climb_to(
        self, rung: int, cause: Cause, now: float
    ) -> tuple[Rung, PhaseChanged | None] | None:
        """Climb to `rung` (1 terminate, 2 hurry, 3 cut); None when already there or above."""
        rung = min(rung, 3)
        if self.phase is Phase.STOPPED or rung <= self.rung:
            return None
        self.rung = rung
        self._adopt(cause, now)
        timeline = self._begin(now)
        event, effect = RUNGS[rung]
        if event is Event.HURRY:
            self.timeline = timeline.hurried(now)
        elif event is Event.CUT:
            self.timeline = timeline.cut(now, self.settings.cleanup_timeout)
        if not (self.phase is Phase.DRAINING and event is Event.CUT):
            effect = TOO_LATE.get(self.phase, effect)
        changed = self._fire(event, now, cause.text)
        return Rung(rung, cause.text, effect, self._after(now)), changed

    def lame_duck(self, now: float) -> PhaseChanged | None:
        """An operator's code takes the process out of rotation, with no end of its own.

        Harmless once a stop has begun.

        Raises:
            IllegalTransition: the process does not serve yet, or has stopped.
        """
        return self._fire(Event.LAME_DUCK, now, "operator")

    def recover(self, now: float) -> PhaseChanged | None:
        """An operator's code puts it back.

        Raises:
            IllegalTransition: not in lame duck.
            RuntimeError: a signal has asked this process to stop; that can't be taken back.
        """
        if self.cause is not None:
            raise RuntimeError(f"cannot recover: {self.cause.text} asked this process to stop")
        return self._fire(Event.RECOVER, now, "operator")

    def retire(self, cause: str, now: float, *, signal: bool = True) -> PhaseChanged | None:
        """This worker is replaced; its instance stays: no readiness flip, no delay.

        `signal` is False when nobody sent one, such as at a worker's maximum of requests.
        """
        if self.cause is not None or self.phase is Phase.STOPPED:
            return None
        self._stays_ready = self.ready
        self.retiring = True
        self._adopt(Cause(cause, signal=signal), now)
        self.timeline = Timeline.start(self.settings, now, delay=0.0)
        return self._fire(Event.RETIRE, now, cause)

    def instance_goes(self) -> None:
        """A worker that retires is ready no more once its whole instance was told to stop."""
        self._stays_ready = False

    def shutdown(self, cause: str, now: float) -> PhaseChanged | None:
        """The server stops by itself: drain without a delay. Harmless once a stop has begun."""
        if self.phase not in (Phase.STARTING, Phase.SERVING, Phase.LAME_DUCK):
            return None
        self._adopt(Cause(cause), now)
        if self.timeline is None:
            self.timeline = Timeline.start(self.settings, now, delay=0.0)
        else:
            self.timeline = self.timeline.hurried(now)
        return self._fire(Event.SHUTDOWN, now, cause)

    def delay_over(self, now: float) -> PhaseChanged | None:
        """The propagation delay has been served. Harmless when a signal has overtaken it."""
        return self._fire(Event.DELAY_OVER, now, "propagation delay served")

    def drained(self, now: float) -> PhaseChanged | None:
        """Nothing is in flight, or what was has been cut. A second time changes nothing."""
        clean = "everything in flight has finished"
        return self._fire(Event.DRAINED, now, "what was left has been cut" if self.dirty else clean)

    def closed(self, now: float) -> PhaseChanged | None:
        """Clean-up is done, or start-up has failed: this life is over. Twice changes nothing."""
        return self._fire(Event.CLOSED, now, "clean-up done")

    # -- what shells ask -----------------------------------------------------------------

    @property
    def traits(self) -> Traits:
        """The row of the protocol's table that holds now."""
        return TRAITS[self.phase]

    @property
    def ready(self) -> bool:
        """What readiness answers.

        A worker that was ready when it began to retire stays so while its port goes on being
        served.
        """
        return self.traits.ready or self._stays_ready

    @property
    def dirty(self) -> bool:
        """Whether something was cut."""
        return bool(self.tally.cut or self.tally.holds)

    def remaining(self, now: float) -> float:
        """Return the seconds left for work: infinite until the process is told to stop."""
        if self.timeline is None:
            return math.inf
        return max(0.0, self.timeline.drain_deadline - now)

    def closes_connection(self, now: float) -> bool:
        """Whether the HTTP/1 response that starts now says `Connection: close`."""
        close = self.traits.close
        if close == "ramp" and self._duck_since is not None:
            delay = self.settings.propagation_delay
            return self._draw() < close_probability(now - self._duck_since, delay)
        return close == "always"

    def late_request(self, exchange: Exchange, now: float) -> Refusal | None:
        """A request has come after the flip: None = serve it, otherwise refuse it this way.

        It is served unless the time left is less than the median of what requests here have
        needed: a 503 at once is better than a response that is cut half-way.
        """
        if self._duck_since is not None and not exchange.is_stream:
            self._arrivals.append((now, exchange))
        if not self.traits.stopping:
            return None
        median = self.tracker.latency.quantile(0.5) or 0.0
        if self.phase is Phase.DRAINING and self.remaining(now) > median:
            return None
        self.tally.late_refused += 1
        return Refusal()

    def turns_away(self, exchange: Exchange) -> bool:
        """Whether a stream that shows itself only now is ended at once: it is too late for it."""
        return exchange.policy == "reconnect" and not (exchange.told or self.admits_streams)

    def told(self, exchange: Exchange, now: float) -> None:
        """The farewell of `exchange` is on its way."""
        exchange.told = True
        self.tally.told += 1
        self._told.append((now, exchange))
        if self.tracker.on_end is not None:
            self.tracker.on_end()  # there is something new to wait for

    def oversleepers(self, now: float) -> list[Exchange]:
        """Return, once, what was told `PATIENCE` seconds ago and whose app has not even noticed."""
        found: list[Exchange] = []
        while self._told and self._told[0][0] + PATIENCE <= now:
            exchange = self._told.popleft()[1]
            if exchange in self.tracker.live and not exchange.unwinding:
                found.append(exchange)
        return found

    def next_oversleep(self) -> float:
        """Return when `oversleepers` has something to look at again; infinite = never."""
        return self._told[0][0] + PATIENCE if self._told else math.inf

    @property
    def admits_streams(self) -> bool:
        """Whether a new stream is let in."""
        return self.traits.new_streams

    @property
    def window(self) -> float:
        """Seconds of stream window in force: never more than four fifths of the drain."""
        return min(self.settings.stream_window, self.settings.drain * 0.8)

    def farewells(self) -> list[tuple[float, Exchange]]:
        """Return the streams to tell and when, in seconds from now; `finish` ones are left out."""
        streams = [s for s in self.tracker.streams() if s.policy == "reconnect" and not s.told]
        window = 0.0 if self.rung >= 3 else self.window
        return list(zip(farewell_offsets(len(streams), window, self._draw), streams, strict=True))

    def retry_delay_ms(self) -> int:
        """Return the milliseconds that one client is told to wait before it reconnects."""
        return retry_delay_ms(self.window, self._draw)

    def budget_is_short(self) -> float | None:
        """Return the p99 when it exceeds the drain, once in a life; None otherwise."""
        if self._short_budget_said or self.tracker.latency.total < FEW:
            return None
        p99 = self.tracker.latency.quantile(0.99) or 0.0
        if p99 <= self.settings.drain:
            return None
        self._short_budget_said = True
        return p99

    # -- the end -------------------------------------------------------------------------

    def stragglers(self, now: float, *, stacks: bool) -> list[Straggler]:
        """Return everything still in flight, by name."""
        found = [self.straggler(e, now, stacks=stacks) for e in tuple(self.tracker.live)]
        holds = tuple(self.tracker.holds)
        return found + [
            Straggler("hold", plain(h.name), "", now - h.began, self.phase.value) for h in holds
        ]

    def straggler(self, exchange: Exchange, now: float, *, stacks: bool) -> Straggler:
        """Return the record that names `exchange`."""
        about = exchange.describe()
        began = exchange.began
        seen = self._served_until if exchange.seen is None else exchange.seen
        return Straggler(
            kind=exchange.kind,
            name=plain(f"{about['method']} {about['path']}".strip()),
            client=plain(about["client"]),
            age=now - (seen if began is None else began),
            phase=self.phase.value,
            older=began is None,
            stack=_stack(exchange) if stacks else "",
        )

    def report(self, now: float, *, by_watchdog: bool = False) -> DrainReport:
        """Return the whole stop in numbers."""
        timeline = self.timeline or Timeline.start(self.settings, now, delay=0.0)
        flip = self._duck_since
        drain = self._drain_since
        flip_ends = now if drain is None else drain
        last = self._last_request_after()
        latency = self.tracker.latency
        return DrainReport(
            cause=self.cause.text if self.cause else "",
            clean=not self.dirty and not by_watchdog,
            seconds=now - timeline.signalled,
            grace_period=self.settings.grace_period,
            propagation_delay=self.settings.propagation_delay,
            lame_duck_seconds=max(0.0, flip_ends - flip) if flip is not None else 0.0,
            drain_seconds=now - drain if drain is not None else 0.0,
            in_flight_at_signal=self._in_flight_at_signal,
            streams_at_drain=self._streams_at_drain,
            served=self.tracker.served - self._served_at_signal,
            late_refused=self.tally.late_refused,
            told=self.tally.told,
            farewells_failed=self.tally.farewells_failed,
            streams_left_to_finish=self.tally.streams_left_to_finish,
            last_request_after=last,
            delay_too_short=self._delay_was_too_short(last),
            p50=latency.quantile(0.5),
            p99=latency.quantile(0.99),
            cut=tuple(self.tally.cut),
            holds=tuple(self.tally.holds),
            warnings=tuple(self._report_warnings(last)),
            outcome="left_by_watchdog" if by_watchdog else "finished",
        )

    def _last_request_after(self) -> float | None:
        ordinary = [now for now, exchange in tuple(self._arrivals) if not exchange.is_stream]
        if self._duck_since is None or not ordinary:
            return None
        return max(0.0, ordinary[-1] - self._duck_since)

    def _delay_was_too_short(self, last: float | None) -> bool:
        delay = self.settings.propagation_delay
        if last is None or delay == 0 or self.rung != 1 or self.retiring:
            return False  # a delay that was skipped says nothing about the balancer
        return last >= delay * (1 - LAST_FIFTH)

    def _report_warnings(self, last: float | None) -> list[str]:
        warnings = list(self.tally.warnings)
        if self._delay_was_too_short(last):
            warnings.append(
                f"last request {last:.1f} s after readiness flipped; propagation_delay is "
                f"{self.settings.propagation_delay:g} s: the balancer had not moved, raise it"
            )
        p99 = self.tracker.latency.quantile(0.99)
        if p99 is not None and self.tracker.latency.total >= FEW and p99 > self.settings.drain:
            warnings.append(
                f"p99 of requests here is {p99:.1f} s but the drain is "
                f"{self.settings.drain:g} s: raise grace_period"
            )
        return warnings

    # -- inside --------------------------------------------------------------------------

    def _adopt(self, cause: Cause, now: float) -> None:
        if self.cause is None:
            self.cause = cause
            self._in_flight_at_signal = len(self.tracker)
            self._served_at_signal = self.tracker.served
        elif cause.signal and not self.cause.signal:
            self.cause = Cause(self.cause.text, signal=True)

    def _begin(self, now: float) -> Timeline:
        """Start the clock, once. Lame duck that an operator has already served counts."""
        if self.timeline is None:
            delay = self.settings.propagation_delay
            if self._duck_since is not None:
                # A signal is dated back to its arrival, which may be before the operator's call.
                delay = max(0.0, delay - max(0.0, now - self._duck_since))
            if self.phase is Phase.STARTING:
                delay = 0.0
            self.timeline = Timeline.start(self.settings, now, delay=delay)
        return self.timeline

    def _fire(self, event: Event, now: float, reason: str) -> PhaseChanged | None:
        old, new = self.phase, next_phase(self.phase, event)
        if old is new:
            return None
        self.phase = new
        if old is Phase.SERVING:
            self._served_until = now
        self.tracker.serving(new is Phase.SERVING)
        streams = len(self.tracker.streams())
        if new is Phase.SERVING:
            self._duck_since = None
            self._arrivals.clear()
        elif new is Phase.LAME_DUCK:
            self._duck_since = now
        elif new is Phase.DRAINING:
            self._drain_since = now
            self._streams_at_drain = streams
            if self._duck_since is None and not self.retiring:
                self._duck_since = now
        return PhaseChanged(
            old=old,
            new=new,
            reason=reason,
            after=self._after(now),
            in_flight=len(self.tracker) - streams,
            streams=streams,
            lasts_up_to=self._lasts_up_to(new, now),
        )

    def _lasts_up_to(self, phase: Phase, now: float) -> float | None:
        if self.timeline is None:
            return None
        ends = {
            Phase.LAME_DUCK: self.timeline.delay_ends,
            Phase.DRAINING: self.timeline.drain_deadline,
            Phase.CLOSING: self.timeline.cleanup_deadline,
        }.get(phase)
        return None if ends is None else max(0.0, ends - now)

    def _after(self, now: float) -> float:
        # A signal is dated back to its arrival: it may be older than what code has begun since.
        return max(0.0, now - self.timeline.signalled) if self.timeline else 0.0


def plain(text: str) -> str:
    """Return `text` on one line: what could forge a log line or a terminal sequence is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _stack(exchange: Exchange) -> str:
    """Return where `exchange` is. A look into what is running may fail; no report fails for it."""
    try:
        return exchange.stack()
    except Exception as error:
        return f"(its stack can't be had: {type(error).__name__}: {error})"
