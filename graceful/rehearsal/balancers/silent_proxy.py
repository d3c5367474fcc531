"""Proxies that tell nobody whom they choose: found out from who answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from ..instances import Instance, reserved_ports
from ..plan import Plan
from .base import Route
from .proxy import INSTANCE_HEADER, LOOK, Proxy

__all__ = ["SilentProxy"]

RECENT: Final = 1.0
"""Seconds since its last answer in which an instance counts as chosen."""


class SilentProxy(Proxy):
    """A proxy whose answers name the address of the instance in `x-instance`."""

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        super().__init__(plan, instances, folder)
        self._ports = contextlib.ExitStack()
        self._answered: dict[str, float] = {}
        self._ready: set[str] = set()
        self._names = {f"127.0.0.1:{i.port}": i.name for i in instances}

    def take_port(self) -> int:
        """Choose the port that it listens on."""
        (port,) = self._ports.enter_context(reserved_ports(1))
        self._origin = f"http://127.0.0.1:{port}"
        return port

    async def close(self) -> None:
        await super().close()
        self._ports.close()

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Read which instance it was; of several that were tried the last one."""
        address = headers.get(INSTANCE_HEADER, "").rpartition(", ")[2]
        route.instance = self._names.get(address)
        if route.instance is not None:
            self._answered[route.instance] = time.monotonic()

    async def is_up(self) -> bool:
        self._ready |= await self._ask()
        return len(self._ready) == len(self._instances)

    async def run(self, *arguments: str, **options: Any) -> None:
        """Start it, and wait until every instance has been probed and is still chosen."""
        await super().run(*arguments, **options)
        for instance in self._instances:
            await self.until_steady(instance.name)

    async def until_steady(self, instance: str) -> None:
        """Wait until it answers, and again an interval later: a first probe may still change that.

        Only answers to our own questions count.
        """
        await self._until_chosen(instance)
        await asyncio.sleep(self._plan.probe_interval)
        await self._until_chosen(instance)

    async def _until_chosen(self, instance: str) -> None:
        while instance not in await self._ask():
            self.check_alive()
            await asyncio.sleep(LOOK / len(self._instances))

    async def _ask(self) -> set[str]:
        """Ask for readiness through the proxy, once for each instance; who said 'ready'."""
        ready: set[str] = set()
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for _ in self._instances:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with session.get(self._origin + self._plan.readiness_path) as response:
                        route = Route(self._origin)
                        self.answered(route, response.headers)
                        if response.ok and route.instance is not None:
                            ready.add(route.instance)
        return ready

    async def rotation(self) -> Sequence[str]:
        """Who has answered of late."""
        self.check_alive()
        now = time.monotonic()
        return [name for name, at in self._answered.items() if now - at < RECENT]
