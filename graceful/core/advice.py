"""What a platform's numbers advise: the propagation delay, and the smallest safe grace period.

    pull    probe_period x failure_threshold + probe_timeout
    push    lag, after the delay of whoever tells it
    dns     the record changes, then ttl + resolver_lag + client_refresh

Platforms notice side by side, so the advised delay is the longest of theirs. Arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .budget import Finding, Settings, check
from .platforms import KNOBS, NEGATIVE_TTL, PLATFORMS, Number, Platform, Way

__all__ = [
    "Advice",
    "Choice",
    "Kill",
    "Part",
    "Path",
    "Traffic",
    "advise",
    "enough",
    "judge",
    "kill",
    "used_by",
]

LEAST_DRAIN = 1.0
"""Seconds of drain that are planned where nothing asks for more; chosen here."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some seconds of a delay."""

    platform: str
    seconds: float
    text: str
    """How they come about, with the numbers."""
    source: str


@dataclass(frozen=True, slots=True)
class Path:
    """How one platform notices; its parts come one after another."""

    platform: str
    way: Way
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        """The delay that this platform needs."""
        return math.fsum(part.seconds for part in self.parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """The platforms of a deployment, and the numbers that replace their defaults."""

    platforms: tuple[str, ...]
    numbers: Mapping[tuple[str, str], float]
    """By platform and knob."""
    ways: Mapping[str, Way]
    old_ttl: float = 0.0
    """The TTL before it was lowered, where that is less than one such TTL ago."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the instance serves. Seconds, and requests a second."""

    rate: float | None = None
    mean: float | None = None
    p99: float | None = None

    @property
    def in_flight(self) -> float | None:
        """Exchanges in flight at any moment: Little's law, rate x mean."""
        if self.rate is None or self.mean is None:
            return None
        return self.rate * self.mean


@dataclass(frozen=True, slots=True)
class Advice:
    """What the platforms ask for."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    delay: float
    """The propagation delay that the slowest platform needs."""
    drain: float
    """The drain that streams, linger and the slowest of 100 requests need."""
    grace: int
    """The smallest safe grace period, in the whole seconds that manifests take."""

    @property
    def slowest(self) -> Path | None:
        """The path that decides."""
        return max(self.paths, key=lambda path: path.seconds, default=None)


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL, as far as anybody has said when it comes."""

    at: float
    """Seconds after SIGTERM."""
    by: str
    """Who sends it, for people."""


def kill(settings: Settings, choice: Choice) -> Kill:
    """Return when SIGKILL comes: a grace period that nobody has given is the platform's default."""
    seconds, by = settings.grace_period, "the platform"
    for name in () if _given(settings) else choice.platforms:
        grace = PLATFORMS[name].grace
        if grace is not None and grace.seconds.value < seconds:
            seconds = grace.seconds.value
            by = f"{name}, whose default {grace.option} is {seconds:g} s"
    return Kill(seconds - settings.pre_stop, by)


def _given(settings: Settings) -> bool:
    """Whether somebody has said how long the platform waits."""
    return settings.source("grace_period") != "default"


def used_by(knob: str, choice: Choice) -> list[str]:
    """Return the chosen platforms whose delay this knob is a part of."""
    return [name for name in choice.platforms if knob in _knobs(PLATFORMS[name], choice)]


def _knobs(row: Platform, choice: Choice) -> list[str]:
    way = _way(row, choice)
    has = ["probe_period", "failure_threshold", "probe_timeout"] if row.check else []
    has += ["lag"] if row.lag else []
    found = [name for name in has if KNOBS[name].way == way]
    return found + (["ttl", "resolver_lag", "client_refresh"] if row.records else [])


def advise(choice: Choice, settings: Settings, traffic: Traffic | None = None) -> Advice:
    """Return what `choice` needs, with the other parts of the budget as in `settings`."""
    paths = tuple(_path(name, choice, settings.pre_stop) for name in choice.platforms)
    delay = max((path.seconds for path in paths), default=0.0)
    p99 = (traffic.p99 if traffic else None) or 0.0
    drain = max(settings.stream_window, settings.linger, p99, LEAST_DRAIN)
    kept = max(delay, settings.propagation_delay)
    whole = math.ceil(_sum(replace(settings, propagation_delay=kept), drain))
    return Advice(paths, tuple(_notes(choice)), delay, drain, whole)


def _sum(settings: Settings, drain: float) -> float:
    longest = max(drain, settings.drain_timeout or 0.0)
    return math.fsum(
        (
            settings.pre_stop,
            settings.propagation_delay,
            longest,
            settings.cleanup_timeout,
            settings.exit_margin,
        )
    )


def _path(name: str, choice: Choice, pre_stop: float) -> Path:
    row = PLATFORMS[name]
    way = _way(row, choice)
    if way == "pull":  # readiness flips at SIGTERM, after any preStop hook
        parts = (*_pull(row, choice), *_records(row, choice))
        return Path(name, way, parts)
    told = _teller(row, choice)
    before = _path(told, choice, pre_stop).parts if told else ()
    parts = (*before, *_push(row, choice), *_records(row, choice))
    waits_already = told is None or PLATFORMS[told].name == "kubernetes"
    covered = min(pre_stop, math.fsum(part.seconds for part in parts))
    if covered > 0 and waits_already and not any(part.seconds < 0 for part in parts):
        text = "the preStop hook has waited for these before SIGTERM"
        parts = (*parts, Part(name, -covered, text, "setting pre_stop"))
    return Path(name, way, parts)


def _way(row: Platform, choice: Choice) -> Way:
    if row.check is None or row.records is not None:
        return "push"
    given = choice.ways.get(row.name)
    if given is not None:
        return given
    return "push" if any(name in choice.platforms for name in row.told_by) else row.way


def _teller(row: Platform, choice: Choice) -> str | None:
    tellers = [name for name in row.told_by if name in choice.platforms]
    return max(tellers, key=lambda name: _path(name, choice, 0.0).seconds, default=None)


def _number(row: Platform, knob: str, default: Number, choice: Choice) -> Number:
    given = choice.numbers.get((row.name, knob))
    return default if given is None else Number(given, f"--{knob.replace('_', '-')}")


def _pull(row: Platform, choice: Choice) -> Iterator[Part]:
    assert row.check is not None
    period = _number(row, "probe_period", row.check.period, choice)
    threshold = _number(row, "failure_threshold", row.check.threshold, choice)
    timeout = _number(row, "probe_timeout", row.check.timeout, choice)
    checks = "check" if threshold.value == 1 else "checks"
    yield Part(
        row.name,
        period.value * threshold.value,
        f"{threshold.value:g} failed {checks}, one every {period.value:g} s",
        f"{period.source}; {threshold.source}",
    )
    yield Part(row.name, timeout.value, "the last check's timeout", timeout.source)


def _push(row: Platform, choice: Choice) -> Iterator[Part]:
    if row.lag is not None:
        lag = _number(row, "lag", row.lag, choice)
        told = _teller(row, choice)
        by = f"by {told}" if told else "at the stop"
        what = "record changed" if row.records else "told"
        yield Part(row.name, lag.value, f"{what} {by}", lag.source)


def _records(row: Platform, choice: Choice) -> Iterator[Part]:
    if row.records is None:
        return
    ttl = _number(row, "ttl", row.records.ttl, choice)
    if choice.old_ttl > ttl.value:
        yield Part(row.name, choice.old_ttl, "the old TTL, still cached", "--old-ttl")
    else:
        yield Part(row.name, ttl.value, "TTL", ttl.source)
    lag = _number(row, "resolver_lag", row.records.resolver_lag, choice)
    yield Part(row.name, lag.value, "resolvers beyond the TTL", lag.source)
    refresh = _number(row, "client_refresh", row.records.client_refresh, choice)
    yield Part(row.name, refresh.value, "clients and pools look up again", refresh.source)


def _notes(choice: Choice) -> Iterator[str]:
    for name in choice.platforms:
        row = PLATFORMS[name]
        if row.note:
            yield f"{name}: {row.note}"
        if row.records:
            yield (
                f"{name}: never take out the last record: 'no such name' is cached too, for "
                f"{NEGATIVE_TTL.value:g} s at Route 53 ({NEGATIVE_TTL.source.partition(';')[0]})"
            )


def judge(settings: Settings, choice: Choice, advice: Advice, traffic: Traffic) -> list[Finding]:
    """Return what does not fit, each with its numbers and the fix; errors come first."""
    contradictions = [finding for finding in check(settings) if finding.severity == "error"]
    found = [*contradictions, *_too_early(settings, advice)]
    # Of a drain that is not there the contradiction has said enough.
    if traffic.p99 is not None and 0 < settings.drain < traffic.p99:
        found.append(
            Finding(
                "error",
                f"p99 {traffic.p99:g} s does not fit the drain of {settings.drain:g} s: 1 request "
                f"in 100 would be cut; {_longer(settings, advice)}",
            )
        )
    found += _platforms_kill(settings, choice, advice)
    if not found and settings.grace_period < advice.grace:
        found.append(
            Finding(
                "warning",
                f"grace_period {settings.grace_period:g} s (from "
                f"{settings.source('grace_period')}) leaves a drain of {settings.drain:g} s, where "
                f"{advice.drain:g} s are asked for; {_longer(settings, advice)}",
            )
        )
    return sorted(found, key=lambda finding: finding.severity)


def _too_early(settings: Settings, advice: Advice) -> Iterator[Finding]:
    if advice.slowest is None or settings.propagation_delay >= advice.delay - 1e-9:
        return
    yield Finding(
        "error",
        f"propagation_delay {settings.propagation_delay:g} s "
        f"(from {settings.source('propagation_delay')}) is less than the {advice.delay:g} s that "
        f"{advice.slowest.platform} needs to notice; set propagation_delay to {advice.delay:g} and "
        f"grace_period to at least {_wanted(settings, advice)}",
    )


def _wanted(settings: Settings, advice: Advice) -> int:
    """The grace period that is pasted: the platform must wait as long as the process thinks."""
    return max(advice.grace, math.ceil(settings.grace_period))


def _platforms_kill(settings: Settings, choice: Choice, advice: Advice) -> Iterator[Finding]:
    """Judge the platforms' own grace periods, which are their defaults until somebody raises them.

    A warning where a grace period was given, for then somebody may have done so.
    """
    wanted = _wanted(settings, advice)
    for name in choice.platforms:
        grace = PLATFORMS[name].grace
        if grace is None:
            continue
        if wanted > grace.seconds.value:
            yield Finding(
                "warning" if _given(settings) else "error",
                f"{name} sends SIGKILL after {grace.seconds.value:g} s unless {grace.option} says "
                f"otherwise ({grace.seconds.source}), {wanted - grace.seconds.value:g} s before a "
                f"stop of {wanted} s is over; set {grace.option} to at least {wanted} s",
            )
        if grace.most is not None and wanted > grace.most.value:
            yield Finding(
                "warning",
                f"{name}: {grace.option} may be {grace.most.value:g} s at most "
                f"({grace.most.source}), less than the {wanted} s of this stop; lower what it "
                "takes, or --lag and the balancer's checks",
            )


def _longer(settings: Settings, advice: Advice) -> str:
    fix = f"set grace_period to at least {advice.grace}"
    return f"{fix} and raise drain_timeout" if settings.drain_timeout is not None else fix


def enough(settings: Settings, advice: Advice) -> Settings:
    """Return `settings` with what falls short raised to what is advised, and nothing lowered."""
    drain = settings.drain_timeout
    if drain is not None:
        drain = max(drain, advice.drain)
    return replace(
        settings,
        propagation_delay=max(settings.propagation_delay, advice.delay),
        drain_timeout=drain,
        grace_period=max(settings.grace_period, float(advice.grace)),
    )
