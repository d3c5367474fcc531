"""Rules about what is started and how it is told to stop: shells, signals, servers, units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..core.budget import Settings
from ..core.platforms import FARGATE_MOST
from ..core.worker_settings import CONNECTIONS, worker_findings
from .inforce import (
    delay_before_drain,
    graceful_limit,
    processes,
    server,
    serves,
    settings,
    signs,
    text_option,
    web,
)
from .model import Finding, Process, Scene, Workload

__all__ = ["rules"]

_SIGTERM: Final = frozenset({"SIGTERM", "TERM", "15"})


def rules(scene: Scene) -> Iterator[Finding]:
    """Judge every process."""
    for workload, process in processes(scene):
        subject = workload.subject(process)
        yield from _shell(subject, workload, process)
        yield from _systemd(subject, workload)
        yield from _fargate(subject, workload, process)
    for workload, process in web(scene):
        subject = workload.subject(process)
        yield from _signal(subject, process)
        yield from _lame_duck(subject, workload, process)
        yield from _uvicorn(subject, process)
        yield from _development(subject, workload, process)
        yield from _gunicorn(subject, process)


ALONE: Final = frozenset({"dockerfile", "ecs", "gunicorn"})
"""Where nothing else has to say that a program serves."""


def _shell(subject: str, workload: Workload, process: Process) -> Iterator[Finding]:
    command = process.command
    listens = serves(process) or process.ports or process.readiness or workload.platform in ALONE
    if command is None or not command.shell or not listens:
        return
    what = command.server.name if command.server and not command.server.program else "the program"
    text = f"{command.shell} is process 1 and passes no SIGTERM on to {what}"
    if workload.platform == "systemd":
        mode = workload.notes.get("KillMode")
        if mode is None or mode.value != "mixed":
            return  # every process of the unit is signalled
        text = f"with KillMode=mixed only {command.shell} gets SIGTERM, and {what} SIGKILL after it"
    yield Finding(
        "shell-swallows-sigterm",
        command.place,
        subject,
        text,
        f"write exec before {what}, or start it without a shell",
    )


def _systemd(subject: str, workload: Workload) -> Iterator[Finding]:
    mode = workload.notes.get("KillMode") if workload.platform == "systemd" else None
    if mode is not None and mode.value in ("process", "none"):
        whom = "only the main process" if mode.value == "process" else "nobody"
        yield Finding(
            "kill-mode",
            mode.place,
            subject,
            f"KillMode={mode.value} signals {whom}; what is left holds the port",
            "KillMode=mixed",
        )


def _fargate(subject: str, workload: Workload, process: Process) -> Iterator[Finding]:
    grace = process.grace
    if workload.fargate and grace is not None and grace.seconds > FARGATE_MOST.value:
        yield Finding(
            "fargate-limit",
            grace.place,
            subject,
            f"stopTimeout {grace.seconds:g} s; Fargate waits {FARGATE_MOST.value:g} s at most",
            f'"stopTimeout": {FARGATE_MOST.value:g}',
            {"stopTimeout": grace.seconds},
        )


def _signal(subject: str, process: Process) -> Iterator[Finding]:
    signal = process.stop_signal
    if signal is None or signal.value.upper() in _SIGTERM:
        return
    name = signal.value.upper()
    bare = server(process)
    if "INT" in name and not signs(process) and bare is not None and bare.name != "gunicorn":
        return  # uvicorn and the others take it for a SIGTERM
    yield Finding(
        "stop-signal",
        signal.place,
        subject,
        f"it is stopped with {name}, which is not the orderly stop",
        "SIGTERM, which is the default: remove the line",
    )


def _lame_duck(subject: str, workload: Workload, process: Process) -> Iterator[Finding]:
    named = server(process)
    sleeps = delay_before_drain(process) != 0  # a hook of unknown length may well do
    if workload.platform != "kubernetes" or signs(process) or sleeps or named is None:
        return
    if named.name == "development":
        return  # which is told already
    yield Finding(
        "no-lame-duck",
        named.place,
        subject,
        f"no sign of graceful and no preStop hook: {named.program or named.name} stops accepting "
        "while Services still send requests here",
        "graceful's middleware, with GRACEFUL_GRACE_PERIOD in env; or a preStop sleep of 5 s",
    )


def _uvicorn(subject: str, process: Process) -> Iterator[Finding]:
    named, limit = server(process), graceful_limit(process)
    if named is None or named.name != "uvicorn" or signs(process) or limit is None:
        return
    if limit.seconds is None and not limit.written:
        yield Finding(
            "uvicorn-no-timeout",
            named.place,
            subject,
            "no --timeout-graceful-shutdown and no sign of graceful: one open stream holds the "
            "process until SIGKILL",
            "graceful's middleware, or --timeout-graceful-shutdown 20",
        )


def _development(subject: str, workload: Workload, process: Process) -> Iterator[Finding]:
    named = server(process)
    if named is None or workload.platform == "compose":  # where development happens
        return
    reloads = "reload" in named.options
    if named.name == "development" or reloads:
        what = named.program or named.name + (" --reload" if reloads else "")
        yield Finding(
            "development-server",
            named.place,
            subject,
            f"{what} ends with everything that is in flight",
            "leave --reload out" if reloads else "uvicorn or gunicorn",
        )


def _gunicorn(subject: str, process: Process) -> Iterator[Finding]:
    named, found = server(process), settings(process)
    if named is None or named.name != "gunicorn" or not isinstance(found, Settings):
        return
    conf = process.conf
    if conf is not None and conf.installs is None:
        yield Finding(
            "gunicorn-install",
            conf.place,
            subject,
            "GRACEFUL_* is set, but this file does not call install(globals())",
            "from graceful.integrations import gunicorn as graceful_gunicorn; "
            "graceful_gunicorn.install(globals())",
        )
    yield from _worker(subject, process, found)


def _worker(subject: str, process: Process, found: Settings) -> Iterator[Finding]:
    """The core's own judgement, where every value that it needs is a number."""
    kind = text_option(process, "worker-class", "worker_class") or "sync"
    threads = _number(process, "threads", "threads", 1)
    if kind == "sync" and threads > 1:
        kind = "gthread"
    told = worker_findings(
        found,
        blocks_heartbeat=kind == "sync",
        workers=_number(process, "workers", "workers", 1),
        timeout=_number(process, "timeout", "timeout", 30),
        max_requests=_number(process, "max-requests", "max_requests", 0),
        max_requests_jitter=_number(process, "max-requests-jitter", "max_requests_jitter", 0),
        threads=threads if kind == "gthread" else 0,
        worker_connections=_number(
            process, "worker-connections", "worker_connections", CONNECTIONS
        ),
    )
    named = server(process)
    default = named.place if named else process.place
    for sentence in told:
        text, _, fix = sentence.rpartition("; ")
        stands = process.conf.values.get(text.split()[0]) if process.conf else None
        place = stands.place if stands else default
        yield Finding("gunicorn-worker", place, subject, text, fix)


def _number(process: Process, flag: str, attribute: str, default: int) -> int:
    """Return a whole number; one that nobody knows is taken for harmless: the default."""
    try:
        return int(text_option(process, flag, attribute) or default)
    except ValueError:
        return default
