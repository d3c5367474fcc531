"""Where everything lies in the picture of a rehearsal. Pure: numbers of a `Result` become marks.

One time axis for all rows: of each instance its phases as bands and its requests as ticks, then
requests in flight, latency, and a line for each stream client. Nothing here knows about colours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..figures import duration
from ..outcomes import Outcome, Sent
from ..result import Restart, Result, StreamRecord
from ..schedule import percentile

__all__ = ["Band", "Chart", "Curve", "Label", "Line", "Lost", "Row", "chart"]

LEFT: Final = 92
"""Where time begins: the names of the rows are to the left of it."""
RIGHT: Final = 1190
WIDTH: Final = 1200
BAND: Final = 24
TICKS: Final = 16
GAP: Final = 34
CURVE: Final = 64
STREAMS: Final = 480
"""Most height that the lines of all stream clients get."""
CUT: Final = 5
"""Width of the mark where a stream was cut: its client is back too soon for the gap to be seen."""
LETTER: Final = 6.6
"""Width of a letter of a label: one that has no room is left out."""
NOBODY: Final = "no instance"
BIN: Final = 0.5
"""Seconds of which one point of the latency curves is made."""


@dataclass(frozen=True)
class Band:
    """One phase of one process."""

    phase: str
    x: float
    width: float
    text: str
    title: str


@dataclass(frozen=True)
class Label:
    """A word at a place."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    tone: str = ""


@dataclass(frozen=True)
class Lost:
    """One request that was lost."""

    x: float
    title: str


@dataclass(frozen=True)
class Line:
    """A piece of a stream client's life."""

    x1: float
    x2: float
    y: float
    tone: str
    """The number of the instance, 'gap', or 'cut'."""
    title: str


@dataclass
class Row:
    """One instance."""

    name: str
    y: float
    bands: list[Band] = field(default_factory=list[Band])
    ticks: str = ""
    """Path of all ticks of requests that went well."""
    lost: list[Lost] = field(default_factory=list[Lost])
    labels: list[Label] = field(default_factory=list[Label])


