"""docker compose: services, what they run, and how long `docker stop` waits for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...core.platforms import DOCKER_GRACE
from ..commands import of_arguments, split
from ..model import Command, Fact, Grace, Process, Scene, Workload
from ..source import Source, Unreadable
from ..units import go
from ..yamltree import MAX_NODES, Node, documents

__all__ = ["scene"]


def scene(source: Source) -> Scene:
    """Return the services.

    Raises:
        Unreadable: it is no YAML, or too much of it.
    """
    found: list[Workload] = []
    left = MAX_NODES
    for document in documents(source):
        for name, node in document.at("services").mapping.items():
            merged, elsewhere = _extended(node, document.at("services"))
            left -= len(merged.at(ENV).mapping)
            if left < 0:
                reason = "what services extend has too many variables; check it in parts"
                raise Unreadable(source.name, reason, node.line)
            found.append(_service(name, merged, elsewhere))
    return Scene(workloads=tuple(found))


def _extended(node: Node, services: Node) -> tuple[Node, bool]:
    """Return a service with what it extends, and whether a part of that is in another file."""
    layers, elsewhere = [node], False
    for _ in range(MAX_EXTENDS):
        extends = layers[-1].at("extends")
        if not extends.there:
            break
        name = extends.text() or extends.at("service").text() or ""
        base = services.at(name)
        if extends.at("file").there or not base.there:
            elsewhere = True
            break
        layers.append(base)
    merged = {key: child for layer in reversed(layers) for key, child in layer.mapping.items()}
    return replace(node, mapping={**merged, ENV: _merged_env(layers)}), elsewhere


ENV: Final = "environment"
MAX_EXTENDS: Final = 10
"""Steps from a service to what it extends in the end: they may run in a circle."""


def _merged_env(layers: list[Node]) -> Node:
    """Return the variables as one mapping: a service's own beat those of what it extends."""
    found: dict[str, Node] = {}
    for layer in reversed(layers):
        for name, fact in _env(layer.at(ENV)).items():
            found[name] = Node(fact.place, fact.value)
    return Node(layers[0].place, mapping=found, there=bool(found))


def _service(name: str, node: Node, elsewhere: bool) -> Workload:
    grace = node.at("stop_grace_period")
    seconds = go(grace.text())
    command = _command(node)
    process = Process(
        name=name,
        place=node.place,
        label="service",
        image=node.at("image").text() or "",
        command=command,
        env=_env(node.at("environment")),
        ports=_ports(node),
        stop_signal=node.at("stop_signal").fact(),
        built=node.at("build").there,
    )
    replicas = node.at("deploy", "replicas").number()
    return Workload(
        platform="compose",
        kind="service",
        name=name,
        place=node.place,
        grace=None  # nobody knows, also where a variable stands: ${STOP_GRACE_PERIOD:-30s}
        if seconds is None and (elsewhere or grace.there)
        else Grace(
            "stop_grace_period",
            DOCKER_GRACE.value if seconds is None else seconds,
            grace.place,
            grace.there and seconds is not None,
        ),
        processes=(process,),
        replicas=None if replicas is None else int(replicas),
    )


def _command(node: Node) -> Command | None:
    """Return what a service starts: compose splits a string itself, without a shell."""
    entry, command = node.at("entrypoint"), node.at("command")
    words = [*_words(entry), *_words(command)]
    return of_arguments(words, (command if command.there else entry).place)


def _words(node: Node) -> tuple[str, ...]:
    text = node.text()
    return node.strings() if text is None else tuple(split(text))


def _env(node: Node) -> dict[str, Fact[str | None]]:
    if node.mapping:
        return {name: Fact(_known(fact.value), fact.place) for name, fact in node.pairs().items()}
    found: dict[str, Fact[str | None]] = {}
    for item in node.sequence:
        name, equals, value = (item.text() or "").partition("=")
        found[name] = Fact(_known(value) if equals else None, item.place)
    return found


def _known(value: str | None) -> str | None:
    """A value that compose fills in from elsewhere is not known here."""
    return None if value is None or "$" in value.replace("$$", "") else value


def _ports(node: Node) -> dict[str, str]:
    numbers = [
        (item.text() or item.at("target").text() or "") for item in node.at("ports").sequence
    ]
    inside = [number.rpartition(":")[2].partition("/")[0] for number in numbers]
    return {number: number for number in inside if number}
