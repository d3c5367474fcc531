"""ECS task definitions, as JSON or YAML: containers, stopTimeout, who depends on whom.

Also those of a CloudFormation template, whose names begin with a capital.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...core.platforms import ECS_GRACE
from ..commands import of_arguments
from ..model import Fact, Grace, Process, Scene, Workload
from ..source import Source
from ..units import plain
from ..yamltree import Node, documents

__all__ = ["scene"]


def scene(source: Source) -> Scene:
    """Return the task definitions of a file.

    Raises:
        Unreadable: it is neither JSON nor YAML, or too much of it.
    """
    return Scene(
        workloads=tuple(_task(task) for document in documents(source) for task in _tasks(document))
    )


def _tasks(document: Node) -> Iterator[Node]:
    """A task definition, as it is registered or as `describe-task-definition` returns it."""
    for node in (document, document.at("taskDefinition"), *document.sequence):
        if node.at("containerDefinitions").there:
            yield node
    for resource in document.at("Resources").mapping.values():
        if resource.at("Type").text() == "AWS::ECS::TaskDefinition":
            yield _uncapitalized(resource.at("Properties"))


def _uncapitalized(node: Node) -> Node:
    """Return what CloudFormation has in the spelling of the API; `Ref` and the like say nothing."""
    mapping = {k[:1].lower() + k[1:]: _uncapitalized(v) for k, v in node.mapping.items()}
    return replace(node, mapping=mapping, sequence=[_uncapitalized(v) for v in node.sequence])


def _task(task: Node) -> Workload:
    family = task.at("family")
    compatible = task.at("requiresCompatibilities").strings()
    return Workload(
        platform="ecs",
        kind="task",
        name=family.text() or "(no family)",
        place=family.place,
        grace=None,
        processes=tuple(map(_process, task.at("containerDefinitions").sequence)),
        fargate="FARGATE" in compatible,
    )


def _process(node: Node) -> Process:
    entry, command = node.at("entryPoint"), node.at("command")
    stop = node.at("stopTimeout")
    seconds = plain(stop.text())
    ports = [item.at("containerPort").text() for item in node.at("portMappings").sequence]
    return Process(
        name=node.at("name").text() or "",
        place=node.at("name").place if node.at("name").there else node.place,
        image=node.at("image").text() or "",
        command=of_arguments(
            (*entry.strings(), *command.strings()), (command if command.there else entry).place
        ),
        env={
            name: Fact(item.at("value").text(), item.place)
            for item in node.at("environment").sequence
            if (name := item.at("name").text())
        },
        ports={port: port for port in ports if port},
        grace=None  # a parameter: {"Ref": "StopTimeout"}
        if stop.there and seconds is None
        else Grace(
            "stopTimeout",
            ECS_GRACE.value if seconds is None else seconds,
            stop.place if stop.there else node.at("name").place,
            stop.there and seconds is not None,
        ),
        depends_on=tuple(
            name
            for item in node.at("dependsOn").sequence
            if (name := item.at("containerName").text())
        ),
    )
