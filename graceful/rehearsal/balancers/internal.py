"""`internal`: a balancer of requests inside the client, as an HTTP proxy is one.

It probes every instance, keeps a pool of connections to each, and takes the instances of its
rotation in turn. It never sends a request a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from ..instances import Instance
from ..plan import Plan
from ..readiness import Answer, probe
from ..rotation import Rotation
from .base import PATIENCE, Route

__all__ = ["InternalBalancer", "ProbedRotation"]

LOOK: Final = 0.05
"""Seconds between two looks at whether a rotation has become steady."""


class ProbedRotation:
    """A rotation with the probes that move it."""

    def __init__(self, plan: Plan, instances: Sequence[Instance]) -> None:
        """The options are those of the plan; nothing runs before `start`."""
        names = [instance.name for instance in instances]
        self.rotation = Rotation(names, fall=plan.fall, rise=plan.rise, lag=plan.lag)
        self._plan = plan
        self._instances = instances
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to probe."""
        self._tasks = [asyncio.create_task(self._watch(i)) for i in self._instances]

    async def close(self) -> None:
        """End the probes."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, instance: Instance) -> None:
        interval = self._plan.probe_interval
        while True:
            answer = await probe(instance.port, self._plan.readiness_path, timeout=PATIENCE)
            ok = answer is Answer.READY
            self.rotation.observe(instance.name, ok=ok, now=time.monotonic())
            await asyncio.sleep(interval)

    async def until_steady(self, instance: str) -> None:
        """Wait until `instance` is in the rotation and stays there as far as is known."""
        # A lag passes without an event: the rotation is a function of the time.
        while not self.rotation.steady(instance, time.monotonic()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    def members(self) -> list[str]:
        """The instances that may be chosen now."""
        return self.rotation.members(time.monotonic())

    def choose(self) -> str | None:
        """The next instance in turn, None if nobody is left."""
        return self.rotation.choose(time.monotonic())


class InternalBalancer:
    """Balances requests over per-instance pools."""

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        """`folder` stays empty."""
        self._keepalive = plan.client_keepalive
        self._origins = {i.name: f"http://127.0.0.1:{i.port}" for i in instances}
        self._probed = ProbedRotation(plan, instances)
        self.start = self._probed.start
        self.close = self._probed.close
        self.until_steady = self._probed.until_steady

    def connector(self, *, kept_alive: bool) -> aiohttp.BaseConnector:
        """Make a connector; it pools by host and port, which is by instance."""
        if kept_alive:
            return aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keepalive)
        return aiohttp.TCPConnector(limit=0, force_close=True)

    def route(self) -> Route | None:
        """Choose the next instance in turn."""
        name = self._probed.choose()
        return Route(self._origins[name], name) if name else None

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Nothing to learn: the instance was chosen here."""

    async def rotation(self) -> Sequence[str]:
        """The instances that may be chosen now."""
        return self._probed.members()
