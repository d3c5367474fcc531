"""What is in flight: the tracker, one record for each exchange, and the latency histogram.

Shells pass here with every request, so what can wait until somebody asks is not done at once, and
while the process is SERVING they may time only a sample of their requests.
What an exchange *does* (send, cancel, say farewell) belongs to the shell that made it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, Literal

__all__ = [
    "BATCH",
    "BOUNDS",
    "Exchange",
    "Failed",
    "Hold",
    "Kind",
    "LatencyHistogram",
    "Policy",
    "Tracker",
]

Kind = Literal["http", "websocket", "sse", "stream", "grpc"]
Policy = Literal["reconnect", "finish"]
Failed = Callable[["Exchange", Exception], None]
"""Told of a farewell or cut that went wrong."""


LONG: Final = 1.0
"""Seconds from which it is worth a look whether an exchange was a stream that nobody recognised."""

BATCH: Final = 1024
"""Durations that are collected before they are sorted into the histogram together, and how many
are timed when the process begins to serve."""

SAMPLE: Final = 32
"""How many exchanges are timed after a probe, when a full batch is known."""


class Exchange:
    """One request and its response, in flight until the call of the app has returned.

    Slots for what each request stores; defaults on the class, and a dictionary that most never
    need, for what only a few do. That keeps the middleware cheap. Shells subclass it.
    """

    __slots__ = ("__dict__", "__weakref__")

    kind: Kind = "http"
    policy: Policy = "reconnect"
    """What a drain does to a stream: tell it to `reconnect`, or let it `finish`."""
    began: float | None = None
    """When the app was called, by the clock of the shell; None = while the process was SERVING, by
    a shell that reads its clock for a sample only."""
    seen: float | None = None
    """When a probe found this in flight, if `began` is not known."""
    told: bool = False
    """The farewell has been sent."""
    unwinding: bool = False
    """Its app has noticed that the stream is over, and is left to its own clean-up."""
    cut: bool = False
    """It was still in flight at the drain deadline and was ended by force."""

    def finish(self) -> None:
        """Let this stream finish: a drain waits for it instead of telling it to reconnect."""
        self.policy = "finish"

    def declare_stream(
        self,
        policy: Policy = "reconnect",
        *,
        boundary: bytes | None = None,
        farewell: bytes = b"",
    ) -> None:
        """Declare that this is a long-lived exchange. Shells know what `boundary` means to them."""
        self.policy = policy

    @property
    def is_stream(self) -> bool:
        """Whether this is a long-lived exchange, which says nothing about latency."""
        return self.kind != "http"

    @property
    def timed(self) -> bool:
        """Whether how long it took says something about requests here."""
        return not self.cut and not self.is_stream

    def watch(self) -> None:
        """The process serves no more: from now on look at each message of this exchange."""

    def start_farewell(self, failed: Failed) -> None:
        """Begin to tell the client to reconnect; returns at once, from any thread."""

    def start_cut(self, failed: Failed) -> None:
        """Begin to end it by force: 503 where no response has started, then `end_app`."""

    def end_app(self) -> None:
        """Cancel what the app does for it; from any thread."""

    def describe(self) -> dict[str, str]:
        """Return what a report needs to name this exchange: method, path (no query), client."""
        return {"method": "", "path": "", "client": ""}

    def stack(self) -> str:
        """Return the stack of the task or thread that serves it, without locals."""
        return ""


class Hold:
    """Background work outside requests that keeps the process until the drain deadline."""

    __slots__ = ("began", "name")

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began


BOUNDS: Final = tuple(0.001 * math.sqrt(2**step) for step in range(41))
"""Upper bounds of the latency buckets in seconds: a factor of √2 apart, from 1 ms to 17 min."""


class LatencyHistogram:
    """Durations of ordinary exchanges, in the buckets of `BOUNDS`.

    One histogram for all paths: paths are the client's to choose and never a key.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * len(BOUNDS)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.observe_all([seconds])

    def observe_all(self, durations: list[float]) -> None:
        """Count many durations. Sorting first takes a third of the time of a look at each."""
        ordered = sorted(durations)
        below = 0
        for index, bound in enumerate(BOUNDS):
            upto = bisect_right(ordered, bound)
            self.counts[index] += upto - below
            below = upto
        self.counts[-1] += len(ordered) - below

    @property
    def total(self) -> int:
        """How many durations have been counted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Return the duration that a share `q` of exchanges stayed below, None when none ended.

        Linear inside a bucket, so it is exact at the bounds and at most 42 % off between them.
        """
        total = self.total
        if total == 0:
            return None
        rank = q * total
        below = 0
        for index, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = BOUNDS[index - 1] if index else 0.0
                share = max(0.0, rank - below) / count
                return low + (BOUNDS[index] - low) * share
            below += count
        raise AssertionError("unreachable: the counts add up to the total")  # pragma: no cover


