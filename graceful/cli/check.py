"""`graceful check`: options, output and exit status around `graceful.doctor`.

Exit status: 0 = nothing that loses requests, 1 = errors (with --strict warnings too), 2 = a file
that can't be read.
"""

from __future__ import annotations

import io
import os
import sys

import click
from rich.console import Console

import graceful as library

from ..core.budget import closest
from ..doctor import FORMATS, RULES, Examination, Source, Unreadable, examine, read
from ..doctor.outputs import FORMATS as OUTPUTS
from ..doctor.report import print_explanation, print_list, print_report

__all__ = ["check"]

WIDTH = 100
"""Columns of text at most, on a terminal."""
UNFOLDED = 10_000

HELP = """Tell what will lose requests at a stop, from the configuration that you have.

FILEs are Kubernetes manifests, docker-compose files, systemd units, ECS task definitions,
gunicorn.conf.py, Dockerfiles, and the configurations of HAProxy, nginx and Caddy; - is stdin. Give
together what runs together: timeouts are compared across files. Nothing in them is ever executed.

\b
    graceful check deploy.yaml gunicorn.conf.py haproxy.cfg
    helm template . | graceful check -

A comment 'graceful: ignore[ID]' silences a finding of its line or the next.

Exit status: 0 = nothing that loses requests, 1 = errors, 2 = a file can't be read.
"""


@click.command(help=HELP, short_help="Tell what will lose requests at a stop.")
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--as", "given", type=click.Choice(FORMATS), help="What the files are.")
@click.option(
    *("--format", "output"),
    type=click.Choice(["text", *OUTPUTS]),
    default="text",
    show_default=True,
    help="How findings are written.",
)
@click.option("--strict", is_flag=True, help="Exit status 1 on warnings, too.")
@click.option("--ignore", multiple=True, metavar="ID", help="Leave a rule out; can be repeated.")
@click.option("--explain", metavar="ID", help="Tell the story of one rule, and end.")
@click.option("--list", "listed", is_flag=True, help="List all rules, and end.")
def check(
    files: tuple[str, ...],
    given: str | None,
    output: str,
    strict: bool,
    ignore: tuple[str, ...],
    explain: str | None,
    listed: bool,
) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names come from files
    console = _console()
    if listed:
        print_list(console)
        return
    for name in (*ignore, *([explain] if explain is not None else [])):
        if name not in RULES:
            raise click.UsageError(f"there is no rule {name!r}; {_near(name)}")
    if explain is not None:
        print_explanation(RULES[explain], console)
        return
    if not files:
        raise click.UsageError("give a file, or - for stdin")
    found = _examined(files, given, ignore)
    if output == "text":
        print_report(found, console)
    elif text := OUTPUTS[output](found, library.__version__):
        click.echo(text)
    sys.exit(1 if found.count("error") or (strict and found.count("warning")) else 0)


def _near(name: str) -> str:
    hint = closest(name, RULES)
    return hint if hint.startswith("did") else "graceful check --list shows all of them"


def _console() -> Console:
    """On a terminal text is folded; in a pipe each text is one line, for grep."""
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else UNFOLDED
    return console


def _examined(files: tuple[str, ...], given: str | None, ignore: tuple[str, ...]) -> Examination:
    """Read and judge; whatever can't be read is told, all of it, and ends the command."""
    sources: list[Source] = []
    failed = False
    for file in dict.fromkeys(files):
        try:
            sources.append(_read(file, given))
        except Unreadable as error:
            failed = _tell(str(error))
        except OSError as error:
            failed = _tell(f"{file}: {error.strerror}")
    if not failed:
        try:
            return examine(sources, ignore)
        except Unreadable as error:
            _tell(str(error))
    sys.exit(2)


def _read(file: str, given: str | None) -> Source:
    if file == "-":
        return read(sys.stdin.buffer, "<stdin>", given)
    with open(file, "rb", opener=_at_once) as stream:
        return read(stream, file, given)


def _at_once(file: str, flags: int) -> int:
    """Open a pipe without waiting for somebody to write; one that has a writer is read to its end.

    The shell's `<(...)` is such a pipe.
    """
    number = os.open(file, flags | os.O_NONBLOCK)
    os.set_blocking(number, True)
    return number


def _tell(text: str) -> bool:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    click.echo(f"graceful check: {printable}", err=True)
    return True
