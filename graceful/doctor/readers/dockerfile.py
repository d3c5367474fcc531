"""Dockerfiles: what the last stage starts, in which form, and the signal that stops it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from ..commands import of_arguments, of_script
from ..model import Command, Fact, Image, Place, Scene
from ..source import Source

__all__ = ["scene"]

_INSTRUCTION: Final = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.S)
_HEREDOC: Final = re.compile(r"""<<-?["']?(\w+)["']?""")
_ENV: Final = re.compile(r"""([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)""")


def scene(source: Source) -> Scene:
    """Return the image that the last stage makes."""
    found: dict[str, tuple[str, Place]] = {}
    env: dict[str, Fact[str | None]] = {}
    stages: dict[str, tuple[dict[str, tuple[str, Place]], dict[str, Fact[str | None]]]] = {}
    for name, rest, line in _instructions(source.text):
        place = Place(source.name, line)
        if name == "FROM":
            base, alias = _stage(rest)
            below = stages.get(base, ({}, {}))
            found, env = dict(below[0]), dict(below[1])
            stages[alias] = found, env
        if name == "ENTRYPOINT":
            found.pop("CMD", None)  # an entry point resets the command of the base image
        if name == "ENV":
            env.update({key: Fact(value, place) for key, value in _assignments(rest)})
        found[name] = (rest, place)
    start = found.get("CMD") or found.get("ENTRYPOINT") or found.get("FROM")
    if start is None:
        return Scene()
    signal = found.get("STOPSIGNAL")
    return Scene(
        images=(
            Image(
                start[1],
                _command(found),
                tuple(_exec_form(found["ENTRYPOINT"][0]) or ()) if "ENTRYPOINT" in found else (),
                env,
                Fact(signal[0].strip(), signal[1]) if signal else None,
            ),
        )
    )


def _stage(rest: str) -> tuple[str, str]:
    """Return what a stage is made from and its name, which later stages may be made from."""
    words = [word.lower() for word in rest.split() if not word.startswith("--")]
    return words[0] if words else "", words[2] if len(words) > 2 else ""


def _command(found: dict[str, tuple[str, Place]]) -> Command | None:
    entry, command = found.get("ENTRYPOINT"), found.get("CMD")
    shell = _exec_form(found["SHELL"][0]) if "SHELL" in found else None
    if entry is not None:
        words = _exec_form(entry[0])
        if words is None:  # shell form, which ignores CMD
            return _script(shell, *entry)
        more = _exec_form(command[0]) if command else []
        place = command[1] if command and more else entry[1]
        return of_arguments([*words, *(more or [])], place)
    if command is None:
        return None
    words = _exec_form(command[0])
    return _script(shell, *command) if words is None else of_arguments(words, command[1])


def _script(shell: list[str] | None, script: str, place: Place) -> Command | None:
    return of_arguments([*shell, script], place) if shell else of_script(script, place)


def _exec_form(text: str) -> list[str] | None:
    """Return the words of a JSON array, None for a line that a shell gets."""
    if not text.lstrip().startswith("[") or len(text) > 8_000:
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [str(word) for word in words] if isinstance(words, list) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _instructions(text: str) -> Iterator[tuple[str, str, int]]:
    held, began = "", 0
    ends: list[str] = []
    for number, row in enumerate(text.splitlines(), 1):
        if ends:  # what a heredoc has inside is no instruction
            ends = ends[1:] if row.strip("\t") == ends[0] else ends
            continue
        if row.lstrip().startswith("#") or (not row.strip() and not held):
            continue
        began = began if held else number
        if row.rstrip().endswith("\\"):
            held += row.rstrip()[:-1] + " "
            continue
        match = _INSTRUCTION.match(held + row)
        held = ""
        if match and match[1].upper() in ("RUN", "COPY", "ADD"):
            ends = _HEREDOC.findall(match[2])
        if match:
            yield match[1].upper(), match[2].strip(), began


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    found = _ENV.findall(text[:8_000])
    if not found:
        name, _, value = text.partition(" ")
        found = [(name, value)]
    for name, value in found:
        yield name, value.strip("\"'")
