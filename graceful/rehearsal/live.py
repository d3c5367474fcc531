"""The view on a terminal: instances and counts that move, the latest events below them."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .view import InstanceState, Snapshot

__all__ = ["LiveView"]

EVENTS: Final = 8
"""Latest events shown."""
STYLES: Final = {
    "serving": "green",
    "lame duck": "yellow",
    "draining": "dark_orange",
    "exited": "red",
    "starting": "cyan",
}


class LiveView:
    """Redraws itself a few times a second; leaves its last picture behind."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._before: Snapshot | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self._live.__exit__(kind, error, traceback)

    def event(self, seconds: float, text: str) -> None:
        """Keep it for the next picture."""
        self._events.append(f"{seconds:8.3f} s  {text}")

    def update(self, snapshot: Snapshot) -> None:
        """Draw the next picture."""
        self._live.update(self._picture(snapshot))
        self._before = snapshot

    def _picture(self, now: Snapshot) -> RenderableType:
        events = Text("\n".join(self._events), style="dim")
        return Group(_instances(now), Text(), self._counts(now), _progress(now), Text(), events)

    def _counts(self, now: Snapshot) -> Text:
        text = Text(f"{now.ok:,} ok", style="green")
        text.append(f"   {now.lost:,} lost", style="red" if now.lost else "green")
        rest = f"   {now.in_flight} in flight   {self._rate(now):.0f} requests/s"
        return text.append(rest, style="default")

    def _rate(self, now: Snapshot) -> float:
        before = self._before
        if before is None or now.seconds <= before.seconds:
            return 0.0
        done = now.ok + now.lost - before.ok - before.lost
        return done / (now.seconds - before.seconds)


def _instances(now: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ["instance", "port", "phase", "rotation"]:
        table.add_column(heading)
    for heading in ["served", "lost", "streams"]:
        table.add_column(heading, justify="right")
    for state in now.instances:
        table.add_row(*_instance(state))
    return table


def _instance(state: InstanceState) -> list[RenderableType]:
    return [
        state.name,
        str(state.port),
        Text(f"{state.phase:<9}", style=STYLES.get(state.phase, "")),
        "chosen" if state.in_rotation else Text("out", style="dim"),
        f"{state.served:,}",
        Text(f"{state.lost:,}", style="red" if state.lost else ""),
        str(state.streams),
    ]


def _progress(now: Snapshot) -> RenderableType:
    if not now.restarts_planned:
        return Text(f"{now.seconds:.0f} s of load, no restarts")
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=now.restarts_planned, completed=now.restarts, width=40)
    grid.add_row(bar, f"{now.restarts} of {now.restarts_planned} restarts, {now.seconds:.0f} s")
    return grid
