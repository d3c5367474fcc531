"""`graceful run`: the command line of a server, with a parent that tells its workers why they stop.

Only options and errors are here. The server's own entry point parses its own arguments, which are
passed on as they stand; what its parent does is in `graceful.parent` and the server's integration.
Exit status: 0 = everything finished, 70 = something was cut, 2 = not started, for the command line
or a setting is wrong; otherwise the server's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import click

from ..core.budget import SETTINGS, SettingsError, closest
from ..core.records import Notice
from ..lifecycle import current
from ..settings import load
from . import missing_extra

__all__ = ["run"]

HELP = """Run a server that stops gracefully, also where a parent manages its workers.

SERVER is uvicorn, hypercorn or granian; what follows is passed to it as it stands:

\b
    graceful run uvicorn app:app --workers 4
    graceful run --grace-period 60 hypercorn -w 4 app:app

The app is wrapped in GracefulMiddleware as always. Options here beat GRACEFUL_* variables, which
beat what the app was given.

Exit status: 0 = everything finished, 70 = something was cut, 2 = not started; otherwise the
server's own.
"""

OPTIONS = ("grace_period", "propagation_delay", "pre_stop", "drain_timeout")
"""The settings that belong to a deployment; the others have their variables."""


@dataclass(frozen=True)
class Launched:
    """A server that can be run."""

    integration: str
    """Module with `install()`, which puts our parent in place of the server's, and `main()`."""


SERVERS = {
    "uvicorn": Launched("graceful.integrations.uvicorn_parent"),
    "hypercorn": Launched("graceful.integrations.hypercorn_parent"),
    "granian": Launched("graceful.integrations.granian_parent"),
}

OTHERS = {
    "gunicorn": "gunicorn needs no launcher: two lines in gunicorn.conf.py, "
    "'from graceful.integrations import gunicorn as graceful_gunicorn' and "
    "'graceful_gunicorn.install(globals())'",
    "daphne": "daphne has no workers: run it as it is, with the app wrapped in GracefulMiddleware",
    "waitress": "waitress has no workers: graceful.integrations.waitress.serve(app)",
}


def _options() -> Iterator[click.Parameter]:
    for row in SETTINGS:
        if row.name in OPTIONS:
            yield click.Option(
                [f"--{row.name.replace('_', '-')}"], metavar="SECONDS", help=f"{row.meaning}."
            )
    yield click.Argument(["server"])
    yield click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)


def _run(server: str, arguments: tuple[str, ...], **options: str | None) -> None:
    _refuse_unknown(server)
    _set({name: value for name, value in options.items() if value is not None})
    if find_spec(server) is None:
        _refuse(missing_extra(server, server))
    sys.argv = [server, *arguments]
    module = import_module(SERVERS[server].integration)
    try:
        module.install()
    except AttributeError as error:
        current().tell(
            Notice(
                f"the installed {server} is not one that graceful knows ({error}); its parent "
                "tells its workers nothing, and each stops as if the whole instance did"
            )
        )
    sys.exit(module.main())


def _refuse_unknown(server: str) -> None:
    if server in OTHERS:
        _refuse(f"graceful run: {OTHERS[server]}")
    if server not in SERVERS:
        names = ", ".join(SERVERS)
        near = closest(server, SERVERS)
        hint = f"{near} " if near.startswith("did") else ""
        _refuse(f"graceful run: there is no server {server!r}; {hint}it runs {names}")


def _set(options: dict[str, str]) -> None:
    """Give the options to this process and its workers, through the variables that workers read."""
    variables = {row.variable: options[row.name] for row in SETTINGS if row.name in options}
    others = {name: value for name, value in os.environ.items() if name not in variables}
    try:
        load(options, source="an option of graceful run", environ=others)
    except SettingsError as error:
        _refuse(f"graceful run: {error}")
    os.environ.update(variables)


def _refuse(text: str) -> None:
    click.echo(text, err=True)
    sys.exit(2)


run = click.Command(
    "run",
    callback=_run,
    params=list(_options()),
    help=HELP,
    short_help="Run a server whose parent tells its workers why they stop.",
    context_settings={"allow_interspersed_args": False},
)
