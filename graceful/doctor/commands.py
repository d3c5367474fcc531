"""Command lines: which web server they start, with which options, and who gets the signal.

Read as text, with `shlex`; nothing is expanded, looked up or run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from .model import Command, Place, Server

__all__ = ["of_arguments", "of_line", "of_script", "split"]

MAX_TEXT: Final = 8_000
"""Characters of a command that are looked at."""

SHELLS: Final = frozenset({"sh", "ash", "dash", "bash", "zsh", "ksh"})

REPLACES_ITSELF: Final = frozenset({"bash", "zsh", "ksh"})
"""Shells that turn into the last command of `-c` by themselves, unless it is in a pipe. Tried with
bash 5.2, which does, and dash 0.5.12, which does not, not even for a single command."""

GROUP_SIGNAL: Final = frozenset({"dumb-init"})
"""These pass signals on to all processes below them, so a shell in between does no harm."""

WRAPPERS: Final = {
    **dict.fromkeys(("exec", "tini", "tini-static", "dumb-init", "catatonit", "docker-init"), 0),
    **dict.fromkeys(("env", "nice", "ionice", "nohup", "stdbuf", "setsid", "time"), 0),
    **dict.fromkeys(("opentelemetry-instrument", "ddtrace-run"), 0),
    **dict.fromkeys(("gosu", "su-exec", "setuidgid", "newrelic-admin", "doppler", "dotenv"), 1),
    **dict.fromkeys(("poetry", "pipenv", "pdm", "uv", "rye", "hatch", "pixi"), 1),
}
"""What only starts the real program, and how many words it takes itself, beside its flags."""

OURS: Final = frozenset({"graceful", "graceful.cli"})

SERVERS: Final = {
    **{name: name for name in ("uvicorn", "gunicorn", "hypercorn", "granian", "daphne")},
    "waitress-serve": "waitress",
    "waitress": "waitress",
}

DEVELOPMENT: Final = {
    # program: the words that make it a server for development
    "flask": ("run",),
    "fastapi": ("dev",),
    "manage.py": ("runserver",),
    "django-admin": ("runserver",),
    "django": ("runserver",),
}

SHORT: Final = {
    "uvicorn": {},
    "gunicorn": {"c": "config", "k": "worker-class", "w": "workers", "t": "timeout", "b": "bind"},
    "hypercorn": {"k": "worker-class", "w": "workers", "b": "bind", "c": "config"},
    "granian": {},
    "daphne": {"t": "http-timeout", "b": "bind", "p": "port"},
    "waitress": {},
}

FLAGS: Final = frozenset({"reload", "preload", "daemon", "debug", "check-config", "no-access-log"})
"""Options without a value, of those that matter here or come often."""

_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*$")
_SEPARATORS: Final = frozenset({"&&", "||", ";", "|", "&", "\n", ";;", "|&", "(", ")"})


def of_arguments(words: Sequence[str], place: Place) -> Command | None:
    """Return what an exec-form command starts; None for no command."""
    if not words:
        return None
    text = " ".join(words)[:MAX_TEXT]
    start = _unwrapped(list(words))
    script = _script(start.words)
    if script is None:
        return Command(place, text, _server(start.words, place), "", start.settings)
    return _of_shell(text, script, place, "" if start.group else _base(start.words[0]))


def of_script(script: str, place: Place) -> Command:
    """Return what a shell-form command starts: `/bin/sh -c` is process 1."""
    return _of_shell(script[:MAX_TEXT], script, place, "sh")


def _of_shell(text: str, script: str, place: Place, shell: str) -> Command:
    segments = [segment for segment in _segments(script) if segment]
    starts = [_unwrapped(segment) for segment in segments]
    found = ((_server(start.words, place), start.settings) for start in starts)
    server, settings = next((one for one in found if one[0] is not None), (None, None))
    swallows = shell and _swallows(script, shell, segments)
    return Command(place, text, server, shell if swallows else "", settings)


def of_line(line: str, place: Place) -> Command | None:
    """Return what a line starts that a platform splits itself, without a shell."""
    return of_arguments(split(line), place)


def split(line: str) -> list[str]:
    """Return the words of a line, quotes understood."""
    try:
        return shlex.split(line[:MAX_TEXT])
    except ValueError:
        return line[:MAX_TEXT].split()


def _base(word: str) -> str:
    return PurePosixPath(word).name


class _Start(NamedTuple):
    """What is left of a command when all that only starts the real program is taken off."""

    words: list[str]
    group: bool = False
    """Signals go to the whole process group."""
    settings: Mapping[str, str] | None = None
    """The options of `graceful run`."""


def _unwrapped(words: list[str]) -> _Start:
    group = False
    settings: dict[str, str] | None = None
    while words:
        name = _base(words[0])
        if _ASSIGNMENT.match(words[0]):
            words = words[1:]
        elif name in OURS and words[1:2] == ["run"]:
            words, settings = _run(words[2:])
        elif _PYTHON.match(name):
            words = _module(words[1:])
            if words and _base(words[0]) not in {*WRAPPERS, *OURS}:
                break
        elif name in WRAPPERS:
            group = group or _signals_group(name, words[1:])
            words = _without_flags(words[1:], WRAPPERS[name])
        else:
            break
    return _Start(words, group, settings)


def _run(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take the options of `graceful run` off: each is a setting with its value."""
    settings: dict[str, str] = {}
    while words and words[0].startswith("--") and words[0] != "--":
        name, equals, value = words[0][2:].partition("=")
        words = words[1:]
        if not equals and words:
            value, words = words[0], words[1:]
        settings[name.replace("-", "_")] = value
    return words[words[:1] == ["--"] :], settings


