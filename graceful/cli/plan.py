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
from dataclasses import asdict, replace
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

WAYS: tuple[Way, ...] = ("push", "pull")

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
    graceful plan --platform kubernetes,alb --lag kubernetes=3 --lag alb=15
    graceful plan --platform ecs,alb --output plan.html --paste ecs

Options beat GRACEFUL_* variables, which beat defaults. Exit status: 0 = the settings fit, 1 = they
do not, 2 = the command line is wrong.
"""


def _checked(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuse what is no amount: click's float takes nan, inf and negative numbers."""
    if value is not None and (not math.isfinite(value) or value < 0):
        raise click.BadParameter(f"{value}: give a finite number, zero or more", ctx, option)
    return value


Given = tuple[str | None, float]
"""A number, and the platform that it is for; None = all."""


def _numbers(
    ctx: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[Given, ...]:
    """Read NUMBER or PLATFORM=NUMBER, as often as it is given."""
    found: list[Given] = []
    for value in values:
        platform, named, text = value.rpartition("=")
        try:
            number = _checked(ctx, option, float(text))
        except ValueError:
            raise click.BadParameter(f"{value!r}: give a number", ctx, option) from None
        found.append((platform if named else None, number or 0.0))
    return tuple(found)


def _options() -> list[click.Parameter]:
    found: list[click.Parameter] = [
        click.Option(
            ["--platform", "platforms"],
            multiple=True,
            metavar="NAME",
            help=f"Any of {', '.join(PLATFORMS)}. Several: repeat, or commas.",
        )
    ]
    found += [_option(row.name, row.meaning) for row in SECONDS]
    found += [
        click.Option(
            [_flag(knob.name)],
            multiple=True,
            callback=_numbers,
            metavar="[PLATFORM=]FLOAT",
            help=f"{knob.meaning}.",
        )
        for knob in KNOBS.values()
    ]
    found += [
        _option("old_ttl", "TTL before it was lowered, if less than one such TTL ago"),
        _option("rate", "requests a second of this instance"),
        _option("mean", "mean latency, seconds"),
        _option("p99", "99th percentile of latency, seconds"),
        click.Option(
            ["--notice"],
            type=click.Choice(WAYS),
            help="push: they are told; pull: their health checks find readiness at 503. By default "
            "as each does with the others that are given.",
        ),
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
        click.Option(
            ["--format", "output"],
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="How the plan is written to the terminal.",
        ),
    ]
    return found


def _option(name: str, meaning: str) -> click.Option:
    return click.Option([_flag(name)], type=float, callback=_checked, help=f"{meaning}.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
    choice = _choice(_names(platforms), given, notice, old_ttl)
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
    findings = tuple(judge(settings, choice, advice, traffic))
    wanted = tuple(dict.fromkeys(kinds)) or fitting(choice)
    return View(settings, choice, advice, traffic, findings, wanted)


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
    names: tuple[str, ...], given: dict[str, Any], notice: Way | None, old_ttl: float | None
) -> Choice:
    """Return what is asked for; a number for one platform beats a number for all."""
    ways: dict[str, Way] = dict.fromkeys(names, notice) if notice else {}
    if notice and not any(PLATFORMS[name].check for name in names):
        having = ", ".join(name for name, row in PLATFORMS.items() if row.check)
        raise click.UsageError(f"--notice: no chosen platform has a choice; {having} have")
    choice = Choice(names, {}, ways, old_ttl or 0.0)
    numbers: dict[tuple[str, str], float] = {}
    for knob in KNOBS:
        wanted: list[Given] = sorted(given[knob], key=lambda one: one[0] is not None)
        for platform, number in wanted:
            numbers |= {(n, knob): number for n in _users(knob, platform, number, choice)}
    if old_ttl is not None and not used_by("ttl", choice):
        raise click.UsageError("--old-ttl: no chosen platform uses it; dns does")
    return replace(choice, numbers=numbers)


def _users(knob: str, platform: str | None, number: float, choice: Choice) -> list[str]:
    """Return the platforms that a number is for."""
    if KNOBS[knob].whole and (number < 1 or number % 1):
        raise click.UsageError(f"{_flag(knob)}: give a whole number from 1 on")
    using = used_by(knob, choice)
    if platform is None and using:
        return using
    if platform in using:
        return [platform]
    if platform is not None and platform not in choice.platforms:
        _names((platform,))
        raise click.UsageError(
            f"{_flag(knob)}: {platform} is not chosen; add --platform {platform}"
        )
    who = "no chosen platform uses it" if platform is None else f"{platform} does not use it"
    raise click.UsageError(f"{_flag(knob)}: {who}; {_hint(knob, platform, choice)}")


def _hint(knob: str, platform: str | None, choice: Choice) -> str:
    """Say what a number that nobody uses is for: another way of noticing, or other platforms."""
    asked = (platform,) if platform else choice.platforms
    for way in WAYS:
        other = replace(choice, ways=dict.fromkeys(choice.platforms, way))
        for name in used_by(knob, other):
            if name in asked:
                return f"with --notice {way} {name} does"
    return "these do: " + ", ".join(n for n in PLATFORMS if used_by(knob, Choice((n,), {}, {})))


def _settings(options: dict[str, float]) -> Settings:
    """Options beat variables, as in `graceful run`."""
    variables = {row.variable for row in SECONDS if row.name in options}
    others = {name: value for name, value in os.environ.items() if name not in variables}
    source = "an option of graceful plan"
    return load(options, source=source, environ=others, checked=False)


def _data(view: View) -> dict[str, Any]:
    advice = view.advice
    return {
        "fits": not view.problems,
        "findings": [asdict(finding) for finding in view.findings],
        "problems": view.problems,
        "advised": {"propagation_delay": advice.delay, "grace_period": advice.grace},
        "paste": variables(view.advised),
        "snippets": {kind: snippet(kind, view.advised, view.choice) for kind in view.kinds},
        "in_flight": view.traffic.in_flight,
        "settings": view.settings.values(),
        "timeline": [
            {"at": step.at, "phase": step.phase, "text": step.text}
            for step in steps(view.settings, view.kill)
        ],
        "sigkill": asdict(view.kill),
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