class Tracker:
    """Everything in flight in this process, and the way to learn that nothing is any more."""

    __slots__ = (
        "_latency",
        "_missing",
        "_sorted_in",
        "_undated",
        "durations",
        "holds",
        "live",
        "on_batch",
        "on_end",
        "on_turn",
        "plain",
        "timing",
    )  # next to each other in memory, for the hot paths

    def __init__(self) -> None:
        self.live: dict[Exchange, None] = {}
        self.holds: dict[Hold, None] = {}
        self._latency = LatencyHistogram()
        self.durations: list[float] = []
        """Not in the histogram yet: appending is cheap, sorting into buckets is not."""
        self._sorted_in = 0
        self.on_batch: Callable[[], None] | None = None
        """Called after each `BATCH` exchanges: time to look at the histogram."""
        self.on_end: Callable[[], None] | None = None
        """Called after each end while somebody waits; None while nobody does."""
        self.plain = False
        """The process is SERVING: shells may go by the short way, and nobody waits for an end."""
        self.timing = True
        """Whether exchanges that begin are dated, for shells that do the rest of `begin` by
        themselves: always, but while `plain` a sample is enough."""
        self.on_turn: list[Callable[[], None]] = []
        """Called whenever `plain` or `timing` changes: shells may keep what follows from them."""
        self._missing = 0  # until the sample is full
        self._undated = 0  # that have ended while somebody looked

    def serving(self, plain: bool) -> None:
        """Take note that the process is SERVING, or is no more."""
        self.plain = plain
        self._begin_sample(BATCH)

    def probed(self, now: float) -> None:
        """A probe has come: time some more exchanges, date those in flight; from any thread.

        Most processes are asked every few seconds, and no other exchange has to find out whether
        it belongs to a sample, or reads a clock to be dated if it is cut one day.
        """
        for exchange in tuple(self.live):
            if exchange.began is None and exchange.seen is None:
                exchange.seen = now
        if not self.timing:
            self._begin_sample(SAMPLE)

    def _begin_sample(self, size: int) -> None:
        self._missing, self.timing = size, True
        self._tell()

    def _end_sample(self) -> None:
        self.timing = False
        # After the line above: whoever ends SERVING, in another thread, turns the two the other way
        # round.
        if not self.plain:
            self.timing = True
        self._tell()

    def _tell(self) -> None:
        for turned in tuple(self.on_turn):
            turned()

    def begin(self, exchange: Exchange, now: float) -> None:
        """Count `exchange` as in flight. Contract: `end` must follow, whatever happens."""
        exchange.began = now
        self.live[exchange] = None

    def end(self, exchange: Exchange, now: float) -> None:
        """Count `exchange` as over. A second end of the same one changes nothing."""
        if self.live.pop(exchange, exchange) is not exchange:
            self.ended(exchange, now)

    def ended(self, exchange: Exchange, now: float) -> None:
        """Time `exchange`, which has left `live` already, and wake who waits for that."""
        self.time(exchange, now)
        if self.on_end is not None:
            self.on_end()

    def drop(self, exchange: Exchange) -> None:
        """Forget `exchange`, which was refused: how long that took says nothing about requests."""
        self.live.pop(exchange, None)
        if self.on_end is not None:
            self.on_end()

    def time(self, exchange: Exchange, now: float) -> None:
        """Note how long `exchange` took, if that says something."""
        if exchange.began is None:
            self._undated += exchange.timed
            return
        seconds = now - exchange.began
        short = seconds < LONG and exchange.kind == "http" and not exchange.cut
        if short or exchange.timed:
            self.durations.append(seconds)
            self._missing -= 1
            if self._missing <= 0 and self.plain and self.timing:
                self._end_sample()
            if len(self.durations) >= BATCH:
                self.fold()

    def fold(self) -> None:
        """Sort what has been collected into the histogram, and say so."""
        self._sort_in()
        if self.on_batch is not None:
            self.on_batch()

    def _sort_in(self) -> None:
        durations = self.durations.copy()
        del self.durations[: len(durations)]  # in place: shells keep hold of the list
        self._sorted_in += len(durations)
        self._latency.observe_all(durations)

    @property
    def served(self) -> int:
        """Ordinary exchanges that have ended by themselves, of those that were looked at."""
        return self._sorted_in + len(self.durations) + self._undated

    @property
    def latency(self) -> LatencyHistogram:
        """How long ordinary exchanges took."""
        if self.durations:
            self._sort_in()
        return self._latency

    def hold(self, hold: Hold) -> None:
        """Keep the process for `hold`. Contract: `release` must follow."""
        self.holds[hold] = None

    def release(self, hold: Hold) -> None:
        """Let go of `hold`."""
        self.holds.pop(hold, None)
        if self.on_end is not None:
            self.on_end()

    def __len__(self) -> int:
        return len(self.live) + len(self.holds)

    def streams(self) -> list[Exchange]:
        """Return the streams in flight, oldest first."""
        return [exchange for exchange in tuple(self.live) if exchange.is_stream]
