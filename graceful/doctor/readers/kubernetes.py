"""Kubernetes manifests: pods and what makes them, Services, Ingresses, ConfigMaps; `List` kinds.

Helm's and kustomize's output is read as it comes. Documents of other kinds are not even parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from ...core.platforms import KUBERNETES_FAILURES, KUBERNETES_GRACE, KUBERNETES_PERIOD
from ..commands import of_arguments
from ..model import (
    Config,
    Fact,
    Grace,
    Ingress,
    Probe,
    Process,
    Scene,
    Service,
    Workload,
)
from ..source import Source, Unreadable
from ..units import plain
from ..yamltree import Node, documents

__all__ = ["scene"]


PODS: Final = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Rollout": ("spec", "template"),  # Argo's
    "DeploymentConfig": ("spec", "template"),  # OpenShift's
}
"""Kinds that serve, and where their pod is. Jobs are stopped by being done."""

LISTS: Final = re.compile(r"\w*List$")

_SERVES: Final = re.compile(
    rf"""^[\s{{-]*["']?kind["']?\s*:\s*["']?({"|".join((*PODS, "Service", "Ingress"))}|\w*List)\b"""
    r"""|"kind"\s*:""",
    re.M,
)
_SLEEP: Final = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)(?![\w.])")


def scene(source: Source) -> Scene:
    """Return what a stream of manifests has.

    Raises:
        Unreadable: it is no YAML, or too much of it.
    """
    found = Scene()
    for document in documents(source, _wanted):
        for thing in _things(document, source):
            found += _thing(thing)
    return found


def _wanted(text: str) -> bool:
    """Dashboards and the like are ConfigMaps too, large ones."""
    return _SERVES.search(text) is not None or ("ConfigMap" in text and "GRACEFUL_" in text)


def _things(document: Node, source: Source, depth: int = 0) -> Iterator[Node]:
    """Yield the objects of a document; lists are taken apart."""
    if not LISTS.match(document.at("kind").text() or ""):
        yield document
        return
    if depth > 3:
        raise Unreadable(source.name, "lists within lists", document.line)
    for item in document.at("items").sequence:
        yield from _things(item, source, depth + 1)


def _thing(thing: Node) -> Scene:
    kind = thing.at("kind").text() or ""
    name = thing.at("metadata", "name").text() or "(no name)"
    if kind in PODS:
        return Scene(workloads=(_workload(kind, name, thing),))
    if kind == "Service":
        return Scene(services=(_service(name, thing),))
    if kind == "Ingress":
        return Scene(ingresses=(_ingress(name, thing),))
    if kind == "ConfigMap":
        return Scene(configs=(Config(name, thing.at("data").pairs()),))
    return Scene()


def _workload(kind: str, name: str, thing: Node) -> Workload:
    pod = thing.at(*PODS[kind])
    spec, meta = pod.at("spec"), pod.at("metadata")
    replicas = thing.at("spec", "replicas").number()
    strategy = thing.at("spec", "updateStrategy" if kind != "Deployment" else "strategy")
    return Workload(
        platform="kubernetes",
        kind=kind,
        name=name,
        place=thing.at("metadata", "name").place,
        grace=_grace(spec, whole=_is_whole(spec)),
        processes=tuple(_processes(spec)),
        replicas=1 if replicas is None else int(replicas),
        strategy=strategy.at("type").fact(),
        max_unavailable=strategy.at("rollingUpdate", "maxUnavailable").fact(),
        labels=meta.at("labels").texts(),
        notes=_notes(meta),
    )


def _notes(meta: Node) -> dict[str, Fact[str]]:
    both = {**meta.at("labels").mapping, **meta.at("annotations").mapping}
    return {key: fact for key, node in both.items() if (fact := node.fact()) is not None}


def _is_whole(spec: Node) -> bool:
    """Whether this is a pod; a patch, for kustomize, has only what it changes."""
    names = ("image", "command", "args")
    return any(c.at(name).there for c in spec.at("containers").sequence for name in names)


def _grace(spec: Node, *, whole: bool) -> Grace | None:
    """Return the grace period, None where another file or a variable has it."""
    node = spec.at("terminationGracePeriodSeconds")
    seconds = plain(node.text())
    written = node.there and seconds is not None
    if not written and (node.there or not whole):
        return None
    return Grace(
        "terminationGracePeriodSeconds",
        KUBERNETES_GRACE.value if seconds is None else seconds,
        node.place,
        written,
    )


def _processes(spec: Node) -> Iterator[Process]:
    for container in spec.at("initContainers").sequence:
        if container.at("restartPolicy").text() == "Always":
            yield _process(container, native=True)
    for container in spec.at("containers").sequence:
        yield _process(container, native=False)


def _process(container: Node, *, native: bool) -> Process:
    command, arguments = container.at("command"), container.at("args")
    written = command if command.there else arguments
    words = (*command.strings(), *arguments.strings())
    place = _place_of_words(command.sequence, arguments.sequence, written)
    return Process(
        name=container.at("name").text() or "",
        place=container.place,
        image=container.at("image").text() or "",
        command=of_arguments(words, place.place),
        arguments=() if command.sequence else arguments.strings(),
        env=_env(container.at("env").sequence),
        config_maps=tuple(
            name
            for item in container.at("envFrom").sequence
            if (name := item.at("configMapRef", "name").text())
        ),
        readiness=_probe(container.at("readinessProbe")),
        liveness=_probe(container.at("livenessProbe")),
        pre_stop=_pre_stop(container.at("lifecycle", "preStop")),
        stop_signal=container.at("lifecycle", "stopSignal").fact(),
        ports=_ports(container.at("ports").sequence),
        native_sidecar=native,
    )


def _place_of_words(command: list[Node], arguments: list[Node], written: Node) -> Node:
    """The line of the key, or of the only word where there is one: what a person would look at."""
    words = [*command, *arguments]
    return words[0] if len(words) == 1 else written


def _env(entries: Iterable[Node]) -> dict[str, Fact[str | None]]:
    return {
        name: Fact(entry.at("value").text(), entry.place)
        for entry in entries
        if (name := entry.at("name").text())
    }


def _ports(entries: Iterable[Node]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        number = entry.at("containerPort").text()
        if number:
            found[entry.at("name").text() or number] = number
            found[number] = number
    return found


def _probe(node: Node) -> Probe | None:
    if not node.there or not node.mapping:
        return None
    http = node.at("httpGet")
    kind = "exec"
    for candidate in ("httpGet", "tcpSocket", "grpc"):
        if node.at(candidate).there:
            kind = candidate
    period, failures = node.at("periodSeconds").number(), node.at("failureThreshold").number()
    return Probe(
        place=node.place,
        kind={"httpGet": "http", "tcpSocket": "tcp", "grpc": "grpc"}.get(kind, "exec"),  # type: ignore[arg-type]
        path=http.at("path").fact()
        if http.at("path").there
        else Fact("/", http.place)
        if http.there
        else None,
        port=node.at(kind, "port").text() or "",
        period=KUBERNETES_PERIOD.value if period is None else period,
        failures=int(KUBERNETES_FAILURES.value if failures is None else failures),
    )


def _pre_stop(node: Node) -> Fact[float | None] | None:
    if not node.there:
        return None
    seconds = node.at("sleep", "seconds")
    if seconds.there:
        return Fact(plain(seconds.text()), seconds.place)
    words = node.at("exec", "command")
    found = [float(part) for part in _SLEEP.findall(" ".join(words.strings())[:8_000])]
    return Fact(sum(found) if found else None, words.place if words.there else node.place)


def _service(name: str, thing: Node) -> Service:
    spec = thing.at("spec")
    ports = spec.at("ports").sequence
    said = " ".join(
        f"{port.at('name').text() or ''} {port.at('appProtocol').text() or ''}" for port in ports
    )
    return Service(
        name,
        thing.at("metadata", "name").place,
        headless=spec.at("clusterIP").text() == "None",
        grpc="grpc" in said.lower(),
        selector=spec.at("selector").texts(),
        notes=_notes(thing.at("metadata")),
    )


def _ingress(name: str, thing: Node) -> Ingress:
    services = {thing.at("spec", "defaultBackend", "service", "name").text()}
    for rule in thing.at("spec", "rules").sequence:
        for path in rule.at("http", "paths").sequence:
            services.add(path.at("backend", "service", "name").text())
            services.add(path.at("backend", "serviceName").text())
    return Ingress(
        name,
        thing.at("metadata", "name").place,
        tuple(sorted(service for service in services if service)),
        thing.at("spec", "ingressClassName").text() or "",
        _notes(thing.at("metadata")),
    )
