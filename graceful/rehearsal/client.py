"""The HTTP client's sessions: through the balancer, cheap, and without any retry.

Also what every part of the load shares: the clock of the run and the fleet of instances.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from .balancers import Balancer
from .instances import Instance
from .plan import Plan

__all__ = ["Fleet", "Sessions", "Sigterm", "WebSocket", "open_sessions"]


class WebSocket(aiohttp.ClientWebSocketResponse):
    """A WebSocket that keeps the head of its 101: a balancer may say in it who answered."""

    def __init__(
        self,
        reader: Any,
        writer: Any,
        protocol: str | None,
        response: aiohttp.ClientResponse,
        *rest: Any,
        **options: Any,
    ) -> None:
        """As aiohttp calls it."""
        super().__init__(reader, writer, protocol, response, *rest, **options)
        self.headers = response.headers


@dataclass(frozen=True)
class Sessions:
    """One session per way of using connections."""

    kept_alive: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


def _session(balancer: Balancer, *, kept_alive: bool) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=balancer.connector(kept_alive=kept_alive),
        cookie_jar=aiohttp.DummyCookieJar(),
        ws_response_class=WebSocket,
        headers={"user-agent": "graceful-rehearse"},
        timeout=aiohttp.ClientTimeout(total=None),  # requests bring their own
    )
    # aiohttp sends an idempotent request again when a reused connection turns out to be closed,
    # and has no public switch for it. Tested with 3.14.5.
    session._retry_connection = False
    return session


@contextlib.asynccontextmanager
async def open_sessions(balancer: Balancer) -> AsyncGenerator[Sessions]:
    """Open the sessions and close them, with all their connections."""
    async with (
        _session(balancer, kept_alive=True) as kept_alive,
        _session(balancer, kept_alive=False) as fresh,
    ):
        yield Sessions(kept_alive, fresh)


@dataclass(frozen=True)
class Sigterm:
    """When the process of a restart was told to stop."""

    restart: int
    at: float
    """Clock time."""


class Fleet:
    """The instances by name, and the time of the run."""

    def __init__(self, plan: Plan, instances: Sequence[Instance]) -> None:
        """The clock starts now."""
        self.plan = plan
        self.instances = instances
        self.latest: Sigterm | None = None
        """The latest SIGTERM of all."""
        self.first_ready: dict[str, float] = {}
        """Instance → when its first process was ready; a later one's is in its restart."""
        self._sigterms: dict[tuple[str, int], Sigterm] = {}
        self._by_name = {instance.name: instance for instance in instances}
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the start of the rehearsal."""
        return time.monotonic() - self._began

    def get(self, name: str | None) -> Instance | None:
        """The instance called `name`, if there is one."""
        return self._by_name.get(name) if name else None

    def sigterm(self, instance: Instance) -> Sigterm:
        """Send SIGTERM to `instance` and note when: a restart has begun."""
        told = self._note(instance)
        instance.terminate()
        return told

    def reload(self, instance: Instance) -> Sigterm:
        """Send the signal on which `instance` replaces its workers; a new life has begun."""
        told = self._note(instance)
        instance.reload()
        return told

    def _note(self, instance: Instance) -> Sigterm:
        number = self.latest.restart + 1 if self.latest else 1
        self.latest = Sigterm(number, self.now())
        self._sigterms[instance.name, instance.life] = self.latest
        return self.latest

    def sigterm_of(self, name: str | None, life: int) -> Sigterm | None:
        """The SIGTERM that process `life` of an instance has been sent, if it has."""
        return self._sigterms.get((name, life)) if name else None