@dataclass(frozen=True)
class Curve:
    """One curve with its name at its end."""

    name: str
    y: float
    height: float
    path: str
    top: str
    """The value at its upper edge."""
    tone: str = ""


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn, in pixels."""

    width: int
    height: float
    axis: list[Label]
    rows: list[Row]
    curves: list[Curve]
    lines: list[Line]
    labels: list[Label]
    bottom: float
    stroke: float
    """Width of the line of a stream; a cut is a mark of a few of these."""


class _Scale:
    """Seconds to pixels."""

    def __init__(self, seconds: float) -> None:
        self._per_second = (RIGHT - LEFT) / max(seconds, 0.001)
        self.seconds = seconds

    def x(self, at: float) -> float:
        return round(LEFT + min(max(at, 0.0), self.seconds) * self._per_second, 1)

    def axis(self) -> Iterator[float]:
        """Yield round numbers, at most a dozen."""
        step = next(s for s in _STEPS if self.seconds / s <= 12)
        at = 0.0
        while at <= self.seconds:
            yield at
            at += step


_STEPS: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, math.inf)


def chart(result: Result, seconds: float | None = None) -> Chart:
    """Lay out `result`; `seconds`: the length of the axis, for two that stand together."""
    scale = _Scale(seconds or result.seconds)
    rows: list[Row] = []
    y = 26.0
    for name in [*_names(result), *_nobody(result.sent)]:
        rows.append(_row(name, y, result, scale))
        y += BAND + TICKS + GAP
    curves: list[Curve] = []
    if result.sent:
        y += 8
        curves.append(_in_flight(result.sent, y, scale))
        y += CURVE + GAP
        curves += _latency(result.sent, y, scale)
        y += CURVE + GAP
    lives = _lives(result.streams)
    step = min(9.0, STREAMS / max(len(lives), 1))
    lines, labels, y = _streams(lives, rows, y, step, scale)
    axis = [_second(at, scale) for at in scale.axis()]
    return Chart(WIDTH, y + 8, axis, rows, curves, lines, labels, y, min(1.5, 0.7 * step))


def _second(at: float, scale: _Scale) -> Label:
    """Name a second of the axis; the last one must not stand out over the edge."""
    x, text = scale.x(at), f"{at:g} s"
    anchor = "end" if x + len(text) * LETTER / 2 > WIDTH else "middle"
    return Label(x, 14, text, anchor)


def _names(result: Result) -> list[str]:
    named = {r.instance for r in result.restarts} | {s.instance for s in result.sent}
    named |= {s.instance for s in result.streams}
    return sorted(name for name in named if name)


def _nobody(sent: Sequence[Sent]) -> list[str]:
    """Name the row of what was lost before any instance had it; there may be none."""
    return [NOBODY] if any(s.instance is None and s.outcome is not Outcome.OK for s in sent) else []


def _row(name: str, y: float, result: Result, scale: _Scale) -> Row:
    row = Row(name, y)
    if name == NOBODY:
        row.lost = list(_lost(result.sent, None, scale))
        return row
    restarts = [r for r in result.restarts if r.instance == name]
    row.bands = list(_bands(name, restarts, result, scale))
    for restart in restarts:
        row.labels += _moments(restart, result.signal, y, scale)
    columns = sorted({round(scale.x(s.at)) for s in result.sent if s.instance == name})
    row.ticks = "".join(f"M{x} {y + BAND + 3}v{TICKS - 3}" for x in columns)
    row.lost = list(_lost(result.sent, name, scale))
    return row


def _lost(sent: Sequence[Sent], instance: str | None, scale: _Scale) -> Iterator[Lost]:
    for one in sent:
        if one.instance == instance and one.outcome is not Outcome.OK:
            yield Lost(scale.x(one.at), f"lost: {one.kind}, {one.outcome}, sent at {one.at:.2f} s")


def _bands(name: str, restarts: Sequence[Restart], result: Result, scale: _Scale) -> Iterator[Band]:
    since = result.first_ready.get(name, 0.0)
    if since:
        yield _band("starting", 0.0, since, scale)
    for restart in restarts:
        for phase, start, end in _phases(restart, since, reload=result.signal != "SIGTERM"):
            yield _band(phase, start, end, scale)
        since = restart.sigterm_at + restart.ready
    yield _band("serving", since, result.seconds, scale)


def _phases(restart: Restart, since: float, *, reload: bool) -> Iterator[tuple[str, float, float]]:
    """Yield what one restart looks like from outside, from the last one's end to its own."""
    at = restart.sigterm_at
    yield "serving", since, at
    if reload:
        yield "reloading", at, at + restart.exit
        return
    refused = min(restart.exit if restart.refused is None else restart.refused, restart.exit)
    flip = refused if restart.readiness_flip is None else min(restart.readiness_flip, refused)
    if flip > 0.1:
        yield "still ready", at, at + flip
        yield "lame duck", at + flip, at + refused
    else:
        yield "lame duck", at, at + refused
    yield "draining", at + refused, at + restart.exit
    yield "starting", at + restart.exit, at + restart.ready


def _band(phase: str, start: float, end: float, scale: _Scale) -> Band:
    x, width = scale.x(start), max(0.0, scale.x(end) - scale.x(start))
    seconds = f"{max(0.0, end - start):.1f} s"
    texts = (f"{phase} {seconds}", phase, seconds, "")
    text = next(t for t in texts if not t or len(t) * LETTER < width - 6)
    return Band(phase.replace(" ", "-"), x, width, text, f"{phase}, {start:.2f}–{end:.2f} s")


def _moments(restart: Restart, signal: str, y: float, scale: _Scale) -> Iterator[Label]:
    x = scale.x(restart.sigterm_at)
    below = y + BAND + TICKS + 18
    yield Label(x, below, signal, "middle", "signal")
    if signal == "SIGTERM":
        status = "SIGKILL" if restart.killed else f"exit {restart.exit_code}"
        at = scale.x(restart.sigterm_at + restart.exit)
        if at - x > (len(status) + len(signal)) * LETTER / 2 + 6:
            yield Label(at, below, status, "middle", "bad" if restart.killed else "exit")
            x, before = at, status
        else:
            before = signal
        ready = scale.x(restart.sigterm_at + restart.ready)
        if ready - x > (len(before) + len("ready")) * LETTER / 2 + 6:
            yield Label(ready, below, "ready", "middle", "exit")


