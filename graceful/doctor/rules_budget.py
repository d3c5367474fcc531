"""Rules about seconds: graceful's settings, the platform's grace period, the server's timeouts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..core.budget import ServerLimit, Settings, SettingsError, check
from ..settings import unknown_variables
from .inforce import (
    delay_before_drain,
    given,
    graceful_limit,
    processes,
    server,
    settings,
    signs,
    web,
)
from .model import Finding, Grace, Process, Scene, Workload

__all__ = ["rules"]


def rules(scene: Scene) -> Iterator[Finding]:
    """Judge every budget."""
    for workload, process in web(scene):
        subject = workload.subject(process)
        found = settings(process)
        if isinstance(found, SettingsError):
            yield _settings(subject, process, found)
        if isinstance(found, Settings):
            yield from _graceful(subject, workload, process, found)
        elif found is None:
            yield from _bare(subject, workload, process)
    for workload, process in processes(scene):
        yield from _zero(workload, process)
        yield from _variables(workload.subject(process), process)


def grace_of(workload: Workload, process: Process) -> Grace | None:
    """Return the platform's grace period for one process."""
    return process.grace or workload.grace


def written(grace: Grace, seconds: float) -> str:
    """Return how `seconds` are written where this grace period is."""
    number = math.ceil(seconds)
    return {
        "stop_grace_period": f"stop_grace_period: {number}s",
        "TimeoutStopSec": f"TimeoutStopSec={number}",
        "stopTimeout": f'"stopTimeout": {number}',
    }.get(grace.setting, f"{grace.setting}: {number}")


def said(grace: Grace) -> str:
    """Return a grace period as people read it."""
    return f"{grace.setting} {grace.seconds:g} s" + ("" if grace.written else " (the default)")


def _settings(subject: str, process: Process, error: SettingsError) -> Finding:
    """The core's message, taken apart: its fix comes last."""
    text, found, fix = str(error).rpartition("; ")
    if not found:
        text, _, fix = str(error).partition(": ")
    values = given(process)
    named = [f.place for f in values.values() if f.value.source in str(error)]
    names = [f.place for name, f in values.items() if name in str(error)]
    place = (named or names or [process.place])[0]
    return Finding("settings", place, subject, text, fix)


def _graceful(
    subject: str, workload: Workload, process: Process, found: Settings
) -> Iterator[Finding]:
    grace = grace_of(workload, process)
    if grace is not None and grace.seconds > 0:
        yield from _against_platform(subject, process, grace, found)
    yield from _both_waits(subject, process, found)
    yield from _server_limit(subject, process, found)


def _against_platform(
    subject: str, process: Process, grace: Grace, found: Settings
) -> Iterator[Finding]:
    sleep = delay_before_drain(process)
    values = given(process)
    period = f"grace_period {found.grace_period:g} s" + (
        "" if "grace_period" in values else " (graceful's default)"
    )
    numbers = {"grace_period": found.grace_period, grace.setting: grace.seconds}
    if found.grace_period > grace.seconds:
        place = grace.place if grace.written or "grace_period" not in values else None
        yield Finding(
            "grace-exceeded",
            place or values["grace_period"].place,
            subject,
            f"{period} counts on more than {said(grace)}: SIGKILL comes "
            f"{found.grace_period - grace.seconds:g} s before the process is done",
            f"{written(grace, found.grace_period)}, or GRACEFUL_GRACE_PERIOD={grace.seconds:g}",
            numbers,
        )
    elif math.isfinite(grace.seconds) and found.grace_period < grace.seconds:
        yield Finding(
            "grace-unused",
            grace.place,
            subject,
            f"{said(grace)}, but {period}: {grace.seconds - found.grace_period:g} s are not used",
            f"GRACEFUL_GRACE_PERIOD={grace.seconds:g}, or {written(grace, found.grace_period)}",
            numbers,
        )
    if process.pre_stop is not None and (sleep or 0.0) > found.pre_stop:
        left = max(0.0, (sleep or 0.0) - found.pre_stop)
        yield Finding(
            "prestop-uncounted",
            process.pre_stop.place,
            subject,
            f"the preStop hook takes {sleep:g} s of {said(grace)}, but pre_stop is "
            f"{found.pre_stop:g}: the process counts on {left:g} s that are gone",
            f"remove the hook, graceful keeps serving by itself; or GRACEFUL_PRE_STOP={sleep:g}",
            {"preStop": sleep or 0.0, "pre_stop": found.pre_stop},
        )


