"""`graceful rehearse`: options, output and exit status around `graceful.rehearsal`.

The options are the fields of `Plan`, with their defaults and texts; nothing is written twice.
Exit status: 0 = nothing was lost, 1 = something was, 2 = no rehearsal could be held.
"""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ..rehearsal import PlainView, Plan, RehearsalError, Result, View, check
from ..rehearsal import rehearse as hold
from ..rehearsal.balancers import BALANCERS
from ..rehearsal.faults import FAULTS
from ..rehearsal.live import LiveView
from ..rehearsal.report import junit as to_junit
from ..rehearsal.report import page
from ..rehearsal.table import print_comparison, print_result

__all__ = ["rehearse"]

THIS, OTHER = "this", "the other"
"""What the two results of `--compare` are called."""
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
        callback=_words,
        help="Hold the same rehearsal with another command, in one string, and show both.",
    )
    yield click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)


def _writable(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that can't be written before the rehearsal, not after it."""
    if value is None or value == "-":
        return value
    file = Path(value).absolute()
    if not file.parent.is_dir():
        raise click.BadParameter(f"{value}: there is no such folder", ctx, option)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"{value}: can't be written", ctx, option)
    return value


def _words(ctx: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Split a command as a shell would."""
    try:
        return None if value is None else shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"{value}: {str(error).lower()}", ctx, option) from None


def _type(name: str, default: object) -> Any:
    if name == "balancer":
        return click.Choice(list(BALANCERS))
    if name == "logs":
        return click.Path(file_okay=False, path_type=Path)
    return type(default)


def _run(
    json: str | None,
    html: str | None,
    junit: str | None,
    compare: list[str] | None,
    **options: Any,
) -> None:
    # With the JSON on stdout, people read stderr.
    console = _console(stderr=json == "-")
    results: dict[str, Result] = {}
    try:
        for name, plan in _plans(compare, trace=html is not None, **options).items():
            results[name] = _held(name, plan, console)
            _write(results, json, html, junit)  # each time: the next one may not come to its end
    except RehearsalError as error:
        click.echo(f"graceful rehearse: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("graceful rehearse: interrupted; all instances have been ended", err=True)
        sys.exit(130)
    if len(results) > 1:
        print_comparison(results, console)
    if json == "-":
        click.echo(_json(results), nl=False)
    sys.exit(0 if results[THIS].ok else 1)


def _plans(compare: list[str] | None, **options: Any) -> dict[str, Plan]:
    """Return what is held, by name; all of it is checked before anything is."""
    plans = {THIS: Plan(**options)}
    if compare is not None:
        plans[OTHER] = dataclasses.replace(plans[THIS], command=compare)
    for plan in plans.values():
        check(plan)
    return plans


def _held(name: str, plan: Plan, console: Console) -> Result:
    if name != THIS:
        console.print(Text(f"\n{name}: {shlex.join(plan.command)}", style="bold"), soft_wrap=True)
    result = hold(plan, _view(console))
    print_result(result, console)
    return result


def _write(
    results: Mapping[str, Result], json: str | None, html: str | None, junit: str | None
) -> None:
    if html is not None:
        Path(html).write_text(page(results), encoding="utf-8")
    if junit is not None:
        suites = {"graceful rehearse": results[THIS]}
        Path(junit).write_text(to_junit(suites), encoding="utf-8")
    if json is not None and json != "-":
        Path(json).write_text(_json(results), encoding="utf-8")


def _json(results: Mapping[str, Result]) -> str:
    """Return the result as JSON; that of the other command is in 'compared'."""
    found = results[THIS].to_dict()
    if OTHER in results:
        found["compared"] = results[OTHER].to_dict()
    return f"{json_module.dumps(found, indent=2)}\n"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _view(console: Console) -> View:
    return LiveView(console) if console.is_terminal else PlainView(console.file)


rehearse = click.Command(
    "rehearse",
    callback=_run,
    params=list(_options()),
    help=HELP,
    short_help="Restart instances under load and count every loss.",
    context_settings={"show_default": True},
)