def _in_flight(sent: Sequence[Sent], y: float, scale: _Scale) -> Curve:
    steps = sorted([(s.at, 1) for s in sent] + [(s.at + s.seconds, -1) for s in sent])
    peaks: dict[float, int] = {}
    count = most = 0
    for at, change in steps:
        count += change
        x = round(scale.x(at))
        peaks[x] = max(peaks.get(x, 0), count)
        most = max(most, count)
    points = [(x, peak / max(most, 1)) for x, peak in sorted(peaks.items())]
    steps_held = [
        (x, before) for (x, _), (_, before) in zip(points[1:], points, strict=False)
    ]  # a count holds until it changes
    held = sorted([*points, *steps_held], key=lambda point: point[0])
    return _curve("in flight", held, y, f"{most}", "flight")


def _latency(sent: Sequence[Sent], y: float, scale: _Scale) -> Iterator[Curve]:
    """Of the quick ones: the others take as long as they were asked to."""
    quick = [s for s in sent if s.kind != "slow" and s.outcome is Outcome.OK]
    bins: defaultdict[int, list[float]] = defaultdict(list)
    for one in quick:
        bins[int(one.at / BIN)].append(one.seconds)
    worst = max((percentile(values, 99) for values in bins.values()), default=0.0)
    for name, percent in (("p99", 99.0), ("p50", 50.0)):
        points = [
            (scale.x((number + 0.5) * BIN), percentile(values, percent) / (worst or 1.0))
            for number, values in sorted(bins.items())
        ]
        yield _curve(f"latency {name}", points, y, duration(worst), name)


def _curve(name: str, points: list[tuple[float, float]], y: float, top: str, tone: str) -> Curve:
    """Make a curve of points whose height is from 0 to 1."""
    places = [(x, round(y + CURVE * (1 - part), 1)) for x, part in points]
    path = " ".join(f"{'L' if i else 'M'}{x:g} {v:g}" for i, (x, v) in enumerate(places))
    return Curve(name, y, CURVE, path, top, tone)


_Lives = Mapping[tuple[str, int], list[StreamRecord]]


def _lives(streams: Sequence[StreamRecord]) -> _Lives:
    """Return the connections of each client, by its kind and number."""
    lives: defaultdict[tuple[str, int], list[StreamRecord]] = defaultdict(list)
    for stream in streams:
        lives[stream.kind, stream.client].append(stream)
    return lives


def _streams(
    lives: _Lives, rows: Sequence[Row], y: float, step: float, scale: _Scale
) -> tuple[list[Line], list[Label], float]:
    """Lay out a line for each client: where it was connected, and the gaps between."""
    if not lives:
        return [], [], y
    tones = {row.name: str(number) for number, row in enumerate(rows)}
    lines: list[Line] = []
    labels: list[Label] = []
    y += 6
    kind = ""
    for key in sorted(lives):
        if key[0] != kind:
            kind = key[0]
            y += 10
            labels.append(Label(0, y + 6, kind))
        lines += _life(lives[key], y, tones, scale)
        y += step
    return lines, labels, y + 10


def _life(
    connections: list[StreamRecord], y: float, tones: dict[str, str], scale: _Scale
) -> Iterator[Line]:
    connections.sort(key=lambda stream: stream.connected_at)
    y = round(y, 1)
    for stream, later in zip(connections, [*connections[1:], None], strict=True):
        begin, end = scale.x(stream.connected_at), scale.x(stream.ended_at)
        where = stream.instance or "somewhere"
        title = f"{stream.kind} {stream.client} on {where}, until {stream.ended_at:.2f} s: "
        yield Line(begin, end, y, tones.get(where, "0"), title + stream.ended)
        if later is not None:
            tone = "gap" if stream.told else "cut"
            wait = later.connected_at - stream.ended_at
            told = "told to reconnect" if stream.told else "not told"
            if not stream.told and stream.restart is not None:
                yield Line(end - CUT / 2, end + CUT / 2, y, "cut", f"{title}{stream.ended}")
            yield Line(end, scale.x(later.connected_at), y, tone, f"{told}; away {wait:.2f} s")
