"""What a rehearsal found: frozen records, their JSON, and the verdict. Pure.

All times are seconds as floats: `at`, `…_at` after the start of the rehearsal, everything else
after the SIGTERM of the restart it belongs to. None = it did not happen.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .outcomes import Loss, Outcome, Sent

__all__ = ["SLOT", "Restart", "Result", "StreamRecord", "explain", "findings", "largest_slot_share"]

SLOT: Final = 0.1
"""Seconds: farewells within one slot come back to the other instances as one herd."""


@dataclass(frozen=True, kw_only=True)
class StreamRecord:
    """One connection of a WebSocket or SSE client, from its begin to its end."""

    client: int
    kind: str
    """'websocket' or 'sse'."""
    instance: str | None
    connected_at: float
    ended_at: float
    ended: str
    """How, in words: 'close 1012', 'closed without close frame (1006)', 'sse truncated', …"""
    restart: int | None
    """Number of the restart during which it ended, None outside of one."""
    told: bool
    """Whether it was told to reconnect."""
    told_delay: float | None
    """Seconds that it was told to wait."""
    farewell: float | None
    """Seconds from SIGTERM to the farewell."""
    reconnected_to: str | None
    """The instance of the client's next connection."""
    moved: bool
    """Whether that was another process."""
    failed_attempts: int
    """Attempts to reconnect that were refused or turned away."""
    messages: int
    """Messages and events that it received."""
    messages_lost: int
    """Numbers that were jumped over, and messages of ours never echoed."""


