"""docker compose: services, what they run, and how long `docker stop` waits for them."""

from __future__ import annotations

from ...core.platforms import DOCKER_GRACE
from ..commands import of_arguments, split
from ..model import Command, Fact, Grace, Process, Scene, Workload
from ..source import Source
from ..units import go
from ..yamltree import Node, documents

__all__ = ["scene"]


def scene(source: Source) -> Scene:
    """Return the services.

    Raises:
        Unreadable: it is no YAML, or too much of it.
    """
    return Scene(
        workloads=tuple(
            _service(name, node)
            for document in documents(source)
            for name, node in document.at("services").mapping.items()
        )
    )


def _service(name: str, node: Node) -> Workload:
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
        grace=Grace(
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
