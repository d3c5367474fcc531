"""`graceful rehearse`: options, output and exit status around `graceful.rehearsal`.

The options are the fields of `Plan`, with their defaults and texts; nothing is written twice.
Exit status: 0 = nothing was lost, 1 = something was, 2 = no rehearsal could be held.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..rehearsal import PlainView, Plan, RehearsalError, Result, View
from ..rehearsal import rehearse as hold
from ..rehearsal.balancers import BALANCERS
from ..rehearsal.live import LiveView
from ..rehearsal.table import print_result

__all__ = ["rehearse"]

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
                type=_type(field),
                default=field.default,
                show_default=field.default is not None,
                help=field.metadata["help"],
            )
    yield click.Option(["--json"], metavar="FILE", help="Write the result to FILE, - = stdout.")
    yield click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)


def _type(field: dataclasses.Field[Any]) -> click.ParamType | type:
    if field.name == "balancer":
        return click.Choice(list(BALANCERS))
    if field.name == "logs":
        return click.Path(file_okay=False, path_type=Path)
    return type(field.default)


def _run(json: str | None, **options: Any) -> None:
    # With the JSON on stdout, people read stderr.
    console = Console(stderr=json == "-")
    try:
        result = hold(Plan(**options), _view(console))
    except RehearsalError as error:
        click.echo(f"graceful rehearse: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("graceful rehearse: interrupted; all instances have been ended", err=True)
        sys.exit(130)
    print_result(result, console)
    if json is not None:
        _write(result, json)
    sys.exit(0 if result.ok else 1)


def _view(console: Console) -> View:
    return LiveView(console) if console.is_terminal else PlainView(console.file)


def _write(result: Result, file: str) -> None:
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
