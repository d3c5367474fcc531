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
from .instances import Instance, Phase
from .plan import Plan

__all__ = ["Fleet", "Sessions", "WebSocket", "open_sessions"]


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


class Fleet:
    """The instances by name, and the time of the run."""

    def __init__(self, plan: Plan, instances: Sequence[Instance]) -> None:
        """The clock starts now."""
        self.plan = plan
        self.instances = instances
        self.restarts_begun = 0
        self.last_sigterm: float | None = None
        """Clock time of the latest SIGTERM of all."""
        self._by_name = {instance.name: instance for instance in instances}
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the start of the rehearsal."""
        return time.monotonic() - self._began

    def get(self, name: str | None) -> Instance | None:
        """The instance called `name`, if there is one."""
        return self._by_name.get(name) if name else None

    def sigterm(self, instance: Instance) -> int:
        """Send SIGTERM to `instance`, note when, and return the number of this restart."""
        self.restarts_begun += 1
        instance.restart = self.restarts_begun
        instance.sigterm_at = self.last_sigterm = self.now()
        instance.terminate()
        return self.restarts_begun

    def serving(self, instance: Instance) -> None:
        """The restart of `instance` is over."""
        instance.sigterm_at = None
        instance.phase = Phase.SERVING
