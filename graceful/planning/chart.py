"""Where everything lies in the picture of a plan: seconds become percent of the width.

Pure. Text stands above its bar and is never scaled, so the picture is as readable at 400 px as it
is at 1280. Nothing here knows about colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from ..core.advice import Advice, Kill
from ..core.budget import Settings
from ..core.plan import Bar, bars, noticing

__all__ = ["Chart", "Mark", "Row", "by_name", "chart"]

TOP: Final = 30
"""Pixels for the axis."""
ROW: Final = 38
HEAD: Final = 30
"""Pixels of a line that says what the rows below it are."""
TICKS: Final = 6
"""Most numbers on the axis: more would touch each other at 400 px."""
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True)
class Mark:
    """A bar, in percent of the width."""

    x: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True)
class Row:
    """A line of text and the bars below it."""

    y: int
    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn."""

    height: int
    axis: tuple[tuple[float, str, str], ...]
    """Percent, text and anchor."""
    rows: tuple[Row, ...]
    heads: tuple[tuple[int, str], ...]
    """Pixels and text."""
    edge: float
    """Where the propagation delay ends, in percent."""
    kill: float
    """Where SIGKILL comes, in percent."""


class _Scale:
    def __init__(self, first: float, last: float) -> None:
        self.first, self.last = first, max(last, first + 0.001)

    def x(self, at: float) -> float:
        return round(100 * (at - self.first) / (self.last - self.first), 3)

    def mark(self, bar: Bar, kind: str) -> Mark:
        width = max(self.x(bar.ends) - self.x(bar.begins), 0.2)
        x = min(self.x(bar.begins), 100 - width)
        return Mark(round(x, 3), round(width, 3), kind, f"{bar.name}: {span(bar)}")

    def moment(self, at: float, kind: str) -> Mark:
        """Mark one moment by the narrowest bar that can be seen."""
        return Mark(min(self.x(at), 99.4), 0.6, kind, f"SIGKILL: {at:g} s")

    def axis(self) -> Iterator[tuple[float, str, str]]:
        reach = self.last - self.first
        step = next((s for s in _STEPS if reach / s < TICKS), None)
        if step is None:  # years of it
            step = 3600 * math.ceil(reach / 3600 / TICKS)
        at = math.ceil(self.first / step) * step
        while at <= self.last:
            x = self.x(at)
            anchor = "start" if x < 5 else "end" if x > 95 else "middle"
            yield x, f"{at:g} s", anchor
            at += step


def span(bar: Bar) -> str:
    """Return how long a bar is, and from when to when."""
    return f"{bar.ends - bar.begins:g} s, from {bar.begins:g} to {bar.ends:g} s"


def chart(settings: Settings, advice: Advice, kill: Kill | None = None) -> Chart:
    """Lay out the stop that `settings` lead to, and below it how the platforms notice.

    `kill` is SIGKILL where it does not come when `settings` say.
    """
    kills = kill.at if kill else settings.grace_period - settings.pre_stop
    main, paths = bars(settings, kill), [(path, noticing(path)) for path in advice.paths]
    every = [*main, *(bar for _, found in paths for bar in found)]
    ends = [0.0, kills, *(bar.begins for bar in every), *(bar.ends for bar in every)]
    scale = _Scale(min(ends), max(ends))
    heads, rows, y = [(TOP + 20, "The stop, in seconds after SIGTERM")], list[Row](), TOP + HEAD
    for name, found in by_name(main):
        kind = name.replace(" ", "-").lower()
        whole = replace(found[0], ends=found[-1].ends)
        text = f"{name}: {span(whole)}{_cut(found)}"
        marks = tuple(scale.mark(b, "never" if b.kind == "never" else kind) for b in found)
        rows.append(Row(y, text, marks))
        y += ROW
    rows.append(Row(y, f"SIGKILL: {kills:g} s after SIGTERM", (scale.moment(kills, "kill"),)))
    y += ROW
    if paths:
        heads.append((y + 20, "Until each platform has noticed"))
        y += HEAD
    for path, found in paths:
        late = path.seconds > settings.propagation_delay + 1e-9
        text = f"{path.platform}: {path.seconds:g} s after SIGTERM" + (", which is too late" * late)
        kinds = ["late" if late else "notice", "late-2" if late else "notice-2"]
        marks = tuple(scale.mark(bar, kinds[n % 2]) for n, bar in enumerate(found))
        rows.append(Row(y, text, marks))
        y += ROW
    edge = scale.x(settings.propagation_delay)
    axis = tuple(scale.axis())
    return Chart(y + 6, axis, tuple(rows), tuple(heads), edge, scale.x(kills))


def _cut(found: list[Bar]) -> str:
    if found[0].kind == "never":
        return ", never: SIGKILL comes before"
    return ", cut by SIGKILL" if found[-1].kind == "never" else ""


def by_name(found: list[Bar]) -> list[tuple[str, list[Bar]]]:
    """Put the two halves of a bar that SIGKILL falls into side by side again."""
    return [(name, list(group)) for name, group in groupby(found, key=lambda bar: bar.name)]
