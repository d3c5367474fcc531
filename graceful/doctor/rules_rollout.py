"""Rules about what goes away together with the app, and who is there in the meantime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from ..core.budget import Settings
from ..core.platforms import ISTIO_DRAIN
from .inforce import serves, settings, web
from .model import Finding, Place, Process, Scene, Workload
from .units import go, plain

__all__ = ["rules", "selected"]

PROXIES: Final = (
    (r"cloud-?sql-(auth-)?proxy|cloudsql-docker|alloydb-auth-proxy", "database connections go"),
    (r"pgbouncer|pgcat|odyssey|proxysql", "database connections go"),
    (r"envoy|istio/proxyv2|linkerd/proxy|consul-dataplane|kuma-dp", "traffic goes"),
    (r"(^|/)nginx|haproxy|traefik|caddy|oauth2-proxy|openresty|pomerium", "traffic goes"),
    (r"(^|/)daprd|twingate|tailscale", "traffic goes"),
)
"""Images that an app's traffic or its database connections go through."""

WAITS: Final = re.compile(r"term_timeout|max-sigterm-delay|min-sigterm-delay")
"""Flags by which cloud-sql-proxy stays for a while."""


def rules(scene: Scene) -> Iterator[Finding]:
    """Judge neighbours and rollouts."""
    for workload in scene.workloads:
        if not any(map(serves, workload.processes)):
            continue
        yield from _sidecars(workload)
        yield from _overlap(workload)
    for workload, process in web(scene):
        if workload.platform == "kubernetes":
            yield from _mesh(workload, process)
    yield from _connection_age(scene)


def _sidecars(workload: Workload) -> Iterator[Finding]:
    apps = [process for process in workload.processes if serves(process)]
    for process in workload.processes:
        what = next((what for image, what in PROXIES if re.search(image, process.image)), None)
        if what is None or process in apps or _stays(process, apps):
            continue
        fix = (
            f"initContainers: {process.name} with restartPolicy: Always"
            if workload.platform == "kubernetes"
            else f'"dependsOn": [{{"containerName": "{process.name}", "condition": "START"}}]'
        )
        yield Finding(
            "sidecar-leaves-first",
            process.place,
            workload.subject(process),
            f"it gets SIGTERM together with {apps[0].name or 'the app'}, whose {what} through it",
            fix,
        )


def _stays(process: Process, apps: list[Process]) -> bool:
    text = process.command.text if process.command else ""
    depended = any(process.name in app.depends_on for app in apps)
    return (
        process.native_sidecar
        or process.pre_stop is not None
        or depended
        or WAITS.search(text) is not None
    )


def _mesh(workload: Workload, process: Process) -> Iterator[Finding]:
    found = settings(process)
    needed = found.propagation_delay + found.drain if isinstance(found, Settings) else None
    for name, place, stays, setting in _proxies(workload):
        if stays is None or (needed is not None and stays >= needed):
            continue
        if needed is None and stays > 2 * ISTIO_DRAIN.value:
            continue
        wants = f"{needed:g} s of delay and drain" if needed is not None else "the app's own stop"
        number = f"{needed:g}" if needed is not None else "30"
        yield Finding(
            "mesh-leaves-first",
            place,
            workload.title,
            f"{name}'s proxy stays for {stays:g} s, less than {wants}, unless the mesh injects "
            "native sidecars",
            f"a native sidecar ({setting[0]}), or {setting[1].format(number)}",
            {"proxy": stays} | ({"needed": needed} if needed is not None else {}),
        )


