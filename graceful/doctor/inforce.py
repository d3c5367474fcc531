"""What is in force in a process, as far as files can tell: graceful's settings, the server's own.

The settings go through `graceful.core.budget`, so the numbers and the words are the library's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..core.budget import SETTINGS, SHARED, Settings, SettingsError, Sourced, resolve
from .model import Fact, Place, Process, Scene, Server, Workload

__all__ = [
    "Limit",
    "delay_before_drain",
    "given",
    "graceful_limit",
    "keep_alive",
    "processes",
    "server",
    "serves",
    "settings",
    "signs",
    "web",
]

PREFIX: Final = "GRACEFUL_"
OWN_CONF: Final = "python:graceful.integrations.gunicorn_conf"
THEIRS: Final = frozenset({"GRACEFUL_TIMEOUT"})
"""No sign of graceful: the uvicorn-gunicorn images of tiangolo's read it."""

_VARIABLES: Final = {row.variable: row.name for row in SETTINGS}


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds of a server's own."""

    name: str
    """As its users write it."""
    seconds: float | None
    """None = for ever."""
    place: Place
    written: bool


@dataclass(frozen=True, slots=True)
class _Option:
    """One timeout of a server's: what it is called where, and its default."""

    flag: str
    variable: str
    attribute: str
    default: float | None


GRACEFUL_LIMITS: Final = {
    "uvicorn": _Option("timeout-graceful-shutdown", "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN", "", None),
    "gunicorn": _Option("graceful-timeout", "", "graceful_timeout", 30.0),
    "hypercorn": _Option("graceful-timeout", "", "", 3.0),
    "granian": _Option("workers-kill-timeout", "GRANIAN_WORKERS_KILL_TIMEOUT", "", None),
}
"""How long a server waits for what is in flight. Read from their sources, defaults too: uvicorn
0.54, gunicorn 27, hypercorn 0.18, granian 2.8."""

KEEP_ALIVES: Final = {
    "uvicorn": _Option("timeout-keep-alive", "UVICORN_TIMEOUT_KEEP_ALIVE", "", 5.0),
    "gunicorn": _Option("keep-alive", "", "keepalive", 2.0),
    "hypercorn": _Option("keep-alive", "", "", 5.0),
    "waitress": _Option("channel-timeout", "", "", 120.0),
}
"""How long a server keeps an idle connection; granian and daphne set no such limit."""


def server(process: Process) -> Server | None:
    """Return the web server that a process is, if it is a known one."""
    return process.command.server if process.command else None


def signs(process: Process) -> bool:
    """Whether something in the files says that graceful is at work in this process."""
    if any(map(_is_ours, process.env.items())):
        return True
    if process.conf is not None and process.conf.installs is not None:
        return True
    if process.command is not None and process.command.settings is not None:
        return True
    found = server(process)
    return found is not None and found.options.get("config") == OWN_CONF


def serves(process: Process) -> bool:
    """Whether this is a web process of Python's."""
    return server(process) is not None or signs(process)


def processes(scene: Scene) -> Iterator[tuple[Workload, Process]]:
    """Yield every process with its workload."""
    for workload in scene.workloads:
        for process in workload.processes:
            yield workload, process


def web(scene: Scene) -> Iterator[tuple[Workload, Process]]:
    """Yield the web processes."""
    return ((w, p) for w, p in processes(scene) if serves(p))


def _is_ours(variable: tuple[str, Fact[str | None]]) -> bool:
    name, fact = variable
    return name.startswith(PREFIX) and name not in THEIRS and not _is_link(fact)


def _is_link(fact: Fact[str | None]) -> bool:
    """Kubernetes writes such values for a Service called 'graceful'."""
    return (fact.value or "").startswith(("tcp://", "udp://"))


def given(process: Process) -> dict[str, Fact[Sourced]]:
    """Return the settings by name that are written down; the value `...` = unknown."""
    found: dict[str, Fact[Sourced]] = {}
    if process.conf is not None and process.conf.installs is not None:
        for name, fact in process.conf.installs.value.items():
            found[name] = Fact(Sourced(fact.value, "install(...)"), fact.place)
    for variable, fact in process.env.items():
        if variable in _VARIABLES and not _is_link(fact):
            known = fact.value is not None and "$(" not in fact.value
            raw = Sourced(fact.value if known else ..., f"${variable}")
            found[_VARIABLES[variable]] = Fact(raw, fact.place)
    if process.command is not None:
        for name, value in (process.command.settings or {}).items():
            option = f"graceful run --{name.replace('_', '-')}"
            found[name] = Fact(Sourced(value, option), process.command.place)
    return found


def settings(process: Process) -> Settings | SettingsError | None:
    """Return graceful's settings in a process, or what is wrong with them.

    None: nothing says that it is there, or a part of its timeline is not in the files.
    """
    if not signs(process):
        return None
    raw = {name: fact.value for name, fact in given(process).items()}
    if any(one.value is ... for name, one in raw.items() if name in SHARED):
        return None
    raw = {name: one for name, one in raw.items() if one.value is not ...}
    try:
        return resolve(raw)
    except SettingsError as error:
        return error


def delay_before_drain(process: Process) -> float | None:
    """Return the seconds that a preStop hook sleeps; None = there is one of unknown length."""
    return 0.0 if process.pre_stop is None else process.pre_stop.value


def graceful_limit(process: Process) -> Limit | None:
    """Return how long the server itself waits for requests at a stop."""
    return _limit(process, GRACEFUL_LIMITS)


def keep_alive(process: Process) -> Limit | None:
    """Return how long the server keeps an idle connection; None = it does not, or nobody knows."""
    found = server(process)
    if found is not None and found.name == "gunicorn" and _worker_class(process) == "sync":
        return None
    return _limit(process, KEEP_ALIVES)


def _worker_class(process: Process) -> str:
    """sync, unless another one is named, or threads, which make it gthread."""
    kind = text_option(process, "worker-class", "worker_class")
    threads = text_option(process, "threads", "threads")
    if kind is None and threads not in (None, "1"):
        return "gthread"
    return kind or "sync"


def text_option(process: Process, flag: str, attribute: str) -> str | None:
    """Return one of gunicorn's settings as text, the command line first; '?' = unknown."""
    found = server(process)
    if found is not None and flag in found.options:
        return found.options[flag]
    fact = process.conf.values.get(attribute) if process.conf else None
    if fact is None:
        return None
    return "?" if fact.value is ... else str(fact.value)


def _limit(process: Process, table: Mapping[str, _Option]) -> Limit | None:
    found = server(process)
    option = table.get(found.name) if found else None
    if found is None or option is None:
        return None
    for name, value, place in _written(process, found, option):
        seconds = _seconds(value)
        return None if seconds is None else Limit(name, seconds, place, written=True)
    name = option.attribute or f"--{option.flag}"
    return Limit(f"{found.name} {name}", option.default, found.place, written=False)


def _written(
    process: Process, found: Server, option: _Option
) -> Iterator[tuple[str, object, Place]]:
    """Yield where a limit is written, the strongest first."""
    if option.flag in found.options:
        yield f"{found.name} --{option.flag}", found.options[option.flag], found.place
    fact = process.env.get(option.variable)
    if fact is not None:
        yield f"${option.variable}", fact.value, fact.place
    conf = process.conf.values.get(option.attribute) if process.conf else None
    if conf is not None:
        yield f"{found.name} {option.attribute}", conf.value, conf.place


def _seconds(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
