"""Rules about the probes of a kubelet's."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.budget import Settings
from .inforce import settings, signs, web
from .model import Finding, Probe, Process, Scene

__all__ = ["rules"]


def rules(scene: Scene) -> Iterator[Finding]:
    """Judge the probes of every web process of a pod."""
    for workload, process in web(scene):
        if workload.platform != "kubernetes":
            continue
        subject = workload.subject(process)
        yield from _missing(subject, process)
        yield from _same(subject, process)
        found = settings(process)
        if isinstance(found, Settings):
            yield from _readiness(subject, process, found)
            yield from _liveness(subject, process, found)


def _missing(subject: str, process: Process) -> Iterator[Finding]:
    # What names neither an image nor a command is a patch of a pod whose probes are elsewhere.
    whole = process.image or process.command
    if process.readiness is None and whole and not process.native_sidecar:
        path = "/readyz" if signs(process) else "a path of the app's"
        yield Finding(
            "no-readiness",
            process.place,
            subject,
            "no readinessProbe: a new pod gets requests before its server listens",
            f"readinessProbe with httpGet of {path}, periodSeconds: 2, failureThreshold: 1",
        )


def _same(subject: str, process: Process) -> Iterator[Finding]:
    """One question for two purposes."""
    live, ready = process.liveness, process.readiness
    if live is None or live.kind != "http" or live.path is None:
        return
    found = settings(process)
    own = found.readiness_path if isinstance(found, Settings) else None
    same = (
        ready is not None
        and ready.path is not None
        and (ready.path.value, _port(ready, process)) == (live.path.value, _port(live, process))
    )
    if same or (own is not None and live.path.value == own):
        better = found.liveness_path if isinstance(found, Settings) else None
        yield Finding(
            "liveness-on-readiness",
            max(live.place, live.path.place),  # an alias stands before it
            subject,
            f"livenessProbe asks {live.path.value}, as readiness does: whenever the instance is "
            "not ready for long it is killed",
            f"livenessProbe on {better or '/livez, or on a path that checks nothing else'}",
        )


def _port(probe: Probe, process: Process) -> str:
    return process.ports.get(probe.port, probe.port)


def _readiness(subject: str, process: Process, found: Settings) -> Iterator[Finding]:
    probe = process.readiness
    if probe is None:
        return
    own = found.readiness_path
    if own is not None and probe.path is not None and not probe.path.value.endswith(own):
        yield Finding(
            "readiness-path",
            probe.path.place,
            subject,
            f"readinessProbe asks {probe.path.value}, but graceful says 503 at {own}",
            f"path: {own}; or GRACEFUL_READINESS_PATH={probe.path.value} with "
            "GRACEFUL_READINESS_MODE=wrap",
        )
    if 0 < found.propagation_delay < probe.seconds:  # 0: a preStop hook does it
        yield Finding(
            "readiness-slow",
            probe.place,
            subject,
            f"periodSeconds {probe.period:g} × failureThreshold {probe.failures} = "
            f"{probe.seconds:g} s, more than propagation_delay {found.propagation_delay:g} s",
            "periodSeconds: 2 and failureThreshold: 1",
            {"probe": probe.seconds, "propagation_delay": found.propagation_delay},
        )


def _liveness(subject: str, process: Process, found: Settings) -> Iterator[Finding]:
    probe = process.liveness
    if probe is None or probe.kind == "exec" or probe.seconds >= found.drain:
        return
    if found.probe_port is not None and _port(probe, process) == str(found.probe_port):
        return
    yield Finding(
        "liveness-cuts-drain",
        probe.place,
        subject,
        f"periodSeconds {probe.period:g} × failureThreshold {probe.failures} = "
        f"{probe.seconds:g} s, less than the drain of {found.drain:g} s, in which the main port "
        "is closed",
        f"failureThreshold: {_enough(probe, found)}, or a liveness probe on GRACEFUL_PROBE_PORT",
        {"probe": probe.seconds, "drain": found.drain},
    )


def _enough(probe: Probe, found: Settings) -> int:
    return int(found.drain // max(probe.period, 1.0)) + 1
