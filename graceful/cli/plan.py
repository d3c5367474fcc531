"""`graceful plan`: options, output and exit status around `graceful.core.advice`; what it
looks like is `graceful.planning`'s.

Exit status: 0 = the settings fit the platforms, 1 = they do not, 2 = the command line is wrong.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..core.advice import Choice, Traffic, advise, judge, used_by
from ..core.budget import SETTINGS, Settings, SettingsError, closest
from ..core.plan import steps
from ..core.platforms import KNOBS, PLATFORMS, Way
from ..planning import KINDS, View, fitting, page, show, snippet, svg, variables
from ..settings import load

__all__ = ["plan"]

WIDTH = 100
"""Columns of text at most, on a terminal."""
UNFOLDED = 10_000

DRAWN = {".html": page, ".svg": svg}
"""What `--output` writes, by the ending of the file."""

SECONDS = tuple(
    row
    for row in SETTINGS
    if row.kind.startswith("seconds")
    and row.name
    in (
        "grace_period",
        "propagation_delay",
        "pre_stop",
        "stream_window",
        "linger",
        "drain_timeout",
        "cleanup_timeout",
        "exit_margin",
    )
)

HELP = """Show the timeline of a stop and what the platforms in front of it need.

\b
    graceful plan --platform kubernetes,alb --p99 8
    graceful plan --platform haproxy --probe-period 1 --format json
    graceful plan --platform ecs,alb --output plan.html --paste ecs

Options beat GRACEFUL_* variables, which beat defaults. Exit status: 0 = the settings fit, 1 = they
do not, 2 = the command line is wrong.
"""


def _checked(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuse what is no amount: click's float takes nan, inf and negative numbers."""
    if value is not None and (not math.isfinite(value) or value < 0):
        raise click.BadParameter(f"{value}: give a finite number, zero or more", ctx, option)
    return value


def _options() -> list[click.Parameter]:
    found: list[click.Parameter] = [
        click.Option(["--platform", "platforms"], multiple=True, help="Several: repeat, or commas.")
    ]
    found += [_option(row.name, row.meaning) for row in SECONDS]
    found += [_option(knob.name, knob.meaning) for knob in KNOBS.values()]
    found += [
        _option("old_ttl", "TTL before it was lowered, if less than one such TTL ago"),
        _option("rate", "requests a second of this instance"),
        _option("mean", "mean latency, seconds"),
        _option("p99", "99th percentile of latency, seconds"),
        click.Option(["--notice"], type=click.Choice(["push", "pull"]), help="How they notice."),
        click.Option(
            ["--paste", "kinds"],
            type=click.Choice(list(KINDS)),
            multiple=True,
            help="Settings to paste; by default what fits the platforms. Can be repeated.",
        ),
        click.Option(
            ["--output", "file"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write a page (.html) or the picture alone (.svg), too.",
        ),
        click.Option(["--format", "output"], type=click.Choice(["text", "json"]), default="text"),
    ]
    return found


def _option(name: str, meaning: str) -> click.Option:
    return click.Option(
        [f"--{name.replace('_', '-')}"], type=float, callback=_checked, help=f"{meaning}."
    )


def _run(
    platforms: tuple[str, ...],
    notice: Way | None,
    kinds: tuple[str, ...],
    file: Path | None,
    output: str,
    old_ttl: float | None,
    **given: Any,
) -> None:
    if file is not None and file.suffix not in DRAWN:
        raise click.UsageError(f"--output {file}: give a name that ends in .html or .svg")
    values = {name: value for name, value in given.items() if value is not None}
    choice = _choice(_names(platforms), values, notice, old_ttl)
    traffic = Traffic(*(values.get(name) for name in ("rate", "mean", "p99")))
    if (traffic.rate is None) != (traffic.mean is None):
        raise click.UsageError("--rate and --mean belong together: in flight = rate x mean")
    try:
        settings = _settings({row.name: values[row.name] for row in SECONDS if row.name in values})
    except SettingsError as error:
        click.echo(f"graceful plan: {error}", err=True)
        sys.exit(1)
    view = _view(choice, settings, traffic, kinds)
    if output == "json":
        click.echo(json.dumps(_data(view), indent=2))
    else:
        show(view, _console())
    if file is not None:
        _write(file, DRAWN[file.suffix](view))
    sys.exit(1 if view.problems else 0)


def _view(choice: Choice, settings: Settings, traffic: Traffic, kinds: tuple[str, ...]) -> View:
    advice = advise(choice, settings, traffic)
    problems = tuple(finding.text for finding in judge(settings, advice, traffic))
    wanted = tuple(dict.fromkeys(kinds)) or fitting(choice)
    return View(settings, choice, advice, traffic, problems, wanted)


def _console() -> Console:
    """On a terminal text is folded; in a pipe each text is one line, for grep."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path to paste may have any letter
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else UNFOLDED
    return console


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        click.echo(f"graceful plan: {file}: {error.strerror}", err=True)
        sys.exit(2)


def _names(platforms: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(n.strip() for text in platforms for n in text.split(",")))
    for name in names:
        if name not in PLATFORMS:
            near = closest(name, PLATFORMS).replace("the settings are", "there are")
            raise click.UsageError(f"there is no platform {name!r}; {near}")
    return names


def _choice(
    names: tuple[str, ...], values: dict[str, float], notice: Way | None, old_ttl: float | None
) -> Choice:
    ways: dict[str, Way] = dict.fromkeys(names, notice) if notice else {}
    numbers = {(n, knob): values[knob] for n in names for knob in KNOBS if knob in values}
    choice = Choice(names, numbers, ways, old_ttl or 0.0)
    asked = [knob for knob in KNOBS if knob in values] + ["ttl"] * (old_ttl is not None)
    for knob in asked:
        if KNOBS[knob].whole and knob in values and (values[knob] < 1 or values[knob] % 1):
            raise click.UsageError(f"--{knob.replace('_', '-')}: give a whole number from 1 on")
        if not used_by(knob, choice):
            others = [n for n in PLATFORMS if used_by(knob, Choice((n,), {}, {}))]
            option = "ttl or --old-ttl" if knob == "ttl" else knob.replace("_", "-")
            raise click.UsageError(
                f"--{option}: no chosen platform uses it; {', '.join(others)} do"
            )
    return choice


def _settings(options: dict[str, float]) -> Settings:
    """Options beat variables, as in `graceful run`."""
    variables = {row.variable for row in SECONDS if row.name in options}
    others = {name: value for name, value in os.environ.items() if name not in variables}
    return load(options, source="an option of graceful plan", environ=others)


def _data(view: View) -> dict[str, Any]:
    advice = view.advice
    return {
        "fits": not view.problems,
        "problems": list(view.problems),
        "advised": {"propagation_delay": advice.delay, "grace_period": advice.grace},
        "paste": variables(view.advised),
        "snippets": {kind: snippet(kind, view.advised, view.choice) for kind in view.kinds},
        "in_flight": view.traffic.in_flight,
        "settings": view.settings.values(),
        "timeline": [
            {"at": step.at, "phase": step.phase, "text": step.text} for step in steps(view.settings)
        ],
        "platforms": [
            {
                "platform": path.platform,
                "way": path.way,
                "seconds": path.seconds,
                "parts": [asdict(part) for part in path.parts],
            }
            for path in advice.paths
        ],
        "notes": list(advice.notes),
    }


plan = click.Command(
    "plan",
    callback=_run,
    params=_options(),
    help=HELP,
    short_help="Show a stop's timeline and what the platforms need.",
)