def _proxies(workload: Workload) -> Iterator[tuple[str, Place, float | None, tuple[str, str]]]:
    """Yield each injected proxy: name, place, seconds that it stays (None = long enough)."""
    notes = workload.notes
    istio = notes.get("sidecar.istio.io/inject")
    if istio is not None and istio.value == "true":
        native = notes.get("sidecar.istio.io/nativeSidecar")
        config = notes.get("proxy.istio.io/config")
        stays = (
            None if native and native.value == "true" else _istio(config.value if config else "")
        )
        place = config.place if config else istio.place
        yield "Istio", place, stays, ISTIO_FIX
    linkerd = notes.get("linkerd.io/inject")
    if linkerd is not None and linkerd.value in ("enabled", "ingress"):
        yield "Linkerd", linkerd.place, _linkerd(workload), LINKERD_FIX


ISTIO_FIX: Final = (
    "sidecar.istio.io/nativeSidecar: 'true'",
    "terminationDrainDuration: {}s in proxy.istio.io/config",
)
LINKERD_FIX: Final = (
    "config.linkerd.io/proxy-enable-native-sidecar: 'true'",
    "config.alpha.linkerd.io/proxy-wait-before-exit-seconds: '{}'",
)


def _istio(config: str) -> float | None:
    if re.search(r"""EXIT_ON_ZERO_ACTIVE_CONNECTIONS["']?\s*:\s*["']?true""", config):
        return None
    given = re.search(r"""terminationDrainDuration["']?\s*:\s*["']?([\w.]+)""", config)
    seconds = go(given[1]) if given else ISTIO_DRAIN.value
    return ISTIO_DRAIN.value if seconds is None else seconds


def _linkerd(workload: Workload) -> float | None:
    for key, fact in workload.notes.items():
        if key.endswith("/proxy-enable-native-sidecar") and fact.value == "true":
            return None
        if key.endswith("/proxy-wait-before-exit-seconds"):
            return plain(fact.value)
    return 0.0


def _overlap(workload: Workload) -> Iterator[Finding]:
    replicas = workload.replicas
    if workload.platform != "kubernetes" or replicas is None:
        return
    recreate = workload.strategy if workload.kind == "Deployment" else None
    most = workload.max_unavailable
    if recreate is not None and recreate.value == "Recreate":
        place = recreate.place
        why = "strategy Recreate ends all pods before it makes new ones"
        fix = "type: RollingUpdate, with maxUnavailable: 0"
    elif workload.kind == "Deployment" and most is not None and _gone(most.value, replicas):
        place = most.place
        why = f"maxUnavailable {most.value} with replicas {replicas}: all may go at once"
        fix = "maxUnavailable: 0, with maxSurge: 1"
    elif workload.kind == "StatefulSet" and replicas == 1:
        place = workload.place
        why = "a StatefulSet of 1 deletes its pod before it makes the next one"
        fix = "replicas: 2 or more, or a Deployment"
    else:
        return
    yield Finding("no-overlap", place, workload.title, why, fix, {"replicas": float(replicas)})


def _gone(text: str, replicas: int) -> bool:
    """Whether so many may be missing that none is left; percentages are rounded down."""
    number = plain(text.removesuffix("%"))
    if number is None or replicas < 1:
        return False
    return (number * replicas // 100 if text.endswith("%") else number) >= replicas


def selected(selector: Mapping[str, str], workload: Workload) -> bool:
    """Whether a Service's selector chooses the pods of `workload`."""
    return bool(selector) and selector.items() <= workload.labels.items()


def _connection_age(scene: Scene) -> Iterator[Finding]:
    for service in scene.services:
        if not (service.headless and service.grpc):
            continue
        chosen = [w for w in scene.workloads if selected(service.selector, w)]
        bounded = any(
            "MAX_CONNECTION_AGE" in name for w in chosen for p in w.processes for name in p.env
        )
        ours = not chosen or any(serves(p) for w in chosen for p in w.processes)
        if ours and not bounded:
            yield Finding(
                "connection-age",
                service.place,
                f"Service {service.name}",
                "gRPC clients of a headless Service keep to the addresses of their first look-up",
                "grpc.max_connection_age_ms with grpc.max_connection_age_grace_ms on the server",
            )
