"""The standard health service, kept in step with the phase of the process and its checks.

Only public names: `set` and `enter_graceful_shutdown`, which is permanent, so it is for stops; an
operator's lame duck, which can be taken back, sets each service by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import anyio

from graceful.core.phases import Phase
from graceful.core.records import PhaseChanged, Record
from graceful.driver import Hook, call
from graceful.lifecycle import Lifecycle
from graceful.loops import Loop
from graceful.probes import Probes

__all__ = ["Health"]

ROUND: Final = 1.0
"""Seconds between two rounds of checks, whose answers are kept for as long."""

FLIP_LIMIT: Final = 1.0
"""Seconds after which other hooks run beside a flip that a watching client holds up."""

SERVING: Final = 1
NOT_SERVING: Final = 2
"""`grpc.health.v1.HealthCheckResponse.ServingStatus`, whose numbers are those of the protocol."""


class Health:
    """One `HealthServicer`, sync or aio, that follows the lifecycle.

    Args:
        servicer: None = there is none, and nothing is done.
        services: names whose status is ours; "" is the server as a whole.
        loop: where the servicer is called.
        probes: what readiness would answer.
        asks: there are checks, so that the answer changes by itself.
    """

    def __init__(
        self,
        servicer: Any,
        services: Sequence[str],
        lifecycle: Lifecycle,
        loop: Loop,
        probes: Probes,
        asks: bool,
    ) -> None:
        self._servicer = servicer
        self._services = [services] if isinstance(services, str) else list(services)
        self._lifecycle = lifecycle
        self._loop = loop
        self._probes = probes
        self._asks = asks
        self._status: int | None = None
        self._one_at_a_time = anyio.Lock()

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The flip, before the hooks of the user's."""
        return (Hook("lame_duck", self.follow, FLIP_LIMIT),) if self._servicer is not None else ()

    def observe(self, record: Record) -> None:
        """Flip at once when the phase says so, also if another app's hooks take their time."""
        if self._servicer is not None and isinstance(record, PhaseChanged):
            self._loop.soon(lambda: self._loop.spawn(self.follow))

    def start(self) -> None:
        """Serve; with checks, keep asking them."""
        if self._servicer is not None:
            self._loop.soon(lambda: self._loop.spawn(self._keep_asking))

    async def follow(self) -> None:
        """Say what the phase says; permanently, once the process has been told to stop.

        One call waits for another: a servicer that is being flipped already returns at once, and
        the hooks of the user's would find it healthy.
        """
        async with self._one_at_a_time:
            core = self._lifecycle.core
            stopping = core.cause is not None or core.traits.stopping
            if core.phase is not Phase.STARTING and stopping:
                self._status = NOT_SERVING
                await call(self._servicer.enter_graceful_shutdown)
            else:
                reply = await self._probes.readiness(core)
                await self._set(SERVING if reply.status == 200 else NOT_SERVING)

    async def _set(self, status: int) -> None:
        if status != self._status:
            self._status = status
            for service in self._services:
                await call(self._servicer.set, service, status)

    async def _keep_asking(self) -> None:
        core = self._lifecycle.core
        while core is self._lifecycle.core and core.cause is None and not core.traits.stopping:
            await self.follow()
            if not self._asks:
                return
            await anyio.sleep(ROUND)
