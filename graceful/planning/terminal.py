"""A plan in a terminal: tables, and the stop as bars to scale, readable at 80 columns and without
colour."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.plan import Bar, bars, noticing, steps
from .chart import by_name
from .paste import snippet
from .view import View

__all__ = ["picture", "show"]

WIDTH: Final = 50
"""Columns of the time axis; with the names and numbers a line has less than 80."""

FILL: Final = {"main": "#", "inner": "-", "never": "x", "notice": "=~"}
"""Parts of one platform's delay take turns."""
COLOURS: Final = {"main": "yellow", "inner": "cyan", "never": "red", "notice": "blue"}
SEVERITIES: Final = {"error": "bold red", "warning": "yellow"}


def show(view: View, console: Console) -> None:
    """Print everything."""
    console.print(Text("The longest stop, seconds after SIGTERM", "bold"))
    if view.refused:
        console.print(Text("(graceful would not start with these settings)", "red"))
    console.print(_steps(view))
    console.print()
    for drawn in picture(view):
        console.print(drawn)
    if any(bar.kind == "never" for bar in bars(view.settings, view.kill)):
        console.print(Text("  x = never happens: SIGKILL comes before", COLOURS["never"]))
    for path in view.advice.paths:
        console.print()
        console.print(Text(f"{path.platform} ({path.way}) needs {path.seconds:g} s", "bold"))
        table = _table()
        for part in path.parts:
            table.add_row(f"{part.seconds:g} s", Text(f"{part.platform}: {part.text}"))
            table.add_row("", Text(part.source, "dim"))
        console.print(table)
    console.print()
    for answer in view.answers:
        console.print(Text(answer))
    for note in view.advice.notes:
        console.print(Text.assemble(("note: ", "cyan"), note))
    for finding in view.findings:
        severity = finding.severity
        console.print(Text.assemble((f"{severity}: ", SEVERITIES[severity]), finding.text))
    for kind in view.kinds:
        console.print()
        console.print(Text(f"To paste ({kind}):", "bold"))
        for line in snippet(kind, view.advised, view.choice).splitlines():
            console.print(Text("  " + line), soft_wrap=True)  # a line that is folded pastes wrong


def _steps(view: View) -> Table:
    table = _table()
    table.add_column()
    for step in steps(view.settings, view.kill):
        table.add_row(f"{step.at:.1f}", step.phase, Text(step.text))
    return table


def _table() -> Table:
    """Return a table without lines, whose first column is numbers."""
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(justify="right", no_wrap=True, min_width=7)
    table.add_column()
    return table


def picture(view: View) -> list[Text]:
    """Return the stop as bars on one scale, and below it how the platforms notice."""
    main, kills = bars(view.settings, view.kill), view.kill.at
    paths = {path.platform: noticing(path) for path in view.advice.paths}
    every = [*main, *(bar for found in paths.values() for bar in found)]
    ends = [0.0, kills, *(bar.begins for bar in every), *(bar.ends for bar in every)]
    first, last = min(ends), max(*ends, min(ends) + 0.001)
    lines = [_axis(first, last)]
    lines += [_line(name, found, first, last) for name, found in by_name(main)]
    lines.append(_moment("SIGKILL", kills, first, last))
    lines += [_line(f"{name} sees", found, first, last) for name, found in paths.items()]
    return lines


def _axis(first: float, last: float) -> Text:
    begins, ends = f"{_short(first)} s", f"{_short(last)} s"
    return Text(f"  {'':<15} {begins}{ends:>{WIDTH + 2 - len(begins)}}", "dim")


def _line(name: str, found: list[Bar], first: float, last: float) -> Text:
    scale = WIDTH / (last - first)
    drawn = [" "] * WIDTH
    for number, bar in enumerate(found):
        fill = FILL[bar.kind]
        begins = min(round((bar.begins - first) * scale), WIDTH - 1)
        ends = max(begins + 1, round((bar.ends - first) * scale))
        drawn[begins:ends] = fill[number % len(fill)] * (ends - begins)
    begins_at = found[0].begins if found and found[0].kind != "notice" else 0.0
    seconds = found[-1].ends - begins_at if found else 0.0
    line = Text(f"  {name:<15} |{''.join(drawn[:WIDTH])}| {_short(seconds)} s")
    if found:
        line.stylize(COLOURS[found[0].kind], 19, 19 + WIDTH)
    line.highlight_regex(r"x+(?=[ x]*\|)", COLOURS["never"])
    return line


def _moment(name: str, at: float, first: float, last: float) -> Text:
    column = min(round((at - first) * WIDTH / (last - first)), WIDTH - 1)
    drawn = f"{' ' * column}^".ljust(WIDTH)
    return Text.assemble(f"  {name:<15} |", (drawn, COLOURS["never"]), f"| {_short(at)} s")


def _short(seconds: float) -> str:
    """Return at most six letters for less than a million seconds."""
    return f"{seconds:.0f}" if abs(seconds) >= 1000 else f"{round(seconds, 2):.4g}"
