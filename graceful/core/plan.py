"""The stop that settings lead to, step by step, for people to read before it happens.

Only text and arithmetic: what really happens is the driver's, and the deadlines are the budget's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .advice import Kill, Path
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


def steps(settings: Settings, kill: Kill | None = None) -> list[Step]:
    """Return the longest stop that `settings` allow, in order, up to `kill`.

    Without a `kill` the platform waits for the grace period, as it should.
    """
    kill = kill or _in_time(settings)
    planned = sorted(_steps(settings), key=lambda step: step.at)
    reached = [step for step in planned if step.at <= kill.at + 1e-9]
    if reached == planned:
        return [*planned, Step(kill.at, "", f"SIGKILL by {kill.by}, never needed")]
    text = f"SIGKILL by {kill.by}: all that is left is cut, with no report"
    return [*reached, Step(kill.at, "", text)]


def _in_time(settings: Settings) -> Kill:
    return Kill(settings.grace_period - settings.pre_stop, "the platform")


def _ends(settings: Settings) -> tuple[float, float, float]:
    """Return when drain and clean-up are over and the process leaves, also where they don't fit."""
    timeline = Timeline.start(settings, 0.0)
    drained = timeline.delay_ends + max(settings.drain, 0.0)
    cleaned = drained + settings.cleanup_timeout
    return drained, cleaned, max(timeline.exits_at, cleaned)


def _steps(settings: Settings) -> Iterator[Step]:
    timeline = Timeline.start(settings, 0.0)
    drains, window = timeline.delay_ends, _window(settings)
    drained, cleaned, leaves = _ends(settings)
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
    linger_ends = drains + settings.linger
    if drains < linger_ends <= drained:
        yield Step(linger_ends, drain, "linger over: with nothing in flight the server stops here")
    yield Step(drained, closing, "what is still in flight is cut; clean-up hooks")
    if cleaned < leaves:
        yield Step(cleaned, closing, "clean-up is over")
    yield Step(leaves, "", "the watchdog names what is left and leaves")


def _window(settings: Settings) -> float:
    return max(0.0, LifecycleCore(settings, lambda: 0.5).window)


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of the longest stop, in seconds after SIGTERM."""

    name: str
    begins: float
    ends: float
    kind: str
    """'main' for the parts of the sum, 'inner' for what lies inside the drain, 'notice' for what a
    platform needs; 'never' for what SIGKILL comes before."""


def bars(settings: Settings, kill: Kill | None = None) -> list[Bar]:
    """Return what the grace period is spent on, in order; nothing is shorter than it is.

    A bar that `kill` falls into is two, of the same name, the second of which is 'never'.
    """
    kill = kill or _in_time(settings)
    return [part for bar in _bars(settings) for part in _halves(bar, kill.at)]


def _halves(bar: Bar, at: float) -> Iterator[Bar]:
    if bar.ends <= at + 1e-9:
        yield bar
        return
    if bar.begins < at:
        yield replace(bar, ends=at)
    yield replace(bar, begins=max(bar.begins, at), kind="never")


def _bars(settings: Settings) -> list[Bar]:
    timeline = Timeline.start(settings, 0.0)
    drains, window = timeline.delay_ends, _window(settings)
    drained, cleaned, leaves = _ends(settings)
    found = [
        Bar("preStop hook", timeline.began, 0.0, "main"),
        Bar("lame duck", 0.0, drains, "main"),
        Bar("drain", drains, drained, "main"),
        Bar("farewells", drains, min(drains + window, drained), "inner"),
        Bar("linger", drains, min(drains + settings.linger, drained), "inner"),
        Bar("clean-up", drained, cleaned, "main"),
        Bar("to spare", cleaned, leaves, "main"),
        Bar("exit margin", leaves, leaves + settings.exit_margin, "main"),
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
