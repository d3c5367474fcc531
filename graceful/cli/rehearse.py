"""`graceful rehearse`: options, output and exit status around `graceful.rehearsal`.

The options are the fields of `Plan`, with their defaults and texts; nothing is written twice.
Exit status: 0 = nothing was lost, 1 = something was, 2 = no rehearsal could be held.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ..rehearsal import PlainView, Plan, RehearsalError, Result, View
from ..rehearsal import rehearse as hold
from ..rehearsal.balancers import BALANCERS
from ..rehearsal.faults import FAULTS
from ..rehearsal.live import LiveView
from ..rehearsal.report import junit as to_junit
from ..rehearsal.report import page
from ..rehearsal.table import print_result

__all__ = ["rehearse"]

PIPE_WIDTH = 120
"""Columns where there is no terminal to ask: no table is folded."""

HELP = """Restart instances one after another under load and count every loss.

COMMAND starts one instance; {port} in it is replaced by the instance's port. It is taken as it
stands, so put it after '--':

    graceful rehearse --rolls 3 -- uvicorn app:app --port {port}

Exit status: 0 = nothing was lost, 1 = something was, 2 = no rehearsal could be held.
"""


def _options() -> Iterator[click.Parameter]:
    """Make one option of every field of `Plan` that has a help text."""
    for field in dataclasses.fields(Plan):
        if "help" in field.metadata:
            yield click.Option(
                [f"--{field.name.replace('_', '-')}"],
                type=_type(field.name, field.default),
                default=field.default,
                show_default=field.default is not None,
                help=field.metadata["help"],
            )
    yield click.Option(
        ["--fault", "faults"],
        type=click.Choice(list(FAULTS)),
        multiple=True,
        help="What goes wrong on purpose, a restart each in turn; may be given several times.",
    )
    yield click.Option(
        ["--json"],
        metavar="FILE",
        callback=_writable,
        help="Write the result to FILE, - = stdout.",
    )
    for name, what in (("html", "a page that draws the rehearsal"), ("junit", "JUnit XML")):
        yield click.Option(
            [f"--{name}"], metavar="FILE", callback=_writable, help=f"Write {what} to FILE."
        )
    yield click.Option(
        ["--compare"],
        metavar="COMMAND",
        help="Hold the same rehearsal with another command, in one string, and show both.",
    )
    yield click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)


def _writable(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that can't be written before the rehearsal, not after it."""
    if value not in (None, "-") and not Path(value or "").absolute().parent.is_dir():
        raise click.BadParameter(f"{value}: there is no such folder", ctx, option)
    return value


def _type(name: str, default: object) -> Any:
    if name == "balancer":
        return click.Choice(list(BALANCERS))
    if name == "logs":
        return click.Path(file_okay=False, path_type=Path)
    return type(default)


def _run(
    json: str | None, html: str | None, junit: str | None, compare: str | None, **options: Any
) -> None:
    # With the JSON on stdout, people read stderr.
    console = _console(stderr=json == "-")
    try:
        plan = Plan(**options, trace=html is not None)
        plans = {"this": plan}
        if compare is not None:
            plans["the other"] = dataclasses.replace(plan, command=shlex.split(compare))
        results = {name: _held(name, one, console) for name, one in plans.items()}
    except RehearsalError as error:
        click.echo(f"graceful rehearse: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("graceful rehearse: interrupted; all instances have been ended", err=True)
        sys.exit(130)
    result = results["this"]
    if json is not None:
        _write_json(result, json)
    if html is not None:
        Path(html).write_text(page(results), encoding="utf-8")
    if junit is not None:
        Path(junit).write_text(to_junit({"graceful rehearse": result}), encoding="utf-8")
    sys.exit(0 if result.ok else 1)


def _held(name: str, plan: Plan, console: Console) -> Result:
    if name != "this":
        console.print(Text(f"\n{name}: {shlex.join(plan.command)}", style="bold"), soft_wrap=True)
    result = hold(plan, _view(console))
    print_result(result, console)
    return result


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _view(console: Console) -> View:
    return LiveView(console) if console.is_terminal else PlainView(console.file)


def _write_json(result: Result, file: str) -> None:
    text = json.dumps(result.to_dict(), indent=2)
    if file == "-":
        click.echo(text)
    else:
        Path(file).write_text(f"{text}\n", encoding="utf-8")


rehearse = click.Command(
    "rehearse",
    callback=_run,
    params=list(_options()),
    help=HELP,
    short_help="Restart instances under load and count every loss.",
    context_settings={"show_default": True},
)
