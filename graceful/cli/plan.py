"""`graceful plan`: options, output and exit status around `graceful.core.advice` and `.plan`.

Exit status: 0 = the settings fit the platforms, 1 = they do not, 2 = the command line is wrong.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import click

from ..core.advice import Advice, Choice, Traffic, advise, enough, judge, used_by
from ..core.budget import SETTINGS, Settings, SettingsError, closest
from ..core.plan import bars, steps
from ..core.platforms import KNOBS, PLATFORMS, Way
from ..settings import load

__all__ = ["plan"]

WIDTH = 50
"""Columns of the time axis; with the names and numbers a line has less than 80."""

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
        click.Option(["--format", "output"], type=click.Choice(["text", "json"]), default="text"),
    ]
    return found


def _option(name: str, meaning: str) -> click.Option:
    return click.Option(
        [f"--{name.replace('_', '-')}"], type=float, callback=_checked, help=f"{meaning}."
    )


def _run(
    platforms: tuple[str, ...], notice: Way | None, output: str, old_ttl: float | None, **given: Any
) -> None:
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
    advice = advise(choice, settings, traffic)
    problems = [finding.text for finding in judge(settings, advice, traffic)]
    if output == "json":
        click.echo(json.dumps(_data(settings, advice, traffic, problems), indent=2))
    else:
        _print(settings, advice, traffic, problems)
    sys.exit(1 if problems else 0)


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


def _data(
    settings: Settings, advice: Advice, traffic: Traffic, problems: list[str]
) -> dict[str, Any]:
    return {
        "fits": not problems,
        "problems": problems,
        "advised": {"propagation_delay": advice.delay, "grace_period": advice.grace},
        "paste": _variables(enough(settings, advice)),
        "in_flight": traffic.in_flight,
        "settings": settings.values(),
        "timeline": [{"at": s.at, "phase": s.phase, "text": s.text} for s in steps(settings)],
        "platforms": [
            {
                "platform": path.platform,
                "way": path.way,
                "seconds": path.seconds,
                "parts": [
                    {
                        "platform": p.platform,
                        "seconds": p.seconds,
                        "text": p.text,
                        "source": p.source,
                    }
                    for p in path.parts
                ],
            }
            for path in advice.paths
        ],
        "notes": list(advice.notes),
    }


def _print(settings: Settings, advice: Advice, traffic: Traffic, problems: list[str]) -> None:
    click.echo("The longest stop, seconds after SIGTERM")
    for step in steps(settings):
        click.echo(f"  {step.at:>6.1f}  {step.phase:<9}  {step.text}")
    click.echo()
    for line in picture(settings):
        click.echo(line)
    for path in advice.paths:
        click.echo(f"\n{path.platform} ({path.way}) needs {path.seconds:g} s")
        for part in path.parts:
            click.echo(
                f"  {part.seconds:>6g} s  {part.platform}: {part.text}\n            {part.source}"
            )
    if advice.paths:
        click.echo(f"\nAdvised propagation_delay: {advice.delay:g} s")
    click.echo(f"Smallest safe grace_period: {advice.grace} s, with {advice.drain:g} s of drain")
    if traffic.in_flight is not None:
        click.echo(
            f"In flight at the flip (rate x mean): {traffic.in_flight:g}; "
            "at most as many must finish in the drain"
        )
    if traffic.p99 is not None:
        verb = "fits" if traffic.p99 <= settings.drain else "does not fit"
        click.echo(f"p99 {traffic.p99:g} s {verb} the drain of {settings.drain:g} s")
    for note in advice.notes:
        click.echo(f"note: {note}")
    for problem in problems:
        click.echo(f"error: {problem}")
    click.echo("\nTo paste:")
    for name, value in _variables(enough(settings, advice)).items():
        click.echo(f"  {name}={value}")


def picture(settings: Settings) -> list[str]:
    """Return the stop as bars on one scale; readable without colour."""
    found = bars(settings)
    first = min(bar.begins for bar in found)
    scale = WIDTH / (max(bar.ends for bar in found) - first)
    lines: list[str] = []
    for bar in found:
        begins, ends = round((bar.begins - first) * scale), round((bar.ends - first) * scale)
        drawn = ("#" if bar.kind == "main" else "-") * max(1, ends - begins)
        row = (" " * min(begins, WIDTH - 1) + drawn).ljust(WIDTH)
        lines.append(f"  {bar.name:<13} |{row}| {bar.ends - bar.begins:g} s")
    return lines


def _variables(settings: Settings) -> dict[str, str]:
    return {
        row.variable: f"{getattr(settings, row.name):g}"
        for row in SECONDS
        if row.name in ("grace_period", "propagation_delay")
        or getattr(settings, row.name) != row.default
    }


plan = click.Command(
    "plan",
    callback=_run,
    params=_options(),
    help=HELP,
    short_help="Show a stop's timeline and what the platforms need.",
)
