"""Puts together what belongs together: a manifest, its image, its ConfigMap, its gunicorn.conf.py.

What belongs to nothing else is a workload of its own, so that one file alone is checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from ..core.platforms import ALB_CONTROLLER_INTERVAL, ALB_CONTROLLER_UNHEALTHY, ALB_IDLE
from .commands import of_arguments, of_line
from .model import (
    Balancer,
    Check,
    Command,
    Fact,
    GunicornConf,
    Image,
    Ingress,
    Process,
    Scene,
    Server,
    Workload,
)
from .readers.systemd import dropped_in, is_dropin
from .units import plain

__all__ = ["assembled"]

ALB: Final = "alb.ingress.kubernetes.io/"

OWN_CONF: Final = "gunicorn.conf.py"
"""What gunicorn reads when no other file is named."""


def assembled(scene: Scene) -> Scene:
    """Return `scene` with every part where it belongs."""
    workloads = [_with_configs(workload, scene) for workload in _with_dropins(scene.workloads)]
    workloads = _with_images(workloads, scene.images)
    workloads = [_each(workload, map(_with_options, workload.processes)) for workload in workloads]
    workloads = _with_confs(workloads, scene.confs)
    balancers = (*scene.balancers, *filter(None, map(_alb, scene.ingresses)))
    return replace(scene, workloads=tuple(workloads), balancers=balancers)


def _each(workload: Workload, changed: Iterable[Process]) -> Workload:
    return replace(workload, processes=tuple(changed))


def _with_dropins(workloads: Iterable[Workload]) -> list[Workload]:
    """A unit and its drop-ins are one, in the order in which they are given."""
    found: list[Workload] = []
    units: dict[str, int] = {}
    for workload in workloads:
        at = units.get(workload.name) if workload.platform == "systemd" else None
        if at is not None and is_dropin(workload.place.file):
            found[at] = dropped_in(found[at], workload)
            continue
        if workload.platform == "systemd":
            units.setdefault(workload.name, len(found))
        found.append(workload)
    return found


def _with_configs(workload: Workload, scene: Scene) -> Workload:
    configs = {config.name: config.values for config in scene.configs}

    def brought(process: Process) -> Process:
        env: dict[str, Fact[str | None]] = {}
        for name in process.config_maps:
            env.update(configs.get(name, {}))
        return replace(process, env={**env, **process.env})

    return _each(workload, map(brought, workload.processes))


def _with_images(workloads: list[Workload], images: Iterable[Image]) -> list[Workload]:
    """One Dockerfile belongs to those that say nothing of what they start."""
    images = list(images)
    if len(images) == 1 and any(_takes(p, w) for w in workloads for p in w.processes):
        return [
            _each(w, (_started(p, images[0]) if _takes(p, w) else p for p in w.processes))
            for w in workloads
        ]
    return [*workloads, *map(_of_image, images)]


def _takes(process: Process, workload: Workload) -> bool:
    silent = process.command is None or bool(process.arguments)
    likely = process.built or any(name.startswith("GRACEFUL_") for name in process.env)
    alone = workload.platform in ("kubernetes", "ecs") and len(workload.processes) == 1
    return silent and (likely or alone)


def _started(process: Process, image: Image) -> Process:
    command = image.command
    if process.arguments and process.command is not None:
        command = of_arguments((*image.entrypoint, *process.arguments), process.command.place)
    return replace(
        process,
        command=command,
        env={**image.env, **process.env},
        stop_signal=process.stop_signal or image.stop_signal,
    )


def _of_image(image: Image) -> Workload:
    process = Process(
        name="",
        place=image.place,
        label="image",
        command=image.command,
        env=image.env,
        stop_signal=image.stop_signal,
    )
    return Workload(
        platform="dockerfile",
        kind="image of",
        name=PurePath(image.place.file).name,
        place=image.place,
        grace=None,
        processes=(process,),
    )


def _with_options(process: Process) -> Process:
    """GUNICORN_CMD_ARGS stands between gunicorn's command line and its file."""
    command, more = process.command, process.env.get("GUNICORN_CMD_ARGS")
    if command is None or command.server is None or command.server.name != "gunicorn":
        return process
    given = of_line(f"gunicorn {more.value if more else ''}", command.place)
    if given is None or given.server is None:
        return process
    server = replace(command.server, options={**given.server.options, **command.server.options})
    return replace(process, command=replace(command, server=server))


def _with_confs(workloads: list[Workload], confs: Iterable[GunicornConf]) -> list[Workload]:
    for conf in confs:
        takers = [p for w in workloads for p in w.processes if _reads(p, conf)]
        if not takers:
            workloads = [*workloads, _of_conf(conf)]
            continue
        workloads = [
            _each(w, (replace(p, conf=conf) if p in takers else p for p in w.processes))
            for w in workloads
        ]
    return workloads


def _reads(process: Process, conf: GunicornConf) -> bool:
    server = process.command.server if process.command else None
    if server is None or server.name != "gunicorn":
        return False
    named = server.options.get("config", OWN_CONF)
    return PurePath(named.removeprefix("file:")).name == PurePath(conf.place.file).name


def _of_conf(conf: GunicornConf) -> Workload:
    server = Server("gunicorn", conf.place, {})
    process = Process(
        name="",
        place=conf.place,
        label="server",
        command=Command(conf.place, "gunicorn", server),
        conf=conf,
    )
    return Workload(
        platform="gunicorn",
        kind="gunicorn with",
        name=PurePath(conf.place.file).name,
        place=conf.place,
        grace=None,
        processes=(process,),
    )


def attribute(fact: Fact[str] | None, name: str) -> Fact[float] | None:
    """Return one number of an annotation of the form 'name=3,other=x'."""
    match = fact and re.search(rf"(?:^|,)\s*{re.escape(name)}\s*=\s*(\d+)", fact.value)
    return Fact(float(match[1]), fact.place) if fact and match else None


def _alb(ingress: Ingress) -> Balancer | None:
    """The Application Load Balancer that the controller makes of an Ingress."""
    old = ingress.notes.get("kubernetes.io/ingress.class")
    if ingress.class_name != "alb" and (old is None or old.value != "alb"):
        return None
    notes = {key.removeprefix(ALB): fact for key, fact in ingress.notes.items()}
    idle = attribute(notes.get("load-balancer-attributes"), "idle_timeout.timeout_seconds")
    return Balancer(
        kind="alb",
        name=f"of Ingress {ingress.name}",
        place=ingress.place,
        hosts=ingress.services,
        check=_alb_check(ingress, notes),
        idle=idle or Fact(ALB_IDLE.value, ingress.place),
        idle_setting="idle_timeout.timeout_seconds",
        by_ip=(target := notes.get("target-type")) is not None and target.value == "ip",
    )


def _alb_check(ingress: Ingress, notes: dict[str, Fact[str]]) -> Check:
    interval, fails = (
        notes.get("healthcheck-interval-seconds"),
        notes.get("unhealthy-threshold-count"),
    )
    every = (plain(interval.value) if interval else None) or ALB_CONTROLLER_INTERVAL.value
    times = (plain(fails.value) if fails else None) or ALB_CONTROLLER_UNHEALTHY.value
    path = notes.get("healthcheck-path")
    return Check(
        path.place if path else ingress.place,
        True,
        path,
        every * times,
        f"interval {every:g} s × unhealthy {times:g}",
    )
