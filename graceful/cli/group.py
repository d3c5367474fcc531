"""The group `graceful`. A command with an extra of its own is loaded when it is asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

import click

import graceful as library

from . import missing_extra

__all__ = ["graceful"]


@dataclass(frozen=True)
class Tool:
    """A command: the module beside this one that has it, and what that module needs."""

    extra: str
    needs: frozenset[str]
    """Packages of the extra, besides click."""


TOOLS = {
    "check": Tool("check", frozenset({"crossplane", "rich", "ruamel"})),
    "plan": Tool("plan", frozenset({"jinja2", "rich"})),
    "rehearse": Tool("rehearsal", frozenset({"aiohttp", "jinja2", "psutil", "rich"})),
    "run": Tool("cli", frozenset()),
}
"""Every command, by its name, which is its module's and its function's as well."""


class _Commands(click.Group):
    """Loads a command by name, so that `graceful --version` needs nothing but click."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(TOOLS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        tool = TOOLS.get(cmd_name)
        if tool is None:
            return None
        try:
            module = import_module(f".{cmd_name}", __package__)
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package not in tool.needs:
                raise
            return _unavailable(cmd_name, missing.name or package, tool.extra)
        command: click.Command = getattr(module, cmd_name)
        return command


def _unavailable(name: str, module: str, extra: str) -> click.Command:
    """Stand in for a command whose extra is not installed."""

    def explain(arguments: tuple[str, ...]) -> None:
        click.echo(missing_extra(module, extra), err=True)
        sys.exit(2)

    return click.Command(
        name,
        callback=explain,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        help=f"(needs the extra [{extra}])",
        add_help_option=False,
    )


@click.group(cls=_Commands)
@click.version_option(library.__version__, prog_name="graceful")
def graceful() -> None:
    """Tools for web processes that stop without losing a request."""