def _signals_group(name: str, rest: Sequence[str]) -> bool:
    flags = set(takewhile(lambda word: word.startswith("-"), rest))
    if name in GROUP_SIGNAL:
        return not flags & {"-c", "--single-child"}
    return name.startswith("tini") and "-g" in flags


def _without_flags(words: list[str], own: int) -> list[str]:
    while words and (words[0].startswith("-") or own > 0):
        if words[0] == "--":
            return words[1:]
        own -= not words[0].startswith("-")
        words = words[1:]
    return words


def _module(words: list[str]) -> list[str]:
    """Return the program of `python -m program …` or `python file.py …`."""
    for index, word in enumerate(words):
        if word == "-m":
            return words[index + 1 :]
        if word.startswith("-m") and len(word) > 2:
            return [word[2:], *words[index + 1 :]]
        if word == "-c":
            return []
        if not word.startswith("-"):
            return words[index:]
    return []


def _script(words: Sequence[str]) -> str | None:
    """Return the script of `sh -c script`, None for anything else."""
    if not words or _base(words[0]) not in SHELLS:
        return None
    for index, word in enumerate(words[1:], 1):
        if not word.startswith("-"):
            return None
        if not word.startswith("--") and "c" in word:
            return words[index + 1] if index + 1 < len(words) else None
    return None


def _segments(script: str) -> Iterator[list[str]]:
    """Yield the simple commands of a script, roughly: operators end one."""
    lexer = shlex.shlex(
        script[:MAX_TEXT].replace("\\\n", " "), posix=True, punctuation_chars=";&|\n()"
    )
    lexer.whitespace = " \t\r"
    lexer.commenters = ""
    lexer.whitespace_split = True
    segment: list[str] = []
    try:
        for token in lexer:
            if token and not token.strip(";&|\n()"):
                yield segment
                segment = []
            else:
                segment.append(token)
    except ValueError:
        pass  # a quote that never ends: what was read so far has to do
    yield segment


def _swallows(script: str, shell: str, segments: Sequence[Sequence[str]]) -> bool:
    """Whether the shell stays process 1 and waits, deaf, for the real program."""
    if re.search(r"\btrap\b", script):
        return False
    if not segments or any(segment[0] == "exec" for segment in segments):
        return False
    if shell in REPLACES_ITSELF:
        return bool(re.search(r"[^|]\|[^|]|[^&>]&\s*(wait\b.*)?$", script))
    return True


def _server(words: Sequence[str], place: Place) -> Server | None:
    if not words:
        return None
    program = _base(words[0])
    development = DEVELOPMENT.get(program)
    if development and any(word in words[1:4] for word in development):
        return Server("development", place, {}, f"{program} {development[0]}")
    if program == "fastapi" and "run" in words[1:3]:  # which is uvicorn
        return Server("uvicorn", place, _options("uvicorn", words[1:]), "fastapi run")
    name = SERVERS.get(program)
    return None if name is None else Server(name, place, _options(name, words[1:]))


def _options(server: str, words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals and name not in FLAGS and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            options[name] = value
        elif len(word) > 1 and word[0] == "-" and word[1] in SHORT[server]:
            value = word[2:].removeprefix("=") or (rest.pop(0) if rest else "")
            options[SHORT[server][word[1]]] = value
    return options
