"""systemd units: what a service starts, how it is signalled, and when SIGKILL comes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Final

from ...core.platforms import SYSTEMD_GRACE
from ..commands import of_line
from ..model import Command, Fact, Grace, Place, Process, Scene, Workload
from ..source import Source
from ..units import systemd as seconds_of

__all__ = ["dropped_in", "is_dropin", "scene"]

PREFIXES: Final = "@-:+!|"
"""What may stand before a program in Exec lines."""


def scene(source: Source) -> Scene:
    """Return the unit, if it is a service that starts something."""
    settings: dict[str, Fact[str]] = {}
    env: dict[str, Fact[str | None]] = {}
    for section, key, value, line in _entries(source.text):
        place = Place(source.name, line)
        if section != "Service":
            continue
        if key == "Environment" and not value:
            env.clear()  # an empty assignment resets the list
        elif key == "Environment":
            env.update({name: Fact(value, place) for name, value in _assignments(value)})
        elif key in ("TimeoutSec", "TimeoutStopSec"):
            settings["TimeoutStopSec"] = Fact(value, place)
        elif value:
            settings[key] = Fact(value, place)
    if not settings and not env:
        return Scene()
    return Scene(workloads=(_unit(source.name, settings, env),))


def dropped_in(unit: Workload, more: Workload) -> Workload:
    """Lay a drop-in, 'web.service.d/more.conf', over its unit: the later assignment counts."""
    env = {**unit.processes[0].env, **more.processes[0].env}
    return _unit(unit.place.file, {**unit.notes, **more.notes}, env)


def is_dropin(file: str) -> bool:
    """Whether a file only adds to a unit."""
    return PurePath(file).parent.name.endswith(".service.d")


def _name(file: str) -> str:
    path = PurePath(file)
    return path.parent.name.removesuffix(".d") if is_dropin(file) else path.name


def _unit(
    file: str, settings: Mapping[str, Fact[str]], env: Mapping[str, Fact[str | None]]
) -> Workload:
    name, start = _name(file), settings.get("ExecStart")
    place = start.place if start else Place(file, 1)
    limit = settings.get("TimeoutStopSec")
    seconds = seconds_of(limit.value) if limit else None
    # A drop-in alone says nothing of the rest, and what is no duration is nobody's.
    known = seconds is not None if limit else not is_dropin(file)
    grace = Grace(
        "TimeoutStopSec",
        SYSTEMD_GRACE.value if seconds is None else seconds,
        limit.place if limit else place,
        seconds is not None,
    )
    process = Process(
        name=name,
        place=place,
        label="unit",
        command=_command(start),
        env=env,
        stop_signal=settings.get("KillSignal"),
    )
    return Workload(
        platform="systemd",
        kind="unit",
        name=name,
        place=place,
        grace=grace if known else None,
        processes=(process,),
        notes=settings,
    )


def _command(start: Fact[str] | None) -> Command | None:
    return None if start is None else of_line(start.value.lstrip(PREFIXES), start.place)


def _entries(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield section, key, value and line; a line that ends in a backslash goes on."""
    section, held, began = "", "", 0
    for number, row in enumerate(text.splitlines(), 1):
        line = row.strip()
        if line[:1] in ("#", ";") or (not held and not line):
            continue  # a comment does not end what goes on
        began = began if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        line, held = held + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if equals:
            yield section, key.strip(), value.strip(), began


def _assignments(value: str) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(value[:8_000])
    except ValueError:
        words = []
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            yield name, text
