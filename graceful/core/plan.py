"""The stop that settings lead to, step by step, for people to read before it happens.

Only text and arithmetic: what really happens is the driver's, and the deadlines are the budget's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .advice import Path
from .budget import Settings, Timeline
from .lifecycle import LifecycleCore
from .phases import Phase

__all__ = ["Bar", "Step", "bars", "noticing", "steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a stop."""

    at: float
    """Seconds after SIGTERM; below zero what a preStop hook does before."""
    phase: str
    text: str


def steps(settings: Settings) -> list[Step]:
    """Return the longest stop that `settings` allow, in order."""
    return sorted(_steps(settings), key=lambda step: step.at)


def _steps(settings: Settings) -> Iterator[Step]:
    timeline = Timeline.start(settings, 0.0)
    drains, window = timeline.delay_ends, LifecycleCore(settings, lambda: 0.5).window
    duck, drain, closing = Phase.LAME_DUCK.name, Phase.DRAINING.name, Phase.CLOSING.name
    if settings.pre_stop:
        yield Step(timeline.began, "", "the grace period begins with the preStop hook")
    if drains:
        yield Step(0.0, duck, "SIGTERM: readiness says 503, serving goes on")
        yield Step(drains, drain, "no new connections; what is in flight finishes")
    else:
        yield Step(0.0, drain, "SIGTERM: readiness says 503, no new connections")
    if window:
        yield Step(drains, drain, f"streams are told to reconnect, spread over {window:g} s")
    if settings.linger:
        linger_ends = drains + settings.linger
        yield Step(linger_ends, drain, "linger over: with nothing in flight the server stops here")
    yield Step(timeline.drain_deadline, closing, "what is still in flight is cut; clean-up hooks")
    if timeline.cleanup_deadline < timeline.exits_at:
        yield Step(timeline.cleanup_deadline, closing, "clean-up is over")
    yield Step(timeline.exits_at, "", "the watchdog names what is left and leaves")
    yield Step(timeline.began + settings.grace_period, "", "SIGKILL by the platform, never needed")


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of the longest stop, in seconds after SIGTERM."""

    name: str
    begins: float
    ends: float
    kind: str
    """'main' for the parts of the sum, 'inner' for what lies inside the drain, 'notice' for what a
    platform needs."""


def bars(settings: Settings) -> list[Bar]:
    """Return what the grace period is spent on, in order; nothing is shorter than it is."""
    timeline = Timeline.start(settings, 0.0)
    drains, window = timeline.delay_ends, LifecycleCore(settings, lambda: 0.5).window
    kills = timeline.began + settings.grace_period
    found = [
        Bar("preStop hook", timeline.began, 0.0, "main"),
        Bar("lame duck", 0.0, drains, "main"),
        Bar("drain", drains, timeline.drain_deadline, "main"),
        Bar("farewells", drains, drains + window, "inner"),
        Bar("linger", drains, drains + settings.linger, "inner"),
        Bar("clean-up", timeline.drain_deadline, timeline.cleanup_deadline, "main"),
        Bar("to spare", timeline.cleanup_deadline, timeline.exits_at, "main"),
        Bar("exit margin", timeline.exits_at, kills, "main"),
    ]
    return [bar for bar in found if bar.ends - bar.begins > 1e-9]


def noticing(path: Path) -> list[Bar]:
    """Return one platform's delay, part by part; what a preStop hook has waited is before 0."""
    at = sum(part.seconds for part in path.parts if part.seconds < 0)
    found: list[Bar] = []
    for part in path.parts:
        if part.seconds > 1e-9:
            found.append(Bar(f"{part.platform}: {part.text}", at, at + part.seconds, "notice"))
            at += part.seconds
    return found
