"""What a rehearsal asks of a balancer. One module each implements it; nothing else knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from ..instances import Instance
from ..plan import Plan

__all__ = ["PATIENCE", "Balancer", "BalancerFactory", "Route"]

PATIENCE: Final = 5.0
"""Seconds until a probe without an answer has failed. Long: on a busy machine both instances may be
late at once, and a rotation that is empty for that loses requests which no instance has lost."""


@dataclass(slots=True)
class Route:
    """Where one request goes."""

    origin: str
    """Scheme, host and port of the URL."""
    instance: str | None = None
    """The instance chosen, as soon as it is known."""


class Balancer(Protocol):
    """Stands between the load and the instances; never sends a request twice."""

    async def start(self) -> None:
        """Begin to probe and to balance; all instances are ready.

        Raises:
            RehearsalError: it can't be had.
        """
        ...

    async def close(self) -> None:
        """End everything that `start` has begun."""
        ...

    def connector(self, *, kept_alive: bool) -> aiohttp.BaseConnector:
        """Make a connector for the load's sessions, with or without reuse of connections."""
        ...

    def route(self) -> Route | None:
        """Say where the next request goes; None = no instance is left. Called in its task."""
        ...

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Take note of a response's head, in case it says who answered."""
        ...

    async def until_steady(self, instance: str) -> None:
        """Wait until `instance` is (back) in the rotation and stays there as far as is known."""
        ...

    async def rotation(self) -> Sequence[str]:
        """The instances that may be chosen now."""
        ...


class BalancerFactory(Protocol):
    """How a balancer is made; `folder` is for its files."""

    def __call__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> Balancer:
        """Make it; nothing runs before `start`."""
        ...
