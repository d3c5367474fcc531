"""The group `graceful`. A command with an extra of its own is loaded when it is asked for."""

from __future__ import annotations

import sys

import click

import graceful as library

from . import missing_extra

__all__ = ["graceful"]

REHEARSE = "rehearse"
EXTRAS = frozenset({"aiohttp", "psutil", "rich"})
"""What `rehearse` needs besides click."""


class _Commands(click.Group):
    """Loads a command by name, so that `graceful --version` needs nothing but click."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [REHEARSE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != REHEARSE:
            return None
        try:
            from .rehearse import rehearse
        except ModuleNotFoundError as missing:
            if missing.name not in EXTRAS:
                raise
            return _unavailable(cmd_name, missing.name)
        return rehearse


def _unavailable(name: str, module: str) -> click.Command:
    """Stand in for a command whose extra is not installed."""

    def explain(arguments: tuple[str, ...]) -> None:
        click.echo(missing_extra(module), err=True)
        sys.exit(2)

    return click.Command(
        name,
        callback=explain,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        help="(needs the extra [rehearsal])",
        add_help_option=False,
    )


@click.group(cls=_Commands)
@click.version_option(library.__version__, prog_name="graceful")
def graceful() -> None:
    """Tools for web processes that stop without losing a request."""