def _both_waits(subject: str, process: Process, found: Settings) -> Iterator[Finding]:
    sleep = delay_before_drain(process)
    if process.pre_stop is None or not sleep or not found.propagation_delay:
        return
    total = sleep + found.propagation_delay
    yield Finding(
        "prestop-and-delay",
        process.pre_stop.place,
        subject,
        f"the preStop hook sleeps {sleep:g} s, then propagation_delay waits "
        f"{found.propagation_delay:g} s more: {total:g} s of serving before the drain begins",
        f"remove the hook, or GRACEFUL_PROPAGATION_DELAY=0 with GRACEFUL_PRE_STOP={sleep:g}",
        {"preStop": sleep, "propagation_delay": found.propagation_delay},
    )


def _server_limit(subject: str, process: Process, found: Settings) -> Iterator[Finding]:
    limit, of = graceful_limit(process), server(process)
    if limit is None or limit.seconds is None or of is None or not limit.written:
        return
    if of.name == "uvicorn":
        for told in check(found, [ServerLimit(limit.name, limit.seconds, "after_drain")]):
            text, _, fix = told.text.rpartition("; ")
            yield Finding("server-timeout-unused", limit.place, subject, text, fix)
    needed = found.drain + found.cleanup_timeout
    if of.name == "gunicorn" and limit.seconds < needed:
        yield Finding(
            "server-timeout",
            limit.place,
            subject,
            f"{limit.name} = {limit.seconds:g} s would kill workers before drain "
            f"{found.drain:g} + cleanup_timeout {found.cleanup_timeout:g} = {needed:g} s are over",
            "leave it out, install() sets it from the budget; or lower drain_timeout",
            {"graceful_timeout": limit.seconds, "needed": needed},
        )


def _bare(subject: str, workload: Workload, process: Process) -> Iterator[Finding]:
    """Without graceful: the hook and the server's own timeout have to fit."""
    grace, limit = grace_of(workload, process), graceful_limit(process)
    sleep = delay_before_drain(process)
    if grace is None or limit is None or limit.seconds is None or sleep is None:
        return
    total = sleep + limit.seconds
    if not 0 < grace.seconds < total:
        return
    hook = f"preStop {sleep:g} s + " if sleep else ""
    default = "" if limit.written else " (the default)"
    equals = f" = {total:g} s" if sleep else ""
    yield Finding(
        "server-timeout",
        limit.place if limit.written else grace.place,
        subject,
        f"{hook}{limit.name} {limit.seconds:g} s{default}{equals} exceeds {said(grace)}: SIGKILL "
        "cuts what is in flight",
        f"{written(grace, total + 5)}, or lower {limit.name.split()[-1]}",
        {"needed": total, grace.setting: grace.seconds},
    )


def _zero(workload: Workload, process: Process) -> Iterator[Finding]:
    grace = grace_of(workload, process)
    first = process is workload.processes[0] or process.grace is not None
    if grace is not None and grace.written and grace.seconds == 0 and first:
        yield Finding(
            "grace-zero",
            grace.place,
            workload.title,
            f"{said(grace)}: SIGKILL comes at once",
            written(grace, 30),
            {grace.setting: 0.0},
        )


def _variables(subject: str, process: Process) -> Iterator[Finding]:
    if not signs(process):
        return
    for name, fact in process.env.items():
        value = fact.value or ""
        if value.startswith(("tcp://", "udp://")):
            continue  # what Kubernetes writes for a Service called 'graceful'
        for sentence in unknown_variables({name: value}):
            text, _, fix = sentence.rpartition("; ")
            yield Finding("unknown-variable", fact.place, subject, text, fix)