@dataclass(frozen=True, kw_only=True)
class Restart:
    """One instance, stopped by SIGTERM and started again; or reloaded by another signal.

    Of a reload `exit` is when the last of the old workers had gone, and `left_behind` that one was
    still there when the wait for it ended.
    """

    number: int
    roll: int
    instance: str
    sigterm_at: float
    readiness_flip: float | None
    """To the first readiness answer that was not 200, received on a fresh connection."""
    last_request: float | None
    """To the end of the last request that it served well."""
    refused: float | None
    """To the refusal of new connections (or to when they were no longer answered)."""
    exit: float
    exit_code: int
    """Negative: the signal that ended it, as in `subprocess`."""
    killed: bool
    """Whether SIGKILL was needed."""
    left_behind: bool
    """Whether processes of its group outlived the main process (they were killed)."""
    not_ready: int
    """Readiness answers other than 200 until then: a restart has some, a reload should not."""
    ready: float
    """To the first 200 of the new process."""
    in_rotation: float
    """To when the balancer chose it again."""
    fault: str = ""
    """What went wrong on purpose, by name; empty = nothing."""
    found: str = ""
    """What came of that, in words."""
    failed: bool = False
    """The instance did not do what it must in spite of the fault."""

    # What the load saw of it.
    requests_lost: int = 0
    """From its SIGTERM to the next restart's."""
    last_stream: float | None = None
    """To the end of its last stream."""
    streams_told: int = 0
    streams_cut: int = 0
    """Streams that ended without being told to reconnect."""
    streams_moved: int = 0
    messages_lost: int = 0
    first_farewell: float | None = None
    last_farewell: float | None = None
    largest_slot_share: float = 0.0
    """Largest part of the farewells in one slot of 100 ms, from 0 to 1."""
    excused: int = 0
    """Losses on this instance that the fault costs by its nature; they are not judged."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that was counted."""

    command: str
    balancer: str
    signal: str
    """What the instances were sent, 'SIGTERM' or that of a reload."""
    seconds: float
    requests: Mapping[str, Mapping[str, int]]
    """Kind of request → outcome → how many."""
    latency: Mapping[str, Mapping[str, float]]
    """Kind of request → 'p50', 'p99', 'max' of those that were ok, in seconds."""
    lateness_p99: float
    """Seconds by which requests were sent too late: above some 10 ms the client was the slow one
    and the figures are about it."""
    losses: Sequence[Loss]
    restarts: Sequence[Restart]
    streams: Sequence[StreamRecord]
    stranded: int
    """Stream clients that had no connection at the end."""
    sent: Sequence[Sent] = ()
    """Every request, where the plan asks for a trace."""
    first_ready: Mapping[str, float] = field(default_factory=dict[str, float])
    """Instance → the first 200 of its first process, after the start of the rehearsal."""

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Outcome → how many, all kinds together."""
        total: Counter[str] = Counter()
        for counts in self.requests.values():
            total.update(counts)
        return total

    @property
    def total(self) -> int:
        """Requests sent."""
        return sum(self.outcomes.values())

    @property
    def lost(self) -> int:
        """Requests that were lost."""
        return self.total - self.outcomes.get(Outcome.OK, 0)

    @property
    def messages_lost(self) -> int:
        """Messages and events lost on streams."""
        return sum(stream.messages_lost for stream in self.streams)

    @property
    def streams_ended(self) -> int:
        """Streams that a restart ended."""
        return sum(stream.restart is not None for stream in self.streams)

    @property
    def streams_moved(self) -> int:
        """Those of them that were told to reconnect and came to another process."""
        return sum(s.restart is not None and s.told and s.moved for s in self.streams)

    @property
    def streams_cut(self) -> int:
        """Those of them that were not told."""
        return sum(s.restart is not None and not s.told for s in self.streams)

    @property
    def killed(self) -> int:
        """Instances that needed SIGKILL."""
        return sum(restart.killed for restart in self.restarts)

    @property
    def longest_exit(self) -> float | None:
        """Seconds from SIGTERM to the exit of the slowest instance, None without a restart."""
        return max((restart.exit for restart in self.restarts), default=None)

    @property
    def not_ready(self) -> int:
        """Readiness answers other than 200 during reloads."""
        return 0 if self.signal == "SIGTERM" else sum(r.not_ready for r in self.restarts)

    @property
    def stayed(self) -> int:
        """Reloads that left an old worker behind."""
        return 0 if self.signal == "SIGTERM" else sum(r.left_behind for r in self.restarts)

    @property
    def faults_failed(self) -> int:
        """Faults in which an instance did not do what it must."""
        return sum(restart.failed for restart in self.restarts)

    @property
    def excused(self) -> int:
        """Requests, messages and streams that faults have cost by their nature."""
        return sum(restart.excused for restart in self.restarts)

    @property
    def ok(self) -> bool:
        """Whether nothing at all was lost but what faults cost by their nature."""
        lost = self.lost + self.messages_lost + self.streams_cut - self.excused
        bad = self.stranded or self.killed or self.not_ready or self.stayed or self.faults_failed
        return not (lost or bad)

    @property
    def verdict(self) -> str:
        """One line: what was lost, of how much."""
        parts = [f"{self.lost:,} requests lost of {self.total:,}"]
        if self.excused:
            parts[0] += f" ({self.excused:,} losses are what the faults cost)"
        if self.streams:
            parts.append(f"{self.messages_lost:,} messages lost")
        if self.streams_ended:
            parts.append(f"{self.streams_moved:,} of {self.streams_ended:,} streams moved")
        if self.stranded:
            parts.append(f"{self.stranded:,} stream clients could not reconnect")
        if self.not_ready:
            parts.append(f"{self.not_ready:,} readiness answers other than 200")
        if self.stayed:
            parts.append(f"{self.stayed} of {len(self.restarts)} reloads left an old worker behind")
        if self.killed:
            parts.append(f"{self.killed} of {len(self.restarts)} instances needed SIGKILL")
        if self.faults_failed:
            faults = "fault" if self.faults_failed == 1 else "faults"
            parts.append(f"{self.faults_failed} {faults} not survived")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "lost": self.lost,
            "total": self.total,
            "outcomes": dict(self.outcomes),
            "messages_lost": self.messages_lost,
            "streams_ended": self.streams_ended,
            "streams_moved": self.streams_moved,
            "streams_cut": self.streams_cut,
            **dataclasses.asdict(self),
        }


def largest_slot_share(farewells: Sequence[float]) -> float:
    """Return the largest part of `farewells` (seconds after SIGTERM) in one slot of 100 ms."""
    if not farewells:
        return 0.0
    slots = Counter(int(seconds / SLOT) for seconds in farewells)
    return max(slots.values()) / len(farewells)


def explain(result: Result, limit: int = 5) -> Iterator[str]:
    """Yield lines that say what was lost, for people: equal losses together, `limit` lines."""
    groups: defaultdict[tuple[object, ...], list[Loss]] = defaultdict(list)
    for loss in result.losses:
        groups[loss.restart, loss.instance, loss.outcome, loss.detail].append(loss)
    shown = list(groups.values())[:limit]
    for losses in shown:
        yield f"lost: {_which(losses)}, {_what(losses)}, {_when(losses)}"
    if left := result.lost - sum(map(len, shown)):
        yield f"… and {left:,} more"
    cut = Counter(s.ended for s in result.streams if s.restart is not None and not s.told)
    for ended, count in cut.most_common():
        streams = "stream" if count == 1 else "streams"
        yield f"{count:,} {streams} ended without being told to reconnect: {ended}"
    for restart in result.restarts:
        if restart.killed:
            yield f"restart {restart.number}: {restart.instance} needed SIGKILL"


def findings(result: Result) -> Iterator[str]:
    """Yield lines that say what came of the faults, for people."""
    for restart in result.restarts:
        if restart.found:
            yield f"restart {restart.number}, {restart.fault}: {restart.found}"


def _which(losses: Sequence[Loss]) -> str:
    if len(losses) == 1:
        return f"{losses[0].kind} {losses[0].path}"
    kinds = Counter(loss.kind for loss in losses)
    return f"{len(losses):,} requests ({', '.join(f'{n:,} {kind}' for kind, n in kinds.items())})"


def _what(losses: Sequence[Loss]) -> str:
    loss = losses[0]
    where = f"{loss.instance}, " if loss.instance else ""
    what = f"{where}{loss.outcome} ({loss.detail})"
    if loss.outcome is Outcome.REFUSED:
        return what  # there was no connection to speak of
    fresh = sum(loss.fresh for loss in losses)
    if len(losses) == 1:
        return f"{what} on a {'fresh' if fresh else 'kept-alive'} connection"
    if fresh in (0, len(losses)):
        return f"{what} on {'fresh' if fresh else 'kept-alive'} connections"
    return f"{what} on {len(losses) - fresh:,} kept-alive and {fresh:,} fresh connections"


def _when(losses: Sequence[Loss]) -> str:
    first, last = losses[0], losses[-1]
    if first.after_sigterm is None or last.after_sigterm is None:
        return f"{_span(first.at, last.at)} after the start, before any restart"
    span = _span(first.after_sigterm, last.after_sigterm)
    return f"{span} after the SIGTERM of restart {first.restart}"


def _span(first: float, last: float) -> str:
    once, again = f"{first:.2f}", f"{last:.2f}"
    return f"{once} s" if once == again else f"{once} to {again} s"
